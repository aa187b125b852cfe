"""A CSV manifest with the columns case, image, and labels or class; other columns are kept."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from MedProtectLib.errors import MedProtectError
from MedProtectLib.fitting.dataset import MANIFEST_COLUMNS
from MedProtectLib.io import channel_files, extension_of
from MedProtectLib.io.channels import channel_name
from MedProtectLib.io.names import is_dicom
from MedProtectLib.release.case import Item, ReleaseCase, file_name_of
from MedProtectLib.release.fingerprints import Fingerprints
from MedProtectLib.release.layouts.base import Layout, files_of, names_of, relative
from MedProtectLib.untrusted import read_table


class Manifest(Layout):
    """Paths are relative to the manifest. A file that lies below its folder keeps its place, others go into images/ and labels/."""

    name = "CSV manifest"

    @classmethod
    def fits(cls, dataset: Path) -> bool:
        return dataset.is_file() and dataset.suffix.lower() == ".csv"

    def cases(self) -> Iterator[ReleaseCase]:
        names: set[str] = set()
        rows = list(self._rows())
        uses = Counter(labels.source for row in rows if (labels := self._labels(row)) is not None)
        for row in rows:
            name = (row["case"] or "").strip()
            if not name or name in names:
                raise MedProtectError(f"{self.dataset}: case '{name}' occurs more than once or has no name.")
            names.add(name)
            image, labels = self._image(row), self._labels(row)
            image_class = row["class"] if labels is None and row.get("class", "").strip() else None
            follows = None if labels is None else self._following(image, labels)
            copies = () if labels is None or follows is not None else self._files(labels, written=False)
            shared = follows is not None and labels is not None and uses[labels.source] > 1
            yield ReleaseCase(
                name,
                image,
                self._files(image, written=labels is not None or image_class is not None),
                None if labels is None else (follows or labels).source,
                image_class,
                copies,
                () if follows is None or shared else (follows,),
                split=row.get("split") or "",
                label_data=names_of(copies)[1] if copies else None,
                withheld=(f"{follows.source} was withheld: it can follow one case only. Split it.",) if follows and shared else (),
            )

    def _rows(self) -> Iterator[dict[str, str]]:
        wanted = f"A manifest has the columns {','.join(MANIFEST_COLUMNS)}."
        columns, rows = read_table(self.dataset, f"not a CSV table in UTF-8. {wanted}")
        missing = {"case", "image"} - set(columns)
        if missing:
            raise MedProtectError(f"{self.dataset}: no column {' and '.join(sorted(missing))}. {wanted}")
        yield from rows

    def _image(self, row: Mapping[str, str]) -> Item:
        return self._item(row["case"].strip(), row["image"], "images")

    def _labels(self, row: Mapping[str, str]) -> Item | None:
        return self._item(row["case"].strip(), row["labels"], "labels") if row.get("labels", "").strip() else None

    def _item(self, case: str, listed: str, folder: str) -> Item:
        path = PurePosixPath(listed.strip().replace("\\", "/"))
        if not path.parts:
            raise MedProtectError(f"{self.dataset}: case '{case}' names no file for its {folder}. Name it, or take the row out.")
        if path.is_absolute() or ".." in path.parts or (path.parts and path.parts[0].endswith(":")):
            return Item(path.as_posix(), f"{folder}/{file_name_of(case)}{extension_of(path)}")
        return Item(path.as_posix(), path.as_posix())

    def _files(self, item: Item, written: bool) -> tuple[Item, ...]:
        path = self.root / item.source
        if path.is_dir() or is_dicom(path):
            return self._series(item, path)
        channels = channel_files(path)
        if not channels:
            return files_of(path, self.root, item.target, written)
        target = Path(item.target)
        places = (target.with_name(channel_name(target, number)).as_posix() for number in range(len(channels)))
        return tuple(found for file, place in zip(channels, places, strict=True) for found in files_of(file, self.root, place, written))

    def _series(self, item: Item, path: Path) -> tuple[Item, ...]:
        """The files of the DICOM series in a folder, or of that to which a file belongs; the folder or file where there is none."""
        from MedProtectLib.io.dicom import series_at

        try:
            series = series_at(path)
        except MedProtectError:  # whoever reads the image says so
            return (item,)
        if series.alone and not path.is_dir():
            return (item,)
        folder = path if path.is_dir() else path.parent
        return tuple(Item(relative(f, self.root), f"{item.target}/{f.relative_to(folder).as_posix()}") for f in series.files)

    def _following(self, image: Item, labels: Item) -> Item | None:
        """The segmentation or structure set that holds the labels of a DICOM image, whose references are rewritten; None for others."""
        path, scanned = self.root / labels.source, self.root / image.source
        if not (scanned.is_dir() or is_dicom(scanned)) or not (path.is_dir() or is_dicom(path)):
            return None
        if not path.is_dir():
            return labels
        from MedProtectLib.io.dicom import scan

        found = scan(path).labels
        if len(found) != 1:
            return None
        return Item(relative(found[0].path, self.root), f"{labels.target}/{found[0].path.relative_to(path).as_posix()}")

    def rewritten(self, released: Fingerprints) -> dict[str, bytes]:
        text = io.StringIO(newline="")
        rows = list(self._rows())
        writer = csv.DictWriter(text, list(rows[0]) if rows else MANIFEST_COLUMNS, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        for row in rows:
            image, labels = self._image(row), self._labels(row)
            if image.target in released:
                writer.writerow(row | {"image": image.target} | ({"labels": labels.target} if labels else {}))
        return {self.dataset.name: text.getvalue().encode()}

    def left_out(self) -> list[str]:
        return []
