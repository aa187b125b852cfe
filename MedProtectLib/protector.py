"""The path: window, regions, method, bound, quantise, measure, for one volume in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from MedProtectLib.errors import MedProtectError, UsageError
from MedProtectLib.levels import Levels, find_levels, find_padding
from MedProtectLib.methods import Case, Component, Method, method_class
from MedProtectLib.methods.base import CONTEXT
from MedProtectLib.profile import Profile, shipped_profile
from MedProtectLib.progress import Report, ignore
from MedProtectLib.quantise import energy_budget, on_binary_grid, quantise
from MedProtectLib.regions import Regions, find_regions, grown
from MedProtectLib.statistics import Statistics, measure
from MedProtectLib.volume import Geometry, LabelMap, Volume
from MedProtectLib.window import IntensityWindow, check_window, choose_window

DEFAULT_BOUND = 4 / 255
LARGEST_BOUND = 32 / 255
LEVELS_ADVISED = 2


class Components(Mapping[str, np.ndarray]):
    """The stored change, split by component and laid on the image's grid when asked for.

    Every value is a float32 array (k, j, i) or (k, j, i, c) in window units; their sum is the whole change.
    """

    def __init__(self, change: np.ndarray, masks: Mapping[str, np.ndarray], regions: Regions, shape: tuple[int, ...]) -> None:
        self._change, self._masks, self._regions, self._shape = change, masks, regions, shape

    def __getitem__(self, name: str) -> np.ndarray:
        mask = self._masks[name].reshape(self._masks[name].shape + (1,) * (self._change.ndim - 3))
        return self._regions.on_grid(self._change * mask, self._shape)

    def where(self, name: str) -> np.ndarray:
        """Bool (k, j, i): where the component may act."""
        return self._regions.on_grid(self._masks[name], self._shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._masks)

    def __len__(self) -> int:
        return len(self._masks)


@dataclass(frozen=True)
class Protection:
    """A protected volume with everything that was decided on the way.

    ``counts`` holds the change of every voxel of the regions' box in whole levels of ``step`` stored units, int32
    (k, j, i) or (k, j, i, c). ``notices`` are one-line remarks for the user (guesses), ``warnings`` things to act on.
    """

    volume: Volume
    original: Volume
    window: IntensityWindow
    regions: Regions
    counts: np.ndarray = field(repr=False)
    step: float
    components: Components = field(repr=False)
    bound: float
    target_psnr: float | None
    profile: Profile = field(repr=False)
    notices: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def statistics(self) -> Statistics:
        """Measured on the volume in memory; the record of a written file holds the same measured on the file."""
        return measure(self.original, self.volume, self.regions, self.window, self.bound)


class Protector:
    """Protects volumes with one fitted method.

    Args:
        method: name of a method; its shipped public profile for the image's dimension is used.
        profile: a fitted profile of one's own, instead.
        bound: largest change in window units; the profile's when None.
        target_psnr: whole-image PSNR in dB to come down to where the bound allows more than that, None for the full bound.
        modality: 'CT', 'MR', 'US' or 'XR', which picks the window rule; guessed from the data when None.
        window: (low, high) in the image's own units, instead of the rule.
        seed: breaks ties between equal wishes; the profile's when None.

    Raises:
        UsageError: unknown method, bound not in (0, 32/255], target PSNR that is no positive number.
    """

    def __init__(
        self,
        method: str = "umed",
        profile: Profile | None = None,
        bound: float | None = None,
        target_psnr: float | None = None,
        modality: str | None = None,
        window: Sequence[float] | None = None,
        seed: int | None = None,
    ) -> None:
        method_class(method if profile is None else profile.method)
        check_bound(bound)
        if target_psnr is not None and not (0 < target_psnr < float("inf")):
            raise UsageError(f"target PSNR {target_psnr:g}: give a positive number of dB, such as 50.1.")
        if window is not None:
            check_window(window)
        self.method_name, self.given_profile = method if profile is None else profile.method, profile
        self.bound, self.target_psnr, self.modality, self.window, self.seed = bound, target_psnr, modality, window, seed
        self._fitted: dict[int, tuple[Profile, Method]] = {}

    @classmethod
    def from_profile(cls, path: str | Path, **options: object) -> Protector:
        """A protector with a profile from a file; options as for the constructor."""
        return cls(profile=Profile.load(path), **options)  # type: ignore[arg-type]

    def fitted(self, dimension: int) -> tuple[Profile, Method]:
        """The profile and the method that a volume of 2 or 3 dimensions is protected with.

        Raises:
            MedProtectError: there is none for this dimension, or the profile does not fit its method.
        """
        if dimension not in self._fitted:
            profile = self.given_profile or self._shipped(dimension)
            if profile.dimension > dimension:
                raise MedProtectError("the profile was fitted on volumes and cannot protect a single picture. Fit one on pictures.")
            try:
                fitted = method_class(profile.method).restore(profile.settings, profile.tensors)
            except (KeyError, TypeError, ValueError, RuntimeError) as error:
                raise MedProtectError(f"the profile's tensors do not fit its method '{profile.method}'. Fit it again.") from error
            self._fitted[dimension] = profile, fitted
        return self._fitted[dimension]

    def seed_for(self, profile: Profile) -> int:
        """The seed that is used with a profile."""
        return profile.seed if self.seed is None else self.seed

    def _shipped(self, dimension: int) -> Profile:
        path = shipped_profile(self.method_name, dimension)
        if path is None:
            raise MedProtectError(
                f"no profile comes with method '{self.method_name}' in {dimension}D. Fit one with 'medprotect fit' and use --profile."
            )
        return Profile.load(path)

    def protect(self, volume: Volume, labels: LabelMap, report: Report = ignore) -> Protection:
        """Protect one volume.

        Args:
            volume: the image; it is not modified.
            labels: its segments, resampled to the image's grid where they lie on another.

        Raises:
            MedProtectError: nothing is labelled, labels elsewhere in space, constant image, bound below one stored level.
        """
        profile, method = self.fitted(volume.geometry.dimension)
        bound = self.bound if self.bound is not None else profile.bound

        labels, notices = on_grid_of(volume.geometry, labels)
        classes = labels.classes()
        padding = find_padding(volume)
        regions = find_regions(classes > 0, method.half_width, method.planar, padding)
        window = choose_window(volume, regions, self.modality or profile.modality, self.window or profile.window)
        levels = find_levels(volume, padding, bound * window.width / abs(volume.slope))
        warnings = check_levels(bound, window, levels, volume)

        parts = [method.perturb(channel_case(volume, c, classes, regions, window), bound, report) for c in volume.intensity_channels]
        counts = self._quantise(parts, volume, regions, window, levels, self.seed_for(profile))
        protected = apply_counts(volume, regions, counts, levels)

        masks = {name: parts[0][name].limit > 0 for name in method.component_names}
        change = (counts * (levels.step * abs(volume.slope) / window.width)).astype(np.float32)
        if window.guessed:
            notices += (f"intensity window {window.low:g} to {window.high:g} ({window.rule}); --modality or --window overrides.",)
        return Protection(
            volume=protected,
            original=volume,
            window=window,
            regions=regions,
            counts=counts,
            step=levels.step,
            components=Components(change, masks, regions, volume.geometry.shape),
            bound=bound,
            target_psnr=self.target_psnr,
            profile=profile,
            notices=notices,
            warnings=warnings + public_warning(profile),
        )

    def _quantise(
        self, parts: Sequence[Mapping[str, Component]], volume: Volume, regions: Regions, window: IntensityWindow, levels: Levels, seed: int
    ) -> np.ndarray:
        """Whole-level changes on the regions' box for all channels together, so that a PSNR target holds for the image."""
        width_in_levels = window.width / (levels.step * abs(volume.slope))
        touched = regions.touched
        stored = [volume.channel(c)[regions.box][touched] for c in volume.intensity_channels]
        delta = on_binary_grid(np.stack([np.sum([p.values for p in part.values()], axis=0)[touched] for part in parts], axis=-1))
        limit = np.stack([np.sum([p.limit for p in part.values()], axis=0)[touched] for part in parts], axis=-1).astype(np.float64)
        upwards = delta * np.sign(volume.slope) > 0
        room = np.stack([levels.room(s, upwards[:, n]) for n, s in enumerate(stored)], axis=-1)
        ceiling = np.minimum(np.floor(limit * width_in_levels * (1 + 1e-6)), room)
        values = int(np.prod(volume.geometry.shape)) * len(stored)
        budget = None if self.target_psnr is None else energy_budget(self.target_psnr, values, width_in_levels)
        counts = quantise((delta * width_in_levels).ravel(), ceiling.ravel(), seed, budget).reshape(delta.shape)
        on_box = np.zeros((*touched.shape, len(stored)), np.int32)
        on_box[touched] = counts
        return on_box[..., 0] if volume.array.ndim == 3 else on_box


