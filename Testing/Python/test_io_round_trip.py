"""What is read is what other libraries read; what is written has the same header and the new voxels, for all of them."""

from __future__ import annotations

import gzip
import re
import struct
import zlib
from itertools import pairwise
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from made_images import GREY, metaimage, nifti, nrrd, patched, placed, png, png_chunk, png_rows
from MedProtectLib.errors import MedProtectError
from MedProtectLib.io import read_volume, sha256_voxels, write_volume
from MedProtectLib.volume import Geometry, Volume

TYPES = ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8")
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])
COLOURS = np.arange(48, dtype="u1").reshape(1, 4, 4, 3)


def rotation(turns: tuple[float, float, float], flip: bool) -> np.ndarray:
    """Rotations about x, y, z in radians; the last axis reversed for a left-handed grid."""
    matrix = np.eye(3)
    for axis, turn in enumerate(turns):
        a, b = [n for n in range(3) if n != axis]
        about = np.eye(3)
        about[[a, a, b, b], [a, b, a, b]] = np.cos(turn), -np.sin(turn), np.sin(turn), np.cos(turn)
        matrix = about @ matrix
    return matrix * [1, 1, -1 if flip else 1]


def make_nrrd(path: Path, array: np.ndarray, spacing, direction, origin, packed: bool) -> None:
    content = nrrd(array, "gzip" if packed else "raw", **placed(spacing, direction, origin))
    path.write_bytes(content.replace(b"\n\n", b"\nfoo:=bar baz: x\n\n", 1))


def make_nhdr(path: Path, array: np.ndarray, spacing, direction, origin, packed: bool) -> None:
    (path.parent / "voxels.bin").write_bytes(gzip.compress(array.tobytes()) if packed else array.tobytes())
    fields = {**placed(spacing, direction, origin), "data file": "voxels.bin"}
    path.write_bytes(nrrd(array, "gzip" if packed else "raw", b"", **fields))


def make_mha(path: Path, array: np.ndarray, spacing, direction, origin, packed: bool, **fields: str) -> None:
    listed = [" ".join(repr(float(v)) for v in values) for values in (spacing, direction.T.ravel(), origin)]
    names = ("ElementSpacing", "TransformMatrix", "Offset")
    path.write_bytes(metaimage(array, compressed=packed, **dict(zip(names, listed, strict=True)), Comment="a = b", **fields))


def make_mhd(path: Path, array: np.ndarray, spacing, direction, origin, packed: bool) -> None:
    (path.parent / "voxels.bin").write_bytes(zlib.compress(array.tobytes()) if packed else array.tobytes())
    make_mha(path, array, spacing, direction, origin, packed, ElementDataFile="voxels.bin")
    path.write_bytes(path.read_bytes().partition(b"voxels.bin\n")[0] + b"voxels.bin\n")


def make_nifti(path: Path, array: np.ndarray, spacing, direction, origin, packed: bool) -> None:
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = RAS_TO_LPS @ direction * spacing, RAS_TO_LPS @ origin
    kind = nib.Nifti1Pair if path.suffix == ".hdr" else nib.Nifti1Image
    image = nifti(array.T, affine, sform=2, kind=kind, descrip=b"made for a test", aux_file=b"x")
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"kept"))
    nib.save(image, path)


MAKERS = {
    ".nrrd": make_nrrd,
    ".nhdr": make_nhdr,
    ".mha": make_mha,
    ".mhd": make_mhd,
    ".nii": make_nifti,
    ".nii.gz": make_nifti,
    ".hdr": make_nifti,
}


def header_of(path: Path) -> bytes:
    """What the writer must keep, by rules of this test."""
    content = path.read_bytes()
    if path.name.endswith((".nii", ".nii.gz")):
        content = gzip.decompress(content) if path.suffix == ".gz" else content
        return content[: int(nib.load(path).dataobj.offset)]
    if path.suffix in (".nrrd", ".nhdr"):
        return re.sub(rb"data file: .*", b"", content.partition(b"\n\n")[0])
    if path.suffix in (".mha", ".mhd"):
        header = content[: content.index(b"\n", content.index(b"ElementDataFile")) + 1]
        return re.sub(rb"(CompressedDataSize|ElementDataFile) = .*\n", b"", header)
    return content


