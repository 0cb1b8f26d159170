r"""Where data leave PyTorch: calls on tensors that give back something else than tensors.

A number that Python got hold of can be multiplied, or be a factor later on, and no operation shows it. So
the audit does not follow numbers, it refuses their departure:

- *values*: `numpy`, `tolist`, `str`, a memory address (`item` and its kin are operations, refused there);
- *lengths* that depend on the data. A tensor has a **data-dependent shape** where its number of entries
  does, like a list of spikes: the results of `nonzero`, an index by a mask or `unique`, and all that is made
  of such a list entry by entry.
  To gather weights by it and add them is what an event-driven run does, and allowed; to read how long it is,
  or where a piece of it begins, tells Python how many spikes there were, and is refused, in whatever way it
  is read;
- *anything else*: what a call may tell of a tensor is on a list, and what is not on it is refused. So is
  a call inside which other code could run unseen, since PyTorch does not watch what happens inside a call:
  one that takes a function, an object or a tensor of other code, and one that reads data which no operation
  met. A call that fails is refused too: the code that catches the error learns something.

This is stricter than it would have to be, since a length may be read for good reasons, and it is sound
without any knowledge of what Python does with numbers. Code that needs the length inside PyTorch can sum
`ones_like` of such a tensor: the sum counts as data, and a product with it is seen.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from types import BuiltinFunctionType, FunctionType, GetSetDescriptorType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._ops import HigherOrderOperator, OpOverload, OpOverloadPacket
from torch.overrides import TorchFunctionMode

from .judgement import ALWAYS
from .operations import BAGS, ON_EACH, Kind, names
from .origins import Origin, Origins, leaves, memory, unwrapped
from .report import AuditedOperation

LENGTH = "a length that depends on the data is read, and could be a factor unseen"

# Types whose values say how a tensor is stored, and never what it holds.
_STORED_AS = (torch.dtype, torch.device, torch.layout, torch.memory_format, type(NotImplemented))
# They tell the same of every tensor of these axes and this type.
_FACTS = names("""
    __hash__ dim element_size get_device grad grad_fn has_names is_complex is_conj is_cpu is_cuda
    is_floating_point is_inference is_ipu is_leaf is_maia is_meta is_mkldnn is_mps is_mtia is_neg is_nested
    is_quantized is_signed is_sparse is_sparse_csr is_tensor is_vulkan is_xla is_xpu itemsize ndim ndimension
    output_nr requires_grad retains_grad type
    """)
_LENGTHS = names("""
    __len__ _shape_as_tensor dim_order is_contiguous is_same_size nbytes nelement numel shape size
    storage_offset stride
    """)
# The dispatcher sees their yes or no, or their number, as an operation.
_OPERATIONS = names("""
    __bool__ __complex__ __contains__ __float__ __index__ __int__ allclose equal is_nonzero item
    """)
# They give back nothing, and what they write is seen.
_WRITING = frozenset({"__setitem__", "_assert_async"})
# They hand values to a function of Python's, and give back a tensor.
_CALLBACKS = frozenset({"apply_", "map_", "map2_"})
# They take the shape or the type of a second tensor, and nothing else of it.
_LIKENESSES = frozenset(
    {"expand_as", "view_as", "reshape_as", "type_as", "to", "broadcast_tensors", "meshgrid"}
)
# Where the classes of arguments come from that run no code of their own.
_KNOWN_CLASSES = frozenset({"builtins", "numpy", "torch"})

# Arguments whose length the result has, where it is not that of all operands.
_SIZED_BY = dict.fromkeys(
    ("index_add", "index_copy", "index_put", "scatter", "scatter_add", "scatter_reduce", "index_reduce"),
    "self",
)
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
        self._met: set[int] = set()  # memory of which an operation of the call that runs has read
        self.calls = 0  # that Python made and that still run
        self.checks = False  # whether numbers go no further than to a check of PyTorch's own

    def meet(self, tensors: Sequence[Tensor]) -> None:
        """An operation reads these tensors."""
        self._met |= _places(tensors)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the call, and refuse it if data leave by it."""
        kwargs = kwargs or {}
        name, before = _name(func), len(self._rows)
        arguments = list(_arguments((args, kwargs)))
        given = [unwrapped(leaf) for leaf in arguments if isinstance(leaf, Tensor)]
        reason = _foreign_argument(name, arguments)
        outer = self._met, self.checks
        self._met, self.checks = set(), _is_checked(name, args, kwargs)
        self.calls += 1
        try:
            result = self._take(*args) if self._chosen(name, args) else func(*args, **kwargs)
        except Exception:
            if any(map(self._varies, given)):
                self._refuse(name, "it fails, and code that catches the error learns about the data")
            raise
        finally:
            self.calls -= 1
            met = self._met
            self._met, self.checks = outer[0] | met, outer[1]
        if reason is None:
            reason = self._out_of_sight(func, before) or self._leaves(name, given, result, met)
            if reason is LENGTH and self._columns(name, args, kwargs):
                reason = None
        self._found = result if name == "nonzero" else None
        if reason:
            self._refuse(name, reason)
        return result

    def _refuse(self, name: str, reason: str) -> None:
        row = AuditedOperation(self._path(), f"Tensor.{name}", Kind.UNKNOWN, "data", (), 0, ALWAYS, reason)
        self._rows.append(row)

    def _varies(self, tensor: Tensor) -> bool:
        return self._origins.get(tensor) is not Origin.CONSTANT

    def _chosen(self, name: str, args: Any) -> bool:
        """Whether a call indexes by a position that the data chose."""
        if name != "__getitem__":
            return False
        keys = args[1] if isinstance(args[1], tuple) else (args[1],)
        positions = [key for key in keys if isinstance(key, Tensor)]
        others = (key for key in keys if not isinstance(key, Tensor))
        return (
            any(map(self._varies, positions))
            and all(map(_is_position, positions))
            and all(key is None or key is Ellipsis or type(key) in (int, slice) for key in others)
        )

    def _take(self, tensor: Tensor, key: Any) -> Tensor:
        """The value at a position, as a copy; neither it nor its source may be written to afterwards.

        PyTorch itself takes the position as a number of Python's and makes a view of that place in memory.
        """
        keys = key if isinstance(key, tuple) else (key,)
        spread = tensor.ndim - sum(each is not None and each is not Ellipsis for each in keys)
        positions: list[Tensor | None] = []
        for each in keys:
            if isinstance(each, Tensor):
                positions.append(each)
            elif not isinstance(each, int):
                positions += [None] * (spread if each is Ellipsis else 1)
        others = tuple(slice(None) if isinstance(each, Tensor) else each for each in keys)
        taken: Tensor = torch.ops.aten.index.Tensor(tensor[others], positions)
        self._origins.freeze(unwrapped(tensor))
        self._origins.freeze(unwrapped(taken))
        return taken

    def _out_of_sight(self, func: Any, before: int) -> str | None:
        """Why what runs inside a call is not seen, if so."""
        if isinstance(func, OpOverload | OpOverloadPacket):
            library = str(func).partition(".")[0]
            seen = library == "aten" or any(row.name.startswith(library) for row in self._rows[before:])
            return None if seen else f"{func} is not one of PyTorch's own operations"
        return None if _is_own(func) else "it replaces a call of PyTorch's, and runs unseen"

    def _leaves(self, name: str, given: list[Tensor], result: Any, met: set[int]) -> str | None:
        """How data leave by a call, if they do."""
        results = [unwrapped(leaf) for leaf in leaves(result) if isinstance(leaf, Tensor)]
        if any(type(leaf) not in (Tensor, nn.Parameter) for leaf in results):
            return "it gives back a tensor of a class of its own, which decides itself what operations do"
        varying = list(filter(self._varies, given))
        if not varying:
            if not _keeps(name, result):
                for tensor in given:  # a view of its memory may be out there, such as an array of NumPy's
                    self._origins.freeze(tensor)
            return None
        data_dependent_shape = any(map(self._origins.data_dependent_shape, varying))
        if data_dependent_shape and (name in _LENGTHS or _pieces(result)):
            return LENGTH
        if name in _CALLBACKS or not _keeps(name, result):
            return f"data leave PyTorch by {name}, and no product on them can be seen from there on"
        unseen = _places(varying) - met - _places(results)
        if results and unseen and name not in _LIKENESSES | _FACTS | _LENGTHS:
            return "it reads data that no operation met"
        if data_dependent_shape and name.rstrip("_") not in _SIZED_BY and name != "embedding_bag":
            for leaf in results:
                if leaf.ndim > 0 and not self._origins.data_dependent_shape(leaf):
                    self._origins.stretch(leaf)
        return None

    def _columns(self, name: str, args: Any, kwargs: Any) -> bool:
        """Whether a call takes the columns of what `nonzero` just found: one for each axis searched."""
        return name == "unbind" and args[0] is self._found and (*args[1:], *kwargs.values()) in ((1,), (-1,))


