"""The one exception that means: the person calling can mend this."""


class InputError(ValueError):
    """A value from outside is wrong; the message is one line that names it and the fix.

    The command line prints the message and exits with code 2. Every other exception is a defect of
    this package and keeps its traceback.
    """
