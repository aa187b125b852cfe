"""The way back: a protected file, its vault entry and the key give the exact original."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from MedProtectLib.checks import check_key
from MedProtectLib.errors import MedProtectError, remedy
from MedProtectLib.io import extension_of, read_volume, sha256_voxels, write_volume
from MedProtectLib.io.npz import rewrite
from MedProtectLib.release.instances import write_instances
from MedProtectLib.release.keys import Key
from MedProtectLib.release.members import EXTENSION, original_images
from MedProtectLib.release.roots import MANIFEST, RECORDS, SUMMARY
from MedProtectLib.release.settings import Settings
from MedProtectLib.release.vault import Entry, Secret, applied, content_sha256, find_entry
from MedProtectLib.staging import PROTECTED, RECORD
from MedProtectLib.volume import Volume


@dataclass(frozen=True)
class Restoration:
    """What was restored: ``files`` lie at ``output``; ``same_file`` is whether their bytes are those of the original's files.

    The voxels always are, bit for bit, and DICOM files are as well. Other files differ from the original's where their format
    leaves a choice that is not kept: how they are packed, the name of a data file beside a header.
    """

    output: Path
    files: tuple[Path, ...]
    release: str
    case: str
    same_file: bool


def restore_file(
    protected: str | os.PathLike[str], vault: str | os.PathLike[str], key: Key, output: str | os.PathLike[str], overwrite: bool = False
) -> Restoration:
    """Write the original of a protected file, in the same format, readable by the owner only. All of it appears, or nothing.

    Args:
        protected: the file as it was released, to the last byte (of a pair the header, of a DICOM series its folder), or a MedMNIST
            file, of which every image must be as it was released.
        vault: folder with the vault entries, searched with its subfolders.
        key: of the site, the release or the case; see :func:`MedProtectLib.release.keys.load_key`.
        output: where the original goes, in no folder that may be shared, nor the protected file's, with the same extension.
        overwrite: replace a file that is there.

    Raises:
        MedProtectError: the file is not the one that was protected, no entry belongs to it, the key is another one or does not
            reach it, the entry was changed, or the output cannot be written. UsageError: no key of :func:`load_key`.
    """
    check_key(key)
    protected, output = Path(protected), Path(output)
    if output.is_dir():
        raise MedProtectError(f"{output}: this folder exists. Give --output the name of a new file, or for a DICOM series of a new folder.")
    if protected.suffix.lower() == EXTENSION:
        return _restore_members(protected, Path(vault), key, output, overwrite)
    volume = read_volume(protected)
    _check_output(volume.source.files, volume.source.targets(output), Path(vault), overwrite)
    entry = find_entry(Path(vault), volume, key)
    secret = entry.open(key)
    if not secret.headers:
        _check_extension(protected, volume.source.extension, output)
    files, content = _write(volume, _original(volume, entry, secret), secret, output)
    return Restoration(output, files, entry.header.release, entry.header.case, content == secret.original_sha256)


def restore_volume(protected: Volume, entry: Entry, key: Key) -> Volume:
    """The original of a protected volume, in memory. The entry must be that of its file (:func:`find_entry` gives it).

    Raises:
        MedProtectError: as for :func:`restore_file`.
    """
    return _original(protected, entry, entry.open(key))


def _original(protected: Volume, entry: Entry, secret: Secret) -> Volume:
    if entry.header.protected_sha256 != content_sha256(protected):
        raise MedProtectError(f"{protected.name}: the vault entry belongs to another file, or this one was changed after it was protected.")
    try:
        return protected.with_array(applied(secret, protected.array))
    except MedProtectError as error:
        raise MedProtectError(f"{protected.name}: {error}") from error


def _restore_members(protected: Path, vault: Path, key: Key, output: Path, overwrite: bool) -> Restoration:
    """The same for the images of a MedMNIST file; its other arrays and its packing stay."""
    _check_output([protected], [output], vault, overwrite)
    _check_extension(protected, EXTENSION, output)
    arrays, entry = original_images(protected, vault, key)
    with _placed(output) as folder:
        rewrite(protected, folder / output.name, arrays)
    count = sum(map(len, arrays.values()))
    return Restoration(output, (output,), entry.header.release, f"{count} images", same_file=False)


def _check_output(inputs: Iterable[Path], outputs: Iterable[Path], vault: Path, overwrite: bool) -> None:
    folders = {folder for file in inputs for folder in (file.absolute().parent.resolve(), file.resolve().parent)}
    unfinished = set(_outputs_beside(vault))
    for file in outputs:
        parent = file.absolute().parent.resolve()
        if parent in folders:
            raise MedProtectError(
                f"{file}: this is the protected file's own folder. Choose another one, so that no original is shared by mistake."
            )
        for folder in (parent, *parent.parents):
            if folder in unfinished or _is_shareable(folder):
                raise MedProtectError(
                    f"{file}: {folder} holds what may be shared. Choose a place outside it, so that no original is shared by mistake."
                )
        if file.is_dir():
            raise MedProtectError(f"{file}: this folder exists. Choose another --output.")
        if file.exists() and not overwrite:
            raise MedProtectError(f"{file}: this file exists. Use --overwrite to replace it, or choose another --output.")


def _is_shareable(folder: Path) -> bool:
    """Whether a folder holds a finished release, or protected files beside their records."""
    released = any((folder / name).exists() for name in (RECORDS, SUMMARY))
    return released or all(any(folder.glob(pattern)) for pattern in (f"*{RECORD}", f"*_{PROTECTED}*"))


def _outputs_beside(vault: Path) -> Iterator[Path]:
    """The shareable folders of the releases that a vault is of, finished or not."""
    for manifest in (vault.resolve().parent / MANIFEST, *vault.rglob(MANIFEST)):
        with suppress(MedProtectError, TypeError):  # another file of that name
            yield Path(Settings.load(manifest).output).resolve()


def _check_extension(protected: Path, extension: str, output: Path) -> None:
    if extension_of(output) != extension:
        raise MedProtectError(f"{output}: {protected.name} keeps its format; give --output a name that ends in {extension}.")


@contextmanager
def _placed(output: Path) -> Iterator[Path]:
    """A folder beside the output that nobody else can look into. What is made there is put into place when the block ends well;
    when it does not, nothing is left.

    Raises:
        MedProtectError: no space or no permission; what the block raises, without the name of that folder.
    """
    missing = [folder for folder in output.parents if not folder.exists()]
    name = ""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{output.name[:100]}.", suffix=".part", dir=output.parent) as name:
            yield Path(name)
            _move(Path(name), output)
    except OSError as error:
        what_to_do = remedy(error, "Free space or choose another folder.")
        raise MedProtectError(f"{output}: cannot be written ({error.strerror}). {what_to_do}") from error
    except MedProtectError as error:
        raise MedProtectError(str(error).replace(name, str(output.parent))) from error
    finally:
        with suppress(OSError):
            for folder in missing:
                folder.rmdir()


def _move(folder: Path, output: Path) -> None:
    """Put what is in a folder beside ``output`` into place, readable by the owner only, a header after its voxels."""
    for path in folder.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    for path in sorted(folder.iterdir(), key=lambda p: p.name == output.name):
        path.replace(output.parent / path.name)


def _write(protected: Volume, original: Volume, secret: Secret, output: Path) -> tuple[tuple[Path, ...], str]:
    """Write and re-read beside the output, then move in place. Returns the files and the SHA-256 of their content."""
    with _placed(output) as folder:
        made = folder / output.name
        if secret.headers:
            write_instances(secret.headers, protected, original.array, made)
        else:
            write_volume(original, made)
        stored = read_volume(made)
        if sha256_voxels(stored.array) != sha256_voxels(original.array):
            raise MedProtectError(f"{output}: the file does not hold what was written to it. The disk may be faulty; nothing was kept.")
        content = content_sha256(stored)
    return tuple(output.parent / path.relative_to(folder) for path in stored.source.files), content
