"""The real panel on the real scene: every button, selector and slider; what goes wrong; what is undone."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import sys
import time
import urllib.request
from importlib.metadata import version
from pathlib import Path
from types import ModuleType, SimpleNamespace
from zipfile import ZipFile

import numpy as np
import pytest

from slicer_harness.require import of_stand_ins, require_harness

require_harness()

import qt
import slicer

from MedProtectLib import MedProtectError, read_volume
from MedProtectSlicer import child, logic, previewer
from MedProtectSlicer.formats import ExportFormat
from MedProtectSlicer.overlay import ATTRIBUTE, viewAlong
from MedProtectSlicer.parameters import FitOn, Modality, Strength, Window, chosenSegments, settingsOf
from MedProtectSlicer.selftest import phantom
from MedProtectSlicer.widget import PATHS, POLL_MS
from slicer_harness.fixtures import STUCK, a_transform, finish, idle, new_panel, node_ids, show, surfaces_only, wait

MIDDLE = 6
LONGEST_BLOCK_S = 0.1
LONGEST_TICK_S = 0.025


def red() -> object:
    return slicer.mrmlScene.GetNodeByID("vtkMRMLSliceNodeRed")


def composites() -> list:
    return list(slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"))


def layers() -> list[tuple]:
    return [
        (c.GetBackgroundVolumeID(), c.GetForegroundVolumeID(), c.GetForegroundOpacity(), c.GetLabelVolumeID(), c.GetLabelOpacity())
        for c in composites()
    ]  # fmt: skip


def preview_nodes() -> list:
    nodes = [slicer.mrmlScene.GetNthNode(i) for i in range(slicer.mrmlScene.GetNumberOfNodes())]
    return [node for node in nodes if node.GetAttribute(ATTRIBUTE)]


def names_in(selector) -> list[str]:
    return [selector.nodeFromIndex(n).GetName() for n in range(selector.nodeCount())]


def gone(pid: int) -> bool:
    psutil = pytest.importorskip("psutil")
    return not psutil.pid_exists(pid)


def preview(widget, k: int = MIDDLE) -> None:
    red().SetSliceOffset(3.0 * k)
    widget.ui.previewButton.click()
    wait(lambda: not widget.previewer.busy)


def test_the_panel_starts_with_what_the_scene_has(a_widget):
    ui = a_widget.ui
    assert ui.volumeSelector.currentNode().GetName() == "Phantom"
    assert ui.labelsSelector.currentNode().GetName() == "Phantom segmentation"
    assert ui.segmentsList.count == 1
    assert ui.applyButton.enabled
    assert not ui.cancelButton.enabled
    assert not ui.progressBar.visible


def test_the_panel_starts_with_nodes_that_its_selectors_list(a_scene):
    slicer.util.addVolumeFromArray(np.ones((2, 2, 2), np.uint8), nodeClassName="vtkMRMLLabelMapVolumeNode", name="labels")
    hidden = slicer.util.addVolumeFromArray(np.ones((2, 2, 2), np.int16), name="hidden")
    hidden.SetHideFromEditors(True)
    volume, segmentation = phantom()
    panel = new_panel()
    assert panel.ui.volumeSelector.currentNode() is panel.parameters.volume is volume
    assert panel.ui.labelsSelector.currentNode() is panel.parameters.labels is segmentation
    assert panel.ui.applyButton.enabled
    panel.cleanup()


def test_the_selectors_list_images_and_labels_only(a_widget):
    labels = slicer.util.addVolumeFromArray(np.ones((2, 2, 2), np.uint8), nodeClassName="vtkMRMLLabelMapVolumeNode", name="labels")
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLModelNode")
    assert names_in(a_widget.ui.volumeSelector) == ["Phantom"]
    assert set(names_in(a_widget.ui.labelsSelector)) == {"Phantom segmentation", "labels"}
    a_widget.ui.labelsSelector.setCurrentNode(labels)
    assert a_widget.parameters.labels is labels
    assert chosenSegments(a_widget.parameters) == ["1"]


def test_a_node_selector_without_scene_connection_stays_empty(a_widget):
    lonely = slicer.qMRMLNodeComboBox()
    lonely.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    assert lonely.nodeCount() == 0
    assert a_widget.ui.volumeSelector.nodeCount() == 1


def test_selectors_and_parameter_node_follow_each_other(a_widget):
    ui, parameters = a_widget.ui, a_widget.parameters
    ui.volumeSelector.setCurrentNode(None)
    assert parameters.volume is None
    assert not ui.applyButton.enabled
    parameters.volume = slicer.mrmlScene.GetFirstNodeByName("Phantom")
    assert ui.volumeSelector.currentNode() is parameters.volume
    assert ui.applyButton.enabled


@pytest.mark.parametrize(
    ("control", "value", "parameter", "expected"),
    [
        ("strengthSelector", 1, "strength", Strength.TARGET_PSNR),
        ("windowSelector", 4, "window", Window.CT_BRAIN),
        ("modalitySelector", 2, "modality", Modality.MR),
        ("exportFormatSelector", 1, "exportFormat", ExportFormat.NIFTI),
        ("fitOnSelector", 2, "fitOn", FitOn.FOLDER),
        ("targetPSNRSpinBox", 47.5, "targetPSNR", 47.5),
        ("boundSpinBox", 6.0, "bound255", 6.0),
        ("windowLowSpinBox", -50.0, "windowLow", -50.0),
        ("windowHighSpinBox", 150.0, "windowHigh", 150.0),
        ("slabThicknessSpinBox", 3, "slabThickness", 3),
        ("firstOpacitySlider", 0.25, "opacityFirst", 0.25),
        ("secondOpacitySlider", 0.5, "opacitySecond", 0.5),
        ("firstCheckBox", False, "showFirst", False),
        ("secondCheckBox", False, "showSecond", False),
        ("overwriteCheckBox", True, "overwrite", True),
        ("seedSpinBox", 12, "seed", 12),
        ("fitStepsSpinBox", 7, "fitSteps", 7),
        ("fitDimensionSelector", 1, "fitDimension", None),
        ("auditQuickCheckBox", False, "auditQuick", False),
        ("auditFolderPath", "data", "auditFolder", "data"),
        ("auditOutputPath", "found", "auditOutput", "found"),
        ("restoreFilePath", "a.nrrd", "restoreFile", "a.nrrd"),
        ("vaultFolderPath", "vault", "vaultFolder", "vault"),
        ("keyFilePath", "site.key", "keyFile", "site.key"),
        ("restoreOutputPath", "b.nrrd", "restoreOutput", "b.nrrd"),
        ("exportFolderPath", "share", "exportFolder", "share"),
        ("privateFolderPath", "own", "privateFolder", "own"),
        ("profilePath", "site.medprotect", "profile", "site.medprotect"),
        ("fitFolderPath", "data", "fitFolder", "data"),
        ("fitProfilePath", "new.medprotect", "fitProfile", "new.medprotect"),
    ],
)
def test_every_control_writes_its_parameter_and_shows_it(a_widget, control, value, parameter, expected):
    widget = getattr(a_widget.ui, control)
    attribute = next(a for a in ("currentIndex", "currentPath", "checked", "value") if hasattr(widget, a))
    before = getattr(a_widget.parameters, parameter)
    setattr(widget, attribute, value)
    after = getattr(a_widget.parameters, parameter)
    assert after != before
    assert expected is None or after == expected
    setattr(a_widget.parameters, parameter, before)
    assert getattr(widget, attribute) != value


@pytest.mark.parametrize(("control", "parameter"), PATHS.items())
def test_an_emptied_path_is_used_no_more(a_widget, control, parameter):
    edit = getattr(a_widget.ui, control)
    for path in ("one.medprotect", "", "two.medprotect", "two"):
        edit.currentPath = path
        assert getattr(a_widget.parameters, parameter) == path
        a_widget.ui.seedSpinBox.value += 1
        assert edit.currentPath == path


def test_a_profile_is_named_without_its_extension(a_widget, stuck_child, tmp_path):
    ui = a_widget.ui
    ui.profilePath.currentPath = str(tmp_path / "site")
    assert settingsOf(a_widget.parameters).profile == str(tmp_path / "site.medprotect")
    ui.fitProfilePath.currentPath = str(tmp_path / "own")
    ui.fitButton.click()
    assert ui.fitProfilePath.currentPath == str(tmp_path / "own.medprotect")
    assert ui.profilePath.currentPath == str(tmp_path / "site.medprotect")
    wait(lambda: isinstance(a_widget.task._waiting, child.Child))
    assert str(tmp_path / "own.medprotect") in a_widget.task._waiting._process.args


@of_stand_ins("settings that may be written to")
def test_used_paths_are_offered_again_except_secrets(a_widget, stuck_child, monkeypatch):
    monkeypatch.setattr(type(a_widget.ui.profilePath), "_settings", {})
    for control in PATHS:
        getattr(a_widget.ui, control).currentPath = f"{control}.medprotect"
    a_widget.ui.restoreButton.click()
    assert a_widget.task is not None
    remembered = a_widget.ui.profilePath._settings
    assert sorted(path for paths in remembered.values() for path in paths) == sorted(
        f"{control}.medprotect" for control in PATHS if control not in ("keyFilePath", "vaultFolderPath")
    )
    for control, parameter in PATHS.items():
        assert getattr(a_widget.parameters, parameter) == getattr(a_widget.ui, control).currentPath == f"{control}.medprotect"
    slicer.mrmlScene.Clear(False)
    later = new_panel()
    assert {getattr(later.ui, control).currentPath for control in PATHS} == {""}
    later.cleanup()


def test_segments_are_chosen_one_by_one_or_all_at_once(a_widget):
    ui, parameters = a_widget.ui, a_widget.parameters
    parameters.labels.GetSegmentation().AddEmptySegment("second", "second")
    assert len(chosenSegments(parameters)) == ui.segmentsList.count == 2
    ui.noSegmentsButton.click()
    assert chosenSegments(parameters) == []
    assert not ui.applyButton.enabled
    ui.segmentsList.item(1).setCheckState(qt.Qt.Checked)
    assert chosenSegments(parameters) == ["second"]
    assert ui.applyButton.enabled
    ui.allSegmentsButton.click()
    assert len(chosenSegments(parameters)) == 2
    assert ui.segmentsList.item(0).checkState() == qt.Qt.Checked


def test_what_does_not_apply_is_not_shown_when_a_section_opens(a_widget):
    ui = a_widget.ui
    a_widget.parent.show()
    for section, part in ((ui.fitSection, ui.fitFolderPath), (ui.protectionSection, ui.windowLowSpinBox)):
        section.collapsed = True
        section.collapsed = False
        assert not part.visible
    ui.fitOnSelector.currentIndex = 2
    assert ui.fitFolderPath.visible
    ui.fitSection.collapsed = True
    ui.fitSection.collapsed = False
    assert ui.fitFolderPath.visible


def test_an_earlier_scene_has_no_hold_on_the_panel(a_widget):
    """Neither opening the module again nor closing the scene leaves a parameter node that the controls still write to."""
    node = a_widget.parameters.parameterNode
    before = a_widget.parameters
    a_widget.enter()
    assert a_widget.parameters is before
    a_widget._setParameterNode(None)
    kept = node.GetParameter("targetPSNR")
    a_widget.ui.targetPSNRSpinBox.value = 33.0
    assert node.GetParameter("targetPSNR") == kept


def test_settings_of_the_panel(a_widget):
    parameters = a_widget.parameters
    plain = settingsOf(parameters)
    assert (plain.bound, plain.target_psnr, plain.window, plain.modality, plain.seed, plain.profile) == (None,) * 6
    parameters.strength, parameters.bound255, parameters.window, parameters.modality = (
        Strength.TARGET_PSNR,
        8.0,
        Window.CT_LUNG,
        Modality.CT,
    )
    parameters.seed, parameters.profile = 5, "p.medprotect"
    chosen = settingsOf(parameters)
    assert (chosen.bound, chosen.target_psnr, chosen.window) == (8 / 255, parameters.targetPSNR, (-1200.0, 200.0))
    assert (chosen.modality, chosen.seed, chosen.profile) == ("CT", 5, "p.medprotect")
    parameters.window = Window.DISPLAY
    parameters.volume.GetDisplayNode().SetAutoWindowLevel(False)
    parameters.volume.GetDisplayNode().SetWindowLevel(400.0, 50.0)
    assert settingsOf(parameters).window == (-150.0, 250.0)


def test_a_saved_scene_restores_the_panel(a_widget):
    a_widget.parameters.targetPSNR = 44.0
    a_widget.parameters.window = Window.CT_BONE
    node = slicer.mrmlScene.GetSingletonNode("MedProtect", "vtkMRMLScriptedModuleNode")
    assert (node.GetParameter("targetPSNR"), node.GetParameter("window")) == ("44.0", "CT_BONE")
    assert node.GetNodeReference("volume").GetName() == "Phantom"


def test_unchecked_segments_are_those_of_one_segmentation(a_widget):
    """Two segmentations may well have segments of the same ids; label maps nearly always do."""
    ui, parameters = a_widget.ui, a_widget.parameters
    first, second = parameters.labels, slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "other patient")
    for segmentation in (first, second):
        for name in ("lesion", "organ"):
            segmentation.GetSegmentation().AddEmptySegment(name, name)
    ui.segmentsList.item(1).setCheckState(qt.Qt.Unchecked)
    assert "lesion" not in chosenSegments(parameters)
    ui.labelsSelector.setCurrentNode(second)
    assert chosenSegments(parameters) == ["lesion", "organ"]
    assert ui.segmentsList.item(0).checkState() == qt.Qt.Checked
    ui.labelsSelector.setCurrentNode(first)
    assert "lesion" not in chosenSegments(parameters)
    ui.labelsSelector.setCurrentNode(second)
    ui.segmentsList.item(1).setCheckState(qt.Qt.Unchecked)
    assert chosenSegments(parameters) == ["lesion"]
    ui.labelsSelector.setCurrentNode(first)
    assert "lesion" in chosenSegments(parameters)


def test_segments_are_all_chosen_until_unchecked(a_widget):
    ui, parameters = a_widget.ui, a_widget.parameters
    parameters.labels.GetSegmentation().AddEmptySegment("second", "second")
    assert ui.segmentsList.count == 2
    assert len(chosenSegments(parameters)) == 2
    ui.segmentsList.item(0).setCheckState(qt.Qt.Unchecked)
    assert chosenSegments(parameters) == ["second"]
    ui.segmentsList.item(1).setCheckState(qt.Qt.Unchecked)
    assert not ui.applyButton.enabled
    assert "at least one segment" in ui.applyButton.toolTip
    parameters.labels.GetSegmentation().RemoveSegment("second")
    assert ui.segmentsList.count == 1


def test_another_segmentation_in_the_same_node_is_followed(a_widget):
    """A sequence of segmentations does so with every frame."""
    ui, node = a_widget.ui, a_widget.parameters.labels
    before, frame = node.GetSegmentation(), slicer.vtkSegmentation()
    frame.DeepCopy(before)
    frame.GetNthSegment(0).SetName("next frame")
    node.SetAndObserveSegmentation(frame)
    assert ui.segmentsList.item(0).text() == "next frame"
    frame.GetNthSegment(0).SetName("edited")
    assert ui.segmentsList.item(0).text() == "edited"
    assert before not in [source for source, *_how in a_widget.Observations]
    a_widget.parameters.labels = None
    assert frame not in [source for source, *_how in a_widget.Observations]


def test_preview_shows_the_current_slice_and_leaves_no_trace(a_widget):
    nodes, shown = node_ids(), layers()
    preview(a_widget)
    text = a_widget.ui.previewStatisticsLabel.text
    assert text.startswith(f"Slice {MIDDLE}\n")
    assert "PSNR" in text
    assert "HU" in a_widget.ui.boundLabel.text
    overlay, after = a_widget.previewer.overlay._nodes["overlay"], a_widget.previewer.overlay._nodes["after"]
    assert {c.GetLabelVolumeID() for c in composites()} == {overlay.GetID()}
    assert {c.GetForegroundVolumeID() for c in composites()} == {None}
    assert all(node.GetHideFromEditors() and not node.GetSaveWithScene() for node in preview_nodes())
    change = slicer.util.arrayFromVolume(after).astype(int) - slicer.util.arrayFromVolume(a_widget.parameters.volume)[MIDDLE]
    assert np.array_equal(slicer.util.arrayFromVolume(overlay) != 0, change != 0)
    a_widget.ui.afterButton.click()
    assert {c.GetForegroundVolumeID() for c in composites()} == {after.GetID()}
    a_widget.ui.previewButton.click()
    assert layers() == shown
    assert node_ids() == nodes
    assert not a_widget.ui.afterButton.enabled


def test_preview_follows_the_slice(a_widget):
    preview(a_widget)
    for k in (MIDDLE + 1, MIDDLE - 2):
        red().SetSliceOffset(3.0 * k)
        wait(lambda: not a_widget.previewer.busy)
        assert a_widget.ui.previewStatisticsLabel.text.startswith(f"Slice {k}\n")
        overlay = a_widget.previewer.overlay._nodes["overlay"]
        assert overlay.GetOrigin()[2] == pytest.approx(3.0 * k)
    red().SetSliceOffset(3.0 * 18)
    wait(lambda: not a_widget.previewer.busy)
    assert "nothing is protected here" in a_widget.ui.previewStatisticsLabel.text
    red().SetSliceOffset(900.0)
    assert "No slice view" in a_widget.ui.previewStatisticsLabel.text


def test_components_are_hidden_by_their_colours(a_widget):
    preview(a_widget)
    colours = a_widget.previewer.overlay._nodes["colours"]

    def alphas() -> tuple[float, float]:
        half = (colours.GetNumberOfColors() - 1) // 2
        found = []
        for index in (half, 2 * half):
            colour = [0.0] * 4
            colours.GetColor(index, colour)
            found.append(colour[3])
        return found[0], found[1]

    overlay_before = slicer.util.arrayFromVolume(a_widget.previewer.overlay._nodes["overlay"]).copy()
    assert alphas() == pytest.approx((0.8, 0.8), abs=0.005)
    a_widget.ui.firstCheckBox.click()
    assert alphas() == pytest.approx((0.0, 0.8), abs=0.005)
    a_widget.ui.secondOpacitySlider.value = 0.3
    assert alphas() == pytest.approx((0.0, 0.3), abs=0.005)
    assert np.array_equal(slicer.util.arrayFromVolume(a_widget.previewer.overlay._nodes["overlay"]), overlay_before)


def test_preview_under_a_transform_and_on_other_settings(a_widget):
    matrix = np.eye(4)
    matrix[2, 3] = 30.0
    transform = a_transform(matrix, a_widget.parameters.volume, a_widget.parameters.labels)
    red().SetSliceOffset(3.0 * MIDDLE + 30.0)
    a_widget.ui.previewButton.click()
    wait(lambda: not a_widget.previewer.busy)
    assert a_widget.ui.previewStatisticsLabel.text.startswith(f"Slice {MIDDLE}\n")
    assert a_widget.previewer.overlay._nodes["overlay"].GetTransformNodeID() == transform.GetID()
    bound = a_widget.ui.boundLabel.text
    a_widget.ui.boundSpinBox.value = 8.0
    wait(lambda: not a_widget.previewer.busy)
    assert a_widget.ui.boundLabel.text != bound
    a_widget.ui.slabThicknessSpinBox.value = 3
    wait(lambda: not a_widget.previewer.busy)
    assert a_widget.ui.previewStatisticsLabel.text.startswith(f"Slices {MIDDLE - 1} to {MIDDLE + 1}\n")


def test_leaving_the_module_ends_the_preview(a_widget):
    nodes, shown = node_ids(), layers()
    preview(a_widget)
    assert preview_nodes()
    a_widget.exit()
    assert (layers(), node_ids()) == (shown, nodes)


@pytest.mark.parametrize("scrolled", [True, False])
def test_layers_that_were_chosen_during_a_preview_stay(a_widget, scrolled):
    before, second, third = (slicer.util.addVolumeFromArray(np.ones((20, 40, 48), np.int16), name=name) for name in ("a", "b", "c"))
    labels = slicer.util.addVolumeFromArray(np.ones((2, 2, 2), np.uint8), nodeClassName="vtkMRMLLabelMapVolumeNode", name="labels")
    for composite in composites():
        composite.SetForegroundVolumeID(before.GetID())
        composite.SetForegroundOpacity(0.5)
    preview(a_widget)
    one, other, last = composites()
    one.SetForegroundVolumeID(second.GetID())
    one.SetForegroundOpacity(0.25)
    one.SetBackgroundVolumeID(third.GetID())
    other.SetLabelVolumeID(labels.GetID())
    other.SetLabelOpacity(0.75)
    if scrolled:
        red().SetSliceOffset(3.0 * (MIDDLE + 1))
        wait(lambda: not a_widget.previewer.busy)
        assert other.GetLabelVolumeID() == a_widget.previewer.overlay._nodes["overlay"].GetID()
    a_widget.ui.previewButton.click()
    background = a_widget.parameters.volume.GetID()
    assert layers() == [
        (third.GetID(), second.GetID(), 0.25, None, one.GetLabelOpacity()),
        (background, before.GetID(), 0.5, labels.GetID(), 0.75),
        (background, before.GetID(), 0.5, None, last.GetLabelOpacity()),
    ]
    assert preview_nodes() == []


@pytest.mark.parametrize("kind", ["mrml", "mrb"])
@pytest.mark.parametrize("on", [True, False])
def test_what_a_saved_scene_has_of_the_preview(a_widget, tmp_path, kind, on):
    """Never its images; and the layers of the views as they were if it was switched off before."""
    fusion = slicer.util.addVolumeFromArray(np.ones((20, 40, 48), np.int16), name="fusion")
    for composite in composites():
        composite.SetForegroundVolumeID(fusion.GetID())
    preview(a_widget)
    if not on:
        a_widget.ui.previewButton.click()
    text = saved_scene(tmp_path / f"saved.{kind}")
    assert "fusion" in text
    assert "MedProtect preview" not in text
    views = re.findall(r'<SliceComposite\s[^>]*references="([^"]*)"', text)
    assert len(views) == 3
    assert on or all(f"foregroundVolume:{fusion.GetID()};" in view and "labelVolume:" not in view for view in views)


def saved_scene(path: Path) -> str:
    """The scene's own file after saving it as the application does."""
    if path.suffix == ".mrml":
        assert slicer.mrmlScene.Commit(str(path))
        return path.read_text(encoding="utf-8")
    assert slicer.mrmlScene.WriteToMRB(str(path))
    with ZipFile(path) as bundle:
        return bundle.read(next(name for name in bundle.namelist() if name.endswith(".mrml"))).decode()


