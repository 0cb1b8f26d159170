from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from variants import FOLDING_NORMS, HEADS, PATCH_ENCODINGS, RESETS, SPIKING_SKIPS, TOKEN_MIXINGS, fitted

from snnmlp_edu import InputError, NetworkConfig, NeuronConfig, SpikingMLP, create_model, record
from snnmlp_edu.checkpoints import load_checkpoint
from snnmlp_edu.data import Preprocessing, load_embedded
from snnmlp_edu.mfi import NotFoldableError, calibrate, event_driven, fold_batch_norm
from snnmlp_edu.mfi.events.integer import (
    IntegerAxisLIF,
    IntegerLIF,
    IntegerStem,
    IntegerTable,
    add_rows,
    shifted,
)
from snnmlp_edu.mfi.events.layers import EventConv2d, EventMap
from snnmlp_edu.mfi.events.quantisation import largest_current
from snnmlp_edu.mfi.events.tables import find_events, shift_rows
from snnmlp_edu.mfi.folding.layers import AxisLIF, SelectedAffine, SteppedLinear
from snnmlp_edu.model.neurons import LIF

FEW = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SHORT = 2**15 - 1


def pixels(config: NetworkConfig, batch: int = 2) -> Tensor:
    """Images as they are stored, and one that is all black and one all white."""
    shape = (config.in_channels, config.image_size, config.image_size)
    black, white = torch.zeros(1, *shape), torch.full((1, *shape), 255)
    return torch.cat((torch.randint(256, (batch, *shape)), black, white)).to(torch.uint8)


def integer_network(config: NetworkConfig) -> tuple[Any, Any, Tensor]:
    """A folded network in which every layer fires, its form in whole numbers, and images."""
    images = pixels(config)
    folded = fold_batch_norm(calibrate(SpikingMLP(config), images.float() / 255))
    return folded, event_driven(folded, weights="int8"), images


# --- by hand ------------------------------------------------------------------------------------------


def table_sums(table: IntegerTable, *spikes: list[float]) -> list[list[int]]:
    currents = table(find_events(torch.tensor([[list(each)] for each in spikes])))
    assert currents.dtype == torch.int32
    return currents.tolist()


def test_a_map_whose_sums_are_shifted_to_the_right() -> None:
    # In units of 1, 15.6 and -7.9 have room for two bits more: 62.4 and -31.6; three would exceed 63.
    table = IntegerTable(torch.tensor([[2.6], [15.6], [-7.9]]), steps=1, unit=1.0)
    assert table.bits == 2
    assert table.weights.tolist() == [[0], [62], [-32]]
    assert table.weights.dtype == torch.int8
    assert table.before.tolist() == [[10 + 2]]  # 4 * 2.6, and half of 2**2, which rounds
    # (62 - 32 + 12) >> 2, (62 + 12) >> 2, (-32 + 12) >> 2, 12 >> 2
    sums = table_sums(table, [1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0])
    assert sums == [[10], [18], [-5], [3]]
    assert table.magnitude == 18


def test_a_map_whose_sums_are_shifted_to_the_left() -> None:
    # 1000 in units of 1 is 62.5 in units of 16, which rounds to 62; two outputs share the shift.
    table = IntegerTable(torch.tensor([[30.0, -40.0], [1000.0, 33.0], [-200.0, 0.0]]), steps=1, unit=1.0)
    assert table.bits == -4
    assert table.weights.tolist() == [[0, 0], [62, 2], [-12, 0]]
    assert table.before.tolist() == [[2, -2]]
    sums = table_sums(table, [1.0, 1.0], [0.0, 0.0], [0.0, 1.0])
    assert sums == [[16 * 52, 0], [32, -32], [-160, -32]]
    assert table.magnitude == 16 * 64


def test_a_map_with_weights_of_each_step() -> None:
    rows = torch.tensor([[1.0], [50.0], [-2.0], [7.0]])  # bias and weight of step 0, of step 1
    table = IntegerTable(rows, steps=2, unit=1.0)
    assert (table.bits, table.before.tolist()) == (0, [[1], [-2]])
    events = find_events(torch.tensor([[[1.0]], [[1.0]]]))
    assert table(shift_rows(events, torch.tensor([0, 2]))).tolist() == [[51], [5]]


