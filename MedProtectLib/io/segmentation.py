"""Writing labels as a segmentation of 3D Slicer (.seg.nrrd): names, empty and overlapping segments are kept."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from MedProtectLib.errors import MedProtectError
from MedProtectLib.io import nrrd
from MedProtectLib.io.names import extension_of
from MedProtectLib.volume import LabelMap, Volume

EXTENSION = ".seg.nrrd"


def write_segmentation(labels: LabelMap, path: str | os.PathLike[str]) -> None:
    """Write the segments of a label map; :func:`read_labels` gives them back as they are. The same labels give the same bytes.

    Voxels of a layer that belong to none of the segments, such as those that were not selected, are written as 0.

    Raises:
        MedProtectError: another extension than .seg.nrrd, or a file that cannot be written.
    """
    path = Path(path)
    if extension_of(path) != EXTENSION:
        raise MedProtectError(f"{path}: a segmentation is written as {EXTENSION}; give it such a name.")
    layers = [_only_segments(labels, number) for number in range(len(labels.layers))]
    array = layers[0] if len(layers) == 1 else np.stack(layers, axis=-1)
    source = nrrd.new_source(Volume(array, labels.geometry, labels.name), EXTENSION)
    pairs = [
        f"Segment{number}_{key}:={_escaped(str(value))}\n"
        for number, segment in enumerate(labels.segments)
        for key, value in (
            ("ID", f"Segment_{number + 1}"),
            ("Name", segment.name),
            ("LabelValue", segment.value),
            ("Layer", segment.layer),
        )
    ]
    header, end = source.lines[0][:-1], source.lines[0][-1:]
    try:
        replace(source, lines=(header, *(pair.encode() for pair in pairs), end)).write(array, path)
    except OSError as error:
        raise MedProtectError(f"{path}: cannot be written ({error.strerror}).") from error


def _only_segments(labels: LabelMap, number: int) -> np.ndarray:
    layer = labels.layers[number]
    values = [segment.value for segment in labels.segments if segment.layer == number]
    return np.where(np.isin(layer, values), layer, 0).astype(layer.dtype)


def _escaped(text: str) -> str:
    """Text as it may stand in one line of an NRRD header."""
    return text.replace("\\", "\\\\").replace("\n", "\\n")
