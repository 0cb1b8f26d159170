from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from snnmlp_edu import InputError, NetworkConfig, NeuronConfig, SpikingMLP, create_model, record
from snnmlp_edu.checkpoints import load_checkpoint
from snnmlp_edu.data import load_embedded
from snnmlp_edu.mfi import calibrate, event_driven, fold_batch_norm
from snnmlp_edu.mfi.events import tables as events
from snnmlp_edu.mfi.events.integer import IntegerLIF, IntegerTable
from snnmlp_edu.mfi.events.layers import EventConv2d, EventLinear, EventMap


def integer_network(config: NetworkConfig, rate: float | None = None) -> tuple[Any, Any, Tensor]:
    """A folded network, its form in whole numbers, and images."""
    images = torch.rand(2, config.in_channels, config.image_size, config.image_size)
    folded = fold_batch_norm(calibrate(SpikingMLP(config), images, rate=rate))
    return folded, event_driven(folded, weights="int8"), images


def test_table_by_hand(kernels: bool) -> None:
    # Two inputs, two outputs, scale 0.5: the second output's weights need one bit more.
    rows = torch.tensor([[1.0, -2.0], [63.5, 127.0], [-10.0, 10.0]])
    table = IntegerTable(rows, steps=1, scale=0.5)
    assert table.bits.tolist() == [0, 1]
    assert table.weights.tolist() == [[0, 0], [127, 127], [-20, 10]]
    assert table.weights.dtype == torch.int8
    assert table.biases.tolist() == [[2, -4]]
    spikes = torch.tensor([[[1.0, 1.0]], [[0.0, 1.0]], [[0.0, 0.0]]])
    currents = table(events.find_events(spikes))
    assert currents.dtype == torch.int32
    assert currents.tolist() == [[107 + 2, (137 << 1) - 4], [-20 + 2, (10 << 1) - 4], [2, -4]]


def test_leak_rounds_down() -> None:
    neuron = IntegerLIF(NeuronConfig(beta=0.25, input_gain=1.0, threshold=100.0), scale=1.0)
    # Membranes: -7, then floor(-7 / 4) + 1 = -1, then floor(-1 / 4) + 101 = 100, which fires.
    current = torch.tensor([[-7], [1], [101]], dtype=torch.int32)
    assert neuron(current).flatten().tolist() == [0.0, 0.0, 1.0]
    current[2] = 100
    assert neuron(current).flatten().tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"reset": "hard"}, [1, 0, 1, 0]),
        ({"reset": "soft"}, [1, 0, 1, 0]),
        ({"beta": 0.0}, [1, 0, 0, 0]),
        ({"beta": 1.0}, [1, 0, 1, 0]),
        ({"inclusive": False}, [1, 0, 0, 0]),
    ],
)
def test_neurons_by_hand(changes: dict[str, Any], expected: list[int]) -> None:
    config = NeuronConfig(**{"beta": 0.5, "threshold": 10.0, "input_gain": 1.0} | changes)
    # hard: 12 fires; 6; 3 + 7 = 10 fires unless strict; 0. Soft leaves 2: 1 + 6 = 7; 3 + 7 = 10.
    current = torch.tensor([[12], [6], [7], [0]], dtype=torch.int32)
    assert IntegerLIF(config, scale=1.0)(current).flatten().tolist() == expected


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"token_norm": "tebn", "channel_norm": "tebn"},
        {"token_mixing": "full", "patch_encoding": "conv", "head": "figure"},
        {"skip": "spike_bn", "neuron": {"reset": "soft"}},
        {"skip": "membrane", "token_mixing": "none"},
    ],
)
def test_every_current_is_whole_and_exact(
    tiny: NetworkConfig, changes: dict[str, Any], kernels: bool
) -> None:
    """Each map's current is what exact arithmetic finds, from its own 8-bit weights and the same spikes."""
    _, network, images = integer_network(tiny.replace(**changes))
    checked = []

    def check(layer: EventMap, inputs: tuple[Tensor, ...], current: Tensor) -> None:
        table = layer.table
        assert isinstance(table, IntegerTable)
        assert current.dtype == torch.int32
        weights = table.weights.double().unflatten(0, (layer.steps, -1))[:, 1:]
        weights = weights * 2.0**table.bits
        biases = table.biases.double()
        if isinstance(layer, EventConv2d):
            kernel = weights[0].unflatten(0, (*layer.kernel_size, -1)).permute(3, 2, 0, 1)
            dense: Tensor = nn.functional.conv2d(
                inputs[0].double(), kernel, biases[0], layer.stride, layer.padding
            )
        else:
            assert isinstance(layer, EventLinear)
            dense = EventLinear(layer.axis, weights.transpose(1, 2), biases)(
                *(part.double() for part in inputs)
            )
        assert torch.equal(current.double(), dense)
        checked.append(layer)

    maps = [module for module in network.modules() if isinstance(module, EventMap)]
    for module in maps:
        module.register_forward_hook(check)
    logits = network(images)
    assert len(checked) == len(maps)
    assert not logits.is_floating_point()
    for spikes in record(network, images).values():
        assert ((spikes == 0) | (spikes == 1)).all()


