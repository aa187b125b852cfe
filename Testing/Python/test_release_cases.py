"""Cases of a release beside each other: what they share stays, what would be mixed up is refused, and no option is passed over."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from release_cases import NAMES, decathlon, own_profile, tree
from samples import Run


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return own_profile(tmp_path_factory.mktemp("profile"))


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("MedProtectLib.release.make.write_pictures", lambda *_, **__: None)


def call(run: Run, dataset: Path, out: Path, profile: Path, *more: object) -> tuple[int, dict, str]:
    """A release in this process, without a vault unless a key is given, its JSON answer and what it said."""
    vault = () if "--key" in more else ("--no-vault",)
    code, answer, said = run("release", dataset, "--output", out, "--profile", profile, *vault, "--jobs", 0, "--json", *more)
    return code, json.loads(answer), said


def volume(path: Path, seed: int) -> Path:
    """A made MR volume of 20 x 20 x 12 voxels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.random.default_rng(seed).normal(400, 80, (20, 20, 12)).clip(0, 2000).astype(np.int16)
    nib.save(nib.Nifti1Image(array, np.diag([1, 1, 2, 1.0])), path)
    return path


def box(path: Path, first: int = 5) -> Path:
    """A label map for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.zeros((20, 20, 12), np.uint8)
    array[first : first + 10, first : first + 10, 3:9] = 1
    nib.save(nib.Nifti1Image(array, np.diag([1, 1, 2, 1.0])), path)
    return path


def bids(folder: Path, *images: str) -> Path:
    """One subject of a BIDS dataset: images of its anatomy and one label map for all of them."""
    for number, name in enumerate(images):
        volume(folder / "sub-01" / "anat" / f"{name}.nii.gz", number)
    box(folder / "sub-01" / "anat" / "sub-01_dseg.nii.gz")
    (folder / "dataset_description.json").write_text('{"Name": "made", "BIDSVersion": "1.8.0"}')
    return folder


def manifest(folder: Path, *rows: str) -> Path:
    """A table of cases with label maps."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cases.csv").write_text("\n".join(("case,image,labels", *rows, "")))
    return folder / "cases.csv"


def test_a_case_that_stays_behind_leaves_what_others_need(run: Run, profile: Path, tmp_path: Path) -> None:
    dataset, out = bids(tmp_path / "in", "sub-01_T1w", "sub-01_T2w"), tmp_path / "out"
    whole = dataset / "sub-01" / "anat" / "sub-01_T2w.nii.gz"
    content = whole.read_bytes()
    whole.write_bytes(content[: len(content) // 2])
    labels = "sub-01/anat/sub-01_dseg.nii.gz"
    code, answer, _ = call(run, dataset, out, profile)
    assert (code, answer["counts"]["ok"], answer["counts"]["quarantined"]) == (1, 1, 1)
    assert tree(out)[labels] == tree(dataset)[labels]
    done = tree(out)
    code, answer, _ = call(run, dataset, out, profile, "--resume")
    assert (code, answer["counts"]["skipped"]) == (1, 1), "nothing of the case was lost, so nothing is done again"
    assert tree(out) == done


def test_labels_of_cases_that_stay_behind_do_not_go_out(run: Run, profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A case that fails while its files are put into place takes them back; what a killed one has left goes at the end."""
    dataset, out = bids(tmp_path / "in", "sub-01_T1w", "sub-01_T2w"), tmp_path / "out"
    monkeypatch.setattr("MedProtectLib.release.commit.write_private", _no_permission)
    code, answer, _ = call(run, dataset, out, profile)
    assert (code, answer["counts"]["failed"]) == (1, 2)
    assert not [name for name in tree(out) if name.startswith("sub-01")]
    monkeypatch.undo()
    monkeypatch.setattr("MedProtectLib.release.make.write_pictures", lambda *_, **__: None)
    left = out / "sub-01" / "anat" / "sub-01_dseg.nii.gz"
    left.parent.mkdir(parents=True, exist_ok=True)
    left.write_bytes(b"of a killed process")
    for image in (dataset / "sub-01" / "anat").glob("*w.nii.gz"):
        image.write_bytes(b"damaged")
    code, answer, _ = call(run, dataset, out, profile, "--resume")
    assert (code, answer["counts"]["quarantined"]) == (1, 2)
    assert not left.exists()


def _no_permission(path: Path, content: bytes) -> None:
    raise PermissionError(13, "Permission denied", str(path))


def test_a_release_is_not_finished_while_a_recorded_file_is_missing(
    run: Run, profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, out = decathlon(tmp_path / "in", 2), tmp_path / "out"
    assert call(run, dataset, out, profile)[0] == 0
    done = tree(out)
    (out / "labelsTr" / NAMES[1]).unlink()
    monkeypatch.setattr("MedProtectLib.release.process.outputs_hold", lambda *_: True)
    code, _, said = call(run, dataset, out, profile, "--resume")
    assert code == 1
    assert said.count("\n") == 1
    assert f"labelsTr/{NAMES[1]}" in said
    assert not (out / "medprotect_release.json").exists()
    monkeypatch.undo()
    monkeypatch.setattr("MedProtectLib.release.make.write_pictures", lambda *_, **__: None)
    assert call(run, dataset, out, profile, "--resume")[0] == 0
    assert tree(out) == done
