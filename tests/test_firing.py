from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor, nn

from snnmlp_edu import LIF, InputError, NetworkConfig, NeuronConfig
from snnmlp_edu.model import compiled, firing
from snnmlp_edu.model.firing import fire, fire_and_keep
from snnmlp_edu.model.layout import Axis, features_along, spread_along
from snnmlp_edu.model.mixing import TokenMixing
from snnmlp_edu.model.normalisation import BatchNorm
from snnmlp_edu.model.synapses import AxisLinear, Synapse

SHAPE = (3, 2, 4, 5, 6)
COMPILED = LIF(NeuronConfig(backend="compiled"))
EAGER = LIF(NeuronConfig(backend="eager"))


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def a_norm(axis: Axis, training: bool) -> BatchNorm:
    norm = BatchNorm(axis, features_along(axis, SHAPE[2:])).double()
    nn.init.normal_(norm.batch_norm.weight)
    nn.init.uniform_(norm.batch_norm.bias, 0.5, 1.5)
    nn.init.normal_(norm.batch_norm.running_mean)
    nn.init.uniform_(norm.batch_norm.running_var, 0.5, 2)
    return norm.train(training)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("with_shortcut", [True, False])
@pytest.mark.parametrize("axis", ["channel", "width", "height", "token"])
def test_one_pass_equals_one_step_after_the_other(
    axis: Axis, with_shortcut: bool, with_bias: bool, training: bool
) -> None:
    norm, x = a_norm(axis, training), randn(*SHAPE)
    bias = randn(features_along(axis, SHAPE[2:])) if with_bias else None
    shortcut = randn(1, *SHAPE[1:]) if with_shortcut else None
    sources = [t for t in (x, bias, shortcut, *norm.parameters()) if t is not None]
    weight, weight_of_current = torch.randn(2, *SHAPE, dtype=torch.float64)

    reference = copy.deepcopy(norm)
    biased = x if bias is None else x + spread_along(bias, axis, x)
    current = reference(biased) if shortcut is None else reference(biased) + shortcut
    expected = EAGER(current)
    loss = (expected * weight).sum() + ((current * weight_of_current).sum() if with_shortcut else 0)
    owned = [t for t in (x, bias, shortcut, *reference.parameters()) if t is not None]
    gradients = torch.autograd.grad(loss, owned)

    assert firing.joins(COMPILED, norm, axis, x)
    if shortcut is None:
        spikes = fire(COMPILED, norm, axis, x, bias)
        total = (spikes * weight).sum()
    else:
        spikes, kept = fire_and_keep(COMPILED, norm, axis, x, bias, shortcut.expand(SHAPE))
        torch.testing.assert_close(kept, current)
        total = (spikes * weight).sum() + (kept * weight_of_current).sum()
    assert torch.equal(spikes, expected)
    assert 0.05 < spikes.mean() < 0.95
    torch.testing.assert_close(torch.autograd.grad(total, sources), gradients)
    torch.testing.assert_close(norm.state_dict(), reference.state_dict())
    with torch.no_grad():
        assert torch.equal(fire(COMPILED, norm.eval(), axis, x, bias), EAGER(norm(biased)))


@pytest.mark.parametrize("with_shortcut", [True, False])
@pytest.mark.parametrize("axis", ["channel", "height"])
def test_a_folded_synapse_goes_in_one_pass_too(axis: Axis, with_shortcut: bool) -> None:
    x, bias = randn(*SHAPE), randn(features_along(axis, SHAPE[2:]))
    shortcut = randn(*SHAPE) if with_shortcut else torch.zeros(SHAPE, dtype=torch.float64)
    current = x + spread_along(bias, axis, x) + shortcut
    folded = nn.Identity()
    assert not firing.joins(COMPILED, folded, axis, x)  # its constants take no gradients
    with torch.no_grad():
        assert firing.joins(COMPILED, folded, axis, x)
        spikes, kept = fire_and_keep(COMPILED, folded, axis, x, bias, shortcut)
        assert torch.equal(spikes, EAGER(current))
        torch.testing.assert_close(kept, current)
        one = fire(COMPILED, folded, axis, x, bias, shortcut if with_shortcut else None)
        assert torch.equal(one, spikes)
        assert torch.equal(fire(COMPILED, folded, axis, x), EAGER(x))
    assert torch.equal(fire(COMPILED, folded, axis, x, bias, shortcut), spikes)


