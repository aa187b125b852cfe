"""The rows of Documentation/audit: every line is one training run, an interrupted run goes on where it stopped.

    python Testing/Benchmarks/audit_tiers.py 1 --work ../audit_work
    python Testing/Benchmarks/audit_tiers.py 1 --work ../audit_work --datasets busi --methods em tap

tier 1: all methods and controls, no augmentation and nnU-Net's, one victim, at one bound.
tier 2: the methods that --methods names, every other victim, every defence and attacker, shares of protected cases;
        the random mask, equal to clean data in tiers 1 and 3, is left out.
tier 3: all methods at 2, 4, 8 and 12/255, no augmentation and nnU-Net's: the frontier of score against PSNR.
check:  clean data and noise at twice the steps of tier 1, seed 0: what the plateau of a row is worth.

Every method is fitted on the training cases. Seed after seed, data set after data set: stop whenever you like. Start one process
per data set, each with one thread (OMP_NUM_THREADS=1). Rows go to Documentation/audit/tierN_DATASET.jsonl, tables and plots to
Documentation/audit/tierN/; what can be made again (fitted profiles, protected files) to --work.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import torch
from audit_data import DATASETS, PUBLIC, dataset_of

from MedProtectLib.audit.data import AuditData
from MedProtectLib.audit.experiment import Experiment, run_experiment
from MedProtectLib.audit.registry import ATTACKERS, AUGMENTATIONS, DEFENCES
from MedProtectLib.audit.releases import CLEAN, EQUAL_PSNR, Releases, supported_methods
from MedProtectLib.audit.report import write_report
from MedProtectLib.audit.rows import RowFile
from MedProtectLib.audit.victims import VICTIMS
from MedProtectLib.methods.base import CLASSIFICATION
from MedProtectLib.progress import Progress

ROWS = Path(__file__).parents[2] / "Documentation" / "audit"
CHEAP_FIRST = ("lsp", "ar", "umed", "voxshield", "em", "salm", "tap", "sep")
VARIED = ("regimes", "victims", "shares")
TOLD_EVERY_S = 60.0


@dataclass(frozen=True)
class Tier:
    """What a tier varies; the first of ``bounds`` unless --bound says otherwise."""

    regimes: Sequence[str] = ("none", "augmented")
    seeds: Sequence[int] = (0, 1, 2)
    bounds: Sequence[Fraction] = (Fraction(4, 255),)
    shares: Sequence[float] = (1.0,)
    all_victims: bool = False
    only_controls: bool = False
    random_mask: bool = True
    steps_factor: int = 1


TIERS = {
    "1": Tier(),
    "2": Tier(
        regimes=(*AUGMENTATIONS, *DEFENCES, *ATTACKERS, "jpeg10+augmented"),
        shares=(1.0, 0.95, 0.8, 0.5, 0.2),
        all_victims=True,
        random_mask=False,
    ),
    "3": Tier(bounds=tuple(Fraction(n, 255) for n in (2, 4, 8, 12))),
    "check": Tier(seeds=(0,), only_controls=True, random_mask=False, steps_factor=2),
}


def experiments(
    tier: Tier,
    public: AuditData | None,
    releases: Releases,
    methods: Sequence[str],
    seed: int,
    steps: int,
    victims: Sequence[str] | None = None,
) -> dict[str, Experiment]:
    """One seed of a tier on one data set: the setting's victim first, then what is varied around it, one at a time."""
    data = releases.data
    first = Experiment(releases, methods, [data.setting.victim], tier.regimes, [seed], steps=steps, public=public)
    if not tier.all_victims:
        return {"regimes": first}
    around = [name for name in tier.regimes if name in AUGMENTATIONS] or ["none"]
    others = [name for name, victim in VICTIMS.items() if victim.task == data.task and name != data.setting.victim]
    return {
        "regimes": first,
        "victims": replace(first, victims=victims or others, regimes=around),
        "shares": replace(first, shares=tier.shares, regimes=around),
    }


