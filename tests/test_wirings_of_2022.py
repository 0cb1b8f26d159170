"""The two wirings of the authors' repository in July 2022: by hand, and what they keep and lose."""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from test_cost import lively
from torch import Tensor
from trained import assert_same, images_for, trained

from snnmlp_edu import InputError, NetworkConfig, NeuronConfig, SpikingMLP, create_model
from snnmlp_edu.benchmark.onnx_twin import write_twin
from snnmlp_edu.cost import count_operations
from snnmlp_edu.engine import compile_network
from snnmlp_edu.mfi import NotFoldableError, audit, calibrate, export_nir, fold_batch_norm
from snnmlp_edu.mfi.auditing.operations import Kind
from snnmlp_edu.mfi.events.execute import event_driven
from snnmlp_edu.mfi.folding.layers import AxisLIF
from snnmlp_edu.model.mixing import InnerSkipBlock, MixerBlock, OuterSkipBlock
from snnmlp_edu.model.normalisation import BatchNorm

NO_NORMS: dict[str, Any] = {"token_mixing": "none", "token_norm": "none", "channel_norm": "none"}
# u[t] = u[t-1] / 2 + i[t], fires from 1 on and then starts at 0 again.
NEURON = NeuronConfig(input_gain=1.0, backend="eager")
BLOCKS = ("stages.0.blocks.0", "stages.0.blocks.1", "stages.1.blocks.0")


Rows = list[list[float]]


def set_maps(block: MixerBlock, fuse: Rows, up: Rows, down: Rows) -> None:
    """Weights by hand, and no bias."""
    maps: dict[str, Any] = {"token.fuse": fuse, "channel.up": up, "channel.down": down}
    for path, weight in maps.items():
        linear: Any = block.get_submodule(path).linear
        linear.weight.data = torch.tensor(weight)
        linear.bias.data.zero_()


def through(block: MixerBlock, spikes: Rows) -> Rows:
    """What one token makes of spikes `[T, C]`; the embedding is far above every threshold."""
    arriving = torch.tensor(spikes)[:, None, None, None]
    found, carried = block(arriving, embedding := torch.full_like(arriving, 100.0))
    assert carried is embedding
    return found[:, 0, 0, 0].tolist()


def test_the_inner_shortcut_by_hand() -> None:
    config = NetworkConfig(skip="inner", expansion=1, neuron=NEURON, **NO_NORMS)
    block = InnerSkipBlock((1, 1, 1), config)
    set_maps(block, fuse=[[2.0]], up=[[0.6]], down=[[0.5]])
    # s' = 1, 1, 1; c = 0.6 each, and the neuron between reaches 0.6, 0.9, 1.05: it fires at the third step.
    # The last one gets c + 0.5 LIF(c) = 0.6, 0.6, 1.1 and reaches 0.6, 0.9, 1.55.
    assert through(block, [[1.0], [1.0], [1.0]]) == [[0.0], [0.0], [1.0]]
    # A map that inhibits: 0.6, 0.6, -0.4 and 0.6, 0.9, 0.05.
    set_maps(block, fuse=[[2.0]], up=[[0.6]], down=[[-1.0]])
    assert through(block, [[1.0], [1.0], [1.0]]) == [[0.0], [0.0], [0.0]]
    # Nothing else is skipped: without spikes of the token block there is no current.
    set_maps(block, fuse=[[0.0]], up=[[0.6]], down=[[0.5]])
    assert through(block, [[1.0], [1.0], [1.0]]) == [[0.0], [0.0], [0.0]]


def test_the_outer_shortcut_by_hand() -> None:
    block = OuterSkipBlock((1, 1, 2), NetworkConfig(skip="outer", expansion=1, neuron=NEURON, **NO_NORMS))
    # Layer norm over two channels makes 1 and -1 of any two that differ, and 0 and 0 of equal ones.
    each = [[1.2, 0.0], [0.0, 1.2]]
    set_maps(block, fuse=each, up=each, down=[[0.0, 0.0], [1.2, 0.0]])
    # t = (1.2, -1.2), so s' = (1, 0) + (1, 0). LN(s') = (1, -1), of which the neurons between make (1, 0), so
    # that c = (0, 1.2) and s'' = (0, 1) + s'.
    assert through(block, [[1.0, 0.0], [0.0, 0.0]]) == [[2.0, 1.0], [0.0, 0.0]]
    # (3, 3): LN gives 0, no part fires, and what came in goes out.
    assert through(block, [[3.0, 3.0]]) == [[3.0, 3.0]]
    block.channel_pre_norm.layer_norm.bias.data.fill_(2.0)  # now the channel part fires on that, c = (0, 1.2)
    assert through(block, [[3.0, 3.0]]) == [[3.0, 4.0]]


def test_gradients_pass_the_inner_shortcut_where_the_second_map_is_silent(
    tiny: NetworkConfig,
) -> None:
    """They are those of a block of one map."""
    block = InnerSkipBlock((4, 4, 6), tiny.replace(skip="inner", expansion=1, **NO_NORMS)).double()
    block.channel.down.linear.weight.data.zero_()
    block.token.fuse.linear.bias.data.fill_(2.0)  # above the threshold, so that there are spikes
    spikes = (torch.rand(3, 2, 4, 4, 6, dtype=torch.float64) > 0.5).double()
    weights = torch.randn(3, 2, 4, 4, 6, dtype=torch.float64)
    (block(spikes, spikes)[0] * weights).sum().backward()
    reached = block.channel.up.linear.weight.grad
    assert reached is not None
    middle, up = block.token(spikes)[0].detach(), block.channel.up.linear
    again = up.weight.detach().clone().requires_grad_()
    current = middle @ again.T + (up.bias + block.channel.down.linear.bias).detach()
    (block.channel.down.neuron(current) * weights).sum().backward()
    torch.testing.assert_close(reached, again.grad)
    assert reached.abs().sum() > 0