def test_groups_that_share_a_membrane_share_a_scale(tiny: NetworkConfig) -> None:
    _, network, _ = integer_network(tiny)
    assert set(network.scales) == {
        "stages.0",
        "stages.1",
        "head",
        *(
            f"stages.{stage}.blocks.{block}.{name}"
            for stage, block in ((0, 0), (0, 1), (1, 0))
            for name in ("token.positions.rows", "token.positions.columns", "channel.up")
        ),
    }
    theta = network.config.neuron.threshold / network.config.neuron.input_gain
    neuron = network.stages[0].blocks[0].token.fuse.neuron
    assert neuron.threshold == round(theta / network.scales["stages.0"])


def test_head_differs_by_the_rounding_of_its_weights(tiny: NetworkConfig) -> None:
    folded, network, _ = integer_network(tiny)
    spikes = (torch.rand(3, 2, 2, 2, 12) < 0.3).float()
    scale, table = network.scales["head"], network.head.linear.table
    real, whole = folded.head(spikes), network.head(spikes)
    arrived = spikes.sum(dim=(2, 3, 4)).unsqueeze(-1)
    bound = arrived * scale * 2.0**table.bits / 2 + scale  # half a unit for each weight; the bias
    assert not whole.is_floating_point()
    assert ((whole * scale - real).abs() <= bound).all()
    assert (bound < real.abs().max() / 10).all()  # a bound that says something


def test_loses_at_most_half_a_point_on_the_embedded_test_set() -> None:
    checkpoint = load_checkpoint("mlp_spe_nano")
    images, labels = load_embedded("test")
    inputs = checkpoint.preprocessing(images)
    folded = fold_batch_norm(checkpoint.model.eval())
    whole = event_driven(folded, weights="int8")

    def accuracy(network: nn.Module) -> float:
        with torch.no_grad():
            found = torch.cat([network(batch).argmax(1) for batch in inputs.split(250)])
        return (found == torch.as_tensor(labels)).double().mean().item()

    assert accuracy(folded) - accuracy(whole) <= 0.005


class TestBadInput:
    def test_leak_that_is_no_shift(self, tiny: NetworkConfig) -> None:
        with pytest.raises(InputError, match=r"beta is 0\.8.*power of two"):
            integer_network(tiny.replace(neuron={"beta": 0.8}))

    def test_modes_that_are_not_events(self, tiny: NetworkConfig) -> None:
        folded, _, _ = integer_network(tiny)
        with pytest.raises(InputError, match="mode='events'"):
            event_driven(folded, mode="auto", weights="int8")

    def test_neurons_with_many_thresholds(self, tiny: NetworkConfig) -> None:
        with pytest.raises(InputError, match=r"neuron is an AxisLIF"):
            integer_network(tiny.replace(skip="none", channel_norm="bn_token"))

    def test_other_networks(self) -> None:
        images = torch.rand(1, 3, 32, 32)
        model = create_model("spiking_resnet34", dim=4, image_size=32, num_classes=3, time_steps=2)
        folded = fold_batch_norm(calibrate(model, images))
        with pytest.raises(InputError, match="SpikingResNet"):
            event_driven(folded, weights="int8")

    def test_sums_that_may_not_fit(self) -> None:
        with pytest.raises(InputError, match="32 bits"):
            IntegerTable(torch.tensor([[0.0], [1e10]]), steps=1, scale=1.0)
