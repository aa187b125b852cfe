"""Keys and vault entries: what opens what, that nothing can be changed unseen, and that the format stays readable."""

from __future__ import annotations

import base64
import errno
import json
import os
import pickle
import stat
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from MedProtectLib.errors import MedProtectError
from MedProtectLib.io import read_volume
from MedProtectLib.outputs import write_private
from MedProtectLib.release.keys import CaseKeys, Key, ReleaseKey, SiteKey, load_key, save_key
from MedProtectLib.release.vault import Entry, Secret, applied, seal
from samples import Run
from vault_cases import NUMBERS, sealed

PASSPHRASE = "a horse that nobody knows"
names = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=40)


@pytest.fixture(scope="module")
def key() -> SiteKey:
    return SiteKey(bytes(range(32)))


def packed(original: np.ndarray, protected: np.ndarray) -> Secret:
    from MedProtectLib.io import sha256_voxels
    from MedProtectLib.release.vault import _packed

    return Secret(protected.dtype.str[1:], protected.shape, "0" * 64, sha256_voxels(original), b"".join(_packed(original, protected)))


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_any_two_arrays_of_any_type_differ_exactly(data: st.DataObject) -> None:
    kind = np.dtype(data.draw(st.sampled_from(NUMBERS)))
    shape = data.draw(hnp.array_shapes(min_dims=3, max_dims=4, max_side=5))
    bits = hnp.arrays(f"u{kind.itemsize}", shape, elements=st.integers(0, 2 ** (8 * kind.itemsize) - 1))
    original, protected = data.draw(bits).view(kind), data.draw(bits).view(kind)
    secret = Secret.from_bytes(packed(original, protected).to_bytes())
    assert applied(secret, protected).tobytes() == original.tobytes()
    assert secret.shape == shape


def test_small_changes_pack_small() -> None:
    rng = np.random.default_rng(1)
    original = rng.integers(-1000, 2000, (20, 100, 100), "i2")
    change = rng.integers(-3, 4, original.shape) * (rng.random(original.shape) < 0.1)
    assert len(packed(original, original + change.astype("i2")).differences) < original.nbytes / 15


def test_differences_that_do_not_fit_are_refused() -> None:
    original, protected = np.zeros((2, 3, 4), "i2"), np.ones((2, 3, 4), "i2")
    good = packed(original, protected)
    with pytest.raises(MedProtectError, match="another type or shape"):
        applied(good, protected.astype("u2"))
    with pytest.raises(MedProtectError, match="another type or shape"):
        applied(good, protected.reshape(2, 4, 3))
    with pytest.raises(MedProtectError, match="checksum differs"):
        applied(good, protected * 2)
    for differences in (b"", good.differences[:8], b"no zlib"):
        with pytest.raises(MedProtectError, match="damaged"):
            applied(Secret(good.dtype, good.shape, "", good.original_voxels_sha256, differences), protected)


def test_every_byte_of_an_entry_is_sealed(tmp_path: Path, key: SiteKey, rng: np.random.Generator) -> None:
    """A bit of every byte of header, ciphertext and tag: none can be flipped, no byte added, none lost."""
    case = sealed(tmp_path, "NRRD", "u1", key, rng)
    content = case.entry.read_bytes()
    flipped = tmp_path / "flipped.medvault"
    assert Entry.load(case.entry).open(key).shape == (3, 4, 5)
    for n in range(len(content)):
        changed = bytearray(content)
        changed[n] ^= 1 << 3 * n % 8
        flipped.write_bytes(changed)
        with pytest.raises(MedProtectError):
            Entry.load(flipped).open(key)
    for changed in (*(content[:n] for n in range(0, len(content), 7)), content + b"\0", content + content):
        flipped.write_bytes(changed)
        with pytest.raises(MedProtectError):
            Entry.load(flipped).open(key)


def test_the_same_case_sealed_twice_shares_neither_key_nor_bytes(tmp_path: Path, key: SiteKey, rng: np.random.Generator) -> None:
    case = sealed(tmp_path, "NRRD", "i2", key, rng)
    one, two = (seal(read_volume(case.original), read_volume(case.protected), key, "test", "case") for _ in range(2))
    assert one.header.salt != two.header.salt
    assert one.sealed != two.sealed
    assert one.open(key) == two.open(key)
    assert one.name == two.name == case.entry.name


