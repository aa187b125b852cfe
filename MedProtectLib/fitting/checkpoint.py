"""What a loop needs to go on where it stopped: the tensors of networks and optimisers as safetensors, no pickle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from MedProtectLib.errors import MedProtectError
from MedProtectLib.outputs import write_private

SAVE_EVERY = 25


class Part(Protocol):
    """What can be saved and put back: a network, an optimiser, or noise that is kept."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors by name."""

    def load_state_dict(self, state: Any, /) -> Any:
        """Put a saved state back."""


Parts = Mapping[str, Part]


def save_checkpoint(path: Path, parts: Parts, step: int, loss: float, identity: str) -> None:
    """Keep the state of networks and optimisers after ``step`` steps, and the loss so far; ``identity`` names their run."""
    tensors: dict[str, Tensor] = {}
    for name, part in parts.items():
        state = part.state_dict()
        if isinstance(part, torch.optim.Optimizer):
            state = {f"{n}.{key}": value for n, entries in state["state"].items() for key, value in entries.items()}
        tensors |= {f"{name}/{key}": torch.as_tensor(value).detach().contiguous().clone() for key, value in state.items()}
    write_private(path, save(tensors, metadata={"step": str(step), "loss": repr(loss), "identity": identity}))


def load_checkpoint(path: Path, parts: Parts, identity: str) -> tuple[int, float | None]:
    """Put networks and optimisers back to their saved state; returns the step and the loss, (0, None) when nothing was saved.

    Raises:
        MedProtectError: the checkpoint is damaged or belongs to a run with other settings.
    """
    if not path.is_file():
        return 0, None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (a safe_open handle is no dict)
    except (SafetensorError, OSError) as error:
        raise MedProtectError(f"{path}: the checkpoint is damaged. Remove its folder and start again.") from error
    if metadata.get("identity") != identity:
        raise MedProtectError(f"{path}: the checkpoint belongs to a run with other data or settings. Remove its folder and start again.")
    for name, part in parts.items():
        state = {key.removeprefix(f"{name}/"): value for key, value in tensors.items() if key.startswith(f"{name}/")}
        if isinstance(part, torch.optim.Optimizer):
            entries: dict[int, dict[str, Tensor]] = {}
            for key, value in state.items():
                number, _, entry = key.partition(".")
                entries.setdefault(int(number), {})[entry] = value
            part.load_state_dict({"state": entries, "param_groups": part.state_dict()["param_groups"]})
        else:
            part.load_state_dict(state)
    return int(metadata["step"]), float(metadata["loss"])
