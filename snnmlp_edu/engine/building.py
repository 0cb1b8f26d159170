"""The system's C compiler: found, run, and what it made of `engine.c` kept for the next process.

Nothing but the engine needs a compiler.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import tempfile
import threading
import warnings
from contextlib import suppress
from pathlib import Path

from ..data.files import cache_folder, write_atomically
from ..errors import InputError
from ..printing import printable
from .file import SOURCE

FLAGS = ("-std=gnu11", "-Wno-psabi")
FAST = "-O2"  # as fast here as -O3, where Clang multiplies to find where a loop ends
NATIVE = "-march=native"
SHARED = ("-fPIC", "-shared")
WITHOUT = "everything but the engine works without one"

_one_at_a_time = threading.Lock()


def find_compiler() -> list[str]:
    """The words that call the C compiler: those of `CC`, or else the first of cc, gcc and clang.

    Raises:
        InputError: there is none.
    """
    chosen = os.environ.get("CC", "").strip()
    for command in [chosen] if chosen else ["cc", "gcc", "clang"]:
        with suppress(ValueError):  # a quotation mark without its pair
            words = shlex.split(command)
            if shutil.which(words[0]):
                return words
    missing = (
        f"CC is {chosen!r}, which is no program" if chosen else "there is no C compiler (cc, gcc or clang)"
    )
    raise InputError(f"{missing}; install GCC or Clang, or name one in CC; {WITHOUT}")


def with_included(name: str) -> dict[str, bytes]:
    """A file of C beside this one, with those that it includes, by their names; without what is generated.

    >>> list(with_included("main.c"))[:2]
    ['main.c', 'engine.c']
    """
    found: dict[str, bytes] = {}
    wanted = [name]
    while wanted:
        file = SOURCE.with_name(wanted.pop(0))
        if file.name not in found and file.exists():
            found[file.name] = file.read_bytes()
            wanted += re.findall(r'^#include "(.+)"', file.read_text(encoding="utf-8"), re.MULTILINE)
    return found


def compile_c(source: Path, output: Path, *flags: str) -> None:
    """Compile C for this machine's processor, or for any of its kind where the compiler knows no other.

    Args:
        source: the file.
        output: what is made of it.
        flags: besides `FLAGS`.

    Raises:
        InputError: there is no compiler, or it fails: says how.
    """
    compiler = find_compiler()
    for processor in ([NATIVE], []):
        done = _call([*compiler, *FLAGS, FAST, *processor, *flags, str(source), "-o", str(output)])
        if done.returncode == 0 and output.exists():
            return
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    reason = next((line for line in lines if "error" in line.lower()), (lines or ["it does not say why"])[-1])
    raise InputError(
        f"{shlex.join(compiler)} (exit status {done.returncode}) cannot compile {source.name}:"
        f" {printable(reason)}; install a newer GCC or Clang, or name one in CC; {WITHOUT}"
    )


def load_engine() -> ctypes.CDLL:
    """The engine as a library, compiled if this machine has not done so before.

    What was compiled is kept in the user's cache, under a checksum over the source, the flags and the
    processor and another over the compiler. Where there is no compiler any more, what an earlier one made is
    loaded. Where it cannot be kept, each process compiles anew, and a warning says so.

    Raises:
        InputError: there is no compiler, it fails, or the system does not load what it made.
    """
    with _one_at_a_time:
        folder, machine = cache_folder(), _digest(_source(), *FLAGS, FAST, NATIVE, *SHARED, _processor())
        try:
            return _load(folder, f"engine-{machine}-{_compiler()}.so")
        except InputError:
            earlier = sorted(folder.glob(f"engine/engine-{machine}-*.so")) if folder is not None else []
            if os.environ.get("CC", "").strip() or not earlier:  # who names a compiler wants it
                raise
            return _load(folder, earlier[0].name)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _source() -> str:
    return b"".join(with_included(SOURCE.name).values()).decode()


def _compiler() -> str:
    """A checksum over the compiler's words and version."""
    words = find_compiler()
    return _digest(*words, _call([*words, "--version"]).stdout.partition("\n")[0])


@functools.lru_cache(maxsize=1)
def _load(cache: Path | None, name: str) -> ctypes.CDLL:
    kept = None if cache is None else cache / "engine" / name
    if kept is not None:
        with suppress(OSError):  # it is not there, or damaged
            return _declared(ctypes.CDLL(str(kept)))
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            built = Path(folder) / name
            compile_c(SOURCE, built, *SHARED)
            _keep(built, kept)
            return _declared(ctypes.CDLL(str(built)))  # which stays in memory without its file
    except OSError as error:
        raise InputError(
            f"the compiled engine cannot be loaded ({printable(error)}); name a folder with room, from which"
            f" programs may run, in TMPDIR"
        ) from error


def _keep(built: Path, kept: Path | None) -> None:
    reason = "the user has no home"
    if kept is not None:
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(kept, built.read_bytes())
            return
        except (OSError, InputError) as error:
            reason = printable(error)
    warnings.warn(
        f"the compiled engine cannot be kept ({reason}), so each process compiles it anew; name another"
        " folder in SNNMLP_CACHE",
        stacklevel=2,
    )


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    address = ctypes.c_void_p
    library.snn_open.argtypes = (address, address, ctypes.c_uint32)
    library.snn_open.restype = ctypes.c_char_p
    library.snn_prepare.argtypes = (address, address)
    library.snn_prepare.restype = None
    library.snn_run.argtypes = (address, address, ctypes.c_int, address, address)
    library.snn_run.restype = None
    return library


def _call(words: list[str]) -> subprocess.CompletedProcess[str]:
    plain = os.environ | {"LC_ALL": "C"}
    try:
        return subprocess.run(
            words,
            capture_output=True,
            text=True,
            errors="replace",
            env=plain,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{words[0]} does not run ({reason}); name a C compiler in CC; {WITHOUT}") from error


def _processor() -> str:
    """What this machine's processor is, and which instructions it has."""
    found = {platform.machine(), platform.processor()}
    with suppress(OSError):  # other systems than Linux say it elsewhere
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() in ("model name", "flags", "Features", "isa"):
                found.add(value.strip())
    return "\n".join(sorted(found))
