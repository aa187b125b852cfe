"""Segmentations and structure sets become label maps on the grid of their image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from pydicom import Dataset, dcmread
from pydicom.uid import JPEGLSLossless, RLELossless

from made_dicom import FRAME_OF_REFERENCE, SERIES, Edit, contour, picture, save, segmentation, series, structure_set, unchanged
from MedProtectLib.errors import MedProtectError
from MedProtectLib.io import read_labels, read_volume, resample_labels
from MedProtectLib.volume import Geometry, LabelMap, Volume
from samples import SAMPLES

CT = np.asarray(nib.load(SAMPLES / "totalseg_ct" / "ct.nii.gz").dataobj).T.astype(np.int16)[8:16, 30:70, 40:88]
LIVER, TUMOUR = np.zeros((2, *CT.shape), bool)
LIVER[1:6, 5:30, 8:40] = True
TUMOUR[3:5, 20:35, 30:45] = True  # partly outside the liver
BOTH = np.stack([LIVER, TUMOUR], axis=-1)


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> tuple[Volume, list[Path]]:
    folder = series(tmp_path_factory.mktemp("labels") / "ct", CT)
    return read_volume(folder), sorted(folder.iterdir())


def mask(labels: LabelMap, name: str) -> np.ndarray:
    (segment,) = [segment for segment in labels.segments if segment.name == name]
    return labels.layers[segment.layer] == segment.value


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL"])
def test_overlapping_segments_get_layers(kind: str, ct: tuple[Volume, list[Path]], tmp_path: Path) -> None:
    masks = BOTH.astype(np.uint8) if kind == "BINARY" else BOTH * 0.75
    labels = read_labels(segmentation(tmp_path / "seg.dcm", ct[1], masks, kind), ct[0])
    assert [(s.name, s.value, s.layer) for s in labels.segments] == [("liver", 1, 0), ("tumour", 2, 1)]
    assert labels.geometry == ct[0].geometry
    assert np.array_equal(mask(labels, "liver"), LIVER)
    assert np.array_equal(mask(labels, "tumour"), TUMOUR)
    assert [s.name for s in labels.select(["2"]).segments] == ["tumour"]


@pytest.mark.parametrize("size", [(23, 37), (22, 35), (21, 38), (25, 33)])
def test_frames_need_not_begin_with_a_byte(size: tuple[int, int], tmp_path: Path) -> None:
    """The bits of frames whose number of pixels is no multiple of eight follow each other without a gap."""
    inside = BOTH[:, : size[0], : size[1]]
    folder = series(tmp_path / "ct", CT[:, : size[0], : size[1]])
    path = segmentation(tmp_path / "seg.dcm", sorted(folder.iterdir()), inside.astype(np.uint8))
    labels = read_labels(path, read_volume(folder))
    assert np.array_equal(mask(labels, "liver"), inside[..., 0])
    assert np.array_equal(mask(labels, "tumour"), inside[..., 1])


def test_too_many_layers_are_refused(ct: tuple[Volume, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("MedProtectLib.io.dicom.layers.MOST_BYTES", 2 * CT.size - 1)
    path = segmentation(tmp_path / "seg.dcm", ct[1], BOTH.astype(np.uint8))
    with pytest.raises(MedProtectError, match="more than 1 of its structures overlap"):
        read_labels(path, ct[0])


def test_segments_that_do_not_overlap_share_a_layer(ct: tuple[Volume, list[Path]], tmp_path: Path) -> None:
    apart = np.stack([LIVER & ~TUMOUR, TUMOUR], axis=-1).astype(np.uint8)
    labels = read_labels(segmentation(tmp_path / "seg.dcm", ct[1], apart), ct[0])
    assert len(labels.layers) == 1
    assert np.array_equal(labels.layers[0], np.where(TUMOUR, 2, LIVER))


@pytest.mark.parametrize(("fraction", "inside"), [(0.3, False), (0.49, False), (0.51, True), (1.0, True)])
def test_half_of_the_maximum_fraction_counts(fraction: float, inside: bool, ct: tuple[Volume, list[Path]], tmp_path: Path) -> None:
    path = segmentation(tmp_path / "seg.dcm", ct[1], LIVER[..., None] * fraction, "FRACTIONAL", ["liver"], max_fractional_value=200)
    assert np.array_equal(mask(read_labels(path, ct[0]), "liver"), LIVER & inside)


@pytest.mark.parametrize("syntax", [None, RLELossless, JPEGLSLossless])
def test_a_label_map_object(syntax: str | None, ct: tuple[Volume, list[Path]], tmp_path: Path) -> None:
    numbers = np.where(TUMOUR, 2, LIVER).astype(np.uint8)
    options = {} if syntax is None else {"transfer_syntax_uid": syntax}
    labels = read_labels(segmentation(tmp_path / "seg.dcm", ct[1], numbers, "LABELMAP", **options), ct[0])
    assert np.array_equal(labels.layers[0], numbers)
    assert [(s.name, s.value) for s in labels.segments] == [("liver", 1), ("tumour", 2)]


def test_slices_that_were_left_out_are_empty(ct: tuple[Volume, list[Path]], tmp_path: Path) -> None:
    """Two frames far apart, and no word about the distance between slices: nothing may spread to the slices between them."""
    sparse = LIVER.copy()
    sparse[2:5] = False
    path = segmentation(tmp_path / "seg.dcm", ct[1], sparse[..., None].astype(np.uint8), labels=["liver"])
    dataset = dcmread(path)
    assert dataset.NumberOfFrames == 2
    measures = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    if "SpacingBetweenSlices" in measures:
        del measures.SpacingBetweenSlices
    labels = read_labels(save(dataset, tmp_path / "sparse.dcm"), ct[0])
    assert np.array_equal(mask(labels, "liver"), sparse)


@pytest.mark.parametrize(("drawn_on", "told"), [([1, 3, 5], True), ([1, 2, 3, 4, 5], False), ([1, 2, 4], False), ([1, 5], False)])
def test_frames_on_every_second_slice_are_told(
    drawn_on: list[int], told: bool, ct: tuple[Volume, list[Path]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They may be those of a segmentation with thicker slices."""
    sparse = np.zeros_like(LIVER)
    sparse[drawn_on] = LIVER[drawn_on]
    path = segmentation(tmp_path / "seg.dcm", ct[1], sparse[..., None].astype(np.uint8), labels=["liver"])
    assert np.array_equal(mask(read_labels(path, ct[0]), "liver"), sparse)
    assert ("all its frames lie 2 slices of the image apart or more; the slices between them stay empty" in caplog.text) == told
    assert bool(caplog.text) == told


