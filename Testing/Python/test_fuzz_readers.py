"""A slice of Testing/Benchmarks/fuzz_readers.py, and readers against what hypothesis makes up."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from made_images import metaimage, nrrd
from MedProtectLib.errors import MedProtectError
from MedProtectLib.io import read_volume
from MedProtectLib.release.keys import load_key
from MedProtectLib.release.vault import Entry
from MedProtectLib.untrusted import read_table

if sys.platform == "win32":
    pytest.skip("the limit of memory is POSIX", allow_module_level=True)

from fuzz.loop import ACCEPTED, FOUND, REFUSED, Loop, Outcome, damaged_files
from fuzz.misbehaving import MISTAKES
from fuzz.targets import TARGETS

INPUTS = {target: 2 if target.startswith("release") else 12 for target in TARGETS}  # a release takes a third of a second
GREY = np.arange(24, dtype="<i2").reshape(2, 3, 4)
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

words = st.one_of(
    st.integers().map(str),
    st.floats().map(repr),
    st.sampled_from(
        ["none", "(1,0,0)", "(0,nan,1)", "domain", "list", "left-posterior-superior", "LPS", "raw", "gzip", "../x", "LOCAL", "True", ""]
    ),
    st.text(st.characters(codec="utf-8"), max_size=8),
)
values = st.lists(words, max_size=5).map(" ".join)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["00" * 32, "AES-256-GCM", 1]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def only_refused(path: Path, read: object) -> None:
    """Success or a MedProtectError; anything else fails the test."""
    try:
        read(path)  # type: ignore[operator]
    except MedProtectError as error:
        assert str(error).isprintable()  # noqa: PT017 (acceptance is fine as well)


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    """What became of some damaged inputs of every target, in a child process with bounded memory."""
    with Loop() as loop:
        return [outcome for target in TARGETS for outcome in loop.run(target, range(INPUTS[target]))]


def test_damaged_files_are_read_or_refused(outcomes: list[Outcome]) -> None:
    assert [outcome for outcome in outcomes if outcome.kind == FOUND] == []
    assert len(outcomes) == sum(INPUTS.values())


def test_the_slice_meets_both_ends(outcomes: list[Outcome]) -> None:
    counts = Counter(outcome.kind for outcome in outcomes)
    assert counts[ACCEPTED] > len(outcomes) / 10
    assert counts[REFUSED] > len(outcomes) / 3
    assert len({outcome.detail for outcome in outcomes}) > 50


def test_inputs_can_be_made_again() -> None:
    for target in ("nifti gzip", "png colours", "manifest", "vault entry"):
        one, again, other = (damaged_files(TARGETS[target], target, number) for number in (3, 3, 4))
        assert one == again != other


def test_the_loop_notices(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception, too much memory, time without end, a crash, a file elsewhere: all are found, and the loop goes on."""
    monkeypatch.setattr("fuzz.loop.MOST_SECONDS", 0.5)
    with Loop("fuzz.misbehaving") as loop:
        details = {outcome.target: outcome.detail for name in MISTAKES for outcome in loop.run(name, range(1)) if outcome.kind == FOUND}
    assert list(details) == list(MISTAKES)
    wanted = ("ValueError", "MemoryError", "still running", "died", "wrote elsewhere")
    assert all(word in detail for word, detail in zip(wanted, details.values(), strict=True)), details


@given(
    fields=st.dictionaries(
        st.sampled_from(
            [
                "type",
                "dimension",
                "sizes",
                "space",
                "space_directions",
                "space_origin",
                "spacings",
                "kinds",
                "encoding",
                "endian",
                "byte_skip",
                "data_file",
            ]
        ),
        values,
        max_size=4,
    )
)
@quick
def test_nrrd_headers(tmp_path: Path, fields: dict[str, str]) -> None:
    (tmp_path / "a.nrrd").write_bytes(nrrd(GREY, **fields))
    only_refused(tmp_path / "a.nrrd", read_volume)


@given(
    fields=st.dictionaries(
        st.sampled_from(
            [
                "NDims",
                "DimSize",
                "ElementType",
                "ElementSpacing",
                "Offset",
                "TransformMatrix",
                "ElementNumberOfChannels",
                "CompressedData",
                "BinaryData",
                "HeaderSize",
                "DistanceUnits",
                "ElementDataFile",
            ]
        ),
        values,
        max_size=4,
    )
)
@quick
def test_metaimage_headers(tmp_path: Path, fields: dict[str, str]) -> None:
    (tmp_path / "a.mha").write_bytes(metaimage(GREY, **fields))
    only_refused(tmp_path / "a.mha", read_volume)


@given(content=st.dictionaries(st.sampled_from(["medprotect_key", "site", "release", "key", "cases", "check", "x"]), json_values))
@quick
def test_key_files(tmp_path: Path, content: dict[str, object]) -> None:
    path = tmp_path / "k"
    path.touch(0o600)
    path.write_text(json.dumps({"medprotect_key": 1, **content}))
    with pytest.raises(MedProtectError):
        load_key(path, "a passphrase")


@given(
    content=st.dictionaries(st.sampled_from(["schema", "algorithm", "release", "case", "key_id", "salt", "protected_sha256"]), json_values),
    rest=st.binary(max_size=40),
)
@quick
def test_vault_entries(tmp_path: Path, content: dict[str, object], rest: bytes) -> None:
    head = json.dumps(content).encode()
    (tmp_path / "e.medvault").write_bytes(b"MEDVAULT" + len(head).to_bytes(4, "big") + head + rest)
    with pytest.raises(MedProtectError):
        Entry.load(tmp_path / "e.medvault")


@given(
    content=st.binary(max_size=60)
    | st.lists(st.lists(st.text(max_size=5), max_size=4).map(",".join), max_size=4).map(
        lambda rows: "\n".join(rows).encode("utf-8", "replace")
    )
)
@quick
def test_tables(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    only_refused(tmp_path / "a.csv", lambda path: read_table(path, "no table."))
