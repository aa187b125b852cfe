"""Work in pieces on all cores, with the same bytes for every thread count."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

from MedProtectLib.progress import Report, Stage

Piece = TypeVar("Piece")


def for_every_piece(work: Callable[[Piece], None], pieces: Sequence[Piece], report: Report, stage: str = "generate") -> None:
    """Do every piece in a worker of its own that computes with one thread.

    How torch splits one convolution among threads changes the last bits of its result, how pieces are split among workers
    does not. ``report`` is called in the calling thread after each piece; what it raises ends the run.
    """
    progress = Stage(stage, len(pieces), report)
    workers = torch.get_num_threads()
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    try:
        for done, _ in enumerate(pool.map(work, pieces), start=1):
            progress.at(done)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(workers)


@contextmanager
def one_thread(seed: int) -> Iterator[None]:
    """Torch with one thread and its own random state, so that what is fitted inside does not depend on the machine's load."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
