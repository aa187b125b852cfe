"""MedMNIST files (.npz), whose images have no files of their own: each has an entry in the vault, bound to its voxels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from MedProtectLib.errors import MedProtectError
from MedProtectLib.io.npz import member_array, member_volume, read_array
from MedProtectLib.release.keys import Key
from MedProtectLib.release.vault import SUFFIX, Entry, applied, best_for, content_sha256

EXTENSION = ".npz"
SPLITS = ("train", "val", "test")


def original_images(protected: Path, vault: Path, key: Key) -> tuple[dict[str, np.ndarray], Entry]:
    """The arrays of images of a protected file with every image restored, by name, and the entry of the last one.

    Raises:
        MedProtectError: an image has no entry, the key does not open it, or no image is there.
    """
    entries: dict[str, list[Path]] = {}
    for path in sorted(vault.rglob(f"*{SUFFIX}")):
        entries.setdefault(path.name.partition(".")[0], []).append(path)
    arrays, entry = {}, None
    for split in SPLITS:
        name = f"{split}_images"
        images = read_array(protected, name).copy()
        for number in range(len(images)):
            volume = member_volume(images, number, f"{protected.name}, {name}[{number}]")
            named = entries.get(content_sha256(volume))
            if named is None:
                raise MedProtectError(f"{volume.name}: no entry in {vault} belongs to this image. It was changed, or another vault has it.")
            entry = Entry.load(best_for(key, named))
            images[number] = member_array(volume.with_array(applied(entry.open(key), volume.array)))
        arrays[name] = images
    if entry is None:
        raise MedProtectError(f"{protected}: it holds no images.")
    return arrays, entry
