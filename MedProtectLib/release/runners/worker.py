"""A spawned process that takes cases from a pipe until it is closed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from MedProtectLib.release.runners import Job

READY = "ready"
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Processes that are started here compute with one thread."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def work(connection: Connection, job: Job) -> None:
    """Say that it has started; then answer every (case, attempt) with its result, or with the error that ends the whole run.

    The parent decides about an interrupt; a request to end removes what is not complete.
    """
    from MedProtectLib.errors import MedProtectError

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, interrupt)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError, KeyboardInterrupt):
        connection.send(READY)
        while (task := connection.recv()) is not None:
            content, attempt = task
            answer: Any
            try:
                answer = job.process(job.manifest, content, job.key, attempt)
            except MedProtectError as error:
                answer = error
            connection.send(answer)


def interrupt(signum: int, frame: Any) -> NoReturn:
    """End as by Ctrl-C, which removes what is not complete."""
    raise KeyboardInterrupt
