"""What happened, on the shared file system: every process appends JSON lines to a file of its own, and reading merges them.

A line is on the disk before anybody is told of it. A process that dies in the middle of a line leaves a torn one, which counts as nothing.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from MedProtectLib.outputs import private_folder
from MedProtectLib.recorded import is_number
from MedProtectLib.release.writer import this_writer

RUN, ENDED, STARTED, DIED = "run", "ended", "started", "died"
OK, SKIPPED, COPIED, QUARANTINED, FAILED, BUSY = "ok", "skipped", "copied", "quarantined", "failed", "busy"
OPEN = "open"
SETTLED = (OK, SKIPPED, COPIED, QUARANTINED)
OUTCOMES = (*SETTLED, FAILED)


class Ledger:
    """The lines of this process."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._file, self._owner = folder, -1, 0

    def append(self, event: str, durable: bool = True, **content: Any) -> None:
        """Write one line and, where it must not be lost, wait until it is on the disk.

        Raises:
            OSError: it could not be written.
        """
        line = json.dumps({"time": time.time(), "event": event, **this_writer().as_json(), **content}, sort_keys=True) + "\n"
        file = self._open()
        data = line.encode()
        while data:
            data = data[os.write(file, data) :]
        if durable:
            os.fsync(file)

    def _open(self) -> int:
        if self._owner != os.getpid():
            private_folder(self.folder)
            path = self.folder / f"{this_writer().name}.jsonl"
            self._file, self._owner = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o600), os.getpid()
            if os.fstat(self._file).st_size:
                os.write(self._file, b"\n")
        return self._file


def read_ledger(folder: Path) -> Iterator[dict[str, Any]]:
    """All whole lines of all writers, one writer after the other."""
    for path in sorted(folder.glob("*.jsonl")):
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.endswith("\n") and (entry := _parsed(line)) is not None:
                    yield entry


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(entry, dict) and is_number(entry.get("time")) and isinstance(entry.get("event"), str)
    return entry if whole and isinstance(entry.get("case", ""), str) else None


@dataclass
class Status:
    """The last thing that the ledger says of every case."""

    last: dict[str, tuple[float, str]] = field(default_factory=dict)


def merge(folder: Path) -> Status:
    """The status of all cases. A case that was committed and later found as it was is 'skipped' in that run and counts as 'ok'."""
    status = Status()
    for entry in read_ledger(folder):
        case, event = entry.get("case"), str(entry["event"])
        if case is None or event == BUSY:
            continue
        moment = (float(entry["time"]), OK if event == SKIPPED else event)
        if case not in status.last or moment >= status.last[case]:
            status.last[case] = moment
    return status
