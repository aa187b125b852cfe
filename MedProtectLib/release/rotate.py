"""Another key for a vault."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from MedProtectLib.errors import MedProtectError
from MedProtectLib.progress import Progress, Report, ignore
from MedProtectLib.release.claims import holders
from MedProtectLib.release.keys import Key
from MedProtectLib.release.roots import Roots
from MedProtectLib.release.vault import SUFFIX, Entry


@dataclass(frozen=True)
class Rotation:
    """How many entries were sealed anew, and how many were under the new key already. ``refused`` says of each of the others why
    it stayed as it was.
    """

    changed: int
    unchanged: int
    refused: tuple[str, ...] = ()


def rotate(vault: Path, old: Key, new: Key, report: Report = ignore) -> Rotation:
    """Seal every entry of a vault anew under another key. Interrupted, it goes on where it stopped when it is called again.

    Raises:
        MedProtectError: no entries, or one that cannot be written; those before it are done. A release is at work, which would go on
            with the old key.
    """
    entries = sorted(vault.rglob(f"*{SUFFIX}"))
    for private in _private_roots(vault, entries):
        for case, holder in holders(Roots(private, private).claims).items():
            raise MedProtectError(f"{private}: a release is at work on it (case '{case}', {holder}). Wait for its end, or stop it first.")
    if not entries:
        raise MedProtectError(f"{vault}: no vault entries ({SUFFIX}) here. Give the vault's folder.")
    for part in vault.rglob(f".*{SUFFIX}.*.part"):  # of a process that was killed; the old key would go on opening it
        part.unlink(missing_ok=True)
    changed, refused = 0, []
    for number, path in enumerate(entries):
        report(Progress("rotate", number, len(entries)))
        try:
            resealed = _resealed(path, old, new)
        except MedProtectError as error:
            refused.append(str(error))
            continue
        if resealed is not None:
            resealed.save(path.parent, path.name)
            changed += 1
    return Rotation(changed, len(entries) - changed - len(refused), tuple(refused))


def _private_roots(vault: Path, entries: Iterable[Path]) -> Iterable[Path]:
    """Folders that may be the private root of a release whose vault, or part of it, is rotated."""
    vault = vault.resolve()
    return dict.fromkeys((vault, *vault.parents, *(entry.resolve().parents[1] for entry in entries)))


def _resealed(path: Path, old: Key, new: Key) -> Entry | None:
    """An entry under the new key, None when it is so already.

    Raises:
        MedProtectError: it is damaged, or the old key does not open it.
    """
    entry = Entry.load(path)
    return None if entry.opens_with(new) else entry.resealed(old, new)
