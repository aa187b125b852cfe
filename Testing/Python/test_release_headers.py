"""Images and label maps whose voxels lie in a file of their own: both files go out together, and both are looked at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from made_images import metaimage, nrrd
from MedProtectLib.io import read_labels, read_volume
from MedProtectLib.release.layouts import find_layout
from release_cases import release_here, tree
from samples import Run

WHOLE = {"imagesTr/c1", "imagesTr/c2", "labelsTr/c1", "labelsTr/c2"}

pytestmark = pytest.mark.usefixtures("no_pictures")


def mhd(header: Path, array: np.ndarray, data: str) -> None:
    header.write_bytes(metaimage(array, b"", ElementDataFile=data))
    (header.parent / data).write_bytes(array.tobytes())


def nhdr(header: Path, array: np.ndarray, data: str) -> None:
    header.write_bytes(nrrd(array, packed=b"", data_file=data))
    (header.parent / data).write_bytes(array.tobytes())


def pair(header: Path, array: np.ndarray, data: str) -> None:
    nib.save(nib.Nifti1Pair(array.T, np.eye(4)), header)


FORMATS: dict[str, Callable[[Path, np.ndarray, str], None]] = {".mhd": mhd, ".mha": mhd, ".nhdr": nhdr, ".nrrd": nhdr, ".hdr": pair}


def image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(400, 80, (12, 20, 20)).clip(0, 2000).astype(np.int16)


def labels(first: int = 5) -> np.ndarray:
    array = np.zeros((12, 20, 20), np.uint8)
    array[3:9, first : first + 10, 5:15] = 1
    return array


def dataset(folder: Path, extension: str, cases: int = 2) -> Path:
    """Cases in the layout of nnU-Net whose data files have other names than their headers, some in a folder of their own."""
    for part in ("imagesTr", "labelsTr"):
        (folder / part / "data").mkdir(parents=True)
        for number in range(1, cases + 1):
            array = image(number) if part == "imagesTr" else labels()
            FORMATS[extension](folder / part / f"c{number}{extension}", array, f"{'data/' * (number - 1)}voxels_{number}.bin")
    return folder


@pytest.mark.parametrize("extension", FORMATS)
def test_both_files_go_out(run: Run, profile: Path, tmp_path: Path, extension: str) -> None:
    source, out = dataset(tmp_path / "in", extension), tmp_path / "out"
    code, answer, _ = release_here(run, source, out, profile)
    assert (code, answer["counts"]["ok"]) == (0, 2), answer
    for number in (1, 2):
        name = f"labelsTr/c{number}{extension}"
        assert np.array_equal(read_labels(out / name).layers[0], labels())
        assert tree(out)[name] == tree(source)[name]
        protected = read_volume(out / "imagesTr" / f"c{number}{extension}").array
        assert 0 < np.abs(protected.astype(int) - image(number)).max() < 40
    assert (tmp_path / "out_private" / "left_out.txt").read_text() == ""
    (case, _) = find_layout(source).cases()
    assert {item.target for item in (*case.image_files, *case.copies)} <= set(tree(out)), "the places are known before"


@pytest.mark.parametrize("part", ["imagesTr", "labelsTr"])
@pytest.mark.parametrize("extension", FORMATS)
def test_changed_voxels_are_seen(run: Run, profile: Path, tmp_path: Path, extension: str, part: str) -> None:
    source, out = dataset(tmp_path / "in", extension, 1), tmp_path / "out"
    assert release_here(run, source, out, profile)[0] == 0
    done = tree(out)
    (data,) = (path for path in (source / part).rglob("*") if path.is_file() and path.suffix in (".bin", ".img"))
    content = bytearray(data.read_bytes())
    content[1000:1200] = bytes([1]) * 200
    data.write_bytes(content)
    code, answer, said = release_here(run, source, out, profile, "--resume")
    assert (code, answer["counts"]["failed"]) == (1, 1)
    assert "changed since it was released" in said
    assert tree(out) == done


def test_an_unlabelled_copy_can_be_read(run: Run, profile: Path, tmp_path: Path) -> None:
    source, out = dataset(tmp_path / "in", ".mhd", 1), tmp_path / "out"
    for path in (source / "labelsTr").glob("*.mhd"):
        path.unlink()
    assert release_here(run, source, out, profile, "--unlabelled", "copy")[1]["counts"]["copied"] == 1
    assert np.array_equal(read_volume(out / "imagesTr" / "c1.mhd").array, image(1))


def test_channels_with_data_files(run: Run, profile: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    for part in ("imagesTr", "labelsTr"):
        (source / part).mkdir(parents=True)
    for channel in (0, 1):
        mhd(source / "imagesTr" / f"c1_{channel:04d}.mhd", image(channel), f"voxels_{channel}.bin")
    mhd(source / "labelsTr" / "c1.mhd", labels(), "voxels.bin")
    (case,) = find_layout(source).cases()
    assert [item.source for item in case.image_files] == [f"imagesTr/{n}" for k in (0, 1) for n in (f"c1_{k:04d}.mhd", f"voxels_{k}.bin")]
    assert [item.target for item in case.image_files] == [f"imagesTr/c1_{k:04d}{end}" for k in (0, 1) for end in (".mhd", ".raw")]


def test_a_manifest_that_names_headers_elsewhere(run: Run, profile: Path, tmp_path: Path) -> None:
    """The second one's data file has the name of the first one's, so that they cannot lie in one folder of the release."""
    elsewhere = tmp_path / "elsewhere"
    for name in ("p1", "p2"):
        (elsewhere / name).mkdir(parents=True)
        mhd(elsewhere / name / "ct.mhd", image(int(name[1])), "ct.bin")
        mhd(elsewhere / name / "seg.mhd", labels(), "seg.bin")
    table, out = tmp_path / "in" / "cases.csv", tmp_path / "out"
    table.parent.mkdir()
    rows = [f"{name},{elsewhere}/{name}/ct.mhd,{elsewhere}/{name}/seg.mhd\n" for name in ("p1", "p2")]
    table.write_text("case,image,labels\n" + rows[0])
    assert release_here(run, table, out, profile)[0] == 0
    assert {name for name in tree(out) if "/" in name} == {"images/p1.mhd", "images/p1.raw", "labels/p1.mhd", "labels/seg.bin"}
    assert np.array_equal(read_labels(out / "labels" / "p1.mhd").layers[0], labels())
    table.write_text("case,image,labels\n" + "".join(rows))
    code, _, said = release_here(run, table, tmp_path / "two", profile)
    assert code == 1
    assert "labels/seg.bin" in said


def test_a_second_label_map_without_its_voxels_keeps_the_case_back(run: Run, profile: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in" / "sub-01" / "anat"
    folder.mkdir(parents=True)
    (tmp_path / "in" / "dataset_description.json").write_text('{"Name": "made", "BIDSVersion": "1.8.0"}')
    for name, array in (("T1w", image(1)), ("dseg", labels()), ("mask", labels())):
        mhd(folder / f"sub-01_{name}.mhd", array, f"{name}.bin")
    assert release_here(run, tmp_path / "in", tmp_path / "out", profile)[0] == 0
    for name in ("dseg", "mask"):
        assert np.array_equal(read_labels(tmp_path / "out" / "sub-01" / "anat" / f"sub-01_{name}.mhd").layers[0], labels())
    (folder / "mask.bin").unlink()
    code, answer, _ = release_here(run, tmp_path / "in", tmp_path / "two", profile)
    assert (code, answer["counts"]["quarantined"]) == (1, 1)
    assert "mask.bin" in answer["problems"][0]["reason"]


def test_label_maps_with_equal_headers_are_not_equal(run: Run, profile: Path, tmp_path: Path) -> None:
    """One image with labels in two places: its second protection would give the first away."""
    source = dataset(tmp_path / "in", ".mhd")
    for part, array in (("imagesTr", image(1)), ("labelsTr", labels(7))):
        (source / part / "c2.mhd").unlink()
        (source / part / "data" / "voxels_2.bin").unlink()
        mhd(source / part / "c2.mhd", array, "voxels_2.bin")
    for path in (source / "labelsTr").glob("*.mhd"):
        path.write_bytes(path.read_bytes().replace(b"voxels_1", b"voxels").replace(b"voxels_2", b"voxels"))
    (source / "labelsTr" / "voxels_1.bin").rename(source / "labelsTr" / "voxels.bin")
    assert release_here(run, source, tmp_path / "same", profile)[1]["counts"]["ok"] == 2, "one label map for both"
    (source / "labelsTr" / "c2.mhd").unlink()
    (source / "labelsTr" / "sub").mkdir()
    table = source / "cases.csv"
    (source / "labelsTr" / "sub" / "c2.mhd").write_bytes((source / "labelsTr" / "c1.mhd").read_bytes())
    (source / "labelsTr" / "voxels_2.bin").rename(source / "labelsTr" / "sub" / "voxels.bin")
    table.write_text("case,image,labels\na,imagesTr/c1.mhd,labelsTr/c1.mhd\nb,imagesTr/c2.mhd,labelsTr/sub/c2.mhd\n")
    answer = release_here(run, table, tmp_path / "out", profile)[1]
    assert (answer["counts"]["ok"], answer["counts"]["quarantined"]) == (1, 1)
    assert "the same as that of case 'a'" in answer["problems"][0]["reason"]
