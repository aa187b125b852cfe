"""What every protection method is: a pattern for one case, made of named components, in window units."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from MedProtectLib.errors import UsageError
from MedProtectLib.progress import Report, ignore
from MedProtectLib.regions import HALF_WIDTH, Box, Regions, within

if TYPE_CHECKING:
    from MedProtectLib.fitting.training import Training

CONTEXT = 8

SEGMENTATION, CLASSIFICATION = "segmentation", "classification"
TASKS = (SEGMENTATION, CLASSIFICATION)

REGIONS, IMAGE = "regions", "image"
SCOPES = (REGIONS, IMAGE)


@dataclass(frozen=True)
class Purpose:
    """What a method is fitted for.

    ``dimension``: 2 for pictures and slice by slice, 3 for volumes. ``task``: 'segmentation' or 'classification'.
    ``scope``: where the perturbation may act, the 'regions' around the labelled structures or the whole 'image'.
    ``half_width``: of the contour band, in voxels. ``image_channels``: of an image. ``classes``: names or label
    values in the order of their numbers 1, 2, ..., so that a class has the same number in every case; () where a method
    does not tell classes apart. ``values``: what stands for them in label maps without names
    (:class:`~MedProtectLib.label_classes.Classes`).
    """

    dimension: int = 3
    task: str = SEGMENTATION
    scope: str = REGIONS
    half_width: int = HALF_WIDTH
    image_channels: int = 1
    classes: tuple[int | str, ...] = ()
    values: tuple[int, ...] = ()

    @property
    def outputs(self) -> int:
        """How many classes a surrogate tells apart: in segmentation the background is one of them."""
        return len(self.classes) + (self.task == SEGMENTATION)


@dataclass(frozen=True)
class Parameter:
    """A number that a method can be fitted with: its default, the range it must lie in, what it means, and whether it counts."""

    default: float
    low: float
    high: float
    meaning: str
    whole: bool = False


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


class Halo(NamedTuple):
    """What a method must see of a case in order to draw some slices k as it draws them in the whole case.

    ``slices`` on either side, beginning at a multiple of ``alignment`` slices from the case's first.
    """

    slices: int
    alignment: int = 1


class Method(ABC):
    """A fitted protection method. Knows nothing of files, windows or stored types.

    Class attributes: ``name``; ``title``; ``source`` (the paper); ``component_names``; ``needs`` (what it takes, for people);
    ``dimensions``, ``tasks`` and ``scopes`` that it supports, its default scope first; ``parameters`` that it can be fitted
    with; ``learns``: whether fitting looks at the images (else at their classes alone); ``joint_channels``: whether it
    sees the channels of an image together; ``uses_contour``: whether it acts on a band along the contour.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    needs: ClassVar[str]
    component_names: ClassVar[tuple[str, ...]]
    dimensions: ClassVar[tuple[int, ...]] = (2, 3)
    tasks: ClassVar[tuple[str, ...]] = (SEGMENTATION,)
    scopes: ClassVar[tuple[str, ...]] = (REGIONS,)
    parameters: ClassVar[Mapping[str, Parameter]] = {}
    learns: ClassVar[bool] = True
    joint_channels: ClassVar[bool] = False
    uses_contour: ClassVar[bool] = True

    def __init__(self, purpose: Purpose) -> None:
        self.purpose = purpose
        self.dimension, self.half_width = purpose.dimension, purpose.half_width

    @abstractmethod
    def perturb(self, case: Case, epsilon: float, report: Report = ignore) -> dict[str, Component]:
        """The perturbation of one channel at the bound ``epsilon`` (window units)."""

    def perturb_channels(self, cases: Sequence[Case], epsilon: float, report: Report = ignore) -> list[dict[str, Component]]:
        """The perturbation of one image: its channels one by one, unless a method sees them together."""
        return [self.perturb(case, epsilon, report) for case in cases]

    @classmethod
    @abstractmethod
    def fit(cls, training: Training) -> tuple[Method, dict[str, Any]]:
        """A method fitted on the training's cases, and what is worth keeping about how it went (JSON values)."""

    @classmethod
    def check_support(cls, dimension: int, task: str, scope: str) -> None:
        """Raises UsageError where the method does not do what is asked for."""
        if dimension not in cls.dimensions:
            raise UsageError(f"method '{cls.name}' works in {cls.dimensions[0]}D only. Use another --method.")
        if task not in cls.tasks:
            raise UsageError(f"method '{cls.name}' protects data for {cls.tasks[0]} only, these are for {task}. Use another --method.")
        if scope not in cls.scopes:
            raise UsageError(f"method '{cls.name}' touches only the {' or the '.join(cls.scopes)}, not the {scope}. Leave out --scope.")

    @classmethod
    def checked_parameters(cls, given: Mapping[str, float]) -> dict[str, float]:
        """All parameters with their defaults where nothing is given.

        Raises:
            UsageError: the method has no such parameter, or its value is out of range.
        """
        for name, value in given.items():
            if name not in cls.parameters:
                known = ", ".join(cls.parameters) or "none"
                raise UsageError(f"method '{cls.name}' has no parameter '{name}'. It has: {known}.")
            low, high, whole = cls.parameters[name].low, cls.parameters[name].high, cls.parameters[name].whole
            if not low <= value <= high or (whole and value != int(value)):
                raise UsageError(f"{name}={value:g}: give a {'whole ' * whole}number from {low:g} to {high:g}.")
        return {name: float(given.get(name, parameter.default)) for name, parameter in cls.parameters.items()}

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

    @property
    def halo(self) -> Halo | None:
        """How far a slice depends on its neighbours; None where it takes the whole case to draw one."""
        return None

    @property
    def whole_image(self) -> bool:
        """Whether the perturbation may leave the regions."""
        return self.purpose.scope == IMAGE


class PurposefulMethod(Method):
    """A method whose settings are its purpose and its parameters."""

    def __init__(self, purpose: Purpose, parameters: Mapping[str, float]) -> None:
        super().__init__(purpose)
        self.chosen = self.checked_parameters(parameters)

    def settings(self) -> dict[str, Any]:
        told = asdict(self.purpose) | {"classes": list(self.purpose.classes), "values": list(self.purpose.values)}
        return {key: value for key, value in told.items() if value or key != "values"} | {"parameters": self.chosen}

    @staticmethod
    def from_settings(settings: Mapping[str, Any]) -> tuple[Purpose, dict[str, float]]:
        """The purpose and the parameters that :meth:`settings` wrote down."""
        fields = {key: value for key, value in settings.items() if key != "parameters"}
        lists = {"classes": tuple(settings["classes"]), "values": tuple(settings.get("values", ()))}
        return Purpose(**fields | lists), dict(settings["parameters"])
