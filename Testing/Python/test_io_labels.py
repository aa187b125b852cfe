"""Label maps: values, names, layers, and how they come onto the image's grid."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import example, given, settings
from hypothesis import strategies as st

from made_images import metaimage, nifti, nrrd, patched, png, png_rows, slicer_segmentation
from MedProtectLib.errors import MedProtectError
from MedProtectLib.io import read_labels, resample_labels
from MedProtectLib.io.resample import on_grid_of
from MedProtectLib.volume import Geometry, LabelMap, Segment

LABELS = (np.arange(24) % 4).reshape(2, 3, 4)
LEVELS = np.array([[0, 1, 2, 3], [3, 0, 0, 1], [1, 1, 0, 2]])
SMALL = Geometry((4, 3, 2))


def packed_rows(array: np.ndarray, depth: int) -> bytes:
    """PNG rows of pixels with less than 8 bits."""
    bits = (array[..., None] >> np.arange(depth - 1, -1, -1) & 1).astype(np.uint8)
    return b"".join(b"\0" + np.packbits(row.ravel()).tobytes() for row in bits)


FILES = {
    "uint8 nrrd": (".nrrd", nrrd(LABELS.astype("u1")), LABELS),
    "big-endian int32 nrrd": (".nrrd", nrrd(LABELS.astype(">i4")), LABELS),
    "float nrrd": (".nrrd", nrrd(LABELS.astype("f4"), "gzip"), LABELS),
    "int64 mha": (".mha", metaimage(LABELS.astype("i8")), LABELS),
    "large values": (".mha", metaimage(LABELS.astype("u4") * 70000), LABELS * 70000),
    "mask 0/255": (".png", png(4, 3, 8, 0, png_rows((LEVELS > 1).astype("u1") * 255)), (LEVELS[None] > 1) * 255),
    "grey 16 bits": (".png", png(4, 3, 16, 0, png_rows(LEVELS.astype("u2") * 300)), LEVELS[None] * 300),
    "grey 1 bit": (".png", png(4, 3, 1, 0, packed_rows(LEVELS % 2, 1)), LEVELS[None] % 2),
    "grey 2 bits": (".png", png(4, 3, 2, 0, packed_rows(LEVELS, 2)), LEVELS[None]),
    "grey 4 bits": (".png", png(4, 3, 4, 0, packed_rows(LEVELS * 5, 4)), LEVELS[None] * 5),
    "palette 8 bits": (".png", png(4, 3, 8, 3, png_rows(LEVELS.astype("u1")), (b"PLTE", bytes(range(12)))), LEVELS[None]),
    "palette 2 bits": (".png", png(4, 3, 2, 3, packed_rows(LEVELS, 2), (b"PLTE", bytes(range(12)))), LEVELS[None]),
    "transparent colour": (".png", png(4, 3, 8, 0, png_rows(LEVELS.astype("u1")), (b"tRNS", b"\0\0")), LEVELS[None]),
    "equal colours": (".png", png(4, 3, 8, 2, png_rows(np.dstack([LEVELS.astype("u1")] * 3))), LEVELS[None]),
    "equal colours and alpha": (
        ".png",
        png(4, 3, 8, 6, png_rows(np.dstack([*[LEVELS.astype("u1")] * 3, LEVELS.astype("u1") + 9]))),
        LEVELS[None],
    ),
    "grey and alpha": (".png", png(4, 3, 8, 4, png_rows(np.dstack([LEVELS.astype("u1"), LEVELS.astype("u1") + 9]))), LEVELS[None]),
    "nothing labelled": (".nrrd", nrrd(np.zeros((2, 3, 4), "u1")), np.zeros((2, 3, 4))),
}


@pytest.mark.parametrize("case", FILES)
def test_values_become_segments(tmp_path, case):
    extension, content, expected = FILES[case]
    (tmp_path / f"in{extension}").write_bytes(content)
    labels = read_labels(tmp_path / f"in{extension}")
    (layer,) = labels.layers
    assert np.array_equal(layer, expected)
    assert layer.dtype == np.min_scalar_type(int(expected.max()))
    assert labels.segments == tuple(Segment(str(v), v) for v in np.unique(expected).astype(int).tolist() if v)
    assert labels.name == f"in{extension}"
    assert labels.geometry.shape == expected.shape


REFUSED = {
    "negative": (".nrrd", nrrd((LABELS - 2).astype("i2")), "negative values (down to -2)"),
    "fractions": (".nrrd", nrrd(LABELS.astype("f4") / 2), "not whole numbers"),
    "not finite": (".nrrd", nrrd(np.where(LABELS > 2, np.nan, LABELS).astype("f4")), "not a number"),
    "colours": (".png", png(4, 3, 8, 2, png_rows(np.dstack([LEVELS, LEVELS, LEVELS * 2]).astype("u1"))), "a colour image"),
    "channels": (
        ".mha",
        metaimage(np.arange(24, dtype="u1").reshape(1, 3, 4, 2), NDims="3", DimSize="4 3 1", ElementNumberOfChannels="2"),
        "colour",
    ),
    "4D": (".nrrd", nrrd(np.stack([LABELS, LABELS]).astype("u1")), "4D image"),
    "segment value": (".seg.nrrd", slicer_segmentation(LABELS.astype("u1"), [{"ID": "a", "LabelValue": "x"}]), "segment 'a'"),
    "segment of the background": (
        ".seg.nrrd",
        slicer_segmentation(LABELS.astype("u1"), [{"ID": "a", "LabelValue": 0}]),
        "segment 'a' has the label value 0; segments begin at 1",
    ),
    "segment layer": (".seg.nrrd", slicer_segmentation(LABELS.astype("u1"), [{"ID": "a", "LabelValue": 1, "Layer": 3}]), "in layer 3"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(tmp_path, case):
    extension, content, reason = REFUSED[case]
    path = tmp_path / f"in{extension}"
    path.write_bytes(content)
    with pytest.raises(MedProtectError) as caught:
        read_labels(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert reason in str(caught.value).removeprefix(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_labels_that_nibabel_scaled_are_refused_with_a_remedy(tmp_path: Path) -> None:
    """nibabel puts floats into an integer type with a scale, after which 1 is 0.99998."""
    image = nib.Nifti1Image(LABELS.T.astype(float), np.eye(4))
    image.set_data_dtype("i2")
    nib.save(image, tmp_path / "in.nii.gz")
    with pytest.raises(MedProtectError, match=r"not whole numbers\. Save labels as integers, without a scale in the header \(scl_slope"):
        read_labels(tmp_path / "in.nii.gz")


def test_slicer_segmentation_with_one_layer(tmp_path):
    segments = [
        {"ID": "Segment_2", "Name": "Zyste: links\\\\rechts", "LabelValue": 2, "Layer": 0, "Color": "1 0 0"},
        {"ID": "Segment_1", "Name": "tumour", "LabelValue": 1, "Layer": 0},
        {"ID": "Segment_9", "Name": "empty", "LabelValue": 9, "Layer": 0},
    ]
    (tmp_path / "in.seg.nrrd").write_bytes(slicer_segmentation(LABELS.astype("u1"), segments))
    labels = read_labels(tmp_path / "in.seg.nrrd")
    assert labels.segments == (Segment("Zyste: links\\rechts", 2), Segment("tumour", 1), Segment("empty", 9), Segment("3", 3))
    assert np.array_equal(labels.layers[0], LABELS)


OVERLAPPING = np.stack([LABELS, LABELS[:, ::-1] % 2], axis=-1).astype("u1")


@pytest.mark.parametrize(
    ("segments", "expected"),
    [
        (
            [{"ID": "a", "Name": "liver", "LabelValue": 2, "Layer": 0}, {"ID": "b", "Name": "tumour", "LabelValue": 1, "Layer": 1}],
            (Segment("liver", 2, 0), Segment("tumour", 1, 1), Segment("1", 1, 0), Segment("3", 3, 0)),
        ),
        ([{"ID": "a", "Name": "old"}, {"ID": "b"}], (Segment("old", 1, 0), Segment("b", 1, 1), Segment("2", 2, 0), Segment("3", 3, 0))),
    ],
)
def test_slicer_segmentation_with_layers(tmp_path, segments, expected):
    (tmp_path / "in.seg.nrrd").write_bytes(slicer_segmentation(OVERLAPPING, segments))
    labels = read_labels(tmp_path / "in.seg.nrrd")
    assert labels.segments == expected
    for n, layer in enumerate(labels.layers):
        assert np.array_equal(layer, OVERLAPPING[..., n])


def test_slicer_segmentation_written_with_simpleitk(tmp_path):
    image = sitk.GetImageFromArray(OVERLAPPING, isVector=True)
    image.SetSpacing((0.7, 0.8, 2.5))
    pairs = {"Segment0_ID": "Segment_1", "Segment0_Name": "liver", "Segment0_LabelValue": "2", "Segment0_Layer": "0"}
    pairs |= {"Segment1_ID": "Segment_2", "Segment1_Name": "tumour", "Segment1_LabelValue": "1", "Segment1_Layer": "1"}
    for key, value in pairs.items():
        image.SetMetaData(key, value)
    sitk.WriteImage(image, tmp_path / "in.seg.nrrd", useCompression=True)
    labels = read_labels(tmp_path / "in.seg.nrrd")
    assert labels.segments[:2] == (Segment("liver", 2, 0), Segment("tumour", 1, 1))
    assert np.array_equal(np.stack(labels.layers, axis=-1), OVERLAPPING)
    assert np.allclose(labels.geometry.spacing, (0.7, 0.8, 2.5))


def test_scaled_labels(tmp_path):
    nib.save(nifti(LABELS.astype("u1")), tmp_path / "in.nii")
    (tmp_path / "in.nii").write_bytes(patched(tmp_path / "in.nii", 112, "<ff", 2, 1))
    assert np.array_equal(read_labels(tmp_path / "in.nii").layers[0], LABELS.T * 2 + 1)


def test_names_in_a_nifti_extension(tmp_path):
    table = '<CaretExtension>\n<LabelTable>\n<Label Key="1" Red="0"><![CDATA[spleen]]></Label>\n'
    table += '<Label Key="3" Red="0">left &amp; right</Label>\n<Label Key="7"><![CDATA[absent]]></Label></LabelTable></CaretExtension>'
    image = nifti(LABELS.astype("u1"))
    image.header.extensions.append(nib.nifti1.Nifti1Extension(0, table.encode()))
    nib.save(image, tmp_path / "in.nii.gz")
    assert read_labels(tmp_path / "in.nii.gz").segments == (Segment("spleen", 1), Segment("2", 2), Segment("left & right", 3))


def label_map(array: np.ndarray, geometry: Geometry) -> LabelMap:
    return LabelMap.from_array(array, geometry, {1: "one"}, "labels.nrrd")


def at(point: np.ndarray, array: np.ndarray, geometry: Geometry) -> int:
    """The label of the voxel that is nearest to a point in space, 0 outside of the grid."""
    index = np.rint((np.linalg.inv(geometry.index_to_physical()) @ [*point, 1])[:3]).astype(int)
    inside = np.all((index >= 0) & (index < geometry.size))
    return int(array[tuple(index[::-1])]) if inside else 0


@given(
    seed=st.integers(0, 10**6),
    flips=st.tuples(*[st.sampled_from([-1, 1])] * 3),
    order=st.permutations(range(3)),
    turn=st.floats(-1, 1),
    spacing=st.tuples(*[st.floats(0.4, 3)] * 3),
    shift=st.tuples(*[st.floats(-1.5, 1.5)] * 3),
)
@example(seed=0, flips=(-1, -1, -1), order=[0, 2, 1], turn=1.2e-308, spacing=(1.0, 1.0, 0.4), shift=(0.0, 1.0, 0.0))
@settings(max_examples=60, deadline=None)
def test_resampling_looks_up_the_nearest_voxel_in_space(seed, flips, order, turn, spacing, shift):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, (4, 5, 6)).astype(np.uint8)
    rotated = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    direction = rotated @ np.eye(3)[:, list(order)] * flips
    middle = -direction @ (np.array([5, 4, 3]) / 2 * spacing) + shift
    source = Geometry((6, 5, 4), spacing, tuple(middle), tuple(direction.ravel()))
    target = Geometry((5, 5, 5), (1.1, 0.9, 1.3), (-2.2, -1.8, -2.6))
    out = resample_labels(label_map(labels, source), target)
    assert out.geometry == target
    to_source = np.linalg.inv(source.index_to_physical()) @ target.index_to_physical()
    for k, j, i in np.ndindex(target.shape):
        index = to_source @ [i, j, k, 1]
        if np.abs(index[:3] - np.floor(index[:3]) - 0.5).min() > 1e-6:  # not half way between two voxels
            assert out.layers[0][k, j, i] == at(target.index_to_physical()[:3] @ [i, j, k, 1], labels, source)


def test_flipped_storage_of_the_same_space():
    labels = np.random.default_rng(0).integers(0, 5, (3, 4, 5)).astype(np.uint8)
    image = Geometry((5, 4, 3), (2.0, 3.0, 4.0), (10.0, 20.0, 30.0))
    flipped = Geometry((5, 4, 3), (2.0, 3.0, 4.0), (10.0, 29.0, 30.0), (1, 0, 0, 0, -1, 0, 0, 0, 1))
    out = resample_labels(label_map(labels, flipped), image)
    assert np.array_equal(out.layers[0], labels[:, ::-1])
    assert out.segments == label_map(labels, flipped).segments


def test_every_layer_and_its_type(tmp_path):
    layers = (LABELS.astype(np.uint8), LABELS.astype(np.uint32) * 70000)
    out = resample_labels(LabelMap(layers, SMALL, (Segment("a", 1), Segment("b", 70000, 1))), Geometry((4, 3, 1), origin=(0.0, 0.0, 1.0)))
    assert [layer.dtype for layer in out.layers] == [np.uint8, np.uint32]
    assert all(np.array_equal(new, old[1:]) for new, old in zip(out.layers, layers, strict=True))


def test_same_grid_copies_nothing():
    labels = label_map(LABELS.astype(np.uint8), SMALL)
    nearly = Geometry((4, 3, 2), (1.0, 1.0, 1.0001))
    out = resample_labels(labels, nearly)
    assert out.layers[0] is labels.layers[0]
    assert out.geometry == nearly


def test_pictures_of_equal_size_are_one_grid():
    mask = Geometry((4, 3, 1), dimension=2)
    printed = Geometry((4, 3, 1), (0.26, 0.26, 1.0), dimension=2)
    labels = label_map(LABELS[:1].astype(np.uint8), mask)
    assert np.array_equal(resample_labels(labels, printed).layers[0], labels.layers[0])
    smaller = Geometry((3, 3, 1), (0.26, 0.26, 1.0), dimension=2)
    assert resample_labels(labels, smaller).layers[0].shape == (1, 3, 3)
    placed = Geometry((4, 3, 1), (0.26, 0.26, 1.0), (0.1, 0.0, 0.0), dimension=2)
    assert not np.array_equal(resample_labels(labels, placed).layers[0], labels.layers[0])


@pytest.mark.parametrize("unplaced", ["image", "labels", "both"])
@pytest.mark.parametrize(("depth", "dimension"), [(2, 3), (1, 3), (1, 2)])
def test_grids_of_equal_size_are_one_where_one_has_no_position(unplaced, depth, dimension):
    image = Geometry((4, 3, depth), (0.7, 0.7, 3.0), (-20.0, -20.0, 5.0), dimension=3, placed=unplaced == "labels")
    stack = Geometry((4, 3, depth), (0.1, 0.1, 1.0), dimension=dimension, placed=unplaced == "image")
    labels = label_map(LABELS[:depth].astype(np.uint8), stack)
    on_image, notices = on_grid_of(image, labels)
    assert np.array_equal(on_image.layers[0], labels.layers[0])
    assert on_image.geometry == image
    assert not notices


@pytest.mark.parametrize("unplaced", ["image", "labels"])
def test_labels_of_another_size_need_a_position_in_space(unplaced):
    image, mask = (Geometry(size, dimension=2, placed=unplaced != name) for name, size in (("image", (4, 3, 1)), ("labels", (3, 3, 1))))
    with pytest.raises(MedProtectError, match=r"^labels.nrrd: the labels have 3 x 3 pixels and the image has 4 x 3, .*size\.$"):
        resample_labels(label_map(LABELS[:1, :, :3].astype(np.uint8), mask), image)


@pytest.mark.parametrize("origin", [(100.0, 0.0, 0.0), (0.0, -3.0, 0.0), (0.0, 0.0, 2.0), (-4.0, 0.0, 0.0)])
def test_labels_elsewhere_in_space(origin):
    with pytest.raises(MedProtectError, match=r"^labels.nrrd: the labels lie elsewhere in space than the image \(.* mm; the image .* mm\)"):
        resample_labels(label_map(LABELS.astype(np.uint8), SMALL), Geometry((4, 3, 2), origin=origin))


def test_diagonal_grids_that_only_their_boxes_share():
    turned = Geometry((20, 1, 1), direction=(0.6, -0.8, 0, 0.8, 0.6, 0, 0, 0, 1))
    beside = Geometry((3, 3, 1), origin=(8.0, 1.0, 0.0))
    with pytest.raises(MedProtectError, match="elsewhere in space"):
        resample_labels(label_map(np.ones((1, 1, 20), np.uint8), turned), beside)
