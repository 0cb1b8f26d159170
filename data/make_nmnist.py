"""Make `data/nmnist/`: the first recordings of each digit of N-MNIST, unchanged, in one archive.

    python data/make_nmnist.py Train

`Train` is the folder in the published `Train.zip`; https://www.garrickorchard.com/datasets/n-mnist says where
that is. The archive depends on the recordings alone: the same bytes every time, with the same liblzma.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

from snnmlp_edu.data.files import read_bytes
from snnmlp_edu.data.nmnist import RECORDINGS, parse_nmnist_events
from snnmlp_edu.data.scripts import run_script, write_shipped
from snnmlp_edu.errors import InputError

DIGITS = 10
RECORDINGS_OF_EACH_DIGIT = 10


def first_of_each_digit(train: Path) -> dict[str, bytes]:
    """The recordings that are shipped, by digit and name, each of them checked."""
    chosen = {}
    for digit in range(DIGITS):
        files = sorted((train / str(digit)).glob("*.bin"))[:RECORDINGS_OF_EACH_DIGIT]
        if len(files) < RECORDINGS_OF_EACH_DIGIT:
            raise InputError(
                f"{train / str(digit)} has {len(files)} recordings and {RECORDINGS_OF_EACH_DIGIT} are needed;"
                " give the folder Train of N-MNIST"
            )
        for file in files:
            content = read_bytes(file)
            parse_nmnist_events(content, str(file))
            chosen[f"{digit}/{file.name}"] = content
    return chosen


def pack(files: dict[str, bytes]) -> bytes:
    """An archive without the time it was made, so that the same files give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)
            entry.create_system, entry.external_attr = 3, 0o644 << 16  # the same on every system
            archive.writestr(entry, content, zipfile.ZIP_LZMA)
    return buffer.getvalue()


def make(train: Path, data: Path) -> None:
    """Write the archive to a data folder and enter it in its manifest."""
    write_shipped(data, {RECORDINGS: pack(first_of_each_digit(train))})


def main(train: Path) -> None:
    """Make the archive next to this script."""
    make(train, Path(__file__).resolve().parent)


if __name__ == "__main__":
    run_script(main, __doc__, {"train": {"type": Path, "help": "the folder Train of N-MNIST"}})
