"""DICOM images become volumes of stored values on the right grid, or are refused in one line that names the file."""

from __future__ import annotations

import errno
import tracemalloc
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate, generate_frames
from pydicom.sequence import Sequence as Items
from pydicom.uid import MediaStorageDirectoryStorage

from made_dicom import (
    FRAME_OF_REFERENCE,
    INSTITUTION,
    PATIENT,
    PATIENT_ID,
    SERIES,
    STUDY,
    enhanced,
    picture,
    save,
    segmentation,
    series,
    slice_of,
    structure_set,
)
from MedProtectLib.errors import MedProtectError
from MedProtectLib.io import case_name, read_labels, read_volume, sha256_path
from MedProtectLib.io.dicom import find_series, is_picture, read_series, scan
from MedProtectLib.volume import Geometry, Volume
from samples import SAMPLES

PYDICOM = Path(pydicom.__file__).parent / "data" / "test_files"
CT = np.asarray(nib.load(SAMPLES / "totalseg_ct" / "ct.nii.gz").dataobj).T.astype(np.int16)[8:16, 30:70, 40:88]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return series(tmp_path / "ct", CT)


def test_a_series_is_one_volume_of_stored_values(folder: Path) -> None:
    volume = read_volume(folder)
    assert np.array_equal(volume.array, CT)
    assert volume.array.dtype == np.int16
    assert (volume.slope, volume.intercept, volume.modality, volume.name) == (1.0, 0.0, "CT", "ct")
    assert volume.geometry.size == (48, 40, 8)
    assert volume.geometry.spacing == pytest.approx((0.5, 0.75, 2.0))
    assert volume.geometry.origin == (-10.0, -20.0, 30.0)


@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1), (1, 0, 0, 0, 0, -1), (0.8, 0.6, 0, -0.6, 0.8, 0)])
@pytest.mark.parametrize("backwards", [False, True])
def test_geometry_is_that_of_an_independent_reader(orientation: tuple[float, ...], backwards: bool, tmp_path: Path) -> None:
    normal = np.cross(orientation[:3], orientation[3:]) * (-2.0 if backwards else 2.0)
    volume = read_volume(series(tmp_path / "ct", CT, orientation=orientation, step=normal))
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "ct")))
    image = reader.Execute()
    assert np.array_equal(sitk.GetArrayFromImage(image), volume.array)
    assert np.array_equal(volume.array, CT[::-1] if backwards else CT)
    assert image.GetSpacing() == pytest.approx(volume.geometry.spacing)
    assert image.GetOrigin() == pytest.approx(volume.geometry.origin)
    assert image.GetDirection() == pytest.approx(volume.geometry.direction)


def test_a_file_stands_for_its_series_and_strangers_do_not_disturb(folder: Path, tmp_path: Path) -> None:
    (folder / "notes.txt").write_text("not DICOM")
    (folder / ".keep").touch()
    directory = slice_of(CT[0], 20)
    del directory.Rows, directory.PixelData
    directory.SOPClassUID = MediaStorageDirectoryStorage
    save(directory, folder / "DICOMDIR")
    picture(folder / "report.dcm", CT[0])
    for path in (folder, folder / "IMG003"):
        if path == folder:
            (folder / "report.dcm").rename(tmp_path / "report.dcm")
        volume = read_volume(path)
        assert np.array_equal(volume.array, CT)
        assert len(volume.source.files) == 8


@pytest.mark.parametrize("damage", ["rubbish", "empty", "cut before its class", "cut before its picture"])
def test_a_series_with_a_damaged_slice_is_not_protected_without_it(damage: str, folder: Path) -> None:
    last = sorted(folder.iterdir())[-1]
    content = last.read_bytes()
    cut = {"rubbish": 150, "empty": 0, "cut before its class": 300, "cut before its picture": 900}[damage]
    last.write_bytes(content[:cut] + (b"rubbish" * 99 if damage == "rubbish" else b""))
    for path in (folder, folder.parent, folder / "IMG003"):
        with pytest.raises(
            MedProtectError, match=rf"{last}: empty, damaged, deflated or without preamble, and perhaps a slice of the series"
        ):
            read_volume(path)
    last.unlink()
    assert len(read_volume(folder).array) == len(CT) - 1


