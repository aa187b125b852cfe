"""Nodes of the scene as what the library works on. Everything here runs in the main thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

from MedProtectLib.errors import MedProtectError
from MedProtectLib.volume import Geometry, LabelMap, Segment, Volume
from MedProtectSlicer.dicom import seriesFiles

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
BINARY_LABELMAP = "Binary labelmap"
LARGEST_LABEL = 65535
NO_IMAGES = ("vtkMRMLLabelMapVolumeNode", "vtkMRMLDiffusionTensorVolumeNode", "vtkMRMLDiffusionWeightedVolumeNode")
LATTICE_TOLERANCE = 1e-3  # voxels
ORIGINAL = "MedProtect.Original"  # from what MedProtect has made to what it was made of


@dataclass(frozen=True)
class SceneCase:
    """One volume of the scene with its labels, taken over in the main thread so that any thread may work on it.

    ``volume`` and ``labels`` hold the voxels as the nodes have them, in the volume's own space (without its parent transform).
    ``file`` is the image file that the volume was read from and has not been changed since, None if there is none. ``series`` are
    the files of the DICOM series that it was loaded from, whether it has been changed since or not.
    """

    volume: Volume
    labels: LabelMap
    file: Path | None
    series: tuple[Path, ...] = ()

    def taken(self) -> SceneCase:
        """The same with voxels of its own: what is done to the node from now on does not reach it."""
        return replace(self, volume=self.volume.with_array(self.volume.array.copy()))


def caseOf(volumeNode: Any, labelsNode: Any, segmentIDs: Sequence[str] | None = None) -> SceneCase:
    """Take a volume and its labels over from the scene.

    :param volumeNode: scalar or vector volume.
    :param labelsNode: segmentation, or label map volume.
    :param segmentIDs: segments to protect, by id (label map volumes: by value); all when None.
    """
    volume = volumeOf(volumeNode)
    labels = labelsOf(labelsNode, segmentIDs, volumeNode, volume.geometry)
    return SceneCase(volume, labels, originalFile(volumeNode), seriesFiles(volumeNode))


def volumeOf(node: Any) -> Volume:
    """A volume node as the library's Volume; the array is a view of the node's voxels."""
    if node is None:
        raise MedProtectError(_("Choose the volume to protect."))
    if not isImage(node):
        raise MedProtectError(_("'{name}' is no image. Choose a scalar or a colour volume.").format(name=node.GetName()))
    if node.GetImageData() is None or node.GetImageData().GetNumberOfPoints() == 0:
        raise MedProtectError(_("The volume '{name}' has no voxels. Load it again.").format(name=node.GetName()))
    array = slicer.util.arrayFromVolume(node)
    return Volume(array, geometryOf(node, ijkToRAS(node)), node.GetName())


def isImage(node: Any) -> bool:
    """Whether a node is a scalar or a colour volume."""
    return node.IsA("vtkMRMLScalarVolumeNode") and not any(node.IsA(name) for name in NO_IMAGES)


def imageOf(segmentationNode: Any) -> Any:
    """The image that a segmentation belongs to: its reference, or the one that alone has its voxels; None if that is not clear.

    A segmentation from a file has no reference; what MedProtect has made is no candidate.
    """
    reference = segmentationNode.GetNodeReference(segmentationNode.GetReferenceImageGeometryReferenceRole())
    if reference is not None and isImage(reference):
        return reference
    images = [n for n in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") if isImage(n) and not n.GetNodeReferenceID(ORIGINAL)]
    found = [node for node in images if node.GetImageData() and not node.GetHideFromEditors() and _liesOn(node, segmentationNode)]
    return found[0] if len(found) == 1 else None


def _liesOn(volumeNode: Any, segmentationNode: Any) -> bool:
    """Whether the voxels of a segmentation's first layer that has any are voxels of a volume."""
    segmentation, toVolume = segmentationNode.GetSegmentation(), toVolumeSpace(segmentationNode, volumeNode)
    layers = [segmentation.GetNthSegment(n).GetRepresentation(BINARY_LABELMAP) for n in range(segmentation.GetNumberOfSegments())]
    layer = next((layer for layer in layers if layer is not None and not layer.IsEmpty()), None)
    if toVolume is None or layer is None:
        return False
    extent, shift = np.array(layer.GetExtent()), np.eye(4)
    size, shift[:3, 3] = extent[1::2] - extent[::2] + 1, extent[::2]
    grid = _rectangular(segmentationNode, size, RAS_TO_LPS @ toVolume @ _imageToWorld(layer) @ shift)
    own = _rectangular(volumeNode, volumeNode.GetImageData().GetDimensions(), RAS_TO_LPS @ ijkToRAS(volumeNode))
    first = None if grid is None or own is None else _firstVoxel(grid, own)
    return first is not None and own is not None and bool((first >= 0).all() and (first + size <= own.size).all())


