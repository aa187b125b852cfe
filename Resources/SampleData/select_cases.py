"""Rebuild the sample data and the split lists from the complete data sets (see README.md for the rules).

    python Resources/SampleData/select_cases.py FOLDER_WITH_THE_DATA_SETS

The same input gives the same bytes: cases are ordered by a hash of seed and name, not by a random generator.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from xml.etree import ElementTree

import nibabel
import numpy as np
import SimpleITK as sitk

HERE = Path(__file__).parent
SEED = 20260801
SUFFIX = ".nii.gz"


def shuffled(names: Sequence[str]) -> list[str]:
    """Names in an order that looks random and is the same on every machine."""
    return sorted(names, key=lambda name: sha256(f"{SEED}:{name}".encode()).hexdigest())


def quotas(total: int, sizes: Mapping[str, int]) -> Counter[str]:
    """``total`` cases shared out in proportion to ``sizes``, by largest remainder."""
    exact = {name: total * size / sum(sizes.values()) for name, size in sizes.items()}
    shares = Counter({name: int(share) for name, share in exact.items()})
    by_remainder = sorted(sizes, key=lambda name: int(exact[name]) - exact[name])
    shares.update(by_remainder[: total - shares.total()])
    return shares


def split(stratum_of: Mapping[str, str], group_of: Mapping[str, str], sizes: Mapping[str, int]) -> dict[str, list[str]]:
    """Disjoint lists of the given sizes: every stratum in proportion, no group (patient) in two lists.

    Groups go, largest first, to the list that has the greatest share of its places left and room in every stratum.
    """
    room = {stratum: quotas(count, sizes) for stratum, count in Counter(stratum_of.values()).items()}
    groups: dict[str, list[str]] = defaultdict(list)
    for case in shuffled(list(stratum_of)):
        groups[group_of[case]].append(case)
    lists: dict[str, list[str]] = {name: [] for name in sizes}
    for group in sorted(shuffled(list(groups)), key=lambda name: -len(groups[name])):
        need = Counter(stratum_of[case] for case in groups[group])
        fitting = [name for name in sizes if all(room[stratum][name] >= count for stratum, count in need.items())]
        chosen = max(fitting, key=lambda name: 1 - len(lists[name]) / sizes[name])
        lists[chosen] += groups[group]
        for stratum, count in need.items():
            room[stratum][chosen] -= count
    assert {name: len(cases) for name, cases in lists.items()} == sizes
    return {name: sorted(cases) for name, cases in lists.items()}


def spread(volume_of: Mapping[str, int], count: int) -> list[str]:
    """``count`` cases whose labelled volumes are evenly spread over the ranks."""
    ranked = sorted(volume_of, key=lambda name: (volume_of[name], name))
    return [ranked[(2 * step + 1) * len(ranked) // (2 * count)] for step in range(count)]


def write_json(path: Path, content: object) -> None:
    """Indented JSON with a final newline."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8", newline="\n")


def copy_decathlon(images: Path, labels: Path, target: Path, cases: Sequence[str], about: Mapping[str, object]) -> None:
    """Unchanged copies of ``cases`` in the Decathlon layout, with its dataset.json."""
    for source, folder in ((images, "imagesTr"), (labels, "labelsTr")):
        (target / folder).mkdir(parents=True, exist_ok=True)
        for case in cases:
            shutil.copyfile(source / f"{case}{SUFFIX}", target / folder / f"{case}{SUFFIX}")
    training = [{"image": f"./imagesTr/{case}{SUFFIX}", "label": f"./labelsTr/{case}{SUFFIX}"} for case in cases]
    counts = {"tensorImageSize": "3D", "numTraining": len(cases), "numTest": 0}
    write_json(target / "dataset.json", {**about, **counts, "training": training, "test": []})


def hippocampus(source: Path) -> None:
    """20 of the 200 hippocampus cases; strata are the stored types."""
    names = [path.name.removesuffix(SUFFIX) for path in (source / "imagesTr").glob(f"*{SUFFIX}")]
    stored_type = {case: str(nibabel.load(source / "imagesTr" / f"{case}{SUFFIX}").get_data_dtype()) for case in names}
    lists = split(stored_type, {case: case for case in names}, {"profile": 48, "train": 100, "val": 16, "test": 36})
    volume = {case: np.count_nonzero(nibabel.load(source / "labelsTr" / f"{case}{SUFFIX}").dataobj) for case in names}
    bundled = sorted(
        case
        for name, count in {"train": 12, "val": 2, "test": 6}.items()
        for case in spread({case: volume[case] for case in lists[name]}, count)
    )
    write_json(HERE / "splits" / "hippocampus.json", {"dataset": "MSD Task04 Hippocampus", "seed": SEED, **lists, "bundled": bundled})
    about = {
        "name": "Hippocampus sample",
        "description": "20 of the training cases of Task04 of the Medical Segmentation Decathlon",
        "reference": "Vanderbilt University Medical Center",
        "licence": "CC BY-SA 4.0",
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "anterior", "2": "posterior"},
    }
    copy_decathlon(source / "imagesTr", source / "labelsTr", HERE / "hippocampus", bundled, about)


