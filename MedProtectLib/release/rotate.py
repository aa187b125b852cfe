"""Another key for a vault."""

from __future__ import annotations

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
    at_work = holders(Roots(vault, vault.resolve().parent).claims)
    if at_work:
        case, holder = next(iter(at_work.items()))
        raise MedProtectError(f"{vault}: a release is at work on it (case '{case}', {holder}). Wait for its end, or stop it first.")
    entries = sorted(vault.rglob(f"*{SUFFIX}"))
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


def _resealed(path: Path, old: Key, new: Key) -> Entry | None:
    """An entry under the new key, None when it is so already.

    Raises:
        MedProtectError: it is damaged, or the old key does not open it.
    """
    entry = Entry.load(path)
    return None if entry.opens_with(new) else entry.resealed(old, new)
