"""One case of a release: which files of the dataset it is made of, and where each goes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any
from urllib.parse import quote

from MedProtectLib.outputs import RESERVED

LONGEST_NAME = 120


@dataclass(frozen=True)
class Item:
    """A file of the dataset (as an image of DICOM also the folder of a series) and its place in the release, as paths with forward slashes.

    ``target`` is relative to the shareable root; ``source`` to the dataset's folder, or absolute where a manifest says so.
    """

    source: str
    target: str


@dataclass(frozen=True)
class ReleaseCase:
    """A case with everything that leaves the house with it.

    ``image`` is what is read and written: a file, the common name of a group of channel files, the folder of a series, or a
    MedMNIST file (with ``member`` and ``split``). ``image_files`` are the files that it consists of. ``labels`` is the source of
    the label map that it is protected by, ``label_data`` that of its voxels where they are not in it; ``image_class`` is the class
    of the whole image; a case with neither is unlabelled. ``copies`` go out with the same bytes: label maps, sidecar files;
    ``references`` are label objects of DICOM that get new references, and ``withheld`` says why others cannot go out.
    """

    name: str
    image: Item
    image_files: tuple[Item, ...]
    labels: str | None = None
    image_class: str | None = None
    copies: tuple[Item, ...] = ()
    references: tuple[Item, ...] = ()
    member: int | None = None
    split: str = ""
    label_data: str | None = None
    withheld: tuple[str, ...] = ()

    @property
    def labelled(self) -> bool:
        return self.labels is not None or self.image_class is not None

    @property
    def sources(self) -> tuple[str, ...]:
        """Every file that the case is made of, once."""
        named = [item.source for item in (*self.image_files, *self.copies, *self.references)] + (
            [self.labels] if self.labels is not None else []
        )
        return tuple(dict.fromkeys(named))

    @property
    def targets(self) -> tuple[str, ...]:
        """Every file of the case in the release; none for an image inside a MedMNIST file."""
        if self.member is not None:
            return ()
        return tuple(dict.fromkeys(item.target for item in (*self.image_files, *self.copies, *self.references)))

    @property
    def own_targets(self) -> tuple[str, ...]:
        """Those that are of no other case: all but the copies."""
        if self.member is not None:
            return ()
        return tuple(dict.fromkeys(item.target for item in (*self.image_files, *self.references)))

    def label_identity(self, hashes: Mapping[str, str]) -> str:
        """What the case is labelled with, by the SHA-256 of its files; empty for an unlabelled one."""
        if self.labels is None:
            return self.image_class or ""
        return hashes[self.labels] if self.label_data is None else f"{hashes[self.labels]} {hashes[self.label_data]}"

    def as_json(self) -> dict[str, Any]:
        """Values that JSON can hold; what is empty is left out."""
        return {key: value for key, value in asdict(self).items() if value not in (None, (), "")}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> ReleaseCase:
        """The case that :meth:`as_json` wrote. Raises KeyError or TypeError for other content."""
        items = {key: tuple(Item(**item) for item in content.get(key, ())) for key in ("image_files", "copies", "references")}
        withheld = tuple(map(str, content.get("withheld", ())))
        return cls(**{**content, **items, "image": Item(**content["image"]), "withheld": withheld})


def file_name_of(case: str) -> str:
    """A file name for a case: two names never give the same one, and none leaves its folder."""
    safe = quote(case, safe=" +,=()", errors="surrogateescape")
    if safe.startswith(".") or RESERVED.fullmatch(safe):
        safe = f"%{ord(safe[0]):02X}{safe[1:]}"
    if safe.endswith((".", " ")):
        safe = f"{safe[:-1]}%{ord(safe[-1]):02X}"
    return safe if len(safe) <= LONGEST_NAME else f"{safe[:LONGEST_NAME]}%{sha256(os.fsencode(case)).hexdigest()[:16]}"
