"""Published data sets, fetched from their publishers and compared with the checksums that these state."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import InputError
from .cifar import CIFAR

RETRIES = 2


@dataclass(frozen=True)
class Download:
    """Files that make up a data set.

    Args:
        address: where they are; a file's address is this and its name.
        md5: of each file by its name.
        dataset: what a recipe calls it once it is there.
        source: who publishes it.
    """

    address: str
    md5: Mapping[str, str] = field(default_factory=dict)
    dataset: str = ""
    source: str = ""

    def at(self, address: str) -> Download:
        """The same files, with the same checksums, somewhere else."""
        return replace(self, address=address if address.endswith("/") else f"{address}/")


def _idx(train_images: str, train_labels: str, test_images: str, test_labels: str) -> dict[str, str]:
    return {
        "train-images-idx3-ubyte.gz": train_images,
        "train-labels-idx1-ubyte.gz": train_labels,
        "t10k-images-idx3-ubyte.gz": test_images,
        "t10k-labels-idx1-ubyte.gz": test_labels,
    }


DOWNLOADS = {
    "fashion_mnist": Download(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        _idx(
            "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "25c81989df183df01b3e8a0aad5dffbe",
            "bef4ecab320f06d8554ea6380940ec79",
            "bb300cfdad3c16e7a12a480ee83cd310",
        ),
        "fashion_mnist",
        "Zalando Research, arXiv 1708.07747, https://github.com/zalandoresearch/fashion-mnist",
    ),
    "mnist": Download(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        _idx(
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "d53e105ee54ea40749a09fcbcd1e9432",
            "9fb629c4189551a2d022fa330f9573f3",
            "ec29112dd5afa0611ce80d1b7f02629c",
        ),
        "idx",
        "LeCun, Cortes and Burges; PyTorch's copy of the four files, with torchvision's checksums",
    ),
} | {
    kind: Download(
        "https://www.cs.toronto.edu/~kriz/",
        {form.archive: form.md5},
        kind,
        "Krizhevsky, https://www.cs.toronto.edu/~kriz/cifar.html",
    )
    for kind, form in CIFAR.items()
}


def download(name: str, folder: Path, wanted: Download | None = None) -> list[Path]:
    """Bring a data set into a folder; files that are there and whole are left as they are.

    Each file is fetched under a temporary name and compared with its checksum before it gets its own.

    Args:
        name: a key of `DOWNLOADS`.
        folder: made if it is not there.
        wanted: other addresses or checksums; None takes the published ones.

    Returns:
        The files.

    Raises:
        InputError: a file cannot be fetched, or is another than was published, or one of its name is there
            and is.
    """
    wanted = wanted or DOWNLOADS[name]
    missing = []
    for file, md5 in wanted.md5.items():
        place = folder / file
        if not place.is_file():
            missing.append(file)
        elif (found := _md5(place)) != md5:
            raise InputError(
                f"{place} is there and has MD5 {found} and not {md5}; remove it, and it is fetched again"
            )
    if missing:
        _fetch(wanted, missing, folder)
    return [folder / file for file in wanted.md5]


def _fetch(wanted: Download, names: list[str], folder: Path) -> None:
    try:
        import pooch  # only those who download need it
    except ModuleNotFoundError as error:
        raise InputError(
            "downloading needs pooch, which is not installed; run, in a clone: pip install -e '.[train]'"
        ) from error
    folder.mkdir(parents=True, exist_ok=True)
    registry = {file: f"md5:{md5}" for file, md5 in wanted.md5.items()}
    fetcher = pooch.create(folder, wanted.address, registry=registry, retry_if_failed=RETRIES)
    log = pooch.get_logger()
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        for name in names:
            try:
                fetcher.fetch(name)
            except OSError as error:  # of the network, or of the disk
                raise InputError(
                    f"{wanted.address}{name} cannot be fetched ({' '.join(str(error).split())}); try again,"
                    f" or put the file into {folder} yourself"
                ) from error
            except ValueError as error:  # its checksum
                raise InputError(
                    f"{wanted.address}{name} is not the published file (MD5 {wanted.md5[name]} expected);"
                    " nothing was kept; try again later"
                ) from error
    finally:
        log.setLevel(level)


def _md5(file: Path) -> str:
    with open(file, "rb") as content:
        return hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
