"""Files that anybody may have written: read as data, in bounded memory, without leaving a folder; and private files stay private."""

from __future__ import annotations

import ast
import gzip
import io
import json
import os
import pickle
import stat
import tracemalloc
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from made_images import metaimage, nifti, nrrd, png, tiff_with_shared_values
from MedProtectLib.errors import LONGEST_LINE, MedProtectError
from MedProtectLib.io import read_labels, read_volume
from MedProtectLib.outputs import inside, private_folder, write_private
from MedProtectLib.release.keys import SiteKey, load_key, save_key
from MedProtectLib.release.vault import Entry
from MedProtectLib.untrusted import read_json, read_table
from samples import ROOT, Run

SOURCES = [*(ROOT / "MedProtectLib").rglob("*.py"), *(ROOT / "MedProtect").rglob("*.py")]
EXECUTING_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml", "jsonpickle"}
EXECUTING_FUNCTIONS = {"eval", "exec", "compile", "__import__"}
EXECUTING_METHODS = {"load_from_checkpoint", "read_pickle", "extractall", "torch.load", "nib.load", "np.fromregex", "os.system"}
GREY = np.arange(24, dtype="<i2").reshape(2, 3, 4)
MEBIBYTE = 1 << 20


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def calls(tree: ast.AST) -> Iterator[tuple[str, str, dict[str, ast.expr]]]:
    """What stands in front of the last dot, the name behind it, and the keywords of every call."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            owner, _, name = ast.unparse(node.func).rpartition(".")
            yield owner, name, {keyword.arg or "**": keyword.value for keyword in node.keywords}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_source_file_reads_anything_executable(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not EXECUTING_MODULES & set(imported(tree))
    for owner, name, keywords in calls(tree):
        assert owner or name not in EXECUTING_FUNCTIONS, name
        assert not {name, f"{owner}.{name}"} & EXECUTING_METHODS, f"{owner}.{name}"
        assert ast.unparse(keywords.get("allow_pickle", ast.Constant(False))) == "False"
        assert ast.unparse(keywords.get("shell", ast.Constant(False))) == "False"


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, (str(self.marker),))


def test_no_reader_unpickles(tmp_path: Path) -> None:
    """A pickle under every name that is read, and one in every place of a .npz file."""
    from MedProtectLib.fitting.dataset import find_cases
    from MedProtectLib.profile import Profile

    marker = tmp_path / "marker"
    content = pickle.dumps(Bomb(marker))
    pickle.loads(content)
    assert marker.is_dir()
    marker.rmdir()
    readers = {
        read_volume: ("a.nii", "a.nii.gz", "a.hdr", "a.nrrd", "a.nhdr", "a.mha", "a.mhd", "a.png", "a.tif", "a.dcm"),
        read_labels: ("a.seg.nrrd", "a.dcm"),
        Profile.load: ("a.medprotect",),
        find_cases: ("a.npz", "a.csv"),
        load_key: ("a.key",),
        Entry.load: ("a.medvault",),
    }
    for reader, names in readers.items():
        for name in names:
            for wrapped in (content, gzip.compress(content), zlib.compress(content)):
                write_private(tmp_path / name, wrapped)
                with pytest.raises(MedProtectError):
                    reader(tmp_path / name)  # type: ignore[operator]
    objects = np.empty(1, object)
    objects[0] = Bomb(marker)
    for part in ("train_images", "train_labels", "val_labels"):
        arrays = {
            f"{split}_{kind}": np.zeros((1, 4, 4) if kind == "images" else (1, 1), "u1")
            for split in ("train", "val", "test")
            for kind in ("images", "labels")
        }
        np.savez(tmp_path / "a.npz", **(arrays | {part: objects}))
        with pytest.raises(MedProtectError):
            [case.read() for case in find_cases(tmp_path / "a.npz")]
    assert not marker.exists()


@given(
    name=st.text(max_size=60)
    | st.lists(st.sampled_from(["..", ".", "", "a", "c:", "\\", "~", "con", "a b", "x.nii"]), max_size=5).map("/".join)
)
def test_no_name_leaves_the_root(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    root = tmp_path_factory.getbasetemp() / "root"
    with suppress(MedProtectError):
        path = inside(root, name)
        assert path.resolve().is_relative_to(root.resolve())
        assert path != root
        assert ".." not in path.parts
        assert path.relative_to(root).as_posix() == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../x",
        "a/../../x",
        "a/./b",
        "/etc/passwd",
        "//host/x",
        "a//b",
        "C:/x",
        "c:x",
        "a\\..\\b",
        "a\0b",
        "a\nb",
        "nul",
        "a/COM1.nii",
        "x.",
        "x ",
        "a" * 256,
        "x:y",
        "\ud800",
    ],
)
def test_names_that_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(MedProtectError, match="not a name that a file inside"):
        inside(tmp_path, name)


@pytest.mark.parametrize("name", ["a", "a/b.nii.gz", "Müller 3/x", "..a", "a..b", ".hidden", "console", "-x"])
def test_names_that_are_taken(name: str, tmp_path: Path) -> None:
    assert inside(tmp_path, name) == tmp_path / name


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_no_symbolic_link_leads_out(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (root / "link").symlink_to(outside)
    (root / "within").symlink_to(root)
    (root / "file.nii").symlink_to(outside / "file.nii")
    for name in ("link/x", "file.nii"):
        with pytest.raises(MedProtectError, match="symbolic link leads out"):
            inside(root, name)
    assert inside(root, "within/x") == root / "within" / "x"
    (outside / "kept").write_text("kept")
    (root / "target").symlink_to(outside / "kept")
    write_private(root / "target", b"new")
    assert ((outside / "kept").read_text(), (root / "target").is_symlink()) == ("kept", False)


@pytest.mark.parametrize("name", ["../secret.raw", "/etc/hostname", "sub/../../secret.raw", "{outside}"])
@pytest.mark.parametrize("extension", [".nhdr", ".mhd"])
def test_a_header_cannot_name_voxels_elsewhere(name: str, extension: str, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "secret.raw").write_bytes(GREY.tobytes())
    name = name.format(outside=tmp_path / "secret.raw")
    header = nrrd(GREY, packed=b"", data_file=name) if extension == ".nhdr" else metaimage(GREY, b"", ElementDataFile=name)
    (folder / f"a{extension}").write_bytes(header)
    with pytest.raises(MedProtectError, match="lies outside its folder"):
        read_volume(folder / f"a{extension}")


@contextmanager
def memory_below(limit: int) -> Iterator[None]:
    """Fails when Python or numpy hold more than ``limit`` bytes at any moment."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < limit, f"{peak:,} bytes"


