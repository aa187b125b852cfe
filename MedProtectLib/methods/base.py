"""What every protection method is: a pattern for one case, made of named components, in window units."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from MedProtectLib.progress import Report, ignore
from MedProtectLib.regions import HALF_WIDTH, Box, Regions, within

CONTEXT = 8


@dataclass(frozen=True)
class Case:
    """One image channel as a method sees it.

    ``image`` is float32 in window units (0 at the window's low end, 1 at its high end, not clipped) and ``classes`` the
    label classes, both (k, j, i) on the part ``context`` of the volume: the regions' box with ``CONTEXT`` voxels around it.
    """

    image: np.ndarray
    classes: np.ndarray
    regions: Regions
    context: Box

    @property
    def region_box(self) -> Box:
        """The regions' box in the coordinates of ``image``."""
        return within(self.regions.box, self.context)

    def on_context(self, mask: np.ndarray) -> np.ndarray:
        """A mask of the regions' box laid into zeros of the image's shape."""
        whole = np.zeros(self.image.shape, mask.dtype)
        whole[self.region_box] = mask
        return whole


@dataclass(frozen=True)
class Component:
    """A named part of a perturbation: signed ``values`` and the per-voxel ``limit`` they stay within.

    Both are float32 in window units on the regions' box (k, j, i), zero outside the component's region.
    """

    values: np.ndarray
    limit: np.ndarray


class Method(ABC):
    """A fitted protection method. Knows nothing of files, windows or stored types.

    Class attributes: ``name``; ``title``; ``source`` (the paper); ``component_names``; ``needs`` (what it takes, for people).
    """

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    needs: ClassVar[str]
    component_names: ClassVar[tuple[str, ...]]

    def __init__(self, dimension: int, half_width: int = HALF_WIDTH) -> None:
        self.dimension, self.half_width = dimension, half_width

    @abstractmethod
    def perturb(self, case: Case, epsilon: float, report: Report = ignore) -> dict[str, Component]:
        """The perturbation of one case at the bound ``epsilon`` (window units)."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What rebuilds the method together with its tensors: JSON values only."""

    @abstractmethod
    def tensors(self) -> dict[str, np.ndarray]:
        """The fitted numbers, by name."""

    @classmethod
    @abstractmethod
    def restore(cls, settings: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Method:
        """The method that gave these settings and tensors. Raises KeyError, TypeError, ValueError or RuntimeError if they do not fit."""

    @property
    def planar(self) -> bool:
        """Whether the method works slice by slice."""
        return self.dimension == 2
