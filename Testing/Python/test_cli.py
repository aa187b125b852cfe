from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from MedProtectLib import read_volume
from MedProtectLib.release.writer import this_writer
from samples import Run


@pytest.fixture
def case(tmp_path: Path) -> tuple[Path, Path]:
    """A small MR with labels, NRRD, in a folder of its own."""
    folder = tmp_path / "in"
    folder.mkdir()
    rng = np.random.default_rng(0)
    labels = np.zeros((12, 40, 40), np.uint8)
    labels[3:9, 10:30, 10:30] = 1
    for name, array in (("mr.nrrd", rng.integers(1, 900, labels.shape).astype(np.int16)), ("labels.nrrd", labels)):
        sitk.WriteImage(sitk.GetImageFromArray(array), folder / name, useCompression=True)
    return folder / "mr.nrrd", folder / "labels.nrrd"


def listing(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_protect_leaves_what_the_contract_names(run: Run, case: tuple[Path, Path], tmp_path: Path) -> None:
    image, labels = case
    before = image.read_bytes()
    code, out, _ = run("protect", image, "--labels", labels, "--output", tmp_path / "out", "--target-psnr", "50.1", "--json")
    assert code == 0
    assert image.read_bytes() == before
    assert listing(tmp_path / "out") == ["mr_protected.nrrd", "mr_record.json"]
    private = ["mr_overlay.png", "mr_perturbation.nrrd", "mr_private_record.json", "mr_report.html"]
    assert listing(tmp_path / "out_private") == private
    record = json.loads((tmp_path / "out" / "mr_record.json").read_text())
    assert json.loads(out)["statistics"] == record["statistics"]
    secret = json.loads((tmp_path / "out_private" / "mr_private_record.json").read_text())
    shareable = (tmp_path / "out" / "mr_record.json").read_text()
    assert secret["profile"]["sha256"] not in shareable
    assert '"seed"' not in shareable
    assert secret["original_sha256"] not in shareable
    perturbation = read_volume(tmp_path / "out_private" / "mr_perturbation.nrrd").array * secret["level_step_stored"]
    change = read_volume(tmp_path / "out" / "mr_protected.nrrd").array.astype(float) - read_volume(image).array
    assert np.array_equal(perturbation, change)


def test_two_runs_give_the_same_bytes(run: Run, case: tuple[Path, Path], tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert run("protect", case[0], "--labels", case[1], "--output", tmp_path / name / "out")[0] == 0
    for file in listing(tmp_path / "a"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


def test_bytes_do_not_depend_on_the_thread_count(ct: tuple[Path, Path], tmp_path: Path) -> None:
    for threads in ("1", "2"):
        command = [sys.executable, "-m", "MedProtectLib", "protect", str(ct[0]), "--labels", str(ct[1]), "--segments", "liver"]
        command += ["--target-psnr", "50.1", "--output", str(tmp_path / threads / "out")]
        subprocess.run(command, check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": threads})
    for file in listing(tmp_path / "1"):
        assert (tmp_path / "1" / file).read_bytes() == (tmp_path / "2" / file).read_bytes(), file


@pytest.mark.parametrize("private", ["inside", "same"])
def test_the_private_folder_never_lies_inside_the_shareable_one(run: Run, case: tuple[Path, Path], tmp_path: Path, private: str) -> None:
    out = tmp_path / "out"
    code, _, err = run(
        "protect", case[0], "--labels", case[1], "--output", out, "--private", out / "private" if private == "inside" else out
    )
    assert_one_line(code, err, 1)
    assert not out.exists()


def test_verify_accepts_the_result_and_refuses_spoiled_ones(run: Run, case: tuple[Path, Path], tmp_path: Path) -> None:
    image, labels = case
    run("protect", image, "--labels", labels, "--output", tmp_path / "out")
    protected = tmp_path / "out" / "mr_protected.nrrd"
    code, out, _ = run("verify", image, protected, "--labels", labels, "--json")
    assert code == 0
    assert json.loads(out)["statistics"] == json.loads((tmp_path / "out" / "mr_record.json").read_text())["statistics"]
    code, out, err = run("verify", image, image, "--labels", labels, "--json")
    assert_one_line(code, err.splitlines()[-1], 1)
    assert "not protected" in err
    assert json.loads(out)["ok"] is False
    spoiled = sitk.ReadImage(protected)
    spoiled[0, 0, 0] += 3
    sitk.WriteImage(spoiled, protected)
    code, _, err = run("verify", image, protected, "--labels", labels)
    assert code == 1
    assert "outside" in err
    assert "SHA-256 differs" in err
    assert "since the record was written" in err


def test_declared_padding_is_not_touched_and_verify_knows_it(run: Run, case: tuple[Path, Path], tmp_path: Path) -> None:
    """Two voxels in a hundred lie on the floor, which would else be taken for the padding."""
    image, labels = case
    array = sitk.GetArrayFromImage(sitk.ReadImage(image))
    array[4:7, 8:16, 8:16] = -31
    array[:, ::7, ::7] = -60
    sitk.WriteImage(sitk.GetImageFromArray(array), image)
    command = ("protect", image, "--labels", labels, "--output", tmp_path / "out", "--bound", "8/255")
    assert run(*command, "--padding", "-32", "-30")[0] == 0
    protected = tmp_path / "out" / "mr_protected.nrrd"
    after = read_volume(protected).array
    assert np.array_equal(after == -31, array == -31)
    assert (after[array == -60] != -60).any()
    assert json.loads((tmp_path / "out" / "mr_record.json").read_text())["padding"] == [-32, -30]
    assert json.loads((tmp_path / "out_private" / "mr_private_record.json").read_text())["padding"] == [-32, -30]
    assert run("verify", image, protected, "--labels", labels)[0] == 0
    record = tmp_path / "out" / "mr_record.json"
    record.write_text(record.read_text().replace('"padding"', '"else"'))
    assert "outside" in run("verify", image, protected, "--labels", labels)[2]
    record.write_text(json.dumps({"padding": [0, "a"]}))
    assert "the record is damaged" in run("verify", image, protected, "--labels", labels)[2]
    assert run(*command, "--overwrite")[0] == 0
    assert (read_volume(protected).array[array == -31] != -31).any(), "nobody can tell that it is padding"


def test_a_picture_in_a_format_of_volumes(run: Run, case: tuple[Path, Path], tmp_path: Path) -> None:
    image, labels = case
    command = ("protect", image, "--labels", labels, "--output", tmp_path / "out", "--photograph", "--json")
    code, _, err = run(*command)
    assert_one_line(code, err, 1)
    assert "stored as int16, and a photograph has 8 bits" in err
    sitk.WriteImage(sitk.Cast(sitk.ReadImage(image) / 4, sitk.sitkUInt8), image)
    assert json.loads(run(*command)[1])["statistics"]["window"] == [0, 255]


def test_methods_lists_umed(run: Run) -> None:
    code, out, _ = run("methods", "--json")
    assert code == 0
    umed = next(m for m in json.loads(out)["methods"] if m["name"] == "umed")
    assert umed["public_profiles"] == ["2D", "3D"]
    assert "umed" in run("methods")[1]


def test_a_reader_that_stops_reading_is_no_traceback() -> None:
    command = f'"{sys.executable}" -m MedProtectLib methods --json'
    done = subprocess.run(f"{command} | true", shell=True, capture_output=True, text=True, check=False)
    assert done.stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
@pytest.mark.parametrize(
    ("arguments", "expected", "message"),
    [
        ("methods", 1, "standard output: No space left on device"),
        ("methods --json", 1, "standard output: No space left on device"),
        ("methods --nosuch --json", 2, "--nosuch"),
        ("verify a b --labels c --json", 1, "no such file"),
    ],
)
def test_an_output_that_cannot_be_written_is_one_line(arguments: str, expected: int, message: str) -> None:
    command = [sys.executable, "-m", "MedProtectLib", *arguments.split()]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert_one_line(done.returncode, done.stderr, expected)
    assert message in done.stderr


def test_progress_as_json_lines(run: Run, case: tuple[Path, Path], tmp_path: Path) -> None:
    code, _, err = run("protect", case[0], "--labels", case[1], "--output", tmp_path / "out", "--progress", "json")
    assert code == 0
    lines = [json.loads(line) for line in err.splitlines()]
    steps = [line for line in lines if "stage" in line]
    assert [set(line) for line in lines if line not in steps] == [{"notice"}, {"warning"}]
    assert [s["stage"] for s in steps if s["stage"] != "generate"] == ["read", "protect", "write", "measure", "report"]
    assert all({"stage", "done", "total", "eta_s"} <= set(s) for s in steps)


@pytest.mark.parametrize("option", [("--progress", "json"), ("--progress=json",)])
def test_an_error_is_a_json_line_too(option: tuple[str, ...], run: Run, case: tuple[Path, Path], tmp_path: Path) -> None:
    for arguments, expected in (((case[0], case[0]), 1), ((case[0], case[0], "--labels", case[1]), 2)):
        code, _, err = run("verify", *arguments, *option, *(("--labels", case[1]) if expected == 1 else ("--bound", "5")))
        assert (code, list(json.loads(err.splitlines()[-1]))) == (expected, ["error"])
    assert run("verify", "a", "b", "--labels", "c")[2].startswith("medprotect: error: ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("protect", "a.nii", "--lables", "b.nii", "--output", "out"), "unknown option --lables, did you mean --labels?"),
        (("methods", "--jsom"), "unknown option --jsom, did you mean --json?"),
        (("keys", "new", "a.key", "--pasphrase"), "unknown option --pasphrase, did you mean --passphrase?"),
        (("methods", "--js"), "unknown option --js, did you mean --json?"),
        (("methods", "--nosuch=3"), "unknown option --nosuch (see 'medprotect methods --help')"),
        (("protect", "a.nii", "--output", "out"), "one of the arguments --labels --class is required"),
        (("methods", "umed"), "unrecognized arguments: umed"),
    ],
)
def test_an_unknown_option_is_named(arguments: tuple[str, ...], said: str, run: Run) -> None:
    code, _, err = run(*arguments)
    assert_one_line(code, err, 2)
    assert said in err


def assert_one_line(code: int, err: str, expected: int) -> None:
    assert code == expected
    assert len(err.strip().splitlines()) == 1, err
    assert err.startswith("medprotect: error: ")
    assert "Traceback" not in err


def spoil(kind: str, image: Path, labels: Path) -> None:
    """Make one of the two files bad."""
    data, array = image.read_bytes(), sitk.GetArrayFromImage(sitk.ReadImage(image))
    if kind == "truncated":
        image.write_bytes(data[: len(data) // 2])
    elif kind == "empty":
        image.write_bytes(b"")
    elif kind == "text":
        image.write_text("this is no image\n")
    elif kind == "missing":
        image.unlink()
    elif kind in ("nan", "infinite"):
        values = array.astype(np.float32)
        values[3, 4, 5] = np.nan if kind == "nan" else np.inf
        sitk.WriteImage(sitk.GetImageFromArray(values), image)
    elif kind == "unlabelled":
        sitk.WriteImage(sitk.GetImageFromArray(np.zeros_like(array, np.uint8)), labels)
    elif kind == "labels elsewhere":
        far = sitk.GetImageFromArray(np.ones((5, 5, 5), np.uint8))
        far.SetOrigin((5000.0, 5000.0, 5000.0))
        sitk.WriteImage(far, labels)
    elif kind == "four dimensions":
        sitk.WriteImage(sitk.GetImageFromArray(np.stack([array, array])), image)
    elif kind == "zero spacing":
        image.write_bytes(data.replace(b"space directions: (1,0,0) (0,1,0) (0,0,1)", b"space directions: (0,0,0) (0,1,0) (0,0,1)"))
        assert b"(0,0,0) (0,1,0)" in image.read_bytes()
    elif kind == "fractional labels":
        sitk.WriteImage(sitk.GetImageFromArray(np.full(array.shape, 0.5, np.float32)), labels)
    elif kind == "constant":
        sitk.WriteImage(sitk.GetImageFromArray(np.full_like(array, 5)), image)


BAD_FILES = (
    "truncated", "empty", "text", "missing", "nan", "infinite", "unlabelled", "labels elsewhere", "four dimensions", "zero spacing",
    "fractional labels", "constant",
)  # fmt: skip


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_file_is_one_line_and_leaves_nothing(kind: str, run: Run, case: tuple[Path, Path], tmp_path: Path) -> None:
    spoil(kind, *case)
    code, out, err = run("protect", case[0], "--labels", case[1], "--output", tmp_path / "out")
    assert_one_line(code, err, 1)
    assert out == ""
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in"]


BAD_OPTIONS = (
    ("--method", "nosuch"),
    ("--bound", "0"),
    ("--bound", "-1/255"),
    ("--bound", "33/255"),
    ("--bound", "four"),
    ("--bound", "1/0"),
    ("--bound", "nan"),
    ("--target-psnr", "-3"),
    ("--target-psnr", "nan"),
    ("--target-psnr", "loud"),
    ("--window", "5", "1"),
    ("--window", "5"),
    ("--window", "-1e308", "1e308"),
    ("--window", "-1e300", "1e300"),
    ("--method", "weave", "--set", "period=7.9"),
    ("--modality", "PET/CT"),
    ("--padding", "0"),
    ("--padding", "nan", "0"),
    ("--seed", "-1"),
    ("--progress", "loud"),
    ("--nosuch",),
)


@pytest.mark.parametrize("options", BAD_OPTIONS, ids=" ".join)
def test_a_bad_option_is_wrong_usage(options: tuple[str, ...], run: Run, case: tuple[Path, Path], tmp_path: Path) -> None:
    code, out, err = run("protect", case[0], "--labels", case[1], "--output", tmp_path / "out", *options)
    assert_one_line(code, err, 2)
    assert out == ""
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in"]


@pytest.mark.parametrize("low", ["-1e3", "-1E+3", "-.1e4", "-1000"])
def test_a_negative_number_is_no_option(low: str, run: Run, case: tuple[Path, Path], tmp_path: Path) -> None:
    code, out, _ = run("protect", case[0], "--labels", case[1], "--output", tmp_path / "out", "--window", low, "1e3", "--json")
    assert code == 0
    assert json.loads(out)["statistics"]["window"] == [-1000.0, 1000.0]


@pytest.mark.parametrize("command", ["fit", "release"])
def test_a_negative_number_is_no_option_of_any_command(command: str, run: Run, tmp_path: Path) -> None:
    code, _, err = run(command, tmp_path / "nowhere", "--output", tmp_path / "out", "--window", "-1e3", "-2e3")
    assert_one_line(code, err, 2)
    assert "expected 2 arguments" not in err


@pytest.mark.parametrize("arguments", [(), ("nosuch",), ("protect",), ("verify", "a")], ids=str)
def test_an_incomplete_command_is_wrong_usage(arguments: tuple[str, ...], run: Run) -> None:
    code, _, err = run(*arguments)
    assert_one_line(code, err, 2)


def test_an_option_that_is_given_twice_adds_up(run: Run, case: tuple[Path, Path], tmp_path: Path) -> None:
    sitk.WriteImage(2 * sitk.ReadImage(str(case[1])) - sitk.Cast(sitk.ReadImage(str(case[0])) > 400, sitk.sitkUInt8), case[1])
    results = []
    for name, options in {
        "once": ("--segments", "1", "2", "--set", "period=16", "edge=5"),
        "twice": ("--segments", "1", "--segments", "2", "--set", "period=16", "--set", "edge=5"),
    }.items():
        code, out, _ = run("protect", case[0], "--labels", case[1], "--output", tmp_path / name, "--method", "weave", *options, "--json")
        assert code == 0
        results.append((json.loads(out)["statistics"], read_volume(tmp_path / name / "mr_protected.nrrd").array))
    assert results[0][0] == results[1][0]
    assert np.array_equal(results[0][1], results[1][1])


def test_an_unknown_segment_is_named_with_those_there_are(run: Run, case: tuple[Path, Path], tmp_path: Path) -> None:
    code, _, err = run("protect", case[0], "--labels", case[1], "--output", tmp_path / "out", "--segments", "liver")
    assert_one_line(code, err, 1)
    assert "no segment 'liver'" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("too_long", ["image", "labels", "--output", "--private", "names of results"])
def test_a_name_that_is_too_long_is_told_to_be_shorter(too_long: str, run: Run, case: tuple[Path, Path], tmp_path: Path) -> None:
    image, labels, long = *case, tmp_path / f"{'n' * 300}.nrrd"
    if too_long == "names of results":
        image = Path(shutil.copy(image, tmp_path / f"{'n' * 240}.nrrd"))
    places = [v for option in ("--output", "--private") for v in (option, long if too_long == option else tmp_path / option)]
    before = set(tmp_path.rglob("*"))
    code, _, err = run("protect", long if too_long == "image" else image, "--labels", long if too_long == "labels" else labels, *places)
    assert_one_line(code, err, 1)
    assert "File name too long" in err
    assert err.endswith("Use a shorter name.\n")
    assert set(tmp_path.rglob("*")) == before


def test_output_beside_the_input_is_refused(run: Run, case: tuple[Path, Path]) -> None:
    before = listing(case[0].parent)
    code, _, err = run("protect", case[0], "--labels", case[1], "--output", case[0].parent)
    assert_one_line(code, err, 1)
    assert listing(case[0].parent) == before


def test_an_existing_result_needs_overwrite(run: Run, case: tuple[Path, Path], tmp_path: Path) -> None:
    command = ("protect", case[0], "--labels", case[1], "--output", tmp_path / "out")
    assert run(*command)[0] == 0
    first = {name: (tmp_path / name).read_bytes() for name in listing(tmp_path)}
    code, _, err = run(*command, "--bound", "8/255")
    assert_one_line(code, err, 1)
    assert {name: (tmp_path / name).read_bytes() for name in listing(tmp_path)} == first
    assert run(*command, "--bound", "8/255", "--overwrite")[0] == 0
    assert (tmp_path / "out" / "mr_protected.nrrd").read_bytes() != first["out/mr_protected.nrrd"]


def test_files_without_a_record_are_swept_and_strangers_kept(run: Run, case: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mr_protected.mha").write_bytes(b"left by a run that died")
    (out / "notes.txt").write_text("keep me")
    assert run("protect", case[0], "--labels", case[1], "--output", out)[0] == 0
    assert listing(out) == ["mr_protected.nrrd", "mr_record.json", "notes.txt"]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the system does not say when a process began")
def test_a_run_that_died_does_not_hold_its_case(run: Run, case: tuple[Path, Path], tmp_path: Path) -> None:
    """Also when its process number is given again, as that of the first process of a container always is."""
    out, me = tmp_path / "out", this_writer()
    earlier, elsewhere = replace(me, began=me.began - 1), replace(me, host="elsewhere")
    names = (f".{name}.{writer.name}.staging" for name, writer in (("mr", earlier), ("mr", elsewhere), ("old", elsewhere)))
    dead, fresh, old = (out / name for name in names)
    of_former_program = out / ".mr.elsewhere-999999.staging"
    for folder in (dead, fresh, old, of_former_program):
        folder.mkdir(parents=True)
    for folder in (old, of_former_program):
        os.utime(folder, (0, 0))
    command = ("protect", case[0], "--labels", case[1], "--output", out)
    assert run(*command)[0] == 0
    assert listing(out) == ["mr_protected.nrrd", "mr_record.json"]
    assert [folder.exists() for folder in (dead, fresh, old)] == [False, True, False], "another machine may be at work, but not for a day"
    assert not of_former_program.exists()
    at_work = out / f".mr.{me.name}.staging"
    at_work.mkdir()
    code, _, err = run(*command, "--overwrite")
    assert_one_line(code, err, 1)
    assert "another run is protecting 'mr'" in err
    assert at_work.exists()


def test_only_what_medprotect_makes_is_swept(run: Run, case: tuple[Path, Path], tmp_path: Path) -> None:
    """Files of others with names like ours, also ours in the folder where they are not made, and those of a neighbouring case."""
    out, private = tmp_path / "out", tmp_path / "out_private"
    neighbour = shutil.copy(case[0], case[0].with_name("mr_protected.v2.nrrd"))
    assert run("protect", neighbour, "--labels", case[1], "--output", out)[0] == 0
    finished = {path: path.read_bytes() for folder in (out, private) for path in folder.iterdir()}
    theirs = [out / f"mr_{name}" for name in ("report.pdf", "report.html", "record.xlsx", "perturbation.txt", "private_record.json")]
    theirs += [private / f"mr_{name}" for name in ("overlay.jpg", "protected.nrrd", "report_1.html", "private_record.txt")]
    left = [
        out / "mr_protected.nii.gz",
        out / "mr_protected_0001.nhdr",
        private / "mr_report_0001.html",
        private / "mr_perturbation.medvault",
    ]
    for path in (*theirs, *left):
        path.write_text("content")
    for options in ((), ("--overwrite",)):
        assert run("protect", case[0], "--labels", case[1], "--output", out, *options)[0] == 0
        assert [path.read_text() for path in theirs] == ["content"] * len(theirs)
        assert not any(path.exists() for path in left)
        assert {path: path.read_bytes() for path in finished} == finished


def test_the_files_of_every_format_are_known_to_the_sweep() -> None:
    from MedProtectLib.io import metaimage, nrrd
    from MedProtectLib.staging import DATA_EXTENSIONS

    assert {*nrrd.DATA_EXTENSIONS.values(), *metaimage.DATA_EXTENSIONS.values()} == set(DATA_EXTENSIONS)


@pytest.mark.parametrize("how", ["one private folder", "shareable files moved away"])
def test_the_private_files_of_another_result_need_overwrite(how: str, run: Run, case: tuple[Path, Path], tmp_path: Path) -> None:
    first, second, private = tmp_path / "a", tmp_path / "b", tmp_path / "a_private"
    assert run("protect", case[0], "--labels", case[1], "--output", first)[0] == 0
    if how == "shareable files moved away":
        second = first.rename(tmp_path / "published").with_name("a")
    before = {name: (private / name).read_bytes() for name in listing(private)}
    command = ("protect", case[0], "--labels", case[1], "--output", second, "--private", private, "--bound", "8/255")
    code, _, err = run(*command)
    assert_one_line(code, err, 1)
    assert "mr_private_record.json" in err
    assert {name: (private / name).read_bytes() for name in listing(private)} == before
    assert not second.exists()
    assert run(*command, "--overwrite")[0] == 0
    assert (private / "mr_perturbation.nrrd").read_bytes() != before["mr_perturbation.nrrd"]


def test_private_files_that_appear_in_the_meantime_stay(
    run: Run, case: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run with the same private folder ends while this one protects."""
    from MedProtectLib.protector import Protector

    protect = Protector.protect

    def meanwhile(self: Protector, *args: object, **kwargs: object) -> object:
        monkeypatch.undo()
        assert run("protect", case[0], "--labels", case[1], "--output", tmp_path / "a", "--private", tmp_path / "private")[0] == 0
        return protect(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Protector, "protect", meanwhile)
    code, _, err = run("protect", case[0], "--labels", case[1], "--output", tmp_path / "b", "--private", tmp_path / "private")
    assert_one_line(code, err, 1)
    assert not (tmp_path / "b").exists()
    assert len(listing(tmp_path / "private")) == 4


@pytest.mark.parametrize("output", [".", "./", "", "..", "a/.."])
def test_the_current_folder_and_its_parent_can_take_results(
    output: str, run: Run, case: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "x" / "y"
    (here / "a").mkdir(parents=True)
    monkeypatch.chdir(here)
    folder = here.parent if output == ".." else here
    assert run("protect", case[0], "--labels", case[1], "--output", output)[0] == 0
    assert (folder / "mr_record.json").is_file()
    assert (folder.with_name(folder.name + "_private") / "mr_private_record.json").is_file()


def test_the_root_of_the_file_system_takes_no_results(run: Run, case: tuple[Path, Path]) -> None:
    code, out, err = run("protect", case[0], "--labels", case[1], "--output", "/", "--json")
    assert_one_line(code, err, 1)
    assert "root of the file system" in err
    assert json.loads(out)["ok"] is False


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EACCES])
@pytest.mark.parametrize(
    "target", ["MedProtectLib.job.write_volume", "MedProtectLib.job.write_json", "pathlib.Path.mkdir", "pathlib.Path.replace"]
)
def test_a_full_disk_or_a_forbidden_folder_leaves_nothing(
    error: int, target: str, run: Run, case: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(error, "No space left on device" if error == errno.ENOSPC else "Permission denied", str(tmp_path / "out"))

    monkeypatch.setattr(target, fail)
    code, _, err = run("protect", case[0], "--labels", case[1], "--output", tmp_path / "out")
    assert_one_line(code, err, 1)
    monkeypatch.undo()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in"]


@pytest.mark.parametrize("kind", ["newer", "tampered", "no profile", "missing"])
def test_a_profile_that_cannot_be_trusted_is_refused(kind: str, run: Run, case: tuple[Path, Path], tmp_path: Path) -> None:
    from test_profile import rewritten

    from MedProtectLib.profile import SCHEMA, shipped_profile

    profile = tmp_path / "in" / "site.medprotect"
    shutil.copy(shipped_profile("umed", 3) or "", profile)
    if kind == "newer":
        rewritten(profile, schema=SCHEMA + 1)
    elif kind == "tampered":
        rewritten(profile, bound=0.1)
    elif kind == "no profile":
        profile.write_text("hello")
    else:
        profile.unlink()
    code, _, err = run("protect", case[0], "--labels", case[1], "--output", tmp_path / "out", "--profile", profile)
    assert_one_line(code, err, 1)
    assert not (tmp_path / "out").exists()


def test_ctrl_c_at_any_moment_leaves_all_or_nothing(case: tuple[Path, Path], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "MedProtectLib", "protect", *map(str, case[:1]), "--labels", str(case[1])]
    began = time.monotonic()
    subprocess.run([*command, "--output", str(tmp_path / "whole")], check=True, capture_output=True)
    whole, duration = listing(tmp_path / "whole"), time.monotonic() - began
    for n in range(8):
        out = tmp_path / f"out{n}"
        process = subprocess.Popen([*command, "--output", str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(duration * (0.3 + n * 0.09))
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
        if out.exists():
            assert listing(out) == whole
        else:
            assert process.returncode != 0
            assert not Path(f"{out}_private").exists()


@pytest.mark.parametrize("moment", range(0, 40, 3))
def test_an_interrupt_at_the_commit_leaves_nothing_that_counts(
    moment: int, run: Run, case: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupt before the n-th file operation of the commit: without a record no file counts, and the next run cleans up."""
    done = 0

    def counted(name: str) -> None:
        original = getattr(Path, name)

        def operation(self: Path, *args: object, **kwargs: object) -> object:
            nonlocal done
            done += 1
            if done == moment:
                raise KeyboardInterrupt
            return original(self, *args, **kwargs)

        monkeypatch.setattr(Path, name, operation)

    for name in ("mkdir", "replace", "unlink", "chmod"):
        counted(name)
    command = ("protect", case[0], "--labels", case[1], "--output", tmp_path / "out")
    code, _, _ = run(*command)
    monkeypatch.undo()
    recorded = (tmp_path / "out" / "mr_record.json").is_file()
    assert recorded == (code == 0)
    assert not list(tmp_path.rglob("*.staging"))
    assert recorded or not listing(tmp_path / "out_private")
    assert run(*command, *(["--overwrite"] if recorded else []))[0] == 0
    assert listing(tmp_path / "out") == ["mr_protected.nrrd", "mr_record.json"]


def test_a_data_file_in_the_output_folder_is_an_input_too(run: Run, tmp_path: Path, rng: np.random.Generator) -> None:
    image, labels = rng.normal(0, 60, (6, 32, 40)).astype(np.int16), np.zeros((6, 32, 40), np.uint8)
    labels[1:5, 8:24, 8:30] = 1
    sitk.WriteImage(sitk.GetImageFromArray(labels), tmp_path / "labels.nrrd")
    sitk.WriteImage(sitk.GetImageFromArray(image), tmp_path / "ct.mhd")
    (tmp_path / "raw").mkdir()
    (tmp_path / "ct.raw").rename(tmp_path / "raw" / "ct_protected.raw")
    header = (tmp_path / "ct.mhd").read_text().replace("ct.raw", "raw/ct_protected.raw")
    (tmp_path / "ct.mhd").write_text(header)
    arguments = ("protect", tmp_path / "ct.mhd", "--labels", tmp_path / "labels.nrrd", "--method", "weave")
    code, _, err = run(*arguments, "--output", tmp_path / "raw")
    assert_one_line(code, err, 1)
    assert "input's own folder" in err
    assert (tmp_path / "raw" / "ct_protected.raw").stat().st_size == image.nbytes
    assert run(*arguments, "--output", tmp_path / "out")[0] == 0


PLACES = {
    "labels' data file": "mr_protected.raw",
    "labels' data file in an earlier series": "mr_protected/0001.dcm",
    "labels' data file in what a run left": f".mr.{this_writer().host}-999999-1.staging/labels.raw",
    "a link to the labels": "mr_protected.nrrd",
    "a channel's data file": "two_protected_0001.raw",
}


@pytest.mark.parametrize("kind", PLACES)
def test_no_run_removes_what_it_was_given(kind: str, run: Run, case: tuple[Path, Path], tmp_path: Path) -> None:
    """All of these places are swept, or replaced, by a run whose case has no record."""
    image, labels = case
    out = tmp_path / "in" / "out"
    place = out / PLACES[kind]
    place.parent.mkdir(parents=True)
    if kind.startswith("a link"):
        place.symlink_to(labels)
        labels = place
    elif kind.startswith("labels"):
        labels = labels.with_suffix(".mhd")
        _split(case[1], labels, place)
    else:
        for number in range(2):
            _split(image, image.with_name(f"two_000{number}.mhd"), place if number else image.with_name("two_0000.raw"))
        image = image.with_name("two.mhd")
    content = place.read_bytes()
    for more in ((), ("--private", tmp_path / "own")):
        code, _, err = run("protect", image, "--labels", labels, "--output", out, *more)
        assert_one_line(code, err, 1)
        assert "input's own folder" in err
    code, _, err = run("protect", image, "--labels", labels, "--output", tmp_path / "share", "--private", out)
    assert_one_line(code, err, 1)
    assert place.read_bytes() == content
    assert run("protect", image, "--labels", labels, "--output", tmp_path / "share")[0] == 0


def _split(file: Path, header: Path, data: Path) -> None:
    """Write an image anew as a MetaImage header and a data file elsewhere."""
    sitk.WriteImage(sitk.ReadImage(file), header)
    raw = header.with_suffix(".raw")
    header.write_text(header.read_text().replace(raw.name, data.relative_to(header.parent).as_posix()))
    raw.rename(data)


@pytest.mark.parametrize(("bound", "expected"), [("1e99999999", 2), ("1E-99999", 2), ("1/49", 0)])
def test_bounds_at_the_edge(bound: str, expected: int, run: Run, tmp_path: Path, rng: np.random.Generator) -> None:
    """A huge exponent is refused at once, and a bound of exactly one level is one level whatever its rounding."""
    image, labels = rng.integers(0, 50, (6, 32, 40)).astype(np.int16), np.zeros((6, 32, 40), np.uint8)
    labels[1:5, 8:24, 8:30] = 1
    for name, array in (("image", image), ("labels", labels)):
        sitk.WriteImage(sitk.GetImageFromArray(array), tmp_path / f"{name}.nrrd")
    files = (tmp_path / "image.nrrd", "--labels", tmp_path / "labels.nrrd", "--output", tmp_path / "out")
    assert run("protect", *files, "--method", "weave", "--window", 0, 49, "--bound", bound)[0] == expected