def _name(func: Any) -> str:
    """The name of a function, a method, or an attribute."""
    name = getattr(func, "__name__", str(func))
    if name in ("__get__", "__set__", "__delete__"):
        owner = func.__self__
        name = getattr(owner, "fget", owner).__name__
    return str(name)


def _arguments(given: Any) -> Iterator[Any]:
    """What a call is given, one by one, and what slices hold."""
    for leaf in leaves(given):
        if isinstance(leaf, slice):
            yield from (leaf.start, leaf.stop, leaf.step)
        else:
            yield leaf


def _foreign_argument(name: str, arguments: Sequence[Any]) -> str | None:
    """Why an argument of a call could run code that is not seen, if so; the branches of `cond` are seen."""
    for leaf in arguments:
        kind = type(leaf)
        if isinstance(leaf, Tensor) and kind not in (Tensor, nn.Parameter):
            return f"it meets a {kind.__name__}, a class of tensors that decides itself what operations do"
        runs = callable(leaf) and not isinstance(leaf, type) and name != "cond"
        if runs or kind.__module__.partition(".")[0] not in _KNOWN_CLASSES:
            return f"it is given a {kind.__name__}, whose code could run inside the call, unseen"
    return None


def _is_own(func: Any) -> bool:
    """Whether a function that claims to be PyTorch's is."""
    if isinstance(func, HigherOrderOperator) or func is torch.device:
        return True
    if isinstance(func, FunctionType):
        module = str(func.__globals__.get("__name__"))
        own = module.partition(".")[0] == "torch" and module in sys.modules
        return own and vars(sys.modules[module]) is func.__globals__
    of = getattr(func, "__objclass__", None)
    if of is GetSetDescriptorType:  # an attribute that C has written
        return func.__self__.__objclass__ in Tensor.__mro__
    if of is property:
        return any(func.__self__ is attribute for attribute in vars(Tensor).values())
    if of is not None:
        return of in Tensor.__mro__
    return isinstance(func, BuiltinFunctionType) and str(func.__module__).partition(".")[0] == "torch"


