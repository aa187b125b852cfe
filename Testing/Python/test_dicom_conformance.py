"""Derived objects judged by others: dciodvfy of dicom3tools finds no error that the original did not have, GDCM the same image."""

from __future__ import annotations

import re
import shutil
import subprocess
import zipfile
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom import Dataset, dcmread

from made_dicom import enhanced, picture, segmentation, series
from MedProtectLib.errors import MedProtectError
from MedProtectLib.io import read_volume, write_volume
from MedProtectLib.io.dicom import derived_uids, rewrite_references
from MedProtectLib.volume import Volume
from samples import SAMPLES

PYDICOM = Path(pydicom.__file__).parent / "data" / "test_files"
CT = np.asarray(nib.load(SAMPLES / "totalseg_ct" / "ct.nii.gz").dataobj).T.astype(np.int16)[8:16, 30:70, 40:88]
VALUE = re.compile(r"= <[^>]*>")  # of an attribute; those of UIDs change

needs_dciodvfy = pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (Debian's dicom3tools) is not installed")


def errors(path: Path) -> Counter[str]:
    """What dciodvfy calls errors."""
    done = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, check=False)
    return Counter(VALUE.sub("", line) for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error"))


def changed(volume: Volume) -> Volume:
    """The volume with levels added and taken in a third of it, within the range of its values."""
    array = volume.array.copy()
    box = array[tuple(slice(n // 3, 2 * n // 3 + 1) for n in array.shape[:3])]
    add = np.resize([1, -2, 3], box.shape).astype(np.int64)
    box[:] = np.clip(box.astype(np.int64) + add, array.min(), array.max()).astype(array.dtype)
    return volume.with_array(array)


def derived(source: Path, folder: Path) -> tuple[Volume, list[tuple[Path, Path]]]:
    """A changed image, written, and its files beside those of the original."""
    original = read_volume(source)
    volume = changed(original)
    target = folder / f"derived{original.source.extension}"
    write_volume(volume, target)
    files = sorted(target.iterdir()) if target.is_dir() else [target]
    return volume, list(zip([one.path for one in original.source.instances], files, strict=True))


def assert_gdcm_agrees(volume: Volume, files: list[Path]) -> None:
    """The same values in units and the same grid, by SimpleITK's reader, which turns MONOCHROME1 round."""
    reader = sitk.ImageSeriesReader()
    image = sitk.ReadImage(files[0])
    if len(files) > 1:
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(files[0].parent)))
        image = reader.Execute()
    array = sitk.GetArrayFromImage(image).reshape(volume.array.shape)
    if volume.source.form.photometric != "MONOCHROME1":
        assert np.array_equal(array.astype(np.float64), volume.in_units(volume.array))
    assert image.GetOrigin() == pytest.approx(volume.geometry.origin)
    assert image.GetDirection() == pytest.approx(volume.geometry.direction)
    used = 3 if len(volume.array) > 1 else 2
    assert image.GetSpacing()[:used] == pytest.approx(volume.geometry.spacing[:used])


def assert_conforms(source: Path, folder: Path, filled: bool = False) -> None:
    """``filled``: dciodvfy needs the SOP Class in the original's data set to check it at all."""
    volume, pairs = derived(source, folder)
    assert_gdcm_agrees(volume, [new for _, new in pairs])
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy (Debian's dicom3tools) is not installed; GDCM agreed")
    for old, new in pairs[:: max(1, len(pairs) // 10)]:
        before = old
        if filled:
            dataset, before = dcmread(old), folder / "filled.dcm"
            dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID
            dataset.save_as(before)
        assert not errors(new) - errors(before)


@needs_dciodvfy
@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_a_made_series_conforms(modality: str, tmp_path: Path) -> None:
    assert_conforms(series(tmp_path / "in", CT, modality), tmp_path)


@needs_dciodvfy
def test_a_made_enhanced_object_conforms(tmp_path: Path) -> None:
    assert_conforms(enhanced(tmp_path / "in.dcm", CT), tmp_path)


@needs_dciodvfy
def test_a_made_picture_conforms(tmp_path: Path) -> None:
    def unspaced(dataset: Dataset, number: int) -> None:
        del dataset.PixelSpacing

    assert_conforms(picture(tmp_path / "in.dcm", (CT[0] + 1100).astype(np.uint16), edit=unspaced), tmp_path)


@needs_dciodvfy
@pytest.mark.parametrize("name", ["CT_small.dcm", "dicomdirtests/98892001/CT5N", "dicomdirtests/77654033/CR1/6154", "693_J2KI.dcm"])
def test_real_files_that_come_with_pydicom_conform(name: str, tmp_path: Path) -> None:
    source = PYDICOM / name
    if not source.is_dir():
        source = tmp_path / "in" / "image.dcm"
        source.parent.mkdir()
        source.write_bytes((PYDICOM / name).read_bytes())
    assert_conforms(source, tmp_path)


@needs_dciodvfy
def test_a_segmentation_with_new_references_conforms(tmp_path: Path) -> None:
    folder = series(tmp_path / "in", CT)
    masks = np.zeros((*CT.shape, 1), np.uint8)
    masks[2:4, 5:9, 5:9] = 1
    path = segmentation(tmp_path / "seg.dcm", sorted(folder.iterdir()), masks, labels=["liver"])
    rewrite_references(path, tmp_path / "new.dcm", [derived_uids(changed(read_volume(folder)))])
    assert not errors(tmp_path / "new.dcm") - errors(path)


REAL = {
    "CT": "sts_sarcoma/dicom/STS_001/CT/image",
    "MR": "sts_sarcoma/dicom/STS_001/MR_T1/image",
    "JPEG 2000 without UIDs": "totalseg_example/example_ct_dicom",
    "CT with padding": "dicom_seg_samples/dcmqi/ct-3slice",
    "multi-frame": "dicom_seg_samples/dcmqi/24x38x3/multiframe/mf.dcm",
    "one slice": "dicom_seg_samples/highdicom/ct_image.dcm",
}


@pytest.mark.parametrize("kind", REAL)
def test_real_series_conform(kind: str, shared_data: Path, tmp_path: Path) -> None:
    assert_conforms(shared_data / REAL[kind], tmp_path, filled=kind == "JPEG 2000 without UIDs")


def test_a_full_chest_ct_conforms(shared_data: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(shared_data / "lidc_ct_full" / "LIDC-IDRI-0001_CT_dicom.zip") as archive:
        archive.extractall(tmp_path)
    assert_conforms(tmp_path / "LIDC-IDRI-0001", tmp_path)


SEGMENTATIONS = {
    "binary": ("dcmqi/liver.dcm", "dcmqi/ct-3slice"),
    "overlapping": ("dcmqi/partial_overlaps.dcm", "dcmqi/ct-3slice"),
    "label map": ("dcmqi/sparse-labelmap-ppv5.dcm", "dcmqi/24x38x3/image"),
    "one frame": ("highdicom/seg_image_ct_binary_single_frame.dcm", "highdicom/ct_image.dcm"),
}


@needs_dciodvfy
@pytest.mark.parametrize("kind", SEGMENTATIONS)
def test_real_segmentations_with_new_references_conform(kind: str, shared_data: Path, tmp_path: Path) -> None:
    labels, image = (shared_data / "dicom_seg_samples" / name for name in SEGMENTATIONS[kind])
    rewrite_references(labels, tmp_path / "new.dcm", [derived_uids(changed(read_volume(image)))])
    assert dcmread(tmp_path / "new.dcm").PixelData == dcmread(labels).PixelData
    assert not errors(tmp_path / "new.dcm") - errors(labels)


def test_real_contours_of_instances_that_do_not_exist_are_held_back(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "sts_sarcoma" / "dicom" / "STS_001" / "CT"
    uids = derived_uids(read_volume(folder / "image"))
    with pytest.raises(MedProtectError, match="299 of its 299 references to images and 0 of its 1 to series"):
        rewrite_references(folder / "mask" / "RS.dcm", tmp_path / "new.dcm", [uids])
    assert not (tmp_path / "new.dcm").exists()
