"""The restore vault: for every protected file an encrypted entry that takes the perturbation off again, to the last bit.

An entry is a file of four parts:

    b"MEDVAULT" | length of the header, 4 bytes | header, JSON | ciphertext with its tag, AES-256-GCM

Everything in front of the ciphertext is its associated data: changing a bit of it is noticed as well. The header names the
release and the case and holds the SHA-256 of the protected file and of its voxels, which bind the entry to that one file.

Encrypted are the SHA-256 of the original's file and voxels, their type and shape, and the differences

    d = (original - protected) mod 2^n,   n = bits of the stored type

of the bit patterns as integers, which is exact for integers and floats alike, as 2d or -2d - 1 (so that small changes of both
signs have zeros in their high bytes), the high bytes of a slab apart from the low ones, packed with zlib; and for DICOM the
original's headers.

No nonce can occur twice with one key: every entry is encrypted under a key of its own, derived by HKDF from the case's key and a
salt of 32 random bytes, and that key encrypts this one message (with the nonce 0).
"""

from __future__ import annotations

import hashlib
import json
import secrets
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from MedProtectLib.errors import MedProtectError
from MedProtectLib.io import sha256_file, sha256_voxels
from MedProtectLib.outputs import private_folder, write_private
from MedProtectLib.release.instances import is_dicom_image, kept_headers
from MedProtectLib.release.keys import KEY_BYTES, Key, check_name, derived
from MedProtectLib.untrusted import parse_json
from MedProtectLib.volume import Volume

SCHEMA = 1
ALGORITHM = "AES-256-GCM"
SUFFIX = ".medvault"
MAGIC = b"MEDVAULT"
LENGTH_BYTES = 4
LONGEST_HEADER = 1 << 16
LARGEST_MESSAGE = (1 << 31) - 1 - 16  # of AES-GCM in the cryptography package, tag included
NONCE = bytes(12)
KEY_ID_BYTES = 8
COMPRESSION_LEVEL = 6
NOT_AN_ENTRY = "not a MedProtect vault entry, or damaged. Get a fresh copy from your backup."


@dataclass(frozen=True)
class Header:
    """What an entry says in clear. ``key_id`` tells whether a key is the right one, ``salt`` is that of the entry's own key (hex)."""

    release: str
    case: str
    key_id: str
    salt: str
    protected_sha256: str
    protected_voxels_sha256: str
    algorithm: str = ALGORITHM
    schema: int = SCHEMA

    def to_bytes(self) -> bytes:
        text = json.dumps(asdict(self), sort_keys=True).encode()
        return MAGIC + len(text).to_bytes(LENGTH_BYTES, "big") + text

    def opens_with(self, key: Key) -> bool:
        """Whether the key is the one that the entry was sealed under. Raises MedProtectError for one that does not reach the case."""
        return self.key_id == _key_id(key.for_case(self.release, self.case))


@dataclass(frozen=True)
class Secret:
    """What an entry keeps: the type and shape of the voxels, SHA-256 of original file and voxels, and the packed differences.

    ``headers`` are those of the original where its protected files have others (DICOM).
    """

    dtype: str
    shape: tuple[int, ...]
    original_sha256: str
    original_voxels_sha256: str
    differences: bytes = field(repr=False)
    headers: bytes = field(default=b"", repr=False)

    def to_bytes(self) -> bytes:
        fields = {key: value for key, value in asdict(self).items() if key != "headers"} | {"differences": len(self.differences)}
        about = json.dumps(fields, sort_keys=True).encode()
        return len(about).to_bytes(LENGTH_BYTES, "big") + about + self.differences + self.headers

    @classmethod
    def from_bytes(cls, content: bytes) -> Secret:
        """The inverse of :meth:`to_bytes`. Raises MedProtectError, KeyError or TypeError for other content."""
        end = LENGTH_BYTES + int.from_bytes(content[:LENGTH_BYTES], "big")
        about = parse_json(content[LENGTH_BYTES:end], "the secret of a vault entry is damaged.")
        middle = end + int(about["differences"])
        return cls(**{**about, "shape": tuple(about["shape"]), "differences": content[end:middle]}, headers=content[middle:])


