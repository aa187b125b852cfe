"""A function in a process of its own: the memory that it takes for very many names goes with it."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from MedProtectLib.errors import MedProtectError
from MedProtectLib.release.runners.worker import interrupt

T = TypeVar("T")


def run_apart(function: Callable[..., T], *arguments: Any) -> T:
    """What the function returns.

    Raises:
        MedProtectError: as the function does, or the process died. OSError: as the function does.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_call, args=(theirs, function, arguments), daemon=True)
    process.start()
    theirs.close()
    try:
        answer = ours.recv()
    except EOFError:
        process.join()
        raise MedProtectError(
            f"the process for the list of cases ended early (exit code {process.exitcode}). Is there enough memory?"
        ) from None
    finally:
        if process.is_alive():
            process.join(1)
            process.terminate()
        process.join()
        ours.close()
    if isinstance(answer, MedProtectError | OSError):
        raise answer
    result: T = answer
    return result


def _call(connection: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, interrupt)
    try:
        answer = function(*arguments)
    except (MedProtectError, OSError) as error:
        answer = error
    except KeyboardInterrupt:
        return
    connection.send(answer)
