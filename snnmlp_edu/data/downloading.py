"""Published data sets, downloaded from their publishers and verified by the published checksums."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import InputError
from .cifar import CIFAR


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
        """The same files, with the same checksums, at another address."""
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
    """Bring a data set into a folder; files that are already there and intact are kept.

    Each file is downloaded under a temporary name and compared with its checksum before it gets its own.

    Args:
        name: a key of `DOWNLOADS`.
        folder: made if it is not there.
        wanted: other addresses or checksums; None takes the published ones.

    Returns:
        The files.

    Raises:
        InputError: a file cannot be downloaded, or is another than was published, or one of its name is there
            and is.
    """
    wanted = wanted or DOWNLOADS[name]
    try:
        import pooch  # only those who download need it
    except ModuleNotFoundError as error:
        raise InputError(
            "downloading needs pooch, which is not installed; run, in a clone: pip install -e '.[train]'"
        ) from error
    pooch.get_logger().setLevel("ERROR")
    hashes = {folder / file: f"md5:{md5}" for file, md5 in wanted.md5.items()}
    for file, known in hashes.items():
        if file.is_file() and not pooch.hashes.hash_matches(file, known):  # which pooch would replace
            raise InputError(f"{file} exists with another MD5 than {known[4:]}; remove it and try again")
    for file, known in hashes.items():
        address = f"{wanted.address}{file.name}"
        try:
            pooch.retrieve(address, known, file.name, folder, progressbar=sys.stderr.isatty())
        except OSError as error:  # of the network, or of the disk
            raise InputError(
                f"{address} cannot be downloaded ({' '.join(str(error).split())}); try again, or put the file"
                f" into {folder} yourself"
            ) from error
        except ValueError as error:  # its checksum
            raise InputError(
                f"{address} is not the published file (MD5 {known[4:]} expected); nothing was kept; try again"
                " later"
            ) from error
    return list(hashes)
