r"""Is a network multiplication-free? Watch every operation that PyTorch runs, and judge it.

The audit looks below modules, at the operations and tensors that really flow: what a hook, a functional
call, a parametrisation or a custom autograd function does is seen as well as what a layer does. The verdict
rests on two things, and each row says on which: on structure, where the operand is the output of a
comparison and so in {0, 1} for every input; and on the values at the moment of use, for the inputs given.

**What is proven.** If there is no violation, then in the run that the audit watched, PyTorch's own
operations multiplied or divided data nowhere but in the stem, except by plus or minus a power of two; and
every map outside the stem met values in {0, 1} only. If all rows hold for all inputs, this is so for every
input of this shape and type.

**For which code.** For what the model's `forward` runs in the thread that calls it, as PyTorch's own
operations, called from Python. A custom operation, a kernel that other code registered in the place of
PyTorch's, a class of tensors with operations of its own, a script, or code that would run inside a call of
PyTorch's is a violation, for it cannot be watched. So is a number that depends on the data and leaves
PyTorch, as a value or as a length (`snnmlp_edu.mfi.auditing.exits`): numbers are not followed into Python.
Only a yes or no may leave, to steer the run, and then the verdict holds for the inputs seen. A compiled
function is judged as it is written, not as the compiler renders it.

**What is out of scope.**

- *Products put together from what is allowed.* Shifts and additions, chosen by the digits of a factor,
  multiply (shift-and-add); so does a table of products from which the data pick an entry. Both pass.
- *Yes and no, bit by bit.* Python can put any number together from answers. The verdict then holds for the
  inputs seen, and what Python does with the number is not seen.
- *What leaves PyTorch unseen.* Another thread or process, code that switches PyTorch's modes off, a raw
  pointer or capsule (`torch.utils.dlpack.to_dlpack`), and memory that other code got hold of before.
- *A model that behaves while it is watched*, because it asks whether it is, or that holds numbers which
  earlier calls left in it: they are constants of the model as it is handed over.
- *The machine.* A dense matrix product multiplies by 0.0 and 1.0; the audit says that it need not.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.overrides import _pop_mode as pop_function_mode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._python_dispatch import _pop_mode as pop_dispatch_mode

from ...errors import InputError
from ...fields import nearest
from .exits import DataDependentShape, Exits, data_dependent_results
from .judgement import VALUES, Call, Judgement, Operand, Stem, judge
from .kernels import Kernels, replaced_operations
from .operations import KINDS, MAPS, ON_EACH, OVERWRITES, RANDOM, Kind, base_name
from .origins import Origin, Origins, is_recording, leaves, memory
from .report import AuditedOperation, AuditReport


def audit(model: nn.Module, images: Tensor, stem: str | Sequence[str] | None = None) -> AuditReport:
    """Run a model on images, watch every operation, and say whether it is multiplication-free.

    It is where every linear map outside the stem meets values in {0, 1} only, and no other product,
    division or normalisation of data is left: additions, comparisons, selections, and products with
    constants that are 0 or plus or minus a power of two, which drop, negate or shift. Work on constants alone
    is listed and allowed. An operation that is not PyTorch's own, or that the audit does not know, is a
    violation, and so is a number that depends on the data and leaves PyTorch. Operations are counted dense,
    as if every spike were there.

    The verdict is about the run that was watched, and about all inputs where every row says so. Beyond it
    are products put together from allowed operations (shift-and-add, tables of products), numbers that
    Python reads bit by bit through yes and no, and what leaves PyTorch unseen, in another thread or by a
    pointer: `snnmlp_edu.mfi.auditing.audit` has the exact statement.

    The model runs once, without gradients; compiled functions run operation by operation then. Audits may
    run in several threads at once.

    Args:
        model: any module, in evaluation mode.
        images: what to call it with, such as `[B, channels, H, W]`. A recording, `[T, B, channels, H, W]`,
            with values 0 and 1 alone is spikes: its stem adds, too, for the inputs seen.
        stem: paths of the modules that may multiply; None takes the first linear map of it.

    Returns:
        The report: `.multiplication_free`, `.layers`, `.violations`; `str` of it is a table.

    Raises:
        InputError: the model is in training mode, holds NaN or raises an error, the images are empty or
            hold NaN, or there is no module of a name given as stem.

    Source: multiplication-free inference, arXiv 2306.12465, section III-D.

    >>> class Fires(nn.Module):
    ...     def forward(self, current):
    ...         return (current >= 1).to(current.dtype)
    >>> model = nn.Sequential(nn.Linear(4, 8), Fires(), nn.Linear(8, 2)).eval()
    >>> audit(model, torch.randn(3, 4)).multiplication_free
    True
    >>> model[1] = nn.Sigmoid()
    >>> [row.name for row in audit(model.eval(), torch.randn(3, 4)).violations]
    ['aten.sigmoid', 'aten.addmm']
    """
    try:
        _check(model, images)
        paths = None if stem is None else _known_paths(model, [stem] if isinstance(stem, str) else stem)
        operations = _Operations(model, images, Stem(paths, is_recording(images)))
        with torch.no_grad(), _EAGER, _modes_restored(), operations, operations.exits:
            model(images)
        operations.look_for_replaced()
    except (InputError, KeyboardInterrupt):
        raise
    except BaseException as error:  # the model may be any code
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        shape = tuple(getattr(images, "shape", ()))
        raise InputError(f"the model fails on images of shape {shape} ({reason}); give it others") from error
    return AuditReport(operations.rows)


@contextmanager
def _modes_restored() -> Iterator[None]:
    """Take away every mode of PyTorch that is left over at the end, the model's own too."""
    dispatch, function = torch._C._len_torch_dispatch_stack(), torch._C._len_torch_function_stack()
    try:
        yield
    finally:
        while torch._C._len_torch_dispatch_stack() > dispatch:
            pop_dispatch_mode()
        while torch._C._len_torch_function_stack() > function:
            pop_function_mode()


