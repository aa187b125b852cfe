"""Nothing leaves with a release because it happened to lie in the dataset, or because a link there leads to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from release_cases import bids, decathlon, release_here
from samples import Run

pytestmark = pytest.mark.usefixtures("no_pictures")
MADE = {"medprotect_records.jsonl", "medprotect_release.json"}


def refused(run: Run, dataset: Path, out: Path, profile: Path) -> str:
    """What is said of a dataset that is refused before the first case, in one line."""
    code, _, said = release_here(run, dataset, out, profile)
    assert (code, said.count("\n")) == (1, 1)
    assert not out.exists()
    return said


@pytest.mark.parametrize("name", ["dataset.json", "dataset_description.json", "participants.tsv", ".bidsignore"])
def test_a_file_about_the_dataset_is_no_link_out_of_it(run: Run, profile: Path, tmp_path: Path, name: str) -> None:
    dataset = decathlon(tmp_path / "in", 1) if name == "dataset.json" else bids(tmp_path / "in", "sub-01_T1w")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text('{"Name": "secret"}')
    (dataset / name).unlink(missing_ok=True)
    (dataset / name).symlink_to(elsewhere)
    assert f"{name}: a symbolic link that leads out of the dataset" in refused(run, dataset, tmp_path / "out", profile)
