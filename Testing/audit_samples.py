"""Small data for the tests of the audit: bundled cases, crops that train in seconds."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np

from MedProtectLib.audit.data import AuditCase, AuditData, as_pictures, load_dataset
from MedProtectLib.audit.settings import setting_of
from MedProtectLib.fitting.dataset import CaseFiles
from MedProtectLib.volume import Geometry, LabelMap, Volume
from MedProtectLib.window import IntensityWindow
from samples import SAMPLES


@cache
def nodules() -> AuditData:
    """The bundled nodules: 3D, CT, one class."""
    data = load_dataset(SAMPLES / "lidc_nodules")
    cases = {split: cases[:4] for split, cases in data.cases.items()}
    return replace(data, cases=cases, setting=replace(data.setting, size=(16, 32, 32), width=4, batch=2, steps=4))


@cache
def nodule_slices() -> AuditData:
    """Labelled slices of all bundled nodules as pictures."""
    data = as_pictures(load_dataset(SAMPLES / "lidc_nodules"))
    return replace(data, setting=replace(data.setting, size=(32, 32), resized=False, width=8, batch=8, steps=120, rate=3e-3))


@cache
def pictures() -> AuditData:
    """Made pictures 24x24 with the classes '0' and '1' for classification: bright and dark halves."""
    rng = np.random.default_rng(0)
    cases = {
        split: [_picture(f"{split}_{n}", n % 2, rng) for n in range(count)] for split, count in (("train", 12), ("val", 4), ("test", 8))
    }
    setting = replace(setting_of("medmnist"), size=(16, 16), width=8, batch=8, steps=30)
    return AuditData("made", "classification", 2, 1, ("0", "1"), False, setting, cases)


def _picture(name: str, number: int, rng: np.random.Generator) -> AuditCase:
    array = rng.integers(0, 60, (1, 24, 24)).astype(np.uint8)
    array[:, :, 12 * number : 12 * number + 12] += 120
    geometry = Geometry((24, 24, 1), dimension=2)
    labels = LabelMap.of_image_class(str(number), geometry)
    return AuditCase(
        CaseFiles(name, SAMPLES / "none.npz", image_class=str(number)),
        Volume(array, geometry, name, photograph=True),
        labels,
        np.array(number),
        (IntensityWindow(0.0, 255.0),),
    )
