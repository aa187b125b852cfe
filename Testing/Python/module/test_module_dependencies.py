"""Packages that are there but too old: seen, named before anything is replaced, and not used before a restart."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from slicer_harness.require import of_stand_ins, require_harness

require_harness()

import slicer

from MedProtectLib import MedProtectError
from MedProtectSlicer import dependencies


@pytest.fixture
def installed(a_scene, monkeypatch) -> dict[str, str]:
    """Versions of packages to pretend; slicer.util.pip_install brings what is asked for."""
    versions: dict[str, str] = {}
    really = dependencies.importlib.metadata.version

    def pip_install(lines):
        versions.update(line.split(">=") for line in lines if ">=" in line)

    monkeypatch.setattr(dependencies.importlib.metadata, "version", lambda name: versions.get(name) or really(name))
    monkeypatch.setitem(sys.modules, "slicer.packaging", None)
    monkeypatch.setattr(slicer.util, "pip_install", pip_install, raising=False)
    monkeypatch.setattr(dependencies, "_replaced", [], raising=False)
    return versions


def test_a_pydicom_that_is_too_old_counts_as_missing(installed):
    assert dependencies.missingPackages() == []
    installed["pydicom"] = "2.4.4"
    assert dependencies.missingPackages() == ["pydicom>=3.0.1"]


@of_stand_ins("an application that answers questions")
def test_the_question_names_what_is_replaced_and_a_restart_is_needed(installed, monkeypatch):
    asked = []
    monkeypatch.setattr(slicer.app, "testing", False)
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text: asked.append(text) or True)
    installed |= {"pydicom": "2.4.4", "torch": "2.5.1+cu124"}
    for _attempt in range(2):
        with pytest.raises(MedProtectError, match=r"Restart Slicer before you go on: it has replaced pydicom 2\.4\.4"):
            dependencies.ensureDependencies()
    (question,) = asked
    assert "pydicom>=3.0.1" in question
    assert "pydicom 2.4.4" in question
    assert "Restart Slicer" in question
    assert installed == {"pydicom": "3.0.1", "torch": "2.5.1+cu124"}


@of_stand_ins("an application that answers questions")
def test_nothing_is_replaced_where_nobody_agrees(installed, monkeypatch):
    monkeypatch.setattr(slicer.app, "testing", False)
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text: False)
    installed["pydicom"] = "2.4.4"
    with pytest.raises(MedProtectError, match=r"missing or too old: pydicom>=3\.0\.1\. Nothing was done"):
        dependencies.ensureDependencies()
    assert installed == {"pydicom": "2.4.4"}


def test_a_torch_that_is_too_old_is_named_and_left_alone(installed):
    installed["torch"] = "2.3.1+cpu"
    with pytest.raises(MedProtectError, match=r"PyTorch 2\.3\.1\+cpu is too old: MedProtect needs 2\.4\. Uninstall it in 'PyTorch Utils'"):
        dependencies.ensureDependencies()


@of_stand_ins("an application that answers questions")
def test_slicers_own_installer_may_replace_pydicom_and_does_not_ask_again(installed, monkeypatch):
    asked, options = [], {}
    monkeypatch.setattr(slicer.app, "testing", False)
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text: asked.append(text) or True)
    module = ModuleType("slicer.packaging")
    module.load_requirements = lambda path: path
    module.pip_ensure = lambda requirements, **given: (options.update(given), installed.update(pydicom="3.0.1"))
    monkeypatch.setitem(sys.modules, "slicer.packaging", module)
    installed["pydicom"] = "2.4.4"
    with pytest.raises(MedProtectError, match=r"it has replaced pydicom 2\.4\.4"):
        dependencies.ensureDependencies()
    assert len(asked) == 1
    assert options["prompt_install"] is False
    assert "pydicom" not in options["skip_packages"]