@dataclass(frozen=True)
class Entry:
    """One case's entry. ``sealed`` is the ciphertext with its tag, ``associated`` all that stands in front of it in the file."""

    header: Header
    associated: bytes = field(repr=False)
    sealed: bytes = field(repr=False)
    path: Path | None = None

    @property
    def name(self) -> str:
        """The name of its file: that of the protected content."""
        return self.header.protected_sha256 + SUFFIX

    @property
    def name_of_case(self) -> str:
        """A name beside entries of other cases with the same content, found as fast: :attr:`name` with what tells the case."""
        case = hashlib.sha256(f"{self.header.release}\n{self.header.case}".encode()).hexdigest()
        return f"{self.header.protected_sha256}.{case[:16]}{SUFFIX}"

    def to_bytes(self) -> bytes:
        return self.associated + self.sealed

    def save(self, folder: Path, name: str | None = None) -> Path:
        """Write it into the vault's folder, readable by the owner only, and return the path.

        Under its own :attr:`name` or :attr:`name_of_case` it is found at once; under another one all entries of the vault are looked at.

        Raises:
            MedProtectError: the folder cannot be written.
        """
        path = folder / (name or self.name)
        try:
            private_folder(folder)
            write_private(path, self.to_bytes())
        except OSError as error:
            raise MedProtectError(f"{path}: cannot be written ({error.strerror}). Free space or choose another folder.") from error
        return path

    @classmethod
    def load(cls, path: Path) -> Entry:
        """Read an entry.

        Raises:
            MedProtectError: not an entry, damaged, or from a newer version.
        """
        try:
            if path.stat().st_size > LONGEST_HEADER + LARGEST_MESSAGE:
                raise MedProtectError(f"{path}: {NOT_AN_ENTRY}")
            content = path.read_bytes()
        except OSError as error:
            raise MedProtectError(f"{path}: cannot be read ({error.strerror}).") from error
        header, end = _parse_header(path, content[: LONGEST_HEADER + len(MAGIC) + LENGTH_BYTES])
        return cls(header, content[:end], content[end:], path)

    def open(self, key: Key) -> Secret:
        """What it keeps.

        Raises:
            MedProtectError: the key does not reach the case or is another one, or the entry was changed.
        """
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        case_key = key.for_case(self.header.release, self.header.case)
        if self.header.key_id != _key_id(case_key):
            raise MedProtectError(f"{self.path or self.name}: wrong key: case '{self.header.case}' was sealed under another one.")
        try:
            content = AESGCM(_message_key(case_key, self.header.salt)).decrypt(NONCE, self.sealed, self.associated)
            return Secret.from_bytes(content)
        except (InvalidTag, MedProtectError, ValueError, KeyError, TypeError) as error:
            raise MedProtectError(f"{self.path or self.name}: the vault entry was changed or is damaged. Get a fresh copy.") from error

    def resealed(self, old: Key, new: Key) -> Entry:
        """The same entry under another key.

        Raises:
            MedProtectError: as for :meth:`open`.
        """
        header = self.header
        return _sealed(self.open(old), new, header.release, header.case, header.protected_sha256, header.protected_voxels_sha256)

    def opens_with(self, key: Key) -> bool:
        """Whether the key is the one that it was sealed under."""
        return self.header.opens_with(key)


def seal(original: Volume, protected: Volume, key: Key, release: str, case: str) -> Entry:
    """The entry that gives the original back.

    Args:
        original: the image as it was read; not modified.
        protected: the protected image as it was read from the files that will be given away (its source names them).
        key: that of the site or the release.
        release: name of the release; part of the derivation of the case's key.
        case: name of the case in the release.

    Raises:
        MedProtectError: a key without that reach, a bad name, images of different shape or type, or 2 GB of differences or DICOM headers.
    """
    if (original.array.shape, original.array.dtype) != (protected.array.shape, protected.array.dtype):
        raise MedProtectError(f"{protected.name}: it has another shape or type than its original and cannot be sealed.")
    for name in (release, case):
        check_name(name)
    secret = Secret(
        protected.array.dtype.str[1:],
        protected.array.shape,
        content_sha256(original),
        sha256_voxels(original.array),
        b"".join(_packed(original.array, protected.array)),
        kept_headers(original, protected) if is_dicom_image(original) else b"",
    )
    return _sealed(secret, key, release, case, content_sha256(protected), sha256_voxels(protected.array))


