"""medprotect audit from the command line."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from MedProtectLib.audit.data import load_dataset
from MedProtectLib.audit.releases import Releases
from MedProtectLib.profile import Profile, shipped_profile
from samples import SAMPLES, Run

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:monai", "ignore::FutureWarning")

DATASET, HIPPOCAMPUS = str(SAMPLES / "lidc_nodules"), SAMPLES / "hippocampus"
SMALL = ("--limit", "3", "--steps", "1", "--seeds", "0", "--regimes", "none", "--fit-steps", "1")


def test_an_audit_of_a_method_a_profile_and_a_release(run: Run, tmp_path: Path) -> None:
    profile = tmp_path / "site.medprotect"
    assert run("fit", DATASET, "--output", str(profile), "--method", "lsp")[0] == 0
    output = tmp_path / "audit"
    arguments = ("audit", DATASET, "--output", str(output), "--profile", str(profile), "--methods", "ar", *SMALL)
    code, out, err = run(*arguments, "--json")
    answer = json.loads(out)
    assert (code, answer["ok"], answer["trained"]) == (0, True, 4)
    assert [line["method"] for line in answer["summary"]] == ["none", "noise", "ar", "profile:site"]
    assert answer["cautions"]
    assert "test cases" in err
    assert (output / "audit.html").is_file()
    code, _, err = run(*arguments)
    assert (code, "--resume" in err) == (1, True)
    code, out, _ = run(*arguments, "--resume")
    assert code == 0
    assert "profile:site" in out


def renamed(folder: Path) -> Path:
    """The bundled hippocampi under other names, all of them in the list to test or to validate but two."""
    images = sorted((HIPPOCAMPUS / "imagesTr").glob("*.nii.gz"))[:6]
    lists = ("train", "train", "val", "val", "test", "test")
    rows = [f"x{n},{image},{HIPPOCAMPUS / 'labelsTr' / image.name},{lists[n]}" for n, image in enumerate(images)]
    (folder / "cases.csv").write_text("\n".join(["case,image,labels,split", *rows]))
    return folder / "cases.csv"


@pytest.mark.parametrize(("method", "split", "seen"), [("umed", None, 4), ("umed", "train", 0), ("lsp", None, 0)])
def test_a_profile_that_saw_the_test_cases_is_told_of(method: str, split: str | None, seen: int, run: Run, tmp_path: Path) -> None:
    manifest, profile = renamed(tmp_path), tmp_path / "site.medprotect"
    shutil.copytree(HIPPOCAMPUS, tmp_path / "in")
    for path in sorted((tmp_path / "in" / "imagesTr").glob("*.nii.gz"))[6:]:
        path.unlink()
    chosen = (manifest, "--split", split) if split else (tmp_path / "in",)
    assert run("fit", *chosen, "--method", method, "--steps", 1, "--output", profile)[0] == 0
    audit = ("audit", manifest, "--output", tmp_path / "audit", "--profile", profile, *SMALL)
    code, _, err = run(*audit)
    said = f"profile:site: fitted on {seen} of the cases that validate and test here"
    assert (code, f"medprotect: warning: {said}" in err) == (0, seen > 0), err
    page = (tmp_path / "audit" / "audit.md").read_text()
    assert (said in page, "nothing was fitted on them" in page) == (seen > 0, seen == 0)
    rows = [json.loads(line) for line in (tmp_path / "audit" / "rows.jsonl").read_text().splitlines()]
    assert [row["seen_cases"] for row in rows] == [0, 0, seen]


def test_a_profile_without_hashes_is_known_by_the_names_of_its_cases(tmp_path: Path) -> None:
    data, profile = load_dataset(HIPPOCAMPUS, limit=2), Profile.load(shipped_profile("umed", 3) or "")
    held_out = [case.name for split in ("val", "test") for case in data.cases[split]]
    replace(profile, training={"cases": [*held_out[1:], "another"]}).save(tmp_path / "old.medprotect")
    releases = Releases(data, tmp_path / "work", profiles={"old": tmp_path / "old.medprotect"}, folders={"out": tmp_path})
    assert [releases.seen_by(method) for method in ("profile:old", "umed", "released:out")] == [3, 0, None]


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--methods", "nosuch"), 2, "unknown method 'nosuch'"),
        (("--methods", "noise@none"), 2, "clean data have no PSNR that noise could have"),
        (("--victims", "resnet18"), 2, "no victim 'resnet18' for segmentation"),
        (("--regimes", "sometimes"), 2, "unknown regime 'sometimes'"),
        (("--regimes", "warm_start"), 2, "needs public clean data"),
        (("--shares", "0"), 2, "no part of the cases"),
        (("--shares", "0.1"), 2, "share 0.1: that protects 0 of 3 labelled training cases. Give 1/3 to 2/3, or 1."),
        (("--shares", "0.5", "99%"), 2, "share 0.99: that protects 3 of 3 labelled training cases."),
        (("--bound", "1"), 2, "bound 1"),
        (("--steps", "0"), 2, "give at least 1"),
        (("--fit-steps", "0"), 2, "give at least 1"),
        (("--target-psnr", "-3"), 2, "target PSNR -3"),
        (("--limit", "1"), 2, "give at least 2"),
        (("--setting", "nosuch"), 2, "unknown setting 'nosuch'"),
        (("--setting", "busi"), 1, "is for 2D images"),
        (("--profile", "missing.medprotect"), 1, "does not exist"),
        (("--segments", "liver"), 1, "no segment 'liver'"),
    ],
)
def test_bad_options_are_refused_before_anything_is_trained(
    options: tuple[str, ...], code: int, said: str, run: Run, tmp_path: Path
) -> None:
    small = [*SMALL]
    for name in ("--steps", "--regimes", "--limit", "--fit-steps"):
        if name in options:
            at = small.index(name)
            del small[at : at + 2]
    if "--limit" not in options:
        small += ["--limit", "3"]
    returned, _, err = run("audit", DATASET, "--output", str(tmp_path / "audit"), *small, *options)
    assert (returned, said in err) == (code, True), err
    assert err.count("medprotect: error") == 1
    assert not (tmp_path / "audit" / "rows.jsonl").exists()


def test_a_profile_that_protects_nothing_is_refused_before_anything_is_trained(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("something was trained")

    monkeypatch.setattr("MedProtectLib.audit.experiment.train_victim", never)
    one = tmp_path / "one.medprotect"
    assert run("fit", HIPPOCAMPUS, "--method", "lsp", "--segments", "1", "--output", one)[0] == 0
    code, _, err = run("audit", HIPPOCAMPUS, "--output", tmp_path / "audit", "--profile", one, *SMALL)
    assert (code, "profile:one: none of the 3 training cases holds a change." in err) == (1, True), err
    assert "'2'" in err


def test_a_missing_data_set_is_refused(run: Run, tmp_path: Path) -> None:
    code, _, err = run("audit", str(tmp_path / "none"), "--output", str(tmp_path / "audit"))
    assert (code, "neither a dataset folder" in err) == (1, True)


@pytest.mark.parametrize("place", ["taken", "taken/below/audit", "a" * 300])
def test_an_output_that_cannot_be_made_is_refused_before_anything_is_trained(
    place: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("something was trained")

    monkeypatch.setattr("MedProtectLib.audit.experiment.train_victim", never)
    (tmp_path / "taken").write_text("a file")
    code, _, err = run("audit", DATASET, "--output", str(tmp_path / place), *SMALL)
    assert code == 1
    assert "taken: this is a file, not a folder. Choose another --output." in err or "File name too long" in err
    assert err.count("medprotect: error") == 1


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_an_output_in_a_folder_of_somebody_else_is_refused(run: Run, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    code, _, err = run("audit", DATASET, "--output", str(tmp_path / "audit"), *SMALL)
    assert (code, f"{tmp_path}: cannot be written" in err) == (1, True), err
