"""Small datasets and a profile of one's own for the tests and benchmarks of releases."""

from __future__ import annotations

import json
import shutil
from hashlib import sha256
from pathlib import Path

import nibabel as nib
import numpy as np

from MedProtectLib.fitting.dataset import find_cases
from MedProtectLib.fitting.fit import FitOptions, fit
from samples import SAMPLES, Run

HIPPOCAMPUS = SAMPLES / "hippocampus"
NAMES = tuple(sorted(p.name for p in (HIPPOCAMPUS / "imagesTr").glob("*.nii.gz")))


def decathlon(folder: Path, count: int = 3, unlabelled: int = 0) -> Path:
    """The first bundled hippocampus cases as a Decathlon dataset, the next ones as test images without labels."""
    for name in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / name).mkdir(parents=True)
    for name in NAMES[:count]:
        for part in ("imagesTr", "labelsTr"):
            shutil.copyfile(HIPPOCAMPUS / part / name, folder / part / name)
    tests = NAMES[count : count + unlabelled]
    for name in tests:
        shutil.copyfile(HIPPOCAMPUS / "imagesTr" / name, folder / "imagesTs" / name)
    index = json.loads((HIPPOCAMPUS / "dataset.json").read_text())
    index |= {"numTraining": count, "numTest": unlabelled, "test": [f"./imagesTs/{name}" for name in tests]}
    index["training"] = [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in NAMES[:count]]
    (folder / "dataset.json").write_text(json.dumps(index))
    (folder / "LICENSE.txt").write_text("CC BY-SA 4.0")
    return folder


def release_here(run: Run, dataset: Path, out: Path, profile: Path, *more: object) -> tuple[int, dict, str]:
    """A release in this process, without a vault unless a key is given: its exit code, its JSON answer and what it said."""
    vault = () if "--key" in more else ("--no-vault",)
    code, answer, said = run("release", dataset, "--output", out, "--profile", profile, *vault, "--jobs", 0, "--json", *more)
    return code, json.loads(answer), said


def own_profile(folder: Path, method: str = "lsp", dataset: Path = HIPPOCAMPUS, **options: object) -> Path:
    """A profile of one's own on a dataset, by default of a method that is drawn rather than trained."""
    path = folder / f"{method}.medprotect"
    fit(find_cases(dataset), path, FitOptions(method=method, seed=11, **options))  # type: ignore[arg-type]
    return path


def volumes(folder: Path, count: int, side: int, seed: int = 0) -> Path:
    """A Decathlon dataset of made CT volumes with ``side`` voxels along every axis and a ball as label."""
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(seed)
    axes = np.ogrid[:side, :side, :side]
    ball = (sum((axis - side / 2) ** 2 for axis in axes) < (side / 3) ** 2).astype(np.uint8)
    for number in range(count):
        smooth = sum(np.cos(axis / rng.uniform(3, 9) + rng.uniform(0, 6)) for axis in axes)
        image = (-1000 + 1100.0 * ball + 60 * smooth + rng.normal(0, 12, ball.shape)).astype(np.int16)
        for part, array in (("imagesTr", image), ("labelsTr", ball)):
            nib.save(nib.Nifti1Image(array, np.eye(4)), folder / part / f"made_{number:04d}x.nii.gz")
    return folder


def volume(path: Path, seed: int) -> Path:
    """A made MR volume of 20 x 20 x 12 voxels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.random.default_rng(seed).normal(400, 80, (20, 20, 12)).clip(0, 2000).astype(np.int16)
    nib.save(nib.Nifti1Image(array, np.diag([1, 1, 2, 1.0])), path)
    return path


def box(path: Path, first: int = 5) -> Path:
    """A label map for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.zeros((20, 20, 12), np.uint8)
    array[first : first + 10, first : first + 10, 3:9] = 1
    nib.save(nib.Nifti1Image(array, np.diag([1, 1, 2, 1.0])), path)
    return path


def bids(folder: Path, *images: str) -> Path:
    """One subject of a BIDS dataset: images of its anatomy and one label map for all of them."""
    for number, name in enumerate(images):
        volume(folder / "sub-01" / "anat" / f"{name}.nii.gz", number)
    box(folder / "sub-01" / "anat" / "sub-01_dseg.nii.gz")
    (folder / "dataset_description.json").write_text('{"Name": "made", "BIDSVersion": "1.8.0"}')
    return folder


def manifest(folder: Path, *rows: str) -> Path:
    """A table of cases with label maps."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cases.csv").write_text("\n".join(("case,image,labels", *rows, "")))
    return folder / "cases.csv"


def tree(folder: Path) -> dict[str, str]:
    """SHA-256 of every file by its path relative to the folder."""
    return {p.relative_to(folder).as_posix(): sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


def ledger(private: Path) -> list[dict[str, object]]:
    """The whole lines of a release's ledger in the order of their time."""
    lines = [line for path in (private / "ledger").glob("*.jsonl") for line in path.read_text().splitlines()]
    entries = []
    for line in lines:
        try:
            entries.append(json.loads(line))
        except ValueError:
            continue
    return sorted(entries, key=lambda entry: entry["time"])


def voxels(path: Path) -> np.ndarray:
    """Stored values of a NIfTI file."""
    return np.asanyarray(nib.load(path).dataobj)
