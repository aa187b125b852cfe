"""The vault of a release: what went out can be restored, by whoever has the key of the case, and by nobody with an old key."""

from __future__ import annotations

import json
import os
import shutil
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from MedProtectLib.errors import MedProtectError
from MedProtectLib.fitting.dataset import find_cases
from MedProtectLib.fitting.fit import FitOptions, fit, fit_on_case
from MedProtectLib.io import read_labels, read_volume
from MedProtectLib.release.claims import claimed
from MedProtectLib.release.keys import SiteKey, load_key, save_key
from MedProtectLib.release.rotate import rotate
from release_cases import NAMES, decathlon, release_here, tree, voxels
from samples import Run

FIRST = NAMES[0].removesuffix(".nii.gz")

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    save_key(SiteKey.new(), tmp_path / "site.key")
    return tmp_path / "site.key"


def call(run: Run, dataset: Path, out: Path, profile: Path, key: Path, *more: object) -> tuple[int, dict, str]:
    """A release in this process with a vault, its JSON answer and what it said."""
    return release_here(run, dataset, out, profile, "--key", key, *more)


def restored(run: Run, protected: Path, vault: Path, key: Path, output: Path) -> np.ndarray:
    """The voxels that a key gives back."""
    code, _, said = run("restore", protected, "--vault", vault, "--key", key, "--output", output, "--overwrite")
    assert code == 0, said
    return voxels(output)


@pytest.mark.parametrize("lost", ["gone", "damaged", "empty"])
def test_a_lost_entry_is_made_again(run: Run, profile: Path, tmp_path: Path, key: Path, lost: str) -> None:
    """Nothing that went out is touched by it."""
    dataset, out, vault = decathlon(tmp_path / "in", 2), tmp_path / "out", tmp_path / "out_private" / "vault"
    assert call(run, dataset, out, profile, key)[0] == 0
    done, kept = tree(out), tree(vault)
    code, answer, _ = call(run, dataset, out, profile, key, "--resume")
    assert (code, answer["counts"]["skipped"]) == (0, 2)
    assert tree(vault) == kept, "entries never change"
    record = tmp_path / "out_private" / "cases" / FIRST / "record.json"
    content = json.loads(record.read_text())
    entry = vault / content["vault_entry"]
    if lost == "gone":
        entry.unlink()
    else:
        entry.write_bytes(entry.read_bytes()[:-1] + b"?" if lost == "damaged" else b"")
    code, answer, _ = call(run, dataset, out, profile, key, "--resume")
    assert (code, answer["counts"]["skipped"], answer["counts"]["ok"]) == (0, 1, 1)
    assert tree(out) == done
    assert len(tree(vault)) == 2
    for name in NAMES[:2]:
        original = restored(run, out / "imagesTr" / name, vault, key, tmp_path / "back" / name)
        assert np.array_equal(original, voxels(dataset / "imagesTr" / name))
    assert call(run, dataset, out, profile, key, "--resume")[1]["counts"]["skipped"] == 2


def test_a_release_of_an_earlier_program_keeps_its_entries(run: Run, profile: Path, tmp_path: Path, key: Path) -> None:
    """Its records do not name them, and their names do not tell the case."""
    dataset, out, vault = decathlon(tmp_path / "in", 2), tmp_path / "out", tmp_path / "out_private" / "vault"
    assert call(run, dataset, out, profile, key)[0] == 0
    for record in (tmp_path / "out_private" / "cases").glob("*/record.json"):
        content = json.loads(record.read_text())
        entry = vault / content.pop("vault_entry")
        entry.rename(vault / f"{entry.name.partition('.')[0]}.medvault")
        record.write_text(json.dumps(content))
    kept = tree(vault)
    for _ in range(2):
        assert call(run, dataset, out, profile, key, "--resume")[1]["counts"]["skipped"] == 2
        assert tree(vault) == kept
    original = restored(run, out / "imagesTr" / NAMES[0], vault, key, tmp_path / "back.nii.gz")
    assert np.array_equal(original, voxels(dataset / "imagesTr" / NAMES[0]))


