"""What does not fold, and what is no input for folding: each is named, with the reason."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from trained import assert_same, images_for, trained

from snnmlp_edu import LIF, InputError, NetworkConfig, NeuronConfig, SpikingMLP
from snnmlp_edu.cost import count_operations
from snnmlp_edu.mfi import NotFoldableError, fold_batch_norm
from snnmlp_edu.mfi.folding.layers import AxisLIF
from snnmlp_edu.model.normalisation import BatchNorm


def test_what_the_released_channel_block_needs(tiny: NetworkConfig) -> None:
    images = images_for(tiny)
    network = trained(SpikingMLP(tiny.replace(channel_norm="bn_token")), images)
    with pytest.raises(NotFoldableError) as error:
        fold_batch_norm(network)
    blocks = ("stages.0.blocks.0", "stages.0.blocks.1", "stages.1.blocks.0")
    assert [stays.path for stays in error.value.not_folded] == [f"{block}.channel.down" for block in blocks]
    assert {stays.axis for stays in error.value.not_folded} == {"token"}
    assert str(error.value) == (
        "stages.0.blocks.0.channel.down does not fold: it keeps statistics on the token axis, and its map"
        " shares its weights along that axis, so each of the 16 scales would need a copy of them (no LIF"
        " neuron gets this current alone, to take them as thresholds); 2 more do not fold"
    )
    folded = fold_batch_norm(network, strict=False)
    assert folded.not_folded == error.value.not_folded
    assert_same(network, folded, images)
    for block in map(folded.get_submodule, blocks):
        assert isinstance(block.channel.up.neuron, AxisLIF)
        assert isinstance(block.channel.up.norm, nn.Identity)
        assert isinstance(block.channel.down.norm, BatchNorm)
    norms = [path for path, module in folded.named_modules() if isinstance(module, BatchNorm)]
    assert norms == [f"{block}.channel.down.norm" for block in blocks]


def test_layer_norm_is_refused_by_name(tiny: NetworkConfig) -> None:
    images = images_for(tiny)
    network = trained(SpikingMLP(tiny.replace(depths=(1,), channel_norm="ln", token_norm="ln")), images)
    with pytest.raises(
        NotFoldableError, match=r"rows.synapse .* width axis, and layer norm .* from each input"
    ):
        fold_batch_norm(network)
    folded = fold_batch_norm(network, strict=False)
    block = "stages.0.blocks.0"
    assert [(stays.path, stays.axis) for stays in folded.not_folded] == [
        (f"{block}.token.positions.rows.synapse", "width"),
        (f"{block}.token.positions.columns.synapse", "height"),
        (f"{block}.channel.up", "token"),
        (f"{block}.channel.down", "token"),
    ]
    assert_same(network, folded, images)


def test_no_threshold_takes_a_token_norm_before_a_relu(tiny: NetworkConfig) -> None:
    network = trained(SpikingMLP(tiny.replace(activation="relu", channel_norm="bn_token")), images_for(tiny))
    stays = fold_batch_norm(network, strict=False).not_folded
    assert [layer.path.split(".")[-1] for layer in stays] == ["up", "down"] * 3


def test_bad_input_is_refused_by_name(tiny: NetworkConfig) -> None:
    good = trained(SpikingMLP(tiny), images_for(tiny))
    with pytest.raises(InputError, match=r"^SpikingMLP is in training mode; call model.eval\(\)"):
        fold_batch_norm(copy.deepcopy(good).train())
    part = copy.deepcopy(good)
    part.stages[1].train()
    with pytest.raises(InputError, match=r"^stages.1 is in training mode"):
        fold_batch_norm(part)
    with pytest.raises(InputError, match=r"^stages.0.embedding.embed.norm.batch_norm has no statistics yet"):
        fold_batch_norm(SpikingMLP(tiny).eval())
    broken = copy.deepcopy(good)
    with torch.no_grad():
        broken.stages[0].blocks[1].token.fuse.linear.weight[0, 0] = torch.nan
    with pytest.raises(InputError, match=r"^stages.0.blocks.1.token.fuse.linear.weight holds NaN"):
        fold_batch_norm(broken)
    negative = copy.deepcopy(good)
    negative.head.norm.batch_norm.running_var[0] = -1
    with pytest.raises(InputError, match=r"^head has a variance plus eps that is not above 0"):
        fold_batch_norm(negative)
    hooked = copy.deepcopy(good)
    hooked.stages[0].neuron.register_forward_hook(lambda layer, inputs, spikes: 2 * spikes)
    with pytest.raises(InputError, match=r"^stages.0.neuron has a forward hook"):
        fold_batch_norm(hooked)
    altered = copy.deepcopy(good)
    altered.head.combine = lambda steps: steps.sum(dim=0)
    for task in (fold_batch_norm, lambda network: count_operations(network, images_for(tiny))):
        with pytest.raises(InputError, match=r"^head has a combine of its own"):
            task(altered)


def test_what_can_never_fold_is_said_before_what_is_missing(tiny: NetworkConfig) -> None:
    with pytest.raises(NotFoldableError, match="layer norm"):
        fold_batch_norm(SpikingMLP(tiny.replace(channel_norm="ln")).eval())


def test_models_that_are_not_ours() -> None:
    plain = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).eval()
    for stranger, name in ((plain, "Sequential"), ("mlp_spe_nano", "str")):
        with pytest.raises(
            InputError, match=rf"\(Synapse, ConvNorm, LIF, Head\) and {name} has none of them"
        ):
            fold_batch_norm(stranger)
    mixed = nn.Sequential(plain, LIF()).eval()
    with pytest.raises(NotFoldableError, match=r"^0.1 does not fold: .* after no linear map that fold_batch"):
        fold_batch_norm(mixed)
    folded = fold_batch_norm(nn.Sequential(LIF(NeuronConfig(input_gain=0.25, threshold=2.0))).eval())
    assert (folded[0].config.input_gain, folded[0].config.threshold) == (1, 8)


def test_a_norm_that_keeps_no_statistics_is_refused(tiny: NetworkConfig) -> None:
    network = trained(SpikingMLP(tiny), images_for(tiny))
    block = network.stages[0].blocks[0]
    norm = block.channel.up.norm.batch_norm
    block.channel.up.norm.batch_norm = (
        nn.BatchNorm1d(norm.num_features, track_running_stats=False).double().eval()
    )
    with pytest.raises(InputError, match="keeps no statistics, or has no scale and shift"):
        fold_batch_norm(network)
