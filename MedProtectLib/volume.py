"""An image and its labels on a grid in space: what every other part of the library passes around."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from typing import Any

import numpy as np

from MedProtectLib.errors import MedProtectError

SHOWN_SEGMENTS = 10


@dataclass(frozen=True)
class Geometry:
    """Where the voxels of a grid lie in patient space (LPS, millimetres).

    ``size``, ``spacing`` and the columns of ``direction`` go by the index axes (i, j, k); arrays have the
    axis order (k, j, i). A 2D picture is a grid with one k and ``dimension`` 2. ``placed`` is whether the file's format has a
    position in space at all.
    """

    size: tuple[int, int, int]
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    dimension: int = 3
    placed: bool = field(default=True, compare=False)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Array shape (k, j, i)."""
        i, j, k = self.size
        return (k, j, i)

    @property
    def spacing_kji(self) -> tuple[float, float, float]:
        """Voxel spacing in array axis order (k, j, i), in mm."""
        i, j, k = self.spacing
        return (k, j, i)

    def index_to_physical(self) -> np.ndarray:
        """The 4x4 matrix that takes an index (i, j, k, 1) to a point (x, y, z, 1) in LPS mm."""
        matrix = np.eye(4)
        matrix[:3, :3] = np.reshape(self.direction, (3, 3)) * np.asarray(self.spacing)
        matrix[:3, 3] = self.origin
        return matrix

    def same_grid(self, other: Geometry, tolerance: float = 1e-2) -> bool:
        """Whether both grids have the same size and every voxel centre agrees within ``tolerance`` of a voxel."""
        if self.size != other.size:
            return False
        corners = np.array([[i, j, k, 1] for i in (0, self.size[0] - 1) for j in (0, self.size[1] - 1) for k in (0, self.size[2] - 1)])
        apart = (self.index_to_physical() - other.index_to_physical()) @ corners.T
        return bool(np.all(np.abs(apart[:3]) <= tolerance * min(self.spacing)))


@dataclass(frozen=True)
class ChannelType:
    """What is known of a channel that is an image of its own: all as a :class:`Volume` of that channel alone has it."""

    dtype: np.dtype
    slope: float = 1.0
    intercept: float = 0.0
    modality: str | None = None
    photograph: bool = False
    padding_value: float | None = None
    padding_limit: float | None = None

    @classmethod
    def of(cls, volume: Volume) -> ChannelType:
        about = {each.name: getattr(volume, each.name) for each in fields(cls) if each.name != "dtype"}
        return cls(volume.array.dtype, **about)