@pytest.mark.parametrize("placed", ["turned", "shifted by whole voxels"])
def test_frames_elsewhere_are_placed_by_their_geometry(placed: str, ct: tuple[Volume, list[Path]], tmp_path: Path) -> None:
    """Frames stored upside down, and frames that are a cut-out of the image, are laid where they belong."""
    dataset = dcmread(segmentation(tmp_path / "seg.dcm", ct[1], LIVER[..., None].astype(np.uint8), labels=["liver"]))
    pixels = dataset.pixel_array
    groups = dataset.PerFrameFunctionalGroupsSequence
    if placed == "turned":
        dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient = [1, 0, 0, 0, -1, 0]
        for group in groups:
            group.PlanePositionSequence[0].ImagePositionPatient[1] += 0.75 * 39
        pixels = pixels[:, ::-1]
    else:
        for group in groups:
            group.PlanePositionSequence[0].ImagePositionPatient[0] += 0.5 * 5
            group.PlanePositionSequence[0].ImagePositionPatient[1] += 0.75 * 3
        pixels = pixels[:, 3:33, 5:45]
        dataset.Rows, dataset.Columns = 30, 40
    dataset.PixelData = np.packbits(pixels.astype(bool).ravel(), bitorder="little").tobytes()
    labels = resample_labels(read_labels(save(dataset, tmp_path / "placed.dcm"), ct[0]), ct[0].geometry)
    assert np.array_equal(mask(labels, "liver"), LIVER)


