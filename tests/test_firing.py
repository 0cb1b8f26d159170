from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from fresh import run_fresh
from torch import Tensor, nn

from snnmlp_edu import LIF, InputError, NetworkConfig, NeuronConfig
from snnmlp_edu.model import compiled, firing
from snnmlp_edu.model.firing import fire
from snnmlp_edu.model.layout import Axis, features_along
from snnmlp_edu.model.linear import AxisLinear
from snnmlp_edu.model.mixing import TokenMixing
from snnmlp_edu.model.normalisation import BatchNorm
from snnmlp_edu.model.synapses import Synapse

SHAPE = (3, 2, 4, 5, 6)
COMPILED = LIF(NeuronConfig(backend="compiled"))
EAGER = LIF(NeuronConfig(backend="eager"))


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def a_map(axis: Axis, bias: bool = True) -> AxisLinear:
    features = features_along(axis, SHAPE[2:])
    linear = AxisLinear(axis, features, features, bias).double()
    for parameter in linear.parameters():
        nn.init.normal_(parameter)
    return linear


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
    linear, norm, x = a_map(axis, with_bias), a_norm(axis, training), randn(*SHAPE)
    shortcut = randn(1, *SHAPE[1:]) if with_shortcut else None
    weight, weight_of_current = torch.randn(2, *SHAPE, dtype=torch.float64)

    def gradients(spikes: Tensor, current: Tensor | None, *modules: nn.Module) -> tuple[Tensor, ...]:
        loss = (spikes * weight).sum() + (0 if current is None else (current * weight_of_current).sum())
        parameters = [p for module in modules for p in module.parameters()]
        return torch.autograd.grad(loss, [t for t in (x, shortcut, *parameters) if t is not None])

    reference = copy.deepcopy(norm)
    current = reference(linear(x)) if shortcut is None else reference(linear(x)) + shortcut
    expected = EAGER(current)

    assert firing.can_fuse(linear, norm, COMPILED, x)
    whole = None if shortcut is None else shortcut.expand(SHAPE)
    spikes, kept = fire(linear, norm, COMPILED, (x,), whole, keep_current=with_shortcut)
    assert torch.equal(spikes, expected)
    assert 0.05 < spikes.mean() < 0.95
    if with_shortcut:
        torch.testing.assert_close(kept, current)
    else:
        assert kept is None
    torch.testing.assert_close(
        gradients(spikes, kept, linear, norm),
        gradients(expected, current if with_shortcut else None, linear, reference),
    )
    torch.testing.assert_close(norm.state_dict(), reference.state_dict())
    with torch.no_grad():
        assert torch.equal(fire(linear, norm.eval(), COMPILED, (x,))[0], EAGER(norm(linear(x))))


@pytest.mark.parametrize("with_shortcut", [True, False])
@pytest.mark.parametrize("axis", ["channel", "height"])
def test_a_folded_synapse_goes_in_one_pass_too(axis: Axis, with_shortcut: bool) -> None:
    linear, x = a_map(axis), randn(*SHAPE)
    shortcut = randn(*SHAPE) if with_shortcut else torch.zeros(SHAPE, dtype=torch.float64)
    current = linear(x) + shortcut
    folded = nn.Identity()
    assert not firing.can_fuse(linear, folded, COMPILED, x)  # its constants take no gradients
    with torch.no_grad():
        assert firing.can_fuse(linear, folded, COMPILED, x)
        spikes, kept = fire(linear, folded, COMPILED, (x,), shortcut, keep_current=True)
        assert torch.equal(spikes, EAGER(current))
        torch.testing.assert_close(kept, current)
        one, _ = fire(linear, folded, COMPILED, (x,), shortcut if with_shortcut else None)
        assert torch.equal(one, spikes)
        without = a_map(axis, bias=False)
        assert torch.equal(fire(without, folded, COMPILED, (x,))[0], EAGER(without(x)))
    assert torch.equal(fire(linear, folded, COMPILED, (x,), shortcut)[0], spikes)


