"""Which texts were seen, in eight bytes for each: a release may have very many names."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable

import numpy as np


class Fingerprints:
    """Equal texts have equal fingerprints; two different ones have so in one of 10^19 cases. Ask only after :meth:`sort`."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._all = array("q", map(hash, texts))

    def add(self, text: str) -> None:
        self._all.append(hash(text))

    def sort(self) -> None:
        self._all = array("q", np.sort(np.frombuffer(self._all, np.int64)).tobytes()) if self._all else self._all

    def distinct(self) -> int:
        """How many different texts were added."""
        found = np.frombuffer(self._all, np.int64) if self._all else np.empty(0, np.int64)
        return len(found) - int((found[1:] == found[:-1]).sum())

    def __contains__(self, text: str) -> bool:
        """Whether a text was added."""
        place = bisect_left(self._all, hash(text))
        return place < len(self._all) and self._all[place] == hash(text)
