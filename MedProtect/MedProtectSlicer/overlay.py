"""The preview in the scene: a few nodes of its own and the slice views' layers, all of it undone on ``close``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

from MedProtectSlicer.colours import Look, encode, paint
from MedProtectSlicer.finish import shown
from MedProtectSlicer.nodes import ijkToRAS

if TYPE_CHECKING:
    from MedProtectLib.preview import SlabPreview

ATTRIBUTE = "MedProtect.Preview"


@dataclass(frozen=True)
class _Layers:
    """What a slice view shows, without the preview, in the layers that the preview uses."""

    foreground: str | None
    foregroundOpacity: float
    label: str | None
    labelOpacity: float


class PreviewOverlay:
    """The coloured perturbation of a slab in the label layer of every slice view, and the protected slab in the foreground.

    Only the colour table changes when components are hidden or get another opacity.
    """

    def __init__(self) -> None:
        self._nodes: dict[str, Any] = {}
        self._before: dict[str, _Layers] = {}
        self._looks: dict[str, Look] = {}
        self._after = False

    @property
    def active(self) -> bool:
        """Whether nodes of the preview are in the scene."""
        return bool(self._nodes)

    def show(self, volumeNode: Any, slab: SlabPreview, looks: Mapping[str, Look], after: bool) -> None:
        """Show a slab of a volume, in place of an earlier one."""
        self._after = after
        self._looks = {name: looks.get(name, Look()) for name in slab.components or ()}
        protected = shown(slab.protected, slicer.util.arrayFromVolume(volumeNode).dtype)
        arrays = {"overlay": np.zeros(slab.original.geometry.shape, np.int16), "after": protected}
        if slab.components is not None:
            values = dict(slab.components)
            largest = max(float(np.abs(v).max()) for v in values.values())
            arrays["overlay"] = encode(values, largest or 1.0)
        if not self._nodes:
            self._create(volumeNode)
        paint(self._nodes["colours"], self._looks)
        matrix = ijkToRAS(volumeNode) @ _shift(slab.slices.start)
        for key, array in arrays.items():
            self._fill(self._nodes[key], np.ascontiguousarray(array), matrix, volumeNode)
        self._putIntoViews()

    def setLook(self, name: str, look: Look) -> None:
        """Hide a component, or draw it with another opacity."""
        if name in self._looks and self._looks[name] != look:
            self._looks[name] = look
            paint(self._nodes["colours"], self._looks)

    def setAfter(self, after: bool) -> None:
        """Show the image as it will be instead of as it is."""
        self._after = after
        if self.active:
            self._putIntoViews()

    def close(self) -> None:
        """Leave views and scene as they were, but for layers that the person has chosen since."""
        for composite in _composites():
            if composite.GetID() not in self._before:
                continue
            layers = self._remember(composite)
            present = {i for i in (layers.foreground, layers.label) if i and slicer.mrmlScene.GetNodeByID(i)}
            composite.SetForegroundVolumeID(layers.foreground if layers.foreground in present else None)
            composite.SetForegroundOpacity(layers.foregroundOpacity)
            composite.SetLabelVolumeID(layers.label if layers.label in present else None)
            composite.SetLabelOpacity(layers.labelOpacity)
        for node in reversed(self._nodes.values()):
            display = node.GetDisplayNode() if node.IsA("vtkMRMLDisplayableNode") else None
            for part in (node, display):
                if part is not None and part.GetScene() is not None:
                    slicer.mrmlScene.RemoveNode(part)
        self.forget()

    def forget(self) -> None:
        """The scene is being closed: nothing is left to undo."""
        self._nodes, self._before = {}, {}

    def _create(self, volumeNode: Any) -> None:
        table = _hidden("vtkMRMLColorTableNode", _("MedProtect preview colours"))
        paint(table, self._looks)
        overlay = _hidden("vtkMRMLLabelMapVolumeNode", _("MedProtect preview: change"))
        after = _hidden(volumeNode.GetClassName(), _("MedProtect preview: protected"))
        for node in (overlay, after):
            node.CreateDefaultDisplayNodes()
            _hide(node.GetDisplayNode())
        if volumeNode.GetDisplayNode():
            after.GetDisplayNode().CopyContent(volumeNode.GetDisplayNode())
            _hide(after.GetDisplayNode())
        overlay.GetDisplayNode().SetAndObserveColorNodeID(table.GetID())
        self._nodes = {"colours": table, "overlay": overlay, "after": after}

    def _fill(self, node: Any, array: np.ndarray, matrix: np.ndarray, volumeNode: Any) -> None:
        wasModified = node.StartModify()
        node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(matrix))
        node.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
        slicer.util.updateVolumeFromArray(node, array)
        node.EndModify(wasModified)

    def _putIntoViews(self) -> None:
        for composite in _composites():
            self._remember(composite)
            wasModified = composite.StartModify()
            composite.SetLabelVolumeID(self._nodes["overlay"].GetID())
            composite.SetLabelOpacity(1.0)
            composite.SetForegroundVolumeID(self._nodes["after"].GetID() if self._after else None)
            composite.SetForegroundOpacity(1.0 if self._after else 0.0)
            composite.EndModify(wasModified)

    def _remember(self, composite: Any) -> _Layers:
        """What a view showed before the preview, or what the person has put into it since."""
        now = _Layers(
            composite.GetForegroundVolumeID(), composite.GetForegroundOpacity(), composite.GetLabelVolumeID(), composite.GetLabelOpacity()
        )
        before = self._before.get(composite.GetID(), now)
        ours = (None, *(node.GetID() for node in self._nodes.values()))
        if now.foreground not in ours:
            before = replace(before, foreground=now.foreground, foregroundOpacity=now.foregroundOpacity)
        if now.label not in ours:
            before = replace(before, label=now.label, labelOpacity=now.labelOpacity)
        self._before[composite.GetID()] = before
        return before


def _composites() -> list[Any]:
    return list(slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"))


def _hidden(className: str, name: str) -> Any:
    node = slicer.mrmlScene.CreateNodeByClass(className)
    node.UnRegister(None)
    node.SetName(slicer.mrmlScene.GenerateUniqueName(name))
    _hide(node)
    return slicer.mrmlScene.AddNode(node)


def _hide(node: Any) -> None:
    node.SetAttribute(ATTRIBUTE, "1")
    node.SetHideFromEditors(True)
    node.SetSaveWithScene(False)
    node.SetUndoEnabled(False)


def _shift(k: int) -> np.ndarray:
    matrix = np.eye(4)
    matrix[2, 3] = k
    return matrix


def sliceIn(volumeNode: Any, sliceNode: Any) -> int | None:
    """The slice k of a volume that a slice view cuts in its middle; None if it cuts none."""
    toVolume = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(None, volumeNode.GetParentTransformNode(), toVolume)
    sliceToRAS = slicer.util.arrayFromVTKMatrix(sliceNode.GetSliceToRAS())
    point = toVolume.TransformPoint(sliceToRAS[:3, 3])
    k = int(np.rint((np.linalg.inv(ijkToRAS(volumeNode)) @ [*point, 1.0])[2]))
    return k if 0 <= k < volumeNode.GetImageData().GetDimensions()[2] else None


def viewAlong(volumeNode: Any) -> Any:
    """The slice view of the layout that lies most nearly in the volume's own slices; one that is not shown where none is, None if
    there is no view.
    """
    axis = _acrossSlices(volumeNode)
    views = list(slicer.util.getNodesByClass("vtkMRMLSliceNode"))

    def fitness(view: Any) -> tuple[bool, float]:
        return view.IsMappedInLayout(), abs(float(slicer.util.arrayFromVTKMatrix(view.GetSliceToRAS())[:3, 2] @ axis))

    return max(views, key=fitness) if views else None


def _acrossSlices(volumeNode: Any) -> np.ndarray:
    """The direction in the world that is perpendicular to a volume's slices, in its middle, as its parent transform has turned it."""
    toWorld = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(volumeNode.GetParentTransformNode(), None, toWorld)
    matrix = ijkToRAS(volumeNode)
    middle = matrix @ [*(np.array(volumeNode.GetImageData().GetDimensions()) / 2), 1.0]
    origin, i, j = (np.array(toWorld.TransformPoint(point[:3])) for point in (middle, middle + matrix[:, 0], middle + matrix[:, 1]))
    across = np.cross(i - origin, j - origin)
    return across / np.linalg.norm(across)
