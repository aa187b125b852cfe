"""How far can any perturbation of the regions at a PSNR move the loss of a victim trained on clean data? (Documentation/Research.md)

    python Testing/Benchmarks/research_leverage.py hippocampus --work ../audit_work --psnr 50.1 --ages 50 100 200 400

For victims of several ages: their loss on clean training cases, and after white-box gradient steps that make it as small or as
large as they can within the labels' dilated region, the bound of 8/255 and the PSNR. Where little moves, no perturbation hides the
anatomy from these weights; what a victim goes on to learn is another matter (Research.md, section 18). One JSON line an age.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from audit_data import DATASETS, dataset_of
from scipy.ndimage import binary_dilation
from torch import Tensor

from MedProtectLib.audit.data import AuditData
from MedProtectLib.audit.training import Predictor, loss_for, train_victim

LARGEST, BAND, CASES, STEPS, STRIDE = 8 / 255, 3, 8, 15, 0.3


def projected(change: Tensor, region: Tensor, energy: float) -> Tensor:
    """A change in window units within region, bound and energy."""
    change = (change * region).clamp(-LARGEST, LARGEST)
    return change * min(1.0, (energy / max(float(change.square().sum()), 1e-12)) ** 0.5)


def moved(predictor: Predictor, data: AuditData, psnr_db: float, direction: int) -> float:
    """Mean loss after gradient steps down (-1), up (+1) or none (0)."""
    loss_of, losses = loss_for(data), []
    for sample in data.samples("train")[:CASES]:
        prepared = predictor.preparation(sample)
        inside = (prepared.target > 0).numpy()[0]
        region = torch.from_numpy(binary_dilation(inside, iterations=BAND))[None]
        energy = 10 ** (-psnr_db / 10) * inside.size
        edges = [-(-n // 16) * 16 - n for n in inside.shape][::-1]
        padding = [edge for size in edges for edge in (0, size)]
        image, target = (torch.nn.functional.pad(t[None], padding) for t in (prepared.image, prepared.target))
        region = torch.nn.functional.pad(region[None], padding)
        change = torch.zeros_like(image)
        for _ in range(STEPS if direction else 0):
            change.requires_grad_(True)
            (slope,) = torch.autograd.grad(loss_of(predictor.network(image + change * prepared.units), target), change)
            change = projected(change.detach() + direction * STRIDE * energy**0.5 * slope / (slope.norm() + 1e-12), region, energy)
        with torch.no_grad():
            losses.append(float(loss_of(predictor.network(image + change * prepared.units), target)))
    return float(np.mean(losses))


def main() -> None:
    """Train, move and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=DATASETS)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--psnr", type=float, default=50.1)
    parser.add_argument("--ages", nargs="+", type=int, default=[50, 100, 200, 400])
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = dataset_of(given.dataset, given.work)
    for age in given.ages:
        victim = train_victim(data, data.samples("train"), seed=7, steps=age).last
        victim.network.eval()
        found = {name: round(moved(victim, data, given.psnr, way), 3) for name, way in (("clean", 0), ("smallest", -1), ("largest", 1))}
        print(json.dumps({"dataset": given.dataset, "psnr_db": given.psnr, "steps": age} | found), flush=True)


if __name__ == "__main__":
    main()