class _Eager:
    """While any audit runs, compiled functions run operation by operation; all threads share that choice."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._audits = 0
        self._stance: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if self._audits == 0:
                self._stance = torch.compiler.set_stance("force_eager")
            self._audits += 1

    def __exit__(self, *raised: object) -> None:
        with self._lock:
            self._audits -= 1
            if self._audits == 0:
                self._stance.__exit__(None, None, None)


_EAGER = _Eager()


def _check(model: nn.Module, images: Tensor) -> None:
    if not isinstance(model, nn.Module):
        raise InputError(f"the model is a {type(model).__name__}; the audit needs a torch.nn.Module")
    for path, module in model.named_modules():
        if module.training:
            raise InputError(f"{path or 'the model'} is in training mode; call model.eval() before the audit")
    for name, tensor in _constants(model):
        if _holds_nan(tensor):
            raise InputError(f"{name} holds NaN; load or train the weights again")
    if type(images) not in (Tensor, nn.Parameter) or images.numel() == 0:
        shape = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise InputError(f"images are {shape}; the audit needs a tensor with at least one image")
    if memory(images) is None:
        raise InputError("images are sparse, nested or quantised; give a dense tensor")
    if _holds_nan(images):
        raise InputError("images hold NaN; give finite pixels")


def _constants(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _holds_nan(tensor: Tensor) -> bool:
    plain = memory(tensor) is not None and not tensor.is_meta
    return plain and tensor.is_floating_point() and bool(tensor.isnan().any())


def _known_paths(model: nn.Module, paths: Iterable[str]) -> tuple[str, ...]:
    known = dict(model.named_modules())
    for path in paths:
        if path not in known or not path:
            raise InputError(f"there is no module {path!r} to be the stem{nearest(path, known)}")
    return tuple(paths)


_CALL = nn.Module._call_impl.__code__


def _running(path_of: dict[int, str]) -> str:
    """The path of the module that runs right now, as Python's stack tells.

    So nothing is left on any module, nor in its class, which other threads would share.
    """
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code is _CALL:
            path = path_of.get(id(frame.f_locals["self"]))
            if path is not None:
                return path
        frame = frame.f_back  # type: ignore[assignment]
    return ""


class _Operations(TorchDispatchMode):
    """Sees every operation below autograd, with its real tensors, and writes a row about it."""

    supports_higher_order_operators = True

    def __init__(self, model: nn.Module, images: Tensor, stem: Stem) -> None:
        super().__init__()
        self.rows: list[AuditedOperation] = []
        self.origins = Origins()
        path_of = {id(module): path for path, module in model.named_modules()}
        self.path = lambda: _running(path_of)
        self.exits = Exits(self.origins, self.rows, self.path)
        self._stem, self._kernels = stem, Kernels()
        self._replaced, self._registered = set[str](), 0
        named = [(tensor, Origin.CONSTANT, name.rpartition(".")[0]) for name, tensor in _constants(model)]
        for tensor, origin, owner in (*named, (images, Origin.INPUT, "")):
            self.origins.set(tensor, origin, owner)
        for tensor in _sharing([tensor for tensor, _, _ in named] + [images]):
            self.origins.set(tensor, None)  # what is written to one of them changes another, unseen
        self.look_for_replaced()

    def look_for_replaced(self) -> None:
        """Write a row for each operation of PyTorch that other code has replaced since the last look."""
        if self._registered == len(torch.library._impls):
            return
        self._registered = len(torch.library._impls)
        for name, reason in replaced_operations().items():
            if name not in self._replaced:
                self._replaced.add(name)
                self.rows.append(_row("", f"aten.{name}", _refuse(reason)[0]))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Judge the operation on what goes in, run it, and remember where its result comes from."""
        kwargs = kwargs or {}
        if func is torch.ops.higher_order.cond:
            return self._branch(*args, **kwargs)
        with torch._C.DisableTorchFunction():  # what the audit itself asks of tensors is no exit
            alone = _on_each(func)
            if alone is not None and not self._kernels.foreign(func.name()):
                with self:
                    return _one_by_one(alone, args, kwargs)
            if self._made_of_others(func):
                with self:
                    result = func.decompose(*args, **kwargs)
                if result is not NotImplemented:
                    return result
            return self._run(func, args, kwargs)

    def _branch(self, choice: Any, if_true: Any, if_false: Any, operands: Any) -> Any:
        """Run one branch: the choice is a yes or no that leaves, and Python runs what it chose."""
        with self:
            if isinstance(choice, Tensor):
                choice = torch.ops.aten._local_scalar_dense.default(choice)
            with self.exits:
                return (if_true if choice else if_false)(*operands)

    def _made_of_others(self, func: Any) -> bool:
        """Whether an operation may be judged by those that it is made of, since it is not known itself."""
        if not isinstance(func, OpOverload) or func.namespace != "aten" or self._kernels.foreign(func.name()):
            return False
        name = base_name(func._schema.name)
        return name not in KINDS and name not in RANDOM and name != "_local_scalar_dense"

    def _run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        self.look_for_replaced()
        name, arguments, written = _signature(func, args, kwargs)
        self.exits.meet([leaf for leaf in leaves(arguments) if isinstance(leaf, Tensor)])
        read = {key: value for key, value in arguments.items() if key not in written or _reads(name, key)}
        owners = [self.origins.owner(leaf) for leaf in leaves(read) if isinstance(leaf, Tensor)]
        path = _innermost(self.path(), owners)
        overwritten = [arguments[key] for key in written]
        judgement, varying_shape = self._judge(func, name, arguments, read, path, overwritten)
        result = func(*args, **kwargs)
        self._remember(result, overwritten, judgement, next(filter(None, owners), ""), varying_shape)
        outputs = [leaf for leaf in leaves(result) if isinstance(leaf, Tensor)]
        title = str(func).rpartition(".")[0] if isinstance(func, OpOverload) else str(func)
        shape = tuple(outputs[0].shape) if outputs else ()
        self.rows.append(_row(path, title, judgement, shape, _count(name, arguments, outputs)))
        return result

    def _judge(
        self,
        func: Any,
        name: str,
        arguments: dict[str, Any],
        read: dict[str, Any],
        path: str,
        overwritten: list[Any],
    ) -> tuple[Judgement, DataDependentShape]:
        """The judgement, and whether the lengths of the results depend on the data."""
        operands = []
        for leaf in leaves(overwritten):
            if isinstance(leaf, Tensor) and memory(leaf) is None:
                return _refuse(f"{name} writes to a tensor whose values cannot be followed")
            if isinstance(leaf, Tensor) and self.origins.frozen(leaf):
                return _refuse(f"{name} writes to memory of which something unseen may hold a view")
        for key, value in read.items():
            for leaf in leaves(value):
                if isinstance(leaf, Tensor):
                    origin, varying_shape = self.origins.get(leaf), self.origins.data_dependent_shape(leaf)
                    if name == "lift_fresh" and _of_python(leaf):
                        # Of Python's numbers, not NumPy's memory.
                        origin, varying_shape = Origin.CONSTANT, False
                    if origin is None:
                        return _refuse(
                            f"{name} meets a tensor that is neither parameter, buffer, input nor result"
                        )
                    operands.append(Operand(key, leaf, origin, varying_shape))
                elif isinstance(leaf, bool | int | float) and key in VALUES:
                    operands.append(Operand(key, leaf, Origin.CONSTANT))
        if not isinstance(func, OpOverload) or func.namespace != "aten":
            return _refuse(f"{func} is not one of PyTorch's own operations")
        if foreign := self._kernels.foreign(func.name()):
            return _refuse(foreign)
        results = data_dependent_results(func, name, operands, arguments)
        unwatched = not self.exits.calls and any(operand.varies for operand in operands)
        if unwatched and (KINDS.get(name) is not Kind.MOVEMENT or results.others):
            return _refuse(f"{name} is called by other code than Python, which is not watched")
        return judge(Call(name, arguments, operands, path, self.exits.checks), self._stem), results

    def _remember(
        self,
        result: Any,
        written: list[Any],
        judgement: Judgement,
        owner: str,
        varying_shape: DataDependentShape,
    ) -> None:
        for leaf in leaves(written):
            if isinstance(leaf, Tensor):
                self.origins.write(leaf, judgement.result, varying_shape.first)
        results = [leaf for leaf in leaves(result) if isinstance(leaf, Tensor)]
        for position, leaf in enumerate(results):
            if self.origins.get(leaf) is not None:
                continue  # a view, or what was written to
            origin = judgement.result
            if origin is not Origin.CONSTANT and leaf.dtype is torch.bool:
                origin = Origin.BINARY
            elif position and judgement.kind is Kind.COMPARISON:
                origin = Origin.REAL  # where the values were found, not the values
            from_constants = owner if origin is Origin.CONSTANT else ""
            lengthens = varying_shape.others if position else varying_shape.first
            self.origins.set(leaf, origin, from_constants, lengthens and leaf.ndim > 0)


