"""DICOM segmentations (SEG) as labels: binary, fractional and label maps, sparse and overlapping, placed by their geometry."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from highdicom.seg import Segmentation
from pydicom.pixels import get_decoder

from MedProtectLib.errors import MedProtectError
from MedProtectLib.io.dicom.compression import can_decode, check_frames
from MedProtectLib.io.dicom.header import Header, careful, read_dataset
from MedProtectLib.io.dicom.layers import Structure, label_map
from MedProtectLib.io.dicom.pixels import MOST_EXPANSION, SMALL, is_native
from MedProtectLib.io.dicom.planes import Plane, planes_of
from MedProtectLib.io.grid import geometry_from_matrix
from MedProtectLib.volume import Geometry, LabelMap, Segment

FRACTION = 0.5  # of the maximum fractional value: from here on a voxel belongs to the segment
ON_PLANE = 0.05  # of a voxel: a frame this near to the image's own voxels lies on them
LARGEST_NUMBER = 65535
TILED = "TotalPixelMatrixRows"
Place = tuple[int, int, int]
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Frames:
    """The frames of a segmentation: the plane of each, and the segment that it shows (None in label maps)."""

    header: Header
    planes: Sequence[Plane]
    numbers: Sequence[int | None]
    rows: int
    columns: int

    def pixels(self, frames: Sequence[int]) -> Iterator[np.ndarray]:
        """The stored pixels (j, i) of some frames.

        Raises:
            MedProtectError: truncated or damaged pixels.
        """
        dataset, size = self.header.data, self.rows * self.columns
        with careful(self.header.path):
            if dataset.BitsAllocated == 1 and is_native(dataset):
                arrays = (_unpacked(dataset.PixelData, frame * size, size) for frame in frames)
            else:
                arrays = (array for array, _ in get_decoder(dataset.file_meta.TransferSyntaxUID).iter_array(dataset, indices=frames))
            for array in arrays:
                yield array.reshape(self.rows, self.columns)


def _unpacked(packed: bytes, start: int, count: int) -> np.ndarray:
    """``count`` bits from bit ``start`` on, which need not begin a byte, as uint8. Frames follow each other without a gap.

    Raises:
        ValueError: there are not so many.
    """
    bits = np.unpackbits(np.frombuffer(packed[start // 8 : -(-(start + count) // 8)], np.uint8), bitorder="little")[start % 8 :][:count]
    if len(bits) < count:
        raise ValueError("too few bits")
    return bits


def read(path: Path, grid: Geometry | None) -> LabelMap:
    """The segments of a segmentation by their number and label, on the image's ``grid`` where its frames lie on it, else on its own.

    Raises:
        MedProtectError: damaged; a whole-slide image; frames that are neither on the image's grid nor on one of their own.
    """
    header = Header(path, read_dataset(path))
    if TILED in header.data:
        raise MedProtectError(f"{path}: a segmentation of a whole-slide image. Only radiological images are supported.")
    names = _names(header)
    frames = _frames(header)
    with careful(path):
        places = None if grid is None else _places(frames, grid)
        if grid is None or places is None:
            grid = _own_grid(frames)
            places = _places(frames, grid)
        else:
            _tell_of_gaps(path, places)
    if places is None:
        raise MedProtectError(f"{path}: its frames lie neither on the grid of the image nor on one of their own.")
    if None in frames.numbers:
        return _from_label_map(frames, places, names, grid)
    return label_map(_structures(frames, places, names, grid), grid, max(names), path.name)


def _names(header: Header) -> dict[int, str]:
    """Labels by segment number."""
    names = {}
    for item in header.items("SegmentSequence"):
        number = item.integer("SegmentNumber")
        if number is None or not 0 <= number <= LARGEST_NUMBER:
            raise header.damaged("SegmentNumber")
        if number:
            names[number] = item.text("SegmentLabel") or str(number)
    if not names:
        raise header.damaged("SegmentSequence")
    return names


def _frames(header: Header) -> Frames:
    rows, columns = header.integer("Rows") or 0, header.integer("Columns") or 0
    allocated, count = header.integer("BitsAllocated"), header.integer("NumberOfFrames", 1) or 1
    syntax, size = header.data.file_meta.TransferSyntaxUID, header.path.stat().st_size
    if min(rows, columns, count) < 1 or allocated not in (1, 8, 16) or header.integer("SamplesPerPixel", 1) != 1:
        raise header.damaged("BitsAllocated")
    if is_native(header.data):
        if rows * columns * count * allocated // 8 > size:
            raise MedProtectError(
                f"{header.path}: truncated: {size:,} bytes are too few for the {count:,} frames that its header announces."
            )
    elif not can_decode(syntax, allocated):
        raise MedProtectError(f"{header.path}: no decoder for its transfer syntax. Convert it to Explicit VR Little Endian.")
    else:
        with careful(header.path):
            check_frames(header.data, rows, columns, count)
    planes = planes_of(header)
    if header.text("SegmentationType") == "LABELMAP":
        return Frames(header, planes, [None] * count, rows, columns)
    shared = header.items("SharedFunctionalGroupsSequence")
    numbers = [_segment_of([group, *shared]) for group in header.items("PerFrameFunctionalGroupsSequence") or [header]]
    return Frames(header, planes, numbers, rows, columns)


def _segment_of(groups: Sequence[Header]) -> int:
    for group in groups:
        for item in group.items("SegmentIdentificationSequence"):
            if (number := item.integer("ReferencedSegmentNumber")) is not None:
                return number
    raise groups[0].damaged("SegmentIdentificationSequence")


def _places(frames: Frames, grid: Geometry) -> list[Place] | None:
    """The index (k, j, i) of the first pixel of every frame on a grid, None where one does not lie on it."""
    if all(plane.position is None for plane in frames.planes):
        return [(0, 0, 0)] * len(frames.planes) if (grid.dimension, grid.size) == (2, (frames.columns, frames.rows, 1)) else None
    inverse = np.linalg.inv(grid.index_to_physical())
    places = []
    for plane in frames.planes:
        if plane.position is None or plane.orientation is None:
            return None
        along_row, along_column = np.reshape(plane.orientation, (2, 3)) * np.array([[plane.spacing[1]], [plane.spacing[0]]])
        axes = inverse[:3, :3] @ np.stack([along_row, along_column], axis=1)
        start = inverse[:3, :3] @ plane.position + inverse[:3, 3]
        if (
            np.abs(axes - np.eye(3, 2)).max() > ON_PLANE / max(frames.rows, frames.columns)
            or np.abs(start - np.rint(start)).max() > ON_PLANE
        ):
            return None
        i, j, k = (int(index) for index in np.rint(start))
        places.append((k, j, i))
    return places


def _tell_of_gaps(path: Path, places: Sequence[Place]) -> None:
    """Give a notice of frames that lie evenly on some of the image's slices: the segmentation may have thicker ones."""
    slices = sorted({k for k, _, _ in places})
    every = math.gcd(*(after - before for before, after in pairwise(slices)))
    if len(slices) > 2 and every > 1:
        logger.warning("%s: all its frames lie %d slices of the image apart or more; the slices between them stay empty.", path, every)


