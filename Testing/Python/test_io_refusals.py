"""Whatever is wrong with a file is said in one line that names it, before anything large is allocated."""

from __future__ import annotations

import gzip
import io
import struct
import subprocess
import sys
import tracemalloc
import zlib
from contextlib import suppress

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from made_images import EXTENSIONS, GREY, metaimage, nifti, nrrd, patched, placed, png, png_chunk, png_rows, sample
from MedProtectLib.errors import MedProtectError
from MedProtectLib.io import read_volume, write_volume

NOISE = np.random.default_rng(0).integers(0, 200, (8, 9, 10)).astype("<i2")
BAD_FLOATS = np.array([np.nan, np.inf, -np.inf, *[0.0] * 21], "<f4").reshape(2, 3, 4)
PNG_GREY = np.arange(12, dtype="u1").reshape(3, 4)


def damaged(content: bytes, position: int) -> bytes:
    """One bit of one byte turned."""
    position %= len(content)
    return content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


def directions(*vectors: str) -> dict[str, str]:
    return {"space": "left-posterior-superior", "space_directions": " ".join(vectors), "space_origin": "(0,0,0)"}


def encoded(kind: str) -> bytes:
    """A picture in a lossy format."""
    stream = io.BytesIO()
    Image.fromarray(PNG_GREY).save(stream, kind)
    return stream.getvalue()


PACKED = nrrd(NOISE, "gzip")
PACKED_MHA = metaimage(NOISE, compressed=True)
NOT_NUMBERS = "3 of 24 voxels are infinite or not a number"
FOUR_D = "4D image whose channels nobody declared"