def test_only_the_spikes_or_only_the_current_may_carry_gradients() -> None:
    norm, x, shortcut = a_norm("channel", True), randn(*SHAPE), randn(*SHAPE)
    for chosen in (0, 1):
        found, expected = (
            torch.autograd.grad(
                fire_and_keep(neuron, norm, "channel", x, None, shortcut)[chosen].sum(), (x, shortcut)
            )
            for neuron in (COMPILED, EAGER)
        )
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("watch", ["neuron", "norm", "linear"])
def test_who_looks_sees_what_passes(watch: str) -> None:
    neuron, synapse = copy.deepcopy(COMPILED), Synapse(AxisLinear("channel", 6, 6), BatchNorm("channel", 6))
    seen: list[Tensor] = []
    module = neuron if watch == "neuron" else getattr(synapse, watch)
    spikes = torch.ones(SHAPE)
    quiet = synapse.eval().fire(neuron, spikes)
    module.register_forward_hook(lambda *args: seen.append(args[2]))
    assert torch.equal(synapse.fire(neuron, spikes), quiet)
    expected = {"neuron": neuron, "norm": synapse, "linear": synapse.linear}[watch]
    hooks = module._forward_hooks.copy()
    module._forward_hooks.clear()
    torch.testing.assert_close(seen[0], quiet if expected is neuron else expected(spikes))
    assert len(seen) == len(hooks) == 1


@pytest.mark.parametrize("way", ["register_full_backward_hook", "register_full_backward_pre_hook"])
def test_who_looks_at_gradients_sees_them(way: str) -> None:
    neuron, synapse = copy.deepcopy(COMPILED), Synapse(AxisLinear("channel", 6, 6), BatchNorm("channel", 6))
    seen: list[Tensor] = []
    getattr(synapse.norm, way)(lambda *args: seen.append(args[-1][0]))
    synapse.fire(neuron, torch.ones(SHAPE)).sum().backward()
    assert [each.shape for each in seen] == [torch.Size(SHAPE)]


@pytest.mark.parametrize("with_shortcut", [True, False])
def test_who_looks_at_a_module_of_several_parts_sees_its_current(with_shortcut: bool) -> None:
    config = NetworkConfig(dim=6, depths=(1,), patch_size=2, image_size=8, in_channels=1, num_classes=10)
    mixing = TokenMixing((4, 4, 6), config).eval()
    spikes, shortcut = torch.ones(3, 2, 4, 4, 6), torch.randn(3, 2, 4, 4, 6) if with_shortcut else None
    quiet = mixing.fire(COMPILED, spikes, shortcut)
    seen: dict[str, Tensor] = {}
    for path, module in mixing.named_modules(prefix="token"):
        module.register_forward_hook(lambda *args, path=path: seen.update({path: args[2]}))
    assert torch.equal(mixing.fire(COMPILED, spikes, shortcut), quiet)
    assert seen.keys() == dict(mixing.named_modules(prefix="token")).keys()
    current = seen["token"] if shortcut is None else seen["token"] + shortcut
    assert torch.equal(COMPILED(current), quiet)
    if shortcut is not None:
        kept = mixing.fire_and_keep(COMPILED, spikes, shortcut)
        torch.testing.assert_close(kept, (quiet, current))


def test_other_norms_and_neurons_go_one_after_the_other() -> None:
    x = torch.randn(SHAPE)
    norm = BatchNorm("channel", 6)
    no_statistics = copy.deepcopy(norm)
    no_statistics.batch_norm.momentum = None
    assert firing.joins(COMPILED, norm, "channel", x)
    assert not firing.joins(COMPILED, norm, "width", x)
    for neuron, other, current in (
        (EAGER, norm, x),
        (nn.ReLU(), norm, x),
        (LIF(), norm, x),  # too small to repay the compiler
        (COMPILED, nn.Identity(), x),
        (COMPILED, no_statistics, x),
        (COMPILED, norm, x.half()),
    ):
        assert not firing.joins(neuron, other, "channel", current)
    with torch.autocast("cpu", torch.bfloat16):
        assert not firing.joins(COMPILED, norm, "channel", x)


def two_steps(config: NeuronConfig) -> dict[str, Tensor]:
    """Statistics and gradients of a synapse after two steps of training, by neurons that repay a compiler."""
    torch.manual_seed(1)
    linear = AxisLinear("channel", 6, 6, bias=False)  # a bias before a batch norm has no gradient but noise
    synapse, neuron = Synapse(linear, BatchNorm("channel", 6)).double(), LIF(config)
    for _ in range(2):
        spikes = (torch.rand(4, 8, 16, 16, 6) < 0.5).double()
        fired, current = synapse.fire_and_keep(neuron, spikes, shortcut=torch.rand_like(spikes))
        (fired.sum() + current.square().sum()).backward()
    gradients = {name: p.grad for name, p in synapse.named_parameters() if p.grad is not None}
    return {**synapse.state_dict(), **{f"gradient of {name}": g for name, g in gradients.items()}}


def refuse(*refused: str) -> Any:
    """A torch.compile that cannot compile the scans of these names."""
    real = torch.compile

    def compile_some(function: Any, **options: Any) -> Any:
        if any(function.__name__.startswith(f"{name}_") for name in refused):
            return Mock(side_effect=RuntimeError("C++ compile error"))
        return real(function, **options)

    return compile_some


