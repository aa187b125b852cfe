"""The numbers that a stored file must hold, on real images, recomputed from the two files by plain numpy."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.ndimage import maximum_filter
from skimage.metrics import structural_similarity

from MedProtectLib import Protector, read_labels, read_volume
from MedProtectLib.job import write_and_reread
from MedProtectLib.window import IntensityWindow
from samples import SAMPLES

TARGET, EPSILON = 50.1, 4 / 255
SHARED_CASES = {
    "totalseg, all classes": [("totalseg_example/example_ct_sm.nii.gz", "totalseg_example/example_seg.nii.gz")],
    "sts_sarcoma CT": [
        (f"sts_sarcoma/nifti/STS_{n}/CT_image.nii.gz", f"sts_sarcoma/nifti/STS_{n}/CT_mask.nii.gz") for n in ("002", "003", "006", "008")
    ],
    "msd_heart": [(f"msd_heart/images/la_case{n}.nii.gz", f"msd_heart/labels/la_case{n}.nii.gz") for n in ("00", "06")],
}


def recompute(original: Path, protected: Path, labels: np.ndarray, window: tuple[float, float]) -> dict[str, float]:
    """The ten lines: everything from the two files."""
    a, b = (volume.in_units(volume.array) for volume in map(read_volume, (original, protected)))
    width, difference = window[1] - window[0], b - a
    allowed = maximum_filter((labels > 0).astype(np.uint8), 7) > 0
    psnr = -20 * np.log10(np.sqrt(np.mean(difference**2)) / width)
    psnr_roi = -20 * np.log10(np.sqrt(np.mean(difference[allowed] ** 2)) / width)
    ssim = structural_similarity(a, b, win_size=7, data_range=width)
    return {
        "psnr_db": psnr,
        "psnr_roi_db": psnr_roi,
        "ssim": ssim,
        "largest": np.abs(difference).max() / width,
        "outside": np.count_nonzero(difference[~allowed]),
        "beyond_range": np.count_nonzero((b < a.min()) | (b > a.max())),
    }


def check(image: Path, labels: Path, folder: Path, segments: tuple[str, ...] = ()) -> dict[str, float]:
    volume, label_map = read_volume(image), read_labels(labels).select(segments)
    result = Protector(target_psnr=TARGET).protect(volume, label_map)
    stored = folder / f"stored_{image.name}"
    write_and_reread(result.volume, stored)
    window: IntensityWindow = result.window
    found = recompute(image, stored, label_map.classes(), (window.low, window.high))
    assert found["psnr_db"] >= 50.03
    if found["psnr_db"] > 50.6:
        at_the_bound = Protector().protect(volume, label_map)
        assert np.array_equal(at_the_bound.volume.array, result.volume.array), "the bound would have allowed more"
    assert found["psnr_roi_db"] >= 36
    assert found["ssim"] >= 0.99
    assert found["largest"] <= EPSILON * (1 + 1e-6)
    assert found["outside"] == 0
    assert found["beyond_range"] == 0
    told = result.statistics
    assert told.psnr_db == pytest.approx(found["psnr_db"], abs=1e-6)
    assert told.ssim == pytest.approx(found["ssim"], abs=1e-6)
    assert told.max_abs_change[0] == pytest.approx(found["largest"], abs=1e-9)
    stored.unlink()
    return found


@pytest.mark.parametrize("segments", [("liver",), ()], ids=["liver", "all segments"])
def test_bundled_ct(ct: tuple[Path, Path], segments: tuple[str, ...], tmp_path: Path) -> None:
    check(*ct, tmp_path, segments)


def test_bundled_hippocampus(tmp_path: Path) -> None:
    for image in sorted((SAMPLES / "hippocampus" / "imagesTr").glob("*.nii.gz")):
        check(image, SAMPLES / "hippocampus" / "labelsTr" / image.name, tmp_path)


@pytest.mark.parametrize("name", SHARED_CASES)
def test_shared_cases(name: str, shared_data: Path, tmp_path: Path) -> None:
    for image, labels in SHARED_CASES[name]:
        check(shared_data / image, shared_data / labels, tmp_path)


@pytest.mark.timeout(900)
def test_every_shared_hippocampus(shared_data: Path, tmp_path: Path) -> None:
    for image in sorted((shared_data / "msd_hippocampus" / "imagesTr").glob("*.nii.gz")):
        check(image, shared_data / "msd_hippocampus" / "labelsTr" / image.name, tmp_path)


def chest_as_nrrd(data: Path, folder: Path) -> Path:
    """The full-size chest CT as gzip NRRD."""
    with zipfile.ZipFile(next((data / "lidc_ct_full").glob("*.zip"))) as archive:
        archive.extractall(folder / "dicom")
    series = next(p for p in sorted((folder / "dicom").rglob("*")) if p.is_dir() and any(p.glob("*.dcm")))
    sitk.WriteImage(sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(series))), folder / "ct.nrrd", useCompression=True)
    return folder / "ct.nrrd"


def test_full_size_chest_ct(shared_data: Path, tmp_path: Path) -> None:
    check(chest_as_nrrd(shared_data, tmp_path), shared_data / "lidc_ct_full" / "LIDC-IDRI-0001_nodule_mask.nii.gz", tmp_path)
