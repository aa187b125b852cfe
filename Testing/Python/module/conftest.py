"""Tests of the Slicer module: real MRML from slicer-core, the real panel on PySide6."""

from __future__ import annotations

from slicer_harness.require import missing_packages

if not missing_packages():
    from slicer_harness.fixtures import a_ct, a_logic, a_phantom, a_scene, a_widget, stuck_child

    __all__ = ["a_ct", "a_logic", "a_phantom", "a_scene", "a_widget", "stuck_child"]
