"""How visible and how far a protected image is from its original. Knows nothing of methods."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

import numpy as np

from MedProtectLib.regions import Box, Regions, bounding_box, grown, within
from MedProtectLib.volume import Volume
from MedProtectLib.window import WINDOW_UNITS, IntensityWindow

POOLED = IntensityWindow(0.0, 1.0, "each channel in a window of its own", WINDOW_UNITS)
SSIM_SIDE = 7
SSIM_LEAST_SIDE = 3
SSIM_PLANES = ("slice by slice", "row by row", "column by column")
SSIM_SLAB_VOXELS = 4_000_000
T = TypeVar("T")


@dataclass(frozen=True)
class Statistics:
    """Measured on stored values; a PSNR without any change is None. PSNR = -20 log10(rms difference / data range).

    psnr_db: whole image, data range = window width. psnr_roi_db: regions only, same range.
    psnr_full_range_db: whole image, data range = ``full_range``, the original's own minimum to maximum.
    ssim: mean over the image with the ``ssim_window``, data range = window width; None where no window fits.
    max_abs_change: [window units, stored units]; max_abs_change_units: in the image's own units (HU for CT).
    changed_fraction: changed voxels in the regions / voxels of the regions. changed_outside_regions: voxels.
    roi_mean_shift: mean change over the regions in the image's own units.
    per_slice_psnr_db: one value for every k, None where the slice is unchanged.
    epsilon: the bound in window units. window: [low, high] in the image's own units.

    channels: where the channels are images with a window each, the same for every channel; else empty. All other numbers are
    then of the channels together, each counted in units of its own window (window: [0, 1]): mean squared differences and SSIM
    are means over the channels, full_range and the largest changes the extremes, and a voxel counts as changed when any
    channel is.
    """

    psnr_db: float | None
    psnr_roi_db: float | None
    psnr_full_range_db: float | None
    full_range: tuple[float, float]
    ssim: float | None
    ssim_window: str
    max_abs_change: tuple[float, float]
    max_abs_change_units: float
    changed_voxels: int
    changed_fraction: float
    changed_outside_regions: int
    roi_voxels: int
    roi_mean_shift: float
    per_slice_psnr_db: tuple[float | None, ...]
    epsilon: float | None
    window: tuple[float, float]
    channels: tuple[Statistics, ...] = ()

    def as_record(self) -> dict[str, object]:
        """A dict that JSON can hold; without ``channels`` where there are none."""
        record = asdict(self)
        if self.channels:
            record["channels"] = [channel.as_record() for channel in self.channels]
        else:
            del record["channels"]
        return record


def measure(
    original: Volume, protected: Volume, regions: Regions, windows: Sequence[IntensityWindow], epsilon: float | None = None
) -> Statistics:
    """Compare two images on the same grid. A voxel of several channels counts as changed when any channel is.

    ``windows`` has one entry for every part of the image, see :meth:`~MedProtectLib.volume.Volume.parts`.
    """
    parts = list(zip(original.parts(), protected.parts(), windows, strict=True))
    if not original.channel_types:
        ((before, after, window),) = parts
        return _measure_part(before, after, regions, window, epsilon)
    channels = tuple(_measure_part(*part[:2], regions, part[2], epsilon) for part in parts)
    changed = np.logical_or.reduce([before.array != after.array for before, after, _ in parts])
    changed_voxels = int(changed.sum())
    changed_in_regions = int((changed[regions.box] & regions.touched).sum())
    widths = [window.width for window in windows]
    ranges = [((c.full_range[0] - w.low) / w.width, (c.full_range[1] - w.low) / w.width) for c, w in zip(channels, windows, strict=True)]
    return Statistics(
        psnr_db=_pooled_psnr([c.psnr_db for c in channels]),
        psnr_roi_db=_pooled_psnr([c.psnr_roi_db for c in channels]),
        psnr_full_range_db=_pooled_psnr([c.psnr_full_range_db for c in channels]),
        full_range=(min(low for low, _ in ranges), max(high for _, high in ranges)),
        ssim=_mean([c.ssim for c in channels]),
        ssim_window=channels[0].ssim_window,
        max_abs_change=(max(c.max_abs_change[0] for c in channels), max(c.max_abs_change[1] for c in channels)),
        max_abs_change_units=max(c.max_abs_change[0] for c in channels),
        changed_voxels=changed_voxels,
        changed_fraction=changed_in_regions / channels[0].roi_voxels,
        changed_outside_regions=changed_voxels - changed_in_regions,
        roi_voxels=channels[0].roi_voxels,
        roi_mean_shift=float(np.mean([c.roi_mean_shift / width for c, width in zip(channels, widths, strict=True)])),
        per_slice_psnr_db=tuple(map(_pooled_psnr, zip(*(c.per_slice_psnr_db for c in channels), strict=True))),
        epsilon=epsilon,
        window=(POOLED.low, POOLED.high),
        channels=channels,
    )


def _mean(of_channels: Sequence[float | None]) -> float | None:
    """The mean of numbers of channels of one size, None where they have none."""
    known = [value for value in of_channels if value is not None]
    return float(np.mean(known)) if known else None


def _pooled_psnr(of_channels: Sequence[float | None]) -> float | None:
    """The PSNR whose mean squared difference is the mean of those of channels of one size; None stands for no difference."""
    return psnr(sum(10.0 ** (-value / 10.0) for value in of_channels if value is not None), len(of_channels), 1.0)


def _measure_part(original: Volume, protected: Volume, regions: Regions, window: IntensityWindow, epsilon: float | None) -> Statistics:
    channels = original.intensity_channels
    changed = np.zeros(original.geometry.shape, bool)
    for c in range(1 if original.array.ndim == 3 else original.array.shape[3]):
        changed |= original.channel(c) != protected.channel(c)
    box = bounding_box(changed) or regions.box
    difference = np.stack([_difference(original, protected, c, box) for c in channels], axis=-1)
    touched = regions.touched
    touched_in_change_box = regions.on_grid(touched, original.geometry.shape)[box]
    roi_voxels = int(touched.sum())
    changed_voxels = int(changed.sum())
    changed_in_regions = int((changed[regions.box] & touched).sum())
    squares = difference**2
    per_slice = np.zeros(original.geometry.shape[0])
    per_slice[box[0]] = squares.sum(axis=(1, 2, 3))
    values = original.geometry.shape[1] * original.geometry.shape[2] * len(channels)
    low, high = _range(original)
    largest_units = float(np.abs(difference).max(initial=0.0))
    ssim, ssim_window = _ssim(original, protected, box, window.width)
    return Statistics(
        psnr_db=psnr(per_slice.sum(), values * len(per_slice), window.width),
        psnr_roi_db=psnr(squares[touched_in_change_box].sum(), roi_voxels * len(channels), window.width),
        psnr_full_range_db=psnr(per_slice.sum(), values * len(per_slice), high - low),
        full_range=(low, high),
        ssim=ssim,
        ssim_window=ssim_window,
        max_abs_change=(largest_units / window.width, largest_units / abs(original.slope)),
        max_abs_change_units=largest_units,
        changed_voxels=changed_voxels,
        changed_fraction=changed_in_regions / roi_voxels,
        changed_outside_regions=changed_voxels - changed_in_regions,
        roi_voxels=roi_voxels,
        roi_mean_shift=float(difference[touched_in_change_box].sum() / (roi_voxels * len(channels))),
        per_slice_psnr_db=tuple(psnr(s, values, window.width) for s in per_slice),
        epsilon=epsilon,
        window=(window.low, window.high),
    )


def psnr(sum_of_squares: float, values: int, data_range: float) -> float | None:
    """PSNR in dB from the summed squared difference over ``values`` voxels; None without a difference."""
    if sum_of_squares <= 0 or values == 0 or data_range <= 0:
        return None
    return float(10.0 * np.log10(data_range**2 * values / sum_of_squares))


def _difference(original: Volume, protected: Volume, channel: int, box: Box) -> np.ndarray:
    """Protected minus original in units, float64, on the box."""
    return (protected.channel(channel)[box].astype(np.float64) - original.channel(channel)[box].astype(np.float64)) * original.slope


def _range(volume: Volume) -> tuple[float, float]:
    ends = [volume.in_units(np.array([volume.channel(c).min(), volume.channel(c).max()])) for c in volume.intensity_channels]
    return float(np.min(ends)), float(np.max(ends))


def _ssim(original: Volume, protected: Volume, changed: Box, data_range: float) -> tuple[float | None, str]:
    """Mean SSIM of the image, computed only where it differs from 1, and the name of its window; None where no window fits.

    SSIM at a voxel depends on the window around it, so it is 1 further than the window's radius away from every change. Of an image
    with too few slices for the window, or too few rows or columns for any, planes are compared one by one.
    """
    from skimage.metrics import structural_similarity

    across = _across(original.geometry.shape)
    shape, changed = _turned(original.geometry.shape, across), _turned(changed, across)
    side = min(SSIM_SIDE, *(n - (n + 1) % 2 for n in shape[1:]))
    if side < SSIM_LEAST_SIDE:
        return None, f"none: the image is smaller than {SSIM_LEAST_SIDE} voxels along two axes"
    solid = shape[0] >= SSIM_SIDE and side == SSIM_SIDE
    radius = (side // 2 if solid else 0, side // 2, side // 2)
    inner = (slice(radius[0], shape[0] - radius[0]), slice(radius[1], shape[1] - radius[1]), slice(radius[2], shape[2] - radius[2]))
    valid = int(np.prod([s.stop - s.start for s in inner]))
    name = f"{side}x{side}x{side} uniform" if solid else f"{side}x{side} uniform, {SSIM_PLANES[across]}"
    loss = 0.0
    for slab in _slabs(grown(changed, radius, shape), thickness_of_one=not solid):
        near = grown(slab, (2 * radius[0], 2 * radius[1], 2 * radius[2]), shape)
        counted = tuple(slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(slab, inner, strict=True))
        core = within((counted[0], counted[1], counted[2]), near)
        for c in original.intensity_channels:
            a, b = (v.in_units(np.moveaxis(v.channel(c), across, 0)[near]) for v in (original, protected))
            if not solid:
                a, b = a[0], b[0]
            _, local = structural_similarity(a, b, win_size=side, data_range=data_range, full=True)
            loss += float(np.sum(1.0 - local[core if solid else core[1:]]))
    return 1.0 - loss / (valid * len(original.intensity_channels)), name


def _across(shape: tuple[int, int, int]) -> int:
    """The axis across which planes are compared: that of the slices, unless there are too few rows or columns for a window."""
    return next((axis for axis in (1, 2) if shape[axis] < SSIM_LEAST_SIDE), 0)


def _turned(three: tuple[T, T, T], across: int) -> tuple[T, T, T]:
    """The same with one of the axes in front."""
    first, second = (axis for axis in (0, 1, 2) if axis != across)
    return three[across], three[first], three[second]


def _slabs(box: Box, thickness_of_one: bool) -> Iterator[Box]:
    area = (box[1].stop - box[1].start) * (box[2].stop - box[2].start)
    thickness = 1 if thickness_of_one else max(1, SSIM_SLAB_VOXELS // max(1, area))
    for start in range(box[0].start, box[0].stop, thickness):
        yield slice(start, min(start + thickness, box[0].stop)), box[1], box[2]
