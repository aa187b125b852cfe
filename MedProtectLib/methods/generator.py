"""What the generator methods share: fitted networks that draw a case's perturbation in one forward pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import nn

from MedProtectLib.methods.base import Case, Halo, Method, Purpose
from MedProtectLib.networks.tiling import run_in_tiles
from MedProtectLib.networks.unet import GeneratorUNet
from MedProtectLib.progress import Report, Stage

Networks = TypeVar("Networks", bound=nn.Module)


class GeneratorMethod(Method, Generic[Networks]):
    """A method whose tensors are those of the module ``generators``."""

    def __init__(self, purpose: Purpose, generators: Networks) -> None:
        super().__init__(purpose)
        self.generators: Networks = generators.eval()

    @property
    def halo(self) -> Halo:
        """That of the generators; slice by slice there are no neighbours."""
        if self.planar:
            return Halo(0)
        drawing = [part for part in self.generators.modules() if isinstance(part, GeneratorUNet)]
        return Halo(max(network.halo for network in drawing), max(network.alignment for network in drawing))

    def draw(self, networks: Sequence[GeneratorUNet], case: Case, report: Report) -> list[np.ndarray]:
        """tanh of every network's output on the regions' box, float32 (k, j, i) in [-1, 1]."""
        image = np.clip(case.image, 0.0, 1.0)
        wanted = case.on_context(case.regions.touched)
        if not self.planar:
            return [output[case.region_box] for output in run_in_tiles(networks, image, wanted, report=report)]
        slices = np.flatnonzero(wanted.any(axis=(1, 2)))
        stage = Stage("generate", len(slices), report)
        outputs = np.zeros((len(networks), *image.shape), np.float32)
        for done, k in enumerate(slices, start=1):
            outputs[:, k] = run_in_tiles(networks, image[k], wanted[k])
            stage.at(done)
        return [output[case.region_box] for output in outputs]

    def tensors(self) -> dict[str, np.ndarray]:
        return {name: tensor.detach().cpu().numpy() for name, tensor in self.generators.state_dict().items()}

    def load(self, tensors: Mapping[str, np.ndarray]) -> None:
        """Take over fitted tensors. Raises RuntimeError if they do not fit."""
        self.generators.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in tensors.items()})