def test_only_the_spikes_or_only_the_current_may_carry_gradients() -> None:
    linear, norm, x, shortcut = a_map("channel"), a_norm("channel", True), randn(*SHAPE), randn(*SHAPE)
    for chosen in (0, 1):
        found, expected = (
            torch.autograd.grad(
                fire(linear, norm, neuron, (x,), shortcut, keep_current=True)[chosen].sum(), (x, shortcut)
            )
            for neuron in (COMPILED, EAGER)
        )
        torch.testing.assert_close(found, expected)


def a_synapse() -> Synapse:
    return Synapse(AxisLinear("channel", 6, 6), BatchNorm("channel", 6), copy.deepcopy(COMPILED))


@pytest.mark.parametrize("watch", ["neuron", "norm", "linear"])
def test_who_looks_sees_what_passes(watch: str) -> None:
    synapse, spikes = a_synapse().eval(), torch.ones(SHAPE)
    seen: list[Tensor] = []
    quiet = synapse(spikes)[0]
    expected = {"neuron": quiet, "norm": synapse.current(spikes), "linear": synapse.linear(spikes)}[watch]
    synapse.get_submodule(watch).register_forward_hook(lambda *args: seen.append(args[2]))
    assert torch.equal(synapse(spikes)[0], quiet)
    torch.testing.assert_close(seen, [expected])


@pytest.mark.parametrize("way", ["register_full_backward_hook", "register_full_backward_pre_hook"])
def test_who_looks_at_gradients_sees_them(way: str) -> None:
    synapse = a_synapse()
    seen: list[Tensor] = []
    getattr(synapse.norm, way)(lambda *args: seen.append(args[-1][0]))
    synapse(torch.ones(SHAPE))[0].sum().backward()
    assert [each.shape for each in seen] == [torch.Size(SHAPE)]


@pytest.mark.parametrize("with_shortcut", [True, False])
def test_who_looks_at_a_module_of_several_parts_sees_its_current(with_shortcut: bool) -> None:
    config = NetworkConfig(
        dim=6,
        depths=(1,),
        patch_size=2,
        image_size=8,
        in_channels=1,
        num_classes=10,
        neuron=COMPILED.config,
    )
    mixing = TokenMixing((4, 4, 6), config).eval()
    spikes, shortcut = torch.ones(3, 2, 4, 4, 6), torch.randn(3, 2, 4, 4, 6) if with_shortcut else None
    quiet, fused = mixing(spikes, shortcut, keep_current=True)
    seen: dict[str, Any] = {}
    for path, module in mixing.named_modules(prefix="token"):
        module.register_forward_hook(lambda *args, path=path: seen.update({path: args[2]}))
    assert torch.equal(mixing(spikes, shortcut, keep_current=True)[0], quiet)
    assert seen.keys() == dict(mixing.named_modules(prefix="token")).keys()
    alone = seen["token.fuse.norm"]
    fired, current = seen["token"]
    torch.testing.assert_close(current, alone if shortcut is None else alone + shortcut)
    torch.testing.assert_close((fired, current), (quiet, fused))
    assert torch.equal(COMPILED(current), quiet)
    torch.testing.assert_close(mixing.current(spikes), alone)


def test_other_norms_and_neurons_go_one_after_the_other() -> None:
    x, linear, norm = torch.randn(SHAPE), AxisLinear("channel", 6, 6), BatchNorm("channel", 6)
    no_statistics = copy.deepcopy(norm)
    no_statistics.batch_norm.momentum = None
    assert firing.can_fuse(linear, norm, COMPILED, x)
    assert not firing.can_fuse(AxisLinear("width", 5, 5), norm, COMPILED, x)
    assert not firing.can_fuse(nn.Linear(6, 6), norm, COMPILED, x)
    for neuron, other, spikes in (
        (EAGER, norm, x),
        (nn.ReLU(), norm, x),
        (LIF(), norm, x),  # too small to repay the compiler
        (COMPILED, nn.Identity(), x),
        (COMPILED, no_statistics, x),
        (COMPILED, norm, x.half()),
    ):
        assert not firing.can_fuse(linear, other, neuron, spikes)
    with torch.autocast("cpu", torch.bfloat16):
        assert not firing.can_fuse(linear, norm, COMPILED, x)


