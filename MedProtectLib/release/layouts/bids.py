"""BIDS: the release is a derivative dataset, its images are called desc-protected and keep their sidecar files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from MedProtectLib.errors import MedProtectError
from MedProtectLib.io import extension_of, stem_of
from MedProtectLib.release.case import Item, ReleaseCase
from MedProtectLib.release.fingerprints import Fingerprints
from MedProtectLib.release.layouts.base import Layout, entries, files_below, files_of, is_image, is_own_file, leads_out, names_of, relative
from MedProtectLib.untrusted import read_json
from MedProtectLib.version import __version__

DESCRIPTION = "dataset_description.json"
NOT_A_DESCRIPTION = "not the description of a BIDS dataset, or damaged. Repair it."
PARTICIPANTS = "participants.tsv"
COLUMNS = "participants.json"  # what its columns mean
IGNORED = ".bidsignore"
LABEL_SUFFIXES = ("dseg", "mask", "seg")
SIDECARS = (".json", ".bval", ".bvec")
TABLES = (".tsv", ".tsv.gz")
NOT_OF_ANATOMY = ("desc", "label", "space", "res", "den", "atlas", "seg")


class Bids(Layout):
    """Label maps (dseg, mask, seg) lie beside their image or under derivatives, with the same subject, session and entities."""

    name = "BIDS"

    @classmethod
    def fits(cls, dataset: Path) -> bool:
        return (dataset / DESCRIPTION).is_file() and any(p.is_dir() for p in dataset.glob("sub-*"))

    def cases(self) -> Iterator[ReleaseCase]:
        for subject in (p for p in entries(self.root) if p.is_dir() and p.name.startswith("sub-")):
            images = [p for p in self._images(subject) if _suffix(p) not in LABEL_SUFFIXES]
            labels = [p for p in self._images(subject) if _suffix(p) in LABEL_SUFFIXES]
            for pipeline in entries(self.root / "derivatives"):
                labels += [p for p in self._images(pipeline / subject.name) if _suffix(p) in LABEL_SUFFIXES]
            labels.sort(key=lambda p: LABEL_SUFFIXES.index(_suffix(p)))
            without = [p for p in labels if not any(_labels(p, image) for image in images)]
            images += [p for p in files_below(subject) if _may_be_an_image(p) and any(_labels(label, p) for label in without)]
            for image in images:
                yield self._case(image, [p for p in labels if _labels(p, image)])

    @staticmethod
    def _images(folder: Path) -> list[Path]:
        return sorted(p for p in files_below(folder) if p.is_file() and is_image(p)) if folder.is_dir() else []

    def _case(self, image: Path, labels: list[Path]) -> ReleaseCase:
        source = relative(image, self.root)
        target = _protected_name(source) if labels else source
        stem = target[: len(target) - len(extension_of(target))]
        copies = [Item(relative(p, self.root), stem + extension_of(p)) for p in _sidecars(image)]
        for path in labels:
            copies += files_of(path, self.root, relative(path, self.root))
            copies += [Item(relative(p, self.root), relative(p, self.root)) for p in _sidecars(path)]
        first, data = names_of(files_of(labels[0], self.root, relative(labels[0], self.root))) if labels else (None, None)
        files = files_of(image, self.root, target, written=bool(labels))
        return ReleaseCase(stem_of(image), Item(source, target), files, first, copies=tuple(copies), label_data=data)

    def common(self) -> Iterable[Item]:
        yield from super().common()
        for path in (self.root / COLUMNS, *self.root.glob(f"derivatives/*/{DESCRIPTION}")):
            if path.is_file() and not leads_out(path, self.root):
                yield Item(relative(path, self.root), relative(path, self.root))

    def check(self) -> None:
        self._about(set())

    def rewritten(self, released: Fingerprints) -> dict[str, bytes]:
        subjects = {case.image.target.split("/")[0] for case in self.cases() if case.image.target in released}
        inherited = self._inherited(case for case in self.cases() if case.image.target in released)
        return self._about(subjects) | {path.name: path.read_bytes() for path in inherited}

    def _inherited(self, cases: Iterable[ReleaseCase]) -> list[Path]:
        """The sidecar files in the top folder that hold for an image or a label map of some cases."""
        others = [p for p in entries(self.root) if p.suffix == ".json" and p.is_file() and not leads_out(p, self.root)]
        found: list[Path] = []
        for case in cases:
            images = [Path(item.source) for item in (case.image, *case.copies)]
            found += [path for path in others if any(_inherits(image, path) for image in images)]
            others = [path for path in others if path not in found]
        return found

    def _about(self, subjects: set[str]) -> dict[str, bytes]:
        """The files about the dataset, for some of its subjects. Raises MedProtectError where one is damaged or a link out of it."""
        own = {name for name in (DESCRIPTION, IGNORED, PARTICIPANTS) if is_own_file(self.root / name, self.root)}
        files = {DESCRIPTION: (json.dumps(self._description(), indent=4, ensure_ascii=False) + "\n").encode()}
        ignored = (self.root / IGNORED).read_bytes().rstrip(b"\n") + b"\n" if IGNORED in own else b""
        files[IGNORED] = ignored + b"medprotect_*\n"
        if PARTICIPANTS in own:
            files[PARTICIPANTS] = self._participants(subjects)
        return files

    def _description(self) -> dict[str, Any]:
        path = self.root / DESCRIPTION
        try:
            content = read_json(path, NOT_A_DESCRIPTION)
            before = {key: content.pop(key) for key in ("DatasetDOI", "GeneratedBy", "SourceDatasets") if key in content}
            earlier = list(before.get("GeneratedBy", ()))
        except TypeError as error:
            raise MedProtectError(f"{path}: {NOT_A_DESCRIPTION}") from error
        made = {"Name": "MedProtect", "Version": __version__, "Description": "bounded perturbation of the images; labels unchanged"}
        source = {"DOI": before["DatasetDOI"]} if "DatasetDOI" in before else {"Version": "the original, which is not public"}
        return content | {"DatasetType": "derivative", "GeneratedBy": [made, *earlier], "SourceDatasets": [source]}

    def _participants(self, subjects: set[str]) -> bytes:
        text = io.StringIO(newline="")
        try:
            with (self.root / PARTICIPANTS).open(newline="", encoding="utf-8-sig") as file:
                rows = csv.reader(file, delimiter="\t")
                writer = csv.writer(text, delimiter="\t", lineterminator="\n")
                heading = next(rows, [])
                column = heading.index("participant_id") if "participant_id" in heading else 0
                writer.writerow(heading)
                writer.writerows(row for row in rows if len(row) > column and row[column] in subjects)
        except (UnicodeDecodeError, csv.Error) as error:
            raise MedProtectError(f"{self.root / PARTICIPANTS}: not a table in UTF-8, or damaged. Repair it.") from error
        return text.getvalue().encode()

    def left_out(self) -> list[str]:
        about = {item.source for item in self.common()} | {DESCRIPTION, PARTICIPANTS, *(p.name for p in self._inherited(self.cases()))}
        paths = (p for p in sorted(self.root.rglob("*")) if p.is_file() and not p.name.startswith("."))
        return [name for name in self.unused(relative(p, self.root) for p in paths) if name not in about]


def _parts(path: Path) -> tuple[dict[str, str], list[str]]:
    """The entities of a file name, and its parts that are none: suffixes."""
    entities, bare = {}, []
    for part in stem_of(path).split("_"):
        key, marker, value = part.partition("-")
        if marker:
            entities[key] = value
        else:
            bare.append(part)
    return entities, bare


def _may_be_an_image(path: Path) -> bool:
    """Whether a file may be an image of a format that is not known: one that has labels is a case in whatever format it is."""
    return path.is_file() and not is_image(path) and not path.name.endswith((*SIDECARS, *TABLES))


def _suffix(path: Path) -> str:
    bare = _parts(path)[1]
    return bare[-1] if bare else ""


def _labels(labels: Path, image: Path) -> bool:
    """Whether a label map belongs to an image: nothing in its name contradicts the image's name."""
    (of_labels, suffixes), of_image, kind = _parts(labels), _parts(image)[0], _suffix(image)
    asked = {key: value for key, value in of_image.items() if key not in NOT_OF_ANATOMY}
    same = {key: value for key, value in of_labels.items() if key not in NOT_OF_ANATOMY} == asked
    return same and labels.parent.name == image.parent.name and (len(suffixes) == 1 or kind in suffixes)


def _inherits(image: Path, sidecar: Path) -> bool:
    """Whether a sidecar file in the top folder holds for an image: it has the image's suffix, and only entities that the image has."""
    (entities, bare), of_image = _parts(sidecar), _parts(image)[0]
    return bare == [_suffix(image)] and "sub" not in entities and entities.items() <= of_image.items()


def _protected_name(path: str) -> str:
    """With the entity desc-protected in front of the suffix; an earlier description is kept in it."""
    folder, _, name = path.rpartition("/")
    parts = name.split("_")
    earlier = next((part for part in parts if part.startswith("desc-")), None)
    if earlier is None:
        parts.insert(-1, "desc-protected")
    else:
        parts[parts.index(earlier)] = f"{earlier}Protected"
    return f"{folder}/{'_'.join(parts)}"


def _sidecars(image: Path) -> list[Path]:
    return [p for extension in SIDECARS if (p := image.with_name(stem_of(image) + extension)).is_file()]
