"""The layers of a folded network, by hand-computed numbers and against the layers they stand for."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from snnmlp_edu import LIF, InputError, NetworkConfig, NeuronConfig
from snnmlp_edu.mfi import NotFoldableError, fold_batch_norm
from snnmlp_edu.mfi.folding.layers import AxisLIF, FoldedHead, SteppedLinear
from snnmlp_edu.model.linear import AxisLinear
from snnmlp_edu.model.mixing import MixerBlock
from snnmlp_edu.model.network import Head
from snnmlp_edu.model.normalisation import BatchNorm, TemporalBatchNorm, ThresholdBatchNorm
from snnmlp_edu.model.patches import ConvNorm
from snnmlp_edu.model.synapses import Synapse


def set_norm(
    norm: nn.Module, gamma: list[float], delta: list[float], mean: list[float], var: list[float]
) -> None:
    bn = norm.batch_norm
    bn.eps = 1.0
    with torch.no_grad():
        for tensor, numbers in (
            (bn.weight, gamma),
            (bn.bias, delta),
            (bn.running_mean, mean),
            (bn.running_var, var),
        ):
            tensor.copy_(torch.tensor(numbers))
    bn.num_batches_tracked.fill_(1)


def synapse(norm: nn.Module) -> Synapse:
    """W = [[1, 2], [3, 4]], b = [1, -1]; gamma / sqrt(var + eps) = [4 / 2, -3 / 1]."""
    layer = Synapse(AxisLinear("width", 2, 2), norm)
    with torch.no_grad():
        layer.linear.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        layer.linear.bias.copy_(torch.tensor([1.0, -1.0]))
    set_norm(norm, gamma=[4.0, -3.0], delta=[5.0, 0.0], mean=[1.0, 2.0], var=[3.0, 0.0])
    return layer.eval()


def test_bn_by_hand() -> None:
    folded = fold_batch_norm(synapse(BatchNorm("width", 2))).linear
    assert folded.weight.tolist() == [[2, 4], [-9, -12]]
    assert folded.bias.tolist() == [2 * (1 - 1) + 5, -3 * (-1 - 2) + 0]
    assert folded.axis == "width"
    assert not folded.weight.requires_grad


def test_tdbn_by_hand_scales_the_scale_and_not_the_shift() -> None:
    folded = fold_batch_norm(synapse(ThresholdBatchNorm("width", 2, threshold=0.5, currents_summed=4))).linear
    assert folded.weight.tolist() == [[0.5, 1], [-2.25, -3]]  # a quarter
    assert folded.bias.tolist() == [0.5 * (1 - 1) + 5, -0.75 * (-1 - 2) + 0]


def test_tebn_by_hand_has_weights_for_each_step() -> None:
    layer = synapse(TemporalBatchNorm("width", 2, time_steps=2))
    with torch.no_grad():
        layer.norm.step_scale.copy_(torch.tensor([1.0, -2.0]))
    folded = fold_batch_norm(layer)
    assert isinstance(folded.linear, SteppedLinear)
    assert [linear.weight.tolist() for linear in folded.linear.steps] == [
        [[2, 4], [-9, -12]],
        [[-4, -8], [18, 24]],
    ]
    assert [linear.bias.tolist() for linear in folded.linear.steps] == [[5, 9], [-10, -18]]
    spikes = torch.randint(0, 2, (2, 3, 4, 2, 5)).float()
    torch.testing.assert_close(folded(spikes), layer(spikes))
    message = (
        "folded into the weights of 2 time steps and got 3; use time_steps=2, or train with time_steps=3"
    )
    with pytest.raises(InputError, match=message):
        folded(torch.zeros(3, 1, 4, 2, 5))


def test_stepped_weights_join_spikes_from_several_places() -> None:
    stepped = SteppedLinear("channel", torch.randn(2, 4, 5), torch.randn(2, 4))
    left, right = torch.randn(2, 3, 2, 2, 2), torch.randn(2, 3, 2, 2, 3)
    torch.testing.assert_close(stepped(left, right), stepped(torch.cat((left, right), dim=-1)))


def test_a_convolution_keeps_its_border() -> None:
    layer = ConvNorm(1, 1, kernel_size=3, stride=1, padding=1)
    nn.init.ones_(layer.conv.weight)
    set_norm(layer.norm, gamma=[-4.0], delta=[0.5], mean=[3.0], var=[3.0])  # a = -2, d = 6.5
    folded = fold_batch_norm(layer.eval())
    assert folded.conv.weight.unique().tolist() == [-2]
    assert folded.conv.bias.tolist() == [6.5]
    # A corner sees 4 of 9 places, an edge 6: the bias is the same everywhere.
    assert folded(torch.ones(1, 1, 2, 3, 1)).flatten().tolist() == [-1.5, -5.5, -1.5] * 2


def test_the_head_by_hand(tiny: NetworkConfig) -> None:
    config = tiny.replace(dim=2, depths=(1,), patch_encoding="conv", num_classes=1)  # T = 3, a 4 x 4 grid
    network = nn.Module()
    network.config = config
    network.head = Head(config)
    set_norm(network.head.norm, gamma=[4.0, -3.0], delta=[5.0, 0.0], mean=[1.0, 2.0], var=[3.0, 0.0])
    with torch.no_grad():
        network.head.linear.weight.copy_(torch.tensor([[24.0, 48.0]]))
        network.head.linear.bias.fill_(9.0)
    head = fold_batch_norm(network.eval()).head
    assert isinstance(head, FoldedHead)
    assert head.linear.weight.flatten().tolist() == [24 * 2 / 48, 48 * -3 / 48]
    assert head.bias.tolist() == [(24 * 3 + 48 * 6 + 9) / 3]  # d = [5 - 2, 0 + 6]
    spikes = torch.zeros(3, 1, 4, 4, 2)
    spikes[0, 0, 1, 2, 1] = spikes[0, 0, 3, 3, 0] = 1
    assert head(spikes).flatten().tolist() == [121, 123, 123]
    assert head.combine(head(spikes)).item() == 367
    with pytest.raises(InputError, match="folded for 3 steps of a 4 x 4 grid and got spikes of shape"):
        head(spikes[:2])
    with pytest.raises(InputError, match="a head folds only within its network"):
        fold_batch_norm(Head(config).eval())


# Powers of two and small integers: every potential is exact, and many meet the threshold exactly.
@pytest.mark.parametrize("reset", ["hard", "soft"])
@pytest.mark.parametrize("inclusive", [True, False])
def test_an_axis_neuron_is_the_neuron_behind_its_affine_map(reset: str, inclusive: bool) -> None:
    config = NeuronConfig(beta=0.5, threshold=1.0, input_gain=0.5, reset=reset, inclusive=inclusive)
    scale = torch.tensor([2.0, -2.0, 0.0, 0.0, 0.5, -1.0])
    shift = torch.tensor([0.0, 0.0, 2.0, 1.0, 1.0, 2.0])
    current = torch.randint(-4, 5, (6, 1, 1, 64, 6)).float()
    drive = scale * current + shift
    spikes = AxisLIF(config, "channel", scale, shift)(current)
    assert torch.equal(spikes, LIF(config)(drive))
    rates = spikes.mean(dim=(0, 1, 2, 3))
    assert rates[[0, 1, 4, 5]].min() > 0
    assert rates[2] == pytest.approx(1 if inclusive else {"hard": 3 / 6, "soft": 5 / 6}[reset])  # by hand
    assert rates[3] == 0
    other = NeuronConfig(beta=0.5, threshold=1.0, input_gain=0.5, reset=reset, inclusive=not inclusive)
    assert not torch.equal(spikes, LIF(other)(drive))  # there are ties


@pytest.mark.parametrize("beta", [0.0, 1.0])
@pytest.mark.parametrize("reset", ["hard", "soft"])
def test_an_axis_neuron_that_keeps_nothing_or_all(beta: float, reset: str) -> None:
    config = NeuronConfig(beta=beta, threshold=2.0, input_gain=1.0, reset=reset)
    current = torch.randint(-4, 5, (6, 1, 1, 64, 2)).float()
    spikes = AxisLIF(config, "channel", torch.tensor([2.0, -1.0]), torch.tensor([1.0, 0.0]))(current)
    membrane = torch.zeros(64, 2)
    for now, fired in zip(current[:, 0, 0], spikes[:, 0, 0], strict=True):
        membrane = beta * membrane + torch.tensor([2.0, -1.0]) * now + torch.tensor([1.0, 0.0])
        assert torch.equal(fired, (membrane >= 2).float())
        membrane = torch.where(fired > 0, 0.0 if reset == "hard" else membrane - 2, membrane)


@pytest.mark.parametrize("axis", ["channel", "width", "height", "token"])
def test_an_axis_neuron_knows_its_axis(axis: str) -> None:
    features = {"channel": 5, "width": 4, "height": 3, "token": 12}[axis]
    norm = BatchNorm(axis, features).double()
    nn.init.uniform_(norm.batch_norm.weight, -2, 2)
    nn.init.uniform_(norm.batch_norm.bias, 0, 2)
    norm(torch.randn(4, 2, 3, 4, 5).double() + 1)
    bn = norm.eval().batch_norm
    scale = (bn.weight / (bn.running_var + bn.eps).sqrt()).detach()
    neuron = AxisLIF(NeuronConfig(), axis, scale, (bn.bias - scale * bn.running_mean).detach())
    current = torch.randn(4, 2, 3, 4, 5).double()
    spikes = neuron(current)
    assert torch.equal(spikes, LIF()(norm(current)))
    assert 0 < spikes.mean() < 1
    assert spikes.dtype == torch.float64


def test_a_scale_too_small_for_a_threshold_adds_nothing() -> None:
    scale, shift = torch.tensor([1e-42, -1e-42]), torch.tensor([3.0, 1.0])
    spikes = AxisLIF(NeuronConfig(), "channel", scale, shift)(torch.ones(2, 1, 1, 1, 2))
    assert spikes[..., 0].tolist() == [[[[1.0]]], [[[1.0]]]]
    assert spikes.sum() == 2


class OtherNorm(BatchNorm):
    pass


@pytest.mark.parametrize(
    ("linear", "norm", "reason"),
    [
        (AxisLinear("width", 2, 2), OtherNorm("width", 2), "does not know OtherNorm"),
        (AxisLinear("width", 2, 2), BatchNorm("channel", 3), "each of the 3 scales would need a copy"),
        (AxisLinear("width", 2, 2), nn.GroupNorm(1, 2), "does not know GroupNorm"),
        (nn.Linear(2, 2), BatchNorm("channel", 2), "does not know Linear"),
    ],
)
def test_what_a_synapse_must_not_hold(linear: nn.Module, norm: nn.Module, reason: str) -> None:
    with pytest.raises(NotFoldableError, match=reason):
        fold_batch_norm(nn.Sequential(Synapse(linear, norm)).eval())


def test_a_parametrised_map_is_not_folded_behind_its_back() -> None:
    layer = synapse(BatchNorm("width", 2))
    parametrize.register_parametrization(layer.linear, "weight", nn.Tanh().eval())
    with pytest.raises(NotFoldableError, match="does not know ParametrizedAxisLinear"):
        fold_batch_norm(layer.eval())


def test_a_shared_neuron_keeps_its_gain_nowhere(tiny: NetworkConfig) -> None:
    config = tiny.replace(channel_norm="none", token_norm="none")
    block = MixerBlock((4, 4, 6), config)
    block.channel.up.neuron = block.token.fuse.neuron
    folded = fold_batch_norm(block.eval())
    gains = {neuron.config.input_gain for neuron in folded.modules() if isinstance(neuron, LIF)}
    assert gains == {1.0}
