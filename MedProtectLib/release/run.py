"""A release from start to end: open or resume, list the cases, run them, finish."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from MedProtectLib.progress import Report, Stage, ignore
from MedProtectLib.release.case import ReleaseCase
from MedProtectLib.release.claims import holders
from MedProtectLib.release.finish import all_settled, finish
from MedProtectLib.release.inventory import list_cases, listed
from MedProtectLib.release.ledger import BUSY, DIED, ENDED, QUARANTINED, RUN, Ledger
from MedProtectLib.release.opening import opened
from MedProtectLib.release.process import quarantine
from MedProtectLib.release.roots import SUMMARY
from MedProtectLib.release.runners import Content, Job, Result, Run, run_here
from MedProtectLib.release.runners.apart import run_apart
from MedProtectLib.release.runners.local import LocalRunner, Task
from MedProtectLib.release.runners.memory import available, needed
from MedProtectLib.release.runners.shard import Shard
from MedProtectLib.release.settings import Settings
from MedProtectLib.release.summary import Summary
from MedProtectLib.release.sweep import sweep

BUSY_PAUSE_S = 2.0
T = TypeVar("T")


@dataclass(frozen=True)
class Workforce:
    """Who does it: ``jobs`` spawned processes (0: this process alone), within ``memory`` bytes (None: what is free), for one
    ``shard`` of the cases (None: all), or the workers of the Dask scheduler at ``dask``.
    """

    jobs: int = 1
    memory: int | None = None
    shard: Shard | None = None
    dask: str | None = None
    dask_tls: tuple[str, str, str] | None = None


def release(settings: Settings, job: Job, workforce: Workforce = Workforce(), resume: bool = False, report: Report = ignore) -> Summary:
    """Protect a dataset.

    Args:
        settings: what it is made with.
        job: the key of the vault and the function of a case; its manifest is that of the settings.
        workforce: who does it.
        resume: go on with a release that was interrupted, or start it.
        report: told of every case.

    Raises:
        MedProtectError: the roots, the dataset or the profile cannot be used; another release is in the roots.
        OSError: the private root cannot be written.
    """
    began, roots = time.monotonic(), settings.roots
    apart = _at_once if workforce.jobs == 0 else run_apart
    ledger, share = Ledger(roots.ledger), workforce.shard or Shard(1, 1)
    with opened(settings, resume, job.key):
        summary = Summary(apart(list_cases, settings))
        ledger.append(RUN, cases=summary.inventory.cases, shard=share.as_json(), jobs=workforce.jobs, parameters=settings.parameters())
    stage = Stage("release", len(range(share.index - 1, summary.inventory.cases, share.count)), report)
    runner = _runner(settings, workforce, ledger)
    (roots.output / SUMMARY).unlink(missing_ok=True)
    try:
        sweep(roots)
        with closing(_settled_by(runner, replace(job, manifest=str(roots.manifest)), share(listed(roots)))) as results:
            for result in results:
                summary.add(result)
                stage.at(sum(summary.counts.values()), f"{result['case']}: {result['status']}")
                if summary.stopped:
                    break
    finally:
        sweep(roots)
    with suppress(OSError):
        ledger.append(ENDED, counts=dict(summary.counts), stopped=summary.stopped)
    if not summary.stopped and not holders(roots.claims) and (workforce.shard is None or all_settled(roots)):
        apart(finish, settings)
        summary.finished = True
    summary.seconds = time.monotonic() - began
    return summary


def _at_once(function: Callable[[Settings], T], settings: Settings) -> T:
    return function(settings)


def _settled_by(runner: Run, job: Job, cases: Iterable[Content]) -> Generator[Result, None, None]:
    """Results of all cases. Those that another run is working on come again at the end, until it is done with them."""
    while True:
        kept: dict[str, Content] = {}
        busy: list[Content] = []
        for result in runner(job, _remembered(cases, kept)):
            content = kept.pop(result["case"])
            if result["status"] == BUSY:
                busy.append(content)
            else:
                yield result
        if not busy:
            return
        time.sleep(BUSY_PAUSE_S)
        cases = busy


def _remembered(cases: Iterable[Content], kept: dict[str, Content]) -> Iterator[Content]:
    for content in cases:
        kept[content["name"]] = content
        yield content


def _runner(settings: Settings, workforce: Workforce, ledger: Ledger) -> Run:
    roots = settings.roots

    def lost(content: Content, reason: str) -> None:
        quarantine(roots, ReleaseCase.from_json(content), reason, 0)
        ledger.append(QUARANTINED, case=content["name"], reason=reason)

    def died(task: Task, exit_code: int | None) -> None:
        ledger.append(DIED, case=task.content["name"], attempt=task.attempt, exit_code=exit_code)

    if workforce.dask is not None:
        from MedProtectLib.release.runners.dask import DaskRunner

        return DaskRunner(workforce.dask, max(1, workforce.jobs), workforce.dask_tls, lost)
    if workforce.jobs == 0:
        return run_here
    memory = available() if workforce.memory is None else workforce.memory
    return LocalRunner(workforce.jobs, memory, partial(needed, settings.root, settings.whole_image), died, lost)
