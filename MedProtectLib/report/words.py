"""The report's numbers and sentences for people."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from MedProtectLib.report import ReportContent

BOUND_DENOMINATOR = 255

# Key of a statistic -> what it is called and what it means.
STATISTICS = {
    "psnr_db": ("PSNR, whole image", "All {voxel}s; data range: the window width, {width}."),
    "psnr_roi_db": ("PSNR, in the regions", "Only {voxel}s of the regions; data range: the window width, {width}."),
    "psnr_full_range_db": ("PSNR, full range", "All {voxel}s; data range: the full range of the stored values{full_range}."),
    "full_range": ("Full range", "Smallest to largest value of the original."),
    "ssim": ("SSIM", "Structural similarity of the whole image, data range: the window width, {width}; 1 is identical."),
    "ssim_window": ("SSIM window", "Neighbourhood over which SSIM compares."),
    "max_abs_change": ("Largest change", "At a single {voxel}: {largest}."),
    "changed_voxels": ("Changed {voxel}s", "How many {voxel}s hold another stored value."),
    "changed_fraction": ("Changed share of the regions", "Changed {voxel}s of the regions over all {voxel}s of the regions."),
    "roi_voxels": ("Size of the regions", "How many {voxel}s the method may change."),
    "changed_outside_regions": ("Changed outside the regions", "How many {voxel}s changed where the method may not act; must be 0."),
    "roi_mean_shift": ("Mean shift in the regions", "Mean signed change over the regions; near 0 is unbiased."),
    "per_slice_psnr_db": ("PSNR, slice by slice", "Every slice on its own; data range: the window width, {width}."),
    "epsilon": ("Bound (epsilon)", "Largest change allowed, as a fraction of the window width{allowed}."),
    "window": ("Window", "Values that a training is expected to see; its width is the unit of the bound and of PSNR."),
}
FOLDED = {"max_abs_change_units"}  # told with the largest change


@dataclass(frozen=True)
class Row:
    """A number, what it is called and what it means; ``alarm`` when it should not be so."""

    label: str
    value: str
    meaning: str
    alarm: bool = False


def number(value: float | None, digits: int = 3) -> str:
    """A number with ``digits`` significant digits, integer digits in full, thousands apart, and a real minus sign."""
    if value is None or math.isnan(value):
        return "not available"
    if math.isinf(value):
        return "infinite"
    if value == 0:
        text = "0"
    elif abs(value) < 1e-4:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        text = f"{mantissa}e{int(exponent)}"
    else:
        text = f"{value:,.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
    return text.replace("-", "\N{MINUS SIGN}")


def share(fraction: float) -> str:
    """A fraction in percent; never 100 % unless it is all."""
    text = number(100 * fraction)
    return "more than 99.9 %" if text == "100" and fraction < 1 else f"{text} %"


def decibel(value: float | None) -> str:
    """A PSNR; None means that nothing changed."""
    if value is None or value == math.inf:
        return "no change"
    return "not available" if math.isnan(value) else f"{value:.2f} dB"


def similarity(value: float | None) -> str:
    """An SSIM with five digits; 1 only if it is exactly 1."""
    if value is None or math.isnan(value):
        return "not available"
    if value == 1:
        return "1"
    return "above 0.99999" if value >= 0.999995 else f"{value:.5f}".replace("-", "\N{MINUS SIGN}")


def bound(value: float | None) -> str:
    """A bound in window units, as n/255 where it is one."""
    if value is None:
        return "not stated"
    steps = round(value * BOUND_DENOMINATOR)
    fraction = f"{steps}/{BOUND_DENOMINATOR} = " if math.isclose(steps / BOUND_DENOMINATOR, value, rel_tol=1e-6) else ""
    return f"{fraction}{number(value)}"


def span(ends: Sequence[float], unit: str) -> str:
    """A range with its unit."""
    return f"{number(ends[0], 4)} to {number(ends[1], 4)} {unit}"


def voxel(content: ReportContent) -> str:
    """What a sample of the image is called."""
    return "pixel" if content.planar else "voxel"


def grid(content: ReportContent) -> str:
    """Size, spacing, stored type and modality of the image."""
    geometry, array = content.original.geometry, content.original.array
    axes = 2 if content.planar else 3
    parts = [f"{' × '.join(str(n) for n in geometry.size[:axes])} {voxel(content)}s"]
    if not content.original.photograph:
        parts.append(f"{' × '.join(number(mm) for mm in geometry.spacing[:axes])} mm")
    parts.append(f"{array.shape[3]} channels of {array.dtype}" if array.ndim == 4 else str(array.dtype))
    return ", ".join(parts + ([content.original.modality] if content.original.modality else []))


def amplification(content: ReportContent) -> str:
    """How many times stronger the difference is drawn than the display window would show it."""
    return f"×{number(1 / content.difference_limit, 2)}"


def note(content: ReportContent) -> str:
    """How to read the pictures."""
    full = number(content.difference_limit * content.window_width)
    return (
        f"Display window {span(content.window, content.unit)}. "
        f"Difference drawn {amplification(content)}: full colour at ±{full} {content.unit}. "
        "Dark line: interior; pale line: limit of the regions."
    )


def verdict(content: ReportContent) -> str:
    """What changed, by how much and where, in one sentence that claims nothing else."""
    changed, outside = content.statistics["changed_voxels"], content.statistics["changed_outside_regions"]
    if not changed:
        return "Nothing was changed: the protected file holds the same values as the original."
    samples, kind = math.prod(content.original.geometry.shape), voxel(content)
    in_window, _, in_units = content.largest_change
    size = f"at most {number(in_units)} {content.unit} ({share(in_window)} of the window width)"
    regions = f"the regions ({_listed(list(content.regions))})" if content.regions else "the regions"
    if outside:
        return (
            f"{number(changed)} of {number(samples)} {kind}s ({share(changed / samples)} of the image) were changed, by {size}, "
            f"but {number(outside)} of them lie outside {regions}, where the method may not act: do not share this file."
        )
    return (
        f"{number(changed)} of {number(samples)} {kind}s ({share(changed / samples)} of the image) were changed, by {size}, "
        f"all within {regions}; nothing outside was touched."
    )


def cards(content: ReportContent) -> list[Row]:
    """The key numbers."""
    s, kind, width = content.statistics, voxel(content), f"{number(content.window_width, 4)} {content.unit}"
    in_window, _, in_units = content.largest_change
    outside = s["changed_outside_regions"]
    of_image = share(s["changed_voxels"] / math.prod(content.original.geometry.shape))
    return [
        Row("PSNR, whole image", decibel(s["psnr_db"]), f"data range {width}, the window width"),
        Row("PSNR, in the regions", decibel(s["psnr_roi_db"]), "same data range, regions only"),
        Row("SSIM", similarity(s["ssim"]), f"window {s['ssim_window']}"),
        Row("Largest change", f"{number(in_units)} {content.unit}", f"{share(in_window)} of the window width"),
        Row(f"Changed {kind}s", share(s["changed_fraction"]), f"of the regions; {of_image} of the image"),
        Row("Changed outside the regions", number(outside), "must be 0" if outside else f"no {kind} touched", alarm=bool(outside)),
    ]


def statistic_rows(content: ReportContent) -> list[Row]:
    """Every number of the record and what it means; numbers that this page does not know come last, by their key."""
    statistics, unit = content.statistics, content.unit
    in_window, in_stored, _ = content.largest_change
    epsilon = statistics["epsilon"]
    words = {
        "voxel": voxel(content),
        "width": f"{number(content.window_width, 4)} {unit}",
        "full_range": f", {span(statistics['full_range'], unit)}" if "full_range" in statistics else "",
        "largest": f"{share(in_window)} of the window width, {number(in_stored)} in stored values",
        "allowed": "" if epsilon is None else f": {number(epsilon * content.window_width)} {unit}",
    }
    known = [
        Row(label.format(**words), _value(content, key), meaning.format(**words))
        for key, (label, meaning) in STATISTICS.items()
        if key in statistics
    ]
    return known + [
        Row(key.replace("_", " "), _plain(value), "") for key, value in statistics.items() if key not in STATISTICS and key not in FOLDED
    ]


def per_slice(content: ReportContent) -> list[tuple[int, str]]:
    """Slice number from 1 and its PSNR."""
    return [(index, decibel(value)) for index, value in enumerate(content.statistics["per_slice_psnr_db"], start=1)]


def _value(content: ReportContent, key: str) -> str:
    value, unit = content.statistics[key], content.unit
    match key:
        case "psnr_db" | "psnr_roi_db" | "psnr_full_range_db":
            return decibel(value)
        case "full_range" | "window":
            return span(value, unit)
        case "ssim":
            return similarity(value)
        case "max_abs_change":
            return f"{number(content.largest_change[2])} {unit}"
        case "changed_fraction":
            return share(value)
        case "roi_mean_shift":
            return f"{number(value)} {unit}"
        case "per_slice_psnr_db":
            return _over_slices(value)
        case "epsilon":
            return bound(value)
    return _plain(value)


def _over_slices(values: Sequence[float | None]) -> str:
    changed = [v for v in values if v is not None]
    if not changed or len(values) == 1:
        return decibel(values[0] if len(values) == 1 else None)
    unchanged = f"; {len(values) - len(changed)} unchanged" if len(changed) < len(values) else ""
    return f"{min(changed):.2f} to {max(changed):.2f} dB in {len(changed)} of {len(values)} slices{unchanged}"


def _listed(names: Sequence[str]) -> str:
    """a, b and c."""
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_plain(entry)}" for key, entry in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_plain(entry) for entry in value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return number(value)
    return str(value)