@st.composite
def made_files(draw):
    shape = draw(hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=6))
    dtype = np.dtype(draw(st.sampled_from(TYPES))).newbyteorder(draw(st.sampled_from("<>")))
    values = {"allow_nan": False, "allow_infinity": False} if dtype.kind == "f" else {}
    array = draw(hnp.arrays(dtype, shape, elements=hnp.from_dtype(dtype, **values)))
    spacing = draw(st.tuples(*[st.floats(0.05, 20)] * 3))
    turns = draw(st.one_of(st.just((0.0, 0.0, 0.0)), st.tuples(*[st.floats(-3, 3)] * 3)))
    origin = draw(st.tuples(*[st.floats(-500, 500)] * 3))
    return draw(st.sampled_from(list(MAKERS))), array, spacing, rotation(turns, draw(st.booleans())), origin, draw(st.booleans())


@given(made=made_files())
@settings(max_examples=250, deadline=None)
def test_any_type_place_and_packing(tmp_path_factory, made):
    extension, array, spacing, direction, origin, packed = made
    folder = tmp_path_factory.mktemp("made")
    path, out, again = folder / f"in{extension}", folder / f"out{extension}", folder / "b" / f"out{extension}"
    again.parent.mkdir()
    MAKERS[extension](path, array, spacing, direction, origin, packed)

    volume = read_volume(path)
    assert np.array_equal(volume.array, array)
    assert volume.array.dtype == array.dtype.newbyteorder("=")
    assert np.allclose(volume.geometry.spacing, spacing, rtol=1e-5)
    assert np.allclose(np.reshape(volume.geometry.direction, (3, 3)), direction, atol=1e-5)
    assert np.allclose(volume.geometry.origin, origin, rtol=1e-5, atol=1e-3)
    assert sha256_voxels(volume.array) == sha256_voxels(array)

    changed = volume.with_array(volume.array[::-1].copy())
    write_volume(changed, out)
    write_volume(changed, again)
    assert {file.name: file.read_bytes() for file in again.parent.iterdir()} == {
        file.name: (folder / file.name).read_bytes() for file in again.parent.iterdir()
    }
    assert header_of(out) == header_of(path)
    written = read_volume(out)
    assert np.array_equal(written.array, changed.array)
    assert written.array.dtype == changed.array.dtype
    assert written.geometry == volume.geometry
    if MAKERS[extension] is make_nifti:
        other = nib.load(out)
        assert np.array_equal(np.asarray(other.dataobj).T, changed.array)
        assert other.get_data_dtype() == array.dtype
    else:
        assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(out)), changed.array)


def gz(content: bytes, *cuts: int) -> bytes:
    """Several gzip members in a row."""
    edges = (0, *cuts, len(content))
    return b"".join(gzip.compress(content[a:b]) for a, b in pairwise(edges))


CHANNELS = np.arange(48, dtype="<i2").reshape(2, 3, 4, 2)
SPACE = {"space": "left-posterior-superior", "space_origin": "(0,0,0)"}
FIRST = {**SPACE, "kinds": "list domain domain domain", "space_directions": "none (1,0,0) (0,1,0) (0,0,1)"}
LAST = {**SPACE, "kinds": "domain domain domain list", "space_directions": "(1,0,0) (0,1,0) (0,0,1) none"}
MIDDLE = {**SPACE, "kinds": "domain list domain domain", "space_directions": "(1,0,0) none (0,1,0) (0,0,1)"}
TEXT = " ".join(map(str, GREY.ravel())).encode()
PNG_GREY, PNG_LA = np.arange(12, dtype="u1").reshape(3, 4), np.arange(24, dtype="u1").reshape(3, 4, 2)

