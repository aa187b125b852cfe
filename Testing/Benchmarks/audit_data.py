"""The data sets of our own tables as manifests (case,image,labels,split), from the committed split lists.

    python Testing/Benchmarks/audit_data.py FOLDER     writes busi.csv, hippocampus.csv and lidc_nodules.csv there

busi: 180 train, 20 val, 70 test; its images are halved, those of busi_native are not. hippocampus: 100, 16, 36. lidc_nodules:
140, 20, 60. The lists 'profile' of the last two, on which the shipped profiles were fitted, take no part. breastmnist and
pneumoniamnist have splits of their own.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
from pathlib import Path

from MedProtectLib.audit.data import SPLITS, AuditData, load_dataset

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "Resources" / "SampleData"
SHARED = Path(os.environ.get("MEDPROTECT_SHARED_DATA", ROOT.parent / "shared" / "data"))
LAYOUT = {
    "busi": ("busi/images", "busi/masks", ".png"),
    "busi_native": ("busi/images", "busi/masks", ".png"),
    "hippocampus": ("msd_hippocampus/imagesTr", "msd_hippocampus/labelsTr", ".nii.gz"),
    "lidc_nodules": ("lidc_nodules/image", "lidc_nodules/nodule_mask", ".nii.gz"),
}
MEDMNIST = ("breastmnist", "pneumoniamnist")
SAMPLED = {"hippocampus_sample": "hippocampus", "lidc_nodules_sample": "lidc_nodules"}
DATASETS = (*LAYOUT, *MEDMNIST)
PUBLIC = {
    "busi": "hippocampus_sample",
    "busi_native": "hippocampus_sample",
    "hippocampus": "lidc_nodules_sample",
    "lidc_nodules": "hippocampus_sample",
    "breastmnist": "pneumoniamnist",
    "pneumoniamnist": "breastmnist",
}


def dataset_of(name: str, folder: Path) -> AuditData:
    """A data set by its name; its manifest is written to ``folder``."""
    if name in MEDMNIST:
        return load_dataset(SHARED / "medmnist" / f"{name}.npz", "medmnist", name)
    if name in SAMPLED:
        return load_dataset(SAMPLES / SAMPLED[name], SAMPLED[name], name)
    return load_dataset(write_manifest(name, folder), name)


def write_manifest(name: str, folder: Path) -> Path:
    """The manifest of one data set, written to ``folder``."""
    images, labels, suffix = LAYOUT[name]
    lists = json.loads((SAMPLES / "splits" / f"{name.removesuffix('_native')}.json").read_text(encoding="utf-8"))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["case", "image", "labels", "split"])
        for split in SPLITS:
            files = [(case, SHARED / images / f"{case}{suffix}", SHARED / labels / f"{case}{suffix}") for case in lists[split]]
            writer.writerows([case, image.resolve(), label.resolve(), split] for case, image, label in files)
    return path


def main() -> None:
    """Write all manifests."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    for name in LAYOUT:
        print(write_manifest(name, folder))


if __name__ == "__main__":
    main()
