"""The exceptions that are no defects: a mistake that the person calling can mend, and a run told to stop."""


class InputError(ValueError):
    """A value from outside is wrong; the message is one line that names it and the fix.

    The command line prints the message and exits with code 2. An exception that is neither this one
    nor `Preempted` is a defect of this package and keeps its traceback.
    """


class Preempted(Exception):
    """A run was told to stop (SIGTERM), saved its state and stopped; the message says how to go on."""
