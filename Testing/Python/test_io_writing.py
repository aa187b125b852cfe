"""What the writer refuses, what it leaves behind when it fails, and the small helpers around it."""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from made_images import EXTENSIONS, GREY, metaimage, sample
from MedProtectLib.errors import MedProtectError
from MedProtectLib.io import extension_of, read_volume, sha256_file, sha256_voxels, stem_of, write_volume
from MedProtectLib.volume import Geometry, Volume

FULL_DISK = Path("/dev/full")


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_the_original_is_never_replaced(tmp_path, extension):
    path = sample(tmp_path, extension)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    volume = read_volume(path)
    (tmp_path / f"link{extension}").symlink_to(path)
    for target in (path, tmp_path / f"link{extension}", tmp_path / ".." / tmp_path.name / path.name):
        with pytest.raises(MedProtectError, match="of the original"):
            write_volume(volume, target)
    assert {file: file.read_bytes() for file in before} == before


def test_the_data_file_of_the_original_is_never_replaced(tmp_path):
    (tmp_path / "other.raw").write_bytes(GREY.tobytes())
    (tmp_path / "in.mhd").write_bytes(metaimage(GREY, b"", ElementDataFile="other.raw"))
    with pytest.raises(MedProtectError, match=r"'other.raw' of the original"):
        write_volume(read_volume(tmp_path / "in.mhd"), tmp_path / "other.mhd")
    assert (tmp_path / "other.raw").read_bytes() == GREY.tobytes()


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_other_files_are_replaced(tmp_path, extension):
    volume = read_volume(sample(tmp_path, extension))
    out = tmp_path / f"out{extension}"
    write_volume(volume, out)
    once = out.read_bytes()
    write_volume(volume.with_array(volume.array[:, ::-1].copy()), out)
    write_volume(volume, out)
    assert out.read_bytes() == once


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
@pytest.mark.parametrize("extension", EXTENSIONS)
def test_names_need_not_be_utf8(tmp_path: Path, extension: str) -> None:
    """Names in Latin-1, of the file and of the data file that its header names."""
    folder = tmp_path / os.fsdecode(b"Jos\xe9")
    folder.mkdir()
    path = sample(folder, extension)
    if extension in (".mhd", ".nhdr"):
        (folder / "in.raw").rename(folder / os.fsdecode(b"\xe9tude.raw"))
        path.write_bytes(path.read_bytes().replace(b"in.raw", b"\xe9tude.raw"))
    volume = read_volume(path)
    target = folder / os.fsdecode(b"prot\xe9g\xe9" + extension.encode())
    write_volume(volume.with_array(volume.array[:, ::-1].copy()), target)
    assert np.array_equal(read_volume(target).array, volume.array[:, ::-1])


@pytest.mark.parametrize("name", ["50% dose.raw", "100%.raw", "listen.raw", "LISTED 2.raw", "list"])
@pytest.mark.parametrize("extension", [".mhd", ".nhdr"])
def test_a_data_file_may_have_a_name_that_is_almost_a_list(tmp_path: Path, extension: str, name: str) -> None:
    path = sample(tmp_path, extension)
    (tmp_path / "in.raw").rename(tmp_path / name)
    path.write_bytes(path.read_bytes().replace(b"in.raw", name.encode()))
    assert np.array_equal(read_volume(path).array, GREY)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
@pytest.mark.parametrize("extension", [".mhd", ".nhdr"])
def test_a_missing_data_file_whose_name_is_not_utf8_is_one_line(tmp_path: Path, extension: str) -> None:
    path = sample(tmp_path, extension)
    path.write_bytes(path.read_bytes().replace(b"in.raw", b"\xe9.raw"))
    with pytest.raises(MedProtectError, match=r"its data file '\N{REPLACEMENT CHARACTER}\.raw' is missing"):
        read_volume(path)


@pytest.mark.skipif(not FULL_DISK.exists(), reason="this system has no device that is always full")
@pytest.mark.parametrize("extension", EXTENSIONS)
def test_nothing_stays_when_the_disk_is_full(tmp_path, extension):
    volume = read_volume(sample(tmp_path, extension))
    out = tmp_path / f"out{extension}"
    for full in volume.source.targets(out):
        full.symlink_to(FULL_DISK)
        with pytest.raises(MedProtectError, match=r"out.* cannot be written \(No space left on device\)"):
            write_volume(volume, out)
        assert not [file for file in tmp_path.iterdir() if file.name.startswith("out")]


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_no_folder_to_write_to(tmp_path, extension):
    volume = read_volume(sample(tmp_path, extension))
    with pytest.raises(MedProtectError, match=r"cannot be written \(No such file or directory\)"):
        write_volume(volume, tmp_path / "gone" / f"out{extension}")


