"""Every layout of a dataset comes out as it went in, so that what loads the dataset loads its release."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from MedProtectLib.errors import MedProtectError
from MedProtectLib.fitting.dataset import CaseFiles, find_cases
from MedProtectLib.fitting.fit import FitOptions, fit, fit_on_case
from MedProtectLib.io import read_labels, read_volume
from MedProtectLib.release.case import Item, ReleaseCase, file_name_of
from MedProtectLib.release.layouts import find_layout
from MedProtectLib.release.layouts.bids import Bids
from release_cases import HIPPOCAMPUS, NAMES, box, decathlon, manifest, release_here, tree, volume, voxels
from samples import Run

pytestmark = pytest.mark.usefixtures("no_pictures")


def release(run: Run, dataset: Path, out: Path, profile: Path, *more: object, code: int = 0) -> dict:
    done, answer, said = run("release", dataset, "--output", out, "--profile", profile, "--no-vault", "--jobs", 0, "--json", *more)
    assert done == code, said
    return json.loads(answer)


def profile_for(case: CaseFiles | list[CaseFiles], folder: Path, **options: object) -> Path:
    path = folder / "own.medprotect"
    fit(case if isinstance(case, list) else [case], path, FitOptions(method="lsp", seed=3, **options))  # type: ignore[arg-type]
    return path


def picture(path: Path, rng: np.random.Generator) -> None:
    """A PNG of 24 x 20 grey pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(rng.integers(30, 220, (20, 24)).astype(np.uint8)), path)


def test_channels_of_nnunet_are_one_case(run: Run, tmp_path: Path, rng: np.random.Generator) -> None:
    dataset = tmp_path / "Dataset007_Made"
    labels = np.zeros((20, 20, 12), np.uint8)
    labels[5:15, 5:15, 3:9] = 1
    (dataset / "labelsTr").mkdir(parents=True)
    (dataset / "imagesTr").mkdir()
    for case in ("made_001", "made_002"):
        nib.save(nib.Nifti1Image(labels, np.eye(4)), dataset / "labelsTr" / f"{case}.nii.gz")
        for channel in (0, 1):
            image = rng.integers(1, 900 * (channel + 1), labels.shape).astype(np.int16)
            nib.save(nib.Nifti1Image(image, np.eye(4)), dataset / "imagesTr" / f"{case}_{channel:04d}.nii.gz")
    about = {"channel_names": {"0": "T1", "1": "T2"}, "labels": {"background": 0, "x": 1}, "numTraining": 2, "file_ending": ".nii.gz"}
    (dataset / "dataset.json").write_text(json.dumps(about))
    own = profile_for(find_cases(dataset), tmp_path)
    assert release(run, dataset, tmp_path / "out", own)["counts"]["ok"] == 2
    before, after = tree(dataset), tree(tmp_path / "out")
    assert {name for name in after if "/" in name or name == "dataset.json"} == set(before)
    assert [name for name in before if before[name] == after[name]] == [name for name in before if not name.startswith("imagesTr")]
    (dataset / "imagesTr" / "made_002_0001.nii.gz").unlink()
    answer = release(run, dataset, tmp_path / "out2", own, code=1)
    assert answer["counts"]["quarantined"] == 1
    assert json.loads((tmp_path / "out2" / "dataset.json").read_text()) == about | {"numTraining": 1}
    assert sorted(p.name for p in (tmp_path / "out2" / "imagesTr").iterdir()) == ["made_001_0000.nii.gz", "made_001_0001.nii.gz"]


def test_images_and_labels_without_tr_are_images_and_labels(run: Run, tmp_path: Path) -> None:
    dataset = decathlon(tmp_path / "in", 2)
    (dataset / "dataset.json").unlink(missing_ok=True)
    for kind in ("images", "labels"):
        (dataset / f"{kind}Tr").rename(dataset / kind)
    own = profile_for(find_cases(dataset), tmp_path)
    assert release(run, dataset, tmp_path / "out", own)["counts"]["ok"] == 2
    before, after = tree(dataset), tree(tmp_path / "out")
    assert {name for name in after if "/" in name} == {name for name in before if "/" in name}
    assert all((before[name] == after[name]) == name.startswith("labels/") for name in before if "/" in name)