def test_a_segmentation_has_a_grid_of_its_own(ct: tuple[Volume, list[Path]], tmp_path: Path) -> None:
    labels = read_labels(segmentation(tmp_path / "seg.dcm", ct[1], BOTH.astype(np.uint8)))
    assert labels.geometry.shape[1:] == CT.shape[1:]
    on_image = resample_labels(labels, ct[0].geometry)
    assert np.array_equal(mask(on_image, "liver"), LIVER)
    assert np.array_equal(mask(on_image, "tumour"), TUMOUR)


def test_labels_of_a_picture_without_a_place(tmp_path: Path) -> None:
    image = picture(tmp_path / "dx.dcm", (CT[0] + 1100).astype(np.uint16), "DX")
    folder = series(tmp_path / "ct", CT[:1])
    masks = LIVER[1:2, ..., None].astype(np.uint8)
    dataset = dcmread(segmentation(tmp_path / "seg.dcm", sorted(folder.iterdir()), masks, labels=["liver"]))
    del dataset.FrameOfReferenceUID
    for group in (*dataset.SharedFunctionalGroupsSequence, *dataset.PerFrameFunctionalGroupsSequence):
        for keyword in ("PlanePositionSequence", "PlaneOrientationSequence"):
            if keyword in group:
                del group[keyword]
    labels = read_labels(save(dataset, tmp_path / "picture_seg.dcm"), read_volume(image))
    assert np.array_equal(mask(labels, "liver")[0], LIVER[1])
    assert read_labels(tmp_path / "picture_seg.dcm").geometry.dimension == 2


def spoiled(kind: str, dataset: Dataset) -> None:
    if kind == "another frame of reference":
        dataset.FrameOfReferenceUID = SERIES
    elif kind == "no segments":
        del dataset.SegmentSequence
    elif kind == "no numbers":
        for group in (*dataset.SharedFunctionalGroupsSequence, *dataset.PerFrameFunctionalGroupsSequence):
            group.pop("SegmentIdentificationSequence", None)
    elif kind == "few pixels":
        dataset.PixelData = dataset.PixelData[:40]
    elif kind == "claims":
        dataset.Rows = dataset.Columns = 60000
    elif kind == "whole slide":
        dataset.TotalPixelMatrixRows = dataset.TotalPixelMatrixColumns = 40
    elif kind == "frames":
        dataset.NumberOfFrames = 3
    elif kind == "uneven":
        for number, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
            group.PlanePositionSequence[0].ImagePositionPatient[2] += 0.3 * number**2
    else:
        raise AssertionError(kind)


SPOILED = {
    "another frame of reference": "another frame of reference than the image",
    "no segments": "SegmentSequence is not what",
    "no numbers": "SegmentIdentificationSequence is not what",
    "few pixels": "damaged or truncated",
    "claims": "too few for the 5 frames",
    "whole slide": "whole-slide image",
    "frames": "PerFrameFunctionalGroupsSequence is not what",
    "uneven": "not evenly spaced",
}


@pytest.mark.parametrize("kind", SPOILED)
def test_a_doubtful_segmentation_is_refused(kind: str, ct: tuple[Volume, list[Path]], tmp_path: Path) -> None:
    dataset = dcmread(segmentation(tmp_path / "seg.dcm", ct[1], LIVER[..., None].astype(np.uint8), labels=["liver"]))
    spoiled(kind, dataset)
    with pytest.raises(MedProtectError, match=SPOILED[kind]) as error:
        read_labels(save(dataset, tmp_path / "spoiled.dcm"), ct[0])
    assert "\n" not in str(error.value)


