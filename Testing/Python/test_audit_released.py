"""An audit of files that were protected before: every layout that 'medprotect release' writes, and names that could be anybody's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from pydicom import Dataset

import made_dicom
from audit_samples import nodules
from MedProtectLib import read_labels, read_volume
from MedProtectLib.audit.data import TRAIN, AuditData, load_dataset
from MedProtectLib.audit.released import recorded_bounds
from MedProtectLib.audit.releases import Release, Releases
from MedProtectLib.errors import MedProtectError
from MedProtectLib.fitting.dataset import find_cases
from MedProtectLib.fitting.fit import FitOptions, fit
from release_cases import HIPPOCAMPUS, NAMES, decathlon, own_profile
from samples import SAMPLES, Run

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:monai", "ignore::FutureWarning")

BOUND = 8 / 255
CASES = 17  # the fewest whose hashes give two cases to validate


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("MedProtectLib.release.make.write_pictures", lambda *_, **__: None)


def hippocampi(folder: Path) -> Path:
    return decathlon(folder, CASES)


def manifest_of_other_folders(folder: Path) -> Path:
    """Images and label maps of equal names outside the manifest's folder."""
    decathlon(folder / "data", CASES)
    lines = [f"c{n},../data/imagesTr/{name},../data/labelsTr/{name}" for n, name in enumerate(NAMES[:CASES])]
    (folder / "lists").mkdir()
    (folder / "lists" / "cases.csv").write_text("\n".join(["case,image,labels", *lines]) + "\n")
    return folder / "lists" / "cases.csv"


def two_channels(folder: Path) -> Path:
    """nnU-Net's channel files x_0000 and x_0001 with the label map x."""
    decathlon(folder, CASES)
    for path in sorted((folder / "imagesTr").iterdir()):
        image, stem = nib.load(path), path.name.removesuffix(".nii.gz")
        nib.save(image, path.with_name(f"{stem}_0000.nii.gz"))
        blurred = np.asanyarray(image.dataobj)[::-1].copy()
        nib.save(nib.Nifti1Image(blurred, image.affine, image.header), path.with_name(f"{stem}_0001.nii.gz"))
        path.unlink()
    return folder


