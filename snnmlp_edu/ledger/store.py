"""The files of records: reading all of them, adding a line, and locking out a second process."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..data.files import path, write_atomically
from ..errors import InputError
from .record import Record

OUTPUT = Path("runs") / "ledger"  # where runs have their folders, unless another place is given


def results_folder() -> Path:
    """Where the shipped records are."""
    return path() / "results"


def read_file(file: Path) -> list[Record]:
    """All records of a file, oldest first.

    Raises:
        InputError: a line was changed, is not whole, or was not written by snnmlp-edu; the message names it.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not a text file; restore it with git") from error
    return list(_records(text, str(file)))


@functools.lru_cache(maxsize=256)  # each plan looks for its runs in all files
def _records(text: str, file: str) -> tuple[Record, ...]:
    lines = enumerate(text.split("\n"), start=1)
    return tuple(Record.from_line(line, f"{file}, line {number}") for number, line in lines if line)


def read_all(folder: Path) -> list[Record]:
    """All records of all plans in a folder, oldest first.

    Raises:
        InputError: there is no such folder; or as `read_file`.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder of records; give one that `snnmlp ledger run` wrote")
    records = [record for file in sorted(folder.glob("*.jsonl")) for record in read_file(file)]
    return sorted(records, key=lambda record: record.finished)


def latest(folder: Path) -> dict[str, Record]:
    """Key of a run -> its record; of a run that was repeated, the last."""
    return {record.key: record for record in read_all(folder)}


def append(file: Path, record: Record) -> None:
    """Append a record to a file: the complete line, or nothing.

    Raises:
        OSError: the folder cannot be written.
    """
    before = file.read_bytes() if file.is_file() else b""
    write_atomically(file, before + record.to_line().encode() + b"\n")


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Keep other processes from adding to a file of records.

    The lock is the operating system's: it ends with the process, however that ends.

    Raises:
        InputError: another process has the lock, or the system or the disk knows none.
        OSError: the folder cannot be written.
    """
    try:
        import fcntl
    except ImportError as error:
        raise InputError(
            "records are added under a lock, and this system has no flock; run plans on Linux or macOS"
        ) from error
    with open(file.with_name(f".{file.stem}.lock"), "a+", encoding="utf-8") as holder:
        try:
            fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder.seek(0)
            raise InputError(
                f"the plan {file.stem} is being run by process {holder.read().strip()}; wait until it has"
                " finished, or run another plan"
            ) from error
        except OSError as error:
            raise InputError(
                f"{file} cannot be locked ({error.strerror}); choose a folder on a local disk with --results"
            ) from error
        holder.truncate(0)
        holder.write(str(os.getpid()))
        holder.flush()
        yield
