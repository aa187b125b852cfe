"""Label maps: the structures that a file holds, by name and value."""

from __future__ import annotations

import html
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from MedProtectLib.errors import MedProtectError, UsageError
from MedProtectLib.io.names import is_dicom
from MedProtectLib.io.resample import check_size
from MedProtectLib.io.volumes import read_stored
from MedProtectLib.volume import LabelMap, Segment, Volume, as_labels

CARET_LABEL = re.compile(rb'<Label\b[^>]*\bKey="(\d+)"[^>]*>\s*(?:<!\[CDATA\[)?([^<\]]+)')
SLICER_SEGMENT = re.compile(r"Segment(\d+)_(ID|Name|LabelValue|Layer)")


def read_labels(path: str | os.PathLike[str], image: Volume | None = None) -> LabelMap:
    """Read a label map.

    Every value but 0 that occurs becomes a segment. Names come from a segmentation of 3D Slicer (whose segments are all
    kept, empty ones too, and may overlap in several layers) or from the label table in a NIfTI header; other segments are
    called by their value. Layers have the smallest unsigned type that holds their values.

    Segments of DICOM (SEG, RTSTRUCT) have their numbers as values and are laid on the grid of the ``image`` that they belong to;
    contours need it.

    Raises:
        MedProtectError: as for :func:`read_volume`; negative or fractional values; colours instead of labels; a picture of another
            size than the ``image``.
    """
    path = Path(path)
    if (path.is_dir() or is_dicom(path)) and (found := _from_dicom(path, image)) is not None:
        return found
    volume = read_stored(path)
    from_slicer = _slicer_fields(volume)
    layers = tuple(as_labels(layer, path) for layer in _layers(path, volume, from_slicer))
    segments = _slicer_segments(path, from_slicer, len(layers))
    named = {(segment.layer, segment.value) for segment in segments}
    names = _caret_names(volume)
    for number, layer in enumerate(layers):
        segments += [Segment(names.get(v, str(v)), v, number) for v in _values(layer) if v and (number, v) not in named]
    labels = LabelMap(layers, volume.geometry, tuple(segments), path.name)
    if image is not None:
        check_size(labels, image.geometry, image.name)
    return labels


def labels_or_class(volume: Volume, path: str | os.PathLike[str] | None, segments: Sequence[str], image_class: str | None) -> LabelMap:
    """The chosen segments of a label map, or where there is none the class of the whole image.

    Raises:
        MedProtectError: as for :func:`read_labels` and :meth:`LabelMap.select`. UsageError: neither or both are given.
    """
    if (path is None) == (image_class is None):
        raise UsageError("give either a label map or the class of the whole image.")
    if path is None:
        return LabelMap.of_image_class(str(image_class), volume.geometry).select(segments)
    return read_labels(path, volume).select(segments)


def _from_dicom(path: Path, image: Volume | None) -> LabelMap | None:
    from MedProtectLib.io.dicom.labels import read_labels as read_dicom_labels

    return read_dicom_labels(path, image)


def _layers(path: Path, volume: Volume, from_slicer: Mapping[int, Mapping[str, str]]) -> Sequence[np.ndarray]:
    array = volume.array
    if (volume.slope, volume.intercept) != (1.0, 0.0):
        array = volume.in_units(array)
    if array.ndim == 3:
        return [array]
    channels = [array[..., channel] for channel in volume.intensity_channels]
    if from_slicer:
        return channels
    if not all(np.array_equal(channels[0], other) for other in channels[1:]):
        raise MedProtectError(f"{path}: a colour image, not a label map. Save the labels as one number per voxel.")
    return channels[:1]


def _values(layer: np.ndarray) -> list[int]:
    """The values that occur, in increasing order."""
    return np.unique(np.concatenate([np.unique(slab) for slab in layer])).tolist()


def _slicer_fields(volume: Volume) -> dict[int, dict[str, str]]:
    """The ID, Name, LabelValue and Layer of 3D Slicer's segments, by their number in the header."""
    fields: dict[int, dict[str, str]] = {}
    for key, text in getattr(volume.source, "pairs", {}).items():
        if match := SLICER_SEGMENT.fullmatch(key):
            fields.setdefault(int(match[1]), {})[match[2]] = text.strip()
    return dict(sorted(fields.items()))


def _slicer_segments(path: Path, fields: Mapping[int, Mapping[str, str]], layers: int) -> list[Segment]:
    """Files from before 2020 have neither LabelValue nor Layer: each segment is a layer of zeros and ones."""
    segments = []
    for number, about in fields.items():
        name = about.get("Name") or about.get("ID") or str(number)
        try:
            segment = Segment(name, int(about.get("LabelValue", 1)), int(about.get("Layer", number if layers > 1 else 0)))
        except ValueError as error:
            raise MedProtectError(f"{path}: damaged segmentation: segment '{name}' has no whole number as value or layer.") from error
        if not 0 <= segment.layer < layers:
            raise MedProtectError(f"{path}: damaged segmentation: segment '{name}' is in layer {segment.layer}, the file has {layers}.")
        if segment.value < 1:
            raise MedProtectError(
                f"{path}: segment '{name}' has the label value {segment.value}; segments begin at 1, since 0 is the background. "
                "Export the segmentation anew."
            )
        segments.append(segment)
    return segments


def _caret_names(volume: Volume) -> dict[int, str]:
    """Names by value from a Caret label table, as Connectome Workbench and TotalSegmentator keep it in a NIfTI extension."""
    header = (getattr(volume.source, "hdr", None) or b"") + getattr(volume.source, "prefix", b"")
    return {int(value): html.unescape(name.decode("utf-8", "replace")).strip() for value, name in CARET_LABEL.findall(header)}
