"""How far a release is, from what its private root holds: asked at any time, by anybody who may look into it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from MedProtectLib.errors import MedProtectError
from MedProtectLib.recorded import is_number
from MedProtectLib.release.claims import holders
from MedProtectLib.release.inventory import listed
from MedProtectLib.release.ledger import DIED, OK, OPEN, STARTED, merge, read_ledger
from MedProtectLib.release.roots import MANIFEST, Roots
from MedProtectLib.release.settings import Settings


@dataclass(frozen=True)
class ReleaseStatus:
    """``counts`` of the last that the ledger says of every case; ``at_work``: claimed cases and the processes that hold them;
    ``pace_s``: seconds from one protected case to the next while somebody was at work.
    """

    name: str
    cases: int
    counts: Counter[str]
    at_work: dict[str, str]
    pace_s: float | None

    def as_json(self) -> dict[str, Any]:
        return {
            "release": self.name,
            "cases": self.cases,
            "counts": dict(self.counts),
            "at_work": self.at_work,
            "seconds_a_case": self.pace_s,
        }

    def rows(self) -> Iterator[tuple[str, str]]:
        """Label and value."""
        yield "release", self.name
        yield "cases", str(self.cases)
        yield from ((status, str(count)) for status, count in sorted(self.counts.items()))
        yield from (("at work", f"{case} ({holder})") for case, holder in self.at_work.items())
        if self.pace_s is not None and self.counts[OPEN]:
            yield "left at this pace", f"{self.pace_s * self.counts[OPEN] / 60:.0f} min"


def status_of(folder: Path) -> ReleaseStatus:
    """The status of a release, given either of its roots.

    Raises:
        MedProtectError: there is no release.
    """
    roots = Roots.of(folder, None) if not (folder / MANIFEST).is_file() else Roots(folder, folder)
    if not roots.manifest.is_file():
        raise MedProtectError(f"{folder}: no release is here. Give its private folder, or the shareable one it is named after.")
    settings = Settings.load(roots.manifest)
    last = merge(roots.ledger).last
    counts: Counter[str] = Counter()
    for content in listed(roots):
        _, event = last.get(content["name"], (0.0, OPEN))
        counts[OPEN if event in (STARTED, DIED) else event] += 1
    return ReleaseStatus(settings.name, counts.total(), counts, holders(roots.claims), _pace(roots.ledger))


def _pace(ledger: Path) -> float | None:
    """Seconds from one protected case to the next. A gap that is longer than the later case took is a pause of everybody's, and only
    what the case took is counted.
    """
    entries = (entry for entry in read_ledger(ledger) if entry["event"] == OK)
    ended = sorted((float(entry["time"]), float(entry["seconds"])) for entry in entries if is_number(entry.get("seconds")))
    gaps = [min(took, after - before) for (before, _), (after, took) in pairwise(ended)]
    return (ended[0][1] + sum(gaps)) / len(ended) if ended else None
