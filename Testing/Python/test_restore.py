"""What was protected comes back bit for bit, in every format and type, to the right key and from the right file only."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import numpy as np
import pytest

from MedProtectLib.errors import MedProtectError
from MedProtectLib.io import read_volume, write_volume
from MedProtectLib.release.claims import claimed
from MedProtectLib.release.keys import SiteKey, save_key
from MedProtectLib.release.restore import restore_file, restore_volume
from MedProtectLib.release.settings import Settings
from MedProtectLib.release.vault import find_entry, seal
from release_cases import tree
from samples import Run
from vault_cases import FORMATS, MATRIX, Sealed, as_simpleitk_sees, disturbed, files_of, sealed


@pytest.fixture(scope="module")
def key() -> SiteKey:
    return SiteKey.new()


@pytest.fixture
def case(tmp_path: Path, key: SiteKey, rng: np.random.Generator) -> Sealed:
    return sealed(tmp_path, "NIfTI", "i2", key, rng)


@pytest.mark.parametrize(("name", "kind"), MATRIX)
def test_every_format_and_type_comes_back(name: str, kind: str, tmp_path: Path, key: SiteKey, rng: np.random.Generator) -> None:
    made = sealed(tmp_path, name, kind, key, rng)
    original, protected = read_volume(made.original), read_volume(made.protected)
    assert protected.array.tobytes() != original.array.tobytes()
    restored = restore_file(made.protected, made.vault, key, tmp_path / "back" / made.original.name)
    again = read_volume(restored.output)
    assert (again.array.dtype, again.array.tobytes()) == (original.array.dtype, original.array.tobytes())
    assert (again.geometry, again.slope, again.intercept) == (original.geometry, original.slope, original.intercept)
    assert set(restored.files) == {tmp_path / "back" / file.name for file in made.original.parent.iterdir()}
    assert restored.same_file == (files_of(restored.output) == files_of(made.original)) == FORMATS[name].kept
    assert (restored.release, restored.case) == ("test", "case")


@pytest.mark.parametrize(
    ("name", "kind"), [("NIfTI, gzip", "i2"), ("NRRD, gzip", "f4"), ("MetaImage, packed", "u2"), ("PNG RGB", "u1"), ("TIFF RGB", "u2")]
)
def test_other_software_reads_the_same_original(name: str, kind: str, tmp_path: Path, key: SiteKey, rng: np.random.Generator) -> None:
    made = sealed(tmp_path, name, kind, key, rng)
    restored = restore_file(made.protected, made.vault, key, tmp_path / "back" / made.original.name)
    assert as_simpleitk_sees(restored.output).tobytes() == as_simpleitk_sees(made.original).tobytes()


def test_in_memory(case: Sealed, key: SiteKey) -> None:
    protected = read_volume(case.protected)
    before = protected.array.copy()
    original = restore_volume(protected, find_entry(case.vault, protected), key)
    assert original.array.tobytes() == read_volume(case.original).array.tobytes()
    assert np.array_equal(protected.array, before)


def refused(message: str, case: Sealed, tmp_path: Path, key: object, protected: Path | None = None) -> None:
    output = tmp_path / "back" / "image.nii"
    with pytest.raises(MedProtectError, match=message) as refusal:
        restore_file(protected or case.protected, case.vault, key, output)  # type: ignore[arg-type]
    assert "\n" not in str(refusal.value)
    assert not output.parent.exists() or not list(output.parent.iterdir())


def test_another_key_is_refused(case: Sealed, tmp_path: Path, key: SiteKey) -> None:
    refused("wrong key", case, tmp_path, SiteKey.new())
    refused("wrong key", case, tmp_path, SiteKey.new().for_release("test"))


def test_a_key_opens_no_more_than_it_says(case: Sealed, tmp_path: Path, key: SiteKey) -> None:
    refused("reaches the release 'other', not the release 'test'", case, tmp_path, key.for_release("other"))
    refused("not case 'case' of the release 'test'", case, tmp_path, key.for_cases("test", ["another"]))
    refused("not case 'case' of the release 'test'", case, tmp_path, key.for_cases("other", ["case"]))
    for number, good in enumerate(
        (key.for_release("test"), key.for_cases("test", ["case"]), key.for_release("test").for_cases("test", ["case"]))
    ):
        assert restore_file(case.protected, case.vault, good, tmp_path / f"back{number}" / "image.nii").same_file


def test_an_entry_passed_off_as_another_cases_is_refused(case: Sealed, tmp_path: Path, key: SiteKey, rng: np.random.Generator) -> None:
    other = sealed(tmp_path / "other", "NIfTI", "i2", key, rng, case="another")
    case.entry.write_bytes(other.entry.read_bytes())
    refused("no entry .* belongs to exactly this file", case, tmp_path, key)
    refused("no entry .* belongs to exactly this file", case, tmp_path, key, other.original)


def test_a_protected_file_that_changed_is_refused(case: Sealed, tmp_path: Path, key: SiteKey) -> None:
    volume, changed = read_volume(case.protected), tmp_path / "changed" / "image.nii"
    changed.parent.mkdir()
    content = case.protected.read_bytes()
    changed.write_bytes(content[:148] + b"saved anew" + content[158:])  # descrip
    refused("has the voxels of case 'case' but was saved anew", case, tmp_path, key, changed)
    array = volume.array.copy()
    array[1, 1, 1] ^= 1
    write_volume(volume.with_array(array), tmp_path / "changed" / "one.nii")
    refused("no entry .* changed after it was protected", case, tmp_path, key, tmp_path / "changed" / "one.nii")
    write_volume(type(volume)(volume.array[1:].copy(), type(volume.geometry)((5, 4, 2)), "cropped"), tmp_path / "changed" / "cropped.nii")
    refused("no entry .* changed after it was protected", case, tmp_path, key, tmp_path / "changed" / "cropped.nii")


def test_an_entry_found_by_its_header(case: Sealed, tmp_path: Path, key: SiteKey) -> None:
    (case.vault / "deeper").mkdir()
    case.entry.rename(case.vault / "deeper" / "renamed.medvault")
    (case.vault / "a.medvault").write_bytes(b"damaged")
    assert restore_file(case.protected, case.vault, key, tmp_path / "back" / "image.nii").same_file


def test_a_damaged_copy_of_an_entry_hides_no_good_one(case: Sealed, tmp_path: Path, key: SiteKey) -> None:
    for folder in ("a", "z"):
        (case.vault / folder).mkdir()
        (case.vault / folder / case.entry.name).write_bytes(case.entry.read_bytes()[:20])
    assert restore_file(case.protected, case.vault, key, tmp_path / "back" / "image.nii").same_file
    case.entry.unlink()
    refused("not a MedProtect vault entry, or damaged", case, tmp_path / "again", key)


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_output_is_private_and_never_in_the_way(case: Sealed, tmp_path: Path, key: SiteKey) -> None:
    output = tmp_path / "back" / "image.nii"
    restore_file(case.protected, case.vault, key, output)
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    assert [path.name for path in output.parent.iterdir()] == ["image.nii"]
    with pytest.raises(MedProtectError, match="this file exists"):
        restore_file(case.protected, case.vault, key, output)
    assert restore_file(case.protected, case.vault, key, output, overwrite=True).same_file
    with pytest.raises(MedProtectError, match="protected file's own folder"):
        restore_file(case.protected, case.vault, key, case.protected.with_name("back.nii"))
    with pytest.raises(MedProtectError, match=r"ends in \.nii"):
        restore_file(case.protected, case.vault, key, tmp_path / "other" / "image.nrrd")
    with pytest.raises(MedProtectError, match="no such folder"):
        restore_file(case.protected, tmp_path / "nowhere", key, tmp_path / "other" / "image.nii")


def test_no_original_goes_where_it_would_be_shared(case: Sealed, tmp_path: Path, key: SiteKey) -> None:
    link = tmp_path / "links" / "image.nii"
    link.parent.mkdir()
    link.symlink_to(case.protected)
    for output in (case.protected.with_name("back.nii"), link.with_name("back.nii")):
        with pytest.raises(MedProtectError, match="protected file's own folder"):
            restore_file(link, case.vault, key, output)
    results = tmp_path / "results"
    results.mkdir()
    (results / "case_record.json").touch()
    (results / "case_protected.nii").touch()
    unfinished = tmp_path / "release"
    settings = Settings("test", "in", "decathlon", str(unfinished), "private", "p", "0")
    (case.vault.parent / "manifest.json").write_bytes(settings.to_bytes())
    for folder in (results, unfinished):
        with pytest.raises(MedProtectError, match=f"{folder} holds what may be shared"):
            restore_file(case.protected, case.vault, key, folder / "new" / "image.nii")
    assert not unfinished.exists()
    assert restore_file(case.protected, case.vault, key, tmp_path / "back" / "image.nii").same_file


def test_an_output_of_another_format_leaves_nothing(case: Sealed, tmp_path: Path, key: SiteKey) -> None:
    with pytest.raises(MedProtectError, match=r"^\S*back/new/case\.nrrd: \S+ keeps its format; give --output a name that ends in \.nii\.$"):
        restore_file(case.protected, case.vault, key, tmp_path / "back" / "new" / "case.nrrd")
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize("output", [".", "/", ""])
def test_a_folder_is_no_name_for_a_file(output: str, tmp_path: Path, key: SiteKey, rng: np.random.Generator) -> None:
    made = sealed(tmp_path, "NIfTI pair", "i2", key, rng)
    with pytest.raises(MedProtectError, match="this folder exists"):
        restore_file(made.protected, made.vault, key, output)


@pytest.mark.parametrize("strange", [OSError(errno.ENOSPC, "No space left on device"), MedProtectError("{path}: cannot be read.")])
def test_a_disk_that_fails_leaves_nothing_and_no_name_of_ours(
    strange: Exception, case: Sealed, tmp_path: Path, key: SiteKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> None:
        if path.is_relative_to(tmp_path / "back"):
            raise MedProtectError(str(strange).format(path=path)) if isinstance(strange, MedProtectError) else strange
        return read(path)

    read = read_volume
    monkeypatch.setattr("MedProtectLib.release.restore.read_volume", fail)
    with pytest.raises(MedProtectError) as error:
        restore_file(case.protected, case.vault, key, tmp_path / "back" / "case.nii")
    assert str(error.value).startswith(f"{tmp_path / 'back' / 'case.nii'}: cannot be")
    assert not (tmp_path / "back").exists()


def test_command_line(case: Sealed, tmp_path: Path, key: SiteKey, run: Run) -> None:
    save_key(key, tmp_path / "site.key")
    output = tmp_path / "back" / "image.nii"
    arguments = ("restore", case.protected, "--vault", case.vault, "--output", output)
    assert run("keys", "grant", tmp_path / "case.key", "--key", tmp_path / "site.key", "--release", "test", "--cases", "case")[0] == 0
    code, out, _ = run(*arguments, "--key", tmp_path / "case.key", "--json")
    assert (code, '"same_file": true' in out) == (0, True)
    assert output.read_bytes() == case.original.read_bytes()
    run("keys", "new", tmp_path / "wrong.key")
    code, out, err = run(*arguments, "--key", tmp_path / "wrong.key", "--overwrite")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "wrong key" in err


def test_a_vault_that_a_release_writes_to_is_not_rotated(tmp_path: Path, key: SiteKey, run: Run, rng: np.random.Generator) -> None:
    vault = sealed(tmp_path / "private", "NIfTI", "i2", key, rng).vault
    (vault / "part").mkdir()
    save_key(key, tmp_path / "old.key")
    run("keys", "new", tmp_path / "new.key")
    keys = ("--key", tmp_path / "old.key", "--new-key", tmp_path / "new.key")
    before = tree(vault)
    with claimed(vault.parent / "claims", "case_1"):
        for folder in (vault, vault.parent, tmp_path, vault / "part"):
            code, _, err = run("keys", "rotate", folder, *keys)
            assert (code, "a release is at work on it (case 'case_1', process" in err, tree(vault)) == (1, True, before), folder
    assert run("keys", "rotate", vault, *keys)[0] == 0


def test_a_rotated_vault_opens_with_the_new_key_alone(case: Sealed, tmp_path: Path, key: SiteKey, run: Run) -> None:
    save_key(key, tmp_path / "old.key")
    run("keys", "new", tmp_path / "new.key")
    rotate = ("keys", "rotate", case.vault, "--key", tmp_path / "old.key", "--new-key", tmp_path / "new.key")
    assert "1 entries sealed anew, 0 were" in run(*rotate)[1]
    assert "0 entries sealed anew, 1 were" in run(*rotate)[1]
    refused("wrong key", case, tmp_path, key)
    arguments = ("restore", case.protected, "--vault", case.vault, "--output", tmp_path / "back" / "image.nii")
    assert run(*arguments, "--key", tmp_path / "new.key")[0] == 0


def test_a_damaged_entry_keeps_none_of_the_others_from_rotating(case: Sealed, tmp_path: Path, key: SiteKey, run: Run) -> None:
    save_key(key, tmp_path / "old.key")
    run("keys", "new", tmp_path / "new.key")
    (entry,) = case.vault.glob("*.medvault")
    for name, content in (("0", entry.read_bytes()[:-1]), ("1", b"no entry")):
        (case.vault / f"{name * 64}.medvault").write_bytes(content)
    rotate = ("keys", "rotate", case.vault, "--key", tmp_path / "old.key", "--new-key", tmp_path / "new.key")
    code, out, err = run(*rotate)
    assert (code, err.count("\n")) == (1, 2)
    assert "1 entries sealed anew, 0 were under the new key already, 2 stay as they were" in out
    for name in "01":
        assert f"{name * 64}.medvault" in err
    refused("wrong key", case, tmp_path, key)
    code, out, _ = run(*rotate, "--json")
    assert (code, '"ok": false' in out, '"unchanged": 1' in out) == (1, True, True)


def test_what_cannot_be_sealed(tmp_path: Path, case: Sealed, key: SiteKey, rng: np.random.Generator) -> None:
    volume, protected = read_volume(case.original), read_volume(case.protected)
    with pytest.raises(MedProtectError, match="another shape or type"):
        seal(volume, read_volume(sealed(tmp_path / "other", "NRRD", "u2", key, rng).protected), key, "test", "case")
    with pytest.raises(MedProtectError, match="not a name for a release or a case"):
        seal(volume, protected, key, "test", "two\nlines")


def test_every_image_of_a_medmnist_file_comes_back(tmp_path: Path, key: SiteKey, rng: np.random.Generator) -> None:
    from MedProtectLib.io.npz import member_array, member_volume, rewrite

    original, protected = tmp_path / "in.npz", tmp_path / "out" / "in.npz"
    protected.parent.mkdir()
    sizes = {"train": 3, "val": 2, "test": 1}
    images = {f"{part}_images": rng.integers(0, 256, (n, 6, 5, 3)).astype("u1") for part, n in sizes.items()}
    labels = {f"{part}_labels": np.zeros((n, 1), "u1") for part, n in sizes.items()}
    np.savez_compressed(original, **images, **labels)
    changed = {name: disturbed(array, rng) for name, array in images.items()}
    for name, array in images.items():
        for n in range(len(array)):
            before, after = member_volume(array, n, "x"), member_volume(changed[name], n, "x")
            assert np.array_equal(member_array(before), array[n])
            for release in ("next", "test"):
                seal(before, after, key, release, f"{name} {n}").save(tmp_path / "vault" / release)
    rewrite(original, protected, changed)
    output = tmp_path / "back" / "in.npz"
    restored = restore_file(protected, tmp_path / "vault", key.for_release("test"), output)
    assert restored.case == "6 images"
    assert restore_file(protected, tmp_path / "vault", key.for_release("next"), tmp_path / "next" / "in.npz").release == "next"
    with np.load(output) as again:
        assert {name: again[name].tobytes() for name in again} == {name: array.tobytes() for name, array in (images | labels).items()}
    with pytest.raises(MedProtectError, match="not case"):
        restore_file(protected, tmp_path / "vault", key.for_cases("test", ["train_images 0"]), output, overwrite=True)
    changed["val_images"][1, 2, 2] ^= 1
    rewrite(original, protected, changed)
    with pytest.raises(MedProtectError, match=r"val_images\[1\]: no entry"):
        restore_file(protected, tmp_path / "vault", key, tmp_path / "again" / "in.npz")
    assert not (tmp_path / "again").exists()


def released(tmp_path: Path, run: Run, dataset: Path, profile: bytes) -> Path:
    """Release a dataset with a key; returns the shareable folder."""
    (tmp_path / "p.medprotect").write_bytes(profile)
    run("keys", "new", tmp_path / "site.key")
    options = ("--profile", tmp_path / "p.medprotect", "--key", tmp_path / "site.key", "--jobs", 0, "--no-reports")
    code, _, err = run("release", dataset, "--output", tmp_path / "out", "--name", "first", *options)
    assert code == 0, err
    return tmp_path / "out"


def test_a_release_can_be_restored_by_who_holds_its_key(tmp_path: Path, run: Run) -> None:
    from fuzz.seeds import dataset_to_release, pattern_profile

    for name, content in dataset_to_release().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    out = released(tmp_path, run, tmp_path / "data", pattern_profile("lsp"))
    run("keys", "grant", tmp_path / "partner.key", "--key", tmp_path / "site.key", "--release", "first", "--cases", "a")
    for name, key_file, code in (("a", "site.key", 0), ("b", "site.key", 0), ("a", "partner.key", 0), ("b", "partner.key", 1)):
        protected, back = out / "imagesTr" / f"{name}_0000.nii", tmp_path / "back" / f"{name}_0000.nii"
        original = (tmp_path / "data" / "imagesTr" / back.name).read_bytes()
        assert protected.read_bytes() != original
        arguments = ("restore", protected, "--vault", tmp_path / "out_private", "--key", tmp_path / key_file, "--output", back)
        assert run(*arguments, "--overwrite")[0] == code
        assert back.read_bytes() == original


def test_a_released_medmnist_file_can_be_restored(tmp_path: Path, run: Run, rng: np.random.Generator) -> None:
    from MedProtectLib.methods.base import CLASSIFICATION, IMAGE, Purpose
    from MedProtectLib.methods.lsp import LSP
    from MedProtectLib.profile import Profile

    purpose = Purpose(2, CLASSIFICATION, IMAGE, 0, 1, ("0", "1"))
    method = LSP(purpose, LSP.checked_parameters({}), LSP.draw_fixed(purpose, LSP.checked_parameters({}), rng))
    profile = Profile("lsp", method.settings(), method.tensors(), 8 / 255, 3).to_bytes()
    images = {f"{part}_images": rng.integers(30, 220, (4, 12, 12)).astype("u1") for part in ("train", "val", "test")}
    labels = {f"{part}_labels": np.array([[0], [1], [0], [1]], "u1") for part in ("train", "val", "test")}
    np.savez(tmp_path / "in.npz", **images, **labels)
    out = released(tmp_path, run, tmp_path / "in.npz", profile)
    arguments = ("--vault", tmp_path / "out_private", "--key", tmp_path / "site.key", "--output", tmp_path / "back" / "in.npz")
    assert run("restore", out / "in.npz", *arguments)[0] == 0
    with np.load(tmp_path / "back" / "in.npz") as back, np.load(out / "in.npz") as protected:
        assert all(np.array_equal(back[name], array) for name, array in (images | labels).items())
        assert not any(np.array_equal(protected[name], array) for name, array in images.items())
