"""The intensity window: which range of values a trainer's network will see, and so what a bound or a PSNR means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import maximum_filter

from MedProtectLib.errors import MedProtectError, UsageError
from MedProtectLib.levels import in_declared_padding, regions_of_parts
from MedProtectLib.regions import Regions, grown, within
from MedProtectLib.volume import Volume

WINDOW_UNITS = "window units"
MODALITIES = ("CT", "MR", "US", "XR")
CT_MINIMUM_WIDTH = 400.0
CT_REACH_MM = 10.0
SPACING_ROUNDING = 1 + 1e-5  # a spacing that a format keeps in 32 bits is the same spacing
ZERO_ROUNDING = 2.0**-22  # slope and intercept, each of which a format keeps in 32 bits, shift the stored zero by no more than that
CT_AIR = -500.0
NARROWEST, WIDEST = 1e-30, 1e30
HOUNSFIELD = "HU"
PERCENTILES = (0.5, 99.5)


@dataclass(frozen=True)
class IntensityWindow:
    """Low and high end in the image's own units, the name of that unit, how the window was found and whether by a guess."""

    low: float
    high: float
    rule: str = "given"
    unit: str = "stored units"
    guessed: bool = False

    @property
    def width(self) -> float:
        return self.high - self.low

    def normalise(self, units: np.ndarray) -> np.ndarray:
        """Values in units -> float32 window units: 0 at the low end, 1 at the high end, not clipped."""
        return ((units - self.low) / self.width).astype(np.float32)


def choose_windows(
    volume: Volume, regions: Regions, modality: str | None = None, given: Sequence[float] | None = None
) -> tuple[IntensityWindow, ...]:
    """The window of every part of an image, each by :func:`choose_window`; ``modality`` and ``given`` hold for all parts.

    Raises:
        UsageError, MedProtectError: as for :func:`choose_window`.
    """
    own = [each if each.labelled.any() else regions for each in regions_of_parts(volume, regions)]
    return tuple(choose_window(part, each, modality, given) for part, each in zip(volume.parts(), own, strict=True))


def choose_window(volume: Volume, regions: Regions, modality: str | None = None, given: Sequence[float] | None = None) -> IntensityWindow:
    """The window of an image of one part by the rule of its modality; ``given`` (low, high) overrides it.

    CT: 0.5-99.5 percentiles of the voxels in and 10 mm (along each axis) around the regions, at least 400 HU wide; what the image
    declares to be padding is no voxel of it.
    8-bit photographs (ultrasound, X-ray, endoscopy as PNG or TIFF): 0-255. All others: 0.5-99.5 percentiles of the
    non-zero voxels.

    Raises:
        UsageError: ``given`` is no window. MedProtectError: the image is constant, or its values are too large or too close to each
            other for a window.
    """
    declared = modality or volume.modality
    lowest = float(volume.in_units(np.array([_intensities(volume).min(), _intensities(volume).max()])).min())
    is_ct = declared == "CT" or (declared is None and not volume.photograph and lowest < CT_AIR)
    if given is not None:
        low, high = check_window(given)
        return IntensityWindow(low, high, unit=HOUNSFIELD if is_ct else "stored units")
    if is_ct:
        reason = "CT" if declared else f"taken for CT, since values reach {lowest:g}"
        return _measurable(volume, _ct(volume, regions, reason, guessed=declared is None))
    if volume.photograph:
        return IntensityWindow(0.0, 255.0, "8-bit picture: 0-255", "grey levels")
    reason = declared or "taken for MR or another non-CT image"
    return _measurable(volume, _nonzero_percentiles(volume, reason, guessed=declared is None))


def check_window(given: Sequence[float]) -> tuple[float, float]:
    """The window's ends as numbers.

    Raises:
        UsageError: they are not two numbers within +-1e30 of which the first is smaller by at least 1e-30.
    """
    try:
        low, high = (float(v) for v in given)
    except (TypeError, ValueError) as error:
        raise UsageError(f"window {given!r}: give two numbers, low and high.") from error
    if not _is_window(low, high):
        raise UsageError(
            f"--window {low:g} {high:g}: LO must be smaller than HI by at least {NARROWEST:g}, and both from {-WIDEST:g} to {WIDEST:g}."
        )
    return low, high


def _is_window(low: float, high: float) -> bool:
    return -WIDEST <= low < high <= WIDEST and high - low >= NARROWEST


def _measurable(volume: Volume, found: IntensityWindow) -> IntensityWindow:
    """A window that a rule found.

    Raises:
        MedProtectError: none that may be given either.
    """
    if not _is_window(found.low, found.high):
        raise MedProtectError(
            f"{volume.name}: the intensity window found goes from {found.low:g} to {found.high:g}, in which nothing can be measured. "
            "Scale the values, replace those that stand for no picture, or give a window with --window LO HI."
        )
    return found


def check_modality(modality: str | None) -> None:
    """Raises UsageError unless the modality is None or one that has a window rule."""
    if modality is not None and modality not in MODALITIES:
        raise UsageError(f"modality '{modality}': give one of {', '.join(MODALITIES)}, or none to have it guessed.")


def _ct(volume: Volume, regions: Regions, reason: str, guessed: bool) -> IntensityWindow:
    spacing, shape = volume.geometry.spacing_kji, volume.geometry.shape
    margin = tuple(int(min(CT_REACH_MM * SPACING_ROUNDING // s, n)) for s, n in zip(spacing, shape, strict=True))
    box = grown(regions.box, (margin[0], margin[1], margin[2]), shape)
    labelled = np.zeros([s.stop - s.start for s in box], np.uint8)
    labelled[within(regions.box, box)] = regions.labelled
    near = maximum_filter(labelled, tuple(2 * m + 1 for m in margin), mode="constant", cval=0) > 0
    stored = _intensities(volume, box)
    pictured = near & ~in_declared_padding(volume, stored)
    low, high = np.percentile(volume.in_units(stored[pictured if pictured.any() else near]), PERCENTILES)
    missing = max(0.0, CT_MINIMUM_WIDTH - (high - low))
    rule = f"{reason}: 0.5-99.5 percentiles in and {CT_REACH_MM:g} mm around the regions" + (", widened to 400 HU" if missing else "")
    return IntensityWindow(float(low - missing / 2), float(high + missing / 2), rule, HOUNSFIELD, guessed)


def _nonzero_percentiles(volume: Volume, reason: str, guessed: bool) -> IntensityWindow:
    stored = _intensities(volume)
    nonzero = stored[~_is_zero(volume, stored)]
    if nonzero.size:
        ends = volume.in_units(np.percentile(nonzero, PERCENTILES))
        low, high = float(ends.min()), float(ends.max())
        if high > low:
            return IntensityWindow(low, high, f"{reason}: 0.5-99.5 percentiles of the non-zero voxels", guessed=guessed)
    raise MedProtectError(f"{volume.name}: the image is constant, no intensity window can be found. Give one with --window LO HI.")


def _is_zero(volume: Volume, stored: np.ndarray) -> np.ndarray:
    """Where stored values stand for zero, by a slope and an intercept that are rounded themselves."""
    zero = -volume.intercept / volume.slope
    rounding, whole = ZERO_ROUNDING * abs(zero), float(np.rint(zero))
    if stored.dtype.kind == "f":
        return np.abs(stored - zero) <= rounding
    return stored == (whole if abs(zero - whole) <= rounding else zero)


def _intensities(volume: Volume, box: tuple[slice, ...] = ()) -> np.ndarray:
    """Stored values of all intensity channels, without a transparency channel."""
    array = volume.array[box]
    return array if volume.alpha is None else array[..., list(volume.intensity_channels)]
