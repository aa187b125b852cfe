"""Fixtures for tests on MRML: a fresh scene with its module, and nodes to work on."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slicer_harness.require import inside_slicer

STUCK = 'import sys, time\nprint(\'{"stage": "fit", "done": 1, "total": 9}\', file=sys.stderr, flush=True)\ntime.sleep(600)\n'
SAMPLE = Path(__file__).parents[2] / "Resources" / "SampleData" / "totalseg_ct"


@pytest.fixture
def a_scene() -> Iterator[Any]:
    """An empty scene with three slice views: Slicer's own, or one of the harness."""
    import slicer

    if inside_slicer():
        slicer.mrmlScene.Clear(False)
        yield slicer.mrmlScene
        slicer.mrmlScene.Clear(False)
        return
    from slicer_harness.install import install

    application = install()
    yield application.scene
    application.close()


@pytest.fixture
def a_logic(a_scene: Any) -> Any:
    from MedProtect import MedProtectLogic

    return MedProtectLogic()


@pytest.fixture
def a_phantom(a_scene: Any) -> tuple[Any, Any]:
    """A small volume and its segmentation."""
    from MedProtectSlicer.selftest import phantom

    return phantom()


@pytest.fixture
def a_ct(a_scene: Any) -> tuple[Any, Any]:
    """The bundled CT and its segmentation, read by MRML's own storage nodes."""
    return load_volume(SAMPLE / "ct.nii.gz", "ct"), load_segmentation(SAMPLE / "labels.seg.nrrd", "organs")


@pytest.fixture
def a_widget(a_phantom: tuple[Any, Any]) -> Iterator[Any]:
    """The module's panel on a scene with a phantom, shown in every slice view."""
    import slicer

    widget = new_panel()
    show(a_phantom[0])
    yield widget
    widget.cleanup()
    widget.parent.deleteLater()
    slicer.app.processEvents()


@pytest.fixture
def stuck_child(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A library whose commands start a helper, tell of one step and never end; its ``__main__.py``."""
    from MedProtectSlicer import child

    package = tmp_path / "stuck" / "MedProtectLib"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    script = package / "__main__.py"
    script.write_text("import subprocess, sys\nhelper = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n" + STUCK)
    monkeypatch.setattr(child, "_environment", lambda: {**os.environ, "PYTHONPATH": str(package.parent)})
    return script


def finish(widget: Any) -> str:
    """Wait for the panel's job; what it says then."""
    wait(lambda: widget.task is None)
    text: str = widget.ui.statusLabel.text
    return text


def new_panel() -> Any:
    """The panel as Slicer makes it when the module is opened."""
    import qt
    import slicer

    from MedProtect import MedProtectWidget

    parent = slicer.qMRMLWidget()
    parent.setLayout(qt.QVBoxLayout())
    parent.setMRMLScene(slicer.mrmlScene)
    widget = MedProtectWidget(parent)
    widget.setup()
    return widget


def load_volume(path: Path, name: str, class_name: str = "vtkMRMLScalarVolumeNode") -> Any:
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass(class_name, name)
    storage = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVolumeArchetypeStorageNode")
    storage.SetFileName(str(path))
    assert storage.ReadData(node)
    node.SetAndObserveStorageNodeID(storage.GetID())
    node.CreateDefaultDisplayNodes()
    return node


def load_segmentation(path: Path, name: str) -> Any:
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    storage = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
    storage.SetFileName(str(path))
    assert storage.ReadData(node)
    node.CreateDefaultDisplayNodes()
    return node


def a_transform(matrix: np.ndarray, *nodes: Any) -> Any:
    """A linear transform node above some nodes."""
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    for below in nodes:
        below.SetAndObserveTransformNodeID(node.GetID())
    return node


def surfaces_only(segmentation: Any) -> None:
    """Leave a segmentation nothing but closed surfaces, as structures read from DICOM have."""
    segmentation.CreateClosedSurfaceRepresentation()
    segmentation.GetSegmentation().SetSourceRepresentationName("Closed surface")
    segmentation.GetSegmentation().RemoveRepresentation("Binary labelmap")


def node_ids() -> set[str]:
    """Every node of the scene."""
    import slicer

    return {slicer.mrmlScene.GetNthNode(i).GetID() for i in range(slicer.mrmlScene.GetNumberOfNodes())}


def segment_id(segmentation: Any, name: str) -> str:
    from MedProtectSlicer.nodes import segmentsOf

    return next(i for i, known in segmentsOf(segmentation) if known == name)


def show(volume: Any) -> None:
    """Put a volume into the background of every slice view."""
    import slicer

    for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        composite.SetBackgroundVolumeID(volume.GetID())


def wait(until: Any, seconds: float = 90.0) -> None:
    """Let Qt work until something is true."""
    import slicer

    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, "it did not come to an end"
        slicer.app.processEvents()
        time.sleep(0.002)


def idle(seconds: float) -> None:
    """Idle as Slicer's event loop does: in C++, without letting go of Python's lock. No thread of Python gets on meanwhile."""
    ctypes.PyDLL(None).usleep(round(1e6 * seconds))  # unlike CDLL it keeps the lock during a call
