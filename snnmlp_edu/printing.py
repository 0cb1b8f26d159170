"""Text from outside, such as the name of a file, printed on one line, and never as markup."""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console

_UNPRINTABLE = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_UNDECODABLE = re.compile("[\ud800-\udfff]")


def printable(text: object) -> str:
    r"""Text with backslash escapes for line breaks, control characters and bytes that are no UTF-8.

    >>> print(printable("a new\nline.png"))
    a new\nline.png
    """
    return _UNPRINTABLE.sub(lambda found: _escaped(found[0]), str(text))


def print_json(facts: Any) -> None:
    """Print as JSON; strict readers refuse bytes that are no UTF-8, so they are shown as escapes."""
    text = json.dumps(facts, ensure_ascii=False)
    whole = _UNDECODABLE.sub(lambda found: "\\" + _escaped(found[0]), text)
    print(json.dumps(json.loads(whole), indent=2))


def _escaped(character: str) -> str:
    byte = ord(character) - 0xDC00  # of what was no UTF-8: see PEP 383
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else character.encode("unicode_escape").decode()


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]], numbers: bool = False) -> str:
    """A table in Markdown.

    Args:
        columns: headings.
        rows: of text.
        numbers: whether all columns but the first hold numbers, which stand on the right.

    >>> print(markdown(("a", "b"), [("x", "1")]))
    | a | b |
    |---|---|
    | x | 1 |
    """
    lines = [f"| {' | '.join(line)} |" for line in (columns, *rows)]
    rule = "|---|" + ("---:|" if numbers else "---|") * (len(columns) - 1)
    return "\n".join([lines[0], rule, *lines[1:]])


def plain_console() -> Console:
    """A console whose tables print square brackets and colons literally, not as markup."""
    return Console(markup=False, emoji=False, highlight=False)


@contextmanager
def quiet_broken_pipe() -> Iterator[None]:
    """Inside, a reader that stops reading, such as `head`, ends the program quietly, with exit code 1."""
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:  # as it is where the standard output was closed from the start
                sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
        sys.exit(1)


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` whose help ends as all other output does where it cannot be written.

    Python's own says nothing then, and ends with exit code 0.
    """

    def _print_message(self, message: str, file: Any = None) -> None:
        print(message, end="", file=file)


def escape_what_streams_lack() -> None:
    """Let the standard streams escape characters that their encoding lacks, where they would stop."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
