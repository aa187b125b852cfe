"""Central difference convolution: a convolution that also sees how far each neighbour lies from the centre."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from MedProtectLib.networks.convolution import conv3d


class CentralDifferenceConv(nn.Module):
    """out(p0) = sum_n w_n f(p0 + p_n) - theta f(p0) sum_n w_n + b, with a learnable theta.

    theta = 0 is a plain convolution, theta = 1 sees differences to the centre only. The centre term is folded into the
    kernel's central tap, so it costs one convolution. Odd kernels, zero padding, same size out.

    Source: Yu et al., "Searching Central Difference Convolutional Networks for Face Anti-Spoofing", CVPR 2020; used by
    UMed (arXiv 2403.14250) for its contour generator.
    """

    def __init__(self, dimension: int, channels_in: int, channels_out: int, kernel: int = 3, theta: float = 0.5) -> None:
        super().__init__()
        plain = (nn.Conv2d if dimension == 2 else nn.Conv3d)(channels_in, channels_out, kernel)
        self.weight, self.bias = plain.weight, plain.bias
        self.theta = nn.Parameter(torch.tensor(float(theta)))
        self.dimension, self.kernel = dimension, kernel

    def forward(self, features: Tensor) -> Tensor:
        spatial = tuple(range(2, 2 + self.dimension))
        centre = torch.zeros_like(self.weight[:1, :1])
        centre[(0, 0) + (self.kernel // 2,) * self.dimension] = 1.0
        weight = self.weight - self.theta * self.weight.sum(spatial, keepdim=True) * centre
        convolve = functional.conv2d if self.dimension == 2 else conv3d
        return convolve(features, weight, self.bias, padding=self.kernel // 2)