@pytest.mark.parametrize(
    ("value", "bits", "expected"), [(7, 1, 3), (-7, 1, -4), (7, 0, 7), (-3, -2, -12), (5, -3, 40)]
)
def test_shifts(value: int, bits: int, expected: int) -> None:
    assert shifted(torch.tensor([value]), bits).tolist() == [expected]


def test_rows_add_up_in_whole_numbers() -> None:
    # What 16 bits can hold, and twice that: floating point keeps it, for it is below 2**24.
    rows = torch.tensor([[0], [2**15 - 1], [2**15 - 1], [-5]], dtype=torch.int32)
    sums = add_rows(find_events(torch.tensor([[[1.0, 1.0, 0.0]], [[0.0, 0.0, 1.0]]])), rows)
    assert sums.dtype == torch.int32
    assert sums.tolist() == [[2**16 - 2], [-5]]


def test_the_bits_of_a_patch_are_spikes() -> None:
    config = NetworkConfig(
        dim=3, depths=(1,), patch_size=2, image_size=2, in_channels=1, num_classes=2, time_steps=3
    )
    stem: Any = fold_batch_norm(calibrate(SpikingMLP(config), torch.rand(2, 1, 2, 2))).stages[0].embedding
    # w x = w (p / 255 - 1/2) / (1/4) for pixels p: with w = 63.75 k it is k p - 127.5 k.
    k = torch.tensor([[1.0, -2.0], [3.0, 0.0]])
    stem.embed.conv.weight.data = torch.stack((63.75 * k, 0 * k, -63.75 * k)).unsqueeze(1)
    stem.embed.conv.bias.data = torch.tensor([5.0, 9.0, 5.0])
    whole = IntegerStem(stem, Preprocessing(2, 1, mean=(0.5,), std=(0.25,)), unit=1.0)
    # 3 * 2**7 has room for 6 bits, the sum of all, 4 * 255, for 5.
    assert whole.bits == 5
    assert whole.weights[:, 0].view(4, 8).tolist() == [
        [32 * n * 2**bit for bit in range(8)] for n in (1, -2, 3, 0)
    ]
    assert whole.before.tolist() == [[32 * (5 - 255) + 16, 32 * 9 + 16, 32 * (5 + 255) + 16]]
    image = torch.tensor([[[[200, 10], [7, 99]]]], dtype=torch.uint8)
    current = 200 - 2 * 10 + 3 * 7 - 255
    expected = [current + 5, 9, -current + 5]
    assert whole(image).tolist() == [[[[expected]]]] * 3
    real = Preprocessing(2, 1, mean=(0.5,), std=(0.25,))(image)
    assert whole(real).tolist() == whole(image).tolist()
    assert stem(real)[0].flatten().tolist() == pytest.approx(expected)


def test_leak_rounds_down() -> None:
    neuron = IntegerLIF(NeuronConfig(beta=0.25, input_gain=1.0, threshold=100.0), unit=1.0)
    # Membranes: -7, then floor(-7 / 4) + 1 = -1, then floor(-1 / 4) + 101 = 100, which fires.
    current = torch.tensor([[-7], [1], [101]], dtype=torch.int32)
    assert neuron(current).flatten().tolist() == [0.0, 0.0, 1.0]
    current[2] = 100
    assert neuron(current).flatten().tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"reset": "hard"}, [1, 0, 1, 0, 0]),  # 12; 6; 3 + 7; 0; 9
        ({"reset": "soft"}, [1, 0, 1, 0, 0]),  # 12; 1 + 6; 3 + 7; 0; 9
        ({"reset": "hard", "beta": 0.0}, [1, 0, 0, 0, 0]),
        ({"reset": "soft", "beta": 0.0}, [1, 0, 0, 0, 0]),
        ({"reset": "hard", "beta": 1.0}, [1, 0, 1, 0, 0]),  # 12; 6; 13; 0; 9
        ({"reset": "soft", "beta": 1.0}, [1, 0, 1, 0, 1]),  # 12; 8; 15; 5; 14
        ({"reset": "hard", "beta": 0.25}, [1, 0, 0, 0, 0]),  # 12; 6; 8; 2; 9
        ({"reset": "hard", "inclusive": False}, [1, 0, 0, 0, 1]),  # 12; 6; 10; 5; 11
        ({"reset": "soft", "inclusive": False, "beta": 1.0}, [1, 0, 1, 0, 1]),
    ],
    ids=str,
)
def test_neurons_by_hand(changes: dict[str, Any], expected: list[int]) -> None:
    config = NeuronConfig(**{"beta": 0.5, "threshold": 10.0, "input_gain": 1.0} | changes)
    current = torch.tensor([[12], [6], [7], [0], [9]], dtype=torch.int32)
    assert IntegerLIF(config, unit=1.0)(current).flatten().tolist() == expected
    assert IntegerLIF(config, unit=0.5)(2 * current).flatten().tolist() == expected


