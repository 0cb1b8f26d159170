"""Networks that multiply, openly or in hiding: each is found out, and the reason is the right one.

`test_audit_networks.py` has those of the library.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from audited import IMAGES, Applies, Fires, assert_one, small, violations
from torch import Tensor, nn
from torch.nn import functional

from snnmlp_edu.mfi import audit
from snnmlp_edu.mfi.auditing.operations import Kind

# --- between the neurons and the next map --------------------------------------------------------------


class Doubles(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 3 * x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


def attention(s: Tensor) -> Tensor:
    tokens = s.view(3, 4, 2)
    return (tokens @ tokens.transpose(1, 2) @ tokens).view(3, 8)


BETWEEN: dict[str, tuple[Callable[[Tensor], Tensor], list[tuple[str, str]]]] = {
    "scaled spikes": (lambda s: 0.5 * s, [("aten.addmm", r"meets \{0, 0.5\}: only values in \{0, 1\}")]),
    "ternary spikes": (lambda s: (s - 0.5).sign(), [("aten.addmm", r"meets \{-1, 1\}")]),
    "sums of spikes": (lambda s: s + s.flip(1), [("aten.addmm", r"meets \{0, 1, 2\}")]),
    "counts": (lambda s: s.cumsum(1), [("aten.addmm", "meets whole numbers 0 to 4")]),
    "attention": (
        attention,
        [("aten.bmm", "as attention does"), ("aten.bmm", "as attention does"), ("aten.addmm", "meets")],
    ),
    "gate of the data": (
        lambda s: s * s.flip(1),
        [("aten.mul", "values of the data by values of the data.*torch.where")],
    ),
    "mean": (lambda s: s.mean(0, keepdim=True), [("aten.mean", "a mean divides"), ("aten.addmm", "meets")]),
    "average pooling": (
        lambda s: functional.avg_pool1d(s[None], 3, 1, 1)[0],
        [("aten.avg_pool2d", "a mean divides"), ("aten.addmm", "meets")],
    ),
    "batch norm": (
        lambda s: functional.batch_norm(s, torch.zeros(8), torch.ones(8)),
        [("aten.native_batch_norm", "a normalisation multiplies"), ("aten.addmm", "meets")],
    ),
    "dropout": (
        lambda s: functional.dropout(s, 0.3, training=True),
        [
            ("aten.bernoulli_", "draws random numbers"),
            ("aten.div_", "a division by 0.7, which is no power of two"),
            ("aten.mul", "values of the data by values of the data"),
            ("aten.addmm", "meets"),
        ],
    ),
    "autograd function": (
        Doubles.apply,
        [("aten.mul", "product with 3, which"), ("aten.addmm", r"\{0, 3\}")],
    ),
    "in place": (lambda s: s.mul_(0.7), [("aten.mul_", "product with 0.7"), ("aten.addmm", r"\{0, 0.7\}")]),
    "written through a view": (
        lambda s: (s[:, :4].fill_(0.5), s)[1],
        [("aten.addmm", r"meets \{0, 0.5, 1\}")],
    ),
    "result given": (
        lambda s: torch.mul(s, 1.5, out=torch.empty(0)),
        [("aten.mul", "product with 1.5"), ("aten.addmm", r"\{0, 1.5\}")],
    ),
    "added in place at indices": (
        lambda s: s.index_put((torch.tensor([0, 0]),), s[1:], accumulate=True),
        [("aten.addmm", r"meets \{0, 1, 2, 3\}|meets \{0, 1, 2\}")],
    ),
    "weighted addition": (
        lambda s: s.add(s, alpha=0.3),
        [("aten.add", "adds 0.3 times"), ("aten.addmm", "meets")],
    ),
    "scaled map": (
        lambda s: torch.addmm(torch.zeros(8), s, torch.eye(8), alpha=3),
        [("aten.addmm", "alpha is no power of two"), ("aten.addmm", "meets")],
    ),
    "zero divides nothing": (lambda s: (s / 0) >= 0.5, [("aten.div", "division by 0, which")]),
    "division by the data": (
        lambda s: 1 / (s + 1),
        [("aten.reciprocal", "needs multiplications"), ("aten.addmm", "")],
    ),
    "shift by the data": (
        lambda s: torch.ones(3, 8).int().bitwise_left_shift(s.int()).float(),
        [("aten.bitwise_left_shift", "shifts by a value of the data"), ("aten.addmm", r"\{1, 2\}")],
    ),
    "sigmoid": (torch.sigmoid, [("aten.sigmoid", "needs multiplications"), ("aten.addmm", "meets")]),
    "unknown operation": (
        lambda s: torch.special.i0(s) >= 1.1,
        [("aten.special_i0|aten.i0", "does not know")],
    ),
    "number for Python": (
        lambda s: s * (s.sum().item() / 2),
        [("aten._local_scalar_dense", "leaves PyTorch"), ("aten.mul", ".*"), ("aten.addmm", "meets")],
    ),
    "NumPy": (
        lambda s: torch.from_numpy(np.where(s.numpy() > 0, 0.7, 0.0).astype(np.float32)),
        [
            ("Tensor.numpy", "data leave PyTorch by numpy"),
            ("aten.lift_fresh", "neither parameter, buffer, input nor result"),
            ("aten.addmm", "meets"),
        ],
    ),
    "list": (lambda s: torch.tensor(s.tolist()), [("Tensor.tolist", "data leave PyTorch by tolist")]),
    "function of Python": (
        lambda s: s.apply_(lambda value: value),
        [("Tensor.apply_", "is given a function, whose code could run inside")],
    ),
    "weights of the data": (
        lambda s: (
            functional.embedding_bag(s.long(), torch.eye(8), per_sample_weights=s.flip(1), mode="sum") >= 1
        ),
        [("aten._embedding_bag_forward_only", "multiplied by weights of their own")],
    ),
    "mean of rows": (
        lambda s: functional.embedding_bag(s.long(), torch.eye(8), mode="mean") >= 1,
        [("aten._embedding_bag_forward_only", "a mean of rows divides")],
    ),
}


@pytest.mark.parametrize(("function", "expected"), BETWEEN.values(), ids=BETWEEN)
def test_between_neurons_and_map(
    function: Callable[[Tensor], Tensor], expected: list[tuple[str, str]]
) -> None:
    found = violations(small(Applies(lambda s: function(s).to(torch.float32))))
    for (path, name, reason), (wanted, words) in zip(found, expected, strict=True):
        assert path == ("3" if name == "aten.addmm" and "alpha" not in reason else "2")
        assert re.fullmatch(wanted, name)
        assert re.search(words, reason), reason


def test_learned_gate() -> None:
    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.Parameter(torch.rand(8))

        def forward(self, s: Tensor) -> Tensor:
            return (self.gate * s >= 0.5).float()  # spikes again, so that only the product is wrong

    reason = "a product with constants that are not all powers of two"
    assert_one(violations(small(Gate())), "2", "aten.mul", reason)


def test_hooks_that_rescale() -> None:
    after, before = small(), small()
    after[1].register_forward_hook(lambda module, inputs, out: 1.5 * out)
    before[2].register_forward_pre_hook(lambda module, inputs: (1.5 * inputs[0],))
    for model, path in ((after, "1"), (before, "2")):
        found = violations(model)
        assert [row[:2] for row in found] == [(path, "aten.mul"), ("2", "aten.addmm")]
        assert "product with 1.5" in found[0][2]


def test_parametrisation_that_reads_the_data() -> None:
    class Scaled(nn.Module):
        def __init__(self, neurons: nn.Module) -> None:
            super().__init__()
            neurons.register_forward_hook(self.keep)

        def keep(self, module: nn.Module, inputs: Any, out: Tensor) -> None:
            self.scale = inputs[0].amax()

        def forward(self, weight: Tensor) -> Tensor:
            return weight * self.scale if hasattr(self, "scale") else weight

    model = small()
    nn.utils.parametrize.register_parametrization(model[2], "weight", Scaled(model[1]))
    found = violations(model)
    assert [row[:2] for row in found] == [("2.parametrizations.weight.0", "aten.mul"), ("2", "aten.addmm")]
    assert "values of the data by values of the data" in found[1][2]


def test_second_branch_of_the_input() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.main, self.side, self.out = nn.Linear(4, 8), nn.Linear(4, 2), nn.Linear(8, 2)
            self.neurons = Fires()

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.neurons(self.main(x))) + self.side(x)

    reason = "meets the model's input, and this is not the stem"
    assert_one(violations(Branches()), "side", "aten.addmm", reason)
    assert audit(Branches().eval(), IMAGES, stem=["main", "side"]).multiplication_free
    assert [row.path for row in audit(Branches().eval(), IMAGES, stem="side").violations] == ["main"]


def test_a_stem_may_run_step_by_step() -> None:
    class Stepped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Linear(4, 8)

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([self.stem(now) for now in x]) >= 0

    report = audit(Stepped().eval(), IMAGES)
    assert report.multiplication_free
    assert sum(row.kind is Kind.STEM for row in report.layers) == len(IMAGES)


def test_tensor_of_unknown_origin() -> None:
    hidden = torch.rand(8)
    reason = "neither parameter, buffer, input nor result"
    found = violations(small(Applies(lambda s: torch.where(s > 0, hidden, 0.0))))
    assert found[0][:2] == ("2", "aten.where")
    assert reason in found[0][2]


def test_custom_operation() -> None:
    @torch.library.custom_op("snnmlp_test::scale", mutates_args=())
    def scale(x: Tensor) -> Tensor:
        return 3 * x

    found = violations(small(Applies(lambda s: scale(s) >= 1.0), Applies(lambda s: s.float())))
    assert_one(found, "2", "snnmlp_test.scale", "not one of PyTorch's own operations")


def test_values_are_taken_at_the_moment_of_use() -> None:
    """Spikes by comparison, overwritten through a view that NumPy got hold of before the audit."""

    class Writes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("spikes", torch.zeros(3, 8))
            self.outside = self.spikes.numpy()

        def forward(self, s: Tensor) -> Tensor:
            self.spikes.copy_(s)
            self.outside *= 0.3
            return self.spikes

    assert_one(violations(small(Writes())), "3", "aten.addmm", r"meets \{0, 0.3\}")


def test_weights_that_learn_while_they_run() -> None:
    class Hebbian(nn.Linear):
        def forward(self, s: Tensor) -> Tensor:
            self.weight += s.sum()
            return super().forward(s)

    model = nn.Sequential(nn.Linear(4, 8), Fires(), Hebbian(8, 2))
    assert_one(violations(model), "2", "aten.addmm", "values of the data by values of the data")


# --- constants that are none ---------------------------------------------------------------------------


def scaled_by_an_end(x: Tensor) -> Tensor:
    ends = torch.linspace(torch.zeros(()), x.flatten()[0], 4)
    return ends * ends * 0.3


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (scaled_by_an_end, "it divides the way between its ends"),
        (lambda x: torch.round(x, decimals=1), "it multiplies by a power of ten"),
        (
            lambda x: torch.add(x.to(torch.complex64), x.to(torch.complex64), alpha=1j).abs(),
            "complex numbers",
        ),
    ],
)
def test_products_hide_in_harmless_names(function: Callable[[Tensor], Tensor], reason: str) -> None:
    assert any(reason in why for _, _, why in violations(Applies(function), torch.randn(3, 4)))
