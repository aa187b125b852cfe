"""Image files made byte by byte or by other libraries, so that the project's reader and writer do not test each other."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import tifffile

EXTENSIONS = (".nrrd", ".nhdr", ".mha", ".mhd", ".nii", ".nii.gz", ".hdr", ".png", ".tif")
GREY = np.arange(24, dtype="<i2").reshape(2, 3, 4)


def sample(folder: Path, extension: str) -> Path:
    """``in`` + extension with GREY (its first slice as uint8 in PNG); the voxels beside it where the format wants that."""
    path = folder / f"in{extension}"
    if extension in (".nii", ".nii.gz", ".hdr"):
        nib.save(nifti(GREY.T, kind=nib.Nifti1Pair if extension == ".hdr" else nib.Nifti1Image), path)
    elif extension == ".png":
        path.write_bytes(png(4, 3, 8, 0, png_rows(GREY[0].astype("u1"))))
    elif extension == ".tif":
        tifffile.imwrite(path, GREY, photometric="minisblack")
    elif extension in (".mhd", ".nhdr"):
        (folder / "in.raw").write_bytes(GREY.tobytes())
        detached = metaimage(GREY, b"", ElementDataFile="in.raw") if extension == ".mhd" else nrrd(GREY, packed=b"", data_file="in.raw")
        path.write_bytes(detached)
    else:
        path.write_bytes(metaimage(GREY, compressed=True) if extension == ".mha" else nrrd(GREY, "gzip"))
    return path


def nrrd(array: np.ndarray, encoding: str = "raw", packed: bytes | None = None, **fields: str) -> bytes:
    """A NRRD file of an array (slowest axis first). ``packed`` are other voxel bytes; fields replace or (None) drop those made here."""
    types = {"i1": "int8", "u1": "uchar", "f4": "float", "f8": "double", "i2": "short", "u2": "ushort", "i4": "int", "u4": "uint"}
    header = {
        "type": types.get(array.dtype.str[1:], array.dtype.name),
        "dimension": str(array.ndim),
        "sizes": " ".join(map(str, reversed(array.shape))),
        "endian": "big" if array.dtype.str[0] == ">" else "little",
        "encoding": encoding,
    }
    header |= {name.replace("_", " "): value for name, value in fields.items()}
    text = "NRRD0005\n# made for a test\n" + "".join(f"{name}: {value}\n" for name, value in header.items() if value is not None) + "\n"
    data = {"raw": array.tobytes, "gzip": lambda: gzip.compress(array.tobytes())}.get(encoding, bytes)()
    return text.encode() + (data if packed is None else packed)


def placed(spacing: tuple[float, ...], direction: np.ndarray, origin: tuple[float, ...]) -> dict[str, str]:
    """The NRRD fields that place a 3D image in LPS space; the columns of ``direction`` are the axes."""
    vectors = ["(" + ",".join(repr(float(value)) for value in axis) + ")" for axis in (direction * spacing).T]
    return {
        "space": "left-posterior-superior",
        "space_directions": " ".join(vectors),
        "space_origin": "(" + ",".join(repr(float(value)) for value in origin) + ")",
    }


def metaimage(array: np.ndarray, packed: bytes | None = None, compressed: bool = False, **fields: str) -> bytes:
    """A MetaImage file of an array (slowest axis first); fields replace or (None) drop those made here."""
    names = {"i1": "CHAR", "u1": "UCHAR", "i2": "SHORT", "u2": "USHORT", "i4": "INT", "u4": "UINT", "f4": "FLOAT", "f8": "DOUBLE"}
    names |= {"i8": "LONG_LONG", "u8": "ULONG_LONG"}
    data = zlib.compress(array.tobytes()) if compressed else array.tobytes()
    header = {
        "ObjectType": "Image",
        "NDims": str(array.ndim),
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": str(array.dtype.str[0] == ">"),
        "CompressedData": str(compressed),
        "DimSize": " ".join(map(str, reversed(array.shape))),
        "ElementType": f"MET_{names[array.dtype.str[1:]]}",
    }
    if compressed:
        header["CompressedDataSize"] = str(len(data))
    last = fields.pop("ElementDataFile", "LOCAL")
    header |= fields | {"ElementDataFile": last}
    text = "".join(f"{name} = {value}\n" for name, value in header.items() if value is not None)
    return text.encode() + (data if packed is None else packed)


def nifti(
    array: np.ndarray, affine: np.ndarray | None = None, sform: int = 1, qform: int = 1, kind: type = nib.Nifti1Image, **header: object
) -> nib.Nifti1Pair:
    """A NIfTI image of an array (i, j, k) in its own type and byte order; keywords set header fields as they are."""
    order = ">" if array.dtype.str[0] == ">" else "<"
    image = kind(array, None, kind.header_class(endianness=order))
    image.header.set_data_dtype(array.dtype)
    image.header.set_zooms((1.0,) * array.ndim)
    affine = np.diag([2.0, 3.0, 4.0, 1.0]) if affine is None else affine
    image.set_qform(affine, qform)
    image.set_sform(affine, sform)
    for name, value in header.items():
        image.header[name] = value
    return image


def patched(path: Path, offset: int, form: str, *values: object) -> bytes:
    """The content of a file with some bytes replaced."""
    content = bytearray(path.read_bytes())
    struct.pack_into(form, content, offset, *values)
    return bytes(content)


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *extra: tuple[bytes, bytes], interlaced: int = 0) -> bytes:
    """A PNG file of rows that begin with their filter type; ``extra`` chunks go in front of the pixels."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    chunks = ((b"IHDR", header), *extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_rows(array: np.ndarray) -> bytes:
    """The unfiltered rows of a picture (j, i[, c])."""
    stored = array.astype(array.dtype.newbyteorder(">"))
    return b"".join(b"\0" + row.tobytes() for row in stored)


def slicer_segmentation(layers: np.ndarray, segments: list[dict[str, object]], **fields: str) -> bytes:
    """A .seg.nrrd file as 3D Slicer writes it: layers (k, j, i) or, first axis fastest, (k, j, i, layer)."""
    listed = layers.ndim == 4
    kinds = "list domain domain domain" if listed else "domain domain domain"
    directions = ("none " if listed else "") + "(1,0,0) (0,1,0) (0,0,1)"
    space = {"space": "left-posterior-superior", "kinds": kinds, "space_directions": directions, "space_origin": "(0,0,0)"}
    header, _, data = nrrd(layers, "gzip", **(space | fields)).partition(b"\n\n")
    pairs = "".join(f"Segment{n}_{key}:={value}\n" for n, segment in enumerate(segments) for key, value in segment.items())
    pairs += "Segmentation_MasterRepresentation:=Binary labelmap\n"
    return header + b"\n" + pairs.encode() + b"\n" + data


def tiff_with_shared_values(size: int) -> bytes:
    """A TIFF file of ``size`` bytes whose tags all say that the whole file is their value."""
    entries = (size - 8 - 6) // 12
    head = struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<H", entries)
    tags = b"".join(struct.pack("<HHII", tag, 1, size, 0) for tag in range(300, 300 + entries))
    return (head + tags + bytes(4)).ljust(size, b"\0")
