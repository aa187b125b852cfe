"""Which cases a dataset holds: Decathlon and nnU-Net folders, DICOM trees, class folders, MedMNIST files, or a CSV manifest."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from MedProtectLib.errors import MedProtectError
from MedProtectLib.io import channel_files, extension_of, read_labels, read_volume, stem_of
from MedProtectLib.io.channels import CHANNEL_STEM
from MedProtectLib.io.index import labels_by_index
from MedProtectLib.io.label_names import check_no_labels
from MedProtectLib.io.names import is_dicom, part_with_labels
from MedProtectLib.io.npz import member_volume, read_array
from MedProtectLib.io.volumes import READERS
from MedProtectLib.untrusted import is_file, read_table
from MedProtectLib.volume import Geometry, LabelMap, Volume

MANIFEST_COLUMNS = ("case", "image", "labels", "class", "split")
TRAIN, VALIDATION, TEST = "train", "val", "test"
SPLITS = (TRAIN, VALIDATION, TEST)
SHARES = {TRAIN: 0.6, VALIDATION: 0.1, TEST: 0.3}
LOG = logging.getLogger(__name__)


class TrainingCase(Protocol):
    """What fitting needs of a case: its name, and its image with the labels or the class."""

    @property
    def name(self) -> str: ...

    def read(self) -> tuple[Volume, LabelMap]:
        """The image and its labels. Raises MedProtectError for files that cannot be used."""

    def read_labels(self, geometry: Geometry | None = None) -> LabelMap:
        """The labels alone, those of the whole image on ``geometry`` where the case has only a class."""


@dataclass(frozen=True)
class CaseFiles:
    """One case of a dataset: its name, its image, and its label map or the class of the whole image.

    ``image`` is a file, the folder of a DICOM series, or the path that names a channel group (:mod:`MedProtectLib.io.channels`).
    ``series`` are the files of a DICOM series that does not have its folder for itself, of which ``image`` is the first.
    ``member`` is the number of the image in a MedMNIST file, where ``image`` is that file and ``split`` the part of it.
    """

    name: str
    image: Path
    labels: Path | None = None
    image_class: str | None = None
    member: int | None = None
    split: str = ""
    series: tuple[Path, ...] = ()

    @property
    def image_files(self) -> tuple[Path, ...]:
        """The files on disk that hold the image: one, one for every channel, or those of a DICOM series."""
        if self.image.is_dir():
            return tuple(sorted(p for p in self.image.rglob("*") if p.is_file()))
        return self.series or channel_files(self.image) or (self.image,)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files on disk that hold the case."""
        return self.image_files if self.labels is None else (*self.image_files, self.labels)

    def read(self) -> tuple[Volume, LabelMap]:
        """The image and its labels."""
        if self.member is None:
            volume = read_volume(self.image)
        else:
            volume = member_volume(_medmnist_array(self.image, f"{self.split}_images"), self.member, self.name)
        if self.labels is not None:
            return volume, read_labels(self.labels, volume)
        return volume, self.read_labels(volume.geometry)

    def read_labels(self, geometry: Geometry | None = None) -> LabelMap:
        """The labels; for a case with only a class, that class on ``geometry`` or on a single voxel."""
        if self.labels is not None:
            return self.read()[1] if is_dicom(self.labels) else read_labels(self.labels)
        return LabelMap.of_image_class(self.image_class or "", geometry or Geometry((1, 1, 1)))


