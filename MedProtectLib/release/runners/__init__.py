"""What calls the function of a case: this process, spawned processes, Dask. Each gives the results as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from MedProtectLib.release.process import process_case

if TYPE_CHECKING:
    from MedProtectLib.release.keys import Key

ATTEMPTS = 3
DIED = "its process died {attempts} times (out of memory, or a crash in reading it)."

Content = Mapping[str, Any]
Result = dict[str, Any]
Process = Callable[[str, Content, "Key | None", int], Result]
Run = Callable[["Job", Iterable[Content]], Iterator[Result]]


@dataclass(frozen=True)
class Job:
    """What every case is processed with. ``process`` is :func:`process_case`, or another function of that shape."""

    manifest: str
    key: Key | None = None
    process: Process = process_case


def run_here(job: Job, cases: Iterable[Content]) -> Iterator[Result]:
    """One case after the other in this process: nothing keeps a crash from ending the run."""
    for content in cases:
        yield job.process(job.manifest, content, job.key, 1)
