"""The .ui file and the stand-ins, read without running anything."""

from __future__ import annotations

import ast
import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from slicer_harness.require import inside_slicer, require_harness

require_harness()
if inside_slicer():
    pytest.skip("these tests are about the stand-ins of the harness", allow_module_level=True)

from MedProtectSlicer.parameters import MedProtectParameterNode
from MedProtectSlicer.widget import PATHS
from slicer_harness.loader import CUSTOM, scene_connections

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
    by_hand = {"skippedIn", "skippedSegments", "method", *PATHS.values()}
    assert set(MedProtectParameterNode.allParameters) == set(bound_parameters()) | by_hand
    assert {name for name, kind in WIDGETS.items() if kind == "ctkPathLineEdit"} == set(PATHS)


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


SOURCES = sorted(MODULE.rglob("*.py"))
TRANSLATORS = {"_", "translate"}
SHOWN = {"text", "toolTip", "title", "helpText", "acknowledgementText"}  # attributes whose text people see


def calls(tree: ast.AST, names: set[str]) -> list[ast.Call]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "id", "") in names]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.name)
def test_texts_are_translated_as_literals(path):
    """Slicer's tools find the texts in the source, so each must be one literal, with named places to be filled in afterwards."""
    for call in calls(ast.parse(path.read_text(encoding="utf-8")), {"_"}):
        (argument,) = call.args
        assert isinstance(argument, ast.Constant), f"line {call.lineno}"
        assert isinstance(argument.value, str)
        assert argument.value.strip()
        assert "{}" not in argument.value, f"line {call.lineno}: a translator cannot reorder what has no name"


@pytest.mark.parametrize("path", [p for p in SOURCES if p.name != "selftest.py"], ids=lambda p: p.name)
def test_what_people_read_is_translated(path):
    """Errors, texts of widgets and whatever else looks like a sentence goes through ``_``; names and keys do not."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {id(n) for call in calls(tree, TRANSLATORS) for n in ast.walk(call)}
    not_shown = {id(n) for call in calls(tree, {"LookupError", "ValueError", "assertTrue"}) for n in ast.walk(call)}
    not_shown |= {id(key) for n in ast.walk(tree) if isinstance(n, ast.Dict) for key in n.keys}
    documentation = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str) or id(node) in inside | documentation | not_shown:
            continue
        if node.value.startswith("--"):
            continue
        assert not re.search(r"[a-z]{2,} [a-z]{2,} [a-z]{2,}", node.value), f"line {node.lineno}: {node.value!r}"
    shown = [n for n in ast.walk(tree) if isinstance(n, ast.Assign) and getattr(n.targets[0], "attr", "") in SHOWN]
    for assignment in shown:
        plain = [n.value for n in ast.walk(assignment.value) if isinstance(n, ast.Constant) and id(n) not in inside]
        assert not [v for v in plain if isinstance(v, str) and re.search(r"[A-Za-z]{4}", v) and v != "MedProtect"], path.name


def test_fixed_choices_and_ui_texts_reach_the_translators():
    """Texts of the .ui file are translatable unless they are marked notr; only keys and type names may be."""
    marked = [(e.text or "") for e in UI.getroot().iter("string") if e.get("notr") == "true"]
    assert all(re.fullmatch(r"[A-Za-z0-9/]+", text) for text in marked), marked
    assert len([e for e in UI.getroot().iter("string") if e.get("notr") != "true" and e.text]) > 80