def methods_for(data: AuditData, tier: Tier, wanted: Sequence[str] | None) -> list[str]:
    """Clean data and controls, then the methods, those that are fitted fastest first, then noise of a method's own PSNR."""
    controls = [CLEAN, "noise"] + ["random_mask"] * (tier.random_mask and data.task != CLASSIFICATION)
    if tier.only_controls:
        return controls
    known = supported_methods(data)
    known.sort(key=lambda name: CHEAP_FIRST.index(name) if name in CHEAP_FIRST else -1)
    at_psnr_of = [name for name in wanted or () if name.startswith(EQUAL_PSNR)]
    return controls + [name for name in known if wanted is None or name in wanted] + at_psnr_of


def tell(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


class Told:
    """Progress once a minute, and whenever another stage begins."""

    def __init__(self) -> None:
        self.at, self.stage = -TOLD_EVERY_S, ""

    def __call__(self, progress: Progress) -> None:
        if progress.stage != self.stage or time.monotonic() - self.at > TOLD_EVERY_S:
            self.at, self.stage = time.monotonic(), progress.stage
            left = "" if progress.eta_s is None else f", {progress.eta_s / 60:.0f} min left"
            tell(f"{progress.stage} {progress.done}/{progress.total}{left} {progress.note}")


def main() -> None:
    """Run a tier."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tier", choices=TIERS)
    parser.add_argument("--work", type=Path, required=True, help="folder for fitted profiles and protected files")
    parser.add_argument("--datasets", nargs="+", choices=DATASETS, default=["busi", "hippocampus", "lidc_nodules"])
    parser.add_argument("--methods", nargs="+", default=None, help="default: all that do the task; noise@METHOD after METHOD")
    parser.add_argument("--regimes", nargs="+", default=None, help="default: all of the tier")
    parser.add_argument("--victims", nargs="+", default=None, help="of tier 2; default: all but the data set's own and nnunet")
    parser.add_argument("--vary", nargs="+", choices=VARIED, default=VARIED, help="what of tier 2 to run (default: all)")
    parser.add_argument("--seeds", nargs="+", type=int, default=None)
    parser.add_argument("--bound", type=Fraction, default=None)
    parser.add_argument("--target-psnr", type=float, default=None)
    parser.add_argument("--fit-steps", type=int, default=600)
    parser.add_argument("--steps", type=int, default=None, help="of a victim, for a trial; default: the data set's setting")
    parser.add_argument("--rows", type=Path, default=ROWS)
    arguments = parser.parse_args()
    tier = TIERS[arguments.tier]
    tier = replace(tier, regimes=arguments.regimes or tier.regimes)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    warnings.filterwarnings("ignore", module="monai")
    told = Told()
    data = {name: dataset_of(name, arguments.work) for name in arguments.datasets}
    public = {name: dataset_of(PUBLIC[name], arguments.work) if tier.all_victims and name in PUBLIC else None for name in data}
    bounds = tier.bounds if arguments.bound is None else (arguments.bound,)
    for seed in arguments.seeds or tier.seeds:
        for name, dataset in data.items():
            rows = RowFile(arguments.rows / f"tier{arguments.tier}_{name}.jsonl")
            for bound in bounds:
                releases = Releases(dataset, arguments.work / name, float(bound), arguments.target_psnr, arguments.fit_steps)
                steps = (arguments.steps or dataset.setting.steps) * tier.steps_factor
                methods = methods_for(dataset, tier, arguments.methods)
                for varied, experiment in experiments(tier, public[name], releases, methods, seed, steps, arguments.victims).items():
                    if varied not in arguments.vary:
                        continue
                    for row in run_experiment(experiment, rows, told):
                        score = row["dsc"] if row["dsc"] is not None else row["balanced_accuracy"]
                        tell(f"{row['key']}: {score}, PSNR {row['psnr_db']}, {row['seconds']} s{', VOID' * row['void']}")
                        write_report(rows.path, arguments.rows / f"tier{arguments.tier}_{name}")


if __name__ == "__main__":
    sys.exit(main())