SPECIAL = {
    "nrrd ascii": (".nrrd", nrrd(GREY, "ascii", TEXT), GREY),
    "nrrd ascii float": (
        ".nrrd",
        nrrd(GREY.astype("f4"), "text", TEXT.replace(b"7", b"0.1")),
        np.where(GREY % 10 == 7, GREY // 10 * 10 + np.float32(0.1), GREY),
    ),
    "nrrd hex": (".nrrd", nrrd(GREY, "hex", GREY.tobytes().hex().encode()), GREY),
    "nrrd gzip members": (".nrrd", nrrd(GREY, "gz", gz(GREY.tobytes(), 7, 20)), GREY),
    "nrrd gzip trailing zeros": (".nrrd", nrrd(GREY, "gzip", gz(GREY.tobytes()) + bytes(9)), GREY),
    "nrrd crlf": (".nrrd", nrrd(GREY, packed=b"").replace(b"\n", b"\r\n") + GREY.tobytes(), GREY),
    "nrrd byte skip": (".nrrd", nrrd(GREY, packed=b"xyz" + GREY.tobytes(), byte_skip="3"), GREY),
    "nrrd byte skip from end": (".nrrd", nrrd(GREY, packed=b"xyz" + GREY.tobytes(), byte_skip="-1"), GREY),
    "nrrd gzip byte skip": (".nrrd", nrrd(GREY, "gzip", gz(b"xyz" + GREY.tobytes()), byte_skip="3"), GREY),
    "nrrd channels first": (".nrrd", nrrd(CHANNELS, **FIRST), CHANNELS),
    "nrrd channels last": (".nrrd", nrrd(np.moveaxis(CHANNELS, 3, 0).copy(), **LAST), CHANNELS),
    "nrrd channels between": (".nrrd", nrrd(np.moveaxis(CHANNELS, 3, 2).copy(), "gzip", **MIDDLE), CHANNELS),
    "nrrd one channel": (".nrrd", nrrd(GREY[..., None], **FIRST), GREY),
    "nrrd one volume of 4D": (".nrrd", nrrd(GREY[None]), GREY),
    "nrrd 2D": (".nrrd", nrrd(GREY[0]), GREY[:1]),
    "nrrd extension .seg.nrrd": (".seg.nrrd", nrrd(GREY), GREY),
    "nrrd upper case": (".NRRD", nrrd(GREY), GREY),
    "mha ascii": (".mha", metaimage(GREY, TEXT, BinaryData="False"), GREY),
    "mha ascii F": (".mha", metaimage(GREY, TEXT, BinaryData="F"), GREY),
    "mha CompressedData T": (".mha", metaimage(GREY, zlib.compress(GREY.tobytes()), CompressedData="T"), GREY),
    "mha big-endian T": (".mha", metaimage(GREY.astype(">i2"), BinaryDataByteOrderMSB="T"), GREY),
    "mha no CompressedDataSize": (".mha", metaimage(GREY, compressed=True, CompressedDataSize=None), GREY),
    "mha channels": (".mha", metaimage(CHANNELS, NDims="3", DimSize="4 3 2", ElementNumberOfChannels="2"), CHANNELS),
    "mha array type": (
        ".mha",
        metaimage(CHANNELS, NDims="3", DimSize="4 3 2", ElementNumberOfChannels="2", ElementType="MET_SHORT_ARRAY"),
        CHANNELS,
    ),
    "mha one volume of 4D": (".mha", metaimage(GREY[None]), GREY),
    "mha 2D": (".mha", metaimage(GREY[0]), GREY[:1]),
    "mha voxels at the end": (".mha", metaimage(GREY, b"xyz" + GREY.tobytes(), HeaderSize="-1"), GREY),
    "mha crlf": (".mha", metaimage(GREY, b"").replace(b"\n", b"\r\n") + GREY.tobytes(), GREY),
    "mha colons": (".mha", metaimage(GREY, b"").replace(b" =", b":") + GREY.tobytes(), GREY),
    "mha upper case": (".MHA", metaimage(GREY), GREY),
    "png grey": (".png", png(4, 3, 8, 0, png_rows(PNG_GREY)), PNG_GREY[None]),
    "png grey 16": (".png", png(4, 3, 16, 0, png_rows(PNG_GREY.astype("u2") * 999)), PNG_GREY[None].astype("u2") * 999),
    "png grey and alpha": (".png", png(4, 3, 8, 4, png_rows(PNG_LA)), PNG_LA[None]),
    "png grey and alpha 16": (".png", png(4, 3, 16, 4, png_rows(PNG_LA.astype("u2") * 999)), PNG_LA[None].astype("u2") * 999),
    "png rgb": (".png", png(4, 4, 8, 2, png_rows(COLOURS[0])), COLOURS),
    "png rgba 16": (
        ".png",
        png(3, 4, 16, 6, png_rows(COLOURS.reshape(4, 3, 4).astype("u2") * 999)),
        COLOURS.reshape(1, 4, 3, 4).astype("u2") * 999,
    ),
    "png interlaced": (
        ".png",
        png(3, 3, 8, 0, b"\0\x01" + b"\0\x03" + b"\0\x07\x09" + b"\0\x02" + b"\0\x08" + b"\0\x04\x05\x06", interlaced=1),
        np.arange(1, 10, dtype="u1").reshape(1, 3, 3),
    ),
}


@pytest.mark.parametrize("case", SPECIAL)
def test_special_files(tmp_path, case):
    extension, content, expected = SPECIAL[case]
    path, out = tmp_path / f"in{extension}", tmp_path / f"out{extension}"
    path.write_bytes(content)
    volume = read_volume(path)
    assert np.array_equal(volume.array, expected)
    assert volume.array.dtype == expected.dtype.newbyteorder("=")
    assert volume.array.flags.aligned
    assert volume.geometry.dimension == (2 if "2D" in case or "png" in case else 3)
    changed = volume.with_array(volume.array[:, ::-1].copy())
    write_volume(changed, out)
    written = read_volume(out)
    assert np.array_equal(written.array, changed.array)
    assert written.geometry == volume.geometry
    assert written.alpha == volume.alpha
    assert out.read_bytes().count(b"CompressedDataSize") == ("CompressedData" in case)
    if "alpha" not in case and "upper" not in case:
        assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(out)).ravel(), changed.array.ravel())


