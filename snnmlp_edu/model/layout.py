r"""The layout of every spike and current tensor, `[T, B, H, W, C]`, and its named axes.

A linear map or a normalisation acts *along* one axis of that layout. Seen from the axis, any tensor
is three-dimensional, `[before, features, after]`, and no data has to move to see it that way:

| axis | features | before | after |
|---|---|---|---|
| `channel` | C | T, B, H, W | - |
| `width` | W, the position in a row | T, B, H | C |
| `height` | H, the position in a column | T, B | W, C |
| `token` | H * W, the position in the grid | T, B | C |
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Literal

from torch import Tensor

Axis = Literal["channel", "width", "height", "token"]

_FIRST_AND_LAST: dict[str, tuple[int, int]] = {
    "channel": (4, 4),
    "width": (3, 3),
    "height": (2, 2),
    "token": (2, 3),
}


def features_along(axis: Axis, shape: tuple[int, int, int]) -> int:
    """Number of features along a named axis of a current whose last three axes are `(H, W, C)`.

    >>> features_along("token", (8, 4, 3))
    32
    """
    height, width, channels = shape
    return {"channel": channels, "width": width, "height": height, "token": height * width}[axis]


def sizes_around(axis: Axis, shape: Sequence[int]) -> tuple[int, int, int]:
    """Sizes before, along and after a named axis of a shape `(T, B, H, W, C)`.

    >>> sizes_around("height", (4, 2, 8, 8, 3))
    (8, 8, 24)
    """
    first, last = _FIRST_AND_LAST[axis]
    # math.prod, not Size.numel, which would tie what torch.export records to the sizes of its example.
    return prod(shape[:first]), prod(shape[first : last + 1]), prod(shape[last + 1 :])


def view_along(tensor: Tensor, axis: Axis) -> Tensor:
    """View `[T, B, H, W, C]` as `[before, features, after]` around a named axis.

    >>> import torch
    >>> view_along(torch.zeros(4, 2, 8, 8, 3), "height").shape
    torch.Size([8, 8, 24])
    """
    return tensor.reshape(sizes_around(axis, tensor.shape))


def spread_along(values: Tensor, axis: Axis, like: Tensor) -> Tensor:
    """View one value for each feature along `axis` so that it broadcasts over `[T, B, H, W, C]`.

    >>> import torch
    >>> spread_along(torch.arange(8), "height", torch.zeros(4, 2, 8, 8, 3)).shape
    torch.Size([8, 1, 1])
    """
    height, width = like.shape[2:4]
    shapes = {"channel": (-1,), "width": (-1, 1), "height": (-1, 1, 1), "token": (height, width, 1)}
    return values.view(shapes[axis])
