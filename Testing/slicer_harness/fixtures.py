"""Fixtures for tests on MRML: a fresh scene with its module, and nodes to work on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slicer_harness.install import install

SAMPLE = Path(__file__).parents[2] / "Resources" / "SampleData" / "totalseg_ct"


@pytest.fixture
def a_scene() -> Iterator[Any]:
    """An empty scene with three slice views."""
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

    from MedProtect import MedProtectWidget

    widget = MedProtectWidget()
    widget.setup()
    show(a_phantom[0])
    yield widget
    widget.cleanup()
    widget.parent.deleteLater()
    slicer.app.processEvents()


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
