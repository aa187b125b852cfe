"""The beginning of a release: roots that fit, and a manifest that every run of it agrees with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from MedProtectLib.errors import MedProtectError
from MedProtectLib.outputs import private_folder, put_if_absent
from MedProtectLib.release.already import check_dataset
from MedProtectLib.release.roots import SUMMARY, Roots
from MedProtectLib.release.settings import Settings
from MedProtectLib.release.vault import check_same_key
from MedProtectLib.release.writer import this_writer

if TYPE_CHECKING:
    from MedProtectLib.release.keys import Key


@contextmanager
def opened(settings: Settings, resume: bool, key: Key | None = None) -> Iterator[None]:
    """Check the roots and write the manifest, or compare it with the one that is there. The block lists the cases; when it fails,
    nothing is left of a release that began here.

    Raises:
        MedProtectError: the roots or the dataset cannot be used, or another release is in the roots.
    """
    check(settings, resume, key)
    roots, began = settings.roots, False
    missing = [folder for root in (roots.private, roots.output) for folder in (root, *root.parents) if not folder.exists()]
    try:
        private_folder(roots.private)
        roots.private.chmod(0o700)
        roots.output.mkdir(parents=True, exist_ok=True)
        began = _write_manifest(settings, roots)
        yield
    except BaseException:
        if not roots.ledger.exists():
            _take_back(roots, began, missing)
        raise


def _take_back(roots: Roots, began: bool, made: list[Path]) -> None:
    """Remove what the beginning of a release has written, and those of the folders that are empty then."""
    for path in (roots.manifest, roots.cases, roots.left_out) if began else ():
        path.unlink(missing_ok=True)
    for folder in made:
        with suppress(OSError):
            folder.rmdir()


def check(settings: Settings, resume: bool, key: Key | None = None) -> None:
    """Whether a release can begin, or go on, with these settings and this key of its vault.

    Raises:
        MedProtectError: the roots, the dataset or the previous version cannot be used; another release is in the roots, or its vault
            has another key.
    """
    roots, dataset = settings.roots, Path(settings.dataset)
    roots.check(dataset)
    check_dataset(settings.root)
    _check_previous(settings)
    if roots.manifest.exists():
        if not resume:
            raise MedProtectError(f"{roots.private}: a release is there already. Go on with it by --resume, or choose another --output.")
        different = settings.differences(Settings.load(roots.manifest))
        if different:
            raise MedProtectError(
                f"{roots.manifest}: the release began with other settings ({', '.join(different)}). Use the same, or another --output."
            )
        if key is not None:
            check_same_key(roots.vault, key)
    else:
        for root in (roots.output, roots.private):
            if root.is_dir() and any(root.iterdir()):
                raise MedProtectError(f"{root}: the folder is not empty and holds no release. Choose another folder.")


def _check_previous(settings: Settings) -> None:
    """A version is protected as the one before, or their difference would tell of both. Only a finished one knows all that went out
    before it.
    """
    earlier = settings.earlier
    if earlier is None:
        return
    if not earlier.manifest.is_file():
        raise MedProtectError(f"{earlier.private}: no release is here. Check --previous and --previous-private.")
    if not ((earlier.output / SUMMARY).is_file() or (earlier.audit.is_file() and not earlier.output.exists())):
        raise MedProtectError(
            f"{earlier.output / SUMMARY}: missing: the previous version is not finished. Finish it (--resume), or give the one before it."
        )
    now, before = settings.parameters(), Settings.load(earlier.manifest).parameters()
    if different := [key for key in now if now[key] != before[key]]:
        raise MedProtectError(f"{earlier.manifest}: the previous version was protected otherwise ({', '.join(different)}). Protect alike.")


def _write_manifest(settings: Settings, roots: Roots) -> bool:
    """In one step, so that of two runs that begin at once the later one finds the earlier one's. Whether this one was the first."""
    part = roots.manifest.with_name(f".manifest.{this_writer().name}.part")
    try:
        part.write_bytes(settings.to_bytes())
        part.chmod(0o600)
        first = not roots.manifest.exists() and put_if_absent(part, roots.manifest)
        different = settings.differences(Settings.load(roots.manifest))
        if different:
            raise MedProtectError(f"{roots.manifest}: another run just began this release with other settings ({', '.join(different)}).")
        if roots.manifest.read_bytes() != part.read_bytes():
            part.replace(roots.manifest)
        return first
    finally:
        part.unlink(missing_ok=True)
