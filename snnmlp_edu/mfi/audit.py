r"""Is a network multiplication-free? Watch every operation that PyTorch runs, and judge it.

The audit looks below modules, at the operations and tensors that really flow: what a hook, a functional
call, a parametrisation or a custom autograd function does is seen as well as what a layer does. The verdict
rests on two things, and each row says on which: on structure, where the operand is the output of a
comparison and so in {0, 1} for every input; and on the values at the moment of use, for the inputs given.

Numbers are not followed into Python. That data leave PyTorch, as values or as a length that depends on
them, is seen and refused (`snnmlp_edu.mfi.exits`). Only a yes or no may leave, to steer the run, and then the
verdict holds for the inputs seen.

The audit judges the run that it sees. Beyond it are memory that other code got hold of before, or by a
pointer; and a model that switches PyTorch's modes off, finds out that it is watched and runs another way,
keeps numbers from an earlier call, or provokes an error and catches it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..config import nearest
from ..errors import InputError
from .exits import Elastic, Exits, elastic_results
from .judgement import VALUES, Call, Judgement, Operand, Stem, judge
from .operations import MAPS, OVERWRITES, Kind, base_name
from .origins import Origin, Origins
from .report import AuditedOperation, AuditReport


def audit(model: nn.Module, images: Tensor, stem: str | Sequence[str] | None = None) -> AuditReport:
    """Run a model on images, watch every operation, and say whether it is multiplication-free.

    It is where every linear map outside the stem meets values in {0, 1} only, and no other product,
    division or normalisation of data is left: additions, comparisons, selections, and shifts, which are
    products with powers of two. Work on constants alone is listed and allowed. An operation that is not
    PyTorch's own, or that the audit does not know, is a violation, and so is a number that depends on the
    data and leaves PyTorch. Operations are counted dense, as if every spike were there.

    The model runs twice, once unwatched and once watched, without gradients; compiled functions run
    operation by operation then. It stays as it is.

    Args:
        model: any module, in evaluation mode.
        images: what to call it with, such as `[B, channels, H, W]`.
        stem: paths of the modules that may multiply the input; None takes the first linear map of it.

    Returns:
        The report: `.multiplication_free`, `.layers`, `.violations`; `str` of it is a table.

    Raises:
        InputError: the model is in training mode or holds NaN, the images are empty, hold NaN or do not
            fit the model, or there is no module of a name given as stem.

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
    _check(model, images)
    paths = None if stem is None else _known_paths(model, [stem] if isinstance(stem, str) else stem)
    with torch.no_grad():
        try:
            model(images)  # what compiles on first use does so here; and images that do not fit are noticed
        except InputError:
            raise
        except (RuntimeError, ValueError, IndexError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            shape = tuple(images.shape)
            raise InputError(
                f"the model fails on images of shape {shape} ({reason}); give it others"
            ) from error
        with _module_paths(model) as path, torch.compiler.set_stance("force_eager"):
            operations = _Operations(model, images, Stem(paths), path)
            with operations, operations.exits:
                model(images)
    return AuditReport(operations.rows)


def _check(model: nn.Module, images: Tensor) -> None:
    for path, module in model.named_modules():
        if module.training:
            raise InputError(f"{path or 'the model'} is in training mode; call model.eval() before the audit")
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.isnan().any():
            raise InputError(f"{name} holds NaN; load or train the weights again")
    if not isinstance(images, Tensor) or images.numel() == 0:
        shape = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise InputError(f"images are {shape}; the audit needs a tensor with at least one image")
    if images.isnan().any():
        raise InputError("images hold NaN; give finite pixels")


def _known_paths(model: nn.Module, paths: Iterable[str]) -> tuple[str, ...]:
    known = dict(model.named_modules())
    for path in paths:
        if path not in known or not path:
            raise InputError(f"there is no module {path!r} to be the stem{nearest(path, known)}")
    return tuple(paths)


@contextmanager
def _module_paths(model: nn.Module) -> Iterator[Callable[[], str]]:
    """The path of the module that runs right now; no hook is left on any module, none can see that."""
    path_of = {module: path for path, module in model.named_modules()}
    running = [""]
    call: Any = nn.Module.__call__

    def __call__(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        running.append(path_of.get(self, running[-1]))
        try:
            return call(self, *args, **kwargs)
        finally:
            running.pop()

    nn.Module.__call__ = __call__  # type: ignore[method-assign]
    try:
        yield lambda: running[-1]
    finally:
        nn.Module.__call__ = call  # type: ignore[method-assign]


class _Operations(TorchDispatchMode):
    """Sees every operation below autograd, with its real tensors, and writes a row about it."""

    supports_higher_order_operators = True

    def __init__(self, model: nn.Module, images: Tensor, stem: Stem, path: Callable[[], str]) -> None:
        super().__init__()
        self.rows: list[AuditedOperation] = []
        self.origins = Origins()
        self.path = path
        self.exits = Exits(self.origins, self.rows, path)
        self._stem = stem
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            self.origins.set(tensor, Origin.CONSTANT, name.rpartition(".")[0])
        self.origins.set(images, Origin.INPUT)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Judge the operation on what goes in, run it, and remember where its result comes from."""
        with torch._C.DisableTorchFunction():  # what the audit itself asks of tensors is no exit
            return self._run(func, args, kwargs or {})

    def _run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        name, arguments, written = _signature(func, args, kwargs)
        read = {key: value for key, value in arguments.items() if key not in written or _reads(name, key)}
        owners = [self.origins.owner(leaf) for leaf in tree_leaves(read) if isinstance(leaf, Tensor)]
        path = _innermost(self.path(), owners)
        judgement, elastic = self._judge(func, name, arguments, read, path)
        result = func(*args, **kwargs)
        overwritten = [arguments[key] for key in written]
        self._remember(result, overwritten, judgement, next(filter(None, owners), ""), elastic)
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        self.rows.append(
            AuditedOperation(
                path=path,
                name=str(func).rpartition(".")[0] if isinstance(func, OpOverload) else str(func),
                kind=judgement.kind,
                values=judgement.values,
                shape=tuple(outputs[0].shape) if outputs else (),
                count=_count(name, arguments, outputs),
                holds=judgement.holds,
                violation=judgement.violation,
                exercised=judgement.exercised,
            )
        )
        return result

    def _judge(
        self, func: Any, name: str, arguments: dict[str, Any], read: dict[str, Any], path: str
    ) -> tuple[Judgement, Elastic]:
        """The judgement, and whether the lengths of the results depend on the data."""
        operands = []
        for key, value in read.items():
            for leaf in tree_leaves(value):
                if isinstance(leaf, Tensor):
                    origin, elastic = self.origins.get(leaf), self.origins.elastic(leaf)
                    if name == "lift_fresh" and leaf.untyped_storage().resizable():
                        origin, elastic = Origin.CONSTANT, False  # of Python's numbers, not NumPy's memory
                    if origin is None:
                        return _refuse(f"{name} meets a tensor that is no parameter, buffer, input or result")
                    operands.append(Operand(key, leaf, origin, elastic))
                elif isinstance(leaf, bool | int | float) and key in VALUES:
                    operands.append(Operand(key, leaf, Origin.CONSTANT))
        if not isinstance(func, OpOverload) or func.namespace != "aten":
            return _refuse(f"{func} is no operation of PyTorch's own")
        results = elastic_results(func, name, operands, arguments)
        if results.others and not self.exits.calls:
            return _refuse(f"{name} has a length that depends on the data, where other code than Python runs")
        return judge(Call(name, arguments, operands, path), self._stem), results

    def _remember(
        self, result: Any, written: list[Any], judgement: Judgement, owner: str, elastic: Elastic
    ) -> None:
        for leaf in tree_leaves(written):
            if isinstance(leaf, Tensor):
                self.origins.write(leaf, judgement.result, elastic.first)
        leaves = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        for position, leaf in enumerate(leaves):
            if self.origins.get(leaf) is not None:
                continue  # a view, or what was written to
            origin = judgement.result
            if origin is not Origin.CONSTANT and leaf.dtype is torch.bool:
                origin = Origin.BINARY
            elif position and judgement.kind is Kind.COMPARISON:
                origin = Origin.REAL  # where the values were found, not the values
            from_constants = owner if origin is Origin.CONSTANT else ""
            lengthens = elastic.others if position else elastic.first
            self.origins.set(leaf, origin, from_constants, lengthens and leaf.ndim > 0)


def _reads(name: str, key: str) -> bool:
    """Whether an operation reads what it writes to: in place it does, unless it overwrites."""
    return key == "self" and name not in OVERWRITES


def _innermost(running: str, owners: list[str]) -> str:
    """The module that runs, or one inside it whose constants are used: layers may be run as one function."""
    prefix = f"{running}." if running else ""
    return max((owner for owner in owners if owner.startswith(prefix)), key=len, default=running) or running


def _refuse(reason: str) -> tuple[Judgement, Elastic]:
    return Judgement(Kind.UNKNOWN, Origin.REAL, "unknown", reason), Elastic(True, True)


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