@FEW
@given(
    beta=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    reset=st.sampled_from(RESETS),
    inclusive=st.booleans(),
    seed=st.integers(0, 99),
)
def test_thresholds_of_an_axis(beta: float, reset: Any, inclusive: bool, seed: int) -> None:
    """Where nothing needs rounding, they fire as the real neurons do, rising, falling or undriven."""
    torch.manual_seed(seed)
    scale = torch.tensor([1.0, -1.0, 0.5, -2.0, 0.0, 4.0], dtype=torch.float64)
    shift = torch.tensor([0.0, 1.0, -0.5, 2.0, 1.5, -4.0], dtype=torch.float64)
    config = NeuronConfig(beta=beta, reset=reset, inclusive=inclusive, input_gain=1.0, threshold=2.0)
    real = AxisLIF(config, "channel", scale, shift)
    whole = IntegerAxisLIF(real, unit=2.0**-10)
    halves = torch.randint(-8, 9, (4, 2, 3, 3, 6))  # a leak of four steps stays whole: 2**9 units
    expected = real(halves.double() / 2)
    assert 0.05 < expected.mean() < 0.95
    assert torch.equal(whole((512 * halves).to(torch.int32)).double(), expected)


# --- against dense arithmetic, in exact floating point ------------------------------------------------


class PlainNeuron(nn.Module):
    """The neuron in words of so many bits, written once more; all its numbers are whole."""

    def __init__(self, of: Any) -> None:
        super().__init__()
        self.of, self.most = of, 2 ** (of.word - 1) - 1

    def forward(self, current: Tensor) -> Tensor:
        assert current.abs().max() <= self.most
        threshold, falling, bias = (
            torch.as_tensor(self.of.threshold).double(),
            torch.tensor(False),
            torch.tensor(0),
        )
        if isinstance(self.of, IntegerAxisLIF):
            height, width = current.shape[2:4]
            shape = {"channel": (-1,), "width": (-1, 1), "height": (-1, 1, 1), "token": (height, width, 1)}
            threshold, falling, bias, driven = (
                values.double().view(shape[self.of.axis])
                for values in (threshold, self.of.falling, self.of.bias, self.of.driven)
            )
            current = current * driven
        config = self.of.config
        membrane, spikes = torch.zeros_like(current[0]), []
        for now in current:
            membrane = torch.floor(config.beta * membrane) + now + bias
            assert membrane.abs().max() <= self.most
            sign = 1 - 2 * falling.double()
            above = sign * (membrane - threshold)
            fired = (above >= 0 if config.inclusive else above > 0).double()
            spikes.append(fired)
            membrane = membrane * (1 - fired) if config.resets_to_zero else membrane - fired * threshold
            assert membrane.abs().max() <= self.most
        return torch.stack(spikes)