def test_an_entry_tells_nothing_of_the_original_without_its_key(tmp_path: Path, key: SiteKey, rng: np.random.Generator) -> None:
    case = sealed(tmp_path, "NIfTI", "f4", key, rng)
    entry, content = Entry.load(case.entry), case.entry.read_bytes()
    secret = entry.open(key)
    for text in (secret.original_sha256, secret.original_voxels_sha256, str(tmp_path), "image.nii"):
        assert text.encode() not in content
    assert secret.differences[:8] not in content


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_entries_are_their_owners_alone(tmp_path: Path, key: SiteKey, rng: np.random.Generator) -> None:
    before = os.umask(0)
    try:
        case = sealed(tmp_path, "NIfTI", "u1", key, rng)
        save_key(key, tmp_path / "site.key")
    finally:
        os.umask(before)
    assert stat.S_IMODE(case.vault.stat().st_mode) == 0o700
    for file in (case.entry, tmp_path / "site.key"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in case.vault.iterdir()] == [case.entry.name]


# The first version's format, for all that come after it.
OLD_ENTRY = (
    "O+`djK~+pt0004Pdm>?MXK!+8bZBiNIv^rJMN=&@H8w3rLro$qAR=R7b7dkrAR=KeVj?UcB5P%NUuk3_Iv^rrH#s(CWi~NmGcaT@FfwH#EFdCqa&L5HV{~O?"
    "Uvp?-GBq|LIv^r5H!?G1V_{@DH8L?_WI1JKH8L<TV_{-AHeoh4IAdWnF)}n`H8nS5Hf1nnIbk_tVKOl>WiT@{Ib&rtVm4(WEFdCqa&L5HV{~O?Uv_VJWo&a_"
    "b7)~QH8vtTAR;g{H)LXFH8VCgGdD6eGcjUeH)S(rFfuhVFl9D1F*GzbVmLWDV>vcsG-5V1Ha0V2VPi8lIAJn5IAJ$pW;Y@%AR=;QY-M3{Wg<EtB4%lFb95ps"
    "AR=>NY;+<zAR;qnGGQ}0F*Z3eIW}WqVL3HoGht*hW-??sIc8>NI599}Ght<BGh|^oVqs!2F*Z47He)zqHDP8rWHK{hIAbC#AR=>PXk~3-B03;3eQX)k4LSRR"
    "ZSMt#OH8MQRF>&{<&U3k1cd}*dcL3CB4|sF4Edsys!NF|nL$LW9xX8LWkE!jv>{#H%UcKNS_s<4+DwFjqM5sSf}JGIpRu!s5-}~<BW58uXib><k6|fRz{h%)"
    "<sb4L>O`x?Ax1{CSCmpYJ&U#XC-n*S&iOlH;Iwhhj@Y+wc%+;70bgyR5U-4BVn}7X@KGd~q*S(PvB@>TohPVmhlm_p803Nq%-%4i==8LD+Rb2<5oAKa2d(r5"
    ")cK0i?}MF!6<cAVpi(<|%twXl{;h!zbH*~=$s1qoJV#rTQ1^Sl3k?l{KQIdeg=yCT$Jvgk@+snWRUUWB+8GZpuc`"
)


def test_an_entry_of_the_first_version_opens(tmp_path: Path, key: SiteKey) -> None:
    (tmp_path / "old.medvault").write_bytes(base64.b85decode(OLD_ENTRY))
    entry = Entry.load(tmp_path / "old.medvault")
    assert (entry.header.release, entry.header.case) == ("first", "a/b")
    for opener in (key, key.for_release("first"), key.for_cases("first", ["a/b"])):
        original = applied(entry.open(opener), np.array([[[1, 2, 3]]], "<i2"))
        assert original.tolist() == [[[0, 2, 5]]]


def test_a_newer_schema_says_so(tmp_path: Path, key: SiteKey, rng: np.random.Generator) -> None:
    case = sealed(tmp_path, "NIfTI", "u1", key, rng)
    content = case.entry.read_bytes().replace(b'"schema": 1', b'"schema": 2')
    case.entry.write_bytes(content)
    with pytest.raises(MedProtectError, match="newer MedProtect"):
        Entry.load(case.entry)
    save_key(key, tmp_path / "site.key")
    (tmp_path / "site.key").write_text((tmp_path / "site.key").read_text().replace('"medprotect_key": 1', '"medprotect_key": 2'))
    with pytest.raises(MedProtectError, match="newer MedProtect"):
        load_key(tmp_path / "site.key")