def _of_python(tensor: Tensor) -> bool:
    """Whether fresh memory was filled with Python's numbers, and is not NumPy's."""
    storage = memory(tensor)
    return storage is not None and storage.resizable()


def _reads(name: str, key: str) -> bool:
    """Whether an operation reads what it writes to: in place it does, unless it overwrites."""
    return key == "self" and name not in OVERWRITES


def _innermost(running: str, owners: list[str]) -> str:
    """The module that runs, or one inside it whose constants are used: layers may be run as one function."""
    prefix = f"{running}." if running else ""
    return max((owner for owner in owners if owner.startswith(prefix)), key=len, default=running) or running


def _row(
    path: str, name: str, found: Judgement, shape: tuple[int, ...] = (), count: int = 0
) -> AuditedOperation:
    said = (found.holds, found.violation, found.exercised)
    return AuditedOperation(path, name, found.kind, found.values, shape, count, *said)


def _sharing(tensors: Iterable[Tensor]) -> Iterator[Tensor]:
    """Those whose memory overlaps that of another, without being the same piece."""
    pieces: dict[int, tuple[int, int, Tensor]] = {}
    for tensor in tensors:
        storage = memory(tensor)
        if storage is not None and storage.nbytes() and not tensor.is_meta:
            start = storage.data_ptr()
            pieces[storage._cdata] = (start, start + storage.nbytes(), tensor)
    furthest: tuple[int, Tensor | None] = (0, None)
    for start, stop, tensor in sorted(pieces.values(), key=lambda piece: piece[:2]):
        if furthest[1] is not None and start < furthest[0]:
            yield from (furthest[1], tensor)
        furthest = max(furthest, (stop, tensor), key=lambda end: end[0])


