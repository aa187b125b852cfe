"""From samples to what a network sees: normalisation as nnU-Net's, one size, patches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from monai.transforms import Compose
from torch import Tensor
from torch.nn import functional

from MedProtectLib.audit.data import AuditData, Sample
from MedProtectLib.audit.settings import Setting
from MedProtectLib.errors import MedProtectError
from MedProtectLib.methods.base import SEGMENTATION

FORCED_FOREGROUND = 1 / 3
SMALLEST_DEVIATION = 1e-6

Purifier = Callable[[np.ndarray], np.ndarray]


class Batch(NamedTuple):
    """``images``: (b, c, [k,] j, i), z-scores. ``targets``: int64 (b, 1, [k,] j, i) or (b,). ``units``: (b, c, 1, ...), one window
    unit of every channel in z-scores, so that a change of 2/255 of the window can be made.
    """

    images: Tensor
    targets: Tensor
    units: Tensor


@dataclass(frozen=True)
class Normalisation:
    """z-scores of every channel of an image by its own mean and deviation; for CT those of the training cases' foreground, clipped to
    its window: ``foreground``, by channel.
    """

    foreground: tuple[tuple[float, float], ...] | None = None

    @classmethod
    def of(cls, data: AuditData, samples: Sequence[Sample]) -> Normalisation:
        """The one that a trainer would find on ``samples``.

        Raises:
            MedProtectError: of a CT, where none of the samples has a label.
        """
        if not data.ct or data.task != SEGMENTATION:
            return cls()
        if not any((sample.target > 0).any() for sample in samples):
            raise MedProtectError("none of the cases that a victim would train on has a label. Take more labelled cases in.")
        inside = [np.concatenate([s.image[c][s.target > 0].clip(0.0, 1.0) for s in samples]) for c in range(data.channels)]
        return cls(tuple(_mean_and_deviation(channel) for channel in inside))

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, tuple[float, ...]]:
        """The image in z-scores, float32, and how many of them one window unit of every channel is."""
        if self.foreground is None:
            found = tuple(map(_mean_and_deviation, image))
        else:
            found, image = self.foreground, image.clip(0.0, 1.0)
        units = tuple(1.0 / max(deviation, SMALLEST_DEVIATION) for _, deviation in found)
        scores = [(channel - mean) * unit for channel, (mean, _), unit in zip(image, found, units, strict=True)]
        return np.stack(scores).astype(np.float32), units


def _mean_and_deviation(values: np.ndarray) -> tuple[float, float]:
    return float(values.mean()), float(values.std())


class Prepared(NamedTuple):
    """A sample ready for a network: z-scores (c, [k,] j, i), int64 target (1, [k,] j, i) or (), one window unit of every channel in
    z-scores (c, 1, ...).
    """

    image: Tensor
    target: Tensor
    units: Tensor


@dataclass(frozen=True)
class Preparation:
    """What a trainer does to every image before it reaches the network, in training and when the network is used."""

    setting: Setting
    normalisation: Normalisation
    purifiers: tuple[Purifier, ...] = ()

    def __call__(self, sample: Sample) -> Prepared:
        image = sample.image
        for purify in self.purifiers:
            image = purify(image)
        z, units = self.normalisation(image)
        tensor, target = torch.from_numpy(z), torch.as_tensor(sample.target.copy())
        if self.setting.resized:
            tensor = resized(tensor, self.setting.size)
            if target.ndim:
                target = functional.interpolate(target[None, None].float(), self.setting.size, mode="nearest-exact")[0, 0].long()
        return Prepared(tensor, target[None] if target.ndim else target, torch.tensor(units)[(..., *(None,) * (image.ndim - 1))])


def resized(image: Tensor, size: Sequence[int]) -> Tensor:
    """(c, [k,] j, i) -> (c, *size), linear; shrunk pictures are smoothed first, so that nothing is aliased."""
    if tuple(image.shape[1:]) == tuple(size):
        return image
    mode, antialias = ("bilinear", True) if len(size) == 2 else ("trilinear", False)
    return functional.interpolate(image[None], tuple(size), mode=mode, antialias=antialias)[0]


def draw(samples: Sequence[Prepared], setting: Setting, seed: int, step: int, augment: Compose | None) -> Batch:
    """The batch of a step: drawn with replacement, a third of the patches around the foreground, augmented."""
    rng = np.random.default_rng([seed, step])
    patches = [_patch(samples[int(n)], setting.size, rng) for n in rng.integers(len(samples), size=setting.batch)]
    if augment is not None:
        augment.set_random_state(int(rng.integers(2**31)))
        patches = [_augmented(patch, augment) for patch in patches]
    return Batch(*map(torch.stack, zip(*patches, strict=True)))


def augmented(batch: Batch, augment: Compose) -> Batch:
    """Another draw of the augmentation for every image of a batch."""
    single = [_augmented(Prepared(*each), augment) for each in zip(*batch, strict=True)]
    return Batch(*map(torch.stack, zip(*single, strict=True)))


def _augmented(patch: Prepared, augment: Compose) -> Prepared:
    if not patch.target.ndim:
        out = augment({"image": patch.image, "target": torch.zeros_like(patch.image[:1])})
        return patch._replace(image=_plain(out["image"]))
    out = augment({"image": patch.image, "target": patch.target.float()})
    return patch._replace(image=_plain(out["image"]), target=_plain(out["target"]).round().long())


def _plain(tensor: Tensor) -> Tensor:
    return torch.as_tensor(tensor).as_subclass(Tensor)


def _patch(sample: Prepared, size: Sequence[int], rng: np.random.Generator) -> Prepared:
    """A patch of ``size`` at random, zeros beyond the image."""
    shape = sample.image.shape[1:]
    if tuple(shape) == tuple(size):
        return sample
    starts = [int(rng.integers(min(0, n - edge), max(0, n - edge) + 1)) for n, edge in zip(shape, size, strict=True)]
    if sample.target.ndim and rng.random() < FORCED_FOREGROUND:
        inside = torch.nonzero(sample.target[0])
        if len(inside):
            centre = inside[int(rng.integers(len(inside)))].tolist()
            starts = [
                int(np.clip(c - edge // 2, min(0, n - edge), max(0, n - edge))) for c, n, edge in zip(centre, shape, size, strict=True)
            ]
    target = _cut(sample.target, starts, size) if sample.target.ndim else sample.target
    return sample._replace(image=_cut(sample.image, starts, size), target=target)


def _cut(tensor: Tensor, starts: Sequence[int], size: Sequence[int]) -> Tensor:
    out = tensor.new_zeros((len(tensor), *size))
    source, place = [slice(None)], [slice(None)]
    for start, edge, n in zip(starts, size, tensor.shape[1:], strict=True):
        begin, end = max(0, start), min(n, start + edge)
        source.append(slice(begin, end))
        place.append(slice(begin - start, end - start))
    out[tuple(place)] = tensor[tuple(source)]
    return out
