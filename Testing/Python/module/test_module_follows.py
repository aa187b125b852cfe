"""The preview follows whatever decides about it, a label map that is none empties the panel, and a job keeps what it was given."""

from __future__ import annotations

import numpy as np
import pytest

from slicer_harness.require import require_harness

require_harness()

import slicer

from MedProtectSlicer.formats import ExportFormat
from MedProtectSlicer.overlay import ATTRIBUTE
from MedProtectSlicer.parameters import Window
from MedProtectSlicer.settings import ProtectSettings
from MedProtectSlicer.staging import LONGEST_NAME, fileName
from slicer_harness.fixtures import a_transform, new_panel, wait

SLICE_MM, MIDDLE = 3.0, 6


def red() -> object:
    return slicer.mrmlScene.GetNodeByID("vtkMRMLSliceNodeRed")


def preview(widget) -> None:
    red().SetSliceOffset(SLICE_MM * MIDDLE)
    widget.ui.previewButton.click()
    wait(lambda: not widget.previewer.busy)


def overlay() -> np.ndarray:
    nodes = slicer.util.getNodesByClass("vtkMRMLLabelMapVolumeNode")
    return slicer.util.arrayFromVolume(next(node for node in nodes if node.GetAttribute(ATTRIBUTE)))


def centre() -> float:
    return float(np.nonzero(overlay())[2].mean())


def text(widget) -> str:
    return widget.ui.previewStatisticsLabel.text


def test_the_preview_follows_moved_labels(a_widget):
    preview(a_widget)
    before = centre()
    matrix = np.eye(4)
    matrix[0, 3] = 10.0
    a_transform(matrix, a_widget.parameters.labels)
    wait(lambda: abs(centre() - before) > 5)


def test_the_preview_follows_edited_voxels(a_widget):
    preview(a_widget)
    before = text(a_widget)
    volume = a_widget.parameters.volume
    slicer.util.arrayFromVolume(volume)[:] //= 2
    slicer.util.arrayFromVolumeModified(volume)
    wait(lambda: text(a_widget) != before)


def test_the_preview_follows_the_display(a_widget):
    volume = a_widget.parameters.volume
    volume.CreateDefaultDisplayNodes()
    display = volume.GetDisplayNode()
    display.SetAutoWindowLevel(False)
    display.SetWindowLevel(400, 40)
    a_widget.parameters.window = Window.DISPLAY
    preview(a_widget)
    assert "-160 … 240" in a_widget.ui.boundLabel.text
    display.SetWindowLevel(2000, 0)
    wait(lambda: "-1000 … 1000" in a_widget.ui.boundLabel.text)


def test_an_error_takes_the_preview_away_and_is_forgotten_with_its_reason(a_widget):
    preview(a_widget)
    shown = text(a_widget)
    red().SetSliceOffset(500.0)
    assert (text(a_widget), a_widget.previewer.overlay.active) == ("No slice view shows this volume's slices.", False)
    red().SetSliceOffset(SLICE_MM * MIDDLE)
    wait(lambda: text(a_widget) == shown)
    assert a_widget.previewer.overlay.active
    a_widget.parameters.windowLow, a_widget.parameters.windowHigh = 300.0, 215.0
    a_widget.parameters.window = Window.CUSTOM
    wait(lambda: "LO must be smaller than HI" in text(a_widget))
    assert not a_widget.previewer.overlay.active
    a_widget.parameters.windowLow = -135.0
    wait(lambda: text(a_widget).startswith("Slice 6") and a_widget.previewer.overlay.active)


def test_a_preview_that_cannot_be_made_is_tried_once(a_widget, monkeypatch):
    tried = []

    def refuse(*_: object) -> None:
        tried.append(1)
        raise ValueError("no")

    monkeypatch.setattr("MedProtectSlicer.previewer.makePreview", refuse)
    preview(a_widget)
    for _ in range(4):
        a_widget._lookedAt = 0.0
        a_widget._onTimer()
    wait(lambda: not a_widget.previewer.busy)
    assert len(tried) == 1


def test_a_volume_that_loses_its_voxels_is_told_of(a_widget):
    preview(a_widget)
    a_widget.parameters.volume.SetAndObserveImageData(None)
    wait(lambda: "has no voxels" in text(a_widget))
    assert not a_widget.previewer.overlay.active


@pytest.mark.parametrize("values", [np.float32(1.0), np.int16(-1)])
def test_a_label_map_that_is_none_empties_the_panel(values, a_widget):
    shape = slicer.util.arrayFromVolume(a_widget.parameters.volume).shape
    array = np.zeros(shape, values.dtype)
    array[5, 10:20, 10:20] = values
    node = slicer.util.addVolumeFromArray(array, name="no labels", nodeClassName="vtkMRMLLabelMapVolumeNode")
    segmentation = a_widget.parameters.labels
    a_widget.ui.labelsSelector.setCurrentNode(node)
    ui = a_widget.ui
    assert (ui.segmentsList.count, ui.applyButton.enabled, ui.previewButton.enabled) == (0, False, False)
    assert "'no labels' is no label map" in ui.statusLabel.text
    panel = new_panel()  # with a scene that has such a node chosen already
    assert (panel.ui.segmentsList.count, panel.ui.applyButton.enabled) == (0, False)
    panel.cleanup()
    ui.labelsSelector.setCurrentNode(segmentation)
    assert (ui.segmentsList.count, ui.applyButton.enabled) == (1, True)


def test_what_is_edited_after_the_start_does_not_reach_the_job(a_logic, a_phantom):
    volume, segmentation = a_phantom
    before = slicer.util.arrayFromVolume(volume).copy()
    task = a_logic.protectTask(volume, segmentation)
    slicer.util.arrayFromVolume(volume)[:] += 200
    result = task.run()
    change = slicer.util.arrayFromVolume(result.volume).astype(int) - before
    assert 0 < np.abs(change).max() < 100


@pytest.mark.parametrize("window", [(-2.8e-17, 0.3), (-1e-5, 1.0), (-1e20, 1e20), (-135.0, 215.0)])
def test_a_window_of_any_size_reaches_the_library(window):
    assert ProtectSettings(window=window).protector().window == window


def test_a_long_name_is_cut_for_the_files(a_logic, a_phantom, tmp_path):
    volume, segmentation = a_phantom
    volume.SetName("é" * 300)
    answer = a_logic.exportTask(volume, segmentation, tmp_path / "s", tmp_path / "p", fileFormat=ExportFormat.NRRD).run()
    assert answer["statistics"]["changed_voxels"] > 0
    assert len(fileName("x" * 300)) == LONGEST_NAME
    assert fileName("a/b ") == "a_b"


def test_a_volume_that_is_called_like_a_segmentation(a_logic, a_phantom, tmp_path):
    """It is exported as an image, and not mixed up with the file of its labels."""
    volume, segmentation = a_phantom
    volume.SetName("liver.SEG")
    segmentation.SetName("liver")
    answer = a_logic.exportTask(volume, segmentation, tmp_path / "s", tmp_path / "p", fileFormat=ExportFormat.NRRD).run()
    assert answer["protected"] == str(tmp_path / "s" / "liver_SEG_protected.nrrd")
