"""What the gradient methods share: noise for one case by a short optimisation against the networks that the profile keeps."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

from MedProtectLib.errors import MedProtectError
from MedProtectLib.fitting.gradient_noise import descend, frozen, mean_gradient
from MedProtectLib.fitting.surrogates import ALIGNMENT, SMALLEST_EDGE, Loss, loss_for, surrogate_for, targets_of
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
from MedProtectLib.networks.workers import for_every_piece
from MedProtectLib.progress import Report, ignore

if TYPE_CHECKING:
    from MedProtectLib.fitting.training import Training

TILE = {2: (1, 256, 256), 3: (48, 64, 64)}
AROUND = 8
Span = tuple[slice, ...]

STEPS = Parameter(20, 1, 1000, "projected gradient steps per case", whole=True)
STEP = Parameter(0.1, 0.001, 1, "size of a step as a fraction of the bound")


class Scene(NamedTuple):
    """One image as the networks see it, float32 (c, k, j, i) in [0, 1], with classes and where it may change, both (k, j, i)."""

    image: np.ndarray
    classes: np.ndarray
    touched: np.ndarray


class GradientMethod(PurposefulMethod):
    """Noise that takes projected gradient steps on the loss of the kept ``networks``; nothing is amortised.

    Large images are worked on in tiles that see their surroundings; in classification the image (in 2D: the slice) is one
    tile, since its class belongs to the whole.
    """

    needs = "labels; a kept surrogate (a profile), and a short optimisation for every case"
    component_names = ("noise",)
    tasks = (SEGMENTATION, CLASSIFICATION)
    scopes = (REGIONS, IMAGE)
    joint_channels = True
    parameters: ClassVar[Mapping[str, Parameter]] = {"steps": STEPS, "step": STEP}

    def __init__(self, purpose: Purpose, parameters: Mapping[str, float], networks: Sequence[nn.Module] = ()) -> None:
        super().__init__(purpose, parameters)
        self.networks = list(networks)
        self.loss: Loss = loss_for(purpose)

    @classmethod
    def fit(cls, training: Training) -> tuple[Self, dict[str, Any]]:
        method = cls(training.purpose, cls.checked_parameters(training.options.parameters))
        method.networks, summary = method.learn(training)
        return method, summary

    @abstractmethod
    def learn(self, training: Training) -> tuple[list[nn.Module], dict[str, Any]]:
        """The networks to keep, frozen, and what is worth telling."""

    def wanted(self, targets: Tensor) -> Tensor:
        """What the networks shall say of the noisy image, given what is true."""
        return targets

    def narrowed(self, scene: Scene, report: Report) -> np.ndarray:
        """The voxels to change, bool (k, j, i), out of those that may."""
        return scene.touched

    def noise_on(self, networks: Sequence[nn.Module], image: Tensor, targets: Tensor, touched: Tensor, epsilon: float) -> Tensor:
        """Noise on a batch (b, c, [k,] j, i): descent on the loss of what is wanted, where ``touched`` (b, 1, ...) is 1."""
        step = self.chosen["step"] * epsilon
        return descend(networks, self.loss, image, self.wanted(targets), epsilon * touched, int(self.chosen["steps"]), step)

    def perturb(self, case: Case, epsilon: float, report: Report = ignore) -> dict[str, Component]:
        return self.perturb_channels([case], epsilon, report)[0]

    def perturb_channels(self, cases: Sequence[Case], epsilon: float, report: Report = ignore) -> list[dict[str, Component]]:
        scene = self._scene(cases)
        touched = self.narrowed(scene, report)
        noise = np.zeros_like(scene.image)

        def work(core: Span) -> None:
            image, targets, allowed, inside = self._tile(scene, touched, core, self._surroundings(core, touched.shape))
            made = self.noise_on(self.networks, image, targets, allowed, epsilon)
            noise[(slice(None), *core)] = self._cut(made, core, inside)

        for_every_piece(work, self._cores(touched), report)
        box = cases[0].region_box
        limit = (epsilon * touched[box]).astype(np.float32)
        return [{"noise": Component(np.clip(channel[box], -limit, limit), limit)} for channel in noise]

    def gradient_size(self, scene: Scene, report: Report) -> np.ndarray:
        """Largest gradient of the true targets' loss over the channels, float32 (k, j, i), zero in tiles that may not change.

        The loss is a mean over what a tile sees, which is of one size here, so that gradients of different tiles compare.
        """
        size = np.zeros(scene.touched.shape, np.float32)

        def work(core: Span) -> None:
            image, targets, _, inside = self._tile(scene, scene.touched, core, self._equal_surroundings(core, size.shape))
            gradient = mean_gradient(self.networks, self.loss, image, torch.zeros_like(image), targets)
            size[core] = self._cut(gradient.abs(), core, inside).max(axis=0)

        for_every_piece(work, self._cores(scene.touched), report, "rank")
        return size

    def _scene(self, cases: Sequence[Case]) -> Scene:
        if len(cases) != self.purpose.image_channels:
            raise MedProtectError(
                f"the image has {len(cases)} channels, the profile was fitted on {self.purpose.image_channels}. Fit one on such images."
            )
        image = np.stack([np.clip(case.image, 0.0, 1.0) for case in cases])
        return Scene(image, cases[0].classes, cases[0].on_context(cases[0].regions.touched))

    def _cores(self, touched: np.ndarray) -> list[Span]:
        """The tiles that hold a voxel to change."""
        edges = self._edges(touched.shape)
        starts = product(*(range(0, n, edge) for n, edge in zip(touched.shape, edges, strict=True)))
        spans = [tuple(slice(s, min(s + e, n)) for s, e, n in zip(start, edges, touched.shape, strict=True)) for start in starts]
        return [span for span in spans if touched[span].any()]

    def _edges(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The largest edges (k, j, i) of a tile."""
        edges = TILE[self.dimension]
        if self.purpose.task == CLASSIFICATION:
            return (edges[0] if self.planar else shape[0], *shape[1:])
        return edges

    @property
    def _margins(self) -> tuple[int, ...]:
        return (0 if self.planar else AROUND, AROUND, AROUND)

    def _surroundings(self, core: Span, shape: tuple[int, ...]) -> Span:
        """The core with its margins, cut at the image's border."""
        return tuple(slice(max(0, s.start - m), min(n, s.stop + m)) for s, m, n in zip(core, self._margins, shape, strict=True))

    def _equal_surroundings(self, core: Span, shape: tuple[int, ...]) -> Span:
        """The core with at least its margins, as large for every tile as for a full one."""
        sizes = [min(n, edge + 2 * m) for n, edge, m in zip(shape, self._edges(shape), self._margins, strict=True)]
        starts = [min(s.start, n - size) for s, n, size in zip(self._surroundings(core, shape), shape, sizes, strict=True)]
        return tuple(slice(start, start + size) for start, size in zip(starts, sizes, strict=True))

    def _tile(self, scene: Scene, touched: np.ndarray, core: Span, near: Span) -> tuple[Tensor, Tensor, Tensor, Span]:
        """Image, targets and mask of the part ``near`` of a scene as a batch of one, and where the tile's core lies in it."""
        inside = tuple(slice(c.start - n.start, c.stop - n.start) for c, n in zip(core, near, strict=True))
        allowed = np.zeros([s.stop - s.start for s in near], np.float32)
        allowed[inside] = touched[core]
        parts = [scene.image[(slice(None), *near)], scene.classes[near][None].astype(np.int64), allowed[None]]
        image, classes, mask = (self._padded(part) for part in parts)
        return image, targets_of(classes, self.purpose), mask, inside

    def _padded(self, part: np.ndarray) -> Tensor:
        """A batch of one with zeros behind the far ends, up to edges that the networks take."""
        part = part[:, 0] if self.planar else part
        edges = part.shape[1:]
        if self.purpose.task == SEGMENTATION:
            edges = tuple(max(SMALLEST_EDGE, -(-n // ALIGNMENT) * ALIGNMENT) for n in edges)
        padded = np.zeros((len(part), *edges), part.dtype)
        padded[(slice(None), *(slice(0, n) for n in part.shape[1:]))] = part
        return torch.from_numpy(padded)[None]

    def _cut(self, made: Tensor, core: Span, inside: Span) -> np.ndarray:
        """A tile's core (c, k, j, i) out of what was made for it."""
        array = made[0].numpy()
        cut: np.ndarray = array[(slice(None), *inside[1:])][:, None] if self.planar else array[(slice(None), *inside)]
        return cut

    def tensors(self) -> dict[str, np.ndarray]:
        states = [(n, name, tensor) for n, network in enumerate(self.networks) for name, tensor in network.state_dict().items()]
        return {f"{n}/{name}": tensor.detach().cpu().numpy() for n, name, tensor in states}

    @classmethod
    def restore(cls, settings: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Self:
        purpose, parameters = cls.from_settings(settings)
        networks = []
        for n in range(1 + max(int(name.partition("/")[0]) for name in tensors)):
            network = surrogate_for(purpose)
            mine = {name.partition("/")[2]: array for name, array in tensors.items() if name.startswith(f"{n}/")}
            network.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in mine.items()})
            networks.append(frozen(network))
        return cls(purpose, parameters, networks)