class PlainStem(nn.Module):
    """Bits of pixels, as NumPy unpacks them, times weights."""

    def __init__(self, of: IntegerStem) -> None:
        super().__init__()
        self.of = of

    def forward(self, images: Tensor) -> Tensor:
        batch, channels, height, width = images.shape
        patch = self.of.patch
        bits = np.unpackbits(images.numpy()[..., None], axis=-1, bitorder="little")
        bits = bits.reshape(batch, channels, height // patch, patch, width // patch, patch, 8)
        columns = torch.from_numpy(bits.transpose(0, 2, 4, 1, 3, 5, 6).copy()).flatten(3).double()
        sums = columns @ self.of.weights.double() + self.of.before.double()
        assert sums.abs().max() <= SHORT
        current = torch.floor(sums * 2.0**-self.of.bits)
        return current.expand(self.of.time_steps, *current.shape)


def shifts(table: IntegerTable) -> Callable[..., Tensor]:
    def shift(layer: nn.Module, inputs: Any, sums: Tensor) -> Tensor:
        assert sums.abs().max() <= SHORT
        return torch.floor(sums * 2.0**-table.bits)

    return shift


def dense_twin(folded: nn.Module, whole: Any) -> Any:
    """The folded network, dense, with the weights of the one in whole numbers, in double precision."""
    twin: Any = copy.deepcopy(folded).double()
    for path, layer in whole.named_modules():
        match layer:
            case EventMap():
                table: Any = layer.table
                weights = table.weights.double().unflatten(0, (layer.steps, -1))[:, 1:].transpose(1, 2)
                biases = table.before.double()
                dense = twin.get_submodule(path)
                parts = dense.steps if isinstance(dense, SteppedLinear) else [dense]
                for part, weight, bias in zip(parts, weights, biases, strict=True):
                    if isinstance(layer, EventConv2d):
                        weight = weight.unflatten(1, (*layer.kernel_size, -1)).permute(0, 3, 1, 2)
                    part.weight = nn.Parameter(weight, requires_grad=False)
                    part.bias = nn.Parameter(bias, requires_grad=False)
                dense.register_forward_hook(shifts(table))
            case IntegerStem():
                twin.set_submodule(path, PlainStem(layer))
            case LIF():
                twin.set_submodule(path, PlainNeuron(layer))
            case SelectedAffine():
                twin.set_submodule(path, copy.deepcopy(layer).double())
    for name in ("bias", "shift"):
        if hasattr(whole.head, name):
            setattr(twin.head, name, nn.Parameter(getattr(whole.head, name).double(), requires_grad=False))
    return twin


def scale_of(whole: Any, path: str) -> float:
    """The unit of the group that a map belongs to: the longest path of a group that it lies in."""
    return whole.scales[max((name for name in whole.scales if path.startswith(name)), key=len)]


configurations = st.builds(
    dict,
    token_mixing=st.sampled_from(TOKEN_MIXINGS),
    patch_encoding=st.sampled_from(PATCH_ENCODINGS),
    head=st.sampled_from(HEADS),
    skip=st.sampled_from(SPIKING_SKIPS),
    channel_norm=st.sampled_from([*FOLDING_NORMS, "bn_token"]),
    token_norm=st.sampled_from(FOLDING_NORMS),
    depths=st.sampled_from([(1,), (1, 1), (2, 1)]),
    dim=st.sampled_from([3, 6]),
    in_channels=st.sampled_from([1, 3]),
    image_size=st.sampled_from([8, 12]),
    time_steps=st.sampled_from([1, 2, 3, 5]),
    neuron=st.builds(
        NeuronConfig,
        reset=st.sampled_from(RESETS),
        inclusive=st.booleans(),
        beta=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    ),
).map(fitted)


@FEW
@given(changes=configurations, seed=st.integers(0, 99))
def test_logits_are_those_of_dense_arithmetic_and_nothing_exceeds_its_bits(
    changes: dict[str, Any], seed: int
) -> None:
    torch.manual_seed(seed)
    if changes["channel_norm"] == "bn_token":
        changes["skip"] = "none"  # elsewhere it does not fold
    config = NetworkConfig(patch_size=2, num_classes=5).replace(**changes)
    folded, whole, images = integer_network(config)
    logits = whole(images)
    assert not logits.is_floating_point()
    assert torch.equal(logits.double(), dense_twin(folded, whole)(images))  # asserts every bound
    for spikes in record(whole, images.float() / 255).values():
        assert ((spikes == 0) | (spikes == 1)).all()


@FEW
@given(changes=configurations, seed=st.integers(0, 99))
def test_weights_are_rounded_by_half_a_unit_at_most_and_no_sum_exceeds_16_bits(
    changes: dict[str, Any], seed: int
) -> None:
    torch.manual_seed(seed)
    changes["channel_norm"] = "bn" if changes["channel_norm"] == "bn_token" else changes["channel_norm"]
    config = NetworkConfig(patch_size=2, num_classes=5).replace(**changes)
    folded, whole, _ = integer_network(config)
    on_events = event_driven(folded)
    for path, layer in whole.named_modules():
        if not isinstance(layer, EventMap):
            continue
        table: Any = layer.table
        real = on_events.get_submodule(path).table.rows.unflatten(0, (layer.steps, -1)).double()
        numbers = table.weights.double().unflatten(0, (layer.steps, -1))
        unit = scale_of(whole, path) * 2.0**-table.bits
        assert ((numbers[:, 1:] * unit - real[:, 1:]).abs() <= unit * 0.5001).all(), path
        half = 2**table.bits // 2 if table.bits > 0 else 0
        assert (((table.before - half) * unit - real[:, 0]).abs() <= unit * 0.5001).all(), path
        # The spikes that excite most, and those that inhibit most, output by output.
        reached = [(numbers * (sign * numbers > 0)).sum(1) + table.before for sign in (1, -1)]
        assert max(sums.abs().max() for sums in reached) <= SHORT
        sent = max(torch.floor(sums * 2.0**-table.bits).abs().max() for sums in reached)
        assert sent == table.magnitude, path


def few_valued(folded: Any, theta: float) -> None:
    """Weights and biases that are a few quarters of the threshold: whole numbers hold them exactly."""
    for path, layer in folded.named_modules():
        weights = getattr(layer, "weight", None)
        if not isinstance(weights, Tensor) or path.startswith("head"):
            continue
        ranks = torch.rand(len(weights), weights[0].numel()).argsort(1).argsort(1)
        if path == "stages.0.embedding.embed.conv":
            numbers = (ranks < 6) * 255 / 512
        else:
            numbers = (ranks < 3) * torch.where(torch.rand(ranks.shape) < 0.75, 0.25, -0.25)
        weights.data = numbers.to(weights).view_as(weights) * theta
        if layer.bias is not None:
            layer.bias.data = torch.randint(1, 4, layer.bias.shape).to(weights) * theta / 4


@pytest.mark.parametrize("skip", [name for name in SPIKING_SKIPS if name != "spike_bn"])
@pytest.mark.parametrize("token_mixing", TOKEN_MIXINGS)
def test_weights_that_need_no_rounding_give_the_spikes_of_the_folded_network(
    skip: Any, token_mixing: Any
) -> None:
    config = NetworkConfig(
        dim=6, depths=(1, 1), patch_size=2, image_size=8, in_channels=2, num_classes=5, time_steps=2
    )
    config = config.replace(**fitted({"skip": skip}), token_mixing=token_mixing, neuron={"beta": 0.0})
    images = pixels(config, 3)
    folded = fold_batch_norm(calibrate(SpikingMLP(config).double(), images.double() / 255))
    few_valued(folded, theta=2.0)
    whole = event_driven(folded, weights="int8")
    assert all(scale == 2.0 / 4096 for name, scale in whole.scales.items() if name != "head"), whole.scales
    expected, seen = record(folded, images.double() / 255), record(whole, images.double() / 255)
    for path, spikes in expected.items():
        assert torch.equal(seen[path].double(), spikes), path
    rates = expected.firing_rates()
    assert sum(0 < rate < 1 for rate in rates.values()) > len(rates) / 2
    logits = whole(images) * whole.scales["head"]
    assert (logits - folded(images.double() / 255)).abs().max() < 0.1 * logits.std()


# --- units and images ---------------------------------------------------------------------------------


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


def test_a_current_that_passes_its_neuron_has_the_unit_of_its_stage(tiny: NetworkConfig) -> None:
    folded, network, _ = integer_network(tiny.replace(skip="inner", expansion=1))
    blocks = ("stages.0.blocks.0", "stages.0.blocks.1", "stages.1.blocks.0")
    lines = {f"{block}.token.positions.{name}" for block in blocks for name in ("rows", "columns")}
    assert set(network.scales) == {"stages.0", "stages.1", "head", *lines}
    sizes = {"stages.0.embedding": 5}
    for block, (fuse, up, down) in zip(blocks, ((1, 20, 300), (1, 50, 260), (0, 0, 0)), strict=True):
        sizes |= {f"{block}.token.fuse.linear": fuse}
        sizes |= {f"{block}.channel.up.linear": up, f"{block}.channel.down.linear": down}
    assert largest_current(folded, "stages.0", sizes.__getitem__) == 300 + 20


def test_large_currents_get_32_bits(tiny: NetworkConfig) -> None:
    folded, _, images = integer_network(tiny)
    stem: Any = folded.stages[0].embedding
    stem.embed.conv.weight.data *= 1000  # a threshold would be fewer than 64 units of 16 bits
    whole = event_driven(folded, weights="int8")
    words = {path: m.word for path, m in whole.named_modules() if isinstance(m, IntegerLIF)}
    assert {words[path] for path in words if words[path] != 16} == {32}
    assert words["stages.0.neuron"] == words["stages.0.blocks.1.channel.down.neuron"] == 32
    assert words["stages.0.blocks.0.channel.up.neuron"] == words["stages.1.neuron"] == 16
    assert torch.equal(whole(images).double(), dense_twin(folded, whole)(images))


def test_the_constant_current_of_a_head_with_a_neuron_counts(tiny: NetworkConfig) -> None:
    folded, _, images = integer_network(tiny.replace(head="figure"))
    folded.head.shift += 1000  # 500 thresholds: in 16 bits no unit is left that is fine enough
    whole = event_driven(folded, weights="int8")
    assert whole.head.neuron.word == 32
    assert torch.equal(whole(images).double(), dense_twin(folded, whole)(images))


def test_a_head_whose_weights_are_all_0(tiny: NetworkConfig) -> None:
    folded, _, images = integer_network(tiny)
    folded.head.linear.weight.zero_()
    folded.head.bias.copy_(torch.arange(5.0))
    whole = event_driven(folded, weights="int8")
    assert whole(images).tolist() == [[0, 3, 6, 9, 12]] * len(images)  # three steps


@pytest.mark.parametrize(("stored", "channels"), [(8, 3), (6, 3), (8, 1), (6, 1)])
def test_bytes_and_preprocessed_images_give_the_same(tiny: NetworkConfig, stored: int, channels: int) -> None:
    config = tiny.replace(in_channels=3)
    drawn = torch.randint(256, (3, channels, stored, stored), dtype=torch.uint8)
    preprocessing = Preprocessing.fitted_to(drawn, 8, 3)
    assert len(preprocessing.mean) == channels
    inputs = preprocessing(drawn)
    folded = fold_batch_norm(calibrate(SpikingMLP(config), inputs))
    whole = event_driven(folded, "int8", preprocessing)
    assert torch.equal(whole(drawn), whole(inputs))
    real, current = folded.stages[0].embedding(inputs), whole.stages[0].embedding(drawn)
    assert (current * whole.scales["stages.0"] - real).abs().max() < 1e-3 * real.abs().max() + whole.scales[
        "stages.0"
    ]


def test_a_checkpoint_brings_its_preprocessing() -> None:
    checkpoint = load_checkpoint("mlp_spe_nano")
    images = torch.as_tensor(load_embedded("test")[0][:4])
    whole = event_driven(fold_batch_norm(checkpoint.model.eval()), weights="int8")
    assert whole.stages[0].embedding.preprocessing == checkpoint.preprocessing
    assert torch.equal(whole(images), whole(checkpoint.preprocessing(images)))


@torch.no_grad()
def test_loses_at_most_half_a_point_on_the_embedded_test_images() -> None:
    """Of the larger network tests/test_readme.py says it, by the compiled engine."""
    checkpoint = load_checkpoint("mlp_spe_nano")
    images, labels = map(torch.as_tensor, load_embedded("test"))
    folded = fold_batch_norm(checkpoint.model.eval())
    whole = event_driven(folded, weights="int8")
    real = torch.cat([folded(checkpoint.preprocessing(batch)).argmax(1) for batch in images.split(50)])
    found = torch.cat([whole(batch).argmax(1) for batch in images.split(50)])
    correct = [(answers == labels).double().mean().item() for answers in (real, found)]
    assert correct[0] - correct[1] <= 0.005, correct


class TestBadInput:
    def test_leak_that_is_no_shift(self, tiny: NetworkConfig) -> None:
        with pytest.raises(InputError, match=r"neuron\.beta is 0\.8.*power of two"):
            integer_network(tiny.replace(neuron={"beta": 0.8}))

    def test_spikes_that_add_up(self, tiny: NetworkConfig) -> None:
        with pytest.raises(InputError, match="skip is 'spike'"):
            integer_network(tiny.replace(skip="spike"))

    def test_a_normalisation_that_does_not_fold(self, tiny: NetworkConfig) -> None:
        with pytest.raises(NotFoldableError, match=r"channel\.up"):
            integer_network(tiny.replace(channel_norm="ln"))
        model = calibrate(SpikingMLP(tiny.replace(channel_norm="ln")), torch.rand(2, 2, 8, 8))
        with pytest.raises(InputError, match=r"channel\.up"):
            event_driven(fold_batch_norm(model, strict=False), weights="int8")

    def test_other_networks(self) -> None:
        images = torch.rand(1, 3, 32, 32)
        model = create_model("spiking_resnet34", dim=4, image_size=32, num_classes=3, time_steps=2)
        folded = fold_batch_norm(calibrate(model, images))
        with pytest.raises(InputError, match="SpikingResNet"):
            event_driven(folded, weights="int8")

    @pytest.mark.parametrize("path", ["stages.0.embedding.embed.conv", "stages.1.blocks.0.channel.up.linear"])
    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_weights_that_are_not_finite(self, tiny: NetworkConfig, path: str, value: float) -> None:
        folded, _, _ = integer_network(tiny)
        folded.get_submodule(path).weight.view(-1)[0] = value
        with pytest.raises(InputError, match=f"{path}.*holds NaN or infinite"):
            event_driven(folded, weights="int8")

    @pytest.mark.parametrize(
        ("preprocessing", "field"),
        [(Preprocessing(16, 2), "image_size"), (Preprocessing(8, 1), "in_channels")],
    )
    def test_preprocessing_for_another_network(
        self, tiny: NetworkConfig, preprocessing: Preprocessing, field: str
    ) -> None:
        folded, _, _ = integer_network(tiny)
        with pytest.raises(InputError, match=rf"preprocessing\.{field}"):
            event_driven(folded, "int8", preprocessing)

    @pytest.mark.parametrize(
        ("images", "said"),
        [
            (torch.rand(3, 2, 2, 8, 8), r"\(3, 2, 2, 8, 8\)"),  # timed
            (torch.zeros(3, 2, 2, 8, 8, dtype=torch.uint8), r"\(3, 2, 2, 8, 8\)"),
            (torch.zeros(2, 1, 8, 8, dtype=torch.uint8), r"\(2, 1, 8, 8\)"),
            (torch.zeros(2, 2, 9, 8, dtype=torch.uint8), r"\(2, 2, 9, 8\)"),
            (torch.rand(2, 2, 8, 9), r"\(2, 2, 8, 9\)"),
            (torch.zeros(2, 2, 8, 8, dtype=torch.int64), "int64"),
            (torch.full((2, 2, 8, 8), 0.5), "uint8"),  # no byte
            (torch.full((2, 2, 8, 8), 2.0), "uint8"),  # beyond white
            (torch.full((2, 2, 8, 8), float("nan")), "uint8"),
        ],
        ids=lambda value: value if isinstance(value, str) else "x".join(map(str, value.shape)),
    )
    def test_images_that_are_no_bytes(self, tiny: NetworkConfig, images: Tensor, said: str) -> None:
        _, whole, _ = integer_network(tiny)
        with pytest.raises(InputError, match=said):
            whole(images)

    def test_an_empty_batch_gives_no_logits(self, tiny: NetworkConfig) -> None:
        _, whole, images = integer_network(tiny)
        assert whole(images[:0]).shape == (0, 5)
