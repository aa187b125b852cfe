"""Which cases a dataset holds: a Decathlon or nnU-Net folder, or a CSV manifest."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from MedProtectLib.errors import MedProtectError
from MedProtectLib.io import stem_of

MANIFEST_COLUMNS = ("case", "image", "labels", "class", "split")


@dataclass(frozen=True)
class CaseFiles:
    """One case of a dataset: its name, its image and its label map."""

    name: str
    image: Path
    labels: Path


def find_cases(dataset: str | Path, split: str | None = None) -> list[CaseFiles]:
    """The labelled cases of a dataset, by name.

    A folder holds ``imagesTr`` and ``labelsTr`` with equal file names (Decathlon) or images ending in ``_0000``
    (nnU-Net). A CSV manifest has the columns case, image, labels and may have class and split; its paths are relative to
    the manifest; ``split`` keeps the rows of that split.

    Raises:
        MedProtectError: no such dataset, no labelled case, or an entry that cannot be used.
    """
    dataset = Path(dataset)
    if dataset.is_dir():
        cases = _from_folder(dataset)
    elif dataset.suffix.lower() == ".csv" and dataset.is_file():
        cases = _from_manifest(dataset, split)
    else:
        raise MedProtectError(f"{dataset}: neither a dataset folder nor a CSV manifest.")
    if not cases:
        raise MedProtectError(
            f"{dataset}: no labelled case found. Give a folder with imagesTr and labelsTr, or a CSV with columns case,image,labels."
        )
    return sorted(cases, key=lambda case: case.name)


def _from_folder(folder: Path) -> list[CaseFiles]:
    labels = {stem_of(p): p for p in _visible(folder / "labelsTr")}
    cases = []
    for image in _visible(folder / "imagesTr"):
        stem = stem_of(image)
        name = stem.removesuffix("_0000")
        if name not in labels and stem[-5:-4] == "_" and stem[-4:].isdigit():
            raise MedProtectError(
                f"{image}: the image has several channels (_0001 and on), which method fitting does not read yet. Give one channel."
            )
        if name in labels:
            cases.append(CaseFiles(name, image, labels[name]))
    return cases


def _visible(folder: Path) -> Iterable[Path]:
    return sorted(p for p in folder.glob("*") if p.is_file() and not p.name.startswith(".")) if folder.is_dir() else []


def _from_manifest(manifest: Path, split: str | None) -> list[CaseFiles]:
    with manifest.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        missing = {"case", "image", "labels"} - set(rows.fieldnames or ())
        if missing:
            raise MedProtectError(
                f"{manifest}: column {', '.join(sorted(missing))} is missing. A manifest has the columns {','.join(MANIFEST_COLUMNS)}."
            )
        cases = []
        for row in rows:
            if (split is not None and row.get("split") != split) or not row["labels"]:
                continue
            case = CaseFiles(row["case"], manifest.parent / row["image"], manifest.parent / row["labels"])
            for path in (case.image, case.labels):
                if not path.is_file():
                    raise MedProtectError(f"{manifest}: case '{case.name}' names {path}, which does not exist.")
            cases.append(case)
    doubled = {case.name for case in cases if sum(other.name == case.name for other in cases) > 1}
    if doubled:
        raise MedProtectError(f"{manifest}: case '{min(doubled)}' occurs more than once.")
    return cases
