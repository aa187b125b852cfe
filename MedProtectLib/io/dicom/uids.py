"""Identifiers of derived objects: made from names, so that the same work gives the same identifiers.

A name is the text of some parts, one a line. Its SHA-256, cut to 128 bits with the version and variant bits of a UUID of version 8
(RFC 9562, section 5.8), written as a decimal number behind "2.25.", is the UID (DICOM PS3.5, annex B.2).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True)
class DerivedUids:
    """What a derived series is called: derived UIDs by the UIDs of the source, for the series and for its SOP instances."""

    series: Mapping[str, str]
    instances: Mapping[str, str]


def uid_of(parts: Iterable[str]) -> str:
    """The UID of a name."""
    digest = int.from_bytes(hashlib.sha256("\n".join(parts).encode()).digest()[:16])
    version, variant = 0x8 << 76, 0x2 << 62
    bits = digest & ~(0xF << 76) & ~(0x3 << 62) | version | variant
    return f"2.25.{UUID(int=bits).int}"


IMPLEMENTATION = uid_of(("MedProtect", "implementation class"))