@dataclass(frozen=True)
class Volume:
    """An image as it is stored.

    ``array`` holds the stored values with shape (k, j, i), or (k, j, i, c) for images of several channels;
    its dtype is the stored type. A value in the image's own units (HU for CT) is ``slope * stored + intercept``.
    ``alpha`` is the index of a channel that is no intensity (transparency) and is never touched.
    ``channel_types`` has an entry for every channel where the channels are images of their own (modalities, sequences; then
    ``array`` holds them in a common type, and what a channel type says too means nothing here), and none where they are colours.
    ``padding_value`` is a stored value that stands for no picture, with ``padding_limit`` the first of a range of such values.
    ``source`` is what the reader keeps so that the writer can give the same file format and metadata back.
    """

    array: np.ndarray
    geometry: Geometry
    name: str = "volume"
    slope: float = 1.0
    intercept: float = 0.0
    modality: str | None = None
    photograph: bool = False
    padding_value: float | None = None
    padding_limit: float | None = None
    alpha: int | None = None
    channel_types: tuple[ChannelType, ...] = ()
    source: Any = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_array(self.array, self.name)
        if self.array.shape[:3] != self.geometry.shape or self.array.ndim not in (3, 4):
            raise MedProtectError(
                f"{self.name}: array of shape {self.array.shape} does not fit a grid of shape {self.geometry.shape} (k, j, i)."
            )
        if self.channel_types and self.array.shape[3:] != (len(self.channel_types),):
            raise MedProtectError(f"{self.name}: {len(self.channel_types)} channel types do not fit an array of shape {self.array.shape}.")

    @property
    def intensity_channels(self) -> tuple[int, ...]:
        """Indices of the channels that hold intensities; (0,) for a scalar image."""
        count = 1 if self.array.ndim == 3 else self.array.shape[3]
        return tuple(c for c in range(count) if c != self.alpha)

    def channel(self, index: int) -> np.ndarray:
        """A view of one channel, shape (k, j, i)."""
        return self.array if self.array.ndim == 3 else self.array[..., index]

    def parts(self) -> tuple[Volume, ...]:
        """What has an intensity window and levels of its own: the channels as scalar images where they are images, else the image."""
        if not self.channel_types:
            return (self,)
        return tuple(
            replace(
                self,
                array=self.array[..., c].astype(kind.dtype, copy=False),
                name=f"{self.name}, channel {c}",
                slope=kind.slope,
                intercept=kind.intercept,
                modality=kind.modality,
                photograph=kind.photograph,
                padding_value=kind.padding_value,
                padding_limit=kind.padding_limit,
                channel_types=(),
                source=None,
            )
            for c, kind in enumerate(self.channel_types)
        )

    def with_parts(self, parts: Sequence[Volume]) -> Volume:
        """The same image with the stored values of other :meth:`parts`."""
        if not self.channel_types:
            return self.with_array(parts[0].array)
        return self.with_array(np.stack([part.array for part in parts], axis=-1).astype(self.array.dtype, copy=False))

    def with_padding(self, first: float, last: float) -> Volume:
        """The same image with the first and the last of the stored values that stand for no picture, in all of its channels."""
        kinds = tuple(replace(kind, padding_value=first, padding_limit=last) for kind in self.channel_types)
        return replace(self, padding_value=first, padding_limit=last, channel_types=kinds)

    def in_units(self, stored: np.ndarray) -> np.ndarray:
        """Stored values as float64 in the image's own units."""
        return stored.astype(np.float64) * self.slope + self.intercept

    def with_array(self, array: np.ndarray) -> Volume:
        """The same image with other stored values of the same type and shape."""
        if array.dtype != self.array.dtype or array.shape != self.array.shape:
            raise MedProtectError(
                f"{self.name}: the stored type and shape must stay {self.array.dtype} {self.array.shape}, got {array.dtype} {array.shape}."
            )
        return replace(self, array=array)


def check_array(array: np.ndarray, name: object) -> None:
    """Raises MedProtectError for what is no array of NumPy."""
    if not isinstance(array, np.ndarray):
        raise MedProtectError(f"{name}: a {type(array).__name__} where a NumPy array is needed. Convert it first.")


def as_labels(array: np.ndarray, name: object) -> np.ndarray:
    """Labels in the smallest unsigned type that holds them.

    Raises:
        MedProtectError: no array of numbers, or one with negative values or values that are not whole.
    """
    check_array(array, name)
    if array.dtype.kind not in "biuf":
        raise MedProtectError(f"{name}: not a label map: it is stored as {array.dtype}.")
    lowest, highest = array.min(initial=0).item(), array.max(initial=0).item()
    if lowest < 0:
        raise MedProtectError(f"{name}: not a label map: it has negative values (down to {lowest:g}).")
    if array.dtype.kind == "f" and (not np.isfinite(highest) or any(np.any(slab != np.rint(slab)) for slab in array)):
        raise MedProtectError(
            f"{name}: not a label map: it has values that are not whole numbers. Save labels as integers, without a scale in the header "
            "(scl_slope of NIfTI)."
        )
    return np.ascontiguousarray(array, np.min_scalar_type(int(highest)))


def check_finite(array: np.ndarray, name: object) -> None:
    """Raises MedProtectError where floats are infinite or not a number."""
    if array.dtype.kind != "f":
        return
    bad = sum(slab.size - int(np.count_nonzero(np.isfinite(slab))) for slab in array)
    if bad:
        raise MedProtectError(
            f"{name}: {bad:,} of {array.size:,} voxels are infinite or not a number. Replace them first, for example by 0."
        )


@dataclass(frozen=True)
class Segment:
    """One labelled structure: a name and the label value that marks it in a layer of a :class:`LabelMap`."""

    name: str
    value: int
    layer: int = 0

    @property
    def has_name(self) -> bool:
        """Whether its file calls it by more than its value."""
        return self.name != str(self.value)


