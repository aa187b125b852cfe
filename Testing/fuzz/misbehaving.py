"""Readers that do what none may do, for the tests of the loop."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from fuzz.mutations import append
from fuzz.targets import Target

MISTAKES: dict[str, Callable[[Path], object]] = {
    "raises": lambda folder: int("no number"),
    "takes 3 GB": lambda folder: bytearray(3 << 30),
    "never ends": lambda folder: [None for _ in iter(int, 1)],
    "dies": lambda folder: os._exit(3),
    "writes elsewhere": lambda folder: (folder.parent / "elsewhere").touch(),
}


def _on_damage(mistake: Callable[[Path], object]) -> Callable[[Path], object]:
    """The good file is read well."""
    return lambda folder: mistake(folder) if (folder / "file").stat().st_size else None


TARGETS = {name: Target(lambda: {"file": b""}, {"file": (append,)}, _on_damage(mistake)) for name, mistake in MISTAKES.items()}
