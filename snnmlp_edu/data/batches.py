"""What a loader worker does: indices of pictures in, a batch of pixels and labels out."""

from __future__ import annotations

import hashlib
import random
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset

from ..errors import InputError
from .picture_sets import PictureSet
from .resizing import to_pixels
from .settings import Loading
from .transforms import Preprocessing
from .workers import identity

GRACE = 30  # seconds from a signal to the end of a worker, if the training has not ended it before
LONGEST_BATCH = 600  # seconds; a batch that takes longer was lost on its way from the worker
SHARED_MEMORY = Path("/dev/shm")  # where workers leave their batches, on Linux


class SampleIndex(NamedTuple):
    """Which picture of a batch to read: its epoch, its number, and which of its repetitions there."""

    epoch: int
    number: int
    repeat: int = 0


def derive_seed(*numbers: int | str) -> int:
    """A seed of 63 bits that depends on all the numbers.

    >>> derive_seed(0, 1) == derive_seed(0, 1), derive_seed(0, 1) == derive_seed(1, 0)
    (True, False)
    """
    text = " ".join(map(str, numbers)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Set the generators that programs share, PyTorch's, NumPy's and Python's, and put them back."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    torch.random.default_generator.manual_seed(seed)  # torch.manual_seed would wake up the GPUs
    np.random.seed(seed % 2**32)  # noqa: NPY002  (timm draws from the shared one)
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        random.setstate(states[2])


class PictureBatches(Dataset):
    """Batches of pictures, fitted to the network and, for training, augmented.

    An image's randomness comes from the seed, the epoch and its number, so that a batch does not depend on
    which process makes it, nor on what that process made before.

    Args:
        pictures: decoded when they are asked for.
        preprocessing: says how they are fitted, and their channels.
        transform: from a picture to uint8 `[C, H, W]`; None only fits it.
        seed: of the transforms.
    """

    def __init__(
        self,
        pictures: PictureSet,
        preprocessing: Preprocessing,
        transform: Callable[[Image.Image], Tensor] | None = None,
        seed: int = 0,
    ) -> None:
        self.pictures, self.preprocessing = pictures, preprocessing
        self.transform, self.seed = transform, seed
        self.channels = preprocessing.stored_channels or preprocessing.in_channels
        self.image_bytes = self.channels * preprocessing.image_size**2

    def __len__(self) -> int:
        return len(self.pictures.labels)

    def __getitem__(self, samples: Sequence[SampleIndex]) -> tuple[Tensor, Tensor] | InputError:
        """uint8 `[B, C, H, W]` and labels `[B]`; a damaged picture comes back as the error that names it.

        Raised in a worker, it would arrive with the worker's traceback in its message.
        """
        try:
            images = torch.stack([self._pixels(sample) for sample in samples])
        except InputError as error:
            return error
        return images, self.pictures.labels[[sample.number for sample in samples]]

    def _pixels(self, sample: SampleIndex) -> Tensor:
        picture = self.pictures.read(sample.number, self.channels)
        if self.transform is None:
            return to_pixels(self.preprocessing.fit(picture))
        with seeded(derive_seed(self.seed, *sample)):
            return self.transform(picture)


def unwrap(batch: tuple[Tensor, Tensor] | InputError) -> tuple[Tensor, Tensor]:
    """The images and labels of a batch of `PictureBatches`.

    Raises:
        InputError: it met a damaged picture.
    """
    if isinstance(batch, InputError):
        raise batch
    return batch


def in_order(count: int, batch_size: int) -> list[list[SampleIndex]]:
    """All pictures once, in batches; the last one may be smaller."""
    samples = [SampleIndex(0, index) for index in range(count)]
    return [samples[start : start + batch_size] for start in range(0, count, batch_size)]


def _outlive_signals(_: int) -> None:
    """SIGTERM and Ctrl-C reach every process: to end its step and save, a training needs its workers."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: signal.alarm(GRACE))


def check_shared_memory(batch_bytes: int, loading: Loading, processes: int = 1) -> None:
    """Make sure that prefetched batches fit into shared memory: one that does not is never sent.

    Args:
        batch_bytes: of one batch of one process.
        loading: with no field left open.
        processes: of the training, on this machine.

    Raises:
        InputError: it does not fit.
    """
    workers = loading.workers or 0
    if workers == 0 or not SHARED_MEMORY.is_dir():
        return
    needed = processes * batch_bytes * (workers * (loading.prefetch or 2) + 2)  # two more are in use
    free = shutil.disk_usage(SHARED_MEMORY).free
    if needed > free:
        raise InputError(
            f"{workers} workers keep {needed / 2**20:,.0f} MiB of images ready and {SHARED_MEMORY} has"
            f" {free / 2**20:,.0f} MiB free; enlarge it, as docker run --shm-size does, or take"
            " loading.workers=0 (with evaluate --workers 0)"
        )


def load_batches(
    batches: Dataset,
    order: Sequence[list[SampleIndex]] | object,
    loading: Loading,
    keep_workers: bool = False,
) -> DataLoader:
    """A loader over batches.

    Args:
        batches: makes them.
        order: sized and iterable: the samples of each batch.
        loading: with no field left open; see `Loading.on_machine`.
        keep_workers: keep them alive from epoch to epoch.
    """
    workers = loading.workers or 0
    return DataLoader(
        batches,
        sampler=order,  # type: ignore[arg-type]  # a batch is one indexing: batch_size None
        batch_size=None,
        num_workers=workers,
        pin_memory=bool(loading.pin_memory),
        prefetch_factor=loading.prefetch if workers else None,
        persistent_workers=keep_workers and workers > 0,
        collate_fn=identity,
        worker_init_fn=_outlive_signals,
        timeout=LONGEST_BATCH if workers else 0,
        generator=Generator(),  # without one of its own a loader draws from the shared one
    )
