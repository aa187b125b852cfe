"""What became of the cases of one run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from MedProtectLib.release.inventory import Inventory
from MedProtectLib.release.ledger import FAILED, OUTCOMES, QUARANTINED
from MedProtectLib.release.runners import Result

MOST_PROBLEMS = 1000


@dataclass
class Summary:
    """Counts by status; ``problems``: case and reason of those that did not go out, the first ones only."""

    inventory: Inventory
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[tuple[str, str]] = field(default_factory=list)
    objects_withheld: int = 0
    stopped: str = ""
    finished: bool = False
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether every case of this run went out, with everything that belongs to it."""
        return not (self.counts[QUARANTINED] or self.counts[FAILED] or self.objects_withheld or self.stopped)

    def add(self, result: Result) -> None:
        self.counts[result["status"]] += 1
        self.objects_withheld += len(result["withheld"])
        for reason in [result["reason"]] * bool(result["reason"]) + list(result["withheld"]):
            if len(self.problems) < MOST_PROBLEMS:
                self.problems.append((result["case"], reason))
        if result["stop"]:
            self.stopped = result["reason"]

    def as_json(self) -> dict[str, object]:
        return {
            "ok": self.complete,
            "cases": self.inventory.cases,
            "counts": {status: self.counts[status] for status in OUTCOMES},
            "objects_withheld": self.objects_withheld,
            "problems": [{"case": case, "reason": reason} for case, reason in self.problems],
            "stopped": self.stopped or None,
            "finished": self.finished,
            "seconds": round(self.seconds, 1),
        }
