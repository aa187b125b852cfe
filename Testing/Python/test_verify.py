"""What 'verify' finds a record by, what it says where there is none, and that a protected file is no original."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import SimpleITK as sitk

from MedProtectLib import Protector, protect_file
from MedProtectLib.recorded import is_number
from release_cases import NAMES, decathlon, own_profile
from samples import Run

NAME = NAMES[0]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of one case, its release and the case protected on its own, in one folder."""
    from MedProtectLib.cli.main import main

    folder = tmp_path_factory.mktemp("made")
    dataset, profile = decathlon(folder / "in", 1), own_profile(folder)
    options = ["--profile", str(profile), "--no-vault", "--jobs", "0", "--no-reports"]
    assert main(["release", str(dataset), "--output", str(folder / "release"), *options]) == 0
    protect_file(dataset / "imagesTr" / NAME, dataset / "labelsTr" / NAME, folder / "single", Protector.from_profile(profile))
    return folder


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "copy"))


def files(folder: Path) -> tuple[Path, Path, tuple[object, ...]]:
    """The original, the released file and the labels as an option."""
    return folder / "in" / "imagesTr" / NAME, folder / "release" / "imagesTr" / NAME, ("--labels", folder / "in" / "labelsTr" / NAME)


def test_a_released_file_is_held_against_the_records_of_its_release(copy: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    original, released, labels = files(copy)
    records = copy / "release" / "medprotect_records.jsonl"
    code, out, err = run("verify", original, released, *labels, "--json")
    answer = json.loads(out)
    assert (code, err, answer["record"]) == (0, "", str(records))
    assert answer["statistics"] == json.loads(records.read_text())["statistics"]
    monkeypatch.chdir(released.parent)
    code, out, _ = run("verify", original, NAME, *labels)
    assert (code, str(records) in out, "4/255 of the window, kept" in out) == (0, True, True)


@pytest.mark.parametrize("spoiled", ["header", "voxel", "bound"])
def test_a_released_file_that_was_changed_is_found_out(spoiled: str, copy: Path, run: Run) -> None:
    original, released, labels = files(copy)
    records = copy / "release" / "medprotect_records.jsonl"
    image = sitk.ReadImage(released)
    if spoiled == "voxel":
        image[0, 0, 0] += 1
    if spoiled == "bound":
        records.write_text(json.dumps(json.loads(records.read_text()) | {"bound": 0.5 / 255}) + "\n")
    else:
        sitk.WriteImage(image, released)
    code, _, err = run("verify", original, released, *labels)
    found = {"header": "SHA-256 differs", "voxel": "voxels changed since the record was written", "bound": "exceeds the bound"}
    assert (code, len(err.splitlines()), found[spoiled] in err) == (1, 1, True)


def test_a_damaged_line_of_a_release_is_one_line(copy: Path, run: Run) -> None:
    original, released, labels = files(copy)
    records = copy / "release" / "medprotect_records.jsonl"
    for spoiled in (records.read_text().replace("}", ""), json.dumps(json.loads(records.read_text()) | {"outputs": 3, "statistics": []})):
        records.write_text(spoiled)
        code, _, err = run("verify", original, released, *labels)
        assert (code, len(err.splitlines()), "the record is damaged" in err) == (1, 1, True)


@pytest.mark.parametrize("record", ["none", "names other files"])
def test_without_a_record_it_says_what_was_not_checked(record: str, copy: Path, run: Run) -> None:
    original, released, labels = files(copy)
    records = copy / "release" / "medprotect_records.jsonl"
    records.unlink()
    if record != "none":
        records.write_text(json.dumps({"case": "another", "protected_file": "imagesTr/another.nii.gz"}) + "\n")
    code, out, err = run("verify", original, released, *labels, "--json")
    assert (code, json.loads(out)["record"], "neither its hash nor its bound" in err) == (0, None, True)
    assert json.loads(out)["notices"]
    out = run("verify", original, released, *labels)[1]
    assert "not checked" in out
    assert "none: the hash is not checked" in out
    code, out, err = run("verify", original, released, *labels, "--bound", "4/255")
    assert (code, "its hash is not checked" in err, "4/255 of the window, kept" in out) == (0, True, True)


def test_a_bound_of_ones_own_holds_beside_that_of_the_record(made: Path, run: Run) -> None:
    original, released, labels = files(made)
    code, _, err = run("verify", original, released, *labels, "--bound", "1/255")
    assert (code, "exceeds the bound of 0.00392" in err) == (1, True)
    assert run("verify", original, released, *labels, "--bound", "33/255")[0] == 2


@pytest.mark.parametrize("where", ["single", "release"])
def test_a_protected_file_is_no_original(where: str, made: Path, run: Run, tmp_path: Path) -> None:
    original, protected, labels = files(made)
    if where == "single":
        protected = next((made / "single").glob("*_protected.nii.gz"))
    for command in (("verify", protected, original, *labels), ("protect", protected, *labels, "--output", tmp_path / "twice")):
        code, out, err = run(*command)
        assert (code, out, len(err.splitlines())) == (1, "", 1)
        assert "protected already. Give the original." in err
    assert not (tmp_path / "twice").exists()


def test_a_protected_file_by_another_name_is_known_by_its_hash(made: Path, run: Run, tmp_path: Path) -> None:
    shutil.copyfile(next((made / "single").glob("*_protected.nii.gz")), tmp_path / "a.nii.gz")
    shutil.copyfile(next((made / "single").glob("*_record.json")), tmp_path / "any_record.json")
    code, _, err = run("protect", tmp_path / "a.nii.gz", *files(made)[2], "--output", tmp_path / "out")
    assert (code, "protected already" in err) == (1, True)


@pytest.mark.parametrize(
    ("value", "is_one"), [(1, True), (0.5, True), (10**400, False), (float("nan"), False), (True, False), ("1", False)]
)
def test_only_what_can_be_computed_with_is_a_number(value: object, is_one: bool) -> None:
    assert is_number(value) is is_one
