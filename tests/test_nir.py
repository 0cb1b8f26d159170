"""Exported graphs run elsewhere: by the published equations in NumPy, and by snnTorch's importer."""

from __future__ import annotations

import copy
import dataclasses
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
import snntorch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nir_reference import interpret
from snntorch.import_nir import import_from_nir
from torch import Tensor
from variants import FOLDING_SKIPS, HEADS, PATCH_ENCODINGS, TOKEN_MIXINGS, fitted

from snnmlp_edu import LIF, InputError, NetworkConfig, NeuronConfig, SpikingMLP, create_model, record
from snnmlp_edu.mfi import calibrate, export_nir, fold_batch_norm, nir_graph
from snnmlp_edu.mfi.folding.layers import AxisLIF
from snnmlp_edu.mfi.nir_graph import node_name
from snnmlp_edu.model.recording import Traces


def random_images(config: NetworkConfig, batch: int = 3) -> Tensor:
    """Images in sixteenths, one for each step."""
    shape = (config.time_steps, batch, config.in_channels, config.image_size, config.image_size)
    return torch.randint(0, 17, shape) / 16


def folded_network(config: NetworkConfig, images: Tensor, exact: bool = True) -> SpikingMLP:
    """A folded network in which every layer fires.

    If exact, all constants are multiples of 1/64: sums then have no rounding, in whatever order they are
    taken, and membranes meet the threshold exactly.
    """
    model = SpikingMLP(config).to(images.dtype).eval()
    folded = fold_batch_norm(calibrate(model, images, rate=0.3))
    if exact:
        for parameter in folded.parameters():
            parameter.data = (parameter.data * 64).round() / 64
    return folded


def flatten(spikes: Tensor) -> Tensor:
    """Spikes `[T, H, W, C]` as `[T, C H W]`; `[T, C]` as they are."""
    return spikes.permute(0, 3, 1, 2).flatten(1) if spikes.ndim == 4 else spikes


def assert_same_spikes(traces: Traces, seen: dict[str, np.ndarray], index: int) -> None:
    """Every neuron, at every step, for one image of a batch."""
    for path, spikes in traces.items():
        assert np.array_equal(seen[node_name(path)], flatten(spikes[:, index]).numpy()), path


def assert_interpreted_alike(config: NetworkConfig, exact: bool = True) -> Traces:
    images = random_images(config).double()
    folded = folded_network(config, images, exact)
    graph = export_nir(folded)
    traces = record(folded, images, membranes=True)
    neurons = [name for name, node in graph.nodes.items() if isinstance(node, nir.LIF | nir.IF)]
    assert sorted(neurons) == sorted(map(node_name, traces))
    wanted = folded.forward_steps(images).detach().numpy()
    for index in range(images.shape[1]):
        seen = interpret(graph, images[:, index].numpy())
        assert_same_spikes(traces, seen, index)
        assert np.allclose(seen["output"], wanted[:, index], rtol=0, atol=1e-12)
    return traces


