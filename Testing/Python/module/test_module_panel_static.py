"""The .ui file and the stand-ins, read without running anything."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from slicer_harness.require import require_harness

require_harness()

from slicer_harness.install import prepare
from slicer_harness.loader import CUSTOM, scene_connections

prepare()
from MedProtectSlicer.parameters import MedProtectParameterNode

ROOT = Path(__file__).parents[3]
MODULE = ROOT / "MedProtect"
UI = ElementTree.parse(MODULE / "Resources" / "UI" / "MedProtect.ui")
MEMBERS = json.loads((ROOT / "Testing" / "slicer_harness" / "members.json").read_text(encoding="utf-8"))
WIDGETS = {w.get("name"): w.get("class") for w in UI.getroot().iter("widget")}
SHELL = (MODULE / "MedProtectSlicer" / "widget.py").read_text(encoding="utf-8")


def bound_parameters() -> list[str]:
    return [p.findtext("string") for p in UI.getroot().iter("property") if p.get("name") == "SlicerParameterName"]


def test_every_mrml_widget_gets_the_scene():
    wanted = {name for name, kind in WIDGETS.items() if kind.startswith("qMRML") and kind != "qMRMLWidget"}
    assert wanted
    assert set(scene_connections(UI)) == {("MedProtect", name) for name in wanted}


def test_the_root_is_the_scene_widget():
    root = UI.getroot().find("widget")
    assert (root.get("class"), root.get("name")) == ("qMRMLWidget", "MedProtect")
    assert WIDGETS["applyButton"] == "QPushButton"


def test_custom_widgets_are_declared():
    declared = {w.findtext("class"): w.findtext("container") for w in UI.getroot().iter("customwidget")}
    assert set(declared) == {kind for kind in WIDGETS.values() if not kind.startswith("Q")}
    assert {kind for kind, container in declared.items() if container} == {"qMRMLWidget", "ctkCollapsibleButton"}


def test_bound_parameters_exist_and_are_bound_once():
    names = bound_parameters()
    assert len(names) == len(set(names))
    assert set(names) <= set(MedProtectParameterNode.allParameters)


def test_every_parameter_has_a_control():
    by_hand = {"skippedSegments", "method", "profile", "exportFolder", "privateFolder", "fitFolder", "fitProfile"}
    assert set(MedProtectParameterNode.allParameters) == set(bound_parameters()) | by_hand


def test_the_panel_uses_widgets_that_the_ui_has():
    used = set(re.findall(r"\bui\.(\w+)", SHELL))
    assert used - {"methodSelector"} <= set(WIDGETS)
    assert {name for name, kind in WIDGETS.items() if kind == "QPushButton"} <= used


@pytest.mark.parametrize("name", sorted(CUSTOM))
def test_stand_ins_have_only_members_of_the_real_class(name):
    public = set()
    for cls in CUSTOM[name].__mro__:
        if cls.__module__ == "slicer_harness.widgets":
            public |= {m for m in vars(cls) if not m.startswith("_") and m not in ("staticMetaObject", "resizeEvent")}
    assert public
    assert public <= set(MEMBERS[name]["members"])


def test_properties_in_the_ui_exist_in_the_real_class():
    from PySide6 import QtWidgets

    for widget in UI.getroot().iter("widget"):
        kind = widget.get("class")
        if kind not in MEMBERS:
            continue
        base = getattr(QtWidgets, MEMBERS[kind]["base"]).staticMetaObject
        inherited = {base.property(i).name() for i in range(base.propertyCount())}
        used = {p.get("name") for p in widget.findall("property")} - {"SlicerParameterName"}
        assert used <= inherited | set(MEMBERS[kind]["members"]), widget.get("name")


def test_signals_are_connected_the_way_both_bindings_know():
    sources = [p.read_text(encoding="utf-8") for p in MODULE.rglob("*.py")]
    assert not [s for s in sources if re.search(r"\.connect\(\s*[\"']\w+\(", s) and "startupCompleted" not in s]
    assert not [s for s in sources if "qt.Signal" in s or "import PySide6" in s]


def test_texts_are_translated_as_literals():
    for path in MODULE.rglob("*.py"):
        assert not re.search(r"\b_\(\s*f[\"']", path.read_text(encoding="utf-8")), path
