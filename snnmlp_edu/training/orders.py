"""The order of pictures in every epoch: known from the seed and the epoch, wherever a run goes on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Generator, Tensor
from torch.utils.data import Sampler

from ..data.batches import Draw, mixed_seed
from ..errors import InputError

SHARDS_AT_ONCE = 16


class EpochBatches(Sampler[list[Draw]]):
    """The draws of each batch, each epoch in an order of its own; an incomplete last step is left out.

    Args:
        count: pictures are numbered 0 to `count - 1`.
        batch_size: pictures in a batch, over all processes.
        seed: of the orders.
        repeats: how often each picture of an epoch stands in it, one time after the other. The epoch keeps
            its length. With n processes, each takes every n-th picture: so do timm's processes.
        shards: the number of the file that each picture lies in, int64 `[N]`. Then the files are shuffled,
            and the pictures within each window of `SHARDS_AT_ONCE` files: few files are read at a time.
        accumulate: batches that make up one step.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        seed: int,
        repeats: int = 1,
        shards: Tensor | None = None,
        accumulate: int = 1,
    ) -> None:
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self.repeats, self.shards, self.accumulate = repeats, shards, accumulate
        self.share = (0, 1)
        self.epoch = self.begun_epoch = self.skip = 0

    def __len__(self) -> int:
        return self.count // (self.batch_size * self.accumulate) * self.accumulate

    def order(self, epoch: int) -> Tensor:
        """The numbers of an epoch's pictures in their order, repetitions behind each other, int64 `[N]`."""
        order = shuffled(self.count, Generator().manual_seed(mixed_seed(self.seed, epoch)), self.shards)
        return order.repeat_interleave(self.repeats)[: self.count]

    def __iter__(self) -> Iterator[list[Draw]]:
        # A loader may ask for an iterator more than once an epoch: nothing is counted here.
        skip = self.skip if self.epoch == self.begun_epoch else 0
        epoch, order = self.epoch, self.order(self.epoch)
        first, step = self.share
        starts = range(skip * self.batch_size, len(self) * self.batch_size, self.batch_size)
        places = (range(start + first, start + self.batch_size, step) for start in starts)
        return ([Draw(epoch, int(order[at]), at % self.repeats) for at in batch] for batch in places)

    def set_epoch(self, epoch: int) -> None:
        """Lightning says which epoch begins, as it says to PyTorch's distributed sampler."""
        self.epoch = epoch

    def state(self, trained: int, over: bool) -> dict[str, Any]:
        """Where the order is after so many batches of an epoch, or when it is over."""
        return {"epoch": self.epoch + over, "skip": 0 if over else trained}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.epoch = self.begun_epoch = state["epoch"]
        self.skip = state["skip"]


def shuffled(count: int, generator: Generator, shards: Tensor | None = None) -> Tensor:
    """The numbers 0 to `count - 1` in a random order; see `EpochBatches` for shards."""
    order = torch.randperm(count, generator=generator)
    if shards is None:
        return order
    places = torch.randperm(int(shards.max()) + 1, generator=generator)
    window = places[shards] // SHARDS_AT_ONCE  # [N]
    return order[window[order].argsort(stable=True)]


def own_share(batch_size: int, rank: int, processes: int) -> tuple[int, int]:
    """Which pictures of a batch a process takes: `(first, step)`.

    Raises:
        InputError: the batch cannot be shared out evenly.
    """
    if batch_size % processes:
        raise InputError(
            f"batch_size is {batch_size}, the images of a step on all {processes} devices; choose a multiple"
            f" of {processes}"
        )
    return rank, processes
