"""What is refused, or warned about, before anything is changed."""

from __future__ import annotations

import math
from numbers import Real

import numpy as np

from MedProtectLib.errors import MedProtectError, UsageError
from MedProtectLib.levels import WHOLE, Levels
from MedProtectLib.methods.base import CLASSIFICATION, Method
from MedProtectLib.profile import LARGEST_BOUND, Profile
from MedProtectLib.regions import Regions
from MedProtectLib.volume import LabelMap, Volume
from MedProtectLib.window import PERCENTILES, IntensityWindow

LEVELS_ADVISED = 2
LARGEST_SHARE = 0.5  # of the range of values that may change, for a bound without a warning
LARGEST_SEED = 2**63
LARGEST_VALUE = 1e100
BYTES_OF_FLOATS = (4, 8)


def check_bound(bound: float | None) -> None:
    """Raises UsageError unless the bound is None or a number in (0, 32/255]."""
    if bound is not None and not (_is_number(bound) and 0 < bound <= LARGEST_BOUND * (1 + 1e-9)):
        raise UsageError(f"bound {_shown(bound)}: give a fraction of the window above 0 and up to 32/255, such as 4/255.")


def check_target(target_psnr: float | None) -> None:
    """Raises UsageError unless the target is None or a positive number."""
    if target_psnr is not None and not (_is_number(target_psnr) and 0 < target_psnr < float("inf")):
        raise UsageError(f"target PSNR {_shown(target_psnr)}: give a positive number of dB, such as 50.1.")


def _is_number(value: object) -> bool:
    return isinstance(value, Real)


def _shown(value: object) -> str:
    """A number in few digits, anything else as Python writes it."""
    return f"{float(value):g}" if isinstance(value, Real) else repr(value)


def check_seed(seed: int) -> int:
    """The seed as Python's own number.

    Raises:
        UsageError: it is no whole number from 0 to 2^63 - 1.
    """
    if not (isinstance(seed, int | np.integer) and 0 <= seed < LARGEST_SEED):
        raise UsageError(f"seed {seed!r}: give a whole number from 0 to 2^63 - 1.")
    return int(seed)


def check_case(volume: Volume, labels: LabelMap) -> None:
    """Raises UsageError for another type of image or labels, MedProtectError for stored values that no image file has."""
    if not isinstance(volume, Volume):
        raise UsageError(f"the image is a {type(volume).__name__}: give a Volume, as of read_volume, or Volume(array, Geometry(...)).")
    if not isinstance(labels, LabelMap):
        raise UsageError(f"the labels are a {type(labels).__name__}: give a LabelMap, as of read_labels or LabelMap.from_array.")
    if not volume.array.size:
        raise MedProtectError(f"{volume.name}: an image of shape {volume.geometry.shape} (k, j, i) has no voxels.")
    stored = volume.array.dtype
    if stored.kind not in "iuf" or (stored.kind == "f" and stored.itemsize not in BYTES_OF_FLOATS):
        raise MedProtectError(f"{volume.name}: stored as {stored}. Store it as whole numbers, float32 or float64.")


def check_measurable(volume: Volume) -> None:
    """Raises MedProtectError for values whose squares no float holds."""
    largest = max(-float(volume.array.min()), float(volume.array.max()))
    if largest > LARGEST_VALUE:
        raise MedProtectError(f"{volume.name}: its values reach {largest:g}; beyond {LARGEST_VALUE:g} nothing can be measured. Scale them.")


def check_key(key: object) -> None:
    """Raises UsageError for what is no key of the vault, the path of one for instance."""
    from MedProtectLib.release.keys import Key

    if not isinstance(key, Key):
        raise UsageError(f"the key is a {type(key).__name__}: give what MedProtectLib.release.keys.load_key reads from its file.")


def check_task(method: Method, labels: LabelMap) -> None:
    """Raises MedProtectError where a method for segmentation is given the class of an image, or the other way round."""
    if labels.of_whole_image != (method.purpose.task == CLASSIFICATION):
        given, use = ("a class", "a label map (--labels)") if labels.of_whole_image else ("a label map", "the image's class (--class)")
        raise MedProtectError(f"method '{method.name}' was fitted for {method.purpose.task} and was given {given}. Give {use}.")


def check_levels(bound: float, window: IntensityWindow, levels: Levels, volume: Volume) -> tuple[str, ...]:
    """A warning when the bound spans fewer than two stored levels.

    Raises:
        MedProtectError: it spans less than one, so that nothing could be written.
    """
    spanned = bound * window.width / (levels.step * abs(volume.slope))
    needed = levels.step * abs(volume.slope) / window.width * 255
    if spanned * WHOLE < 1:
        raise MedProtectError(
            f"{volume.name}: the bound of {bound * 255:.3g}/255 is {spanned:.2g} stored levels, so nothing could be written. "
            f"{_advice(needed)}"
        )
    if spanned < LEVELS_ADVISED:
        advice = _advice(LEVELS_ADVISED * needed)
        return (
            f"the bound of {bound * 255:.3g}/255 is only {spanned:.2g} stored levels: the pattern is coarse and easier to undo. {advice}",
        )
    return ()


def check_window_fits(bound: float, window: IntensityWindow, levels: Levels, volume: Volume, regions: Regions) -> tuple[str, ...]:
    """A warning when the bound spans more than half of the values that may change: then the window is seldom that of the image.

    Raises:
        MedProtectError: the window is so wide that a step in it leaves the image's own range.
    """
    stored = np.concatenate([volume.channel(c)[regions.box][regions.touched] for c in volume.intensity_channels])
    low, high = np.sort(volume.in_units(np.percentile(stored, PERCENTILES)))
    told = f"{volume.name}: the intensity window is {window.width:g} wide, the values that may change go from {low:g} to {high:g}"
    advice = "Check --modality, or give a window with --window LO HI."
    if levels.step > levels.highest - levels.lowest:
        raise MedProtectError(f"{told}: nothing could be written. {advice}")
    if bound * window.width > LARGEST_SHARE * (high - low):
        return (f"{told}, and the bound is {bound * window.width:.3g}: that will be seen. {advice}",)
    return ()


def _advice(needed: float) -> str:
    """What to do where a bound of ``needed``/255 would do, which may be more than any image may be changed by."""
    if needed > LARGEST_BOUND * 255:
        return "Protect a version of the image with more levels: the largest bound, 32/255, does not mend that."
    return f"Allow at least --bound {_rounded_up(needed):g}/255, or protect a version of the image with more levels."


def _rounded_up(number: float) -> float:
    """A positive number in two digits that is no smaller."""
    digit = 10.0 ** (math.floor(math.log10(number)) - 1)
    return math.ceil(number / digit / WHOLE) * digit


def check_regions(regions: Regions, volume: Volume) -> None:
    """Raises MedProtectError where a part of an image has nothing that may change."""
    if not regions.touched.any():
        raise MedProtectError(f"{volume.name}: every labelled voxel is padding in this channel. Protect the other channels without it.")


def public_warning(profile: Profile, drawn: bool) -> tuple[str, ...]:
    """What to know about a profile that anybody can have; ``drawn`` for the case alone, anybody can draw it again."""
    if not profile.public:
        return ()
    if drawn:
        return ("without a secret --seed anybody can draw this pattern and subtract it. For a release fit your own with 'medprotect fit'.",)
    return ("a public profile was used: anybody can have it and subtract what it adds. For a release fit your own with 'medprotect fit'.",)
