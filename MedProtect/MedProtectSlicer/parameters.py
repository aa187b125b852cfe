"""What the user has set, kept in a node so that a saved scene restores the module."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Union

import slicer
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper

from MedProtectLib.profile import SUFFIX
from MedProtectSlicer.formats import ExportFormat
from MedProtectSlicer.nodes import segmentsOf
from MedProtectSlicer.settings import ProtectSettings

Labels = Union[slicer.vtkMRMLSegmentationNode, slicer.vtkMRMLLabelMapVolumeNode, None]  # noqa: UP007 (the wrapper knows only Union)


class Strength(Enum):
    """How strong the perturbation may be."""

    BOUND = "bound"
    TARGET_PSNR = "psnr"

    def label(self) -> str:
        return {"BOUND": _("Strongest (full bound)"), "TARGET_PSNR": _("Fainter (at a target PSNR)")}[self.name]


class Window(Enum):
    """Which intensities a trainer's network is expected to see: the rule of the modality, the display's window, or a range."""

    RULE = None
    DISPLAY = "display"
    CT_ABDOMEN = (-135.0, 215.0)
    CT_BONE = (-100.0, 900.0)
    CT_BRAIN = (0.0, 100.0)
    CT_LUNG = (-1200.0, 200.0)
    CUSTOM = "custom"

    def label(self) -> str:
        return {
            "RULE": _("By the image's modality (recommended)"),
            "DISPLAY": _("As the volume is displayed"),
            "CT_ABDOMEN": _("CT abdomen (-135 to 215)"),
            "CT_BONE": _("CT bone (-100 to 900)"),
            "CT_BRAIN": _("CT brain (0 to 100)"),
            "CT_LUNG": _("CT lung (-1200 to 200)"),
            "CUSTOM": _("Custom range"),
        }[self.name]


class Modality(Enum):
    """Kind of image, which picks the window rule."""

    GUESS = None
    CT = "CT"
    MR = "MR"
    US = "US"
    XR = "XR"

    def label(self) -> str:
        return {"GUESS": _("Guess"), "CT": "CT", "MR": "MR", "US": _("Ultrasound"), "XR": _("X-ray")}[self.name]


class FitOn(Enum):
    """What a profile is fitted on."""

    SELECTED = "selected"
    SCENE = "scene"
    FOLDER = "folder"

    def label(self) -> str:
        return {
            "SELECTED": _("The volume and the checked segments above"),
            "SCENE": _("All volumes of the scene that have a segmentation, all segments"),
            "FOLDER": _("A folder of images"),
        }[self.name]


class FitDimension(Enum):
    """2D profiles work slice by slice and on pictures."""

    VOLUMES = 3
    SLICES = 2

    def label(self) -> str:
        return {"VOLUMES": _("Volumes (3D)"), "SLICES": _("Pictures, or slice by slice (2D)")}[self.name]


@parameterNodeWrapper
class MedProtectParameterNode:
    """The state of the module's panel. ``skippedSegments`` are the ids in ``skippedIn`` that are not to be protected: new segments are."""

    volume: slicer.vtkMRMLScalarVolumeNode
    labels: Labels
    skippedIn: Labels
    skippedSegments: list[str]
    method: str = "umed"
    profile: str = ""
    strength: Strength = Strength.BOUND
    bound255: Annotated[float, WithinRange(0.0, 32.0)] = 0.0
    targetPSNR: Annotated[float, WithinRange(20.0, 90.0)] = 50.0
    window: Window = Window.RULE
    windowLow: float = -135.0
    windowHigh: float = 215.0
    modality: Modality = Modality.GUESS
    seed: Annotated[int, WithinRange(-1, 2147483647)] = -1
    slabThickness: Annotated[int, WithinRange(1, 9)] = 1
    showFirst: bool = True
    showSecond: bool = True
    opacityFirst: Annotated[float, WithinRange(0.0, 1.0)] = 0.8
    opacitySecond: Annotated[float, WithinRange(0.0, 1.0)] = 0.8
    exportFormat: ExportFormat = ExportFormat.NRRD
    exportFolder: str = ""
    privateFolder: str = ""
    overwrite: bool = False
    fitOn: FitOn = FitOn.SELECTED
    fitFolder: str = ""
    fitDimension: FitDimension = FitDimension.VOLUMES
    fitSteps: Annotated[int, WithinRange(1, 100000)] = 600
    fitProfile: str = ""
    auditFolder: str = ""
    auditOutput: str = ""
    auditQuick: bool = True
    restoreFile: str = ""
    vaultFolder: str = ""
    keyFile: str = ""
    restoreOutput: str = ""


def settingsOf(parameters: Any) -> ProtectSettings:
    """The options of the library that the panel stands for."""
    return ProtectSettings(
        method=parameters.method,
        profile=profileFile(parameters.profile) or None,
        bound=parameters.bound255 / 255 or None,
        target_psnr=parameters.targetPSNR if parameters.strength == Strength.TARGET_PSNR else None,
        modality=parameters.modality.value,
        window=windowOf(parameters),
        seed=None if parameters.seed < 0 else parameters.seed,
    )


def profileFile(path: str) -> str:
    """The file that a typed name of a profile stands for: the extension need not be typed."""
    return path if not path.strip() or Path(path).suffix.lower() == SUFFIX else path + SUFFIX


def windowOf(parameters: Any) -> tuple[float, float] | None:
    """The intensity window in the image's own units, None for the library's rule."""
    if parameters.window == Window.CUSTOM:
        return (parameters.windowLow, parameters.windowHigh)
    if parameters.window == Window.DISPLAY:
        display = parameters.volume.GetDisplayNode() if parameters.volume else None
        if display is None or not display.IsA("vtkMRMLScalarVolumeDisplayNode"):
            return None
        return (display.GetLevel() - display.GetWindow() / 2, display.GetLevel() + display.GetWindow() / 2)
    return parameters.window.value


def chosenSegments(parameters: Any) -> list[str]:
    """Ids of the segments that are to be protected."""
    skipped = parameters.skippedSegments if parameters.skippedIn is parameters.labels else []
    return [i for i, _name in segmentsOf(parameters.labels) if i not in skipped]


def skipSegments(parameters: Any, segmentIDs: list[str]) -> None:
    """Protect all segments but these. Ids of another segmentation, which may be the same, are forgotten."""
    wasModified = parameters.parameterNode.StartModify()
    parameters.skippedIn, parameters.skippedSegments = parameters.labels, segmentIDs
    parameters.parameterNode.EndModify(wasModified)
