"""How long the Slicer module's preview takes, and how long its GUI thread is ever busy: ``python Testing/Benchmarks/module_speed.py``.

Runs the real panel in the widget harness on the full-size chest CT of a shared data folder (lidc_ct_full), or on the bundled CT. The event
loop holds Python's lock while it idles, as Slicer's does.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "Testing"), str(ROOT)]

import numpy as np
import SimpleITK as sitk
import slicer

from slicer_harness.fixtures import SAMPLE, idle, load_segmentation, load_volume, new_panel, show
from slicer_harness.install import install

IDLE_S = 0.025  # from one tick of the module's timer to the next


def full_ct(shared: Path, folder: Path) -> tuple[Path, Path]:
    """The chest CT as NRRD and its nodule mask, from the DICOM archive."""
    source = shared / "lidc_ct_full"
    with ZipFile(next(source.glob("*_dicom.zip"))) as archive:
        archive.extractall(folder)
    parents = {path.parent for path in folder.rglob("*.dcm")} or {path.parent for path in folder.rglob("*") if path.is_file()}
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(max((sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(p)) for p in parents), key=len))
    sitk.WriteImage(sitk.Cast(reader.Execute(), sitk.sitkInt16), str(folder / "chest.nrrd"), True)
    return folder / "chest.nrrd", next(source.glob("*_mask.nii.gz"))


def segmentation_of(mask: Path) -> Any:
    labels = load_volume(mask, "mask", "vtkMRMLLabelMapVolumeNode")
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "nodule")
    slicer.modules.segmentations.logic().ImportLabelmapToSegmentationNode(labels, node)
    slicer.mrmlScene.RemoveNode(labels)
    return node


def gaps_until(done: Callable[[], bool]) -> list[float]:
    """Seconds that each round of the event loop took, until something is true."""
    gaps = []
    while not done():
        began = time.perf_counter()
        slicer.app.processEvents()
        gaps.append(time.perf_counter() - began)
        idle(IDLE_S)
    return gaps


def timed(action: Callable[[], None], done: Callable[[], bool]) -> dict[str, float]:
    """Seconds until an action has its effect, and the longest time that the GUI thread did not answer."""
    began = time.perf_counter()
    action()
    first = time.perf_counter() - began
    gaps = gaps_until(done)
    return {"seconds": round(time.perf_counter() - began, 3), "longest_block_ms": round(1000 * max([first, *gaps]), 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared" / "data")
    arguments = parser.parse_args()
    application = install()
    import skimage.metrics  # noqa: F401
    import torch

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if (arguments.shared / "lidc_ct_full").is_dir():
            image, mask = full_ct(arguments.shared, folder / "dicom")
            volume, segmentation = load_volume(image, "chest"), segmentation_of(mask)
        else:
            volume, segmentation = load_volume(SAMPLE / "ct.nii.gz", "ct"), load_segmentation(SAMPLE / "labels.seg.nrrd", "organs")
        show(volume)
        panel = new_panel()
        ui, red = panel.ui, slicer.mrmlScene.GetNodeByID("vtkMRMLSliceNodeRed")
        array = slicer.util.arrayFromVolume(volume)
        inside = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segmentation.GetSegmentation().GetNthSegmentID(0), volume)
        middle = int(np.argmax(inside.sum(axis=(1, 2))))

        def go(k: int) -> None:
            red.SetSliceOffset(volume.GetOrigin()[2] + k * volume.GetSpacing()[2])

        def idle() -> bool:
            return not panel.previewer.busy

        go(middle)
        report: dict[str, Any] = {"volume": list(array.shape), "torch_threads": torch.get_num_threads()}
        report["first preview"] = timed(lambda: setattr(ui.previewButton, "checked", True), idle)
        report["said"] = ui.previewStatisticsLabel.text.splitlines()[:2]
        report["next slice"] = timed(lambda: go(middle + 1), idle)
        report["component hidden"] = timed(lambda: ui.firstCheckBox.click(), idle)
        report["before / after"] = timed(lambda: ui.afterButton.click(), idle)
        ui.previewButton.checked = False
        report["apply"] = timed(lambda: ui.applyButton.click(), lambda: panel.task is None)
        report["status"] = ui.statusLabel.text.splitlines()[0]
        ui.fitProfilePath.currentPath = str(folder / "own.medprotect")
        ui.fitStepsSpinBox.value = 5
        panel.parameters.volume = volume
        report["fit, 5 steps"] = timed(lambda: ui.fitButton.click(), lambda: panel.task is None)
        report["fit status"] = ui.statusLabel.text.splitlines()[0][:60]
        panel.cleanup()
        application.close()
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
