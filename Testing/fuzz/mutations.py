"""Mutations: of bytes, of texts, and of the structure of the formats, so that what is behind a checksum is reached as well.

Every function takes a generator and the content and returns the changed content; the same generator gives the same change.
"""

from __future__ import annotations

import gzip
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Rng = np.random.Generator
Mutation = Callable[[Rng, bytes], bytes]

NUMBERS = (0, 1, 2, 3, 7, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**63 - 1, 2**64 - 1)
WORDS = (
    *map(str, NUMBERS),
    *("-1", "-32768", "-2147483648", "-9223372036854775808", "9" * 30, "9" * 5000, "1e308", "1e-320", "nan", "inf", "-inf", "-0", "0.5"),
    *(
        "",
        " ",
        "none",
        "()",
        "(1,0)",
        "(nan,0,0)",
        "(1e308,0,0) (0,1e308,0) (0,0,1e308)",
        "0x10",
        "٣",
        "1_000",
        "true",
        "LIST",
        "%03d.raw",
        "a:b",
    ),
    *(
        "../../../etc/passwd",
        "/etc/passwd",
        "..\\..\\x",
        "C:\\x",
        "con",
        ".",
        "..",
        "/dev/zero",
        "/dev/stdin",
        "\0",
        "x" * 300,
        "\n",
        "=",
        ":=",
    ),
)
JSON_VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        2**31,
        2**64,
        10**30,
        1e308,
        float("nan"),
        float("inf"),
        0.5,
        "",
        "x",
        "../../x",
        "/etc/passwd",
        "\0",
        "\ud800",
    ),
    *([], {}, [[]], [None], {"": None}, ["x"] * 50, {"a": {"b": {"c": []}}}),
)


def choice(rng: Rng, options: Sequence[Any]) -> Any:
    return options[int(rng.integers(len(options)))]


