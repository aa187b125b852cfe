"""The pictures that an object holds, one for every slice or frame, and where each lies in space."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from MedProtectLib.errors import MedProtectError
from MedProtectLib.io.dicom.header import Header
from MedProtectLib.io.grid import check_spacing

Vector = tuple[float, ...]


@dataclass(frozen=True)
class Plane:
    """One picture.

    ``position`` is the centre of its first pixel and ``orientation`` the direction of its rows and its columns, LPS mm (None for
    pictures without a place in space); ``spacing`` goes from row to row and from column to column, ``thickness`` to the next slice.
    """

    path: Path
    frame: int
    position: Vector | None
    orientation: Vector | None
    spacing: Vector
    thickness: float
    slope: float
    intercept: float


def planes_of(header: Header) -> list[Plane]:
    """The pictures of an image object, in the order in which their pixels are stored.

    Raises:
        MedProtectError: a damaged header; several frames that have no place in space; part of a concatenation.
    """
    frames = header.integer("NumberOfFrames", 1) or 1
    groups = header.items("PerFrameFunctionalGroupsSequence")
    if header.text("ConcatenationUID"):
        raise MedProtectError(f"{header.path}: one part of a concatenation of multi-frame objects. Join the parts to one object first.")
    if groups:
        if len(groups) != frames:
            raise header.damaged("PerFrameFunctionalGroupsSequence")
        shared = header.items("SharedFunctionalGroupsSequence")
        return [_plane(header, number, [group, *shared]) for number, group in enumerate(groups)]
    if frames > 1:
        raise MedProtectError(
            f"{header.path}: {frames} frames without a place in space (a cine loop, not a volume). Save the frames as single images."
        )
    return [_plane(header, 0, [])]


def _plane(header: Header, number: int, groups: list[Header]) -> Plane:
    """A picture from the functional groups that hold for it, its own before the shared ones, or else from the object itself."""

    def macro(sequence: str) -> Header:
        found = [item for group in groups for item in group.items(sequence)[:1]]
        return found[0] if found else header

    measures, values = macro("PixelMeasuresSequence"), macro("PixelValueTransformationSequence")
    spacing = measures.numbers("PixelSpacing", 2) or header.numbers("ImagerPixelSpacing", 2) or (1.0, 1.0)
    thickness = measures.number("SpacingBetweenSlices", 0.0) or measures.number("SliceThickness", 0.0) or 1.0
    check_spacing(header.path, (*spacing, abs(thickness)))
    slope = values.number("RescaleSlope", 1.0)
    if slope == 0:
        raise header.damaged("RescaleSlope")
    return Plane(
        path=header.path,
        frame=number,
        position=macro("PlanePositionSequence").numbers("ImagePositionPatient", 3),
        orientation=macro("PlaneOrientationSequence").numbers("ImageOrientationPatient", 6),
        spacing=spacing,
        thickness=abs(thickness),
        slope=slope,
        intercept=values.number("RescaleIntercept", 0.0),
    )
