"""Where the values of a tensor come from: what is proven about them, and what is only seen."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from types import NoneType
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._pytree import tree_leaves

Number = bool | int | float

# What holds nothing else, in what calls take and give back.
_SINGLE = frozenset({Tensor, nn.Parameter, bool, int, float, str, NoneType, torch.dtype, torch.device})


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


@dataclass
class _Memory:
    """What is known of one piece of memory."""

    reference: StorageWeakRef
    origin: Origin | None
    owner: str
    data_dependent_shape: bool
    dtype: torch.dtype
    frozen: bool = False


class Origins:
    """The origin of every tensor met so far, by the memory that holds it: views share their base's.

    Memory is remembered by weak reference, so that watching a network keeps nothing of it alive.
    """

    def __init__(self) -> None:
        self._known: dict[int, _Memory] = {}

    def _of(self, tensor: Tensor) -> _Memory | None:
        storage = memory(tensor)
        known = None if storage is None else self._known.get(storage._cdata)
        return None if known is None or known.reference.expired() else known

    def get(self, tensor: Tensor) -> Origin | None:
        """The origin of a tensor, or None where nothing is known of its values.

        So it is where it was never seen to be made, has no plain memory, or reads data as numbers of
        another type than they were written in.
        """
        known = self._of(tensor)
        if known is None or (known.origin is not Origin.CONSTANT and known.dtype != tensor.dtype):
            return None
        return known.origin

    def owner(self, tensor: Tensor) -> str:
        """The path of the module whose constants a tensor holds or was made of; empty if there is none."""
        known = self._of(tensor)
        return "" if known is None else known.owner

    def data_dependent_shape(self, tensor: Tensor) -> bool:
        """Whether the length of a tensor depends on the data, or may, for one that was never seen."""
        known = self._of(tensor)
        return known is None or known.data_dependent_shape

    def frozen(self, tensor: Tensor) -> bool:
        """Whether a tensor's memory must not be written to any more."""
        known = self._of(tensor)
        return known is not None and known.frozen

    def set(
        self, tensor: Tensor, origin: Origin | None, owner: str = "", data_dependent_shape: bool = False
    ) -> None:
        """Remember the origin of all values in a tensor's memory; a data-dependent shape makes them data."""
        storage = memory(tensor)
        if storage is None:
            return
        if data_dependent_shape and origin is Origin.CONSTANT:
            origin = Origin.REAL
        facts = (origin, owner, data_dependent_shape, tensor.dtype, self.frozen(tensor))
        self._known[storage._cdata] = _Memory(StorageWeakRef(storage), *facts)

    def write(self, tensor: Tensor, origin: Origin, data_dependent_shape: bool = False) -> None:
        """A tensor is about to be written to: what is next to it in memory stays as it is."""
        known, before = self._of(tensor), self.get(tensor)
        written: Origin | None = origin
        if known is not None and known.dtype != tensor.dtype:
            written = None  # the bits of numbers of another type
        elif before not in (None, origin) and not _fills_its_memory(tensor):
            written = join([(before or Origin.REAL, _whole_memory(tensor)), (origin, None)])
        self.set(
            tensor,
            written,
            data_dependent_shape=data_dependent_shape or (known is not None and known.data_dependent_shape),
        )

    def stretch(self, tensor: Tensor) -> None:
        """The length of a tensor turns out to depend on the data, and so do its values."""
        self.set(tensor, self.get(tensor), self.owner(tensor), data_dependent_shape=True)

    def freeze(self, tensor: Tensor) -> None:
        """From now on a tensor's memory must stay as it is: something unseen may read it."""
        known = self._of(tensor)
        if known is not None:
            known.frozen = True


def leaves(given: Any) -> list[Any]:
    """All that lists, tuples and dictionaries hold, and what they hold themselves.

    So does `tree_leaves`, which is asked where there is anything else, and takes ten times as long.

    >>> leaves(([1, None], {"a": (2.0, [])}))
    [1, None, 2.0]
    """
    kind = type(given)
    if kind in _SINGLE:
        return [given]
    if kind is tuple or kind is list:
        return [leaf for each in given for leaf in leaves(each)]
    if kind is dict:
        return [leaf for each in given.values() for leaf in leaves(each)]
    return tree_leaves(given)


def unwrapped(tensor: Tensor) -> Tensor:
    """The tensor with values that a function transform of PyTorch, such as `vmap`, has wrapped."""
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor


def memory(tensor: Tensor) -> torch.UntypedStorage | None:
    """What holds the values of a tensor, or None where that cannot be followed.

    So it is for classes of other code, which decide themselves what their operations do, and for tensors
    that are sparse, nested, quantised or wrapped: they are no plain row of numbers.
    """
    if type(tensor) not in (Tensor, nn.Parameter) or tensor.layout is not torch.strided:
        return None
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor) or tensor.is_nested or tensor.is_quantized:
        return None
    return tensor.untyped_storage()


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


def is_recording(images: Tensor) -> bool:
    """Whether a network's input is spikes: it has a time axis, and its values are 0 and 1, not 0 alone.

    Images without a time axis are pixels, also where all of them are black or white.

    >>> events = torch.eye(4).expand(3, 1, 2, 4, 4)  # [T, B, channels, H, W]
    >>> is_recording(events), is_recording(0.5 * events), is_recording(events[0])
    (True, False, False)
    """
    return images.ndim == 5 and bool(images.any()) and is_binary(images)


def is_power_of_two(values: Tensor | Number) -> bool:
    """Whether all values are powers of two or their negatives, so that a product with them is a shift.

    >>> is_power_of_two(-0.25), is_power_of_two(torch.tensor([1.0, 3.0])), is_power_of_two(0)
    (True, False, False)
    """
    if isinstance(values, Tensor):
        return bool((torch.frexp(values.double()).mantissa.abs() == 0.5).all())
    return abs(math.frexp(values)[0]) == 0.5


def is_choice_or_shift(values: Tensor | Number) -> bool:
    """Whether all values are 0 or a power of two or its negative: a product drops, shifts or negates.

    >>> is_choice_or_shift(torch.tensor([0.0, -1.0, 0.5])), is_choice_or_shift(3)
    (True, False)
    """
    if isinstance(values, Tensor):
        return is_power_of_two(values[values != 0])
    return values == 0 or is_power_of_two(values)


def is_sign(values: Tensor | Number) -> bool:
    """Whether all values are -1, 0 or 1.

    >>> is_sign(torch.tensor([0.0, -1.0])), is_sign(0.5)
    (True, False)
    """
    return is_binary(values.abs() if isinstance(values, Tensor) else abs(values))


def is_whole(values: Tensor | Number) -> bool:
    """Whether all values are whole numbers.

    >>> is_whole(torch.tensor([2.0, -1.0])), is_whole(0.5)
    (True, False)
    """
    if isinstance(values, Tensor):
        return not values.is_floating_point() or bool((values == values.trunc()).all())
    return values == int(values)


def in_words(values: Tensor | Number) -> str:
    """Values as a reader wants to see them: a small set, a range of whole numbers, or `real`.

    >>> in_words(torch.tensor([0.0, 1.0, 1.0])), in_words(torch.linspace(0, 1, 9))
    ('{0, 1}', 'real')
    """
    if not isinstance(values, Tensor):
        return f"{values:g}"
    flat = values.flatten().byte() if values.dtype is torch.bool else values.flatten()
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
