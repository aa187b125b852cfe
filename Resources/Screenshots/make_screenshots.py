"""Make the pictures of this folder: ``python Resources/Screenshots/make_screenshots.py``.

before_after.png and preview.png are blended by MRML's own slice logic (slicer-core) from the nodes that the module makes;
panel.png and panel_sections.png are the module's real panel in the project's widget harness. None of them was made in 3D Slicer itself.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "Testing"), str(ROOT)]

import numpy as np
import slicer
from PIL import Image, ImageDraw, ImageFont
from vtk.util.numpy_support import vtk_to_numpy

from slicer_harness.fixtures import SAMPLE, load_segmentation, load_volume, new_panel, segment_id, show, wait
from slicer_harness.install import install

SIZE = (560, 440)
HERE = Path(__file__).parent
LIVER_SLICE = 15


def picture(view: Any) -> Image.Image:
    """What a slice view shows, blended by MRML."""
    producer = view.GetImageDataConnection().GetProducer()
    producer.Update()
    image = producer.GetOutputDataObject(0)
    width, height, _ = image.GetDimensions()
    rgba = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(height, width, -1)
    return Image.fromarray(np.ascontiguousarray(rgba[::-1, :, :3]))


def captioned(images: list[Image.Image], captions: list[str]) -> Image.Image:
    """Pictures in a row with a line of text below each."""
    strip, font = 26, ImageFont.load_default(15)
    whole = Image.new("RGB", (sum(i.width for i in images) + 6 * (len(images) - 1), images[0].height + strip), "white")
    at = 0
    for image, caption in zip(images, captions, strict=True):
        whole.paste(image, (at, 0))
        ImageDraw.Draw(whole).text((at + 6, image.height + 5), caption, "black", font)
        at += image.width + 6
    return whole


def grab(panel: Any, name: str) -> None:
    """The panel as Qt draws it, with a line that says who drew it."""
    for _ in range(20):
        slicer.app.processEvents()
        time.sleep(0.01)
    panel.parent.grab().save(str(HERE / name))
    captioned([Image.open(HERE / name).convert("RGB")], ["rendered by the test harness, not by 3D Slicer"]).save(HERE / name, optimize=True)


def main() -> None:
    application = install()
    from MedProtectSlicer.parameters import skipSegments

    volume, segmentation = load_volume(SAMPLE / "ct.nii.gz", "CT"), load_segmentation(SAMPLE / "labels.seg.nrrd", "Organs")
    volume.GetDisplayNode().SetAutoWindowLevel(False)
    volume.GetDisplayNode().SetWindowLevel(400.0, 40.0)
    show(volume)
    for view in application.views.values():
        view.ResizeSliceNode(*SIZE)
        view.FitSliceToBackground()
    panel = new_panel()
    panel.parent.resize(460, 960)
    panel.parent.show()
    liver = segment_id(segmentation, "liver")
    skipSegments(panel.parameters, [i for i in segmentation.GetSegmentation().GetSegmentIDs() if i != liver])
    red = application.views["Red"]
    red.SetSliceOffset(volume.GetOrigin()[2] + LIVER_SLICE * volume.GetSpacing()[2])
    before = picture(red)
    panel.ui.previewButton.click()
    wait(lambda: not panel.previewer.busy)
    both = picture(red)
    panel.ui.secondCheckBox.click()
    contour = picture(red)
    panel.ui.firstCheckBox.click()
    panel.ui.secondCheckBox.click()
    texture = picture(red)
    panel.ui.secondCheckBox.click()
    panel.ui.afterButton.click()
    after = picture(red)
    captioned([before, after], ["before", "after: what would be published (4/255 of the window)"]).save(
        HERE / "before_after.png", optimize=True
    )
    captioned([both, contour, texture], ["both components", "contour", "texture"]).save(HERE / "preview.png", optimize=True)
    panel.ui.afterButton.click()
    panel.ui.firstCheckBox.click()
    panel.ui.secondCheckBox.click()
    grab(panel, "panel.png")
    panel.ui.previewButton.click()
    assert np.array_equal(np.asarray(picture(red)), np.asarray(before)), "the views must be as they were"
    sections = {
        name: getattr(panel.ui, f"{name}Section") for name in ("inputs", "protection", "preview", "export", "fit", "audit", "restore")
    }
    for name, section in sections.items():
        section.collapsed = name in ("inputs", "protection", "preview")
    grab(panel, "panel_sections.png")
    panel.cleanup()
    application.close()


if __name__ == "__main__":
    main()
