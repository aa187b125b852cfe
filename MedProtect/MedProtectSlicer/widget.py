"""The module's panel: it shows the parameter node, starts jobs, and asks them by a timer how far they are."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleWidget
from slicer.util import VTKObservationMixin

from MedProtectLib.errors import MedProtectError
from MedProtectLib.methods import METHODS
from MedProtectSlicer import reload
from MedProtectSlicer.colours import Look, legend
from MedProtectSlicer.dependencies import ensureDependencies
from MedProtectSlicer.dicom import whyNoSeries
from MedProtectSlicer.formats import ExportFormat
from MedProtectSlicer.jobs import Jobs, told
from MedProtectSlicer.logic import MedProtectLogic, Tell
from MedProtectSlicer.nodes import NO_IMAGES, namesOf, segmentsOf, volumeOf
from MedProtectSlicer.overlay import sliceIn, viewAlong
from MedProtectSlicer.parameters import FitOn, Strength, Window, chosenSegments, profileFile, settingsOf, skipSegments
from MedProtectSlicer.previewer import Previewer
from MedProtectSlicer.results import ProtectResult, statisticRows
from MedProtectSlicer.task import BREATH_S, Task

if TYPE_CHECKING:
    from MedProtectLib.preview import Preview, SlabPreview

POLL_MS = 25
LOOK_EVERY_S = 0.25
PATHS = {
    "profilePath": "profile",
    "exportFolderPath": "exportFolder",
    "privateFolderPath": "privateFolder",
    "fitFolderPath": "fitFolder",
    "fitProfilePath": "fitProfile",
    "auditFolderPath": "auditFolder",
    "auditOutputPath": "auditOutput",
    "restoreFilePath": "restoreFile",
    "vaultFolderPath": "vaultFolder",
    "keyFilePath": "keyFile",
    "restoreOutputPath": "restoreOutput",
}
SECRETS = ("keyFilePath", "vaultFolderPath")  # where they are is kept in no list
SECTIONS = ("protectionSection", "previewSection", "exportSection", "fitSection")  # those with parts that come and go
BOUND_TO = "SlicerParameterName"


class MedProtectWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """Connects the .ui file with the parameter node and the logic."""

    def __init__(self, parent: Any = None) -> None:
        self.logic: MedProtectLogic | None = None
        self.parameters: Any = None
        self._guiTag: Any = None
        self._listed: list[tuple[str, str]] = []
        self._chosen: list[str] = []
        self._lookedAt = 0.0
        self._followed: Any = None
        self._labelEvents: list[tuple[Any, Any]] = []
        self._auditReport = ""
        self._updating = False
        VTKObservationMixin.__init__(self)
        ScriptedLoadableModuleWidget.__init__(self, parent)  # without a parent it calls setup

    def setup(self) -> None:
        ScriptedLoadableModuleWidget.setup(self)
        panel = slicer.util.loadUI(self.resourcePath("UI/MedProtect.ui"))
        self.layout.addWidget(panel)
        self.ui = slicer.util.childWidgetVariables(panel)
        self.panel = panel
        panel.setMRMLScene(slicer.mrmlScene)
        self.logic = MedProtectLogic()
        self.previewer = Previewer(self._onSlabShown, self._onPreviewFailed)
        self.jobs = Jobs(self.ui, self._onJobChanged)
        self.timer = qt.QTimer()
        self.timer.setInterval(POLL_MS)
        self.timer.timeout.connect(self._onTimer)
        for method in METHODS:
            self.ui.methodSelector.addItem(method)
        self._connectWidgets()
        for event, reaction in (
            (slicer.mrmlScene.StartCloseEvent, self._onSceneStartClose),
            (slicer.mrmlScene.EndCloseEvent, self._onSceneEndClose),
        ):
            self.addObserver(slicer.mrmlScene, event, reaction)
        self._initializeParameterNode()

    def enter(self) -> None:
        """The module is shown."""
        self._initializeParameterNode()

    def exit(self) -> None:
        """Another module is shown: the preview disappears, a running job goes on."""
        self.ui.previewButton.checked = False

    @property
    def task(self) -> Task | None:
        """The job that is running."""
        return self.jobs.task

    def cleanup(self) -> None:
        """The panel is destroyed: nothing that it started outlives it."""
        self.previewer.stop()
        self.jobs.stop()
        self.timer.stop()
        self._setParameterNode(None)
        self.removeObservers()

    def onReload(self) -> None:
        """Reload the library and the module's own parts along with MedProtect.py."""
        reload.forgetModules()
        ScriptedLoadableModuleWidget.onReload(self)

    def _connectWidgets(self) -> None:
        ui = self.ui
        ui.previewButton.toggled.connect(self._onPreviewToggled)
        ui.afterButton.toggled.connect(self._onLookChanged)
        ui.applyButton.clicked.connect(self._onApply)
        ui.cancelButton.clicked.connect(self._onCancel)
        ui.exportButton.clicked.connect(self._onExport)
        ui.fitButton.clicked.connect(self._onFit)
        ui.auditButton.clicked.connect(self._onAudit)
        ui.auditReportButton.clicked.connect(self._onOpenReport)
        ui.restoreButton.clicked.connect(self._onRestore)
        ui.allSegmentsButton.clicked.connect(self._onAllSegments)
        ui.noSegmentsButton.clicked.connect(self._onNoSegments)
        ui.segmentsList.itemChanged.connect(self._onSegmentChecked)
        ui.methodSelector.currentIndexChanged.connect(self._onMethodChosen)
        for name, parameter in PATHS.items():
            self._connectPath(getattr(ui, name), parameter)
        for name in SECTIONS:
            getattr(ui, name).contentsCollapsed.connect(self._onSectionOpened)

    def _onSectionOpened(self, collapsed: bool = False) -> None:
        """Opening a section shows all that is in it, also what does not apply now."""
        if not collapsed and self.parameters is not None:
            self._showParameters()

    def _connectPath(self, edit: Any, parameter: str) -> None:
        """Let a path field write its parameter. That it was emptied is told by its other signal alone."""

        def write(pathOrValid: Any = None) -> None:
            if not self._updating and self.parameters is not None:
                setattr(self.parameters, parameter, edit.currentPath)

        edit.currentPathChanged.connect(write)
        edit.validInputChanged.connect(write)

    # The parameter node

    def _initializeParameterNode(self) -> None:
        assert self.logic is not None
        parameters = self.logic.getParameterNode()
        if self.parameters is None or self.parameters.parameterNode is not parameters.parameterNode:
            self._setParameterNode(parameters)
        if self.parameters.volume is None:
            self.parameters.volume = _firstListed("vtkMRMLScalarVolumeNode")
        if self.parameters.labels is None:
            self.parameters.labels = _firstListed("vtkMRMLSegmentationNode")

    def _setParameterNode(self, parameters: Any) -> None:
        if self.parameters is not None:
            self.parameters.disconnectGui(self._guiTag)
            self.removeObserver(self.parameters.parameterNode, vtk.vtkCommand.ModifiedEvent, self._onParametersChanged)
        self._observeLabels(None)
        self.parameters = parameters
        if parameters is not None:
            self._guiTag = parameters.connectParametersToGui(self._boundWidgets())  # connectGui gives no tag (Slicer issue 7547)
            self.addObserver(parameters.parameterNode, vtk.vtkCommand.ModifiedEvent, self._onParametersChanged)
            self._onParametersChanged()

    def _boundWidgets(self) -> dict[str, Any]:
        """The widgets that show a parameter, by its name."""
        named = {widget.property(BOUND_TO): widget for widget in vars(self.ui).values()}
        return {name: widget for name, widget in named.items() if name}

    def _onParametersChanged(self, caller: Any = None, event: Any = None) -> None:
        if self._updating or self.parameters is None:
            return
        self._updating = True
        try:
            self._observeLabels(self.parameters.labels)
            self._listSegments()
            self._showParameters()
        finally:
            self._updating = False
        self._onLookChanged()
        self._updatePreview()

    def _showParameters(self) -> None:
        ui, parameters = self.ui, self.parameters
        for name, parameter in PATHS.items():
            edit = getattr(ui, name)
            if edit.currentPath != getattr(parameters, parameter):
                edit.currentPath = getattr(parameters, parameter)
        if parameters.method in METHODS:
            ui.methodSelector.currentIndex = METHODS.index(parameters.method)
        for widget in (ui.targetPSNRSpinBox, ui.targetPSNRLabel):
            widget.visible = parameters.strength == Strength.TARGET_PSNR
        for widget in (ui.windowLowSpinBox, ui.windowHighSpinBox, ui.windowRangeLabel):
            widget.visible = parameters.window == Window.CUSTOM
        for widget in (ui.fitFolderPath, ui.fitFolderLabel, ui.fitDimensionSelector, ui.kindLabel):
            widget.visible = parameters.fitOn == FitOn.FOLDER
        self._showSecondComponent()
        self._showFormats()
        self._enableButtons()

    def _showSecondComponent(self) -> None:
        """There is none in methods of one component."""
        ui = self.ui
        for widget in (ui.secondCheckBox, ui.secondOpacitySlider, ui.secondLabel):
            widget.visible = bool(ui.secondCheckBox.text)

    def _showFormats(self) -> None:
        """DICOM can be chosen for what came from DICOM; a line says why it cannot."""
        reason = whyNoSeries(self.parameters.volume)
        place = list(ExportFormat).index(ExportFormat.DICOM)
        self.ui.exportFormatSelector.model().item(place).setEnabled(not reason)
        self.ui.exportHintLabel.text = _("No DICOM series: {reason}").format(reason=reason) if reason else ""
        self.ui.exportHintLabel.visible = bool(reason)

    def _enableButtons(self) -> None:
        ui, running = self.ui, self.task is not None
        ready = self.parameters.volume is not None and bool(self._chosen)
        ui.applyButton.enabled = ready and not running
        possible = self.parameters.exportFormat != ExportFormat.DICOM or not whyNoSeries(self.parameters.volume)
        ui.exportButton.enabled = ready and possible and not running
        for button in (ui.fitButton, ui.auditButton, ui.restoreButton):
            button.enabled = not running
        ui.auditReportButton.enabled = bool(self._auditReport)
        ui.cancelButton.enabled = running
        ui.previewButton.enabled = ready
        if not ready:
            ui.previewButton.checked = False
        ui.applyButton.toolTip = _("Protect the whole volume.") if ready else _("Choose a volume and at least one segment first.")

    # Segments

    def _observeLabels(self, node: Any) -> None:
        events = _eventsOf(node)
        if events == self._labelEvents:
            return
        for source, event in self._labelEvents:
            self.removeObserver(source, event, self._onParametersChanged)
        self._labelEvents = events
        for source, event in events:
            self.addObserver(source, event, self._onParametersChanged)

    def _listSegments(self) -> None:
        try:
            segments, self._chosen = segmentsOf(self.parameters.labels), chosenSegments(self.parameters)
        except MedProtectError as error:
            segments, self._chosen = [], []
            self.jobs.say(told(error))
        listed, checked = self.ui.segmentsList, [i in self._chosen for i, _name in segments]
        if segments != self._listed:
            self._listed = segments
            listed.clear()
            for _i, name in segments:
                item = qt.QListWidgetItem(name)
                item.setFlags(qt.Qt.ItemIsEnabled | qt.Qt.ItemIsUserCheckable)
                listed.addItem(item)
        for row, isChecked in enumerate(checked):
            listed.item(row).setCheckState(qt.Qt.Checked if isChecked else qt.Qt.Unchecked)

    def _onSegmentChecked(self, item: Any) -> None:
        if self._updating:
            return
        states = [self.ui.segmentsList.item(row).checkState() for row in range(len(self._listed))]
        skipped = [i for (i, _name), state in zip(self._listed, states, strict=True) if state != qt.Qt.Checked]
        skipSegments(self.parameters, skipped)

    def _onAllSegments(self, clicked: Any = None) -> None:
        skipSegments(self.parameters, [])

    def _onNoSegments(self, clicked: Any = None) -> None:
        skipSegments(self.parameters, [i for i, _name in self._listed])

    def _onMethodChosen(self, indexOrText: Any = None) -> None:
        if not self._updating and self.parameters is not None:
            self.parameters.method = METHODS[self.ui.methodSelector.currentIndex]

    # Preview

    def _onPreviewToggled(self, on: bool) -> None:
        self.ui.afterButton.enabled = on
        if on and self._ready(ensureDependencies):
            self.timer.start()
            self._updatePreview()
        elif on:
            self.ui.previewButton.checked = False
        else:
            self.ui.afterButton.checked = False
            self.ui.previewStatisticsLabel.text = ""
            self._follow(None)
            self.previewer.stop()

    def _updatePreview(self, caller: Any = None, event: Any = None) -> None:
        """Ask for the slab at the current slice, if a preview is on."""
        if not self.ui.previewButton.checked or self.parameters is None or self.parameters.volume is None:
            return
        volume = self.parameters.volume
        try:
            volumeOf(volume)
        except MedProtectError as error:
            self.previewer.hide()
            self._onPreviewFailed(error)
            return
        view = viewAlong(volume)
        self._follow(view)
        current = None if view is None else sliceIn(volume, view)
        if current is None:
            self.previewer.hide()
            self.ui.previewStatisticsLabel.text = _("No slice view shows this volume's slices.")
            return
        asked = (self.parameters.labels, self._chosen, settingsOf(self.parameters))
        try:
            self.previewer.request(volume, *asked, current, self.parameters.slabThickness)
        except MedProtectError as error:
            self._onPreviewFailed(error)

    def _follow(self, view: Any) -> None:
        if view is self._followed:
            return
        if self._followed is not None:
            self.removeObserver(self._followed, vtk.vtkCommand.ModifiedEvent, self._updatePreview)
        self._followed = view
        if view is not None:
            self.addObserver(view, vtk.vtkCommand.ModifiedEvent, self._updatePreview)

    def _onLookChanged(self, value: Any = None) -> None:
        if self.parameters is None:
            return
        looks = (
            Look(self.parameters.showFirst, self.parameters.opacityFirst),
            Look(self.parameters.showSecond, self.parameters.opacitySecond),
        )
        names = (self.ui.firstCheckBox.text, self.ui.secondCheckBox.text)
        self.previewer.draw(dict(zip(names, looks, strict=True)), bool(self.ui.afterButton.checked))

    def _onSlabShown(self, preview: Preview, slab: SlabPreview) -> None:
        ui, window, bound = self.ui, preview.plan.window, preview.plan.bound
        names = preview.plan.method.component_names
        if names[:2] != (ui.firstCheckBox.text, ui.secondCheckBox.text)[: len(names)]:
            ui.firstCheckBox.text = names[0]
            ui.secondCheckBox.text = names[1] if len(names) > 1 else ""
            self._onLookChanged()
        self._showSecondComponent()
        ui.legendLabel.text = legend(names)
        ui.boundLabel.text = _("{bound:.3g} {unit} ({n:.3g}/255 of {low:g} … {high:g})").format(
            bound=bound * window.width, unit=window.unit, n=bound * 255, low=window.low, high=window.high
        )
        where = _("Slice {first}").format(first=slab.slices.start)
        if slab.slices.stop - slab.slices.start > 1:
            where = _("Slices {first} to {last}").format(first=slab.slices.start, last=slab.slices.stop - 1)
        if slab.statistics is None:
            held = preview.slices
            ui.previewStatisticsLabel.text = _("{where}: nothing is protected here. The segments lie in slices {first} to {last}.").format(
                where=where, first=held.start, last=held.stop - 1
            )
            return
        rows = statisticRows(slab.statistics.as_record(), window.unit)
        ui.previewStatisticsLabel.text = "\n".join([where, *(f"{label}: {value}" for label, value in rows)])

    def _onPreviewFailed(self, error: Exception) -> None:
        self.ui.previewStatisticsLabel.text = told(error)

    # Jobs

    def _onApply(self, clicked: Any = None) -> None:
        parameters = self.parameters
        assert self.logic is not None
        logic = self.logic
        self._start(
            lambda tell: logic.protectTask(
                parameters.volume, parameters.labels, chosenSegments(parameters), settingsOf(parameters), tell=tell
            ),
            self._onProtected,
        )

    def _onExport(self, clicked: Any = None) -> None:
        p = self.parameters
        assert self.logic is not None
        logic = self.logic
        self._start(
            lambda tell: logic.exportTask(
                p.volume,
                p.labels,
                p.exportFolder,
                p.privateFolder,
                chosenSegments(p),
                settingsOf(p),
                fileFormat=p.exportFormat,
                overwrite=p.overwrite,
                tell=tell,
            ),
            lambda answer: self.jobs.say(
                _("Written: {file}. Keep {private} to yourself.").format(file=answer["protected"], private=answer["private"])
            ),
        )

    def _onFit(self, clicked: Any = None) -> None:
        p = self.parameters
        assert self.logic is not None
        logic = self.logic

        def makeTask(tell: Tell) -> Task:
            chosen = chosenSegments(p)
            if p.fitOn == FitOn.FOLDER:
                names = namesOf(p.labels, chosen)
                return logic.fitTask(p.fitFolder, p.fitProfile, settingsOf(p), p.fitDimension.value, p.fitSteps, tell, names)
            dataset = [(p.volume, p.labels, chosen)] if p.fitOn == FitOn.SELECTED else self._labelledVolumes()
            images = [volume.GetImageData() for volume, *_labels in dataset if volume is not None]
            dimension = 2 if any(image and image.GetDimensions()[2] == 1 for image in images) else 3
            return logic.fitTask(dataset, p.fitProfile, settingsOf(p), dimension, p.fitSteps, tell)

        self._start(makeTask, self._onFitted)

    def _labelledVolumes(self) -> list[tuple[Any, ...]]:
        """Those of the scene, and the pair that is chosen here."""
        assert self.logic is not None
        pairs, chosen = self.logic.labelledVolumes(), (self.parameters.volume, self.parameters.labels)
        return [*pairs, *([] if chosen in pairs or None in chosen else [chosen])]

    def _onAudit(self, clicked: Any = None) -> None:
        p = self.parameters
        assert self.logic is not None
        logic = self.logic
        self._start(
            lambda tell: logic.auditTask(p.auditFolder, p.auditOutput, settingsOf(p), p.auditQuick, tell),
            self._onAudited,
            _("Cancelled. What was finished is kept; press Audit again to go on."),
        )

    def _onRestore(self, clicked: Any = None) -> None:
        p, ui = self.parameters, self.ui
        assert self.logic is not None
        logic = self.logic
        self._start(
            lambda tell: logic.restoreTask(
                p.restoreFile,
                p.vaultFolder,
                p.keyFile,
                p.restoreOutput,
                ui.passphraseLineEdit.text,
                ui.restoreReplaceCheckBox.checked,
                tell,
            ),
            self._onRestored,
        )

    def _start(self, makeTask: Callable[[Tell], Task], onDone: Callable[[Any], None], ifCancelled: str = "") -> None:
        if self.task is None and self._ready(ensureDependencies):
            self._completeProfileNames()
            self.jobs.start(makeTask, onDone, ifCancelled or _("Cancelled. Nothing was kept."))

    def _completeProfileNames(self) -> None:
        """Show the files that typed names stand for."""
        self.parameters.profile = profileFile(self.parameters.profile)
        self.parameters.fitProfile = profileFile(self.parameters.fitProfile)

    def _rememberPaths(self) -> None:
        """Offer the paths again in the lists of their fields, which show others while the lists change."""
        self._updating = True
        try:
            for name in PATHS:
                if name not in SECRETS:
                    getattr(self.ui, name).addCurrentPathToHistory()
        finally:
            self._updating = False

    def _onJobChanged(self) -> None:
        if self.task is not None:
            self.timer.start()
            self._rememberPaths()
        if self.parameters is not None:
            self._enableButtons()

    def _ready(self, check: Callable[[], None]) -> bool:
        try:
            check()
        except Exception as error:
            self.jobs.say(told(error))
            return False
        return True

    def _onCancel(self, clicked: Any = None) -> None:
        self.jobs.cancel()

    def _onTimer(self) -> None:
        if self.parameters is None:  # the scene is being closed
            return
        if self.previewer.busy or (self.task is not None and self.task.inThread):
            time.sleep(BREATH_S)
        self.previewer.poll()
        if time.monotonic() - self._lookedAt > LOOK_EVERY_S:  # neither moved nodes nor edited voxels nor another display are told of
            self._lookedAt = time.monotonic()
            self._updatePreview()
        self.jobs.advance()
        if self.task is None and not self.ui.previewButton.checked:
            self.timer.stop()

    def _onProtected(self, result: ProtectResult) -> None:
        self.ui.previewButton.checked = False
        original = result.volume.GetNodeReference("MedProtect.Original")
        for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
            if original is not None and composite.GetBackgroundVolumeID() == original.GetID():
                composite.SetBackgroundVolumeID(result.volume.GetID())
        summary = [f"{label}: {value}" for label, value in statisticRows(result.statistics, result.unit)[:5]]
        self.jobs.say("\n".join([_("Done: '{name}'.").format(name=result.volume.GetName()), *summary, *result.messages]))

    def _onFitted(self, answer: dict[str, Any]) -> None:
        self.parameters.profile = answer["profile"]
        self.jobs.say(_("Fitted: {file}. It is used from now on; keep it private.").format(file=answer["profile"]))

    def _onAudited(self, answer: dict[str, Any]) -> None:
        self._auditReport = answer["report"]
        lines = [_("Audited: the table '{name}' has the results.").format(name=answer["table"].GetName()), *answer["cautions"]]
        self.jobs.say("\n".join(lines))

    def _onOpenReport(self, clicked: Any = None) -> None:
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(self._auditReport))

    def _onRestored(self, answer: dict[str, Any]) -> None:
        same = _("byte for byte the original file") if answer["same_file"] else _("with the original's voxels, in a file packed anew")
        self.ui.passphraseLineEdit.text = ""
        self.jobs.say(_("Restored: {file}, {same}.").format(file=answer["output"], same=same))

    # The scene

    def _onSceneStartClose(self, caller: Any, event: Any) -> None:
        self.previewer.stop(sceneIsClosing=True)
        self.ui.previewButton.checked = False
        if self.task is not None and self.task.ofScene:
            self.jobs.cancel()
        self._setParameterNode(None)

    def _onSceneEndClose(self, caller: Any, event: Any) -> None:
        self._initializeParameterNode()


def _eventsOf(node: Any) -> list[tuple[Any, Any]]:
    """What tells that the labels of a node have changed; a sequence puts another segmentation into its node for every frame."""
    if node is None:
        return []
    if not node.IsA("vtkMRMLSegmentationNode"):
        return [(node, node.ImageDataModifiedEvent)]
    kinds = ("SegmentAdded", "SegmentRemoved", "SegmentModified", "SourceRepresentationModified")
    within = [(node.GetSegmentation(), getattr(slicer.vtkSegmentation, kind)) for kind in kinds]
    return [(node, node.SegmentationChangedEvent), *within]


def _firstListed(className: str) -> Any:
    """The first node of a class that the panel's selectors list; None if there is none."""
    nodes = slicer.util.getNodesByClass(className)
    return next((n for n in nodes if not n.GetHideFromEditors() and not any(n.IsA(name) for name in NO_IMAGES)), None)
