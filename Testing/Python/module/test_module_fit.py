"""The section Fit a profile: which segments and volumes it takes, and what a cancelled fit leaves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from slicer_harness.require import require_harness

require_harness()

import slicer

from MedProtectLib import read_labels
from MedProtectSlicer.parameters import FitOn, skipSegments
from slicer_harness.fixtures import a_transform, finish, segment_id, wait


def test_a_cancelled_fit_says_what_it_has_kept_and_how_to_go_on(a_widget, tmp_path):
    ui, work = a_widget.ui, tmp_path / "own.medprotect.work"
    ui.fitProfilePath.currentPath, ui.fitStepsSpinBox.value = str(tmp_path / "own.medprotect"), 5000

    def cancelled() -> str:
        ui.fitButton.click()
        wait(lambda: ui.statusLabel.text.startswith("Fitting "))
        ui.cancelButton.click()
        return finish(a_widget)

    for _attempt in range(2):
        said = cancelled()
        assert said.startswith(f"Cancelled. What was prepared is kept in {work}, with copies of the images; Fit ")
        assert list(work.glob("*.npy"))
    ui.fitStepsSpinBox.value = 2
    ui.fitButton.click()
    refused = finish(a_widget)
    assert refused.endswith("is here. Use the same to go on with it, or remove the folder first.")
    assert "\n" not in refused


def test_a_fit_that_was_cancelled_before_it_began_keeps_nothing(a_widget, stuck_child, tmp_path):
    a_widget.ui.fitProfilePath.currentPath = str(tmp_path / "own.medprotect")
    a_widget.ui.fitButton.click()
    a_widget.ui.cancelButton.click()
    assert finish(a_widget) == "Cancelled. Nothing was kept."


@pytest.fixture
def asked(stuck_child) -> Path:
    """What the command line was asked for, one word a line, and a copy of the manifest's first labels beside it."""
    stuck_child.write_text(
        "import csv, json, pathlib, shutil, sys\n"
        "here = pathlib.Path(__file__)\n"
        "here.with_name('asked').write_text('\\n'.join(sys.argv[1:]))\n"
        "if sys.argv[2].endswith('.csv'):\n"
        "    row = next(csv.DictReader(open(sys.argv[2])))\n"
        "    shutil.copy(row['labels'], here.with_name('labels.seg.nrrd'))\n"
        "print(json.dumps({'ok': True, 'profile': 'own.medprotect'}))\n"
    )
    return stuck_child.with_name("asked")


def two_segments(widget) -> list[str]:
    """A second segment beside the phantom's ball; the ids of both."""
    segmentation = widget.parameters.labels.GetSegmentation()
    ball = segmentation.GetNthSegmentID(0)
    half = slicer.util.arrayFromSegmentBinaryLabelmap(widget.parameters.labels, ball, widget.parameters.volume).copy()
    half[:, :, :24] = 0
    segmentation.AddEmptySegment("half", "the right half")
    slicer.util.updateSegmentBinaryLabelmapFromArray(half, widget.parameters.labels, "half", widget.parameters.volume)
    return [ball, "half"]


@pytest.mark.parametrize("skipped", [0, 1, None])
def test_fit_takes_the_checked_segments(a_widget, asked, skipped):
    ids = two_segments(a_widget)
    names = [a_widget.parameters.labels.GetSegmentation().GetSegment(i).GetName() for i in ids]
    skipSegments(a_widget.parameters, [] if skipped is None else [ids[skipped]])
    a_widget.ui.fitProfilePath.currentPath = "own.medprotect"
    a_widget.ui.fitButton.click()
    assert finish(a_widget).startswith("Fitted")
    expected = [name for n, name in enumerate(names) if n != skipped]
    assert [s.name for s in read_labels(asked.with_name("labels.seg.nrrd")).segments] == expected
    assert "--segments" not in asked.read_text().splitlines()


def test_a_folder_is_fitted_with_segments_of_the_checked_names(a_widget, asked, tmp_path):
    ids, parameters = two_segments(a_widget), a_widget.parameters
    parameters.fitOn, parameters.fitFolder, parameters.fitProfile = FitOn.FOLDER, str(tmp_path), "own.medprotect"
    a_widget.ui.fitButton.click()
    finish(a_widget)
    assert "--segments" not in asked.read_text().splitlines(), "all are checked"
    skipSegments(parameters, ids[:1])
    a_widget.ui.fitButton.click()
    finish(a_widget)
    words = asked.read_text().splitlines()
    assert words[words.index("--segments") + 1] == "the right half"
    skipSegments(parameters, ids)
    a_widget.ui.fitButton.click()
    assert a_widget.ui.statusLabel.text.startswith("No segment is chosen.")


def test_all_volumes_of_the_scene_are_fitted_with_all_segments(a_widget, asked, tmp_path):
    ids, parameters = two_segments(a_widget), a_widget.parameters
    parameters.fitOn, parameters.fitProfile = FitOn.SCENE, "own.medprotect"
    skipSegments(parameters, ids[:1])
    assert "all segments" in parameters.fitOn.label()
    a_widget.ui.fitButton.click()
    finish(a_widget)
    assert len(read_labels(asked.with_name("labels.seg.nrrd")).segments) == 2


def test_loaded_files_and_imported_labels_belong_to_the_volume_that_has_their_voxels(a_ct, a_logic):
    volume, segmentation = a_ct
    segmentation.GetSegmentation().AddEmptySegment("void", "void")
    segmentation.GetSegmentation().SetSegmentIndex("void", 0)
    assert a_logic.labelledVolumes() == [(volume, segmentation)]
    labels = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
    export = slicer.modules.segmentations.logic()
    export.ExportAllSegmentsToLabelmapNode(segmentation, labels, slicer.vtkSegmentation.EXTENT_REFERENCE_GEOMETRY)
    imported = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "imported")
    export.ImportLabelmapToSegmentationNode(labels, imported)
    assert a_logic.labelledVolumes() == [(volume, segmentation), (volume, imported)]
    a_transform(np.diag([1.0, 1.0, -1.0, 1.0]), imported)
    assert a_logic.labelledVolumes() == [(volume, segmentation)], "it lies elsewhere"


def test_results_are_not_what_a_segmentation_was_drawn_on(a_ct, a_logic):
    volume, segmentation = a_ct
    a_logic.protect(volume, segmentation, [segment_id(segmentation, "liver")])
    assert a_logic.labelledVolumes() == [(volume, segmentation)]
    twin = slicer.util.addVolumeFromArray(slicer.util.arrayFromVolume(volume).copy(), name="another sequence")
    twin.CopyOrientation(volume)
    assert a_logic.labelledVolumes() == [], "nobody can tell which of the two"


def test_the_pair_of_the_panel_is_always_among_the_labelled_volumes(a_widget):
    pair = (a_widget.parameters.volume, a_widget.parameters.labels)
    assert a_widget._labelledVolumes() == [pair]
    pair[1].RemoveNodeReferenceIDs(pair[1].GetReferenceImageGeometryReferenceRole())
    pair[0].SetSpacing(1.0, 1.0, 2.5)
    assert a_widget.logic.labelledVolumes() == []
    assert a_widget._labelledVolumes() == [pair]
