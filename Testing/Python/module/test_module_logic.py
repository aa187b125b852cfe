"""The module's logic on real MRML (slicer-core): nodes to volumes, geometry, protecting, result nodes."""

from __future__ import annotations

import ast
import json
import re
import struct
import subprocess
import sys
import unittest
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from slicer_harness.require import of_stand_ins, require_harness

require_harness()

import slicer

import MedProtectLib
from MedProtectLib import MedProtectError, read_labels, read_volume
from MedProtectLib.io.resample import on_grid_of
from MedProtectSlicer import logic
from MedProtectSlicer.child import pythonExecutable
from MedProtectSlicer.formats import ExportFormat
from MedProtectSlicer.nodes import caseOf as case_of
from MedProtectSlicer.nodes import segmentsOf, volumeOf
from MedProtectSlicer.overlay import PreviewOverlay
from MedProtectSlicer.task import Cancelled
from MedProtectSlicer.words import inModuleWords
from slicer_harness.fixtures import SAMPLE, a_transform, load_segmentation, load_volume, node_ids, segment_id, surfaces_only

ROOT = Path(__file__).parents[3]
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def classes_of(case) -> np.ndarray:
    return on_grid_of(case.volume.geometry, case.labels)[0].classes()


def oblique() -> np.ndarray:
    """A rotation about two axes with an offset, RAS."""
    a, b = np.radians([20.0, -35.0])
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = about_z @ about_x, (30.0, -20.0, 55.0)
    return matrix


