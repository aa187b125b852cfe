"""DICOM on the command line: a series and its labels in, a derived series with a record out, measured again by verify."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pydicom import Dataset, dcmread

from made_dicom import INSTITUTION, PATIENT, PATIENT_ID, SERIES, enhanced, picture, segmentation, series, structure_set
from MedProtectLib.cli.main import main
from MedProtectLib.io import read_volume, sha256_path, sha256_voxels
from samples import SAMPLES, Run

CT = np.asarray(nib.load(SAMPLES / "totalseg_ct" / "ct.nii.gz").dataobj).T.astype(np.int16)[8:16, 30:70, 40:88]
ORGAN = np.zeros((*CT.shape, 1), np.uint8)
ORGAN[2:6, 10:30, 10:30] = 1
SECRETS = (PATIENT, "Mustermann", PATIENT_ID, INSTITUTION, "19640812", "Thin slices", SERIES)


def made(folder: Path) -> tuple[Path, Path]:
    """A CT series and its DICOM segmentation."""
    source = series(folder / "1.2.840.77", CT)
    return source, segmentation(folder / "seg.dcm", sorted(source.iterdir()), ORGAN, labels=["organ"])


@pytest.fixture
def case(tmp_path: Path) -> tuple[Path, Path]:
    return made(tmp_path / "in")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a case and, in out and out_private, what became of it."""
    folder = tmp_path_factory.mktemp("finished")
    image, labels = made(folder / "in")
    assert main(["protect", str(image), "--labels", str(labels), "--output", str(folder / "out")]) == 0
    return folder


