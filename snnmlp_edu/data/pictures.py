"""Any image file as pixels: decoded, turned upright, converted, and resized as training images were."""

from __future__ import annotations

import errno
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import ExifTags, Image, ImageChops, ImageFile
from torch import Tensor

from ..errors import AccessError, InputError
from .resizing import to_pixels
from .transforms import Preprocessing

MODES = {1: "L", 3: "RGB"}
# How a picture is turned upright, by its EXIF orientation. Source: EXIF 2.32, tag 0x0112.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_picture(file: Path, channels: int, invert: bool = False, small: bool = False) -> Image.Image:
    """An image file in grey (1 channel) or colour (3), upright, 8 bits per channel.

    Every format that Pillow reads will do. Of several frames the first is taken; the camera's orientation
    (EXIF) is applied; 16 bits are scaled to 8; colour turns grey by its luminance (ITU-R 601); transparent
    parts become black.

    Args:
        file: the image file.
        channels: 1 or 3.
        invert: exchange black and white, or every colour with its complement.
        small: unpack a JPEG at an eighth of its size: all of its bytes are read, in less time.

    Returns:
        The picture in mode `L` or `RGB`, at least 1 x 1.

    Raises:
        AccessError: the file is missing or cannot be read; names it, and the system's reason.
        InputError: the file is truncated, damaged or no image; names it.
    """
    if channels not in MODES:
        raise InputError(f"the network takes images of {channels} channels; a picture gives 1 or 3")
    with open_picture(file) as picture:
        if small:
            picture.draft(None, (1, 1))
        picture.load()
        return _converted(_upright(picture), MODES[channels], invert)


@contextmanager
def open_picture(file: Path) -> Iterator[ImageFile.ImageFile]:
    """An image file as Pillow opens it; what goes wrong while it is read is raised as one line.

    Raises:
        AccessError: the file is missing or cannot be read.
        InputError: it is truncated, damaged or no image.
    """
    with _opened(file) as content, _strictly():
        try:
            with Image.open(content) as picture:
                yield picture
        except Exception as error:  # a decoder can fail in any way
            raise _picture_error(file, error) from error


@contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    try:
        facts = os.stat(file)
        if not stat.S_ISREG(facts.st_mode):  # opening a pipe would wait for a writer
            kind = "a folder" if stat.S_ISDIR(facts.st_mode) else "no ordinary file"
            raise InputError(f"{file} is {kind}; give an image file")
        if facts.st_size == 0:
            raise InputError(f"{file} is empty; give an image file")
        content = open(file, "rb")  # noqa: SIM115
    except FileNotFoundError as error:
        raise AccessError(f"there is no file {file}; give the path of an image") from error
    except OSError as error:
        raise AccessError.of(file, error) from error
    with content:
        yield content


@contextmanager
def _strictly() -> Iterator[None]:
    """Refuse truncated images, whatever a program has set, and images of too many pixels."""
    lenient = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # harmless oddities of old files
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = lenient


def _picture_error(file: Path, error: Exception) -> InputError:
    """The error for a decoder's exception: a damaged image file, or one that could not be accessed."""
    match error:
        case InputError():  # whole, but nothing that is read here
            return InputError(f"{file} cannot be read: {error}")
        case Image.UnidentifiedImageError():
            return InputError(f"{file} is not an image in a known format; give a PNG or JPEG")
        case Image.DecompressionBombWarning() | Image.DecompressionBombError():
            return InputError(f"{file} has too many pixels to be unpacked safely; make it smaller")
        case MemoryError():
            return AccessError(f"{file} cannot be read: there is not enough memory to unpack it; free some")
        # Decoders' own errors have no number, but for a jump to a place that their file cannot have.
        case OSError(errno=int(number)) if number != errno.EINVAL:
            return AccessError.of(file, error)
    reason = " ".join(str(error).split()) or type(error).__name__
    return InputError(f"{file} cannot be read: {reason}; it is damaged or cut off")


def fit_picture(picture: Image.Image, preprocessing: Preprocessing) -> Tensor:
    """A picture fitted like the images that a network was trained on, uint8 `[C, side, side]`.

    See `Preprocessing.fit`; where the picture shrinks, pixels are averaged; one of the right size stays as
    it is.
    """
    return to_pixels(preprocessing.fit(picture))


def read_pictures(files: list[Path], preprocessing: Preprocessing, invert: bool = False) -> Tensor:
    """Image files fitted like the images that a network was trained on, uint8 `[N, C, side, side]`.

    `preprocessing.normalise` makes the network's input of them.

    Raises:
        InputError: a file cannot be read; names it.
    """
    channels = preprocessing.stored_channels or preprocessing.in_channels
    pictures = [fit_picture(read_picture(file, channels, invert), preprocessing) for file in files]
    return torch.stack(pictures)


def _upright(picture: Image.Image) -> Image.Image:
    try:
        turn = UPRIGHT.get(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # EXIF fails in any way, and says nothing of the pixels
        turn = None
    return picture if turn is None else picture.transpose(turn)


def _in_eight_bits(picture: Image.Image) -> Image.Image:
    values = np.asarray(picture).astype(np.uint16)
    grey = Image.fromarray((values / 257).round().astype(np.uint8))
    clear = picture.info.get("transparency")
    if isinstance(clear, int):  # one of the 65,536 values, which scaling would lose
        grey.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return grey


def _converted(picture: Image.Image, mode: str, invert: bool) -> Image.Image:
    if picture.mode.startswith("I;16"):
        picture = _in_eight_bits(picture)
    if picture.mode == "LAB":  # Pillow knows its way to colours alone
        picture = picture.convert("RGB")
    if picture.mode in ("I", "F"):
        raise InputError("its pixels have 32 bits, of an unknown range; save it with 8 or 16 bits")
    if not picture.has_transparency_data:
        picture = picture.convert(mode)
        return ImageChops.invert(picture) if invert else picture
    picture = picture.convert("RGBA")
    opacity = picture.getchannel("A")
    colours = picture.convert("RGB").convert(mode)
    if invert:
        colours = ImageChops.invert(colours)
    return Image.composite(colours, Image.new(mode, colours.size), opacity)
