"""Nothing leaves with a release because it happened to lie in the dataset, or because a link there leads to it."""

from __future__ import annotations

import copy
import csv
import json
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread

import made_dicom
from MedProtectLib.fitting.dataset import find_cases
from MedProtectLib.io import read_volume
from MedProtectLib.io.index import labels_by_index
from MedProtectLib.release.layouts import find_layout
from release_cases import NAMES, bids, box, decathlon, manifest, release_here, tree, volume
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


def scan(folder: Path, seed: int = 0, edit: made_dicom.Edit = made_dicom.unchanged) -> Path:
    """The folder of a made DICOM series."""
    return made_dicom.series(folder, np.random.default_rng(seed).normal(0, 100, (8, 32, 32)).astype(np.int16), edit=edit)


def outlines(path: Path, images: Path) -> Path:
    """A segmentation of it."""
    masks = np.zeros((8, 32, 32, 2), np.uint8)
    masks[2:6, 8:24, 8:24, 0] = masks[3:5, 4:8, 4:8, 1] = 1
    return made_dicom.segmentation(path, sorted(images.iterdir()), masks)


@pytest.mark.parametrize("image", ["series", "series/IMG003"])
def test_of_a_series_in_a_manifest_its_own_files_go_out(run: Run, profile: Path, tmp_path: Path, image: str) -> None:
    dataset, out = tmp_path / "in", tmp_path / "out"
    names = {path.name for path in scan(dataset / "series").iterdir()}
    (tmp_path / "key").write_text("secret")
    (dataset / "series" / "link").symlink_to(tmp_path / "key")
    (dataset / "series" / "report.txt").write_text("Jane Doe")
    table = manifest(dataset, f"a,{image},")
    assert release_here(run, table, out, profile, "--unlabelled", "copy")[0] == 0
    assert set(tree(out)) == {"cases.csv", *(f"{image}/{name}" for name in names)} | MADE
    assert next(csv.DictReader((out / "cases.csv").open()))["image"] == image
    assert read_volume(out / image).array.shape == (8, 32, 32)


@pytest.mark.parametrize("listed", [True, False])
def test_slices_that_are_links_out_of_the_dataset_stay_behind(run: Run, profile: Path, tmp_path: Path, listed: bool) -> None:
    dataset, out = tmp_path / "in", tmp_path / "out"
    series = scan(tmp_path / "elsewhere")
    outlines(dataset / "labels" / "seg.dcm", series)
    (dataset / "series").mkdir()
    for path in series.iterdir():
        (dataset / "series" / path.name).symlink_to(path)
    code, answer, said = release_here(run, manifest(dataset, "a,series,labels/seg.dcm") if listed else dataset, out, profile)
    assert (code, answer["counts"]["quarantined"]) == (1, 1)
    assert "symbolic link" in said
    assert not [name for name in tree(out) if "/" in name]


def differing_names(dataset: Path) -> list[dict[str, str]]:
    """A Decathlon dataset whose images and label maps are called differently, and the pairs of its index."""
    pairs = [{"image": f"./imagesTr/img{n}.nii.gz", "label": f"./labelsTr/label{n}.nii.gz"} for n in (1, 2)]
    for seed, pair in enumerate(pairs):
        volume(dataset / pair["image"], seed)
        box(dataset / pair["label"])
    return pairs


@pytest.mark.parametrize("nnunet", [False, True])
def test_images_and_label_maps_are_paired_by_the_index(run: Run, profile: Path, tmp_path: Path, nnunet: bool) -> None:
    dataset, out = tmp_path / "in", tmp_path / "out"
    pairs = differing_names(dataset)
    if nnunet:
        for pair in pairs:
            (dataset / pair["image"]).rename(dataset / pair["image"].replace(".nii", "_0000.nii"))
        cases = {str(n): {"images": [p["image"].replace(".nii", "_0000.nii")], "label": p["label"]} for n, p in enumerate(pairs)}
        (dataset / "dataset.json").write_text(json.dumps({"dataset": cases}))
    else:
        (dataset / "dataset.json").write_text(json.dumps({"numTraining": 2, "training": pairs, "test": []}))
    assert [case.labels for case in find_cases(dataset)] == [dataset / pair["label"] for pair in pairs]
    assert release_here(run, dataset, out, profile, "--unlabelled", "copy")[1]["counts"]["ok"] == 2
    before, after = tree(dataset), tree(out)
    assert {name for name in after if before.get(name) == after[name]} == {
        "dataset.json",
        "labelsTr/label1.nii.gz",
        "labelsTr/label2.nii.gz",
    }