def ring(radius: float, k: float, centre: tuple[float, float] = (1.1, -4.9), points: int = 720) -> np.ndarray:
    """A circle (points, 3) in LPS mm on the k-th slice."""
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return np.stack([centre[0] + radius * np.cos(angle), centre[1] + radius * np.sin(angle), np.full(points, 30 + 2 * k)], axis=1)


def disc(geometry: Geometry, radius: float, centre: tuple[float, float] = (1.1, -4.9)) -> np.ndarray:
    """Bool (j, i) of the voxel centres inside a circle, by the formula of the circle."""
    x = geometry.origin[0] + geometry.spacing[0] * np.arange(geometry.size[0])
    y = geometry.origin[1] + geometry.spacing[1] * np.arange(geometry.size[1])[:, None]
    return (x - centre[0]) ** 2 + (y - centre[1]) ** 2 <= radius**2


def drawn(path: Path, structures: dict[str, Sequence[np.ndarray]], image: Volume) -> LabelMap:
    return read_labels(structure_set(path, structures), image)


def test_contours_are_filled_where_they_lie(ct: tuple[Volume, list[Path]], tmp_path: Path) -> None:
    image = ct[0]
    labels = drawn(tmp_path / "rt.dcm", {"liver": [ring(9.3, 2), ring(7.3, 3)], "lung": [ring(5.3, 3)]}, image)
    assert [(s.name, s.value, s.layer) for s in labels.segments] == [("liver", 1, 0), ("lung", 2, 1)]
    found = mask(labels, "liver")
    assert np.array_equal(found[2], disc(image.geometry, 9.3))
    assert np.array_equal(found[3], disc(image.geometry, 7.3))
    assert not found[[0, 1, 4, 5, 6, 7]].any()
    assert np.array_equal(mask(labels, "lung")[3], disc(image.geometry, 5.3))


def test_a_hole_is_a_contour_in_a_contour_or_a_keyhole(ct: tuple[Volume, list[Path]], tmp_path: Path) -> None:
    outer, inner = ring(9.3, 2), ring(4.3, 2)
    keyhole = np.concatenate([outer, outer[:1], inner[::-1], inner[-1:]])
    expected = disc(ct[0].geometry, 9.3) & ~disc(ct[0].geometry, 4.3)
    labels = drawn(
        tmp_path / "rt.dcm",
        {"two": [outer, inner], "keyhole": [keyhole], "island": [outer, inner, ring(2.1, 2)]},
        ct[0],
    )
    assert np.array_equal(mask(labels, "two")[2], expected)
    assert np.count_nonzero(mask(labels, "keyhole")[2] != expected) <= 12  # voxels on the channel itself
    assert np.array_equal(mask(labels, "island")[2], expected | disc(ct[0].geometry, 2.1))


def test_a_contour_counts_for_the_nearest_slice(ct: tuple[Volume, list[Path]], tmp_path: Path) -> None:
    labels = drawn(tmp_path / "rt.dcm", {"a": [ring(9.3, 2.4)], "b": [ring(9.3, 2.6)], "c": [ring(9.3, 2.3), ring(4.3, 1.8)]}, ct[0])
    assert [np.flatnonzero(mask(labels, name).any(axis=(1, 2))).tolist() for name in "abc"] == [[2], [3], [2]]
    assert np.array_equal(mask(labels, "c")[2], disc(ct[0].geometry, 9.3))  # two planes on one slice are joined, not holes


WRITTEN = {
    "the same": lambda points: points,
    "from another point on": lambda points: np.roll(points, 100, axis=0),
    "the other way round": lambda points: points[::-1],
    "its first point repeated": lambda points: np.concatenate([points, points[:1]]),
    "all of this": lambda points: np.concatenate([points[300::-1], points[:299:-1]]),
}


@pytest.mark.parametrize("written", WRITTEN)
def test_the_same_contour_twice_counts_once(written: str, ct: tuple[Volume, list[Path]], tmp_path: Path) -> None:
    once = ring(9.3, 2)
    again = WRITTEN[written](once)
    labels = drawn(tmp_path / "rt.dcm", {"a": [once, again], "b": [again, once], "c": [once, ring(4.3, 2), again]}, ct[0])
    full = disc(ct[0].geometry, 9.3)
    assert np.array_equal(mask(labels, "a")[2], full)
    assert np.array_equal(mask(labels, "b")[2], full)
    assert np.array_equal(mask(labels, "c")[2], full & ~disc(ct[0].geometry, 4.3))


