"""Networks of the library that are not multiplication-free, and the reason of each."""

from __future__ import annotations

import re

import pytest
import torch
from audited import Fires, folded, violations
from torch import Tensor, nn

from snnmlp_edu import LIF, NetworkConfig, NeuronConfig, SpikingMLP
from snnmlp_edu.mfi import audit, calibrate, fold_batch_norm


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


@pytest.mark.parametrize(("beta", "passes"), [(1.0, True), (0.25, True), (0.3, False), (0.0, False)])
def test_leak(beta: float, passes: bool) -> None:
    neuron = LIF(NeuronConfig(beta=beta, input_gain=1.0, reset="soft"))
    model = nn.Sequential(nn.Linear(4, 8), neuron, nn.Linear(8, 2))
    report = audit(model.eval(), torch.randn(3, 5, 4))
    assert report.multiplication_free is passes
    assert {row.path for row in report.violations} == (set() if passes else {"1"})
