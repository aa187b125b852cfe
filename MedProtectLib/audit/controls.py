"""What a method has to beat: random noise in the same regions, and as much noise in voxels that are drawn at random."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from MedProtectLib.errors import UsageError
from MedProtectLib.methods.base import CLASSIFICATION, IMAGE, REGIONS, Case, Component, Method, Purpose
from MedProtectLib.profile import Profile
from MedProtectLib.progress import Report, ignore
from MedProtectLib.protector import Protector
from MedProtectLib.regions import HALF_WIDTH
from MedProtectLib.volume import LabelMap, Volume


class Control(Method):
    """A change that needs no fitting; it goes the same way into a file as a method's."""

    component_names = ("control",)
    tasks = ("segmentation", "classification")
    source = "control"
    needs = "nothing"
    learns = False

    def __init__(self, purpose: Purpose, seed: int) -> None:
        super().__init__(purpose)
        self.seed = seed

    def rng(self, case: Case) -> np.random.Generator:
        """Another draw for every image and seed."""
        digest = hashlib.sha256(np.ascontiguousarray(case.image).tobytes()).digest()
        return np.random.default_rng([self.seed, int.from_bytes(digest[:16], "little")])

    @classmethod
    def fit(cls, training: Any) -> tuple[Method, dict[str, Any]]:
        return cls(training.purpose, training.options.seed), {}

    def settings(self) -> dict[str, Any]:
        return {"dimension": self.dimension, "seed": self.seed}

    def tensors(self) -> dict[str, np.ndarray]:
        return {}

    @classmethod
    def restore(cls, settings: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Method:
        return cls(Purpose(dimension=settings["dimension"]), settings["seed"])


class Noise(Control):
    """Plus or minus epsilon at random in every voxel of the regions."""

    name = "noise"
    title = "random noise"

    def perturb(self, case: Case, epsilon: float, report: Report = ignore) -> dict[str, Component]:
        touched = case.regions.touched
        values = epsilon * touched * self.rng(case).choice([-1.0, 1.0], touched.shape)
        return {"control": Component(values.astype(np.float32), (epsilon * touched).astype(np.float32))}


class RandomMask(Control):
    """The same noise in as many voxels as the regions have, drawn at random from the whole image."""

    name = "random_mask"
    title = "random noise in a random mask"
    scopes = (IMAGE,)

    def perturb(self, case: Case, epsilon: float, report: Report = ignore) -> dict[str, Component]:
        rng, places = self.rng(case), np.flatnonzero(case.regions.touched)
        chosen = rng.choice(places, int(case.regions.labelled.sum()), replace=False)
        mask = np.zeros(case.regions.touched.shape, bool)
        mask.flat[chosen] = True
        values = epsilon * mask * rng.choice([-1.0, 1.0], mask.shape)
        return {"control": Component(values.astype(np.float32), (epsilon * mask).astype(np.float32))}


CONTROLS: Mapping[str, type[Control]] = {control.name: control for control in (Noise, RandomMask)}


def check_control(name: str, task: str) -> None:
    """Raises UsageError for a control that does not do a task."""
    if task == CLASSIFICATION and name == RandomMask.name:
        raise UsageError("the control 'random_mask' is for segmentation: in classification the whole image may change.")


class ControlProtector(Protector):
    """The path from image to file with a control in the place of a fitted method, where a method of ``reach`` (scope, half-width) acts."""

    def __init__(
        self,
        name: str,
        task: str,
        seed: int,
        bound: float,
        target_psnr: float | None,
        modality: str | None = None,
        reach: tuple[str, int] = (REGIONS, HALF_WIDTH),
    ) -> None:
        super().__init__(bound=bound, target_psnr=target_psnr, modality=modality, seed=seed)
        self.control, self.task, self.reach = CONTROLS[name], task, reach
        check_control(name, task)

    def fitted_for(self, volume: Volume, labels: LabelMap, report: Report = ignore) -> tuple[Profile, Method, tuple[str, ...]]:
        scope, half_width = self.reach
        scope = IMAGE if IMAGE in self.control.scopes else scope
        half_width = 0 if self.task == CLASSIFICATION else half_width
        method = self.control(Purpose(volume.geometry.dimension, self.task, scope, half_width), self.seed or 0)
        bound = 0.0 if self.bound is None else self.bound
        return Profile(self.control.name, method.settings(), {}, bound, self.seed or 0), method, ()
