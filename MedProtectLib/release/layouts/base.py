"""What every layout of a dataset knows to do."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import ClassVar

from MedProtectLib.errors import MedProtectError
from MedProtectLib.io import data_of, extension_of, stem_of
from MedProtectLib.io.names import is_dicom
from MedProtectLib.io.volumes import READERS
from MedProtectLib.release.case import Item, ReleaseCase
from MedProtectLib.release.fingerprints import Fingerprints
from MedProtectLib.release.roots import Roots

ABOUT = ("README", "LICENSE", "LICENCE", "ATTRIBUTION", "CITATION", "CHANGES", "NOTICE")
NOTES = ("", ".bib", ".cff", ".htm", ".html", ".md", ".pdf", ".rst", ".txt")


class Layout(ABC):
    """A dataset on disk. ``root`` is the folder that sources are relative to."""

    name: ClassVar[str]

    def __init__(self, dataset: Path) -> None:
        self.dataset = dataset
        self.root = dataset if dataset.is_dir() else dataset.parent

    @classmethod
    @abstractmethod
    def fits(cls, dataset: Path) -> bool:
        """Whether the dataset has this layout."""

    @abstractmethod
    def cases(self) -> Iterator[ReleaseCase]:
        """All cases, labelled or not, in an order that stays the same.

        Raises:
            MedProtectError: an entry that cannot be used.
        """

    def check(self) -> None:  # noqa: B027 (most layouts have nothing to look at)
        """Read the files about the whole dataset that :meth:`rewritten` needs, so that damage is known before the first case.

        Raises:
            MedProtectError: one of them is damaged.
        """

    def common(self) -> Iterable[Item]:
        """Files about the whole dataset that go out as they are."""
        for path in entries(self.root):
            if is_about(path) and not leads_out(path, self.root):
                yield Item(path.name, path.name)

    def rewritten(self, released: Fingerprints) -> dict[str, bytes]:
        """Files about the whole dataset that name its cases: path in the release -> content for the ``released`` ones.

        ``released`` holds the place of every released image.
        """
        return {}

    def assemble(self, roots: Roots) -> list[str]:
        """Make files of the release that hold many cases out of what was kept of each. Returns their names.

        Raises:
            MedProtectError: they cannot be written.
        """
        return []

    @abstractmethod
    def left_out(self) -> list[str]:
        """What lies in the dataset and belongs to no case: it does not go out."""

    def unused(self, names: Iterable[str]) -> list[str]:
        """Those of some files, relative to the dataset's folder, that belong to no case."""
        used = Fingerprints(source for case in self.cases() for source in case.sources)
        used.sort()
        return [name for name in names if name not in used]


def entries(folder: Path) -> list[Path]:
    """What is in a folder, hidden files left out, by name; nothing where there is no such folder."""
    return sorted((p for p in folder.iterdir() if not p.name.startswith(".")), key=lambda p: p.name) if folder.is_dir() else []


def files_below(folder: Path) -> Iterator[Path]:
    """The files in a folder and the folders in it, by name, one by one; links to folders are not followed."""
    for path in entries(folder):
        if not path.is_dir():
            yield path
        elif not path.is_symlink():
            yield from files_below(path)


def file_names(folder: Path) -> list[str]:
    """The same as names, which take less room where there are very many."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as found:
        return sorted(entry.name for entry in found if not entry.name.startswith("."))


def is_image(path: Path) -> bool:
    """Whether the name is that of an image file (not of the data file of a header)."""
    return extension_of(path) in READERS and not (extension_of(path) == ".img" and path.with_suffix(".hdr").exists())


def files_of(image: Path, root: Path, target: str, written: bool = False) -> tuple[Item, ...]:
    """The files of an image whose place is ``target``: itself, and the data file that its header names.

    A copy of that keeps the name that the header says; one that is ``written`` anew is called like the header.
    """
    named = Item(relative(image, root), target)
    try:
        found = data_of(image)
    except MedProtectError:  # whoever reads the image says so
        return (named,)
    if found is None:
        return (named,)
    data, extension = found
    place = PurePosixPath(target)
    beside = f"{stem_of(target)}{extension}" if written else data.relative_to(image.parent).as_posix()
    return named, Item(relative(data, root), (place.parent / beside).as_posix())


def names_of(items: tuple[Item, ...]) -> tuple[str, str | None]:
    """The sources of a header and of its data file, None where it has none, in what :func:`files_of` gave."""
    return items[0].source, items[1].source if len(items) > 1 else None


def is_about(path: Path) -> bool:
    """Whether a file in the top folder is a note about the dataset, by its name; an image never is."""
    return path.name.split(".")[0].upper() in ABOUT and path.suffix.lower() in NOTES and path.is_file() and not is_dicom(path)


def leads_out(path: Path, root: Path) -> bool:
    """Whether a symbolic link on the way takes a path below the root to somewhere else: it could be any file of this machine."""
    below = path.is_relative_to(root) and ".." not in path.parts
    return below and not path.resolve().is_relative_to(root.resolve())


def is_own_file(path: Path, root: Path) -> bool:
    """Whether a file about the whole dataset is there.

    Raises:
        MedProtectError: it is a symbolic link that leads out of the dataset.
    """
    found = path.is_file()
    if found and leads_out(path, root):
        raise MedProtectError(f"{path}: a symbolic link that leads out of the dataset. Put the file itself there.")
    return found


def relative(path: Path, root: Path) -> str:
    """A path with forward slashes, relative to the root where it lies below it."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()
