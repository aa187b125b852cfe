"""Long jobs told as a story: a generator that runs in the main thread and yields what it waits for.

    def story():
        image = yield Work(write_image)          # in a thread
        answer = yield Child([...])              # in a process
        node = addNode(image)                    # between two yields: in the main thread
        yield                                    # let the views breathe
        return node

A :class:`Task` drives it: a timer of the GUI calls ``advance`` again and again, the Python console calls ``run``.

Slicer holds Python's lock while its event loop idles, and no thread of Python gets on. So a timer that waits for threads lets go of
the lock for BREATH_S at every tick.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from typing import Any, Protocol

POLL_S = 0.02
BREATH_S = 0.015


class Cancelled(Exception):
    """The user ended the job. Its text says what is kept, where that is more than nothing."""


class Waitable(Protocol):
    """Something that goes on elsewhere. ``result`` gives its outcome or raises what went wrong; it may have been done already when it
    was cancelled.
    """

    def done(self) -> bool: ...

    def result(self) -> Any: ...

    def cancel(self) -> None: ...


Story = Generator[Waitable | None, Any, Any]


class Work:
    """A function in a thread of its own. It must touch neither nodes nor widgets."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._value: Any = None
        self._error: BaseException | None = None
        self._dropped = False
        self._thread = threading.Thread(target=self._run, args=(function, arguments), daemon=True)
        self._thread.start()

    def _run(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        try:
            self._value = function(*arguments)
        except BaseException as error:
            self._error = error

    def done(self) -> bool:
        return not self._thread.is_alive()

    def result(self) -> Any:
        self._thread.join()
        if self._dropped:
            raise Cancelled
        if self._error is not None:
            raise self._error
        return self._value

    def cancel(self) -> None:
        """A thread cannot be ended from outside: its outcome is dropped when it comes."""
        self._dropped = True


class Task:
    """A story on its way. ``value`` is what it returned, ``error`` what it raised, once ``finished``.

    :param ofScene: it makes no sense without the scene that it was started in.
    """

    def __init__(self, story: Story, ofScene: bool = False) -> None:
        self.ofScene = ofScene
        self._story = story
        self._waiting: Waitable | None = None
        self.cancelled = self.finished = False
        self.value: Any = None
        self.error: BaseException | None = None

    @property
    def inThread(self) -> bool:
        """Whether it waits for a thread of this process."""
        return isinstance(self._waiting, Work) and not self.finished

    def cancel(self) -> None:
        """Ask the job to end; it is over when ``finished``. What it was waiting for may have been done, and be its value then."""
        self.cancelled = True
        if self._waiting is not None:
            self._waiting.cancel()

    def advance(self) -> bool:
        """Go on as far as that is possible without waiting; True once finished. Never raises what the job raised."""
        if self.finished or (self._waiting is not None and not self._waiting.done()):
            return self.finished
        try:
            self._waiting = self._resumed()
            if self.cancelled and self._waiting is not None:
                self._waiting.cancel()
        except StopIteration as stop:
            self.finished, self.value = True, stop.value
        except Exception as error:
            self.finished, self.error = True, error
        return self.finished

    def _resumed(self) -> Waitable | None:
        """Let the story go on until it waits again."""
        if self._waiting is None:
            return self._story.throw(Cancelled()) if self.cancelled else next(self._story)
        try:
            value = self._waiting.result()
        except Exception as error:
            return self._story.throw(Cancelled() if self.cancelled else error)
        return self._story.send(value)

    def run(self) -> Any:
        """Wait for the end; the value, or the error raised."""
        try:
            while not self.advance():
                time.sleep(POLL_S)
        except KeyboardInterrupt:
            self.stop()
            raise
        if self.error is not None:
            raise self.error
        return self.value

    def stop(self) -> None:
        """End the job now and wait for that."""
        self.cancel()
        while not self.advance():
            time.sleep(POLL_S)
