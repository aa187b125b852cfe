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
from dataclasses import fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import slicer
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic

from MedProtectLib.cli.options import PASSPHRASE_VARIABLE
from MedProtectLib.errors import MedProtectError, UsageError
from MedProtectLib.progress import Progress
from MedProtectSlicer import finish, staging
from MedProtectSlicer.child import Child
from MedProtectSlicer.formats import ExportFormat
from MedProtectSlicer.nodes import SceneCase, caseOf, imageOf
from MedProtectSlicer.parameters import MedProtectParameterNode
from MedProtectSlicer.results import Place, ProtectResult, addToScene, auditTable, placeOf
from MedProtectSlicer.settings import ProtectSettings
from MedProtectSlicer.task import Cancelled, Story, Task, Work

if TYPE_CHECKING:
    from MedProtectLib.preview import Preview

Tell = Callable[[float, str], None]
STEPS = ("read", "protect", "write", "measure", "report")
AUDIT_ROWS, AUDIT_REPORT = "rows.jsonl", "audit.html"
LONG_S = 120.0


def silent(fraction: float, text: str) -> None:
    """Progress for those who do not want to know."""


class MedProtectLogic(ScriptedLoadableModuleLogic):
    """Protect volumes of the scene.

    Every ``...Task`` method returns a :class:`Task` whose ``advance`` a timer calls, or whose ``run`` waits for the end.
    Options are those of :class:`ProtectSettings`.
    """

    def getParameterNode(self) -> Any:
        """The :class:`MedProtectParameterNode` of the scene."""
        node = super().getParameterNode()
        # The wrapper's observers cannot be removed. Were Python to drop the node meanwhile, its next change would call what is gone.
        slicer.mrmlScene._medProtectParameterNode = node
        return MedProtectParameterNode(node)  # type: ignore[call-arg]

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
        case, place = caseOf(volumeNode, labelsNode, segmentIDs), placeOf(volumeNode)
        protection = protector.protect(*staging.inMemory(case))
        steps = addToScene(volumeNode, place, finish.fromMemory(protection, case.volume.array.dtype))
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
        case = caseOf(volumeNode, labelsNode, segmentIDs).taken()
        story = _protectStory(case, volumeNode, placeOf(volumeNode), _settings(settings, options), tell)
        return Task(story, ofScene=True)

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
        case = caseOf(volumeNode, labelsNode, segmentIDs).taken()
        return Task(_exportStory(case, Path(folder), Path(privateFolder), _settings(settings, options), fileFormat, overwrite, tell))

    def fitTask(
        self,
        dataset: str | Path | Sequence[tuple[Any, ...]],
        profile: str | Path,
        settings: ProtectSettings | None = None,
        dimension: int = 3,
        steps: int | None = None,
        tell: Tell = silent,
        segments: Sequence[str] = (),
        **options: Any,
    ) -> Task:
        """Fit a profile of one's own in a child process. The task's value is the answer of ``medprotect fit``.

        :param dataset: a folder or CSV manifest, or pairs of volume node and segmentation node, with the ids of segments as a third
            where not all are meant.
        :param profile: the file to write; whoever has it can compute your perturbations.
        :param segments: names or label values to use of a folder or manifest; all when empty.
        """
        if not str(profile).strip():
            raise MedProtectError(_("Choose the profile file to write."))
        if isinstance(dataset, str | Path):
            if not str(dataset).strip():
                raise MedProtectError(_("Choose the folder with the training images."))
            cases: list[SceneCase] = []
        else:
            cases = [caseOf(*nodes).taken() for nodes in dataset]
            if not cases:
                raise MedProtectError(_("The scene has no volume with a segmentation to fit on."))
        words = [*(["--segments", *segments] if segments else []), *([] if steps is None else ["--steps", str(steps)])]
        return Task(_fitStory(dataset, cases, Path(profile), _settings(settings, options), dimension, words, tell))

    def auditTask(
        self,
        dataset: str | Path,
        output: str | Path,
        settings: ProtectSettings | None = None,
        quick: bool = True,
        tell: Tell = silent,
        **options: Any,
    ) -> Task:
        """Train networks on a dataset as it is and as it would be protected, and compare them on clean images, in a child process.

        An audit that was cancelled goes on where it stopped when it is started again with the same folder.

        :param dataset: folder or CSV manifest of originals with labels.
        :param output: folder for the rows, the report and the work files; private, for it holds protected and original images.
        :return: the task's value is the answer of ``medprotect audit`` with "report", the page, and "table", the node of the results.
        """
        if not str(dataset).strip():
            raise MedProtectError(_("Choose the folder with the dataset to audit."))
        if not str(output).strip():
            raise MedProtectError(_("Choose the folder for the results of the audit."))
        return Task(_auditStory(Path(dataset), Path(output), _settings(settings, options), quick, tell))

    def restoreTask(
        self,
        protected: str | Path,
        vault: str | Path,
        key: str | Path,
        output: str | Path,
        passphrase: str = "",
        overwrite: bool = False,
        tell: Tell = silent,
    ) -> Task:
        """Write the exact original of a protected file, in a child process. The task's value is the answer of ``medprotect restore``.

        :param protected: file as it was released; of a DICOM series its folder or any of its files.
        :param vault: folder with the restore data of the release.
        :param key: file with the key, and ``passphrase`` if it has one.
        :param output: file, or folder of a DICOM series, to write; in another folder than the protected one.
        """
        for path, missing in (
            (protected, _("Choose the protected file.")),
            (vault, _("Choose the vault folder: the restore data of the release, in its private folder.")),
            (key, _("Choose the key file of the release.")),
            (output, _("Choose the file for the original.")),
        ):
            if not str(path).strip():
                raise MedProtectError(missing)
        return Task(_restoreStory(Path(protected), Path(vault), Path(key), Path(output), passphrase, overwrite, tell))

    def labelledVolumes(self) -> list[tuple[Any, Any]]:
        """Every segmentation of the scene that has segments, after the image that it belongs to (:func:`imageOf`)."""
        nodes = [n for n in slicer.util.getNodesByClass("vtkMRMLSegmentationNode") if n.GetSegmentation().GetNumberOfSegments()]
        return [(image, node) for node in nodes if (image := imageOf(node)) is not None]


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
    known = [option.name for option in fields(ProtectSettings)]
    if unknown := [name for name in options if name not in known]:
        raise UsageError(
            _("There is no option '{name}' here. Those of the module: {known}.").format(name=unknown[0], known=", ".join(known))
        )
    return replace(settings or ProtectSettings(), **options)


