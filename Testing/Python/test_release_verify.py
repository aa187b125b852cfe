"""'release --verify': a release is held, file by file, against its records, and nothing is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from MedProtectLib.cli.main import main
from MedProtectLib.errors import MedProtectError
from MedProtectLib.release.verify import verify_release
from release_cases import NAMES, decathlon, own_profile, release_here, tree
from samples import Run

IMAGE, LABELS, COPIED = f"imagesTr/{NAMES[0]}", f"labelsTr/{NAMES[1]}", f"imagesTs/{NAMES[2]}"
CASE = NAMES[0].removesuffix(".nii.gz")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release of two protected cases and one that goes out as it is."""
    folder = tmp_path_factory.mktemp("made")
    dataset, profile = decathlon(folder / "in", 2, unlabelled=1), own_profile(folder)
    options = ["--profile", str(profile), "--no-vault", "--jobs", "0", "--no-reports", "--unlabelled", "copy"]
    assert main(["release", str(dataset), "--output", str(folder / "out"), *options]) == 0
    return folder


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    """The shareable folder, with the private one beside it."""
    shutil.copytree(made / "out_private", tmp_path / "out_private")
    return Path(shutil.copytree(made / "out", tmp_path / "out"))


def lines_of(release: Path) -> list[dict]:
    return [json.loads(line) for line in (release / "medprotect_records.jsonl").read_text().splitlines()]


