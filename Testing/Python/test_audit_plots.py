"""Pictures of an audit: panels stay readable however many methods the legend names."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from MedProtectLib.audit import plots
from MedProtectLib.audit.rows import read_rows
from MedProtectLib.audit.tables import groups_of

AUDITS = Path(__file__).parents[2] / "Documentation" / "audit"


@pytest.mark.parametrize("name", ["tier1_hippocampus", "tier1_breastmnist", "tier2_busi_native"])
def test_every_training_has_its_line_of_the_overview(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(plots, "_png", lambda figure: drawn.append(figure) or b"")
    plots.overview(groups_of(read_rows(AUDITS / f"{name}.jsonl")))
    for axis in drawn[0].axes:
        inches = axis.get_position().height * drawn[0].get_figheight()
        assert inches / len(axis.get_yticks()) > plots.ROW / 2, "the lines run into each other"
