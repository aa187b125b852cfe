"""What a commit puts into the shareable root, what becomes of it when the process ends first, and what is never put there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread

import made_dicom
from MedProtectLib.io import read_volume
from MedProtectLib.release import commit as committing
from MedProtectLib.release import process
from MedProtectLib.release.case import Item, ReleaseCase
from MedProtectLib.release.commit import OvertakenError, commit, read_record, staged
from MedProtectLib.release.roots import SUMMARY, Roots
from MedProtectLib.release.verify import verify_release
from release_cases import NAMES, decathlon, own_profile, release_here, tree
from samples import Run

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return own_profile(tmp_path_factory.mktemp("profile"))


@pytest.fixture
def series(tmp_path: Path, rng: np.random.Generator) -> Callable[[str, int], Path]:
    """Makes a series of eight slices in a folder of the dataset, another one for every number."""
    array = rng.normal(0, 100, (8, 32, 32)).astype(np.int16)

    def made(folder: str, number: int) -> Path:
        def renumbered(dataset: Dataset, slice_number: int) -> None:
            dataset.SeriesInstanceUID = f"{made_dicom.SERIES}{number}"
            dataset.SOPInstanceUID = f"{made_dicom.SERIES}{number}.{slice_number + 1}"

        return made_dicom.series(tmp_path / "in" / folder, array + number, edit=renumbered)

    return made


def segmentation(path: Path, of: Path) -> None:
    mask = np.zeros((8, 32, 32, 2), np.uint8)
    mask[2:6, 8:24, 8:24, 0] = mask[3:5, 4:8, 4:8, 1] = 1
    made_dicom.segmentation(path, sorted(of.glob("IMG*")) or sorted(of.glob("0*.dcm")), mask)


@pytest.mark.parametrize("killed", [False, True])
def test_an_interrupted_copy_of_a_series_leaves_no_original(
    killed: bool, run: Run, profile: Path, tmp_path: Path, series: Callable[[str, int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, out = series("first", 1), tmp_path / "out"
    series("second", 2)
    moves = []

    def interrupted(move: Callable[[Path, Path], None], path: Path, target: Path) -> None:
        move(path, target)
        moves.append(target)
        if len(moves) == 4:
            raise SystemExit(137)

    with monkeypatch.context() as patched:
        patched.setattr(committing, "_move", partial(interrupted, committing._move))
        if killed:
            unlink = Path.unlink
            patched.setattr(
                Path, "unlink", lambda path, missing_ok=False: None if path.parent == out / "first" else unlink(path, missing_ok)
            )
            patched.setattr(committing, "_sweep", lambda roots, case: None)
        with pytest.raises(SystemExit):
            release_here(run, tmp_path / "in", out, profile, "--unlabelled", "copy")
    assert len(list((out / "first").iterdir())) == (4 if killed else 0)
    segmentation(tmp_path / "in" / "labels" / "first.dcm", first)
    code, answer, _ = release_here(run, tmp_path / "in", out, profile, "--unlabelled", "copy", "--resume")
    assert (code, answer["counts"]["ok"], answer["counts"]["copied"]) == (0, 1, 1)
    assert sorted(path.name for path in (out / "first").iterdir()) == [f"000{number}.dcm" for number in range(1, 9)]
    assert verify_release(out).findings == []


def test_labels_in_the_folder_of_another_series_stay(run: Run, profile: Path, tmp_path: Path, series: Callable[[str, int], Path]) -> None:
    first, second, out = series("first", 1), series("second", 2), tmp_path / "out"
    segmentation(second / "99.dcm", first)
    for _ in range(2):
        assert release_here(run, tmp_path / "in", out, profile, "--unlabelled", "copy", "--resume")[0] == 0
    assert (out / "second" / "99.dcm").is_file()
    assert verify_release(out).findings == []


def test_labels_where_a_slice_of_another_series_would_be_are_refused(
    run: Run, profile: Path, tmp_path: Path, series: Callable[[str, int], Path]
) -> None:
    first, second, out = series("first", 1), series("second", 2), tmp_path / "out"
    segmentation(tmp_path / "in" / "labels" / "second.dcm", second)
    segmentation(second / "0008.dcm", first)
    dataset = dcmread(second / "0008.dcm")
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{dataset.SOPInstanceUID}1"
    dataset.save_as(second / "0008.dcm")
    code, answer, _ = release_here(run, tmp_path / "in", out, profile)
    assert (code, "'second/0008.dcm' would be two different files of the release" in answer["error"]) == (1, True)


def test_a_release_lies_in_no_other(run: Run, profile: Path, tmp_path: Path) -> None:
    dataset, first = decathlon(tmp_path / "in", 1), tmp_path / "first"
    assert release_here(run, dataset, first, profile)[0] == 0
    before = tree(first)
    for places in ((first / "sub",), (tmp_path / "second", "--private", first / "private"), (tmp_path / "second", "--private", first)):
        code, answer, _ = release_here(run, dataset, places[0], profile, *places[1:])
        assert (code, f"would lie in the release {first}" in answer["error"]) == (1, True)
    assert tree(first) == before


def test_a_released_image_is_not_exchanged_for_other_bytes(
    run: Run, profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, out = decathlon(tmp_path / "in", 1), tmp_path / "out"
    assert release_here(run, dataset, out, profile)[0] == 0
    image = out / "imagesTr" / NAMES[0]
    released = image.read_bytes()
    image.unlink()
    with monkeypatch.context() as patched:

        def by_another_version(make: Callable[..., dict], *arguments: object) -> dict:
            return make(*arguments) | {"protected_voxels_sha256": "0" * 64}

        patched.setattr(process, "protected", partial(by_another_version, process.protected))
        code, answer, _ = release_here(run, dataset, out, profile, "--resume")
    assert (code, image.exists()) == (1, False)
    assert "is missing; trying it again failed" in answer["error"]
    assert "would not be those that were released" in answer["error"]
    assert release_here(run, dataset, out, profile, "--resume")[0] == 0
    assert image.read_bytes() == released


def test_a_released_case_is_not_quarantined(run: Run, profile: Path, tmp_path: Path) -> None:
    dataset, out = decathlon(tmp_path / "in", 2), tmp_path / "out"
    assert release_here(run, dataset, out, profile)[0] == 0
    (dataset / "labelsTr" / NAMES[0]).rename(tmp_path / "labels")
    code, answer, _ = release_here(run, dataset, out, profile, "--resume")
    assert (code, answer["counts"]["failed"], answer["counts"]["quarantined"]) == (1, 1, 0)
    (tmp_path / "labels").rename(dataset / "labelsTr" / NAMES[0])
    code, answer, _ = release_here(run, dataset, out, profile, "--resume")
    assert (code, answer["counts"]["skipped"]) == (0, 2)


def test_whoever_comes_too_late_changes_nothing(tmp_path: Path) -> None:
    roots = Roots.of(tmp_path / "out", None)
    case = ReleaseCase("a", Item("a.nrrd", "a.nrrd"), (Item("a.nrrd", "a.nrrd"),))
    record = {"case": "a", "key": "1", "status": "ok", "inputs": {}, "outputs": {}, "withheld": [], "shareable": {}}
    record["original_voxels_sha256"] = "0"
    roots.output.mkdir()
    with staged(roots, case) as late, staged(roots, case) as early:
        for stage, content in ((late, "late"), (early, "early")):
            stage.shared.mkdir(parents=True, exist_ok=True)
            stage.private.mkdir(parents=True, exist_ok=True)
            stage.place("a.nrrd").write_text(content)
            (stage.private / "notes").write_text(content)
        (roots.output / SUMMARY).write_text("{}")
        commit(early, roots, case, record, None)
        assert not (roots.output / SUMMARY).exists(), "the release is not finished any more"
        with pytest.raises(OvertakenError):
            commit(late, roots, case, record | {"key": "2"}, None)
    assert (roots.output / "a.nrrd").read_text() == (roots.of_case("a") / "notes").read_text() == "early"
    assert read_record(roots, "a") == record


def test_verify_finds_an_original_among_the_released(run: Run, profile: Path, tmp_path: Path) -> None:
    dataset, out = decathlon(tmp_path / "in", 1), tmp_path / "out"
    assert release_here(run, dataset, out, profile)[0] == 0
    shutil.copyfile(dataset / "imagesTr" / NAMES[0], out / "original.nii.gz")
    (out / "notes.txt").write_text("mine")
    code, answer, _ = run("release", "--verify", out, "--json")
    told = json.loads(answer)
    assert (code, told["findings"]) == (1, ["original.nii.gz: an image or label map that is not of this release"])
    assert told["unnamed"] == ["notes.txt", "original.nii.gz"]


def test_a_series_that_was_made_can_be_read(run: Run, profile: Path, tmp_path: Path, series: Callable[[str, int], Path]) -> None:
    segmentation(tmp_path / "in" / "labels" / "first.dcm", series("first", 1))
    assert release_here(run, tmp_path / "in", tmp_path / "out", profile)[0] == 0
    assert read_volume(tmp_path / "out" / "first").array.shape == (8, 32, 32)
