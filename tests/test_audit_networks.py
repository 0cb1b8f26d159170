"""Networks of the library that are not multiplication-free, and the reason of each."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from audited import Fires, folded, violations
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from variants import RESETS, SPIKING_SKIPS, fitted

from snnmlp_edu import LIF, NetworkConfig, NeuronConfig, SpikingMLP
from snnmlp_edu.config import (
    Activation,
    ChannelNorm,
    HeadName,
    PatchEncoding,
    Skip,
    SurrogateName,
    TokenMixingName,
    TokenNorm,
)
from snnmlp_edu.mfi import audit, calibrate, fold_batch_norm
from snnmlp_edu.mfi.auditing.operations import Kind
from snnmlp_edu.mfi.folding.layers import AxisLIF


def test_unfolded_network(tiny: NetworkConfig) -> None:
    images = torch.rand(2, 2, 8, 8)
    found = violations(calibrate(SpikingMLP(tiny), images), images)
    reasons = {name: reason for _, name, reason in found}
    assert "a normalisation multiplies and divides" in reasons["aten.native_batch_norm"]
    assert "a mean divides" in reasons["aten.mean"]
    assert ("head.linear", "aten.addmm") in {row[:2] for row in found}


@pytest.mark.parametrize("backend", ["eager", "compiled"])
def test_released_network_fails_in_the_channel_block(tiny: NetworkConfig, backend: str) -> None:
    """The batch norm before the neurons went into their thresholds; the one behind has nowhere to go."""
    images = torch.rand(2, 2, 8, 8)
    config = tiny.replace(channel_norm="bn_token", neuron={"backend": backend})
    found = violations(fold_batch_norm(calibrate(SpikingMLP(config), images), strict=False), images)
    blocks = ["stages.0.blocks.0", "stages.0.blocks.1", "stages.1.blocks.0"]
    norm = "aten.native_batch_norm"
    assert [row[:2] for row in found] == [(f"{block}.channel.down.norm.batch_norm", norm) for block in blocks]


def test_layer_norm_stays(tiny: NetworkConfig) -> None:
    images = torch.rand(2, 2, 8, 8)
    model = calibrate(SpikingMLP(tiny.replace(channel_norm="ln", token_norm="ln")), images)
    found = violations(fold_batch_norm(model, strict=False), images)
    assert {row[1] for row in found} == {"aten.native_layer_norm"}
    assert len(found) == 3 * 4


def test_spike_skip_is_not_binary(tiny: NetworkConfig) -> None:
    found = violations(*folded(tiny.replace(skip="spike")))
    assert {row[1] for row in found} <= {
        "aten.addmm",
        "aten.mm",
        "aten.addmm_",
        "aten.bmm",
        "aten.convolution",
    }
    assert any(re.search(r"meets (\{0, 1, 2\}|whole numbers 0 to)", row[2]) for row in found)


def test_relu_twin(tiny: NetworkConfig) -> None:
    """A real-valued mixer: every map behind the stem meets reals."""
    found = violations(*folded(tiny.replace(activation="relu", time_steps=1)))
    synapses = [row for row in found if row[0].endswith(("linear", "conv"))]
    assert len({row[0] for row in synapses}) == 3 * 5 + 3 + 1
    assert all("meets real: only values in {0, 1} need no product" in row[2] for row in synapses)


def test_attention_block() -> None:
    """Self-attention on spikes: queries, keys and values are binary, their products are products."""

    class SpikingSelfAttention(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.queries, self.keys, self.values = (nn.Linear(width, width) for _ in range(3))
            self.neurons = Fires()
            self.out = nn.Linear(width, width)

        def forward(self, s: Tensor) -> Tensor:
            q, k, v = (self.neurons(m(s)) for m in (self.queries, self.keys, self.values))
            return self.out(self.neurons(0.125 * (q @ k.transpose(-2, -1) @ v) - 0.5))

    model = nn.Sequential(nn.Linear(4, 8), Fires(), SpikingSelfAttention(8))
    found = violations(model, torch.randn(2, 5, 4))
    assert [row[:2] for row in found] == [("2", "aten.bmm"), ("2", "aten.bmm")]
    assert all("as attention does" in row[2] for row in found)


def by_choice(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`q @ k.mT @ v` of spikes, as AND, count, choice and sum."""
    counts = torch.where(q[..., :, None, :] > 0, k[..., None, :, :], 0.0).sum(-1)
    return torch.where(v[..., None, :, :] > 0, counts[..., None], 0.0).sum(-2)