@pytest.mark.parametrize(
    ("content", "alpha"),
    [
        (png(4, 3, 8, 4, png_rows(PNG_LA)), 1),
        (png(3, 4, 8, 6, png_rows(COLOURS.reshape(4, 3, 4))), 3),
        (png(4, 4, 8, 2, png_rows(COLOURS[0])), None),
    ],
)
def test_alpha_and_photograph(tmp_path, content, alpha):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    volume = read_volume(path)
    assert volume.alpha == alpha
    assert volume.photograph
    assert len(volume.intensity_channels) == {1: 1, 3: 3, None: 3}[alpha]


def test_png_chunks_that_speak_of_the_original_pixels_go(tmp_path):
    content = png(4, 3, 8, 0, png_rows(PNG_GREY), (b"dSIG", b"signed"), (b"gAMA", b"\0\0\xb1\x8f"), (b"iDOT", bytes(28)))
    (tmp_path / "in.png").write_bytes(content[:-12] + png_chunk(b"dSIG", b"end") + content[-12:])
    write_volume(read_volume(tmp_path / "in.png"), tmp_path / "out.png")
    written = (tmp_path / "out.png").read_bytes()
    assert b"gAMA" in written
    assert b"dSIG" not in written
    assert b"iDOT" not in written


def test_png_keeps_chunks_and_interlacing_goes(tmp_path):
    extra = ((b"gAMA", struct.pack(">I", 45455)), (b"pHYs", struct.pack(">IIB", 3000, 3000, 1)), (b"tEXt", b"Comment\0kept"))
    (tmp_path / "in.png").write_bytes(png(4, 3, 8, 0, png_rows(PNG_GREY), *extra))
    write_volume(read_volume(tmp_path / "in.png"), tmp_path / "out.png")
    content = (tmp_path / "out.png").read_bytes()
    assert content[8:33] == (tmp_path / "in.png").read_bytes()[8:33]
    assert content[33 : content.index(b"IDAT") - 4] == b"".join(png_chunk(*chunk) for chunk in extra)


NIFTI = np.arange(60, dtype="i2").reshape(5, 4, 3)


def test_nifti_scaling_stays_outside_the_stored_values(tmp_path):
    nib.save(nifti(NIFTI), tmp_path / "in.nii")
    (tmp_path / "in.nii").write_bytes(patched(tmp_path / "in.nii", 112, "<ff", 2.5, -1024))
    volume = read_volume(tmp_path / "in.nii")
    assert np.array_equal(volume.array, NIFTI.T)
    assert (volume.slope, volume.intercept) == (2.5, -1024)
    write_volume(volume, tmp_path / "out.nii")
    assert (tmp_path / "out.nii").read_bytes() == (tmp_path / "in.nii").read_bytes()


@pytest.mark.parametrize(("slope", "intercept"), [(0, 5), (np.nan, 5), (np.inf, 5), (1, 0)])
def test_nifti_without_scaling(tmp_path, slope, intercept):
    nib.save(nifti(NIFTI), tmp_path / "in.nii")
    (tmp_path / "in.nii").write_bytes(patched(tmp_path / "in.nii", 112, "<ff", slope, intercept))
    volume = read_volume(tmp_path / "in.nii")
    assert (volume.slope, volume.intercept) == (1, 0)


