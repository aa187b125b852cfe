from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from MedProtectLib.errors import MedProtectError
from MedProtectLib.profile import HEADER, SCHEMA, Profile, shipped_profile
from samples import SAMPLES


def small(**more: object) -> Profile:
    tensors = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.array(0.5, np.float32)}
    return Profile("umed", {"dimension": 3, "half_width": 3, "channels": [2, 3]}, tensors, 4 / 255, 11, **more)  # type: ignore[arg-type]


def rewritten(path: Path, **changes: object) -> Path:
    """The profile file with entries of its header changed."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        header = json.loads(file.metadata()[HEADER])
    save_file(load_file(path), path, metadata={HEADER: json.dumps(header | changes)})
    return path


def test_round_trip(tmp_path: Path) -> None:
    profile = small(window=(-160.0, 240.0), modality="CT", public=True, training={"cases": ["a"]})
    profile.save(tmp_path / "p.medprotect")
    loaded = Profile.load(tmp_path / "p.medprotect")
    assert {k: v for k, v in vars(loaded).items() if k != "tensors"} == {k: v for k, v in vars(profile).items() if k != "tensors"}
    assert all(np.array_equal(loaded.tensors[name], profile.tensors[name]) for name in profile.tensors)
    assert loaded.sha256() == profile.sha256()


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    small().save(tmp_path / "p.medprotect")
    assert (tmp_path / "p.medprotect").stat().st_mode & 0o077 == 0


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    small().save(tmp_path / "p.medprotect")
    with pytest.raises(MedProtectError, match="newer MedProtect"):
        Profile.load(rewritten(tmp_path / "p.medprotect", schema=SCHEMA + 1))


@pytest.mark.parametrize("change", [{"bound": 0.5}, {"seed": 12}, {"public": True}, {"sha256": "0" * 64}])
def test_a_changed_header_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    small().save(tmp_path / "p.medprotect")
    with pytest.raises(MedProtectError, match="changed after it was written"):
        Profile.load(rewritten(tmp_path / "p.medprotect", **change))


@given(position=st.integers(0, 10_000), bit=st.integers(0, 7))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_flipped_bit_goes_unseen(tmp_path: Path, position: int, bit: int) -> None:
    data = bytearray(small().to_bytes())
    data[position % len(data)] ^= 1 << bit
    path = tmp_path / "flipped.medprotect"
    path.write_bytes(data)
    try:
        loaded = Profile.load(path)
    except MedProtectError:
        return
    assert loaded.to_bytes() == small().to_bytes(), "only a flip in the padding of the header may pass"


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff" * 64, (10**15).to_bytes(8, "little") + b"{}"])
def test_what_is_no_profile_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "p.medprotect"
    path.write_bytes(content)
    with pytest.raises(MedProtectError, match="not a MedProtect profile"):
        Profile.load(path)


@pytest.mark.parametrize("dimension", [2, 3])
def test_shipped_profiles_are_public_and_saw_no_case_that_is_scored(dimension: int) -> None:
    path = shipped_profile("umed", dimension)
    assert path is not None
    profile = Profile.load(path)
    lists = [json.loads((SAMPLES / "splits" / f"{name}.json").read_text()) for name in ("hippocampus", "lidc_nodules")]
    assert profile.public
    assert sorted(profile.training["cases"]) == sorted(case for each in lists for case in each["profile"])
    assert "CC BY" in profile.training["note"]
