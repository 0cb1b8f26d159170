from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from snnmlp_edu import InputError
from snnmlp_edu.mfi.events import tables as events
from snnmlp_edu.mfi.events.layers import EventConv2d, EventLinear
from snnmlp_edu.model.layout import Axis, view_along
from snnmlp_edu.model.linear import AxisLinear


def spikes_of(*shape: int, rate: float = 0.3, dtype: torch.dtype = torch.float64) -> Tensor:
    return (torch.rand(shape) < rate).to(dtype)


def test_finds_the_events_of_a_hand_made_example() -> None:
    spikes = torch.tensor([[[0.0, 1.0], [1.0, 1.0]], [[0.0, 0.0], [1.0, 0.0]]])  # [before, after, features]
    found = events.find_events(spikes)
    # Row 0 is the bias: each of the four bags has it.
    assert found.rows.tolist() == [0, 2, 0, 1, 2, 0, 0, 1]
    assert found.bounds.tolist() == [0, 2, 5, 6, 8]


def test_joins_bags_and_keeps_one_bias() -> None:
    found = events.find_events(torch.tensor([[[1.0, 0.0]], [[1.0, 1.0]]]))
    joined = events.join_bags(found, torch.tensor([[0, 1], [2, 0]]), torch.tensor([0, 10]))
    assert joined.rows.tolist() == [0, 1, 11, 12, 0, 11]  # place 2 stands for none
    assert joined.bounds.tolist() == [0, 4, 6]


@pytest.mark.parametrize("axis", ["channel", "width", "height", "token"])
def test_maps_along_every_axis(axis: Axis) -> None:
    spikes = spikes_of(3, 2, 4, 5, 6)
    features = view_along(spikes, axis).shape[1]
    dense = AxisLinear(axis, features, 7 if axis == "channel" else features).double()
    events_of = EventLinear(axis, dense.weight.unsqueeze(0), dense.bias.unsqueeze(0))
    torch.testing.assert_close(events_of(spikes), dense(spikes), rtol=0, atol=1e-12)
    assert events_of.operations[""] == int(spikes.sum()) * dense.out_features


def test_spikes_from_several_places_count_together() -> None:
    parts = [spikes_of(2, 2, 3, 3, width) for width in (4, 1, 5)]
    dense = AxisLinear("channel", 10, 3).double()
    form = EventLinear("channel", dense.weight.unsqueeze(0), dense.bias.unsqueeze(0))
    torch.testing.assert_close(form(*parts), dense(*parts), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "bias"),
    [(3, 1, 1, True), (3, 2, 1, False), (2, 2, 0, True), (1, 2, 0, True)],
)
def test_convolutions_and_what_they_add_at_the_border(
    kernel: int, stride: int, padding: int, bias: bool
) -> None:
    conv = nn.Conv2d(3, 5, kernel, stride, padding, bias=bias).double()
    spikes = spikes_of(2, 3, 6, 8)
    form = EventConv2d(conv)
    torch.testing.assert_close(form(spikes), conv(spikes), rtol=0, atol=1e-12)
    # Every spike times the windows that hold it: a convolution of ones counts them.
    ones = torch.ones(1, 3, kernel, kernel, dtype=torch.float64)
    assert form.operations[""] == 5 * functional.conv2d(spikes, ones, stride=stride, padding=padding).sum()


class TestBadInput:
    @pytest.mark.parametrize("value", [2.0, 0.5, -1.0, float("nan")])
    def test_values_that_are_no_spikes(self, value: float) -> None:
        spikes = spikes_of(2, 1, 3, 3, 4)
        spikes[1, 0, 2, 0, 3] = value
        form = EventLinear("channel", torch.ones(1, 2, 4).double(), torch.zeros(1, 2).double())
        with pytest.raises(InputError, match="neither 0 nor 1"):
            form(spikes)

    def test_values_whose_bits_add_up_as_those_of_spikes_do(self) -> None:
        spikes = torch.tensor([[[0.5, 2.0, 0.0]]])
        with pytest.raises(InputError, match="neither 0 nor 1"):
            events.find_events(spikes)

    def test_negative_zero_is_no_spike(self) -> None:
        assert events.find_events(torch.tensor([[[-0.0, 1.0]]])).rows.tolist() == [0, 2]

    def test_convolutions_of_another_kind(self) -> None:
        with pytest.raises(InputError, match="groups=1"):
            EventConv2d(nn.Conv2d(4, 4, 3, groups=2))
        with pytest.raises(InputError, match="padding_mode"):
            EventConv2d(nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"))

    def test_another_number_of_features_or_steps(self) -> None:
        form = EventLinear("channel", torch.ones(3, 2, 4), torch.zeros(3, 2))
        with pytest.raises(InputError, match="5 features"):
            form(torch.zeros(3, 1, 2, 2, 5))
        with pytest.raises(InputError, match="3 time steps and got 2"):
            form(torch.zeros(2, 1, 2, 2, 4))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_convolutions_in_half_precision(dtype: torch.dtype) -> None:
    conv = nn.Conv2d(3, 5, 3, padding=1)
    nn.init.constant_(conv.bias, 0.5)
    conv.weight.data = torch.randint(-2, 3, conv.weight.shape) / 4  # sums that no type rounds
    spikes = spikes_of(2, 3, 6, 8, dtype=torch.float32)
    expected = conv(spikes)
    assert torch.equal(EventConv2d(conv.to(dtype))(spikes.to(dtype)), expected.to(dtype))
