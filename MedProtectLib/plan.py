"""What is decided about a volume before it is perturbed, and what a method is shown of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from MedProtectLib.levels import Levels
from MedProtectLib.methods.base import CONTEXT, Case, Method
from MedProtectLib.profile import Profile
from MedProtectLib.regions import Box, Regions, grown
from MedProtectLib.statistics import POOLED
from MedProtectLib.volume import Volume
from MedProtectLib.window import IntensityWindow


@dataclass(frozen=True)
class Plan:
    """What is decided about one volume before it is perturbed.

    ``classes``: label classes (k, j, i) on the volume's grid. ``part_regions``: where each of the image's parts may change.
    """

    profile: Profile = field(repr=False)
    method: Method = field(repr=False)
    bound: float
    target_psnr: float | None
    seed: int = field(repr=False)
    classes: np.ndarray = field(repr=False)
    regions: Regions = field(repr=False)
    part_regions: tuple[Regions, ...] = field(repr=False)
    windows: tuple[IntensityWindow, ...]
    levels: tuple[Levels, ...]
    notices: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def window(self) -> IntensityWindow:
        """As for a :class:`Protection`."""
        return self.windows[0] if len(self.windows) == 1 else POOLED


def channel_case(
    volume: Volume, channel: int, classes: np.ndarray, regions: Regions, window: IntensityWindow, context: Box | None = None
) -> Case:
    """What a method sees of one channel, in window units: the regions' box with its context, or the part ``context`` alone."""
    context = context or grown(regions.box, (CONTEXT, CONTEXT, CONTEXT), volume.geometry.shape)
    image = window.normalise(volume.in_units(volume.channel(channel)[context]))
    return Case(image, classes[context], regions, context)


def channel_cases(volume: Volume, plan: Plan, context: Box | None = None) -> list[Case]:
    """What a method sees of an image: :func:`channel_case` of every channel, each in the window of its part."""
    return [
        channel_case(part, c, plan.classes, plan.regions, window, context)
        for part, window in zip(volume.parts(), plan.windows, strict=True)
        for c in part.intensity_channels
    ]