@pytest.mark.parametrize(
    ("attend", "free"),
    [
        (by_choice, True),
        (lambda q, k, v: 0.125 * by_choice(q, k, v), True),
        (lambda q, k, v: 0.3 * by_choice(q, k, v), False),
        (lambda q, k, v: by_choice(q, k, v) * by_choice(q, k, v), False),
        (lambda q, k, v: by_choice(q, k, v) @ v.mT, False),
    ],
    ids=["counts", "scaled by a power of two", "scaled by another number", "squared", "counts times values"],
)
def test_attention_by_choice(attend: Callable[[Tensor, Tensor, Tensor], Tensor], free: bool) -> None:
    """Spikes that choose among spikes and counts need no product; numbers times numbers do."""

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.neurons = nn.Linear(4, 24), Fires()

        def forward(self, tokens: Tensor) -> Tensor:
            return attend(*self.neurons(self.stem(tokens)).split(8, -1))

    report = audit(Attention().eval(), torch.randn(2, 5, 4))
    assert report.multiplication_free is free
    assert {row.holds for row in report.layers} == {"all inputs"}
    q, k, v = (torch.rand(3, 2, 5, 8) < 0.5).float()
    assert torch.equal(by_choice(q, k, v), q @ k.mT @ v)


@pytest.mark.parametrize("absorbing", [False, True])
@pytest.mark.parametrize("backend", ["eager", "compiled"])
@pytest.mark.parametrize(
    ("beta", "kinds"),
    [(1.0, set()), (0.25, {Kind.SHIFT}), (0.3, {Kind.MULTIPLICATION}), (0.0, set())],
)
def test_leak(beta: float, kinds: set[Kind], backend: str, absorbing: bool) -> None:
    """A membrane that keeps all or nothing is not multiplied at all."""
    config = NeuronConfig(beta=beta, input_gain=1.0, reset="soft", backend=backend)  # type: ignore[arg-type]
    neuron = AxisLIF(config, "channel", torch.ones(8), torch.zeros(8)) if absorbing else LIF(config)
    model = nn.Sequential(nn.Linear(4, 8), neuron, nn.Linear(8, 2))
    report = audit(model.eval(), torch.randn(3, 5, 1, 1, 4))
    found = {row.kind for row in report.layers if row.name == "aten.mul"} - {Kind.CONSTANT}
    assert found == kinds
    assert report.multiplication_free is (Kind.MULTIPLICATION not in kinds)
    assert {row.path for row in report.violations} <= {"1"}


@st.composite
def configurations(draw: st.DrawFn) -> NetworkConfig:
    """Any field at any value that keeps the network small."""
    stages = draw(st.integers(1, 2))
    neuron = NeuronConfig(
        beta=draw(st.sampled_from([0.0, 2.0**-9, 0.25, 0.5, 1.0]) | st.floats(0, 1)),
        threshold=draw(st.floats(0.1, 4)),
        input_gain=draw(st.floats(0.1, 4)),
        reset=draw(st.sampled_from(RESETS)),
        surrogate=draw(st.sampled_from(get_args(SurrogateName))),
        inclusive=draw(st.booleans()),
        backend=draw(st.sampled_from(["auto", "eager"])),
    )
    fields: dict[str, Any] = {
        "activation": Activation,
        "channel_norm": ChannelNorm,
        "token_norm": TokenNorm,
        "skip": Skip,
        "patch_encoding": PatchEncoding,
        "token_mixing": TokenMixingName,
        "head": HeadName,
    }
    chosen = {name: draw(st.sampled_from(get_args(values))) for name, values in fields.items()}
    return NetworkConfig(
        dim=draw(st.sampled_from([3, 6])),
        depths=tuple(draw(st.lists(st.integers(1, 2), min_size=stages, max_size=stages))),
        patch_size=draw(st.integers(1, 2)),
        image_size=8,
        in_channels=draw(st.integers(1, 2)),
        num_classes=draw(st.integers(1, 4)),
        time_steps=draw(st.integers(1, 3)),
        neuron=neuron,
        **fitted({"expansion": draw(st.integers(1, 3)), **chosen}),
    )


def in_theory(config: NetworkConfig) -> bool:
    """Whether a network is multiplication-free for all inputs, by its configuration alone."""
    sole_current = config.skip in ("none", "spike")  # all that the neuron behind the channel block gets
    norms_fold = (
        config.channel_norm != "ln"
        and (config.channel_norm != "bn_token" or sole_current)
        and (config.token_norm != "ln" or config.token_mixing == "none")  # the fuse keeps its batch norm
    )
    beta = config.neuron.beta
    leak_shifts = beta == 0 or math.frexp(beta)[0] == 0.5 or config.time_steps == 1  # then nothing leaks
    return config.activation == "lif" and config.skip in SPIKING_SKIPS and norms_fold and leak_shifts


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(config=configurations(), seed=st.integers(0, 99))
def test_the_verdict_is_what_theory_predicts(config: NetworkConfig, seed: int) -> None:
    torch.manual_seed(seed)
    images = torch.rand(2, config.in_channels, 8, 8)
    network = fold_batch_norm(calibrate(SpikingMLP(config), images), strict=False)
    report = audit(network, images)
    proven = report.multiplication_free and all(row.holds == "all inputs" for row in report.layers)
    assert proven == in_theory(config), report
