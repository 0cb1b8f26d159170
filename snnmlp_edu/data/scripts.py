"""What the scripts beside the shipped data share: a command line, and writing what the manifest names."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError, Preempted
from ..printing import Parser, quiet_broken_pipe
from .files import record_in_manifest, write_atomically


def run_script(
    main: Callable[..., Any], description: str | None, arguments: Mapping[str, dict[str, Any]] | None = None
) -> None:
    """Parse the command line, and call a function with what it says.

    What the user can mend is one line on standard error and exit code 1.

    Args:
        main: is called with the value of each argument, by name.
        description: what `--help` shows.
        arguments: names and flags, and how `argparse` takes each.
    """
    parser = Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, how in (arguments or {}).items():
        parser.add_argument(name, **how)
    try:
        with quiet_broken_pipe():
            main(**vars(parser.parse_args()))
    except (InputError, OSError) as error:
        sys.exit(f"error: {error}")
    except Preempted as stop:
        print(stop, file=sys.stderr)
        sys.exit(stop.exit_code)


def write_shipped(data: Path, contents: Mapping[str, bytes]) -> None:
    """Write files, enter them in the manifest, and say how large they are.

    Args:
        data: the folder of the manifest.
        contents: of each file, by its path in that folder.
    """
    for name, content in contents.items():
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(data / name, content)
        print(f"{name}: {len(content):,} bytes")
    record_in_manifest(data, list(contents))