@pytest.mark.parametrize("height", [3, 3.005, 2.995, 2.505])
@pytest.mark.parametrize("apart", [0.00005, -0.00005])
def test_a_hole_lies_in_the_plane_of_its_contour(height: float, apart: float, ct: tuple[Volume, list[Path]], tmp_path: Path) -> None:
    """Heights that differ by a rounding are one plane, wherever they lie."""
    labels = drawn(tmp_path / "rt.dcm", {"a": [ring(9.3, height), ring(4.3, height + apart)]}, ct[0])
    (k,) = np.flatnonzero(mask(labels, "a").any(axis=(1, 2)))
    assert np.array_equal(mask(labels, "a")[k], disc(ct[0].geometry, 9.3) & ~disc(ct[0].geometry, 4.3))


def test_points_and_empty_structures_label_nothing(ct: tuple[Volume, list[Path]], tmp_path: Path) -> None:
    def edit(dataset: Dataset, number: int) -> None:
        dataset.ROIContourSequence[1].ContourSequence = [contour(ring(9.3, 2)[:1], "POINT"), contour(ring(9.3, 2), "OPEN_PLANAR")]
        del dataset.ROIContourSequence[2].ContourSequence

    path = structure_set(tmp_path / "rt.dcm", {"liver": [ring(9.3, 2)], "isocentre": [], "empty": []}, edit=edit)
    labels = read_labels(path, ct[0])
    assert [s.name for s in labels.segments] == ["liver", "isocentre", "empty"]
    assert not mask(labels, "isocentre").any()
    assert not mask(labels, "empty").any()


def test_structures_with_unusable_numbers_are_numbered_by_their_order(ct: tuple[Volume, list[Path]], tmp_path: Path) -> None:
    def edit(dataset: Dataset, number: int) -> None:
        for n in (0, 1):
            dataset.StructureSetROISequence[n].ROINumber = dataset.ROIContourSequence[n].ReferencedROINumber = n

    labels = read_labels(structure_set(tmp_path / "rt.dcm", {"a": [ring(9.3, 2)], "b": [ring(4.3, 3)]}, edit=edit), ct[0])
    assert [(s.name, s.value) for s in labels.segments] == [("a", 1), ("b", 2)]
    assert np.array_equal(mask(labels, "b")[3], disc(ct[0].geometry, 4.3))


def elsewhere(dataset: Dataset, number: int) -> None:
    for region in dataset.StructureSetROISequence:
        region.ReferencedFrameOfReferenceUID = SERIES


def not_numbers(dataset: Dataset, number: int) -> None:
    dataset.ROIContourSequence[0].ContourSequence[0].NumberOfContourPoints = 7


@pytest.mark.parametrize(
    ("points", "edit", "reason"),
    [
        (ring(9.3, 2), elsewhere, "another frame of reference"),
        (ring(9.3, 2), not_numbers, "ContourData is not what"),
        (ring(9.3, 200), unchanged, "elsewhere in space"),
        (ring(9.3, 2)[:, [0, 2, 1]] * [1, 1, 3], unchanged, "not parallel to the slices"),
    ],
)
def test_doubtful_contours_are_refused(points: np.ndarray, edit: Edit, reason: str, ct: tuple[Volume, list[Path]], tmp_path: Path) -> None:
    path = structure_set(tmp_path / "rt.dcm", {"liver": [points]}, edit=edit)
    with pytest.raises(MedProtectError, match=reason):
        read_labels(path, ct[0])


def test_contours_need_their_image(ct: tuple[Volume, list[Path]], tmp_path: Path) -> None:
    path = structure_set(tmp_path / "rt.dcm", {"liver": [ring(9.3, 2)]})
    with pytest.raises(MedProtectError, match="Give the image that they belong to"):
        read_labels(path)


