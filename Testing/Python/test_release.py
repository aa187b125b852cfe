"""A release as the officer sees it: what lies where, what is refused, what is recorded."""

from __future__ import annotations

import csv
import errno
import json
import os
import re
import shutil
import stat
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from MedProtectLib.errors import MedProtectError
from MedProtectLib.io import read_volume, sha256_file
from MedProtectLib.release.already import check_image
from MedProtectLib.release.audit import Outcome
from MedProtectLib.release.keys import SiteKey, save_key
from MedProtectLib.release.overview import write_overview
from MedProtectLib.release.settings import Settings
from MedProtectLib.release.status import status_of
from release_cases import HIPPOCAMPUS, NAMES, decathlon, ledger, release_here, tree, voxels
from samples import Run


def test_a_release_has_the_layout_of_its_dataset_and_nothing_secret(run: Run, profile: Path, tmp_path: Path) -> None:
    dataset, out = decathlon(tmp_path / "in", 2), tmp_path / "out"
    before = tree(dataset)
    code, answer, _ = release_here(run, dataset, out, profile)
    assert code == 0
    assert (answer["ok"], answer["counts"]["ok"]) == (True, 2)
    assert tree(dataset) == before
    released = tree(out)
    assert set(released) == set(before) | {"medprotect_records.jsonl", "medprotect_release.json"}
    for name, sha in before.items():
        if name.startswith("imagesTr"):
            assert released[name] != sha
            original, protected = nib.load(dataset / name), nib.load(out / name)
            assert protected.header.binaryblock == original.header.binaryblock
        else:
            assert released[name] == sha, name
    private = out.with_name("out_private")
    secrets = {profile.read_bytes().hex(), *before.values()} - {sha for name, sha in before.items() if not name.startswith("imagesTr")}
    secrets |= {json.loads((private / "manifest.json").read_text())["settings"]["profile_sha256"], '"seed"', str(tmp_path)}
    shareable = "".join((out / name).read_text() for name in ("medprotect_records.jsonl", "medprotect_release.json"))
    assert not [secret for secret in secrets if secret in shareable]
    for path in (private, *private.rglob("*")) if os.name == "posix" else ():
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    overview = (private / "overview" / "index.html").read_text()
    for name in NAMES[:2]:
        case = name.removesuffix(".nii.gz")
        assert (private / "cases" / case / "overlay.png").stat().st_size > 10_000
        assert f"../cases/{case}/overlay.png" in overview
        assert f"../cases/{case}/report.html" in overview
        assert (private / "cases" / case / "report.html").is_file()


@pytest.mark.usefixtures("no_pictures")
def test_the_audit_trail_says_what_went_in_and_out(run: Run, profile: Path, tmp_path: Path) -> None:
    dataset, out, private = decathlon(tmp_path / "in", 2), tmp_path / "out", tmp_path / "secret"
    assert release_here(run, dataset, out, profile, "--private", private, "--target-psnr", 50)[0] == 0
    entries = [json.loads(line) for line in (private / "audit.jsonl").read_text().splitlines()]
    rows = list(csv.DictReader((private / "audit.csv").open()))
    assert [entry["case"] for entry in entries] == [row["case"] for row in rows] == [n.removesuffix(".nii.gz") for n in NAMES[:2]]
    ins, outs = tree(dataset), tree(out)
    for entry, row in zip(entries, rows, strict=True):
        assert entry["inputs"] == {name: ins[name] for name in entry["inputs"]}
        assert entry["outputs"] == {name: outs[name] for name in entry["outputs"]}
        image = f"imagesTr/{entry['case']}.nii.gz"
        change = np.abs(voxels(out / image).astype(float) - voxels(dataset / image))
        low, high = entry["statistics"]["window"]
        assert entry["epsilon_measured"] == pytest.approx(change.max() / (high - low), rel=1e-6)
        assert entry["statistics"]["psnr_db"] == pytest.approx(-20 * np.log10(np.sqrt(np.mean(change**2)) / (high - low)), abs=1e-6)
        assert float(row["psnr_db"]) == entry["statistics"]["psnr_db"]
        assert 49.5 <= entry["statistics"]["psnr_db"] <= 50.5 or entry["statistics"]["psnr_db"] > 50
        assert (row["status"], row["seed"], row["target_psnr"]) == ("ok", "11", "50.0")
        assert sum(entry["seconds"].values()) > 0


