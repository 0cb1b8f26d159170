r"""Events: which spikes occurred, and the sum of the weight rows that they select.

A *bag* is one output place of a map: the list of table rows that are added there. Row 0 of every table
is the bias, and every bag holds it once; then comes one row for each spike that reaches the place:

.. math::
    y = b + \sum_{p:\, s_p = 1} W_{:p}

Finding the events compares, counts and copies; adding the rows is `embedding_bag`, whose sum is a gather
and an addition. No product is formed.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import InputError


class Events(NamedTuple):
    """Rows to add, bag after bag.

    `rows` is `[n]`, the numbers of the rows; bag i holds `rows[bounds[i] : bounds[i + 1]]`.
    """

    rows: Tensor
    bounds: Tensor

    @property
    def bags(self) -> int:
        """Number of bags."""
        return len(self.bounds) - 1


def is_watched() -> bool:
    """Whether a dispatch mode watches PyTorch's operations, as `audit` does."""
    return torch._C._len_torch_dispatch_stack() > 0


def find_events(*parts: Tensor) -> Events:
    """The spikes of each bag, from one place or from several, with the bias row first.

    Args:
        parts: spikes `[before, after, features]`, bag `(i, j)` the features at `[i, j]`; the features
            of several parts follow one another.

    Raises:
        InputError: a value is neither 0 nor 1.

    >>> find_events(torch.tensor([[[0.0, 1.0, 1.0]], [[0.0, 0.0, 0.0]]])).rows
    tensor([0, 2, 3, 0], dtype=torch.int32)
    """
    spikes = torch.cat([part.flatten(0, 1) for part in parts], dim=1)
    arriving = functional.pad(spikes, (1, 0), value=1.0)  # the bias
    fired = arriving != 0
    bags, rows = fired.nonzero().unbind(1)
    if not bool((arriving[bags, rows] == 1).all()):
        raise InputError("a value is neither 0 nor 1")
    return Events(rows.to(torch.int32), bounds_of(fired.sum(dim=1)))


def bounds_of(lengths: Tensor) -> Tensor:
    """Where each bag begins and the last one ends, for bags of these lengths."""
    return functional.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)


def shift_rows(events: Events, shifts: Tensor) -> Events:
    """Events of another table for each bag: bag i adds `shifts[i]` to its rows."""
    return Events(events.rows + shifts.repeat_interleave(events.bounds.diff()), events.bounds)


def join_bags(events: Events, places: Tensor, shifts: Tensor) -> Events:
    """Bags made of other bags: bag i takes the spikes of the bags `places[i]`, and the bias once.

    Args:
        events: bags of input places.
        places: `[bags, taps]`, the input place that each tap of each new bag looks at; `events.bags` means
            that it looks at none.
        shifts: `[taps]`, what each tap adds to the rows.
    """
    # The bias is the first of each bag: it is skipped here, and comes back as one more tap.
    begins = functional.pad(events.bounds[:-1] + 1, (0, 1))[places]
    lengths = functional.pad(events.bounds.diff() - 1, (0, 1))[places]
    begins, lengths = functional.pad(begins, (1, 0)), functional.pad(lengths, (1, 0), value=1)
    shares = lengths.flatten()
    ends = shares.cumsum(0)
    # Event k of the new list is as far from k as its bag began from where its share begins.
    moves = (begins.flatten() - ends + shares).repeat_interleave(shares)
    found = torch.ones_like(moves).cumsum(0) - 1 + moves  # without reading how many events there are
    added = functional.pad(shifts, (1, 0)).expand(lengths.shape).flatten().repeat_interleave(shares)
    rows = events.rows[found] + added
    return Events(rows.to(torch.int32), bounds_of(lengths.sum(dim=1)))


class RowTable(nn.Module):
    """Weight rows to add up.

    Args:
        rows: `[rows, out]`; row 0 is the bias, then one row for each input.
    """

    rows: Tensor

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.register_buffer("rows", rows.detach().contiguous())

    def forward(self, events: Events) -> Tensor:
        """The sum of each bag's rows, `[bags, out]`."""
        rows, bounds = events
        return functional.embedding_bag(rows, self.rows, bounds, mode="sum", include_last_offset=True)
