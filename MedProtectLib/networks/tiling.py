"""Run generators over a region of any size: in bounded memory, and with the same bytes for every tiling and thread count."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
import torch

from MedProtectLib.networks.unet import GeneratorUNet, Span
from MedProtectLib.networks.workers import for_every_piece
from MedProtectLib.progress import Report, ignore

TILE = 64


def run_in_tiles(
    networks: Sequence[GeneratorUNet],
    image: np.ndarray,
    wanted: np.ndarray,
    tile: int = TILE,
    report: Report = ignore,
) -> list[np.ndarray]:
    """tanh of every network's output over an image; zero where a tile holds nothing that is wanted.

    Args:
        networks: generators of equal halo and alignment, in eval mode.
        image: float32, (j, i) or (k, j, i).
        wanted: bool of the same shape, the voxels whose output is needed.
        tile: edge of a tile without its halo, a multiple of the networks' alignment.
        report: called in the calling thread after each piece; what it raises ends the run.

    Returns:
        One float32 array of the image's shape per network, values in [-1, 1].
    """
    outputs = [np.zeros(image.shape, np.float32) for _ in networks]
    cores = [_tight(core, wanted) for core in _cores(image.shape, tile) if wanted[core].any()]
    pieces = [(n, core) for core in cores for n in range(len(networks))]

    def run(piece: tuple[int, Span]) -> None:
        number, core = piece
        outputs[number][core] = _run_tile(networks[number], image, core)

    for_every_piece(run, pieces, report)
    return outputs


@torch.inference_mode()
def _run_tile(network: GeneratorUNet, image: np.ndarray, core: Span) -> np.ndarray:
    """One tile's output: computed with a halo where the image goes on, and zeros behind its far end up to the alignment."""
    near = [max(0, s.start // network.alignment * network.alignment - network.halo) for s in core]
    far = [min(n, s.stop + network.halo) for s, n in zip(core, image.shape, strict=True)]
    edges = [max(network.smallest, -(-(b - a) // network.alignment) * network.alignment) for a, b in zip(near, far, strict=True)]
    padded = np.zeros(edges, np.float32)
    padded[tuple(slice(0, b - a) for a, b in zip(near, far, strict=True))] = image[
        tuple(slice(a, b) for a, b in zip(near, far, strict=True))
    ]
    inside = tuple(slice(s.start - a, s.stop - a) for s, a in zip(core, near, strict=True))
    output: np.ndarray = torch.tanh(network(torch.from_numpy(padded)[None, None], inside))[0, 0].numpy()
    return output


def _cores(shape: tuple[int, ...], tile: int) -> Iterator[Span]:
    for starts in product(*(range(0, n, tile) for n in shape)):
        yield tuple(slice(start, min(start + tile, n)) for start, n in zip(starts, shape, strict=True))


def _tight(core: Span, wanted: np.ndarray) -> Span:
    """The smallest box in a tile that holds what is wanted of it."""
    found = []
    for axis, whole in enumerate(core):
        others = tuple(a for a in range(wanted.ndim) if a != axis)
        (hits,) = np.nonzero(wanted[core].any(axis=others))
        found.append(slice(whole.start + int(hits[0]), whole.start + int(hits[-1]) + 1))
    return tuple(found)