def _is_position(key: Tensor) -> bool:
    return key.ndim == 0 and not key.is_floating_point() and key.dtype not in (torch.bool, torch.uint8)


def _is_checked(name: str, args: Any, kwargs: Any) -> bool:
    """Whether a call only makes sure that the classes of `one_hot` are in the range that Python gave."""
    classes = args[1] if len(args) > 1 else kwargs.get("num_classes", -1)
    return name == "one_hot" and isinstance(classes, int) and classes > 0


def _places(tensors: Sequence[Tensor]) -> set[int]:
    """Which memory tensors are stored in."""
    return {storage._cdata for storage in map(memory, tensors) if storage is not None}


def _pieces(result: Any) -> bool:
    """Whether a list of tensors came back, whose length is a number; a named tuple has a fixed one."""
    return type(result) in (list, tuple) and any(isinstance(part, Tensor) for part in result)


def _keeps(name: str, result: Any) -> bool:
    """Whether what came back tells nothing of the values."""
    if name in _FACTS | _LENGTHS | _OPERATIONS or isinstance(result, (Tensor, *_STORED_AS)):
        return True
    if isinstance(result, tuple | list) and type(result) is not torch.Size:
        parts = leaves(result)
        return bool(parts) and all(isinstance(part, Tensor | None) for part in parts)
    return result is None and (name in _WRITING or name.startswith(ON_EACH))


class DataDependentShape(NamedTuple):
    """Whether what an operation returns has a data-dependent shape: its first result, and all others."""

    first: bool
    others: bool


def data_dependent_results(
    func: OpOverload, name: str, operands: Sequence[Any], arguments: dict[str, Any]
) -> DataDependentShape:
    """Whether an operation returns tensors of data-dependent shape.

    Args:
        func: the operation; PyTorch itself tags those whose values decide a length.
        name: its name without overload.
        operands: what goes in, each an `Operand`.
        arguments: its arguments by name.
    """
    sized_by = _SIZED_BY.get(name)
    carried = [operand.name for operand in operands if operand.data_dependent_shape]
    made = torch.Tag.dynamic_output_shape in func.tags and any(operand.varies for operand in operands)
    if name == "index":
        indices = [leaf for leaf in leaves(arguments["indices"]) if isinstance(leaf, Tensor)]
        made &= any(index.dtype in (torch.bool, torch.uint8) for index in indices)
    first = made or (bool(carried) if sized_by is None else sized_by in carried)
    return DataDependentShape(first, made or bool(carried))
