"""A derived series: the voxels that were given, the bits around them, a header that says what was done, and names of its own."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence as Items
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless

from made_dicom import SERIES, enhanced, picture, save, segmentation, series, structure_set
from MedProtectLib.errors import MedProtectError
from MedProtectLib.io import read_volume, write_volume
from MedProtectLib.io.dicom import derived_uids, find_series, rewrite_references
from MedProtectLib.volume import Volume
from samples import SAMPLES

PYDICOM = Path(pydicom.__file__).parent / "data" / "test_files"
CT = np.asarray(nib.load(SAMPLES / "totalseg_ct" / "ct.nii.gz").dataobj).T.astype(np.int16)[8:16, 30:70, 40:88]
SLICES, ROWS, COLUMNS = slice(2, 6), slice(10, 30), slice(10, 30)


def changed(volume: Volume) -> Volume:
    """The volume with a change of one or two levels in a box, within the range of its values."""
    array = volume.array.copy()
    box = array[SLICES, ROWS, COLUMNS] if len(array) > 2 else array[:, ROWS, COLUMNS]
    add = np.resize([1, -1, 2, 0], box.shape).astype(np.int64)
    box[:] = np.clip(box.astype(np.int64) + add, array.min(), array.max()).astype(array.dtype)
    assert not np.array_equal(array, volume.array)
    return volume.with_array(array)


def derived(source: Path, target: Path) -> tuple[Volume, list[Path]]:
    """A changed version of an image in ``target``, and its files in order of the original's."""
    volume = changed(read_volume(source))
    write_volume(volume, target)
    return volume, sorted(target.iterdir()) if target.is_dir() else [target]


def by_gdcm(folder: Path) -> np.ndarray:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return sitk.GetArrayFromImage(reader.Execute())


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_two_readers_find_the_voxels_that_were_written(modality: str, tmp_path: Path) -> None:
    volume, files = derived(series(tmp_path / "in", CT, modality), tmp_path / "out")
    assert [file.name for file in files] == [f"{n:04d}.dcm" for n in range(1, 9)]
    again = read_volume(tmp_path / "out")
    assert np.array_equal(again.array, volume.array)
    assert again.geometry == volume.geometry
    assert np.array_equal(by_gdcm(tmp_path / "out"), volume.array)


ADDED = {"DerivationDescription", "DerivationCodeSequence", "ContributingEquipmentSequence"}
REPLACED = {"ImageType", "SOPInstanceUID", "SeriesInstanceUID", "SeriesDescription", "PixelData"}


def test_nothing_else_of_the_header_changes(tmp_path: Path) -> None:
    def extremes(dataset: Dataset, k: int) -> None:
        dataset.add_new("SmallestImagePixelValue", "SS", int(CT[k].min()))
        dataset.add_new("LargestImagePixelValue", "SS", int(CT[k].max()))

    volume, files = derived(series(tmp_path / "in", CT, edit=extremes), tmp_path / "out")
    for k, file in enumerate(files):
        before, after = dcmread(tmp_path / "in" / f"IMG{k * 7 + 3:03d}"), dcmread(file)
        assert {e.keyword for e in after} - {e.keyword for e in before} == ADDED
        assert not {e.keyword for e in before} - {e.keyword for e in after}
        different = {e.keyword for e in before if e != after[e.tag]}
        expected = REPLACED if k in range(8)[SLICES] else REPLACED - {"PixelData"}
        assert different - {"SmallestImagePixelValue", "LargestImagePixelValue"} == expected
        assert (after.SmallestImagePixelValue, after.LargestImagePixelValue) == (volume.array[k].min(), volume.array[k].max())
        assert after.ImageType == ["DERIVED", "PRIMARY", "AXIAL"]
        assert after.SeriesDescription == "Thin slices (protected)"
        assert (after.StudyInstanceUID, after.FrameOfReferenceUID) == (before.StudyInstanceUID, before.FrameOfReferenceUID)
        assert after[0x0009, 0x1001].value == bytes(range(8))
        assert "not de-identified" in after.DerivationDescription
        (equipment,) = after.ContributingEquipmentSequence
        purpose = equipment.PurposeOfReferenceCodeSequence[0]
        assert (purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning) == ("109103", "DCM", "Modifying Equipment")
        assert not {"PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence"} & {e.keyword for e in after}
        assert after.file_meta.MediaStorageSOPInstanceUID == after.SOPInstanceUID


