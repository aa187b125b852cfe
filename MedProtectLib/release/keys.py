"""Keys of the restore vault: a site's, a release's, and those of single cases.

    site key  --HKDF-->  release key  --HKDF-->  case key  --HKDF, fresh salt-->  key of one vault entry

Every step goes one way (HKDF with SHA-256, RFC 5869): who holds a case key learns nothing about another case or the release,
who holds a release key nothing about another release. A key file states how far its key reaches.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from MedProtectLib.errors import MedProtectError
from MedProtectLib.outputs import put_if_absent, write_private
from MedProtectLib.untrusted import read_json

SCHEMA = 1
KEY_BYTES = 32
CHECK_BYTES = 16
LARGEST_KEY_FILE = 1 << 26
LONGEST_NAME = 512
SHORTEST_PASSPHRASE = 12
SCRYPT_COSTS = ((1 << 17, 8, 1),)  # n, r, p that a key file may ask for: 128 MiB
READABLE_BY_OTHERS = stat.S_IRWXG | stat.S_IRWXO
NOT_A_KEY = "not a MedProtect key file, or damaged. Get a fresh copy from your backup."
Passphrase = str | Callable[[], str] | None


@dataclass(frozen=True)
class Scrypt:
    """How a passphrase becomes a key (scrypt, RFC 7914): cost ``n``, ``r`` and ``p``, and the salt. Memory: 128 n r bytes."""

    salt: bytes
    n: int
    r: int
    p: int

    def derive(self, passphrase: str) -> bytes:
        """The key, 32 bytes.

        Raises:
            MedProtectError: the passphrase is no text.
        """
        from cryptography.hazmat.primitives.kdf.scrypt import Scrypt as Function

        try:
            said = passphrase.encode()
        except UnicodeEncodeError:
            raise MedProtectError(
                "the passphrase has bytes that are no UTF-8 text. Give it by --passphrase-file, or another one."
            ) from None
        return Function(self.salt, KEY_BYTES, self.n, self.r, self.p).derive(said)


class Key(ABC):
    """What opens vault entries. It shows no secret when printed."""

    @abstractmethod
    def for_release(self, release: str) -> Key:
        """The key of one release.

        Raises:
            MedProtectError: this key does not reach all of that release.
        """

    @abstractmethod
    def for_case(self, release: str, case: str) -> bytes:
        """The 32 bytes of one case's key.

        Raises:
            MedProtectError: this key does not reach that case.
        """

    def for_cases(self, release: str, cases: Iterable[str]) -> CaseKeys:
        """The keys of single cases of a release."""
        return CaseKeys(release, {case: self.for_case(release, case) for case in cases})

    @property
    @abstractmethod
    def reach(self) -> str:
        """What the key opens, in words."""

    @abstractmethod
    def fields(self) -> dict[str, Any]:
        """What its file says, JSON values."""

    @abstractmethod
    def secret_bytes(self) -> bytes:
        """All its secret bytes, in a fixed order."""

    def check(self) -> str:
        """A value that shows a damaged key or a mistyped passphrase, and nothing else about the key."""
        return derived(self.secret_bytes(), f"check {self.reach}", length=CHECK_BYTES).hex()


@dataclass(frozen=True)
class SiteKey(Key):
    """Opens every entry of a site: for the owner of the data alone. ``scrypt`` is set when it comes from a passphrase."""

    secret: bytes = field(repr=False)
    scrypt: Scrypt | None = field(default=None, repr=False)

    @classmethod
    def new(cls, passphrase: str | None = None) -> SiteKey:
        """A random key, or one from a passphrase.

        Raises:
            MedProtectError: a passphrase of less than 12 characters.
        """
        if passphrase is None:
            return cls(secrets.token_bytes(KEY_BYTES))
        if len(passphrase) < SHORTEST_PASSPHRASE:
            raise MedProtectError(f"a passphrase of less than {SHORTEST_PASSPHRASE} characters can be guessed. Take a sentence.")
        scrypt = Scrypt(secrets.token_bytes(KEY_BYTES), *SCRYPT_COSTS[0])
        return cls(scrypt.derive(passphrase), scrypt)

    def for_release(self, release: str) -> ReleaseKey:
        check_name(release)
        return ReleaseKey(release, derived(self.secret, f"release {release}"))

    def for_case(self, release: str, case: str) -> bytes:
        return self.for_release(release).for_case(release, case)

    @property
    def reach(self) -> str:
        return "every release of the site"

    def fields(self) -> dict[str, Any]:
        if self.scrypt is None:
            return {"site": self.secret.hex()}
        return {"site": {"n": self.scrypt.n, "r": self.scrypt.r, "p": self.scrypt.p, "salt": self.scrypt.salt.hex()}}

    def secret_bytes(self) -> bytes:
        return self.secret


@dataclass(frozen=True)
class ReleaseKey(Key):
    """Opens every case of one release."""

    release: str
    secret: bytes = field(repr=False)

    def for_release(self, release: str) -> ReleaseKey:
        if release != self.release:
            raise MedProtectError(f"the key reaches {self.reach}, not the release '{release}'. Ask the owner of the data for its key.")
        return self

    def for_case(self, release: str, case: str) -> bytes:
        self.for_release(release)
        check_name(case)
        return derived(self.secret, f"case {case}")

    @property
    def reach(self) -> str:
        return f"the release '{self.release}'"

    def fields(self) -> dict[str, Any]:
        return {"release": self.release, "key": self.secret.hex()}

    def secret_bytes(self) -> bytes:
        return self.secret


@dataclass(frozen=True)
class CaseKeys(Key):
    """Opens single cases of one release. ``keys``: 32 bytes by the name of the case."""

    release: str
    keys: Mapping[str, bytes] = field(repr=False)

    def for_release(self, release: str) -> Key:
        raise MedProtectError(f"the key reaches {self.reach} only. Ask the owner of the data for the key of the release.")

    def for_case(self, release: str, case: str) -> bytes:
        if release != self.release or case not in self.keys:
            raise MedProtectError(
                f"the key reaches {self.reach} only, not case '{case}' of the release '{release}'. Ask the owner of the data for its key."
            )
        return self.keys[case]

    @property
    def reach(self) -> str:
        shown = ", ".join(sorted(self.keys)[:3])
        more = f" and {len(self.keys) - 3} more" if len(self.keys) > 3 else ""
        return f"of the release '{self.release}' the cases {shown}{more}"

    def fields(self) -> dict[str, Any]:
        return {"release": self.release, "cases": {case: key.hex() for case, key in self.keys.items()}}

    def secret_bytes(self) -> bytes:
        return b"".join(case.encode() + b"\0" + self.keys[case] for case in sorted(self.keys))


def derived(key: bytes, purpose: str, salt: bytes | None = None, length: int = KEY_BYTES) -> bytes:
    """HKDF-SHA256 of a key for one purpose: another purpose or salt gives bytes that have nothing to do with these."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(SHA256(), length, salt, f"MedProtect {purpose}".encode()).derive(key)


