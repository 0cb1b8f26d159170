"""How a training is told to stop: SIGTERM of a scheduler, or SIGINT of Ctrl-C."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(BaseException):
    """A signal that stops at once; not an `Exception`, so that no handler mistakes it for an error.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class StopRequest:
    """Whether a training is to stop, and by which signal.

    While it is `patient` the first signal is noted, and the training stops between two steps, where its
    state can be saved. A second one, and every signal at other times, stops at once.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.patient = False

    def __call__(self, number: int, frame: FrameType | None = None) -> None:
        """Take a signal, as its handler."""
        if not self.patient or self.number is not None:
            raise Interrupted(number)
        self.number = number

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals while inside; only the main thread can, elsewhere nothing is changed."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Defer signals while inside."""
        self.patient = True
        try:
            yield
        finally:
            self.patient = False