@pytest.mark.filterwarnings("ignore:LIF neurons run without a compiler")
@pytest.mark.parametrize(
    "refused",
    [("forward_scan", "backward_scan"), ("forward_scan_with_current",), ("backward_scan_with_current",)],
    ids=["all", "some", "backward"],
)
def test_without_a_compiler_training_is_the_same(
    monkeypatch: pytest.MonkeyPatch, refused: tuple[str, ...]
) -> None:
    monkeypatch.setattr(compiled, "_graphs", {})
    monkeypatch.setattr(torch, "compile", refuse(*refused))
    torch.testing.assert_close(
        two_steps(NeuronConfig(beta=0.45)), two_steps(NeuronConfig(beta=0.45, backend="eager"))
    )


@pytest.mark.filterwarnings("ignore:LIF neurons run without a compiler")
def test_a_graph_that_fails_in_the_middle_of_training_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def fails_later(function: Any, **options: Any) -> Any:
        def call(*tensors: Tensor) -> Any:
            calls.append(function.__name__)
            if len(calls) > 3:  # both passes were tried once, and the first forward pass went well
                raise RuntimeError("No space left on device")
            return function(*tensors)

        return call

    monkeypatch.setattr(compiled, "_graphs", {})
    monkeypatch.setattr(torch, "compile", fails_later)
    torch.testing.assert_close(
        two_steps(NeuronConfig(beta=0.45)), two_steps(NeuronConfig(beta=0.45, backend="eager"))
    )
    assert len(calls) == 5  # each graph fails once


def test_no_statistics_learn_where_the_backend_asked_for_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_graphs", {})
    monkeypatch.setattr(torch, "compile", refuse("forward_scan"))
    for way in ("configuration", "environment"):
        norm, x = BatchNorm("channel", 6), torch.randn(4, 8, 16, 16, 6)
        before = copy.deepcopy(norm.state_dict())
        if way == "environment":
            monkeypatch.setenv("SNNMLP_LIF_BACKEND", "compiled")
        neuron = LIF(NeuronConfig(backend="compiled" if way == "configuration" else "auto"))
        with pytest.raises(InputError, match="'compiled' is not possible"):
            fire(neuron, norm, "channel", x)
        torch.testing.assert_close(norm.state_dict(), before, rtol=0, atol=0)


PROGRAM = """
import torch
from snnmlp_edu import LIF, NeuronConfig
from snnmlp_edu.model.normalisation import BatchNorm
from snnmlp_edu.model.synapses import AxisLinear, Synapse
found = []
for backend in ("auto", "eager"):
    torch.manual_seed(0)
    synapse = Synapse(AxisLinear("channel", 6, 6, bias=False), BatchNorm("channel", 6)).double()
    for _ in range(2):
        spikes = torch.rand(4, 8, 16, 16, 6).double()
        synapse.fire(LIF(NeuronConfig(backend=backend)), spikes).sum().backward()
    found.append({**synapse.state_dict(), "gradient": synapse.linear.weight.grad})
torch.testing.assert_close(*found)
"""


def test_a_machine_without_a_compiler_trains_alike(tmp_path: Path) -> None:
    environment = os.environ | {"CXX": "missing-compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("run without a compiler") == 1, done.stderr


def test_all_layers_and_shapes_share_few_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """One graph a pass for each layout, with and without shortcut, whatever the layer's shape."""
    torch._dynamo.utils.counters.clear()
    torch._dynamo.reset()
    monkeypatch.setattr(compiled, "_graphs", {})
    for batch, side, channels in ((2, 4, 6), (3, 8, 12), (5, 2, 24)):
        x = torch.randn(2, batch, side, side, channels, requires_grad=True)
        for axis in ("channel", "width", "height", "token"):
            norm = BatchNorm(axis, features_along(axis, x.shape[2:]))
            fire(COMPILED, norm, axis, x).sum().backward()
        norm = BatchNorm("channel", channels)
        for training in (True, False):
            spikes, current = fire_and_keep(
                COMPILED, norm.train(training), "channel", x, None, torch.zeros_like(x)
            )
            (spikes + current).sum().backward()
            fire(COMPILED, norm, "channel", x, None, x).sum().backward()
            with torch.no_grad():
                bias = nn.Parameter(torch.randn(channels))
                fire(COMPILED, nn.Identity(), "channel", x, bias)
                fire_and_keep(COMPILED, nn.Identity(), "channel", x, bias, x)
    # channel, positions, channel with shortcut, the same with its current kept: forward and backward each;
    # and two kinds of folded layers, forward
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 10


def test_a_hook_on_all_modules_watches_too() -> None:
    layer = nn.Identity()
    assert not firing.watched(layer)
    handle = nn.modules.module.register_module_forward_hook(lambda module, inputs, output: None)
    try:
        assert firing.watched(layer)
    finally:
        handle.remove()
    assert not firing.watched(layer)