def content_sha256(volume: Volume) -> str:
    """SHA-256 of the file that a volume was read from; of several files (header and voxels, a series) that of their sorted hashes.

    Names and order of the files do not matter. For an image without a file of its own (in a MedMNIST file) it is that of its voxels.

    Raises:
        MedProtectError: the files cannot be read.
    """
    files: Sequence[Path] = getattr(volume.source, "files", ())
    if not files:
        return sha256_voxels(volume.array)
    hashes = sorted(map(sha256_file, files))
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def find_entry(vault: Path, volume: Volume, key: Key | None = None) -> Entry:
    """The entry of a vault that belongs to exactly the files that a volume was read from; of several cases' that of the ``key``.

    Names of entries begin with the SHA-256 of the protected content; under another name they are found by their header.

    Raises:
        MedProtectError: there is none, or the vault or an entry cannot be read.
    """
    if not vault.is_dir():
        raise MedProtectError(f"{vault}: no such folder. Give the folder that holds the vault entries ({SUFFIX}).")
    content, voxels = content_sha256(volume), sha256_voxels(volume.array)
    named, damage = _of_content(vault.rglob(f"{content}*{SUFFIX}"), content)
    if named:
        return Entry.load(best_for(key, named))
    same_voxels = None
    for path in sorted(vault.rglob(f"*{SUFFIX}")):
        with suppress(MedProtectError):  # a damaged entry of another case
            header = read_header(path)
            if header.protected_sha256 == content:
                return Entry.load(path)
            if header.protected_voxels_sha256 == voxels:
                same_voxels = header
    if damage is not None:
        raise damage
    if same_voxels is not None:
        raise MedProtectError(
            f"{volume.name}: it has the voxels of case '{same_voxels.case}' but was saved anew. Restore from the file as it was released."
        )
    raise MedProtectError(
        f"{volume.name}: no entry in {vault} belongs to exactly this file. It was changed after it was protected, or another vault has it."
    )


def best_for(key: Key | None, entries: Sequence[Path]) -> Path:
    """Of several entries of one content, which is that of several cases or releases, the first that a key opens, else the first."""
    if key is None or len(entries) == 1:
        return entries[0]
    return next((path for path in entries if _opens(key, path)), entries[0])


def _of_content(paths: Iterable[Path], content: str) -> tuple[list[Path], MedProtectError | None]:
    """Those entries that belong to a protected content, and what is wrong with a damaged one."""
    found, damage = [], None
    for path in sorted(paths):
        try:
            if read_header(path).protected_sha256 == content:
                found.append(path)
        except MedProtectError as error:
            damage = error
    return found, damage


def _opens(key: Key, path: Path) -> bool:
    """Whether a key, which may reach a few cases only, is the one of an entry."""
    try:
        return Entry(read_header(path), b"", b"").opens_with(key)
    except MedProtectError:
        return False


def read_header(path: Path) -> Header:
    """What an entry says in clear, without reading the rest.

    Raises:
        MedProtectError: not an entry, damaged, or from a newer version.
    """
    try:
        with path.open("rb") as stream:
            return _parse_header(path, stream.read(LONGEST_HEADER + len(MAGIC) + LENGTH_BYTES))[0]
    except OSError as error:
        raise MedProtectError(f"{path}: cannot be read ({error.strerror}).") from error


def check_same_key(vault: Path, key: Key) -> None:
    """Refuse to add to a vault under another key than the one it was begun with, as its first whole entry tells.

    Raises:
        MedProtectError: another key; one that does not reach the entry's case.
    """
    for path in sorted(vault.glob(f"*{SUFFIX}")):
        with suppress(MedProtectError):  # a damaged entry says nothing about the key
            header = read_header(path)
            break
    else:
        return
    if not header.opens_with(key):
        raise MedProtectError(f"{path}: sealed under another key: two keys would split the vault. Go on with the key that it began with.")