def on_grid_of(geometry: Geometry, labels: LabelMap) -> tuple[LabelMap, tuple[str, ...]]:
    """The labels on the image's grid, and a notice when they had to be resampled."""
    if labels.geometry.same_grid(geometry):
        return labels, ()
    from MedProtectLib.io import resample_labels

    return resample_labels(labels, geometry), (
        f"{labels.name}: the labels lie on another grid than the image and were resampled to it (nearest).",
    )


def channel_case(volume: Volume, channel: int, classes: np.ndarray, regions: Regions, window: IntensityWindow) -> Case:
    """What a method sees of one channel: the regions' box with its context, in window units."""
    context = grown(regions.box, (CONTEXT, CONTEXT, CONTEXT), volume.geometry.shape)
    image = window.normalise(volume.in_units(volume.channel(channel)[context]))
    return Case(image, classes[context], regions, context)


def apply_counts(volume: Volume, regions: Regions, counts: np.ndarray, levels: Levels) -> Volume:
    """A copy of the volume with whole-level changes; voxels that do not change keep their bits."""
    array = volume.array.copy()
    for n, c in enumerate(volume.intensity_channels):
        part = (array if array.ndim == 3 else array[..., c])[regions.box]
        change = counts if counts.ndim == 3 else counts[..., n]
        moved = change != 0
        part[moved] = levels.shift(part[moved], change[moved] * (1 if volume.slope > 0 else -1))
    return volume.with_array(array)


