"""Datasets of every layout from the command line: classes per image, several channels, methods with settings."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from MedProtectLib import Profile, read_volume
from MedProtectLib.methods.measured import Effect, not_withstood
from samples import SAMPLES, Run

NODULES = SAMPLES / "lidc_nodules"


def nodules() -> list[tuple[Path, str]]:
    """Two benign and two malignant nodules."""
    with (NODULES / "labels.csv").open(newline="") as file:
        rows = [(NODULES / "imagesTr" / row["file"], row["diagnosis"]) for row in csv.DictReader(file)]
    return [row for diagnosis in sorted({d for _, d in rows}) for row in [r for r in rows if r[1] == diagnosis][:2]]


def as_class_folders(folder: Path) -> Path:
    for image, diagnosis in nodules():
        (folder / "data" / diagnosis).mkdir(parents=True, exist_ok=True)
        shutil.copy(image, folder / "data" / diagnosis)
    return folder / "data"


def as_manifest(folder: Path) -> Path:
    lines = [f"{n},{image.resolve()},{diagnosis}" for n, (image, diagnosis) in enumerate(nodules())]
    (folder / "cases.csv").write_text("\n".join(["case,image,class", *lines]) + "\n")
    return folder / "cases.csv"


def as_medmnist(folder: Path) -> Path:
    arrays = [read_volume(image).array for image, _ in nodules()]
    middles = np.stack([a[a.shape[0] // 2, :28, :28] for a in arrays]).astype(np.float64)
    pictures = np.clip((middles + 1000) / 1500 * 255, 0, 255).astype(np.uint8)
    labels = np.array([[0], [0], [1], [1]], np.uint8)
    parts = {f"{part}_{kind}": value for part in ("train", "val", "test") for kind, value in (("images", pictures), ("labels", labels))}
    np.savez(folder / "nodules.npz", **parts)
    return folder / "nodules.npz"


LAYOUTS = {"class folders": (as_class_folders, 3), "manifest": (as_manifest, 3), "MedMNIST": (as_medmnist, 2)}


@pytest.mark.parametrize("method", ["ar", "tap"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_fit_on_classes_then_protect_and_verify(layout: str, method: str, run: Run, tmp_path: Path) -> None:
    build, dimension = LAYOUTS[layout]
    profile, quick = tmp_path / "p.medprotect", ["--set", "steps=2"] if method == "tap" else []
    command = ("fit", build(tmp_path), "--method", method, "--dimension", dimension, "--steps", 1, "--output", profile, "--json")
    code, out, err = run(*command, "--modality", "CT" if dimension == 3 else "US", "--bound", "8/255", *quick)
    assert code == 0, err
    assert len(json.loads(out)["training"]["cases"]) == (12 if layout == "MedMNIST" else 4)
    settings = Profile.load(profile).settings
    assert settings["task"] == "classification"
    assert list(settings["classes"]) == (["0", "1"] if layout == "MedMNIST" else sorted({d for _, d in nodules()}))
    image, diagnosis = nodules()[-1]
    if layout == "MedMNIST":
        return
    protect = ("protect", image, "--output", tmp_path / "out", "--profile", profile)
    code, _, err = run(*protect, "--class", "nosuch")
    assert (code, len(err.strip().splitlines())) == (1, 1)
    assert "does not know the class 'nosuch'" in err
    code, out, err = run(*protect, "--class", diagnosis, "--json")
    assert code == 0, err
    assert json.loads(out)["statistics"]["changed_voxels"] > 0
    (protected,) = (tmp_path / "out").glob("*_protected.nii.gz")
    assert run("verify", image, protected, "--class", diagnosis)[0] == 0
    code, _, err = run(*protect, "--labels", NODULES / "labelsTr" / image.name, "--overwrite")
    assert (code, len(err.strip().splitlines())) == (1, 1)
    assert "was fitted for classification" in err


def test_the_whole_image_scope_is_recorded_and_verified(run: Run, tmp_path: Path) -> None:
    image, labels = NODULES / "imagesTr" / nodules()[0][0].name, NODULES / "labelsTr" / nodules()[0][0].name
    for scope in ("regions", "image"):
        out = tmp_path / scope
        code, _, err = run("protect", image, "--labels", labels, "--output", out, "--method", "lsp", "--scope", scope, "--seed", "4")
        assert code == 0, err
        assert "no profile was given" in err
        (record,) = out.glob("*_record.json")
        regions = json.loads(record.read_text())["regions"]
        assert regions["whole_image"] == (scope == "image")
        (protected,) = out.glob("*_protected.nii.gz")
        assert run("verify", image, protected, "--labels", labels)[0] == 0
        if scope == "image":
            record.unlink()
            code, _, err = run("verify", image, protected, "--labels", labels)
            assert code == 1
            assert "outside the interior" in err


@pytest.mark.parametrize("seed", [None, 4])
def test_a_pattern_with_the_default_seed_counts_as_public(seed: int | None, run: Run, tmp_path: Path) -> None:
    image, labels = NODULES / "imagesTr" / nodules()[0][0].name, NODULES / "labelsTr" / nodules()[0][0].name
    options = () if seed is None else ("--seed", seed)
    code, _, err = run("protect", image, "--labels", labels, "--output", tmp_path / "out", "--method", "lsp", *options)
    assert code == 0
    assert "a public profile was used" not in err
    assert ("without a secret --seed anybody can draw this pattern and subtract it" in err) == (seed is None)


def test_the_channel_files_of_an_nnunet_case_are_one_case(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "dataset"
    source = SAMPLES / "hippocampus"
    name = sorted(p.name for p in (source / "imagesTr").glob("*.nii.gz"))[0]
    for kind in ("imagesTr", "labelsTr"):
        (folder / kind).mkdir(parents=True)
    for channel in ("0000", "0001"):
        shutil.copy(source / "imagesTr" / name, folder / "imagesTr" / f"a_{channel}.nii.gz")
    shutil.copy(source / "imagesTr" / name, folder / "imagesTr" / "b_0000.nii.gz")
    for case in ("a", "b"):
        shutil.copy(source / "labelsTr" / name, folder / "labelsTr" / f"{case}.nii.gz")
    quick = ("--method", "tap", "--steps", "1", "--set", "steps=1")
    code, out, _ = run("fit", folder, *quick, "--output", tmp_path / "p.medprotect", "--json")
    assert code == 0
    training = json.loads(out)["training"]
    assert training["cases"] == ["a"]
    assert len(training["images_sha256"]) == 1
    assert training["left_out"] == ["b left out: it has 1 channels, the first case has 2."]


BAD = {
    "no such parameter": (["--set", "nosuch=1"], 2, "has no parameter 'nosuch'. It has: steps, step, visit, fraction."),
    "parameter out of range": (["--set", "fraction=7"], 2, "give a number from 0.001 to 1"),
    "no assignment": (["--set", "fraction"], 2, "no setting such as"),
    "unsupported dimension": (["--method", "voxshield", "--dimension", "2"], 2, "works in 3D only"),
    "unsupported scope": (["--method", "umed", "--scope", "image"], 2, "touches only the regions"),
    "no such segment": (["--segments", "nosuch"], 1, "no segment 'nosuch'"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_a_method_cannot_do_is_one_line(name: str, run: Run, tmp_path: Path) -> None:
    options, expected, message = BAD[name]
    code, _, err = run("fit", SAMPLES / "hippocampus", "--output", tmp_path / "p.medprotect", "--method", "salm", *options)
    assert code == expected
    assert len(err.strip().splitlines()) == 1
    assert message in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["one class", "label maps and classes", "several labels"])
def test_datasets_that_make_no_sense_are_refused(content: str, run: Run, tmp_path: Path) -> None:
    image, labels = NODULES / "imagesTr" / nodules()[0][0].name, NODULES / "labelsTr" / nodules()[0][0].name
    dataset = tmp_path / "data.csv"
    if content == "one class":
        dataset = tmp_path / "data"
        (dataset / "benign").mkdir(parents=True)
        shutil.copy(image, dataset / "benign")
    elif content == "label maps and classes":
        dataset.write_text(f"case,image,labels,class\na,{image},{labels},\nb,{image},,benign\n")
    else:
        dataset = tmp_path / "data.npz"
        parts = ("train", "val", "test")
        np.savez(
            dataset,
            **{f"{part}_{kind}": np.zeros((2, 4, 4), np.uint8)[..., :4] for part in parts for kind in ("images",)},
            **{f"{part}_labels": np.zeros((2, 3), np.uint8) for part in parts},
        )
    code, _, err = run("fit", dataset, "--output", tmp_path / "p.medprotect", "--method", "lsp")
    assert code == 1
    assert len(err.strip().splitlines()) == 1
    assert {"one class": "two classes", "label maps and classes": "Fit them apart", "several labels": "several labels"}[content] in err


def test_methods_tells_what_each_needs_and_what_was_measured(run: Run) -> None:
    from MedProtectLib.methods import METHODS

    rows = json.loads(run("methods", "--json")[1])["methods"]
    assert [row["name"] for row in rows] == list(METHODS)
    assert set(METHODS) == {"umed", "voxshield", "em", "salm", "tap", "sep", "lsp", "ar", "weave"}
    for row in rows:
        assert {"needs", "dimensions", "tasks", "scopes", "parameters", "seconds_per_case", "measured", "public_profiles"} <= set(row)
        assert row["measured"], row["name"]
    text = run("methods")[1]
    assert all(f"{name}: " in text for name in METHODS)


def test_what_methods_says_of_effects_is_what_the_rows_of_the_audit_say() -> None:
    script = Path(__file__).parents[1] / "Benchmarks" / "measured_effects.py"
    checked = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


def test_a_method_that_leaves_victims_as_they_were_is_said_not_to_withstand_them() -> None:
    def effect(protected: float, interval: float | None) -> Effect:
        return Effect("busi", "DSC", 50.1, chance=0.1, clean=0.6, random=0.5, protected=protected, interval=interval, seeds=3)

    assert [effect(0.3, None).below_random, effect(0.3, 0.3).below_random, effect(0.3, 0.1).below_random] == [False, False, True]
    assert [effect(0.05, 0.1).kept, effect(0.35, 0.1).kept] == [0.0, pytest.approx(0.5)]
    assert "standard training on hippocampus (MSD), 3D (victim keeps 100%)" in not_withstood("weave")
    assert not any("breast" in training.lower() for training in not_withstood("weave"))