def test_what_the_source_says_about_de_identification_stays(tmp_path: Path) -> None:
    def edit(dataset: Dataset, k: int) -> None:
        dataset.PatientIdentityRemoved, dataset.DeidentificationMethod = "YES", "by the archive"

    _, files = derived(series(tmp_path / "in", CT, edit=edit), tmp_path / "out")
    assert {(dcmread(f).PatientIdentityRemoved, dcmread(f).DeidentificationMethod) for f in files} == {("YES", "by the archive")}


def test_a_header_tells_nothing_about_seed_or_strength(tmp_path: Path) -> None:
    _, files = derived(series(tmp_path / "in", CT), tmp_path / "out")
    text = dcmread(files[0]).DerivationDescription
    assert re.findall(r"\d+", text.partition(":")[2]) == []


def test_what_spoke_of_the_original_pixels_is_dropped_and_texts_stay_within_their_length(tmp_path: Path) -> None:
    def edit(dataset: Dataset, k: int) -> None:
        icon = Dataset()
        icon.Rows = icon.Columns = 2
        icon.PixelData = b"\0" * 4
        icon["PixelData"].VR = "OB"
        dataset.IconImageSequence, dataset.DigitalSignaturesSequence = Items([icon]), Items([Dataset()])
        dataset.SeriesDescription, dataset.DerivationDescription = "d" * 64, "e" * 1024
        dataset.ContributingEquipmentSequence = Items([icon])
        dataset.ImageType = "ORIGINAL"

    _, files = derived(series(tmp_path / "in", CT, edit=edit), tmp_path / "out")
    after = dcmread(files[0])
    assert "IconImageSequence" not in after
    assert "DigitalSignaturesSequence" not in after
    assert len(after.SeriesDescription) == 64
    assert after.SeriesDescription.endswith("d (protected)")
    assert len(after.DerivationDescription) == 1024
    assert after.DerivationDescription.startswith("eee")
    assert len(after.ContributingEquipmentSequence) == 2
    assert after.ImageType == ["DERIVED", "PRIMARY"]


def test_a_description_with_a_backslash_stays_as_it_is(tmp_path: Path) -> None:
    def edit(dataset: Dataset, k: int) -> None:
        dataset.SeriesDescription = r"head\neck"

    _, files = derived(series(tmp_path / "in", CT, edit=edit), tmp_path / "out")
    assert list(dcmread(files[0]).SeriesDescription) == ["head", "neck (protected)"]
    assert rb"head\neck (protected)" in files[0].read_bytes()


def test_uids_follow_from_the_source_and_the_voxels(tmp_path: Path) -> None:
    source = series(tmp_path / "in", CT)
    volume, files = derived(source, tmp_path / "a")
    derived(source, tmp_path / "b")
    assert [file.read_bytes() for file in files] == [file.read_bytes() for file in sorted((tmp_path / "b").iterdir())]
    uids = derived_uids(volume)
    headers = [dcmread(file) for file in files]
    assert dict(uids.series) == {SERIES: headers[0].SeriesInstanceUID}
    assert [uids.instances[f"{SERIES}.{k + 1}"] for k in range(8)] == [header.SOPInstanceUID for header in headers]
    assert derived_uids(read_volume(source).with_array(read_volume(tmp_path / "a").array)) == uids
    for uid in (*uids.series.values(), *uids.instances.values()):
        assert re.fullmatch(r"2\.25\.[1-9]\d{0,38}", uid)
        number = int(uid[5:])
        assert (number >> 76 & 0xF, number >> 62 & 0x3) == (8, 2)
    assert len({*uids.series.values(), *uids.instances.values()}) == 9
    other = volume.array.copy()
    other[0, 0, 0] += 1
    again = derived_uids(volume.with_array(other))
    assert again.series != uids.series
    assert [k for k in range(8) if again.instances[f"{SERIES}.{k + 1}"] != uids.instances[f"{SERIES}.{k + 1}"]] == [0]


