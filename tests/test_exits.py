"""Numbers that leave PyTorch: what depends on the data is refused where it leaves, and lengths are data."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from audited import IMAGES, Applies, Fires, assert_one, small, violations
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function_unary

from snnmlp_edu.mfi import audit

LENGTH = "a length that depends on the data is read, and could be a factor unseen"


def between(function: Callable[[Tensor], Tensor]) -> nn.Sequential:
    """Spikes go through a function; what comes out is compared, so that only the function can be wrong."""
    return small(Applies(function), Fires(0.5))


def times(number: float) -> Callable[[Tensor], Tensor]:
    return lambda s: s * 2.0**number


# --- lengths ----------------------------------------------------------------------------------------------

FOUND: dict[str, Callable[[Tensor], Tensor]] = {
    "nonzero": lambda s: s.nonzero(),
    "columns of nonzero": lambda s: s.nonzero(as_tuple=True)[0],
    "where": lambda s: torch.where(s > 0)[1],
    "index by a mask": lambda s: s[s > 0],
    "masked_select": lambda s: s.masked_select(s > 0),
    "unique": lambda s: torch.unique(s.cumsum(1)),
    "repeated": lambda s: torch.arange(24).repeat_interleave(s.flatten().long()),
    "bincount": lambda s: torch.bincount(s.cumsum(1).long().flatten()),
    "result given": lambda s: torch.nonzero(s > 0, out=torch.empty(0, dtype=torch.long)),
    "made of it": lambda s: (s.nonzero() + 1).t().contiguous().cumsum(1),
    "gathered by it": lambda s: torch.eye(8)[s.nonzero()[:, 1]],
    "in its likeness": lambda s: torch.zeros_like(s.nonzero()),
}


@pytest.mark.parametrize("find", FOUND.values(), ids=FOUND)
def test_length_as_a_factor(find: Callable[[Tensor], Tensor]) -> None:
    found = violations(between(lambda s: s * 2.0 ** (find(s).shape[-1] % 3 + len(find(s)))))
    assert {("2", "Tensor.shape", LENGTH), ("2", "Tensor.__len__", LENGTH)} <= set(found)


READ: dict[str, Callable[[Tensor], float]] = {
    "shape": lambda found: found.shape[0],
    "size": lambda found: found.size(0),
    "len": len,
    "numel": lambda found: found.numel(),
    "function": torch.numel,
    "stride": lambda found: found.stride(1),
    "bytes": lambda found: found.nbytes,
    "contiguous": lambda found: found.t().is_contiguous(),
    "rows": lambda found: len(found.unbind()),
    "rows of the columns": lambda found: len(found.t().unbind(1)),
    "transposed in place": lambda found: len(found.t_().unbind(1)),
    "pieces": lambda found: len(found.split(2)),
    "tensors": lambda found: len(torch.tensor_split(found, 3)),
    "iteration": lambda found: sum(1 for _ in found),
    "as a tensor": lambda found: torch._shape_as_tensor(found)[0] > 3,
}


@pytest.mark.parametrize("read", READ.values(), ids=READ)
def test_ways_to_read_a_length(read: Callable[[Tensor], float]) -> None:
    found = violations(between(lambda s: s * 2.0 ** float(read(s.nonzero()))))
    assert found
    assert {row[0] for row in found} == {"2"}
    assert {row[2] for row in found} == {LENGTH}


def test_one_violation_is_no_plural() -> None:
    report = audit(between(lambda s: s * 2.0 ** len(s.nonzero())), IMAGES)
    assert report.verdict() == "not multiplication-free: 1 violation in 1 module"


def test_length_inside_pytorch_is_data() -> None:
    """Ones in the likeness of a list of spikes, summed, are a count of spikes."""

    def count(s: Tensor) -> Tensor:
        return torch.ones_like(s[s > 0]).sum()

    assert violations(between(lambda s: torch.where(count(s) > 3, s, 0.0))) == []
    assert_one(violations(between(lambda s: s * count(s))), "2", "aten.mul", "of the data by values of the d")
    emptied = between(lambda s: s * s[s > 0].zero_().add_(1).sum())
    assert_one(violations(emptied), "2", "aten.mul", "values of the data by values of the data")


HONEST: dict[str, Callable[[Tensor], Tensor]] = {
    "gather and add": lambda s: torch.zeros(3, 8).index_add(0, s.nonzero()[:, 0], s[s.nonzero()[:, 0]]),
    "columns": lambda s: torch.zeros(3, 8).index_put(tuple(s.nonzero().unbind(1)), torch.tensor(1.0)),
    "where": lambda s: torch.zeros(3, 8).index_put(torch.where(s > 0), torch.tensor(1.0)),
    "assignment by a mask": lambda s: s.index_put((s > 0,), torch.tensor(1.0)),
    "a length that is fixed": lambda s: s.view(s.shape[0], -1)[:, : s.size(1)].reshape(
        len(s), s.numel() // 3
    ),
    "length of a sum": lambda s: s + s[s > 0].sum().expand(s.shape),
    "length of what was gathered": lambda s: s[
        : len(torch.zeros(3).index_add(0, s.nonzero()[:, 0], s[s > 0]))
    ],
    "facts": lambda s: s if s.nonzero().ndim == 2 and s.nonzero().dtype is torch.long else -s,
}


@pytest.mark.parametrize("function", HONEST.values(), ids=HONEST)
def test_lists_of_spikes_may_be_used(function: Callable[[Tensor], Tensor]) -> None:
    report = audit(between(function), IMAGES)
    assert report.multiplication_free, report
    assert {row.holds for row in report.layers} == {"all inputs"}


# --- values -----------------------------------------------------------------------------------------------

VALUES: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "whole number": (lambda s: int(s.sum()), "aten._local_scalar_dense"),
    "index": (lambda s: range(99)[s.sum().long()], "aten._local_scalar_dense"),
    "words": (lambda s: len(str(s)), "Tensor.__repr__"),
    "list": (lambda s: sum(s[0].tolist()), "Tensor.tolist"),
    "array": (lambda s: float(np.asarray(s).sum()), "Tensor.__array__"),
    "capsule": (lambda s: float(np.from_dlpack(s).sum()), "Tensor.__dlpack__"),
    "storage": (lambda s: float(s.untyped_storage()[0]), "Tensor.untyped_storage"),
    "address": (lambda s: s.data_ptr() % 2, "Tensor.data_ptr"),
    "pickle": (lambda s: len(pickle.dumps(s)) % 2, "Tensor.untyped_storage"),
}


@pytest.mark.parametrize(("read", "name"), VALUES.values(), ids=VALUES)
def test_value_as_a_factor(read: Callable[[Tensor], float], name: str) -> None:
    found = violations(between(lambda s: s * 2.0 ** read(s)))
    assert ("2", name) in {row[:2] for row in found}
    assert any("leave" in row[2] for row in found)


def test_a_yes_or_no_steers() -> None:
    """Many of them make any number: so nothing is said of other inputs."""
    for ask in (lambda s: bool(s.any()), lambda s: torch.equal(s, s.round())):
        report = audit(between(lambda s, ask=ask: s * 2.0 ** ask(s)), IMAGES)
        assert report.multiplication_free
        assert report.verdict().endswith("1 of them only for the inputs seen")


MEMORY: dict[str, Callable[[np.ndarray], Tensor]] = {
    "from_numpy": torch.from_numpy,
    "as_tensor": torch.as_tensor,
    "tensor": torch.tensor,
    "from_dlpack": torch.from_dlpack,
}


@pytest.mark.parametrize("enter", MEMORY.values(), ids=MEMORY)
def test_memory_of_numpy_is_of_unknown_origin(enter: Callable[[np.ndarray], Tensor]) -> None:
    """A buffer whose memory NumPy got hold of before: what the data write there would come back constant."""

    class Returns(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(1))
            self.outside = self.count.numpy()

        def forward(self, s: Tensor) -> Tensor:
            self.count.copy_(torch.where(s.sum() > 9, 2.0, 4.0))
            return s * enter(self.outside)

    found = violations(small(Returns(), Fires(0.5)))
    assert any("neither parameter, buffer, input nor result" in row[2] for row in found)
    assert {row[0] for row in found} == {"2"}


def test_numbers_of_python_are_constants() -> None:
    assert violations(between(lambda s: s * torch.tensor([0.5, 2.0]).repeat(4))) == []


# --- out of sight -----------------------------------------------------------------------------------------


def test_compiled_code_that_reads_a_length() -> None:
    def by_length(s: Tensor) -> Tensor:
        return s * 2.0 ** s.nonzero().size(0)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own advice to use another compiler
        scripted = torch.jit.script(by_length)
    found = violations(between(scripted))
    assert [row[:2] for row in found] == [("2", "aten.nonzero"), ("2", "aten.mul")]
    assert all("called by other code than Python" in row[2] for row in found)


def test_custom_operation_made_of_others() -> None:
    """The dispatcher sees only what it is made of, and Python runs unseen in between."""
    library = torch.library.Library("snnmlp_exits", "DEF")
    library.define("by_length(Tensor s) -> Tensor")
    library.impl("by_length", lambda s: s * 2.0 ** len(s.nonzero()), "CompositeImplicitAutograd")
    found = violations(between(torch.ops.snnmlp_exits.by_length))
    assert_one(found, "2", "Tensor.by_length", "snnmlp_exits.by_length")


def test_function_that_poses_as_one_of_pytorch() -> None:
    def by_length(s: Tensor) -> Tensor:
        if has_torch_function_unary(s):
            return handle_torch_function(by_length, (s,), s)
        return s * 2.0 ** len(s.nonzero())

    assert_one(violations(between(by_length)), "2", "Tensor.by_length", "runs unseen")
