"""The beginning of a release: roots that fit, and a manifest that every run of it agrees with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from MedProtectLib.errors import MedProtectError
from MedProtectLib.outputs import private_folder, put_if_absent, write_private
from MedProtectLib.release.already import check_dataset
from MedProtectLib.release.roots import SUMMARY, Roots
from MedProtectLib.release.settings import Settings
from MedProtectLib.release.vault import check_same_key
from MedProtectLib.release.writer import is_left, this_writer

if TYPE_CHECKING:
    from MedProtectLib.release.keys import Key

MARKS = ".manifest.*.part"  # one of every run that lists the cases


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
    mark = roots.private / f".manifest.{this_writer().name}.part"
    try:
        private_folder(roots.private)
        roots.private.chmod(0o700)
        roots.output.mkdir(parents=True, exist_ok=True)
        began = _write_manifest(settings, roots, mark)
        yield
    except BaseException:
        _take_back(roots, mark, began, missing)
        raise
    finally:
        with suppress(OSError):
            mark.unlink()


def _take_back(roots: Roots, mark: Path, began: bool, made: list[Path]) -> None:
    """Remove what the beginning of a release has written, and those of the folders that are empty then. When another run has joined
    it, all of it stays.
    """
    aside = roots.private / f".{mark.name}"
    with suppress(OSError):
        if began:
            roots.manifest.rename(aside)  # first of all: whoever comes from here on begins the release himself
    if roots.ledger.exists() or any(path != mark and not is_left(path) for path in roots.private.glob(MARKS)):
        with suppress(OSError):
            put_if_absent(aside, roots.manifest)
            aside.unlink()
        return
    for path in (mark, *((aside, roots.cases, roots.left_out) if began else ())):
        with suppress(OSError):
            path.unlink()
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
            if root.is_dir() and any(not path.match(MARKS) for path in root.iterdir()):
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


def _write_manifest(settings: Settings, roots: Roots, mark: Path) -> bool:
    """In one step, so that of two runs that begin at once the later one finds the earlier one's. Whether this one was the first.

    The file that it is made in stays as the ``mark`` of a run that lists the cases.
    """
    content = settings.to_bytes()
    mark.write_bytes(content)
    mark.chmod(0o600)
    first = not roots.manifest.exists() and put_if_absent(mark, roots.manifest)
    different = settings.differences(Settings.load(roots.manifest))
    if different:
        raise MedProtectError(f"{roots.manifest}: another run just began this release with other settings ({', '.join(different)}).")
    if roots.manifest.read_bytes() != content:
        write_private(roots.manifest, content)
    return first