def _protectStory(case: SceneCase, volumeNode: Any, place: Place, settings: ProtectSettings, tell: Tell) -> Story:
    tell(0.0, _("Preparing"))
    with _workFolder() as folder:
        image, labels = yield Work(_stage, case, folder)
        words = _protectArguments(image, labels, folder / "shareable", folder / "private", settings)
        answer = yield Child(words, _steps(tell))
        tell(0.95, _("Reading the result"))
        files = (Path(answer["protected"]), Path(answer["record"]), Path(answer["private"]))
        finished = yield Work(finish.fromFiles, *files, case.volume.array.dtype, answer["messages"])
    return (yield from addToScene(volumeNode, place, finished))


def _exportStory(
    case: SceneCase, folder: Path, private: Path, settings: ProtectSettings, fileFormat: ExportFormat, overwrite: bool, tell: Tell
) -> Story:
    tell(0.0, _("Preparing"))
    with _workFolder() as work:
        image, labels = yield Work(_stageFor, case, work, fileFormat)
        words = _protectArguments(image, labels, folder, private, settings)
        return (yield Child([*words, *(["--overwrite"] if overwrite else [])], _steps(tell)))


def _fitStory(
    dataset: Any, cases: Sequence[SceneCase], profile: Path, settings: ProtectSettings, dimension: int, more: Sequence[str], tell: Tell
) -> Story:
    tell(0.0, _("Preparing"))
    kept = profile.with_name(f"{profile.name}.work")
    try:
        with _workFolder() as folder:
            source, modality = (yield Work(_manifest, cases, folder)) if cases else (dataset, None)
            words = ["fit", str(source), "--output", str(profile), "--dimension", str(dimension), *more]
            words += replace(settings, profile=None, target_psnr=None).knowing(modality).arguments()
            words += ["--resume"] if kept.is_dir() else []
            return (yield Child(words, _counting(tell)))
    except Cancelled as cancelled:
        raise Cancelled(_whatIsKept(kept)) from cancelled


