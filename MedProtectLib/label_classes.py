"""The classes of many label maps: a class is the name where files name their segments, else the label value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from MedProtectLib.errors import MedProtectError
from MedProtectLib.volume import Segment

TOLD = 4

CaseSegments = tuple[str, Sequence[Segment]]
Places = Mapping[str, Mapping[int, str]]


class Classes(NamedTuple):
    """Classes in the order of their numbers 1, 2, ...: ``keys`` are names (str) or label values (int).

    ``values`` has the label value that stands for each of them in a file without names, 0 for a name on whose value the files
    do not agree; () where nothing has a name.
    """

    keys: tuple[int | str, ...]
    values: tuple[int, ...]


def common_classes(cases: Sequence[CaseSegments]) -> Classes:
    """The classes of the segments of many cases, each by the case's name; those with the smallest label values come first.

    Raises:
        MedProtectError: a segment has no name, and those of other cases contradict each other about which one its value means.
    """
    named: dict[str, dict[int, str]] = {}
    unnamed: dict[int, str] = {}
    for case, segments in cases:
        for segment in segments:
            (named.setdefault(segment.name, {}) if segment.has_name else unnamed).setdefault(segment.value, case)
    own = {name: _own_value(name, named) for name in named}
    for value, case in unnamed.items():
        if any(value in named[name] and own[name] != value for name in named):
            raise MedProtectError(_contradiction(value, case, named))
    first: list[tuple[int, int | str]] = [(min(places), name) for name, places in named.items()]
    first += [(value, value) for value in unnamed if value not in own.values()]
    keys = tuple(key for _, key in sorted(first, key=lambda entry: (entry[0], str(entry[1]))))
    return Classes(keys, tuple(own[key] if isinstance(key, str) else key for key in keys) if named else ())


def in_counting_order(name: str) -> tuple[int, str]:
    """So that class '10' comes after class '9'."""
    return (len(name) if name.isdecimal() else 0, name)


def _own_value(name: str, named: Places) -> int:
    """The label value of a name if it has one alone and shares it with no other name, else 0."""
    value, *others = named[name]
    shared = any(value in places for other, places in named.items() if other != name)
    return 0 if others or shared else value


def _contradiction(value: int, case: str, named: Places) -> str:
    found = (f"'{name}' is {v} in {where}" for name, places in named.items() if value in places for v, where in places.items())
    return (
        f"{case}: its label value {value} has no name, and the other cases do not agree on one: {', '.join(islice(found, TOLD))}. "
        "Name the segments in every label map, or leave it out with --segments."
    )