@pytest.mark.parametrize(
    ("images", "labels", "said"),
    [
        ("scans/a.png", "masks/a.png", "'masks' seems to hold label maps"),
        ("train/images/a.png", "train/labels/a.png", "'labels' seems to hold label maps"),
        ("benign/benign (1).png", "benign/benign (1)_mask.png", "'benign (1)_mask' seems to be the label map of 'benign (1)'"),
        ("benign/a.png", "benign/a_mask_1.png", "'a_mask_1' seems to be the label map of 'a'"),
    ],
)
def test_label_maps_are_not_taken_for_images_of_a_class(
    run: Run, profile: Path, tmp_path: Path, rng: np.random.Generator, images: str, labels: str, said: str
) -> None:
    dataset, out = tmp_path / "in", tmp_path / "out"
    for path in (images, labels, "malignant/b.png"):
        picture(dataset / path, rng)
    code, _, err = run("release", dataset, "--output", out, "--profile", profile, "--no-vault", "--jobs", 0)
    assert (code, len(err.strip().splitlines())) == (1, 1)
    assert said in err
    assert not any(out.glob("*/*"))
    if not images.startswith("train"):
        with pytest.raises(MedProtectError, match=re.escape(said)):
            find_cases(dataset)


def test_a_folder_of_labels_without_an_image_is_no_class(tmp_path: Path, rng: np.random.Generator) -> None:
    for path in ("benign/1.png", "malignant/1.png"):
        picture(tmp_path / path, rng)
    (tmp_path / "labels").mkdir()
    assert {case.image_class for case in find_cases(tmp_path)} == {"benign", "malignant"}
    assert len(list(find_layout(tmp_path).cases())) == 2


def test_classes_may_share_the_names_of_their_images(tmp_path: Path, rng: np.random.Generator) -> None:
    for path in ("benign/1.png", "benign/1_mask_of_a_dancer.png", "malignant/1.png"):
        picture(tmp_path / path, rng)
    assert [case.image_class for case in find_cases(tmp_path)] == ["benign", "benign", "malignant"]
    assert len(list(find_layout(tmp_path).cases())) == 3


def test_one_channel_of_nnunet_and_four_digits_of_decathlon(tmp_path: Path) -> None:
    dataset = decathlon(tmp_path / "in", 2)
    (dataset / "imagesTr" / NAMES[0]).rename(dataset / "imagesTr" / "a_0000.nii.gz")
    (dataset / "labelsTr" / NAMES[0]).rename(dataset / "labelsTr" / "a.nii.gz")
    for name in ("b_0000.nii.gz", "b_0001.nii.gz"):
        for part in ("imagesTr", "labelsTr"):
            shutil.copyfile(HIPPOCAMPUS / part / NAMES[2], dataset / part / name)
    cases = {case.name: case for case in find_layout(dataset).cases()}
    assert set(cases) == {"a", "b_0000", "b_0001", NAMES[1].removesuffix(".nii.gz")}
    assert cases["a"].image.target == "imagesTr/a_0000.nii.gz"
    assert cases["a"].labels == "labelsTr/a.nii.gz"
    assert cases["b_0001"].labels == "labelsTr/b_0001.nii.gz"


