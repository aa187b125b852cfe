"""Versions of a release, looked at as somebody would who has two of them: where do they differ?"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from MedProtectLib.fitting.dataset import find_cases
from MedProtectLib.fitting.fit import FitOptions, fit
from MedProtectLib.protection import Protection
from MedProtectLib.protector import Protector
from MedProtectLib.volume import LabelMap, Volume
from release_cases import HIPPOCAMPUS, NAMES, decathlon, tree, voxels
from samples import Run

STEMS = [name.removesuffix(".nii.gz") for name in NAMES]

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture
def first(run: Run, profile: Path, tmp_path: Path) -> Path:
    """Version 1 of three cases; its dataset lies in 'in' beside it."""
    return made(run, decathlon(tmp_path / "in"), tmp_path / "v1", profile)[0]


def made(run: Run, dataset: Path, out: Path, profile: Path, *more: object) -> tuple[Path, int, dict]:
    code, answer, said = run("release", dataset, "--output", out, "--profile", profile, "--no-vault", "--jobs", 0, "--json", *more)
    assert answer, said
    return out, code, json.loads(answer)


def relabel(path: Path, keep: slice) -> None:
    """Corrected labels: only some slices of what was labelled."""
    image = nib.load(path)
    labels = np.zeros(image.shape, np.uint8)
    labels[:, keep] = np.asanyarray(image.dataobj)[:, keep]
    nib.save(nib.Nifti1Image(labels, image.affine, image.header), path)


def no_difference(*versions: Path) -> bool:
    """Whether the versions of every image that several of them hold are equal, byte for byte."""
    images = [{p.name: p.read_bytes() for p in version.glob("images*/*")} for version in versions]
    return all(a[name] == b[name] for a in images for b in images for name in a.keys() & b.keys())


def audit(out: Path) -> dict[str, dict]:
    lines = (out.with_name(out.name + "_private") / "audit.jsonl").read_text().splitlines()
    return {entry["case"]: entry for entry in map(json.loads, lines)}


def test_unchanged_cases_are_the_same_and_others_come_and_go(run: Run, profile: Path, tmp_path: Path, first: Path) -> None:
    dataset = tmp_path / "in"
    for part in ("imagesTr", "labelsTr"):
        (dataset / part / NAMES[0]).unlink()
        shutil.copyfile(HIPPOCAMPUS / part / NAMES[3], dataset / part / NAMES[3])
    second, code, answer = made(run, dataset, tmp_path / "v2", profile, "--previous", first)
    assert (code, answer["counts"]["ok"]) == (0, 3)
    assert sorted(p.name for p in (second / "imagesTr").iterdir()) == list(NAMES[1:4])
    assert no_difference(first, second)
    entries = audit(second)
    assert entries[STEMS[0]]["status"] == "withdrawn"
    assert [entries[STEMS[n]]["frozen_since"] for n in (1, 2, 3)] == ["v1", "v1", None]


def test_withdrawing_by_name(run: Run, profile: Path, tmp_path: Path, first: Path) -> None:
    second, code, _ = made(run, tmp_path / "in", tmp_path / "v2", profile, "--previous", first, "--withdraw", STEMS[1])
    assert code == 0
    assert sorted(p.name for p in (second / "imagesTr").iterdir()) == [NAMES[0], NAMES[2]]
    assert STEMS[1] not in (second / "dataset.json").read_text()


def test_corrected_labels_leave_the_image_as_it_went_out(run: Run, profile: Path, tmp_path: Path, first: Path) -> None:
    """A second protection would differ where the labels do, and would tell the perturbation there."""
    dataset, labels = tmp_path / "in", tmp_path / "in" / "labelsTr" / NAMES[0]
    relabel(labels, slice(20, None))
    fresh, _, _ = made(run, dataset, tmp_path / "other" / "fresh", profile)
    apart = voxels(fresh / "imagesTr" / NAMES[0]).astype(float) - voxels(first / "imagesTr" / NAMES[0])
    assert np.count_nonzero(apart) > 1000, "without the rule the versions would tell"
    second, code, _ = made(run, dataset, tmp_path / "v2", profile, "--previous", first)
    assert code == 0
    assert no_difference(first, second)
    assert (second / "labelsTr" / NAMES[0]).read_bytes() == labels.read_bytes() != (first / "labelsTr" / NAMES[0]).read_bytes()
    entry = audit(second)[STEMS[0]]
    assert entry["statistics"]["changed_outside_regions"] > 1000
    assert any("the image is that of 'v1'" in warning for warning in entry["warnings"])
    change = voxels(second / "imagesTr" / NAMES[0]) != voxels(dataset / "imagesTr" / NAMES[0])
    assert entry["statistics"]["changed_voxels"] == np.count_nonzero(change)


def test_labels_somewhere_else_are_withheld(run: Run, profile: Path, tmp_path: Path, first: Path) -> None:
    path = tmp_path / "in" / "labelsTr" / NAMES[0]
    image = nib.load(path)
    labels = np.zeros(image.shape, np.uint8)
    labels[1:4, 1:4, 1:4] = 1
    nib.save(nib.Nifti1Image(labels, image.affine, image.header), path)
    second, code, answer = made(run, tmp_path / "in", tmp_path / "v2", profile, "--previous", first)
    assert (code, answer["counts"]["quarantined"]) == (1, 1)
    assert "Withheld" in answer["problems"][0]["reason"]
    assert not (second / "imagesTr" / NAMES[0]).exists()
    relabel(tmp_path / "in" / "labelsTr" / NAMES[1], slice(0, 30))
    shutil.copyfile(HIPPOCAMPUS / "labelsTr" / NAMES[0], path)
    third, code, _ = made(run, tmp_path / "in", tmp_path / "v3", profile, "--previous", second)
    assert code == 0, "what version 2 withheld is still known from version 1"
    assert no_difference(first, second, third)
    assert (third / "imagesTr" / NAMES[0]).exists()


def test_labels_cannot_drift_away_step_by_step(run: Run, profile: Path, tmp_path: Path, first: Path) -> None:
    """What counts is the share that was changed in the first version, not in the one before."""
    path, versions = tmp_path / "in" / "labelsTr" / NAMES[0], [first]
    image = nib.load(path)
    original = np.asanyarray(image.dataobj)
    codes = []
    for number, shift in enumerate((9, 14, 19), start=2):
        nib.save(nib.Nifti1Image(np.roll(original, shift, axis=0), image.affine, image.header), path)
        version, code, _ = made(run, tmp_path / "in", tmp_path / f"v{number}", profile, "--previous", versions[-1])
        versions.append(version)
        codes.append(code)
    fractions = [entry["statistics"]["changed_fraction"] for v in versions[1:] if (entry := audit(v)[STEMS[0]])["status"] == "ok"]
    assert codes == [0] * len(fractions) + [1] * (3 - len(fractions))
    assert 1 <= len(fractions) < 3
    assert min(fractions) >= 0.5 * audit(first)[STEMS[0]]["statistics"]["changed_fraction"]
    assert no_difference(*versions)


def test_a_changed_image_under_its_old_name_is_withheld(run: Run, profile: Path, tmp_path: Path, first: Path) -> None:
    path = tmp_path / "in" / "imagesTr" / NAMES[0]
    image = nib.load(path)
    array = np.asanyarray(image.dataobj).copy()
    array[0, 0, 0] += 1
    nib.save(nib.Nifti1Image(array, image.affine, image.header), path)
    second, code, answer = made(run, tmp_path / "in", tmp_path / "v2", profile, "--previous", first)
    assert (code, answer["counts"]["quarantined"]) == (1, 1)
    assert "its image changed" in answer["problems"][0]["reason"]
    assert not (second / "imagesTr" / NAMES[0]).exists()


def test_a_corrected_header_keeps_the_protected_voxels(run: Run, profile: Path, tmp_path: Path, first: Path) -> None:
    for part in ("imagesTr", "labelsTr"):
        path = tmp_path / "in" / part / NAMES[0]
        image = nib.load(path)
        array, header = np.asanyarray(image.dataobj), image.header.copy()
        header["descrip"] = b"corrected"
        nib.save(nib.Nifti1Image(array, image.affine, header), path)
    second, code, _ = made(run, tmp_path / "in", tmp_path / "v2", profile, "--previous", first)
    assert code == 0
    assert np.array_equal(voxels(second / "imagesTr" / NAMES[0]), voxels(first / "imagesTr" / NAMES[0]))
    assert bytes(nib.load(second / "imagesTr" / NAMES[0]).header["descrip"].tobytes()).startswith(b"corrected")


def test_a_renamed_case_is_recognised_by_its_image(run: Run, profile: Path, tmp_path: Path, first: Path) -> None:
    dataset = tmp_path / "in"
    for part in ("imagesTr", "labelsTr"):
        (dataset / part / NAMES[0]).rename(dataset / part / "renamed.nii.gz")
    relabel(dataset / "labelsTr" / "renamed.nii.gz", slice(20, None))
    second, code, _ = made(run, dataset, tmp_path / "v2", profile, "--previous", first)
    assert code == 0
    assert (second / "imagesTr" / "renamed.nii.gz").read_bytes() == (first / "imagesTr" / NAMES[0]).read_bytes()


def test_what_went_out_unprotected_is_not_protected_later(run: Run, profile: Path, tmp_path: Path) -> None:
    dataset = decathlon(tmp_path / "in", 1, unlabelled=1)
    first, code, _ = made(run, dataset, tmp_path / "v1", profile, "--unlabelled", "copy")
    assert code == 0
    for source, part in ((dataset / "imagesTs", "imagesTr"), (HIPPOCAMPUS / "labelsTr", "labelsTr")):
        shutil.copyfile(source / NAMES[1], dataset / part / NAMES[1])
    (dataset / "imagesTs" / NAMES[1]).unlink()
    second, code, answer = made(run, dataset, tmp_path / "v2", profile, "--unlabelled", "copy", "--previous", first)
    assert (code, answer["counts"]["ok"], answer["counts"]["quarantined"]) == (1, 1, 1)
    assert "went out unprotected in 'v1'" in answer["problems"][0]["reason"]
    assert not (second / "imagesTr" / NAMES[1]).exists()


def test_a_protected_image_does_not_go_out_unprotected_later(run: Run, profile: Path, tmp_path: Path, first: Path) -> None:
    dataset = tmp_path / "in"
    (dataset / "labelsTr" / NAMES[0]).unlink()
    second, code, answer = made(run, dataset, tmp_path / "v2", profile, "--unlabelled", "copy", "--previous", first)
    assert (code, answer["counts"]["quarantined"]) == (1, 1)
    assert "went out protected" in answer["problems"][0]["reason"]
    assert not (second / "imagesTr" / NAMES[0]).exists()


def test_an_earlier_file_that_is_gone_or_damaged_is_made_again_or_asked_for(run: Run, profile: Path, tmp_path: Path, first: Path) -> None:
    image = first / "imagesTr" / NAMES[0]
    content = image.read_bytes()
    image.unlink()
    second, code, _ = made(run, tmp_path / "in", tmp_path / "v2", profile, "--previous", first)
    assert code == 0, "the same labels give the same voxels"
    assert (second / "imagesTr" / NAMES[0]).read_bytes() == content
    relabel(tmp_path / "in" / "labelsTr" / NAMES[0], slice(20, None))
    image.write_bytes(content[:-100])
    _, code, answer = made(run, tmp_path / "in", tmp_path / "v3", profile, "--previous", first)
    assert code == 1
    assert "Put it back" in answer["problems"][0]["reason"]
    moved = tmp_path / "moved"
    shutil.copytree(first, moved)
    (moved / "imagesTr" / NAMES[0]).write_bytes(content)
    fourth, code, _ = made(
        run, tmp_path / "in", tmp_path / "v4", profile, "--previous", moved, "--previous-private", tmp_path / "v1_private"
    )
    assert code == 0
    assert (fourth / "imagesTr" / NAMES[0]).read_bytes() == content


def test_a_version_that_is_not_finished_has_no_next_one(run: Run, profile: Path, tmp_path: Path, first: Path) -> None:
    """It does not know all that went out before, and a withdrawn case would come back with another perturbation."""
    dataset, withdraw = tmp_path / "in", ("--withdraw", STEMS[0])
    second, _, _ = made(run, dataset, tmp_path / "v2", profile, "--previous", first, *withdraw, "--shard", "1/2")
    relabel(dataset / "labelsTr" / NAMES[0], slice(20, None))
    third = ("release", dataset, "--output", tmp_path / "v3", "--profile", profile, "--no-vault", "--jobs", 0, "--previous", second)
    code, _, said = run(*third)
    assert code == 1
    assert "the previous version is not finished" in said
    assert not (tmp_path / "v3").exists()
    made(run, dataset, second, profile, "--previous", first, *withdraw, "--resume")
    assert run(*third)[0] == 0
    assert (tmp_path / "v3" / "imagesTr" / NAMES[0]).exists()
    assert no_difference(first, second, tmp_path / "v3")
    shutil.rmtree(second)
    third = ("release", dataset, "--output", tmp_path / "v4", *third[4:])
    assert run(*third)[0] == 0, "its files are gone, its records tell that it was finished"


def test_versions_are_protected_alike(run: Run, profile: Path, tmp_path: Path, first: Path) -> None:
    code, _, said = run(
        "release", tmp_path / "in", "--output", tmp_path / "v2", "--profile", profile, "--no-vault", "--bound", "8/255", "--previous", first
    )
    assert code == 1
    assert "bound" in said
    code, _, said = run(
        "release", tmp_path / "in", "--output", tmp_path / "v2", "--profile", profile, "--no-vault", "--previous", tmp_path / "none"
    )
    assert code == 1
    assert "no release" in said
    assert not (tmp_path / "v2").exists()
    assert tree(first)


def test_images_of_a_medmnist_file_stay_as_they_went_out(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with a version of the program that makes other voxels, and where a class was corrected."""
    parts, rng = ("train", "val", "test"), np.random.default_rng(4)
    arrays = {f"{part}_images": rng.integers(60, 190, (2, 28, 28), dtype=np.uint8) for part in parts}
    arrays |= {f"{part}_labels": np.array([[0], [1]], np.uint8) for part in parts}
    dataset, own = tmp_path / "made.npz", tmp_path / "own.medprotect"
    np.savez_compressed(dataset, **arrays)
    fit(find_cases(dataset), own, FitOptions(method="lsp", seed=3, dimension=2))
    first, code, _ = made(run, dataset, tmp_path / "v1", own)
    assert code == 0
    released = np.load(first / "made.npz")
    protect = Protector.protect

    def otherwise(self: Protector, volume: Volume, labels: LabelMap) -> Protection:
        protection = protect(self, volume, labels)
        array = protection.volume.array.copy()
        array[:, ::5] = volume.array[:, ::5]
        return replace(protection, volume=volume.with_array(array))

    monkeypatch.setattr(Protector, "protect", otherwise)
    arrays["train_labels"] = np.array([[1], [1]], np.uint8)
    np.savez_compressed(dataset, **arrays)
    second, code, _ = made(run, dataset, tmp_path / "v2", own, "--previous", first)
    assert code == 0
    for part in parts:
        assert np.array_equal(np.load(second / "made.npz")[f"{part}_images"], released[f"{part}_images"])
    assert np.load(second / "made.npz")["train_labels"].tolist() == [[1], [1]]
    assert run("release", dataset, "--output", tmp_path / "v3", "--profile", own, "--previous", second, "--dry-run")[0] == 0
    kept = tmp_path / "v2_private" / "cases" / "val_000000" / "protected.npy"
    kept.unlink()
    _, code, answer = made(run, dataset, tmp_path / "v3", own, "--previous", second)
    assert (code, [problem["case"] for problem in answer["problems"]]) == (1, ["val_000000"])
    assert f"Put it back: {kept}" in answer["problems"][0]["reason"]
