"""A tree of DICOM files as a dataset to fit on: a series is a case by the label object that names it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset

import made_dicom
from MedProtectLib import read_labels, read_volume
from MedProtectLib.fitting.dataset import find_cases
from MedProtectLib.profile import Profile
from samples import SAMPLES, Run

CT = SAMPLES / "totalseg_ct"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A labelled series that shares its folder with the segmentation, and one that nothing names."""
    dataset = tmp_path_factory.mktemp("tree")
    volume, labels = read_volume(CT / "ct.nii.gz"), read_labels(CT / "labels.seg.nrrd").select(["liver"])
    liver = labels.classes() > 0
    middle = int(np.argmax(liver.sum(axis=(1, 2))))
    part = slice(middle - 3, middle + 3)
    array = volume.array[part].astype(np.int16)
    series = made_dicom.series(dataset / "patient" / "ct", array)
    made_dicom.segmentation(series / "liver.dcm", sorted(series.iterdir()), liver[part].astype(np.uint8), labels=("liver",))

    def of_another(one: Dataset, number: int) -> None:
        one.SeriesInstanceUID = f"{made_dicom.SERIES}.7"
        one.SOPInstanceUID = f"{made_dicom.SERIES}.7.{number + 1}"

    made_dicom.series(dataset / "patient" / "localiser", array[:2], edit=of_another)
    return dataset


def test_a_series_is_a_case_by_the_segmentation_that_names_it(tree: Path) -> None:
    (case,) = find_cases(tree)
    assert case.name == "patient/ct"
    assert case.labels is not None
    assert case.labels.name == "liver.dcm"
    assert len(case.image_files) == 6
    volume, labels = case.read()
    assert volume.array.shape[0] == 6
    assert labels.geometry.same_grid(volume.geometry)
    assert labels.classes().any()


def test_fit_takes_the_tree(run: Run, tree: Path, tmp_path: Path) -> None:
    profile = tmp_path / "p.medprotect"
    code, _, err = run("fit", tree, "--method", "lsp", "--output", profile)
    assert code == 0, err
    assert Profile.load(profile).training["cases"] == ["patient/ct"]
