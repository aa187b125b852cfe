"""Cases of a release beside each other: what they share stays, what would be mixed up is refused, and no option is passed over."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from MedProtectLib.fitting.dataset import find_cases
from MedProtectLib.fitting.fit import FitOptions, fit
from MedProtectLib.io.dicom import Inventory, LabelFile, Series
from MedProtectLib.io.names import is_dicom, part_with_labels
from MedProtectLib.release.case import Item, ReleaseCase
from MedProtectLib.release.commit import commit, staged
from MedProtectLib.release.fingerprints import Fingerprints
from MedProtectLib.release.layouts import find_layout
from MedProtectLib.release.layouts.dicom_tree import DicomTree
from MedProtectLib.release.roots import Roots
from release_cases import HIPPOCAMPUS, NAMES, bids, box, decathlon, manifest, release_here, tree, volume
from samples import Run

pytestmark = pytest.mark.usefixtures("no_pictures")


def test_a_case_that_stays_behind_leaves_what_others_need(run: Run, profile: Path, tmp_path: Path) -> None:
    dataset, out = bids(tmp_path / "in", "sub-01_T1w", "sub-01_T2w"), tmp_path / "out"
    whole = dataset / "sub-01" / "anat" / "sub-01_T2w.nii.gz"
    content = whole.read_bytes()
    whole.write_bytes(content[: len(content) // 2])
    labels = "sub-01/anat/sub-01_dseg.nii.gz"
    code, answer, _ = release_here(run, dataset, out, profile)
    assert (code, answer["counts"]["ok"], answer["counts"]["quarantined"]) == (1, 1, 1)
    assert tree(out)[labels] == tree(dataset)[labels]
    done = tree(out)
    code, answer, _ = release_here(run, dataset, out, profile, "--resume")
    assert (code, answer["counts"]["skipped"]) == (1, 1), "nothing of the case was lost, so nothing is done again"
    assert tree(out) == done


def test_labels_of_cases_that_stay_behind_do_not_go_out(run: Run, profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A case that fails while its files are put into place takes them back; what a killed one has left goes at the end."""
    dataset, out = bids(tmp_path / "in", "sub-01_T1w", "sub-01_T2w"), tmp_path / "out"
    monkeypatch.setattr("MedProtectLib.release.commit.write_private", _no_permission)
    code, answer, _ = release_here(run, dataset, out, profile)
    assert (code, answer["counts"]["failed"]) == (1, 2)
    assert not [name for name in tree(out) if name.startswith("sub-01")]
    monkeypatch.undo()
    monkeypatch.setattr("MedProtectLib.release.make.write_pictures", lambda *_, **__: None)
    left = out / "sub-01" / "anat" / "sub-01_dseg.nii.gz"
    left.parent.mkdir(parents=True, exist_ok=True)
    left.write_bytes(b"of a killed process")
    for image in (dataset / "sub-01" / "anat").glob("*w.nii.gz"):
        image.write_bytes(b"damaged")
    code, answer, _ = release_here(run, dataset, out, profile, "--resume")
    assert (code, answer["counts"]["quarantined"]) == (1, 2)
    assert not left.exists()


def _no_permission(path: Path, content: bytes) -> None:
    raise PermissionError(13, "Permission denied", str(path))