def test_the_preview_follows_the_view_along_a_turned_volume(a_widget):
    volume = a_widget.parameters.volume
    turn = np.array([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]], float)  # its slices become coronal
    a_transform(turn, volume, a_widget.parameters.labels)
    green = slicer.mrmlScene.GetNodeByID("vtkMRMLSliceNodeGreen")
    assert viewAlong(volume) is green
    green.SetSliceOffset(-3.0 * MIDDLE)
    a_widget.ui.previewButton.click()
    wait(lambda: not a_widget.previewer.busy)
    assert a_widget.ui.previewStatisticsLabel.text.startswith(f"Slice {MIDDLE}\n")


def test_the_preview_follows_no_view_that_the_layout_does_not_show(a_widget):
    volume = a_widget.parameters.volume
    yellow = slicer.mrmlScene.GetNodeByID("vtkMRMLSliceNodeYellow")
    mapped = [node for node in slicer.util.getNodesByClass("vtkMRMLSliceNode") if node.IsMappedInLayout()]
    preview(a_widget)
    for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        node.SetMappedInLayout(node is yellow)
    yellow.SetOrientation("Axial")
    assert viewAlong(volume) is yellow
    yellow.SetSliceOffset(3.0 * (MIDDLE + 1))
    red().SetSliceOffset(3.0 * (MIDDLE - 1))
    wait(lambda: a_widget.ui.previewStatisticsLabel.text.startswith(f"Slice {MIDDLE + 1}\n"))
    yellow.SetOrientation("Sagittal")
    assert viewAlong(volume) is yellow
    for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        node.SetMappedInLayout(node in mapped)
    assert viewAlong(volume) is red()


