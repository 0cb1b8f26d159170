"""The order of images in every epoch: it follows from the seed and the epoch alone, also in a resumed run."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Generator, Tensor
from torch.utils.data import Sampler

from ..data.batches import SampleIndex, derive_seed
from ..errors import InputError


class EpochBatches(Sampler[list[SampleIndex]]):
    """The samples of each batch, each epoch in its own order; an incomplete last step is left out.

    Args:
        count: images are numbered 0 to `count - 1`.
        batch_size: images per batch, over all processes.
        seed: of the orders.
        repeats: how often each image of an epoch occurs in it, one time after the other. The epoch keeps
            its length. With n processes, each takes every n-th image: so do timm's processes.
        accumulate: batches that make up one step.
    """

    def __init__(self, count: int, batch_size: int, seed: int, repeats: int = 1, accumulate: int = 1) -> None:
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self.repeats, self.accumulate = repeats, accumulate
        self.rank, self.world_size = 0, 1
        self.epoch, self.first, self.end = 0, 0, len(self)

    def __len__(self) -> int:
        return self.count // (self.batch_size * self.accumulate) * self.accumulate

    def order(self, epoch: int) -> Tensor:
        """The numbers of an epoch's images in their order, repetitions one after the other, int64 `[N]`."""
        generator = Generator().manual_seed(derive_seed(self.seed, epoch))
        order = torch.randperm(self.count, generator=generator)
        return order.repeat_interleave(self.repeats)[: self.count]

    def begin(self, epoch: int, first: int = 0, end: int | None = None) -> None:
        """Say which batches of which epoch the next iterators give: from `first` up to `end`."""
        self.epoch, self.first, self.end = epoch, first, len(self) if end is None else end

    def __iter__(self) -> Iterator[list[SampleIndex]]:
        # A loader may ask for an iterator more than once per epoch: nothing is counted here.
        epoch, order = self.epoch, self.order(self.epoch)
        starts = range(self.first * self.batch_size, self.end * self.batch_size, self.batch_size)
        positions = (range(start + self.rank, start + self.batch_size, self.world_size) for start in starts)
        return (
            [SampleIndex(epoch, int(order[at]), at % self.repeats) for at in batch] for batch in positions
        )

    def share_out(self, rank: int, world_size: int) -> None:
        """Give only what the process of this rank takes of every batch.

        Raises:
            InputError: a batch cannot be shared out evenly.
        """
        if self.batch_size % world_size:
            raise InputError(
                f"batch_size is {self.batch_size}, the images of a step on all {world_size} devices; choose a"
                f" multiple of {world_size}"
            )
        self.rank, self.world_size = rank, world_size
