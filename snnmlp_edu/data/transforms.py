"""From stored pixels to what a network takes: padding, scale, normalisation, and augmentation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..config import Channels, Side
from ..errors import InputError
from ..fields import POSITIVE, check_fields, checked, from_mapping
from ..inputs import check_pixels
from .resizing import contain, cover, to_picture, to_pixels
from .settings import Interpolation, MaxShift


@dataclass(frozen=True)
class Preprocessing:
    r"""The fixed path from stored pixels to a network's input; it is saved in the checkpoint.

    .. math::
        x = \frac{p / 255 - \mu}{\sigma}

    for pixels p, after the image was centred in a black square of the network's size. Images of one
    channel are repeated where the network takes three.

    Args:
        image_size: side of the network's input, in pixels.
        in_channels: channels of the network's input.
        mean: :math:`\mu` of each stored channel, or one value for all, on the scale 0 to 1.
        std: :math:`\sigma` likewise, above 0.
        stored_size: side of the images it was fitted to; a picture of another size is resized to it, see
            `read_picture`. None resizes pictures to `image_size`.
        stored_channels: their channels; None means `in_channels`.
        resize: the shorter side, in pixels, to which a picture is resized before its centre is cut out in
            the network's size. None keeps the whole picture, as said above.
        interpolation: how pictures are resized, `bilinear` or `bicubic`.

    Raises:
        InputError: a field is out of range.

    >>> Preprocessing(image_size=4, mean=(0.5,), std=(0.5,))(torch.zeros(1, 1, 2, 2, dtype=torch.uint8)).shape
    torch.Size([1, 1, 4, 4])
    """

    image_size: Side
    in_channels: Channels = 1
    mean: tuple[float, ...] = (0.0,)
    std: tuple[Annotated[float, POSITIVE], ...] = (1.0,)
    stored_size: Side | None = None
    stored_channels: Channels | None = None
    resize: Side | None = None
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        check_fields(self)
        if len(self.mean) != len(self.std):
            raise InputError(f"Preprocessing has mean {self.mean} and std {self.std}; give as many of each")

    @classmethod
    def fitted_to(cls, images: Tensor, image_size: int, in_channels: int) -> Preprocessing:
        """Normalise with the mean and standard deviation of each channel of uint8 `[N, C, h, w]`.

        A channel that is everywhere the same has no deviation to be divided by: its std is set to 1.

        Raises:
            InputError: the images have another shape or type, or there are none.
        """
        check_pixels(images)
        if images.dtype != torch.uint8 or images.numel() == 0:
            shape = tuple(images.shape)
            raise InputError(f"images have shape {shape} and type {images.dtype}; give some, in uint8")
        values = torch.arange(256, dtype=torch.float64) / 255
        mean, std = [], []
        for channel in images.unbind(1):
            # A count of each value: a copy of all pixels in double precision need not fit into memory.
            share = torch.bincount(channel.flatten(), minlength=256).double() / channel.numel()
            centre = float((share * values).sum())
            mean.append(round(centre, 4))
            std.append(round(float((share * (values - centre) ** 2).sum().sqrt()), 4) or 1.0)
        height, width = images.shape[2:]
        return cls(image_size, in_channels, tuple(mean), tuple(std), max(height, width), images.shape[1])

    @property
    def side(self) -> int:
        """Side of the square of pixels that `fit` makes of a picture."""
        if self.resize is not None:
            return self.image_size
        return min(self.stored_size or self.image_size, self.image_size)

    def fit(self, picture: Image.Image) -> Image.Image:
        """A picture, in mode `L` or `RGB`, fitted like the images that the network was trained on.

        With `resize`, its shorter side gets that length, and the middle is cut out. Without, its longer
        side becomes as long as theirs, and the shorter one is filled up with black on both sides.

        >>> Preprocessing(image_size=8, stored_size=6).fit(Image.new("L", (30, 20))).size
        (6, 6)
        """
        if self.resize is not None:
            return cover(picture, self.resize, self.image_size, self.interpolation)
        return contain(picture, self.side, self.interpolation)

    def __call__(self, images: Tensor) -> Tensor:
        """The network's input.

        Args:
            images: stored ones `[N, C, h, w]`, uint8 in 0 to 255, or floating point in 0 to 1. With `resize`
                each is fitted first, whatever its size, and must be uint8.

        Returns:
            float32 `[N, in_channels, image_size, image_size]`.

        Raises:
            InputError: the images are larger than the input, of another type or out of range, or their
                channels do not fit.
        """
        check_pixels(images)
        if self.resize is not None and len(images):
            if images.dtype != torch.uint8:
                raise InputError(f"images of type {images.dtype} are not resized; give uint8")
            fitted = [to_pixels(self.fit(to_picture(image))) for image in images.cpu()]
            images = torch.stack(fitted).to(images.device)
        return self.normalise(images)

    def normalise(self, images: Tensor) -> Tensor:
        """As a call, for images that `fit` has already brought to their size."""
        check_pixels(images)
        channels, height, width = images.shape[1:]
        if max(height, width) > self.image_size:
            raise InputError(
                f"images are {height} x {width} pixels and the network takes {self.image_size} x"
                f" {self.image_size}; resize them first"
            )
        if channels not in (1, self.in_channels) or len(self.mean) not in (1, channels):
            raise InputError(
                f"images have {channels} channels; this network takes {self.in_channels}, normalised with"
                f" {len(self.mean)} mean(s)"
            )
        pixels = images.float() / 255 if images.dtype == torch.uint8 else images.float()
        left, top = (self.image_size - width) // 2, (self.image_size - height) // 2
        right, bottom = self.image_size - width - left, self.image_size - height - top
        pixels = F.pad(pixels, (left, right, top, bottom))  # [N, C, image_size, image_size]
        mean = torch.tensor(self.mean, dtype=torch.float32, device=pixels.device).view(-1, 1, 1)
        std = torch.tensor(self.std, dtype=torch.float32, device=pixels.device).view(-1, 1, 1)
        return ((pixels - mean) / std).expand(-1, self.in_channels, -1, -1)

    def for_size(self, image_size: int) -> Preprocessing:
        """The same for a network that takes another size; `resize` keeps its proportion to it.

        >>> Preprocessing(image_size=224, resize=256).for_size(112).resize
        128
        """
        resize = None if self.resize is None else round(self.resize * image_size / self.image_size)
        return dataclasses.replace(self, image_size=image_size, resize=resize)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as written in a checkpoint's JSON."""
        return dataclasses.asdict(self) | {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """The preprocessing that `to_dict` wrote.

        Raises:
            InputError: a field is unknown, missing or out of range.
        """
        return from_mapping(cls, values)


def flip_and_shift(
    images: Tensor,
    generator: torch.Generator,
    max_shift: int,
    flip: bool = True,
    rank: int = 0,
    world_size: int = 1,
) -> Tensor:
    """Mirror each image left to right with probability 1/2, and move it by up to `max_shift` pixels.

    Every image has a flip and a shift of its own. Pixels that come in from outside repeat the border.

    Args:
        images: `[N, C, H, W]`, any type.
        generator: on the CPU; the same state gives the same augmentation on every device.
        max_shift: largest shift in each direction, in pixels.
        flip: False leaves out the mirroring.
        rank: index of this process, from 0 to `world_size` - 1; its images are `batch[rank::world_size]`.
        world_size: processes that share the batch. Random numbers are drawn for the whole batch, so that an
            image is augmented alike on however many processes.

    Returns:
        New tensor in the shape of `images`.

    Raises:
        InputError: the images have another shape or no pixels, or a shift or the rank is out of range.
    """
    if not isinstance(images, Tensor) or images.ndim != 4 or 0 in images.shape[1:]:
        shape = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise InputError(f"images have shape {shape}; give [N, C, height, width]")
    checked("max_shift", max_shift, MaxShift)
    if not 0 <= rank < world_size:
        raise InputError(f"rank is {rank} and world_size {world_size}; give a rank from 0 to world_size - 1")
    count, channels, height, width = images.shape
    shifts = torch.randint(-max_shift, max_shift + 1, (2, count * world_size, 1), generator=generator)
    shifts = shifts[:, rank::world_size]
    rows = (torch.arange(height) - shifts[0]).clamp(0, height - 1)  # [N, H]
    columns = (torch.arange(width) - shifts[1]).clamp(0, width - 1)  # [N, W]
    if flip:
        mirrored = torch.rand(count * world_size, 1, generator=generator)[rank::world_size] < 0.5
        columns = torch.where(mirrored, width - 1 - columns, columns)
    rows, columns = rows.to(images.device), columns.to(images.device)
    batch = torch.arange(count, device=images.device).view(-1, 1, 1, 1)
    channel = torch.arange(channels, device=images.device).view(1, -1, 1, 1)
    return images[batch, channel, rows[:, None, :, None], columns[:, None, None, :]]