@of_stand_ins("a fresh process with a Slicer in it")
def test_loading_the_module_loads_nothing_heavy():
    script = (
        f"import sys; sys.path[:0] = [{str(ROOT / 'Testing')!r}]\n"
        "from slicer_harness.install import install\n"
        "application = install()\n"
        "import MedProtect\n"
        "heavy = {'torch', 'monai', 'skimage', 'pydicom', 'dask', 'matplotlib', 'nibabel', 'jinja2', 'safetensors'} & set(sys.modules)\n"
        "application.close()\n"
        "sys.exit(' '.join(heavy) or 0)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr[-500:]


def test_a_loaded_case_is_what_the_library_reads(a_ct):
    volume, segmentation = a_ct
    case = case_of(volume, segmentation)
    stored, labels = read_volume(SAMPLE / "ct.nii.gz"), read_labels(SAMPLE / "labels.seg.nrrd")
    assert case.file == SAMPLE / "ct.nii.gz"
    assert case.volume.array.dtype == stored.array.dtype
    assert np.array_equal(case.volume.array, stored.array)
    assert case.volume.geometry.same_grid(stored.geometry)
    assert [s.name for s in case.labels.segments] == [s.name for s in labels.segments]
    assert np.array_equal(classes_of(case), labels.classes())


def test_the_array_is_a_view_and_labels_are_a_copy(a_phantom):
    volume, segmentation = a_phantom
    case = case_of(volume, segmentation)
    assert np.shares_memory(case.volume.array, slicer.util.arrayFromVolume(volume))
    before = classes_of(case).copy()
    inner = slicer.util.arrayFromSegmentInternalBinaryLabelmap(segmentation, segmentation.GetSegmentation().GetNthSegmentID(0))
    inner[:] = 0
    assert np.array_equal(classes_of(case), before)


def test_a_changed_volume_is_not_its_file_any_more(a_ct):
    volume, segmentation = a_ct
    slicer.util.arrayFromVolume(volume)[0, 0, 0] += 1
    slicer.util.arrayFromVolumeModified(volume)
    assert case_of(volume, segmentation).file is None


def test_oblique_volume(a_phantom):
    volume, segmentation = a_phantom
    before = classes_of(case_of(volume, segmentation))
    turned = oblique()
    a_transform(turned, volume, segmentation)
    volume.HardenTransform()
    segmentation.HardenTransform()
    case = case_of(volume, segmentation)
    expected = RAS_TO_LPS @ turned @ np.diag([1.0, 1.0, 3.0, 1.0])
    assert np.allclose(case.volume.geometry.index_to_physical(), expected)
    differing = np.count_nonzero(classes_of(case) != before)
    assert differing <= 0.05 * np.count_nonzero(before), "hardening resamples the segmentation, but must not move it"


@pytest.mark.parametrize("hardened", [False, True], ids=["parent transform", "hardened"])
def test_segmentation_under_a_transform(a_phantom, hardened):
    volume, segmentation = a_phantom
    before = classes_of(case_of(volume, segmentation))
    shift = np.eye(4)
    shift[0, 3] = 5.0  # R: five voxels towards larger i
    a_transform(shift, segmentation)
    if hardened:
        segmentation.HardenTransform()
    moved = classes_of(case_of(volume, segmentation))
    assert np.array_equal(moved[:, :, 5:], before[:, :, :-5])
    assert not moved[:, :, :5].any()


def test_both_under_one_transform(a_phantom):
    volume, segmentation = a_phantom
    before = classes_of(case_of(volume, segmentation))
    a_transform(oblique(), volume, segmentation)
    assert np.array_equal(classes_of(case_of(volume, segmentation)), before)


def test_only_the_volume_under_a_transform(a_phantom):
    volume, segmentation = a_phantom
    before = classes_of(case_of(volume, segmentation))
    shift = np.eye(4)
    shift[1, 3] = 4.0
    a_transform(shift, volume)
    moved = classes_of(case_of(volume, segmentation))
    assert np.array_equal(moved[:, :-4], before[:, 4:])


def test_bending_transform_goes_through_slicers_resampling(a_phantom):
    volume, segmentation = a_phantom
    import vtk

    spline = vtk.vtkThinPlateSplineTransform()
    source, target = vtk.vtkPoints(), vtk.vtkPoints()
    for point in ((0, 0, 0), (48, 0, 0), (0, 40, 0), (0, 0, 36), (48, 40, 36), (24, 20, 18)):
        source.InsertNextPoint(point)
        target.InsertNextPoint(np.add(point, (0, 0, 0) if point[0] != 24 else (3, 0, 0)))
    spline.SetSourceLandmarks(source)
    spline.SetTargetLandmarks(target)
    spline.SetBasisToR()
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode")
    node.SetAndObserveTransformToParent(spline)
    before = classes_of(case_of(volume, segmentation))
    segmentation.SetAndObserveTransformNodeID(node.GetID())
    case = case_of(volume, segmentation)
    assert case.labels.geometry.same_grid(case.volume.geometry)
    centre = np.argwhere(classes_of(case)).mean(axis=0) - np.argwhere(before).mean(axis=0)
    assert centre[2] > 0.5


def test_segmentation_on_another_grid(a_scene, a_phantom):
    volume, _segmentation = a_phantom
    coarse = np.zeros((6, 20, 24), np.uint8)
    coarse[2:4, 8:12, 10:14] = 1
    labels = slicer.util.addVolumeFromArray(coarse, nodeClassName="vtkMRMLLabelMapVolumeNode")
    labels.SetSpacing(2.0, 2.0, 6.0)
    labels.SetOrigin(0.5, 0.5, 1.5)
    other = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "coarse")
    slicer.modules.segmentations.logic().ImportLabelmapToSegmentationNode(labels, other)
    found = classes_of(case_of(volume, other)) > 0
    by_slicer = slicer.util.arrayFromSegmentBinaryLabelmap(other, other.GetSegmentation().GetNthSegmentID(0), volume) > 0
    assert found.sum() == 4 * 8 * 8
    assert np.array_equal(found, by_slicer)


def test_overlapping_segments_keep_their_layers(a_phantom):
    volume, segmentation = a_phantom
    first = segmentation.GetSegmentation().GetNthSegmentID(0)
    ball = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, first, volume)
    half = ball.copy()
    half[:, :, :24] = 0
    second = segmentation.GetSegmentation().AddEmptySegment("half", "half")
    slicer.util.updateSegmentBinaryLabelmapFromArray(half, segmentation, second, volume)
    case = case_of(volume, segmentation)
    assert len(case.labels.layers) == 2
    assert np.array_equal(classes_of(case), np.where(half, 2, ball))
    assert np.array_equal(classes_of(case_of(volume, segmentation, [second])) > 0, half > 0)


