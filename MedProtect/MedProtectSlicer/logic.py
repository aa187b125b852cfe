"""All that the module does, for the Python console and for its own panel.

from MedProtect import MedProtectLogic
logic = MedProtectLogic()
result = logic.protect(getNode("CT"), getNode("Segmentation"), ["Segment_1"], target_psnr=50.1)
result.statistics["psnr_db"], result.volume, result.perturbation, result.table, result.plot
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import slicer
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic

from MedProtectLib.errors import MedProtectError
from MedProtectLib.progress import Progress
from MedProtectSlicer import finish, staging
from MedProtectSlicer.child import Child
from MedProtectSlicer.formats import ExportFormat
from MedProtectSlicer.nodes import SceneCase, caseOf
from MedProtectSlicer.parameters import MedProtectParameterNode
from MedProtectSlicer.results import ProtectResult, addToScene
from MedProtectSlicer.settings import ProtectSettings
from MedProtectSlicer.task import Story, Task, Work

if TYPE_CHECKING:
    from MedProtectLib.preview import Preview

Tell = Callable[[float, str], None]
STEPS = ("read", "protect", "write", "measure", "report")


def silent(fraction: float, text: str) -> None:
    """Progress for those who do not want to know."""


class MedProtectLogic(ScriptedLoadableModuleLogic):
    """Protect volumes of the scene.

    Every ``...Task`` method returns a :class:`Task` whose ``advance`` a timer calls, or whose ``run`` waits for the end.
    Options are those of :class:`ProtectSettings`.
    """

    def getParameterNode(self) -> MedProtectParameterNode:
        return MedProtectParameterNode(super().getParameterNode())  # type: ignore[call-arg]

    def protect(
        self,
        volumeNode: Any,
        labelsNode: Any,
        segmentIDs: Sequence[str] | None = None,
        settings: ProtectSettings | None = None,
        **options: Any,
    ) -> ProtectResult:
        """Protect a volume in this process and wait for it.

        :param volumeNode: scalar or vector volume; it is not modified.
        :param labelsNode: segmentation or label map volume.
        :param segmentIDs: segments to protect, all when None.
        :param settings: or, by name: method, profile, bound, target_psnr, modality, window, seed.
        :return: the nodes that were added to the scene, and the statistics.
        :raises MedProtectError: with one line that says what is wrong.
        """
        protector = _settings(settings, options).protector()
        case = caseOf(volumeNode, labelsNode, segmentIDs)
        protection = protector.protect(*staging.inMemory(case))
        steps = addToScene(volumeNode, finish.fromMemory(protection, case.volume.array.dtype))
        while True:
            try:
                next(steps)
            except StopIteration as stop:
                result: ProtectResult = stop.value
                return result

    def preview(
        self,
        volumeNode: Any,
        labelsNode: Any,
        segmentIDs: Sequence[str] | None = None,
        settings: ProtectSettings | None = None,
        **options: Any,
    ) -> Preview:
        """What protecting would do, slab by slab: ``preview(...).slab(k, thickness)``. Adds nothing to the scene."""
        return makePreview(caseOf(volumeNode, labelsNode, segmentIDs), _settings(settings, options))

    def protectTask(
        self,
        volumeNode: Any,
        labelsNode: Any,
        segmentIDs: Sequence[str] | None = None,
        settings: ProtectSettings | None = None,
        tell: Tell = silent,
        **options: Any,
    ) -> Task:
        """Protect a volume in a child process. The task's value is a :class:`ProtectResult`.

        :param tell: called in the main thread with the share done (0 to 1) and one line of text.
        """
        case = caseOf(volumeNode, labelsNode, segmentIDs)
        return Task(_protectStory(case, volumeNode, _settings(settings, options), tell))

    def exportTask(
        self,
        volumeNode: Any,
        labelsNode: Any,
        folder: str | Path,
        privateFolder: str | Path,
        segmentIDs: Sequence[str] | None = None,
        settings: ProtectSettings | None = None,
        fileFormat: ExportFormat = ExportFormat.ORIGINAL,
        overwrite: bool = False,
        tell: Tell = silent,
        **options: Any,
    ) -> Task:
        """Write the protected volume and its record into ``folder``, everything that reveals the perturbation into ``privateFolder``.

        The files are those of the command line, byte for byte. The task's value is what it answers, a dict with the paths
        "protected", "record" and "private" and with "statistics".
        """
        if not str(folder).strip():
            raise MedProtectError(_("Choose the folder for the protected volume."))
        if not str(privateFolder).strip():
            raise MedProtectError(_("Choose a private folder: report, record and perturbation must not lie beside what you share."))
        if Path(privateFolder).resolve() == Path(folder).resolve() or Path(folder).resolve() in Path(privateFolder).resolve().parents:
            raise MedProtectError(_("The private folder must not be the shareable folder, nor lie inside it."))
        case = caseOf(volumeNode, labelsNode, segmentIDs)
        return Task(_exportStory(case, Path(folder), Path(privateFolder), _settings(settings, options), fileFormat, overwrite, tell))

    def fitTask(
        self,
        dataset: str | Path | Sequence[tuple[Any, Any]],
        profile: str | Path,
        settings: ProtectSettings | None = None,
        dimension: int = 3,
        steps: int | None = None,
        tell: Tell = silent,
        **options: Any,
    ) -> Task:
        """Fit a profile of one's own in a child process. The task's value is the answer of ``medprotect fit``.

        :param dataset: a folder or CSV manifest, or pairs of volume node and segmentation node.
        :param profile: the file to write; whoever has it can compute your perturbations.
        """
        if not str(profile).strip():
            raise MedProtectError(_("Choose the profile file to write."))
        if isinstance(dataset, str | Path):
            if not str(dataset).strip():
                raise MedProtectError(_("Choose the folder with the training images."))
            cases: list[SceneCase] = []
        else:
            cases = [caseOf(volume, labels) for volume, labels in dataset]
            if not cases:
                raise MedProtectError(_("The scene has no volume with a segmentation to fit on."))
        return Task(_fitStory(dataset, cases, Path(profile), _settings(settings, options), dimension, steps, tell))

    def labelledVolumes(self) -> list[tuple[Any, Any]]:
        """Every volume of the scene that is the reference of a segmentation, with that segmentation."""
        role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
        pairs = [(node.GetNodeReference(role), node) for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode")]
        return [(volume, node) for volume, node in pairs if volume is not None and node.GetSegmentation().GetNumberOfSegments()]


def makePreview(case: SceneCase, settings: ProtectSettings) -> Preview:
    """The preview of a case. Runs in any thread.

    :raises MedProtectError: also where the pattern would first have to be fitted, which is no matter of a second.
    """
    from MedProtectLib.methods import method_class
    from MedProtectLib.preview import Preview
    from MedProtectLib.profile import shipped_profile

    dimension = case.volume.geometry.dimension
    if settings.profile is None and shipped_profile(settings.method, dimension) is None and method_class(settings.method).learns:
        raise MedProtectError(
            _("Method '{name}' has no public profile: Apply fits it on the image first. For a preview fit a profile.").format(
                name=settings.method
            )
        )
    return Preview(settings.protector(), *staging.inMemory(case, quickly=True))


def _settings(settings: ProtectSettings | None, options: dict[str, Any]) -> ProtectSettings:
    return replace(settings or ProtectSettings(), **options)


def _protectStory(case: SceneCase, volumeNode: Any, settings: ProtectSettings, tell: Tell) -> Story:
    tell(0.0, _("Preparing"))
    with _workFolder() as folder:
        image, labels = yield Work(_stage, case, folder)
        words = _protectArguments(image, labels, folder / "shareable", folder / "private", settings)
        answer = yield Child(words, _steps(tell))
        tell(0.95, _("Reading the result"))
        files = (Path(answer["protected"]), Path(answer["record"]), Path(answer["private"]))
        finished = yield Work(finish.fromFiles, *files, case.volume.array.dtype, answer["messages"])
    return (yield from addToScene(volumeNode, finished))


def _exportStory(
    case: SceneCase, folder: Path, private: Path, settings: ProtectSettings, fileFormat: ExportFormat, overwrite: bool, tell: Tell
) -> Story:
    tell(0.0, _("Preparing"))
    with _workFolder() as work:
        image, labels = yield Work(_stageFor, case, work, fileFormat)
        words = _protectArguments(image, labels, folder, private, settings)
        return (yield Child([*words, *(["--overwrite"] if overwrite else [])], _steps(tell)))


def _fitStory(
    dataset: Any, cases: Sequence[SceneCase], profile: Path, settings: ProtectSettings, dimension: int, steps: int | None, tell: Tell
) -> Story:
    tell(0.0, _("Preparing"))
    with _workFolder() as folder:
        source = (yield Work(_manifest, cases, folder)) if cases else dataset
        words = ["fit", str(source), "--output", str(profile), "--dimension", str(dimension)]
        words += replace(settings, profile=None, target_psnr=None).arguments()
        words += [] if steps is None else ["--steps", str(steps)]
        return (yield Child(words, lambda p: tell(p.done / max(1, p.total), _line(p))))


@contextmanager
def _workFolder() -> Iterator[Path]:
    """A folder for one job that disappears with everything in it."""
    with TemporaryDirectory(prefix="MedProtect-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _protectArguments(image: Path, labels: Path, output: Path, private: Path, settings: ProtectSettings) -> list[str]:
    places = ["--labels", str(labels), "--output", str(output), "--private", str(private)]
    return ["protect", str(image), *places, *settings.arguments()]


def _stage(case: SceneCase, folder: Path) -> tuple[Path, Path]:
    return staging.stagedImage(case, folder), staging.stagedLabels(case, folder)


def _stageFor(case: SceneCase, folder: Path, fileFormat: ExportFormat) -> tuple[Path, Path]:
    from MedProtectLib.io import extension_of

    intact = case.file is not None and staging.fileVolume(case) is not None
    if fileFormat is ExportFormat.ORIGINAL and not intact:
        raise MedProtectError(
            _("'{name}' was changed after loading, or comes from no file that can be written back. Choose another format.").format(
                name=case.volume.name
            )
        )
    if intact and case.file is not None and fileFormat.value in ("", extension_of(case.file)):
        return case.file, staging.stagedLabels(case, folder)
    return staging.newImage(case, folder, fileFormat.value), staging.stagedLabels(case, folder)


def _manifest(cases: Sequence[SceneCase], folder: Path) -> Path:
    """The cases as files with a manifest that names them."""
    path = folder / "manifest.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("case", "image", "labels"))
        for number, case in enumerate(cases, start=1):
            place = folder / str(number)
            place.mkdir()
            rows.writerow((f"{number} {case.volume.name}", *_stage(case, place)))
    return path


def _steps(tell: Tell) -> Callable[[Progress], None]:
    """Progress of ``medprotect protect`` as one share of the whole: the generators work within the step 'protect'."""

    def at(progress: Progress) -> None:
        isStep = progress.stage in STEPS
        done = STEPS.index(progress.stage) if isStep else STEPS.index("protect") + progress.done / max(1, progress.total)
        tell(0.9 * done / len(STEPS), _line(progress))

    return at


def _line(progress: Progress) -> str:
    stages = {
        "read": _("Reading"),
        "protect": _("Protecting"),
        "generate": _("Protecting"),
        "write": _("Writing"),
        "measure": _("Measuring"),
        "report": _("Writing the report"),
        "prepare": _("Preparing"),
        "fit": _("Fitting"),
    }
    line = stages.get(progress.stage, progress.stage)
    if progress.stage not in STEPS:
        line += f" {progress.done}/{progress.total}"
    if progress.eta_s is not None:
        line += ", " + _("{seconds:.0f} s left").format(seconds=progress.eta_s)
    return line