def write_lines(release: Path, lines: list[dict]) -> None:
    (release / "medprotect_records.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_release_as_it_was_made(copy: Path, run: Run) -> None:
    before = tree(copy.parent)
    code, out, err = run("release", "--verify", copy, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == {
        "ok": True,
        "release": "out",
        "cases": {"protected": 2, "unprotected": 1},
        "files": 7,
        "unnamed": [],
        "private_records_compared": True,
        "findings": [],
    }
    assert tree(copy.parent) == before
    code, out, _ = run("release", "--verify", copy)
    assert (code, "as it was made" in out) == (0, True)


def test_a_release_whose_summary_names_no_files(copy: Path) -> None:
    summary = json.loads((copy / "medprotect_release.json").read_text())
    del summary["common_files_sha256"]
    (copy / "medprotect_release.json").write_text(json.dumps(summary))
    found = verify_release(copy)
    assert (found.files, found.unnamed, found.findings) == (5, ["LICENSE.txt", "dataset.json"], [])


def test_whoever_gets_it_needs_no_private_folder(copy: Path, run: Run) -> None:
    shutil.rmtree(copy.with_name("out_private"))
    code, out, _ = run("release", "--verify", copy)
    assert (code, "not there: not compared" in out) == (0, True)
    (copy / IMAGE).write_bytes(b"another")
    code, out, err = run("release", "--verify", copy)
    assert (code, f"{IMAGE}: not the file that was released" in err, "1 finding" in out) == (1, True, True)


def spoil_record(release: Path) -> None:
    lines = lines_of(release)
    lines[0]["statistics"]["ssim"] = 1.0
    write_lines(release, lines)


def spoil_private(release: Path) -> None:
    path = release.with_name("out_private") / "cases" / CASE / "record.json"
    record = json.loads(path.read_text())
    record["shareable"]["bound"] /= 2
    path.write_text(json.dumps(record))


def damage(release: Path) -> None:
    with (release / "medprotect_records.jsonl").open("a") as file:
        file.write('{"case": 3}\n')


def with_value(name: str, value: object) -> Callable[[Path], None]:
    """Appends a line of which one value is of another kind."""

    def spoil(release: Path) -> None:
        lines = lines_of(release)
        spoiled = next(json.loads(json.dumps(line)) for line in lines if line["protected"])
        (spoiled["statistics"] if name == "psnr_db" else spoiled)[name] = value
        write_lines(release, [*lines, spoiled])

    return spoil


def spoil_summary(release: Path) -> None:
    path = release / "medprotect_release.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"bounds": [1.0]}))


def spoil_common(release: Path) -> None:
    path = release / "medprotect_release.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"common_files_sha256": {"dataset.json": 1}}))


def lead_out(release: Path) -> None:
    shutil.move(release / IMAGE, release.with_name("elsewhere.nii.gz"))
    (release / IMAGE).symlink_to(release.with_name("elsewhere.nii.gz"))


SPOILED: dict[str, tuple[Callable[[Path], object], str]] = {
    "image": (lambda out: (out / IMAGE).write_bytes(b"x"), f"{IMAGE}: not the file that was released (case '{CASE}'"),
    "labels": (lambda out: (out / LABELS).write_bytes(b"x"), f"{LABELS}: not the file that was released"),
    "copied": (lambda out: (out / COPIED).write_bytes(b"x"), f"{COPIED}: not the file that was released"),
    "missing": (lambda out: (out / IMAGE).unlink(), f"{IMAGE}: missing"),
    "led out": (lead_out, "a symbolic link leads out"),
    "record": (spoil_record, f"case '{CASE}': its line in medprotect_records.jsonl is not what its private record says"),
    "line lost": (lambda out: write_lines(out, lines_of(out)[1:]), f"case '{CASE}': released, but not in medprotect_records.jsonl"),
    "line twice": (lambda out: write_lines(out, [*lines_of(out), lines_of(out)[0]]), "a case has more than one line"),
    "psnr of text": (with_value("psnr_db", "50"), "medprotect_records.jsonl, line 4: damaged"),
    "bound of text": (with_value("bound", "1"), "medprotect_records.jsonl, line 4: damaged"),
    "bound without end": (with_value("bound", 10**400), "medprotect_records.jsonl, line 4: damaged"),
    "protected by half": (with_value("protected", 1), "medprotect_records.jsonl, line 4: damaged"),
    "outputs of a list": (with_value("outputs", ["a"]), "medprotect_records.jsonl, line 4: damaged"),
    "name too long": (with_value("outputs", {"x/" * 3000 + "x": "0"}), "medprotect_records.jsonl: a case has more than one line"),
    "line damaged": (damage, "medprotect_records.jsonl, line 4: damaged"),
    "private": (spoil_private, "is not what its private record says"),
    "private lost": (lambda out: shutil.rmtree(out.with_name("out_private") / "cases" / CASE), "the private folder has no record of it"),
    "summary": (spoil_summary, "medprotect_release.json: its counts and ranges are not those of the records"),
    "summary of nothing": (lambda out: (out / "medprotect_release.json").write_text("{}"), "its counts and ranges are not those"),
    "index": (lambda out: (out / "dataset.json").write_text("{}"), "dataset.json: not the file that was released (the dataset's own"),
    "licence lost": (lambda out: (out / "LICENSE.txt").unlink(), "LICENSE.txt: missing (the dataset's own)"),
    "files of a list": (spoil_common, "medprotect_release.json: damaged"),
    "no summary": (lambda out: (out / "medprotect_release.json").unlink(), "medprotect_release.json: missing: the release is not finished"),
    "no JSON": (lambda out: (out / "medprotect_release.json").write_text("{"), "medprotect_release.json: damaged"),
}


@pytest.mark.parametrize("spoiled", SPOILED)
def test_what_is_not_as_it_was_made_is_found(spoiled: str, copy: Path, run: Run) -> None:
    spoil, told = SPOILED[spoiled]
    spoil(copy)
    before = tree(copy.parent)
    code, out, err = run("release", "--verify", copy, "--json")
    answer = json.loads(out)
    assert (code, answer["ok"]) == (1, False)
    assert any(told in finding for finding in answer["findings"]), answer["findings"]
    assert told in err
    assert tree(copy.parent) == before


def test_what_belongs_to_no_case_is_named(copy: Path) -> None:
    (copy / "imagesTr" / "left_behind.nii.gz").write_bytes(b"x")
    assert verify_release(copy).unnamed == ["imagesTr/left_behind.nii.gz"]


def test_only_the_first_findings_are_told_and_all_are_listed(copy: Path, run: Run) -> None:
    with (copy / "medprotect_records.jsonl").open("a") as file:
        file.write("x\n" * 30)
    code, out, err = run("release", "--verify", copy)
    assert (code, "10 more; --json lists them" in err, "30 findings" in out) == (1, True, True)
    assert len(verify_release(copy).findings) == 30


def test_where_no_release_is(copy: Path, run: Run, tmp_path: Path) -> None:
    code, _, err = run("release", "--verify", tmp_path)
    assert (code, "no finished release is here" in err) == (1, True)
    code, _, err = run("release", "--verify", copy, "--private", copy)
    assert (code, "not the private folder of a release" in err) == (1, True)


def test_it_can_be_interrupted_and_tells_how_far_it_is(copy: Path) -> None:
    seen = []
    verify_release(copy, report=seen.append)
    assert [(progress.done, progress.total) for progress in seen] == [(1, 3), (2, 3), (3, 3)]

    def stop(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify_release(copy, report=stop)


def test_images_of_a_medmnist_file(run: Run, tmp_path: Path, rng: np.random.Generator) -> None:
    images = {
        f"{part}_images": rng.integers(60, 200, (count, 28, 28), dtype=np.uint8) for part, count in (("train", 2), ("val", 1), ("test", 2))
    }
    labels = {name.replace("images", "labels"): np.arange(len(array))[:, None] % 2 for name, array in images.items()}
    dataset, out = tmp_path / "made.npz", tmp_path / "out"
    np.savez(dataset, **images, **labels)
    profile = own_profile(tmp_path, dataset=dataset, dimension=2)
    assert release_here(run, dataset, out, profile)[0] == 0
    assert (verify_release(out).files, verify_release(out).unnamed, verify_release(out).findings) == (6, [], [])
    released = dict(np.load(out / "made.npz"))
    another = "made.npz: not the file that was released (the dataset's own, SHA-256 differs)"
    np.savez(out / "made.npz", **released | {"test_labels": 1 - released["test_labels"]})
    assert verify_release(out).findings == [another]
    released["test_images"][1, 14, 14] += 1
    np.savez(out / "made.npz", **released)
    assert verify_release(out).findings == [
        another,
        "made.npz: image 1 of 'test_images' is not the one that was released (SHA-256 of its voxels differs)",
    ]
    released["test_images"] = released["test_images"][:1]
    np.savez(out / "made.npz", **released)
    assert verify_release(out).findings == [another, "made.npz: 4 images, of which 5 are in the records"]
    (out / "made.npz").write_bytes(b"x")
    assert "made.npz: not a MedMNIST file" in verify_release(out).findings[1]
    (out / "made.npz").unlink()
    with pytest.raises(MedProtectError, match="no finished release"):
        verify_release(tmp_path / "nowhere")
