"""Copies of segmentations and structure sets that refer to derived images instead of the original ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from pydicom import Dataset
from pydicom.datadict import dictionary_VR
from pydicom.uid import UID

from MedProtectLib.errors import MedProtectError
from MedProtectLib.io.dicom.derivation import SIGNATURES, drop
from MedProtectLib.io.dicom.header import Header, careful, read_dataset, sop_class, sop_instance
from MedProtectLib.io.dicom.series import LABEL_KINDS
from MedProtectLib.io.dicom.uids import DerivedUids, uid_of
from MedProtectLib.io.source import new_file

STORAGE = "1.2.840.10008.5.1.4.1.1."  # the images and other objects of a study; studies and procedure steps lie outside


def rewrite_references(source: Path, target: Path, derived: Sequence[DerivedUids]) -> None:
    """Write a copy of a segmentation or structure set whose references point to derived series.

    It gets new SOP Instance and Series Instance UIDs, the same ones each time. Everything else stays: pixels and contours byte for
    byte. Nothing is left behind when that cannot be done.

    Raises:
        MedProtectError: neither SEG nor RTSTRUCT, damaged, or a reference to an object that has no derived counterpart.
    """
    header = Header(source, read_dataset(source))
    if sop_class(header) not in LABEL_KINDS:
        raise MedProtectError(f"{source}: neither a segmentation nor a structure set, so its references cannot be rewritten.")
    instances = {old: new for one in derived for old, new in one.instances.items()}
    series = {old: new for one in derived for old, new in one.series.items()}
    with careful(source):
        items = [item for item in _items(header.data) if item is not header.data]
        images = [item for item in items if "ReferencedSOPInstanceUID" in item and _is_stored(item)]
        lists = [item for item in items if "SeriesInstanceUID" in item]
        lost = sum(item.ReferencedSOPInstanceUID not in instances for item in images)
        lost_series = sum(item.SeriesInstanceUID not in series for item in lists)
        if lost or lost_series:
            raise MedProtectError(
                f"{source}: {lost} of its {len(images)} references to images and {lost_series} of its {len(lists)} to series name objects "
                "that are not among the protected ones."
            )
        for item in images:
            item.ReferencedSOPInstanceUID = UID(instances[item.ReferencedSOPInstanceUID])
        for item in lists:
            item.SeriesInstanceUID = UID(series[item.SeriesInstanceUID])
        new = sorted(series.values())
        dataset = header.data
        dataset.SOPInstanceUID = UID(uid_of(("MedProtect references", sop_instance(header), *new)))
        dataset.SeriesInstanceUID = UID(uid_of(("MedProtect series of references", header.text("SeriesInstanceUID"), *new)))
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        drop(dataset, SIGNATURES)
        with new_file(target) as stream:
            dataset.save_as(stream, enforce_file_format=True)


def _items(dataset: Dataset) -> Iterator[Dataset]:
    """The data set and all items of its public sequences, without touching other elements, so that they are written as they were."""
    yield dataset
    for tag in list(dataset.keys()):
        element = dataset.get_item(tag)
        if tag.is_private or element.VR not in (None, "SQ", "UN") or (element.VR != "SQ" and _known_vr(tag) != "SQ"):
            continue
        for item in dataset[tag].value or ():
            yield from _items(item)


def _known_vr(tag: int) -> str:
    try:
        return dictionary_VR(tag)
    except KeyError:
        return ""


def _is_stored(item: Dataset) -> bool:
    kind = str(item.get("ReferencedSOPClassUID") or "")
    return not kind or kind.startswith(STORAGE)