def flip_bits(rng: Rng, content: bytes) -> bytes:
    changed = bytearray(content)
    for at in rng.integers(0, max(1, 8 * len(changed)), int(rng.integers(1, 9))):
        if changed:
            changed[at // 8] ^= 1 << int(at % 8)
    return bytes(changed)


def set_number(rng: Rng, content: bytes) -> bytes:
    """An extreme number over some bytes; half of the time near the begin, where headers are."""
    size, order = int(choice(rng, (1, 2, 4, 8))), choice(rng, ("little", "big"))
    reach = len(content) if rng.random() < 0.5 else min(len(content), 400)
    at = int(rng.integers(0, max(1, reach)))
    number = int(choice(rng, NUMBERS)) % 2 ** (8 * size)
    return content[:at] + number.to_bytes(size, order) + content[at + size :]


def set_float(rng: Rng, content: bytes) -> bytes:
    form = choice(rng, ("<f", ">f", "<d", ">d"))
    at = int(rng.integers(0, max(1, min(len(content), 400))))
    value = struct.pack(form, float(choice(rng, (0.0, -0.0, -1.0, 1e-30, 1e30, float("nan"), float("inf"), float("-inf")))))
    return content[:at] + value + content[at + len(value) :]


def truncate(rng: Rng, content: bytes) -> bytes:
    return content[: int(rng.integers(0, len(content) + 1))]


def cut(rng: Rng, content: bytes) -> bytes:
    start, end = sorted(map(int, rng.integers(0, len(content) + 1, 2)))
    return content[:start] + content[end:]


def insert(rng: Rng, content: bytes) -> bytes:
    at = int(rng.integers(0, len(content) + 1))
    new = choice(rng, (b"\0" * 16, b"\xff" * 16, b"\n", b"\r\n", rng.bytes(int(rng.integers(1, 300))), content[:64]))
    return content[:at] + new + content[at:]


def repeat(rng: Rng, content: bytes) -> bytes:
    start, end = sorted(map(int, rng.integers(0, len(content) + 1, 2)))
    return content[:end] + content[start:end] * int(rng.integers(1, 4)) + content[end:]


def swap(rng: Rng, content: bytes) -> bytes:
    a, b, c, d = sorted(map(int, rng.integers(0, len(content) + 1, 4)))
    return content[:a] + content[c:d] + content[b:c] + content[a:b] + content[d:]


def append(rng: Rng, content: bytes) -> bytes:
    return content + choice(rng, (b"\0" * 1000, rng.bytes(100), content, b"x"))


BYTES: tuple[Mutation, ...] = (flip_bits, set_number, set_number, set_float, truncate, cut, insert, repeat, swap, append)


def any_bytes(rng: Rng, content: bytes) -> bytes:
    for _ in range(int(choice(rng, (1, 1, 1, 2, 4)))):
        content = choice(rng, BYTES)(rng, content)
    return content


def lines(rng: Rng, content: bytes) -> bytes:
    """A text header: words become extreme, lines go missing, come twice, change places or values. What is behind it stays."""
    end = content.find(b"\n\n")
    head, tail = (content, b"") if end < 0 else (content[:end], content[end:])
    if b"ElementDataFile" in head:
        end = content.find(b"\n", content.index(b"ElementDataFile"))
        head, tail = content[:end], content[end:]
    rows = head.split(b"\n")
    for _ in range(int(choice(rng, (1, 1, 2, 3)))):
        at = int(rng.integers(0, len(rows)))
        action = int(rng.integers(0, 7))
        if action <= 2:
            words = rows[at].replace(b",", b" , ").split(b" ")
            words[int(rng.integers(0, len(words)))] = str(choice(rng, WORDS)).encode("utf-8", "surrogatepass")
            rows[at] = b" ".join(words)
        elif action == 3:
            marker = choice(rng, (b"=", b":", b","))
            name, found, _ = rows[at].partition(marker)
            rows[at] = name + (found or marker) + b" " + str(choice(rng, WORDS)).encode("utf-8", "surrogatepass")
        elif action == 4:
            del rows[at]
            rows = rows or [b""]
        elif action == 5:
            rows.insert(at, choice(rng, rows))
        else:
            other = int(rng.integers(0, len(rows)))
            rows[at], rows[other] = rows[other], rows[at]
    return b"\n".join(rows) + tail


def packed_inside(inner: Mutation) -> Mutation:
    """Of a gzip file: what is packed changes, the checksums fit, so that the change is met behind them."""

    def mutate(rng: Rng, content: bytes) -> bytes:
        return gzip.compress(inner(rng, gzip.decompress(content)), 1, mtime=0)

    return mutate


def packed_wrongly(rng: Rng, content: bytes) -> bytes:
    """Of a gzip file: another checksum or length, a bomb, several members, or half a stream."""
    plain = gzip.decompress(content)
    action = int(rng.integers(0, 6))
    if action == 0:
        return content[:-8] + rng.bytes(4) + content[-4:]
    if action == 1:
        return content[:-4] + int(choice(rng, NUMBERS[:-3])).to_bytes(5, "little")[:4]
    if action == 2:
        return gzip.compress(plain + bytes(int(choice(rng, (1, 1000, 30_000_000)))), 9, mtime=0)
    if action == 3:
        half = int(rng.integers(0, len(plain) + 1))
        return (
            gzip.compress(plain[:half], mtime=0)
            + gzip.compress(plain[half:], mtime=0)
            + choice(rng, (b"", b"\0" * 100, b"\x1f\x8b", b"junk"))
        )
    if action == 4:
        return zlib.compress(plain)
    return content[: int(rng.integers(10, len(content)))]


def data_packed(rng: Rng, content: bytes) -> bytes:
    """Of a NRRD or MetaImage header with packed voxels behind it: the stream is damaged, cut, a bomb, or packed in another way."""
    marker = content.find(b"\n\n") + 2 if b"\n\n" in content else content.find(b"LOCAL\n") + 6
    head, tail = content[:marker], content[marker:]
    action = int(rng.integers(0, 5))
    if action == 0:
        return head + any_bytes(rng, tail)
    if action == 1:
        return head + gzip.compress(bytes(int(choice(rng, (0, 10, 30_000_000)))), 9, mtime=0)
    if action == 2:
        return head + zlib.compress(bytes(int(choice(rng, (0, 10, 30_000_000)))), 9)
    if action == 3:
        return head + tail[:-4] + rng.bytes(4)
    return head + tail * 2


def field_of(dtype: np.dtype, start: int = 0) -> Mutation:
    """Of a binary header: one field, or one value of it, becomes extreme."""
    assert dtype.fields is not None
    fields = [(kind, offset) for kind, offset, *_ in dtype.fields.values()]

    def mutate(rng: Rng, content: bytes) -> bytes:
        kind, offset = choice(rng, fields)
        base = kind.base
        at = start + offset + base.itemsize * int(rng.integers(0, max(1, kind.itemsize // base.itemsize)))
        if base.kind == "f":
            value = np.array(choice(rng, (0, -0.0, -1, 1e-30, 1e30, np.nan, np.inf, -np.inf)), base).tobytes()
        elif base.kind in "iu":
            value = (int(choice(rng, NUMBERS)) % 2 ** (8 * base.itemsize)).to_bytes(base.itemsize, "little")
        else:
            value = rng.bytes(base.itemsize)
        return content[:at] + value + content[at + len(value) :]

    return mutate


def png_chunks(rng: Rng, content: bytes) -> bytes:
    """Of a PNG file: chunks change, go missing, come twice or change places; their checksums fit."""
    position, chunks = 8, []
    while position + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, position)
        chunks.append((content[position + 4 : position + 8], content[position + 8 : position + 8 + length]))
        position += 12 + length
    at, action = int(rng.integers(0, len(chunks))), int(rng.integers(0, 6))
    kind, data = chunks[at]
    if action <= 1:
        chunks[at] = (kind, any_bytes(rng, data))
    elif action == 2:
        values = list(struct.unpack(">IIBBBBB", chunks[0][1]))
        which = int(rng.integers(0, 7))
        values[which] = int(choice(rng, NUMBERS)) % (2**32 if which < 2 else 256)
        chunks[0] = (b"IHDR", struct.pack(">IIBBBBB", *values))
    elif action == 3:
        del chunks[at]
    elif action == 4:
        chunks.insert(
            at, choice(rng, (*chunks, (b"tRNS", rng.bytes(6)), (b"PLTE", rng.bytes(9)), (b"acTL", rng.bytes(8)), (b"zTXt", rng.bytes(30))))
        )
    else:
        pixels = b"".join(data for kind, data in chunks if kind == b"IDAT")
        new = choice(rng, (zlib.compress(bytes(30_000_000), 9), zlib.compress(b""), pixels[: len(pixels) // 2], pixels[:-4] + rng.bytes(4)))
        chunks = [(kind, new if kind == b"IDAT" else data) for kind, data in chunks]
    framed = [struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))) for kind, data in chunks]
    return content[:8] + b"".join(framed)


def tiff_tags(rng: Rng, content: bytes) -> bytes:
    """Of a classic little-endian TIFF file: tag, type, count or value of an entry becomes extreme, or the link to the next page."""
    changed = bytearray(content)
    (start,) = struct.unpack_from("<I", content, 4)
    pages = []
    while 0 < start < len(content) - 2 and start not in pages:
        pages.append(start)
        start = struct.unpack_from("<I", content, start + 2 + 12 * struct.unpack_from("<H", content, start)[0])[0]
    for _ in range(int(choice(rng, (1, 1, 2)))):
        page = choice(rng, pages)
        (entries,) = struct.unpack_from("<H", content, page)
        entry = page + 2 + 12 * int(rng.integers(0, entries + 1))
        offset, size = choice(rng, ((0, 2), (2, 2), (4, 4), (8, 4), (8, 4), (8, 2)))
        if entry == page + 2 + 12 * entries:
            offset, size = 0, 4
        number = choice(rng, (*NUMBERS, *pages, len(content), len(content) - 1, *range(20)))
        changed[entry + offset : entry + offset + size] = (int(number) % 2 ** (8 * size)).to_bytes(size, "little")
    return bytes(changed)


def json_values(rng: Rng, content: bytes) -> bytes:
    """Of a JSON file: values become extreme or of another type, keys go missing, change places or are new; nesting without end."""
    if rng.random() < 0.05:
        return choice(rng, (b"[" * 100_000, b'{"a":' * 100_000, b"9" * 10_000, b"", b"\xff\xfe", b'"' + b"x" * 100_000, b"[1,2"))
    return dumped(changed_json(rng, json.loads(content)))


def dumped(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


def changed_json(rng: Rng, value: Any) -> Any:
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = choice(rng, list(value))
        action = int(rng.integers(0, 8))
        if action == 0:
            return {k: v for k, v in value.items() if k != key}
        if action == 1:
            return {**value, str(choice(rng, WORDS)): choice(rng, JSON_VALUES)}
        if action == 2:
            return {**value, key: value[choice(rng, list(value))]}
        return {**value, key: changed_json(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = int(rng.integers(0, len(value)))
        return [
            *value[:at],
            *choice(rng, ((), (changed_json(rng, value[at]),), (changed_json(rng, value[at]),), (value[at],) * 3)),
            *value[at + 1 :],
        ]
    if isinstance(value, str) and rng.random() < 0.5:
        return choice(rng, (value + "x", value[:-1], value.upper(), "../" + value, "/" + value, value * 3, str(choice(rng, WORDS))))
    if isinstance(value, int) and not isinstance(value, bool) and rng.random() < 0.5:
        return choice(rng, (*NUMBERS, -value, value + 1, float(value), str(value)))
    return choice(rng, JSON_VALUES)


def prefixed_json(start: int, form: str) -> Mutation:
    """Of a file with a JSON header behind its length: the header changes and the length fits."""

    def mutate(rng: Rng, content: bytes) -> bytes:
        size = struct.calcsize(form)
        (length,) = struct.unpack_from(form, content, start)
        head, tail = content[start + size : start + size + length], content[start + size + length :]
        new = json_values(rng, head)
        return content[:start] + struct.pack(form, len(new)) + new + tail

    return mutate


def zip_members(rng: Rng, content: bytes) -> bytes:
    """Of a zip file of .npy arrays: the arrays' headers and voxels change, members go missing or get other names, or are bombs."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    at, action = int(rng.integers(0, len(members))), int(rng.integers(0, 8))
    name, data = members[at]
    if action <= 1:
        members[at] = (name, any_bytes(rng, data))
    elif action == 2:
        members[at] = (name, data.replace(b"'shape': (", b"'shape': (" + str(choice(rng, (*NUMBERS, -1))).encode() + b", "))
    elif action == 3:
        members[at] = (
            name,
            data.replace(b"'|u1'", choice(rng, (b"'|O'", b"'<f8'", b"'|S0'", b"'|V9'", b"'>i2'", b"'<U99999999'", b"'|u1', 'x'"))),
        )
    elif action == 4:
        members[at] = (str(choice(rng, WORDS)), data)
    elif action == 5:
        del members[at]
    elif action == 6:
        members[at] = (name, data[: data.index(b"\n") + 1] + bytes(30_000_000))
    else:
        members[at] = (name, choice(rng, members)[1])
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", int(choice(rng, (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))) as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name.replace("\0", "_")[:200] or "x"), data)
    return stream.getvalue()


def dicom_elements(rng: Rng, content: bytes) -> bytes:
    """Of a DICOM file: elements go missing, become extreme, empty, or several values; sequences lose items or hold themselves."""
    import warnings

    import pydicom
    from pydicom.config import settings

    settings.writing_validation_mode = settings.reading_validation_mode = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(io.BytesIO(content))
        stream = io.BytesIO()
        try:
            for _ in range(int(choice(rng, (1, 1, 2, 3)))):
                _change_element(rng, dataset)
            dataset.save_as(stream)
        except Exception:
            return any_bytes(rng, content)
    return stream.getvalue()


def _change_element(rng: Rng, dataset: Any) -> None:
    elements = list(dataset)
    if not elements:
        return
    element = choice(rng, elements)
    if element.VR == "SQ" and len(element.value) and rng.random() < 0.8:
        if rng.random() < 0.7:
            _change_element(rng, choice(rng, element.value))
        else:
            element.value = choice(rng, ([], list(element.value) * 2, list(element.value)[1:]))
        return
    if rng.random() < 0.2:
        del dataset[element.tag]
    elif element.VR in ("US", "UL", "SS", "SL"):
        low, high = {"US": (0, 2**16), "UL": (0, 2**32), "SS": (-(2**15), 2**15), "SL": (-(2**31), 2**31)}[element.VR]
        numbers = [n for n in (*NUMBERS, -1, -(2**15), 5, 12) if low <= n < high]
        element.value = choice(rng, (None, [1, 2], *numbers))
    elif element.VR in ("OB", "OW", "UN"):
        element.value = any_bytes(rng, element.value or b"\0\0")
    elif element.VR in ("FD", "FL"):
        element.value = choice(rng, (0.0, -1.0, float("nan"), float("inf"), 1e308, [1.0, 2.0], None)) if element.VR == "FD" else 0.0
    else:
        element.VR, _ = choice(rng, ((element.VR, element.value), ("UN", None)))
        new = choice(
            rng,
            (
                "",
                "0",
                "-1",
                "nan",
                "inf",
                "1e308",
                "9" * 16,
                "1\\2",
                "a\\b\\c\\d\\e\\f\\g",
                "x" * 64,
                "../../x",
                "1.2.3",
                "1\\0\\0\\1\\0\\0",
                "1\\0\\0\\0\\0\\1",
            ),
        )
        element._value = new.encode() if element.VR == "UN" else new.split("\\") if "\\" in new else new
