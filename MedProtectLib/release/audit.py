"""The audit trail: one entry a case, as JSON lines and as a table, with what went in, what came out, and how."""

from __future__ import annotations

import csv
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from MedProtectLib.errors import MedProtectError
from MedProtectLib.release.roots import Roots
from MedProtectLib.release.settings import Settings
from MedProtectLib.release.writer import this_writer

WITHDRAWN = "withdrawn"
DAMAGED = "case '{}': its private record is damaged. Remove its folder and use --resume."
STATISTICS = (
    "psnr_db",
    "psnr_roi_db",
    "psnr_full_range_db",
    "ssim",
    "max_abs_change_units",
    "changed_voxels",
    "changed_fraction",
    "changed_outside_regions",
    "roi_mean_shift",
)
COLUMNS = (
    "case",
    "status",
    "reason",
    "protected",
    "inputs",
    "inputs_sha256",
    "outputs",
    "outputs_sha256",
    "method",
    "medprotect",
    "profile_sha256",
    "seed",
    "bound",
    "target_psnr",
    "epsilon_measured",
    *STATISTICS,
    "frozen_since",
    "warnings",
    "finished",
    "seconds",
)


@dataclass(frozen=True)
class Outcome:
    """What became of a case: its status, why it did not go out, its entry in the list of cases, and its record."""

    case: str
    status: str
    reason: str
    content: Mapping[str, Any]
    record: Mapping[str, Any] | None


def write_audit(roots: Roots, settings: Settings, outcomes: Iterable[Outcome], withdrawn: Iterable[str]) -> None:
    """Write ``audit.jsonl`` and ``audit.csv`` into the private root.

    Raises:
        OSError: no space or no permission.
    """
    table = roots.audit.with_suffix(".csv")
    with _private_text(roots.audit) as lines, _private_text(table) as rows:
        writer = csv.DictWriter(rows, COLUMNS, lineterminator="\n", restval="")
        writer.writeheader()
        for entry in _entries(outcomes, withdrawn):
            lines.write(json.dumps(entry, sort_keys=True, allow_nan=False) + "\n")
            writer.writerow(_row(entry))


def _entries(outcomes: Iterable[Outcome], withdrawn: Iterable[str]) -> Iterator[dict[str, Any]]:
    for outcome in outcomes:
        try:
            entry = _entry(outcome)
            _row(entry)
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise MedProtectError(DAMAGED.format(outcome.case)) from error
        yield entry
    for case in withdrawn:
        yield {"case": case, "status": WITHDRAWN, "reason": "it was in the previous version and is not in this one.", "protected": False}


def _entry(outcome: Outcome) -> dict[str, Any]:
    entry: dict[str, Any] = {"case": outcome.case, "status": outcome.status, "reason": outcome.reason, "protected": False}
    if outcome.record is None:
        return entry
    record = outcome.record
    shareable, private = record["shareable"], record["private"]
    statistics = shareable.get("statistics", {})
    return entry | {
        "protected": bool(shareable["protected"]),
        "inputs": record["inputs"],
        "outputs": record["outputs"],
        "original_voxels_sha256": record["original_voxels_sha256"],
        "protected_voxels_sha256": record["protected_voxels_sha256"],
        "method": shareable.get("method"),
        "medprotect": shareable.get("medprotect"),
        "profile_sha256": private.get("profile", {}).get("sha256"),
        "seed": private.get("seed"),
        "bound": shareable.get("bound"),
        "target_psnr": shareable.get("target_psnr"),
        "epsilon_measured": statistics["max_abs_change"][0] if statistics else None,
        "statistics": statistics,
        "engine": shareable.get("engine"),
        "frozen_since": record.get("frozen_since"),
        "warnings": record["warnings"],
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record["time"])),
        "seconds": record["seconds"],
    }


def _row(entry: Mapping[str, Any]) -> dict[str, Any]:
    row = {key: value for key, value in entry.items() if key in COLUMNS and value is not None}
    for name in ("inputs", "outputs"):
        hashes = entry.get(name, {})
        row |= {name: "; ".join(hashes), f"{name}_sha256": "; ".join(hashes.values())}
    row |= {key: value for key, value in entry.get("statistics", {}).items() if key in STATISTICS}
    row["warnings"] = " | ".join(entry.get("warnings", ()))
    row["seconds"] = round(sum(entry.get("seconds", {}).values()), 3)
    return {key: _harmless(value) for key, value in row.items()}


def _harmless(value: Any) -> Any:
    """Text that a spreadsheet does not take for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


@contextmanager
def _private_text(path: Path) -> Iterator[TextIO]:
    """A text file of its owner's alone that appears whole or not at all."""
    part = path.with_name(f".{path.name}.{this_writer().name}.part")
    try:
        with os.fdopen(
            os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8", errors="replace", newline=""
        ) as file:
            yield file
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