@pytest.mark.parametrize("content", [lambda whole: whole[132:], lambda whole: whole[:100], lambda whole: bytes(len(whole))])
def test_a_slice_that_is_no_dicom_any_more_is_known_by_its_extension(content: Callable[[bytes], bytes], folder: Path) -> None:
    slices = [path.rename(path.with_suffix(".dcm")) for path in sorted(folder.iterdir())]
    (folder / "notes.txt").write_text("not DICOM")
    assert len(read_volume(folder).array) == len(CT)
    slices[-1].write_bytes(content(slices[-1].read_bytes()))
    for path in (folder, slices[0]):
        with pytest.raises(
            MedProtectError, match=rf"{slices[-1]}: empty, damaged, deflated or without preamble, and perhaps a slice of the series"
        ):
            read_volume(path)


@pytest.mark.parametrize("lost", ["IMG003", "IMG052"])
def test_a_slice_that_lost_its_position_is_not_left_out(lost: str, folder: Path) -> None:
    dataset = dcmread(folder / lost)
    del dataset.ImagePositionPatient
    dataset.save_as(folder / lost)
    for path in (folder, folder.parent, *sorted(folder.iterdir())):
        with pytest.raises(MedProtectError, match=rf"{lost}: no position and orientation in space, which the other images of the"):
            read_volume(path)
    picture(folder / lost, CT[0].astype(np.uint16))
    assert len(read_volume(folder / "IMG017").array) == len(CT) - 1