@given(release=names, other=names, case=names, another=names)
@settings(deadline=None)
def test_keys_of_releases_and_cases_differ(release: str, other: str, case: str, another: str) -> None:
    site = SiteKey(bytes(range(32)))
    mine = site.for_case(release, case)
    assert mine == site.for_release(release).for_case(release, case) == site.for_cases(release, [case]).for_case(release, case)
    assert (site.for_case(other, another) == mine) == ((other, another) == (release, case))
    if other != release:
        with pytest.raises(MedProtectError, match="reaches"):
            site.for_release(release).for_release(other)
    with pytest.raises(MedProtectError, match="reaches"):
        site.for_cases(release, [case]).for_release(release)


@given(release=names, cases=st.lists(names, min_size=1, max_size=5, unique=True))
@settings(deadline=None, max_examples=50)
def test_key_files_give_back_the_key(tmp_path_factory: pytest.TempPathFactory, release: str, cases: list[str]) -> None:
    site = SiteKey.new()
    for key in (site, site.for_release(release), site.for_cases(release, cases)):
        path = tmp_path_factory.mktemp("key") / "k"
        save_key(key, path)
        assert load_key(path) == key


@pytest.mark.parametrize("reach", ["site", "release", "cases"])
def test_a_damaged_key_file_is_refused_or_harmless(reach: str, tmp_path: Path, key: SiteKey) -> None:
    """A bit of every byte of a key file: a flip is refused, or only in the sentence that says in words what the key opens."""
    chosen: Key = {"site": key, "release": key.for_release("r"), "cases": key.for_cases("r", ["one", "two"])}[reach]
    path = tmp_path / "k"
    save_key(chosen, path)
    content = path.read_bytes()
    harmless = 0
    for n in range(len(content)):
        changed = bytearray(content)
        changed[n] ^= 1 << 3 * n % 8
        path.write_bytes(changed)
        with suppress(MedProtectError):
            assert load_key(path) == chosen
            harmless += 1
    assert harmless < 0.5 * len(content)


