"""Which cases an audit has, and what names them: the lists, the files, and what the user chose of them."""

from __future__ import annotations

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from audit_samples import nodules
from MedProtectLib.audit.data import load_dataset
from MedProtectLib.audit.experiment import Experiment, run_experiment
from MedProtectLib.audit.releases import Releases
from MedProtectLib.audit.rows import RowFile
from MedProtectLib.errors import MedProtectError
from MedProtectLib.fitting.dataset import by_hash
from MedProtectLib.io import read_labels
from MedProtectLib.io.segmentation import write_segmentation
from MedProtectLib.profile import Profile
from MedProtectLib.volume import Segment
from samples import SAMPLES, Run

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:monai", "ignore::FutureWarning")

HIPPOCAMPUS = SAMPLES / "hippocampus"
OF_FOUR_NODULES = "fbffc0e72647050a70469912b121724cd51406d69d6e8d7552dc85dfd83a8f2b"  # before a choice was part of it


def quoted_manifest(path: Path, columns: tuple[str, ...] = ("case", "image", "labels", "split")) -> Path:
    """Six hippocampi, two in every list, written as R's write.csv and csv.QUOTE_ALL do."""
    names = sorted(p.name for p in (HIPPOCAMPUS / "imagesTr").iterdir())
    splits = ("test", "test", "val", "val", "train", "train")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, quoting=csv.QUOTE_ALL, extrasaction="ignore")
        writer.writeheader()
        for number, split in enumerate(splits):
            files = {column: HIPPOCAMPUS / folder / names[number] for column, folder in (("image", "imagesTr"), ("labels", "labelsTr"))}
            writer.writerow({"case": f"c{number}", "split": split, **files})
    return path