def test_segments_that_share_a_layer(a_ct):
    volume, segmentation = a_ct
    chosen = [segment_id(segmentation, name) for name in ("liver", "spleen")]
    case = case_of(volume, segmentation, chosen)
    by_slicer = [slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, i, volume) > 0 for i in chosen]
    assert np.array_equal(classes_of(case), np.where(by_slicer[1], 2, by_slicer[0]))


def test_surface_only_segmentation_is_left_as_it_was(a_phantom):
    volume, segmentation = a_phantom
    before = classes_of(case_of(volume, segmentation)) > 0
    surfaces_only(segmentation)
    found = classes_of(case_of(volume, segmentation)) > 0
    assert np.count_nonzero(found & before) > 0.8 * np.count_nonzero(before)
    assert not segmentation.GetSegmentation().ContainsRepresentation("Binary labelmap")


@pytest.mark.parametrize("moved", [False, True])
def test_converting_surfaces_is_seen_by_nobody(a_phantom, moved):
    """Neither observers of the segmentation nor the scene: the panel would answer with the next conversion."""
    volume, segmentation = a_phantom
    if moved:
        matrix = np.eye(4)
        matrix[0, 3] = 3.0
        a_transform(matrix, segmentation)
    before = classes_of(case_of(volume, segmentation)) > 0
    surfaces_only(segmentation)
    nodes, told = node_ids(), []
    for name in ("SegmentAdded", "SegmentRemoved", "SegmentModified", "SourceRepresentationModified"):
        segmentation.GetSegmentation().AddObserver(getattr(slicer.vtkSegmentation, name), lambda *_, name=name: told.append(name))
    found = classes_of(case_of(volume, segmentation)) > 0
    assert np.count_nonzero(found & before) > 0.8 * np.count_nonzero(before)
    assert told == []
    assert node_ids() == nodes


def test_label_map_volume(a_phantom):
    volume, segmentation = a_phantom
    labels = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
    slicer.modules.segmentations.logic().ExportAllSegmentsToLabelmapNode(
        segmentation, labels, slicer.vtkSegmentation.EXTENT_REFERENCE_GEOMETRY
    )
    assert [i for i, _name in segmentsOf(labels)] == ["1"]
    assert np.array_equal(classes_of(case_of(volume, labels)), classes_of(case_of(volume, segmentation)))


def test_the_labels_of_a_label_map_are_looked_for_once_and_again_after_a_change(a_scene, monkeypatch):
    from MedProtectSlicer import nodes

    labels = slicer.util.addVolumeFromArray(np.array([[[0, 3], [0, 5]]], np.uint8), nodeClassName="vtkMRMLLabelMapVolumeNode")
    looked, really = [], nodes._valuesIn
    monkeypatch.setattr(nodes, "_valuesIn", lambda array: looked.append(1) or really(array))
    for _ in range(3):
        assert [i for i, _name in segmentsOf(labels)] == ["3", "5"]
    assert len(looked) == 1
    slicer.util.arrayFromVolume(labels)[0, 0, 0] = 7
    slicer.util.arrayFromVolumeModified(labels)
    assert [i for i, _name in segmentsOf(labels)] == ["3", "5", "7"]


def test_colour_volume(a_scene):
    colours = slicer.util.addVolumeFromArray(np.zeros((4, 5, 6, 3), np.uint8), nodeClassName="vtkMRMLVectorVolumeNode", name="colours")
    assert volumeOf(colours).array.shape == (4, 5, 6, 3)


def bad_inputs():
    """What to give to protect, and a word of the answer."""
    return {
        "no volume": (lambda v, s: (None, s), "Choose the volume"),
        "no segmentation": (lambda v, s: (v, None), "Choose the segmentation"),
        "labels as image": (lambda v, s: (_label_map(v), s), "is no image"),
        "empty volume": (lambda v, s: (slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "hollow"), s), "no voxels"),
        "no segments": (lambda v, s: (v, slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "bare")), "has no segments"),
        "empty segment": (_with_empty_segment, "are empty"),
        "no segment chosen": (lambda v, s: (v, s, []), "No segment is chosen"),
        "segment gone": (lambda v, s: (v, s, ["gone"]), "has no segment 'gone'"),
        "segment outside": (_moved_away, "elsewhere in space"),
    }


