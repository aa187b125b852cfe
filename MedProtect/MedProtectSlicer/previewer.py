"""Previews computed beside the GUI: the newest request wins, what was decided for the whole volume is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from MedProtectLib.errors import MedProtectError
from MedProtectSlicer.colours import Look
from MedProtectSlicer.logic import makePreview
from MedProtectSlicer.nodes import SceneCase, caseOf, segmentsOf
from MedProtectSlicer.overlay import PreviewOverlay
from MedProtectSlicer.settings import ProtectSettings
from MedProtectSlicer.task import Work

if TYPE_CHECKING:
    from MedProtectLib.preview import Preview, SlabPreview


@dataclass(frozen=True)
class _Request:
    """What is to be seen. ``state`` tells whether anything that decides about the whole volume has changed."""

    state: tuple[Any, ...]
    settings: ProtectSettings
    slice: int
    thickness: int


class Previewer:
    """Computes slabs in a thread and shows them when ``poll`` finds them ready.

    :param onShown: called with the preview and the slab that has just been shown.
    :param onFailed: called with the error of a preview that could not be made.
    """

    def __init__(self, onShown: Callable[[Preview, SlabPreview], None], onFailed: Callable[[Exception], None]) -> None:
        self.overlay = PreviewOverlay()
        self._onShown, self._onFailed = onShown, onFailed
        self._wanted: _Request | None = None
        self._working: _Request | None = None
        self._shown: _Request | None = None
        self._refused: _Request | None = None
        self._work: Work | None = None
        self._preview: Preview | None = None
        self._previewOf: tuple[Any, ...] | None = None
        self._case: SceneCase | None = None
        self._volumeNode: Any = None
        self._looks: Mapping[str, Look] = {}
        self._after = False

    @property
    def busy(self) -> bool:
        """Whether a preview is being computed or waits for its turn."""
        return self._work is not None or self._wanted is not None

    def request(
        self, volumeNode: Any, labelsNode: Any, segmentIDs: Sequence[str], settings: ProtectSettings, sliceNumber: int, thickness: int
    ) -> None:
        """Ask for a slab of a case; a request that has not been begun yet is forgotten.

        :raises MedProtectError: the nodes cannot be protected.
        """
        state = (*stateOf(volumeNode), *stateOf(labelsNode), tuple(segmentIDs), settings)
        request = _Request(state, settings, sliceNumber, thickness)
        if request in (self._working, self._wanted, self._refused) or (request == self._shown and self._work is None):
            return
        newest, self._refused = self._wanted or self._working or self._shown, None
        if newest is None or newest.state != state:
            try:
                self._case = caseOf(volumeNode, labelsNode, segmentIDs)
            except MedProtectError:
                self.hide()
                self._refused = request
                raise
        if self._volumeNode is not None and self._volumeNode is not volumeNode:
            self.overlay.close()
        self._volumeNode, self._wanted = volumeNode, request
        self._begin()

    def draw(self, looks: Mapping[str, Look], after: bool) -> None:
        """How components are drawn, and whether the image is shown as it will be."""
        self._looks, self._after = looks, after
        for name, look in looks.items():
            self.overlay.setLook(name, look)
        self.overlay.setAfter(after)

    def poll(self) -> None:
        """Show what has been finished meanwhile, and begin what was asked for last. Call it from the main thread."""
        if self._work is None or not self._work.done():
            return
        work, request = self._work, self._working
        self._work = self._working = None
        try:
            preview, slab = work.result()
        except Exception as error:
            if self._wanted is None:
                self.hide()
                self._refused = request
                self._onFailed(error)
        else:
            assert request is not None
            self._preview, self._previewOf = preview, request.state
            if self._wanted is None and self._volumeNode.GetScene() is not None:
                self._shown = request
                self.overlay.show(self._volumeNode, slab, self._looks, self._after)
                self._onShown(preview, slab)
        self._begin()

    def hide(self) -> None:
        """Show nothing until something is asked for again."""
        self._wanted = self._working = self._shown = self._work = None
        if self.overlay.active:
            self.overlay.close()

    def stop(self, sceneIsClosing: bool = False) -> None:
        """Show nothing any more and leave the scene as it was."""
        if sceneIsClosing:
            self.overlay.forget()
        self.hide()
        self._preview = self._previewOf = self._case = self._volumeNode = self._refused = None

    def _begin(self) -> None:
        if self._work is not None or self._wanted is None or self._case is None:
            return
        self._working, self._wanted = self._wanted, None
        known = self._preview if self._previewOf == self._working.state else None
        self._work = Work(_slab, known, self._case, self._working)


def _slab(known: Preview | None, case: SceneCase, request: _Request) -> tuple[Preview, SlabPreview]:
    preview = known or makePreview(case, request.settings)
    return preview, preview.slab(request.slice, request.thickness)


def stateOf(node: Any) -> tuple[Any, ...]:
    """Changes whenever the voxels of a volume or a segmentation do, or where they are in space."""
    if node is None:
        return (None,)
    transform = node.GetParentTransformNode()
    times = [node.GetID(), transform.GetTransformToWorldMTime() if transform else 0]
    if node.IsA("vtkMRMLSegmentationNode"):
        segmentation = node.GetSegmentation()
        images = [segmentation.GetSegment(i).GetRepresentation("Binary labelmap") for i, _name in segmentsOf(node)]
        return (*times, segmentation.GetMTime(), *(image.GetMTime() for image in images if image is not None))
    return (*times, node.GetImageData().GetMTime() if node.GetImageData() else 0, _placeOf(node))


def _placeOf(node: Any) -> tuple[float, ...]:
    from MedProtectSlicer.nodes import ijkToRAS

    return tuple(ijkToRAS(node).ravel().tolist())
