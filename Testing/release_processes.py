"""Stand-ins for the function of a case, and how tests and benchmarks start, watch and kill a release."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil


def settled(content: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """The result of a case that went out."""
    return {"case": content["name"], "status": "ok", "reason": "", "withheld": [], "stop": False, "seconds": 0.0} | more


def noting(manifest: str, content: Mapping[str, Any], key: object, attempt: int) -> dict[str, Any]:
    """Write down when the case began and ended, in the folder that the manifest's place names."""
    began = time.monotonic()
    time.sleep(0.2)
    note = {
        "case": content["name"],
        "began": began,
        "ended": time.monotonic(),
        "pid": os.getpid(),
        "threads": os.environ["OMP_NUM_THREADS"],
    }
    (Path(manifest) / content["name"]).write_text(json.dumps(note))
    return settled(content)


def crashing(manifest: str, content: Mapping[str, Any], key: object, attempt: int) -> dict[str, Any]:
    """Die as by a segmentation fault: 'twice' in its first two attempts, 'always' in all."""
    if content["name"] == "always" or (content["name"] == "twice" and attempt < 3):
        os.kill(os.getpid(), signal.SIGKILL if os.name == "posix" else signal.SIGTERM)
    return settled(content, attempt=attempt)


def start(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    """``medprotect release`` in a process group of its own."""
    command = [sys.executable, "-m", "MedProtectLib", "release", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, start_new_session=True, cwd=Path(__file__).parents[1], **pipes, **options)


def running(private: Path) -> dict[str, int]:
    """Cases that the ledger shows as begun and not ended by a process that is alive, and that process."""
    found: dict[str, int] = {}
    for path in (private / "ledger").glob("*.jsonl"):
        current: tuple[str, int] | None = None
        for line in path.read_text().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if entry["event"] == "started":
                current = entry["case"], entry["pid"]
            elif current is not None and entry.get("case") == current[0]:
                current = None
        if current is not None and _computes(current[1]):
            found[current[0]] = current[1]
    return found


def _computes(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for_case(process: subprocess.Popen[str], private: Path, seconds: float = 120) -> dict[str, int]:
    """Wait until the ledger shows a case at work; empty when the release ended before."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and process.poll() is None:
        if at_work := running(private):
            return at_work
        time.sleep(0.005)
    return {}


def kill_group(process: subprocess.Popen[str], how: int = signal.SIGKILL) -> None:
    """Send a signal to a process and everything that it started."""
    os.killpg(process.pid, how)
