"""TIFF pictures and stacks: the pixels that tifffile and SimpleITK see, and every tag kept."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from PIL import Image

from MedProtectLib.errors import MedProtectError
from MedProtectLib.io import read_volume, write_volume

PACKING_TAGS = {273, 278, 279}
RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 255, (13, 17), dtype=np.uint8)
RGB = RNG.integers(0, 255, (13, 17, 3), dtype=np.uint8)
RGBA = RNG.integers(0, 255, (13, 17, 4), dtype=np.uint8)
STACK = RNG.integers(0, 60000, (5, 13, 17)).astype(np.uint16)
PRIVATE = [(315, "s", 0, "an author", True), (65000, "s", 0, "private text", True), (65001, "I", 5, (1, 2, 3, 4, 5), True)]

KEPT = {
    "uint8": (GREY, {}),
    **{dtype: (GREY.astype(dtype), {}) for dtype in ("i1", "i2", "u2", "i4", "u4", "f4")},
    "white is zero": (GREY, {"photometric": "miniswhite"}),
    "big-endian": (GREY.astype(">u2"), {"byteorder": ">"}),
    "BigTIFF": (GREY, {"bigtiff": True}),
    "big-endian BigTIFF": (GREY.astype(">f4"), {"bigtiff": True, "byteorder": ">"}),
    "deflate": (GREY, {"compression": "deflate"}),
    "deflate 8": (GREY, {"compression": "adobe_deflate"}),
    "predictor": (STACK[0], {"compression": "deflate", "predictor": True}),
    "predictor, big-endian, strips": (
        STACK[0].astype(">u2"),
        {"compression": "deflate", "predictor": True, "rowsperstrip": 5, "byteorder": ">"},
    ),
    "predictor, RGB": (RGB, {"compression": "deflate", "predictor": True, "photometric": "rgb"}),
    "strips": (GREY, {"rowsperstrip": 3}),
    "tags": (
        GREY,
        {
            "resolution": (300, 200),
            "resolutionunit": "INCH",
            "description": "hello",
            "software": "x",
            "extratags": PRIVATE,
            "metadata": None,
        },
    ),
    "RGB": (RGB, {"photometric": "rgb"}),
    "RGB 16 bits": (RGB.astype("u2") * 99, {"photometric": "rgb"}),
    "RGBA": (RGBA, {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
    "RGB and infrared": (RGBA, {"photometric": "rgb", "extrasamples": ["unspecified"]}),
    "stack": (STACK, {"photometric": "minisblack"}),
    "packed stack": (STACK, {"photometric": "minisblack", "compression": "deflate", "rowsperstrip": 4}),
    "ImageJ stack": (STACK, {"imagej": True, "metadata": {"spacing": 3.0, "unit": "mm"}}),
    "RGB stack": (np.stack([RGB, RGB[::-1]]), {"photometric": "rgb"}),
}


def tags_of(path):
    with tifffile.TiffFile(path) as file:
        assert all(page.offset % 2 == 0 for page in file.pages)
        return [{tag.code: tag.value for tag in page.tags if tag.code not in PACKING_TAGS} for page in file.pages]


@pytest.mark.parametrize("case", KEPT)
def test_round_trip(tmp_path, case):
    array, options = KEPT[case]
    tifffile.imwrite(tmp_path / "in.tif", array, **options)
    volume = read_volume(tmp_path / "in.tif")
    assert np.array_equal(volume.array, array if "stack" in case else array[None])
    assert volume.array.dtype == array.dtype.newbyteorder("=")
    assert volume.geometry.dimension == (3 if "stack" in case else 2)
    assert volume.photograph == (array.dtype == np.uint8)
    assert volume.alpha == (3 if case == "RGBA" else None)
    changed = volume.with_array(volume.array[:, ::-1].copy())
    write_volume(changed, tmp_path / "out.tif")
    assert tags_of(tmp_path / "out.tif") == tags_of(tmp_path / "in.tif")
    assert np.array_equal(tifffile.imread(tmp_path / "out.tif").reshape(changed.array.shape), changed.array)
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / "out.tif")).reshape(changed.array.shape), changed.array)
    written = read_volume(tmp_path / "out.tif")
    assert (written.geometry, written.alpha, written.photograph) == (volume.geometry, volume.alpha, volume.photograph)


def test_tags_with_the_original_pixels_go(tmp_path: Path) -> None:
    photoshop = [(34377, "B", 12, b"8BIM thumb..", True), (37724, "B", 12, b"layers......", True)]
    tifffile.imwrite(tmp_path / "in.tif", GREY, extratags=[*PRIVATE, *photoshop], metadata=None)
    volume = read_volume(tmp_path / "in.tif")
    write_volume(volume, tmp_path / "out.tif")
    before, after = tags_of(tmp_path / "in.tif")[0], tags_of(tmp_path / "out.tif")[0]
    assert before.keys() - after.keys() == {34377, 37724}
    assert all(before[tag] == value for tag, value in after.items())


def test_the_predictor_of_floats_is_that_of_libtiff(tmp_path: Path) -> None:
    floats = RNG.normal(0, 100, (13, 17)).astype("f4")
    Image.fromarray(floats).save(tmp_path / "in.tif", compression="tiff_adobe_deflate", tiffinfo={317: 2})
    volume = read_volume(tmp_path / "in.tif")
    assert np.array_equal(volume.array[0], floats)
    write_volume(volume.with_array(-volume.array), tmp_path / "out.tif")
    for read in (lambda path: np.asarray(Image.open(path)), tifffile.imread, lambda path: read_volume(path).array[0]):
        assert np.array_equal(read(tmp_path / "out.tif"), -floats)
    assert tags_of(tmp_path / "out.tif") == tags_of(tmp_path / "in.tif")


@pytest.mark.parametrize("compressor", ["LZW", "PackBits"])
def test_other_compressions_become_deflate(tmp_path, compressor):
    image = sitk.GetImageFromArray(GREY)
    image.SetSpacing((0.5, 0.25))
    writer = sitk.ImageFileWriter()
    writer.SetFileName(str(tmp_path / "in.tif"))
    writer.SetUseCompression(True)
    writer.SetCompressor(compressor)
    writer.Execute(image)
    volume = read_volume(tmp_path / "in.tif")
    assert np.array_equal(volume.array[0], GREY)
    assert np.allclose(volume.geometry.spacing, (0.5, 0.25, 1))
    write_volume(volume, tmp_path / "out.tif")
    assert np.array_equal(tifffile.imread(tmp_path / "out.tif"), GREY)
    before, after = tags_of(tmp_path / "in.tif")[0], tags_of(tmp_path / "out.tif")[0]
    assert (before.pop(259), after.pop(259)) == ({"LZW": 5, "PackBits": 32773}[compressor], 8)
    assert after == before


def with_exif(pixels: bytes) -> bytes:
    """A picture of 4 x 1 pixels whose directory points to one of EXIF tags (exposure time 1/250, a comment)."""
    comment = b"a comment of the camera"
    exif_at = 8 + len(pixels)
    ratio_at, comment_at = exif_at + 2 + 2 * 12 + 4, exif_at + 2 + 2 * 12 + 4 + 8
    exif = struct.pack("<H", 2) + struct.pack("<HHII", 33434, 5, 1, ratio_at) + struct.pack("<HHII", 37510, 7, len(comment), comment_at)
    exif += bytes(4) + struct.pack("<II", 1, 250) + comment + b"\0"
    entries = (
        (256, 3, 1, 4),
        (257, 3, 1, 1),
        (258, 3, 1, 8),
        (262, 3, 1, 1),
        (273, 4, 1, 8),
        (277, 3, 1, 1),
        (279, 4, 1, 4),
        (34665, 4, 1, exif_at),
    )
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    return struct.pack("<2sHI", b"II", 42, exif_at + len(exif)) + pixels + exif + directory


def test_exif_directory_moves_along(tmp_path):
    (tmp_path / "in.tif").write_bytes(with_exif(b"\1\2\3\4"))
    volume = read_volume(tmp_path / "in.tif")
    assert volume.array.tolist() == [[[1, 2, 3, 4]]]
    write_volume(volume.with_array(volume.array + 1), tmp_path / "out.tif")
    with Image.open(tmp_path / "in.tif") as before, Image.open(tmp_path / "out.tif") as after:
        expected = before.getexif().get_ifd(34665)
        assert expected[37510] == b"a comment of the camera"
        assert after.getexif().get_ifd(34665) == expected
        assert np.asarray(after).tolist() == [[2, 3, 4, 5]]


REFUSED = {
    **{dtype: (GREY.astype(dtype), {}, "bits in sample format") for dtype in ("u8", "i8", "f2", "f8", "c8", "?")},
    "LZMA": (GREY, {"compression": "lzma"}, "TIFF compression 34925"),
    "colour planes": (np.moveaxis(RGB, 2, 0).copy(), {"photometric": "rgb", "planarconfig": "separate"}, "colour planes"),
    "grey and alpha": (
        RGB[..., :2].copy(),
        {"photometric": "minisblack", "planarconfig": "contig", "extrasamples": ["unassalpha"]},
        "2 samples",
    ),
    "palette": (GREY % 5, {"photometric": "palette", "colormap": np.zeros((3, 256), "u2")}, "palettes"),
    "tiles": (np.zeros((40, 50), "u1"), {"tile": (16, 16)}, "tiles"),
    "turned": (GREY, {"extratags": [(274, "H", 1, 6, True)]}, "turned"),
    "not finite": (np.full((3, 4), np.nan, "f4"), {}, "12 of 12 voxels"),
}


def refused(path, reason):
    with pytest.raises(MedProtectError) as caught:
        read_volume(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert reason in str(caught.value).removeprefix(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("case", REFUSED)
def test_refused(tmp_path, case):
    array, options, reason = REFUSED[case]
    tifffile.imwrite(tmp_path / "in.tif", array, **options)
    refused(tmp_path / "in.tif", reason)


def test_lossy_compression(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "in.tif", compression="jpeg")
    refused(tmp_path / "in.tif", "lossy compression destroys the perturbation")


@pytest.mark.parametrize(("second", "options"), [(GREY[:5], {}), (GREY[::2, ::2], {"subfiletype": 1}), (GREY.astype("u2"), {})])
def test_pages_of_different_kinds(tmp_path, second, options):
    with tifffile.TiffWriter(tmp_path / "in.tif") as writer:
        writer.write(GREY)
        writer.write(second, **options)
    refused(tmp_path / "in.tif", "pages of different kinds")


@pytest.mark.parametrize("kept", [1, 3, 7, 50, 0.3, 0.7, 0.97])
def test_truncated(tmp_path, kept):
    """SimpleITK gives the pages that are left without an error here."""
    tifffile.imwrite(tmp_path / "in.tif", STACK, photometric="minisblack")
    content = (tmp_path / "in.tif").read_bytes()
    (tmp_path / "in.tif").write_bytes(content[: kept if kept >= 1 else int(len(content) * kept)])
    refused(tmp_path / "in.tif", "TIFF file")


def with_flips(path: Path) -> Iterator[np.ndarray | None]:
    """What is read of a picture of which one byte of the pixels is damaged, byte after byte; None where it is refused."""
    with tifffile.TiffFile(path) as file:
        starts, sizes = file.pages[0].dataoffsets, file.pages[0].databytecounts
    content = path.read_bytes()
    for position in [at for start, size in zip(starts, sizes, strict=True) for at in range(start, start + size)]:
        path.write_bytes(content[:position] + bytes([content[position] ^ 4]) + content[position + 1 :])
        try:
            yield read_volume(path).array[0]
        except MedProtectError as error:
            assert str(error) == f"{path}: damaged or truncated TIFF file; get a fresh copy."  # noqa: PT017 (some change nothing)
            yield None


@pytest.mark.parametrize("fill_order", [1, 2])
@pytest.mark.parametrize("predictor", [False, True])
def test_no_damage_of_deflate_gives_other_pixels(fill_order: int, predictor: bool, tmp_path: Path) -> None:
    """libtiff stops where it has the pixels of a row, and so misses damage and checksums behind them."""
    smooth = np.add.outer(np.arange(24) ** 2, np.arange(40) ** 2).astype(np.uint16)
    tifffile.imwrite(tmp_path / "in.tif", smooth, compression="deflate", predictor=predictor, rowsperstrip=12)
    if fill_order == 2:
        turn_bits(tmp_path / "in.tif")
    assert np.array_equal(read_volume(tmp_path / "in.tif").array[0], smooth)
    read = [pixels for pixels in with_flips(tmp_path / "in.tif") if pixels is not None]
    assert len(read) < 20
    assert all(np.array_equal(pixels, smooth) for pixels in read)


def turn_bits(path: Path) -> None:
    """Let the strips of a picture begin every byte with its lowest bit, and say so in the tag FillOrder instead of Software."""
    content = path.read_bytes()
    with tifffile.TiffFile(path) as file:
        (page,) = file.pages
        at, parts = page.tags["Software"].offset, list(zip(page.dataoffsets, page.databytecounts, strict=True))
    content = bytearray(content)
    for start, size in parts:
        content[start : start + size] = bytes(int(f"{byte:08b}"[::-1], 2) for byte in content[start : start + size])
    content[at : at + 12] = struct.pack("<HHIHH", 266, 3, 1, 2, 0)
    path.write_bytes(content)


def test_damaged_runs_of_packbits(tmp_path: Path) -> None:
    """PackBits has no checksum, but its runs have to fill row after row; libtiff gives other pixels and a warning."""
    image = np.repeat(np.arange(60, dtype=np.uint8).reshape(12, 5), 8, axis=1)
    Image.fromarray(image).save(tmp_path / "in.tif", compression="packbits")
    assert np.array_equal(read_volume(tmp_path / "in.tif").array[0], image)
    found = list(with_flips(tmp_path / "in.tif"))
    lengths, values = found[::2], found[1::2]
    assert set(map(type, lengths)) == {type(None)}
    assert all((pixels != image).sum() == 8 for pixels in values)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"some text", "not a TIFF file"),
        (b"II\x2d\0" + bytes(8), "not a TIFF file"),
        (struct.pack("<2sHI", b"II", 42, 0), "no pages"),
        (struct.pack("<2sHIHI", b"II", 42, 8, 0, 8), "form a loop"),
        (
            with_exif(b"\1\2\3\4").replace(struct.pack("<HHII", 256, 3, 1, 4), struct.pack("<HHII", 256, 3, 1, 60000)),
            "ends before its pixels",
        ),
        (
            with_exif(b"\1\2\3\4").replace(struct.pack("<HHII", 273, 4, 1, 8), struct.pack("<HHII", 273, 4, 1, 10**6)),
            "ends before its pixels",
        ),
        (with_exif(b"\1\2\3\4").replace(struct.pack("<HHII", 273, 4, 1, 8), struct.pack("<HHII", 273, 99, 1, 8)), "damaged or truncated"),
        (with_exif(b"\1\2\3\4").replace(struct.pack("<HHII", 273, 4, 1, 8), struct.pack("<HHII", 40000, 4, 1, 8)), "damaged"),
    ],
)
def test_damaged_tags(tmp_path, content, reason):
    (tmp_path / "in.tif").write_bytes(content)
    refused(tmp_path / "in.tif", reason)


def write_one_page_for_all(path: Path, description: str | None) -> None:
    """A stack of which only the first picture has a page; the pixels of the others follow."""
    tifffile.imwrite(path, STACK, photometric="minisblack", truncate=True)
    if description is not None:
        tifffile.tiffcomment(path, description)


@pytest.mark.parametrize("description", [None, "ImageJ=1.53t\nimages=5\nslices=5\nunit=mm\n", "shape=(5, 13, 17)"])
def test_a_stack_of_which_only_the_description_counts_the_pictures_is_refused(description: str | None, tmp_path: Path) -> None:
    write_one_page_for_all(tmp_path / "in.tif", description)
    with pytest.raises(MedProtectError, match="announces 5 pictures, but only 1 of them"):
        read_volume(tmp_path / "in.tif")


def test_a_page_that_was_taken_out_of_a_stack_with_its_description_is_read(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "in.tif", STACK[0], description="ImageJ=1.53t\nimages=5\nslices=5\n", metadata=None)
    assert np.array_equal(read_volume(tmp_path / "in.tif").array[0], STACK[0])
