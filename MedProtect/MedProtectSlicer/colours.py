"""Colours of a signed change: which index stands for which component, sign and size, and how a colour table paints it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from slicer.i18n import tr as _

STEPS = 32
FAINTEST = 0.25
# One pair per component, negative and positive change; told apart by people with red-green blindness too.
PAIRS = (
    ((0.10, 0.45, 1.00), (1.00, 0.45, 0.05)),
    ((0.00, 0.80, 0.70), (1.00, 0.85, 0.10)),
    ((0.60, 0.40, 1.00), (1.00, 0.40, 0.75)),
)


@dataclass(frozen=True)
class Look:
    """How one component is drawn: hidden, or with an opacity from 0 to 1."""

    visible: bool = True
    opacity: float = 0.8


def encode(components: Mapping[str, np.ndarray], largest: float) -> np.ndarray:
    """Signed components as indices of the colour table, int16 (k, j, i): 0 no change, then 2 STEPS indices for every component.

    :param components: float (k, j, i) or (k, j, i, c); of several channels the largest change counts.
    :param largest: the change that gets the full colour.
    """
    indices: np.ndarray | None = None
    for number, values in enumerate(components.values()):
        flat = values if values.ndim == 3 else np.take_along_axis(values, np.abs(values).argmax(axis=3)[..., None], axis=3)[..., 0]
        indices = np.zeros(flat.shape, np.int16) if indices is None else indices
        size = np.clip(np.ceil(np.abs(flat) / largest * STEPS), 0, STEPS).astype(np.int16)
        shown = size > 0
        indices[shown] = (1 + 2 * STEPS * number + size + np.where(flat > 0, STEPS, 0) - 1)[shown]
    if indices is None:
        raise ValueError("there is no component")
    return indices


def paint(table: Any, looks: Mapping[str, Look]) -> None:
    """Set a vtkMRMLColorTableNode to the colours of these components in this order."""
    wasModified = table.StartModify()
    table.SetTypeToUser()
    table.SetNumberOfColors(1 + 2 * STEPS * len(looks))
    table.SetColor(0, "unchanged", 0.0, 0.0, 0.0, 0.0)
    for number, (name, look) in enumerate(looks.items()):
        for sign, colour in zip("-+", PAIRS[number % len(PAIRS)], strict=True):
            for size in range(1, STEPS + 1):
                alpha = look.opacity * (FAINTEST + (1 - FAINTEST) * size / STEPS) if look.visible else 0.0
                index = 2 * STEPS * number + size + (STEPS if sign == "+" else 0)
                table.SetColor(index, f"{name} {sign}{size}", *colour, alpha)
    table.EndModify(wasModified)


def legend(names: Sequence[str]) -> str:
    """One line per component that says what its colours mean."""
    lines = (
        _("{component}: orange is brighter than before, blue darker"),
        _("{component}: yellow is brighter than before, teal darker"),
        _("{component}: pink is brighter than before, violet darker"),
    )
    return "\n".join(lines[number % len(lines)].format(component=name) for number, name in enumerate(names))