def test_contours_on_an_image_of_another_format(ct: tuple[Volume, list[Path]], tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(CT)
    image.SetSpacing((0.5, 0.75, 2.0))
    image.SetOrigin((-10.0, -20.0, 30.0))
    sitk.WriteImage(image, tmp_path / "ct.nrrd")
    labels = drawn(tmp_path / "rt.dcm", {"liver": [ring(9.3, 2)]}, read_volume(tmp_path / "ct.nrrd"))
    assert np.array_equal(mask(labels, "liver")[2], disc(ct[0].geometry, 9.3))


def test_the_only_label_object_of_a_folder_is_found(ct: tuple[Volume, list[Path]], tmp_path: Path) -> None:
    structure_set(tmp_path / "rt" / "rt.dcm", {"liver": [ring(9.3, 2)]})
    assert mask(read_labels(tmp_path / "rt", ct[0]), "liver").any()
    structure_set(tmp_path / "rt" / "second.dcm", {"liver": [ring(9.3, 2)]})
    with pytest.raises(MedProtectError, match="2 segmentations or structure sets"):
        read_labels(tmp_path / "rt", ct[0])


def test_a_series_of_numbers_is_a_label_map(ct: tuple[Volume, list[Path]], tmp_path: Path) -> None:
    folder = series(tmp_path / "labels", np.where(TUMOUR, 2, LIVER).astype(np.uint8), "MR")
    labels = read_labels(folder, ct[0])
    assert [s.name for s in labels.segments] == ["1", "2"]
    assert labels.geometry.same_grid(ct[0].geometry)
    assert ct[0].source.frame_of_reference == FRAME_OF_REFERENCE


SEGMENTATIONS = Path("dicom_seg_samples") / "dcmqi"


@pytest.mark.parametrize(
    ("name", "image", "known"),
    [
        ("liver.dcm", "ct-3slice", {"1": "liver_seg.nrrd"}),
        (
            "partial_overlaps.dcm",
            "ct-3slice",
            {str(n): f"partial_overlaps-{n}.nrrd" for n in (1, 2, 3)},
        ),
        ("sparse-labelmap-ppv5.dcm", "24x38x3/image", {"1": "sparse_labelmap_ppv5_seg.nrrd"}),
        ("sparse-labelmap-noppv.dcm", "24x38x3/multiframe/mf.dcm", {"1": "sparse_labelmap_noppv_seg.nrrd"}),
    ],
)
def test_dcmqi_finds_the_same_voxels(name: str, image: str, known: dict[str, str], shared_data: Path) -> None:
    folder = shared_data / SEGMENTATIONS
    labels = read_labels(folder / name, read_volume(folder / image))
    for number, file in known.items():
        theirs = sitk.GetArrayFromImage(sitk.ReadImage(folder / file)) == int(number)
        (segment,) = labels.select([number]).segments
        assert np.array_equal(labels.layers[segment.layer] == segment.value, theirs)


@pytest.mark.parametrize("modality", ["CT", "MR_T1"])
def test_real_contours_enclose_their_area_and_their_tumour(modality: str, shared_data: Path) -> None:
    """The structure set names instances that do not exist: its contours can only be placed by coordinates."""
    folder = shared_data / "sts_sarcoma" / "dicom" / "STS_001" / modality
    image = read_volume(folder / "image")
    labels = read_labels(folder / "mask", image)
    contours = [c for region in dcmread(folder / "mask" / "RS.dcm").ROIContourSequence for c in region.ContourSequence]
    area = 0.0
    for one in contours:
        x, y, _ = np.reshape(one.ContourData, (-1, 3)).astype(float).T
        area += abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
    voxel = image.geometry.spacing[0] * image.geometry.spacing[1]
    assert np.count_nonzero(labels.layers[0]) * voxel == pytest.approx(area, rel=0.02)