def test_a_quoted_header_keeps_its_lists(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = load_dataset(quoted_manifest(tmp_path / "cases.csv"))
    assert {split: [case.name for case in cases] for split, cases in data.cases.items()} == {
        "train": ["c4", "c5"],
        "val": ["c2", "c3"],
        "test": ["c0", "c1"],
    }
    assert not caplog.messages


def test_lists_by_a_hash_have_every_class(tmp_path: Path) -> None:
    for number in range(30):
        folder = tmp_path / ("rare" if number % 3 == 0 else "common")
        folder.mkdir(exist_ok=True)
        sitk.WriteImage(sitk.GetImageFromArray(np.full((8, 8), number, np.uint8)), folder / f"{number}.png")
    lists = by_hash(tmp_path)
    counts = {split: [sum(case.image_class == name for case in cases) for name in ("rare", "common")] for split, cases in lists.items()}
    assert counts == {"train": [6, 12], "val": [1, 2], "test": [3, 6]}


def test_an_image_in_two_lists_is_refused_whatever_its_name(run: Run, tmp_path: Path) -> None:
    manifest = quoted_manifest(tmp_path / "cases.csv")
    lines = manifest.read_text().splitlines()
    image = next(line for line in lines if '"c5"' in line).split(",")[1].strip('"')
    copy = tmp_path / "renamed.nii.gz"
    shutil.copyfile(image, copy)
    manifest.write_text("\n".join(line.replace(line.split(",")[1], f'"{copy}"') if '"c0"' in line else line for line in lines) + "\n")
    code, _, err = run("audit", manifest, "--output", tmp_path / "audit", "--methods", "lsp")
    assert (code, "case 'c0' in 'test' has the image of case 'c5', which is in another list" in err) == (1, True)


@pytest.mark.parametrize(("classes", "told"), [("aaaa", "all cases in 'val' are of one class"), ("aabb", "no case in 'val' is of class c")])
def test_classes_that_a_list_lacks_are_told(classes: str, told: str, run: Run, tmp_path: Path, rng: np.random.Generator) -> None:
    lines = ["case,image,class,split"]
    for split, own in (("train", "abcabc"), ("val", classes), ("test", "abcabc")):
        for number, name in enumerate(own):
            path = tmp_path / f"{split}_{number}.png"
            sitk.WriteImage(sitk.GetImageFromArray(rng.integers(60, 200, (32, 32), dtype=np.uint8)), path)
            lines.append(f"{split}_{number},{path},{name},{split}")
    manifest = tmp_path / "cases.csv"
    manifest.write_text("\n".join(lines) + "\n")
    code, _, err = run(
        "audit", manifest, "--output", tmp_path / "audit", "--methods", "none", "--seeds", 0, "--regimes", "none", "--steps", 2
    )
    assert (code, told in err) == (1 if classes == "aaaa" else 0, True), err


def test_a_notice_tells_that_the_lists_are_drawn_by_a_hash(run: Run, tmp_path: Path) -> None:
    manifest = quoted_manifest(tmp_path / "cases.csv", ("case", "image", "labels"))
    code, _, err = run("audit", manifest, "--output", tmp_path / "audit", "--methods", "nosuch")
    assert code == 1, "six cases are too few for a validation list of 10 %"
    assert "in 'val'. An audit needs at least 2 in train, val, test. Take more cases, or say in a CSV manifest's column split" in err
    notices = [line for line in err.splitlines() if line.startswith("medprotect: notice")]
    assert notices == [
        f"medprotect: notice: {manifest}: no manifest with a column 'split': 60% train, 10% val, 30% test, by a hash of the cases' names."
    ]


def test_a_fit_takes_the_cases_that_the_audit_trains_on(run: Run, tmp_path: Path) -> None:
    data = load_dataset(HIPPOCAMPUS)
    for split in ("train", "test"):
        profile = tmp_path / f"{split}.medprotect"
        code, _, err = run("fit", HIPPOCAMPUS, "--method", "lsp", "--split", split, "--output", profile)
        assert (code, err.count("by a hash of the cases' names")) == (0, 1), err
        assert Profile.load(profile).training["cases"] == [case.name for case in data.cases[split]]
    code, _, err = run("fit", HIPPOCAMPUS, "--split", "profile", "--output", tmp_path / "none.medprotect")
    assert (code, "no part 'profile'" in err) == (1, True), err


def test_a_limit_draws_from_every_class(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(60):
        path = tmp_path / ("benign" if number < 40 else "malignant") / f"{number:02d}.png"
        path.parent.mkdir(exist_ok=True)
        sitk.WriteImage(sitk.GetImageFromArray(rng.integers(0, 255, (28, 28)).astype(np.uint8)), path)
    data = load_dataset(tmp_path, limit=4)
    for split in ("train", "val", "test"):
        names = [case.name for case in data.cases[split]]
        assert [name.split("/")[0] for name in names] == ["benign"] * 2 + ["malignant"] * 2
        assert names == sorted(names)
    every, few = (load_dataset(HIPPOCAMPUS, limit=limit) for limit in (None, 5))
    assert [case.name for case in few.cases["train"]] != [case.name for case in every.cases["train"]][:5]
    assert {case.name for case in load_dataset(HIPPOCAMPUS, limit=3).cases["test"]} < {case.name for case in few.cases["test"]}


@pytest.mark.parametrize("airless", [0, 5])
def test_all_images_are_ct_or_none_is(airless: int, tmp_path: Path) -> None:
    rng, rows = np.random.default_rng(0), ["case,image,labels,split"]
    for number in range(6):
        labels = np.zeros((16, 24, 24), np.uint8)
        labels[4:12, 6:16, 6:16] = 1
        image = rng.normal(-30, 40, labels.shape) + 90 * labels
        if number != airless:
            image[:, :3] = -900
        for name, array in (("image", image.astype(np.int16)), ("labels", labels)):
            sitk.WriteImage(sitk.GetImageFromArray(array), tmp_path / f"{number}_{name}.nii.gz")
        rows.append(f"c{number},{number}_image.nii.gz,{number}_labels.nii.gz,{('train', 'val', 'test')[number // 2]}")
    (tmp_path / "cases.csv").write_text("\n".join(rows))
    taken = 1 if airless == 0 else 0
    with pytest.raises(MedProtectError, match=f"{airless}_image.nii.gz: not taken for CT, as {taken}_image.nii.gz is.* give --modality CT"):
        load_dataset(tmp_path / "cases.csv")
    as_ct, as_mr = (load_dataset(tmp_path / "cases.csv", modality=modality) for modality in ("CT", "MR"))
    assert (as_ct.ct, as_mr.ct) == (True, False)
    assert len({case.windows for cases in as_ct.cases.values() for case in cases}) == 1


def test_a_case_without_the_segment_is_a_case_without_a_label(tmp_path: Path) -> None:
    manifest = quoted_manifest(tmp_path / "cases.csv")
    bare = read_labels(HIPPOCAMPUS / "labelsTr" / sorted(p.name for p in (HIPPOCAMPUS / "labelsTr").iterdir())[0])
    for value, name in ((1, "one"), (2, "none")):
        only = replace(bare, layers=((bare.layers[0] == 1).astype(np.uint8) * (value == 1),), segments=(Segment("1", 1),)[: value == 1])
        write_segmentation(only, tmp_path / f"{name}.seg.nrrd")
        rows = manifest.read_text().splitlines()
        rows[1] = ",".join((*rows[1].split(",")[:2], f'"{tmp_path / name}.seg.nrrd"', '"test"'))
        manifest.write_text("\n".join(rows))
        data = load_dataset(manifest, segments=["2"])
        assert [case.labelled for case in data.cases["test"]] == [False, True]
        assert data.classes == (2,)
    with pytest.raises(MedProtectError, match="no segment '3'"):
        load_dataset(manifest, segments=["2", "3"])
    plan = Experiment(Releases(data, tmp_path / "work"), ["none"], ["unet"], ["none"], [0], steps=1)
    (row,) = run_experiment(plan, RowFile(tmp_path / "rows.jsonl"))
    assert len(row["dsc_cases"]) == 2


def test_the_name_of_data_without_a_choice_stays_and_a_choice_is_part_of_it() -> None:
    data = nodules()
    assert replace(data).sha256 == OF_FOUR_NODULES
    chosen = [replace(data, segments=("1",)), replace(data, modality="CT"), replace(data, modality="MR")]
    assert len({OF_FOUR_NODULES, *(each.sha256 for each in chosen)}) == 4
    assert load_dataset(SAMPLES / "lidc_nodules", limit=2, segments=["1"], modality="CT").segments == ("1",)


def test_noise_for_one_segment_is_not_that_for_another(tmp_path: Path) -> None:
    one, other = (Releases(load_dataset(HIPPOCAMPUS, limit=2, segments=[name]), tmp_path / "work") for name in ("1", "2"))
    assert one.of("noise").folder != other.of("noise").folder
    assert one.of("noise").sha256 != other.of("noise").sha256


def test_an_audit_of_other_segments_does_not_go_on_with_the_rows(run: Run, tmp_path: Path) -> None:
    small = ("--limit", "2", "--steps", "1", "--seeds", "0", "--regimes", "none", "--methods", "none", "--resume")
    audit = ("audit", HIPPOCAMPUS, "--output", tmp_path / "audit", *small)
    assert run(*audit, "--segments", "1")[0] == 0
    code, _, err = run(*audit, "--segments", "2")
    assert (code, "was made with another data_sha256" in err) == (1, True), err
    assert run(*audit, "--segments", "1")[0] == 0


def test_a_structure_is_one_class_although_files_number_their_segments_differently(tmp_path: Path) -> None:
    images, rows = sorted((HIPPOCAMPUS / "imagesTr").iterdir())[:6], ["case,image,labels,split"]
    for number, image in enumerate(images):
        labels = read_labels(HIPPOCAMPUS / "labelsTr" / image.name)
        head, tail = (1, 2) if number % 2 else (2, 1)
        swapped = np.choose(labels.layers[0], (0, head, tail)).astype(np.uint8)
        named = replace(labels, layers=(swapped,), segments=(Segment("head", head), Segment("tail", tail)))
        write_segmentation(named, tmp_path / f"{number}.seg.nrrd")
        rows.append(f"c{number},{image},{tmp_path / f'{number}.seg.nrrd'},{('train', 'val', 'test')[number // 2]}")
    (tmp_path / "cases.csv").write_text("\n".join(rows))
    data, plain = load_dataset(tmp_path / "cases.csv"), load_dataset(quoted_manifest(tmp_path / "plain.csv"))
    assert data.classes == ("head", "tail")
    targets = {case.name: case.target for of in plain.cases.values() for case in of}
    for number, case in enumerate(case for split in ("train", "val", "test") for case in data.cases[split]):
        assert np.array_equal(case.target, targets[f"c{number}"])