def test_preview_and_apply_on_surfaces(a_widget, monkeypatch):
    """Converting them to voxels happens once, and does not call for the next preview."""
    surfaces_only(a_widget.parameters.labels)
    taken, take = [], previewer.caseOf
    monkeypatch.setattr(previewer, "caseOf", lambda *nodes: taken.append(nodes) or take(*nodes))
    preview(a_widget)
    assert "PSNR" in a_widget.ui.previewStatisticsLabel.text
    red().SetSliceOffset(3.0 * (MIDDLE + 1))
    wait(lambda: not a_widget.previewer.busy)
    assert a_widget.ui.previewStatisticsLabel.text.startswith(f"Slice {MIDDLE + 1}\n")
    a_widget.ui.applyButton.click()
    assert len(taken) == 1
    assert finish(a_widget).startswith("Done: ")


def test_preview_of_what_cannot_be_protected(a_widget):
    a_widget.parameters.labels.GetSegmentation().RemoveAllSegments()
    assert not a_widget.ui.previewButton.enabled
    a_widget.parameters.labels.GetSegmentation().AddEmptySegment("void", "void")
    a_widget.ui.previewButton.click()
    assert "are empty" in a_widget.ui.previewStatisticsLabel.text
    assert preview_nodes() == []


def test_apply(a_widget):
    volume = a_widget.parameters.volume
    told = []
    a_widget.ui.applyButton.click()
    assert not a_widget.ui.applyButton.enabled
    assert a_widget.ui.cancelButton.enabled
    wait(lambda: told.append((a_widget.ui.progressBar.value, a_widget.ui.statusLabel.text)) or a_widget.task is None)
    assert a_widget.ui.statusLabel.text.startswith("Done: 'Phantom protected'.\nPSNR")
    assert [value for value, _text in told] == sorted(value for value, _text in told)
    assert len({text for _value, text in told}) >= 4
    result = slicer.mrmlScene.GetFirstNodeByName("Phantom protected")
    assert {c.GetBackgroundVolumeID() for c in composites()} == {result.GetID()}
    assert not np.array_equal(slicer.util.arrayFromVolume(result), slicer.util.arrayFromVolume(volume))
    assert a_widget.ui.applyButton.enabled


