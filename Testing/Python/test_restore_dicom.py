"""A protected DICOM series has new headers; its vault entry gives back the very files of the original."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.uid import RLELossless

from made_dicom import INSTITUTION, PATIENT, PATIENT_ID, enhanced, picture, series
from MedProtectLib.errors import MedProtectError
from MedProtectLib.io import read_volume, write_volume
from MedProtectLib.release.instances import kept_headers
from MedProtectLib.release.keys import SiteKey
from MedProtectLib.release.restore import restore_file
from MedProtectLib.release.vault import seal
from vault_cases import disturbed

VOXELS = np.random.default_rng(3).integers(-900, 1800, (5, 8, 9)).astype("i2")
COLOURS = np.random.default_rng(4).integers(0, 256, (7, 9, 3)).astype("u1")


def twelve_bits(dataset: Dataset, number: int) -> None:
    """Values of 12 bits, an overlay of the old kind in the bits above them, and no padding value."""
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 12, 11, 0
    cells = (np.frombuffer(dataset.PixelData, "<u2") & 0x0FFF) | 0x8000
    dataset.PixelData = cells.astype("<u2").tobytes()
    if "PixelPaddingValue" in dataset:
        del dataset.PixelPaddingValue


def packed(dataset: Dataset, number: int) -> None:
    dataset.compress(RLELossless)


MAKERS: dict[str, Callable[[Path], Path]] = {
    "CT series": lambda folder: series(folder / "ct", VOXELS),
    "12 bits and an overlay": lambda folder: series(folder / "ct", VOXELS, edit=twelve_bits),
    "RLE": lambda folder: series(folder / "ct", VOXELS, edit=packed),
    "enhanced": lambda folder: enhanced(folder / "ct.dcm", VOXELS),
    "X-ray of 63 pixels": lambda folder: picture(folder / "xr.dcm", VOXELS[0, :7].astype("u2") % 256, "DX"),
    "ultrasound in colours": lambda folder: picture(folder / "us.dcm", COLOURS, "US"),
}


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in ([path] if path.is_file() else path.iterdir())}


@pytest.mark.parametrize("name", MAKERS)
def test_the_very_files_come_back(name: str, tmp_path: Path, rng: np.random.Generator) -> None:
    key = SiteKey.new()
    original = MAKERS[name](tmp_path)
    before = read_volume(original)
    protected = tmp_path / "out" / f"protected{before.source.extension}"
    protected.parent.mkdir()
    changed = before.array ^ (rng.integers(0, 4, before.array.shape)).astype(before.array.dtype)
    write_volume(before.with_array(changed), protected)
    stored = read_volume(protected)
    assert not np.array_equal(stored.array, before.array)
    content = seal(before, stored, key, "test", "case").save(tmp_path / "vault").read_bytes()
    assert not any(text.encode() in content for text in (PATIENT, PATIENT_ID, INSTITUTION))
    restored = restore_file(protected, tmp_path / "vault", key, tmp_path / "back" / original.name)
    assert restored.same_file
    assert contents(restored.output) == contents(original)
    again = read_volume(restored.output)
    assert (again.array.dtype, again.array.tobytes()) == (before.array.dtype, before.array.tobytes())


def test_what_could_not_be_opened_is_not_sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, original = SiteKey.new(), MAKERS["RLE"](tmp_path)
    before, protected = read_volume(original), tmp_path / "out" / "protected"
    protected.parent.mkdir()
    write_volume(before.with_array(before.array ^ 1), protected)
    stored = read_volume(protected)
    kept = len(zlib.decompress(kept_headers(before, stored)))
    monkeypatch.setattr("MedProtectLib.release.instances.LARGEST", kept - 1)
    with pytest.raises(MedProtectError, match=r"ct: its DICOM headers and compressed pixels take more than 2 GB.*split the series"):
        seal(before, stored, key, "test", "case")
    monkeypatch.setattr("MedProtectLib.release.instances.LARGEST", kept)
    seal(before, stored, key, "test", "case").save(tmp_path / "vault")
    assert restore_file(protected, tmp_path / "vault", key, tmp_path / "back" / "ct").same_file


def test_a_changed_or_missing_slice_is_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    key, original = SiteKey.new(), series(tmp_path / "ct", VOXELS)
    before = read_volume(original)
    protected = tmp_path / "out" / "protected"
    protected.parent.mkdir()
    write_volume(before.with_array(disturbed(before.array, rng)), protected)
    seal(before, read_volume(protected), key, "test", "case").save(tmp_path / "vault")
    one = min(protected.iterdir())
    content = bytearray(one.read_bytes())
    content[-1] ^= 1
    one.write_bytes(content)
    for _ in range(2):
        with pytest.raises(MedProtectError, match="no entry"):
            restore_file(protected, tmp_path / "vault", key, tmp_path / "back" / "ct")
        one.unlink(missing_ok=True)
    assert not (tmp_path / "back").exists() or not list((tmp_path / "back").iterdir())
