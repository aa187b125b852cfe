"""3D convolution without gradients on the CPU at full speed."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def conv3d(features: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
    """Convolution (batch, c, k, j, i) with stride 1.

    PyTorch gives a single small volume to a plain loop instead of to oneDNN, which takes half the time for it too.
    """
    ours = features.device.type == "cpu" and features.dtype == torch.float32 and not torch.is_grad_enabled()
    if ours and torch.backends.mkldnn.is_available():
        return torch.mkldnn_convolution(features, weight, bias, [padding] * 3, [1] * 3, [1] * 3, 1)
    return functional.conv3d(features, weight, bias, padding=padding)


class Conv3d(nn.Module):
    """Convolution with stride 1 whose output has the input's size; odd kernels, zero padding."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int) -> None:
        super().__init__()
        plain = nn.Conv3d(channels_in, channels_out, kernel)
        self.weight, self.bias, self.padding = plain.weight, plain.bias, kernel // 2

    def forward(self, features: Tensor) -> Tensor:
        return conv3d(features, self.weight, self.bias, self.padding)
