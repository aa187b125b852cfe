"""Pictures of the tables: the frontier of score against PSNR, bars of the scores, and all trainings at a glance."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from MedProtectLib.audit.controls import CONTROLS
from MedProtectLib.audit.releases import CLEAN
from MedProtectLib.audit.tables import Group, Line
from MedProtectLib.methods import METHODS

SHIPPED = (*CONTROLS, *METHODS)
COLOURS = (
    *("#0072b2", "#d55e00", "#cc79a7", "#8f8bd8", "#7a2d8f", "#8c564b", "#009e73", "#808000", "#e69f00", "#c2101c"),
    *("#000000", "#56b4e9", "#ff5fbf", "#7fc200", "#f4a58a", "#00b8a9", "#2a2aff", "#c9a227", "#00562f", "#a9a9a9"),
)
MARKERS = "osD^v<*XhdP>"
INK, QUIET, PANEL = "#1c2733", "#5d6b79", (5.2, 3.9)
DPI, NARROWEST = 110, 4.0
WIDE, ROW, AROUND_ROWS = 8.0, 0.32, 0.9
LEGEND_ENTRY, LEGEND_LINE = 1.4, 0.22  # inches


def frontier(groups: Sequence[Group]) -> bytes:
    """PNG: clean-test score against whole-image PSNR, a panel per data set, victim, regime and PSNR target, a curve per method over its
    bounds.

    Without the panels that would hold clean data alone.
    """
    panels = {title: members for title, members in _panels(groups).items() if _points(_lines(members))} or _panels(groups[:1])
    figure, axes = _figure(len(panels))
    looks = _looks(groups)
    for axis, (title, members) in zip(axes, panels.items(), strict=True):
        lines = _lines(members)
        for method, (colour, marker) in looks.items():
            points = sorted(_points([line for line in lines if line.method == method]))
            if points:
                psnr, mean, low, high = np.array(points).T
                axis.errorbar(psnr, mean, (mean - low, high - mean), color=colour, marker=marker, label=method, capsize=2, linewidth=1.4)
        if axis.has_data():
            _clean_level(axis, lines)
        _dress(axis, title, f"clean-test {members[0].score_name}, %")
        _widen(axis, [line.psnr for line in lines if line.psnr is not None])
        axis.set_xlabel("PSNR, whole image, dB")
    _legend(figure, axes)
    return _png(figure)


def bars(groups: Sequence[Group]) -> bytes:
    """PNG: clean-test score by method, a panel per table with a bound, a dot per seed."""
    groups = [group for group in groups if group.epsilon > 0] or groups
    figure, axes = _figure(len(groups))
    for axis, group in zip(axes, groups, strict=True):
        lines = [line for line in group.lines if line.score is not None]
        _clean_level(axis, lines)
        for place, line in enumerate(lines):
            assert line.score is not None
            axis.bar(place, 100 * line.score.mean, 0.7, color=QUIET if line.method == CLEAN else COLOURS[0], alpha=0.75)
            axis.plot([place] * len(line.score.values), 100 * np.array(line.score.values), "o", color=INK, markersize=3.5)
        names = [line.method if line.share == 1.0 else f"{line.method} {line.share:.0%}" for line in lines]
        axis.set_xticks(range(len(lines)), names, rotation=45, ha="right", fontsize=8)
        _dress(axis, _title(group, bound=True), f"clean-test {group.score_name}, %")
    figure.tight_layout()
    return _png(figure)


def overview(groups: Sequence[Group]) -> bytes:
    """PNG: clean-test score of every method in every training, a panel per data set and victim, a line from lowest to highest seed."""
    panels: dict[str, list[Group]] = {}
    for group in groups:
        if any(line.score is not None and line.share == 1.0 and line.method != CLEAN for line in group.lines):
            panels.setdefault(f"{group.dataset}, {group.victim}", []).append(group)
    heights = [ROW * len(members) + AROUND_ROWS for members in panels.values()] or [AROUND_ROWS]
    figure = Figure((WIDE, sum(heights)), dpi=DPI)
    axes = figure.subplots(len(heights), 1, squeeze=False, gridspec_kw={"height_ratios": heights}).ravel()
    looks = _looks(groups)
    for axis, (title, members) in zip(axes, panels.items(), strict=False):
        for place, group in enumerate(members):
            for line in group.lines:
                if line.score is not None and line.share == 1.0:
                    name, colour, marker, size = (
                        ("clean", QUIET, "|", 14) if line.method == CLEAN else (line.method, *looks[line.method], 7)
                    )
                    values = 100 * np.array(line.score.values)
                    axis.plot([values.min(), values.max()], [place, place], color=colour, linewidth=1.4)
                    axis.plot(values.mean(), place, marker, color=colour, markersize=size, markeredgewidth=1.6, label=name, linestyle="")
        names = [f"{g.regime}, {g.steps} steps, {g.epsilon * 255:.3g}/255{_target(g)}" for g in members]
        axis.set_yticks(range(len(members)), names, fontsize=8)
        axis.set_ylim(len(members) - 0.5, -0.5)
        axis.set_xlim(0, 100)
        axis.set_title(title, fontsize=10, color=INK)
        axis.set_xlabel(f"clean-test {members[0].score_name}, %", fontsize=9)
        axis.grid(color="#dde3e9", linewidth=0.8)
        _bare(axis)
    _legend(figure, list(axes))
    return _png(figure)


def _looks(groups: Sequence[Group]) -> dict[str, tuple[str, str]]:
    """Colour and marker of every method: always the same for those that are shipped, the next ones for the others."""
    present = dict.fromkeys(line.method for group in groups for line in group.lines if line.method != CLEAN)
    known = (*SHIPPED, *(method for method in present if method not in SHIPPED))
    looks = {method: (COLOURS[n % len(COLOURS)], MARKERS[n % len(MARKERS)]) for n, method in enumerate(known)}
    return {method: looks[method] for method in present}


def _title(group: Group, bound: bool = False) -> str:
    told = f"{group.dataset}, {group.victim}\ntraining: {group.regime}, {group.steps} steps"
    return told + (f", {group.epsilon * 255:.3g}/255" if bound else "") + _target(group)


def _target(group: Group) -> str:
    return "" if group.target_psnr_db is None else f", {group.target_psnr_db:g} dB"


def _panels(groups: Sequence[Group]) -> dict[str, list[Group]]:
    panels: dict[str, list[Group]] = {}
    for group in groups:
        panels.setdefault(_title(group), []).append(group)
    return panels


def _lines(groups: Sequence[Group]) -> list[Line]:
    """Those of the trainings in which every case is protected and a row counts."""
    return [line for group in groups for line in group.lines if line.share == 1.0 and line.score is not None]


def _points(lines: Sequence[Line]) -> list[tuple[float, float, float, float]]:
    """(PSNR, mean, lowest, highest) of every line."""
    known = [(line.psnr, line.score) for line in lines if line.score is not None]
    return [(p, 100 * s.mean, 100 * min(s.values), 100 * max(s.values)) for p, s in known if p is not None]


def _clean_level(axis: Axes, lines: Sequence[Line]) -> None:
    clean = [line.score.mean for line in lines if line.method == CLEAN and line.score is not None]
    if clean:
        axis.axhline(100 * float(np.mean(clean)), color=QUIET, linestyle="--", linewidth=1.2, label="clean")


def _widen(axis: Axes, psnr: Sequence[float]) -> None:
    """At least ``NARROWEST`` dB, so that nobody reads a difference into its hundredths."""
    if psnr:
        margin = max(NARROWEST - (max(psnr) - min(psnr)), 0.2 * NARROWEST) / 2
        axis.set_xlim(min(psnr) - margin, max(psnr) + margin)


def _figure(panels: int) -> tuple[Figure, list[Axes]]:
    columns = min(3, panels)
    rows = -(-panels // columns)
    figure = Figure((PANEL[0] * columns, PANEL[1] * rows), dpi=DPI)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in grid[panels:]:
        axis.set_visible(False)
    return figure, list(grid[:panels])


def _dress(axis: Axes, title: str, label: str) -> None:
    axis.set_title(title, fontsize=10, color=INK)
    axis.set_ylabel(label, fontsize=9)
    axis.set_ylim(0, 100)
    axis.grid(axis="y", color="#dde3e9", linewidth=0.8)
    if not axis.has_data():
        axis.text(0.5, 0.5, "no row counts", transform=axis.transAxes, ha="center", color=QUIET)
        axis.set_xticks([])
    axis.tick_params(labelsize=8)
    _bare(axis)


def _bare(axis: Axes) -> None:
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def _legend(figure: Figure, axes: Sequence[Axes]) -> None:
    """Below the panels, which keep their height: the figure grows."""
    named = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    width, height = figure.get_size_inches()
    columns = max(1, int(width // LEGEND_ENTRY))
    below = -(-len(named) // columns) * LEGEND_LINE + 0.1
    figure.set_size_inches(width, height + below)
    figure.tight_layout(rect=(0, below / (height + below), 1, 1))
    figure.legend(named.values(), named.keys(), loc="lower center", ncols=min(columns, len(named)), fontsize=8, frameon=False)


def _png(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
