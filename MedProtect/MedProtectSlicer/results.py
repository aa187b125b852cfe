"""What protecting leaves in the scene: the protected volume, the perturbation, a table of statistics and a plot of PSNR per slice."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

from MedProtectSlicer.nodes import ORIGINAL, ijkToRAS
from MedProtectSlicer.task import Cancelled

VOXELS = "MedProtect.VoxelsSHA256"


@dataclass
class ProtectResult:
    """The nodes of one protected volume, and the statistics as the record has them."""

    volume: Any = None
    perturbation: Any = None
    table: Any = None
    sliceTable: Any = None
    plot: Any = None
    statistics: Mapping[str, Any] = field(default_factory=dict)
    unit: str = ""
    messages: Sequence[str] = ()


@dataclass(frozen=True)
class Finished:
    """A protected volume as it comes out of the library, ready for the scene.

    ``voxels`` have the type of the original node; ``change`` is protected minus original in the image's own units, float32 or an
    integer type; ``statistics`` are those of the record. ``unit`` names the image's own unit.
    """

    voxels: np.ndarray
    change: np.ndarray
    statistics: Mapping[str, Any]
    unit: str
    voxels_sha256: str
    messages: Sequence[str]


@dataclass(frozen=True)
class Place:
    """Where a volume lies, to be asked when its protection begins: its voxels in its own space, and its parent transform."""

    ijkToRAS: np.ndarray
    transformID: str | None


def placeOf(volumeNode: Any) -> Place:
    """Where a volume lies now."""
    return Place(ijkToRAS(volumeNode), volumeNode.GetTransformNodeID())


def addToScene(volumeNode: Any, place: Place, finished: Finished) -> Generator[None, None, ProtectResult]:
    """Make the nodes of a result, with a yield between the large ones, where the volume was when it was protected; all of them or none."""
    name = volumeNode.GetName()
    result = ProtectResult(statistics=finished.statistics, unit=finished.unit, messages=finished.messages)
    display = _displayLike(volumeNode)
    try:
        yield
        result.volume = _volumeLike(volumeNode, _("{name} protected").format(name=name), finished.voxels, display, place)
        result.volume.SetNodeReferenceID(ORIGINAL, volumeNode.GetID())
        result.volume.SetAttribute(VOXELS, finished.voxels_sha256)
        yield
    except Cancelled:
        for node in (result.volume, display):
            if node is not None and node.GetScene() is not None:
                slicer.mrmlScene.RemoveNode(node)
        raise
    display = _signedDisplay(volumeNode, finished.statistics["max_abs_change_units"])
    result.perturbation = _volumeLike(volumeNode, _("{name} perturbation").format(name=name), finished.change, display, place)
    result.perturbation.SetNodeReferenceID(ORIGINAL, volumeNode.GetID())
    result.table = _statisticsTable(_("{name} statistics").format(name=name), finished)
    result.sliceTable = _sliceTable(_("{name} PSNR per slice").format(name=name), finished.statistics["per_slice_psnr_db"])
    result.plot = _plot(name, result.sliceTable)
    for node in (result.table, result.sliceTable, result.plot):
        _putBeside(volumeNode, node)
    return result


def statisticRows(statistics: Mapping[str, Any], unit: str) -> list[tuple[str, str]]:
    """Label and value of the numbers that people look for first."""
    inWindow, _stored = statistics["max_abs_change"]
    low, high = statistics["window"]
    return [
        (_("PSNR, whole image"), _decibel(statistics["psnr_db"])),
        (_("PSNR, protected regions"), _decibel(statistics["psnr_roi_db"])),
        (_("PSNR, full stored range"), _decibel(statistics["psnr_full_range_db"])),
        (_("SSIM"), _("not available") if statistics["ssim"] is None else f"{statistics['ssim']:.5f}"),
        (_("Largest change"), f"{statistics['max_abs_change_units']:.4g} {unit} ({inWindow * 255:.3g}/255)"),
        (_("Changed voxels"), f"{statistics['changed_voxels']} ({statistics['changed_fraction']:.1%})"),
        (_("Changed outside the regions"), str(statistics["changed_outside_regions"])),
        (_("Mean shift in the regions"), f"{statistics['roi_mean_shift']:.3g} {unit}"),
        (_("Intensity window"), f"{low:g} … {high:g} {unit}"),
    ]


def auditTable(name: str, summary: Sequence[Mapping[str, Any]]) -> Any:
    """A table node with what an audit has found, one row for every method, network and way of training."""
    rows = [
        (
            line["method"],
            line["victim"],
            line["regime"],
            line["score_name"],
            _percent(line["score"]),
            _againstNoise(line["against_noise"]),
            _decibel(line["psnr_db"]),
        )
        for line in summary
    ]
    titles = (_("Data"), _("Network"), _("Training"), _("Score"), _("On clean images"), _("Against random noise"), _("PSNR"))
    return _textTable(name, titles, rows)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _againstNoise(difference: Sequence[float] | None) -> str:
    """Points by which the score differs from that of random noise, with half the width of its 95 % interval."""
    return "-" if difference is None else f"{100 * difference[0]:+.1f} ± {100 * difference[1]:.1f}"


def _decibel(value: float | None) -> str:
    return _("no change") if value is None else f"{value:.2f} dB"


def _volumeLike(volumeNode: Any, name: str, array: np.ndarray, display: Any, place: Place) -> Any:
    """A volume node of the same class at a place, beside the other in the subject hierarchy."""
    node = slicer.mrmlScene.AddNewNodeByClass(volumeNode.GetClassName(), slicer.mrmlScene.GenerateUniqueName(name))
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(place.ijkToRAS))
    node.SetAndObserveDisplayNodeID(display.GetID())
    slicer.util.updateVolumeFromArray(node, array)
    node.SetAndObserveTransformNodeID(place.transformID)
    _putBeside(volumeNode, node)
    return node


def _newDisplay(volumeNode: Any) -> Any:
    """A display node that does not search for a window by itself, which takes long in a large volume."""
    original = volumeNode.GetDisplayNode()
    colour = volumeNode.IsA("vtkMRMLVectorVolumeNode")
    plain = "vtkMRMLVectorVolumeDisplayNode" if colour else "vtkMRMLScalarVolumeDisplayNode"
    display = slicer.mrmlScene.CreateNodeByClass(original.GetClassName() if original else plain)
    display.UnRegister(None)
    display.SetAutoWindowLevel(False)
    return display


def _displayLike(volumeNode: Any) -> Any:
    """Shown as the original is, so that both can be compared."""
    display, original = _newDisplay(volumeNode), volumeNode.GetDisplayNode()
    if original is None:
        display.SetDefaultColorMap()
        display.SetAutoWindowLevel(True)
        return slicer.mrmlScene.AddNode(display)
    display.CopyContent(original)
    display.SetAutoWindowLevel(False)
    display.SetWindowLevel(original.GetWindow(), original.GetLevel())
    return slicer.mrmlScene.AddNode(display)


def _putBeside(volumeNode: Any, node: Any) -> None:
    """Give a node the same parent in the subject hierarchy as the volume has."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    original = 0 if hierarchy is None else hierarchy.GetItemByDataNode(volumeNode)
    if not original:
        return
    parent = hierarchy.GetItemParent(original)
    item = hierarchy.GetItemByDataNode(node) or hierarchy.CreateItem(parent, node)
    hierarchy.SetItemParent(item, parent)


