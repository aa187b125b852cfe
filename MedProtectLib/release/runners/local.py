"""Spawned processes on this machine, one thread each. A process that dies costs its case one attempt and nothing else."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from MedProtectLib.errors import MedProtectError
from MedProtectLib.release.ledger import QUARANTINED
from MedProtectLib.release.runners import ATTEMPTS, DIED, Content, Job, Result
from MedProtectLib.release.runners.worker import READY, one_thread_each, work

PATIENCE_S = 20.0


@dataclass(frozen=True)
class Task:
    """A case, which attempt it is, and the memory it is taken to need."""

    content: Content
    attempt: int
    needs: int


class Worker:
    """A process and what it works on."""

    def __init__(self, job: Job) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection: Connection
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, job), daemon=True)
        with one_thread_each():
            self.process.start()
        theirs.close()
        self.task: Task | None = None
        self.started = False

    def give(self, task: Task) -> None:
        """Hand over a task; a process that is gone is noticed when its answer is waited for."""
        self.task = task
        with suppress(OSError):
            self.connection.send((task.content, task.attempt))

    def answer(self) -> Any:
        """The answer to the task, READY when there is none yet, None when the process died over it."""
        try:
            answer = self.connection.recv()
            self.started = True
            return answer
        except (EOFError, OSError):
            return None

    def end(self) -> None:
        """Ask the process to end, and end it if it does not."""
        with suppress(OSError):
            self.connection.close()
        if self.task is not None:
            self.process.terminate()
        self.process.join(PATIENCE_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


@dataclass
class LocalRunner:
    """``jobs`` processes. ``needs`` estimates a case's memory in bytes, all running ones together stay within ``memory``; a case
    that needs more than that runs alone. ``died`` is told of a task whose process died, and its exit code; ``lost`` of the last one.
    """

    jobs: int
    memory: int
    needs: Callable[[Content], int]
    died: Callable[[Task, int | None], None]
    lost: Callable[[Content, str], None]

    def __call__(self, job: Job, cases: Iterable[Content]) -> Iterator[Result]:
        """The results as they come.

        Raises:
            MedProtectError: something that concerns every case.
        """
        waiting = (Task(content, 1, self.needs(content)) for content in cases)
        again: deque[Task] = deque()
        idle: list[Worker] = []
        busy: list[Worker] = []
        held: Task | None = None
        try:
            while True:
                while len(busy) < self.jobs:
                    held = held or (again.popleft() if again else next(waiting, None))
                    if held is None or not self._fits(held, busy):
                        break
                    worker = idle.pop() if idle else Worker(job)
                    worker.give(held)
                    busy.append(worker)
                    held = None
                if not busy:
                    return
                for worker in self._ready(busy):
                    task, answer = worker.task, worker.answer()
                    if answer == READY or task is None:
                        continue
                    busy.remove(worker)
                    if isinstance(answer, MedProtectError):
                        raise answer
                    if answer is None:
                        worker.end()
                        if not worker.started:
                            raise MedProtectError(
                                f"a worker process ended as it started (exit code {worker.process.exitcode}). Is there enough memory?"
                            )
                        self.died(task, worker.process.exitcode)
                        if task.attempt < ATTEMPTS:
                            again.append(Task(task.content, task.attempt + 1, self.memory))
                            continue
                        reason = DIED.format(attempts=ATTEMPTS)
                        self.lost(task.content, reason)
                        yield _lost(task, reason)
                    else:
                        worker.task = None
                        idle.append(worker)
                        yield answer
        finally:
            for worker in (*busy, *idle):
                worker.end()

    def _fits(self, task: Task, busy: list[Worker]) -> bool:
        used = sum(worker.task.needs for worker in busy if worker.task is not None)
        return not busy or used + task.needs <= self.memory

    @staticmethod
    def _ready(busy: list[Worker]) -> list[Worker]:
        """Workers with an answer, and those that died."""
        signs: dict[object, Worker] = {sign: worker for worker in busy for sign in (worker.connection, worker.process.sentinel)}
        return list(dict.fromkeys(signs[sign] for sign in wait([s for w in busy for s in (w.connection, w.process.sentinel)])))


def _lost(task: Task, reason: str) -> Result:
    return {"case": task.content["name"], "status": QUARANTINED, "reason": reason, "withheld": [], "stop": False, "seconds": 0.0}