def _on_each(func: Any) -> Any:
    """The operation that an operation on lists does to each of their tensors, or None for any other."""
    if not isinstance(func, OpOverload) or func.namespace != "aten":
        return None
    name = func._schema.name.partition("::")[2]
    if not name.startswith(ON_EACH) or func._overloadname.endswith("out"):
        return None
    return getattr(torch.ops.aten, name.removeprefix(ON_EACH), None)


def _one_by_one(alone: Any, args: Any, kwargs: dict[str, Any]) -> list[Any] | None:
    """Call an operation on the first tensors of all lists, on the second, and so on."""

    def at(value: Any, position: int) -> Any:
        return value[position] if isinstance(value, list | tuple) else value

    found = [
        alone(*(at(value, k) for value in args), **{key: at(value, k) for key, value in kwargs.items()})
        for k in range(len(args[0]))
    ]
    return None if alone._qualified_op_name.endswith("_") else found


def _refuse(reason: str) -> tuple[Judgement, DataDependentShape]:
    return Judgement(Kind.UNKNOWN, Origin.REAL, "unknown", reason), DataDependentShape(True, True)


def _signature(func: Any, args: Any, kwargs: Any) -> tuple[str, dict[str, Any], list[str]]:
    """Name of an operation, its arguments by name, and the names of those that it writes to."""
    if not isinstance(func, OpOverload):
        return str(func), {"args": args, **kwargs}, []
    schema = func._schema
    names = [argument.name for argument in schema.arguments]
    arguments = {**dict(zip(names, args, strict=False)), **kwargs}
    written = [a.name for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    return base_name(schema.name), arguments, [name for name in written if name in arguments]


def _count(name: str, arguments: dict[str, Any], outputs: list[Tensor]) -> int:
    """Scalar operations, dense: values that come out, times the values that each of them sums in a map."""
    values = outputs[0].numel() if outputs else 1
    if name not in MAPS:
        return values
    first, second, _ = MAPS[name]
    if "conv" in name:
        return values * arguments[second][0].numel()
    return values * arguments[first].shape[-1]