def two_steps(config: NeuronConfig) -> dict[str, Tensor]:
    """Statistics and gradients of a synapse after two steps of training, by neurons that repay a compiler."""
    torch.manual_seed(1)
    linear = AxisLinear("channel", 6, 6, bias=False)  # a bias before a batch norm has no gradient but noise
    synapse = Synapse(linear, BatchNorm("channel", 6), LIF(config)).double()
    for _ in range(2):
        spikes = (torch.rand(4, 8, 16, 16, 6) < 0.5).double()
        fired, current = synapse(spikes, shortcut=torch.rand_like(spikes), keep_current=True)
        (fired.sum() + current.square().sum()).backward()
    gradients = {name: p.grad for name, p in synapse.named_parameters() if p.grad is not None}
    return {**synapse.state_dict(), **{f"gradient of {name}": g for name, g in gradients.items()}}


def refuse(*refused: str) -> Any:
    """A torch.export.export that cannot trace the scans of these names."""
    real = torch.export.export

    def export_some(bound: Any, *inputs: Any, **options: Any) -> Any:
        if bound.scan.__name__ in refused:
            raise RuntimeError("C++ compile error")
        return real(bound, *inputs, **options)

    return export_some


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
    monkeypatch.setattr(torch.export, "export", refuse(*refused))
    torch.testing.assert_close(
        two_steps(NeuronConfig(beta=0.45)), two_steps(NeuronConfig(beta=0.45, backend="eager"))
    )


@pytest.mark.filterwarnings("ignore:LIF neurons run without a compiler")
def test_a_graph_that_fails_in_the_middle_of_training_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def fails_later(graph: Any, *inputs: Any, **options: Any) -> Any:
        def call(*tensors: Tensor) -> Any:
            calls.append(graph)
            if len(calls) > 3:  # both passes were tried once, and the first forward pass went well
                raise RuntimeError("No space left on device")
            return graph(*tensors)

        return call

    monkeypatch.setattr(compiled, "_graphs", {})
    monkeypatch.setattr(torch._inductor, "standalone_compile", fails_later)
    torch.testing.assert_close(
        two_steps(NeuronConfig(beta=0.45)), two_steps(NeuronConfig(beta=0.45, backend="eager"))
    )
    assert len(calls) == 5  # each graph fails once


