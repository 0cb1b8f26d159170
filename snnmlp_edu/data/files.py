"""Where the shipped data are, how a file is verified before use, and how one is written atomically.

`data/manifest.json` holds the SHA-256 and the length of every data file. Nothing is read from `data/`
unless its bytes are the ones that the manifest names.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path, PurePath
from typing import Any

from filelock import FileLock

from ..errors import AccessError, InputError

MANIFEST = "manifest.json"


def path() -> Path:
    """The folder of the shipped data: `data/` of a checkout, or its copy inside an installed package.

    Raises:
        InputError: the package came without its data.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "shipped", package.parent / "data"):
        if (folder / MANIFEST).is_file():
            return folder
    raise InputError(f"{package} lacks its data; reinstall snnmlp-edu, or clone the repository")


def cache_folder() -> Path | None:
    """Where results are kept that can be recomputed: `SNNMLP_CACHE`, else the user's cache.

    Returns:
        The folder; None where the user has no home.
    """
    if chosen := os.environ.get("SNNMLP_CACHE"):
        return Path(chosen)
    if cache := os.environ.get("XDG_CACHE_HOME"):
        return Path(cache) / "snnmlp-edu"
    try:
        return Path.home() / ".cache" / "snnmlp-edu"
    except RuntimeError:
        return None


@contextmanager
def remembered(key: str) -> Iterator[Path | None]:
    """The file of the cache for one thing, while no other process has it: the others wait, and find it there.

    Args:
        key: what the file's name is made of.

    Returns:
        The file, which need not be there yet; None where the user has no home or the cache cannot be written.
    """
    folder, file = cache_folder(), None
    with ExitStack() as held:
        if folder is not None:
            name = hashlib.sha256(os.fsencode(key)).hexdigest()
            with suppress(OSError, NotImplementedError):  # the latter where a file system has no locks
                (folder / name[:2]).mkdir(parents=True, exist_ok=True)
                held.enter_context(FileLock(folder / name[:2] / f"{name}.lock"))
                file = folder / name[:2] / name
        yield file


def write_atomically(target: Path, content: bytes) -> None:
    """Write a file completely or not at all: a temporary name in the same folder, then a rename.

    Raises:
        InputError: what has that name is a device or a pipe, which a rename would replace.
        OSError: the folder cannot be written; an older file of that name is left as it was.
    """
    if target.exists() and not target.is_file() and not target.is_dir():
        raise InputError(f"{target} is a device or a pipe and is not replaced; give the path of a file")
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:  # it names the temporary file, which the user did not name
        raise type(error)(error.errno, error.strerror, str(target)) from error
    finally:
        temporary.unlink(missing_ok=True)


def read_manifest() -> dict[str, dict[str, Any]]:
    """For each data file, by its path relative to `path()`, its `sha256` and its length in `bytes`.

    Raises:
        InputError: the manifest is damaged.
    """
    manifest = path() / MANIFEST
    try:
        return {name: dict(facts) for name, facts in json.loads(manifest.read_bytes())["files"].items()}
    except OSError as error:
        raise AccessError.of(manifest, error) from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{manifest} is damaged ({error!r}); {_restore(MANIFEST)}") from error


def read_verified(name: str) -> bytes:
    """The bytes of one data file, verified against the manifest.

    Args:
        name: path relative to `path()`, with forward slashes, as the manifest has it.

    Raises:
        InputError: the manifest does not name the file, or the file is missing or has changed.
    """
    expected = read_manifest().get(name)
    file = path() / name
    if expected is None:
        raise InputError(f"{name} is not in {path() / MANIFEST}; only files named there are used")
    if not file.is_file():
        raise InputError(f"{file} is missing; {_restore(name)}")
    content = read_bytes(file)
    found = hashlib.sha256(content).hexdigest()
    wanted = str(expected.get("sha256"))
    if found != wanted:
        raise InputError(f"{file} has SHA-256 {found[:12]}..., expected {wanted[:12]}...; {_restore(name)}")
    return content


def _restore(name: str) -> str:
    return f"restore it with 'git checkout -- data/{name}', or install snnmlp-edu again"


def read_bytes(file: Path) -> bytes:
    """What is in a file.

    Raises:
        AccessError: it cannot be read.
    """
    try:
        return file.read_bytes()
    except OSError as error:
        raise AccessError.of(file, error) from error


def is_hidden(name: str) -> bool:
    """Whether a path below a folder, or in an archive, leads to or through what is no data.

    That is, what begins with a dot, such as notebooks' `.ipynb_checkpoints`, and `__MACOSX`, which macOS
    adds to archives.

    >>> is_hidden("ant/.ipynb_checkpoints/1.png"), is_hidden("./ant/1.png")
    (True, False)
    """
    parts = PurePath(name).parts
    return any(part == "__MACOSX" or (part.startswith(".") and part != "..") for part in parts)


def record_in_manifest(folder: Path, names: list[str]) -> None:
    """Enter files, as they are now, in the manifest of `folder`; the other entries stay."""
    manifest = folder / MANIFEST
    files = json.loads(manifest.read_text(encoding="utf-8"))["files"] if manifest.is_file() else {}
    for name in names:
        content = (folder / name).read_bytes()
        files[name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    text = json.dumps({"files": dict(sorted(files.items()))}, indent=2) + "\n"
    write_atomically(manifest, text.encode())
