"""Write the manifest of the cases that the shipped profiles are fitted on, from the split lists and a folder of the datasets.

    python Testing/Benchmarks/profile_manifest.py DATA profile_cases.csv
    medprotect fit profile_cases.csv --output MedProtectLib/profiles/umed_3d.medprotect --public ...

DATA holds msd_hippocampus/{imagesTr,labelsTr} and lidc_nodules/{image,nodule_mask}, as downloaded from their sources.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

SPLITS = Path(__file__).parents[2] / "Resources" / "SampleData" / "splits"
FOLDERS = {
    "hippocampus": ("msd_hippocampus/imagesTr", "msd_hippocampus/labelsTr"),
    "lidc_nodules": ("lidc_nodules/image", "lidc_nodules/nodule_mask"),
}


def main(data: Path, manifest: Path) -> None:
    """Write one row for every case of the ``profile`` lists."""
    with manifest.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["case", "image", "labels", "class", "split"])
        for dataset, (images, labels) in FOLDERS.items():
            for case in json.loads((SPLITS / f"{dataset}.json").read_text(encoding="utf-8"))["profile"]:
                paths = [(data / folder / f"{case}.nii.gz").resolve() for folder in (images, labels)]
                rows.writerow([case, *paths, "", "profile"])


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
