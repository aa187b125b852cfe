"""How fast the methods are: against the plainest way to do the same, and per case.

    python Testing/Benchmarks/methods_speed.py [--repeats 5] [--threads 2] [--cases [METHOD ...]]

Medians of ``--repeats``, side by side:

    AR's recursion by tiles against the recursion by voxels (plain Python: for every pixel the sum of its eight weighted
    neighbours), one 512 x 512 slice in float64 (must be 100 times as fast)
    AR's search for the coefficients of 210 classes against that for 42 (the work must grow no faster than the classes, by half)
    a step of EM's fit against the plainest loop over the same network and patches (must be within 5 %)
    a fitted generator's perturbation against one forward pass over the same box

--cases times `protect` in memory of the bundled CT (liver) for every method with a profile of its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from MedProtectLib import Protector, read_labels, read_volume
from MedProtectLib.fitting.fit import CaseInMemory, FitOptions, fit_in
from MedProtectLib.fitting.gradient_noise import SURROGATE_RATE
from MedProtectLib.fitting.patches import prepare
from MedProtectLib.fitting.surrogates import segmentation_loss, surrogate_unet
from MedProtectLib.fitting.training import Training
from MedProtectLib.methods import METHODS
from MedProtectLib.methods.ar import autoregress, search_weights
from MedProtectLib.methods.base import Purpose
from MedProtectLib.methods.em import EM
from MedProtectLib.methods.voxshield import VoxShield
from MedProtectLib.networks.tiling import run_in_tiles
from MedProtectLib.plan import channel_case
from MedProtectLib.progress import ignore

SAMPLES = Path(__file__).parents[2] / "Resources" / "SampleData"
EM_STEPS, EM_NOISE_STEPS, EPSILON = 20, 5, 4 / 255


def medians_of(repeats: int, *works: Callable[[], object]) -> list[float]:
    """Median wall times in seconds; the works take turns, so that a load on the machine meets all of them."""
    times: list[list[float]] = [[] for _ in works]
    for _ in range(repeats):
        for work, taken in zip(works, times, strict=True):
            began = time.perf_counter()
            work()
            taken.append(time.perf_counter() - began)
    return [statistics.median(taken) for taken in times]


def compare_recursions(repeats: int) -> None:
    weights = search_weights(2, np.random.default_rng(0))[0]
    start = np.random.default_rng(1).standard_normal((512, 512))

    def by_voxels() -> np.ndarray:
        field = start.copy()
        taps = [(a, b, weights[a, b]) for a in range(3) for b in range(3) if (a, b) != (2, 2)]
        for j in range(2, 512):
            for i in range(2, 512):
                field[j, i] = sum(w * field[j + a - 2, i + b - 2] for a, b, w in taps)
        return field

    apart = np.abs(autoregress(start[None], weights)[0] - by_voxels()).max()
    fast, slow = medians_of(repeats, lambda: autoregress(start[None], weights), by_voxels)
    print(f"AR recursion 512 x 512   by tiles {fast * 1e3:.1f} ms   by voxels {slow * 1e3:.0f} ms   ratio {slow / fast:.0f} (>= 100)")
    print(f"                         largest difference {apart:.1e} (<= 1e-10)")


def compare_ar_searches(repeats: int) -> None:
    few, many = medians_of(repeats, *(partial(search_weights, sets, np.random.default_rng(0)) for sets in (42, 210)))
    print(f"AR search   42 sets {few:.1f} s   210 sets {many:.1f} s   ratio {many / few:.1f} (<= 7.5)")


def compare_em_steps(repeats: int) -> None:
    folder = SAMPLES / "hippocampus"
    name = sorted(p.name for p in (folder / "imagesTr").glob("*.nii.gz"))[0]
    case = CaseInMemory(read_volume(folder / "imagesTr" / name), read_labels(folder / "labelsTr" / name))
    purpose = Purpose(2, classes=(1, 2))
    options = FitOptions("em", 2, EPSILON, EM_STEPS, parameters={"visit": EM_NOISE_STEPS})
    with tempfile.TemporaryDirectory() as work:
        prepare([case], Path(work) / "work", purpose, True, None, None, None, ignore)
        training = Training(options, purpose, Path(work) / "work", "benchmark", ignore)

        def ours() -> None:
            training.checkpoint.unlink(missing_ok=True)
            torch.manual_seed(0)
            EM(purpose, EM.checked_parameters(options.parameters)).learn(training)

        def plainest() -> None:
            torch.manual_seed(0)
            network, loss_of, source = surrogate_unet(2, 3), segmentation_loss(), training.source()
            optimiser = torch.optim.Adam(network.parameters(), SURROGATE_RATE)
            for step in range(EM_STEPS):
                batch = source.draw(step)
                delta = torch.zeros_like(batch.image, requires_grad=True)
                limit = EPSILON * batch.touched
                for _ in range(EM_NOISE_STEPS):
                    loss = loss_of(network((batch.image + delta).clamp(0, 1)), batch.classes)
                    (gradient,) = torch.autograd.grad(loss, delta)
                    with torch.no_grad():
                        delta -= EPSILON / 10 * gradient.sign()
                        delta.copy_(torch.minimum(torch.maximum(delta, -limit), limit))
                optimiser.zero_grad()
                loss_of(network((batch.image + delta.detach()).clamp(0, 1)), batch.classes).backward()
                optimiser.step()

        ours(), plainest()
        a, b = medians_of(repeats, ours, plainest)
    print(f"EM, {EM_STEPS} steps             ours {a:.2f} s   plainest {b:.2f} s   ratio {a / b:.3f} (must be <= 1.05)")


def compare_generator(repeats: int) -> None:
    volume, labels = bundled_ct()
    method = VoxShield()
    protector = Protector(profile=fit_profile("lsp"))
    plan = protector.plan(volume, labels)
    case = channel_case(volume, 0, plan.classes, plan.regions, plan.window)
    image, wanted = np.clip(case.image, 0, 1), case.on_context(case.regions.touched)
    works = (lambda: method.perturb(case, EPSILON), lambda: run_in_tiles([method.generators.volume], image, wanted))
    a, b = medians_of(repeats, *works)
    print(f"a fitted generator       perturb {a:.2f} s   one forward pass {b:.2f} s   ratio {a / b:.2f}")


def bundled_ct() -> tuple:
    folder = SAMPLES / "totalseg_ct"
    return read_volume(folder / "ct.nii.gz"), read_labels(folder / "labels.seg.nrrd").select(["liver"])


def fit_profile(name: str, steps: int = 2):
    with tempfile.TemporaryDirectory() as folder:
        options = FitOptions(name, steps=steps, modality="CT")
        return fit_in(Path(folder) / "work", [CaseInMemory(*bundled_ct())], options, "benchmark")


def time_cases(names: Sequence[str], repeats: int) -> None:
    volume, labels = bundled_ct()
    for name in names:
        protector = Protector(profile=fit_profile(name))
        (seconds,) = medians_of(repeats, lambda chosen=protector: chosen.protect(volume, labels))
        print(json.dumps({"method": name, "s_per_case": round(seconds, 2), "threads": torch.get_num_threads()}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--cases", nargs="*", choices=METHODS, metavar="METHOD")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.cases is not None:
        time_cases(arguments.cases or METHODS, arguments.repeats)
        return
    compare_recursions(arguments.repeats)
    compare_ar_searches(arguments.repeats)
    compare_em_steps(arguments.repeats)
    compare_generator(arguments.repeats)


if __name__ == "__main__":
    main()
