"""Which cases a release has, on disk as one JSON line each, so that nobody has to hold them all in memory."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from MedProtectLib.errors import MedProtectError
from MedProtectLib.outputs import private_folder, write_private
from MedProtectLib.release.case import ReleaseCase, file_name_of
from MedProtectLib.release.fingerprints import Fingerprints
from MedProtectLib.release.layouts import find_layout
from MedProtectLib.release.layouts.base import Layout
from MedProtectLib.release.roots import Roots
from MedProtectLib.release.settings import FAIL, Settings
from MedProtectLib.untrusted import LARGEST_RECORD


@dataclass(frozen=True)
class Inventory:
    """How many cases there are, and how many of them have no labels."""

    cases: int
    unlabelled: int


def take_inventory(layout: Layout, settings: Settings, write: bool = True) -> Inventory:
    """List the cases of a dataset in :attr:`Roots.cases`.

    Raises:
        MedProtectError: there is none, two have one name or one place; some are unlabelled and the user wants to know; a case that
            was released is no longer there.
    """
    count, unlabelled, names, places = 0, 0, Fingerprints(), Fingerprints()
    path = settings.roots.cases if write else Path(os.devnull)
    part = path.with_name(f".{path.name}.{os.getpid()}.part") if write else path
    if write:
        private_folder(path.parent)
    try:
        with part.open("w", encoding="utf-8") as file:
            for case in layout.cases():
                if case.name in settings.withdrawn:
                    continue
                names.add(file_name_of(case.name))
                for target in _places(case):
                    places.add(target)
                count, unlabelled = count + 1, unlabelled + (not case.labelled)
                file.write(json.dumps(case.as_json()) + "\n")
        _check_once(layout, names, places)
        if not count:
            raise MedProtectError(f"{settings.dataset}: no case found. See 'medprotect release --help' for the layouts.")
        if unlabelled and settings.unlabelled == FAIL:
            raise MedProtectError(f"{settings.dataset}: {unlabelled} of {count} cases have no labels. Label them, or see --unlabelled.")
        _check_none_is_gone(settings.roots, names)
        if write:
            part.chmod(0o600)
            part.replace(path)
    finally:
        if write:
            part.unlink(missing_ok=True)
    return Inventory(count, unlabelled)


def list_cases(settings: Settings) -> Inventory:
    """List the cases, and the files of the dataset that belong to none, in the private root.

    Raises:
        MedProtectError: as for :func:`take_inventory`. OSError: no space or no permission.
    """
    layout = find_layout(Path(settings.dataset))
    inventory = take_inventory(layout, settings)
    write_private(settings.roots.left_out, "".join(f"{name}\n" for name in layout.left_out()).encode(errors="replace"))
    return inventory


def listed(roots: Roots) -> Iterator[dict[str, Any]]:
    """The cases of a release, as :meth:`ReleaseCase.as_json` gave them.

    Raises:
        MedProtectError: the list is damaged.
    """
    try:
        with roots.cases.open(encoding="utf-8") as lines:
            while line := lines.readline(LARGEST_RECORD):
                yield json.loads(line)
    except (OSError, ValueError, RecursionError) as error:
        raise MedProtectError(f"{roots.cases}: the list of cases is damaged. Write it anew with --resume.") from error


def _places(case: ReleaseCase) -> list[str]:
    """Where the case's own files go; copies may belong to several cases."""
    copies = {item.target for item in case.copies}
    return [target for target in case.targets if target not in copies]


def _check_once(layout: Layout, names: Fingerprints, places: Fingerprints) -> None:
    names.sort()
    places.sort()
    if not (names.twice() or places.twice()):
        return
    seen: set[str] = set()
    for case in layout.cases():
        for text in (f"case {case.name}", *_places(case)):
            if text in seen:
                raise MedProtectError(f"case '{case.name}': its name or its files belong to another case too. Rename one of them.")
            seen.add(text)


def _check_none_is_gone(roots: Roots, names: Fingerprints) -> None:
    for entry in os.scandir(roots.names) if roots.names.is_dir() else ():
        if entry.name not in names and (case := _committed(roots, entry.name)) is not None:
            raise MedProtectError(
                f"case '{case}' was released and is no longer in the dataset. Put it back, or make a new version of the release with "
                "--previous."
            )


def _committed(roots: Roots, file_name: str) -> str | None:
    """The case with this file name that this release, not an earlier version, has committed."""
    try:
        return str(json.loads((roots.private / "cases" / file_name / "record.json").read_text(encoding="utf-8"))["case"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