@pytest.fixture
def done(finished: Path, tmp_path: Path) -> tuple[Path, Path, Path]:
    """A copy of it: image, labels, protected series."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return tmp_path / "in" / "1.2.840.77", tmp_path / "in" / "seg.dcm", tmp_path / "out" / "1.2.840.77_protected"


def listing(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in listing(folder)}


def test_a_damaged_slice_is_one_line_and_leaves_nothing(run: Run, case: tuple[Path, Path], tmp_path: Path) -> None:
    last = sorted(case[0].iterdir())[-1]
    last.write_bytes(last.read_bytes()[:200] + b"rubbish" * 400)
    code, _, err = run("protect", case[0], "--labels", case[1], "--output", tmp_path / "out")
    assert (code, len(err.splitlines())) == (1, 1)
    assert last.name in err
    assert not (tmp_path / "out").exists()


def test_a_series_is_protected_recorded_and_verified(run: Run, case: tuple[Path, Path], tmp_path: Path) -> None:
    before = contents(tmp_path / "in")
    command = ("protect", case[0], "--labels", case[1], "--segments", "organ", "--target-psnr", "45", "--json")
    code, out, err = run(*command, "--output", tmp_path / "out")
    assert code == 0
    assert contents(tmp_path / "in") == before
    slices = [f"1.2.840.77_protected/{n:04d}.dcm" for n in range(1, 9)]
    assert listing(tmp_path / "out") == [*slices, "1.2.840.77_record.json"]
    assert "modality" not in err  # the header says that it is CT
    record = json.loads((tmp_path / "out" / "1.2.840.77_record.json").read_text())
    protected = tmp_path / "out" / "1.2.840.77_protected"
    assert record["protected_sha256"] == sha256_path(protected)
    assert record["protected_voxels_sha256"] == sha256_voxels(read_volume(protected).array)
    assert json.loads(out)["statistics"] == record["statistics"]
    assert record["statistics"]["changed_outside_regions"] == 0
    private = json.loads((tmp_path / "out_private" / "1.2.840.77_private_record.json").read_text())
    assert private["original_sha256"] == sha256_path(case[0])
    assert private["window"]["unit"] == "HU"
    assert private["window"]["rule"].startswith("CT:")
    code, verified, _ = run("verify", case[0], protected, "--labels", case[1], "--segments", "1", "--json")
    assert code == 0
    assert json.loads(verified)["statistics"] == record["statistics"]


def test_nothing_that_is_written_or_said_names_the_patient(run: Run, done: tuple[Path, Path, Path], tmp_path: Path) -> None:
    code, out, err = run("verify", done[0], done[2], "--labels", done[1])
    assert code == 0
    written = b"".join(p.read_bytes() for p in [*tmp_path.glob("out/*.json"), *tmp_path.glob("out_private/*")])
    for secret in SECRETS:
        assert secret not in out + err
        assert secret.encode() not in written


def test_a_changed_or_missing_slice_is_found(run: Run, done: tuple[Path, Path, Path]) -> None:
    image, labels, protected = done
    spoiled = dcmread(protected / "0001.dcm")
    spoiled.PixelData = b"\1" + spoiled.PixelData[1:]
    spoiled.save_as(protected / "0001.dcm")
    code, _, err = run("verify", image, protected, "--labels", labels)
    assert code == 1
    assert "1 voxels outside" in err
    assert "SHA-256 differs" in err
    (protected / "0008.dcm").unlink()
    code, _, err = run("verify", image, protected, "--labels", labels)
    assert code == 1
    assert "not on the original's grid" in err


def test_an_earlier_series_is_replaced_whole_and_strangers_are_kept(run: Run, done: tuple[Path, Path, Path], tmp_path: Path) -> None:
    command = ("protect", done[0], "--labels", done[1], "--output", tmp_path / "out")
    first = contents(tmp_path / "out")
    code, _, err = run(*command)
    assert code == 1
    assert "protected already" in err
    assert run(*command, "--bound", "8/255", "--overwrite")[0] == 0
    second = contents(tmp_path / "out")
    assert second.keys() == first.keys()
    assert second["1.2.840.77_protected/0004.dcm"] != first["1.2.840.77_protected/0004.dcm"]
    (done[2] / "notes.txt").write_text("keep me")
    code, _, err = run(*command, "--overwrite")
    assert code == 1
    assert "1.2.840.77_protected: it holds 'notes.txt', which MedProtect did not write" in err
    assert contents(tmp_path / "out") == second | {"1.2.840.77_protected/notes.txt": b"keep me"}


def test_a_series_without_record_is_swept_by_the_next_run(run: Run, done: tuple[Path, Path, Path], tmp_path: Path) -> None:
    first = contents(tmp_path / "out")
    (tmp_path / "out" / "1.2.840.77_record.json").unlink()
    (tmp_path / "out_private" / "1.2.840.77_private_record.json").unlink()
    shutil.copy(done[2] / "0001.dcm", done[2] / "0099.dcm")
    assert run("protect", done[0], "--labels", done[1], "--output", tmp_path / "out")[0] == 0
    assert contents(tmp_path / "out") == first


def test_protecting_twice_is_refused(run: Run, done: tuple[Path, Path, Path], tmp_path: Path) -> None:
    code, _, err = run("protect", done[2], "--labels", done[1], "--output", tmp_path / "twice")
    assert code == 1
    assert "MedProtect protected it already" in err
    assert not (tmp_path / "twice").exists()


@pytest.mark.parametrize("output", [".", "inside", "inside/deeper"])
def test_the_output_is_never_a_part_of_the_series(output: str, run: Run, case: tuple[Path, Path], tmp_path: Path) -> None:
    before = contents(tmp_path / "in")
    code, _, err = run("protect", case[0], "--labels", case[1], "--output", case[0] / output)
    assert code == 1
    assert "input's own folder" in err
    assert contents(tmp_path / "in") == before


def test_one_of_several_series_is_named(run: Run, case: tuple[Path, Path], tmp_path: Path) -> None:
    def other(dataset: Dataset, k: int) -> None:
        dataset.SeriesInstanceUID, dataset.SeriesNumber, dataset.SeriesDescription = SERIES + ".7", 7, "Bone / kernel"
        dataset.SOPInstanceUID += ".7"

    series(tmp_path / "in" / "1.2.840.77" / "bone", CT + 1, edit=other)
    command = ("protect", case[0], "--labels", case[1], "--output", tmp_path / "out")
    code, _, err = run(*command)
    assert code == 1
    assert "2 image series: CT of 8 (IMG003), CT of 8 (bone/IMG003)" in err
    assert run(*command, "--series", "Bone / kernel")[0] == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "1.2.840.77_Bone-kernel_protected",
        "1.2.840.77_Bone-kernel_record.json",
    ]
    protected = tmp_path / "out" / "1.2.840.77_Bone-kernel_protected"
    assert run("verify", case[0], protected, "--series", "7", "--labels", case[1])[0] == 0
    assert run("verify", case[0], protected, "--series", "4", "--labels", case[1])[0] == 1
    code, _, err = run("protect", case[1], "--labels", case[1], "--output", tmp_path / "none")
    assert code == 1
    assert "holds labels, not an image" in err


def test_contours_as_labels(run: Run, case: tuple[Path, Path], tmp_path: Path) -> None:
    angle = np.linspace(0, 6.28, 60, endpoint=False)
    rings = [np.stack([2 + 5 * np.cos(angle), -5 + 5 * np.sin(angle), np.full(60, 30.0 + 2 * k)], axis=1) for k in (3, 4)]
    labels = structure_set(tmp_path / "in" / "rt" / "rt.dcm", {"GTV": rings, "body": []})
    command = ("protect", case[0], "--labels", labels.parent, "--segments", "GTV")
    assert run(*command, "--output", tmp_path / "out")[0] == 0
    change = read_volume(tmp_path / "out" / "1.2.840.77_protected").array != CT
    assert change[3:5].any()
    assert json.loads((tmp_path / "out" / "1.2.840.77_record.json").read_text())["statistics"]["changed_outside_regions"] == 0
    code, _, err = run("protect", case[0], "--labels", labels, "--segments", "body", "--output", tmp_path / "none")
    assert code == 1
    assert "label no voxel" in err


def test_one_object_gives_one_file(run: Run, case: tuple[Path, Path], tmp_path: Path) -> None:
    ct = enhanced(tmp_path / "in" / "multi" / "ct.dcm", CT - 1024)
    assert run("protect", ct, "--labels", case[1], "--output", tmp_path / "ct")[0] == 0
    assert listing(tmp_path / "ct") == ["ct_protected.dcm", "ct_record.json"]
    assert run("verify", ct, tmp_path / "ct" / "ct_protected.dcm", "--labels", case[1])[0] == 0
    assert run("protect", ct, "--labels", case[1], "--output", tmp_path / "again")[0] == 0
    assert contents(tmp_path / "again") == contents(tmp_path / "ct")
    us = picture(tmp_path / "in" / "us" / "us.dcm", (CT[3] + 1000 >> 3).astype(np.uint8), "US")
    mask = tmp_path / "in" / "mask.png"
    from PIL import Image

    Image.fromarray(ORGAN[3, :, :, 0]).save(mask)
    assert run("protect", us, "--labels", mask, "--output", tmp_path / "us")[0] == 0
    assert listing(tmp_path / "us") == ["us_protected.dcm", "us_record.json"]
    assert run("verify", us, tmp_path / "us" / "us_protected.dcm", "--labels", mask)[0] == 0


def test_declared_padding_is_neither_changed_nor_reached(run: Run, tmp_path: Path) -> None:
    padded = np.clip(CT, -900, None)
    padded[:, :14, :14] = -1000
    padded[:, 20:22, 15:25] = -998

    def edit(dataset: Dataset, k: int) -> None:
        dataset.add_new("PixelPaddingValue", "SS", -1000)
        dataset.add_new("PixelPaddingRangeLimit", "SS", -995)

    folder = series(tmp_path / "in" / "ct", padded, edit=edit)
    labels = segmentation(tmp_path / "in" / "seg.dcm", sorted(folder.iterdir()), ORGAN, labels=["organ"])
    assert run("protect", folder, "--labels", labels, "--output", tmp_path / "out", "--bound", "8/255")[0] == 0
    after = read_volume(tmp_path / "out" / "ct_protected").array
    hidden = (padded >= -1000) & (padded <= -995)
    assert np.array_equal(after[hidden], padded[hidden])
    assert not ((after[~hidden] >= -1000) & (after[~hidden] <= -995)).any()
    assert (after != padded).any()
