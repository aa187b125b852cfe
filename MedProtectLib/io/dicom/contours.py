"""RT structure sets (RTSTRUCT) as labels: contours placed by their coordinates and filled on the slices of the image.

A voxel belongs to a structure where its centre lies inside an odd number of the structure's closed contours on its slice, so that
holes can be contours of their own or be joined to their outer contour by a channel. A contour counts for the slice that is nearest
to its plane; slices without a contour stay empty. Where the contours of several planes fall on one slice, their areas are joined.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from skimage.draw import polygon

from MedProtectLib.errors import MedProtectError
from MedProtectLib.io.dicom.header import Header, careful, read_dataset
from MedProtectLib.io.dicom.layers import Structure, label_map
from MedProtectLib.volume import Geometry, LabelMap

CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR", "INTERPOLATED_PLANAR")
PARALLEL = 0.25  # of the distance between slices: a contour that leaves its plane by more is not parallel to the slices
SAME_PLANE = 0.01
LARGEST_NUMBER = 65535
Point = tuple[float, float, float]


@dataclass(frozen=True)
class Outline:
    """A closed contour on a grid: its points as they are written (LPS mm), its corners (j, i), and its height in slices (k)."""

    points: np.ndarray
    corners: np.ndarray
    height: float


def read(path: Path, grid: Geometry | None, frame_of_reference: str = "") -> LabelMap:
    """The structures of a structure set by their number and name, on the grid of the image that they were drawn on.

    Structures of another frame of reference are left out; those without closed contours are empty.

    Raises:
        MedProtectError: no image was given; damaged; contours that are not parallel to the slices; no structure lies in the image's
            frame of reference, or none of their contours in the image.
    """
    if grid is None or grid.dimension != 3:
        raise MedProtectError(f"{path}: contours (RTSTRUCT) become labels on the grid of a 3D image. Give the image that they belong to.")
    header = Header(path, read_dataset(path))
    contours = _contours(header)
    regions = [
        region
        for region in header.items("StructureSetROISequence")
        if not frame_of_reference or region.text("ReferencedFrameOfReferenceUID") in ("", frame_of_reference)
    ]
    if not regions:
        raise MedProtectError(f"{path}: its structures lie in another frame of reference than the image. Give the labels of this image.")
    numbers = [region.integer("ROINumber") for region in regions]
    usable = all(number is not None and 1 <= number <= LARGEST_NUMBER for number in numbers) and len(set(numbers)) == len(numbers)
    values = [number or 0 for number in numbers] if usable else list(range(1, len(numbers) + 1))
    with careful(path):
        structures = [
            Structure(region.text("ROIName") or str(value), value, _filled(header, contours.get(number, ()), grid))
            for region, number, value in zip(regions, numbers, values, strict=True)
        ]
    if any(contours.get(number) for number in numbers) and not any(structure.slices for structure in structures):
        raise MedProtectError(f"{path}: its contours lie elsewhere in space than the image. Give the labels of this image.")
    return label_map(structures, grid, max(values), path.name)


def _contours(header: Header) -> dict[int | None, list[np.ndarray]]:
    """The closed contours (points, 3) in LPS mm by the number of their structure."""
    contours: defaultdict[int | None, list[np.ndarray]] = defaultdict(list)
    for structure in header.items("ROIContourSequence"):
        number = structure.integer("ReferencedROINumber")
        for contour in structure.items("ContourSequence"):
            numbers = contour.numbers("ContourData") or ()
            if contour.text("ContourGeometricType") not in CLOSED or len(numbers) < 9:
                continue
            if len(numbers) != 3 * (contour.integer("NumberOfContourPoints") or len(numbers) // 3):
                raise contour.damaged("ContourData")
            contours[number].append(np.reshape(numbers, (-1, 3)))
    return contours


def _filled(header: Header, contours: Sequence[np.ndarray], grid: Geometry) -> dict[int, np.ndarray]:
    """Bool (j, i) by k of the slices that the contours of one structure cover."""
    inverse = np.linalg.inv(grid.index_to_physical())
    slices: dict[int, np.ndarray] = {}
    for plane in _planes([_outline(header, points, inverse) for points in contours]):
        height = round(plane[0].height / SAME_PLANE)
        k = int(np.ceil(height * SAME_PLANE - 0.5))
        if 0 <= k < grid.shape[0]:
            mask = slices.setdefault(k, np.zeros(grid.shape[1:], bool))
            mask |= _inside(plane, grid)
    return slices


def _outline(header: Header, points: np.ndarray, inverse: np.ndarray) -> Outline:
    index = points @ inverse[:3, :3].T + inverse[:3, 3]
    height = float(np.median(index[:, 2]))
    if np.abs(index[:, 2] - height).max() > PARALLEL:
        raise MedProtectError(f"{header.path}: it has contours that are not parallel to the slices of the image, which cannot be filled.")
    return Outline(points, index[:, 1::-1], height)


def _planes(outlines: Sequence[Outline]) -> list[list[Outline]]:
    """Outlines that lie in one plane together, from the lowest plane to the highest."""
    planes: list[list[Outline]] = []
    for outline in sorted(outlines, key=lambda one: one.height):
        if planes and outline.height - planes[-1][0].height <= SAME_PLANE:
            planes[-1].append(outline)
        else:
            planes.append([outline])
    return planes


def _inside(outlines: Sequence[Outline], grid: Geometry) -> np.ndarray:
    """Bool (j, i) of the voxels inside an odd number of outlines; one that occurs twice counts once."""
    inside = np.zeros(grid.shape[1:], bool)
    for outline in _different(outlines):
        inside[polygon(outline.corners[:, 0], outline.corners[:, 1], grid.shape[1:])] ^= True
    return inside


def _different(outlines: Sequence[Outline]) -> Iterable[Outline]:
    return outlines if len(outlines) == 1 else {_edges(one.points): one for one in reversed(outlines)}.values()


def _edges(points: np.ndarray) -> tuple[tuple[Point, Point], ...]:
    """The edges of a closed contour, the same ones wherever it begins, whichever way it goes and whether it repeats its first point."""
    corners = [(x, y, z) for x, y, z in points.tolist()]
    pairs = zip(corners, corners[1:] + corners[:1], strict=True)
    return tuple(sorted((min(pair), max(pair)) for pair in pairs if pair[0] != pair[1]))
