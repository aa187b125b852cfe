"""The one job that the panel may have running: its bar, its Cancel button and its line of text."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import slicer
from slicer.i18n import tr as _

from MedProtectLib.errors import MedProtectError
from MedProtectSlicer.logic import Tell
from MedProtectSlicer.task import Cancelled, Task
from MedProtectSlicer.words import inModuleWords

FULL = 1000
STATUS_MS = 5000


class Jobs:
    """Starts tasks and shows how far they are; ``advance`` is to be called again and again while one is running.

    :param ui: the panel's widgets.
    :param onChanged: called when a job has begun or ended.
    """

    def __init__(self, ui: Any, onChanged: Callable[[], None]) -> None:
        self.task: Task | None = None
        self._ui, self._onChanged = ui, onChanged
        self._onDone: Callable[[Any], None] = lambda value: None
        self._ifCancelled = ""

    def start(self, makeTask: Callable[[Tell], Task], onDone: Callable[[Any], None], ifCancelled: str) -> None:
        """Begin a job unless there is one; ``onDone`` gets its value, ``ifCancelled`` is said of one that was ended."""
        if self.task is not None:
            return
        try:
            self.task = makeTask(self._tell)
        except Exception as error:
            self.say(told(error))
            return
        self._onDone, self._ifCancelled = onDone, ifCancelled
        self._ui.progressBar.visible = True
        self._tell(0.0, _("Preparing"))
        self._onChanged()

    def cancel(self) -> None:
        if self.task is not None:
            self.task.cancel()
            self._ui.cancelButton.enabled = False
            self.say(_("Ending the job…"))

    def advance(self) -> None:
        """Go on as far as that is possible without waiting."""
        if self.task is not None and self.task.advance():
            task, self.task = self.task, None
            self._ui.progressBar.visible = False
            self._conclude(task)
            self._onChanged()

    def stop(self) -> None:
        """End the job now and wait for that."""
        if self.task is not None:
            self.task.stop()
            self.task = None

    def say(self, text: str) -> None:
        """Tell the person at the panel, and in the status bar, where it is seen too when the panel is scrolled away."""
        self._ui.statusLabel.text = text
        slicer.util.showStatusMessage(text.partition("\n")[0], STATUS_MS)

    def _conclude(self, task: Task) -> None:
        if isinstance(task.error, Cancelled) or (task.cancelled and task.error is not None):
            self.say((isinstance(task.error, Cancelled) and str(task.error)) or self._ifCancelled)
        elif task.error is not None:
            self.say(told(task.error))
        else:
            self._onDone(task.value)

    def _tell(self, fraction: float, text: str) -> None:
        self._ui.progressBar.value = round(FULL * fraction)
        if self.task is None or not self.task.cancelled:
            self.say(text)


def told(error: BaseException) -> str:
    """An error for the person at the panel; what nobody has foreseen goes to the log as well."""
    if isinstance(error, MedProtectError):
        return inModuleWords(str(error))
    logging.error("MedProtect: unexpected error", exc_info=error)
    return _("Something unforeseen happened: {error}. The log says more.").format(error=error)
