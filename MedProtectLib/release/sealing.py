"""The entries of a release in its vault: one a protected case, made with it and looked at whenever the release goes on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from MedProtectLib.errors import MedProtectError
from MedProtectLib.io import read_volume
from MedProtectLib.release.case import ReleaseCase
from MedProtectLib.release.keys import Key
from MedProtectLib.release.roots import MEMBER, Roots
from MedProtectLib.release.settings import Settings
from MedProtectLib.release.vault import SUFFIX, Entry, content_sha256, seal
from MedProtectLib.volume import Volume


def sealed(settings: Settings, case: ReleaseCase, original: Volume, stored: Volume, key: Key) -> str:
    """Put the way back from the ``stored`` files of a case into the vault; returns the name of the entry.

    Raises:
        MedProtectError: it cannot be made or written.
    """
    entry = seal(original, stored, key, release=settings.name, case=case.name)
    return entry.save(settings.roots.vault, entry.name_of_case).name


def is_sealed(roots: Roots, record: Mapping[str, Any], key: Key) -> bool:
    """Whether the vault has the entry that the record of a protected case names, undamaged.

    Raises:
        MedProtectError: it was sealed under another key.
    """
    if not record.get("vault_entry"):
        return False
    try:
        entry = Entry.load(roots.vault / str(record["vault_entry"]))
        known = entry.opens_with(key)
        if known:
            entry.open(key)
    except MedProtectError:
        return False
    if not known:
        raise MedProtectError(f"{entry.path}: sealed under another key. Give the key that the release began with.")
    return True


def sealed_before(settings: Settings, case: ReleaseCase, stored: Volume, key: Key) -> str | None:
    """The name of the entry of a committed case whose record, of an earlier version of the program, does not name it; None without one."""
    path = settings.roots.vault / f"{content_sha256(stored)}{SUFFIX}"
    try:
        entry = Entry.load(path)
        entry.open(key)
    except MedProtectError:
        return None
    return path.name if (entry.header.release, entry.header.case) == (settings.name, case.name) else None


def released_image(roots: Roots, case: ReleaseCase, original: Volume) -> Volume:
    """The image of a committed case as it went out.

    Raises:
        MedProtectError: it cannot be read.
    """
    if case.member is None:
        return read_volume(roots.target(case.image.target))
    array = np.load(roots.of_case(case.name) / MEMBER, allow_pickle=False)
    return original.with_array(array.reshape(original.array.shape))