def test_no_statistics_learn_where_the_backend_asked_for_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_graphs", {})
    monkeypatch.setattr(torch.export, "export", refuse("forward_scan"))
    for way in ("configuration", "environment"):
        linear, norm, x = AxisLinear("channel", 6, 6), BatchNorm("channel", 6), torch.randn(4, 8, 16, 16, 6)
        before = copy.deepcopy(norm.state_dict())
        if way == "environment":
            monkeypatch.setenv("SNNMLP_LIF_BACKEND", "compiled")
        neuron = LIF(NeuronConfig(backend="compiled" if way == "configuration" else "auto"))
        with pytest.raises(InputError, match="'compiled' is not possible"):
            fire(linear, norm, neuron, (x,))
        torch.testing.assert_close(norm.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize(
    "kind", ["another precision", "one for all images", "another layout", "a strided bias"]
)
@pytest.mark.parametrize("learns", [False, True])
def test_inputs_of_another_kind_give_the_numbers_of_the_plain_steps(kind: str, learns: bool) -> None:
    """A graph takes memory as what it was compiled for, and says nothing: so others must not reach it."""
    linear, norm = AxisLinear("channel", 6, 6), BatchNorm("channel", 6).eval()
    x, shortcut = torch.rand(4, 8, 16, 16, 6), torch.randn(4, 8, 16, 16, 6)
    match kind:
        case "another precision":
            shortcut = shortcut.double()
        case "one for all images":
            shortcut = shortcut[:, :1]
        case "another layout":
            shortcut = shortcut.transpose(2, 3)
        case _:
            linear.bias = nn.Parameter(torch.randn(6, 2)[:, 0])
    layers = (linear, norm) if learns else (linear, nn.Identity())
    plain = LIF(NeuronConfig(backend="eager"))
    with torch.set_grad_enabled(learns):
        spikes, _ = fire(*layers, COMPILED, (x,), shortcut)
        expected, _ = firing.fire_unfused(*layers, plain, (x,), shortcut, False)
    assert 0 < expected.mean() < 1
    assert torch.equal(spikes, expected)
    assert not any(isinstance(found, str) for found in compiled._graphs.values()), "no graph was given up"


def test_a_graph_reads_no_memory_of_another_precision() -> None:
    config = NeuronConfig(backend="compiled")
    x, scale, shift = torch.rand(4, 64, 6), torch.rand(6).double() * 4, torch.rand(6).double()
    found = compiled.run_scan(compiled.forward_scan, config, x, scale, shift)
    assert torch.equal(found, compiled.forward_scan(config, x, scale, shift))


def test_no_graph_is_asked_to_count_further_than_it_can() -> None:
    current = torch.empty(4, 2**30, device="meta")
    with pytest.raises(InputError, match="32 bits"):
        compiled.find_scan(compiled.forward_scan, NeuronConfig(backend="compiled"), current, (2,))


PROGRAM = """
import torch
from snnmlp_edu import LIF, NeuronConfig
from snnmlp_edu.model.linear import AxisLinear
from snnmlp_edu.model.normalisation import BatchNorm
from snnmlp_edu.model.synapses import Synapse
found = []
for backend in ("auto", "eager"):
    torch.manual_seed(0)
    neuron = LIF(NeuronConfig(backend=backend))
    synapse = Synapse(AxisLinear("channel", 6, 6, bias=False), BatchNorm("channel", 6), neuron).double()
    for _ in range(2):
        spikes = torch.rand(4, 8, 16, 16, 6).double()
        synapse(spikes)[0].sum().backward()
    found.append({**synapse.state_dict(), "gradient": synapse.linear.weight.grad})
torch.testing.assert_close(*found)
"""


def test_a_machine_without_a_compiler_trains_alike(tmp_path: Path) -> None:
    environment = os.environ | {"CXX": "missing-compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = run_fresh(["-c", PROGRAM], environment)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("run without a compiler") == 1, done.stderr


def test_all_layers_and_shapes_share_few_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """One graph a pass for each layout, with and without shortcut, whatever the layer's shape."""
    graphs: dict[Any, Any] = {}
    monkeypatch.setattr(compiled, "_graphs", graphs)
    for batch, side, channels in ((2, 4, 6), (3, 8, 12), (5, 2, 24)):
        x = torch.randn(2, batch, side, side, channels, requires_grad=True)
        for axis in ("channel", "width", "height", "token"):
            features = features_along(axis, x.shape[2:])
            fire(AxisLinear(axis, features, features), BatchNorm(axis, features), COMPILED, (x,))[
                0
            ].sum().backward()
        linear, norm = AxisLinear("channel", channels, channels), BatchNorm("channel", channels)
        for training in (True, False):
            shortcut = torch.zeros_like(x)
            spikes, current = fire(linear, norm.train(training), COMPILED, (x,), shortcut, keep_current=True)
            assert current is not None
            (spikes + current).sum().backward()
            fire(linear, norm, COMPILED, (x,), x)[0].sum().backward()
            with torch.no_grad():
                fire(linear, nn.Identity(), COMPILED, (x,))
                fire(linear, nn.Identity(), COMPILED, (x,), x, keep_current=True)
    # channel, positions, channel with shortcut, the same with its current kept: forward and backward each;
    # and two kinds of folded layers, forward
    assert len(graphs) == 10
    assert all(map(callable, graphs.values()))


def test_a_hook_on_all_modules_watches_too() -> None:
    layer = nn.Identity()
    assert not firing.has_hooks(layer)
    handle = nn.modules.module.register_module_forward_hook(lambda module, inputs, output: None)
    try:
        assert firing.has_hooks(layer)
    finally:
        handle.remove()
    assert not firing.has_hooks(layer)
