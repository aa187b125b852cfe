"""Tables from rows, and from nothing else: means over seeds, their spread, and how sure a difference is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
from scipy import stats

from MedProtectLib.audit.controls import CONTROLS, Noise
from MedProtectLib.audit.releases import CLEAN, EQUAL_PSNR, told_of_seen
from MedProtectLib.audit.rows import CLEAN_PART, Row, run_of

FEWEST_SEEDS, FEWEST_TEST_CASES = 3, 30
EQUAL_WITHIN_DB = 0.5
TWO_SIDED_95 = 0.975
COLUMNS = (
    "method",
    "share",
    "PSNR, mean (min), dB",
    "PSNR of the regions, dB",
    "{score}, last epoch",
    "best epoch",
    "IoU",
    "HD95",
    "clean twin",
    "noise twin",
    "clean part alone",
    "against noise (95 %)",
    "protected cases",
    "seeds",
    "void",
)


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation of values over seeds; the deviation of one value is NaN."""

    mean: float
    deviation: float
    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Spread | None:
        """None where there is no value."""
        known = tuple(float(value) for value in values if value is not None)
        if not known:
            return None
        return cls(float(np.mean(known)), float(np.std(known, ddof=1)) if len(known) > 1 else math.nan, known)


@dataclass(frozen=True)
class Line:
    """One method at one bound and share, over its seeds. ``difference``: score minus that of the noise twin, and half the width
    of its 95 % interval over test cases and seeds, NaN where it is not known.
    """

    method: str
    epsilon: float
    share: float
    rows: Sequence[Row] = field(repr=False)
    score: Spread | None
    best: Spread | None
    difference: tuple[float, float] | None

    def mean(self, name: str) -> float | None:
        """The mean of an entry over the rows that have it."""
        spread = Spread.of(row.get(name) for row in self.counted)
        return None if spread is None else spread.mean

    @property
    def interval(self) -> tuple[float, float] | None:
        """The difference where its interval is known."""
        return None if self.difference is None or math.isnan(self.difference[1]) else self.difference

    @property
    def counted(self) -> list[Row]:
        return [row for row in self.rows if not row["void"]]

    @property
    def psnr(self) -> float | None:
        return Spread.of(row["psnr_db"] for row in self.rows).mean if self.rows[0]["psnr_db"] is not None else None  # type: ignore[union-attr]


@dataclass(frozen=True)
class Group:
    """What stands in one table: the lines of one data set, victim, regime, number of steps, bound and PSNR target."""

    dataset: str
    victim: str
    regime: str
    steps: int
    epsilon: float
    target_psnr_db: float | None
    lines: Sequence[Line]

    @property
    def classification(self) -> bool:
        return self.lines[0].rows[0]["dsc"] is None and "accuracy" in self.lines[0].rows[0]

    @property
    def score_name(self) -> str:
        return "balanced accuracy" if self.classification else "DSC"

    @property
    def title(self) -> str:
        target = "" if self.target_psnr_db is None else f", PSNR at least {self.target_psnr_db:g} dB"
        bound = f"bound {self.epsilon * 255:.3g}/255" if self.epsilon else "clean data only"
        return f"{self.dataset}, {self.victim}, training '{self.regime}', {self.steps} steps, {bound}{target}"


def score_of(row: Row) -> float | None:
    """DSC, or balanced accuracy for classification."""
    value: float | None = row["dsc"] if row["dsc"] is not None else row.get("balanced_accuracy")
    return value


def groups_of(rows: Iterable[Row]) -> list[Group]:
    """The tables that the rows make. Clean rows, which have no bound, stand in every table of their data set, victim and regime,
    or in one of their own.
    """
    rows = _with_classes(list(rows))
    by_key = {row["key"]: row for row in rows}
    groups = []
    bounded = {_place(row)[:4] for row in rows if row["epsilon"] > 0}
    shown = [row for row in rows if row["epsilon"] > 0 or _place(row)[:4] not in bounded]
    for place in dict.fromkeys(_place(row) for row in shown if row["method"] != CLEAN_PART):
        dataset, victim, regime, steps, epsilon, target = place
        mine = [row for row in rows if _place(row)[:4] == place[:4] and row["method"] != CLEAN_PART]
        mine = [row for row in mine if row["epsilon"] == 0 or _place(row) == place]
        mine.sort(key=lambda row: (_rank(row["method"]), row["method"], -row["share"]))
        lines = [_line(list(part), by_key) for _, part in groupby(mine, key=lambda row: (row["method"], row["share"]))]
        groups.append(Group(dataset, victim, regime, steps, epsilon, target, lines))
    return groups


