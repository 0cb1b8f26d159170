"""Where the shipped data stand, how a file is checked before use, and how one is written whole.

`data/manifest.json` holds the SHA-256 and the length of every data file. Nothing is read from `data/`
unless its bytes are the ones that the manifest names.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from filelock import FileLock

from ..errors import InputError

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
    raise InputError(f"{package} came without its data; install snnmlp-edu again, or clone the repository")


def cache_folder() -> Path:
    """Where things are kept that can be found out again: `SNNMLP_CACHE`, else the user's cache."""
    if "SNNMLP_CACHE" in os.environ:
        return Path(os.environ["SNNMLP_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "snnmlp-edu"


@contextmanager
def remembered(key: str) -> Iterator[Path]:
    """A file of the cache, for the one process that holds it; the others wait, and find what it wrote.

    Where the cache cannot be written nothing is remembered: then the file is in a folder that goes away.

    Args:
        key: what the file's name is made of.
    """
    name = hashlib.sha256(os.fsencode(key)).hexdigest()
    file = cache_folder() / name[:2] / name
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{file}.lock")
        lock.acquire()
    except OSError:
        with TemporaryDirectory() as folder:
            yield Path(folder) / name
        return
    try:
        yield file
    finally:
        lock.release()


def write_atomically(target: Path, content: bytes) -> None:
    """Write a file whole or not at all: a temporary name in the same folder, then a rename.

    Raises:
        OSError: the folder cannot be written; an older file of that name is left as it was.
    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def read_manifest() -> dict[str, dict[str, Any]]:
    """For each data file, by its path relative to `path()`, its `sha256` and its length in `bytes`."""
    return json.loads((path() / MANIFEST).read_text(encoding="utf-8"))["files"]


def read_verified(name: str) -> bytes:
    """The bytes of one data file, after they were compared with the manifest.

    Args:
        name: path relative to `path()`, with forward slashes, as the manifest has it.

    Raises:
        InputError: the manifest does not name the file, or the file is missing or has changed.
    """
    expected = read_manifest().get(name)
    file = path() / name
    if expected is None:
        raise InputError(f"{name} is not in {path() / MANIFEST}; only files named there are used")
    restore = f"restore it with 'git checkout -- data/{name}', or install snnmlp-edu again"
    if not file.is_file():
        raise InputError(f"{file} is missing; {restore}")
    content = file.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != expected["sha256"]:
        raise InputError(
            f"{file} has SHA-256 {found[:12]}... and not {expected['sha256'][:12]}...; {restore}"
        )
    return content


def record_in_manifest(folder: Path, names: list[str]) -> None:
    """Enter files, as they are now, in the manifest of `folder`; the other entries stay."""
    manifest = folder / MANIFEST
    files = json.loads(manifest.read_text(encoding="utf-8"))["files"] if manifest.is_file() else {}
    for name in names:
        content = (folder / name).read_bytes()
        files[name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    text = json.dumps({"files": dict(sorted(files.items()))}, indent=2) + "\n"
    write_atomically(manifest, text.encode())
