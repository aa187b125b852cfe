"""How far a long job is. The library reports, the command line or the GUI shows; a job ends early when the receiver raises."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Progress:
    """``done`` of ``total`` units of a stage; ``eta_s`` is the expected time left in seconds, None while unknown."""

    stage: str
    done: int
    total: int
    eta_s: float | None = None
    note: str = ""


Report = Callable[[Progress], None]


def ignore(progress: Progress) -> None:
    """The receiver of those who do not want to know."""


@dataclass
class Stage:
    """Counts the units of one stage and tells ``report``, with an ETA from the pace so far."""

    name: str
    total: int
    report: Report
    start: int = 0
    began: float = field(default_factory=time.monotonic)

    def at(self, done: int, note: str = "") -> None:
        passed = done - self.start
        eta = (time.monotonic() - self.began) / passed * (self.total - done) if passed > 0 else None
        self.report(Progress(self.name, done, self.total, eta, note))
