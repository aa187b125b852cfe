"""A phantom and what must hold for its result: the same in Slicer and in the harness."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import slicer

from MedProtectSlicer.formats import ExportFormat
from MedProtectSlicer.logic import MedProtectLogic
from MedProtectSlicer.overlay import PreviewOverlay


def phantom() -> tuple[Any, Any]:
    """A noisy ball in air-like surroundings, int16 (k, j, i) = (20, 40, 48), and a segmentation of the ball."""
    k, j, i = np.ogrid[:20, :40, :48]
    inside = ((k - 6) / 4) ** 2 + ((j - 20) / 12) ** 2 + ((i - 24) / 14) ** 2 <= 1
    noise = np.random.default_rng(7).normal(0, 12, inside.shape)
    array = np.where(inside, 60 + noise, -900 + noise).astype(np.int16)
    volume = slicer.util.addVolumeFromArray(array, name="Phantom")
    volume.SetSpacing(1.0, 1.0, 3.0)
    labels = slicer.util.addVolumeFromArray(inside.astype(np.uint8), name="Ball", nodeClassName="vtkMRMLLabelMapVolumeNode")
    labels.SetSpacing(1.0, 1.0, 3.0)
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Phantom segmentation")
    segmentation.CreateDefaultDisplayNodes()
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    slicer.modules.segmentations.logic().ImportLabelmapToSegmentationNode(labels, segmentation)
    slicer.mrmlScene.RemoveNode(labels)
    return volume, segmentation


def checkResult(case: Any, volume: Any, result: Any) -> None:
    """Assertions of a unittest.TestCase on the nodes that protecting a volume has added."""
    before, after = slicer.util.arrayFromVolume(volume), slicer.util.arrayFromVolume(result.volume)
    case.assertEqual(before.dtype, after.dtype)
    case.assertEqual(before.shape, after.shape)
    case.assertTrue(np.array_equal(after.astype(int) - before, slicer.util.arrayFromVolume(result.perturbation)))
    case.assertEqual(int((before != after).sum()), result.statistics["changed_voxels"])
    case.assertGreater(result.statistics["changed_voxels"], 0)
    case.assertEqual(result.statistics["changed_outside_regions"], 0)
    case.assertEqual(result.volume.GetName(), slicer.mrmlScene.GetNodeByID(result.volume.GetID()).GetName())
    case.assertGreater(result.table.GetNumberOfRows(), 5)
    changed = [v for v in result.statistics["per_slice_psnr_db"] if v is not None]
    case.assertEqual(result.sliceTable.GetNumberOfRows(), len(changed))
    case.assertEqual(result.plot.GetNthPlotSeriesNode(0).GetTableNode().GetID(), result.sliceTable.GetID())


def checkPreview(case: Any, volume: Any, segmentation: Any) -> None:
    """Show a slab in the slice views and take it away again."""
    nodes, views = _nodeIDs(), slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    labels = [view.GetLabelVolumeID() for view in views]
    slab = MedProtectLogic().preview(volume, segmentation).slab(6, 3)
    overlay = PreviewOverlay()
    overlay.show(volume, slab, {}, after=True)
    case.assertEqual(len(_nodeIDs() - nodes), 5)
    for view in views:
        case.assertNotEqual(view.GetLabelVolumeID(), view.GetBackgroundVolumeID())
        shown = slicer.util.arrayFromVolume(slicer.mrmlScene.GetNodeByID(view.GetForegroundVolumeID()))
        case.assertTrue(np.array_equal(shown, slab.protected.array))
    overlay.close()
    case.assertEqual(_nodeIDs(), nodes)
    case.assertEqual([view.GetLabelVolumeID() for view in views], labels)


def checkExport(case: Any, volume: Any, segmentation: Any) -> None:
    """Export as NRRD and compare with protecting in this process."""
    from MedProtectLib.io import read_volume

    logic = MedProtectLogic()
    with TemporaryDirectory() as name:
        share, private = Path(name) / "share", Path(name) / "private"
        written = logic.exportTask(volume, segmentation, share, private, fileFormat=ExportFormat.NRRD).run()
        stored = read_volume(written["protected"]).array
        case.assertEqual(len(list(share.iterdir())), 2)
        case.assertTrue((private / "Phantom_report.html").is_file())
    case.assertTrue(np.array_equal(stored, slicer.util.arrayFromVolume(logic.protect(volume, segmentation).volume)))


def runSourceTests(case: Any, only: str = "") -> None:
    """Run the tests of the source tree with pytest, and fail as they do. What cannot be run is said and skipped."""
    folder = next((f for f in _testingFolders() if (f / "Python" / "module").is_dir()), None)
    if folder is None:
        return case.skipTest("Testing/Python/module is not installed with the extension: set MEDPROTECT_TESTING to the source's Testing.")
    if importlib.util.find_spec("pytest") is None:
        return case.skipTest("pytest is not installed in this Python: slicer.util.pip_install('pytest').")
    import pytest

    settings = [
        "-c",
        str(folder.parent / "pyproject.toml"),
        "--rootdir",
        str(folder.parent),
        "-p",
        "no:cacheprovider",
        "-p",
        "no:faulthandler",
    ]
    case.assertEqual(int(pytest.main([*settings, str(folder / "Python" / "module"), *(["-k", only] if only else [])])), 0)


def _testingFolders() -> list[Path]:
    """Where the source's folder Testing may be: named, or two folders above this one in development mode."""
    named = os.environ.get("MEDPROTECT_TESTING")
    return [*([Path(named)] if named else []), Path(__file__).parents[2] / "Testing"]


def _nodeIDs() -> set[str]:
    return {slicer.mrmlScene.GetNthNode(i).GetID() for i in range(slicer.mrmlScene.GetNumberOfNodes())}