@pytest.mark.parametrize(("letters", "alpha"), [("RGB", None), ("RGBA", 3)])
def test_nifti_colours(tmp_path, letters, alpha):
    colours = np.zeros((5, 4, 3), [(letter, "u1") for letter in letters])
    for n, letter in enumerate(letters):
        colours[letter] = NIFTI + n
    nib.save(nifti(colours), tmp_path / "in.nii")
    volume = read_volume(tmp_path / "in.nii")
    assert np.array_equal(volume.array, np.stack([NIFTI.T + n for n in range(len(letters))], axis=-1))
    assert volume.alpha == alpha
    write_volume(volume, tmp_path / "out.nii")
    assert (tmp_path / "out.nii").read_bytes() == (tmp_path / "in.nii").read_bytes()


@pytest.mark.parametrize(("array", "dimension"), [(NIFTI[..., None], 3), (NIFTI[:, :, 0], 2), (NIFTI[:, :, :1], 3)])
def test_nifti_axes(tmp_path, array, dimension):
    nib.save(nifti(array), tmp_path / "in.nii")
    volume = read_volume(tmp_path / "in.nii")
    assert np.array_equal(volume.array, array.reshape(5, 4, -1).T)
    assert volume.geometry.dimension == dimension
    write_volume(volume, tmp_path / "out.nii")
    assert (tmp_path / "out.nii").read_bytes() == (tmp_path / "in.nii").read_bytes()


def test_nifti_2d_without_a_third_axis(tmp_path):
    affine = np.array([[0, -3, 0, 1], [2, 0, 0, 2], [0, 0, 0, 0], [0, 0, 0, 1.0]])
    image = nifti(NIFTI[:, :, 0])
    image.header["srow_x"], image.header["srow_y"], image.header["srow_z"] = affine[:3]
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), None, image.header), tmp_path / "in.nii")
    geometry = read_volume(tmp_path / "in.nii").geometry
    assert geometry.spacing == (2, 3, 1)
    assert geometry.direction == (0, 1, 0, -1, 0, 0, 0, 0, 1)


def test_nifti2(tmp_path):
    nib.save(nib.Nifti2Image(NIFTI, np.diag([2.0, 3, 4, 1])), tmp_path / "in.nii")
    volume = read_volume(tmp_path / "in.nii")
    assert np.array_equal(volume.array, NIFTI.T)
    write_volume(volume, tmp_path / "out.nii")
    assert (tmp_path / "out.nii").read_bytes() == (tmp_path / "in.nii").read_bytes()


def test_nifti_pair_by_either_name(tmp_path):
    nib.save(nib.Nifti1Pair(NIFTI, np.diag([2.0, 3, 4, 1])), tmp_path / "in.hdr")
    (tmp_path / "in.hdr").write_bytes(patched(tmp_path / "in.hdr", 108, "<f", 16))
    (tmp_path / "in.img").write_bytes(b"sixteen bytes !!" + (tmp_path / "in.img").read_bytes())
    for extension in (".hdr", ".img"):
        volume = read_volume(tmp_path / f"in{extension}")
        assert np.array_equal(volume.array, NIFTI.T)
        write_volume(volume, tmp_path / f"out{extension}")
        for name in (".hdr", ".img"):
            assert (tmp_path / f"out{name}").read_bytes() == (tmp_path / f"in{name}").read_bytes()
            (tmp_path / f"out{name}").unlink()


def test_nifti_without_a_place_goes_where_simpleitk_puts_it(tmp_path, caplog):
    nib.save(nifti(NIFTI, sform=0, qform=0, pixdim=[1, 2, 3, 4, 1, 1, 1, 1]), tmp_path / "in.nii")
    geometry = read_volume(tmp_path / "in.nii").geometry
    other = sitk.ReadImage(tmp_path / "in.nii")
    assert (geometry.spacing, geometry.origin, geometry.direction) == (other.GetSpacing(), other.GetOrigin(), other.GetDirection())
    (record,) = caplog.records
    assert "sform and qform code 0" in record.getMessage()


@pytest.mark.parametrize(("unit", "millimetres"), [(0, 1), (2, 1), (10, 1), (1, 1000), (3, 0.001)])
def test_nifti_units(tmp_path, unit, millimetres):
    nib.save(nifti(NIFTI, xyzt_units=unit), tmp_path / "in.nii")
    assert np.allclose(read_volume(tmp_path / "in.nii").geometry.spacing, np.array([2, 3, 4]) * millimetres)