def test_a_dry_run_plans_and_writes_nothing(run: Run, profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("MedProtectLib.release.dry_run.SAMPLES", 1)
    dataset = decathlon(tmp_path / "in", 2, unlabelled=1)
    before = tree(tmp_path)
    code, answer, _ = release_here(run, dataset, tmp_path / "out", profile, "--dry-run")
    assert tree(tmp_path) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in"]
    assert code == 1, "a case would not go out"
    assert answer["counts"] == {"ok": 2, "quarantined": 1}
    assert answer["estimate"]["seconds"] > 0
    assert answer["estimate"]["shareable_bytes"] > 10_000
    planned = answer["cases"][0]
    assert 0 < planned["touched"] < planned["voxels"] == np.prod(planned["grid"])
    assert planned["levels"] > 1
    again = ("--dry-run", "--unlabelled", "copy", "--no-reports")
    code, text, _ = run("release", dataset, "--output", tmp_path / "out", "--profile", profile, *again)
    assert code == 0
    assert "goes out UNPROTECTED" in text
    assert "nothing: this was a dry run" in text


DAMAGED = (
    "a link out of the dataset",
    "one image, two labels",
    "a damaged index",
    "a folder with other files",
    "a release that is there",
    "a changed case",
    "a case that is gone",
    "no previous version",
    "a changed image",
    "other labels",
    "unlabelled now",
    "no image",
)


def damage(kind: str, dataset: Path, first: Path, out: Path) -> list[object]:
    """Do something to a dataset that keeps a case, or all of them, from going out; the options that belong to it."""
    image, label = dataset / "imagesTr" / NAMES[1], dataset / "labelsTr" / NAMES[1]
    previous = ["--previous", first]
    match kind:
        case "a link out of the dataset":
            shutil.move(image, dataset.parent / NAMES[1])
            image.symlink_to(dataset.parent / NAMES[1])
        case "one image, two labels":
            shutil.copyfile(dataset / "imagesTr" / NAMES[0], image)
        case "a damaged index":
            (dataset / "dataset.json").write_text('{"training": [')
        case "a folder with other files":
            out.mkdir()
            (out / "thesis.txt").write_text("mine")
        case "a release that is there":
            return ["--output", first]
        case "a changed case" | "a case that is gone":
            label.unlink()
            image.unlink() if "gone" in kind else shutil.copyfile(dataset / "labelsTr" / NAMES[0], label)
            return ["--output", first, "--resume"]
        case "no previous version":
            return ["--previous", dataset.parent / "none"]
        case "a changed image":
            shutil.copyfile(HIPPOCAMPUS / "imagesTr" / NAMES[2], image)
            return previous
        case "other labels":
            labels = nib.load(label)
            array = np.zeros(labels.shape, np.uint8)
            array[1:4, 1:4, 1:4] = 1
            nib.save(nib.Nifti1Image(array, labels.affine, labels.header), label)
            return previous
        case "unlabelled now":
            label.unlink()
            return [*previous, "--unlabelled", "copy"]
        case "no image":
            label.unlink()
            image.write_bytes(b"junk")
            return ["--unlabelled", "copy"]
    return []


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("kind", DAMAGED)
def test_a_dry_run_ends_as_the_run_does(kind: str, run: Run, profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("MedProtectLib.release.dry_run.SAMPLES", 1)
    dataset, first, out = decathlon(tmp_path / "in", 2), tmp_path / "v1", tmp_path / "out"
    assert release_here(run, dataset, first, profile)[0] == 0
    command = ("release", dataset, "--output", out, "--profile", profile, "--no-vault", "--jobs", 0)
    command = (*command, *damage(kind, dataset, first, out))
    before = tree(tmp_path)
    code, planned, refused = run(*command, "--dry-run")
    assert tree(tmp_path) == before
    assert code == run(*command)[0] == 1
    assert refused.count("\n") == (1 if kind in DAMAGED[2:5] + DAMAGED[6:8] else 0)
    assert refused or NAMES[1].removesuffix(".nii.gz") in planned


@pytest.mark.usefixtures("no_pictures")
def test_a_dry_run_of_a_new_version_lets_out_what_the_run_does(
    run: Run, profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("MedProtectLib.release.dry_run.SAMPLES", 1)
    dataset, first, out = decathlon(tmp_path / "in", 2), tmp_path / "v1", tmp_path / "out"
    assert release_here(run, dataset, first, profile)[0] == 0
    (first / "imagesTr" / NAMES[0]).unlink()
    code, answer, _ = release_here(run, dataset, out, profile, "--previous", first, "--dry-run")
    assert (code, answer["counts"]) == (0, {"ok": 2})
    assert release_here(run, dataset, out, profile, "--previous", first)[0] == 0
    assert release_here(run, dataset, out, profile, "--previous", first, "--dry-run", "--resume")[0] == 0


@pytest.mark.skipif(os.name != "posix", reason="files that Windows cannot have")
@pytest.mark.usefixtures("no_pictures")
def test_paths_that_lead_to_no_file_are_named(run: Run, profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("MedProtectLib.release.dry_run.SAMPLES", 0)
    dataset = tmp_path / "in"
    shutil.copytree(HIPPOCAMPUS / "imagesTr", dataset)
    shutil.copyfile(HIPPOCAMPUS / "labelsTr" / NAMES[0], dataset / "labels.nii.gz")
    os.mkfifo(dataset / "fifo.nii.gz")
    (dataset / "loop.nii.gz").symlink_to("loop.nii.gz")
    names = [NAMES[0], "fifo.nii.gz", "loop.nii.gz", "zero\0.nii.gz"]
    rows = "".join(f"{number},{name},labels.nii.gz\n" for number, name in enumerate(names))
    (dataset / "cases.csv").write_text(f"case,image,labels\n{rows}")
    _, planned, _ = release_here(run, dataset / "cases.csv", tmp_path / "out", profile, "--dry-run")
    _, answer, _ = release_here(run, dataset / "cases.csv", tmp_path / "out", profile)
    reasons = {problem["case"]: problem["reason"] for problem in answer["problems"]}
    assert {case["case"]: case["reason"] for case in planned["cases"][1:]} == reasons
    assert answer["counts"]["ok"] == 1
    for case, word in (("1", "neither a file nor a folder"), ("2", "not a path that leads to a file"), ("3", "not a path that leads")):
        assert word in reasons[case]


@pytest.mark.usefixtures("no_pictures")
def test_resume_skips_what_is_done_by_its_content(run: Run, profile: Path, tmp_path: Path) -> None:
    dataset, out = decathlon(tmp_path / "in"), tmp_path / "out"
    assert release_here(run, dataset, out, profile, "--resume")[1]["ok"] is True, "on an absent output it starts"
    done = tree(out)
    code, _, said = run("release", dataset, "--output", out, "--profile", profile, "--no-vault", "--jobs", 0)
    assert code == 1
    assert "--resume" in said
    for path in dataset.rglob("*"):
        path.touch()
    code, answer, _ = release_here(run, dataset, out, profile, "--resume")
    assert (code, answer["counts"]["skipped"]) == (0, 3)
    assert tree(out) == done
    (out / "imagesTr" / NAMES[0]).write_bytes(b"damaged")
    (out / "labelsTr" / NAMES[1]).unlink()
    code, answer, _ = release_here(run, dataset, out, profile, "--resume")
    assert (code, answer["counts"]["skipped"], answer["counts"]["ok"]) == (0, 1, 2)
    assert tree(out) == done


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("moment", ["process._settled", "run.list_cases"])
def test_an_interrupted_release_says_what_it_keeps(
    moment: str, run: Run, profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    dataset, out = decathlon(tmp_path / "in", 1), tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(f"MedProtectLib.release.{moment}", stop)
        code, _, said = release_here(run, dataset, out, profile)
    assert (code, len(said.splitlines())) == (1, 1)
    if moment == "run.list_cases":
        assert "cancelled: what was not complete was removed." in said
        assert not out.exists()
    else:
        assert f"what is done is kept in {out} and {out}_private. Go on with --resume" in said
        assert release_here(run, dataset, out, profile, "--resume")[0] == 0


@pytest.mark.usefixtures("no_pictures")
def test_a_released_case_is_not_exchanged_in_place(run: Run, profile: Path, tmp_path: Path) -> None:
    dataset, out = decathlon(tmp_path / "in", 2), tmp_path / "out"
    assert release_here(run, dataset, out, profile)[0] == 0
    done = tree(out)
    shutil.copyfile(dataset / "labelsTr" / NAMES[1], dataset / "labelsTr" / NAMES[0])
    code, answer, said = release_here(run, dataset, out, profile, "--resume")
    assert (code, answer["counts"]["failed"]) == (1, 1)
    assert "--previous" in said
    told = {row["case"]: row for row in csv.DictReader((tmp_path / "out_private" / "audit.csv").open())}
    changed, kept = (name.removesuffix(".nii.gz") for name in NAMES[:2])
    assert (told[changed]["status"], told[changed]["reason"]) == ("ok", ""), "it is what went out"
    assert "trying it again failed: its files changed" in told[changed]["warnings"]
    assert "failed" not in told[kept]["warnings"]
    assert "trying it again failed: its files changed" in (tmp_path / "out_private" / "overview" / "index.html").read_text()
    (dataset / "labelsTr" / NAMES[0]).unlink()
    (dataset / "imagesTr" / NAMES[0]).unlink()
    again = ("release", dataset, "--output", out, "--profile", profile, "--no-vault", "--jobs", 0, "--resume")
    code, _, said = run(*again)
    assert code == 1
    assert "no longer in the dataset" in said
    code, _, said = run(
        "release", dataset, "--output", out, "--profile", profile, "--no-vault", "--jobs", 0, "--resume", "--bound", "8/255"
    )
    assert code == 1
    assert "other settings (bound)" in said
    assert tree(out) == done


@pytest.mark.usefixtures("no_pictures")
def test_bad_cases_are_quarantined_with_a_reason_and_the_others_go_out(run: Run, profile: Path, tmp_path: Path) -> None:
    dataset, out = decathlon(tmp_path / "in", 4, unlabelled=1), tmp_path / "out"
    (dataset / "imagesTr" / NAMES[1]).write_bytes((dataset / "imagesTr" / NAMES[1]).read_bytes()[:5000])
    labels = nib.load(dataset / "labelsTr" / NAMES[2])
    nib.save(nib.Nifti1Image(np.zeros(labels.shape, np.uint8), labels.affine), dataset / "labelsTr" / NAMES[2])
    (dataset / "labelsTr" / NAMES[3]).unlink()
    (dataset / "labelsTr" / NAMES[3]).symlink_to(profile)
    code, answer, said = release_here(run, dataset, out, profile)
    assert (code, answer["counts"]["ok"], answer["counts"]["quarantined"], answer["counts"]["failed"]) == (1, 1, 4, 0)
    reasons = {p.stem: json.loads(p.read_text())["reason"] for p in (tmp_path / "out_private" / "quarantine").iterdir()}
    assert set(reasons) == {*(n.removesuffix(".nii.gz") for n in NAMES[1:4]), f"imagesTs%2F{NAMES[4].removesuffix('.nii.gz')}"}
    words = ("truncated", "nothing to protect", "symbolic link", "no labels")
    for (name, reason), word in zip(sorted(reasons.items()), (*words[:3], words[3]), strict=True):
        assert word in reason, (name, reason)
        assert word in said
    assert sorted(p.name for p in (out / "imagesTr").iterdir()) == [NAMES[0]]
    assert not (out / "imagesTs").exists()
    index = json.loads((out / "dataset.json").read_text())
    assert [entry["image"] for entry in index["training"]] == [f"./imagesTr/{NAMES[0]}"]
    assert (index["numTraining"], index["numTest"], index["test"]) == (1, 0, [])
    for part in ("imagesTr", "labelsTr"):
        for name in NAMES[1:4]:
            (dataset / part / name).unlink()
            shutil.copyfile(HIPPOCAMPUS / part / name, dataset / part / name)
    code, answer, _ = release_here(run, dataset, out, profile, "--resume")
    assert (code, answer["counts"]["ok"], answer["counts"]["skipped"], answer["counts"]["quarantined"]) == (1, 3, 1, 1)
    assert len(list((tmp_path / "out_private" / "quarantine").iterdir())) == 1


@pytest.mark.usefixtures("no_pictures")
def test_unlabelled_cases_never_go_out_silently(run: Run, profile: Path, tmp_path: Path) -> None:
    dataset = decathlon(tmp_path / "in", 1, unlabelled=1)
    code, _, said = run(
        "release", dataset, "--output", tmp_path / "a", "--profile", profile, "--no-vault", "--jobs", 0, "--unlabelled", "fail"
    )
    assert code == 1
    assert "1 of 2 cases have no labels" in said
    assert not (tmp_path / "a").exists() or not list((tmp_path / "a").iterdir())
    code, answer, _ = release_here(run, dataset, tmp_path / "b", profile, "--unlabelled", "copy")
    assert (code, answer["counts"]["copied"]) == (0, 1)
    assert (tmp_path / "b" / "imagesTs" / NAMES[1]).read_bytes() == (dataset / "imagesTs" / NAMES[1]).read_bytes()
    entries = [json.loads(line) for line in (tmp_path / "b_private" / "audit.jsonl").read_text().splitlines()]
    assert [(e["status"], e["protected"]) for e in entries] == [("ok", True), ("copied", False)]
    assert "unprotected" in entries[1]["warnings"][0]
    assert json.loads((tmp_path / "b" / "medprotect_release.json").read_text())["cases"] == {"protected": 1, "unprotected": 1}


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("reason", ["unlabelled", "unlabelled, in its own process", "full disk", "forbidden"])
def test_a_release_that_cannot_begin_leaves_nothing(
    reason: str, run: Run, profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, out = decathlon(tmp_path / "in", 1, unlabelled=1), tmp_path / "new" / "out"
    command = ["release", dataset, "--output", out, "--profile", profile, "--no-vault"]
    command += ["--jobs", "1" if "process" in reason else "0", *(["--unlabelled", "fail"] if "unlabelled" in reason else [])]

    def fail(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        if reason == "full disk":
            patch.setattr("MedProtectLib.release.inventory.write_private", fail)
        if reason == "forbidden":
            patch.setattr("MedProtectLib.release.opening.put_if_absent", fail)
        code, _, said = run(*command)
    assert (code, len(said.splitlines())) == (1, 1)
    assert not (tmp_path / "new").exists()
    assert release_here(run, dataset, out, profile, "--resume", "--unlabelled", "copy")[0] == 0
    code, _, _ = run(*command, "--resume", "--unlabelled", "fail")
    assert (code, (out.with_name("out_private") / "manifest.json").is_file()) == (1, True)


@pytest.mark.usefixtures("no_pictures")
def test_what_is_protected_already_is_refused(run: Run, profile: Path, tmp_path: Path) -> None:
    dataset, out = decathlon(tmp_path / "in", 1), tmp_path / "out"
    assert release_here(run, dataset, out, profile)[0] == 0
    code, _, said = run("release", out, "--output", tmp_path / "again", "--profile", profile, "--no-vault", "--jobs", 0)
    assert code == 1
    assert "a release of MedProtect already" in said
    (out / "medprotect_release.json").unlink()
    (out / "medprotect_records.jsonl").rename(out / "imagesTr" / "medprotect_records.jsonl")
    code, answer, _ = release_here(run, out, tmp_path / "again", profile)
    assert (code, answer["counts"]["quarantined"]) == (1, 1)
    assert "protected already" in answer["problems"][0]["reason"]
    single = tmp_path / "single"
    image = dataset / "imagesTr" / NAMES[0]
    assert run("protect", image, "--labels", dataset / "labelsTr" / NAMES[0], "--profile", profile, "--output", single)[0] == 0
    mixed = decathlon(tmp_path / "mixed", 1)
    shutil.copyfile(next(single.glob("*_protected.nii.gz")), mixed / "imagesTr" / NAMES[0])
    shutil.copyfile(next(single.glob("*_record.json")), mixed / "imagesTr" / "any_record.json")
    code, answer, _ = release_here(run, mixed, tmp_path / "third", profile)
    assert (code, answer["counts"]["quarantined"]) == (1, 1)


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("linked", [False, True])
def test_images_of_a_release_are_refused_wherever_they_are_named(linked: bool, run: Run, profile: Path, tmp_path: Path) -> None:
    dataset, out, table = decathlon(tmp_path / "in", 1, 1), tmp_path / "out", tmp_path / "elsewhere" / "cases.csv"
    assert release_here(run, dataset, out, profile, "--unlabelled", "copy")[0] == 0
    images = out / "imagesTr"
    if linked:
        images = tmp_path / "link"
        images.symlink_to(out / "imagesTr")
    table.parent.mkdir()
    rows = ("case,image,labels", f"a,{images / NAMES[0]},{out / 'labelsTr' / NAMES[0]}", f"b,{out / 'imagesTs' / NAMES[1]},")
    table.write_text("\n".join(rows))
    code, answer, _ = release_here(run, table, tmp_path / "again", profile, "--unlabelled", "copy")
    assert (code, answer["counts"]["quarantined"], answer["counts"]["copied"]) == (1, 1, 1), "what went out as it was may go again"
    assert "protected already" in answer["problems"][0]["reason"]
    assert [p.name for p in (tmp_path / "again" / "images").iterdir()] == ["b.nii.gz"]


@pytest.mark.usefixtures("no_pictures")
def test_a_renamed_image_in_two_files_is_known_by_its_record(run: Run, profile: Path, tmp_path: Path) -> None:
    dataset, single, mixed = decathlon(tmp_path / "in", 1), tmp_path / "single", tmp_path / "mixed"
    image = tmp_path / "ct.hdr"
    sitk.WriteImage(sitk.ReadImage(dataset / "imagesTr" / NAMES[0]), image)
    assert run("protect", image, "--labels", dataset / "labelsTr" / NAMES[0], "--profile", profile, "--output", single)[0] == 0
    mixed.mkdir()
    for suffix in (".hdr", ".img"):
        shutil.copyfile(single / f"ct_protected{suffix}", mixed / f"renamed{suffix}")
    shutil.copyfile(single / "ct_record.json", mixed / "any_record.json")
    files = {path: sha256_file(path) for path in mixed.glob("renamed.*")}
    with pytest.raises(MedProtectError, match="protected already"):
        check_image(files, mixed, read_volume(mixed / "renamed.hdr"))


@pytest.mark.usefixtures("no_pictures")
def test_one_image_is_not_protected_twice_with_different_labels(run: Run, profile: Path, tmp_path: Path) -> None:
    dataset, out = decathlon(tmp_path / "in", 2), tmp_path / "out"
    shutil.copyfile(dataset / "imagesTr" / NAMES[0], dataset / "imagesTr" / NAMES[1])
    code, answer, _ = release_here(run, dataset, out, profile)
    assert (code, answer["counts"]["ok"], answer["counts"]["quarantined"]) == (1, 1, 1)
    assert "the same as that of case" in answer["problems"][0]["reason"]


def test_a_public_profile_and_the_vault_need_a_word(run: Run, profile: Path, tmp_path: Path) -> None:
    dataset = decathlon(tmp_path / "in", 1)
    for options, expected, word in (
        (("--no-vault",), 2, "profile of your own"),
        (("--no-vault", "--profile", Path("MedProtectLib/profiles/umed_3d.medprotect").absolute()), 1, "--allow-public-profile"),
        (("--profile", profile), 2, "--key FILE"),
    ):
        code, _, said = run("release", dataset, "--output", tmp_path / "out", *options)
        assert code == expected
        assert word in said
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out_private").exists()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--shard", "3/2"), "i from 1 to n"),
        (("--shard", "auto"), "SLURM"),
        (("--dask", "tcp://10.0.0.5:8786"), "safe"),
        (("--dask", "tls://node:8786"), "--dask-tls"),
        (("--dask", "local", "--shard", "1/2"), "exclude"),
        (("--jobs", "-1"), "--jobs -1"),
        (("--memory", "0"), "positive"),
        (("--method", "umed"), "method lsp"),
        (("--bound", "2"), "32/255"),
        (("--previous-private", "x"), "--previous"),
        (("--key", "x"), "exclude"),
    ],
)
def test_wrong_usage_is_one_line(run: Run, profile: Path, tmp_path: Path, options: tuple[str, ...], word: str) -> None:
    dataset = decathlon(tmp_path / "in", 1)
    code, _, said = run("release", dataset, "--output", tmp_path / "out", "--profile", profile, "--no-vault", *options)
    assert code == 2
    assert word in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["two\nlines", "x" * 600, " ", ""])
def test_a_name_is_one_with_and_without_a_vault(name: str, run: Run, profile: Path, tmp_path: Path) -> None:
    dataset = decathlon(tmp_path / "in", 1)
    for option in ("--no-vault", "--dry-run"):
        code, _, said = run("release", dataset, "--output", tmp_path / "out", "--profile", profile, "--name", name, option)
        assert (code, said.count("\n"), "not a name for a release" in said) == (1, 1, True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("place", ["in/out", "in", "."])
def test_input_shareable_and_private_files_stay_apart(run: Run, profile: Path, tmp_path: Path, place: str) -> None:
    dataset = decathlon(tmp_path / "in", 1)
    before = tree(tmp_path)
    assert run("release", dataset, "--output", tmp_path / place, "--profile", profile, "--no-vault")[0] == 1
    out = tmp_path / "out"
    for private in (out, out / "private", tmp_path, dataset / "private"):
        code, _, said = run("release", dataset, "--output", out, "--private", private, "--profile", profile, "--no-vault")
        assert code == 1
        assert "must not lie in" in said
    assert tree(tmp_path) == before


def test_a_folder_with_other_files_is_refused(run: Run, profile: Path, tmp_path: Path) -> None:
    dataset, out = decathlon(tmp_path / "in", 1), tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    code, _, said = run("release", dataset, "--output", out, "--profile", profile, "--no-vault", "--resume")
    assert code == 1
    assert "not empty" in said
    assert tree(out).keys() == {"thesis.txt"}


@pytest.mark.usefixtures("no_pictures")
def test_status_and_ledger(run: Run, profile: Path, tmp_path: Path) -> None:
    dataset, out = decathlon(tmp_path / "in", 2), tmp_path / "out"
    assert release_here(run, dataset, out, profile)[0] == 0
    events = [(entry["event"], entry.get("case")) for entry in ledger(tmp_path / "out_private")]
    first, second = (name.removesuffix(".nii.gz") for name in NAMES[:2])
    assert events == [("run", None), ("started", first), ("ok", first), ("started", second), ("ok", second), ("ended", None)]
    for folder in (out, tmp_path / "out_private"):
        code, answer, _ = run("release", "--status", folder, "--json")
        assert code == 0
        assert json.loads(answer)["counts"] == {"ok": 2}
    assert run("release", "--status", tmp_path)[0] == 1


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(
    ("name", "content", "codes"),
    [
        ("ledger/other.jsonl", '{"time": "x", "event": "ok", "case": "a"}\n{"time": 1, "event": "ok", "case": ["a"]}\n', (0, 0, 0)),
        ("ledger/other.jsonl", '{"time": 1, "event": "ok", "case": "a", "seconds": 1' + "0" * 400 + "}\n", (0, 0, 0)),
        ("cases.jsonl", "[]\n", (1, 1, 0)),
        ("cases.jsonl", '{"name": 1}\n', (1, 1, 0)),
        ("cases/{case}/record.json", '{"key": "x", "outputs": {}}', (0, 1, 0)),
        ("cases/{case}/record.json", '{"case": "{case}", "key": "x", "outputs": []}', (0, 1, 0)),
    ],
)
def test_damaged_private_files_are_told_or_made_anew(
    name: str, content: str, codes: tuple[int, ...], run: Run, profile: Path, tmp_path: Path
) -> None:
    dataset, out, case = decathlon(tmp_path / "in", 1), tmp_path / "out", NAMES[0].removesuffix(".nii.gz")
    assert release_here(run, dataset, out, profile)[0] == 0
    done = tree(out)
    (tmp_path / "out_private" / name.replace("{case}", case)).write_text(content.replace("{case}", case))
    assert (run("release", "--status", out)[0], run("release", "--verify", out)[0]) == codes[:2]
    assert release_here(run, dataset, out, profile, "--resume")[0] == codes[2]
    assert tree(out) == done


@pytest.mark.usefixtures("no_pictures")
def test_a_record_that_lacks_what_goes_out_is_damaged(run: Run, profile: Path, tmp_path: Path) -> None:
    dataset, out, case = decathlon(tmp_path / "in", 1), tmp_path / "out", NAMES[0].removesuffix(".nii.gz")
    assert release_here(run, dataset, out, profile)[0] == 0
    path = tmp_path / "out_private" / "cases" / case / "record.json"
    record = json.loads(path.read_text())
    del record["shareable"]["method"]
    path.write_text(json.dumps(record))
    code, _, said = release_here(run, dataset, out, profile, "--resume")
    assert (code, said.count("\n"), "its private record is damaged" in said) == (1, 1, True)


def test_the_pace_leaves_pauses_out(tmp_path: Path) -> None:
    made = Settings("r", "/x", "l", str(tmp_path / "out"), str(tmp_path), "p", "0" * 64)
    made.roots.manifest.write_bytes(made.to_bytes())
    made.roots.cases.write_text("".join(f'{{"name": "{case}"}}\n' for case in "abcdef"))
    made.roots.ledger.mkdir()
    ended = {"a": 100.0, "b": 110.0, "c": 5110.0, "d": 5115.0}
    lines = [{"time": time, "event": "ok", "case": case, "seconds": 10.0} for case, time in ended.items()]
    lines += [{"time": 9000.0, "event": "skipped", "case": "a"}, {"time": 9000.1, "event": "skipped", "case": "b"}]
    (made.roots.ledger / "x.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    status = status_of(tmp_path)
    assert status.counts == {"ok": 4, "open": 2}
    assert status.pace_s == pytest.approx((10 + 10 + 10 + 5) / 4)


def test_every_page_of_the_overview_is_near_with_few_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("MedProtectLib.release.overview.CASES_A_PAGE", 1)
    made = Settings("r", "/x", "l", str(tmp_path / "out"), str(tmp_path), "p", "0" * 64)
    (tmp_path / "overview").mkdir()
    (tmp_path / "overview" / "page_0151.html").write_text("of a longer release")
    cases = [Outcome(f"case_{number}", "ok", "", {}, None) for number in range(150)]
    write_overview(made.roots, made, lambda: cases, [])
    pages = {path.name: set(re.findall(r'href="(page_\d+\.html)"', path.read_text())) for path in (tmp_path / "overview").glob("page_*")}
    assert len(pages) == 150
    assert max(map(len, pages.values())) <= 16
    seen, steps = {"page_0001.html"}, 0
    while len(seen) < 150:
        seen, steps = seen.union(*(pages[name] for name in seen)), steps + 1
    assert steps <= 8


@pytest.mark.usefixtures("no_pictures")
def test_the_vault_restores_every_original_and_holds_the_only_perturbation(run: Run, profile: Path, tmp_path: Path) -> None:
    dataset, out = decathlon(tmp_path / "in", 2), tmp_path / "out"
    key = tmp_path / "site.key"
    save_key(SiteKey.new(), key)
    options = ("--profile", profile, "--key", key, "--jobs", 0)
    assert run("release", dataset, "--output", out, *options)[0] == 0
    assert not [p for p in (tmp_path / "out_private").rglob("*") if "perturbation" in p.name]
    second = tmp_path / "v2"
    assert run("release", dataset, "--output", second, "--previous", out, *options)[0] == 0
    for version in (out, second):
        for name in NAMES[:2]:
            original = tmp_path / "back" / version.name / name
            vault = version.with_name(f"{version.name}_private")
            code, _, said = run("restore", version / "imagesTr" / name, "--vault", vault, "--key", key, "--output", original)
            assert code == 0, said
            assert np.array_equal(voxels(original), voxels(dataset / "imagesTr" / name))
    save_key(SiteKey.new(), tmp_path / "other.key")
    image, other = out / "imagesTr" / NAMES[0], tmp_path / "other.key"
    restore = ("restore", image, "--vault", tmp_path / "out_private", "--output")
    assert run(*restore, tmp_path / "x.nii.gz", "--key", other)[0] == 1
    for place in (out / "restored" / NAMES[0], out / "imagesTr" / "a" / "b" / NAMES[0], second / NAMES[0]):
        code, _, said = run(*restore, place, "--key", key)
        assert code == 1
        assert "may be shared" in said
        assert not place.exists()


@pytest.mark.usefixtures("no_pictures")
def test_a_vault_has_one_key(run: Run, profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("MedProtectLib.release.dry_run.SAMPLES", 0)
    dataset, out, vault = decathlon(tmp_path / "in", 2), tmp_path / "out", tmp_path / "out_private" / "vault"
    for name in ("a.key", "b.key"):
        save_key(SiteKey.new(), tmp_path / name)
    command = ("release", dataset, "--output", out, "--profile", profile, "--jobs", 0, "--resume", "--key")
    assert run(*command, tmp_path / "a.key", "--shard", "1/2")[0] == 0
    (vault / f"{'0' * 64}.medvault").write_bytes(b"damaged")
    for more in ((), ("--dry-run",)):
        code, _, said = run(*command, tmp_path / "b.key", *more)
        assert code == 1
        assert "sealed under another key" in said
    assert len(list(vault.iterdir())) == 2
    (vault / f"{'0' * 64}.medvault").unlink()
    assert run("keys", "rotate", vault, "--key", tmp_path / "a.key", "--new-key", tmp_path / "b.key")[0] == 0
    assert run(*command, tmp_path / "b.key", "--dry-run")[0] == 0
    assert run(*command, tmp_path / "b.key")[0] == 0
    for name in NAMES[:2]:
        restore = ("restore", out / "imagesTr" / name, "--vault", vault, "--key", tmp_path / "b.key", "--output")
        assert run(*restore, tmp_path / "back" / name)[0] == 0


@pytest.mark.usefixtures("no_pictures")
def test_a_folder_that_cannot_be_written_is_no_fault_of_the_case(
    run: Run, profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, out = decathlon(tmp_path / "in", 1), tmp_path / "out"

    def refuse(volume: object, path: Path) -> None:
        raise MedProtectError("it cannot be written") from PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr("MedProtectLib.release.make.write_and_reread", refuse)
        code, answer, _ = release_here(run, dataset, out, profile)
    assert (code, answer["counts"]["failed"], answer["counts"]["quarantined"]) == (1, 1, 0)
    assert release_here(run, dataset, out, profile, "--resume")[1]["counts"]["ok"] == 1


@pytest.mark.skipif(os.name != "posix", reason="names that no Windows file can have")
@pytest.mark.usefixtures("no_pictures")
def test_links_and_names_that_lead_out_stay_behind(run: Run, profile: Path, tmp_path: Path) -> None:
    dataset, out = decathlon(tmp_path / "in", 2), tmp_path / "out"
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "README.md").write_text("private")
    (dataset / "README.md").symlink_to(secret / "README.md")
    (dataset / "imagesTs").rmdir()
    shutil.copyfile(dataset / "imagesTr" / NAMES[0], secret / "x.nii.gz")
    (dataset / "imagesTs").symlink_to(secret)
    for part in ("imagesTr", "labelsTr"):
        (dataset / part / NAMES[1]).rename(dataset / part / "con.nii.gz")
    code, answer, said = release_here(run, dataset, out, profile, "--unlabelled", "copy")
    assert (code, answer["counts"]["ok"], answer["counts"]["quarantined"]) == (1, 1, 2)
    assert "symbolic link" in said
    assert "Rename" in said
    assert set(tree(out)) == {
        "LICENSE.txt",
        "dataset.json",
        f"imagesTr/{NAMES[0]}",
        f"labelsTr/{NAMES[0]}",
        "medprotect_records.jsonl",
        "medprotect_release.json",
    }