def test_the_mark_is_found_again(tmp_path: Path) -> None:
    assert not find_series(series(tmp_path / "in", CT))[0].protected
    derived(tmp_path / "in", tmp_path / "out")
    assert find_series(tmp_path / "out")[0].protected
    assert read_volume(tmp_path / "out").source.protected


def stored_in(bits: int, high: int, signed: bool, garbage: bool) -> Callable[[Dataset, int], None]:
    """An edit that stores the values in some bits of a cell, with the bits around them filled."""

    def edit(dataset: Dataset, k: int) -> None:
        dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = bits, high, int(signed)
        shift, mask = high + 1 - bits, (1 << bits) - 1
        cells = (CT[k].astype(np.int64) + (0 if signed else 1100)) & mask
        around = np.arange(cells.size).reshape(cells.shape) * 4096 & 0xFFFF & ~(mask << shift) if garbage else 0
        dataset.PixelData = ((cells << shift) | around).astype("<u2").tobytes()

    return edit


PLACES = [(12, 11, False), (12, 11, True), (12, 13, False), (12, 15, True), (16, 15, True), (13, 12, True)]


def assert_bits_around_are_kept(cells: list[np.ndarray], files: list[Path], bits: int, high: int, moved: np.ndarray) -> None:
    """``cells`` are those of the original by slice, ``moved`` says where their values were changed."""
    mask = ((1 << bits) - 1) << (high + 1 - bits)
    for old, file, where in zip(cells, files, moved, strict=True):
        new = np.frombuffer(dcmread(file).PixelData, "<u2")
        assert np.array_equal(old & ~np.uint16(mask), new & ~np.uint16(mask))
        assert np.array_equal(old != new, where.ravel())


@pytest.mark.parametrize("garbage", [False, True])
@pytest.mark.parametrize(("bits", "high", "signed"), PLACES)
def test_bits_around_the_values_are_kept(bits: int, high: int, signed: bool, garbage: bool, tmp_path: Path) -> None:
    source = series(tmp_path / "in", CT, edit=stored_in(bits, high, signed, garbage))
    before = read_volume(source)
    assert np.array_equal(before.array.astype(int), CT.astype(int) + (0 if signed else 1100))
    volume, files = derived(source, tmp_path / "out")
    assert np.array_equal(read_volume(tmp_path / "out").array, volume.array)
    cells = [np.frombuffer(dcmread(source / f"IMG{k * 7 + 3:03d}").PixelData, "<u2") for k in range(8)]
    assert_bits_around_are_kept(cells, files, bits, high, before.array != volume.array)


@pytest.mark.parametrize("garbage", [False, True])
@pytest.mark.parametrize(("bits", "high", "signed"), PLACES)
def test_rle_keeps_the_bits_around_the_values_too(bits: int, high: int, signed: bool, garbage: bool, tmp_path: Path) -> None:
    cells = []

    def edit(dataset: Dataset, k: int) -> None:
        stored_in(bits, high, signed, garbage)(dataset, k)
        cells.append(np.frombuffer(dataset.PixelData, "<u2"))
        dataset.BitsStored, dataset.HighBit = 16, 15
        dataset.compress(RLELossless, generate_instance_uid=False)
        dataset.BitsStored, dataset.HighBit = bits, high

    before = read_volume(series(tmp_path / "in", CT, edit=edit))
    assert np.array_equal(before.array.astype(int), CT.astype(int) + (0 if signed else 1100))
    volume, files = derived(tmp_path / "in", tmp_path / "out")
    assert np.array_equal(read_volume(tmp_path / "out").array, volume.array)
    assert {dcmread(file).HighBit for file in files} == {high}
    assert_bits_around_are_kept(cells, files, bits, high, before.array != volume.array)


