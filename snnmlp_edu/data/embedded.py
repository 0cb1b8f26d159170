"""The embedded data set: a class-balanced part of Fashion-MNIST shipped with the package."""

from __future__ import annotations

from ..fields import checked
from .datasets import LabelledImages, Split, labelled_images, parse_idx
from .files import read_verified

CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_PREFIX = {"train": "train", "test": "t10k"}


def load_embedded(split: Split) -> LabelledImages:
    """6,000 training or 1,000 test images of Fashion-MNIST, the same number of each class.

    They are the first images of each class in the original training and test set, in the original
    order; `data/make_fashion_mnist.py` chose them.

    Args:
        split: `train` or `test`.

    Returns:
        Images uint8 `[N, 1, 28, 28]` and labels int64 `[N]`, numbered as in `CLASS_NAMES`.

    Raises:
        InputError: another split, or a file that is not the one the manifest names.

    Source: arXiv 1708.07747.

    >>> load_embedded("test").images.shape
    torch.Size([1000, 1, 28, 28])
    """
    checked("the split", split, Split)
    images, labels = (
        parse_idx(read_verified(name), name)
        for name in (
            f"fashion_mnist/{_PREFIX[split]}-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1")
        )
    )
    return labelled_images(images, labels, len(CLASS_NAMES), f"fashion_mnist ({split})")