def _whatIsKept(folder: Path) -> str:
    """What a cancelled fit leaves behind, in one line; empty where that is nothing."""
    if not folder.is_dir():
        return ""
    return _("Cancelled. What was prepared is kept in {folder}, with copies of the images; Fit with the same settings goes on.").format(
        folder=folder
    )


def _auditStory(dataset: Path, output: Path, settings: ProtectSettings, quick: bool, tell: Tell) -> Story:
    tell(0.0, _("Preparing"))
    words = ["audit", str(dataset), "--output", str(output), *settings.auditArguments()]
    words += [*(["--quick"] if quick else []), *(["--resume"] if (output / AUDIT_ROWS).is_file() else [])]
    answer = yield Child(words, _counting(tell, main="audit"))
    answer["report"] = str(output / AUDIT_REPORT)
    answer["cautions"] = [*answer["cautions"], *settings.notAudited()]
    answer["table"] = auditTable(_("Audit of {name}").format(name=dataset.name), answer["summary"])
    return answer


def _restoreStory(protected: Path, vault: Path, key: Path, output: Path, passphrase: str, overwrite: bool, tell: Tell) -> Story:
    tell(0.0, _("Restoring"))
    image = yield Work(staging.wholeImage, protected)
    words = ["restore", str(image), "--vault", str(vault), "--key", str(key), "--output", str(output)]
    secrets = {PASSPHRASE_VARIABLE: passphrase} if passphrase else {}
    return (yield Child([*words, *(["--overwrite"] if overwrite else [])], _counting(tell), secrets))


@contextmanager
def _workFolder() -> Iterator[Path]:
    """A folder for one job that disappears with everything in it."""
    with TemporaryDirectory(prefix="MedProtect-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _protectArguments(image: staging.Staged, labels: Path, output: Path, private: Path, settings: ProtectSettings) -> list[str]:
    places = ["--labels", str(labels), "--output", str(output), "--private", str(private)]
    return ["protect", *image.arguments(), *places, *settings.knowing(image.modality).arguments()]


def _stage(case: SceneCase, folder: Path) -> tuple[staging.Staged, Path]:
    return staging.stagedImage(case, folder), staging.stagedLabels(case, folder)


def _stageFor(case: SceneCase, folder: Path, fileFormat: ExportFormat) -> tuple[staging.Staged, Path]:
    return staging.imageIn(case, folder, fileFormat), staging.stagedLabels(case, folder)


def _manifest(cases: Sequence[SceneCase], folder: Path) -> tuple[Path, str | None]:
    """The cases as files with a manifest that names them, and their modality if it is known and the same."""
    path, modalities = folder / "manifest.csv", set()
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("case", "image", "labels"))
        for number, case in enumerate(cases, start=1):
            place = folder / str(number)
            place.mkdir()
            image, labels = staging.singleFile(case, place), staging.stagedLabels(case, place)
            modalities.add(image.modality)
            rows.writerow((f"{number} {case.volume.name}", image.path, labels))
    return path, modalities.pop() if len(modalities) == 1 else None


def _steps(tell: Tell) -> Callable[[Progress], None]:
    """Progress of ``medprotect protect`` as one share of the whole: the generators work within the step 'protect'."""

    def at(progress: Progress) -> None:
        isStep = progress.stage in STEPS
        done = STEPS.index(progress.stage) if isStep else STEPS.index("protect") + progress.done / max(1, progress.total)
        tell(0.9 * done / len(STEPS), _line(progress))

    return at


def _counting(tell: Tell, main: str = "") -> Callable[[Progress], None]:
    """Progress of commands that count; where one has a ``main`` stage the others do not move the bar."""
    reached = 0.0

    def at(progress: Progress) -> None:
        nonlocal reached
        if main in ("", progress.stage):
            reached = progress.done / max(1, progress.total)
        tell(reached, _line(progress))

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
        "survey": _("Looking at the images"),
        "fit": _("Fitting"),
        "audit": _("Training networks"),
    }
    what, _with, method = progress.stage.partition(" with ")
    line = stages.get(what, what) + (_(" with {method}").format(method=method) if method else "")
    if progress.stage not in STEPS:
        line += f" {progress.done}/{progress.total}"
    if progress.eta_s is not None:
        line += ", " + _left(progress.eta_s)
    return line


def _left(seconds: float) -> str:
    if seconds < LONG_S:
        return _("{seconds:.0f} s left").format(seconds=seconds)
    return _("{minutes:.0f} min left").format(minutes=seconds / 60)