def test_a_sign_extends_over_the_bits_above_as_it_did(tmp_path: Path) -> None:
    array = np.resize(np.array([-1, 0, 1, -5], np.int16), CT.shape)

    def edit(dataset: Dataset, k: int) -> None:
        dataset.BitsStored, dataset.HighBit = 12, 11

    source = series(tmp_path / "in", array, edit=edit)
    target = read_volume(source).with_array(array[..., ::-1].copy())
    write_volume(target, tmp_path / "out")
    cells = np.stack(
        [np.frombuffer(dcmread(file).PixelData, "<i2").reshape(array.shape[1:]) for file in sorted((tmp_path / "out").iterdir())]
    )
    assert np.array_equal(cells, target.array)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_native_transfer_syntaxes_are_kept(syntax: str, tmp_path: Path) -> None:
    def edit(dataset: Dataset, k: int) -> None:
        dataset.PixelData = CT[k].astype(">i2" if syntax == ExplicitVRBigEndian else "<i2").tobytes()
        dataset.file_meta.TransferSyntaxUID = syntax

    volume, files = derived(series(tmp_path / "in", CT, edit=edit), tmp_path / "out")
    assert np.array_equal(read_volume(tmp_path / "in").array, CT)
    assert {dcmread(file).file_meta.TransferSyntaxUID for file in files} == {syntax}
    assert np.array_equal(read_volume(tmp_path / "out").array, volume.array)
    assert np.array_equal(by_gdcm(tmp_path / "out"), volume.array)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
@pytest.mark.parametrize("signed", [False, True])
def test_compressed_pixels_are_read_and_written_uncompressed(syntax: str, signed: bool, tmp_path: Path) -> None:
    array = CT if signed else (CT + 1100).astype(np.uint16)
    source = series(tmp_path / "in", array)
    for file in source.iterdir():
        dataset = dcmread(file)
        dataset.compress(syntax, generate_instance_uid=False)
        dataset.save_as(file)
    assert np.array_equal(read_volume(source).array, array)
    volume, files = derived(source, tmp_path / "out")
    for k, file in enumerate(files):
        after = dcmread(file)
        assert not after.file_meta.TransferSyntaxUID.is_compressed
        assert np.array_equal(after.pixel_array, volume.array[k])
    assert np.array_equal(by_gdcm(tmp_path / "out"), volume.array)


@pytest.mark.parametrize(
    "name", ["SC_rgb_jpeg_gdcm.dcm", "SC_rgb_jpeg_lossy_gdcm.dcm", "examples_jpeg2k.dcm", "693_J2KI.dcm", "SC_rgb_dcmtk_+eb+cy+n1.dcm"]
)
def test_real_compressed_pictures(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = tmp_path / "in" / name
    source.parent.mkdir()
    source.write_bytes((PYDICOM / name).read_bytes())
    volume, (file,) = derived(source, tmp_path / "out.dcm" if "693" not in name else tmp_path / "out")
    after = dcmread(file)
    assert after.PhotometricInterpretation in ("RGB", "MONOCHROME2")
    assert np.array_equal(after.pixel_array, volume.array[0])
    lossy = dcmread(source).get("LossyImageCompression") == "01"
    assert after.get("LossyImageCompression") == dcmread(source).get("LossyImageCompression")
    assert ("lossy compression" in caplog.text) == lossy
    caplog.clear()
    read_volume(tmp_path / ("out.dcm" if "693" not in name else "out"))
    assert caplog.text == ""


@pytest.mark.parametrize("planar", [0, 1])
def test_rgb_keeps_its_planar_configuration(planar: int, tmp_path: Path) -> None:
    array = np.stack([(CT[n] + 1000 >> 3).astype(np.uint8) for n in range(3)], axis=-1)[:39, :47]

    def edit(dataset: Dataset, k: int) -> None:
        dataset.PlanarConfiguration = planar
        if planar:
            dataset.PixelData = np.moveaxis(array, -1, 0).tobytes() + b"\0"

    volume, (file,) = derived(picture(tmp_path / "in.dcm", array, "US", edit), tmp_path / "out.dcm")
    assert np.array_equal(read_volume(tmp_path / "in.dcm").array[0], array)
    assert dcmread(file).PlanarConfiguration == planar
    assert len(dcmread(file).PixelData) == 39 * 47 * 3 + 1
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(file)).reshape(volume.array.shape), volume.array)


