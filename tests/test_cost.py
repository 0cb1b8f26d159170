"""Operation counts: against hand counts, brute force, the executor's own counter and a peer's."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from snnmlp_edu import (
    InputError,
    NetworkConfig,
    SpikingMLP,
    create_model,
    get_config,
    load_pretrained,
    record,
)
from snnmlp_edu.baselines import RESNET34, VGG16, SpikingResNet, SpikingVGG
from snnmlp_edu.cost import Cost, Operations, count_operations, relu_twin
from snnmlp_edu.cost.fan_out import reached, windows
from snnmlp_edu.mfi import calibrate, fold_batch_norm
from snnmlp_edu.synapses import AxisLinear

PARTS = ("axial", "fuse", "channel", "patch encoding")


def images_of(config: NetworkConfig, batch: int = 2) -> Tensor:
    return torch.rand(batch, config.in_channels, config.image_size, config.image_size)


def dense_by_part(cost: Cost) -> dict[str, int]:
    names = dict.fromkeys(layer.part for layer in cost.layers)
    return {name: sum(layer.dense_macs for layer in cost.part(name)) for name in names}


# --- the sizes at 224 px -----------------------------------------------------------------------------

# SCIENCE, section 3: one time step at 224 px.
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


def test_the_sums_are_sciences() -> None:
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


# --- fan-out against brute force ---------------------------------------------------------------------


def ones_like(layer: nn.Module) -> nn.Module:
    """The map with all weights 1 and no bias: what it writes, summed, is the number of weights used."""
    match layer:
        case nn.Conv2d():
            twin: nn.Module = nn.Conv2d(
                layer.in_channels,
                layer.out_channels,
                layer.kernel_size,
                layer.stride,
                layer.padding,
                layer.dilation,
                layer.groups,
                bias=False,
            )
        case AxisLinear():
            twin = AxisLinear(layer.axis, layer.in_features, layer.out_features, bias=False)
        case _:
            raise AssertionError(type(layer))
    for parameter in twin.parameters():
        nn.init.ones_(parameter)
    return twin.double()


def weights_used(layer: nn.Module, *values: Tensor) -> int:
    with torch.no_grad():
        return int(ones_like(layer)(*((v != 0).double() for v in values)).sum().round())


@settings(deadline=None, max_examples=60)
@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=st.integers(1, 2),
    groups=st.integers(1, 2),
    rate=st.floats(0, 1),
    seed=st.integers(0, 2**16),
)
def test_fan_out_of_convolutions_is_what_a_convolution_of_ones_counts(
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: int,
    groups: int,
    rate: float,
    seed: int,
) -> None:
    assume(all(n + 2 * p >= dilation * (k - 1) + 1 for n, p, k in zip(size, padding, kernel, strict=True)))
    layer = nn.Conv2d(2 * groups, 3 * groups, kernel, stride, padding, dilation, groups)
    drawn = torch.rand(2, 2 * groups, *size, generator=torch.Generator().manual_seed(seed))
    spikes = (drawn < rate).float()
    counted = reached(layer, spikes)
    assert counted.events == weights_used(layer, spikes)
    assert counted.dense == weights_used(layer, torch.ones_like(spikes))
    assert counted.spikes == spikes.sum()


def test_windows_that_leave_a_margin_uncovered() -> None:
    assert windows(5, nn.Conv2d(1, 1, 2, stride=2), axis=0).tolist() == [1, 1, 1, 1, 0]
    assert windows(6, nn.Conv2d(1, 1, 1, stride=3), axis=1).tolist() == [1, 0, 0, 1, 0, 0]


CONFIGS = st.builds(
    dict,
    dim=st.sampled_from([3, 6]),
    depths=st.sampled_from([(1,), (2, 1), (1, 1, 1)]),
    patch_size=st.sampled_from([1, 2]),
    image_size=st.just(8),
    in_channels=st.integers(1, 3),
    num_classes=st.integers(1, 4),
    time_steps=st.integers(1, 3),
    expansion=st.integers(1, 3),
    skip=st.sampled_from(["stage", "membrane", "spike_bn", "none"]),
    patch_encoding=st.sampled_from(["spiking", "conv"]),
    token_mixing=st.sampled_from(["axial", "full", "none"]),
    token_norm=st.sampled_from(["bn", "tebn", "none"]),
    channel_norm=st.sampled_from(["bn", "tdbn", "none"]),
    head=st.sampled_from(["released", "figure"]),
)


def lively(config: NetworkConfig, rate: float | None = None) -> tuple[Any, Tensor]:
    """A calibrated network in fp64, where folding moves no membrane across its threshold."""
    model, images = SpikingMLP(config).double(), images_of(config).double()
    return calibrate(model, images, rate=rate), images


@settings(deadline=None, max_examples=25)
@given(values=CONFIGS, seed=st.integers(0, 2**16))
def test_networks_are_counted_as_by_brute_force_folded_or_not(values: dict[str, Any], seed: int) -> None:
    torch.manual_seed(seed)
    model, images = lively(NetworkConfig(**values))
    used: dict[str, int] = {}
    handles = [
        module.register_forward_pre_hook(
            lambda layer, inputs, path=path: used.update({path: weights_used(layer, *inputs)})
        )
        for path, module in model.named_modules()
        if isinstance(module, nn.Conv2d | AxisLinear)
    ]
    traces = record(model, images)
    for handle in handles:
        handle.remove()
    cost = count_operations(model, images)
    between = {layer.path: layer for layer in cost.layers if layer.part not in ("stem", "head")}
    assert {path: layer.events for path, layer in between.items()} == {
        path: count for path, count in used.items() if "stages.0.embedding" not in path
    }
    assert all(layer.arithmetic == "accumulate" for layer in between.values())
    assert cost.synaptic_operations * 2 == sum(layer.events for layer in between.values())
    last = [spikes for path, spikes in traces.items() if path.startswith("stages.")][-1]
    if values["head"] == "released":
        assert cost.head_accumulates * 2 == last.sum() * values["num_classes"]
    else:
        assert cost.head_accumulates * 2 == last.sum() + traces["head.neuron"].sum() * values["num_classes"]
    rates = {path: spikes.flatten(1).mean(1).tolist() for path, spikes in traces.items()}
    assert set(rates) == set(cost.firing_rates)
    for path, steps in rates.items():
        assert cost.firing_rates[path] == pytest.approx(steps)
    assert cost.neuron_updates * 2 == sum(spikes.numel() for spikes in traces.values())
    assert cost.accumulates == cost.synaptic_operations + cost.head_accumulates + cost.skip_additions

    folded = count_operations(fold_batch_norm(model), images)
    assert {(layer.path, layer.events) for layer in folded.layers} == {
        (layer.path, layer.events) for layer in cost.layers
    }
    assert folded.after_folding == folded.before_folding == cost.after_folding
    assert folded.normalisation_macs == cost.unfoldable_macs == 0
    assert cost.before_folding.macs > cost.after_folding.macs


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


# --- the baselines -----------------------------------------------------------------------------------

SMALL = {"image_size": 16, "in_channels": 2, "num_classes": 5, "time_steps": 3}


@pytest.mark.parametrize(
    "model",
    [
        SpikingResNet(RESNET34.replace(dim=4, depths=(2, 2), **SMALL)),
        SpikingVGG(VGG16.replace(dim=4, depths=(2, 1), **SMALL)),
    ],
    ids=["resnet", "vgg"],
)
def test_baselines_are_counted_as_by_brute_force(model: Any) -> None:
    images = images_of(model.config).double()
    model = calibrate(model.double(), images, rate=0.3)
    used: dict[str, int] = {}
    for path, module in model.named_modules():
        if isinstance(module, nn.Conv2d | AxisLinear) and "embed" not in path:
            module.register_forward_pre_hook(
                lambda layer, inputs, path=path: used.update({path: weights_used(layer, *inputs)})
            )
    cost = count_operations(model, images)
    assert {layer.path: layer.events for layer in cost.layers if layer.part not in ("stem", "head")} == used
    parts = {layer.part for layer in cost.layers}
    others = {"shortcut"} if isinstance(model, SpikingResNet) else {"fully connected"}
    assert parts == {"stem", "convolution", "head"} | others


def test_resnet34_at_224_px_by_formula() -> None:
    """3 x 3 windows along n places cover 3 n - 2 taps with stride 1, and 3 n / 2 - 1 with stride 2."""
    model = SpikingResNet(RESNET34.replace(time_steps=1, neuron={"backend": "eager"})).eval()
    cost = count_operations(model, images_of(model.config, batch=1))
    same = {n: (3 * n - 2) ** 2 for n in (56, 28, 14, 7)}
    convolutions = 6 * same[56] * 64 * 64
    shortcuts = 0
    for n, c, blocks in ((28, 128, 4), (14, 256, 6), (7, 512, 3)):
        convolutions += (3 * n - 1) ** 2 * c // 2 * c + (2 * blocks - 1) * same[n] * c * c
        shortcuts += n * n * c // 2 * c
    taps = 7 * 112 - (3 + 1) - 2  # with stride 2 the first two windows lack 3 and 1 of 7, the last 2
    assert dense_by_part(cost) == {
        "stem": taps**2 * 3 * 64,
        "convolution": convolutions,
        "shortcut": shortcuts,
        "head": 49 * 512 * 1000,
    }
    assert cost.skip_additions == 3 * 56 * 56 * 64 + 4 * 28 * 28 * 128 + 6 * 14 * 14 * 256 + 3 * 49 * 512


# --- a peer ------------------------------------------------------------------------------------------


def test_a_peer_counts_the_same() -> None:
    """SpikingJelly's counter sees products of a tensor of zeros and ones, below PyTorch's modules.

    It agrees on every convolution and every linear map behind the stem, with two exceptions. It does not
    know the in-place sum by which the fuse adds the spikes of rows and columns. And it sees the head as it
    is computed, behind batch norm or mean, where values are not binary; VGG's last grid is 1 x 1, so that
    the mean leaves its spikes alone.
    """
    op_counter = pytest.importorskip(
        "spikingjelly.activation_based.op_counter", reason="the peer SpikingJelly is not installed"
    )
    eager = {"neuron": {"backend": "eager"}}
    for model in (
        SpikingMLP(get_config("mlp_spe_nano", **eager)),
        SpikingResNet(RESNET34.replace(dim=4, depths=(2, 2), **SMALL)),
        SpikingVGG(VGG16.replace(dim=4, depths=(2, 1), **SMALL)),
    ):
        images = images_of(model.config)
        model = calibrate(model, images, rate=0.2)
        peer = op_counter.SynOpCounter()
        with torch.no_grad(), op_counter.DispatchCounterMode([peer]):
            model(images)
        cost = count_operations(model, images)
        expected = 2 * cost.synaptic_operations
        if isinstance(model, SpikingVGG):
            expected += 2 * cost.head_accumulates
        for path, spikes in record(model, images).items():
            if "positions" in path:  # rows and columns, each spike into all channels of the fuse
                expected -= int(spikes.sum()) * spikes.shape[-1]
        assert peer.get_total() == expected


# --- bad input ---------------------------------------------------------------------------------------


def test_bad_networks_are_refused(tiny: NetworkConfig) -> None:
    images = images_of(tiny)
    with pytest.raises(InputError, match=r"networks of this package.*this is a Linear"):
        count_operations(nn.Linear(2, 2), images)
    with pytest.raises(InputError, match=r"networks of this package.*this is a Linear"):
        relu_twin(nn.Linear(2, 2))
    with pytest.raises(InputError, match=r"training mode; call model\.eval\(\)"):
        count_operations(SpikingMLP(tiny), images)
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