def find_cases(dataset: str | Path, split: str | None = None) -> list[CaseFiles]:
    """The labelled cases of a dataset, by name.

    A folder holds ``imagesTr`` and ``labelsTr``, or ``images`` and ``labels``, with equal file names (Decathlon), names that
    ``dataset.json`` puts together, or images ending in ``_0000``, ``_0001``, ... (nnU-Net; the channel files of a case are one image),
    DICOM series with a segmentation or structure set that names them, or one folder of images per class. A MedMNIST file (.npz) has
    parts train, val and test. A CSV manifest has the columns case and image, and labels (a label map) or class (of the whole image),
    and may have split; its paths are relative to the manifest. ``split`` keeps the rows of that split; of a dataset that has none,
    the list of that name that :func:`by_hash` draws.

    Raises:
        MedProtectError: no such dataset, no such split, no labelled case, or an entry that cannot be used.
    """
    dataset = Path(dataset)
    if split is not None and not has_splits(dataset):
        if split not in SPLITS:
            raise MedProtectError(f"{dataset}: no part '{split}'. Without a manifest's column 'split' there are {', '.join(SPLITS)}.")
        return by_hash(dataset)[split]
    if dataset.is_dir():
        part = part_with_labels(dataset)
        cases = _from_dicom(dataset) or _from_class_folders(dataset) if part is None else _from_folder(dataset, part)
    elif dataset.suffix.lower() == ".csv" and dataset.is_file():
        cases = _from_manifest(dataset, split)
    elif dataset.suffix.lower() == ".npz" and dataset.is_file():
        cases = _from_medmnist(dataset, split)
    else:
        raise MedProtectError(f"{dataset}: neither a dataset folder nor a CSV manifest nor a MedMNIST file (.npz).")
    if not cases:
        raise MedProtectError(
            f"{dataset}: no labelled case found. Give a folder with imagesTr and labelsTr or images and labels, DICOM series with SEG or "
            "RTSTRUCT, a folder of images per class, or a CSV with columns case,image,labels or case,image,class."
        )
    if len({case.labels is None for case in cases}) > 1:
        raise MedProtectError(f"{dataset}: some cases have label maps and others a class only. Fit them apart, by the split column.")
    return sorted(cases, key=lambda case: case.name)


def has_splits(dataset: Path) -> bool:
    """Whether a dataset says itself which cases are which: a MedMNIST file, or a manifest with a column 'split'."""
    if dataset.suffix.lower() == ".csv" and dataset.is_file():
        columns, _ = read_table(dataset, "not a CSV table in UTF-8.")
        return "split" in columns
    return dataset.suffix.lower() == ".npz"


def by_hash(dataset: Path) -> dict[str, list[CaseFiles]]:
    """Lists in the proportions of ``SHARES``, class by class, in an order that looks random and is the same everywhere.

    Raises:
        MedProtectError: as for :func:`find_cases`.
    """
    cases = find_cases(dataset)
    shares = ", ".join(f"{share:.0%} {split}" for split, share in SHARES.items())
    LOG.warning("%s: no manifest with a column 'split': %s, by a hash of the cases' names.", dataset, shares)
    shuffled = sorted(cases, key=lambda case: hashlib.sha256(case.name.encode()).hexdigest())
    lists: dict[str, list[CaseFiles]] = {split: [] for split in SPLITS}
    for image_class in dict.fromkeys(case.image_class for case in shuffled):
        own = [case for case in shuffled if case.image_class == image_class]
        first, second = (round(len(own) * share) for share in (SHARES[TRAIN], SHARES[TRAIN] + SHARES[VALIDATION]))
        for split, part in zip(SPLITS, (own[:first], own[first:second], own[second:]), strict=True):
            lists[split] += part
    return {split: sorted(part, key=lambda case: case.name) for split, part in lists.items()}


def image_hashes(cases: Iterable[CaseFiles], hashed: Callable[[Path], str]) -> list[str]:
    """What names the content of every case's image; ``hashed`` gives the SHA-256 of a file."""
    contents = [[[hashed(path) for path in case.image_files], case.split, case.member] for case in cases]
    return [hashlib.sha256(json.dumps(content).encode()).hexdigest() for content in contents]


def _from_folder(folder: Path, part: str) -> list[CaseFiles]:
    labels = {stem_of(p): p for p in _visible(folder / f"labels{part}")}
    labels |= {image: labels[name] for image, name in labels_by_index(folder, part).items() if name in labels}
    images: dict[str, list[Path]] = {}
    for image in _visible(folder / f"images{part}"):
        stem = stem_of(image)
        channel = CHANNEL_STEM.fullmatch(stem)
        name = stem if stem in labels or channel is None else channel[1]
        if name in labels:
            images.setdefault(name, []).append(image)
    return [CaseFiles(name, _one_image(name, files), labels[name]) for name, files in images.items()]


def _one_image(name: str, files: Sequence[Path]) -> Path:
    """The path of the image that is in these files: of the only one, or of the channel group that they are."""
    if len(files) == 1:
        return files[0]
    group = files[0].with_name(name + files[0].name[len(stem_of(files[0])) :])
    if channel_files(group) != tuple(files):
        raise MedProtectError(f"{group}: {', '.join(file.name for file in files)} are neither one image nor its channels 0000, 0001, ...")
    return group