VARIANTS: dict[str, dict[str, Any]] = {
    "released": {},
    "figure": {"head": "figure"},
    **{skip: fitted({"skip": skip}) for skip in FOLDING_SKIPS},
    "spike_bn, figure": {"skip": "spike_bn", "head": "figure"},
    **{f"mixing {name}, conv": {"token_mixing": name, "patch_encoding": "conv"} for name in TOKEN_MIXINGS},
    "tdbn": {"token_norm": "tdbn", "channel_norm": "tdbn"},
    "no norm": {"token_norm": "none", "channel_norm": "none"},
    "strict": {"neuron": {"inclusive": False}},
    "slow leak": {"neuron": {"beta": 0.75, "input_gain": 1.0}},
    "no memory": {"neuron": {"beta": 0.0}},
    "no leak": {"neuron": {"beta": 1.0}},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_equations_of_nir_give_the_same_spikes(tiny: NetworkConfig, variant: str) -> None:
    traces = assert_interpreted_alike(tiny.replace(**VARIANTS[variant]))
    assert all(spikes.any() for spikes in traces.values())


def test_a_block_that_runs_twice_stands_twice_in_the_graph(tiny: NetworkConfig) -> None:
    images = random_images(tiny).double()
    folded = folded_network(tiny, images)
    folded.stages[0].blocks.append(folded.stages[0].blocks[0])
    graph = export_nir(folded)
    wanted = folded.forward_steps(images).detach().numpy()
    for index in range(images.shape[1]):
        seen = interpret(graph, images[:, index].numpy())
        assert np.allclose(seen["output"], wanted[:, index], rtol=0, atol=1e-12)


@pytest.mark.parametrize("inclusive", [True, False])
def test_membranes_that_meet_the_threshold_fire_as_in_the_network(
    tiny: NetworkConfig, inclusive: bool
) -> None:
    traces = assert_interpreted_alike(tiny.replace(neuron={"inclusive": inclusive}))
    ties = sum(int((u == 2.0).sum()) for u in traces.membranes.values())  # threshold 1 over gain 0.5
    assert ties > 10


def test_constants_that_no_rounding_made_alike(tiny: NetworkConfig) -> None:
    assert_interpreted_alike(tiny.replace(neuron={"beta": 0.8, "threshold": 0.7}), exact=False)


@settings(max_examples=12, deadline=None)
@given(
    dim=st.sampled_from([3, 6]),
    depths=st.sampled_from([(1,), (2,), (1, 1), (1, 1, 1)]),
    patch_size=st.integers(1, 2),
    fields=st.fixed_dictionaries(
        {
            "in_channels": st.integers(1, 3),
            "time_steps": st.integers(1, 4),
            "expansion": st.integers(1, 3),
            "skip": st.sampled_from(FOLDING_SKIPS),
            "head": st.sampled_from(HEADS),
            "token_mixing": st.sampled_from(TOKEN_MIXINGS),
            "patch_encoding": st.sampled_from(PATCH_ENCODINGS),
        }
    ).map(fitted),
    beta=st.sampled_from([0.0, 0.5, 0.75, 1.0]),
    inclusive=st.booleans(),
)
def test_any_small_network(
    dim: int,
    depths: tuple[int, ...],
    patch_size: int,
    fields: dict[str, Any],
    beta: float,
    inclusive: bool,
) -> None:
    torch.manual_seed(0)
    neuron = NeuronConfig(beta=beta, inclusive=inclusive)
    sizes = {"dim": dim, "depths": depths, "patch_size": patch_size, "image_size": 4 * patch_size}
    traces = assert_interpreted_alike(NetworkConfig(**sizes, **fields, neuron=neuron, num_classes=4))
    assert any(spikes.any() for spikes in traces.values())


# --- snnTorch's importer ------------------------------------------------------------------------------


@pytest.fixture
def forgotten_neurons() -> Iterator[None]:
    """snnTorch keeps every neuron ever made in a class list: take out those of this test."""
    instances = snntorch.SpikingNeuron.instances
    before = len(instances)
    yield
    del instances[before:]


def run_in_snntorch(path: Path, frames: Tensor) -> dict[str, np.ndarray]:
    """What every neuron of a file fires in snnTorch, and the output, for frames `[T, channels, H, W]`."""
    network = import_from_nir(nir.read(path))
    outputs: dict[str, list[Tensor]] = {"output": []}
    for name, module in network.named_modules():
        if isinstance(module, snntorch.Leaky):  # a new network: no membrane is left from a call before
            steps = outputs.setdefault(name, [])
            module.register_forward_hook(lambda _, inputs, spikes, steps=steps: steps.append(spikes))
    with torch.no_grad():
        for frame in frames:
            outputs["output"].append(network(frame)[0])  # one image at a time: Flatten takes all axes
    return {name: torch.stack(steps).numpy() for name, steps in outputs.items()}


IMPORTED = {name: fields for name, fields in VARIANTS.items() if name not in ("strict", "no leak")}
IMPORTED["strict, another leak"] = {"neuron": {"inclusive": False, "beta": 0.8, "input_gain": 1.0}}


@pytest.mark.usefixtures("forgotten_neurons")
@pytest.mark.parametrize("variant", IMPORTED)
def test_snntorch_reads_the_file_and_gives_the_same_spikes(
    tiny: NetworkConfig, tmp_path: Path, variant: str
) -> None:
    config = tiny.replace(**IMPORTED[variant])
    images = random_images(config, batch=2)
    folded = folded_network(config, images)
    export_nir(folded, tmp_path / "network.nir")
    traces = record(folded, images)
    for index in range(2):
        seen = run_in_snntorch(tmp_path / "network.nir", images[:, index])
        assert_same_spikes(traces, seen, index)
        logits = folded(images)[index].detach().numpy()
        assert np.allclose(seen["output"].sum(axis=0), logits, rtol=0, atol=1e-6)


# --- the file ----------------------------------------------------------------------------------------


def toy(**overrides: Any) -> SpikingMLP:
    fields = {"dim": 6, "depths": (1, 1), "image_size": 8, "num_classes": 4} | overrides
    model = create_model("mlp_spe_nano", **fields).eval()
    return fold_batch_norm(calibrate(model, torch.rand(2, 1, 8, 8)))


def test_a_threshold_in_double_precision_is_the_next_number_below() -> None:
    model = create_model("mlp_spe_nano", dim=6, depths=(1,), image_size=8, num_classes=4).double().eval()
    for layer in model.modules():
        if isinstance(layer, LIF):
            layer.config = dataclasses.replace(layer.config, input_gain=1.0, threshold=0.3)
    model.train()(torch.rand(2, 1, 8, 8, dtype=torch.float64))
    graph = export_nir(fold_batch_norm(model.eval()))
    assert np.all(graph.nodes["stages__0__neuron"].v_threshold == np.nextafter(0.3, 0))


def test_file_holds_the_graph_and_how_to_run_it(tmp_path: Path) -> None:
    folded = toy()
    weights = copy.deepcopy(folded.state_dict())
    graph = export_nir(folded, tmp_path / "toy.nir")
    read = nir.read(tmp_path / "toy.nir")
    assert sorted(read.edges) == sorted(graph.edges)
    assert read.nodes.keys() == graph.nodes.keys()
    assert read.metadata == graph.metadata
    assert read.metadata["step_s"] == 1e-4
    assert read.metadata["time_steps"] == 4
    neuron = read.nodes["stages__0__neuron"]
    assert neuron.v_threshold.dtype == np.float32
    assert np.all(neuron.v_threshold == np.nextafter(np.float32(2), np.float32(0)))
    assert np.all(neuron.tau == 2e-4)
    assert np.all(neuron.r == 2)
    assert all(torch.equal(weights[name], tensor) for name, tensor in folded.state_dict().items())
    assert list(tmp_path.iterdir()) == [tmp_path / "toy.nir"]


def test_unrolled_maps_hold_the_weights_themselves() -> None:
    folded = toy()
    nodes = export_nir(folded).nodes
    block = "stages__0__blocks__0"
    rows: Any = folded.get_submodule("stages.0.blocks.0.token.positions.rows.synapse.linear")
    unrolled = nodes[f"{block}__token__positions__rows__synapse"].weight.reshape(6, 4, 4, 6, 4, 4)
    expected = np.einsum("cd,hg,qp->chqdgp", np.eye(6), np.eye(4), rows.weight.numpy())
    assert np.array_equal(unrolled, expected.astype(np.float32))
    fuse: Any = folded.get_submodule("stages.0.blocks.0.token.fuse.linear")
    for part in range(3):
        unrolled = nodes[f"{block}__token__fuse__{part}"].weight.reshape(6, 16, 6, 16)
        weight = fuse.weight[:, 6 * part : 6 * part + 6].numpy()
        assert np.array_equal(unrolled, np.einsum("cd,hg->chdg", weight, np.eye(16)).astype(np.float32))
    assert np.array_equal(nodes[f"{block}__token__fuse__0"].bias, fuse.bias.repeat_interleave(16).numpy())


def test_a_failure_leaves_the_older_file(tmp_path: Path) -> None:
    path = tmp_path / "older.nir"
    path.write_bytes(b"older")
    with pytest.raises(InputError):
        export_nir(create_model("mlp_spe_nano").eval(), path)
    assert path.read_bytes() == b"older"
    with pytest.raises(OSError, match=r"nowhere/toy\.nir'$"):
        export_nir(toy(), tmp_path / "nowhere" / "toy.nir")
    assert list(tmp_path.iterdir()) == [path]


def test_a_pipe_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(InputError, match="pipe is a device or a pipe"):
        export_nir(toy(), pipe)
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


# --- what NIR cannot say -----------------------------------------------------------------------------


def with_axis_lif() -> SpikingMLP:
    folded = toy()
    neuron = AxisLIF(NeuronConfig(), "token", torch.ones(16), torch.zeros(16))
    folded.set_submodule("stages.0.neuron", neuron)
    return folded


def with_nan() -> SpikingMLP:
    folded = toy()
    next(folded.parameters()).data[0] = math.nan
    return folded


def with_hook() -> SpikingMLP:
    folded = toy()
    folded.stages[0].neuron.register_forward_hook(lambda layer, inputs, spikes: 1 - spikes)
    return folded


def with_own_method() -> SpikingMLP:
    folded = toy()
    forward = folded.stages[0].neuron.forward
    folded.stages[0].neuron.forward = lambda current: forward(2 * current)
    return folded


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (with_hook, r"^stages\.0\.neuron has a forward hook"),
        (with_own_method, r"^stages\.0\.neuron has a forward of its own"),
        (lambda: torch.nn.Linear(2, 2), r"folded SpikingMLP and got Linear$"),
        (lambda: toy().train(), r"training mode; call \.eval\(\)"),
        (
            lambda: create_model("mlp_spe_nano").eval(),
            r"^stages\.0\.embedding\.embed\.norm: .*fold_batch_norm",
        ),
        (lambda: toy(activation="relu"), r"^stages\.0\.neuron: NIR has no ReLU"),
        (lambda: toy(channel_norm="tebn"), r"channel\.up\.linear: .* same at every step"),
        (lambda: toy(neuron={"reset": "soft"}), r"^stages\.0\.neuron: .*reset='hard'"),
        (with_axis_lif, r"^stages\.0\.neuron: NIR's neurons all fire above"),
        (with_nan, r"holds NaN or infinite"),
        (lambda: toy().bfloat16(), r"is torch\.bfloat16; .* \.float\(\)"),
    ],
)
def test_what_cannot_be_exported_is_named(network: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        export_nir(network())


def test_a_large_network_is_refused_before_it_is_unrolled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nir_graph, "MOST_WEIGHTS", 96 * 96 + 1)
    with pytest.raises(
        InputError, match=r"columns\.synapse have 18,432 weights .* stops at 9,217; .* image_size"
    ):
        export_nir(toy())


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    folded = toy()
    monkeypatch.setitem(sys.modules, "nir", None)
    with pytest.raises(InputError, match=r'pip install "snnmlp-edu\[export\]"'):
        export_nir(folded)
