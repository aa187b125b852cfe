"""How the command line talks: progress as a bar or as JSON lines, results as text or JSON, errors as one line."""

from __future__ import annotations

import json
import logging
import os
import sys
from argparse import Namespace
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from dataclasses import asdict
from typing import Any

from MedProtectLib.errors import MedProtectError, one_line
from MedProtectLib.progress import Progress, Report, ignore

JSON_LINES: ContextVar[bool] = ContextVar("JSON_LINES", default=False)  # whether stderr has JSON lines only, as --progress json says


def progress_of(arguments: Namespace) -> Report:
    """The receiver of progress that the user asked for: JSON lines, a bar on a terminal, or nothing."""
    if arguments.progress == "json":
        return _json_line
    if arguments.progress == "bar" or (arguments.progress is None and sys.stderr.isatty()):
        return _Bar()
    return ignore


def _json_line(progress: Progress) -> None:
    print(json.dumps(asdict(progress)), file=sys.stderr, flush=True)


class _Bar:
    """One line on the terminal, redrawn: stage, share done, time left, note."""

    def __init__(self) -> None:
        from tqdm import tqdm

        self.bar = tqdm(total=1, bar_format="{desc}", leave=False)

    def __call__(self, progress: Progress) -> None:
        left = "" if progress.eta_s is None else f", {progress.eta_s:.0f} s left"
        self.bar.set_description_str(f"{progress.stage} {progress.done}/{progress.total}{left} {progress.note}")


def say(lines: Iterable[str], kind: str) -> None:
    """Notices and warnings, one line each, on stderr: text, or objects with the kind as their only name."""
    for line in map(one_line, lines):
        print(json.dumps({kind: line}) if JSON_LINES.get() else f"medprotect: {kind}: {line}", file=sys.stderr, flush=True)


class Notices(logging.Handler):
    """What the library logs, as notices."""

    def emit(self, record: logging.LogRecord) -> None:
        say([record.getMessage()], "notice")


def answer(arguments: Namespace, content: Mapping[str, Any], text: str) -> None:
    """The result on stdout: one JSON object with --json, else the text.

    Raises:
        MedProtectError: stdout cannot be written, on a full disk for instance.
    """
    try:
        print(json.dumps({"ok": True, **content}) if arguments.json else text.encode(errors="replace").decode(), flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise MedProtectError(f"standard output: {error.strerror}. The work was done; only what it would say here is lost.") from error


def refuse(as_json: bool, message: str) -> None:
    """An error: one line on stderr, and with --json the same as an object on stdout."""
    line = one_line(message)
    say([line], "error")
    try:
        if as_json:
            print(json.dumps({"ok": False, "error": line}))
        sys.stdout.flush()
    except OSError:
        close_stdout()


def close_stdout() -> None:
    """Drop what stdout could not take, or Python would try again at its end and print a traceback."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def table(rows: Iterable[tuple[str, str]]) -> str:
    """Two aligned columns."""
    rows = list(rows)
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)
