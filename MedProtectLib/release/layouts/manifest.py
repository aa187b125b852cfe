"""A CSV manifest with the columns case, image, and labels or class; other columns are kept."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from MedProtectLib.errors import MedProtectError
from MedProtectLib.fitting.dataset import MANIFEST_COLUMNS
from MedProtectLib.io import channel_files, extension_of
from MedProtectLib.io.channels import channel_name
from MedProtectLib.release.case import Item, ReleaseCase, file_name_of
from MedProtectLib.release.fingerprints import Fingerprints
from MedProtectLib.release.layouts.base import Layout, files_of, names_of
from MedProtectLib.untrusted import read_table


class Manifest(Layout):
    """Paths are relative to the manifest. A file that lies below its folder keeps its place, others go into images/ and labels/."""

    name = "CSV manifest"

    @classmethod
    def fits(cls, dataset: Path) -> bool:
        return dataset.is_file() and dataset.suffix.lower() == ".csv"

    def cases(self) -> Iterator[ReleaseCase]:
        names: set[str] = set()
        for row in self._rows():
            name = (row["case"] or "").strip()
            if not name or name in names:
                raise MedProtectError(f"{self.dataset}: case '{name}' occurs more than once or has no name.")
            names.add(name)
            image = self._item(name, row["image"], "images")
            labels = self._item(name, row["labels"], "labels") if row.get("labels") else None
            image_class = (row.get("class") or None) if labels is None else None
            copies = () if labels is None else self._files(labels, written=False)
            yield ReleaseCase(
                name,
                image,
                self._files(image, written=labels is not None or image_class is not None),
                None if labels is None else labels.source,
                image_class,
                copies,
                split=row.get("split") or "",
                label_data=names_of(copies)[1] if copies else None,
            )

    def _rows(self) -> Iterator[dict[str, str]]:
        wanted = f"A manifest has the columns {','.join(MANIFEST_COLUMNS)}."
        columns, rows = read_table(self.dataset, f"not a CSV table in UTF-8. {wanted}")
        missing = {"case", "image"} - set(columns)
        if missing:
            raise MedProtectError(f"{self.dataset}: no column {' and '.join(sorted(missing))}. {wanted}")
        yield from rows

    def _item(self, case: str, listed: str, folder: str) -> Item:
        path = PurePosixPath(listed.strip().replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or (path.parts and path.parts[0].endswith(":")):
            return Item(path.as_posix(), f"{folder}/{file_name_of(case)}{extension_of(path)}")
        return Item(path.as_posix(), path.as_posix())

    def _files(self, item: Item, written: bool) -> tuple[Item, ...]:
        path = self.root / item.source
        channels = channel_files(path)
        if not channels:
            return files_of(path, self.root, item.target, written)
        target = Path(item.target)
        places = (target.with_name(channel_name(target, number)).as_posix() for number in range(len(channels)))
        return tuple(found for file, place in zip(channels, places, strict=True) for found in files_of(file, self.root, place, written))

    def rewritten(self, released: Fingerprints) -> dict[str, bytes]:
        places = {case.name: (case.image.target, case.copies[0].target if case.copies else "") for case in self.cases()}
        text = io.StringIO(newline="")
        rows = list(self._rows())
        writer = csv.DictWriter(text, list(rows[0]) if rows else MANIFEST_COLUMNS, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        for row in rows:
            image, labels = places[row["case"].strip()]
            if image in released:
                writer.writerow(row | {"image": image} | ({"labels": labels} if labels else {}))
        return {self.dataset.name: text.getvalue().encode()}

    def left_out(self) -> list[str]:
        return []