def test_damage_elsewhere_is_told_and_does_not_disturb(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Beside another series, or beside an object that is an image of its own."""

    def other(dataset: Dataset, k: int) -> None:
        dataset.SeriesInstanceUID, dataset.SeriesNumber = SERIES + ".7", 7
        dataset.SOPInstanceUID += ".7"

    series(tmp_path / "study" / "soft", CT)
    series(tmp_path / "study" / "bone", CT, edit=other)
    (tmp_path / "study" / "bone" / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"rubbish")
    assert np.array_equal(read_volume(tmp_path / "study", "4").array, CT)
    assert "1 damaged DICOM files were left out, such as broken.dcm" in caplog.text
    with pytest.raises(MedProtectError, match="perhaps a slice of the series"):
        read_volume(tmp_path / "study", "7")
    enhanced(tmp_path / "one" / "ct.dcm", CT)
    (tmp_path / "one" / "broken.dcm").touch()
    assert np.array_equal(read_volume(tmp_path / "one").array, CT)


def test_a_copied_slice_counts_once(folder: Path) -> None:
    (folder / "copy of a slice").write_bytes((folder / "IMG003").read_bytes())
    assert np.array_equal(read_volume(folder).array, CT)


@pytest.mark.parametrize("order", [None, [5, 0, 1, 2, 3, 4, 6, 7], [7, 6, 5, 4, 3, 2, 1, 0]])
def test_frames_of_an_enhanced_object_are_put_in_order(order: list[int] | None, tmp_path: Path) -> None:
    volume = read_volume(enhanced(tmp_path / "ct.dcm", CT, order=order))
    assert np.array_equal(volume.array, CT)
    assert volume.geometry.spacing == pytest.approx((0.5, 0.75, 2.0))
    assert volume.intercept == -1024
    assert read_volume(tmp_path).geometry == volume.geometry


def test_one_slice_is_a_volume_of_one_slice(tmp_path: Path) -> None:
    volume = read_volume(series(tmp_path / "ct", CT[:1]))
    assert volume.geometry.size == (48, 40, 1)
    assert volume.geometry.spacing == pytest.approx((0.5, 0.75, 2.0))
    assert volume.geometry.dimension == 3


@pytest.mark.parametrize(
    ("modality", "array", "means", "photograph"),
    [
        ("DX", (CT[0] + 1100).astype(np.uint16), "XR", False),
        ("US", CT[0].astype(np.uint8), "US", True),
        ("US", np.stack([CT[0].astype(np.uint8)] * 3, axis=-1), "US", True),
    ],
)
def test_a_picture_is_a_2d_volume(modality: str, array: np.ndarray, means: str, photograph: bool, tmp_path: Path) -> None:
    volume = read_volume(picture(tmp_path / "picture.dcm", array, modality))
    assert np.array_equal(volume.array[0], array)
    assert (volume.geometry.dimension, volume.modality, volume.photograph) == (2, means, photograph)


@pytest.mark.parametrize(
    ("value", "limit", "expected"), [(-1000, None, (-1000, -1000)), (-1000, -990, (-1000, -990)), (64536, None, (-1000, -1000))]
)
def test_padding_is_what_the_header_declares(value: int, limit: int | None, expected: tuple[int, int], tmp_path: Path) -> None:
    def edit(dataset: Dataset, k: int) -> None:
        dataset.add_new("PixelPaddingValue", "SS" if value < 0 else "US", value)
        if limit is not None:
            dataset.add_new("PixelPaddingRangeLimit", "SS", limit)

    volume = read_volume(series(tmp_path / "ct", CT, edit=edit))
    assert (volume.padding_value, volume.padding_limit) == expected


def twelve_bits(signed: bool, padding: int, cell: int, declared_as: str) -> Callable[[Dataset, int], None]:
    """An edit that stores 12 bits without the extension of a sign, the first four rows being ``cell``, and declares padding."""

    def edit(dataset: Dataset, k: int) -> None:
        cells = (CT[k].astype(np.int64) // 2 + (0 if signed else 600) & 0xFFF).astype("<u2")
        cells[:4] = cell
        dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 12, 11, int(signed)
        dataset.PixelData = cells.tobytes()
        dataset.add_new("PixelPaddingValue", declared_as, padding)

    return edit


@pytest.mark.parametrize(("padding", "declared_as"), [(-2000, "SS"), (63536, "US")])
def test_padding_is_found_where_signs_are_not_extended(padding: int, declared_as: str, tmp_path: Path) -> None:
    volume = read_volume(series(tmp_path / "ct", CT, edit=twelve_bits(True, padding, 2096, declared_as)))
    assert (volume.padding_value, volume.padding_limit) == (-2000, -2000)
    assert (volume.array[:, :4] == -2000).all()


@pytest.mark.parametrize(("signed", "cell"), [(False, 63536), (True, 2096)])
def test_padding_that_no_value_can_tell_is_refused(signed: bool, cell: int, tmp_path: Path) -> None:
    folder = series(tmp_path / "ct", CT, edit=twelve_bits(signed, cell, cell, "US"))
    with pytest.raises(MedProtectError, match="its padding lies outside the 12 bits that hold its values"):
        read_volume(folder)


def test_padding_that_is_nowhere_disturbs_nobody(tmp_path: Path) -> None:
    volume = read_volume(series(tmp_path / "ct", CT, edit=twelve_bits(False, 63536, 2096, "US")))
    assert (volume.array[:, :4] == 2096).all()
    assert volume.padding_value == 63536


def test_a_tree_is_sorted_into_series_labels_and_others(tmp_path: Path) -> None:
    series(tmp_path / "a" / "ct", CT)
    mr = slice_of(CT[0], 0, "MR")
    mr.SeriesInstanceUID, mr.SOPInstanceUID = SERIES + ".5", SERIES + ".5.1"
    save(mr, tmp_path / "b" / "mr")
    for number in (0, 1):
        picture(tmp_path / "x" / f"{number}.dcm", CT[0].astype(np.uint16), number=number)
    masks = np.zeros((8, 40, 48, 1), np.uint8)
    masks[2:4, 5:9, 5:9] = 1
    segmentation(tmp_path / "seg.dcm", sorted((tmp_path / "a" / "ct").iterdir()), masks, labels=["liver"])
    structure_set(tmp_path / "rt.dcm", {"liver": []}, sorted((tmp_path / "a" / "ct").iterdir()))
    (tmp_path / "notes.txt").write_text("not DICOM")
    (tmp_path / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + bytes(range(200)))
    report = dcmread(tmp_path / "x" / "0.dcm")
    del report.PixelData, report.Rows
    save(report, tmp_path / "report.dcm")

    found = scan(tmp_path)
    assert [(one.modality, len(one.files), is_picture(one)) for one in found.series] == [
        ("CT", 8, False),
        ("MR", 1, False),
        ("DX", 1, True),
        ("DX", 1, True),
    ]
    first = found.series[0]
    assert (first.uid, first.study_uid, first.frame_of_reference, first.number, first.description, first.protected) == (
        SERIES,
        STUDY,
        FRAME_OF_REFERENCE,
        "4",
        "Thin slices",
        False,
    )
    assert [(label.path.name, label.kind, label.series_uids, label.frame_of_reference) for label in found.labels] == [
        ("rt.dcm", "RTSTRUCT", (SERIES,), FRAME_OF_REFERENCE),
        ("seg.dcm", "SEG", (SERIES,), FRAME_OF_REFERENCE),
    ]
    assert [path.name for path in found.others] == ["report.dcm"]
    assert [path.name for path in found.damaged] == ["broken.dcm"]
    assert [path.name for path in found.strangers] == ["notes.txt"]
    assert find_series(tmp_path) == found.series
    assert np.array_equal(read_series(first).array, CT)


def test_one_of_several_series_is_chosen_by_uid_number_or_description(tmp_path: Path) -> None:
    def other(dataset: Dataset, k: int) -> None:
        dataset.SeriesInstanceUID, dataset.SeriesNumber, dataset.SeriesDescription = SERIES + ".7", 7, "Bone kernel"
        dataset.SOPInstanceUID += ".7"

    series(tmp_path / "study" / "soft", CT)
    series(tmp_path / "study" / "bone", CT + 1, edit=other)
    for wanted, array in ((SERIES, CT), ("4", CT), ("Thin slices", CT), ("7", CT + 1), ("Bone kernel", CT + 1)):
        assert np.array_equal(read_volume(tmp_path / "study", wanted).array, array)
    with pytest.raises(MedProtectError, match=r"2 image series: CT of 8 \(bone/IMG003\), CT of 8 \(soft/IMG003\)\. Name one by a file"):
        read_volume(tmp_path / "study")
    with pytest.raises(MedProtectError, match="0 of 2 image series fit --series"):
        read_volume(tmp_path / "study", "9")
    assert np.array_equal(read_volume(tmp_path / "study" / "bone" / "IMG003", "7").array, CT + 1)
    with pytest.raises(MedProtectError, match="0 of 1 image series fit --series"):
        read_volume(tmp_path / "study" / "bone" / "IMG003", "4")
    with pytest.raises(MedProtectError, match="no DICOM, so it has no series"):
        read_volume(SAMPLES / "totalseg_ct" / "ct.nii.gz", "4")


def set_in(k: int | None, **values: object) -> Callable[[Dataset, int], None]:
    """An edit that sets (or with None deletes) attributes of the k-th slice, or of all."""

    def edit(dataset: Dataset, number: int) -> None:
        for keyword, value in values.items():
            if k in (None, number) and value is None:
                del dataset[keyword]
            elif k in (None, number):
                setattr(dataset, keyword, value)

    return edit


def lut() -> Items:
    item = Dataset()
    item.LUTDescriptor, item.ModalityLUTType, item.LUTData = [2, 0, 16], "US", b"\0\0\1\0"
    return Items([item])


REFUSED = {
    "orientations": (set_in(3, ImageOrientationPatient=[0, 1, 0, 0, 0, -1]), "different orientations"),
    "spacings": (set_in(3, PixelSpacing=[0.75, 0.6]), "different pixel spacings"),
    "slopes": (set_in(3, RescaleSlope=2), "different rescale slopes"),
    "sizes": (set_in(3, Rows=20, PixelData=b"\0" * 20 * 48 * 2), "different sizes or pixel formats"),
    "types": (set_in(3, PixelRepresentation=0), "different sizes or pixel formats"),
    "frames of reference": (set_in(3, FrameOfReferenceUID=SERIES), "different sizes or frames of reference"),
    "padding": (set_in(3, PixelPaddingValue=5), "different sizes or padding values"),
    "same place": (set_in(3, ImagePositionPatient=[-10, -20, 32]), "at the same place as IMG010. Several acquisitions"),
    "sheared": (lambda ds, k: setattr(ds, "ImagePositionPatient", [-10, -20 + 0.5 * k, 30 + 2 * k]), r"by 14\.0 degrees \(gantry tilt\)"),
    "one sideways": (set_in(4, ImagePositionPatient=[30, -20, 38]), r"IMG031: displaced sideways by 40 mm against the other slices"),
    "a zigzag": (lambda ds, k: setattr(ds, "ImagePositionPatient", [-10, -20 + 0.3 * (0 < k < 7) * (-1) ** k, 30 + 2 * k]), "by 0.3 mm"),
    "missing": (lambda ds, k: setattr(ds, "ImagePositionPatient", [-10, -20, 30 + 2 * k + 4 * (k > 4)]), "2 or more slices are missing"),
    "uneven": (lambda ds, k: setattr(ds, "ImagePositionPatient", [-10, -20, 30 + 2 * k + 0.6 * (k % 2)]), "not evenly spaced"),
    "no orientation": (set_in(3, ImageOrientationPatient=None), "no position and orientation"),
    "bad orientation": (set_in(None, ImageOrientationPatient=[0, 0, 0, 0, 0, 0]), "ImageOrientationPatient is not what"),
    "skew orientation": (set_in(None, ImageOrientationPatient=[1, 0, 0, 0.6, 0.8, 0]), "sheared"),
    "spacing zero": (set_in(None, PixelSpacing=[0, 1]), "voxel spacing in its header is 0 x 1"),
    "slope zero": (set_in(None, RescaleSlope=0), "RescaleSlope is not what the standard says"),
    "no pixels": (set_in(None, PixelData=None), "truncated"),
    "few pixels": (set_in(None, PixelData=b"\0\0"), "too few for the 3,840 bytes of pixels"),
    "huge": (set_in(None, Rows=65535, Columns=65535), "too few for the 8,589,672,450 bytes of pixels"),
    "palette": (set_in(None, PhotometricInterpretation="PALETTE COLOR"), "numbers of palette colours"),
    "ybr": (set_in(None, PhotometricInterpretation="YBR_FULL", SamplesPerPixel=3, Columns=16), "not stored as RGB"),
    "cmyk": (set_in(None, PhotometricInterpretation="CMYK", SamplesPerPixel=4, Columns=12), "only grey and RGB"),
    "bits": (set_in(None, BitsAllocated=12, BitsStored=12, HighBit=11), "12 bits a sample"),
    "bits stored": (set_in(None, BitsStored=17), "BitsStored is not what"),
    "no rows": (set_in(None, Columns=None), "no image: its header has no Columns"),
    "table": (set_in(None, ModalityLUTSequence=lut()), "Modality LUT"),
    "cine": (set_in(None, NumberOfFrames=2, ImagePositionPatient=None), "a cine loop, not a volume"),
    "concatenation": (set_in(None, NumberOfFrames=2, ConcatenationUID=SERIES), "one part of a concatenation"),
    "whole slide": (set_in(None, SOPClassUID="1.2.840.10008.5.1.4.1.1.77.1.6"), "a whole-slide image"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_single_volume_is_refused_with_a_reason(kind: str, tmp_path: Path) -> None:
    edit, reason = REFUSED[kind]
    folder = series(tmp_path / "ct", CT, edit=edit)
    if kind in ("cine", "concatenation"):
        folder = next(folder.iterdir())
    tracemalloc.start()
    with pytest.raises(MedProtectError, match=reason) as error:
        read_volume(folder)
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()
    assert_names_no_patient(str(error.value))
    assert "\n" not in str(error.value)


def assert_names_no_patient(text: str) -> None:
    for secret in (PATIENT, "Mustermann", PATIENT_ID, INSTITUTION, "19640812"):
        assert secret not in text


def test_positions_may_be_rounded(tmp_path: Path) -> None:
    def edit(dataset: Dataset, k: int) -> None:
        dataset.ImagePositionPatient = [-10 + 0.05 * (0 < k < 7) * (-1) ** k, -20, 30 + 2 * k]

    assert np.array_equal(read_volume(series(tmp_path / "ct", CT, edit=edit)).array, CT)


def test_an_instance_without_a_uid_is_refused(folder: Path) -> None:
    nameless = dcmread(folder / "IMG003")
    nameless.SOPInstanceUID = nameless.file_meta.MediaStorageSOPInstanceUID = ""
    nameless.save_as(folder / "IMG003")
    with pytest.raises(MedProtectError, match="IMG003: no SOP Instance UID"):
        read_volume(folder)


def test_two_different_slices_with_one_uid_are_refused(folder: Path) -> None:
    other = dcmread(folder / "IMG003")
    other.ImageComments = "changed"
    save(other, folder / "other")
    with pytest.raises(MedProtectError, match="and yet it has its SOP Instance UID"):
        read_volume(folder)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"\0" * 128 + b"DICM", "damaged or truncated|no transfer syntax"),
        (b"\0" * 128 + b"DICM" + bytes(range(256)), "damaged or truncated|no transfer syntax|without an image"),
    ],
)
def test_a_damaged_file_is_one_line(content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(content)
    with pytest.raises(MedProtectError, match=reason):
        read_volume(tmp_path / "a.dcm")


def test_folders_without_images_and_other_objects_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(MedProtectError, match="no DICOM image in this folder"):
        read_volume(tmp_path / "empty")
    with pytest.raises(MedProtectError, match="no such file"):
        read_volume(tmp_path / "nowhere")
    with pytest.raises(MedProtectError, match="RTSTRUCT object holds labels"):
        read_volume(structure_set(tmp_path / "rt.dcm", {"a": []}))
    (tmp_path / "x.dcm").write_bytes(b"hello, no DICOM here")
    for path in (tmp_path / "x.dcm", tmp_path):
        with pytest.raises(MedProtectError, match=r"x\.dcm: not a DICOM file, or one without preamble .* dcmconv"):
            read_volume(path)


def test_a_folder_of_deflated_files_is_refused_as_such(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes((PYDICOM / "image_dfl.dcm").read_bytes())
    (tmp_path / ".keep").touch()
    for path in (tmp_path / "x", tmp_path):
        with pytest.raises(MedProtectError, match=r"x: deflated as a whole .* Convert it"):
            read_volume(path)


NOT_BY_PYDICOM = "SC_rgb_jpeg_gdcm.dcm"  # lossless JPEG of the same picture
REAL = {
    "CT_small.dcm": (1, 128, 128),
    "693_J2KI.dcm": (1, 512, 512),
    "JPEGLSNearLossless_16.dcm": (1, 50, 10),
    "SC_rgb_rle_16bit.dcm": (1, 100, 100, 3),
    "SC_rgb_jpeg_gdcm.dcm": (1, 100, 100, 3),
    "examples_jpeg2k.dcm": (1, 480, 640, 3),
    "dicomdirtests/98892001/CT5N": (5, 16, 16),
    "dicomdirtests/77654033/CR1": (1, 16, 16),
    "image_dfl.dcm": "deflated as a whole",
    "JPGExtended.dcm": "no decoder for its transfer syntax JPEG Extended",
    "JPEG2000-embedded-sequence-delimiter.dcm": "damaged or truncated",
    "ExplVR_BigEnd.dcm": "retired big-endian order",
    "examples_palette.dcm": "palette colours",
    "examples_ybr_color.dcm": "a cine loop",
    "SC_ybr_full_422_uncompressed.dcm": "truncated",
    "meta_missing_tsyntax.dcm": "no transfer syntax",
    "rtdose.dcm": "without an image",
    "dicomdirtests/98892003/MR700": "different orientations",
    "dicomdirtests/DICOMDIR": "without an image",
}


@pytest.mark.parametrize("name", REAL)
def test_files_of_many_makers(name: str, tmp_path: Path) -> None:
    """The files that come with pydicom; each alone, since several of them are versions of one image."""
    path, expected = PYDICOM / name, REAL[name]
    if not path.is_dir():
        path = tmp_path / path.name
        path.write_bytes((PYDICOM / name).read_bytes())
    if isinstance(expected, str):
        with pytest.raises(MedProtectError, match=expected):
            read_volume(path)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        volume = read_volume(path)
    assert volume.array.shape == expected
    known = [PYDICOM / "SC_rgb_rle.dcm"] if name in NOT_BY_PYDICOM else volume.source.files
    assert np.array_equal(np.stack([dcmread(file).pixel_array for file in known]), volume.array)


def cut(frame: bytes) -> bytes:
    return frame[: len(frame) // 2]


def cut_but_ended(frame: bytes) -> bytes:
    return cut(frame) + frame[-3:]


def with_hole(frame: bytes) -> bytes:
    return cut(frame) + frame[len(frame) // 2 + 40 :]


@pytest.mark.parametrize("damage", [cut, cut_but_ended, with_hole])
@pytest.mark.parametrize("name", ["SC_rgb_jpeg_gdcm.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm"])
def test_damaged_compressed_pixels_are_not_taken_for_an_image(
    damage: Callable[[bytes], bytes], name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    dataset = dcmread(PYDICOM / name)
    (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
    dataset.PixelData = encapsulate([damage(frame)])
    dataset["PixelData"].is_undefined_length = True
    with pytest.raises(MedProtectError, match=r"a\.dcm: damaged or truncated"):
        read_volume(save(dataset, tmp_path / "a.dcm"))
    assert capfd.readouterr().err == ""


def test_lossless_jpeg_without_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(descriptor: int) -> int:
        raise OSError(errno.EBADF, "Bad file descriptor")

    (tmp_path / "a.dcm").write_bytes((PYDICOM / NOT_BY_PYDICOM).read_bytes())
    monkeypatch.setattr("os.dup", closed)
    assert read_volume(tmp_path / "a.dcm").array.shape == (1, 100, 100, 3)


def test_case_names_keep_the_dots_of_uids(tmp_path: Path) -> None:
    series(tmp_path / "1.2.840.1", CT[:1])
    assert case_name(tmp_path / "1.2.840.1") == "1.2.840.1"
    for name, case in (("1.2.840.5", "1.2.840.5"), ("1.2.840.5.dcm", "1.2.840.5"), ("a.IMA", "a")):
        assert case_name(picture(tmp_path / "p" / name, CT[0].astype(np.uint16))) == case
    assert case_name(tmp_path / "ct.nii.gz") == "ct"


def test_the_hash_of_a_folder_is_that_of_a_list_of_hashes(folder: Path) -> None:
    from hashlib import sha256

    lines = [f"{sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(folder.iterdir())]
    assert sha256_path(folder) == sha256("".join(lines).encode()).hexdigest()


def seeds() -> dict[str, bytes]:
    images = ("CT_small.dcm", "MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm", "examples_overlay.dcm")
    return {name: (PYDICOM / name).read_bytes() for name in (*images, "liver_1frame.dcm", "rtstruct.dcm")}


SEEDS = seeds()
FUZZ_IMAGE = Volume(CT, Geometry((48, 40, 8), (0.5, 0.75, 2.0), (-10.0, -20.0, 30.0)))


@pytest.fixture(scope="module")
def fuzz_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_mutated_files_give_a_result_or_one_line(data: st.DataObject, fuzz_folder: Path) -> None:
    content = bytearray(SEEDS[data.draw(st.sampled_from(sorted(SEEDS)))])
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(132, min(len(content), 2600) - 1))] = data.draw(st.integers(0, 255))
    path = fuzz_folder / "a.dcm"
    path.write_bytes(content[: data.draw(st.integers(140, len(content)))] if data.draw(st.booleans()) else content)
    for read in (read_volume, lambda file: read_labels(file, FUZZ_IMAGE)):
        with warnings.catch_warnings(), suppress(MedProtectError):
            warnings.simplefilter("error")  # they would quote the header
            read(path)