def bombs() -> dict[str, tuple[str, bytes]]:
    """Small files that unpack to, or announce, far more than they are."""
    zeros, image = bytes(200 * MEBIBYTE), nifti(GREY.T).to_bytes()
    claims = {"sizes": "100000 100000 100"}
    huge = bytearray(image)
    huge[42:48] = np.array([32767, 32767, 32767], "<i2").tobytes()
    return {
        "gzip behind the voxels": (".nii.gz", gzip.compress(image + zeros, 1)),
        "gzip members": (".nii.gz", gzip.compress(image, 1) + gzip.compress(zeros, 1)),
        "NIfTI that claims 64 TB": (".nii", bytes(huge)),
        "NIfTI that claims 64 TB, packed": (".nii.gz", gzip.compress(bytes(huge))),
        "NRRD, more packed than announced": (".nrrd", nrrd(GREY, "gzip", gzip.compress(zeros, 1))),
        "NRRD that claims 2 TB": (".nrrd", nrrd(GREY, **claims)),
        "NRRD that claims 2 TB, packed": (".nrrd", nrrd(GREY, "gzip", **claims)),
        "NRRD of endless numbers": (".nrrd", nrrd(GREY, "ascii", b"1 " * (10 * MEBIBYTE))),
        "NRRD of one endless number": (".nrrd", nrrd(GREY, "ascii", b"1" * (20 * MEBIBYTE))),
        "NRRD of endless digits": (".nrrd", nrrd(GREY, "hex", b"00" * (10 * MEBIBYTE))),
        "MetaImage, more packed than announced": (".mha", metaimage(GREY, zlib.compress(zeros, 1), compressed=True)),
        "MetaImage that claims 2 TB": (".mha", metaimage(GREY, DimSize="100000 100000 100")),
        "PNG that claims 17 GB": (".png", png(2**17, 2**17, 8, 0, bytes(1000))),
        "TIFF whose tags share the file": (".tif", tiff_with_shared_values(60_000)),
    }


BOMBS = bombs()


@pytest.mark.parametrize("name", BOMBS)
def test_no_file_takes_more_memory_than_it_deserves(name: str, tmp_path: Path) -> None:
    extension, content = BOMBS[name]
    path = tmp_path / f"a{extension}"
    path.write_bytes(content)
    with memory_below(len(content) * 6 + 8 * MEBIBYTE), suppress(MedProtectError):
        read_volume(path)


