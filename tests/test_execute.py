from __future__ import annotations

import copy
import dataclasses
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from variants import FOLDING_NORMS, HEADS, PATCH_ENCODINGS, RESETS, SPIKING_SKIPS, TOKEN_MIXINGS, fitted

from snnmlp_edu import InputError, NetworkConfig, NeuronConfig, SpikingMLP, create_model, record
from snnmlp_edu.mfi import audit, calibrate, event_driven, fold_batch_norm
from snnmlp_edu.mfi.events.layers import EventMap
from snnmlp_edu.model.neurons import LIF

FEW = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def folded_network(
    config: NetworkConfig, dtype: torch.dtype = torch.float64, batch: int = 2
) -> tuple[Any, Tensor]:
    """A folded network in which every layer fires, and images for it."""
    side = config.image_size
    drawn = torch.rand(batch, config.in_channels, side, side, dtype=dtype)
    return fold_batch_norm(calibrate(SpikingMLP(config).to(dtype), drawn)), drawn


configurations = st.builds(
    dict,
    token_mixing=st.sampled_from(TOKEN_MIXINGS),
    patch_encoding=st.sampled_from(PATCH_ENCODINGS),
    head=st.sampled_from(HEADS),
    skip=st.sampled_from(SPIKING_SKIPS),
    channel_norm=st.sampled_from(FOLDING_NORMS),
    token_norm=st.sampled_from(FOLDING_NORMS),
    neuron=st.builds(
        NeuronConfig,
        reset=st.sampled_from(RESETS),
        inclusive=st.booleans(),
        beta=st.sampled_from([0.5, 0.8]),
    ),
).map(fitted)


@FEW
@given(changes=configurations, seed=st.integers(0, 99))
def test_same_spikes_and_logits_as_the_folded_network(changes: dict[str, Any], seed: int) -> None:
    torch.manual_seed(seed)
    config = NetworkConfig(
        dim=6, depths=(1, 1), patch_size=2, image_size=8, in_channels=2, num_classes=5, time_steps=3
    )
    folded, images = folded_network(config.replace(**changes))
    fast = event_driven(folded)
    torch.testing.assert_close(fast(images), folded(images), rtol=0, atol=1e-10)
    counted = dict(fast.synaptic_operations)
    seen, expected = record(fast, images), record(folded, images)
    assert list(seen) == list(expected)
    for path, spikes in expected.items():
        assert torch.equal(seen[path], spikes), path
    assert counted == fast.synaptic_operations
    torch.testing.assert_close(fast.forward_steps(images), folded.forward_steps(images), rtol=0, atol=1e-10)


def test_counts_by_path_what_a_count_by_hand_finds(tiny: NetworkConfig) -> None:
    folded, images = folded_network(tiny)
    arriving: dict[str, int] = {}
    for path, module in folded.named_modules():
        if isinstance(module, nn.Linear):

            def count(layer: nn.Linear, inputs: tuple[Tensor, ...], output: Tensor, path: str = path) -> None:
                arriving[path] = int(sum(part.sum() for part in inputs)) * layer.out_features

            module.register_forward_hook(count)
    folded(images)
    for module in folded.modules():
        module._forward_hooks.clear()
    fast = event_driven(folded)
    fast(images)
    counted = {path: n for path, n in fast.synaptic_operations.items() if path in arriving}
    assert counted == arriving
    convolutions = set(fast.synaptic_operations) - set(arriving)
    assert convolutions == {
        "stages.1.embedding.down.conv",
        "stages.1.embedding.between.0.conv",
        "stages.1.embedding.between.1.conv",
    }


def test_single_precision_differs_by_rounding_alone(tiny: NetworkConfig) -> None:
    folded, images = folded_network(tiny, torch.float32)
    torch.testing.assert_close(event_driven(folded)(images), folded(images), rtol=1e-4, atol=1e-5)


def test_copies_run_on_events_by_themselves(tiny: NetworkConfig) -> None:
    folded, images = folded_network(tiny)
    fast = event_driven(folded)
    twin = copy.deepcopy(fast)
    torch.testing.assert_close(twin(images), folded(images), rtol=0, atol=1e-10)
    assert twin.synaptic_operations
    assert not fast.synaptic_operations


def test_several_threads_run_one_network(tiny: NetworkConfig) -> None:
    folded, images = folded_network(tiny)
    fast, expected = event_driven(folded), folded(images)
    with ThreadPoolExecutor(4) as pool, torch.no_grad():
        for found in pool.map(fast, [images] * 8):
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


def test_the_stem_stays_and_the_folded_network_too(tiny: NetworkConfig) -> None:
    folded, images = folded_network(tiny)
    before = folded(images)
    fast = event_driven(folded)
    assert type(fast.stages[0].embedding) is type(folded.stages[0].embedding)
    assert not any(isinstance(module, EventMap) for module in folded.modules())
    assert not any(isinstance(module, nn.Linear | nn.Conv2d) for module in fast.stages[1].modules())
    assert torch.equal(folded(images), before)