def _from_dicom(folder: Path) -> list[CaseFiles]:
    """The series that a label object names, called by their folder, or by their first file where they share it."""
    if not any(is_dicom(path) for path in folder.rglob("*")):
        return []
    from MedProtectLib.io.dicom import scan

    found = scan(folder)
    cases = []
    for series in found.series:
        labels = next((label.path for label in found.labels if series.uid in label.series_uids), None)
        if labels is None:
            continue
        first = series.files[0]
        place = first.relative_to(folder)
        sharing = sum(first.parent in {file.parent for file in other.files} for other in found.series) > 1
        name = place if sharing or place.parent == Path() else place.parent
        cases.append(CaseFiles(name.as_posix(), first, labels, series=series.files))
    return cases


def _from_class_folders(folder: Path) -> list[CaseFiles]:
    classes = [p for p in sorted(folder.glob("*")) if p.is_dir() and not p.name.startswith(".")]
    for each in classes:
        if images := [stem_of(path) for path in _visible(each) if extension_of(path) in READERS]:
            check_no_labels(each, each.name, images)
    cases = [CaseFiles(f"{c.name}/{stem_of(image)}", image, image_class=c.name) for c in classes for image in _visible(c)]
    if cases and len({case.image_class for case in cases}) < 2:
        raise MedProtectError(f"{folder}: all images are in one class folder. Classification needs at least two classes.")
    return cases


def _visible(folder: Path) -> Iterable[Path]:
    return sorted(p for p in folder.glob("*") if p.is_file() and not p.name.startswith(".")) if folder.is_dir() else []


def _from_medmnist(file: Path, split: str | None) -> list[CaseFiles]:
    if split is not None and split not in SPLITS:
        raise MedProtectError(f"{file}: no part '{split}'. A MedMNIST file has train, val and test.")
    cases = []
    for part in SPLITS if split is None else (split,):
        labels = _medmnist_array(file, f"{part}_labels")
        if labels.dtype.kind not in "iu":
            raise MedProtectError(f"{file}: '{part}_labels' holds no whole numbers. Get a fresh copy.")
        if labels.ndim == 2 and labels.shape[1] > 1:
            raise MedProtectError(f"{file}: its images have several labels each; one class per image is supported.")
        cases += [CaseFiles(f"{part}_{n:06d}", file, None, str(int(v)), n, part) for n, v in enumerate(labels.ravel())]
    return cases


def _medmnist_array(file: Path, name: str) -> np.ndarray:
    """One array of a MedMNIST file; the last one that was read is kept, since cases are read one after the other."""
    stat = file.stat()
    key = (file, name, stat.st_mtime_ns, stat.st_size)
    if key not in _KEPT:
        array = read_array(file, name)
        _KEPT.clear()
        _KEPT[key] = array
    return _KEPT[key]


_KEPT: dict[tuple[Path, str, int, int], np.ndarray] = {}


def _from_manifest(manifest: Path, split: str | None) -> list[CaseFiles]:
    columns, rows = read_table(manifest, f"not a CSV table in UTF-8. A manifest has the columns {','.join(MANIFEST_COLUMNS)}.")
    missing = {"case", "image"} - set(columns) or ({"labels"} - set(columns) if "class" not in columns else set())
    if missing:
        raise MedProtectError(
            f"{manifest}: column {', '.join(sorted(missing))} is missing. A manifest has the columns {','.join(MANIFEST_COLUMNS)}."
        )
    if split is not None:
        _check_split(manifest, split, rows)
    cases = []
    for row in rows:
        labels, image_class = row.get("labels"), row.get("class")
        if (split is not None and row.get("split") != split) or not (labels or image_class):
            continue
        case = CaseFiles(
            row["case"], manifest.parent / row["image"], manifest.parent / labels if labels else None, None if labels else image_class
        )
        for path in case.files:
            if not is_file(path):
                raise MedProtectError(f"{manifest}: case '{case.name}' names {path}, which does not exist.")
        cases.append(case)
    seen: set[str] = set()
    for case in cases:
        if case.name in seen:
            raise MedProtectError(f"{manifest}: case '{case.name}' occurs more than once.")
        seen.add(case.name)
    return cases


def _check_split(manifest: Path, split: str, rows: Sequence[Mapping[str, str]]) -> None:
    """Raises MedProtectError where no row of a manifest has this split."""
    there = sorted({row["split"] for row in rows if row["split"]})
    if split not in there:
        raise MedProtectError(f"{manifest}: no case has the split '{split}'. Its column split has {', '.join(there[:10]) or 'nothing'}.")
