"""Pictures of an audit: panels stay readable however many methods the legend names."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.colors import to_hex, to_rgba_array
from matplotlib.figure import Figure

from MedProtectLib.audit import plots
from MedProtectLib.audit.rows import read_rows
from MedProtectLib.audit.tables import Group, groups_of

AUDITS = Path(__file__).parents[2] / "Documentation" / "audit"


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were drawn."""
    figures: list[Figure] = []
    monkeypatch.setattr(plots, "_png", lambda figure: figures.append(figure) or b"")
    return figures


def groups(name: str) -> list[Group]:
    return groups_of(read_rows(AUDITS / f"{name}.jsonl"))


@pytest.mark.parametrize("name", ["tier1_hippocampus", "tier1_breastmnist", "tier2_busi_native"])
def test_every_training_has_its_line_of_the_overview(name: str, drawn: list[Figure]) -> None:
    plots.overview(groups(name))
    for axis in drawn[0].axes:
        inches = axis.get_position().height * drawn[0].get_figheight()
        assert inches / len(axis.get_yticks()) > plots.ROW / 2, "the lines run into each other"


def colours(figure: Figure) -> dict[str, str]:
    """Of the legend's methods."""
    legend = figure.legends[0]
    inks = [to_hex(to_rgba_array(handle.get_color())[0]) for handle in legend.legend_handles]
    return {text.get_text(): ink for text, ink in zip(legend.get_texts(), inks, strict=True)}


def test_every_method_has_a_colour_of_its_own_in_all_figures(drawn: list[Figure]) -> None:
    for name in ("tier1_busi_native", "tier1_hippocampus", "tier3_busi_native"):
        for draw in (plots.frontier, plots.overview):
            draw(groups(name))
    found = [colours(figure) for figure in drawn]
    assert max(map(len, found)) > 15
    for named in found:
        assert len(set(named.values())) == len(named)
        assert {method: named[method] for method in ("clean", "noise", "ar", "weave")}.items() <= found[0].items()


def test_no_panel_of_the_frontier_is_empty(drawn: list[Figure]) -> None:
    plots.frontier(groups("tier2_busi_native"))
    shown = [axis for axis in drawn[0].axes if axis.get_visible()]
    assert len(shown) > 10
    assert all(axis.containers for axis in shown)
    assert min(axis.get_xlim()[0] for axis in shown) > 40


def test_trainings_of_other_psnr_targets_are_not_joined(drawn: list[Figure]) -> None:
    rows = [row for row in read_rows(AUDITS / "tier3_busi_native.jsonl") if row["regime"] == "none" and not row["void"]]
    lower = [{**row, "key": f"{row['key']} lower", "target_psnr_db": 40.0} for row in rows if row["epsilon"] > 0]
    for draw in (plots.frontier, plots.bars, plots.overview):
        draw(groups_of(rows))
        draw(groups_of([*rows, *lower]))
    once, twice, bars, more_bars, lines, more_lines = drawn
    titles = [axis.get_title() for axis in twice.axes if axis.get_visible()]
    assert len(titles) == 2 * len([axis for axis in once.axes if axis.get_visible()])
    assert sum("40 dB" in title for title in titles) == len(titles) / 2
    shown = [axis.get_title() for axis in more_bars.axes if axis.get_visible()]
    assert len(set(shown)) == len(shown) == 2 * len([axis for axis in bars.axes if axis.get_visible()])
    names = [label.get_text() for axis in more_lines.axes for label in axis.get_yticklabels()]
    assert len(set(names)) == len(names) == 2 * sum(len(axis.get_yticks()) for axis in lines.axes)


@pytest.mark.parametrize("void", [True, False])
def test_clean_rows_alone_make_pictures_too(void: bool) -> None:
    row = next(read_rows(AUDITS / "tier3_busi_native.jsonl"))
    assert row["method"] == "none"
    alone = groups_of([{**row, "void": void}])
    assert all(draw(alone).startswith(b"\x89PNG") for draw in (plots.frontier, plots.bars, plots.overview))
