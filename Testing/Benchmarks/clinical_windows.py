"""A lung nodule before and after, as a radiologist reads it: in a lung window and in a narrow mediastinal one.

    python Testing/Benchmarks/clinical_windows.py [--method weave] [--output Resources/Screenshots/clinical_windows.png]

The bundled LIDC-IDRI nodule with the largest labelled slice, protected at 50.1 dB and 8/255 of its own window, as stored. Rows: the
two display windows. Columns: original, protected, and the difference as bright as in that window, times ten.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from MedProtectLib import Protector, read_labels, read_volume

ROOT = Path(__file__).parents[2]
NODULES = ROOT / "Resources" / "SampleData" / "lidc_nodules"
WINDOWS = {"lung, -600 +- 750 HU": (-1350.0, 150.0), "mediastinum, 40 +- 200 HU": (-160.0, 240.0)}
ENLARGED, AMPLIFIED, STRIP = 6, 10, 22


def displayed(units: np.ndarray, low: float, high: float) -> Image.Image:
    """A slice (j, i) in HU as a screen shows it in a window."""
    grey = ((units - low) / (high - low)).clip(0.0, 1.0) * 255
    return Image.fromarray(np.rint(grey).astype(np.uint8)).resize(
        (units.shape[1] * ENLARGED, units.shape[0] * ENLARGED), Image.Resampling.NEAREST
    )


def main() -> None:
    """Protect and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="weave")
    parser.add_argument("--output", type=Path, default=ROOT / "Resources" / "Screenshots" / "clinical_windows.png")
    given = parser.parse_args()
    labels = {path: read_labels(path) for path in sorted((NODULES / "labelsTr").glob("*.nii.gz"))}
    path = max(labels, key=lambda each: labels[each].classes().astype(bool).sum(axis=(1, 2)).max())
    k = int(labels[path].classes().astype(bool).sum(axis=(1, 2)).argmax())
    volume = read_volume(NODULES / "imagesTr" / path.name)
    result = Protector(given.method, bound=8 / 255, target_psnr=50.1, modality="CT").protect(volume, labels[path])
    before, after = (each.in_units(each.channel(0))[k] for each in (volume, result.volume))
    found = result.statistics
    rows = []
    for name, (low, high) in WINDOWS.items():
        difference = displayed((low + high) / 2 + AMPLIFIED * (after - before), low, high)
        images = [displayed(before, low, high), displayed(after, low, high), difference]
        row = Image.new("L", (sum(image.width + 4 for image in images), images[0].height + STRIP), 255)
        for n, image in enumerate(images):
            row.paste(image, (n * (image.width + 4), STRIP))
        caption = f"{name}: original, protected ({given.method}, {found.psnr_db:.1f} dB), difference x {AMPLIFIED}"
        ImageDraw.Draw(row).text((4, 3), caption, 0, ImageFont.load_default(13))
        rows.append(row)
        largest = np.abs(after - before).max()
        print(f"{name}: largest change {largest:.0f} HU, {largest / (high - low):.1%} of the display window")
    whole = Image.new("L", (rows[0].width, sum(row.height for row in rows)), 255)
    for n, row in enumerate(rows):
        whole.paste(row, (0, n * row.height))
    whole.save(given.output, optimize=True)


if __name__ == "__main__":
    main()