def _signedDisplay(volumeNode: Any, largest: float) -> Any:
    """Blue for less, black for unchanged, orange for more; the largest change gets the full colour."""
    name = _("MedProtect signed change")
    table = slicer.mrmlScene.GetFirstNodeByName(name)
    if table is None:
        table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLColorTableNode", name)
        table.SetTypeToUser()
        table.SetNumberOfColors(256)
        for index, position in enumerate(np.linspace(-1, 1, 256)):
            red, green, blue = (1.0, 0.55, 0.1) if position > 0 else (0.2, 0.55, 1.0)
            size = abs(position)
            table.SetColor(index, f"{position:+.2f}", red * size, green * size, blue * size, 1.0)
    display = slicer.mrmlScene.AddNode(_newDisplay(volumeNode))
    display.SetWindowLevel(2 * largest or 1.0, 0.0)
    display.SetInterpolate(False)
    display.SetAndObserveColorNodeID(table.GetID())
    return display


def _statisticsTable(name: str, finished: Finished) -> Any:
    return _textTable(name, (_("Statistic"), _("Value")), statisticRows(finished.statistics, finished.unit))


def _textTable(name: str, titles: Sequence[str], rows: Sequence[Sequence[str]]) -> Any:
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", slicer.mrmlScene.GenerateUniqueName(name))
    for number, title in enumerate(titles):
        column = vtk.vtkStringArray()
        column.SetName(title)
        for row in rows:
            column.InsertNextValue(row[number])
        node.AddColumn(column)
    return node


def _sliceTable(name: str, perSlice: Sequence[float | None]) -> Any:
    """Slices that did not change have no PSNR and no row."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", slicer.mrmlScene.GenerateUniqueName(name))
    rows = np.array([(k, value) for k, value in enumerate(perSlice) if value is not None], float).reshape(-1, 2)
    slicer.util.updateTableFromArray(node, rows, [_("Slice"), _("PSNR (dB)")])
    return node


def _plot(name: str, table: Any) -> Any:
    series = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", slicer.mrmlScene.GenerateUniqueName(table.GetName()))
    series.SetAndObserveTableNodeID(table.GetID())
    series.SetXColumnName(_("Slice"))
    series.SetYColumnName(_("PSNR (dB)"))
    series.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
    series.SetColor(0.1, 0.45, 1.0)
    chart = slicer.mrmlScene.AddNewNodeByClass(
        "vtkMRMLPlotChartNode", slicer.mrmlScene.GenerateUniqueName(_("{name} PSNR plot").format(name=name))
    )
    chart.AddAndObservePlotSeriesNodeID(series.GetID())
    chart.SetTitle(_("{name}: PSNR per slice").format(name=name))
    chart.SetXAxisTitle(_("Slice"))
    chart.SetYAxisTitle(_("PSNR (dB)"))
    chart.SetLegendVisibility(False)
    return chart
