r"""Where data leave PyTorch: calls on tensors that give back something else than tensors.

A number that Python got hold of can be multiplied, or be a factor later on, and no operation shows it. So
the audit does not follow numbers, it refuses their departure:

- *values*: `numpy`, `tolist`, `str`, a memory address (`item` and its kin are operations, refused there);
- *lengths* that depend on the data. A tensor is **elastic** where its number of entries does, as that of a
  list of spikes: `nonzero`, an index by a mask, `unique`, and all that is made of such a list entry by entry.
  To gather weights by it and add them is what an event-driven run does, and allowed; to read how long it is
  tells Python how many spikes there were, and is refused, in whatever way it is read.

This is stricter than it would have to be, since a length may be read for good reasons, and it is sound
without any knowledge of what Python does with numbers. Who needs the length inside PyTorch has it: ones in
the likeness of an elastic tensor, summed. Their sum counts as data, and a product with it is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._ops import OpOverload, OpOverloadPacket
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from .judgement import ALWAYS
from .operations import BAGS, Kind
from .origins import Origin, Origins
from .report import AuditedOperation

# What a call gives back that tells nothing of values and lengths.
_PLAIN = (
    Tensor,
    torch.dtype,
    torch.device,
    torch.layout,
    torch.memory_format,
    bool,
    type(None),
    type(NotImplemented),
)
_FACTS = frozenset(
    {"__hash__", "_version", "dim", "element_size", "get_device", "is_inference", "itemsize", "names"}
    | {"ndim", "ndimension", "output_nr", "storage_offset", "type"}
)
_LENGTHS = frozenset(
    {"__len__", "_shape_as_tensor", "is_contiguous", "is_same_size", "nbytes", "nelement", "numel"}
    | {"shape", "size", "stride"}
)
# The dispatcher sees these as `_local_scalar_dense`.
_OPERATIONS = frozenset({"item", "__int__", "__float__", "__index__", "__complex__"})
# They hand values to a function of Python's, and give back a tensor.
_CALLBACKS = frozenset({"apply_", "map_", "map2_"})

# Whose length the result has, where it is not that of all operands.
_SIZED_BY = dict.fromkeys(("index_add", "index_copy", "index_put", "scatter", "scatter_add"), "self")
_SIZED_BY |= dict.fromkeys(BAGS, "offsets")


class Exits(TorchFunctionMode):
    """Sees every call on a tensor that Python makes, and writes a row about those by which data leave.

    Args:
        origins: what is known of the tensors.
        rows: one for each operation so far.
        path: says which module runs.
    """

    def __init__(self, origins: Origins, rows: list[AuditedOperation], path: Callable[[], str]) -> None:
        super().__init__()
        self._origins, self._rows, self._path = origins, rows, path
        self._found: Any = None  # what `nonzero` has just given back
        self.calls = 0  # that Python made and that still run

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the call, and refuse it if data leave by it."""
        kwargs = kwargs or {}
        before = len(self._rows)
        self.calls += 1
        try:
            result = func(*args, **kwargs)
        finally:
            self.calls -= 1
        name = _name(func)
        reason = self._out_of_sight(func, before) or self._leaves(name, args, kwargs, result)
        self._found = result if name == "nonzero" else None
        if reason:
            row = AuditedOperation(
                self._path(), f"Tensor.{name}", Kind.UNKNOWN, "data", (), 0, ALWAYS, reason
            )
            self._rows.append(row)
        return result

    def _out_of_sight(self, func: Any, before: int) -> str | None:
        """Why nobody sees what runs inside a call, if so."""
        if isinstance(func, OpOverload | OpOverloadPacket):
            library = str(func).partition(".")[0]
            seen = library == "aten" or any(row.name.startswith(library) for row in self._rows[before:])
            return None if seen else f"{func} is no operation of PyTorch's own"
        own = not isinstance(func, FunctionType) or func.__module__.partition(".")[0] == "torch"
        return None if own else "it stands in for a call of PyTorch's, and runs out of sight"

    def _leaves(self, name: str, args: Any, kwargs: Any, result: Any) -> str | None:
        """How data leave by a call, if they do."""
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if all(self._origins.get(tensor) is Origin.CONSTANT for tensor in given):
            return None
        counts = name in _LENGTHS or _pieces(result)
        if counts and any(map(self._origins.elastic, given)) and not self._columns(name, args, kwargs):
            return "a length that depends on the data is read, and could be a factor unseen"
        if name in _CALLBACKS or not _keeps(name, result):
            return f"data leave PyTorch by {name}, and no product on them can be seen from there on"
        return None

    def _columns(self, name: str, args: Any, kwargs: Any) -> bool:
        """Whether a call takes the columns of what `nonzero` just found: one for each axis searched."""
        return name == "unbind" and args[0] is self._found and (*args[1:], *kwargs.values()) in ((1,), (-1,))


def _name(func: Any) -> str:
    """The name of a function, a method, or an attribute."""
    name = getattr(func, "__name__", str(func))
    return func.__self__.__name__ if name in ("__get__", "__set__") else name


def _pieces(result: Any) -> bool:
    """Whether a list of tensors came back, whose length is a number; a named tuple has a fixed one."""
    return type(result) in (list, tuple) and any(isinstance(part, Tensor) for part in result)


def _keeps(name: str, result: Any) -> bool:
    """Whether what came back tells nothing of the values."""
    if isinstance(result, tuple | list) and type(result) is not torch.Size:
        tensors = all(isinstance(leaf, Tensor | None) for leaf in tree_leaves(result))
        return tensors or name in _FACTS | _LENGTHS
    return isinstance(result, _PLAIN) or result is NotImplemented or name in _FACTS | _LENGTHS | _OPERATIONS


class Elastic(NamedTuple):
    """Whether what an operation returns is elastic: its first result, and all others."""

    first: bool
    others: bool


def elastic_results(
    func: OpOverload, name: str, operands: Sequence[Any], arguments: dict[str, Any]
) -> Elastic:
    """Whether an operation returns elastic tensors.

    Args:
        func: the operation; PyTorch itself tags those whose values decide a length.
        name: its name without overload.
        operands: what goes in, each an `Operand`.
        arguments: its arguments by name.
    """
    sized_by = _SIZED_BY.get(name)
    carried = [operand.name for operand in operands if operand.elastic]
    made = torch.Tag.dynamic_output_shape in func.tags and any(operand.varies for operand in operands)
    if name == "index":
        indices = [leaf for leaf in tree_leaves(arguments["indices"]) if isinstance(leaf, Tensor)]
        made &= any(index.dtype in (torch.bool, torch.uint8) for index in indices)
    first = made or (bool(carried) if sized_by is None else sized_by in carried)
    return Elastic(first, made or bool(carried))
