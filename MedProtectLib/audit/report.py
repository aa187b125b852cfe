"""What an audit leaves for people: tables as Markdown, two plots, one HTML page; all made from the rows' file alone."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from MedProtectLib.audit import plots, tables
from MedProtectLib.audit.releases import PROFILE, RELEASED
from MedProtectLib.audit.rows import Row, RowFile
from MedProtectLib.errors import MedProtectError
from MedProtectLib.report.pages import page_of

RULES = (
    "A row is void where its clean or its noise twin had not reached 95 % of the plateau after 60 % of the steps, or learned nothing.",
    "DSC is 0 where the prediction is empty and the truth is not; HD95 is then the diagonal of the image.",
    "PSNR is measured on the files as stored, over the range of the intensity window.",
    "Best epoch: the best of ten looks at clean validation cases, which an attacker may or may not have.",
    "Against noise: the score minus that of random noise of equal bound in the same cases, with its 95 % interval over test cases and "
    "seeds; of one seed over test cases alone.",
)

FAILED = 0.5


@dataclass(frozen=True)
class Written:
    """What was found: ``text`` for a terminal, ``summary`` for a program, ``cautions``: how far it can be trusted."""

    text: str
    summary: list[dict[str, Any]]
    cautions: list[str]


def write_report(rows_file: Path, output: Path) -> Written:
    """Write audit.md, audit.html, overview.png, frontier.png and bars.png into a folder.

    Raises:
        MedProtectError: there are no rows.
    """
    rows = list(RowFile(rows_file).rows.values())
    if not rows:
        raise MedProtectError(f"{rows_file}: holds no rows. Run 'medprotect audit' first.")
    groups = tables.groups_of(rows)
    cautions = tables.cautions(rows, groups)
    pictures = {"overview.png": plots.overview(groups), "frontier.png": plots.frontier(groups), "bars.png": plots.bars(groups)}
    contents = pictures | {
        "audit.md": _markdown(groups, cautions, rows, rows_file).encode(),
        "audit.html": _html(groups, cautions, pictures, rows).encode(),
    }
    output.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        part = output / f".{name}.part"
        part.write_bytes(content)
        part.replace(output / name)
    return Written(_text(groups), [_as_json(group, line) for group in groups for line in group.lines], cautions)


def _markdown(groups: Sequence[tables.Group], cautions: Sequence[str], rows: Sequence[Row], rows_file: Path) -> str:
    parts = [f"Made from `{rows_file.name}` by `medprotect audit`.", *(f"- {line}" for line in (*_rules(rows), *cautions)), ""]
    return "\n".join(parts) + "\n" + tables.markdown(groups)


def _html(groups: Sequence[tables.Group], cautions: Sequence[str], pictures: dict[str, bytes], rows: Sequence[Row]) -> str:
    return page_of("MedProtectLib.audit", "audit.html").render(
        datasets=sorted({row["dataset"] for row in rows}),
        count=len(rows),
        verdicts=[verdict for group in groups if (verdict := _verdict(group))],
        cautions=cautions,
        rules=_rules(rows),
        overview=_source(pictures["overview.png"]),
        frontier=_source(pictures["frontier.png"]),
        bars=_source(pictures["bars.png"]),
        tables=[(group.title, tables.headings(group), [tables.cells(line, group) for line in group.lines]) for group in groups],
    )


def _rules(rows: Sequence[Row]) -> tuple[str, ...]:
    """How the rows were made. What a release or a profile was fitted on, rows may not know."""
    seen = (row.get("seen_cases", None if row["method"].startswith((PROFILE, RELEASED)) else 0) for row in rows)
    clean = "Test cases are clean, on their native grid, and nothing was fitted on them."
    return (clean if all(number == 0 for number in seen) else "Test cases are clean and on their native grid.", *RULES)


def _verdict(group: tables.Group) -> str:
    """What the strongest method of a table does, in one sentence.

    A victim fails that keeps less than half of what the clean twin has learned beyond guessing (balanced accuracy) or nothing (DSC).
    """
    compared = [line for line in group.lines if line.interval is not None and line.score is not None]
    methods = [line for line in compared if line.share == 1.0 and not tables.is_control(line.method)]
    if not methods:
        return ""
    best = min(methods, key=lambda line: line.score.mean if line.score else 1.0)
    assert best.score is not None
    assert best.interval is not None
    change, width = best.interval
    worse, better = change + width < 0, change - width > 0
    clean = best.mean("balanced_accuracy_clean_twin" if group.classification else "dsc_clean_twin")
    guessed = (best.mean("chance") or 0.0) if group.classification else 0.0
    failed = clean is not None and best.score.mean - guessed < FAILED * (clean - guessed)
    told = "fails" if worse and failed else "does worse" if worse else "learns more than from" if better else "learns as from"
    seeds = len({row["seed"] for row in best.counted})
    trainings = f"{seeds} training{'s' * (seeds > 1)}" + (f", the lowest of {len(methods)} methods" if len(methods) > 1 else "")
    return (
        f"{group.title}: trained on data protected by {best.method} the victim {told}{'' if worse else ' random noise'}: "
        f"{group.score_name} {best.score.mean:.1%}, clean {'-' if clean is None else f'{clean:.1%}'}, against noise "
        f"{tables.points(change)} ± {100 * width:.1f} points ({trainings})."
    )


def _text(groups: Sequence[tables.Group]) -> str:
    lines = []
    for group in groups:
        lines.append(group.title)
        for line in group.lines:
            cell = dict(zip(tables.COLUMNS, tables.cells(line, group), strict=True))
            score, psnr = cell["{score}, last epoch"], cell["PSNR, mean (min), dB"]
            share = "" if line.share == 1.0 else f" {cell['share']}"
            void = f", void: {cell['void']}" if cell["void"] else ""
            lines.append(
                f"  {line.method + share:<22} {group.score_name} {score:<14} best epoch {cell['best epoch']:<14} "
                f"PSNR {psnr:<16} against noise {cell['against noise (95 %)']}{void}"
            )
    return "\n".join(lines)


def _as_json(group: tables.Group, line: tables.Line) -> dict[str, Any]:
    return {
        "dataset": group.dataset,
        "victim": group.victim,
        "regime": group.regime,
        "epsilon": line.epsilon,
        "method": line.method,
        "share": line.share,
        "score": None if line.score is None else line.score.mean,
        "score_name": group.score_name,
        "seeds": len({row["seed"] for row in line.rows}),
        "psnr_db": line.psnr,
        "void_rows": len(line.rows) - len(line.counted),
        "against_noise": None if line.interval is None else list(line.interval),
    }


def _source(png: bytes) -> str:
    return f"data:image/png;base64,{b64encode(png).decode('ascii')}"
