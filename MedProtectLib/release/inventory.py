"""Which cases a release has, on disk as one JSON line each, so that nobody has to hold them all in memory."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from unicodedata import normalize

from MedProtectLib.errors import MedProtectError, UsageError
from MedProtectLib.io.names import slice_name
from MedProtectLib.outputs import private_folder, write_private
from MedProtectLib.release.case import ReleaseCase, file_name_of
from MedProtectLib.release.commit import placed
from MedProtectLib.release.fingerprints import Fingerprints
from MedProtectLib.release.layouts import find_layout
from MedProtectLib.release.layouts.base import Layout
from MedProtectLib.release.roots import Roots
from MedProtectLib.release.settings import FAIL, Settings
from MedProtectLib.release.writer import this_writer
from MedProtectLib.untrusted import LARGEST_RECORD

NAME = "case /"  # in front of a case's name; no place begins so
MOST_NEAR = 3


@dataclass(frozen=True)
class Inventory:
    """How many cases there are, and how many of them have no labels."""

    cases: int
    unlabelled: int


def take_inventory(layout: Layout, settings: Settings, write: bool = True) -> Inventory:
    """List the cases of a dataset in :attr:`Roots.cases`.

    Raises:
        MedProtectError: there is none, two have one name, two files one place; some are unlabelled and the user wants to know; a
            case that was released is no longer there; a file about the dataset is damaged.
        UsageError: a case that shall be withdrawn is not there.
    """
    count, unlabelled, names, withdrawn = 0, 0, Fingerprints(), set(settings.withdrawn)
    places, uses = Fingerprints(), Fingerprints()
    layout.check()
    path = settings.roots.cases if write else Path(os.devnull)
    part = path.with_name(f".{path.name}.{this_writer().name}.part") if write else path
    if write:
        private_folder(path.parent)
    try:
        with part.open("w", encoding="utf-8") as file:
            for case in layout.cases():
                if case.name in settings.withdrawn:
                    withdrawn.discard(case.name)
                    continue
                names.add(file_name_of(case.name))
                for place, use in _uses(case, count):
                    places.add(place)
                    uses.add(f"{place}\n{use}")
                count, unlabelled = count + 1, unlabelled + (not case.labelled)
                file.write(json.dumps(case.as_json()) + "\n")
        withdrawn -= _known_before(settings)  # their files may have been deleted first
        if withdrawn and not settings.roots.cases.exists():
            _refuse_withdrawn(layout, min(withdrawn))
        names.sort()
        places.sort()
        uses.sort()
        if places.distinct() < uses.distinct():
            _refuse_mixed_up(layout, settings)
        if not count:
            raise MedProtectError(f"{settings.dataset}: no case found. See 'medprotect release --help' for the layouts.")
        if unlabelled and settings.unlabelled == FAIL:
            raise MedProtectError(f"{settings.dataset}: {unlabelled} of {count} cases have no labels. Label them, or see --unlabelled.")
        _check_none_is_gone(settings.roots, names)
        if write:
            _remove_gone(settings.roots, places)
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
                content = json.loads(line)
                if not isinstance(content, dict) or not isinstance(content.get("name"), str):
                    raise ValueError("no case")
                yield content
    except (OSError, ValueError, RecursionError) as error:
        raise MedProtectError(f"{roots.cases}: the list of cases is damaged. Write it anew with --resume.") from error


def _uses(case: ReleaseCase, number: int) -> Iterator[tuple[str, str]]:
    """The places that a case takes, and by what: several cases may have a copy of one file, anything else is of one case alone.

    A place is written as file systems see it that ignore capitals and the forms of Unicode.
    """
    yield f"{NAME}{_folded(file_name_of(case.name))}", f"{number}"
    if case.member is None:
        yield from ((_folded(target), f"{number}") for target in (*case.own_targets, *_slices(case)))
        yield from ((_folded(item.target), f"copy of {item.source}") for item in case.copies)


def _slices(case: ReleaseCase) -> Iterator[str]:
    """The files of a protected DICOM series, which are numbered."""
    count = sum(item.target.startswith(f"{case.image.target}/") for item in case.image_files) if case.labelled else 0
    yield from (f"{case.image.target}/{slice_name(number)}" for number in range(1, count + 1))


def _folded(text: str) -> str:
    return normalize("NFC", text.casefold())


def _refuse_mixed_up(layout: Layout, settings: Settings) -> None:
    """Raises MedProtectError for the first case that takes a place which something else has."""
    seen: dict[str, str] = {}
    for number, case in enumerate(case for case in layout.cases() if case.name not in settings.withdrawn):
        for place, use in _uses(case, number):
            if seen.setdefault(place, use) == use:
                continue
            if place.startswith(NAME):
                raise MedProtectError(
                    f"case '{case.name}': another case has this name, or one that some systems do not tell from it. Rename it."
                )
            raise MedProtectError(
                f"case '{case.name}': '{place}' would be two different files of the release (capitals do not count). Rename one of them."
            )


def _known_before(settings: Settings) -> set[str]:
    """The names that shall be withdrawn and that the previous version, or one before it, released or listed."""
    earlier = settings.earlier
    if earlier is None:
        return set()
    of_list = {str(content["name"]) for content in listed(earlier) if content["name"] in settings.withdrawn}
    return of_list | {name for name in settings.withdrawn if (earlier.names / file_name_of(name)).exists()}


def _refuse_withdrawn(layout: Layout, name: str) -> None:
    """Raises UsageError, with the names that may be meant."""
    asked = _folded(name)
    near = (case.name for case in layout.cases() if _folded(case.name).startswith(asked) or asked.startswith(_folded(case.name)))
    meant = " or ".join(islice(near, MOST_NEAR))
    advice = f"Is {meant} meant?" if meant else "The dry run lists the names."
    raise UsageError(f"--withdraw {name}: no case has this name. {advice} Nothing was released.")


def _check_none_is_gone(roots: Roots, names: Fingerprints) -> None:
    for entry in os.scandir(roots.names) if roots.names.is_dir() else ():
        if entry.name not in names and (case := _committed(roots, entry.name)) is not None:
            raise MedProtectError(
                f"case '{case}' was released and is no longer in the dataset. Put it back, or make a new version of the release with "
                "--previous."
            )


def _remove_gone(roots: Roots, places: Fingerprints) -> None:
    """Remove what a killed process may have put in places that no case has any longer, of cases that were listed and never committed."""
    with suppress(MedProtectError, KeyError, TypeError):  # a damaged list, which is about to be exchanged
        for content in listed(roots) if roots.cases.exists() else ():
            case = str(content["name"])
            for name in () if roots.record(case).exists() else placed(roots, case):
                if _folded(name) not in places:
                    with suppress(MedProtectError):  # a name that no file there can have
                        roots.target(name).unlink(missing_ok=True)


def _committed(roots: Roots, file_name: str) -> str | None:
    """The case with this file name that this release, not an earlier version, has committed."""
    try:
        return str(json.loads((roots.private / "cases" / file_name / "record.json").read_text(encoding="utf-8"))["case"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
