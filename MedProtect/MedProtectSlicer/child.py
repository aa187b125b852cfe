"""The library's command line as a child process that can be watched and ended with everything it has started."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from slicer.i18n import tr as _

import MedProtectLib
from MedProtectLib.errors import MedProtectError
from MedProtectLib.progress import Progress

GRACE_S = 3.0
KINDS = ("notice", "warning", "error")


class Child:
    """``python -m MedProtectLib ARGUMENTS --json --progress json``. ``result`` is the object that it prints.

    :param onProgress: called with every :class:`Progress` in the main thread, from ``done``.
    :param secrets: environment variables for what must not stand in a command line, which other users of a machine can read.
    """

    def __init__(self, arguments: Sequence[str], onProgress: Callable[[Progress], None], secrets: Mapping[str, str] | None = None) -> None:
        self._onProgress = onProgress
        self._lines: list[str] = []
        self._output: list[str] = []
        self._shown = 0
        self._killAt: float | None = None
        command = [pythonExecutable(), "-P", "-m", "MedProtectLib", *arguments, "--json", "--progress", "json"]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            env={**_environment(), **(secrets or {})},
            **_ownGroup(),
        )
        self._readers = [
            threading.Thread(target=_collect, args=(stream, into), daemon=True)
            for stream, into in ((self._process.stderr, self._lines), (self._process.stdout, self._output))
        ]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        """Id of the process, which is also that of its group."""
        return self._process.pid

    def done(self) -> bool:
        self._report()
        ended = self._process.poll() is not None and not any(reader.is_alive() for reader in self._readers)
        if not ended and self._killAt is not None and time.monotonic() > self._killAt:
            _end(self._process, by_force=True)
        return ended

    def result(self) -> dict[str, Any]:
        try:
            answer = json.loads("".join(self._output))
        except ValueError:
            answer = {}
        if answer.get("ok"):  # its last word: all was done, even where a Cancel hit it on its way out
            answer["messages"] = self._messages()
            return answer
        reason = answer.get("error") or (self._messages() or [_("it ended without a word")])[-1]
        raise MedProtectError(reason)

    def cancel(self) -> None:
        """Ask the whole process tree to end, and insist after three seconds."""
        if self._killAt is None and not self.done():
            self._killAt = time.monotonic() + GRACE_S
            _end(self._process, by_force=False)

    def _messages(self) -> list[str]:
        """Notices and warnings of the library, or whatever a broken run has said."""
        text = [line.strip() for line in self._lines if line.strip() and _progressIn(line) is None]
        return [said for said in map(_saidIn, text) if said is not None] or text

    def _report(self) -> None:
        while self._shown < len(self._lines):
            progress = _progressIn(self._lines[self._shown])
            self._shown += 1
            if progress is not None:
                self._onProgress(progress)


def pythonExecutable() -> str:
    """Slicer's Python, or the one that is running where there is no Slicer."""
    return shutil.which("PythonSlicer") or sys.executable


def _environment() -> dict[str, str]:
    """The own environment, in which the child finds the same MedProtectLib."""
    library = str(Path(MedProtectLib.__file__).parents[1])
    earlier = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([library, earlier] if earlier else [library]), "PYTHONIOENCODING": "utf-8"}


def _ownGroup() -> dict[str, Any]:
    if os.name == "nt":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}  # type: ignore[attr-defined]
    return {"start_new_session": True}


def _end(process: subprocess.Popen[str], by_force: bool) -> None:
    """End the process with all of its descendants: PythonSlicer is only a launcher of the Python that works."""
    if os.name == "nt":
        subprocess.run(["taskkill", "/T", "/F", "/PID", str(process.pid)], capture_output=True, check=False)
        return
    try:
        os.killpg(process.pid, signal.SIGKILL if by_force else signal.SIGTERM)
    except ProcessLookupError:
        return


def _collect(stream: IO[str], into: list[str]) -> None:
    with stream:
        for line in stream:
            into.append(line)  # noqa: PERF402 (others look at the list meanwhile)


def _saidIn(line: str) -> str | None:
    """The text of a notice, a warning or an error."""
    try:
        ((kind, said),) = json.loads(line).items()
    except (ValueError, TypeError, AttributeError):
        return None
    return said if kind in KINDS else None


def _progressIn(line: str) -> Progress | None:
    try:
        return Progress(**json.loads(line))
    except (ValueError, TypeError):
        return None