def test_cancel_ends_the_whole_process_tree(a_widget, stuck_child):
    nodes = node_ids()
    a_widget.ui.applyButton.click()
    waiting = a_widget.task
    wait(lambda: isinstance(waiting._waiting, child.Child))
    psutil = pytest.importorskip("psutil")
    root = psutil.Process(waiting._waiting.pid)
    wait(lambda: root.children(recursive=True))
    family = [root, *root.children(recursive=True)]
    began = time.monotonic()
    a_widget.ui.cancelButton.click()
    assert not a_widget.ui.cancelButton.enabled
    assert finish(a_widget) == "Cancelled. Nothing was kept."
    assert time.monotonic() - began < child.GRACE_S + 2
    _gone, alive = psutil.wait_procs(family, timeout=3)
    assert not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]
    assert node_ids() == nodes


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_child_that_will_not_end_is_killed(a_widget, stuck_child, monkeypatch):
    stuck_child.write_text("import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + STUCK)
    monkeypatch.setattr(child, "GRACE_S", 0.5)
    a_widget.ui.applyButton.click()
    task = a_widget.task
    wait(lambda: isinstance(task._waiting, child.Child) and task._waiting._lines)
    pid = task._waiting.pid
    a_widget.ui.cancelButton.click()
    finish(a_widget)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


ANSWER = 'print(\'{"ok": true, "protected": "here.nrrd", "private": "own"}\', flush=True)'


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize(
    "script",
    [
        f"import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: ({ANSWER}, sys.exit()))\n{STUCK}",
        f"{ANSWER}\n{STUCK}",
    ],
    ids=["done before the signal", "on its way out"],
)
def test_cancelling_what_was_done_already(a_widget, stuck_child, tmp_path, script):
    """Files that were written are told of; what lies in the folder of the job alone goes with it."""
    nodes = node_ids()
    stuck_child.write_text(script)
    ui = a_widget.ui
    ui.exportFolderPath.currentPath, ui.privateFolderPath.currentPath = str(tmp_path / "share"), str(tmp_path / "own")
    for button, said in (
        (ui.exportButton, "Written: here.nrrd. Keep own to yourself."),
        (ui.applyButton, "Cancelled. Nothing was kept."),
    ):
        button.click()
        task = a_widget.task
        wait(lambda task=task: isinstance(task._waiting, child.Child) and task._waiting._lines)
        ui.cancelButton.click()
        assert finish(a_widget) == said
    assert node_ids() == nodes


def test_a_failing_job_says_why_and_keeps_nothing(a_widget):
    nodes = node_ids()
    a_widget.ui.strengthSelector.currentIndex = 1
    a_widget.ui.targetPSNRSpinBox.value = 90.0
    a_widget.ui.profilePath.currentPath = "nowhere.medprotect"
    a_widget.ui.applyButton.click()
    text = finish(a_widget)
    assert "no such profile" in text
    assert "--" not in text
    assert "\n" not in text
    assert node_ids() == nodes
    assert a_widget.ui.applyButton.enabled


def test_a_crashing_child_is_told(a_widget, stuck_child):
    stuck_child.write_text("raise SystemExit('the disk is on fire')")
    a_widget.ui.applyButton.click()
    assert "the disk is on fire" in finish(a_widget)


@pytest.mark.parametrize("missing", ["torch", "packages"])
def test_missing_dependency(a_widget, monkeypatch, missing):
    from MedProtectSlicer import dependencies

    if missing == "torch":
        find = dependencies.importlib.util.find_spec
        monkeypatch.setattr(dependencies.importlib.util, "find_spec", lambda name: None if name == "torch" else find(name))
    else:
        monkeypatch.setattr(dependencies, "_satisfied", lambda line: "nibabel" not in line)
    a_widget.ui.applyButton.click()
    assert a_widget.task is None
    text = a_widget.ui.statusLabel.text
    assert ("extension 'PyTorch'" if missing == "torch" else "nibabel>=") in text
    a_widget.ui.previewButton.click()
    assert not a_widget.ui.previewButton.checked


def fake_packaging(monkeypatch, install) -> list:
    """slicer.packaging as Slicer 5.12 has it; ``install`` is what its pip_ensure does."""
    asked = []

    def pip_ensure(requirements, **options):
        asked.append((requirements, options))
        install()

    module = ModuleType("slicer.packaging")
    module.load_requirements, module.pip_ensure = Path, pip_ensure
    monkeypatch.setitem(sys.modules, "slicer.packaging", module)
    return asked


def test_packages_are_installed_by_slicer_packaging(a_scene, monkeypatch):
    from MedProtectSlicer import dependencies

    there = []
    monkeypatch.setattr(dependencies, "_satisfied", lambda line: bool(there) or "nibabel" not in line)
    asked = fake_packaging(monkeypatch, lambda: there.append(1))
    dependencies.ensureDependencies()
    ((requirements, options),) = asked
    assert requirements == dependencies.REQUIREMENTS
    assert {"torch", "numpy", "SimpleITK"} <= set(options["skip_packages"])
    dependencies.ensureDependencies()
    assert len(asked) == 1, "nothing is asked when nothing is missing"


def test_who_declines_is_told_what_is_missing(a_scene, monkeypatch):
    from MedProtectSlicer import dependencies

    def decline():
        raise RuntimeError("declined")

    monkeypatch.setattr(dependencies, "_satisfied", lambda line: "nibabel" not in line)
    fake_packaging(monkeypatch, decline)
    with pytest.raises(MedProtectError, match=r"nibabel>=5\.2\. Nothing was done"):
        dependencies.ensureDependencies()


@of_stand_ins("an application that answers questions")
def test_older_slicer_installs_with_its_own_pip(a_scene, monkeypatch):
    from MedProtectSlicer import dependencies

    there = []
    monkeypatch.setitem(sys.modules, "slicer.packaging", None)
    monkeypatch.setattr(dependencies, "_satisfied", lambda line: bool(there) or "nibabel" not in line)
    monkeypatch.setattr(slicer.app, "testing", False)
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text: "nibabel" in text)
    monkeypatch.setattr(slicer.util, "pip_install", there.extend)
    dependencies.ensureDependencies()
    assert there[0] == "nibabel>=5.2"
    assert f"torch=={version('torch')}" in there, "what others have installed is held where it is"
    assert all("==" in line for line in there[1:])


