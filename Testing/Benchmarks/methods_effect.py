"""What a victim learns from data that each method has protected, beside clean data and random noise of equal epsilon.

    python Testing/Benchmarks/methods_effect.py classification breastmnist.npz --bound 8/255 --methods em salm tap sep lsp ar
    python Testing/Benchmarks/methods_effect.py segmentation msd_hippocampus --bound 8/255 --dimension 2 --methods lsp em

classification: a MedMNIST file; the victim trains on its train part and is scored on its test part (balanced accuracy).
segmentation: a Decathlon folder; the first --cases cases fit the method, are protected and train the victim, the next
--test-cases give the score (mean DSC over classes and cases, 1 where a class is absent from label and prediction).
Standard training: no augmentation, no defence. The victim is another network than the surrogate. Test images stay clean.
Prints one JSON line per method and seed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from monai.losses import DiceCELoss
from monai.networks.nets import BasicUNet, DenseNet
from torch import nn

from MedProtectLib import LabelMap, Protector, Volume
from MedProtectLib.cli.options import parameter
from MedProtectLib.fitting.dataset import CaseFiles, find_cases
from MedProtectLib.fitting.fit import FitOptions, fit_in
from MedProtectLib.levels import find_padding
from MedProtectLib.regions import find_regions
from MedProtectLib.window import choose_windows

Pair = tuple[np.ndarray, np.ndarray]


def normalised(volume: Volume, original: Volume, labels: LabelMap) -> np.ndarray:
    """An image (c, k, j, i) in the windows of the original, as a trainer would see it."""
    windows = choose_windows(original, find_regions(labels.classes() > 0, 3, False, find_padding(original)))
    parts = zip(volume.parts(), windows, strict=True)
    return np.stack([own.normalise(part.in_units(part.channel(c))) for part, own in parts for c in part.intensity_channels]).clip(0, 1)


def random_noise(volume: Volume, labels: LabelMap, bound: float, dimension: int, rng: np.random.Generator) -> np.ndarray:
    """The image with +-epsilon at random in the regions, as a method of equal epsilon would touch them."""
    image = normalised(volume, volume, labels)
    regions = find_regions(labels.classes() > 0, 3, dimension == 2, find_padding(volume))
    touched = regions.on_grid(regions.touched, volume.geometry.shape)
    return (image + bound * touched * rng.choice([-1.0, 1.0], image.shape)).clip(0, 1).astype(np.float32)


def protected_cases(
    name: str, cases: Sequence[CaseFiles], bound: float, dimension: int, steps: int, seed: int, parameters: Mapping[str, float]
) -> tuple[list[Pair], float, float]:
    """Images for the victim with their labels, the seconds of the fit and of one case."""
    rng = np.random.default_rng(seed)
    pairs: list[Pair] = []
    fit_s = case_s = 0.0
    protector = None
    if name not in ("clean", "random"):
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            options = FitOptions(method=name, dimension=dimension, bound=bound, steps=steps, seed=seed, parameters=parameters)
            protector = Protector(profile=fit_in(Path(folder) / "work", cases, options, "benchmark"))
            fit_s = time.perf_counter() - began
    for case in cases:
        volume, labels = case.read()
        began = time.perf_counter()
        if protector is not None:
            image = normalised(protector.protect(volume, labels).volume, volume, labels)
        elif name == "random":
            image = random_noise(volume, labels, bound, dimension, rng)
        else:
            image = normalised(volume, volume, labels)
        case_s += (time.perf_counter() - began) / len(cases)
        pairs.append((image.astype(np.float32), target_of(case, labels)))
    return pairs, fit_s, case_s


def target_of(case: CaseFiles, labels: LabelMap) -> np.ndarray:
    return np.array(int(case.image_class)) if case.image_class is not None else labels.classes().astype(np.int64)


def train(victim: nn.Module, draw: Callable[[np.random.Generator], Pair], loss_of: Callable, steps: int, seed: int) -> None:
    optimiser, rng = torch.optim.Adam(victim.parameters(), 1e-3), np.random.default_rng(seed)
    victim.train()
    for _ in range(steps):
        images, targets = (torch.from_numpy(a) for a in draw(rng))
        loss = loss_of(victim(images), targets)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    victim.eval()


def classify(pairs: Sequence[Pair], test: Sequence[Pair], steps: int, seed: int) -> float:
    """Balanced accuracy on clean test images."""
    torch.manual_seed(seed)
    images, targets = np.stack([p[0][:, 0] for p in pairs]), np.stack([p[1] for p in pairs])
    victim = DenseNet(2, images.shape[1], int(targets.max()) + 1, init_features=16, growth_rate=12, block_config=(3, 3, 3))

    def draw(rng: np.random.Generator) -> Pair:
        chosen = rng.integers(len(images), size=32)
        return images[chosen], targets[chosen]

    train(victim, draw, nn.functional.cross_entropy, steps, seed)
    with torch.no_grad():
        told = victim(torch.from_numpy(np.stack([p[0][:, 0] for p in test]))).argmax(1).numpy()
    truth = np.stack([p[1] for p in test])
    return float(np.mean([(told[truth == c] == c).mean() for c in np.unique(truth)]))


def on_edges(array: np.ndarray, edges: Sequence[int]) -> np.ndarray:
    """The last axes cropped or padded with zeros to ``edges``."""
    out = np.zeros((*array.shape[: array.ndim - len(edges)], *edges), array.dtype)
    common = tuple(slice(0, min(n, e)) for n, e in zip(array.shape[-len(edges) :], edges, strict=True))
    out[(..., *common)] = array[(..., *common)]
    return out


def segment(pairs: Sequence[Pair], test: Sequence[Pair], dimension: int, steps: int, seed: int) -> float:
    """Mean DSC on clean test images."""
    torch.manual_seed(seed)
    classes = int(max(p[1].max() for p in pairs)) + 1
    edges = tuple(-(-max(p[1].shape[a] for p in (*pairs, *test)) // 16) * 16 for a in range(3))[3 - dimension :]
    victim = BasicUNet(dimension, pairs[0][0].shape[0], classes, features=(16, 16, 32, 64, 64, 16))

    def draw(rng: np.random.Generator) -> Pair:
        images, targets = [], []
        for n in rng.integers(len(pairs), size=8 if dimension == 2 else 2):
            image, target = pairs[n][0], pairs[n][1][None]
            if dimension == 2:
                k = rng.choice(np.flatnonzero(target.any(axis=(0, 2, 3))))
                image, target = image[:, k], target[:, k]
            images.append(on_edges(image, edges))
            targets.append(on_edges(target, edges))
        return np.stack(images), np.stack(targets)

    train(victim, draw, DiceCELoss(to_onehot_y=True, softmax=True), steps, seed)
    scores = []
    with torch.no_grad():
        for image, target in test:
            parts = [image[:, k][None] for k in range(image.shape[1])] if dimension == 2 else [image[None]]
            told = np.concatenate([victim(torch.from_numpy(on_edges(p, edges))).argmax(1).numpy() for p in parts])
            truth = on_edges(target, edges)
            for c in range(1, classes):
                a, b = told == c, truth.reshape(told.shape) == c
                total = int(a.sum() + b.sum())
                scores.append(2 * int((a & b).sum()) / total if total else 1.0)
    return float(np.mean(scores))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=("classification", "segmentation"))
    parser.add_argument("data", type=Path)
    parser.add_argument("--methods", nargs="+", required=True)
    parser.add_argument("--bound", type=Fraction, default=Fraction(8, 255))
    parser.add_argument("--dimension", type=int, default=2)
    parser.add_argument("--fit-steps", type=int, default=200)
    parser.add_argument("--victim-steps", type=int, default=300)
    parser.add_argument("--cases", type=int, default=24)
    parser.add_argument("--test-cases", type=int, default=12)
    parser.add_argument("--set", nargs="+", type=parameter, default=[], help="numbers of the methods, such as block=8")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.task == "classification":
        cases, held_out = (find_cases(arguments.data, split) for split in ("train", "test"))
    else:
        found = find_cases(arguments.data)
        cases, held_out = found[: arguments.cases], found[arguments.cases : arguments.cases + arguments.test_cases]
    test, _, _ = protected_cases("clean", held_out, 0.0, arguments.dimension, 0, 0, {})
    for name in ("clean", "random", *arguments.methods):
        for seed in arguments.seeds:
            pairs, fit_s, case_s = protected_cases(
                name, cases, float(arguments.bound), arguments.dimension, arguments.fit_steps, seed, dict(arguments.set)
            )
            if arguments.task == "classification":
                score = classify(pairs, test, arguments.victim_steps, seed)
            else:
                score = segment(pairs, test, arguments.dimension, arguments.victim_steps, seed)
            row = {"method": name, "seed": seed, "score": round(score, 4), "fit_s": round(fit_s, 1), "s_per_case": round(case_s, 3)}
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
