"""One folder of images per class, for classification; folders such as train and test may lie around them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from MedProtectLib.io import stem_of
from MedProtectLib.io.label_names import check_no_labels
from MedProtectLib.release.case import Item, ReleaseCase
from MedProtectLib.release.layouts.base import Layout, entries, files_below, files_of, is_about, is_image, relative


class ClassFolders(Layout):
    """The class of an image is the name of the folder it lies in."""

    name = "class folders"

    @classmethod
    def fits(cls, dataset: Path) -> bool:
        return any(is_image(path) for folder in entries(dataset) if folder.is_dir() for path in files_below(folder))

    def check(self) -> None:
        for folder in (p for p in entries(self.root) if p.is_dir()):
            stems: dict[Path, set[str]] = {}
            for path in files_below(folder):
                if is_image(path):
                    stems.setdefault(path.parent, set()).add(stem_of(path))
            for parent, names in stems.items():
                check_no_labels(parent, parent.name, names)

    def cases(self) -> Iterator[ReleaseCase]:
        for folder in (p for p in entries(self.root) if p.is_dir()):
            for path in files_below(folder):
                if is_image(path):
                    place = relative(path, self.root)
                    name = f"{Path(place).parent.as_posix()}/{stem_of(path)}"
                    parts = files_of(path, self.root, place, written=True)
                    yield ReleaseCase(name, Item(place, place), parts, image_class=path.parent.name)

    def left_out(self) -> list[str]:
        loose = [p for p in entries(self.root) if p.is_file() and not is_about(p)]
        inside = (relative(p, self.root) for folder in entries(self.root) if folder.is_dir() for p in files_below(folder))
        return [relative(p, self.root) for p in loose] + self.unused(inside)
