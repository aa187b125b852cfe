"""The examples in Documentation/Slicer.md run as they are written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from slicer_harness.require import require_harness

require_harness()

DOCUMENTATION = Path(__file__).parents[3] / "Documentation"


def test_console_examples(a_ct, capsys):
    volume, segmentation = a_ct
    volume.SetName("MedProtectCT")
    segmentation.SetName("MedProtectCT segmentation")
    names: dict[str, object] = {}
    blocks = re.findall(r"```python\n(.*?)```", (DOCUMENTATION / "Slicer.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, "Slicer.md", "exec"), names)
    assert names["result"].statistics["psnr_db"] == pytest.approx(50.0, abs=0.5)
    assert names["written"]["statistics"] == names["result"].statistics
    assert "Protecting" in capsys.readouterr().out


def test_linked_files_exist():
    links = re.findall(r"\]\(([^)#:]+)\)", (DOCUMENTATION / "Slicer.md").read_text(encoding="utf-8"))
    assert len(links) >= 6
    for link in links:
        assert (DOCUMENTATION / link).is_file(), link