def test_torch_comes_from_its_extension(a_scene, monkeypatch):
    from MedProtectSlicer import dependencies

    find, asked = dependencies.importlib.util.find_spec, []
    monkeypatch.setattr(dependencies.importlib.util, "find_spec", lambda name: None if name == "torch" else find(name))
    module = ModuleType("PyTorchUtils")
    module.PyTorchUtilsLogic = lambda: SimpleNamespace(installTorch=lambda **options: asked.append(options))
    monkeypatch.setitem(sys.modules, "PyTorchUtils", module)
    with pytest.raises(MedProtectError, match="PyTorch was not installed"):
        dependencies.ensureDependencies()
    assert asked == [{"askConfirmation": True, "torchVersionRequirement": ">=2.4"}]


def longest_block(widget) -> float:
    """Seconds that the event loop took at most for one round, until no job is running."""
    longest = 0.0
    while widget.task is not None:
        began = time.perf_counter()
        slicer.app.processEvents()
        longest = max(longest, time.perf_counter() - began)
        time.sleep(0.001)
    return longest


@pytest.mark.parametrize("job", ["apply", "fit"])
def test_a_job_never_blocks_the_panel(a_widget, tmp_path, job):
    """The best of three runs: other programs can only make it worse."""
    blocks = []
    for run in range(3):
        a_widget.ui.fitProfilePath.currentPath = str(tmp_path / f"{run}.medprotect")
        a_widget.ui.fitStepsSpinBox.value = 1
        began = time.perf_counter()
        getattr(a_widget.ui, f"{job}Button").click()
        blocks.append(max(time.perf_counter() - began, longest_block(a_widget)))
        assert a_widget.ui.statusLabel.text.startswith(("Done", "Fitted"))
        if blocks[-1] < LONGEST_BLOCK_S:
            return
    pytest.fail(f"the GUI thread was blocked for {min(blocks):.3f} s")