def test_no_secret_is_shown(tmp_path: Path, key: SiteKey, run: Run) -> None:
    for chosen in (key, key.for_release("r"), key.for_cases("r", ["c"])):
        path = tmp_path / f"{type(chosen).__name__}.key"
        save_key(chosen, path)
        shown = repr(chosen) + str(chosen) + "".join(map(str, run("keys", "show", path, "--json")))
        for secret in chosen.keys.values() if isinstance(chosen, CaseKeys) else [chosen.secret]:  # type: ignore[attr-defined]
            assert secret.hex() not in shown
            assert repr(secret) not in shown
        assert pickle.loads(pickle.dumps(chosen)) == chosen  # spawned workers get it through their pipe


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_a_readable_key_file_is_refused(tmp_path: Path, key: SiteKey) -> None:
    path = tmp_path / "site.key"
    save_key(key, path)
    for mode in (0o640, 0o604, 0o660, 0o620):
        path.chmod(mode)
        with pytest.raises(MedProtectError, match="others can read or change"):
            load_key(path)
    with pytest.raises(MedProtectError, match="not a file"):
        load_key(tmp_path)
    with pytest.raises(MedProtectError, match="cannot be read"):
        load_key(tmp_path / "none")


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_a_key_is_never_overwritten(tmp_path: Path, key: SiteKey, run: Run) -> None:
    path = tmp_path / "site.key"
    save_key(key, path)
    code, _, err = run("keys", "new", path)
    assert (code, "lost for ever" in err) == (1, True)
    (tmp_path / "link.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MedProtectError, match="this file exists"):
        save_key(key, tmp_path / "link.key")
    assert load_key(path) == key


def test_of_two_keys_made_at_once_one_is_refused(tmp_path: Path, key: SiteKey, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "site.key"

    def write_as_another_does(name: Path, content: bytes) -> None:
        write_private(path, b"the other's key")
        write_private(name, content)

    monkeypatch.setattr("MedProtectLib.release.keys.write_private", write_as_another_does)
    with pytest.raises(MedProtectError, match="this file exists"):
        save_key(key, path)
    assert path.read_bytes() == b"the other's key"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("links", [True, False])
def test_a_file_system_without_second_names_keeps_keys_too(
    links: bool, tmp_path: Path, key: SiteKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted", str(target))

    if not links:
        monkeypatch.setattr("os.link", refuse)
    path = tmp_path / "site.key"
    save_key(key, path)
    assert load_key(path) == key
    with pytest.raises(MedProtectError, match="this file exists"):
        save_key(SiteKey.new(), path)
    assert load_key(path) == key
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_passphrase(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    file, words = tmp_path / "site.key", tmp_path / "words"
    words.write_text(PASSPHRASE + "\n")
    words.chmod(0o644)
    assert "others can read" in run("keys", "new", file, "--passphrase", "--passphrase-file", words)[2]
    words.chmod(0o600)
    assert run("keys", "new", file, "--passphrase", "--passphrase-file", words)[0] == 0
    assert "Without the passphrase it is worth nothing" in run("keys", "new", tmp_path / "same.key", "--passphrase-file", words)[1]
    assert "salt" in json.loads((tmp_path / "same.key").read_text())["site"], "a passphrase that is given is used"
    content = json.loads(file.read_text())
    assert content["site"] | {"salt": ""} == {"n": 1 << 17, "r": 8, "p": 1, "salt": ""}
    key = load_key(file, PASSPHRASE)
    assert isinstance(key, SiteKey)
    assert key.secret.hex() not in file.read_text()
    monkeypatch.setenv("MEDPROTECT_PASSPHRASE", PASSPHRASE)
    assert run("keys", "show", file)[0] == 0
    monkeypatch.setenv("MEDPROTECT_PASSPHRASE", PASSPHRASE + "!")
    assert "wrong passphrase" in run("keys", "show", file)[2]
    monkeypatch.setenv("MEDPROTECT_PASSPHRASE", os.fsdecode(b"long pass phrase \xff\xfe"))
    for command in (("new", tmp_path / "other.key", "--passphrase"), ("show", file)):
        code, _, said = run("keys", *command)
        assert (code, said.count("\n"), "no UTF-8 text" in said) == (1, 1, True)
    monkeypatch.delenv("MEDPROTECT_PASSPHRASE")
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    assert "needs a passphrase" in run("keys", "show", file)[2]
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("getpass.getpass", lambda prompt: PASSPHRASE)
    assert run("keys", "show", file)[0] == 0
    with pytest.raises(MedProtectError, match="comes from a passphrase"):
        load_key(file)


def test_two_different_passphrases_make_no_key(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEDPROTECT_PASSPHRASE", raising=False)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    said = iter([PASSPHRASE, PASSPHRASE.upper(), "too short", "too short"])
    monkeypatch.setattr("getpass.getpass", lambda prompt: next(said))
    assert "differ" in run("keys", "new", tmp_path / "k", "--passphrase")[2]
    assert "can be guessed" in run("keys", "new", tmp_path / "k", "--passphrase")[2]
    assert not (tmp_path / "k").exists()


def test_a_key_file_cannot_ask_for_endless_work(tmp_path: Path, key: SiteKey) -> None:
    path = tmp_path / "k"
    for cost in (
        {"n": 1 << 30, "r": 8, "p": 1},
        {"n": 1 << 17, "r": 8, "p": 10**9},
        {"n": 2, "r": 1, "p": 1},
        {"n": True, "r": None, "p": "1"},
    ):
        path.write_text(json.dumps({"medprotect_key": 1, "site": {**cost, "salt": "00" * 32}, "check": "0"}))
        path.chmod(0o600)
        with pytest.raises(MedProtectError, match="not a MedProtect key file"):
            load_key(path, PASSPHRASE)


def test_wrong_usage_exits_with_2(run: Run) -> None:
    assert run("keys")[0] == run("keys", "nosuch")[0] == run("keys", "grant", "k")[0] == run("restore", "x")[0] == 2


def test_a_release_key_is_not_a_site_key(key: SiteKey) -> None:
    release = key.for_release("r")
    assert isinstance(release, ReleaseKey)
    assert release.secret not in (key.secret, release.for_case("r", "c"))