def test_no_spike_no_work(tiny: NetworkConfig) -> None:
    folded, images = folded_network(tiny)
    for module in folded.modules():
        if isinstance(module, LIF):
            module.config = dataclasses.replace(module.config, threshold=1e9)
    fast = event_driven(folded)
    torch.testing.assert_close(fast(images), folded(images), rtol=0, atol=1e-10)
    assert set(fast.synaptic_operations.values()) == {0}


def test_an_empty_batch_gives_no_logits(tiny: NetworkConfig) -> None:
    folded, images = folded_network(tiny)
    assert event_driven(folded)(images[:0]).shape == (0, 5)


VARIED: dict[str, Any] = {
    "head": "figure",
    "token_mixing": "full",
    "channel_norm": "tebn",
    "skip": "spike_bn",
}


@pytest.mark.parametrize("overrides", [{}, VARIED], ids=str)
def test_passes_the_audit(tiny: NetworkConfig, overrides: dict[str, Any]) -> None:
    folded, images = folded_network(tiny.replace(**overrides), torch.float32)
    fast = event_driven(folded)
    fast(images)
    counted = dict(fast.synaptic_operations)
    report = audit(fast, images)
    assert report.multiplication_free, report.violations
    assert {row.path for row in report.layers if row.kind == "stem multiply"} == {
        "stages.0.embedding.embed.conv"
    }
    # The counts of spikes are numbers, and none may leave while the audit watches: these are the first run's.
    assert counted == fast.synaptic_operations
    assert all(counted.values())


@pytest.mark.parametrize("overrides", [{}, VARIED, {"skip": "none", "channel_norm": "bn_token"}], ids=str)
def test_in_whole_numbers_the_stem_multiplies_no_more(tiny: NetworkConfig, overrides: dict[str, Any]) -> None:
    folded, _ = folded_network(tiny.replace(**overrides), torch.float32)
    images = torch.randint(256, (2, 2, 8, 8), dtype=torch.uint8)
    report = audit(event_driven(folded, weights="int8"), images)
    assert report.multiplication_free, report.violations
    kinds = {row.kind for row in report.layers}
    assert "synaptic accumulate" in kinds
    assert not kinds & {"stem multiply", "multiplication", "unknown"}
    # From preprocessed images the bytes have to be found again, and that takes a product.
    report = audit(event_driven(folded, weights="int8"), images.float() / 255)
    assert {row.path for row in report.violations} == {"stages.0.embedding"}


@pytest.mark.parametrize("name", ["spiking_resnet34", "spiking_vgg16"])
def test_runs_the_baselines(name: str) -> None:
    images = torch.rand(1, 3, 32, 32)
    model = create_model(name, dim=4, image_size=32, num_classes=3, time_steps=2)
    folded = fold_batch_norm(calibrate(model, images))
    fast = event_driven(folded)
    torch.testing.assert_close(fast(images), folded(images), rtol=1e-4, atol=1e-5)
    assert sum(fast.synaptic_operations.values()) > 0


def test_one_layer_alone() -> None:
    layer, spikes = nn.Linear(4, 3).double().eval(), (torch.rand(5, 4) < 0.5).double()
    fast = event_driven(layer)
    torch.testing.assert_close(fast(spikes), layer(spikes), rtol=0, atol=1e-12)
    assert fast.synaptic_operations == {"": 3 * int(spikes.sum())}


class TestBadInput:
    def test_a_norm_of_another_kind(self, tiny: NetworkConfig) -> None:
        folded, _ = folded_network(tiny)
        folded.stages[0].blocks[0].channel.up.norm = nn.GroupNorm(1, 18).eval()
        with pytest.raises(InputError, match=r"channel\.up\.norm normalises real values"):
            event_driven(folded)

    def test_not_folded(self, tiny: NetworkConfig) -> None:
        with pytest.raises(InputError, match=r"stages\.0\.embedding\.embed\.norm .*fold_batch_norm"):
            event_driven(SpikingMLP(tiny).eval())

    def test_on_events_already(self, tiny: NetworkConfig) -> None:
        folded, _ = folded_network(tiny)
        with pytest.raises(InputError, match="runs on events already; give the folded network"):
            event_driven(event_driven(folded))

    def test_training_mode(self, tiny: NetworkConfig) -> None:
        folded, _ = folded_network(tiny)
        with pytest.raises(InputError, match="training mode"):
            event_driven(folded.train())

    def test_relu_twin(self, tiny: NetworkConfig) -> None:
        folded, _ = folded_network(tiny.replace(activation="relu"))
        with pytest.raises(InputError, match="ReLU"):
            event_driven(folded)

    def test_sums_of_spikes_name_their_layer(self, tiny: NetworkConfig) -> None:
        folded, images = folded_network(tiny.replace(skip="spike"))
        with pytest.raises(InputError, match=r"stages\.0\.blocks\.\d.*neither 0 nor 1"):
            event_driven(folded)(images)

    def test_unknown_weights(self, tiny: NetworkConfig) -> None:
        folded, _ = folded_network(tiny)
        with pytest.raises(InputError, match="weights is 'int4'"):
            event_driven(folded, weights="int4")  # type: ignore[arg-type]

    def test_nothing_to_run(self) -> None:
        with pytest.raises(InputError, match="no linear map"):
            event_driven(nn.Sequential(LIF()).eval())