def _with_classes(rows: Sequence[Row]) -> list[Row]:
    """Rows of classification name the classes of their test cases; older ones do not, and borrow them from a row of the same data."""
    known = {row["data_sha256"]: row["test_classes"] for row in rows if row.get("test_classes")}
    return [{**row, "test_classes": known.get(row["data_sha256"])} for row in rows]


def _place(row: Row) -> tuple[str, str, str, int, float, float | None]:
    return row["dataset"], row["victim"], row["regime"], row["steps"], row["epsilon"], row["target_psnr_db"]


def is_control(method: str) -> bool:
    """Whether it is there only to be compared with."""
    return method in CONTROLS or method.startswith(EQUAL_PSNR)


def _rank(method: str) -> int:
    """Clean first, then controls, then methods."""
    return 0 if method == CLEAN else 1 if is_control(method) else 2


def _line(rows: list[Row], by_key: dict[str, Row]) -> Line:
    counted = [row for row in rows if not row["void"]]
    best = [row.get("dsc_best_epoch", row.get("balanced_accuracy_best_epoch")) for row in counted]
    return Line(
        rows[0]["method"],
        rows[0]["epsilon"],
        rows[0]["share"],
        rows,
        Spread.of(map(score_of, counted)),
        Spread.of(best),
        _difference(counted, by_key),
    )


def _difference(rows: Sequence[Row], by_key: dict[str, Row]) -> tuple[float, float] | None:
    """Paired over test cases: mean difference to the noise twin, half the width of its 95 % interval. None where the rows have no
    test cases in common.

    A difference of balanced accuracies is a mean over classes of means over their cases, and so is its variance a sum over classes.
    """
    pairs = [(row, twin) for row in rows if (twin := by_key.get(run_of(row).noise_twin.key)) is not None and twin is not row]
    if len({tuple(row["test_cases"]) for pair in pairs for row in pair}) != 1:
        return None
    if pairs[0][0]["dsc"] is None and not pairs[0][0]["test_classes"]:
        return float(np.mean([own["balanced_accuracy"] - twin["balanced_accuracy"] for own, twin in pairs])), math.nan
    differences = np.array([_by_case(own) - _by_case(twin) for own, twin in pairs])
    counted = ~np.isnan(differences).any(axis=0)
    if not counted.any():
        return None
    classes = np.array(pairs[0][0]["test_classes"] or [0] * len(counted))
    parts = [differences[:, counted & (classes == each)] for each in np.unique(classes[counted])]
    of_seeds = np.mean([part.mean(axis=1) for part in parts], axis=0)
    terms = [(_variance_of_mean(part.mean(axis=0)) / len(parts) ** 2, part.shape[1] - 1) for part in parts]
    if len(of_seeds) > 1:
        terms.append((_variance_of_mean(of_seeds), len(of_seeds) - 1))
    return float(of_seeds.mean()), _half_width(terms)


def _variance_of_mean(values: np.ndarray) -> float:
    return float(values.var(ddof=1) / len(values)) if len(values) > 1 else math.nan


def _half_width(terms: Sequence[tuple[float, int]]) -> float:
    """Of a 95 % interval by Student's t: the variance is the sum of terms (variance, degrees of freedom), its degrees of freedom
    those of Welch and Satterthwaite.
    """
    variance = sum(term for term, _ in terms)
    if variance == 0 or math.isnan(variance):  # equal differences everywhere say nothing of how much others would differ
        return math.nan
    degrees = variance**2 / sum(term**2 / freedom for term, freedom in terms)
    return float(stats.t.ppf(TWO_SIDED_95, degrees)) * math.sqrt(variance)


def _by_case(row: Row) -> np.ndarray:
    if row["dsc"] is None and "hits" in row:
        return np.array([float(hit) for hit in row["hits"]])
    values = np.array([[math.nan if value is None else value for value in case] for case in row["dsc_cases"]], np.float64)
    counted = ~np.isnan(values)
    return np.where(counted.any(axis=1), np.nansum(values, axis=1) / np.maximum(counted.sum(axis=1), 1), math.nan)