def slices() -> np.ndarray:
    """Pictures 28 x 28 of the bundled nodules."""
    arrays = [read_volume(path).array for path in sorted((SAMPLES / "lidc_nodules" / "imagesTr").iterdir())]
    middles = np.stack([array[array.shape[0] // 2, :28, :28] for array in arrays]).astype(np.float64)
    return np.clip((middles + 1000) / 1500 * 255, 0, 255).astype(np.uint8)


def class_folders(folder: Path) -> Path:
    """Pictures a/00.png and b/00.png and so on."""
    for number, picture in enumerate(slices()[: 2 * (CASES // 2 + 1)]):
        path = folder / "ab"[number % 2] / f"{number // 2:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(sitk.GetImageFromArray(picture), path)
    return folder


def medmnist(folder: Path) -> Path:
    folder.mkdir()
    arrays = {}
    for part, pictures in (("train", slices()[:6]), ("val", slices()[6:10]), ("test", slices()[10:14])):
        arrays |= {f"{part}_images": pictures, f"{part}_labels": (np.arange(len(pictures)) % 2).astype(np.uint8)[:, None]}
    np.savez_compressed(folder / "made.npz", **arrays)
    return folder / "made.npz"


def dicom(folder: Path) -> Path:
    """Series whose files have the same names, each with its segmentation."""
    ct, labels = read_volume(SAMPLES / "totalseg_ct" / "ct.nii.gz"), read_labels(SAMPLES / "totalseg_ct" / "labels.seg.nrrd")
    liver = labels.select(["liver"]).classes() > 0
    first = int(np.argmax(liver.sum(axis=(1, 2))))
    for number in range(CASES):

        def of_its_own(one: Dataset, k: int, series: str = f"{made_dicom.SERIES}.{number + 1}") -> None:
            one.SeriesInstanceUID, one.SOPInstanceUID = series, f"{series}.{k + 1}"

        array, masks = (ct.array[first : first + 2] + number).astype(np.int16), liver[first : first + 2].astype(np.uint8)
        place = made_dicom.series(folder / f"patient{number:02d}" / "ct", array, edit=of_its_own)
        beside = place if number % 2 else place.parent / "seg"
        made_dicom.segmentation(beside / "liver.dcm", sorted(place.iterdir()), masks, labels=("liver",))
    return folder


LAYOUTS: dict[str, Callable[[Path], Path]] = {
    build.__name__: build for build in (hippocampi, manifest_of_other_folders, two_channels, class_folders, medmnist, dicom)
}


def released(run: Run, dataset: Path, folder: Path) -> tuple[Path, Path]:
    """A release of a data set with a profile of its own, and that profile."""
    profile, cases = folder / "own.medprotect", find_cases(dataset)
    dimension = cases[0].read()[0].geometry.dimension
    fit(cases, profile, FitOptions(method="lsp", seed=3, bound=BOUND, dimension=dimension, modality="US" if dimension == 2 else None))
    where = ("--output", folder / "out", "--profile", profile, "--no-vault", "--jobs", 0)
    code, _, err = run("release", dataset, *where)
    assert code == 0, err
    return folder / "out", profile


def of_folder(data: AuditData, folder: Path, bound: float = BOUND) -> Release:
    return Releases(data, folder.parent / "work", bound, folders={"out": folder}).of("released:out")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_release_of_every_layout_holds_what_its_profile_makes(layout: str, run: Run, tmp_path: Path) -> None:
    dataset = LAYOUTS[layout](tmp_path / "in")
    folder, profile = released(run, dataset, tmp_path)
    assert recorded_bounds(folder) == [BOUND]
    data = load_dataset(dataset)
    found = of_folder(data, folder)
    made = Releases(data, tmp_path / "work", BOUND, profiles={"own": profile}).of("profile:own")
    images, expected = found.images(data), made.images(data)
    assert set(images) == set(expected) == {case.name for case in data.cases[TRAIN]}
    assert all(np.array_equal(images[name], expected[name]) for name in images)
    assert all(found.cases[name].psnr_db == pytest.approx(made.cases[name].psnr_db, abs=0.5) for name in images)


@pytest.fixture(scope="module")
def data() -> AuditData:
    return load_dataset(HIPPOCAMPUS, limit=2)


def made_in(folder: Path, data: AuditData, place: str) -> list[Path]:
    """Noise on the training cases as files of a folder, in a place that goes by the case's name."""
    made, paths = Releases(data, folder / "work", BOUND).of("noise"), []
    for case in data.cases[TRAIN]:
        path = folder / "out" / place.format(case.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(made.folder / made.cases[case.name].file, path)
        paths.append(path)
    return paths


def test_a_copy_of_an_original_is_not_counted_as_protected(data: AuditData, tmp_path: Path) -> None:
    made, copied = made_in(tmp_path, data, "imagesTr/{}.nii.gz"), data.cases[TRAIN][0]
    shutil.copyfile(copied.files.image, made[0])
    release = of_folder(data, tmp_path / "out")
    assert list(release.protected) == [case.name for case in data.cases[TRAIN][1:]]
    assert release.refusals == [f"{made[0]}: holds no change."]
    for case, path in zip(data.cases[TRAIN], made, strict=True):
        shutil.copyfile(case.files.image, path)
    with pytest.raises(MedProtectError, match=r"released:out: none of the 2 training cases holds a change\. .*holds no change"):
        of_folder(data, tmp_path / "out")


@pytest.mark.parametrize("place", ["a/b/{}_protected.nii.gz", "anywhere/{}.nii.gz", "imagesTr/{}_protected.nii.gz"])
def test_a_name_that_one_file_has_is_enough(place: str, data: AuditData, tmp_path: Path) -> None:
    made_in(tmp_path, data, place)
    shutil.copytree(HIPPOCAMPUS / "labelsTr", tmp_path / "out" / "z" / "masks")
    assert set(of_folder(data, tmp_path / "out").images(data)) == {case.name for case in data.cases[TRAIN]}


def test_label_maps_and_originals_are_no_protected_images(data: AuditData, tmp_path: Path) -> None:
    shutil.copytree(HIPPOCAMPUS / "labelsTr", tmp_path / "out" / "masks")
    with pytest.raises(MedProtectError, match=r"holds no hippocampus_\d+_protected\.nii\.gz for the training case"):
        of_folder(data, tmp_path / "out")
    with pytest.raises(MedProtectError, match="holds no"):
        of_folder(data, HIPPOCAMPUS)


def test_an_ambiguous_name_is_refused(data: AuditData, tmp_path: Path) -> None:
    made_in(tmp_path, data, "first/{}.nii.gz")
    made_in(tmp_path, data, "second/{}.nii.gz")
    with pytest.raises(MedProtectError, match="Give the files the folders that they have in the data set"):
        of_folder(data, tmp_path / "out")


def test_one_file_is_not_taken_for_the_images_of_two_classes(tmp_path: Path) -> None:
    data = load_dataset(class_folders(tmp_path / "in"))
    (tmp_path / "out").mkdir()
    for path in (tmp_path / "in" / "b").iterdir():
        shutil.copy(path, tmp_path / "out")
    with pytest.raises(MedProtectError, match="cannot tell which"):
        of_folder(data, tmp_path / "out")


def test_files_that_change_by_more_than_the_bound_are_refused(data: AuditData, tmp_path: Path) -> None:
    first, second, *_ = made_in(tmp_path, data, "imagesTr/{}.nii.gz")
    with pytest.raises(MedProtectError, match=r"changes by .*/255, more than the bound 4/255: are these the right files\? Give --bound\."):
        of_folder(data, tmp_path / "out", BOUND / 2)
    image = nib.load(first)
    shape = nib.load(second).shape
    other = nib.Nifti1Image(np.resize(np.asanyarray(image.dataobj), shape), nib.load(second).affine, nib.load(second).header)
    nib.save(other, second)
    with pytest.raises(MedProtectError, match="are these the right files"):
        of_folder(data, tmp_path / "out")


def test_images_that_were_left_out_of_a_medmnist_file_are_missed(tmp_path: Path) -> None:
    dataset = medmnist(tmp_path / "in")
    (tmp_path / "out").mkdir()
    arrays = dict(np.load(dataset))
    np.savez(tmp_path / "out" / "made.npz", **{name: array[1:] if name.startswith("train") else array for name, array in arrays.items()})
    with pytest.raises(MedProtectError, match=r"not all training images of made\.npz are in it"):
        of_folder(load_dataset(dataset), tmp_path / "out")


def test_the_modality_decides_in_which_window_files_are_measured(tmp_path: Path) -> None:
    data = nodules()
    made_in(tmp_path, data, "{}.nii.gz")
    widest = Releases(data, tmp_path / "work", 32 / 255, folders={"out": tmp_path / "out"})
    as_ct, as_mr = (replace(widest, modality=modality).of("released:out") for modality in ("CT", "MR"))
    assert as_mr.sha256 == as_ct.sha256
    assert any(as_mr.cases[name].psnr_db != pytest.approx(case.psnr_db, abs=0.1) for name, case in as_ct.cases.items())


SMALL = ("--limit", 2, "--steps", 1, "--seeds", 0, "--regimes", "none")


def test_wrong_files_are_refused_before_anything_is_trained(run: Run, data: AuditData, tmp_path: Path) -> None:
    made_in(tmp_path, data, "imagesTr/{}.nii.gz")
    audit = ("audit", HIPPOCAMPUS, "--output", tmp_path / "audit", "--released", tmp_path / "out", *SMALL)
    code, _, err = run(*audit)
    assert (code, "no record in it says how large the changes may be. Give --bound." in err) == (2, True), err
    code, _, err = run(*audit, "--bound", "4/255")
    assert (code, "more than the bound 4/255" in err) == (1, True), err
    assert not (tmp_path / "audit").exists()


def test_the_bound_is_that_of_what_is_audited(run: Run, tmp_path: Path, data: AuditData) -> None:
    profile = own_profile(tmp_path, bound=BOUND)
    shutil.copy(own_profile(tmp_path, "ar", bound=2 * BOUND), tmp_path / "wide.medprotect")
    audit = ("audit", HIPPOCAMPUS, "--output", tmp_path / "audit", "--profile", profile, *SMALL)
    code, _, err = run(*audit)
    assert code == 0, err
    rows = [json.loads(line) for line in (tmp_path / "audit" / "rows.jsonl").read_text().splitlines()]
    assert {row["method"]: row["epsilon"] for row in rows} == {"none": 0.0, "noise": BOUND, "profile:lsp": BOUND}
    assert all(4 / 255 < row["max_abs_change"] <= BOUND for row in rows if row["method"] != "none")
    code, _, err = run(*audit[:5], tmp_path / "wide.medprotect", *audit[5:], "--resume")
    assert (code, err.count("\n")) == (2, 1), err
    assert "lsp.medprotect 8/255" in err
    assert "wide.medprotect 16/255" in err
    for case in data.cases[TRAIN]:
        files = (case.files.image, "--labels", case.files.labels)
        assert run("protect", *files, "--profile", profile, "--output", tmp_path / "public", "--bound", "6/255")[0] == 0
    assert recorded_bounds(tmp_path / "public") == [pytest.approx(6 / 255)]
    code, _, err = run(*audit, "--released", tmp_path / "public", "--resume")
    assert (code, "public 6/255" in err) == (2, True), err
