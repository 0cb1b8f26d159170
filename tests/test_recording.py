from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from snnmlp_edu import InputError, NetworkConfig, SpikingMLP, lif_trace, record
from snnmlp_edu.cost import count_operations
from snnmlp_edu.model.holding import holding
from snnmlp_edu.receptive_fields import input_gradients


def test_every_neuron_layer_is_recorded_in_the_order_of_firing(tiny: NetworkConfig) -> None:
    model = SpikingMLP(tiny)
    traces = record(model, torch.rand(2, 2, 8, 8))
    block = "stages.0.blocks.0"
    assert list(traces)[:6] == [
        "stages.0.neuron",
        f"{block}.token.positions.rows.synapse.neuron",
        f"{block}.token.positions.columns.synapse.neuron",
        f"{block}.token.fuse.neuron",
        f"{block}.channel.up.neuron",
        f"{block}.channel.down.neuron",
    ]
    assert traces["stages.0.neuron"].shape == (3, 2, 4, 4, 6)
    assert traces[f"{block}.channel.up.neuron"].shape == (3, 2, 4, 4, 18)
    assert traces["stages.1.embedding.neurons.1"].shape == (3, 2, 2, 2, 4)
    assert traces.membranes == {}
    assert traces.firing_rates()["stages.0.neuron"] == traces["stages.0.neuron"].mean().item()


def test_membranes_are_those_that_met_the_threshold(tiny: NetworkConfig) -> None:
    model = SpikingMLP(tiny.replace(neuron={"reset": "soft"})).eval()
    images = torch.rand(2, 2, 8, 8) * 5
    traces = record(model, images, membranes=True)
    assert traces.membranes.keys() == traces.keys()
    for path, spikes in traces.items():
        assert torch.equal(spikes, (traces.membranes[path] >= 1).float())
    expected = lif_trace(model.stages[0].embedding(images), model.config.neuron).membrane
    torch.testing.assert_close(traces.membranes["stages.0.neuron"], expected)


def test_recording_leaves_the_network_as_it_was(tiny: NetworkConfig) -> None:
    model = SpikingMLP(tiny).train()
    model.head.eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    traces = record(model, torch.rand(2, 2, 8, 8))
    assert model.training
    assert not model.head.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    assert not any(spikes.requires_grad for spikes in traces.values())


def test_hooks_are_gone_after_an_error_too(tiny: NetworkConfig) -> None:
    model = SpikingMLP(tiny)
    with pytest.raises(InputError, match="images have shape"):
        record(model, torch.rand(2, 1, 8, 8))
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_the_relu_twin_records_activations(tiny: NetworkConfig) -> None:
    traces = record(SpikingMLP(tiny.replace(activation="relu")), torch.rand(2, 2, 8, 8), membranes=True)
    assert traces["stages.0.neuron"].max() > 0
    assert traces.membranes == {}


def test_compiled_blocks_hide_nothing(tiny: NetworkConfig) -> None:
    model = SpikingMLP(tiny.replace(neuron={"backend": "eager"})).eval()
    images = torch.rand(2, 2, 8, 8) * 5
    expected, cost = record(model, images), count_operations(model, images)
    path = "stages.0.blocks.0.token.fuse.neuron"
    fields = input_gradients(model, path, images, [(0, 0)])
    for block in model.stages[0].blocks:
        block.compile(backend="eager")
    with torch.no_grad():
        model(images)
    traces = record(model, images)
    assert traces.keys() == expected.keys()
    assert all(torch.equal(spikes, expected[path]) for path, spikes in traces.items())
    assert count_operations(model, images) == cost
    assert torch.equal(input_gradients(model, path, images, [(0, 0)]).maps, fields.maps)


def test_several_threads_record_one_network(tiny: NetworkConfig) -> None:
    model = SpikingMLP(tiny).train()
    images = torch.rand(12, 2, 2, 8, 8) * 5

    def run(number: int) -> dict[str, torch.Tensor]:
        with model.presenting(1 + number % 3):
            return record(model, images[number])

    expected = [run(number) for number in range(12)]
    statistics = {name: value.clone() for name, value in model.state_dict().items()}
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(run, [*range(12)] * 3))
    for number, traces in enumerate(found):
        torch.testing.assert_close(dict(traces), dict(expected[number % 12]), rtol=0, atol=0)
    assert all(module.training for module in model.modules())
    torch.testing.assert_close(dict(model.state_dict()), statistics, rtol=0, atol=0)
    assert not any(module._forward_hooks for module in model.modules())


def test_attributes_are_held_until_the_last_one_leaves() -> None:
    norm = torch.nn.BatchNorm1d(3, momentum=0.1)
    first, second = holding([(norm, "momentum", 0.0)]), holding([(norm, "momentum", 0.0)])
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert norm.momentum == 0
    second.__exit__(None, None, None)
    assert norm.momentum == 0.1


@pytest.mark.parametrize("model", [3, None, "mlp_spe_nano"])
def test_only_networks_are_recorded(model: Any) -> None:
    with pytest.raises(InputError, match=r"nn\.Module"):
        record(model, torch.rand(2, 2, 8, 8))
