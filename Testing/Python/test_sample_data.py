"""The bundled cases are what their papers say, and the split lists keep fitting and scoring apart."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from hashlib import sha256
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "Resources" / "SampleData"
ORIGINALS = ROOT.parent / "shared" / "data"
DATASETS = ("hippocampus", "lidc_nodules")
SIZES = {
    "hippocampus": {"profile": 48, "train": 100, "val": 16, "test": 36},
    "lidc_nodules": {"profile": 80, "train": 140, "val": 20, "test": 60},
    "busi": {"train": 180, "val": 20, "test": 70},
}
BUNDLED = {"hippocampus": {"train": 12, "val": 2, "test": 6}, "lidc_nodules": {"train": 18, "val": 3, "test": 9}}


def splits(dataset: str) -> dict:
    return json.loads((SAMPLES / "splits" / f"{dataset}.json").read_text(encoding="utf-8"))


def pairs(dataset: str) -> list[tuple[Path, Path]]:
    if dataset == "totalseg_ct":
        return [(SAMPLES / dataset / "ct.nii.gz", SAMPLES / dataset / "labels.nii.gz")]
    images = sorted((SAMPLES / dataset / "imagesTr").glob("*.nii.gz"))
    return [(image, SAMPLES / dataset / "labelsTr" / image.name) for image in images]


def cases(dataset: str, folder: str) -> list[str]:
    return sorted(path.name.removesuffix(".nii.gz") for path in (SAMPLES / dataset / folder).iterdir())


@pytest.mark.parametrize("dataset", [*DATASETS, "totalseg_ct"])
def test_attribution_names_source_licence_citation_changes(dataset):
    text = (SAMPLES / dataset / "ATTRIBUTION.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (\w[\w ]*) \| (.+) \|$", text, re.MULTILINE))
    assert {"Source", "Licence", "Citation", "Stored types", "Changes"} <= rows.keys()
    assert "CC BY" in rows["Licence"]
    assert "doi 10." in rows["Citation"]


@pytest.mark.parametrize("dataset", [*DATASETS, "totalseg_ct"])
def test_stored_types_are_those_of_the_attribution(dataset):
    text = (SAMPLES / dataset / "ATTRIBUTION.md").read_text(encoding="utf-8")
    claimed_images, claimed_labels = re.search(r"^\| Stored types \| images (.+), labels (.+) \|$", text, re.MULTILINE).groups()
    stored = [(nibabel.load(image).get_data_dtype().name, nibabel.load(labels).get_data_dtype().name) for image, labels in pairs(dataset)]
    assert {image for image, _ in stored} == set(re.findall(r"u?int\d+|float\d+", claimed_images))
    assert {labels for _, labels in stored} == set(re.findall(r"u?int\d+|float\d+", claimed_labels))


@pytest.mark.parametrize("dataset", [*DATASETS, "totalseg_ct"])
def test_labels_lie_on_the_grid_of_their_image(dataset):
    for image_path, labels_path in pairs(dataset):
        image, labels = nibabel.load(image_path), nibabel.load(labels_path)
        assert image.shape == labels.shape, image_path.name
        assert np.allclose(image.affine, labels.affine), image_path.name
        assert np.isfinite(image.get_fdata()).all(), image_path.name
        assert np.any(labels.dataobj), labels_path.name


@pytest.mark.parametrize("dataset", DATASETS)
def test_dataset_json_describes_the_folder(dataset):
    about = json.loads((SAMPLES / dataset / "dataset.json").read_text(encoding="utf-8"))
    listed = [(SAMPLES / dataset / case["image"], SAMPLES / dataset / case["label"]) for case in about["training"]]
    assert listed == pairs(dataset)
    assert about["numTraining"] == len(listed)
    declared = {int(value) for value in about["labels"]}
    occurring = {int(value) for _, labels in listed for value in np.unique(nibabel.load(labels).dataobj)}
    assert occurring == declared


def test_checksums_cover_every_image():
    recorded = dict(reversed(line.split("  ")) for line in (SAMPLES / "SHA256SUMS").read_text(encoding="utf-8").splitlines())
    files = [path for pattern in ("*.nii.gz", "*.nrrd") for path in SAMPLES.rglob(pattern)]
    assert recorded == {path.relative_to(SAMPLES).as_posix(): sha256(path.read_bytes()).hexdigest() for path in files}


def test_sample_data_stay_small():
    assert sum(path.stat().st_size for path in SAMPLES.rglob("*") if path.is_file()) < 10e6


def test_slicer_segmentation_has_the_voxels_and_names_of_the_nifti_labels():
    labels = nibabel.load(SAMPLES / "totalseg_ct" / "labels.nii.gz")
    table = ElementTree.fromstring(labels.header.extensions[0].get_content().decode().strip("\0 \n"))
    names = {int(entry.attrib["Key"]): entry.text for entry in table.iter("Label")}
    segmentation = sitk.ReadImage(str(SAMPLES / "totalseg_ct" / "labels.seg.nrrd"))
    nifti = sitk.ReadImage(str(SAMPLES / "totalseg_ct" / "labels.nii.gz"))

    array = sitk.GetArrayFromImage(segmentation)
    assert np.array_equal(array, sitk.GetArrayFromImage(nifti))
    assert np.allclose(segmentation.GetOrigin(), nifti.GetOrigin())
    assert segmentation.GetSpacing() == nifti.GetSpacing()
    assert segmentation.GetDirection() == nifti.GetDirection()

    meta = {key: segmentation.GetMetaData(key) for key in segmentation.GetMetaDataKeys()}
    values = [value for value in np.unique(array).tolist() if value]
    assert len(values) == 41
    for number, value in enumerate(values):
        assert meta[f"Segment{number}_LabelValue"] == str(value)
        assert meta[f"Segment{number}_Name"] == names[value]
        voxels = np.argwhere(array == value)[:, ::-1]
        extent = [str(bound) for low, high in zip(voxels.min(0), voxels.max(0), strict=True) for bound in (low, high)]
        assert meta[f"Segment{number}_Extent"].split() == extent
    assert f"Segment{len(values)}_ID" not in meta
    assert names[5] == "liver"
    assert np.count_nonzero(array == 5) == 38634


@pytest.mark.parametrize("dataset", SIZES)
def test_split_lists_are_disjoint(dataset):
    lists = splits(dataset)
    assert {name: len(lists[name]) for name in SIZES[dataset]} == SIZES[dataset]
    for name, other in combinations(SIZES[dataset], 2):
        assert not set(lists[name]) & set(lists[other]), (name, other)
    assert all(len(set(lists[name])) == len(lists[name]) for name in SIZES[dataset])


def test_no_patient_is_in_two_lists():
    patients = {name: {case.split("_")[0] for case in splits("lidc_nodules")[name]} for name in SIZES["lidc_nodules"]}
    for name, other in combinations(patients, 2):
        assert not patients[name] & patients[other], (name, other)


@pytest.mark.parametrize("dataset", DATASETS)
def test_bundled_cases_come_from_the_scored_lists_only(dataset):
    lists = splits(dataset)
    assert cases(dataset, "imagesTr") == cases(dataset, "labelsTr") == lists["bundled"]
    assert not set(lists["bundled"]) & set(lists["profile"])
    assert {name: len(set(lists["bundled"]) & set(lists[name])) for name in BUNDLED[dataset]} == BUNDLED[dataset]


def test_nodule_diagnoses_are_balanced_and_complete():
    with (SAMPLES / "lidc_nodules" / "labels.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"].removesuffix(".nii.gz") for row in rows] == splits("lidc_nodules")["bundled"]
    assert Counter(row["diagnosis"] for row in rows) == {"Benign": 15, "Malign": 15}


def test_nothing_of_busi_is_shipped():
    assert not [path for pattern in ("*benign*", "*malignant*") for path in SAMPLES.rglob(pattern)]


@pytest.mark.skipif(not ORIGINALS.is_dir(), reason="the complete data sets are not beside the repository")
def test_script_rebuilds_the_sample_data(tmp_path):
    shutil.copy(SAMPLES / "select_cases.py", tmp_path)
    subprocess.run([sys.executable, str(tmp_path / "select_cases.py"), str(ORIGINALS)], check=True)
    rebuilt = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    written_by_hand = {path.relative_to(SAMPLES) for path in SAMPLES.rglob("*.md")}
    assert rebuilt | written_by_hand == {path.relative_to(SAMPLES) for path in SAMPLES.rglob("*") if path.is_file()}
    for name in rebuilt:
        assert (tmp_path / name).read_bytes() == (SAMPLES / name).read_bytes(), name
