"""How victims are trained on a data set: the table in settings.toml."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from MedProtectLib.errors import UsageError
from MedProtectLib.methods.base import CLASSIFICATION

TABLE = Path(__file__).with_name("settings.toml")


@dataclass(frozen=True)
class Setting:
    """``size``: edges of what a victim sees, ([k,] j, i), multiples of 16 but for classification. ``resized``: whole images are
    resized to it, otherwise patches of that size are cut. ``batch`` patches a step, ``rate`` of Adam at the start of its
    polynomial decay, ``width`` channels of a victim's first level, ``victim`` where none is asked for.
    """

    name: str
    size: tuple[int, ...]
    resized: bool
    batch: int
    steps: int
    rate: float
    width: int
    victim: str


def setting_names() -> tuple[str, ...]:
    """The names in the table."""
    return tuple(_table())


def setting_of(name: str) -> Setting:
    """The setting of that name.

    Raises:
        UsageError: the table has none.
    """
    table = _table()
    if name not in table:
        raise UsageError(f"unknown setting '{name}'. Known settings: {', '.join(table)}.")
    entry = table[name]
    return Setting(name=name, size=tuple(entry["size"]), **{key: value for key, value in entry.items() if key != "size"})


def default_setting(task: str, dimension: int) -> Setting:
    """The setting of data for which the table has no entry of its own."""
    return setting_of(f"default_{'classification_' if task == CLASSIFICATION else ''}{dimension}d")


def _table() -> dict[str, dict]:
    with TABLE.open("rb") as file:
        return tomllib.load(file)