@dataclass(frozen=True)
class LabelMap:
    """Labels on a grid. ``layers`` are integer arrays (k, j, i), one for files without overlapping segments.

    ``of_whole_image`` marks the class of an image, of which every voxel is labelled.
    """

    layers: tuple[np.ndarray, ...]
    geometry: Geometry
    segments: tuple[Segment, ...]
    name: str = "labels"
    of_whole_image: bool = False

    def __post_init__(self) -> None:
        for layer in self.layers:
            check_array(layer, self.name)
            if layer.shape != self.geometry.shape:
                raise MedProtectError(
                    f"{self.name}: a layer of shape {layer.shape} does not fit a grid of shape {self.geometry.shape} (k, j, i)."
                )

    @classmethod
    def of_image_class(cls, image_class: str, geometry: Geometry) -> LabelMap:
        """The class of a whole image, as classification has it: one segment of that name which is everywhere."""
        everywhere = np.broadcast_to(np.uint8(1), geometry.shape)
        return cls((everywhere,), geometry, (Segment(image_class, 1),), f"class {image_class}", of_whole_image=True)

    @classmethod
    def from_array(cls, array: np.ndarray, geometry: Geometry, names: Mapping[int, str] | None = None, name: str = "labels") -> LabelMap:
        """A one-layer label map; every non-zero value that occurs becomes a segment.

        Raises:
            MedProtectError: as for :func:`as_labels`, or an array that does not fit the grid.
        """
        names, array = names or {}, as_labels(array, name)
        values = [int(v) for v in np.unique(array) if v != 0]
        return cls((array,), geometry, tuple(Segment(names.get(v, str(v)), v) for v in values), name)

    def select(self, wanted: Sequence[str | int] | str | int | None = None) -> LabelMap:
        """Keep the segments given by name or label value, one or several (all when None or empty).

        Raises:
            MedProtectError: a wanted segment does not exist.
        """
        keys = [wanted] if isinstance(wanted, str | int) else list(wanted or ())
        if not keys:
            return self
        chosen: list[Segment] = []
        for key in map(str, keys):
            found = [s for s in self.segments if key == s.name] or [s for s in self.segments if key == str(s.value)]
            if not found:
                raise MedProtectError(f"{self.name}: no segment '{key}'. {self._instead(key)}.")
            chosen += [s for s in found if s not in chosen]
        return replace(self, segments=tuple(chosen))

    def _instead(self, key: str) -> str:
        """Which segment may have been meant, and which there are."""
        by_lower = {segment.name.lower(): segment.name for segment in self.segments}
        near = get_close_matches(key.lower(), by_lower, 1)
        shown = [
            segment.name if not segment.has_name else f"{segment.name} ({segment.value})" for segment in self.segments[:SHOWN_SEGMENTS]
        ]
        more = f" and {len(self.segments) - len(shown)} more" if len(self.segments) > len(shown) else ""
        meant = f"Did you mean '{by_lower[near[0]]}'? " if near else ""
        return f"{meant}Segments in the file: {', '.join(shown) or 'none'}{more}"

    def classes(self, order: Sequence[int | str] | None = None, values: Sequence[int] = ()) -> np.ndarray:
        """The selected segments as one uint8 or uint16 array (k, j, i): 0 background, then 1, 2, ...

        A segment's number is its place among the segments, or with ``order`` the place there of its name (a str) or else its
        value (an int), so that it means the same in every case. ``values`` stand for ``order`` where a segment has no name
        (:class:`~MedProtectLib.label_classes.Classes`). Where segments overlap, the later one wins.

        Raises:
            MedProtectError: a segment does not occur in ``order``.
        """
        numbers = range(1, len(self.segments) + 1) if order is None else [self._number_in(order, values, s) for s in self.segments]
        out = np.zeros(self.geometry.shape, np.uint8 if max(numbers, default=0) < 256 else np.uint16)
        for number, segment in zip(numbers, self.segments, strict=True):
            out[self.layers[segment.layer] == segment.value] = number
        return out

    def _number_in(self, order: Sequence[int | str], values: Sequence[int], segment: Segment) -> int:
        if segment.name in order:
            return order.index(segment.name) + 1
        by_value = order if segment.has_name else values or order
        if segment.value in by_value:
            return by_value.index(segment.value) + 1
        raise MedProtectError(
            f"{self.name}: the profile does not know the class '{segment.name}', only {', '.join(map(str, order))}. "
            "Leave it out with --segments, or fit a profile on data that has it."
        )
