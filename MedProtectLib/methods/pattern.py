"""What the closed-form methods share: a pattern for every class, painted where the label map has that class."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from scipy.ndimage import find_objects

from MedProtectLib.errors import MedProtectError
from MedProtectLib.methods.base import (
    CLASSIFICATION,
    IMAGE,
    REGIONS,
    SEGMENTATION,
    Case,
    Component,
    Parameter,
    Purpose,
    PurposefulMethod,
)
from MedProtectLib.progress import Report, Stage, ignore
from MedProtectLib.regions import Box

if TYPE_CHECKING:
    from MedProtectLib.fitting.training import Training

RMS = Parameter(0.0, 0.0, 0.5, "0: the largest change is the bound; above 0: the root mean square of the change, cut at the bound")


class PatternMethod(PurposefulMethod):
    """A pattern per class and channel; with a random part per image where the method has one, drawn from the image itself.

    ``fixed`` are the tensors that make the classes' patterns: a profile keeps them, so that a class has one pattern in a
    whole release. In segmentation class 0, the background, has a pattern too. ``from_places``: whether the pattern of a box is
    that part of a larger one's, else only whole slices are alike.
    """

    needs = "labels; no fitting (the profile fixes the pattern of each class)"
    component_names = ("pattern",)
    tasks = (SEGMENTATION, CLASSIFICATION)
    scopes = (REGIONS, IMAGE)
    learns = False
    from_places: ClassVar[bool] = True

    def __init__(self, purpose: Purpose, parameters: Mapping[str, float], fixed: np.ndarray) -> None:
        super().__init__(purpose, parameters)
        shape = (purpose.outputs, purpose.image_channels, *self.shape_of_one(purpose))
        if fixed.shape != shape or fixed.dtype.kind != "f":
            raise ValueError(f"patterns of type {fixed.dtype} {fixed.shape} instead of {shape}")
        self.fixed = fixed

    @classmethod
    @abstractmethod
    def draw_fixed(cls, purpose: Purpose, parameters: Mapping[str, float], rng: np.random.Generator) -> np.ndarray:
        """The tensors of all classes, float (class, channel, ...)."""

    @staticmethod
    @abstractmethod
    def shape_of_one(purpose: Purpose) -> tuple[int, ...]:
        """The shape of the tensor of one class and channel."""

    @abstractmethod
    def pattern(self, number: int, channel: int, box: Box, seed: list[int]) -> np.ndarray:
        """The pattern of class ``number`` on the part ``box`` of a volume, in [-1, 1] and of the box's shape (k, j, i).

        A slice is the same in every box of the same rows and columns, and a voxel in every box with ``from_places``.
        """

    @classmethod
    def fit(cls, training: Training) -> tuple[Self, dict[str, Any]]:
        parameters = cls.checked_parameters(training.options.parameters)
        fixed = cls.draw_fixed(training.purpose, parameters, np.random.default_rng(training.options.seed))
        return cls(training.purpose, parameters, fixed), {}

    def perturb(self, case: Case, epsilon: float, report: Report = ignore) -> dict[str, Component]:
        return self.perturb_channels([case], epsilon, report)[0]

    def perturb_channels(self, cases: Sequence[Case], epsilon: float, report: Report = ignore) -> list[dict[str, Component]]:
        if len(cases) != self.purpose.image_channels:
            raise MedProtectError(
                f"the image has {len(cases)} channels, the profile was made for {self.purpose.image_channels}. Fit one on such images."
            )
        stage = Stage("generate", len(cases), report)
        out = []
        for channel, case in enumerate(cases):
            out.append({"pattern": self._painted(case, channel, epsilon)})
            stage.at(channel + 1)
        return out

    def _painted(self, case: Case, channel: int, epsilon: float) -> Component:
        touched, box = case.regions.touched, case.regions.box
        numbers = case.classes[case.region_box].astype(np.int64) - (self.purpose.task == CLASSIFICATION)
        seed = self._seed_of(case, channel)
        painted = np.zeros(touched.shape, np.float64)
        for number, own in enumerate(find_objects(np.where(touched, numbers + 1, 0))):
            if own is None:
                continue
            part = own if self.from_places else (own[0], slice(0, touched.shape[1]), slice(0, touched.shape[2]))
            k, j, i = (slice(b.start + p.start, b.start + p.stop) for b, p in zip(box, part, strict=True))
            drawn = self.pattern(number, channel, (k, j, i), [*seed, number])
            painted[part] += self.cut_out(drawn, touched[part] & (numbers[part] == number))
        limit = (epsilon * touched).astype(np.float32)
        return Component(np.clip(self._scaled(painted, touched, epsilon), -limit, limit).astype(np.float32), limit)

    def _scaled(self, painted: np.ndarray, touched: np.ndarray, epsilon: float) -> np.ndarray:
        rms = self.chosen.get("rms", 0.0)
        if rms == 0.0:
            return epsilon * painted
        present = np.sqrt(np.mean(painted[touched] ** 2))
        return painted * (rms / present) if present > 0 else painted

    def _seed_of(self, case: Case, channel: int) -> list[int]:
        """Of the patterns, which are secret, and of the image, which is secret too: nobody else can draw the same."""
        digest = hashlib.sha256(np.ascontiguousarray(self.fixed).tobytes())
        digest.update(np.ascontiguousarray(case.image).tobytes())
        return [int.from_bytes(digest.digest()[:16], "little"), channel]

    def cut_out(self, drawn: np.ndarray, here: np.ndarray) -> np.ndarray:
        """A class's pattern where the class is, 0 elsewhere; both (k, j, i). A slice must not depend on another."""
        return np.where(here, drawn, 0.0)

    def tensors(self) -> dict[str, np.ndarray]:
        return {"fixed": self.fixed}

    @classmethod
    def restore(cls, settings: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Self:
        return cls(*cls.from_settings(settings), tensors["fixed"])
