"""One finished training run is one JSON line. Tables and plots are made from such lines only.

The rules of a row: its clean twin and its noise twin (same data, victim, regime, seed and steps, trained on the originals and on
random noise of equal epsilon in the same cases) must have reached 95 % of their plateau within the first 60 % of the steps, as their
scores on the clean validation cases tell, and be at least 0.1 better than a victim that has learned nothing. Otherwise the row is
void, with the reason in it, and no mean counts it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from MedProtectLib.audit.controls import Noise
from MedProtectLib.audit.releases import CLEAN
from MedProtectLib.errors import MedProtectError

PLATEAU, EARLY, LEARNED = 0.95, 0.6, 0.1
CLEAN_PART = "clean_part"
FIRST = b'{"key"'

Row = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One training run. ``share``: part of the training cases that is protected. The method ``clean_part`` trains on the
    other cases alone.
    """

    dataset: str
    victim: str
    regime: str
    method: str
    seed: int
    steps: int
    epsilon: float
    target_psnr_db: float | None = None
    share: float = 1.0

    @property
    def key(self) -> str:
        """Names the run among rows."""
        target = "" if self.target_psnr_db is None else f"@{self.target_psnr_db:g}dB"
        return (
            f"{self.dataset}/{self.victim}/{self.regime}/{self.method}/{self.epsilon * 255:.4g}{target}/"
            f"share{self.share:g}/steps{self.steps}/seed{self.seed}"
        )

    @property
    def release_key(self) -> tuple[object, ...]:
        """Names the release that it trains on, the whole of it or a part."""
        return self.dataset, self.method, self.epsilon, self.target_psnr_db

    @property
    def clean_twin(self) -> Run:
        """The same on the originals; nothing depends on epsilon there."""
        return replace(self, method=CLEAN, share=1.0, epsilon=0.0, target_psnr_db=None)

    @property
    def noise_twin(self) -> Run:
        """The same on random noise of equal epsilon in the same cases."""
        return replace(self, method=Noise.name)

    @property
    def clean_part(self) -> Run | None:
        """The same on the cases that are not protected, alone; None where all are."""
        if self.share >= 1.0:
            return None
        return replace(self, method=CLEAN_PART, epsilon=0.0, target_psnr_db=None)

    @property
    def needs(self) -> tuple[Run, ...]:
        """The runs that its row is compared with, in the order in which they are trained."""
        if self.method in (CLEAN, CLEAN_PART):
            return ()
        before = (self.clean_twin,) if self.clean_part is None else (self.clean_twin, self.clean_part)
        return before if self.method == Noise.name else (*before, self.noise_twin)


def run_of(row: Row) -> Run:
    """The run that a row tells of."""
    return Run(**{each.name: row[each.name] for each in fields(Run)})


def compared(row: Row, rows: Mapping[str, Row]) -> dict[str, Any]:
    """What of a row follows from others, given by their keys: the scores of those that it is compared with, and whether it counts."""
    run = run_of(row)
    twins = {need: rows[need.key] for need in run.needs if need.key in rows}
    said: dict[str, Any] = {}
    for name, twin in (("clean_twin", run.clean_twin), ("noise_twin", run.noise_twin), ("clean_part", run.clean_part)):
        there = {} if twin is None else twins.get(twin, {})
        said |= {f"{measure}_{name}": there.get(measure) for measure in ("dsc", "balanced_accuracy")}
    own = [row] if run.method in (CLEAN, Noise.name) else []
    reason = void_reason([*own, *(twin for twin in twins.values() if twin["method"] != CLEAN_PART)])
    return {**said, "void_reason": reason, "void": bool(reason)}


def reached_plateau(curve: Sequence[Sequence[float]], chance: float = 0.0) -> bool:
    """Whether 95 % of the best score of the curve ((step, score), ...) was there after 60 % of the steps.

    Scores are counted from ``chance``, what a victim scores that has learned nothing; it must have learned something.
    """
    steps = curve[-1][0]
    best = max(score for _, score in curve) - chance
    early = max((score for step, score in curve if step <= EARLY * steps), default=chance) - chance
    return best >= LEARNED and early >= PLATEAU * best


def void_reason(twins: Sequence[Row]) -> str:
    """Why a row with these twins does not count; '' when it does."""
    late = [row["method"] for row in twins if not reached_plateau(row["curve"], row["chance"])]
    names = " and ".join("the clean twin" if method == CLEAN else "the noise twin" for method in late)
    return f"{names} had not reached {PLATEAU:.0%} of the plateau after {EARLY:.0%} of the steps" if late else ""


class RowFile:
    """Rows on disk, one JSON line each, in the order in which they were finished. Several processes may append to one file.

    Raises:
        MedProtectError: the file is no file of rows, or the disk is full.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, Row] = {row["key"]: row for row in read_rows(path)}

    def __contains__(self, run: Run) -> bool:
        return run.key in self.rows

    def __getitem__(self, run: Run) -> Row:
        return self.rows[run.key]

    def append(self, row: Row) -> None:
        """Add a row, on disk before this returns."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            size = os.fstat(file).st_size
            torn = size > 0 and _last_byte(self.path) != b"\n"
            line = (("\n" if torn else "") + json.dumps(row) + "\n").encode()
            if os.write(file, line) < len(line):
                raise MedProtectError(f"{self.path}: a row could not be written whole. Make room on the disk and go on with --resume.")
            os.fsync(file)
        finally:
            os.close(file)
        self.rows[row["key"]] = row


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a file; none where it does not exist. A line that a dying process tore off is passed over.

    Raises:
        MedProtectError: the file is no file of rows.
    """
    if not path.exists():
        return
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines):
        try:
            row = json.loads(line) if line.strip() else None
        except ValueError:
            row = None
        if isinstance(row, dict) and "key" in row:
            missing = [each.name for each in fields(Run) if each.name not in row]
            if missing:
                raise MedProtectError(f"{path}, line {number + 1}: a row without '{missing[0]}'. Take the line out.")
            yield row
        elif number == 0 and line[: len(FIRST)] != FIRST[: len(line)]:
            raise MedProtectError(f"{path}: not a file of audit rows. Choose another file.")


def _last_byte(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1)
