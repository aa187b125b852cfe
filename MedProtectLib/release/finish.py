"""The end of a release: the files about the whole dataset, the records that may go out, the audit trail and the overview.

Everything is made anew from the records on disk, so that it can be done again after every run, by any of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from MedProtectLib.errors import MedProtectError
from MedProtectLib.io import sha256_file
from MedProtectLib.records import LIMITS
from MedProtectLib.release.audit import DAMAGED, Outcome, write_audit
from MedProtectLib.release.commit import read_reason, read_record
from MedProtectLib.release.fingerprints import Fingerprints
from MedProtectLib.release.inventory import listed
from MedProtectLib.release.layouts import find_layout
from MedProtectLib.release.ledger import FAILED, OPEN, QUARANTINED, SETTLED, read_ledger
from MedProtectLib.release.overview import write_overview
from MedProtectLib.release.roots import RECORDS, SUMMARY, Roots, write_shared, written_shared
from MedProtectLib.release.settings import Settings
from MedProtectLib.release.versions import carry_over, withdrawn
from MedProtectLib.version import __version__

SCHEMA = 1
COMMON = "common_files_sha256"
TRIED = "trying it again failed: "


def all_settled(roots: Roots) -> bool:
    """Whether every case is committed or in quarantine."""
    return all(roots.record(content["name"]).exists() or roots.reason(content["name"]).exists() for content in listed(roots))


def outcomes(roots: Roots) -> Iterator[Outcome]:
    """What became of every case, in the order of the list, as the disk tells."""
    failed = _failed(roots)
    for content in listed(roots):
        case = str(content["name"])
        record = read_record(roots, case)
        if record is not None:
            if case in failed and isinstance(record.get("warnings"), list):
                record["warnings"].append(f"{TRIED}{failed[case]}")
            yield Outcome(case, str(record["status"]), "", content, record)
        elif (reason := read_reason(roots, case)) is not None:
            yield Outcome(case, QUARANTINED, reason, content, None)
        else:
            yield Outcome(case, FAILED if case in failed else OPEN, "not done; go on with --resume.", content, None)


def _failed(roots: Roots) -> dict[str, str]:
    """Why cases failed whose last try did, by case."""
    last: dict[str, tuple[float, str]] = {}
    for entry in read_ledger(roots.ledger):
        case, moment = str(entry.get("case")), float(entry["time"])
        if entry["event"] == FAILED and moment >= last.get(case, (0.0, ""))[0]:
            last[case] = moment, str(entry.get("reason", ""))
    for entry in read_ledger(roots.ledger):
        case, moment = str(entry.get("case")), float(entry["time"])
        if case in last and entry["event"] in SETTLED and moment > last[case][0]:
            del last[case]
    return {case: reason for case, (_, reason) in last.items()}


def finish(settings: Settings) -> None:
    """Write everything that is about more than one case.

    Raises:
        MedProtectError: a file about the dataset is damaged, or one that a record names is missing. OSError: no space or no permission.
    """
    roots, layout = settings.roots, find_layout(Path(settings.dataset))
    released = Fingerprints(str(outcome.content["image"]["target"]) for outcome in outcomes(roots) if outcome.record is not None)
    released.sort()
    common = layout.assemble(roots)
    _remove_left_copies(roots)
    for item in layout.common():
        common.append(_put(roots, item.target, (layout.root / item.source).read_bytes()))
    for name, content in layout.rewritten(released).items():
        common.append(_put(roots, name, content))
    if settings.earlier is not None:
        carry_over(settings.earlier, roots)
    gone = withdrawn(settings)
    write_audit(roots, settings, outcomes(roots), gone)
    write_overview(roots, settings, lambda: outcomes(roots), gone)
    _check_outputs(roots)
    _write_shareable(roots, settings, common)


def _remove_left_copies(roots: Roots) -> None:
    """Remove copies, label maps for instance, of cases that did not go out, unless one that did has them too."""
    needed = Fingerprints(name for outcome in outcomes(roots) if outcome.record is not None for name in outcome.record["outputs"])
    needed.sort()
    for outcome in outcomes(roots):
        for item in outcome.content.get("copies", ()) if outcome.record is None else ():
            with suppress(MedProtectError):  # a name that no file there can have
                if item["target"] not in needed:
                    roots.target(item["target"]).unlink(missing_ok=True)


def _check_outputs(roots: Roots) -> None:
    """Raises MedProtectError where a file that a record names is not in the shareable root, or two name one with other content."""
    places, contents = Fingerprints(), Fingerprints()
    for outcome in outcomes(roots):
        if outcome.record is None:
            continue
        for name, sha in outcome.record["outputs"].items():
            if not roots.target(name).is_file():
                tried = [warning for warning in outcome.record["warnings"] if warning.startswith(TRIED)]
                advice = tried[-1] if tried else "make it again with --resume."
                raise MedProtectError(f"{roots.target(name)}: a file of case '{outcome.case}' is missing; {advice}")
            places.add(name)
            contents.add(f"{name}\n{sha}")
    places.sort()
    contents.sort()
    if places.distinct() < contents.distinct():
        raise MedProtectError(f"{roots.output}: two cases have a file of one name, and it differs. Rename it in the dataset, begin anew.")


def _put(roots: Roots, name: str, content: bytes) -> str:
    path = roots.target(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_shared(path, content)
    return name


def _write_shareable(roots: Roots, settings: Settings, common: Iterable[str]) -> None:
    """The records and the summary that may go out: nothing in them gives a perturbation, a seed, a profile or an original away.

    ``common`` names the files about the whole dataset.
    """
    tally = Tally()
    with written_shared(roots.output / RECORDS) as file:
        for outcome in outcomes(roots):
            if outcome.record is not None:
                shareable = shareable_line(outcome.record)
                try:
                    tally.add(shareable)
                except (LookupError, TypeError) as error:
                    raise MedProtectError(DAMAGED.format(outcome.case)) from error
                file.write((json.dumps(shareable, sort_keys=True) + "\n").encode())
    summary = {
        "schema": SCHEMA,
        "medprotect": __version__,
        "release": settings.name,
        "layout": settings.layout,
        "limits": list(LIMITS),
        COMMON: {name: sha256_file(roots.target(name)) for name in common},
        **tally.as_json(),
    }
    write_shared(roots.output / SUMMARY, (json.dumps(summary, indent=2, sort_keys=True) + "\n").encode())


def shareable_line(record: Mapping[str, Any]) -> dict[str, Any]:
    """What goes out of a committed case's record; the limits, which the summary says once, do not."""
    line: dict[str, Any] = record["shareable"] | {"outputs": record["outputs"]}
    line.pop("limits", None)
    return line


@dataclass
class Tally:
    """What the shareable summary says about the cases."""

    protected: int = 0
    unprotected: int = 0
    lowest: float | None = None
    highest: float | None = None
    methods: set[str] = field(default_factory=set)
    bounds: set[float] = field(default_factory=set)

    def add(self, record: Mapping[str, Any]) -> None:
        if not record["protected"]:
            self.unprotected += 1
            return
        self.protected += 1
        self.methods.add(record["method"])
        self.bounds.add(record["bound"])
        psnr = record["statistics"]["psnr_db"]
        if psnr is not None:
            self.lowest = psnr if self.lowest is None else min(self.lowest, psnr)
            self.highest = psnr if self.highest is None else max(self.highest, psnr)

    def as_json(self) -> dict[str, Any]:
        return {
            "cases": {"protected": self.protected, "unprotected": self.unprotected},
            "methods": sorted(self.methods),
            "bounds": sorted(self.bounds),
            "psnr_db": {"lowest": self.lowest, "highest": self.highest},
        }