def test_an_entry_under_another_key_is_left_as_it_is(run: Run, profile: Path, tmp_path: Path, key: Path) -> None:
    dataset, out, vault = decathlon(tmp_path / "in", 1), tmp_path / "out", tmp_path / "out_private" / "vault"
    assert call(run, dataset, out, profile, key)[0] == 0
    kept = tree(vault)
    save_key(SiteKey.new(), tmp_path / "other.key")
    code, _, said = call(run, dataset, out, profile, tmp_path / "other.key", "--resume")
    assert code == 1
    assert "key" in said
    assert tree(vault) == kept


def test_two_cases_of_one_image_have_an_entry_each(run: Run, profile: Path, tmp_path: Path, key: Path) -> None:
    dataset, out, vault = decathlon(tmp_path / "in", 1), tmp_path / "out", tmp_path / "out_private" / "vault"
    for part in ("imagesTr", "labelsTr"):
        shutil.copyfile(dataset / part / NAMES[0], dataset / part / "again.nii.gz")
    (dataset / "dataset.json").unlink()
    assert call(run, dataset, out, profile, key)[1]["counts"]["ok"] == 2
    assert len(tree(vault)) == 2
    for case in ("again", FIRST):
        granted = tmp_path / f"{case}.key"
        assert run("keys", "grant", granted, "--key", key, "--release", "out", "--cases", case)[0] == 0
        image = f"imagesTr/{case}.nii.gz"
        assert np.array_equal(restored(run, out / image, vault, granted, tmp_path / "back" / image), voxels(dataset / image))
    assert call(run, dataset, out, profile, key, "--resume")[1]["counts"]["skipped"] == 2


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it looks at open files and kills itself")
@pytest.mark.parametrize(
    ("place", "rest"), [("/vault/", "out_private/vault"), ("/out/.medprotect_records", "out"), ("/cases/", "out_private")]
)
def test_what_a_killed_process_was_writing_does_not_stay(run: Run, profile: Path, tmp_path: Path, key: Path, place: str, rest: str) -> None:
    dataset, out = decathlon(tmp_path / "in", 1), tmp_path / "out"
    child = os.fork()
    if child == 0:
        _die_in(place)
        call(run, dataset, out, profile, key)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 9
    assert [name for name in tree(tmp_path / rest) if name.endswith(".part")]
    assert call(run, dataset, out, profile, key, "--resume")[0] == 0
    assert not [name for name in tree(tmp_path) if name.endswith(".part")]


def _die_in(place: str) -> None:
    """End this process with SIGKILL when it has written a file whose path holds ``place``."""
    flush = os.fsync

    def last(file: int) -> None:
        flush(file)
        if place in str(Path(f"/proc/self/fd/{file}").readlink()):
            os.kill(os.getpid(), 9)

    os.fsync = last


def test_half_written_entries_do_not_outlive_a_rotation(run: Run, profile: Path, tmp_path: Path, key: Path) -> None:
    dataset, out, vault = decathlon(tmp_path / "in", 1), tmp_path / "out", tmp_path / "out_private" / "vault"
    assert call(run, dataset, out, profile, key)[0] == 0
    (entry,) = vault.iterdir()
    shutil.copyfile(entry, vault / f".{entry.name}.abc.part")
    save_key(SiteKey.new(), tmp_path / "new.key")
    assert run("keys", "rotate", vault, "--key", key, "--new-key", tmp_path / "new.key")[0] == 0
    assert [p.name for p in vault.iterdir()] == [entry.name]


