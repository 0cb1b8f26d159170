"""Make `data/fashion_mnist/`: the first images of each class of Fashion-MNIST, in the original order.

    python data/make_fashion_mnist.py                        # Debian: apt install dataset-fashion-mnist
    python data/make_fashion_mnist.py --source DIR           # the four original idx files are in DIR
    python data/make_fashion_mnist.py --download             # fetches them, 30 MB, and checks them

The result depends on the original files alone: the same bytes every time, with the same zlib. The
training images come from the original training set, the test images from the original test set.
"""

from __future__ import annotations

import gzip
import hashlib
import io
from pathlib import Path

import numpy as np

from snnmlp_edu.data.datasets import format_idx, read_idx
from snnmlp_edu.data.scripts import run_script, write_shipped
from snnmlp_edu.errors import InputError

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
PUBLIC_ADDRESS = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
IMAGES_OF_EACH_CLASS = {"train": 600, "t10k": 100}

# MD5 of the four downloads, as github.com/zalandoresearch/fashion-mnist publishes them.
DOWNLOAD_MD5 = {
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}
# SHA-256 of what they decompress to: Debian compresses the same content into other bytes.
CONTENT_SHA256 = {
    "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


def download() -> Path:
    """Fetch the four original files, each checked against its published MD5; returns their folder."""
    import pooch

    folder = Path(pooch.os_cache("snnmlp_edu"))
    for name, md5 in DOWNLOAD_MD5.items():
        try:
            pooch.retrieve(PUBLIC_ADDRESS + name, f"md5:{md5}", fname=name, path=folder)
        except ValueError as error:
            raise InputError(
                f"what came from {PUBLIC_ADDRESS}{name} has another MD5 than {md5}; try again"
            ) from error
    return folder


def read_original(folder: Path, name: str) -> np.ndarray:
    """One original array, after its content was compared with the hash above."""
    array = read_idx(folder / name)
    if hashlib.sha256(format_idx(array)).hexdigest() != CONTENT_SHA256[name]:
        raise InputError(f"{folder / name} is not the original of Fashion-MNIST; use --download")
    return array


def first_of_each_class(labels: np.ndarray, count: int) -> np.ndarray:
    """Sorted indices of the first `count` entries of every label."""
    return np.sort(np.concatenate([np.flatnonzero(labels == label)[:count] for label in np.unique(labels)]))


def compress(content: bytes) -> bytes:
    """gzip without a time or a name in its header, so that the same content gives the same bytes."""
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=buffer, mtime=0) as file:
        file.write(content)
    return buffer.getvalue()


def make(source: Path, data: Path) -> None:
    """Write the four files of the subset to `data/fashion_mnist` and enter them in `data/manifest.json`."""
    content = {}
    for prefix, count in IMAGES_OF_EACH_CLASS.items():
        images_name, labels_name = f"{prefix}-images-idx3-ubyte.gz", f"{prefix}-labels-idx1-ubyte.gz"
        images, labels = read_original(source, images_name), read_original(source, labels_name)
        chosen = first_of_each_class(labels, count)
        content[f"fashion_mnist/{images_name}"] = compress(format_idx(images[chosen]))
        content[f"fashion_mnist/{labels_name}"] = compress(format_idx(labels[chosen]))
    write_shipped(data, content)


def main(source: Path | None, download_first: bool) -> None:
    """Make the subset next to this script."""
    if source and download_first:
        raise InputError("--source and --download are both given; give one of them")
    make(download() if download_first else source or DEBIAN, Path(__file__).resolve().parent)


if __name__ == "__main__":
    run_script(
        main,
        __doc__,
        {
            "--source": {
                "type": Path,
                "help": f"folder with the four original files, by default {DEBIAN}",
            },
            "--download": {
                "action": "store_true",
                "dest": "download_first",
                "help": "fetch them into the user's cache first",
            },
        },
    )