def test_arrays_that_claim_too_much(tmp_path: Path) -> None:
    from MedProtectLib.io.npz import read_array

    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": (10**6, 10**6)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("train_images.npy", stream.getvalue() + bytes(100))
    with memory_below(8 * MEBIBYTE), pytest.raises(MedProtectError, match="announces"):
        read_array(tmp_path / "a.npz", "train_images")


def test_records_tables_and_keys_have_a_limit(tmp_path: Path) -> None:
    for content in (b"[" * 200_000, b'{"a":' * 200_000, b"\xff\xfe", b"[1]", b"1", b"", b'{"a": "' + b"x" * 1000 + b'"}'):
        (tmp_path / "a.json").write_bytes(content)
        with pytest.raises(MedProtectError, match="is damaged"):
            read_json(tmp_path / "a.json", "it is damaged.", most=900_000 if len(content) != 1009 else 1000)
    for content in (b"a,b\n1,2,3\n", b"a,a\n1,2\n", b"a\n\xff\n", b'a\n"x', b"a\n" + b"x" * 200_000, b"a\n" + b"1\n" * 1000):
        (tmp_path / "a.csv").write_bytes(content)
        with pytest.raises(MedProtectError, match="no table"):
            read_table(tmp_path / "a.csv", "no table.", most=1999 if content.endswith(b"1\n") else 1 << 20)
    (tmp_path / "a.csv").write_text("a,b\n1\n\n2,x\n", encoding="utf-8-sig")
    assert read_table(tmp_path / "a.csv", "no table.") == (("a", "b"), [{"a": "1", "b": ""}, {"a": "2", "b": "x"}])


def test_an_error_is_one_line_whatever_the_file_says(tmp_path: Path, run: Run) -> None:
    (tmp_path / "a.nrrd").write_bytes(nrrd(GREY, type="short\x1b[2J\x07" + "x" * 5000))
    code, _, err = run("protect", tmp_path / "a.nrrd", "--class", "1", "--output", tmp_path / "out")
    assert (code, err.count("\n")) == (1, 1)
    assert err.rstrip("\n").isprintable()
    assert len(err) < LONGEST_LINE + 100
    assert err.rstrip().endswith("are not supported.")


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_private_files_are_private_while_they_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda file: modes.append(stat.S_IMODE(os.fstat(file).st_mode)))
    before = os.umask(0)
    try:
        folder = private_folder(tmp_path / "a" / "b")
        write_private(folder / "secret", b"x")
        (folder / "old").write_text("old")
        write_private(folder / "old", b"new")
    finally:
        os.umask(before)
    assert modes == [0o600, 0o600]
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "a", folder)} == {0o700}
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {"secret": 0o600, "old": 0o600}


def test_nothing_is_left_of_a_private_file_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MedProtectError, match="No space left"):
        save_key(SiteKey.new(), tmp_path / "k")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_what_a_run_keeps_private_nobody_else_can_read(tmp_path: Path, hippocampus: tuple[Path, Path], run: Run) -> None:
    before = os.umask(0)
    try:
        run("keys", "new", tmp_path / "site.key")
        image, labels = hippocampus
        code, _, err = run("protect", image, "--labels", labels, "--output", tmp_path / "out", "--key", tmp_path / "site.key")
    finally:
        os.umask(before)
    assert code == 0, err
    private = tmp_path / "out_private"
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in private.rglob("*") if path.is_file()}
    assert set(files.values()) == {0o600}
    assert "hippocampus_011_perturbation.medvault" in files
    assert not [name for name in files if name.endswith(".nrrd")]
    record = json.loads((tmp_path / "out" / "hippocampus_011_record.json").read_text())
    assert str(tmp_path) not in json.dumps(record)
    protected = tmp_path / "out" / "hippocampus_011_protected.nii.gz"
    arguments = ("restore", protected, "--vault", private, "--key", tmp_path / "site.key", "--output", tmp_path / "back" / image.name)
    assert run(*arguments)[0] == 0
    assert read_volume(tmp_path / "back" / image.name).array.tobytes() == read_volume(image).array.tobytes()


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_checkpoints_of_a_fit_are_private(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from MedProtectLib.fitting.checkpoint import load_checkpoint, save_checkpoint

    before = os.umask(0)
    try:
        network = torch.nn.Linear(2, 2)
        save_checkpoint(tmp_path / "c.safetensors", {"n": network}, 3, 0.5, "run")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "c.safetensors").stat().st_mode) == 0o600
    assert load_checkpoint(tmp_path / "c.safetensors", {"n": network}, "run") == (3, 0.5)
