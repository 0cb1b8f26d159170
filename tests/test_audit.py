"""The audit of honest networks: what they do is seen, named, and proven as far as it can be.

`test_audit_violations.py` has the networks that multiply, openly or in hiding.
"""

from __future__ import annotations

import pytest
import torch
from audited import IMAGES, Applies, Fires, folded, small
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from variants import FOLDING_NORMS, HEADS, PATCH_ENCODINGS, RESETS, SPIKING_SKIPS, TOKEN_MIXINGS, fitted

from snnmlp_edu import LIF, NetworkConfig, NeuronConfig, load_pretrained
from snnmlp_edu.mfi import audit, fold_batch_norm
from snnmlp_edu.mfi.auditing.operations import Kind


def test_rows_of_a_small_network() -> None:
    report = audit(small(), IMAGES)
    assert report.multiplication_free
    computing = [row for row in report.layers if row.kind is not Kind.MOVEMENT]
    assert [(r.path, r.name, r.kind, r.values, r.shape, r.count, r.holds) for r in computing] == [
        ("0", "aten.addmm", Kind.STEM, "real", (3, 8), 3 * 8 * 4, "all inputs"),
        ("1", "aten.ge", Kind.COMPARISON, "real, 0", (3, 8), 24, "all inputs"),
        ("2", "aten.addmm", Kind.ACCUMULATE, "{0, 1}", (3, 2), 3 * 2 * 8, "all inputs"),
    ]
    assert report.violations == report.not_exercised == []


def test_convolution_counts_its_window() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), Fires(), nn.Conv2d(3, 5, 2, groups=1)).eval()
    report = audit(model, torch.rand(1, 2, 4, 4))
    stem, accumulate = (row for row in report.layers if row.name == "aten.convolution")
    assert (stem.kind, stem.count) == (Kind.STEM, 3 * 4 * 4 * 2 * 9)
    assert (accumulate.kind, accumulate.count) == (Kind.ACCUMULATE, 5 * 3 * 3 * 3 * 4)


@settings(max_examples=12, deadline=None)
@given(
    st.fixed_dictionaries(
        {
            "channel_norm": st.sampled_from(FOLDING_NORMS),
            "token_norm": st.sampled_from(FOLDING_NORMS),
            "skip": st.sampled_from(SPIKING_SKIPS),
            "patch_encoding": st.sampled_from(PATCH_ENCODINGS),
            "token_mixing": st.sampled_from(TOKEN_MIXINGS),
            "head": st.sampled_from(HEADS),
            "beta": st.sampled_from([0.0, 0.25, 0.5, 0.8, 1.0]),
            "reset": st.sampled_from(RESETS),
            "inclusive": st.booleans(),
            "timed": st.booleans(),
        }
    )
)
def test_folded_networks(choice: dict) -> None:
    """Free of multiplications exactly where the leak is a power of two, and then for all inputs."""
    neuron = NeuronConfig(**{name: choice.pop(name) for name in ("beta", "reset", "inclusive")})
    timed = choice.pop("timed")
    sizes = {"dim": 6, "depths": (1, 1), "patch_size": 2, "image_size": 8, "in_channels": 2}
    config = NetworkConfig(**sizes, num_classes=5, time_steps=3, neuron=neuron, **fitted(choice))
    report = audit(*folded(config, timed=timed))
    assert report.multiplication_free == (neuron.beta != 0.8), report
    if neuron.beta == 0.8:
        assert {(row.name, row.kind) for row in report.violations} == {("aten.mul", Kind.MULTIPLICATION)}
        assert all("0.8, which is no power of two" in str(row) for row in report.violations)
    else:
        assert {row.holds for row in report.layers} == {"all inputs"}
        assert sum(row.kind is Kind.STEM for row in report.layers) == 1
        leaks = [row for row in report.layers if row.kind is Kind.SHIFT]
        assert all(row.name == "aten.mul" for row in leaks)
        assert bool(leaks) == (neuron.beta not in (0.0, 1.0))  # which keep nothing, or all
        # TEBN has maps of their own for each step, and at the first step some layers are still silent.
        assert all(".steps." in row.path for row in report.not_exercised)


def test_shipped_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNNMLP_LIF_BACKEND", "eager")
    report = audit(fold_batch_norm(load_pretrained("mlp_spe_nano")), torch.rand(2, 1, 32, 32))
    assert report.multiplication_free, report
    assert {row.holds for row in report.layers} == {"all inputs"}


@pytest.mark.parametrize("reset", RESETS)
def test_every_backend_is_seen(tiny: NetworkConfig, reset: str) -> None:
    """The compiled scan runs operation by operation; snnTorch's neuron resets by a product."""
    model, images = folded(tiny.replace(neuron={"reset": reset}))
    found = {}
    for backend in ("eager", "compiled", "snntorch"):
        for module in model.modules():
            if isinstance(module, LIF):
                module.config = NeuronConfig(backend=backend, reset=reset, threshold=2, input_gain=1)
        report = audit(model, images)
        found[backend] = report
        # Where maps and neurons run as one function, a row carries the name of the map.
        compared = sum(row.kind is Kind.COMPARISON and not row.violation for row in report.layers)
        assert compared >= 10 * tiny.time_steps
        assert [row.name for row in report.layers if row.kind is Kind.SHIFT]
    assert found["eager"].multiplication_free
    assert found["compiled"].multiplication_free
    # The soft reset of that backend subtracts a threshold of 2, a power of two, times the spike.
    products = found["snntorch"].violations
    assert {row.name for row in products} == ({"aten.mul"} if reset == "hard" else set())
    assert all("values of the data by values of the data" in str(row) for row in products)


