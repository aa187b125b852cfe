"""Where networks work: on the process's GPU where there is one, else on the processor."""

from __future__ import annotations

import os

import torch
from torch import Tensor, nn


def process_device() -> torch.device:
    """The process's GPU where torch finds one (torchrun gives every process its own), else the CPU."""
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if torch.cuda.is_available() else torch.device("cpu")


def placed(network: nn.Module, device: torch.device) -> nn.Module:
    """The network moved to a device; whoever calls it gives and gets tensors on the CPU, gradients pass through."""

    def bring(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(tensor.to(device) for tensor in given)

    def fetch(_: nn.Module, __: tuple[Tensor, ...], told: Tensor) -> Tensor:
        return told.cpu()

    network.register_forward_pre_hook(bring)
    network.register_forward_hook(fetch)
    return network.to(device)
