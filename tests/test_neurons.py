from __future__ import annotations

import dataclasses
import gc
import warnings
import weakref
from contextlib import nullcontext
from typing import Any

import pytest
import snntorch
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import lif
from snntorch import utils
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from snnmlp_edu import LIF, InputError, NeuronConfig, lif_step, lif_trace
from snnmlp_edu.model import compiled
from snnmlp_edu.model import neurons as neurons_module
from snnmlp_edu.model.neurons import COMPILE_FROM, COMPILE_STEPS
from snnmlp_edu.model.surrogates import SURROGATES, Surrogate

BACKENDS = ("eager", "snntorch", "compiled")
LOOPS = ("eager", "snntorch")  # hypothesis would compile each of its examples


def neurons(**fixed: Any) -> st.SearchStrategy[NeuronConfig]:
    fields = {
        "beta": st.floats(0, 1),
        "threshold": st.floats(0.1, 3),
        "input_gain": st.floats(0.1, 2),
        "reset": st.sampled_from(["hard", "soft"]),
        "surrogate": st.sampled_from(sorted(SURROGATES)),
        "inclusive": st.booleans(),
    }
    return st.builds(NeuronConfig, **(fields | {k: st.just(v) for k, v in fixed.items()}))


@pytest.mark.parametrize(
    ("config", "current", "membrane", "spikes"),
    [
        # u = v/2 + x/2, reset to 0 at 1.
        (NeuronConfig(), [1, 1.5, 1, 2, -1], [0.5, 1.0, 0.5, 1.25, -0.5], [0, 1, 0, 1, 0]),
        # The same, but the threshold itself does not fire.
        (NeuronConfig(inclusive=False), [1, 1.5, 1, 2], [0.5, 1.0, 1.0, 1.5], [0, 0, 0, 1]),
        # Soft: what is above the threshold stays, and leaks: 1.75 - 1 = 0.75, / 2 + 0.5 = 0.875.
        (NeuronConfig(reset="soft"), [3.5, 1, 1, 1], [1.75, 0.875, 0.9375, 0.96875], [1, 0, 0, 0]),
        (NeuronConfig(beta=1, input_gain=1), [0.25] * 5, [0.25, 0.5, 0.75, 1.0, 0.25], [0, 0, 0, 1, 0]),
        (NeuronConfig(beta=0, input_gain=1), [0.5, 1, 0.5], [0.5, 1.0, 0.5], [0, 1, 0]),
        (NeuronConfig(threshold=2), [4, 3.5, 4.5], [2.0, 1.75, 3.125], [1, 0, 1]),
    ],
    ids=["released", "strict", "soft", "no leak", "no memory", "threshold 2"],
)
def test_traces_computed_by_hand(
    config: NeuronConfig, current: list[float], membrane: list[float], spikes: list[int]
) -> None:
    trace = lif_trace(torch.tensor(current, dtype=torch.float64), config)
    assert trace.membrane.tolist() == membrane
    assert trace.spikes.tolist() == spikes
    assert LIF(config)(torch.tensor(current)).tolist() == spikes


def test_one_step_at_a_time_is_the_layer_at_once() -> None:
    config = NeuronConfig(reset="soft", beta=0.7)
    current = torch.randn(5, 2, 3) + 1
    state, steps = None, []
    for now in current:
        spikes, state = lif_step(now, state, config)
        steps.append(spikes)
    assert torch.equal(torch.stack(steps), LIF(config)(current))