def test_nifti_qfac_zero_counts_as_one(tmp_path):
    nib.save(nifti(NIFTI, sform=0), tmp_path / "in.nii")
    expected = read_volume(tmp_path / "in.nii").geometry
    (tmp_path / "in.nii").write_bytes(patched(tmp_path / "in.nii", 76, "<f", 0))
    assert read_volume(tmp_path / "in.nii").geometry == expected


def test_metaimage_modality(tmp_path):
    (tmp_path / "in.mha").write_bytes(metaimage(GREY, Modality="MET_MOD_CT"))
    assert read_volume(tmp_path / "in.mha").modality == "CT"


def test_nrrd_in_ras_space_keeps_its_fields(tmp_path):
    fields = placed((1, 2, 3), np.eye(3), (5, 6, 7)) | {"space": "right-anterior-superior", "measurement_frame": "(0,1,0) (1,0,0) (0,0,1)"}
    fields |= {
        "thicknesses": "1 2 3",
        "space_units": '"mm" "mm" "mm"',
        "centerings": "cell cell cell",
        "content": "x",
        "sample_units": "HU",
    }
    (tmp_path / "in.nrrd").write_bytes(nrrd(GREY, **fields))
    volume = read_volume(tmp_path / "in.nrrd")
    assert volume.geometry.origin == (-5, -6, 7)
    assert volume.geometry.direction == (-1, 0, 0, 0, -1, 0, 0, 0, 1)
    write_volume(volume, tmp_path / "out.nrrd")
    assert (tmp_path / "out.nrrd").read_bytes() == (tmp_path / "in.nrrd").read_bytes()


@pytest.mark.parametrize(
    ("centerings", "origin"),
    [("node node node", (10, 20, 30)), ("cell cell cell", (11, 21, 31.5)), ("cell Node cell", (11, 20, 31.5)), (None, (11, 21, 31.5))],
)
@pytest.mark.parametrize("field", ["centerings", "centers"])
def test_nrrd_axes_begin_in_the_middle_of_a_voxel_or_at_its_face(field, centerings, origin, tmp_path):
    fields = {"spacings": "2 2 3", "axis mins": "10 20 30"} | ({} if centerings is None else {field: centerings})
    (tmp_path / "in.nrrd").write_bytes(nrrd(GREY, **fields))
    assert read_volume(tmp_path / "in.nrrd").geometry.origin == origin
    assert sitk.ReadImage(tmp_path / "in.nrrd").GetOrigin() == origin


@pytest.mark.parametrize("centerings", ["node node", "node node middle"])
def test_nrrd_centerings_that_are_none(centerings, tmp_path):
    (tmp_path / "in.nrrd").write_bytes(nrrd(GREY, **{"spacings": "2 2 3", "axis mins": "10 20 30", "centerings": centerings}))
    with pytest.raises(MedProtectError, match="damaged NRRD header: 'centerings'"):
        read_volume(tmp_path / "in.nrrd")


@pytest.mark.parametrize("extension", [".nrrd", ".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("dimension", [2, 3])
def test_volume_that_was_never_a_file(tmp_path, extension, dtype, dimension):
    array = np.arange(24, dtype=dtype).reshape(2, 3, 4)[: dimension - 1]
    geometry = Geometry((4, 3, dimension - 1), (1.0, 2.0, 1.0), (4.0, 5.0, 0.0), (0, -1, 0, 1, 0, 0, 0, 0, 1), dimension)
    path = tmp_path / f"new{extension}"
    write_volume(Volume(array, geometry), path)
    volume = read_volume(path)
    assert np.array_equal(volume.array, array)
    assert volume.array.dtype == array.dtype
    assert volume.geometry == geometry
    other = sitk.ReadImage(path)
    assert np.array_equal(sitk.GetArrayFromImage(other).ravel(), array.ravel())
    assert other.GetSpacing() == geometry.spacing[:dimension]
    assert np.allclose(other.GetOrigin(), geometry.origin[:dimension])


def test_channels_that_were_never_a_file(tmp_path):
    write_volume(Volume(CHANNELS, Geometry((4, 3, 2))), tmp_path / "new.nrrd")
    assert np.array_equal(read_volume(tmp_path / "new.nrrd").array, CHANNELS)
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / "new.nrrd")), CHANNELS)
