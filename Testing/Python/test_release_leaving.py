"""Nothing leaves with a release because it happened to lie in the dataset, or because a link there leads to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from release_cases import bids, decathlon, release_here, tree
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


def test_of_the_sidecars_in_the_top_folder_those_go_out_that_an_image_inherits(run: Run, profile: Path, tmp_path: Path) -> None:
    dataset, out = bids(tmp_path / "in", "sub-01_acq-thin_T1w"), tmp_path / "out"
    (dataset / "sub-01" / "anat" / "sub-01_dseg.nii.gz").rename(dataset / "sub-01" / "anat" / "sub-01_acq-thin_dseg.nii.gz")
    inherited = {"T1w.json", "acq-thin_T1w.json", "dseg.json", "participants.json"}
    others = ["acq-thick_T1w.json", "bold.json", "names.json", "names_T1w.json", "site.json", "sub-01_T1w.json", "task-rest_bold.json"]
    for name in (*inherited, *others):
        (dataset / name).write_text("{}")
    assert release_here(run, dataset, out, profile)[0] == 0
    assert {name for name in tree(out) if "/" not in name} == inherited | MADE | {".bidsignore", "dataset_description.json"}
    assert (tmp_path / "out_private" / "left_out.txt").read_text().split() == others
