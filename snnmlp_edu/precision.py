"""Single precision, whatever PyTorch's default type is: the one in which networks are trained and stored."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def single_precision() -> Iterator[None]:
    """Within it, new tensors of floating point have 32 bit; afterwards the default type is as it was.

    >>> with single_precision():
    ...     torch.zeros(1).dtype
    torch.float32
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