def test_labels_without_images_beside_images_without_labels_are_refused(run: Run, profile: Path, tmp_path: Path) -> None:
    differing_names(tmp_path / "in")
    said = refused(run, tmp_path / "in", tmp_path / "out", profile)
    assert "'label1.nii.gz' belongs to no image, and image 'img1.nii.gz' has no label map" in said


@pytest.mark.parametrize("index", ["[]", '{"training": [1, {"image": 1, "label": []}, {"image": "a"}], "dataset": {"a": 1}}', "{"])
def test_an_index_that_names_no_pairs_pairs_nothing(tmp_path: Path, index: str) -> None:
    (tmp_path / "dataset.json").write_text(index)
    assert labels_by_index(tmp_path, "Tr") == {}


@pytest.mark.parametrize("labels", ["labels/seg.dcm", "labels"])
def test_a_segmentation_in_a_manifest_refers_to_what_went_out(run: Run, profile: Path, tmp_path: Path, labels: str) -> None:
    dataset, out = tmp_path / "in", tmp_path / "out"
    outlines(dataset / "labels" / "seg.dcm", scan(dataset / "series"))
    table = manifest(dataset, f"a,series,{labels}")
    assert release_here(run, table, out, profile)[0] == 0
    slices = [dcmread(path, stop_before_pixels=True) for path in (out / "series").iterdir()]
    (referred,) = dcmread(out / "labels" / "seg.dcm").ReferencedSeriesSequence
    assert {referred.SeriesInstanceUID} == {one.SeriesInstanceUID for one in slices} != {made_dicom.SERIES}
    assert {item.ReferencedSOPInstanceUID for item in referred.ReferencedInstanceSequence} == {one.SOPInstanceUID for one in slices}
    assert next(csv.DictReader((out / "cases.csv").open()))["labels"] == labels
    assert release_here(run, table, out, profile, "--resume")[1]["counts"]["skipped"] == 1


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_a_segmentation_of_two_series_is_withheld_and_counted(
    run: Run, profile: Path, tmp_path: Path, listed: bool, more: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("MedProtectLib.release.dry_run.SAMPLES", 0)
    dataset, out, other = tmp_path / "in", tmp_path / "out", f"{made_dicom.SERIES}9"

    def second(slab: Dataset, number: int) -> None:
        slab.SeriesInstanceUID, slab.SOPInstanceUID = other, f"{other}.{number + 1}"

    seg = outlines(dataset / "labels" / "seg.dcm", scan(dataset / "ct"))
    scan(dataset / "mr", 1, second)
    made = dcmread(seg)
    named = copy.deepcopy(made.ReferencedSeriesSequence[0])
    named.SeriesInstanceUID = other
    for number, item in enumerate(named.ReferencedInstanceSequence, start=1):
        item.ReferencedSOPInstanceUID = f"{other}.{number}"
    made.ReferencedSeriesSequence.append(named)
    made.save_as(seg)
    table = manifest(dataset, "a,ct,labels/seg.dcm", "b,mr,labels/seg.dcm")
    if not listed:
        table.unlink()
    code, answer, said = release_here(run, table if listed else dataset, out, profile, *more)
    assert (code, answer["counts"]["ok"], answer["objects_withheld"]) == (1, 2, 1 + listed)
    assert more or "labels/seg.dcm was withheld" in said
    assert not (out / "labels").exists()


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_a_labelled_case_in_an_unknown_format_is_quarantined(
    run: Run, profile: Path, tmp_path: Path, more: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("MedProtectLib.release.dry_run.SAMPLES", 0)
    dataset, out = decathlon(tmp_path / "in", 2), tmp_path / "out"
    (dataset / "imagesTr" / NAMES[1]).rename(dataset / "imagesTr" / NAMES[1].replace(".nii.gz", ".mgz"))
    (dataset / "imagesTr" / NAMES[0].replace(".nii.gz", ".txt")).write_text("notes")
    code, answer, said = release_here(run, dataset, out, profile, *more)
    assert (code, answer["counts"]["ok"], answer["counts"]["quarantined"]) == (1, 1, 1)
    assert more or "no image format is known by '.mgz'" in said


def test_a_labelled_bids_image_of_an_unknown_format_is_a_case(tmp_path: Path) -> None:
    dataset = bids(tmp_path, "sub-01_T1w")
    (dataset / "sub-01" / "anat" / "sub-01_scans.tsv").write_text("x")
    (dataset / "sub-01" / "anat" / "sub-01_notes.txt").write_text("x")
    assert [case.name for case in find_layout(dataset).cases()] == ["sub-01_T1w"], "the label map has an image"
    (dataset / "sub-01" / "anat" / "sub-01_notes.txt").unlink()
    (dataset / "sub-01" / "anat" / "sub-01_T1w.nii.gz").rename(dataset / "sub-01" / "anat" / "sub-01_T1w.mgz")
    (case,) = find_layout(dataset).cases()
    assert (case.image.source, case.labels) == ("sub-01/anat/sub-01_T1w.mgz", "sub-01/anat/sub-01_dseg.nii.gz")


def test_files_that_stay_behind_are_counted(run: Run, profile: Path, tmp_path: Path) -> None:
    dataset = decathlon(tmp_path / "in", 1)
    code, answer, said = release_here(run, dataset, tmp_path / "out", profile)
    assert (code, answer["left_out"], said) == (0, 0, "")
    for name in ("notes.txt", "imagesTs/a.mgz"):
        (dataset / name).write_text("x")
    code, answer, said = release_here(run, dataset, tmp_path / "again", profile)
    assert (code, answer["left_out"]) == (0, 2)
    assert "2 files of the dataset belong to no case and stayed behind" in said


def test_an_image_is_no_note_about_the_dataset(run: Run, profile: Path, tmp_path: Path) -> None:
    dataset, out = decathlon(tmp_path / "in", 1), tmp_path / "out"
    notes, images = {"README", "CITATION.cff", "CHANGES.md"}, {"README.nii.gz", "README.png", "NOTICE.jpg", "LICENSE.dcm", "README.mgz"}
    for name in notes | images:
        (dataset / name).write_text("x")
    assert release_here(run, dataset, out, profile)[0] == 0
    assert {name for name in tree(out) if "/" not in name} == {"LICENSE.txt", "dataset.json"} | notes | MADE
    assert set((tmp_path / "out_private" / "left_out.txt").read_text().split()) == images


def test_what_lies_in_a_hidden_folder_is_no_case(tmp_path: Path) -> None:
    dataset = bids(tmp_path, "sub-01_T1w")
    volume(dataset / "sub-01" / ".trash" / "anat" / "sub-01_T2w.nii.gz", 1)
    assert [case.name for case in find_layout(dataset).cases()] == ["sub-01_T1w"]


def test_a_series_in_two_folders_does_not_go_out_by_half(run: Run, profile: Path, tmp_path: Path) -> None:
    dataset, out = tmp_path / "in", tmp_path / "out"
    series = scan(dataset / "s1")
    outlines(dataset / "labels" / "seg.dcm", series)
    (dataset / "s2").mkdir()
    for path in sorted(series.iterdir())[4:]:
        path.rename(dataset / "s2" / path.name)
    code, answer, said = release_here(run, dataset, out, profile)
    assert (code, answer["counts"]["quarantined"]) == (1, 1)
    assert "slices in other folders too" in said
    assert set(tree(out)) == MADE
