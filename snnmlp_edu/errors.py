"""The exceptions that are not bugs: a mistake that the caller can fix, and a run that was told to stop."""

from __future__ import annotations

import signal
from pathlib import Path


class InputError(ValueError):
    """A value from outside is wrong; the message is one line that names it and the fix.

    The command line prints the message and exits with code 2. An exception that is neither this one
    nor `Preempted` is a defect of this package and keeps its traceback.
    """


class AccessError(InputError):
    """A file cannot be opened or read at the moment, which says nothing about its content.

    It may be whole: it is never counted as damaged, nor left out.
    """

    @classmethod
    def of(cls, path: str | Path, error: OSError) -> AccessError:
        """The error for a path, with the system's reason."""
        return cls(f"{path} cannot be read: {error.strerror or error}; fix that, and try again")


class Preempted(Exception):
    """A run was told to stop, and stopped; the message says what is saved and how to resume.

    Args:
        message: for the person who reads it.
        number: of the signal, SIGTERM or SIGINT.
    """

    def __init__(self, message: str, number: int = signal.SIGTERM) -> None:
        super().__init__(message)
        self.exit_code = 128 + number  # as shells report a process that a signal ended
