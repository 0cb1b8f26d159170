"""Where the values of a tensor come from: what is proven about them, and what is only seen."""

from __future__ import annotations

import math
from collections.abc import Iterable
from enum import Enum

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

Number = bool | int | float


class Origin(Enum):
    """What is known about a tensor's values for every input, not only for the one seen."""

    CONSTANT = "constant"
    """They do not depend on the data."""
    BINARY = "{0, 1}"
    """They do, and are 0 or 1, since a comparison made them."""
    INPUT = "input"
    """They are the model's own input, at most moved or shifted by constants."""
    REAL = "real"
    """They depend on the data and may be anything."""


class Origins:
    """The origin of every tensor met so far, by the memory that holds it: views share their base's.

    Memory is remembered by weak reference, so that watching a network keeps nothing of it alive.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[StorageWeakRef, Origin, str, bool]] = {}

    def get(self, tensor: Tensor) -> Origin | None:
        """The origin of a tensor, or None where it was never seen to be made."""
        if tensor.layout is not torch.strided:
            return None  # sparse: no memory of the kind that is followed here
        known = self._known.get(tensor.untyped_storage()._cdata)
        return None if known is None or known[0].expired() else known[1]

    def owner(self, tensor: Tensor) -> str:
        """The path of the module whose constants a tensor holds or was made of; empty if there is none."""
        return "" if self.get(tensor) is None else self._known[tensor.untyped_storage()._cdata][2]

    def elastic(self, tensor: Tensor) -> bool:
        """Whether the length of a tensor depends on the data, or may, for one that was never seen."""
        return self.get(tensor) is None or self._known[tensor.untyped_storage()._cdata][3]

    def set(self, tensor: Tensor, origin: Origin, owner: str = "", elastic: bool = False) -> None:
        """Remember the origin of all values in a tensor's memory; ones of an elastic length are data too."""
        if tensor.layout is not torch.strided:
            return
        if elastic and origin is Origin.CONSTANT:
            origin = Origin.REAL
        storage = tensor.untyped_storage()
        self._known[storage._cdata] = (StorageWeakRef(storage), origin, owner, elastic)

    def write(self, tensor: Tensor, origin: Origin, elastic: bool = False) -> None:
        """A tensor is about to be written to: what lies beside it in memory stays as it is."""
        before = self.get(tensor)
        if before not in (None, origin) and not _fills_its_memory(tensor):
            origin = join([(before or Origin.REAL, _whole_memory(tensor)), (origin, None)])
        self.set(tensor, origin, elastic=elastic or (before is not None and self.elastic(tensor)))


def join(parts: Iterable[tuple[Origin, Tensor | Number | None]]) -> Origin:
    """The origin of values of which each comes from one of several places.

    A constant among spikes keeps them binary if it is 0 or 1 itself. Where all are constants, the choice
    between them is what depends on the data.

    >>> join([(Origin.BINARY, None), (Origin.CONSTANT, 0.0)])
    <Origin.BINARY: '{0, 1}'>
    >>> join([(Origin.BINARY, None), (Origin.CONSTANT, 0.5)])
    <Origin.REAL: 'real'>
    """
    parts = list(parts)
    from_data = {origin for origin, _ in parts if origin is not Origin.CONSTANT}
    if from_data == {Origin.INPUT}:
        return Origin.INPUT
    if not parts or from_data - {Origin.BINARY}:
        return Origin.REAL
    constants = [value for origin, value in parts if origin is Origin.CONSTANT]
    binary = all(value is not None and is_binary(value) for value in constants)
    return Origin.BINARY if binary else Origin.REAL


def is_binary(values: Tensor | Number) -> bool:
    """Whether all values are 0 or 1.

    >>> is_binary(torch.tensor([0.0, 1.0])), is_binary(0.5)
    (True, False)
    """
    if isinstance(values, Tensor):
        return bool(((values == 0) | (values == 1)).all())
    return values in (0, 1)


def is_power_of_two(values: Tensor | Number) -> bool:
    """Whether all values are powers of two, so that a product with them is a shift.

    >>> is_power_of_two(0.25), is_power_of_two(torch.tensor([1.0, 3.0])), is_power_of_two(0)
    (True, False, False)
    """
    if isinstance(values, Tensor):
        return bool((torch.frexp(values.double()).mantissa == 0.5).all())
    return math.frexp(values)[0] == 0.5


def in_words(values: Tensor | Number) -> str:
    """Values as a reader wants to see them: a small set, a range of whole numbers, or `real`.

    >>> in_words(torch.tensor([0.0, 1.0, 1.0])), in_words(torch.linspace(0, 1, 9))
    ('{0, 1}', 'real')
    """
    if not isinstance(values, Tensor):
        return f"{values:g}"
    flat = values.flatten()
    if flat.numel() == 0:
        return "nothing"
    few = torch.cat((flat[:: max(1, flat.numel() // 4096)], flat.amin()[None], flat.amax()[None])).unique()
    if len(few) <= 4 and bool(torch.isin(flat, few).all()):
        return "{" + ", ".join(f"{value:g}" for value in few.tolist()) + "}"
    if not values.is_floating_point() or bool((flat == flat.round()).all()):
        return f"whole numbers {few[0].item():g} to {few[-1].item():g}"
    return "real"


def _fills_its_memory(tensor: Tensor) -> bool:
    dense = tensor.numel() * tensor.element_size() == tensor.untyped_storage().nbytes()
    return dense and 0 not in tensor.stride()


def _whole_memory(tensor: Tensor) -> Tensor:
    size = tensor.untyped_storage().nbytes() // tensor.element_size()
    return tensor.detach().as_strided((size,), (1,), 0)
