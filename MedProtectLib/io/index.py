"""dataset.json, the index of a Decathlon or nnU-Net dataset: which label map belongs to an image where their names do not say it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from MedProtectLib.errors import MedProtectError
from MedProtectLib.io.channels import CHANNEL_STEM
from MedProtectLib.io.names import stem_of
from MedProtectLib.untrusted import LARGEST_TABLE, read_json

INDEX = "dataset.json"


def labels_by_index(dataset: Path, part: str) -> dict[str, str]:
    """The name of the label map in labels``part`` by that of the image in images``part``, both without extension and channel number.

    Pairs of equal names are left out; there is none where the dataset has no index, or a damaged one.
    """
    try:
        index = read_json(dataset / INDEX, "", LARGEST_TABLE)
    except MedProtectError:
        return {}
    places = ((PurePosixPath(place_of(image)), PurePosixPath(place_of(label))) for image, label in _pairs(index))
    folders = (f"images{part}", f"labels{part}")
    named = ((stem_of(image), stem_of(label)) for image, label in places if (str(image.parent), str(label.parent)) == folders)
    return {image: label for image, label in named if image != label}


def place_of(listed: Any) -> str:
    """The path, relative to the dataset, of a file that an index lists."""
    return str(listed).replace("\\", "/").removeprefix("./")


def _pairs(index: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The images, without the number of a channel where that is nnU-Net's, and their label maps."""
    lists = [entries for key in ("training", "validation", "test") if isinstance(entries := index.get(key), list)]
    for entry in (entry for entries in lists for entry in entries):
        if isinstance(entry, dict) and "image" in entry and "label" in entry:
            yield entry["image"], entry["label"]
    cases = index.get("dataset")
    for entry in cases.values() if isinstance(cases, dict) else ():
        if isinstance(entry, dict) and isinstance(images := entry.get("images"), list) and images and "label" in entry:
            image = PurePosixPath(place_of(images[0]))
            channel = CHANNEL_STEM.fullmatch(stem_of(image))
            yield (str(image) if channel is None else str(image.with_name(channel[1] + image.name[len(channel[0]) :]))), entry["label"]
