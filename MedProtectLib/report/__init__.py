"""The private report of one protected case: an HTML page and an overlay picture, both of which show the perturbation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from MedProtectLib.errors import MedProtectError
from MedProtectLib.volume import Volume

CONTOUR = "contour"


@dataclass(frozen=True)
class ReportContent:
    """What a report tells.

    original: the image before; protected: the image as re-read from disk, on the same grid.
    components: name -> signed stored difference in window units (fractions of the window width), float32,
    shape (k, j, i) or (k, j, i, c), zero outside the component's region.
    regions: name -> bool (k, j, i), where that component may act. window: (low, high) in the image's own units.
    statistics: the numbers of the record (``Statistics.as_record()``); "max_abs_change" may also be a mapping with "window", "stored"
    and "units". settings: label -> text; "Unit" names the image's own unit.
    warnings and limits: one sentence each.

    Raises:
        MedProtectError: an array does not fit the grid of the original, or the window is empty.
    """

    original: Volume
    protected: Volume
    components: Mapping[str, np.ndarray]
    regions: Mapping[str, np.ndarray]
    window: tuple[float, float]
    statistics: Mapping[str, Any]
    settings: Mapping[str, str]
    warnings: Sequence[str]
    limits: Sequence[str]

    def __post_init__(self) -> None:
        if self.protected.array.shape != self.original.array.shape:
            raise MedProtectError(
                f"report of {self.original.name}: the protected image has shape {self.protected.array.shape}, the original "
                f"{self.original.array.shape}. Compare images of one grid."
            )
        for name, region in self.regions.items():
            if region.shape != self.original.geometry.shape:
                raise self.misfit(name, region)
        if not self.window[0] < self.window[1]:
            raise MedProtectError(f"report of {self.original.name}: the window {self.window} is empty. Give a low below the high.")

    @property
    def unit(self) -> str:
        """Name of the image's own unit."""
        return self.settings.get("Unit", "units")

    @property
    def window_width(self) -> float:
        """Window width in the image's own units."""
        return self.window[1] - self.window[0]

    @property
    def planar(self) -> bool:
        """Whether the image is a 2D picture."""
        return self.original.geometry.dimension == 2

    @property
    def largest_change(self) -> tuple[float, float, float]:
        """Largest absolute change in window units, in stored units and in the image's own units."""
        change = self.statistics["max_abs_change"]
        if isinstance(change, Mapping):
            return change["window"], change["stored"], change["units"]
        in_window, in_stored = change
        return in_window, in_stored, self.statistics["max_abs_change_units"]

    @property
    def difference_limit(self) -> float:
        """The change in window units that is drawn in full colour: the largest one, or the bound where nothing changed."""
        return self.largest_change[0] or self.statistics["epsilon"] or 1.0

    @property
    def component_names(self) -> tuple[str, ...]:
        """Names of the components; 'change' stands for the whole difference where there are none."""
        return tuple(self.components) or ("change",)

    @cached_property
    def touchable(self) -> np.ndarray:
        """Bool (k, j, i): where any component may act."""
        union = np.zeros(self.original.geometry.shape, bool)
        for region in self.regions.values():
            union |= region
        return union

    @cached_property
    def interior(self) -> np.ndarray:
        """Bool (k, j, i): the regions without the contour band."""
        return self.touchable & ~self.regions[CONTOUR] if CONTOUR in self.regions else self.touchable

    def misfit(self, name: str, array: np.ndarray) -> MedProtectError:
        """The error of a component or region that does not lie on the image's grid."""
        shape = self.original.geometry.shape
        return MedProtectError(f"report of {self.original.name}: '{name}' has shape {array.shape}, the image {shape} (k, j, i).")


def write_report(path: Path, content: ReportContent) -> None:
    """Write the report as one HTML file that needs no other file, network or script.

    Raises:
        MedProtectError: the file cannot be written.
    """
    from MedProtectLib.report.html import render

    _write(path, render(content).encode(errors="replace"))


def write_overlay(path: Path, content: ReportContent) -> None:
    """Write one PNG: before, after and amplified difference in the anatomical planes (one row for a 2D picture).

    Raises:
        MedProtectError: the file cannot be written.
    """
    from MedProtectLib.report.figures import overlay

    _write(path, overlay(content))


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise MedProtectError(f"{path}: cannot write the report ({error.strerror}). Check the folder and the free space.") from error