def ijkToRAS(node: Any) -> np.ndarray:
    """The 4x4 matrix from the node's voxel indices to its own space."""
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def geometryOf(node: Any, toRAS: np.ndarray) -> Geometry:
    """The grid of a volume node whose voxel indices a matrix takes to RAS. A single slice counts as a picture (2D)."""
    from MedProtectLib.io.grid import geometry_from_matrix

    size = node.GetImageData().GetDimensions()
    return geometry_from_matrix(Path(node.GetName() or "volume"), size, RAS_TO_LPS @ toRAS, dimension=2 if size[2] == 1 else 3)


def originalFile(node: Any) -> Path | None:
    """The file that a volume node was read from, if it is one file that the library reads and the node was not changed since."""
    from MedProtectLib.io.names import extension_of
    from MedProtectLib.io.volumes import READERS

    storage = node.GetStorageNode()
    if storage is None or not storage.GetFileName() or storage.GetNumberOfFileNames() > 1 or node.GetModifiedSinceRead():
        return None
    path = Path(storage.GetFullNameFromFileName())
    return path if path.is_file() and extension_of(path) in READERS else None


def segmentsOf(node: Any) -> list[tuple[str, str]]:
    """(id, name) of every segment of a segmentation, or of every label of a label map volume."""
    if node is None:
        return []
    if node.IsA("vtkMRMLSegmentationNode"):
        segmentation = node.GetSegmentation()
        return [(i, segmentation.GetSegment(i).GetName()) for i in segmentation.GetSegmentIDs()]
    if node.GetImageData() is None:
        return []
    return [(str(segment.value), segment.name) for segment in _labelsIn(node)]


def namesOf(node: Any, segmentIDs: Sequence[str]) -> list[str]:
    """The names of some segments of a node; none where they are all that it has."""
    known = segmentsOf(node)
    if known and not segmentIDs:
        raise _noneChosen()
    return [name for i, name in known if i in segmentIDs] if len(segmentIDs) < len(known) else []


def _noneChosen() -> MedProtectError:
    return MedProtectError(_("No segment is chosen. Check at least one in the list of segments."))


def labelsOf(node: Any, segmentIDs: Sequence[str] | None, volumeNode: Any, geometry: Geometry) -> LabelMap:
    """The chosen segments of a node as a LabelMap in the own space of a volume, which lies on ``geometry``."""
    if node is None:
        raise MedProtectError(_("Choose the segmentation that says what to protect."))
    known = segmentsOf(node)
    if not known:
        raise MedProtectError(
            _("'{name}' has no segments: there is nothing to protect. Draw or import one first.").format(name=node.GetName())
        )
    wanted = [i for i, _name in known] if segmentIDs is None else list(segmentIDs)
    if not wanted:
        raise _noneChosen()
    missing = [i for i in wanted if i not in dict(known)]
    if missing:
        raise MedProtectError(_("'{name}' has no segment '{segment}' any more.").format(name=node.GetName(), segment=missing[0]))
    if node.IsA("vtkMRMLSegmentationNode"):
        labels = _sharedLayers(node, wanted, volumeNode) if geometry.dimension == 3 else None
        labels = labels or _onVolume(node, wanted, volumeNode, geometry)
    else:
        labels = _labelMapVolume(node, volumeNode)
        labels = replace(labels, segments=tuple(s for s in labels.segments if str(s.value) in wanted))
    if not any(np.any(labels.layers[s.layer] == s.value) for s in labels.segments):
        raise MedProtectError(_("The chosen segments of '{name}' are empty: there is nothing to protect.").format(name=node.GetName()))
    return _onSameLattice(labels, geometry)


