"""Labels that lie where a dataset of class folders has images: a folder of masks is no class, and a mask is no image."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from MedProtectLib.errors import MedProtectError

FOLDER = re.compile(r"(labels?|masks?|segs?|segmentations?|annotations?|contours|gt|ground_?truth)(tr|ts|val)?", re.IGNORECASE)
ENDING = re.compile(r"[ _-](masks?|segs?|segmentations?|labels?|gt)([ _-]?\d+)?", re.IGNORECASE)
ADVICE = "Put images and label maps of equal names into folders 'images' and 'labels', or name both in a CSV manifest."


def check_no_labels(folder: Path, image_class: str, stems: Collection[str]) -> None:
    """Refuse a class folder that seems to hold label maps, which would be taken for images of a class of their own.

    ``stems``: the names of the images in the folder, without their extensions.

    Raises:
        MedProtectError: the folder has the name of labels, or a file that of another one with a mark of labels behind it.
    """
    if FOLDER.fullmatch(image_class):
        raise MedProtectError(f"{folder}: '{image_class}' seems to hold label maps and not the images of a class. {ADVICE}")
    known = set(stems)
    for stem in sorted(known):
        mark = next((m for m in ENDING.finditer(stem) if m.end() == len(stem)), None)
        if mark is not None and stem[: mark.start()] in known:
            raise MedProtectError(f"{folder}: '{stem}' seems to be the label map of '{stem[: mark.start()]}', not an image. {ADVICE}")