def test_a_release_is_not_finished_while_a_recorded_file_is_missing(
    run: Run, profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, out = decathlon(tmp_path / "in", 2), tmp_path / "out"
    assert release_here(run, dataset, out, profile)[0] == 0
    done = tree(out)
    (out / "labelsTr" / NAMES[1]).unlink()
    monkeypatch.setattr("MedProtectLib.release.process.outputs_hold", lambda *_: True)
    code, _, said = release_here(run, dataset, out, profile, "--resume")
    assert code == 1
    assert said.count("\n") == 1
    assert f"labelsTr/{NAMES[1]}" in said
    assert not (out / "medprotect_release.json").exists()
    monkeypatch.undo()
    monkeypatch.setattr("MedProtectLib.release.make.write_pictures", lambda *_, **__: None)
    assert release_here(run, dataset, out, profile, "--resume")[0] == 0
    assert tree(out) == done


@pytest.mark.parametrize("more", [(), ("--dry-run",), ("--resume",)])
def test_withdrawing_what_is_no_case_is_refused(run: Run, profile: Path, tmp_path: Path, more: tuple[str, ...]) -> None:
    dataset = bids(tmp_path / "in", "sub-01_T1w")
    code, answer, said = release_here(run, dataset, tmp_path / "out", profile, "--withdraw", "sub-01", *more)
    assert (code, answer["ok"]) == (2, False)
    assert said.count("\n") == 1
    assert "--withdraw sub-01: no case has this name" in said
    assert "sub-01_T1w" in said
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in"]


def test_a_withdrawn_case_may_be_deleted_before_the_release_goes_on(run: Run, profile: Path, tmp_path: Path) -> None:
    dataset, out = decathlon(tmp_path / "in", 3), tmp_path / "out"
    for name in (NAMES[0].upper(), NAMES[0]):
        assert release_here(run, dataset, out, profile, "--withdraw", name)[0] == 2, "a case is named without its extension"
    gone = NAMES[0].removesuffix(".nii.gz")
    assert release_here(run, dataset, out, profile, "--withdraw", gone)[1]["counts"]["ok"] == 2
    for part in ("imagesTr", "labelsTr"):
        (dataset / part / NAMES[0]).unlink()
    assert release_here(run, dataset, out, profile, "--withdraw", gone, "--resume")[1]["counts"]["skipped"] == 2


def test_a_commit_that_fails_takes_back_its_own_files_and_no_shared_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two cases with one label map the other may have committed it in the meantime."""
    roots = Roots(tmp_path / "out", tmp_path / "private")
    image, labels = Item("a.nii.gz", "a.nii.gz"), Item("l.nii.gz", "l.nii.gz")
    case = ReleaseCase("a", image, (image,), labels.source, copies=(labels,))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("MedProtectLib.release.commit.write_record", full)
    with staged(roots, case) as stage:
        for item in (image, labels):
            (stage.shared / item.target).write_bytes(b"x")
        with pytest.raises(OSError, match="No space"):
            commit(stage, roots, case, {}, None)
    assert [path.name for path in roots.output.glob("*.nii.gz")] == ["l.nii.gz"]


def test_a_case_of_the_previous_version_may_be_deleted_and_then_withdrawn(run: Run, profile: Path, tmp_path: Path) -> None:
    dataset, gone = decathlon(tmp_path / "in", 3), NAMES[0].removesuffix(".nii.gz")
    assert release_here(run, dataset, tmp_path / "v1", profile)[0] == 0
    for part in ("imagesTr", "labelsTr"):
        (dataset / part / NAMES[0]).unlink()
    for version in (2, 3):
        more = ("--previous", tmp_path / f"v{version - 1}", "--withdraw", gone)
        code, answer, said = release_here(run, dataset, tmp_path / f"v{version}", profile, *more)
        assert (code, answer["counts"]["ok"]) == (0, 2), said
    assert release_here(run, dataset, tmp_path / "v4", profile, "--previous", tmp_path / "v3", "--withdraw", "nobody")[0] == 2


@pytest.mark.parametrize(
    ("files", "part"),
    [
        (("images/a.nii.gz", "labels/a.nii.gz", "images/0.csv"), ""),
        (("images/p1/1.dcm", "images/index.csv", "labels/seg.dcm"), None),
        (("images/README.txt", "labels/seg.dcm"), None),
        (("images/a/1.png", "images/index.csv", "labels/labels.csv"), None),
        (("images/a.nii.gz",), None),
        (("imagesTr/a.nii.gz", "images/a.nii.gz", "labels/a.nii.gz"), "Tr"),
    ],
)
def test_which_folders_hold_images_with_labels(tmp_path: Path, files: tuple[str, ...], part: str | None) -> None:
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    assert part_with_labels(tmp_path) == part


def test_words_about_a_dataset_in_its_index_are_kept(run: Run, profile: Path, tmp_path: Path) -> None:
    dataset, out = decathlon(tmp_path / "in", 2), tmp_path / "out"
    about = {"name": "x", "dataset": {"name": "Hippocampus", "licence": "CC BY"}}
    (dataset / "dataset.json").write_text(json.dumps(about))
    assert release_here(run, dataset, out, profile)[0] == 0
    assert json.loads((out / "dataset.json").read_text()) == about


@pytest.mark.parametrize(
    ("rows", "word"),
    [
        (("a,a.nii.gz,{elsewhere}", "b,b.nii.gz,labels/a.nii.gz"), "labels/a.nii.gz"),
        (("a,a.nii.gz,labels/A.nii.gz", "b,b.nii.gz,labels/a.nii.gz"), "labels/a.nii.gz"),
        (("a,a.nii.gz,labels/a.nii.gz", "b,b.nii.gz,a.nii.gz"), "a.nii.gz"),
        (("a,a.nii.gz,a.nii.gz",), "a.nii.gz"),
        (("a,a.nii.gz,labels/a.nii.gz", "b,a.nii.gz,labels/a.nii.gz"), "a.nii.gz"),
        (("a,a.nii.gz,labels/a.nii.gz", "A,b.nii.gz,labels/a.nii.gz"), "case 'A'"),
    ],
)
def test_no_two_files_go_to_one_place(run: Run, profile: Path, tmp_path: Path, rows: tuple[str, ...], word: str) -> None:
    """Neither on a system that tells capitals apart nor on one that does not."""
    folder = tmp_path / "in"
    for number, name in enumerate(("a", "b")):
        volume(folder / f"{name}.nii.gz", number)
    for number, path in enumerate((folder / "labels/a.nii.gz", folder / "labels/A.nii.gz", tmp_path / "elsewhere.nii.gz")):
        box(path, 3 + number)
    table = manifest(folder, *(row.format(elsewhere=tmp_path / "elsewhere.nii.gz") for row in rows))
    code, _, said = release_here(run, table, tmp_path / "out", profile)
    assert (code, said.count("\n")) == (1, 1)
    assert f"{word}" in said
    assert "Rename" in said
    assert not (tmp_path / "out").exists()


def test_one_label_map_may_belong_to_two_cases(run: Run, profile: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for number, name in enumerate(("a", "b")):
        volume(folder / f"{name}.nii.gz", number)
    box(folder / "l.nii.gz")
    assert release_here(run, manifest(folder, "a,a.nii.gz,l.nii.gz", "b,b.nii.gz,l.nii.gz"), tmp_path / "out", profile)[0] == 0


@pytest.mark.parametrize("name", ["0/A.png 0/a.png", "0/b\u0308.png 0/\u1e07.png 0/b\u0331.png"])
def test_names_that_only_some_systems_tell_apart_are_refused(run: Run, profile: Path, tmp_path: Path, name: str) -> None:
    for path in name.split():
        (tmp_path / "in" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / path).write_bytes(b"x")
    code, _, said = release_here(run, tmp_path / "in", tmp_path / "out", profile)
    assert (code, said.count("\n")) == (1, 1)
    assert "Rename" in said


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("dataset.json", b'{"training": ['),
        ("dataset.json", b'{"training": [{"picture": 1}]}'),
        ("dataset.json", b"[1]"),
        ("dataset.json", b'{"dataset": {"a": {"images": 3}}}'),
        ("participants.tsv", b"participant_id\n\xff\n"),
        ("dataset_description.json", b'{"GeneratedBy": 1}'),
    ],
)
@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_damaged_files_about_the_dataset_are_known_before_the_first_case(
    run: Run, profile: Path, tmp_path: Path, name: str, content: bytes, more: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("MedProtectLib.release.dry_run.SAMPLES", 0)
    dataset = decathlon(tmp_path / "in", 1) if name == "dataset.json" else bids(tmp_path / "in", "sub-01_T1w")
    (dataset / name).write_bytes(content)
    code, _, said = release_here(run, dataset, tmp_path / "out", profile, *more)
    assert (code, said.count("\n")) == (1, 1)
    assert name in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("channels", [1, 2])
def test_the_map_of_an_nnunet_index_names_what_went_out(tmp_path: Path, channels: int) -> None:
    index = {}
    for case in ("c1", "c2", "c3"):
        images = [f"imagesTr/{case}_{channel:04d}.nii.gz" for channel in range(channels)]
        for image in (*images, f"labelsTr/{case}.nii.gz"):
            (tmp_path / image).parent.mkdir(exist_ok=True)
            (tmp_path / image).touch()
        index[case] = {"images": images, "label": f"labelsTr/{case}.nii.gz"}
    about = {"labels": {"background": 0, "a": 1}, "numTraining": 3, "file_ending": ".nii.gz", "dataset": index}
    (tmp_path / "dataset.json").write_text(json.dumps(about))
    layout = find_layout(tmp_path)
    released = Fingerprints(case.image.target for case in layout.cases() if case.name != "c2")
    released.sort()
    out = json.loads(layout.rewritten(released)["dataset.json"])
    assert out == about | {"numTraining": 2, "dataset": {case: index[case] for case in ("c1", "c3")}}


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_a_bids_image_without_a_suffix_is_a_case_without_labels(
    run: Run, profile: Path, tmp_path: Path, more: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("MedProtectLib.release.dry_run.SAMPLES", 0)
    dataset = bids(tmp_path / "in", "sub-01_T1w", "sub-01_run-1")
    code, answer, _ = release_here(run, dataset, tmp_path / "out", profile, *more)
    assert (code, answer["counts"]["ok"], answer["counts"]["quarantined"]) == (1, 1, 1)


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_a_name_that_is_not_utf8_stays_behind(
    run: Run, profile: Path, tmp_path: Path, more: tuple[str, ...], as_json: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("MedProtectLib.release.dry_run.SAMPLES", 0)
    dataset, out = decathlon(tmp_path / "in", 1), tmp_path / "out"
    for part in ("imagesTr", "labelsTr"):
        name = os.fsencode(dataset / part) + b"/k\xfchn.nii.gz"
        try:
            shutil.copyfile(HIPPOCAMPUS / part / NAMES[1], name)
        except OSError:
            pytest.skip("this file system has no such names")
    options = ("--output", out, "--profile", profile, "--no-vault", "--jobs", 0, *more, *(("--json",) if as_json else ()))
    code, answer, said = run("release", dataset, *options)
    assert code == 1
    assert "1 ok" in answer or json.loads(answer)["counts"]["ok"] == 1
    assert "1 quarantined" in answer or json.loads(answer)["counts"]["quarantined"] == 1
    answer.encode()
    said.encode()
    if not more:
        assert sorted(tree(out)) == sorted(
            ["LICENSE.txt", "dataset.json", "medprotect_records.jsonl", "medprotect_release.json"]
            + [f"{part}/{NAMES[0]}" for part in ("imagesTr", "labelsTr")]
        )
        assert run("release", dataset, *options, "--resume")[0] == 1


def test_a_pipe_and_names_that_no_file_has_stay_behind(run: Run, profile: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    volume(folder / "a.nii.gz", 1)
    box(folder / "l.nii.gz")
    os.mkfifo(folder / "pipe.nii.gz")
    os.mkfifo(folder / "pipe")
    (folder / "loop.nii.gz").symlink_to("loop.nii.gz")
    rows = [f"{name},{name}.nii.gz,l.nii.gz" for name in ("a", "pipe", "loop", "gone", "n\0l")]
    with within(30):
        code, answer, _ = release_here(run, manifest(folder, *rows), tmp_path / "out", profile)
    assert (code, answer["counts"]["ok"], answer["counts"]["quarantined"]) == (1, 1, 4)
    reasons = {problem["case"]: problem["reason"] for problem in answer["problems"]}
    assert "neither a file nor a folder" in reasons["pipe"]
    assert not [reason for reason in reasons.values() if "unexpected" in reason]
    assert all("in/" in reason for reason in reasons.values())
    with within(30):
        assert not is_dicom(folder / "pipe")


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """Fails what waits for ever."""

    def late(*_: object) -> None:
        raise TimeoutError("it waits for ever")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_a_case_that_was_left_out_before_it_went_out_holds_no_image(
    run: Run, profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, out = tmp_path / "in", tmp_path / "out"
    for name, first in (("a", 4), ("b", 6)):
        volume(dataset / "imagesTr" / f"{name}.nii.gz", 1)
        box(dataset / "labelsTr" / f"{name}.nii.gz", first)
    with monkeypatch.context() as patched:
        patched.setattr("MedProtectLib.release.make.measure", _no_memory)
        assert release_here(run, dataset, out, profile)[1]["counts"]["failed"] == 1
    with monkeypatch.context() as patched:
        patched.setattr("MedProtectLib.release.make.measure", _no_memory)
        problems = release_here(run, dataset, out, profile, "--resume")[1]["problems"]
        assert "same as that of case 'a'" in {problem["case"]: problem["reason"] for problem in problems}["b"], "it is still there"
    for part in ("imagesTr", "labelsTr"):
        (dataset / part / "a.nii.gz").unlink()
    assert release_here(run, dataset, out, profile, "--resume")[1]["counts"]["ok"] == 1


def _no_memory(*_: object) -> None:
    raise MemoryError


def medmnist(path: Path, **more: np.ndarray) -> Path:
    """Pictures of two classes, three a part; the second one of the training part cannot be protected."""
    rng, arrays = np.random.default_rng(1), {}
    for part in ("train", "val", "test"):
        arrays[f"{part}_images"] = rng.integers(60, 190, (3, 28, 28), dtype=np.uint8)
        arrays[f"{part}_labels"] = np.array([[0], [1], [0]], np.uint8)
    arrays["train_images"][1] = 7
    np.savez_compressed(path, **arrays, **more)
    return path


def test_every_array_of_a_medmnist_file_goes_along(run: Run, tmp_path: Path) -> None:
    """With the entries of the images that go out, and with those alone."""
    more = {
        "train_ages": np.array([50, 60, 70]),
        "train_sites": np.array(["x", "y", "z"]),
        "val_ages": np.array([[1], [2], [3]]),
        "class_names": np.array(["benign", "malignant"]),
        "spacing": np.array(0.5),
    }
    dataset, out = medmnist(tmp_path / "made.npz", **more), tmp_path / "out"
    own = tmp_path / "own.medprotect"
    fit([case for case in find_cases(dataset) if case.name != "train_000001"], own, FitOptions(method="lsp", seed=3, dimension=2))
    assert release_here(run, dataset, out, own)[1]["counts"] == {"ok": 8, "skipped": 0, "copied": 0, "quarantined": 1, "failed": 0}
    before, after = np.load(dataset), np.load(out / "made.npz")
    assert set(after) == set(before)
    for name in after:
        if not name.endswith("_images"):
            assert np.array_equal(after[name], before[name][[0, 2]] if name.startswith("train") else before[name]), name


@pytest.mark.skipif(os.name != "posix", reason="it mounts a small file system")
def test_a_full_disk_stops_a_release_of_a_medmnist_file(run: Run, tmp_path: Path) -> None:
    disk, dataset, own = tmp_path / "disk", tmp_path / "made.npz", tmp_path / "own.medprotect"
    rng, parts = np.random.default_rng(1), ("train", "val", "test")
    arrays = {f"{part}_images": rng.integers(60, 190, (2, 128, 128), dtype=np.uint8) for part in parts}
    np.savez_compressed(dataset, **arrays, **{f"{part}_labels": np.array([[0], [1]], np.uint8) for part in parts})
    fit(find_cases(dataset), own, FitOptions(method="lsp", seed=3, dimension=2))
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", disk], capture_output=True, check=False).returncode:
        pytest.skip("no permission to mount a small file system")
    try:
        code, answer, _ = release_here(run, dataset, tmp_path / "out", own, "--private", disk / "private")
    finally:
        subprocess.run(["umount", "-l", disk], check=True)
    assert (code, answer["counts"]["failed"]) == (1, 1)
    assert "No space left on device" in answer["stopped"]


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("ids", np.arange(9)),
        ("more_images", np.zeros((4, 28, 28), np.uint8)),
        ("ids_train", np.arange(3)),
        ("train_pairs", np.arange(9)),
        ("train_ids", np.array([{}, 1, "x"])),
    ],
)
def test_arrays_that_could_tell_of_images_that_stay_behind_are_refused(
    run: Run, profile: Path, tmp_path: Path, name: str, array: np.ndarray
) -> None:
    code, _, said = release_here(run, medmnist(tmp_path / "made.npz", **{name: array}), tmp_path / "out", profile)
    assert (code, said.count("\n")) == (1, 1)
    assert "made.npz" in said
    assert not (tmp_path / "out").exists()


def test_a_tree_of_many_series_is_looked_at_once(tmp_path: Path) -> None:
    """Every label object is asked for its series a few times, not once for every series of the tree."""
    asked = []

    class Uids(tuple):  # type: ignore[type-arg]
        def __iter__(self) -> Iterator[str]:
            asked.append("all")
            return super().__iter__()

        def __contains__(self, uid: object) -> bool:
            asked.append("one")
            return super().__contains__(uid)

    count = 200
    for number in range(count):
        (tmp_path / f"s{number}").mkdir()
    series = tuple(Series((tmp_path / f"s{n}" / "1.dcm",), True, f"1.2.{n}", "1", "1", "CT", "1", "", False) for n in range(count))
    labels = tuple(LabelFile(tmp_path / f"s{n}" / "seg.dcm", "SEG", "1", "1", Uids((f"1.2.{n}", f"1.2.{n // 2}"))) for n in range(count))
    tree_of_series = DicomTree(tmp_path)
    tree_of_series.__dict__["inventory"] = Inventory(series, labels, (), (), ())
    cases = list(tree_of_series.cases())
    assert [len(case.references) for case in cases].count(1) == 1, "only that of the first series refers to one series alone"
    assert all(case.labelled for case in cases)
    assert len(asked) < 10 * count


def test_nothing_stays_of_a_killed_case_that_is_no_longer_there(
    run: Run, profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files were put into place and its record was not; then it was renamed."""
    dataset, out = tmp_path / "in", tmp_path / "out"
    for name in ("a", "kept"):
        volume(dataset / "imagesTr" / f"{name}.nii.gz", len(name))
        box(dataset / "labelsTr" / f"{name}.nii.gz")
    with monkeypatch.context() as patched:
        patched.setattr("MedProtectLib.release.make.measure", _no_memory)
        assert release_here(run, dataset, out, profile)[1]["counts"]["failed"] == 2
    for part in ("imagesTr", "labelsTr"):
        (out / part).mkdir()
        shutil.copyfile(dataset / part / "a.nii.gz", out / part / "a.nii.gz")
        (dataset / part / "a.nii.gz").rename(dataset / part / "b.nii.gz")
    (tmp_path / "out_private" / "cases" / "a").mkdir(parents=True)
    (tmp_path / "out_private" / "cases" / "a" / "placed.json").write_text('["imagesTr/a.nii.gz", "labelsTr/a.nii.gz"]')
    assert release_here(run, dataset, out, profile, "--resume")[1]["counts"]["ok"] == 2
    names = {f"{part}/{name}.nii.gz" for part in ("imagesTr", "labelsTr") for name in ("b", "kept")}
    assert {name for name in tree(out) if "/" in name} == names
    (tmp_path / "out_private" / "cases.jsonl").write_text('{"name": 1')
    assert release_here(run, dataset, out, profile, "--resume")[1]["counts"]["skipped"] == 2