def _onSameLattice(labels: LabelMap, geometry: Geometry) -> LabelMap:
    """Labels whose voxels are voxels of the volume, on the volume's whole grid; others as they are."""
    first = _firstVoxel(labels.geometry, geometry)
    if first is None or labels.geometry.size == geometry.size:
        return labels
    source, target = [], []
    for begin, size, whole in zip(first[::-1], labels.geometry.shape, geometry.shape, strict=True):
        target.append(slice(max(0, begin), max(0, min(whole, begin + size))))
        source.append(slice(target[-1].start - begin, max(target[-1].start, target[-1].stop) - begin))
    if any(s.stop <= s.start for s in target):
        raise MedProtectError(_("The segments of '{name}' lie outside of the volume.").format(name=labels.name))
    layers = []
    for layer in labels.layers:
        laid = np.zeros(geometry.shape, layer.dtype)
        laid[tuple(target)] = layer[tuple(source)]
        layers.append(laid)
    return replace(labels, layers=tuple(layers), geometry=geometry)


def _firstVoxel(grid: Geometry, lattice: Geometry) -> np.ndarray | None:
    """Which voxel of a lattice the first of a grid is; None where the grid's voxels are not the lattice's."""
    toLattice = np.linalg.inv(lattice.index_to_physical()) @ grid.index_to_physical()
    first = np.rint(toLattice[:3, 3]).astype(int)
    corners = toLattice[:3, :3] @ np.array(grid.size) + toLattice[:3, 3]
    apart = np.abs([toLattice[:3, 3] - first, corners - first - grid.size]).max()
    return None if apart > LATTICE_TOLERANCE else first


