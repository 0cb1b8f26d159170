"""Any image file as pixels: decoded, turned upright, converted, and resized as training images were."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageChops, ImageOps
from torch import Tensor

from ..errors import InputError
from .resizing import to_pixels
from .transforms import Preprocessing

MODES = {1: "L", 3: "RGB"}
# What Pillow raises for files that are damaged, or are no image; zlib's and struct's errors slip through.
DAMAGE = (OSError, SyntaxError, ValueError, TypeError, EOFError, MemoryError, zlib.error, struct.error)


def read_picture(file: Path, channels: int, invert: bool = False) -> Image.Image:
    """An image file in grey (1 channel) or colour (3), upright, 8 bits a channel.

    Every format that Pillow reads will do. Of several frames the first is taken; the camera's orientation
    (EXIF) is applied; 16 bits are scaled to 8; colour turns grey by its luminance (ITU-R 601); transparent
    parts become black.

    Args:
        file: the image file.
        channels: 1 or 3.
        invert: exchange black and white, or every colour with its complement.

    Returns:
        The picture in mode `L` or `RGB`, at least 1 x 1.

    Raises:
        InputError: the file is missing, truncated, damaged or no image; names the file.
    """
    if channels not in MODES:
        raise InputError(f"the network takes images of {channels} channels; a picture gives 1 or 3")
    return decode_picture(file, str(file), channels, invert)


def decode_picture(
    source: Path | bytes, name: str, channels: int, invert: bool = False, small: bool = False
) -> Image.Image:
    """As `read_picture`, from a file or from its bytes.

    Args:
        source: the file or its bytes.
        name: what messages call it.
        channels: 1 or 3.
        invert: exchange black and white, or every colour with its complement.
        small: unpack a JPEG at an eighth of its size: all of its bytes are read, in less time.

    Raises:
        InputError: it is missing, truncated, damaged or no image.
    """
    if isinstance(source, Path) and not source.is_file():
        raise InputError(f"there is no file {source}; give the path of an image")
    if (len(source) if isinstance(source, bytes) else source.stat().st_size) == 0:
        raise InputError(f"{name} is empty; give an image file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.filterwarnings("ignore", category=UserWarning)  # harmless oddities of old files
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as picture:
                if small:
                    picture.draft(None, (1, 1))
                picture.load()
                return _converted(ImageOps.exif_transpose(picture), MODES[channels], invert)
    except Image.UnidentifiedImageError as error:
        raise InputError(
            f"{name} is no image, or of a format that is not known; give a PNG or JPEG"
        ) from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise InputError(f"{name} has too many pixels to be unpacked safely; make it smaller") from error
    except DAMAGE as error:
        raise InputError(f"{name} cannot be read: {error}; it is damaged or cut off") from error


def fit_picture(picture: Image.Image, preprocessing: Preprocessing) -> Tensor:
    """A picture as one more of the images that a network was trained on, uint8 `[C, side, side]`.

    See `Preprocessing.fit`; where the picture shrinks, pixels are averaged; one of the right size stays as
    it is.
    """
    return to_pixels(preprocessing.fit(picture))


def read_pictures(files: list[Path], preprocessing: Preprocessing, invert: bool = False) -> Tensor:
    """Image files as a trained network's input, float32 `[N, in_channels, image_size, image_size]`.

    Raises:
        InputError: a file cannot be read; names it.
    """
    channels = preprocessing.stored_channels or preprocessing.in_channels
    pictures = [fit_picture(read_picture(file, channels, invert), preprocessing) for file in files]
    return preprocessing.normalise(torch.stack(pictures))


def _converted(picture: Image.Image, mode: str, invert: bool) -> Image.Image:
    if picture.mode.startswith("I;16"):
        picture = Image.fromarray((np.asarray(picture).astype(np.uint16) / 257).round().astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise ValueError("its pixels have 32 bits, of a range that is not known: save it with 8 or 16 bits")
    if not picture.has_transparency_data:
        picture = picture.convert(mode)
        return ImageChops.invert(picture) if invert else picture
    picture = picture.convert("RGBA")
    opacity = picture.getchannel("A")
    colours = picture.convert("RGB").convert(mode)
    if invert:
        colours = ImageChops.invert(colours)
    return Image.composite(colours, Image.new(mode, colours.size), opacity)
