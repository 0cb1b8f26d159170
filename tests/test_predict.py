"""Pictures of any kind become network input as training images do; what is no picture gets one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_cli import assert_wrong_usage, call

from snnmlp_edu.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from snnmlp_edu.config import NetworkConfig
from snnmlp_edu.data import CLASS_NAMES, Preprocessing, load_embedded
from snnmlp_edu.data.pictures import fit_picture, read_picture, read_pictures
from snnmlp_edu.errors import InputError
from snnmlp_edu.model.network import SpikingMLP
from snnmlp_edu.prediction import predict


@pytest.fixture(scope="module")
def nano() -> Checkpoint:
    return load_checkpoint("mlp_spe_nano", neuron={"backend": "eager"})


@pytest.fixture
def garment() -> np.ndarray:
    """One embedded image, uint8 `[28, 28]`."""
    return load_embedded("test").images[3, 0].numpy()


# --- as in training ----------------------------------------------------------------------------------


def test_saved_test_images_are_seen_as_the_stored_ones(nano: Checkpoint, tmp_path: Path) -> None:
    images = load_embedded("test").images[:6]
    files = [tmp_path / f"{index} ä.png" for index in range(6)]
    for file, image in zip(files, images, strict=True):
        Image.fromarray(image[0].numpy()).save(file)
    assert torch.equal(read_pictures(files, nano.preprocessing), images)
    with torch.no_grad():
        probabilities = nano.model(nano.preprocessing(images)).softmax(1)
    found = predict(nano, files, top=10)
    assert [each.path for each in found] == [str(file) for file in files]
    for each, expected in zip(found, probabilities, strict=True):
        assert sum(value for _, value in each.classes) == pytest.approx(1)
        assert [name for name, _ in each.classes] == [
            CLASS_NAMES[i] for i in expected.argsort(descending=True)
        ]
        for name, value in each.classes:
            assert value == pytest.approx(float(expected[CLASS_NAMES.index(name)]), abs=1e-6)


def as_file(pixels: np.ndarray, kind: str, folder: Path) -> Path:
    """The same grey picture in many guises, all without loss."""
    grey = Image.fromarray(pixels)
    file = folder / f"{kind}.png"
    match kind:
        case "rgb" | "palette" | "alpha":
            grey.convert({"rgb": "RGB", "palette": "P", "alpha": "LA"}[kind]).save(file)
        case "rgba":
            grey.convert("RGBA").save(file)
        case "16 bit":
            Image.fromarray(pixels.astype(np.uint16) * 257).save(file)
        case "big-endian":
            file = file.with_suffix(".tif")
            Image.frombytes("I;16B", (28, 28), (pixels.astype(">u2") * 257).astype(">u2").tobytes()).save(
                file
            )
        case "cmyk":
            file = file.with_suffix(".tif")
            ink = np.zeros((28, 28, 4), np.uint8)
            ink[..., 3] = 255 - pixels
            Image.fromarray(ink, "CMYK").save(file)
        case "gif":
            file = file.with_suffix(".gif")
            grey.save(file, save_all=True, append_images=[Image.new("L", grey.size, 255)])
        case "turned":
            file = file.with_suffix(".png")
            exif = Image.Exif()
            exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
            grey.rotate(90, expand=True).save(file, exif=exif)
    return file


@pytest.mark.parametrize(
    "kind", ["rgb", "palette", "alpha", "rgba", "16 bit", "big-endian", "cmyk", "gif", "turned"]
)
@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated:DeprecationWarning")
def test_every_kind_of_picture_gives_the_same_pixels(kind: str, garment: np.ndarray, tmp_path: Path) -> None:
    picture = read_picture(as_file(garment, kind, tmp_path), channels=1)
    assert picture.mode == "L"
    assert np.array_equal(np.asarray(picture), garment)


def test_one_bit_a_pixel(tmp_path: Path) -> None:
    Image.fromarray(np.eye(4, dtype=bool)).save(tmp_path / "bits.png")
    assert np.array_equal(np.asarray(read_picture(tmp_path / "bits.png", 1)), 255 * np.eye(4))


def test_colour_is_kept_or_turns_grey_by_luminance(tmp_path: Path) -> None:
    file = tmp_path / "red.png"
    Image.new("RGB", (3, 2), (200, 100, 50)).save(file)
    assert np.array_equal(np.asarray(read_picture(file, 3))[0, 0], [200, 100, 50])
    # ITU-R 601: 0.299 * 200 + 0.587 * 100 + 0.114 * 50 = 124.2
    assert np.asarray(read_picture(file, 1))[0, 0] == 124


def test_transparent_parts_are_black_also_when_inverted(tmp_path: Path) -> None:
    file = tmp_path / "stroke.png"
    drawing = np.zeros((2, 2, 4), np.uint8)  # black and transparent
    drawing[0, 0] = (0, 0, 0, 255)  # a black stroke
    drawing[1, 1] = (255, 255, 255, 0)  # white, and transparent
    Image.fromarray(drawing).save(file)
    assert np.asarray(read_picture(file, 1)).tolist() == [[0, 0], [0, 0]]
    assert np.asarray(read_picture(file, 1, invert=True)).tolist() == [[255, 0], [0, 0]]
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 255, 255, 90, 90, 90])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "palette.png", transparency=0)
    assert np.asarray(read_picture(tmp_path / "palette.png", 1)).tolist() == [[0, 90]]


def test_nothing_is_inverted_unless_asked(garment: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(255 - garment).save(tmp_path / "dark.png")
    assert np.array_equal(np.asarray(read_picture(tmp_path / "dark.png", 1)), 255 - garment)
    assert np.array_equal(np.asarray(read_picture(tmp_path / "dark.png", 1, invert=True)), garment)


# --- size --------------------------------------------------------------------------------------------


def test_a_large_picture_is_averaged_and_keeps_its_shape() -> None:
    wide = Image.new("L", (280, 140), 200)
    pixels = fit_picture(wide, Preprocessing(image_size=32, stored_size=28))
    assert pixels.shape == (1, 28, 28)
    assert pixels[0, 7:21].unique().tolist() == [200]
    assert pixels[0, :7].unique().tolist() == pixels[0, 21:].unique().tolist() == [0]


def test_a_picture_of_training_size_stays_as_it_is() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
    for stored, side in ((28, 28), (None, 32), (64, 32)):
        fitted = fit_picture(Image.fromarray(pixels), Preprocessing(image_size=32, stored_size=stored))
        assert fitted.shape == (1, side, side)
        assert torch.equal(fitted[0], torch.from_numpy(pixels)) == (stored == 28)


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (400, 1)])
def test_pictures_of_one_pixel(size: tuple[int, int], nano: Checkpoint, tmp_path: Path) -> None:
    Image.new("RGB", size, (9, 9, 9)).save(tmp_path / "dot.png")
    (found,) = predict(nano, [tmp_path / "dot.png"], top=20)
    assert len(found.classes) == 10


def test_colour_networks_see_colour_and_grey_ones_repeat_it(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), (255, 0, 0)).save(tmp_path / "red.png")
    config = NetworkConfig(dim=6, depths=(1,), patch_size=2, image_size=8, num_classes=2, time_steps=1)
    seen = []
    for stored in (3, 1):
        prepare = Preprocessing(image_size=8, in_channels=3, stored_size=8, stored_channels=stored)
        seen.append(prepare.normalise(read_pictures([tmp_path / "red.png"], prepare)))
        (found,) = predict(Checkpoint(SpikingMLP(config).eval(), prepare), [tmp_path / "red.png"])
        assert sorted(name for name, _ in found.classes) == ["class 0", "class 1"], "nameless classes"
    assert seen[0][0, :, 0, 0].tolist() == [1, 0, 0]
    assert seen[1][0, :, 0, 0].tolist() == pytest.approx([76 / 255] * 3)


# --- the command -------------------------------------------------------------------------------------


def test_the_command_as_text_and_json(garment: np.ndarray, tmp_path: Path) -> None:
    file = tmp_path / "with a space.png"
    Image.fromarray(garment).save(file)
    code, out, err = call("predict", "mlp_spe_nano", file, file, "--top", "2")
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0] == lines[1]
    assert lines[0].startswith(f"{file}: {CLASS_NAMES[int(load_embedded('test').labels[3])]} ")
    code, text, _ = call("predict", "mlp_spe_nano", file, "--top", "2", "--json")
    assert code == 0
    (row,) = json.loads(text)["predictions"]
    assert row["image"] == str(file)
    named = ", ".join(f"{each['name']} {100 * each['probability']:.1f} %" for each in row["classes"])
    assert lines[0] == f"{file}: {named}"


def test_help_says_what_is_not_inverted() -> None:
    code, out, _ = call("predict", "--help")
    assert code == 0
    text = " ".join(out.split())
    assert "Nothing is inverted unless you say so" in text
    assert "white on black" in text
    assert "Example: snnmlp predict" in text


def bad_file(kind: str, folder: Path) -> Path:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    file = folder / kind
    match kind:
        case "cut.jpg" | "cut.png" | "cut.gif" | "cut.tif" | "cut.webp" | "cut.bmp":
            noise.save(file)
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        case "broken.png":
            noise.save(file)
            content = bytearray(file.read_bytes())
            content[50:400] = bytes(350)
            file.write_bytes(content)
        case "text.png":
            file.write_text("this is no image")
        case "empty.png":
            file.write_bytes(b"")
        case "deep.tif":
            Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(file)
        case "folder":
            file.mkdir()
        case "loop.png":
            file.symlink_to(file)
    return file


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("cut.jpg", "cannot be read: .*; it is damaged or cut off"),
        ("cut.png", "cannot be read"),
        ("cut.gif", "cannot be read"),
        ("cut.tif", "cannot be read|is not an image"),
        ("cut.webp", "cannot be read|is not an image"),
        ("cut.bmp", "cannot be read"),
        ("broken.png", "cannot be read"),
        ("text.png", "is not an image in a known format; give a PNG or JPEG"),
        ("empty.png", "is empty; give an image file"),
        ("deep.tif", "32 bits, of an unknown range; save it with 8 or 16 bits$"),
        ("folder", "is a folder; give an image file"),
        ("loop.png", "cannot be read: Too many levels of symbolic links"),
        ("absent.png", "there is no file"),
    ],
)
def test_bad_images_get_one_line(kind: str, message: str, garment: np.ndarray, tmp_path: Path) -> None:
    good = tmp_path / "good.png"
    Image.fromarray(garment).save(good)
    file = bad_file(kind, tmp_path)
    assert_wrong_usage(call("predict", "mlp_spe_nano", good, file), rf"{file} .*({message})|{message} {file}")


def test_a_file_of_too_many_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (30, 30)).save(tmp_path / "huge.png")
    for limit in (500, 200):  # beyond it, and beyond twice of it
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(InputError, match=r"huge\.png has too many pixels to be unpacked safely"):
            read_picture(tmp_path / "huge.png", 1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mlp_spe_nano"], "(?i)missing argument .image"),
        (["mlp_spe_nan", "x.png"], r"did you mean 'mlp_spe_nano'\?"),
        (["mlp_spe_nano", "x.png", "--top", "0"], "top is 0; both must be at least 1"),
    ],
)
def test_wrong_calls_get_one_line(words: list[str], message: str) -> None:
    assert_wrong_usage(call("predict", *words), message)


def test_a_network_of_two_channels_sees_no_pictures(tmp_path: Path, tiny: NetworkConfig) -> None:
    save_checkpoint(
        tmp_path / "two.safetensors", SpikingMLP(tiny), Preprocessing(image_size=8, in_channels=2)
    )
    Image.new("L", (8, 8)).save(tmp_path / "grey.png")
    answer = call("predict", tmp_path / "two.safetensors", tmp_path / "grey.png")
    assert_wrong_usage(answer, "the network takes images of 2 channels; a picture gives 1 or 3")


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "locked.png")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(InputError, match=r"locked\.png cannot be read: .*Permission denied"):
        read_picture(tmp_path / "locked.png", 1)