def test_monochrome1_stays_as_it_is(tmp_path: Path) -> None:
    def edit(dataset: Dataset, k: int) -> None:
        dataset.PhotometricInterpretation = "MONOCHROME1"

    volume, (file,) = derived(picture(tmp_path / "in.dcm", (CT[0] + 1100).astype(np.uint16), edit=edit), tmp_path / "out.dcm")
    after = dcmread(file)
    assert after.PhotometricInterpretation == "MONOCHROME1"
    assert np.array_equal(after.pixel_array, volume.array[0])


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint32, np.int32])
def test_cells_of_other_sizes(dtype: type, tmp_path: Path) -> None:
    array = (CT[0].astype(np.int64) // 16 * (1 if np.dtype(dtype).itemsize == 1 else 100_000)).astype(dtype)
    volume, (file,) = derived(picture(tmp_path / "in.dcm", array), tmp_path / "out.dcm")
    assert np.array_equal(dcmread(file).pixel_array, volume.array[0])
    assert read_volume(file).array.dtype == dtype


@pytest.mark.parametrize("order", [None, [7, 3, 0, 1, 2, 4, 5, 6]])
def test_an_enhanced_object_stays_one_object_with_its_frames_in_place(order: list[int] | None, tmp_path: Path) -> None:
    source = enhanced(tmp_path / "in.dcm", CT, order=order)
    volume, (file,) = derived(source, tmp_path / "out.dcm")
    before, after = dcmread(source), dcmread(file)
    assert np.array_equal(after.pixel_array, volume.array[order or slice(None)])
    assert after.PerFrameFunctionalGroupsSequence == before.PerFrameFunctionalGroupsSequence
    shared = after.SharedFunctionalGroupsSequence[0]
    assert shared.CTImageFrameTypeSequence[0].FrameType == ["DERIVED", "PRIMARY", "VOLUME", "NONE"]
    assert len(shared.DerivationImageSequence) == 0
    assert np.array_equal(read_volume(file).array, volume.array)


def test_an_existing_folder_the_source_and_a_changed_source_are_refused(tmp_path: Path) -> None:
    source = series(tmp_path / "in", CT)
    before = {file.name: file.read_bytes() for file in source.iterdir()}
    volume = changed(read_volume(source))
    with pytest.raises(MedProtectError, match="this exists already"):
        write_volume(volume, source)
    assert {file.name: file.read_bytes() for file in source.iterdir()} == before
    single = picture(tmp_path / "one.dcm", CT[0].astype(np.uint16))
    with pytest.raises(MedProtectError, match=r"would replace 'one\.dcm'"):
        write_volume(read_volume(single), single)
    with pytest.raises(MedProtectError, match=r"ends in \.dcm"):
        write_volume(read_volume(single), tmp_path / "one.png")
    with pytest.raises(MedProtectError, match="was not read from DICOM"):
        derived_uids(Volume(CT, volume.geometry))
    (source / "IMG003").write_bytes((source / "IMG010").read_bytes())
    with pytest.raises(MedProtectError, match="IMG003: the file has changed since it was read"):
        write_volume(volume, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_full_disk_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = read_volume(series(tmp_path / "in", CT))
    written = 0
    save_as = pydicom.FileDataset.save_as

    def fail(self: pydicom.FileDataset, *arguments: object, **options: object) -> None:
        nonlocal written
        written += 1
        if written == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        save_as(self, *arguments, **options)

    monkeypatch.setattr(pydicom.FileDataset, "save_as", fail)
    with pytest.raises(MedProtectError, match="No space left on device"):
        write_volume(volume, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def elements_but(dataset: Dataset, *keywords: str) -> dict[str, object]:
    return {e.keyword: e.value for e in dataset if e.keyword not in keywords}


def test_references_are_moved_to_the_derived_series(tmp_path: Path) -> None:
    source = series(tmp_path / "in", CT)
    volume = changed(read_volume(source))
    files = sorted(source.iterdir())
    masks = np.zeros((*CT.shape, 1), np.uint8)
    masks[2:4, 5:9, 5:9] = 1
    square = np.array([[0.0, 0, 36], [4, 0, 36], [4, 4, 36]])
    for name, path in (
        ("SEG", segmentation(tmp_path / "seg.dcm", files, masks, labels=["liver"])),
        ("RTSTRUCT", structure_set(tmp_path / "rt.dcm", {"liver": [square]}, files)),
    ):
        uids = derived_uids(volume)
        rewrite_references(path, tmp_path / f"{name}.dcm", [uids])
        rewrite_references(path, tmp_path / f"{name}_again.dcm", [uids])
        assert (tmp_path / f"{name}.dcm").read_bytes() == (tmp_path / f"{name}_again.dcm").read_bytes()
        before, after = dcmread(path), dcmread(tmp_path / f"{name}.dcm")
        text = (tmp_path / f"{name}.dcm").read_bytes()
        assert not any(f"{SERIES}.{k + 1}\0".encode() in text or f"{SERIES}.{k + 1} ".encode() in text for k in range(8))
        assert any(uid.encode() in text for uid in uids.instances.values())
        assert next(iter(uids.series.values())).encode() in text
        assert after.SOPInstanceUID != before.SOPInstanceUID
        assert after.file_meta.MediaStorageSOPInstanceUID == after.SOPInstanceUID
        assert after.StudyInstanceUID == before.StudyInstanceUID
        if name == "SEG":
            assert after.PixelData == before.PixelData
            moved = (
                "ReferencedSeriesSequence",
                "SourceImageSequence",
                "SharedFunctionalGroupsSequence",
                "PerFrameFunctionalGroupsSequence",
            )
        else:
            assert after.ROIContourSequence == before.ROIContourSequence
            moved = ("ReferencedFrameOfReferenceSequence",)
        own = ("SOPInstanceUID", "SeriesInstanceUID")
        assert elements_but(after, *own, *moved) == elements_but(before, *own, *moved)


def test_references_that_lead_elsewhere_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    source = series(tmp_path / "in", CT)
    volume = read_volume(source)
    other = dcmread(source / "IMG003")
    other.SOPInstanceUID = SERIES + ".99"
    path = structure_set(tmp_path / "rt.dcm", {"liver": []}, [*sorted(source.iterdir()), save(other, tmp_path / "other")])
    with pytest.raises(MedProtectError, match="1 of its 9 references to images and 0 of its 1 to series"):
        rewrite_references(path, tmp_path / "new.dcm", [derived_uids(volume)])
    with pytest.raises(MedProtectError, match="neither a segmentation nor a structure set"):
        rewrite_references(source / "IMG003", tmp_path / "new.dcm", [derived_uids(volume)])
    assert not (tmp_path / "new.dcm").exists()


def test_a_bomb_of_claimed_columns_is_not_decoded(tmp_path: Path) -> None:
    """A compressed frame whose own header claims 60,000 x 60,000 pixels."""
    source = series(tmp_path / "in", CT[:1])
    dataset = dcmread(source / "IMG003")
    dataset.compress(JPEGLSLossless, generate_instance_uid=False)
    frame = next(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=1))
    start = frame.index(b"\xff\xf7") + 5
    dataset.PixelData = encapsulate([frame[:start] + (60000).to_bytes(2) * 2 + frame[start + 4 :]])
    dataset.save_as(source / "IMG003")
    with pytest.raises(MedProtectError, match="damaged or truncated"):
        read_volume(source)
