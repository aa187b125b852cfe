"""One share of the cases, for batch systems that start the same command many times."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from MedProtectLib.errors import UsageError
from MedProtectLib.release.runners import Content

AUTO = "auto"


@dataclass(frozen=True)
class Shard:
    """Number ``index`` of ``count`` shares, counted from 1."""

    index: int
    count: int

    def __call__(self, cases: Iterable[Content]) -> Iterator[Content]:
        """Every ``count``-th case, so that large and small ones are spread."""
        for number, content in enumerate(cases):
            if number % self.count == self.index - 1:
                yield content

    def as_json(self) -> list[int]:
        return [self.index, self.count]

    @classmethod
    def parse(cls, text: str, environment: Mapping[str, str] = os.environ) -> Shard:
        """'2/8', or 'auto': the place of this task in a SLURM array.

        Raises:
            UsageError: neither, or 'auto' outside a SLURM array.
        """
        if text == AUTO:
            return cls._of_slurm(environment)
        match = re.fullmatch(r"(\d{1,7})/(\d{1,7})", text)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise UsageError(f"--shard {text}: give i/n with i from 1 to n, such as 1/8 to 8/8, or 'auto' in a SLURM array.")
        return cls(int(match[1]), int(match[2]))

    @classmethod
    def _of_slurm(cls, environment: Mapping[str, str]) -> Shard:
        try:
            task, first, last, count = (int(environment[f"SLURM_ARRAY_TASK_{name}"]) for name in ("ID", "MIN", "MAX", "COUNT"))
        except (KeyError, ValueError):
            raise UsageError("--shard auto: this is no task of a SLURM array (SLURM_ARRAY_TASK_ID is not set). Give i/n.") from None
        step = (last - first) // (count - 1) if count > 1 else 1
        if (task - first) % step or first + step * (count - 1) != last:
            raise UsageError("--shard auto: the SLURM array has gaps. Use one without, such as --array=0-63, or give i/n.")
        return cls((task - first) // step + 1, count)