TEXT_HEADERS = {
    "nrrd is text": (".nrrd", b"patient,age\n1,2\n", "not of the format"),
    "nrrd without fields": (".nrrd", b"NRRD0004\n\n", "'type' is missing"),
    "nrrd block type": (".nrrd", nrrd(GREY, type="block"), "type 'block' are not supported"),
    "nrrd half floats": (".nrrd", nrrd(GREY.astype("f2"), type="float16"), "type 'float16' are not supported"),
    "nrrd bzip2": (".nrrd", nrrd(GREY, encoding="bzip2"), "encoding 'bzip2' is not supported"),
    "nrrd no byte order": (".nrrd", nrrd(GREY, endian=None), "'endian' must be"),
    "nrrd sizes no numbers": (".nrrd", nrrd(GREY, sizes="4 3 x"), "no whole number"),
    "nrrd sizes negative": (".nrrd", nrrd(GREY, sizes="-4 3 2"), "does not fit"),
    "nrrd sizes zero": (".nrrd", nrrd(GREY, sizes="0 3 2"), "does not fit"),
    "nrrd sizes and dimension": (".nrrd", nrrd(GREY, sizes="12 2"), "'dimension' is not the number of sizes"),
    "nrrd huge": (".nrrd", nrrd(GREY, "gzip", sizes="40000 30000 20000"), "48,000,000,000,000 bytes"),
    "nrrd huge raw": (".nrrd", nrrd(GREY, sizes="40000 30000 20000"), "48,000,000,000,000 bytes"),
    "nrrd kinds and sizes": (".nrrd", nrrd(GREY, kinds="domain domain"), "does not fit"),
    "nrrd complex": (".nrrd", nrrd(GREY[:, :, :2], kinds="complex domain domain"), "kind 'complex domain domain'"),
    "nrrd 1D": (".nrrd", nrrd(GREY[0, 0]), "has 1 axis"),
    "nrrd 4D": (".nrrd", nrrd(np.stack([GREY, GREY])), FOUR_D),
    "nrrd 4D time": (".nrrd", nrrd(np.stack([GREY, GREY]), kinds="domain domain domain time"), FOUR_D),
    "nrrd NaN": (".nrrd", nrrd(BAD_FLOATS), NOT_NUMBERS),
    "nrrd NaN gzip": (".nrrd", nrrd(BAD_FLOATS, "gzip"), NOT_NUMBERS),
    "nrrd spacing 0": (".nrrd", nrrd(GREY, spacings="1 0 3"), "spacing in its header is 1 x 0 x 3"),
    "nrrd spacing negative": (".nrrd", nrrd(GREY, spacings="1 -2 3"), "spacing in its header is 1 x -2 x 3"),
    "nrrd spacing NaN": (".nrrd", nrrd(GREY, spacings="1 nan 3"), "spacing in its header is 1 x nan x 3"),
    "nrrd spacing infinite": (".nrrd", nrrd(GREY, spacings="1 2 inf"), "spacing in its header is 1 x 2 x inf"),
    "nrrd spacing no number": (".nrrd", nrrd(GREY, spacings="1 2 x"), "damaged NRRD header"),
    "nrrd direction 0": (".nrrd", nrrd(GREY, **directions("(1,0,0)", "(0,0,0)", "(0,0,3)")), "is 1 x 0 x 3"),
    "nrrd direction none": (".nrrd", nrrd(GREY, **directions("(1,0,0)", "none", "(0,0,3)")), "is 1 x nan x 3"),
    "nrrd direction NaN": (".nrrd", nrrd(GREY, **directions("(1,0,0)", "(0,nan,0)", "(0,0,3)")), "is 1 x nan x 3"),
    "nrrd directions short": (".nrrd", nrrd(GREY, **directions("(1,0,0)", "(0,1,0)")), "'space directions' does not fit"),
    "nrrd singular": (".nrrd", nrrd(GREY, **directions("(1,0,0)", "(2,0,0)", "(0,0,3)")), "singular"),
    "nrrd sheared": (".nrrd", nrrd(GREY, **directions("(1,0,0)", "(0.1,1,0)", "(0,0,3)")), "sheared"),
    "nrrd origin NaN": (".nrrd", nrrd(GREY, **placed((1, 1, 1), np.eye(3), (0, float("nan"), 0))), "not a readable image"),
    "nrrd truncated": (".nrrd", nrrd(GREY)[:-1], "47 bytes are too few for the 48 bytes"),
    "nrrd header only": (".nrrd", nrrd(GREY, packed=b""), "0 bytes are too few"),
    "nrrd gzip truncated": (".nrrd", PACKED[: len(PACKED) // 2], "damaged or truncated"),
    "nrrd gzip checksum missing": (".nrrd", PACKED[:-8], "damaged or truncated"),
    "nrrd gzip checksum wrong": (".nrrd", damaged(PACKED, -6), "damaged or truncated"),
    "nrrd gzip bit flipped": (".nrrd", damaged(PACKED, -100), "damaged or truncated"),
    "nrrd gzip short": (".nrrd", nrrd(NOISE, "gzip", gzip.compress(NOISE.tobytes()[:-1])), "ends after 1,439 of 1,440"),
    "nrrd not gzip": (".nrrd", nrrd(GREY, "gzip", GREY.tobytes()), "damaged or truncated"),
    "nrrd ascii word": (".nrrd", nrrd(GREY, "ascii", b"1 2 x " * 8), "damaged or truncated"),
    "nrrd ascii short": (".nrrd", nrrd(GREY, "ascii", b"1 2 3 4 5 6 7 8 "), "16 of 48 bytes"),
    "nrrd ascii overflow": (".nrrd", nrrd(GREY, "ascii", b"70000 " * 24), "damaged or truncated"),
    "nrrd hex odd": (".nrrd", nrrd(GREY, "hex", b"abc" * 33), "damaged or truncated"),
    "nrrd line skip": (".nrrd", nrrd(GREY, line_skip="1"), "not supported"),
    "nrrd byte skip from compressed end": (".nrrd", nrrd(GREY, "gzip", byte_skip="-1"), "not supported"),
    "nhdr data missing": (".nhdr", nrrd(GREY, packed=b"", data_file="gone.raw"), "'gone.raw' is missing"),
    "nhdr list": (".nhdr", nrrd(GREY, packed=b"a.raw\nb.raw\n", data_file="LIST"), "several files"),
    "nhdr list of slabs": (".nhdr", nrrd(GREY, packed=b"a.raw\nb.raw\n", data_file="LIST 2"), "several files"),
    "nhdr pattern": (".nhdr", nrrd(GREY, packed=b"", data_file="a%02d.raw 1 2 1"), "several files"),
    "mha is binary": (".mha", bytes(range(256)), "not of the format"),
    "mha is text": (".mha", b"name: value\n", "'NDims' is missing"),
    "mha no sizes": (".mha", metaimage(GREY, DimSize=None), "'DimSize' is missing"),
    "mha few sizes": (".mha", metaimage(GREY, DimSize="4 3"), "'DimSize' is '4 3'"),
    "mha size no number": (".mha", metaimage(GREY, DimSize="4 3 x"), "'DimSize' is '4 3 x'"),
    "mha size negative": (".mha", metaimage(GREY, DimSize="-4 3 2"), "sizes must be positive"),
    "mha huge": (".mha", metaimage(GREY, DimSize="40000 40000 40000"), "128,000,000,000,000 bytes"),
    "mha huge compressed": (".mha", metaimage(GREY, compressed=True, DimSize="40000 40000 40000"), "128,000,000,000,000 bytes"),
    "mha type": (".mha", metaimage(GREY, ElementType="MET_OTHER"), "type 'MET_OTHER' are not supported"),
    "mha 4D": (".mha", metaimage(np.stack([GREY, GREY])), FOUR_D),
    "mha NaN": (".mha", metaimage(BAD_FLOATS), NOT_NUMBERS),
    "mha spacing 0": (".mha", metaimage(GREY, ElementSpacing="1 0 3"), "spacing in its header is 1 x 0 x 3"),
    "mha spacing negative": (".mha", metaimage(GREY, ElementSpacing="1 -2 3"), "spacing in its header is 1 x -2 x 3"),
    "mha spacing NaN": (".mha", metaimage(GREY, ElementSpacing="1 nan 3"), "spacing in its header is 1 x nan x 3"),
    "mha spacing short": (".mha", metaimage(GREY, ElementSpacing="1 2"), "'ElementSpacing' is '1 2'"),
    "mha singular": (".mha", metaimage(GREY, TransformMatrix="1 0 0 1 0 0 0 0 1"), "singular"),
    "mha sheared": (".mha", metaimage(GREY, TransformMatrix="1 0 0 0.1 1 0 0 0 1"), "sheared"),
    "mha truncated": (".mha", metaimage(GREY)[:-1], "47 bytes are too few"),
    "mha zlib truncated": (".mha", PACKED_MHA[:-200], "damaged or truncated"),
    "mha zlib checksum wrong": (".mha", damaged(PACKED_MHA, -2), "damaged or truncated"),
    "mha zlib bit flipped": (".mha", damaged(PACKED_MHA, -100), "damaged or truncated"),
    "mha zlib short": (".mha", metaimage(NOISE, zlib.compress(NOISE.tobytes()[:-1]), CompressedData="True"), "ends after 1,439 of 1,440"),
    "mha header size": (".mha", metaimage(GREY, HeaderSize="3"), "'HeaderSize = 3'"),
    "mha voxels at a compressed end": (".mha", metaimage(GREY, compressed=True, HeaderSize="-1"), "'HeaderSize = -1'"),
    "mha header size no number": (".mha", metaimage(GREY, HeaderSize="x"), "'HeaderSize' is 'x'"),
    "mha channels no number": (".mha", metaimage(GREY, ElementNumberOfChannels=""), "'ElementNumberOfChannels' is ''"),
    "mhd data missing": (".mhd", metaimage(GREY, b"", ElementDataFile="gone.raw"), "'gone.raw' is missing"),
    "mhd list": (".mhd", metaimage(GREY, b"a.raw\n", ElementDataFile="LIST"), "several files"),
    "mhd pattern": (".mhd", metaimage(GREY, b"", ElementDataFile="a%d.raw 1 2 1"), "several files"),
}


def png_of(*chunks: tuple[bytes, bytes]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


WHOLE_PNG = png(4, 3, 8, 0, png_rows(PNG_GREY))
IHDR = struct.pack(">IIBBBBB", 4, 3, 8, 0, 0, 0, 0)
PICTURES = {
    "png palette": (".png", png(4, 3, 8, 3, png_rows(PNG_GREY), (b"PLTE", bytes(36))), "palette colours"),
    "png 1 bit": (".png", png(4, 3, 1, 0, b"\0\x50" * 3), "2 grey levels"),
    "png transparent colour": (".png", png(4, 3, 8, 0, png_rows(PNG_GREY), (b"tRNS", b"\0\3")), "stands for transparency"),
    "png animated": (".png", png(4, 3, 8, 0, png_rows(PNG_GREY), (b"acTL", bytes(8))), "animation"),
    "png is JPEG": (".png", encoded("JPEG"), "not a PNG file"),
    "png huge": (".png", png(2**30, 2**30, 16, 0, bytes(9)), "cannot hold"),
    "png too wide": (".png", png(20, 20, 8, 0, bytes(9)), "damaged PNG"),
    "png empty": (".png", png(0, 3, 8, 0, bytes(9)), "damaged PNG"),
    "png depth": (".png", png(4, 3, 3, 0, bytes(9)), "damaged PNG"),
    "png colour": (".png", png(4, 3, 8, 5, bytes(9)), "damaged PNG"),
    "png no pixels": (".png", png_of((b"IHDR", IHDR), (b"IEND", b"")), "damaged PNG"),
    "png no header": (".png", png_of((b"IDAT", b"x"), (b"IEND", b"")), "damaged PNG"),
    "png garbage": (".png", png_of((b"IHDR", IHDR), (b"IDAT", b"garbage" * 9), (b"IEND", b"")), "damaged PNG"),
    "png bit flipped": (".png", damaged(WHOLE_PNG, 50), "checksum of chunk 2"),
    **{f"png cut at {n}": (".png", WHOLE_PNG[:n], "truncated PNG") for n in (8, 10, 30, 40, -13, -12, -4, -1)},
    "jpeg": (".jpg", encoded("JPEG"), "lossy compression destroys the perturbation"),
    "webp": (".webp", b"RIFF", "lossy compression destroys the perturbation"),
    "gif": (".gif", encoded("GIF"), "no image format is known by '.gif'"),
    "bmp": (".bmp", encoded("BMP"), "Supported are NIfTI"),
    "no extension": ("", b"x", "no image format is known by 'in'"),
    "empty": (".nrrd", b"", "the file is empty"),
}


@pytest.mark.parametrize("case", [*TEXT_HEADERS, *PICTURES])
def test_refusal(tmp_path, case, capfd):
    extension, content, reason = {**TEXT_HEADERS, **PICTURES}[case]
    path = tmp_path / f"in{extension}"
    path.write_bytes(content)
    refused(path, reason)
    assert capfd.readouterr() == ("", "")


def refused(path, reason):
    with pytest.raises(MedProtectError) as caught:
        read_volume(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert reason in message.removeprefix(f"{path}: ")
    assert "\n" not in message
    assert "0x" not in message


NIFTI = NOISE.T.copy()
SHEAR = np.array([[2, 1, 0, 0], [0, 3, 0, 0], [0, 0, 4, 0], [0, 0, 0, 1.0]])
NIFTI_HEADERS = {
    "sheared": ({"affine": SHEAR}, "sheared"),
    "5D": ({"array": NIFTI[..., None, None].repeat(2, 3).repeat(3, 4)}, FOUR_D),
    "complex": ({"array": NIFTI.astype("c8")}, "datatype 32 (complex64)"),
    "NaN": ({"array": BAD_FLOATS}, NOT_NUMBERS),
}


@pytest.mark.parametrize("case", NIFTI_HEADERS)
def test_refusal_of_nifti(tmp_path, case):
    keywords, reason = NIFTI_HEADERS[case]
    made = nifti(**{"array": NIFTI, "qform": 0 if "affine" in keywords else 1, **keywords})
    nib.save(made, tmp_path / "in.nii.gz")
    refused(tmp_path / "in.nii.gz", reason)


NIFTI_BYTES = {
    "pixdim 0": (80, "<f", (0,), "spacing in its header is 0 x 3 x 4"),
    "pixdim negative": (84, "<f", (-3,), "spacing in its header is 2 x -3 x 4"),
    "pixdim NaN": (88, "<f", (float("nan"),), "spacing in its header is 2 x 3 x nan"),
    "qfac": (76, "<f", (2,), "qfac"),
    "quaternion": (256, "<fff", (3, 3, 3), "damaged NIfTI header"),
    "sform without an axis": (280, "<ffff", (0, 0, 0, 0), "singular"),
    "sform singular": (280, "<8f", (1, 2, 0, 0, 2, 4, 0, 0), "singular"),
    "sform NaN": (292, "<f", (float("nan"),), "not finite"),
    "intercept": (112, "<ff", (1, float("nan")), "intercept"),
    "datatype complex128": (70, "<h", (1792,), "datatype 1792"),
    "datatype float128": (70, "<h", (1536,), "datatype 1536"),
    "datatype binary": (70, "<h", (1,), "datatype 1 "),
    "datatype unknown": (70, "<h", (999,), "datatype 999"),
    "huge": (40, "<hhhh", (3, 30000, 30000, 30000), "54,000,000,000,352 bytes"),
    "dim negative": (42, "<h", (-5,), "dim is [3, -5,"),
    "dim 0": (42, "<h", (0,), "dim is [3, 0,"),
    "no dim": (40, "<h", (0,), "dim is [0,"),
    "1D": (40, "<h", (1,), "has 1 axis"),
    "offset in header": (108, "<f", (100,), "begin at byte 100"),
    "offset 0": (108, "<f", (0,), "begin at byte 0"),
    "offset NaN": (108, "<f", (float("nan"),), "begin at byte nan"),
    "offset far": (108, "<f", (1e9,), "too few"),
    "magic": (344, "<4s", (b"xxxx",), "not a NIfTI file"),
    "magic of a pair": (344, "<4s", (b"ni1\0",), "not a NIfTI file"),
    "Analyze": (344, "<4s", (b"\0\0\0\0",), "Analyze 7.5"),
    "header size": (0, "<i", (349,), "not a NIfTI file"),
}


@pytest.mark.parametrize("case", NIFTI_BYTES)
def test_refusal_of_nifti_bytes(tmp_path, case):
    offset, form, values, reason = NIFTI_BYTES[case]
    nib.save(nifti(NIFTI, sform=0 if case in ("qfac", "quaternion") else 1), tmp_path / "in.nii")
    (tmp_path / "in.nii").write_bytes(patched(tmp_path / "in.nii", offset, form, *values))
    refused(tmp_path / "in.nii", reason)


@pytest.mark.parametrize(
    ("extension", "harm", "reason"),
    [
        (".nii", lambda content: content[:-1], "1,791 bytes are too few for the 1,792"),
        (".nii", lambda content: content[:300], "not a NIfTI file"),
        (".nii", gzip.compress, "not a NIfTI file"),
        (".nii", lambda content: b"some text\n" * 99, "not a NIfTI file"),
        (".nii.gz", gzip.decompress, "not a readable gzip file"),
        (".nii.gz", lambda content: content[: len(content) // 2], "truncated"),
        (".nii.gz", lambda content: content[:-6], "damaged or truncated"),
        (".nii.gz", lambda content: damaged(content, -6), "damaged or truncated"),
        (".nii.gz", lambda content: content + b"\x1f\x8b\x08" + bytes(7) + b"x", "damaged"),
    ],
)
def test_refusal_of_harmed_nifti(tmp_path, extension, harm, reason):
    path = tmp_path / f"in{extension}"
    nib.save(nifti(NIFTI), path)
    path.write_bytes(harm(path.read_bytes()))
    refused(path, reason)


def test_refusal_of_large_harmed_nifti(tmp_path):
    """Beyond what is read for the header; nibabel gives voxels without an error here."""
    path = tmp_path / "in.nii.gz"
    nib.save(nifti(np.random.default_rng(0).integers(0, 99, (40, 40, 40)).astype("i2")), path)
    path.write_bytes(damaged(path.read_bytes(), -5000))
    nib.load(path).get_fdata()
    refused(path, "damaged or truncated voxel data")


def test_refusal_of_half_a_pair(tmp_path):
    nib.save(nib.Nifti1Pair(NIFTI, np.eye(4)), tmp_path / "in.hdr")
    (tmp_path / "in.img").unlink()
    refused(tmp_path / "in.hdr", "'in.img' is missing")
    refused(tmp_path / "in.img", "no such file")


def test_refusal_of_folders_and_missing_files(tmp_path):
    (tmp_path / "series.nii").mkdir()
    refused(tmp_path / "series.nii", "no DICOM image in this folder")
    refused(tmp_path / "gone.nrrd", "no such file")


@pytest.mark.parametrize(
    "content",
    [nrrd(GREY, "gzip", sizes="40000 30000 20000"), metaimage(GREY, DimSize="40000 40000 40000"), png(2**30, 2**30, 16, 0, bytes(9))],
)
def test_absurd_sizes_allocate_nothing(tmp_path, content):
    path = tmp_path / ("in" + {b"N": ".nrrd", b"O": ".mha"}.get(content[:1], ".png"))
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(MedProtectError):
            read_volume(path)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


@given(extension=st.sampled_from(EXTENSIONS), data=st.data())
@settings(max_examples=300, deadline=None)
def test_no_damage_is_a_surprise(tmp_path_factory, extension, data):
    """Whatever happens to a file, it is refused, or read and written back."""
    folder = tmp_path_factory.mktemp("harmed")
    path, out = sample(folder, extension), folder / f"out{extension}"
    content = bytearray(path.read_bytes())
    for position, value in data.draw(st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=5)):
        content[position] = value
    first, last = sorted(data.draw(st.tuples(*[st.integers(0, len(content))] * 2)))
    path.write_bytes(bytes(content[:first] + content[last:] if data.draw(st.booleans()) else content))
    with suppress(MedProtectError):
        volume = read_volume(path)
        write_volume(volume, out)
        assert np.array_equal(read_volume(out).array, volume.array)


def test_import_is_light():
    code = "import sys, MedProtectLib.io; print([m for m in ('SimpleITK', 'nibabel', 'torch', 'scipy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"
