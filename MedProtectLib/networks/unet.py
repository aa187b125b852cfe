"""The generator: a small U-Net whose output at a voxel depends on a bounded neighbourhood alone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from MedProtectLib.networks.central_difference import CentralDifferenceConv
from MedProtectLib.networks.convolution import Conv3d

SLOPE = 0.1
MEAN_SIDE = 5
Span = tuple[slice, ...]


class GeneratorUNet(nn.Module):
    """U-Net from one image channel to one perturbation channel, both (batch, 1, [k,] j, i); values are unbounded.

    It has no normalisation over space, unlike the U-Nets of the publications, so that a tile, a slab and the whole
    volume give the same perturbation, and its output has no local mean in a slice, so that it draws texture instead of
    shifting the brightness of a structure. ``alignment`` is the grid on which tiles must start, ``halo`` the context (a
    multiple of it) that a tile needs on every side, ``smallest`` the least edge of an input. With
    ``central_difference`` the encoder's convolutions are central difference convolutions. With ``core`` the output is
    that part of the image alone, and decoders do not compute what only the rest depends on.
    """

    def __init__(self, dimension: int, channels: Sequence[int], central_difference: bool) -> None:
        super().__init__()
        plain = nn.Conv2d if dimension == 2 else nn.Conv3d

        def conv(channels_in: int, channels_out: int, differential: bool) -> nn.Module:
            if differential:
                return CentralDifferenceConv(dimension, channels_in, channels_out)
            return nn.Conv2d(channels_in, channels_out, 3, padding=1) if dimension == 2 else Conv3d(channels_in, channels_out, 3)

        def block(*widths: int, differential: bool) -> nn.Sequential:
            layers = [(conv(a, b, differential), nn.LeakyReLU(SLOPE)) for a, b in pairwise(widths)]
            return nn.Sequential(*(layer for pair in layers for layer in pair))

        self.encoders = nn.ModuleList(block(a, b, b, differential=central_difference) for a, b in pairwise([1, *channels[:-1]]))
        self.downs = nn.ModuleList(plain(c, c, 2, stride=2) for c in channels[:-1])
        self.bottom = block(channels[-2], channels[-1], differential=central_difference)
        self.ups = nn.ModuleList(
            nn.Sequential(nn.Upsample(scale_factor=2), plain(deep, shallow, 1)) for shallow, deep in pairwise(channels)
        )
        self.decoders = nn.ModuleList(block(2 * c, c, differential=False) for c in channels[:-1])
        self.head = plain(channels[0], 1, 1)
        margin = MEAN_SIDE // 2
        self.local_mean = (
            nn.AvgPool2d(MEAN_SIDE, 1, margin, count_include_pad=False)
            if dimension == 2
            else nn.AvgPool3d((1, MEAN_SIDE, MEAN_SIDE), 1, (0, margin, margin), count_include_pad=False)
        )
        levels = len(channels) - 1
        self.alignment = 2**levels
        reach = sum(3 * 2**level for level in range(levels)) + 2**levels + self.alignment - 1 + MEAN_SIDE // 2
        self.halo = _multiple(reach, self.alignment)
        self.smallest = _multiple(MEAN_SIDE, self.alignment)

    def forward(self, image: Tensor, core: Span | None = None) -> Tensor:
        features, skips = image, []
        for encode, down in zip(self.encoders, self.downs, strict=True):
            skips.append(encode(features))
            features = down(skips[-1])
        features = self.bottom(features)
        core = core or _whole(image)
        present = _whole(features)
        stages = list(zip(self.ups, self.decoders, skips, self._spans(core, image.shape[2:]), strict=True))
        for up, decode, skip, span in reversed(stages):
            doubled = tuple(slice(2 * s.start, 2 * s.stop) for s in present)
            features = decode(torch.cat([_cut(up(features), span, doubled), skip[(..., *span)]], dim=1))
            present = span
        drawn = self.head(features)
        return _cut(drawn - self.local_mean(drawn), core, present)

    def _spans(self, core: Span, shape: Sequence[int]) -> list[Span]:
        """The parts of the decoders' inputs on which a part of the output depends, finest level first."""
        spans, needed, margin = [], core, MEAN_SIDE  # at the image's border too the local mean finds its whole side
        for level in range(len(self.decoders)):
            ends = [n // 2**level for n in shape]
            spans.append(tuple(slice(max(0, s.start - margin), min(end, s.stop + margin)) for s, end in zip(needed, ends, strict=True)))
            needed, margin = tuple(slice(s.start // 2, -(-s.stop // 2)) for s in spans[-1]), 1
        return spans


def _whole(features: Tensor) -> Span:
    """All of an image."""
    return tuple(slice(0, n) for n in features.shape[2:])


def _cut(features: Tensor, span: Span, present: Span) -> Tensor:
    """The part ``span`` of features that cover ``present``."""
    where: Span = tuple(slice(s.start - p.start, s.stop - p.start) for s, p in zip(span, present, strict=True))
    return features[(slice(None), slice(None), *where)]


def _multiple(least: int, of: int) -> int:
    """The smallest multiple that is at least ``least``."""
    return -(-least // of) * of
