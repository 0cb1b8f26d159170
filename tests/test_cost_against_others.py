"""Operation counts against other ways to count: brute force, the executor's own counter, a peer's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_cost import dense_by_part, images_of, lively
from torch import Tensor, nn
from variants import FOLDING_NORMS, HEADS, PATCH_ENCODINGS, SPIKING_SKIPS, TOKEN_MIXINGS, fitted

from snnmlp_edu import NetworkConfig, SpikingMLP, get_config, load_pretrained, record
from snnmlp_edu.baselines import RESNET34, VGG16, SpikingResNet, SpikingVGG
from snnmlp_edu.cost import count_operations
from snnmlp_edu.cost.fan_out import reached, windows
from snnmlp_edu.mfi import calibrate, fold_batch_norm
from snnmlp_edu.mfi.events.execute import event_driven
from snnmlp_edu.model.linear import AxisLinear

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
    skip=st.sampled_from(SPIKING_SKIPS),
    patch_encoding=st.sampled_from(PATCH_ENCODINGS),
    token_mixing=st.sampled_from(TOKEN_MIXINGS),
    token_norm=st.sampled_from(FOLDING_NORMS),
    channel_norm=st.sampled_from(["bn", "tdbn", "none"]),
    head=st.sampled_from(HEADS),
).map(fitted)


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


# --- the baselines -----------------------------------------------------------------------------------

SMALL = {"image_size": 16, "in_channels": 2, "num_classes": 5, "time_steps": 3}


def small_baselines() -> tuple[SpikingResNet, SpikingVGG]:
    resnet = SpikingResNet(RESNET34.replace(dim=4, depths=(2, 2), **SMALL))
    return resnet, SpikingVGG(VGG16.replace(dim=4, depths=(2, 1), **SMALL))


@pytest.mark.parametrize("index", [0, 1], ids=["resnet", "vgg"])
def test_baselines_are_counted_as_by_brute_force(index: int) -> None:
    drawn = small_baselines()[index]
    images = images_of(drawn.config).double()
    model = calibrate(drawn.double(), images, rate=0.3)
    used: dict[str, int] = {}
    for path, module in model.named_modules():
        if isinstance(module, nn.Conv2d | AxisLinear) and "embed" not in path:
            module.register_forward_pre_hook(
                lambda layer, inputs, path=path: used.update({path: weights_used(layer, *inputs)})
            )
    cost = count_operations(model, images)
    assert {layer.path: layer.events for layer in cost.layers if layer.part not in ("stem", "head")} == used
    parts = {layer.part for layer in cost.layers}
    assert parts == {"stem", "convolution", "head", ("shortcut", "fully connected")[index]}


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


# --- the event-driven executor, which counts the rows that it gathers ---------------------------------


def counts_of_executor(folded: Any, images: Tensor) -> dict[str, int]:
    fast = event_driven(folded)
    with torch.no_grad():
        fast(images)
    counts: dict[str, int] = fast.synaptic_operations
    return counts


def counts_by_formula(folded: Any, images: Tensor) -> dict[str, int]:
    """Of all maps that take spikes; the constants that the head with a neuron selects are no map."""
    layers = count_operations(folded, images).layers
    return {layer.path: layer.events for layer in layers if layer.part != "stem" and layer.path != "head"}


@settings(deadline=None, max_examples=15)
@given(values=CONFIGS, seed=st.integers(0, 2**16))
def test_the_executor_counts_the_same(values: dict[str, Any], seed: int) -> None:
    torch.manual_seed(seed)
    model, images = lively(NetworkConfig(**values))
    folded = fold_batch_norm(model)
    assert counts_by_formula(folded, images) == counts_of_executor(folded, images)


def test_the_executor_counts_the_same_in_trained_weights_and_baselines() -> None:
    for model in (load_pretrained("mlp_spe_nano"), *small_baselines()):
        images = images_of(model.config)
        if model.training:
            model = calibrate(model, images, rate=0.2)
        folded = fold_batch_norm(model)
        counted = counts_by_formula(folded, images)
        assert min(counted.values()) > 0
        assert counted == counts_of_executor(folded, images)


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
        *small_baselines(),
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