def test_test_images_are_channels_only_where_training_images_are(tmp_path: Path) -> None:
    for name in ("labelsTr/liver_0005", "imagesTr/liver_0005", "imagesTs/liver_0000", "imagesTs/liver_0001"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.nii.gz").touch()
    layout = find_layout(tmp_path)
    assert [case.name for case in layout.cases()] == ["liver_0005", "imagesTs/liver_0000", "imagesTs/liver_0001"]
    for part in ("images", "labels"):
        (tmp_path / f"{part}Tr" / "liver_0005.nii.gz").rename(tmp_path / f"{part}Tr" / f"liver{'_0000' * (part == 'images')}.nii.gz")
    assert [case.name for case in find_layout(tmp_path).cases()] == ["liver", "imagesTs/liver"]


def test_class_folders(run: Run, tmp_path: Path, rng: np.random.Generator) -> None:
    dataset = tmp_path / "in"
    for name in ("benign/1.png", "benign/2.png", "malignant/1.png"):
        picture(dataset / name, rng)
    (dataset / "benign" / "Thumbs.db").write_text("x")
    own = profile_for(find_cases(dataset), tmp_path, dimension=2)
    release(run, dataset, tmp_path / "out", own)
    before, after = tree(dataset), tree(tmp_path / "out")
    assert {name for name in after if "/" in name} == set(before) - {"benign/Thumbs.db"}
    assert all(before[name] != after[name] for name in after if "/" in name)
    assert sorted(p.name for p in (tmp_path / "out").iterdir() if p.is_dir()) == ["benign", "malignant"], "a folder would be a class"
    assert (tmp_path / "out_private" / "cases" / "benign%2F1" / "record.json").is_file()


def test_the_public_profile_fits_the_first_image_that_can_be_read(
    run: Run, tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("MedProtectLib.release.dry_run.SAMPLES", 0)
    labels = np.zeros((20, 24), np.uint8)
    labels[5:15, 5:15] = 1
    for name in ("0.png", "1.png"):
        for part in ("imagesTr", "labelsTr"):
            picture(tmp_path / "pictures" / part / name, rng)
        sitk.WriteImage(sitk.GetImageFromArray(labels), tmp_path / "pictures" / "labelsTr" / name)
    (tmp_path / "pictures" / "imagesTr" / "0.png").write_bytes(b"no picture")
    for dataset, counts in ((tmp_path / "pictures", {"ok": 1, "quarantined": 1}), (decathlon(tmp_path / "volumes", 1), {"ok": 1})):
        command = ("release", dataset, "--output", tmp_path / "public", "--allow-public-profile", "--no-vault", "--dry-run", "--json")
        assert json.loads(run(*command)[1])["counts"] == counts


def test_a_manifest_keeps_its_columns_and_no_path_leaves_the_release(run: Run, profile: Path, tmp_path: Path) -> None:
    source = decathlon(tmp_path / "data", 3)
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copytree(source / "imagesTr", folder / "scans")
    rows = [
        ("a", f"scans/{NAMES[0]}", f"../data/labelsTr/{NAMES[0]}", "x"),
        ("../../b", f"../data/imagesTr/{NAMES[1]}", str(source / "labelsTr" / NAMES[1]), "=y"),
        ("c", f"scans/{NAMES[2]}", "", "z"),
    ]
    with (folder / "cases.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("case", "image", "labels", "site"), *rows])
    answer = release(run, folder / "cases.csv", tmp_path / "out", profile, code=1)
    assert (answer["counts"]["ok"], answer["counts"]["quarantined"]) == (2, 1)
    kept = list(csv.DictReader((tmp_path / "out" / "cases.csv").open()))
    assert [(row["case"], row["site"]) for row in kept] == [("a", "x"), ("../../b", "=y")]
    for row in kept:
        for column in ("image", "labels"):
            assert ".." not in Path(row[column]).parts
            assert (tmp_path / "out" / row[column]).is_file()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "in", "out", "out_private"]
    assert [case.name for case in find_cases(tmp_path / "out" / "cases.csv")] == ["../../b", "a"]


@pytest.mark.parametrize(("cells", "said"), [(",l.nii.gz", "case 'a' names no file"), ("i.nii.gz, ", "it has no labels")])
def test_blank_cells_of_a_manifest_are_said_to_be_blank(run: Run, profile: Path, tmp_path: Path, cells: str, said: str) -> None:
    volume(tmp_path / "in" / "i.nii.gz", 1)
    box(tmp_path / "in" / "l.nii.gz")
    code, _, err = release_here(run, manifest(tmp_path / "in", f"a,{cells}"), tmp_path / "out", profile)
    assert (code, err.count("\n")) == (1, 1)
    assert said in err


def test_channels_of_two_formats_are_named(run: Run, profile: Path, tmp_path: Path) -> None:
    dataset = tmp_path / "in"
    for number, extension in enumerate((".nii.gz", ".nii.gz", ".nii")):
        volume(dataset / "imagesTr" / f"a_{number:04d}{extension}", number)
    box(dataset / "labelsTr" / "a.nii.gz")
    answer = release_here(run, dataset, tmp_path / "out", profile)[1]
    assert "a_0000.nii.gz, a_0001.nii.gz, a_0002.nii are neither one image nor channels" in answer["problems"][0]["reason"]


def test_bids_becomes_a_derivative(run: Run, profile: Path, tmp_path: Path) -> None:
    dataset = tmp_path / "in"
    derived = dataset / "derivatives" / "manual"
    for n, name in enumerate(NAMES[:3], start=1):
        for folder in (dataset, derived):
            (folder / f"sub-{n:02d}" / "anat").mkdir(parents=True)
        shutil.copyfile(HIPPOCAMPUS / "imagesTr" / name, dataset / f"sub-{n:02d}/anat/sub-{n:02d}_run-1_T1w.nii.gz")
        (dataset / f"sub-{n:02d}/anat/sub-{n:02d}_run-1_T1w.json").write_text('{"MagneticFieldStrength": 3}')
        if n < 3:
            shutil.copyfile(HIPPOCAMPUS / "labelsTr" / name, derived / f"sub-{n:02d}/anat/sub-{n:02d}_run-1_desc-hippo_dseg.nii.gz")
    about = {"Name": "Made", "BIDSVersion": "1.9.0", "DatasetDOI": "doi:10.5555/x", "DatasetType": "raw"}
    (dataset / "dataset_description.json").write_text(json.dumps(about))
    (derived / "dataset_description.json").write_text(json.dumps({"Name": "manual", "BIDSVersion": "1.9.0"}))
    (dataset / "participants.tsv").write_text("participant_id\tage\nsub-01\t40\nsub-02\t50\nsub-03\t60\n")
    (dataset / "participants.json").write_text("{}")
    (dataset / "README").write_text("a made dataset")
    (dataset / "sourcedata").mkdir()
    (dataset / "sourcedata" / "names.txt").write_text("John Doe")
    answer = release(run, dataset, tmp_path / "out", profile, code=1)
    assert (answer["counts"]["ok"], answer["counts"]["quarantined"]) == (2, 1)
    out = tmp_path / "out"
    image = "sub-01/anat/sub-01_run-1_desc-protected_T1w"
    assert set(tree(out)) == {
        "README",
        ".bidsignore",
        "dataset_description.json",
        "participants.tsv",
        "participants.json",
        "medprotect_records.jsonl",
        "medprotect_release.json",
        "derivatives/manual/dataset_description.json",
        *(f"{image}{end}".replace("01", f"{n:02d}") for n in (1, 2) for end in (".nii.gz", ".json")),
        *(f"derivatives/manual/sub-{n:02d}/anat/sub-{n:02d}_run-1_desc-hippo_dseg.nii.gz" for n in (1, 2)),
    }
    described = json.loads((out / "dataset_description.json").read_text())
    assert described["DatasetType"] == "derivative"
    assert described["GeneratedBy"][0]["Name"] == "MedProtect"
    assert described["SourceDatasets"] == [{"DOI": "doi:10.5555/x"}]
    assert "DatasetDOI" not in described
    assert (out / "participants.tsv").read_text() == "participant_id\tage\nsub-01\t40\nsub-02\t50\n"
    assert not np.array_equal(voxels(out / f"{image}.nii.gz"), voxels(HIPPOCAMPUS / "imagesTr" / NAMES[0]))
    assert Bids(dataset).left_out() == ["sourcedata/names.txt"]
    code, _, said = run("release", out, "--output", tmp_path / "twice", "--profile", profile, "--no-vault")
    assert code == 1
    assert "already" in said


@pytest.mark.parametrize(
    ("labels", "belongs"),
    [
        ("sub-01_run-1_dseg", True),
        ("sub-01_run-1_space-orig_desc-x_mask", True),
        ("sub-01_run-1_T1w_seg", True),
        ("sub-01_run-1_T2w_seg", False),
        ("sub-01_run-2_dseg", False),
        ("sub-01_dseg", False),
    ],
)
def test_which_bids_labels_belong_to_an_image(tmp_path: Path, labels: str, belongs: bool) -> None:
    (tmp_path / "sub-01" / "anat").mkdir(parents=True)
    for name in ("sub-01_run-1_T1w", labels):
        (tmp_path / "sub-01" / "anat" / f"{name}.nii.gz").touch()
    (case,) = Bids(tmp_path).cases()
    assert case.labelled == belongs


def test_medmnist_comes_out_as_one_file(run: Run, tmp_path: Path, rng: np.random.Generator) -> None:
    arrays = {}
    for split, count in (("train", 6), ("val", 2), ("test", 2)):
        arrays[f"{split}_images"] = rng.integers(20, 230, (count, 28, 28)).astype(np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 2).astype(np.uint8)[:, None]
    arrays["train_images"][3] = 7
    dataset = tmp_path / "made.npz"
    np.savez_compressed(dataset, **arrays)
    own = profile_for([case for case in find_cases(dataset) if case.name != "train_000003"], tmp_path, dimension=2)
    answer = release(run, dataset, tmp_path / "out", own, code=1)
    assert (answer["counts"]["ok"], answer["counts"]["quarantined"]) == (9, 1), "a constant image cannot be protected"
    out = np.load(tmp_path / "out" / "made.npz")
    assert {name: out[name].shape[0] for name in out} == {name: len(array) - (name.startswith("train")) for name, array in arrays.items()}
    kept = np.delete(np.arange(6), 3)
    assert np.array_equal(out["train_labels"], arrays["train_labels"][kept])
    for images, protected in ((arrays["train_images"][kept], out["train_images"]), (arrays["val_images"], out["val_images"])):
        change = np.abs(images.astype(int) - protected).max(axis=(1, 2))
        assert change.min() >= 1
        assert change.max() <= 4
    again = release(run, dataset, tmp_path / "out", own, "--resume", code=1)
    assert again["counts"]["skipped"] == 9
    code, _, said = run("release", dataset, "--output", tmp_path / "b", "--profile", own, "--key", "nokey")
    assert code == 1
    assert said


def dicom_case(dataset: Path, folder: Path) -> tuple[ReleaseCase, Path]:
    """The only case of a DICOM tree, and a profile that was drawn for it."""
    (case,) = find_layout(dataset).cases()
    assert case.labels is not None
    assert [item.source for item in case.references] == [case.labels]
    own, volume = folder / "own.medprotect", read_volume(dataset / case.image.source)
    fit_on_case(volume, read_labels(dataset / case.labels, volume), FitOptions(method="lsp", seed=3, bound=16 / 255)).save(own)
    return case, own


def test_a_dicom_tree_with_its_segmentation(run: Run, shared_data: Path, tmp_path: Path) -> None:
    dataset, out = tmp_path / "in", tmp_path / "out"
    samples = shared_data / "dicom_seg_samples" / "dcmqi"
    shutil.copytree(samples / "ct-3slice", dataset / "p1" / "ct")
    (dataset / "p1" / "seg").mkdir()
    shutil.copyfile(samples / "liver.dcm", dataset / "p1" / "seg" / "liver.dcm")
    _, own = dicom_case(dataset, tmp_path)
    assert release(run, dataset, out, own)["counts"]["ok"] == 1
    assert {name for name in tree(out) if "/" in name} == {*(f"p1/ct/{n:04d}.dcm" for n in (1, 2, 3)), "p1/seg/liver.dcm"}
    before, after = read_volume(dataset / "p1" / "ct"), read_volume(out / "p1" / "ct")
    assert after.geometry.same_grid(before.geometry)
    assert 0 < np.count_nonzero(after.array != before.array) < after.array.size
    slices = [pydicom.dcmread(p, stop_before_pixels=True) for p in (out / "p1" / "ct").iterdir()]
    (series,) = {s.SeriesInstanceUID for s in slices}
    segmentation = pydicom.dcmread(out / "p1" / "seg" / "liver.dcm")
    assert segmentation.ReferencedSeriesSequence[0].SeriesInstanceUID == series
    listed = list(csv.DictReader((tmp_path / "out_private" / "cases" / "p1%2Fct" / "uids.csv").open()))
    assert [row["released"] for row in listed if row["kind"] == "series"] == [series]
    assert {row["released"] for row in listed if row["kind"] == "instance"} == {s.SOPInstanceUID for s in slices}
    assert segmentation.PixelData == pydicom.dcmread(dataset / "p1" / "seg" / "liver.dcm").PixelData
    again = release(run, dataset, out, own, "--resume")
    assert again["counts"]["skipped"] == 1
    second = release(run, dataset, tmp_path / "v2", own, "--previous", out)
    assert second["counts"]["ok"] == 1
    assert {k: v for k, v in tree(out).items() if "/" in k} == {k: v for k, v in tree(tmp_path / "v2").items() if "/" in k}
    for name in ("medprotect_release.json", "medprotect_records.jsonl"):
        (out / name).unlink()
    assert "already" in release(run, out, tmp_path / "twice", own, code=1)["problems"][0]["reason"]


def test_a_series_without_labels_is_copied_file_by_file(run: Run, shared_data: Path, profile: Path, tmp_path: Path) -> None:
    dataset, out = tmp_path / "in", tmp_path / "out"
    shutil.copytree(shared_data / "dicom_seg_samples" / "dcmqi" / "ct-3slice", dataset / "p1")
    (dataset / "p1" / "notes.txt").write_text("John Doe")
    assert release(run, dataset, out, profile, "--unlabelled", "copy")["counts"]["copied"] == 1
    before = tree(dataset)
    assert {name: sha for name, sha in tree(out).items() if "/" in name} == {n: s for n, s in before.items() if n.endswith(".dcm")}
    assert (tmp_path / "out_private" / "left_out.txt").read_text() == "p1/notes.txt\n"


def test_a_structure_set_that_cannot_follow_is_withheld(run: Run, shared_data: Path, tmp_path: Path) -> None:
    """Its contours name slices that are not in the series, so nothing could be put in their place."""
    dataset, out = tmp_path / "in", tmp_path / "out"
    shutil.copytree(shared_data / "sts_sarcoma" / "dicom" / "STS_001" / "MR_T1", dataset / "MR")
    case, own = dicom_case(dataset, tmp_path)
    answer = release(run, dataset, out, own, code=1)
    assert (answer["counts"]["ok"], answer["objects_withheld"]) == (1, 1)
    assert not (out / case.references[0].target).exists()
    assert (out / "MR" / "image" / "0001.dcm").is_file()


def test_what_is_no_dataset_is_refused(run: Run, profile: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "notes.txt").write_text("x")
    for dataset in (empty, tmp_path / "missing"):
        code, _, said = run("release", dataset, "--output", tmp_path / "out", "--profile", profile, "--no-vault")
        assert code == 1
        assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_names_of_cases_are_file_names_of_their_own() -> None:
    names = [
        "a/b",
        "a%2Fb",
        "a_b",
        ".a",
        "..",
        "x" * 300,
        "x" * 299 + "y",
        "ü",
        "a b",
        "CON",
        "a\nb",
        "a:b",
        "%2Ea",
        "con",
        "aux.x",
        "b.",
        "b%2E",
        "b ",
    ]
    files = [file_name_of(name) for name in names]
    assert len(set(files)) == len(names)
    for file in files:
        assert "/" not in file
        assert not file.startswith(".")
        assert not file.endswith((".", " "))
        assert file.split(".")[0].lower() not in ("con", "aux")
        assert len(file) < 200


def test_a_case_survives_json() -> None:
    case = ReleaseCase("a/b", Item("x", "y"), (Item("x_0000", "y_0000"),), "l", None, (Item("l", "l"),), (), None, "train")
    assert ReleaseCase.from_json(json.loads(json.dumps(case.as_json()))) == case


def test_a_trainers_loader_finds_every_file(run: Run, profile: Path, tmp_path: Path) -> None:
    """MONAI's, for Decathlon: the index names what is there, and nothing else."""
    from monai.data.decathlon_datalist import load_decathlon_datalist

    dataset = decathlon(tmp_path / "in", 3)
    (dataset / "imagesTr" / NAMES[1]).write_bytes(b"")
    release(run, dataset, tmp_path / "out", profile, code=1)
    entries = load_decathlon_datalist(tmp_path / "out" / "dataset.json", base_dir=tmp_path / "out")
    assert [Path(entry["image"]).name for entry in entries] == [NAMES[0], NAMES[2]]
    assert all(Path(entry[part]).is_file() for entry in entries for part in ("image", "label"))