def _label_map(volume):
    return slicer.util.addVolumeFromArray(np.ones((2, 2, 2), np.uint8), nodeClassName="vtkMRMLLabelMapVolumeNode")


def _with_empty_segment(volume, segmentation):
    return volume, segmentation, [segmentation.GetSegmentation().AddEmptySegment("void", "void")]


def _moved_away(volume, segmentation):
    shift = np.eye(4)
    shift[:3, 3] = 500.0
    a_transform(shift, segmentation)
    return volume, segmentation


@pytest.mark.parametrize("what", bad_inputs())
def test_bad_input_is_one_clear_line(a_logic, a_phantom, what):
    make, word = bad_inputs()[what]
    arguments = make(*a_phantom)
    count = slicer.mrmlScene.GetNumberOfNodes()
    with pytest.raises(MedProtectError, match=word) as caught:
        a_logic.protect(*arguments)
    assert "\n" not in str(caught.value)
    assert "--" not in str(caught.value)
    assert slicer.mrmlScene.GetNumberOfNodes() == count


def test_an_option_that_there_is_not_is_one_clear_line(a_logic, a_phantom, tmp_path):
    for start in (
        lambda **option: a_logic.protect(*a_phantom, **option),
        lambda **option: a_logic.fitTask([a_phantom], tmp_path / "p.medprotect", **option),
    ):
        with pytest.raises(MedProtectError, match=r"no option 'scope' here\. Those of the module: method, profile, bound, ") as caught:
            start(scope="image")
        assert "\n" not in str(caught.value)


def test_result_nodes(a_logic, a_phantom):
    volume, segmentation = a_phantom
    volume.GetDisplayNode().SetAutoWindowLevel(False)
    volume.GetDisplayNode().SetWindowLevel(333.0, 44.0)
    transform = a_transform(oblique(), volume, segmentation)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "a study")
    hierarchy.CreateItem(study, volume)
    before = slicer.util.arrayFromVolume(volume).copy()

    result = a_logic.protect(volume, segmentation)

    assert np.array_equal(slicer.util.arrayFromVolume(volume), before)
    assert result.volume.GetName() == "Phantom protected"
    for node in (result.volume, result.perturbation):
        assert node.GetTransformNodeID() == transform.GetID()
        assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == study
        assert np.allclose(node.GetSpacing(), volume.GetSpacing())
        assert np.allclose(node.GetOrigin(), volume.GetOrigin())
    assert (result.volume.GetDisplayNode().GetWindow(), result.volume.GetDisplayNode().GetLevel()) == (333.0, 44.0)
    change = slicer.util.arrayFromVolume(result.volume).astype(int) - before
    assert np.array_equal(change, slicer.util.arrayFromVolume(result.perturbation))
    assert np.abs(change).max() == result.statistics["max_abs_change_units"]
    psnr = slicer.util.arrayFromTableColumn(result.sliceTable, "PSNR (dB)")
    assert psnr.tolist() == pytest.approx([v for v in result.statistics["per_slice_psnr_db"] if v is not None])
    texts = [result.table.GetTable().GetColumn(1).GetValue(row) for row in range(result.table.GetNumberOfRows())]
    assert f"{result.statistics['psnr_db']:.2f} dB" in texts
    series = result.plot.GetNthPlotSeriesNode(0)
    assert (series.GetXColumnName(), series.GetYColumnName()) == ("Slice", "PSNR (dB)")
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(result.plot)) == study


