"""What lies in a folder of DICOM files: image series, segmentations and structure sets, other objects, strangers."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pydicom.uid import (
    ParametricMapStorage,
    RTDoseStorage,
    RTStructureSetStorage,
    SegmentationStorage,
)

from MedProtectLib.errors import MedProtectError
from MedProtectLib.io.dicom.derivation import carries_our_mark
from MedProtectLib.io.dicom.header import Header, read_dataset, sop_class
from MedProtectLib.io.names import is_dicom

LABEL_MAP_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.7"
LABEL_KINDS = {SegmentationStorage: "SEG", LABEL_MAP_SEGMENTATION: "SEG", RTStructureSetStorage: "RTSTRUCT"}
MODALITIES = {"CT": "CT", "MR": "MR", "US": "US", "PT": "PT", "NM": "NM"} | dict.fromkeys(("CR", "DX", "MG", "XA", "RF", "IO", "PX"), "XR")
NO_IMAGES = (RTDoseStorage, ParametricMapStorage)
KEYWORDS = (
    "SOPClassUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "Modality",
    "SeriesNumber",
    "SeriesDescription",
    "Rows",
    "NumberOfFrames",
    "ImagePositionPatient",
    "ContributingEquipmentSequence",
    "ReferencedSeriesSequence",
    "ReferencedFrameOfReferenceSequence",
)


@dataclass(frozen=True)
class Series:
    """The files of one image: the slices of a series, or one object that is an image of its own (multi-frame, X-ray, ultrasound).

    ``alone`` marks an object that is an image of its own, ``protected`` says that it carries MedProtect's mark. UIDs and texts are
    empty where the files have none.
    """

    files: tuple[Path, ...]
    alone: bool
    uid: str
    study_uid: str
    frame_of_reference: str
    modality: str
    number: str
    description: str
    protected: bool


@dataclass(frozen=True)
class LabelFile:
    """A DICOM segmentation (``kind`` "SEG") or structure set ("RTSTRUCT") and the UIDs of the series that it names."""

    path: Path
    kind: str
    study_uid: str
    frame_of_reference: str
    series_uids: tuple[str, ...]


@dataclass(frozen=True)
class Inventory:
    """Everything below a folder.

    ``others`` are DICOM objects that are neither images nor labels, ``damaged`` also empty and unreadable files, ``strangers`` no DICOM.
    """

    series: tuple[Series, ...]
    labels: tuple[LabelFile, ...]
    others: tuple[Path, ...]
    damaged: tuple[Path, ...]
    strangers: tuple[Path, ...]


def find_series(folder: str | os.PathLike[str]) -> tuple[Series, ...]:
    """Every image series below a folder, in the order of their first files; see :func:`scan`."""
    return scan(folder).series


def scan(folder: str | os.PathLike[str]) -> Inventory:
    """Look at every file below a folder (links to folders are not followed).

    Slices belong together by their Series Instance UID, wherever they lie, or by their folder where they have none. An object of
    their series and class without a position counts as one of them: it was damaged, and is no image of its own.

    Raises:
        MedProtectError: the folder cannot be read.
    """
    return inventory(_files(Path(folder)))


def inventory(files: Iterable[Path]) -> Inventory:
    """Look at some files; see :func:`scan`."""
    groups: dict[tuple[str, str, str], list[Series]] = {}
    labels: list[LabelFile] = []
    others: list[Path] = []
    damaged: list[Path] = []
    strangers: list[Path] = []
    for path in files:
        if not is_dicom(path):
            (strangers if _is_whole(path) else damaged).append(path)
            continue
        try:
            header = Header(path, read_dataset(path, pixels=False, only=KEYWORDS))
            kind = sop_class(header)
            if kind in LABEL_KINDS:
                labels.append(_label_file(header, LABEL_KINDS[kind]))
            elif header.integer("Rows") is None or kind in NO_IMAGES:
                others.append(path)
            else:
                alone = (header.integer("NumberOfFrames", 1) or 1) > 1 or header.numbers("ImagePositionPatient", 3) is None
                one = _series(header, alone)
                groups.setdefault((one.uid, "" if one.uid else str(path.parent), kind), []).append(one)
        except (MedProtectError, OSError):
            damaged.append(path)
    pictures: list[Series] = []
    slices: defaultdict[tuple[str, str], list[Series]] = defaultdict(list)
    for (uid, folder, _), group in groups.items():
        if all(one.alone for one in group):
            pictures += group
        else:
            slices[uid, folder] += group
    stacks = [replace(group[0], alone=False, files=tuple(f for one in group for f in one.files)) for group in slices.values()]
    beside = {(file.parent, file.suffix.lower()) for stack in stacks for file in stack.files if file.suffix}
    lost = {path for path in strangers if (path.parent, path.suffix.lower()) in beside}  # slices that are none any more
    damaged, strangers = [*damaged, *sorted(lost)], [path for path in strangers if path not in lost]
    series = sorted([*stacks, *pictures], key=lambda one: one.files[0])
    return Inventory(tuple(series), tuple(labels), tuple(others), tuple(damaged), tuple(strangers))


def is_picture(series: Series) -> bool:
    """Whether the image is one object, whose derived version is one file where it was named as a file."""
    return series.alone


def choose(found: tuple[Series, ...], wanted: str | None, where: Path) -> Series:
    """The one series, or the one that ``wanted`` names by its UID, number or description.

    Raises:
        MedProtectError: there is none, or more than one.
    """
    named = found if wanted is None else tuple(one for one in found if wanted in (one.uid, one.number, one.description))
    if len(named) == 1:
        return named[0]
    if not found:
        raise MedProtectError(f"{where}: no DICOM image in this folder.")
    kinds = {one: one.modality if one.modality in MODALITIES else "image" for one in found[:8]}  # other words could be anything
    listed = [f"{kind} of {len(one.files)} ({one.files[0].relative_to(where)})" for one, kind in kinds.items()]
    more = f" and {len(found) - 8} more" if len(found) > 8 else ""
    what = f"{len(found)} image series" if wanted is None else f"{len(named)} of {len(found)} image series fit --series"
    raise MedProtectError(
        f"{where}: {what}: {', '.join(listed)}{more}. "
        "Name one by a file of it instead of the folder, or with --series by its UID, number or description."
    )


def _files(folder: Path) -> Iterator[Path]:
    def fail(error: OSError) -> None:
        raise MedProtectError(f"{error.filename or folder}: cannot be read ({error.strerror}).") from error

    for root, folders, names in os.walk(folder, onerror=fail):
        folders.sort()
        yield from (path for path in (Path(root, name) for name in sorted(names)) if path.is_file())


def _is_whole(path: Path) -> bool:
    """Whether a file is neither empty nor unreadable, as a slice that was lost in copying may be."""
    return os.access(path, os.R_OK) and path.stat().st_size > 0


def _series(header: Header, alone: bool) -> Series:
    return Series(
        files=(header.path,),
        alone=alone,
        uid=header.text("SeriesInstanceUID"),
        study_uid=header.text("StudyInstanceUID"),
        frame_of_reference=header.text("FrameOfReferenceUID"),
        modality=header.text("Modality"),
        number=header.text("SeriesNumber"),
        description=header.text("SeriesDescription"),
        protected=carries_our_mark(header),
    )


def _label_file(header: Header, kind: str) -> LabelFile:
    if kind == "SEG":
        named = header.items("ReferencedSeriesSequence")
        frames = [header.text("FrameOfReferenceUID")]
    else:
        places = header.items("ReferencedFrameOfReferenceSequence")
        studies = [study for place in places for study in place.items("RTReferencedStudySequence")]
        named = [series for study in studies for series in study.items("RTReferencedSeriesSequence")]
        frames = [place.text("FrameOfReferenceUID") for place in places] or [header.text("FrameOfReferenceUID")]
    uids = tuple(dict.fromkeys(series.text("SeriesInstanceUID") for series in named))
    return LabelFile(header.path, kind, header.text("StudyInstanceUID"), frames[0], uids)