def often_without_lock(*_arguments) -> None:
    """Work that lets go of Python's lock again and again, as calls of numpy and torch do, and needs it back every time."""
    for _ in range(100):
        time.sleep(0.0005)
    raise MedProtectError("done")


@pytest.mark.skipif(sys.platform == "win32", reason="usleep")
@pytest.mark.parametrize("what", ["preview", "job"])
def test_threads_get_on_although_the_event_loop_holds_pythons_lock(a_widget, monkeypatch, what):
    if what == "preview":
        monkeypatch.setattr(previewer, "_slab", often_without_lock)
        red().SetSliceOffset(3.0 * MIDDLE)
        a_widget.ui.previewButton.click()
    else:
        monkeypatch.setattr(logic, "_stage", often_without_lock)
        a_widget.ui.applyButton.click()
    ticks = []
    while a_widget.task is not None or a_widget.previewer.busy:
        idle(POLL_MS / 1000)
        began = time.perf_counter()
        a_widget._onTimer()
        ticks.append(time.perf_counter() - began)
    assert "done" in (a_widget.ui.previewStatisticsLabel.text, a_widget.ui.statusLabel.text)
    assert len(ticks) < 50, "without a break at every tick it gets the lock once a tick"
    assert sorted(ticks)[len(ticks) // 2] < LONGEST_TICK_S


def test_closing_the_scene_in_the_middle_of_it_all(a_widget, stuck_child):
    preview(a_widget)
    a_widget.ui.applyButton.click()
    task = a_widget.task
    wait(lambda: isinstance(task._waiting, child.Child))
    pid = task._waiting.pid
    slicer.mrmlScene.Clear(False)
    finish(a_widget)
    assert gone(pid)
    assert a_widget.parameters.volume is None
    assert not a_widget.ui.previewButton.checked
    assert not a_widget.ui.applyButton.enabled
    volume, _segmentation = phantom()
    show(volume)
    a_widget.enter()
    assert a_widget.ui.volumeSelector.currentNode() is volume
    preview(a_widget)
    assert a_widget.ui.previewStatisticsLabel.text.startswith(f"Slice {MIDDLE}\n")


def test_closing_the_scene_ends_no_job_that_can_do_without(a_widget, stuck_child, tmp_path):
    a_widget.ui.auditFolderPath.currentPath, a_widget.ui.auditOutputPath.currentPath = str(tmp_path), str(tmp_path / "audit")
    a_widget.ui.auditButton.click()
    task = a_widget.task
    wait(lambda: isinstance(task._waiting, child.Child))
    slicer.mrmlScene.Clear(False)
    assert a_widget.task is task
    assert not task.cancelled
    assert a_widget.ui.cancelButton.enabled
    a_widget.ui.cancelButton.click()
    assert finish(a_widget).startswith("Cancelled")


def test_an_export_outlives_its_scene(a_widget, tmp_path):
    ui, volume = a_widget.ui, a_widget.parameters.volume
    expected = slicer.util.arrayFromVolume(a_widget.logic.protect(volume, a_widget.parameters.labels).volume).copy()
    ui.exportFolderPath.currentPath, ui.privateFolderPath.currentPath = str(tmp_path / "share"), str(tmp_path / "own")
    ui.exportButton.click()
    del volume
    slicer.mrmlScene.Clear(False)
    assert finish(a_widget).startswith("Written: ")
    assert np.array_equal(read_volume(tmp_path / "share" / "Phantom_protected.nrrd").array, expected)


def test_removing_the_volume_ends_its_preview(a_widget):
    preview(a_widget)
    slicer.mrmlScene.RemoveNode(a_widget.parameters.volume)
    wait(lambda: not a_widget.previewer.busy)
    assert preview_nodes() == []
    assert not a_widget.ui.applyButton.enabled


def test_cleanup_ends_the_job(a_widget, stuck_child):
    a_widget.ui.applyButton.click()
    task = a_widget.task
    wait(lambda: isinstance(task._waiting, child.Child))
    pid = task._waiting.pid
    a_widget.cleanup()
    assert gone(pid)


def test_export(a_widget, tmp_path):
    ui = a_widget.ui
    ui.exportButton.click()
    assert ui.statusLabel.text == "Choose the folder for the protected volume."
    ui.exportFolderPath.currentPath = str(tmp_path / "share")
    ui.exportButton.click()
    assert "Choose a private folder" in ui.statusLabel.text
    ui.privateFolderPath.currentPath = str(tmp_path / "own")
    ui.exportButton.click()
    assert finish(a_widget).startswith(f"Written: {tmp_path / 'share' / 'Phantom_protected.nrrd'}.")
    assert sorted(p.name for p in (tmp_path / "share").iterdir()) == ["Phantom_protected.nrrd", "Phantom_record.json"]
    assert (tmp_path / "own" / "Phantom_report.html").is_file()


def test_fit_and_use_the_profile(a_widget, tmp_path):
    ui = a_widget.ui
    ui.fitButton.click()
    assert ui.statusLabel.text == "Choose the profile file to write."
    ui.fitProfilePath.currentPath = str(tmp_path / "own.medprotect")
    ui.fitStepsSpinBox.value = 2
    ui.fitButton.click()
    assert finish(a_widget).startswith("Fitted: ")
    assert a_widget.parameters.profile == ui.profilePath.currentPath == str(tmp_path / "own.medprotect")


def test_fit_can_be_cancelled(a_widget, stuck_child, tmp_path):
    a_widget.ui.fitProfilePath.currentPath = str(tmp_path / "own.medprotect")
    a_widget.ui.fitButton.click()
    wait(lambda: a_widget.ui.statusLabel.text.startswith("Fitting 1/9"))
    a_widget.ui.cancelButton.click()
    assert finish(a_widget).startswith("Cancelled")
    assert not Path(tmp_path / "own.medprotect").exists()


@of_stand_ins("a module widget that can be reloaded by hand")
def test_reload_reads_the_library_again(a_widget, monkeypatch):
    """By Slicer's own reloadScriptedModule, which runs MedProtect.py again and asks the module's widget to make a new panel."""
    import MedProtectSlicer.reload as module

    kept = {name: value for name, value in sys.modules.items() if name.partition(".")[0] in (*module.PACKAGES, "MedProtect")}
    reloaded = []
    a_widget.parent.reload = lambda: reloaded.append(sys.modules["MedProtect"])
    monkeypatch.setattr(slicer.modules.medprotect, "widgetRepresentation", lambda: a_widget.parent, raising=False)
    monkeypatch.setattr(slicer.modules, "MedProtectWidget", a_widget, raising=False)
    try:
        a_widget.onReload()
        (fresh,) = reloaded
        assert fresh.MedProtectWidget is not type(a_widget)
        assert sys.modules["MedProtectLib"] is not kept["MedProtectLib"]
    finally:
        sys.modules.update(kept)


@of_stand_ins("a Sample Data that remembers what was registered")
def test_sample_data_is_what_the_project_ships(a_scene):
    import MedProtect
    from slicer_harness.install import SampleDataLogic

    MedProtect.MedProtect(SimpleNamespace(path=slicer.modules.medprotect.path))
    slicer.app.startup[-1]()
    source = SampleDataLogic.registered[-1]
    sums = (Path(slicer.modules.medprotect.path).parents[1] / "Resources" / "SampleData" / "SHA256SUMS").read_text(encoding="utf-8")
    listed = {line.split()[1]: line.split()[0] for line in sums.splitlines()}
    bundled = [listed[f"totalseg_ct/{name}"] for name in ("ct.nii.gz", "labels.seg.nrrd")]
    assert source["checksums"] == [f"SHA256:{sha256}" for sha256 in bundled]
    assert [hashlib.sha256(urllib.request.urlopen(uri).read()).hexdigest() for uri in source["uris"]] == bundled
    assert Path(source["thumbnailFileName"]).is_file()