@of_stand_ins("a process in which the stand-ins pass for Slicer")
def test_the_modules_own_test_as_slicer_runs_it():
    """MedProtectTest runs its checks and then the tests of this folder, in one scene that is never made anew; here a few of them."""
    script = (
        f"import sys; sys.path[:0] = [{str(ROOT / 'Testing')!r}]\n"
        "from slicer_harness.install import install\n"
        "application = install()\n"
        "import slicer\n"
        "from types import SimpleNamespace\n"
        "import MedProtect\n"
        "slicer.app.stand_in = False\n"
        "module = MedProtect.MedProtect(SimpleNamespace(path=slicer.modules.medprotect.path))\n"
        "slicer.selfTests['MedProtect'](msec=0, only='oblique or bad_input or starts_with or follow or reload or components')\n"
        "application.close()"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=250)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-1000:]
    (passed,) = re.findall(r"(\d+) passed", run.stdout)
    assert int(passed) >= 12
    assert "needs a module widget that can be reloaded by hand, which only the harness has" in run.stdout


@of_stand_ins("a source tree that is not there")
def test_an_installed_extension_has_no_source_tests(monkeypatch, tmp_path):
    from MedProtectSlicer import selftest

    monkeypatch.setattr(selftest, "_testingFolders", lambda: [tmp_path])
    with pytest.raises(unittest.SkipTest, match="not installed with the extension"):
        selftest.runSourceTests(unittest.TestCase())


def test_removed_volume_loses_no_result(a_logic, a_phantom):
    volume, segmentation = a_phantom
    task = a_logic.protectTask(volume, segmentation)
    task.advance()
    slicer.mrmlScene.RemoveNode(volume)
    slicer.mrmlScene.RemoveNode(segmentation)
    result = task.run()
    assert result.volume.GetScene() is slicer.mrmlScene
    assert result.statistics["changed_voxels"] > 0


def test_a_result_lies_where_the_volume_was_when_it_was_protected(a_logic, a_phantom):
    volume, segmentation = a_phantom
    matrix = np.eye(4)
    matrix[2, 3] = 30.0
    transform = a_transform(matrix, volume, segmentation)
    before = slicer.util.arrayFromVolume(volume).copy()
    task = a_logic.protectTask(volume, segmentation)
    task.advance()
    volume.HardenTransform()
    volume.SetOrigin(0.0, 0.0, 36.0)
    slicer.util.updateVolumeFromArray(volume, before[2:18].copy())
    result = task.run()
    for node in (result.volume, result.perturbation):
        assert slicer.util.arrayFromVolume(node).shape == before.shape
        assert node.GetOrigin() == (0.0, 0.0, 0.0)
        assert node.GetTransformNodeID() == transform.GetID()


@pytest.mark.parametrize("steps", [1, 2])
def test_a_cancel_while_the_result_comes_into_the_scene_leaves_nothing(a_logic, a_phantom, steps):
    task, nodes, seen = a_logic.protectTask(*a_phantom), node_ids(), 0
    while seen < steps:
        before = node_ids()
        assert not task.advance()
        seen += node_ids() != before
    task.stop()
    assert isinstance(task.error, Cancelled)
    assert node_ids() == nodes


def test_voxels_that_are_no_numbers_are_told_under_the_name_of_the_volume(a_logic, a_phantom, tmp_path):
    volume, segmentation = a_phantom
    array = slicer.util.arrayFromVolume(volume).astype(np.float32)
    array[0, 0, :2] = np.nan, np.inf
    slicer.util.updateVolumeFromArray(volume, array)
    for start in (
        lambda: a_logic.protect(volume, segmentation),
        lambda: a_logic.preview(volume, segmentation),
        lambda: a_logic.protectTask(volume, segmentation).run(),
        lambda: a_logic.exportTask(volume, segmentation, tmp_path / "o", tmp_path / "p", fileFormat=ExportFormat.NRRD).run(),
    ):
        with pytest.raises(MedProtectError, match=r"^'Phantom': 2 voxels are infinite or not a number\. Replace them first"):
            start()


def says_ct(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"ElementType", b"Modality = MET_MOD_CT\nElementType", 1))


