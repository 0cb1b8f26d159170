"""Images: how they are stored, read, checked and turned into a network's input.

Knows nothing of models.
"""

from ..inputs import check_finite
from .datasets import LabelledImages, Split, train_validation_split
from .embedded import CLASS_NAMES, load_embedded
from .files import path
from .transforms import Preprocessing, flip_and_shift

__all__ = [
    "CLASS_NAMES",
    "LabelledImages",
    "Preprocessing",
    "Split",
    "check_finite",
    "flip_and_shift",
    "load_embedded",
    "path",
    "train_validation_split",
]
