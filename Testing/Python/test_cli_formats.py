"""One case through the command line in every format: the stored file keeps type and grid, and verify agrees with it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from MedProtectLib import read_volume
from MedProtectLib.cli.main import main
from MedProtectLib.io import write_volume
from samples import Run

FORMATS = {
    ".nrrd": ("int16", 3),
    ".nhdr": ("uint16", 3),
    ".mha": ("float32", 3),
    ".mhd": ("int32", 3),
    ".nii": ("float64", 3),
    ".nii.gz": ("uint8", 3),
    ".hdr": ("int16", 3),
    ".png": ("uint8", 2),
    "_rgb.png": ("uint8", 2),
    ".tif": ("uint16", 2),
    "_rgb.tif": ("uint8", 2),
}


def made(folder: Path, ending: str) -> tuple[Path, Path]:
    """An image with smooth noise and its labels in one format; RGB where the name says so."""
    dtype, dimension = FORMATS[ending]
    rng = np.random.default_rng(1)
    shape = (10, 36, 40)[-dimension:] + ((3,) if "rgb" in ending else ())
    values = rng.normal(120, 25, shape).clip(1, 254) * (1 if dtype in ("uint8", "float32", "float64") else 7)
    labels = np.zeros(shape[:dimension], np.uint8)
    labels[(slice(2, 8), slice(8, 28), slice(10, 30))[-dimension:]] = 1
    image, mask = folder / f"case{ending}", folder / ("mask.nrrd" if dimension == 3 else "mask.png")
    if ".nii" in ending or ending == ".hdr":
        affine = np.diag([-0.9, -0.8, 2.5, 1])
        stored = (nib.Nifti1Image if ".nii" in ending else nib.Nifti1Pair)(values.astype(dtype).T, affine)
        nib.save(stored, image)
        nib.save(nib.Nifti1Image(labels.T, affine), mask := folder / "mask.nii.gz")
    else:
        sitk.WriteImage(sitk.GetImageFromArray(values.astype(dtype), isVector="rgb" in ending), image)
        sitk.WriteImage(sitk.GetImageFromArray(labels), mask)
    return image, mask


@pytest.mark.parametrize("ending", FORMATS)
def test_protect_and_verify(ending: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    image, labels = made(tmp_path / "in", ending)
    arguments = ["protect", image, "--labels", labels, "--output", tmp_path / "out", "--bound", "8/255", "--json"]
    assert main([str(a) for a in arguments]) == 0
    told = json.loads(capsys.readouterr().out)
    before, after = read_volume(image), read_volume(told["protected"])
    assert Path(told["protected"]).name == f"case{ending.replace('.', '_protected.', 1)}"
    assert (after.array.dtype, after.array.shape) == (before.array.dtype, before.array.shape)
    assert after.geometry == before.geometry
    assert told["statistics"]["changed_outside_regions"] == 0
    assert told["statistics"]["changed_fraction"] >= 0.5
    assert told["statistics"]["max_abs_change"][0] <= 8 / 255 * (1 + 1e-6)
    assert main([str(a) for a in ("verify", image, told["protected"], "--labels", labels, "--json")]) == 0
    assert json.loads(capsys.readouterr().out)["statistics"]["psnr_db"] == pytest.approx(told["statistics"]["psnr_db"])


@pytest.mark.parametrize(("ending", "data"), [(".hdr", ".img"), (".mhd", ".raw"), (".nhdr", ".raw")])
def test_a_changed_data_file_is_not_what_was_recorded(ending: str, data: str, tmp_path: Path, run: Run) -> None:
    (tmp_path / "in").mkdir()
    image, labels = made(tmp_path / "in", ending)
    assert run("protect", image, "--labels", labels, "--output", tmp_path / "out", "--bound", "8/255")[0] == 0
    protected, values = (tmp_path / "out" / f"case_protected{extension}" for extension in (ending, data))
    record = json.loads((tmp_path / "out" / "case_record.json").read_text())
    private = json.loads((tmp_path / "out_private" / "case_private_record.json").read_text())
    assert record["protected_sha256"] == hashlib.sha256(protected.read_bytes() + values.read_bytes()).hexdigest()
    assert private["original_sha256"] == hashlib.sha256(image.read_bytes() + image.with_suffix(data).read_bytes()).hexdigest()
    assert run("verify", image, protected, "--labels", labels)[0] == 0
    after = read_volume(protected)
    change = after.array.astype(int) - read_volume(image).array
    spoiled = after.array.copy()
    spoiled.flat[np.abs(change).argmax()] -= np.sign(change.flat[np.abs(change).argmax()])
    values.unlink()
    protected.unlink()
    write_volume(after.with_array(spoiled), protected)
    code, _, err = run("verify", image, protected, "--labels", labels)
    assert code == 1
    assert "since the record was written" in err
    assert "SHA-256 differs" in err


@pytest.mark.parametrize(("image_ending", "labels_ending"), [(".png", ".png"), ("_rgb.tif", ".png"), (".png", ".nrrd"), (".nrrd", ".tif")])
def test_a_picture_needs_labels_of_its_size(image_ending: str, labels_ending: str, tmp_path: Path, run: Run) -> None:
    values = np.random.default_rng(0).integers(1, 255, (60, 70) + ((3,) if "rgb" in image_ending else ())).astype(np.uint8)
    image, labels = tmp_path / f"case{image_ending}", tmp_path / f"mask{labels_ending}"
    sitk.WriteImage(sitk.GetImageFromArray(values, isVector="rgb" in image_ending), image)
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((50, 64), np.uint8)), labels)
    code, _, err = run("protect", image, "--labels", labels, "--output", tmp_path / "out")
    assert code == 1
    assert err.count("\n") == 1
    assert f"{labels.name}: the labels have 64 x 50 pixels and {image.name} has 70 x 60" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("image_name", ["case.tif", "case.nii.gz"])
def test_a_label_stack_without_a_position_belongs_to_the_image_voxel_by_voxel(image_name: str, tmp_path: Path, run: Run) -> None:
    values, marked = np.random.default_rng(0).integers(20, 200, (5, 60, 60)).astype(np.uint8), np.zeros((5, 60, 60), np.uint8)
    marked[1:4, 30:50, 30:50] = 1
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((0.2, 0.2, 3.0))
    sitk.WriteImage(image, tmp_path / image_name)
    sitk.WriteImage(sitk.GetImageFromArray(marked), tmp_path / "mask.tif")
    code, _, err = run("protect", tmp_path / image_name, "--labels", tmp_path / "mask.tif", "--output", tmp_path / "out")
    assert code == 0
    assert "resampled" not in err
    changed = sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / "out" / image_name.replace(".", "_protected.", 1))) != values
    assert np.count_nonzero(changed & (marked > 0)) >= 0.5 * np.count_nonzero(marked)


def test_placed_labels_of_another_size_are_resampled(tmp_path: Path, run: Run) -> None:
    image, labels = (
        sitk.GetImageFromArray(np.random.default_rng(0).integers(1, 255, (60, 70)).astype(np.uint8)),
        np.ones((20, 24), np.uint8),
    )
    mask = sitk.GetImageFromArray(labels)
    mask.SetSpacing((2.0, 2.0))
    sitk.WriteImage(image, tmp_path / "case.nrrd")
    sitk.WriteImage(mask, tmp_path / "mask.mha")
    code, _, err = run("protect", tmp_path / "case.nrrd", "--labels", tmp_path / "mask.mha", "--output", tmp_path / "out")
    assert code == 0
    assert "were resampled to it" in err