def has_a_scale(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[112:120] = struct.pack("<2f", 0.5, 10.0)
    path.write_bytes(content)


@pytest.mark.parametrize(("name", "edit"), [("ct.mha", says_ct), ("mr.nii", has_a_scale)])
def test_preview_apply_and_export_agree_on_a_file_that_says_more(a_logic, a_phantom, tmp_path, name, edit):
    phantom, segmentation = a_phantom
    geometry = volumeOf(phantom).geometry
    image = sitk.GetImageFromArray(np.maximum(slicer.util.arrayFromVolume(phantom), -100))
    image.SetSpacing(geometry.spacing)
    image.SetOrigin(geometry.origin)
    image.SetDirection(geometry.direction)
    sitk.WriteImage(image, tmp_path / name)
    edit(tmp_path / name)
    volume = load_volume(tmp_path / name, "loaded")
    applied = slicer.util.arrayFromVolume(a_logic.protectTask(volume, segmentation).run().volume)
    overlay, slab = PreviewOverlay(), a_logic.preview(volume, segmentation).slab(6)
    overlay.show(volume, slab, {}, after=True)
    assert np.array_equal(slicer.util.arrayFromVolume(overlay._nodes["after"]), applied[slab.slices])
    assert (applied != slicer.util.arrayFromVolume(volume)).any()
    overlay.close()
    made = a_logic.exportTask(volume, segmentation, tmp_path / "s", tmp_path / "p", fileFormat=ExportFormat.NRRD).run()
    assert np.array_equal(read_volume(made["protected"]).array, applied)


def test_transparency_is_no_intensity_in_any_format(a_logic, a_scene, tmp_path, monkeypatch):
    """MRML itself reads no PNG here, so the file is named by hand."""
    rng = np.random.default_rng(0)
    picture = np.dstack([rng.integers(20, 200, (40, 48, 3)), rng.integers(1, 250, (40, 48, 1))]).astype(np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(picture, isVector=True), tmp_path / "rgba.png")
    stored = read_volume(tmp_path / "rgba.png")
    volume = slicer.util.addVolumeFromArray(stored.array, name="rgba", nodeClassName="vtkMRMLVectorVolumeNode")
    volume.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(RAS_TO_LPS @ stored.geometry.index_to_physical()))
    monkeypatch.setattr(logic, "caseOf", lambda *nodes: replace(case_of(*nodes), file=tmp_path / "rgba.png"))
    inside = np.zeros((1, 40, 48), np.uint8)
    inside[0, 10:30, 10:40] = 1
    labels = slicer.util.addVolumeFromArray(inside, nodeClassName="vtkMRMLLabelMapVolumeNode", name="lesion")
    labels.CopyOrientation(volume)
    slab = a_logic.preview(volume, labels).slab(0)
    made = a_logic.exportTask(volume, labels, tmp_path / "s", tmp_path / "p", fileFormat=ExportFormat.NRRD).run()
    protected = read_volume(made["protected"]).array
    assert np.array_equal(protected, slab.protected.array)
    assert np.array_equal(protected[..., 3], slicer.util.arrayFromVolume(volume)[..., 3])


def test_profile_of_ones_own_and_strength(a_logic, a_phantom):
    faint = a_logic.protect(*a_phantom, target_psnr=60.0)
    assert faint.statistics["psnr_db"] == pytest.approx(60.0, abs=0.5)
    window = a_logic.protect(*a_phantom, window=(-200.0, 300.0), bound=8 / 255)
    assert window.statistics["window"] == [-200.0, 300.0]
    assert window.statistics["max_abs_change"][0] <= 8 / 255 + 1e-9
    with pytest.raises(MedProtectError, match="no such profile"):
        a_logic.protect(*a_phantom, profile="nowhere.medprotect")


def test_segmentation_file_round_trip(a_ct, tmp_path):
    from MedProtectLib.io.segmentation import write_segmentation

    volume, segmentation = a_ct
    labels = case_of(volume, segmentation).labels
    write_segmentation(labels, tmp_path / "a.seg.nrrd")
    again = read_labels(tmp_path / "a.seg.nrrd")
    assert again.segments == labels.segments
    assert again.geometry.same_grid(labels.geometry)
    assert all(np.array_equal(a, b) for a, b in zip(again.layers, labels.layers, strict=True))
    by_mrml = load_segmentation(tmp_path / "a.seg.nrrd", "again")
    assert by_mrml.GetSegmentation().GetNumberOfSegments() == len(labels.segments)
    liver = segment_id(by_mrml, "liver")
    expected = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment_id(segmentation, "liver"), volume)
    assert np.array_equal(slicer.util.arrayFromSegmentBinaryLabelmap(by_mrml, liver, volume), expected)
    write_segmentation(labels.select(["liver"]), tmp_path / "liver.seg.nrrd")
    alone = read_labels(tmp_path / "liver.seg.nrrd")
    assert [s.name for s in alone.segments] == ["liver"]
    assert np.array_equal(alone.classes() > 0, labels.select(["liver"]).classes() > 0)
    with pytest.raises(MedProtectError, match=r"\.seg\.nrrd"):
        write_segmentation(labels, tmp_path / "a.nrrd")