def lidc_nodules(source: Path) -> None:
    """15 benign and 15 malignant nodules of at least five labelled slices; strata are diagnoses, groups are patients."""
    with (source / "labels.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["file"].removesuffix(SUFFIX): row for row in csv.DictReader(file)}
    diagnosis = {case: row["diagnosis"] for case, row in rows.items()}
    patient = {case: case.split("_")[0] for case in rows}
    lists = split(diagnosis, patient, {"profile": 80, "train": 140, "val": 20, "test": 60})
    labels = {case: np.asanyarray(nibabel.load(source / "nodule_mask" / f"{case}{SUFFIX}").dataobj) != 0 for case in rows}
    volume = {case: int(mask.sum()) for case, mask in labels.items() if np.count_nonzero(mask.any((0, 1))) >= 5}
    bundled = sorted(
        case
        for name, counts in {"train": (9, 9), "val": (1, 2), "test": (5, 4)}.items()
        for wanted, count in zip(("Benign", "Malign"), counts, strict=True)
        for case in spread({case: volume[case] for case in lists[name] if case in volume and diagnosis[case] == wanted}, count)
    )
    write_json(HERE / "splits" / "lidc_nodules.json", {"dataset": "LIDC-IDRI nodules", "seed": SEED, **lists, "bundled": bundled})
    about = {
        "name": "LIDC nodule sample",
        "description": "30 nodules of LIDC-IDRI with the volume around them; diagnoses are in labels.csv",
        "reference": "LIDC-IDRI, The Cancer Imaging Archive",
        "licence": "CC BY 3.0",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "nodule"},
    }
    target = HERE / "lidc_nodules"
    copy_decathlon(source / "image", source / "nodule_mask", target, bundled, about)
    with (target / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[bundled[0]]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[case] for case in bundled)


def busi(source: Path) -> None:
    """Lists only, since the pictures may not be shipped; strata are the diagnoses, normal pictures have no lesion and are left out."""
    with (source / "labels.csv").open(newline="", encoding="utf-8") as file:
        diagnosis = {row["file"].removesuffix(".png"): row["class"] for row in csv.DictReader(file) if row["class"] != "normal"}
    lists = split(diagnosis, {case: case for case in diagnosis}, {"train": 180, "val": 20, "test": 70})
    write_json(HERE / "splits" / "busi.json", {"dataset": "BUSI", "seed": SEED, **lists})


def totalseg_ct(source: Path) -> None:
    """The CT and its labels under plain names, and the labels once more as a Slicer segmentation with names and colours."""
    target = HERE / "totalseg_ct"
    target.mkdir(exist_ok=True)
    shutil.copyfile(source / "example_ct_sm.nii.gz", target / "ct.nii.gz")
    shutil.copyfile(source / "example_seg.nii.gz", target / "labels.nii.gz")
    table = nibabel.load(target / "labels.nii.gz").header.extensions[0].get_content().decode().strip("\0 \n")
    entries = {int(entry.attrib["Key"]): entry for entry in ElementTree.fromstring(table).iter("Label")}

    image = sitk.ReadImage(str(target / "labels.nii.gz"))
    array = sitk.GetArrayViewFromImage(image)
    segmentation = sitk.Image(image)
    for key in image.GetMetaDataKeys():
        segmentation.EraseMetaData(key)
    segmentation.SetMetaData("Segmentation_MasterRepresentation", "Binary labelmap")
    segmentation.SetMetaData("Segmentation_ContainedRepresentationNames", "Binary labelmap|")
    segmentation.SetMetaData("Segmentation_ReferenceImageExtentOffset", "0 0 0")
    for number, value in enumerate(v for v in np.unique(array).tolist() if v):
        voxels = np.argwhere(array == value)[:, ::-1]
        fields = {
            "ID": f"Segment_{value}",
            "Name": entries[value].text or "",
            "Color": " ".join(f"{float(entries[value].attrib[channel]):g}" for channel in ("Red", "Green", "Blue")),
            "Extent": " ".join(f"{low} {high}" for low, high in zip(voxels.min(0), voxels.max(0), strict=True)),
            "LabelValue": str(value),
            "Layer": "0",
        }
        for name, text in fields.items():
            segmentation.SetMetaData(f"Segment{number}_{name}", text)
    sitk.WriteImage(segmentation, str(target / "labels.seg.nrrd"), useCompression=True)


def write_checksums() -> None:
    """SHA256SUMS of every image, in the format of ``sha256sum --check``."""
    files = sorted(path for pattern in (f"*{SUFFIX}", "*.nrrd") for path in HERE.rglob(pattern))
    lines = [f"{sha256(path.read_bytes()).hexdigest()}  {path.relative_to(HERE).as_posix()}\n" for path in files]
    (HERE / "SHA256SUMS").write_text("".join(lines), encoding="utf-8", newline="\n")


def main() -> None:
    """Write everything beside this script."""
    parser = argparse.ArgumentParser(description="Rebuild the sample data and the split lists from the complete data sets.")
    parser.add_argument("source", type=Path, help="folder that holds msd_hippocampus, lidc_nodules, busi and totalseg_example")
    source = parser.parse_args().source
    hippocampus(source / "msd_hippocampus")
    lidc_nodules(source / "lidc_nodules")
    busi(source / "busi")
    totalseg_ct(source / "totalseg_example")
    write_checksums()


if __name__ == "__main__":
    main()
