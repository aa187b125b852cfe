"""Who writes: one process of one run, told apart from every other on all machines that share the file system."""

from __future__ import annotations

import os
import re
import socket
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

FORGOTTEN_AFTER_S = 24 * 3600.0  # what another machine left, and nobody touched for so long, is of a process that is gone
NAMED = re.compile(r".+\.(?P<host>[^.]+)-(?P<pid>\d+)-(?P<began>\d+)")


@dataclass(frozen=True)
class Writer:
    """A process: its machine (with the namespace that its number is valid in), its number, and when it began in clock ticks."""

    host: str
    pid: int
    began: int

    @property
    def name(self) -> str:
        """Usable in a file name."""
        return f"{self.host}-{self.pid}-{self.began}"

    def as_json(self) -> dict[str, Any]:
        return {"host": self.host, "pid": self.pid, "began": self.began}

    @classmethod
    def from_json(cls, content: Any) -> Writer:
        """Raises KeyError, TypeError or ValueError for anything that :meth:`as_json` did not write."""
        return cls(str(content["host"]), int(content["pid"]), int(content["began"]))

    def is_gone(self) -> bool | None:
        """Whether the process has ended; None where this machine cannot know."""
        if self.host != _host():
            return None
        began = _began(self.pid)
        return began != self.began if began is not None else not _alive(self.pid)


def is_left(path: Path) -> bool:
    """Whether what has its writer's name at the end of its own is of a process that is gone; where nobody can tell, is a day old."""
    match = NAMED.fullmatch(path.name.removesuffix(".part"))
    gone = Writer(match["host"], int(match["pid"]), int(match["began"])).is_gone() if match else None
    return gone if gone is not None else is_forgotten(path)


def is_forgotten(path: Path) -> bool:
    """Whether a file or folder is more than a day old."""
    try:
        return time.time() - path.stat().st_mtime > FORGOTTEN_AFTER_S
    except FileNotFoundError:
        return False


def this_writer() -> Writer:
    """The process that asks."""
    return Writer(_host(), os.getpid(), _began(os.getpid()) or 0)


@cache
def _host() -> str:
    namespace = Path("/proc/self/ns/pid")
    inside = f"-{str(namespace.readlink()).strip('pid:[]')}" if namespace.is_symlink() else ""
    return socket.gethostname().split(".")[0] + inside


def _began(pid: int) -> int | None:
    """When a process began, so that a number that is given again is not taken for it; 0 when it has ended and waits to be
    fetched by its parent, None where the system does not say.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return 0 if fields[0] in "ZX" else int(fields[19])
    except (OSError, ValueError, IndexError):
        return None


def _alive(pid: int) -> bool:
    """Whether a process of this machine runs."""
    if pid == os.getpid():
        return True
    if os.name == "nt":
        import ctypes

        handle = ctypes.windll.kernel32.OpenProcess(0x1000, False, pid)  # type: ignore[attr-defined]
        if handle:
            ctypes.windll.kernel32.CloseHandle(handle)  # type: ignore[attr-defined]
        return bool(handle)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
