"""Decathlon and nnU-Net folders: imagesTr, labelsTr, imagesTs and dataset.json, or images and labels alone; nnU-Net's files end in a
channel number.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import Any

from MedProtectLib.errors import MedProtectError
from MedProtectLib.io import extension_of, stem_of
from MedProtectLib.io.channels import CHANNEL_STEM
from MedProtectLib.io.index import INDEX, labels_by_index, place_of
from MedProtectLib.io.names import part_with_labels
from MedProtectLib.release.case import Item, ReleaseCase
from MedProtectLib.release.fingerprints import Fingerprints
from MedProtectLib.release.layouts.base import (
    Layout,
    entries,
    file_names,
    files_below,
    files_of,
    is_about,
    is_image,
    is_own_file,
    names_of,
    relative,
)

PARTS = ("Tr", "Val", "Ts")
UNDIVIDED = ("",)
SIDECARS = (".json",)


class NnUNet(Layout):
    """Images and labels in folders of their own, with equal names. Test images without labels are unlabelled cases."""

    name = "Decathlon or nnU-Net"

    @classmethod
    def fits(cls, dataset: Path) -> bool:
        return part_with_labels(dataset) is not None

    @property
    def parts(self) -> tuple[str, ...]:
        """What follows "images" and "labels" in the names of its folders."""
        return PARTS if part_with_labels(self.root) == PARTS[0] else UNDIVIDED

    def cases(self) -> Iterator[ReleaseCase]:
        for part in self.parts:
            for name, files, labels in self._paired(part):
                yield self._case(name if part in (PARTS[0], *UNDIVIDED) else f"images{part}/{name}", name, files, labels)

    def _paired(self, part: str) -> Iterator[tuple[str, list[Path], Path | None]]:
        """The cases of a part: name, files of the image, and label map. One with labels counts in whatever format its image is."""
        folder, labels = self.root / f"images{part}", LabelFiles(self.root / f"labels{part}", labels_by_index(self.root, part))
        channels, seen = part == self.parts[0] or self._has_channels, Fingerprints()
        for name, files in grouped(folder, labels, channels):
            seen.add(name)
            yield name, files, labels.of(name) or labels.of(stem_of(files[0]))
        seen.sort()
        for name, files in grouped(folder, labels, channels, _may_be_an_image):
            if name not in seen and (found := labels.of(name)) is not None:
                yield name, files[:1], found

    @cached_property
    def _has_channels(self) -> bool:
        """Whether the labelled training images end in the number of a channel, as far as there are any."""
        numbered = {stem_of(files[0]) != name for name, files, labels in self._paired(self.parts[0]) if labels is not None}
        return True in numbered or not numbered

    def _case(self, case: str, name: str, files: list[Path], labels: Path | None) -> ReleaseCase:
        sources = [relative(p, self.root) for p in files]
        if len(files) > 1:
            group = f"{files[0].parent.name}/{name}{extension_of(files[0])}"
            image = Item(group, group)
        else:
            image = Item(sources[0], sources[0])
        parts = tuple(item for file in files for item in files_of(file, self.root, relative(file, self.root), labels is not None))
        copies = [relative(p, self.root) for p in self._sidecars(name, files)]
        source, label_data = None, None
        if labels is not None:
            source, label_data = names_of(files_of(labels, self.root, relative(labels, self.root)))
            copies += [found for found in (source, label_data) if found is not None]
            copies += [relative(p, self.root) for p in _beside(labels, (name,))]
        items = tuple(Item(c, c) for c in dict.fromkeys(copies))
        return ReleaseCase(case, image, parts, source, copies=items, label_data=label_data)

    @staticmethod
    def _sidecars(name: str, files: list[Path]) -> list[Path]:
        return _beside(files[0], (name, *map(stem_of, files)))

    def check(self) -> None:
        self._index(Fingerprints())
        for part in self.parts:
            self._check_paired(part)

    def _check_paired(self, part: str) -> None:
        """Raises MedProtectError where images have no label map and label maps no image: they may belong together."""
        used, bare = Fingerprints(), ""
        for _, files, labels in self._paired(part):
            if labels is None:
                bare = bare or files[0].name
            else:
                used.add(labels.name)
        used.sort()
        folder = self.root / f"labels{part}"
        other = next((name for name in LabelFiles(folder).names if name not in used), None) if bare else None
        if other is not None:
            raise MedProtectError(
                f"{folder}: '{other}' belongs to no image, and image '{bare}' has no label map. Give images and label maps equal names, or "
                f"name both in {INDEX}."
            )

    def _index(self, released: Fingerprints) -> tuple[bytes, dict[str, Any], dict[str, Any]]:
        """The bytes of the index, its content, and its parts that name images with the ``released`` ones; empty where there is none.

        Raises:
            MedProtectError: it is damaged, or a link out of the dataset.
        """
        path = self.root / INDEX
        if not is_own_file(path, self.root):
            return b"", {}, {}
        content = path.read_bytes()
        try:
            index = json.loads(content)
            kept: dict[str, Any] = {
                key: _kept(index[key], released) for key in ("training", "validation", "test") if isinstance(index.get(key), list)
            }
            if _names_images(index.get("dataset")):
                kept["dataset"] = {case: about for case, about in index["dataset"].items() if _is_released(about["images"][0], released)}
        except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
            raise MedProtectError(f"{path}: not the index of a dataset, or damaged. Repair it or take it away.") from error
        return content, index, kept

    def rewritten(self, released: Fingerprints) -> dict[str, bytes]:
        content, index, kept = self._index(released)
        if not content:
            return {}
        changed: dict[str, Any] = {key: value for key, value in kept.items() if len(value) != len(index[key])}
        training = sum(1 for case in self.cases() if "/" not in case.name and case.labelled and case.image.target in released)
        if "numTraining" in index and index["numTraining"] != training:
            changed["numTraining"] = training
        if "test" in kept and "numTest" in index and index["numTest"] != len(kept["test"]):
            changed["numTest"] = len(kept["test"])
        return {INDEX: (json.dumps(index | changed, indent=4, ensure_ascii=False) + "\n").encode() if changed else content}

    def left_out(self) -> list[str]:
        known = {f"{kind}{part}" for kind in ("images", "labels") for part in self.parts} | {INDEX}
        extra = [p.name for p in entries(self.root) if p.name not in known and not is_about(p)]
        inside = (f"{folder}/{name}" for folder in sorted(known - {INDEX}) for name in file_names(self.root / folder))
        left = [name for name in self.unused(inside) if not (self.root / name).is_dir()]
        folders = (p for folder in sorted(known - {INDEX}) for p in entries(self.root / folder) if p.is_dir())
        return extra + left + self.unused(relative(p, self.root) for folder in folders for p in files_below(folder))


class LabelFiles:
    """The label maps of a folder by their names, kept as short as possible: there may be very many.

    ``paired``: the name of the label map by that of the image, both without extension, where they differ.
    """

    def __init__(self, folder: Path, paired: Mapping[str, str] = MappingProxyType({})) -> None:
        self.folder, self.paired = folder, paired
        self.names = [name for name in file_names(folder) if is_image(folder / name)]

    def of(self, stem: str) -> Path | None:
        """The label map of the image with this name, with any extension."""
        return (self._named(self.paired[stem]) if stem in self.paired else None) or self._named(stem)

    def _named(self, stem: str) -> Path | None:
        place = bisect_left(self.names, stem)
        while place < len(self.names) and self.names[place].startswith(stem):
            if stem_of(self.names[place]) == stem:
                return self.folder / self.names[place]
            place += 1
        return None


def grouped(folder: Path, labels: LabelFiles, channels: bool, fits: Callable[[Path], bool] = is_image) -> Iterator[tuple[str, list[Path]]]:
    """The image files of a folder by case: channel files numbered from 0000 on are one case, unless each has labels of its own.

    Without ``channels`` they are only where they have labels together: the numbers are those of cases.
    """

    def case_of(name: str) -> str:
        stem = stem_of(name)
        channel = CHANNEL_STEM.fullmatch(stem)
        if channel is None or labels.of(stem) or not (channels or labels.of(channel[1])):
            return stem
        return channel[1]

    names = sorted((name for name in file_names(folder) if fits(folder / name)), key=lambda name: (case_of(name), name))
    for case, group in groupby(names, key=case_of):
        files = [folder / name for name in group]
        if len(files) > 1 and stem_of(files[0]) != f"{case}_0000":
            yield from ((stem_of(file), [file]) for file in files)
        else:
            yield case, files


def _may_be_an_image(path: Path) -> bool:
    """Whether a file may be an image of a format that is not known: neither one of a known format nor a sidecar file."""
    return not is_image(path) and extension_of(path) not in SIDECARS


def _names_images(listed: Any) -> bool:
    """Whether the entry "dataset" of an index is nnU-Net's, which names the images of every case, and not words about the dataset."""
    return isinstance(listed, dict) and all(isinstance(about, dict) and bool(about.get("images")) for about in listed.values())


def _beside(path: Path, stems: tuple[str, ...]) -> list[Path]:
    """Sidecar files with one of the names."""
    found = (path.with_name(stem + extension) for stem in dict.fromkeys(stems) for extension in SIDECARS)
    return [p for p in found if p.is_file()]


def _kept(listed: list[Any], released: Fingerprints) -> list[Any]:
    """The entries of an index whose image is released, under its listed name or with the number of its only channel."""
    kept = []
    for entry in listed:
        name = place_of(entry["image"] if isinstance(entry, dict) else entry)
        extension = extension_of(name)
        if name in released or f"{name[: len(name) - len(extension)]}_0000{extension}" in released:
            kept.append(entry)
    return kept


def _is_released(first: Any, released: Fingerprints) -> bool:
    """Whether an image is released whose first channel is this file, alone or together with others."""
    name = place_of(first)
    extension = extension_of(name)
    channel = CHANNEL_STEM.fullmatch(name[: len(name) - len(extension)])
    return name in released or (channel is not None and channel[1] + extension in released)
