r"""Linear maps and convolutions that visit only the spikes that occurred."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import InputError
from ...model.layout import Axis, view_along
from .tables import Events, RowTable, find_events, is_watched, join_bags, shift_rows


class EventMap(nn.Module):
    """What event-driven maps have in common: rows are found, added up, and laid out as the dense map does.

    Args:
        rows: `[rows, out]`; row 0 is the bias, then one row for each input.

    `forward` writes into `operations[path]` how many weights it added, columns of the table times spikes
    visited: what hardware counts as synaptic operations. Biases are not among them. While a dispatch mode
    watches it writes nothing: a number that depends on the data would leave PyTorch.
    """

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.number_of_rows, self.out = rows.shape
        self.steps = 1
        self.table: nn.Module = RowTable(rows)
        self.path = ""
        self.operations: dict[str, int] = {}

    def events(self, *spikes: Tensor) -> Events:
        """The rows that each output place adds."""
        raise NotImplementedError

    def lay_out(self, sums: Tensor, spikes: Tensor) -> Tensor:
        """Sums `[places, out]` in the layout of the dense map's current."""
        raise NotImplementedError

    def forward(self, *spikes: Tensor) -> Tensor:
        """The current, for spikes as the dense map takes them."""
        try:
            sums, added = self.sums(*spikes)
        except InputError as error:
            raise InputError(f"{self.path or type(self).__name__}: {error}") from error
        if added is not None:
            self.operations[self.path] = added * self.out
        return self.lay_out(sums, spikes[0])

    def sums(self, *spikes: Tensor) -> tuple[Tensor, int | None]:
        """The sums of all output places, `[places, out]`, and how many rows were added for spikes."""
        events = self.events(*spikes)
        return self.table(events), None if is_watched() else len(events.rows) - events.bags


class EventLinear(EventMap):
    r"""A linear map along one axis that visits only the spikes that occurred.

    .. math::
        y_q = b_q + \sum_{p:\, s_p = 1} W_{qp}

    Args:
        axis: `channel`, `width`, `height` or `token`.
        weights: `[steps, out, in]`; one set for all time steps, or one for each.
        biases: `[steps, out]`.

    >>> layer = EventLinear("channel", torch.tensor([[[1.0, 2.0, 4.0]]]), torch.zeros(1, 1))
    >>> layer(torch.tensor([[1.0, 0.0, 1.0]]))
    tensor([[5.]])
    >>> layer.operations
    {'': 2}
    """

    def __init__(self, axis: Axis, weights: Tensor, biases: Tensor) -> None:
        rows = torch.cat((biases.unsqueeze(1), weights.transpose(1, 2)), dim=1).flatten(0, 1)
        super().__init__(rows)
        self.axis: Axis = axis
        self.steps, self.out, self.in_features = weights.shape

    def events(self, *spikes: Tensor) -> Events:
        """The rows of each place: along the channels one token, else one line and channel."""
        if len(spikes) > 1 and self.axis != "channel":
            raise InputError(f"spikes from several places join along the channels, not along {self.axis}")
        views = [self._places(part) for part in spikes]  # [before, after, features] each
        features = sum(view.shape[2] for view in views)
        if features != self.in_features:
            raise InputError(f"{features} features arrive at a map that takes {self.in_features}")
        events = find_events(*views)
        return shift_rows(events, self._first_rows(events, len(spikes[0]))) if self.steps > 1 else events

    def lay_out(self, sums: Tensor, spikes: Tensor) -> Tensor:
        """The current `[T, B, H, W, C]`, or `[..., C]`."""
        if self.axis == "channel":
            return sums.view(*spikes.shape[:-1], self.out)
        before, _, after = view_along(spikes, self.axis).shape
        return sums.unflatten(0, (before, after)).transpose(1, 2).reshape(spikes.shape)

    def _places(self, spikes: Tensor) -> Tensor:
        if self.axis == "channel":
            return spikes.reshape(spikes.shape[:-1].numel(), 1, spikes.shape[-1])
        return view_along(spikes, self.axis).transpose(1, 2)

    def _first_rows(self, events: Events, steps: int) -> Tensor:
        """Where the table of each bag's time step begins."""
        if steps != self.steps:
            raise InputError(
                f"this map has weights for {self.steps} time steps and got {steps};"
                f" use time_steps={self.steps}"
            )
        size = self.number_of_rows // steps
        begins = torch.arange(0, self.number_of_rows, size, device=events.rows.device)
        return begins.repeat_interleave(events.bags // steps)

    def extra_repr(self) -> str:
        """What `repr` shows of this layer."""
        return f"axis={self.axis}, steps={self.steps}, rows={self.number_of_rows}, out={self.out}"


class EventConv2d(EventMap):
    """A convolution that visits only the spikes in each window.

    Args:
        conv: the convolution, with bias or without, in one group and without dilation.

    Raises:
        InputError: a convolution of another kind.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        if conv.groups != 1 or conv.dilation != (1, 1) or isinstance(conv.padding, str):
            raise InputError("only convolutions with groups=1, dilation=1 and numeric padding run here")
        if conv.padding_mode != "zeros":
            raise InputError(f"padding_mode is {conv.padding_mode!r}; only zeros can be left out")
        rows = conv.weight.permute(2, 3, 1, 0).flatten(0, 2)  # [taps * in, out]
        bias = conv.bias if conv.bias is not None else conv.weight.new_zeros(conv.out_channels)
        super().__init__(torch.cat((bias.unsqueeze(0), rows)))
        self.in_channels = conv.in_channels
        self.kernel_size, self.stride, self.padding = conv.kernel_size, conv.stride, conv.padding

    def events(self, *spikes: Tensor) -> Events:
        """The rows of each window, for spikes `[N, in, H, W]`."""
        windows = self._windows(spikes[0])
        taps = windows.shape[3:].numel()
        shifts = torch.arange(0, taps * self.in_channels, self.in_channels, device=spikes[0].device)
        places = windows.reshape(windows.shape[:3].numel(), taps)
        return join_bags(self._by_place(spikes[0]), places, shifts)

    def _by_place(self, spikes: Tensor) -> Events:
        number, channels, height, width = spikes.shape
        if channels != self.in_channels:
            raise InputError(f"{channels} channels arrive at a convolution that takes {self.in_channels}")
        return find_events(spikes.permute(0, 2, 3, 1).reshape(number * height * width, 1, channels))

    def lay_out(self, sums: Tensor, spikes: Tensor) -> Tensor:
        """The current `[N, out, H', W']`, channels last in memory."""
        number, _, height, width = spikes.shape
        return sums.view(number, *self._grid(height, width), self.out).permute(0, 3, 1, 2)

    def _grid(self, height: int, width: int) -> tuple[int, int]:
        (above, beside), (down, right), (tall, wide) = self.padding, self.stride, self.kernel_size
        return (height + 2 * above - tall) // down + 1, (width + 2 * beside - wide) // right + 1

    def _windows(self, spikes: Tensor) -> Tensor:
        """The input place under each tap of each window, `[N, H', W', taps, taps]`."""
        number, _, height, width = spikes.shape
        places = number * height * width
        grid = torch.arange(places, device=spikes.device).view(number, height, width)
        above, beside = self.padding
        grid = functional.pad(grid, (beside, beside, above, above), value=places)
        return grid.unfold(1, self.kernel_size[0], self.stride[0]).unfold(
            2, self.kernel_size[1], self.stride[1]
        )

    def extra_repr(self) -> str:
        """What `repr` shows of this layer."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, rows={self.number_of_rows}"