def applied(secret: Secret, protected: np.ndarray) -> np.ndarray:
    """The original voxels: the protected ones, (k, j, i[, c]), with the differences taken off, bit for bit.

    Raises:
        MedProtectError: the differences belong to an image of another type or shape, or do not give the original.
    """
    if (secret.dtype, secret.shape) != (protected.dtype.str[1:], protected.shape):
        raise MedProtectError("the vault entry belongs to an image of another type or shape.")
    original = np.empty_like(protected, order="C")
    try:
        for slab, difference, target in zip(protected, _unpacked(secret, protected), original, strict=True):
            target[...] = (_bits(slab) + difference).view(protected.dtype)
    except (zlib.error, ValueError) as error:
        raise MedProtectError("the differences in the vault entry are damaged.") from error
    if sha256_voxels(original) != secret.original_voxels_sha256:
        raise MedProtectError("the vault entry does not give the original back: its checksum differs.")
    return original


def _sealed(secret: Secret, key: Key, release: str, case: str, content: str, voxels: str) -> Entry:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    case_key = key.for_case(release, case)
    header = Header(release, case, _key_id(case_key), secrets.token_hex(KEY_BYTES), content, voxels)
    message, associated = secret.to_bytes(), header.to_bytes()
    if len(message) > LARGEST_MESSAGE:
        raise MedProtectError(f"case '{case}': its differences take more than 2 GB packed. Split the image.")
    return Entry(header, associated, AESGCM(_message_key(case_key, header.salt)).encrypt(NONCE, message, associated))


def _message_key(case_key: bytes, salt: str) -> bytes:
    return derived(case_key, "entry", bytes.fromhex(salt))


def _key_id(case_key: bytes) -> str:
    return derived(case_key, "key id", length=KEY_ID_BYTES).hex()


def _parse_header(path: Path, content: bytes) -> tuple[Header, int]:
    """The header and where it ends."""
    start = len(MAGIC) + LENGTH_BYTES
    length = int.from_bytes(content[len(MAGIC) : start], "big")
    if not content.startswith(MAGIC) or length > len(content) - start:
        raise MedProtectError(f"{path}: {NOT_AN_ENTRY}")
    fields = parse_json(content[start : start + length], f"{path}: {NOT_AN_ENTRY}")
    schema = fields.get("schema")
    if type(schema) is int and schema > SCHEMA:
        raise MedProtectError(f"{path}: written by a newer MedProtect (vault schema {schema}, this one reads up to {SCHEMA}). Update it.")
    if not _is_header(fields):
        raise MedProtectError(f"{path}: {NOT_AN_ENTRY}")
    return Header(**fields), start + length


def _is_header(fields: dict[str, Any]) -> bool:
    texts = {key: value for key, value in fields.items() if key != "schema"}
    known = set(Header.__dataclass_fields__)
    return (
        set(fields) == known
        and (fields["schema"], fields["algorithm"]) == (SCHEMA, ALGORITHM)
        and all(isinstance(value, str) for value in texts.values())
        and all(
            len(texts[key]) == 64 and set(texts[key]) <= set("0123456789abcdef") for key in texts if key.endswith("sha256") or key == "salt"
        )
    )


def _bits(slab: np.ndarray) -> np.ndarray:
    """The bit patterns of values as unsigned integers."""
    return np.ascontiguousarray(slab).view(f"u{slab.dtype.itemsize}")


def _packed(original: np.ndarray, protected: np.ndarray) -> Iterator[bytes]:
    packer = zlib.compressobj(COMPRESSION_LEVEL)
    for before, after in zip(original, protected, strict=True):
        difference = (_bits(before) - _bits(after)).view(f"i{original.dtype.itemsize}")
        small = (difference << 1) ^ (difference >> (8 * original.dtype.itemsize - 1))
        planes = small.astype(small.dtype.newbyteorder("<")).reshape(-1, 1).view(np.uint8).T
        yield packer.compress(planes.tobytes())
    yield packer.flush()


def _unpacked(secret: Secret, protected: np.ndarray) -> Iterator[np.ndarray]:
    """The differences slab by slab, as unsigned integers (j, i[, c]). Raises zlib.error or ValueError where they are damaged."""
    width, shape = protected.dtype.itemsize, protected.shape[1:]
    unpacked = zlib.decompressobj().decompress(secret.differences, protected.nbytes)
    for planes in np.frombuffer(unpacked, np.uint8).reshape(len(protected), width, -1):
        small = np.ascontiguousarray(planes.T).view(f"<u{width}").reshape(shape).astype(f"u{width}")
        yield (small >> 1) ^ -(small & 1)
