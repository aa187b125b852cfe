"""A tree of DICOM files: every image series is a case; segmentations and structure sets are its labels and follow it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from MedProtectLib.release.case import Item, ReleaseCase
from MedProtectLib.release.layouts.base import Layout, files_below, is_image, relative

if TYPE_CHECKING:
    from MedProtectLib.io.dicom import Inventory, LabelFile, Series


class DicomTree(Layout):
    """A series keeps its folder; where several share one, each gets a folder of its own in it."""

    name = "DICOM tree"

    @classmethod
    def fits(cls, dataset: Path) -> bool:
        from MedProtectLib.io.dicom import is_dicom

        known = (is_dicom(path) for path in files_below(dataset) if is_dicom(path) or is_image(path))
        return next(known, False)

    @cached_property
    def inventory(self) -> Inventory:
        """All objects below the folder, by kind."""
        from MedProtectLib.io.dicom import scan

        return scan(self.root)

    @cached_property
    def labels_of(self) -> dict[str, list[LabelFile]]:
        """The label objects that refer to a series, by its UID."""
        found: defaultdict[str, list[LabelFile]] = defaultdict(list)
        for label in self.inventory.labels:
            for uid in dict.fromkeys(label.series_uids):
                found[uid].append(label)
        return dict(found)

    @cached_property
    def series_uids(self) -> frozenset[str]:
        """The UIDs of all image series."""
        return frozenset(series.uid for series in self.inventory.series)

    def cases(self) -> Iterator[ReleaseCase]:
        sharing: defaultdict[Path, list[Series]] = defaultdict(list)
        for series in self.inventory.series:
            sharing[Path(series.files[0]).parent].append(series)
        for folder, together in sorted(sharing.items()):
            for number, series in enumerate(together, start=1):
                yield self._case(series, folder, number if len(together) > 1 or folder == self.root else None)

    def _case(self, series: Series, folder: Path, number: int | None) -> ReleaseCase:
        place = relative(folder, self.root)
        name = place if number is None else f"{'' if folder == self.root else place + '/'}series_{number:03d}"
        whole = number is None and {Path(f).parent for f in series.files} == {folder} and self._alone(series, folder)
        image = Item(place, name) if whole else Item(relative(Path(series.files[0]), self.root), self._target(series, name))
        below = "/{}" if whole or not series.alone else ""
        files = tuple(Item(relative(f, self.root), image.target + below.format(f.name)) for f in map(Path, series.files))
        labels = self.labels_of.get(series.uid, [])
        places = [relative(Path(label.path), self.root) for label in labels]
        references, withheld = [], []
        for label, place in zip(labels, places, strict=True):
            named = [uid for uid in dict.fromkeys(label.series_uids) if uid in self.series_uids]
            if len(named) == 1:
                references.append(Item(place, place))
            elif series.uid == named[0]:
                withheld.append(f"{place} was withheld: it names {len(named)} series and can follow one only. Split it.")
        labelled_by = places[0] if places else None
        return ReleaseCase(name, image, files, labelled_by, references=tuple(references), withheld=tuple(withheld))

    @staticmethod
    def _alone(series: Series, folder: Path) -> bool:
        """Whether the series is all that lies in its folder."""
        return {Path(f).name for f in series.files} == {p.name for p in folder.iterdir()}

    @staticmethod
    def _target(series: Series, name: str) -> str:
        """A folder for a series, a file for a picture that is one by itself."""
        return f"{name}.dcm" if series.alone else name

    def left_out(self) -> list[str]:
        used = {source for case in self.cases() for source in case.sources}
        everything = (relative(p, self.root) for p in sorted(self.root.rglob("*")) if p.is_file())
        return [name for name in everything if name not in used]
