"""A folder of files that were protected before: which file is which case's, and the bound that its records name."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np

from MedProtectLib.audit.data import SPLITS, AuditCase, AuditData
from MedProtectLib.errors import MedProtectError
from MedProtectLib.io import channel_files, extension_of, read_volume, sha256_file
from MedProtectLib.io.channels import channel_name
from MedProtectLib.io.npz import read_array
from MedProtectLib.levels import find_levels, find_padding
from MedProtectLib.regions import find_regions
from MedProtectLib.release.layouts import find_layout
from MedProtectLib.release.roots import SUMMARY
from MedProtectLib.staging import PROTECTED, RECORD
from MedProtectLib.statistics import Statistics
from MedProtectLib.untrusted import read_json
from MedProtectLib.volume import Volume

MEDMNIST = ".npz"
DAMAGED = "the record is damaged. Move it away and give --bound."


class ReleasedFolder:
    """Finds the protected image of a case.

    Where ``medprotect release`` puts it comes first, with ``<name>_protected`` in front of the original's name; then a name that
    only one file in the folder and only one image of the data set has.
    """

    def __init__(self, folder: Path, data: AuditData) -> None:
        self.folder, self.data = folder, data
        self._found: dict[Path, Path] = {}

    def path_of(self, case: AuditCase) -> Path:
        """The file, the folder of a DICOM series, or the name of a channel group.

        Raises:
            MedProtectError: there is none, or several could be meant.
        """
        image = case.files.image
        if image not in self._found:
            self._found[image] = self._in_place(case) or self._by_name(case)
            if case.files.member is not None:
                _check_members(image, self._found[image])
        return self._found[image]

    def volume_of(self, case: AuditCase) -> Volume:
        """The protected image of a case.

        Raises:
            MedProtectError: as :meth:`path_of`; it cannot be read, or is no image of the original's shape and grid.
        """
        path, original = self.path_of(case), case.volume
        volume = read_image(path, case)
        if (volume.array.shape, len(volume.parts())) != (original.array.shape, len(original.parts())) or not volume.geometry.same_grid(
            original.geometry
        ):
            raise MedProtectError(f"{path}: not on the grid of {case.files.image.name}. Are these the right files?")
        return volume

    def _in_place(self, case: AuditCase) -> Path | None:
        image = case.files.image
        place = self._targets.get(image) or (self._targets.get(image.parent) if case.files.series else None)
        if place is None:
            return None
        target = self.folder / place
        paths = (target.with_name(name) for name in _names(target.name, _place(case).is_dir()))
        return next((path for path in paths if self._can_be(path, case)), None)

    def _by_name(self, case: AuditCase) -> Path:
        place = _place(case)
        grouped = bool(channel_files(place))
        names = _names(place.name, place.is_dir())
        for name in names:
            there = self._called.get(channel_name(Path(name), 0) if grouped else name, [])
            found = [path for other in there if self._can_be(path := other.with_name(name), case)]
            if len(found) > 1 or (found and self._originals[place.name] > 1):
                raise MedProtectError(
                    f"{self.folder}: cannot tell which '{name}' is that of the training case '{case.name}'. Give the files the folders "
                    "that they have in the data set."
                )
            if found:
                return found[0]
        raise MedProtectError(f"{self.folder}: holds no {names[0]} for the training case '{case.name}'. An audit needs all of them.")

    @cached_property
    def _targets(self) -> dict[Path, str]:
        """Where 'medprotect release' puts an image of the data set, by the image."""
        if self.data.source is None:
            return {}
        layout = find_layout(self.data.source)
        return {layout.root / case.image.source: case.image.target for case in layout.cases()}

    @cached_property
    def _called(self) -> dict[str, list[Path]]:
        """All that lies in the folder, by name."""
        called: defaultdict[str, list[Path]] = defaultdict(list)
        for path in sorted(self.folder.rglob("*")):
            called[path.name].append(path)
        return called

    @cached_property
    def _originals(self) -> Counter[str]:
        """How many images of the data set have a name."""
        return Counter(place.name for place in {_place(case) for case in self._cases()})

    @cached_property
    def _label_maps(self) -> set[str]:
        """SHA-256 of the data set's label maps."""
        return {sha256_file(path) for path in {case.files.labels for case in self._cases()} if path is not None}

    def _cases(self) -> Iterator[AuditCase]:
        return (case for split in SPLITS for case in self.data.cases[split])

    def _can_be(self, path: Path, case: AuditCase) -> bool:
        """Whether an image is there that is neither the original itself nor a label map."""
        files = channel_files(path) or ((path,) if path.exists() else ())
        originals = {original.resolve() for original in (_place(case), *case.files.image_files)}
        if not files or any(file.resolve() in originals for file in files):
            return False
        return path.is_dir() or sha256_file(path) not in self._label_maps


def read_image(path: Path, case: AuditCase) -> Volume:
    """The image of a case in another file than the original's: of its own, or one with all images of a MedMNIST data set."""
    if path.suffix.lower() != MEDMNIST:
        return read_volume(path)
    return replace(case.files, image=path, labels=None).read()[0]


def check_change(path: Path, case: AuditCase, statistics: Statistics, bound: float) -> None:
    """Refuse an image that differs from its original by more than a bound and one stored level.

    Raises:
        MedProtectError: it does.
    """
    everywhere = find_regions(np.ones(case.volume.geometry.shape, bool), 0)
    for part, measured in zip(case.volume.parts(), statistics.channels or (statistics,), strict=True):
        width = (measured.window[1] - measured.window[0]) / abs(part.slope)
        level = find_levels(part, find_padding(part), bound * width, everywhere).step / width
        largest = measured.max_abs_change[0]
        if largest > (bound + level) * (1 + 1e-6):
            raise MedProtectError(
                f"{path}: changes by {largest * 255:.3g}/255, more than the bound {bound * 255:.3g}/255: are these the right files? "
                "Give --bound."
            )


def recorded_bounds(folder: Path) -> list[float]:
    """The bounds that the records in a folder name, those of 'medprotect release' and of 'medprotect protect'.

    Raises:
        MedProtectError: a record is damaged.
    """
    summary = folder / SUMMARY
    named = read_json(summary, DAMAGED).get("bounds") if summary.is_file() else None
    bounds = named if isinstance(named, list) else []
    bounds = bounds + [read_json(path, DAMAGED).get("bound") for path in sorted(folder.rglob(f"*{RECORD}"))]
    return sorted({float(bound) for bound in bounds if type(bound) in (int, float)})


def _place(case: AuditCase) -> Path:
    """What an image is in its data set: a file, a channel group, or the folder of a DICOM series that has one for itself."""
    image, series = case.files.image, case.files.series
    return image.parent if series and set(series) == set(image.parent.iterdir()) else image


def _names(name: str, is_folder: bool) -> tuple[str, str]:
    """What the protected version of an image of a name may be called, the surest one first."""
    extension = "" if is_folder else extension_of(name)
    return (f"{name[: len(name) - len(extension)]}_{PROTECTED}{extension}", name)


def _check_members(original: Path, released: Path) -> None:
    """Raises MedProtectError unless two MedMNIST files hold the same images to train on, as their labels tell."""
    if not np.array_equal(read_array(original, "train_labels"), read_array(released, "train_labels")):
        raise MedProtectError(f"{released}: not all training images of {original.name} are in it. An audit needs all of them.")