STRUCTURE = {
    "concatenation": lambda s: torch.cat((s[:, :4], s[:, 4:]), dim=1),
    "padding": lambda s: functional.pad(s[:, 1:], (1, 0)),
    "padding with ones": lambda s: functional.pad(s[:, 1:], (1, 0), value=1.0),
    "selection of constants": lambda s: torch.where(s > 0, 1.0, 0.0),
    "mask": lambda s: s.masked_fill(s > 0, 0.0),
    "maximum": lambda s: torch.maximum(s, s.flip(1)),
    "max pooling": lambda s: functional.max_pool1d(s[None], 3, stride=1, padding=1)[0],
    "logic": lambda s: ((s > 0) & ~(s.roll(1) > 0)).float(),
    "buffer": lambda s: torch.zeros_like(s).copy_(s),
    "part of a buffer": lambda s: torch.zeros(3, 8).index_copy_(1, torch.arange(4), s[:, :4]),
    "cast": lambda s: s.bool().double().float(),
    "table": lambda s: torch.tensor([0.0, 1.0])[(s > 0).int()],
    "heaviside": lambda s: torch.heaviside(s - 1, torch.tensor(1.0)),
}


@pytest.mark.parametrize("function", STRUCTURE.values(), ids=STRUCTURE)
def test_spikes_stay_proven(function: object) -> None:
    report = audit(small(Applies(function)), IMAGES)
    assert report.multiplication_free, report
    assert {row.holds for row in report.layers} == {"all inputs"}


def test_proven_or_only_seen() -> None:
    """Rounded values in {0, 1} are what was seen of these inputs: others would give other numbers."""
    report = audit(small(Applies(lambda s: (s + 0.25).round())), IMAGES)
    assert report.multiplication_free
    (row,) = (row for row in report.layers if row.holds == "these inputs")
    assert (row.path, row.kind, row.values) == ("3", Kind.ACCUMULATE, "{0, 1}")
    assert report.verdict().endswith("operations, 1 of them only for the inputs seen")


def test_silence_proves_nothing_but_structure() -> None:
    silent = nn.Sequential(nn.Linear(4, 8), Fires(threshold=99.0), nn.Linear(8, 2)).eval()
    report = audit(silent, IMAGES)
    assert report.multiplication_free
    assert [(row.path, row.values) for row in report.not_exercised] == [("2", "{0}")]
    assert "no spike arrived at 1 modules" in str(report)
    zeros = nn.Sequential(nn.Linear(4, 8), Applies(lambda x: (x - 99).relu()), nn.Linear(8, 2)).eval()
    (violation,) = audit(zeros, IMAGES).violations
    assert "nothing but 0 was seen" in str(violation)


def test_shifts_and_steering() -> None:
    class Leaky(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            whole = x.round().int()
            if (x > 1e6).any():
                raise AssertionError
            return ((0.25 * x - x / 2 + x.add(x, alpha=-2) + (whole >> 1) + (whole << 2)) >= 0).float()

    report = audit(nn.Sequential(nn.Linear(4, 8), Leaky(), nn.Linear(8, 2)).eval(), IMAGES)
    assert report.multiplication_free, report
    shifts = {row.name for row in report.layers if row.kind is Kind.SHIFT}
    assert shifts == {"aten.mul", "aten.div", "aten.round", "aten.__rshift__", "aten.__lshift__"}
    assert [row.name for row in report.layers if row.holds == "these inputs"] == ["aten._local_scalar_dense"]


def test_work_on_constants_is_listed_and_allowed() -> None:
    model = small()
    nn.utils.parametrizations.weight_norm(model[2])
    report = audit(model.eval(), IMAGES)
    assert report.multiplication_free, report
    constant = [row for row in report.layers if row.kind is Kind.CONSTANT]
    assert constant
    assert all(row.path.startswith("2.parametrizations.weight") for row in constant)
    assert {row.values for row in constant} == {"constant"}


def test_input_may_be_moved_and_shifted_before_the_stem() -> None:
    centred = nn.Sequential(Applies(lambda x: (x - 0.5).flatten(1)), *small()).eval()
    assert audit(centred, torch.rand(3, 2, 2)).multiplication_free


def test_inference_mode_inside() -> None:
    model = small()

    def infer(x: Tensor) -> Tensor:
        with torch.inference_mode():
            return model(x)

    report = audit(nn.Sequential(Applies(infer)).eval(), IMAGES)
    # The weights were in a closure, and no part of the model that was handed over.
    assert all("neither parameter, buffer, input nor result" in str(row) for row in report.violations)
    wrapper = nn.Sequential(Applies(infer), model).eval()
    report = audit(nn.Sequential(wrapper[0], nn.Identity()).eval(), IMAGES)
    assert report.violations
    inner = Applies(infer).eval()
    inner.model = model
    report = audit(inner, IMAGES)
    assert report.multiplication_free, report
    assert [row.kind for row in report.layers if row.name == "aten.linear"] == [Kind.STEM, Kind.ACCUMULATE]