def test_the_inner_shortcut_needs_equal_widths() -> None:
    with pytest.raises(InputError, match=r"expansion is 3; skip='inner'.*expansion=1"):
        create_model("mlp_spe_nano", skip="inner")
    assert create_model("mlp_spe_nano", skip="inner", expansion=1).config.skip == "inner"


def test_a_norm_along_tokens_stays_at_both_maps_of_an_inner_shortcut(tiny: NetworkConfig) -> None:
    """The neuron between could take the first one, but the current that goes around it could not."""
    images = images_for(tiny)
    network = trained(SpikingMLP(tiny.replace(skip="inner", expansion=1, channel_norm="bn_token")), images)
    with pytest.raises(NotFoldableError) as error:
        fold_batch_norm(network)
    wanted = [f"{block}.channel.{name}" for block in BLOCKS for name in ("up", "down")]
    assert [stays.path for stays in error.value.not_folded] == wanted
    folded = fold_batch_norm(network, strict=False)
    assert_same(network, folded, images)
    for path in wanted:
        assert isinstance(folded.get_submodule(f"{path}.norm"), BatchNorm)
        assert not isinstance(folded.get_submodule(f"{path}.neuron"), AxisLIF)


def test_the_inner_shortcut_is_counted_as_one_addition(tiny: NetworkConfig) -> None:
    model, images = lively(tiny.replace(skip="inner", expansion=1))
    for network in (model, fold_batch_norm(model)):
        cost = count_operations(network, images)
        # Stage 0: 2 blocks on 4 x 4 x 6. Stage 1: 1 block on 2 x 2 x 12, and its patch encoding. 3 steps.
        assert cost.skip_additions == 3 * (2 * 4 * 4 * 6 + 2 * 2 * 2 * 12)
        assert cost.macs == cost.stem_macs
        assert cost.unfoldable_macs == 0


def outer(tiny: NetworkConfig, **changes: Any) -> tuple[Any, Tensor]:
    return lively(tiny.replace(skip="outer", **changes), rate=0.3)


def test_the_outer_shortcut_does_not_fold_and_is_refused_by_name(tiny: NetworkConfig) -> None:
    network, images = outer(tiny)
    with pytest.raises(NotFoldableError, match=r"token_pre_norm does not fold: .*layer norm") as error:
        fold_batch_norm(network)
    norms = [f"{block}.{part}_pre_norm" for block in BLOCKS for part in ("token", "channel")]
    assert [stays.path for stays in error.value.not_folded] == norms
    folded = fold_batch_norm(network, strict=False)
    assert_same(network, folded, images)
    for refuses in (event_driven, lambda n: event_driven(n, weights="int8"), compile_network, export_nir):
        with pytest.raises(InputError, match=r"stages\.0\.blocks\.0\.token_pre_norm"):
            refuses(folded)


@pytest.mark.skipif(find_spec("onnx") is None, reason="onnx of the extra [bench] is not installed")
def test_the_onnx_twin_refuses_the_outer_shortcut_by_name(tiny: NetworkConfig) -> None:
    images = outer(tiny)[1]
    twin = calibrate(SpikingMLP(tiny.replace(skip="outer", activation="relu", time_steps=1)), images.float())
    with pytest.raises(InputError, match=r"OuterSkipBlock.*onnx_twin\.py"):
        write_twin(fold_batch_norm(twin, strict=False), "channels last")


def test_the_outer_shortcut_multiplies(tiny: NetworkConfig) -> None:
    network, images = outer(tiny)
    report = audit(fold_batch_norm(network, strict=False), images)
    assert not report.multiplication_free
    names = {row.name for row in report.violations}
    assert "aten.native_layer_norm" in names
    read = [row for row in report.violations if re.search(r"(rows|columns)\.synapse|fuse|up", row.path)]
    assert {row.path.rpartition(".blocks.")[0] for row in read} == {"stages.0", "stages.1"}
    assert all(row.kind is Kind.MULTIPLICATION for row in report.violations)
    assert not [row for row in report.violations if ".channel.down" in row.path], "its neurons send spikes"


def test_the_outer_shortcut_is_counted_as_the_products_that_it_is(tiny: NetworkConfig) -> None:
    network, images = outer(tiny)
    cost = count_operations(network, images)
    multiplies = {layer.path for layer in cost.layers if layer.arithmetic == "multiply-accumulate"}
    reading = ("token.positions.rows.synapse", "token.positions.columns.synapse", "token.fuse", "channel.up")
    assert {f"{block}.{name}.linear" for block in BLOCKS for name in reading} <= multiplies
    assert not {f"{block}.channel.down.linear" for block in BLOCKS} & multiplies
    values = 3 * (2 * 4 * 4 * 6 + 2 * 2 * 12)  # of all blocks, in 3 steps
    assert cost.unfoldable_macs == 3 * 2 * values  # three products a value, two layer norms a block
    assert cost.skip_additions == 2 * values + 3 * 2 * 2 * 12  # and those of the patch encoding
    folded = count_operations(fold_batch_norm(network, strict=False), images)
    assert folded.after_folding == cost.after_folding