@given(config=neurons(), steps=st.integers(1, 8), seed=st.integers(0, 2**31))
def test_spikes_and_gradients_of_the_written_out_loop(config: NeuronConfig, steps: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    current = torch.randn(steps, 7, dtype=torch.float64, generator=generator) * 2 + 1
    weights = torch.randn(steps, 7, dtype=torch.float64, generator=generator)
    ours, theirs = current.clone().requires_grad_(), current.clone().requires_grad_()
    actual, expected = LIF(config)(ours), lif(theirs, config)
    assert torch.equal(actual, expected.round())
    (actual * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-12)


@given(config=neurons(reset="hard", inclusive=False), seed=st.integers(0, 2**31))
def test_hard_reset_equals_snntorch_leaky(config: NeuronConfig, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    current = torch.randn(6, 50, dtype=torch.float64, generator=generator) * 2 + 1
    # In fp64: snnTorch stores leak and threshold as fp32 scalars unless told otherwise.
    beta, threshold = (torch.tensor(x, dtype=torch.float64) for x in (config.beta, config.threshold))
    neuron = snntorch.Leaky(beta=beta, threshold=threshold, reset_mechanism="zero").double()
    snntorch.SpikingNeuron.instances.remove(neuron)
    membrane = torch.zeros(50, dtype=torch.float64)
    expected = []
    for now in current:
        spikes, membrane = neuron(config.input_gain * now, membrane)
        expected.append(spikes)
    assert torch.equal(LIF(config)(current), torch.stack(expected))


def test_the_soft_reset_of_snntorch_is_another_model() -> None:
    current = torch.randn(6, 300) * 2 + 1
    neuron = snntorch.Leaky(beta=0.5, reset_mechanism="subtract")
    snntorch.SpikingNeuron.instances.remove(neuron)
    membrane = torch.zeros(300)
    theirs = []
    for now in current:
        spikes, membrane = neuron(0.5 * now, membrane)
        theirs.append(spikes)
    ours = LIF(NeuronConfig(reset="soft"))(current)
    assert not torch.equal(ours, torch.stack(theirs))
    # Its step under an explicit reset, subtracted before the leak, is ours.
    explicit = LIF(NeuronConfig(reset="soft", backend="snntorch"))(current)
    assert torch.equal(ours, explicit)


@given(config=neurons(inclusive=False), seed=st.integers(0, 2**31))
def test_loops_agree_spike_for_spike(config: NeuronConfig, seed: int) -> None:
    current = torch.randn(4, 60, generator=torch.Generator().manual_seed(seed)) * 2 + 1
    weights = torch.randn(4, 60, generator=torch.Generator().manual_seed(seed + 1))
    results = []
    for backend in LOOPS:
        x = current.clone().requires_grad_()
        spikes = LIF(NeuronConfig(**(vars(config) | {"backend": backend})))(x)
        (spikes * weights).sum().backward()
        results.append((spikes.detach(), x.grad))
    for spikes, gradient in results[1:]:
        assert torch.equal(spikes, results[0][0])
        torch.testing.assert_close(gradient, results[0][1], rtol=1e-5, atol=1e-6)


@given(config=neurons(), half=st.booleans(), steps=st.integers(1, 6), seed=st.integers(0, 2**31))
def test_the_written_out_loop_has_the_numbers_of_plain_steps(
    config: NeuronConfig, half: bool, steps: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    current, weights = torch.randn(2, steps, 37, generator=generator) * 2 + 1
    current = current.bfloat16() if half else current
    neuron = LIF(dataclasses.replace(config, backend="eager"))
    results = []
    for surrounding in (nullcontext, neurons_module.plain_steps):
        x = current.clone().requires_grad_()
        with surrounding():
            spikes = neuron(x)
        (spikes * weights).sum().backward()
        assert torch.equal(neuron(current), spikes), "without gradients"
        assert torch.equal(x, current), "nothing is written to the currents"
        results.append((spikes, x.grad))
    assert results[0][0].dtype == results[0][1].dtype == current.dtype
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1]), "bit by bit"


class Names(TorchDispatchMode):
    """Notes the operations that are carried out."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.found.append(str(func))
        return func(*args, **(kwargs or {}))


def test_who_watches_sees_the_operations_of_plain_steps() -> None:
    found = []
    for surrounding in (nullcontext, neurons_module.plain_steps):
        with Names() as names, surrounding():
            LIF()(torch.rand(3, 4, requires_grad=True))
        found.append(names.found)
    assert found[0] == found[1]
    assert found[0].count("aten.where.self") == 3  # a reset at each step


@pytest.mark.parametrize(
    ("surrogate", "reset", "inclusive"),
    [
        *((name, "hard", True) for name in sorted(SURROGATES)),
        ("sigmoid", "soft", True),
        ("atan", "hard", False),
    ],
)
def test_compiled_equals_eager(surrogate: Any, reset: Any, inclusive: bool) -> None:
    config = NeuronConfig(surrogate=surrogate, reset=reset, inclusive=inclusive, beta=0.75, threshold=0.8)
    current = torch.randn(3, 500) * 2 + 1
    current[:, :10] = 1.6  # exact ties: 1.6 * 0.5 is 0.8
    weights = torch.randn(3, 500)
    results = []
    for backend in ("eager", "compiled"):
        x = current.clone().requires_grad_()
        spikes = LIF(NeuronConfig(**(vars(config) | {"backend": backend})))(x)
        (spikes * weights).sum().backward()
        results.append((spikes.detach(), x.grad))
    assert torch.equal(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-5, atol=1e-6)


def test_one_graph_for_every_shape_and_mode() -> None:
    neuron = LIF(NeuronConfig(backend="compiled", beta=0.625))  # a neuron that no other test compiles
    before = len(compiled._graphs)
    image = torch.randn(2, 5, 6, 6).to(memory_format=torch.channels_last)
    currents = {
        "network": torch.randn(2, 3, 4, 4, 5),
        "one neuron": torch.randn(2, 1),
        "one axis": torch.randn(2),
        "no batch": torch.randn(2, 0, 5),
        "strided": torch.randn(2, 30)[:, ::3],
        "time last": torch.randn(30, 2).t(),
        "channels last": image,
        "repeated": torch.randn(30).expand(2, 30),
        "slice of a view": torch.randn(4, 8, 8)[1:3, 2:, ::2],
    }
    eager = LIF(NeuronConfig(beta=0.625, backend="eager"))
    for name, current in currents.items():
        for requires_grad in (False, True):
            x = current.detach().clone(memory_format=torch.preserve_format).requires_grad_(requires_grad)
            spikes = neuron(x.mul(1) if requires_grad else x)
            assert torch.equal(spikes, eager(current)), name
            if requires_grad:
                spikes.sum().backward()
                assert x.grad.shape == current.shape
        with torch.no_grad():
            neuron(current)
        with torch.inference_mode():
            neuron(current * 1)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            neuron(current)
    assert len(compiled._graphs) == before + 2  # forward and backward


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # by PyTorch, for its own transforms
def test_a_second_derivative_is_refused() -> None:
    x = torch.rand(3, 4, requires_grad=True)
    for backend, error in (("eager", InputError), ("compiled", RuntimeError)):
        neuron = LIF(NeuronConfig(backend=backend))  # type: ignore[arg-type]
        (gradient,) = torch.autograd.grad((neuron(x) * x).sum(), x, create_graph=True)
        with pytest.raises(error, match=r"second derivative|once_differentiable"):
            gradient.sum().backward()
        for twice in (torch.func.hessian, lambda f: torch.func.jacrev(torch.func.jacrev(f))):
            with pytest.raises(InputError, match="second derivative"):
                twice(lambda y, neuron=neuron: (neuron(y) * y).sum())(x.detach())


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # by PyTorch, for its own transforms
@pytest.mark.parametrize("backend", BACKENDS)
def test_transforms_find_what_the_loop_finds(backend: str) -> None:
    neuron = LIF(NeuronConfig(backend=backend, reset="soft", surrogate="atan"))  # type: ignore[arg-type]
    eager = LIF(NeuronConfig(backend="eager", reset="soft", surrogate="atan"))
    current, tangent, weight = torch.randn(3, 4, 3, 5, dtype=torch.float64) * 2 + 1
    tracked = current.clone().requires_grad_()
    spikes = eager(tracked)
    (gradient,) = torch.autograd.grad((spikes * weight).sum(), tracked)
    expected = spikes.detach()
    assert torch.equal(torch.func.vmap(neuron, in_dims=1, out_dims=1)(current), expected)

    def total(now: torch.Tensor, its_weight: torch.Tensor) -> torch.Tensor:
        return (neuron(now) * its_weight).sum()

    torch.testing.assert_close(torch.func.grad(total)(current, weight), gradient)
    alone = torch.func.vmap(torch.func.grad(total), in_dims=1, out_dims=1)
    torch.testing.assert_close(alone(current, weight), gradient)
    spikes, slopes = torch.func.jvp(neuron, (current,), (tangent,))
    assert torch.equal(spikes, expected)
    torch.testing.assert_close((slopes * weight).sum(), (gradient * tangent).sum())
    with torch.autograd.forward_ad.dual_level():
        dual = neuron(torch.autograd.forward_ad.make_dual(current, tangent))
        torch.testing.assert_close(torch.autograd.forward_ad.unpack_dual(dual).tangent, slopes)


@pytest.mark.parametrize("surrogate", sorted(SURROGATES))
def test_torch_compile_takes_neurons_of_any_size(surrogate: Any) -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    neuron = LIF(NeuronConfig(surrogate=surrogate, beta=0.3))
    graph = torch.compile(neuron, dynamic=True, fullgraph=True, backend="aot_eager")
    for size in (3, 5, 8):
        current = (torch.randn(4, size) * 2 + 1).requires_grad_()
        spikes, expected = graph(current), neuron(current)
        assert torch.equal(spikes, expected)
        torch.testing.assert_close(
            torch.autograd.grad(spikes.sum(), current), torch.autograd.grad(expected.sum(), current)
        )
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


@torch._dynamo.config.patch(disable=True)
def test_without_a_compiler_auto_warns_once_and_goes_on() -> None:
    config = NeuronConfig(beta=0.3)
    current = torch.rand(2, COMPILE_FROM) * 3
    with pytest.warns(UserWarning, match="LIF neurons run without a compiler.*disabled by the environment"):
        first = LIF(config)(current)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(LIF(config)(current), first)
    assert torch.equal(first, lif_trace(current, config).spikes)
    with pytest.raises(
        InputError, match=r"'compiled' is not possible: torch.compile is disabled .* use 'auto'"
    ):
        LIF(NeuronConfig(beta=0.3, backend="compiled"))(current)


def test_auto_compiles_what_repays_it(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []
    monkeypatch.setattr(neurons_module, "compiled_lif", lambda x, config: shapes.append(x.shape) or x)
    for shape in ((4, COMPILE_FROM // 4), (4, COMPILE_FROM // 4 - 1), (COMPILE_STEPS + 1, COMPILE_FROM)):
        LIF()(torch.zeros(shape))
    LIF()(torch.zeros(4, COMPILE_FROM, device="meta"))  # shapes without numbers: nothing to compile for
    assert shapes == [(4, COMPILE_FROM // 4)]


def test_a_compiler_that_fails_is_reported_and_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []

    def broken(*args: Any, **options: Any) -> Any:
        def call(*tensors: torch.Tensor) -> torch.Tensor:
            tries.append(tensors)
            raise RuntimeError("backend raised:\nfatal error: omp.h was not found\nand much more")

        return call

    monkeypatch.setattr(torch._inductor, "standalone_compile", broken)
    for _ in range(2):
        with pytest.raises(InputError, match=r"fails on this machine \(fatal error: omp.h was not found\)"):
            LIF(NeuronConfig(beta=0.35, backend="compiled"))(torch.rand(2, 4))
    assert len(tries) == 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_state_survives_a_call(backend: str) -> None:
    neuron = LIF(NeuronConfig(backend=backend))
    current = torch.rand(4, 5) * 3
    first = neuron(current)
    neuron(torch.full((2, 5), 1.9))  # leaves membranes just below the threshold
    assert torch.equal(neuron(current), first)
    assert torch.equal(neuron(current[:, :2]), first[:, :2])
    assert neuron.state_dict() == {}


@pytest.mark.parametrize("backend", BACKENDS)
def test_deleted_neurons_are_gone(backend: str) -> None:
    # snnTorch keeps each of its neurons, and its last state, in a class list.
    before = len(snntorch.SpikingNeuron.instances)
    neuron = LIF(NeuronConfig(backend=backend))
    spikes = neuron(torch.rand(3, 4, requires_grad=True))
    alive = weakref.ref(neuron)
    del neuron, spikes
    gc.collect()
    assert alive() is None
    assert len(snntorch.SpikingNeuron.instances) == before


def test_the_surrogate_is_evaluated_once_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counting(x: torch.Tensor, slope: float) -> torch.Tensor:
        calls.append(slope)
        return torch.ones_like(x)

    monkeypatch.setitem(SURROGATES, "sigmoid", Surrogate(counting, 4.0))
    LIF()(torch.rand(5, 3, requires_grad=True)).sum().backward()
    assert calls == [4.0] * 5
    with neurons_module.plain_steps():
        LIF()(torch.rand(5, 3, requires_grad=True)).sum().backward()
    assert calls == [4.0] * 10


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("dtype", "large"), [(torch.bfloat16, 256.0), (torch.float16, 2048.0)])
def test_half_precision_keeps_the_membrane_in_fp32(backend: str, dtype: torch.dtype, large: float) -> None:
    # Here these types count in twos: a membrane kept in them would stay at `large` for ever.
    assert torch.tensor(large, dtype=dtype) + 1 == large
    config = NeuronConfig(beta=1.0, threshold=large + 2.5, input_gain=1.0, backend=backend)
    spikes = LIF(config)(torch.tensor([large, 1, 1, 1, 1], dtype=dtype))
    assert spikes.dtype == dtype
    assert spikes.tolist() == [0, 0, 0, 1, 0]


def test_the_environment_chooses_where_the_configuration_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    current = torch.full((1, 1), 2.0)  # an exact tie, where the snntorch loop is strict
    monkeypatch.setenv("SNNMLP_LIF_BACKEND", "snntorch")
    assert LIF()(current).item() == 0
    assert LIF(NeuronConfig(backend="eager"))(current).item() == 1
    monkeypatch.setenv("SNNMLP_LIF_BACKEND", "numpy")
    with pytest.raises(InputError, match="SNNMLP_LIF_BACKEND is 'numpy'; set it to one of auto"):
        LIF()(current)


def test_a_current_without_time_is_refused() -> None:
    for current in (torch.tensor(1.0), torch.zeros(0, 3)):
        with pytest.raises(InputError, match="the first axis must be time"):
            LIF()(current)


@pytest.mark.parametrize(
    "current",
    [None, [1.0, 2.0], torch.ones(2, dtype=torch.bool), torch.ones(2) * 1j, torch.ones(2, 3).to_sparse()],
    ids=["None", "list", "bool", "complex", "sparse"],
)
def test_a_current_is_a_tensor_of_real_numbers(current: Any) -> None:
    config = NeuronConfig()
    for call in (LIF(), LIF(NeuronConfig(backend="compiled"))):
        with pytest.raises(InputError, match="current"):
            call(current)
    with pytest.raises(InputError, match="current"):
        lif_trace(current, config)
    with pytest.raises(InputError, match="current"):
        lif_step(current, None, config)


def test_a_step_takes_the_state_of_the_last_one() -> None:
    _, state = lif_step(torch.ones(2, 1), None, NeuronConfig())
    for other in (state, state.membrane):
        with pytest.raises(InputError, match="state"):
            lif_step(torch.ones(3), other, NeuronConfig())  # type: ignore[arg-type]
    for config in ({"beta": 0.5}, NeuronConfig):
        with pytest.raises(InputError, match="NeuronConfig"):
            LIF(config)  # type: ignore[arg-type]


def test_a_network_of_snntorch_beside_ours_keeps_its_state() -> None:
    current, config = torch.randn(3, 40) * 2 + 1, NeuronConfig(backend="snntorch", inclusive=False)
    theirs = snntorch.Leaky(beta=0.5, init_hidden=True)
    theirs(current[0])
    membrane, known = theirs.mem.clone(), list(snntorch.SpikingNeuron.instances)
    expected = LIF(NeuronConfig(backend="eager", inclusive=False))(current)
    assert torch.equal(LIF(config)(current), expected)
    assert torch.equal(theirs.mem, membrane)
    assert list(map(id, snntorch.SpikingNeuron.instances)) == list(map(id, known))
    utils.reset(torch.nn.Sequential(theirs))
    assert torch.equal(LIF(config)(current), expected)
    snntorch.SpikingNeuron.instances.remove(theirs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_currents_meet_one_membrane_everywhere(dtype: torch.dtype) -> None:
    current = (torch.randn(6, 20_000) * 2).to(dtype)
    config = NeuronConfig(backend="eager")
    spikes = LIF(config)(current)
    trace = LIF(config).trace(current)
    assert torch.equal(trace.spikes, spikes)
    assert (trace.spikes.dtype, trace.membrane.dtype) == (dtype, torch.float32)
    state, fired = None, []
    for now in current:
        one, state = lif_step(now, state, config)
        assert (one.dtype, state.membrane.dtype) == (dtype, torch.float32)
        fired.append(one)
    assert torch.equal(torch.stack(fired), spikes)


def test_whoever_watches_or_transforms_gets_plain_steps() -> None:
    current, config = torch.zeros(4, COMPILE_FROM), NeuronConfig()
    shape, device = current.shape, current.device
    assert neurons_module.compiles(config, shape, device)
    with FlopCounterMode(display=False):
        assert not neurons_module.compiles(config, shape, device)
    with neurons_module.plain_steps():
        assert not neurons_module.compiles(NeuronConfig(backend="compiled"), shape, device)
    assert neurons_module.compiles(config, shape, device)
