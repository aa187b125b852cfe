"""Versions of a release: which image went out how, so that no two versions can be compared to learn a perturbation.

An image that once went out is frozen: every later version holds the very same protected voxels, whatever became of its labels.
Two versions of it then differ nowhere. What cannot be frozen is withheld.

``images/<SHA-256 of the original's voxels>.json`` in a private root says under which case an image went out and as what, and
``names/<case>`` which image a case was. They guard one release against protecting an image twice, and are carried over to the next.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from MedProtectLib.errors import MedProtectError
from MedProtectLib.io import read_volume, sha256_voxels
from MedProtectLib.outputs import private_folder, write_private
from MedProtectLib.protection import Components, Protection
from MedProtectLib.protector import Protector
from MedProtectLib.regions import Regions
from MedProtectLib.release.case import ReleaseCase, file_name_of
from MedProtectLib.release.commit import read_record
from MedProtectLib.release.inventory import listed
from MedProtectLib.release.roots import MEMBER, Roots
from MedProtectLib.release.settings import Settings
from MedProtectLib.release.writer import this_writer
from MedProtectLib.volume import LabelMap, Volume

LEAST_COVERED = 0.5


@dataclass(frozen=True)
class Released:
    """How an image went out: the case, the first version, the latest files with their hashes, and the protected voxels.

    ``protected_voxels`` is None for an image that went out as it was. ``changed`` is the share of the regions' voxels that changed
    by the labels of the first version.
    """

    case: str
    labels: str
    version: str
    output: str
    image: str
    outputs: Mapping[str, str]
    inputs: Mapping[str, str]
    protected_voxels: str | None
    changed: float


def reserve(roots: Roots, voxels: str, case: str, labels: str) -> None:
    """Note that this case holds the image, before it is protected. The note of a case that was left out before it went out is void.

    Raises:
        MedProtectError: another case of this release holds it with other labels.
    """
    entry = _entry(roots, voxels)
    private_folder(entry.parent)
    while not _noted(entry, {"case": case, "labels": labels}):
        held = _content(entry)
        if held.get("case", case) == case or held.get("labels") == labels:
            return
        if not _is_void(held, roots):
            raise MedProtectError(
                f"the image is the same as that of case '{held['case']}', with other labels: two protections of one image would give each "
                "other away. Leave one out, or put their labels into one label map."
            )
        _take_away(entry, held)


def _noted(entry: Path, note: Mapping[str, str]) -> bool:
    """Write a note unless there is one."""
    try:
        with os.fdopen(os.open(entry, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            json.dump(note, file)
    except FileExistsError:
        return False
    return True


def _is_void(held: Mapping[str, Any], roots: Roots) -> bool:
    """Whether a note is of a case that never went out and is no longer there."""
    never = "protected_voxels" not in held and read_record(roots, held["case"]) is None
    return never and all(content["name"] != held["case"] for content in listed(roots))


def _take_away(entry: Path, held: Mapping[str, Any]) -> None:
    """Remove a void note. Where another process has exchanged it meanwhile, its own is put back."""
    aside = entry.with_name(f".{entry.name}.{this_writer().name}.part")
    with suppress(FileNotFoundError):
        entry.rename(aside)
        if _content(aside) != held:
            with suppress(OSError):
                os.link(aside, entry)
        aside.unlink()


def remember(roots: Roots, voxels: str, released: Released) -> None:
    """Note how an image went out, after its case was committed."""
    write_private(_entry(roots, voxels), json.dumps(released.__dict__ | {"outputs": dict(released.outputs)}, sort_keys=True).encode())
    private_folder(roots.names)
    write_private(roots.names / file_name_of(released.case), voxels.encode())


def is_remembered(roots: Roots, voxels: str) -> bool:
    """Whether :func:`remember` was done for an image of this release."""
    return "protected_voxels" in _content(_entry(roots, voxels))


def recall(previous: Roots, voxels: str, case: ReleaseCase) -> Released | None:
    """How an image went out in the previous version or an earlier one, None when it never did.

    Raises:
        MedProtectError: the case went out with another image.
    """
    content = _content(_entry(previous, voxels))
    if "protected_voxels" in content:
        return Released(**content)
    if (previous.names / file_name_of(case.name)).exists():
        raise MedProtectError(
            "its image changed since an earlier version of the release: two protections of nearly the same image would give each other "
            "away. Withheld; take it out, or release it under a new name if nobody has the earlier version."
        )
    return None


def carry_over(previous: Roots, roots: Roots) -> None:
    """Remember what earlier versions released and this one did not."""
    for folder, here in ((previous.images, roots.images), (previous.names, roots.names)):
        private_folder(here)
        for path in folder.iterdir() if folder.is_dir() else ():
            if not (here / path.name).exists() or (folder == previous.images and "protected_voxels" not in _content(here / path.name)):
                write_private(here / path.name, path.read_bytes())


def withdrawn(settings: Settings) -> list[str]:
    """Cases that the previous version released and that this one does not have."""
    if settings.earlier is None:
        return []
    here = {content["name"] for content in listed(settings.roots)}
    before = (content["name"] for content in listed(settings.earlier))
    return [name for name in before if name not in here and read_record(settings.earlier, name) is not None]


def frozen(released: Released, previous: Roots, protector: Protector, volume: Volume, labels: LabelMap) -> Protection:
    """The protection of an image that went out before: the same protected voxels, seen with the labels of today.

    Raises:
        MedProtectError: it went out unprotected; the earlier protected file is gone and cannot be made again; too little of what
            is labelled today lies where the image was changed.
    """
    if released.protected_voxels is None:
        raise MedProtectError(
            f"its image went out unprotected in '{released.version}': a protected copy beside it would show the perturbation. Withheld."
        )
    protection = protector.protect(volume, labels)
    if sha256_voxels(protection.volume.array) == released.protected_voxels:
        return protection
    protected = volume.with_array(_voxels_of(released, previous).reshape(volume.array.shape))
    return _seen_with(protection, protected, released)


def check_frozen(released: Released, previous: Roots, protector: Protector, volume: Volume, labels: LabelMap, identity: str) -> None:
    """Refuse what :func:`frozen` would refuse. ``identity``: that of the labels; where they are those that the image went out with,
    and its file is in place, nothing has to be protected to know.

    Raises:
        MedProtectError: as for :func:`frozen`.
    """
    if released.protected_voxels is not None and released.labels == identity:
        with suppress(MedProtectError):
            _voxels_of(released, previous)
            return
    frozen(released, previous, protector, volume, labels)


def _voxels_of(released: Released, previous: Roots) -> np.ndarray:
    """The protected voxels of an image that went out, those of a MedMNIST file from the private root."""
    member = Path(released.image).suffix.lower() == ".npz"
    outputs = dict.fromkeys((Path(released.output), previous.output))
    places = [previous.of_case(released.case) / MEMBER] if member else [output / released.image for output in outputs]
    for place in places:
        with suppress(MedProtectError, OSError, ValueError, EOFError):
            array: np.ndarray = np.load(place, allow_pickle=False) if member else read_volume(place).array
            if sha256_voxels(array) == released.protected_voxels:
                return array
    raise MedProtectError(
        f"{released.image}: the protected image of '{released.version}' is not where it was or was changed, and comes out otherwise here. "
        f"Put it back: {places[0]}."
    )


def _seen_with(protection: Protection, protected: Volume, released: Released) -> Protection:
    """A protection by today's labels, with the earlier protected voxels in the place of its own."""
    original, shape = protection.original, protection.original.geometry.shape
    whole = (slice(0, shape[0]), slice(0, shape[1]), slice(0, shape[2]))
    old = protection.regions
    background = None if old.background is None else old.on_grid(old.background, shape)
    regions = Regions(whole, old.on_grid(old.interior, shape), old.on_grid(old.contour, shape), background)
    moved = [
        np.stack([(after.channel(c).astype(np.float64) - before.channel(c)) * before.slope for c in before.intensity_channels], axis=-1)
        for after, before in zip(protected.parts(), original.parts(), strict=True)
    ]
    widths = [window.width for window in protection.windows]
    steps = [step * abs(part.slope) for step, part in zip(protection.steps, original.parts(), strict=True)]
    scalar = original.array.ndim == 3
    change = np.concatenate([m / width for m, width in zip(moved, widths, strict=True)], axis=-1).astype(np.float32)
    counts = np.concatenate([np.rint(m / step) for m, step in zip(moved, steps, strict=True)], axis=-1)
    counts = counts.astype(np.int32 if np.abs(counts).max() <= np.iinfo(np.int32).max else np.int64)
    changed: np.ndarray = np.any(change, axis=-1)
    covered = float(np.mean(changed[regions.touched]))
    if covered < LEAST_COVERED * released.changed:
        raise MedProtectError(
            f"its labels changed so much that only {covered:.0%} of what they touch was changed in '{released.version}', and a new "
            "perturbation would show by comparison with it. Withheld."
        )
    warnings = protection.warnings
    if int((changed & ~regions.touched).sum()) or covered < 0.99 * released.changed:
        warnings += (f"the image is that of '{released.version}': {covered:.0%} of what its labels touch today is changed.",)
    components = Components(change[..., 0] if scalar else change, {"change": changed | regions.touched}, regions, shape)
    return replace(
        protection, volume=protected, regions=regions, counts=counts[..., 0] if scalar else counts, components=components, warnings=warnings
    )


def _entry(roots: Roots, voxels: str) -> Path:
    return roots.images / f"{voxels}.json"


def _content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
