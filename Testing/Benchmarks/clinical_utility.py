"""What a protected image is still worth to a clinic: segmentation, radiomic features and mean intensities before and after.

    pip install "medprotect[features]"
    python Testing/Benchmarks/clinical_utility.py hippocampus --work ../audit_work --method weave --target-psnr 50.1 --cases 20

Segmentation: a victim of the audit, trained on clean data, on clean test cases and on the same cases protected. Features: first-order,
histogram, GLCM, GLRLM, GLSZM and shape of the labels' union by MIRP (IBSI), 32 bins; drift is |after - before| / |before|, features
that are 0 before are left out. Mean intensity: of every segment, in stored levels. Protected images are quantised as they are stored.
One JSON object on stdout.
"""

from __future__ import annotations

import argparse
import json
import logging
import warnings
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from audit_data import DATASETS, dataset_of

from MedProtectLib import Protector
from MedProtectLib.audit.data import AuditCase
from MedProtectLib.audit.training import score, train_victim
from MedProtectLib.protection import Protection
from MedProtectLib.volume import Volume

FAMILIES = ("statistics", "intensity_histogram", "glcm", "glrlm", "glszm", "morphology")
FEATURES = ("morph_", "stat_", "ih_", "cm_", "rlm_", "szm_")


def features_of(case: AuditCase, volume: Volume) -> dict[str, float]:
    """The radiomic features of the labels' union in a volume."""
    from mirp import extract_features

    (table,) = extract_features(
        image=volume.in_units(volume.channel(0)),
        mask=(case.target > 0).astype(np.uint8),
        image_spacing=volume.geometry.spacing_kji,
        by_slice=case.planar,
        base_feature_families=list(FAMILIES),
        base_discretisation_method="fixed_bin_number",
        base_discretisation_n_bins=32,
    )
    row = table.iloc[0]
    return {name: float(row[name]) for name in table.columns if name.startswith(FEATURES)}


def drift(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """Relative change of every feature that is a number and not 0 before."""
    return {name: abs(after[name] - b) / abs(b) for name, b in before.items() if np.isfinite([b, after[name]]).all() and b != 0}


def mean_shifts(case: AuditCase, protection: Protection) -> list[float]:
    """Change of the mean of every segment, in stored levels: 1 for integers, the step of the grid for other images."""
    change = protection.volume.channel(0).astype(np.float64) - case.volume.channel(0).astype(np.float64)
    return [abs(float(change[case.target == number].mean())) / protection.step for number in np.unique(case.target[case.target > 0])]


def main() -> None:
    """Protect, compare and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=[name for name in DATASETS if "mnist" not in name])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--method", default="weave")
    parser.add_argument("--bound", type=Fraction, default=Fraction(8, 255))
    parser.add_argument("--target-psnr", type=float, default=50.1)
    parser.add_argument("--cases", type=int, default=20)
    parser.add_argument("--steps", type=int, default=None)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.INFO)
    torch.set_num_threads(1)
    data = dataset_of(given.dataset, given.work)
    cases = data.cases["test"][: given.cases]
    protector = Protector(given.method, bound=float(given.bound), target_psnr=given.target_psnr)
    protected = {case.name: protector.protect(case.volume, case.labels) for case in cases}
    images = {case.name: case.image_of(protected[case.name].volume) for case in cases}
    victim = train_victim(data, data.samples("train"), seed=0, steps=given.steps).last
    clean, changed = (score(victim, data.samples("test", use)[: len(cases)], data, distances=False).mean for use in (None, images))
    drifts = [drift(features_of(case, case.volume), features_of(case, protected[case.name].volume)) for case in cases]
    pooled = np.concatenate([list(found.values()) for found in drifts])
    worst = {name: float(np.median([found[name] for found in drifts if name in found])) for name in drifts[0]}
    shifts = np.concatenate([mean_shifts(case, protected[case.name]) for case in cases])
    told = {
        "dataset": given.dataset,
        "method": given.method,
        "cases": len(cases),
        "dsc_on_clean": round(clean, 4),
        "dsc_on_protected": round(changed, 4),
        "feature_drift_median": round(float(np.median(pooled)), 5),
        "feature_drift_95th_percentile": round(float(np.quantile(pooled, 0.95)), 5),
        "features": len(worst),
        "most_drifting": {name: round(worst[name], 4) for name in sorted(worst, key=lambda name: -worst[name])[:5]},
        "largest_mean_shift_levels": round(float(shifts.max()), 3),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