def stopped(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_release_between_two_cases_is_at_work(
    run: Run, profile: Path, tmp_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, out, vault = decathlon(tmp_path / "in", 2), tmp_path / "out", tmp_path / "out_private" / "vault"
    new, said = SiteKey.new(), list[str]()

    def between(folder: Path, case: str) -> AbstractContextManager[bool]:
        if vault.exists():
            with pytest.raises(MedProtectError) as refusal:
                rotate(vault, load_key(key), new)
            said.append(str(refusal.value))
        return claimed(folder, case)

    monkeypatch.setattr("MedProtectLib.release.process.claimed", between)
    assert call(run, dataset, out, profile, key)[0] == 0
    assert len(said) == 1
    assert f"a release is at work on it (process {os.getpid()}" in said[0]
    monkeypatch.setattr("MedProtectLib.release.process._settled", stopped)
    assert run("release", dataset, "--output", out, "--profile", profile, "--key", key, "--jobs", 0, "--resume")[0] == 1
    assert rotate(vault, load_key(key), new).changed == 2, "a run that failed has ended as well"


def test_lost_entries_of_a_medmnist_file_and_of_channels(run: Run, tmp_path: Path, key: Path, rng: np.random.Generator) -> None:
    dataset = tmp_path / "made.npz"
    parts = ("train", "val", "test")
    images = {f"{part}_images": rng.integers(60, 190, (2, 28, 28), dtype=np.uint8) for part in parts}
    np.savez_compressed(dataset, **images, **{f"{part}_labels": np.array([[0], [1]], np.uint8) for part in parts})
    channels = tmp_path / "in"
    box = np.zeros((12, 20, 20), np.uint8)
    box[3:9, 5:15, 5:15] = 1
    for name, array in (("labelsTr/c1", box), *((f"imagesTr/c1_000{n}", rng.integers(1, 900, box.shape).astype(np.int16)) for n in (0, 1))):
        (channels / name).parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array.T, np.eye(4)), channels / f"{name}.nii.gz")
    for source, options in ((dataset, {"dimension": 2}), (channels, {})):
        own, out = tmp_path / f"{source.stem}.medprotect", tmp_path / f"{source.stem}_out"
        fit(find_cases(source), own, FitOptions(method="lsp", seed=3, **options))  # type: ignore[arg-type]
        assert call(run, source, out, own, key)[0] == 0
        done, vault = tree(out), out.with_name(f"{out.name}_private") / "vault"
        for entry in vault.iterdir():
            entry.unlink()
        code, answer, _ = call(run, source, out, own, key, "--resume")
        assert (code, answer["counts"]["skipped"]) == (0, 0)
        assert tree(out) == done
        image = out / ("made.npz" if source == dataset else "imagesTr/c1.nii.gz")
        back = tmp_path / "back" / image.name
        assert run("restore", image, "--vault", vault, "--key", key, "--output", back)[0] == 0
        if source == dataset:
            assert all(np.array_equal(np.load(back)[name], array) for name, array in images.items())
        else:
            assert np.array_equal(voxels(back.with_name("c1_0001.nii.gz")), voxels(channels / "imagesTr" / "c1_0001.nii.gz"))


def test_a_lost_entry_of_a_dicom_series(run: Run, shared_data: Path, tmp_path: Path, key: Path) -> None:
    dataset, out, own = tmp_path / "in", tmp_path / "out", tmp_path / "own.medprotect"
    samples = shared_data / "dicom_seg_samples" / "dcmqi"
    shutil.copytree(samples / "ct-3slice", dataset / "ct")
    (dataset / "seg").mkdir()
    shutil.copyfile(samples / "liver.dcm", dataset / "seg" / "liver.dcm")
    volume = read_volume(dataset / "ct")
    fit_on_case(volume, read_labels(dataset / "seg" / "liver.dcm", volume), FitOptions(method="lsp", seed=3, bound=16 / 255)).save(own)
    assert call(run, dataset, out, own, key)[0] == 0
    done, vault = tree(out), tmp_path / "out_private" / "vault"
    for entry in vault.iterdir():
        entry.unlink()
    assert call(run, dataset, out, own, key, "--resume")[1]["counts"]["ok"] == 1
    assert tree(out) == done
    assert run("restore", out / "ct", "--vault", vault, "--key", key, "--output", tmp_path / "back")[0] == 0
    assert sorted(tree(tmp_path / "back").values()) == sorted(tree(dataset / "ct").values())
