"""Operation counts: sizes at 224 px, networks counted by hand, normalisations, real values, bad input."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from snnmlp_edu import (
    InputError,
    NetworkConfig,
    SpikingMLP,
    create_model,
    load_pretrained,
)
from snnmlp_edu.cost import Cost, Operations, count_operations, relu_twin
from snnmlp_edu.mfi import calibrate, fold_batch_norm
from snnmlp_edu.mfi.events.execute import event_driven

PARTS = ("axial", "fuse", "channel", "patch encoding")


def images_of(config: NetworkConfig, batch: int = 2) -> Tensor:
    return torch.rand(batch, config.in_channels, config.image_size, config.image_size)


def dense_by_part(cost: Cost) -> dict[str, int]:
    names = dict.fromkeys(layer.part for layer in cost.layers)
    return {name: sum(layer.dense_macs for layer in cost.part(name)) for name in names}


def lively(config: NetworkConfig, rate: float | None = None) -> tuple[Any, Tensor]:
    """A calibrated network in fp64, where folding moves no membrane across its threshold."""
    model, images = SpikingMLP(config).double(), images_of(config).double()
    return calibrate(model, images, rate=rate), images


# --- the sizes at 224 px -----------------------------------------------------------------------------

# One time step at 224 px of the networks of arXiv 2306.12465, by formula: for each map the places
# that it writes times what each reads. Stem, then axial, fuse, channel and patch encoding, then head.
DENSE = {
    "mlp_spe_t": (11_741_184, (134_412_096, 1_488_195_072, 2_976_390_144, 345_729_384), 30_576_000),
    "mlp_spe_s": (14_450_688, (165_430_272, 2_254_307_328, 4_508_614_656, 523_708_416), 37_632_000),
}


@pytest.mark.parametrize("name", DENSE)
def test_dense_operations_at_224_px(name: str) -> None:
    stem, between, head = DENSE[name]
    model = create_model(name, time_steps=1, neuron={"backend": "eager"}).eval()
    cost = count_operations(model, images_of(model.config, batch=1))
    assert dense_by_part(cost) == {"stem": stem, **dict(zip(PARTS, between, strict=True)), "head": head}
    assert cost.stem_macs == stem
    assert cost.dense_macs == sum(between)
    assert all(layer.steps == 1 and layer.dense_macs_per_step == layer.dense_macs for layer in cost.layers)


def test_the_sums_of_what_lies_between_stem_and_head() -> None:
    assert [sum(between) for _, between, _ in DENSE.values()] == [4_944_726_696, 7_452_060_672]


# --- a network counted by hand -----------------------------------------------------------------------


def test_a_small_network_counted_by_hand() -> None:
    """One stage of one block, 2 x 2 tokens, 6 channels, 3 steps, every neuron fires at every step."""
    sizes: dict[str, Any] = {"dim": 6, "depths": (1,), "patch_size": 2, "image_size": 4}
    config = NetworkConfig(**sizes, in_channels=2, num_classes=5, time_steps=3)
    model = SpikingMLP(config).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.constant_(module.bias, 100.0)
    cost = count_operations(model, images_of(config))
    assert set(cost.firing_rates.values()) == {(1.0, 1.0, 1.0)}
    spikes = 3 * 2 * 2 * 6  # of one layer of 2 x 2 x 6 neurons in 3 steps
    assert {layer.path: layer.synaptic_operations for layer in cost.layers[1:]} == {
        "stages.0.blocks.0.token.positions.rows.synapse.linear": spikes * 2,
        "stages.0.blocks.0.token.positions.columns.synapse.linear": spikes * 2,
        "stages.0.blocks.0.token.fuse.linear": 3 * spikes * 6,
        "stages.0.blocks.0.channel.up.linear": spikes * 18,
        "stages.0.blocks.0.channel.down.linear": 3 * spikes * 6,
        "head.linear": spikes * 5,
    }
    assert cost.stem_macs == 2 * 2 * 6 * (2 * 2 * 2)  # once, not three times
    assert cost.synaptic_operations == cost.dense_macs == spikes * (2 + 2 + 18 + 18 + 18)
    assert cost.head_accumulates == spikes * 5
    assert cost.skip_additions == 2 * spikes  # h joins at both neurons of the block
    assert cost.accumulates == spikes * (58 + 5 + 2)
    assert cost.neuron_updates == spikes * (1 + 2 + 1 + 3 + 1)
    assert cost.membrane_bytes == 4 * cost.neuron_updates / 3
    # Before folding every current passes a batch norm, the stem's only once; so do the last spikes.
    norms = spikes // 3 + spikes * (2 + 1 + 3 + 1) + spikes
    assert cost.normalisation_macs == norms
    head = Operations(3 * (6 * 5 + 6) + 5, spikes + 3 * 5)  # mean over the grid, linear map, mean over time
    assert cost.before_folding == Operations(
        cost.stem_macs + norms + head.macs, spikes * (58 + 2) + head.accumulates
    )
    assert cost.after_folding == Operations(cost.stem_macs, cost.accumulates)
    assert cost.energy_joules == pytest.approx(4.6e-12 * 192 + 0.9e-12 * spikes * 65, rel=1e-12)


def test_the_head_with_a_neuron_and_patch_encoding_by_hand() -> None:
    sizes: dict[str, Any] = {"dim": 3, "depths": (1, 1), "patch_size": 2, "image_size": 8}
    config = NetworkConfig(**sizes, num_classes=5, time_steps=2, head="figure", token_mixing="none")
    model = SpikingMLP(config).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.constant_(module.bias, 100.0)
    cost = count_operations(model, images_of(config))
    encoding = {layer.path: layer.synaptic_operations for layer in cost.part("patch encoding")}
    # 3 x 3 windows: along 4 places with stride 2 they cover 1, 2, 1, 1 times; along 2, twice each.
    assert encoding == {
        "stages.1.embedding.down.conv": 2 * 3 * (5 * 5) * 6,
        "stages.1.embedding.between.0.conv": 2 * 2 * (4 * 4) * 2,
        "stages.1.embedding.between.1.conv": 2 * 2 * (4 * 4) * 2,
    }
    assert {layer.path: layer.synaptic_operations for layer in cost.part("head")} == {
        "head": 2 * 2 * 2 * 6,  # a constant a spike
        "head.linear": 2 * 6 * 5,
    }
    # Blocks join the shortcut twice, patch encoding adds 1 + 2 of 3 nodes.
    assert cost.skip_additions == 2 * (2 * 16 * 3 + 2 * 4 * 6 + 4 * 6)
    head = cost.head_before_folding
    assert head == Operations(2 * 6 + 5, 2 * (4 * 6 + 5) + 2 * 6 * 5)


# --- normalisations ----------------------------------------------------------------------------------


def test_only_what_cannot_fold_costs_in_the_end(tiny: NetworkConfig) -> None:
    tokens, widths, blocks = (16, 4), (6, 12), (2, 1)
    values = [3 * n * c * b for n, c, b in zip(tokens, widths, blocks, strict=True)]  # of one map, in 3 steps
    default, images = lively(tiny)
    assert count_operations(default, images).unfoldable_macs == 0
    # The channel block's first token-axis batch norm goes into thresholds, the second stays.
    by_token, images = lively(tiny.replace(channel_norm="bn_token"))
    cost = count_operations(by_token, images)
    assert cost.unfoldable_macs == sum(values)
    assert cost.normalisation_macs == count_operations(default, images).normalisation_macs
    assert cost.energy_joules == pytest.approx(
        4.6e-12 * (cost.stem_macs + sum(values)) + 0.9e-12 * cost.accumulates, rel=1e-12
    )
    part = fold_batch_norm(by_token, strict=False)
    assert count_operations(part, images).after_folding == cost.after_folding
    # Layer norm stays at both maps, one of them with three times the channels: three products a value.
    layer_norm, images = lively(tiny.replace(channel_norm="ln"))
    assert count_operations(layer_norm, images).unfoldable_macs == 3 * (3 + 1) * sum(values)


def test_batch_norms_before_a_shortcut_stay_in_a_relu_network(tiny: NetworkConfig) -> None:
    spiking, images = lively(tiny.replace(skip="spike_bn"))
    assert count_operations(spiking, images).unfoldable_macs == 0
    twin = count_operations(relu_twin(spiking), images.float())
    # Two in each block, of 16 tokens with 6 channels (two blocks) and 4 with 12 (one).
    assert twin.unfoldable_macs == 2 * (2 * 16 * 6 + 4 * 12)
    assert twin.macs == twin.stem_macs + twin.dense_macs + 12 * 5 + twin.unfoldable_macs


def test_batch_norms_that_are_computed_cost_more_than_they_save(tiny: NetworkConfig) -> None:
    model, images = lively(tiny)
    cost = count_operations(model, images)
    more = cost.energy_of(cost.before_folding) - cost.energy_joules
    norm = 4.6e-12 * cost.normalisation_macs
    head = cost.head_before_folding
    assert head is not None
    assert more == pytest.approx(norm + cost.energy_of(head) - 0.9e-12 * cost.head_accumulates)


# --- real values -------------------------------------------------------------------------------------


def test_the_relu_twin_multiplies_everywhere_and_once(tiny: NetworkConfig) -> None:
    model, images = lively(tiny)
    spiking, twin = count_operations(model, images), count_operations(relu_twin(model), images.float())
    assert twin.dense_macs * tiny.time_steps == spiking.dense_macs
    assert twin.synaptic_operations == 0
    # Last grid 2 x 2 of 12 channels: summed up first, then multiplied once for each channel and class.
    assert twin.macs == twin.stem_macs + twin.dense_macs + 12 * 5
    assert twin.head_accumulates == 4 * 12
    assert twin.accumulates == 4 * 12 + twin.skip_additions
    assert twin.skip_additions * tiny.time_steps == spiking.skip_additions
    assert twin.membrane_bytes == 0
    assert twin.neuron_updates * tiny.time_steps == spiking.neuron_updates
    assert twin.energy_joules == pytest.approx(4.6e-12 * twin.macs + 0.9e-12 * twin.accumulates, rel=1e-12)


def test_spikes_added_to_spikes_are_multiplied(tiny: NetworkConfig) -> None:
    model, images = lively(tiny.replace(skip="spike"), rate=0.4)
    cost = count_operations(model, images)
    second = [layer for layer in cost.layers if layer.path.startswith("stages.0.blocks.1")]
    assert {layer.arithmetic for layer in second if layer.part != "fuse"} >= {"multiply-accumulate"}
    assert cost.macs > cost.stem_macs
    assert cost.macs == sum(
        layer.dense_macs for layer in cost.layers if layer.arithmetic == "multiply-accumulate"
    )


def test_images_with_a_time_axis_pass_the_stem_at_every_step(tiny: NetworkConfig) -> None:
    model, images = lively(tiny)
    still = count_operations(model, images)
    timed = count_operations(model, images.expand(3, *images.shape))
    assert timed.stem_macs == 3 * still.stem_macs
    assert timed.part("stem")[0].dense_macs_per_step == still.stem_macs
    assert timed.accumulates == still.accumulates


# --- one image, several, and prices ------------------------------------------------------------------


def test_the_cost_is_the_mean_over_images(tiny: NetworkConfig) -> None:
    model, images = lively(tiny)
    together = count_operations(model, images)
    each = [count_operations(model, images[i : i + 1]) for i in range(2)]
    assert together.accumulates == sum(cost.accumulates for cost in each) / 2
    assert together.dense_macs == each[0].dense_macs == each[1].dense_macs
    assert together.membrane_bytes == each[0].membrane_bytes
    assert together.skip_additions == each[0].skip_additions


def test_prices_are_parameters(tiny: NetworkConfig) -> None:
    model, images = lively(tiny)
    cost = count_operations(model, images, mac_joules=3.0, accumulate_joules=2.0)
    assert cost.energy_joules == 3.0 * cost.stem_macs + 2.0 * cost.accumulates
    assert dataclasses.replace(cost, mac_joules=0.0).energy_joules == 2.0 * cost.accumulates


def test_memory_of_weights(tiny: NetworkConfig) -> None:
    model, images = lively(tiny)
    folded = fold_batch_norm(model)
    constants = sum(p.numel() for p in folded.parameters()) + sum(b.numel() for b in folded.buffers())
    assert count_operations(folded, images).weight_bytes == 8 * constants
    statistics = sum(b.numel() for b in model.buffers() if b.is_floating_point())
    parameters = sum(p.numel() for p in model.parameters())
    assert count_operations(model, images).weight_bytes == 8 * (parameters + statistics)


def test_counting_leaves_the_network_as_it_was() -> None:
    model = load_pretrained("mlp_spe_nano")
    images = images_of(model.config)
    before = model(images)
    count_operations(model, images)
    assert torch.equal(model(images), before)
    assert not any(module._forward_hooks for module in model.modules())


# --- bad input ---------------------------------------------------------------------------------------


def test_bad_networks_are_refused(tiny: NetworkConfig) -> None:
    images = images_of(tiny)
    with pytest.raises(InputError, match=r"networks of this package.*this is a Linear"):
        count_operations(nn.Linear(2, 2), images)
    with pytest.raises(InputError, match=r"networks of this package.*this is a Linear"):
        relu_twin(nn.Linear(2, 2))
    with pytest.raises(InputError, match=r"training mode; call model\.eval\(\)"):
        count_operations(SpikingMLP(tiny), images)
    model, calm = lively(tiny)
    with pytest.raises(InputError, match=r"runs on events.*count the folded network"):
        count_operations(event_driven(fold_batch_norm(model)), calm)
    broken = SpikingMLP(tiny).eval()
    with torch.no_grad():
        broken.head.linear.weight[0, 0] = float("nan")
    with pytest.raises(InputError, match=r"head\.linear\.weight holds NaN"):
        count_operations(broken, images)


@pytest.mark.parametrize("shape", [(0, 2, 8, 8), (2, 8, 8), (3, 0, 2, 8, 8)])
def test_no_images_are_refused(tiny: NetworkConfig, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="give at least one"):
        count_operations(SpikingMLP(tiny).eval(), torch.rand(shape))


def test_images_of_another_size_are_refused(tiny: NetworkConfig) -> None:
    model = SpikingMLP(tiny).eval()
    with pytest.raises(InputError, match="images have shape"):
        count_operations(model, torch.rand(2, 2, 16, 16))
    assert not any(module._forward_hooks for module in model.modules())