def test_a_folder_in_the_way(tmp_path):
    volume = read_volume(sample(tmp_path, ".nrrd"))
    (tmp_path / "out.nrrd").mkdir()
    with pytest.raises(MedProtectError, match=r"cannot be written \(Is a directory\)"):
        write_volume(volume, tmp_path / "out.nrrd")
    assert (tmp_path / "out.nrrd").is_dir()


def test_the_format_stays(tmp_path):
    with pytest.raises(MedProtectError, match=r"give it a name that ends in \.nrrd"):
        write_volume(read_volume(sample(tmp_path, ".nrrd")), tmp_path / "out.nii.gz")


@pytest.mark.parametrize("array", [GREY.astype("f4"), GREY.astype("i4"), GREY[..., None].repeat(2, 3)])
def test_the_stored_type_stays(tmp_path, array):
    volume = read_volume(sample(tmp_path, ".nrrd"))
    with pytest.raises(MedProtectError, match="is stored as int16"):
        write_volume(replace(volume, array=array), tmp_path / "out.nrrd")


def test_new_volumes_have_three_formats(tmp_path):
    volume = Volume(GREY, Geometry((4, 3, 2)), name="perturbation")
    with pytest.raises(MedProtectError, match=r"perturbation was not read from a file; it can be written as \.nrrd"):
        write_volume(volume, tmp_path / "new.mha")
    with pytest.raises(MedProtectError, match="has a slope or intercept"):
        write_volume(replace(volume, slope=2.0), tmp_path / "new.nrrd")
    with pytest.raises(MedProtectError, match="values of type float16"):
        write_volume(replace(volume, array=GREY.astype("f2")), tmp_path / "new.nii")
    with pytest.raises(MedProtectError, match="too large for NIfTI"):
        write_volume(Volume(np.zeros((1, 1, 40000), "u1"), Geometry((40000, 1, 1))), tmp_path / "new.nii")
    with pytest.raises(MedProtectError, match=r"several channels can be written as \.nrrd only"):
        write_volume(replace(volume, array=GREY[..., None].repeat(2, 3)), tmp_path / "new.nii")
    with pytest.raises(MedProtectError, match="cannot be written as one"):
        write_volume(replace(volume, source="a Slicer node"), tmp_path / "new.nrrd")


@pytest.mark.parametrize(
    ("name", "extension", "stem"),
    [
        ("ct.nii.gz", ".nii.gz", "ct"),
        ("a/b.c/Case.01.NII.GZ", ".nii.gz", "Case.01"),
        ("ct.seg.nrrd", ".seg.nrrd", "ct"),
        ("ct.v2.nrrd", ".nrrd", "ct.v2"),
        ("picture.PNG", ".png", "picture"),
        ("none", "", "none"),
        (".hidden", "", ".hidden"),
    ],
)
def test_names(name, extension, stem):
    assert (extension_of(name), stem_of(name)) == (extension, stem)
    assert (extension_of(Path(name)), stem_of(Path(name))) == (extension, stem)


def test_hash_of_a_file(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_file(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()
    with pytest.raises(MedProtectError, match="gone: cannot be read"):
        sha256_file(tmp_path / "gone")


def test_hash_of_voxels_knows_values_only():
    expected = hashlib.sha256(GREY.tobytes()).hexdigest()
    assert sha256_voxels(GREY) == expected
    assert sha256_voxels(GREY.astype(">i2")) == expected
    assert sha256_voxels(np.asfortranarray(GREY)) == expected
    assert sha256_voxels(GREY + 1) != expected
    assert sha256_voxels(GREY.astype("i4")) != expected


def test_one_volume_has_one_hash_in_every_format(tmp_path):
    files = [sample(tmp_path, extension) for extension in (".nrrd", ".nhdr", ".mha", ".nii", ".nii.gz", ".hdr", ".tif")]
    assert {sha256_voxels(read_volume(path).array) for path in files} == {sha256_voxels(GREY)}
    assert len({sha256_file(path) for path in files}) == len(files)
