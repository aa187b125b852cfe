from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest

from MedProtectLib import Profile
from MedProtectLib.cli.main import main
from MedProtectLib.fitting import cotrain
from MedProtectLib.fitting.fit import MADE
from MedProtectLib.release.claims import claimed


@pytest.fixture
def dataset(hippocampus: tuple[Path, Path], tmp_path: Path) -> Path:
    """A Decathlon folder of one case, and a manifest of it."""
    folder = tmp_path / "dataset"
    for kind, path in zip(("imagesTr", "labelsTr"), hippocampus, strict=True):
        (folder / kind).mkdir(parents=True)
        shutil.copy(path, folder / kind / "case.nii.gz")
    (folder / "cases.csv").write_text("case,image,labels,class,split\ncase,imagesTr/case.nii.gz,labelsTr/case.nii.gz,,train\n")
    return folder


@pytest.mark.parametrize("source", ["folder", "manifest", "one image"])
@pytest.mark.parametrize("dimension", ["2", "3"])
def test_fit_then_protect(source: str, dimension: str, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, labels, profile = dataset / "imagesTr" / "case.nii.gz", dataset / "labelsTr" / "case.nii.gz", tmp_path / "site.medprotect"
    what = {"folder": [dataset], "manifest": [dataset / "cases.csv", "--split", "train"], "one image": [image, "--labels", labels]}[source]
    options = ["--output", profile, "--dimension", dimension, "--steps", "2", "--seed", "5", "--bound", "6/255", "--json"]
    assert main([str(a) for a in ("fit", *what, *options)]) == 0
    told = json.loads(capsys.readouterr().out)
    loaded = Profile.load(profile)
    assert told["sha256"] == loaded.sha256()
    assert (loaded.seed, loaded.bound, loaded.dimension, loaded.public) == (5, pytest.approx(6 / 255), int(dimension), False)
    assert list(loaded.training["cases"]) == ["case"]
    assert not list(tmp_path.glob("*.work"))
    protect = ["protect", image, "--labels", labels, "--output", tmp_path / "out", "--profile", profile, "--json"]
    assert main([str(a) for a in protect]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["statistics"]["epsilon"] == pytest.approx(6 / 255)
    assert "public profile" not in captured.err


@pytest.mark.parametrize("method", ["lsp", "ar"])
def test_a_private_pattern_is_nobody_elses(method: str, dataset: Path, tmp_path: Path) -> None:
    """Methods that learn nothing from the images: without --seed two sites get two patterns, with one or --public the same."""

    def fitted(name: str, *options: str) -> Profile:
        path = tmp_path / f"{name}.medprotect"
        assert main(["fit", str(dataset), "--method", method, "--output", str(path), *options]) == 0
        return Profile.load(path)

    mine, theirs = fitted("mine"), fitted("theirs")
    assert mine.seed != theirs.seed
    assert not np.array_equal(mine.tensors["fixed"], theirs.tensors["fixed"])
    for again, options in (("seed", ("--seed", "5")), ("public", ("--public",))):
        assert fitted(again, *options).sha256() == fitted(again + "2", *options).sha256()


def interrupted(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Start a fit that is stopped after its first checkpoint."""

    def stop(*_: object) -> None:
        save(*_)
        raise KeyboardInterrupt

    save = cotrain.save_checkpoint
    with monkeypatch.context() as patch:
        patch.setattr(cotrain, "SAVE_EVERY", 1)
        patch.setattr(cotrain, "save_checkpoint", stop)
        assert main(arguments) == 1


def test_an_interrupted_fit_is_not_thrown_away(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    profile, work = tmp_path / "site.medprotect", tmp_path / "site.medprotect.work"
    command = ["fit", str(dataset), "--output", str(profile), "--dimension", "2", "--steps", "2", "--seed", "1"]
    interrupted(command, monkeypatch)
    before = {path.name: path.read_bytes() for path in work.iterdir()}
    assert "checkpoint.safetensors" in before
    err = capsys.readouterr().err
    assert (len(err.splitlines()), f"what is done is kept in {work}" in err, "Go on with --resume" in err) == (1, True, True)
    for arguments, reason in ((command, "Use --resume to go on"), ([*command, "--resume", "--bound", "6/255"], "other data or settings")):
        assert main(arguments) == 1
        err = capsys.readouterr().err
        assert len(err.splitlines()) == 1
        assert reason in err
        assert {path.name: path.read_bytes() for path in work.iterdir()} == before
    assert main([*command, "--resume"]) == 0
    assert not work.exists()


@pytest.mark.parametrize("more", [(), ("--resume",)])
def test_two_fits_do_not_mix(more: tuple[str, ...], dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    profile = tmp_path / "site.medprotect"
    work = tmp_path / "site.medprotect.work"
    work.mkdir()
    (work / "index.json").write_text("of the other")
    with claimed(tmp_path, work.name):
        assert main(["fit", str(dataset), "--output", str(profile), "--method", "lsp", *more]) == 1
    assert f"{work}: another fit is at work here" in capsys.readouterr().err
    assert (work / "index.json").read_text() == "of the other"
    shutil.rmtree(work)
    assert main(["fit", str(dataset), "--output", str(profile), "--method", "lsp", *more]) == 0
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("site")) == [profile.name]


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_of_others_where_the_work_would_go_stays(
    resume: bool, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work = tmp_path / "site.medprotect.work"
    work.mkdir()
    (work / "thesis.txt").write_text("of years")
    command = ["fit", str(dataset), "--output", str(tmp_path / "site.medprotect"), "--steps", "1", *(["--resume"] if resume else [])]
    assert main(command) == 1
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert "'thesis.txt'" in err
    assert [path.name for path in work.iterdir()] == ["thesis.txt"]
    (work / "thesis.txt").unlink()
    assert main(command) == 0
    assert not work.exists()


def test_after_a_fit_only_what_it_made_is_removed(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = tmp_path / "site.medprotect.work"
    command = ["fit", str(dataset), "--output", str(tmp_path / "site.medprotect"), "--dimension", "2", "--steps", "1"]
    save = Profile.save

    def meanwhile(self: Profile, path: Path) -> None:
        (work / "note.txt").write_text("put here while the fit ran")
        save(self, path)

    monkeypatch.setattr(Profile, "save", meanwhile)
    assert main(command) == 0
    assert [path.name for path in work.iterdir()] == ["note.txt"]


@pytest.mark.parametrize("name", ["tap", "sep", "em"])
def test_what_every_loop_keeps_is_known_to_the_fit(name: str, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a work folder would be taken for one of somebody else."""
    command = ["fit", str(dataset), "--output", str(tmp_path / "p.medprotect"), "--dimension", "2", "--method", name, "--steps", "2"]
    monkeypatch.setattr("MedProtectLib.fitting.fit._clear", lambda *_: None)
    assert main(command) == 0
    made = sorted(path.name for path in (tmp_path / "p.medprotect.work").iterdir())
    assert len(made) > 3
    assert all(map(MADE.fullmatch, made)), made


@pytest.mark.parametrize("what", ["fit", "protect"])
def test_a_full_disk_is_named(
    what: str, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("223200 requested and 29664 written")

    monkeypatch.setattr("MedProtectLib.fitting.patches.np.save", full)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    image, labels = dataset / "imagesTr" / "case.nii.gz", dataset / "labelsTr" / "case.nii.gz"
    place = {"fit": ["--output", tmp_path / "p.medprotect"], "protect": ["--output", tmp_path / "out", "--method", "tap"]}[what]
    assert main([str(a) for a in (what, image, "--labels", labels, *place)]) == 1
    err = capsys.readouterr().err.splitlines()[-1]
    assert f"{tmp_path}/{'p.medprotect.work' if what == 'fit' else 'medprotect-'}" in err
    assert "free space" in err
    assert [path.name for path in tmp_path.iterdir()] == ["dataset"]


BAD = {
    "no dataset": (["nowhere"], 1, "neither a dataset folder nor a CSV manifest"),
    "empty folder": (["empty"], 1, "no labelled case"),
    "missing column": (["columns.csv"], 1, "column labels is missing"),
    "semicolons": (["semicolons.csv"], 1, "semicolons.csv: its columns are separated by semicolons. Save it with commas"),
    "tabs": (["tabs.csv"], 1, "separated by tabs"),
    "split of a folder": (["dataset", "--split", "trian"], 1, "no part 'trian'"),
    "split without its column": (["gone.csv", "--split", "trian"], 1, "no part 'trian'"),
    "no such split": (["split.csv", "--split", "trian"], 1, "no case has the split 'trian'. Its column split has test, train."),
    "missing file": (["gone.csv"], 1, "which does not exist"),
    "doubled case": (["twice.csv"], 1, "more than once"),
    "bad bound": (["dataset", "--bound", "0"], 2, "bound 0"),
    "bad steps": (["dataset", "--steps", "0"], 2, "at least 1"),
    "bad method": (["dataset", "--method", "nosuch"], 2, "unknown method"),
    "no such segment": (["dataset", "--segments", "99"], 1, "99"),
    "new folder": (["dataset", "--segments", "99", "--output", "new/site.medprotect"], 1, "99"),
    "one class": (["one_class.csv", "--method", "em"], 1, "all images are of class 'benign'. Method 'em' learns from at least two"),
    "output exists": (["dataset", "--output", "there.medprotect"], 1, "exists already"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_fitted_is_one_line(
    name: str, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("there.medprotect").write_text("")
    Path("columns.csv").write_text("case,image\na,b\n")
    Path("gone.csv").write_text("case,image,labels\na,x.nii.gz,y.nii.gz\n")
    row = "a,dataset/imagesTr/case.nii.gz,dataset/labelsTr/case.nii.gz\n"
    Path("semicolons.csv").write_text("\ufeffcase;image;labels\na;x.nii.gz;y.nii.gz\n", encoding="utf-8")
    Path("tabs.csv").write_text("case\timage\tlabels\na\tx.nii.gz\ty.nii.gz\n")
    Path("split.csv").write_text("case,image,labels,split\na,x.nii.gz,y.nii.gz,train\nb,x.nii.gz,y.nii.gz,test\n")
    Path("twice.csv").write_text(f"case,image,labels\n{row}{row}")
    Path("one_class.csv").write_text("case,image,class\na,dataset/imagesTr/case.nii.gz,benign\n")
    arguments, expected, message = BAD[name]
    before = sorted(str(p) for p in tmp_path.rglob("*"))
    code = main(["fit", "--output", "new.medprotect", *arguments])
    err = capsys.readouterr().err
    assert code == expected
    assert len(err.strip().splitlines()) == 1
    assert message in err
    assert sorted(str(p) for p in tmp_path.rglob("*")) == before
