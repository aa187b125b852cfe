"""A small residual network that learns what to take away from an image: for denoising, and to learn a perturbation from pairs."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from monai.networks.blocks import Convolution
from torch import Tensor, nn

from MedProtectLib.device import placed, process_device
from MedProtectLib.progress import Report, Stage, ignore

DEPTH, CHANNELS, SMOOTHING = 5, 24, 5
BATCH, STEPS, RATE = 8, 800, 2e-3
EDGE = {2: 48, 3: 24}

DrawPatch = Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]
Restorer = Callable[[np.ndarray], np.ndarray]


class _Restorer(nn.Module):
    """Convolutions on the input and on the fine detail of its first ``outputs`` channels, as multiples of ``scale``."""

    def __init__(self, dimension: int, inputs: int, outputs: int, scale: float) -> None:
        super().__init__()
        self.outputs, self.scale = outputs, scale
        self.pool = (nn.AvgPool2d if dimension == 2 else nn.AvgPool3d)(SMOOTHING, 1, SMOOTHING // 2, count_include_pad=False)
        widths = [inputs + outputs, *(CHANNELS,) * (DEPTH - 1), outputs]
        self.layers = nn.Sequential(
            *(Convolution(dimension, a, b, act="relu", norm=None, conv_only=n == DEPTH - 1) for n, (a, b) in enumerate(pairwise(widths)))
        )

    def forward(self, given: Tensor) -> Tensor:
        image = given[:, : self.outputs]
        said: Tensor = self.layers(torch.cat([given, (image - self.pool(image)) / self.scale], 1))
        return said


def fit_restorer(
    draw: DrawPatch, dimension: int, inputs: int, outputs: int, seed: int, scale: float, stage: str, report: Report = ignore
) -> Restorer:
    """Train the network to say the second patch of ``draw`` (output, [k,] j, i) from the first (input, [k,] j, i).

    The first ``outputs`` channels of the input are the image. ``scale``: the size of what is to be said, so that the network
    works in numbers near 1. Returns a function of whole images.
    """
    progress = Stage(stage, STEPS, report)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = placed(_Restorer(dimension, inputs, outputs, scale), process_device())
    optimiser = torch.optim.Adam(network.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.PolynomialLR(optimiser, STEPS, 1.0)
    for step in range(STEPS):
        rng = np.random.default_rng([seed, step])
        given, wanted = (torch.from_numpy(np.stack(part)) for part in zip(*(draw(rng) for _ in range(BATCH)), strict=True))
        loss = nn.functional.mse_loss(network(given), wanted / scale)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        progress.at(step + 1)

    @torch.no_grad()
    def restore(image: np.ndarray) -> np.ndarray:
        said: Tensor = network(torch.from_numpy(_at_least(image, SMOOTHING))[None])[0]
        return said.numpy()[(slice(None), *map(slice, image.shape[1:]))] * scale

    return restore


def cut_around(arrays: np.ndarray, centre: np.ndarray, edge: int) -> np.ndarray:
    """The patch of ``edge`` of arrays (c, [k,] j, i) around a voxel, moved inside; mirrored where the image is smaller."""
    arrays = _at_least(arrays, edge)
    starts = [int(np.clip(c - edge // 2, 0, n - edge)) for c, n in zip(centre, arrays.shape[1:], strict=True)]
    return arrays[(slice(None), *(slice(s, s + edge) for s in starts))]


def _at_least(arrays: np.ndarray, edge: int) -> np.ndarray:
    """Arrays (c, [k,] j, i) with no axis shorter than ``edge``: mirrored at the end where they are smaller."""
    short = [max(0, edge - n) for n in arrays.shape[1:]]
    return np.pad(arrays, [(0, 0), *((0, s) for s in short)], mode="symmetric") if any(short) else arrays