def _own_grid(frames: Frames) -> Geometry:
    """The grid that the frames lie on, with slices for those that were left out because they are empty.

    Raises:
        MedProtectError: they are not evenly spaced.
    """
    path = frames.header.path
    if all(plane.position is None for plane in frames.planes):
        return Geometry((frames.columns, frames.rows, 1), dimension=2)
    with careful(path):
        found = Segmentation.from_dataset(frames.header.data, copy=True).get_volume_geometry()
    if found is None:
        raise MedProtectError(f"{path}: its frames are not evenly spaced. Save the segmentation on the grid of the image.")
    size = found.spatial_shape[::-1]
    if math.prod(size) > max(SMALL, MOST_EXPANSION * path.stat().st_size):
        raise MedProtectError(
            f"{path}: its frames lie too far apart for the slices between them. Save the segmentation on the grid of the image."
        )
    matrix = np.array(found.affine)
    matrix[:3, :3] = matrix[:3, 2::-1]
    return geometry_from_matrix(path, size, matrix)


def _cut(place: Place, pixels: np.ndarray, grid: Geometry) -> tuple[int, tuple[slice, slice], np.ndarray] | None:
    """A frame's part inside the grid: k, its box (j, i) there and its pixels; None where it lies outside."""
    k, j, i = place
    shape = grid.shape
    rows = slice(max(j, 0), min(j + pixels.shape[0], shape[1]))
    columns = slice(max(i, 0), min(i + pixels.shape[1], shape[2]))
    if not 0 <= k < shape[0] or rows.start >= rows.stop or columns.start >= columns.stop:
        return None
    return k, (rows, columns), pixels[rows.start - j : rows.stop - j, columns.start - i : columns.stop - i]


def _structures(frames: Frames, places: Sequence[Place], names: Mapping[int, str], grid: Geometry) -> Iterator[Structure]:
    """The segments of binary and fractional segmentations."""
    header = frames.header
    fractional = header.text("SegmentationType") == "FRACTIONAL"
    threshold = FRACTION * (header.integer("MaximumFractionalValue", 255) or 255) if fractional else 1
    for number, name in names.items():
        own = [n for n, shown in enumerate(frames.numbers) if shown == number]
        slices: dict[int, np.ndarray] = {}
        for frame, pixels in zip(own, frames.pixels(own) if own else (), strict=True):
            if cut := _cut(places[frame], pixels, grid):
                k, box, inside = cut
                mask = slices.setdefault(k, np.zeros(grid.shape[1:], bool))
                mask[box] |= inside >= threshold
        yield Structure(name, number, slices)


def _from_label_map(frames: Frames, places: Sequence[Place], names: Mapping[int, str], grid: Geometry) -> LabelMap:
    """The segments of a label map, whose pixels are their numbers; other values are background."""
    layer = np.zeros(grid.shape, np.min_scalar_type(max(names)))
    known = list(names)
    for place, pixels in zip(places, frames.pixels(range(len(places))), strict=True):
        if cut := _cut(place, pixels, grid):
            k, box, inside = cut
            layer[k][box] = np.where(np.isin(inside, known), inside, 0)
    return LabelMap((layer,), grid, tuple(Segment(name, number) for number, name in names.items()), frames.header.path.name)