def check_bound(bound: float | None) -> None:
    """Raises UsageError unless the bound is None or in (0, 32/255]."""
    if bound is not None and not 0 < bound <= LARGEST_BOUND * (1 + 1e-9):
        raise UsageError(f"bound {bound:g}: give a fraction of the window above 0 and up to 32/255, such as 4/255.")


def check_levels(bound: float, window: IntensityWindow, levels: Levels, volume: Volume) -> tuple[str, ...]:
    """A warning when the bound spans fewer than two stored levels.

    Raises:
        MedProtectError: it spans less than one, so that nothing could be written.
    """
    spanned = bound * window.width / (levels.step * abs(volume.slope))
    needed = levels.step * abs(volume.slope) / window.width * 255
    if spanned < 1:
        raise MedProtectError(
            f"{volume.name}: the bound of {bound * 255:.3g}/255 is {spanned:.2g} stored levels, so nothing could be written. "
            f"Allow at least --bound {needed:.2g}/255, or keep the image with more levels."
        )
    if spanned < LEVELS_ADVISED:
        return (
            f"the bound of {bound * 255:.3g}/255 is only {spanned:.2g} stored levels: the pattern is coarse and easier to undo. "
            f"Allow {LEVELS_ADVISED * needed:.2g}/255, or protect a version of the image with more levels.",
        )
    return ()


def public_warning(profile: Profile) -> tuple[str, ...]:
    """What to know about a profile that anybody can have."""
    if not profile.public:
        return ()
    return ("a public profile was used: anybody can have it and subtract what it adds. For a release fit your own with 'medprotect fit'.",)


def engine() -> dict[str, str]:
    """What the bytes of a result may depend on besides the input, the profile and the options."""
    import platform

    import torch

    return {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "processor": platform.machine(),
        "processor_features": torch.backends.cpu.get_cpu_capability(),
        "precision": "float32",
        "python": platform.python_version(),
        "system": os.name,
    }