def toVolumeSpace(node: Any, volumeNode: Any) -> np.ndarray | None:
    """The 4x4 matrix from a node's own space to a volume's own space through their parent transforms; None if it is not linear."""
    transforms = (node.GetParentTransformNode(), volumeNode.GetParentTransformNode())
    if any(t is not None and not t.IsTransformToWorldLinear() for t in transforms):
        return None
    matrix = vtk.vtkMatrix4x4()
    slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes(*transforms, matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def _labelMapVolume(node: Any, volumeNode: Any) -> LabelMap:
    """A label map volume in the volume's space."""
    toVolume = toVolumeSpace(node, volumeNode)
    if toVolume is None:
        raise MedProtectError(
            _("'{name}' is under a transform that is not linear. Harden the transform first.").format(name=node.GetName())
        )
    segments, geometry = _labelsIn(node), geometryOf(node, toVolume @ ijkToRAS(node))
    return LabelMap((slicer.util.arrayFromVolume(node).copy(),), geometry, segments, node.GetName())


def _labelsIn(node: Any) -> tuple[Segment, ...]:
    """The labels that occur in a label map volume, with the names of its colours."""
    image, display = node.GetImageData(), node.GetDisplayNode()
    colors = display.GetColorNode() if display else None
    if image.GetMTime() not in _valuesAt:
        _valuesAt.clear()
        _valuesAt[image.GetMTime()] = _checkedValuesIn(node)
    return tuple(Segment((colors.GetColorName(v) if colors else "") or str(v), v) for v in _valuesAt[image.GetMTime()])


_valuesAt: dict[int, list[int]] = {}  # of the label map asked for last, by its time of change: the panel asks again and again


def _checkedValuesIn(node: Any) -> list[int]:
    array = slicer.util.arrayFromVolume(node)
    if array.ndim != 3 or array.dtype.kind not in "iu" or array.min() < 0 or array.max() > LARGEST_LABEL:
        raise MedProtectError(_("'{name}' is no label map: labels are whole numbers from 0 to 65535.").format(name=node.GetName()))
    return _valuesIn(array)


def _valuesIn(array: np.ndarray) -> list[int]:
    """The labels that occur, in increasing order; much faster than sorting the voxels."""
    present = np.zeros(LARGEST_LABEL + 1, bool)
    for k in array:
        present[k] = True
    return [int(v) for v in np.flatnonzero(present) if v]


def _sharedLayers(node: Any, segmentIDs: Sequence[str], volumeNode: Any) -> LabelMap | None:
    """The chosen segments on the segmentation's own grid, one layer for segments that share one, without copying more than needed.

    None where that grid cannot be placed in the volume's space: surfaces only, several grids, or a transform that bends or shears.
    """
    segmentation = node.GetSegmentation()
    toVolume = toVolumeSpace(node, volumeNode)
    if toVolume is None or not segmentation.ContainsRepresentation(BINARY_LABELMAP):
        return None
    images = {i: segmentation.GetSegment(i).GetRepresentation(BINARY_LABELMAP) for i in segmentIDs}
    layers = list({image.GetAddressAsString(""): image for image in images.values()}.values())
    matrices = [_imageToWorld(image) for image in layers]
    if any(not np.allclose(matrix, matrices[0], atol=1e-6) for matrix in matrices):
        return None
    extents = np.array([image.GetExtent() for image in layers])
    filled = extents[:, 1::2] >= extents[:, ::2]
    extents = extents[filled.all(axis=1)]
    if not len(extents):
        raise MedProtectError(_("The chosen segments of '{name}' are empty: there is nothing to protect.").format(name=node.GetName()))
    first, last = extents[:, ::2].min(axis=0), extents[:, 1::2].max(axis=0)
    shift = np.eye(4)
    shift[:3, 3] = first
    geometry = _rectangular(node, last - first + 1, RAS_TO_LPS @ toVolume @ matrices[0] @ shift)
    if geometry is None:
        return None
    arrays = tuple(_laidOut(image, first, geometry.shape) for image in layers)
    numbers = {image.GetAddressAsString(""): n for n, image in enumerate(layers)}
    segments = []
    for i, image in images.items():
        segment = segmentation.GetSegment(i)
        segments.append(Segment(segment.GetName(), segment.GetLabelValue(), numbers[image.GetAddressAsString("")]))
    return LabelMap(arrays, geometry, tuple(segments), node.GetName())


def _imageToWorld(image: Any) -> np.ndarray:
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def _rectangular(node: Any, size: Sequence[int], matrix: np.ndarray) -> Geometry | None:
    from MedProtectLib.io.grid import geometry_from_matrix

    try:
        return geometry_from_matrix(Path(node.GetName()), size, matrix)
    except MedProtectError:
        return None


def _laidOut(image: Any, first: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """The voxels of an oriented image (k, j, i) on a grid that begins at voxel ``first`` (i, j, k) and holds them."""
    from vtk.util.numpy_support import vtk_to_numpy

    extent = np.array(image.GetExtent())
    size = extent[1::2] - extent[::2] + 1
    if (size <= 0).any():
        return np.zeros(shape, np.uint8)
    voxels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(size[::-1])
    laid = np.zeros(shape, voxels.dtype)
    i, j, k = extent[::2] - first
    laid[k : k + size[2], j : j + size[1], i : i + size[0]] = voxels
    return laid


def _onVolume(node: Any, segmentIDs: Sequence[str], volumeNode: Any, geometry: Geometry) -> LabelMap:
    """The chosen segments resampled to the volume's grid by Slicer, one layer each."""
    segmentation = node.GetSegmentation()
    if not segmentation.ContainsRepresentation(BINARY_LABELMAP):
        segmentation = _converted(node, segmentIDs)
    grid = slicer.vtkOrientedImageData()
    grid.SetExtent(volumeNode.GetImageData().GetExtent())
    grid.SetImageToWorldMatrix(slicer.util.vtkMatrixFromArray(ijkToRAS(volumeNode)))
    toVolume = vtk.vtkGeneralTransform()
    parents = (node.GetParentTransformNode(), volumeNode.GetParentTransformNode())
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(*parents, toVolume)
    chosen = [segmentation.GetSegment(i) for i in segmentIDs]
    layers = tuple(_resampled(segment, grid, toVolume) for segment in chosen)
    segments = tuple(Segment(segment.GetName(), 1, n) for n, segment in enumerate(chosen))
    return LabelMap(layers, geometry, segments, node.GetName())


def _converted(node: Any, segmentIDs: Sequence[str]) -> Any:
    """Some segments with voxels, in a copy: whoever observes the node's own would take the conversion for an edit."""
    original, copy = node.GetSegmentation(), slicer.vtkSegmentation()
    copy.SetSourceRepresentationName(original.GetSourceRepresentationName())
    copy.CopyConversionParameters(original)
    for i in segmentIDs:
        copy.CopySegmentFromSegmentation(original, i)
    if not copy.CreateRepresentation(BINARY_LABELMAP):
        raise MedProtectError(_("The segments of '{name}' cannot be converted to voxels.").format(name=node.GetName()))
    return copy


def _resampled(segment: Any, grid: Any, transform: Any) -> np.ndarray:
    """A segment's voxels as 0 and 1 on another grid, which a transform leads to."""
    from vtk.util.numpy_support import vtk_to_numpy

    found = slicer.vtkOrientedImageData()
    image = segment.GetRepresentation(BINARY_LABELMAP)
    slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage(image, grid, found, False, False, transform)
    voxels = vtk_to_numpy(found.GetPointData().GetScalars()).reshape(found.GetDimensions()[::-1])
    return (voxels == segment.GetLabelValue()).astype(np.uint8)