def check_name(name: str) -> None:
    """Raises MedProtectError unless ``name`` can be that of a release or a case: 1 to 512 characters that can be printed."""
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
        raise MedProtectError(f"{str(name)[:40]!r}: not a name for a release or a case; give 1 to {LONGEST_NAME} printable characters.")


def save_key(key: Key, path: str | os.PathLike[str]) -> None:
    """Write a new key file that nobody but its owner can read.

    Raises:
        MedProtectError: the file exists (a key that is overwritten is lost, and all that it opens), or cannot be written.
    """
    path = Path(path)
    content = {"medprotect_key": SCHEMA, "opens": key.reach, **key.fields(), "check": key.check()}
    part = path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}.part")
    try:
        write_private(part, (json.dumps(content, indent=2) + "\n").encode())
        written = put_if_absent(part, path)
    except OSError as error:
        raise MedProtectError(f"{path}: cannot be written ({error.strerror}).") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    if not written:
        raise MedProtectError(f"{path}: this file exists, and a key that is overwritten is lost for ever. Choose another name.")


def load_key(path: str | os.PathLike[str], passphrase: Passphrase = None) -> Key:
    """Read a key file. ``passphrase``, or what it returns when called, is used where the key comes from one.

    Raises:
        MedProtectError: not a key file, damaged, from a newer version, readable by others; no passphrase, or a wrong one.
    """
    path = Path(path)
    check_owner_only(path)
    content = read_json(path, NOT_A_KEY, LARGEST_KEY_FILE)
    schema = content.get("medprotect_key")
    if type(schema) is not int or schema < 1:
        raise MedProtectError(f"{path}: {NOT_A_KEY}")
    if schema > SCHEMA:
        raise MedProtectError(f"{path}: written by a newer MedProtect (key schema {schema}, this one reads up to {SCHEMA}). Update it.")
    try:
        key = _key(path, content, passphrase)
        intact = secrets.compare_digest(key.check(), str(content["check"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MedProtectError(f"{path}: {NOT_A_KEY}") from error
    if not intact and isinstance(key, SiteKey) and key.scrypt is not None:
        raise MedProtectError(f"{path}: wrong passphrase, or a damaged key file.")
    if not intact:
        raise MedProtectError(f"{path}: {NOT_A_KEY}")
    return key


def check_owner_only(path: Path) -> None:
    """Raises MedProtectError where the system says that others than its owner may read or change a secret file."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise MedProtectError(f"{path}: cannot be read ({error.strerror}).") from error
    if not stat.S_ISREG(mode):
        raise MedProtectError(f"{path}: not a file.")
    if os.name == "posix" and mode & READABLE_BY_OTHERS:
        raise MedProtectError(f"{path}: others can read or change this secret file. Make it yours alone first: chmod 600 {path}")


def _key(path: Path, content: dict[str, Any], passphrase: Passphrase) -> Key:
    if "site" in content:
        source = content["site"]
        return SiteKey(_secret(source)) if isinstance(source, str) else _from_passphrase(path, source, passphrase)
    check_name(content["release"])
    if "cases" in content:
        for case in content["cases"]:
            check_name(case)
        return CaseKeys(content["release"], {case: _secret(text) for case, text in content["cases"].items()})
    return ReleaseKey(content["release"], _secret(content["key"]))


def _secret(text: str) -> bytes:
    secret = bytes.fromhex(text)
    if len(secret) != KEY_BYTES:
        raise ValueError("a key has 32 bytes")
    return secret


def _from_passphrase(path: Path, source: Mapping[str, Any], passphrase: Passphrase) -> SiteKey:
    cost = (source["n"], source["r"], source["p"])
    if cost not in SCRYPT_COSTS:
        raise ValueError("a cost that no MedProtect writes")
    scrypt = Scrypt(_secret(source["salt"]), *cost)
    said = passphrase() if callable(passphrase) else passphrase
    if said is None:
        raise MedProtectError(f"{path}: this key comes from a passphrase; give it as well.")
    return SiteKey(scrypt.derive(said), scrypt)
