"""Which reader a DICOM file with labels has."""

from __future__ import annotations

from pathlib import Path

from MedProtectLib.errors import MedProtectError
from MedProtectLib.io.dicom.header import Header, read_dataset, sop_class
from MedProtectLib.io.dicom.series import LABEL_KINDS, scan
from MedProtectLib.io.dicom.source import DicomSource
from MedProtectLib.volume import LabelMap, Volume


def read_labels(path: Path, image: Volume | None = None) -> LabelMap | None:
    """The labels in a segmentation or structure set, or in the only one of them in a folder; None where there is an image instead.

    Raises:
        MedProtectError: several of them; damaged; or they lie in another frame of reference than ``image``.
    """
    if path.is_dir():
        found = scan(path).labels
        if len(found) > 1:
            raise MedProtectError(f"{path}: {len(found)} segmentations or structure sets, such as {found[0].path.name}. Name the file.")
        if not found:
            return None
        path = found[0].path
    header = Header(path, read_dataset(path, pixels=False, only=("SOPClassUID", "FrameOfReferenceUID")))
    kind = LABEL_KINDS.get(sop_class(header))
    grid = None if image is None else image.geometry
    place = image.source.frame_of_reference if image is not None and isinstance(image.source, DicomSource) else ""
    if kind == "RTSTRUCT":
        from MedProtectLib.io.dicom import contours

        return contours.read(path, grid, place)
    if kind == "SEG":
        from MedProtectLib.io.dicom import segmentation

        if place and header.text("FrameOfReferenceUID") not in ("", place):
            raise MedProtectError(f"{path}: its segments lie in another frame of reference than the image. Give the labels of this image.")
        return segmentation.read(path, grid)
    return None
