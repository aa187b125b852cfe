"""What `medprotect methods` says about effects: tier 1 of the audit, standard training, the setting's victim, 8/255.

    python Testing/Benchmarks/measured_effects.py
    python Testing/Benchmarks/measured_effects.py --check

Reads the rows in Documentation/audit and writes MedProtectLib/methods/measured_effects.json, or only tells whether it is up to date.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from MedProtectLib.audit.rows import RowFile
from MedProtectLib.audit.tables import Line, groups_of
from MedProtectLib.methods import METHODS
from MedProtectLib.methods.measured import EFFECTS_FILE, Effect

ROOT = Path(__file__).parents[2]
BOUND = 8 / 255
DATA = {
    "busi_native": "breast ultrasound (busi), 256 x 256",
    "hippocampus": "hippocampus (MSD), 3D",
    "lidc_nodules": "lung nodules (LIDC-IDRI), 3D",
    "breastmnist": "BreastMNIST",
    "pneumoniamnist": "PneumoniaMNIST",
}


def main() -> str | None:
    """Write or check the file; a string is what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, fail where the file is not what the rows say")
    checking = parser.parse_args().check
    path = ROOT / "MedProtectLib" / "methods" / EFFECTS_FILE
    found = {name: [asdict(effect) for effect in of_method] for name, of_method in effects_of_rows().items()}
    text = json.dumps(found, indent=1) + "\n"
    if not checking:
        path.write_text(text, encoding="utf-8")
    return f"{path}: not what the rows say. Run this without --check." if path.read_text(encoding="utf-8") != text else None


def effects_of_rows() -> dict[str, list[Effect]]:
    """What the rows say, by method."""
    found: dict[str, list[Effect]] = {name: [] for name in METHODS}
    for dataset, title in DATA.items():
        groups = groups_of(RowFile(ROOT / "Documentation" / "audit" / f"tier1_{dataset}.jsonl").rows.values())
        for group in groups:
            if group.regime == "none" and abs(group.epsilon - BOUND) < 1e-9:
                for line in group.lines:
                    if line.method in METHODS and line.counted:
                        found[line.method].append(effect_of(line, title, group.score_name))
    return {name: of_method for name, of_method in found.items() if of_method}


def effect_of(line: Line, data: str, score: str) -> Effect:
    """One line of an audit's table, rounded."""
    twin = "dsc" if score == "DSC" else "balanced_accuracy"
    numbers = {"clean": line.mean(f"{twin}_clean_twin"), "random": line.mean(f"{twin}_noise_twin"), "psnr_db": line.mean("psnr_db")}
    assert line.score is not None
    assert line.difference is not None
    return Effect(
        data=data,
        score=score,
        chance=line.counted[0]["chance"],
        protected=round(line.score.mean, 3),
        interval=None if line.interval is None else round(line.interval[1], 3),
        seeds=len(line.counted),
        **{name: round(value, 3) for name, value in numbers.items() if value is not None},
    )


if __name__ == "__main__":
    sys.exit(main())
