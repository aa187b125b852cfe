"""The loop: a child process reads one damaged input after the other, and this one watches what it costs.

A finding is anything but success or a MedProtectError of one line: another exception, a crash, more than ``MOST_SECONDS`` of processor
time, more memory than ``MOST_MEMORY`` (the child cannot get it), a file outside the work folder, a patient's name in a message.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import resource
import shutil
import tempfile
import time
import traceback
import warnings
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType

import numpy as np
import psutil

from fuzz.targets import WORK, Target
from MedProtectLib.errors import MedProtectError

MOST_SECONDS = 5.0
MOST_MEMORY = 2 << 30
LONGEST_MESSAGE = 1500
MOST_WALL_SECONDS = 120.0
ACCEPTED, REFUSED, FOUND = "accepted", "refused", "found"
SECRETS = ("SENTINEL",)
OUT_OF_MEMORY = ("bad_alloc", "allocate memory")


@dataclass(frozen=True)
class Outcome:
    """What became of input ``number`` of a target."""

    target: str
    number: int
    kind: str
    detail: str = ""
    seconds: float = 0.0


def damaged_files(target: Target, name: str, number: int) -> dict[str, bytes]:
    """The files of input ``number`` of a target: the same whenever and wherever they are asked for."""
    return target.damaged(np.random.default_rng([zlib.crc32(name.encode()), number]))


class Loop:
    """A child process that reads inputs of the ``TARGETS`` of a module; it is started anew after a crash. A context manager."""

    def __init__(self, module: str = "fuzz.targets") -> None:
        self.module = module
        self._start()

    def run(self, target: str, numbers: range) -> Iterator[Outcome]:
        """The outcomes of some inputs of a target, in order."""
        for number in numbers:
            yield self._outcome(target, number)

    def _outcome(self, target: str, number: int) -> Outcome:
        self.pipe.send((target, number))
        process, began = psutil.Process(self.child.pid), time.monotonic()
        spent = _processor_seconds(process)
        while not self.pipe.poll(0.2):
            if not self.child.is_alive():
                return self._lost(target, number, f"the process died (exit code {self.child.exitcode})", began)
            used = _processor_seconds(process) - spent
            if used > 2 * MOST_SECONDS or time.monotonic() - began > MOST_WALL_SECONDS:
                return self._lost(target, number, f"still running after {used:.1f} s of processor time", began)
        try:
            kind, detail, seconds = self.pipe.recv()
        except EOFError:
            return self._lost(target, number, "the process died", began)
        if seconds > MOST_SECONDS:
            kind, detail = FOUND, f"{seconds:.1f} s of processor time ({kind}: {detail})"
        return Outcome(target, number, kind, detail, seconds)

    def _lost(self, target: str, number: int, detail: str, began: float) -> Outcome:
        self._stop()
        self._start()
        return Outcome(target, number, FOUND, detail, time.monotonic() - began)

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.child = context.Process(target=_work, args=(other, self.module), daemon=True)
        self.child.start()
        other.close()
        self.pipe.recv()

    def _stop(self) -> None:
        self.child.kill()
        self.child.join()
        self.pipe.close()

    def __enter__(self) -> Loop:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop()


def _processor_seconds(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


def _work(pipe: Connection, module: str) -> None:
    """The child: reads inputs until the pipe ends."""
    targets: dict[str, Target] = import_module(module).TARGETS
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    _load_everything(targets.values())
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libtiff talks there
    virtual = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (virtual + MOST_MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    pipe.send("ready")
    while True:
        name, number = pipe.recv()
        began = time.process_time()
        kind, detail = read_one(targets[name], name, number)
        pipe.send((kind, detail, time.process_time() - began))


def _load_everything(targets: Iterable[Target]) -> None:
    """Every reader once, so that what is measured are the inputs, not the libraries."""
    for target in targets:
        with tempfile.TemporaryDirectory() as folder:
            fill_folder(Path(folder, "in"), dict(target.files()))
            target.read(Path(folder, "in"))


def fill_folder(folder: Path, files: dict[str, bytes]) -> None:
    """Put files into a new folder, with the work folder that a reader may write into."""
    (folder / WORK).mkdir(parents=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def read_one(target: Target, name: str, number: int) -> tuple[str, str]:
    """What becomes of one input, read in this process."""
    outside = Path(tempfile.mkdtemp())
    folder = outside / "in"
    try:
        files = damaged_files(target, name, number)
        fill_folder(folder, files)
        kind, detail = _verdict(target, folder)
        allowed = {folder / name for name in files}
        strangers = [p for p in outside.rglob("*") if p.is_file() and p not in allowed and folder / WORK not in p.parents]
        if strangers:
            return FOUND, f"wrote {strangers[0].relative_to(outside)}"
        return kind, detail.replace(str(outside), "")
    finally:
        shutil.rmtree(outside, ignore_errors=True)


def _verdict(target: Target, folder: Path) -> tuple[str, str]:
    try:
        target.read(folder)
    except MedProtectError as error:
        message = str(error)
        wrong = not message.isprintable() or len(message) > LONGEST_MESSAGE or any(text in message for text in (*SECRETS, *OUT_OF_MEMORY))
        return (FOUND if wrong else REFUSED), message[: 2 * LONGEST_MESSAGE]
    except Exception:
        return FOUND, traceback.format_exc(limit=-8)
    return ACCEPTED, ""