def command_line(*words: object) -> dict:
    run = subprocess.run(
        [pythonExecutable(), "-m", "MedProtectLib", *map(str, words), "--json"], capture_output=True, text=True, cwd=ROOT, timeout=200
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_console_panel_and_command_line_give_the_same_bytes(a_logic, a_ct, tmp_path):
    volume, segmentation = a_ct
    liver = [segment_id(segmentation, "liver")]
    by_cli = command_line(
        "protect", SAMPLE / "ct.nii.gz", "--labels", SAMPLE / "labels.seg.nrrd", "--segments", "liver",
        "--output", tmp_path / "cli", "--private", tmp_path / "cli private", "--target-psnr", "50.0",
    )  # fmt: skip
    expected = read_volume(by_cli["protected"])

    console = a_logic.protect(volume, segmentation, liver, target_psnr=50.0)
    panel = a_logic.protectTask(volume, segmentation, liver, target_psnr=50.0).run()
    for result in (console, panel):
        assert np.array_equal(slicer.util.arrayFromVolume(result.volume), expected.array)
        assert result.statistics == by_cli["statistics"]

    written = a_logic.exportTask(
        volume, segmentation, tmp_path / "gui", tmp_path / "elsewhere", liver, fileFormat=ExportFormat.ORIGINAL, target_psnr=50.0
    ).run()
    for kind in ("protected", "record"):
        assert Path(written[kind]).name == Path(by_cli[kind]).name
        assert Path(written[kind]).read_bytes() == Path(by_cli[kind]).read_bytes()
    perturbation = "ct_perturbation.nrrd"
    assert (tmp_path / "elsewhere" / perturbation).read_bytes() == (tmp_path / "cli private" / perturbation).read_bytes()
    assert sorted(p.name for p in (tmp_path / "gui").iterdir()) == ["ct_protected.nii.gz", "ct_record.json"]


@pytest.mark.parametrize("name", ["NRRD", "NIFTI"])
def test_export_of_a_volume_without_file(a_logic, a_phantom, tmp_path, name):
    volume, segmentation = a_phantom
    written = a_logic.exportTask(volume, segmentation, tmp_path / "o", tmp_path / "p", fileFormat=ExportFormat[name]).run()
    assert Path(written["protected"]).name == f"Phantom_protected{ExportFormat[name].value}"
    stored = read_volume(written["protected"])
    assert np.array_equal(stored.array, slicer.util.arrayFromVolume(a_logic.protect(volume, segmentation).volume))
    again = load_volume(Path(written["protected"]), "again")
    assert np.allclose(again.GetSpacing(), volume.GetSpacing(), atol=1e-5)


def test_export_never_replaces_without_being_asked(a_logic, a_phantom, tmp_path):
    def export(**options):
        return a_logic.exportTask(*a_phantom, tmp_path / "o", tmp_path / "p", fileFormat=ExportFormat.NRRD, **options).run()

    written = export()
    with pytest.raises(MedProtectError, match="protected already"):
        export()
    assert export(overwrite=True)["statistics"] == written["statistics"]


def test_export_as_the_original_needs_an_original(a_logic, a_phantom, tmp_path):
    with pytest.raises(MedProtectError, match="Choose another format"):
        a_logic.exportTask(*a_phantom, tmp_path / "o", tmp_path / "p", fileFormat=ExportFormat.ORIGINAL).run()
    assert not list(tmp_path.iterdir())


def test_export_keeps_private_files_apart(a_logic, a_phantom, tmp_path):
    for private, word in (("", "Choose a private folder"), (tmp_path / "o", "must not be"), (tmp_path / "o" / "p", "must not be")):
        with pytest.raises(MedProtectError, match=word):
            a_logic.exportTask(*a_phantom, tmp_path / "o", private)
    with pytest.raises(MedProtectError, match="Choose the folder"):
        a_logic.exportTask(*a_phantom, "", tmp_path / "p")


def test_unwritable_folder(a_logic, a_phantom, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MedProtectError, match="not a folder"):
        a_logic.exportTask(*a_phantom, tmp_path / "file", tmp_path / "p", fileFormat=ExportFormat.NRRD).run()


def test_fit_on_the_scene_and_use_it(a_logic, a_phantom, tmp_path):
    volume, segmentation = a_phantom
    assert a_logic.labelledVolumes() == [(volume, segmentation)]
    told = []
    answer = a_logic.fitTask(
        a_logic.labelledVolumes(), tmp_path / "own.medprotect", steps=2, tell=lambda share, text: told.append((share, text))
    ).run()
    assert Path(answer["profile"]) == tmp_path / "own.medprotect"
    assert any(text.startswith("Fitting") for _share, text in told)
    assert all(0 <= share <= 1 for share, _text in told)
    assert a_logic.protect(volume, segmentation, profile=answer["profile"]).statistics["changed_voxels"] > 0


def test_a_fit_that_was_cancelled_goes_on(a_logic, a_phantom, tmp_path):
    work = tmp_path / "own.medprotect.work"
    work.mkdir()
    (work / "000000_0.npy").touch()
    a_logic.fitTask([tuple(a_phantom)], tmp_path / "own.medprotect", steps=1).run()
    assert not work.exists()


def test_fit_refuses_what_it_cannot_do(a_logic, a_scene, tmp_path):
    for dataset, profile, word in (
        ([], tmp_path / "p", "no volume"),
        ("", tmp_path / "p", "Choose the folder"),
        ("x", "", "Choose the profile"),
    ):
        with pytest.raises(MedProtectError, match=word):
            a_logic.fitTask(dataset, profile)
    with pytest.raises(MedProtectError, match="neither a dataset folder"):
        a_logic.fitTask(tmp_path / "nothing", tmp_path / "p.medprotect").run()


def messages_of_the_library():
    """Every text in the library that names an option, with {} for what it fills in; those of releases alone are not for the panel."""
    library, of_releases = Path(MedProtectLib.__file__).parent, {"restore.py", "keys.py", "vault.py"}
    for path in library.rglob("*.py"):
        if "cli" in path.parts or ("release" in path.parts and path.name not in of_releases):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        parts = {id(part) for text in ast.walk(tree) if isinstance(text, ast.JoinedStr) for part in text.values}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                yield "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
                yield node.value


NEVER_GIVEN = "--(class|scope|set|public|regimes|fit-steps|series)\\b|can go on from it|Where 'medprotect release'"


def test_every_message_of_the_library_becomes_a_sentence_of_the_panel(a_scene):
    told = [text for text in messages_of_the_library() if re.search(r"(?<![\w-])--[a-z]|'medprotect ", text) and "\n" not in text]
    assert len(told) > 30
    for text in told:
        said = inModuleWords(text)
        left = re.search(r"--[a-z]+|'medprotect|another (the|Private|Profile|Method)|[Gg]ive the (folder|place)", said)
        assert left is None or re.search(NEVER_GIVEN, text), said


def test_an_existing_file_is_told_in_the_words_of_its_section(a_scene):
    said = inModuleWords("a.nii: this file exists. Use --overwrite to replace it, or choose another --output.")
    assert said == "a.nii: this file exists. Allow it to be replaced, or choose another place."


def test_library_words_become_the_modules(a_scene):
    said = inModuleWords("Allow at least --bound 5/255, or --window LO HI. Fit one with 'medprotect fit' and\n --profile.")
    assert said == "Allow at least Bound 5/255, or Intensity window. Fit one with the section Fit a profile and Profile file."