def cells(line: Line, group: Group) -> list[str]:
    """One value for each of ``COLUMNS``."""
    twin = "balanced_accuracy" if group.classification else "dsc"
    voids = [row for row in line.rows if row["void"]]
    return [
        line.method,
        f"{line.share:.0%}",
        "-" if line.psnr is None else f"{line.psnr:.2f} ({min(row['psnr_min_db'] for row in line.rows):.2f})",
        _number(line.mean("psnr_roi_db"), "{:.2f}"),
        _percent(line.score) if line.counted else f"void ({_percent(Spread.of(map(score_of, voids)))})",
        _percent(line.best),
        _number(line.mean("iou"), "{:.1%}"),
        _number(line.mean("hd95"), "{:.1f}"),
        _number(line.mean(f"{twin}_clean_twin"), "{:.1%}"),
        _number(line.mean(f"{twin}_noise_twin"), "{:.1%}"),
        _number(line.mean(f"{twin}_clean_part"), "{:.1%}"),
        "-" if line.difference is None else _against_noise(*line.difference),
        _cases(line.rows[0]),
        str(len({row["seed"] for row in line.counted})),
        f"{len(voids)}: {voids[0]['void_reason']}" if voids else "",
    ]


def _cases(row: Row) -> str:
    """How many hold a change, and how many were refused one."""
    refused = row.get("refused_cases") or 0
    return f"{row.get('protected_cases') or '-'}" + (f", {refused} refused" if refused else "")


def headings(group: Group) -> list[str]:
    """The columns' names."""
    return [column.format(score=group.score_name) for column in COLUMNS]


def markdown(groups: Sequence[Group]) -> str:
    """All tables as Markdown."""
    return "\n".join(line for group in groups for line in _markdown_lines(group))


def _markdown_lines(group: Group) -> Iterator[str]:
    names = headings(group)
    yield f"### {group.title}\n"
    yield "| " + " | ".join(names) + " |"
    yield "|" + "---|" * len(names)
    for line in group.lines:
        yield "| " + " | ".join(cells(line, group)) + " |"
    yield ""


def cautions(rows: Sequence[Row], groups: Sequence[Group]) -> list[str]:
    """How far the answer can be trusted."""
    said = []
    seeds = min((len({row["seed"] for row in line.rows}) for group in groups for line in group.lines), default=0)
    tests = min((len(row["test_cases"]) for row in rows), default=0)
    widths = [100 * line.interval[1] for group in groups for line in group.lines if line.interval is not None]
    if seeds < FEWEST_SEEDS:
        said.append(f"only {seeds} seed{'s' * (seeds != 1)} in part of the rows: how much a score varies between trainings is not known.")
    if tests < FEWEST_TEST_CASES:
        said.append(f"only {tests} test cases: repeat the audit with more before relying on it.")
    if widths:
        said.append(f"differences to random noise have 95 % intervals of up to ± {max(widths):.1f} points: smaller ones may be chance.")
    said += [line for group in groups for line in _louder(group)]
    said += [told_of_seen(method, seen) for method, seen in {row["method"]: row.get("seen_cases") for row in rows}.items() if seen]
    for method, row in {row["method"]: row for row in rows if row.get("refused_cases")}.items():
        said.append(
            f"{method}: {row['refused_cases']} training cases hold no change and were trained on as originals. "
            f"{row.get('refused_reason', '')}".rstrip()
        )
    void = sum(row["void"] for row in rows)
    if void:
        said.append(f"{void} of {len(rows)} rows are void: their twins were still learning. Give more --steps.")
    return said


def _louder(group: Group) -> Iterator[str]:
    """Methods of a table that are no match for their noise."""
    psnr = {line.method: line.psnr for line in group.lines if line.share == 1.0 and line.psnr is not None}
    for method, own in psnr.items():
        equal = method.startswith(EQUAL_PSNR)
        other = method.removeprefix(EQUAL_PSNR) if equal else Noise.name
        louder = psnr.get(other, own) - own
        if (equal and abs(louder) > EQUAL_WITHIN_DB) or (not is_control(method) and louder > EQUAL_WITHIN_DB):
            advice = "" if equal else f" Compare it with {EQUAL_PSNR}{method}."
            yield f"{group.title}: {method} has {own:.1f} dB and {other} {own + louder:.1f}, so that they differ in strength too.{advice}"


def points(difference: float) -> str:
    """A difference in percentage points, with its sign and no minus before a zero."""
    return f"{round(100 * difference, 1) + 0.0:+.1f}"


def _against_noise(difference: float, width: float) -> str:
    return f"{points(difference)}, no interval" if math.isnan(width) else f"{points(difference)} ± {100 * width:.1f}"


def _percent(spread: Spread | None) -> str:
    if spread is None:
        return "-"
    return f"{spread.mean:.1%}" if math.isnan(spread.deviation) else f"{spread.mean:.1%} ± {100 * spread.deviation:.1f}"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
