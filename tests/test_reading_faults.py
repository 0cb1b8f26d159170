"""What a file system, a decoder or a file's name can do to the reading of data, and what is made of it."""

from __future__ import annotations

import builtins
import errno
import io
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fresh import run_fresh
from image_sets import cifar_files, write_cifar, write_idx, write_image_folder
from PIL import Image, ImageFile
from test_cli import assert_wrong_usage, call

from snnmlp_edu.cli.arguments import parse_overrides
from snnmlp_edu.data import Preprocessing, check_finite, flip_and_shift, train_validation_split
from snnmlp_edu.data import files as data_files
from snnmlp_edu.data.datasets import format_idx
from snnmlp_edu.data.files import cache_folder, is_hidden, remembered
from snnmlp_edu.data.image_folder import as_pictures, list_images
from snnmlp_edu.data.pictures import read_picture
from snnmlp_edu.data.resizing import LONGEST, cover
from snnmlp_edu.data.sources import open_source
from snnmlp_edu.data.verification import find_damage
from snnmlp_edu.errors import AccessError, InputError
from snnmlp_edu.printing import printable

NOISE = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)


def decoded(folder: Path, content: bytes, channels: int = 3) -> Image.Image:
    (folder / "picture").write_bytes(content)
    return read_picture(folder / "picture", channels)


def in_format(kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(NOISE).save(file, kind, **options)
    return file.getvalue()


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SNNMLP_CACHE", str(tmp_path / "cache"))
    return write_image_folder(tmp_path / "photos", ("ant", "bee"), train=2, val=1)


# --- hidden files and folders ------------------------------------------------------------------------


def hide(folder: Path) -> None:
    """What notebooks, version control and macOS leave below a class, and beside the classes."""
    for hidden in (".ipynb_checkpoints", "__MACOSX", "deeper/.cache/more"):
        place = folder / "train" / "ant" / hidden
        place.mkdir(parents=True)
        (place / "copy.png").write_bytes(in_format("PNG"))
    (folder / "train" / "ant" / "._ant 000.jpg").write_bytes(b"resource fork")
    (folder / "train" / "__MACOSX" / "ant").mkdir(parents=True)
    (folder / "val" / ".git").mkdir()


def test_hidden_folders_are_no_data_at_any_depth(photos: Path) -> None:
    hide(photos)
    facts = json.loads(call("data", "describe", photos, "--json")[1])
    assert facts["counts"] == {"train": {"ant": 2, "bee": 2}, "val": {"ant": 1, "bee": 1}}
    assert facts["problems"] == []
    assert call("data", "verify", photos)[0] == 0
    assert len(open_source("image_folder", photos).pictures("train").labels) == 4


def test_hidden_files_beside_idx_files_are_no_data(tmp_path: Path) -> None:
    folder = write_idx(tmp_path / "idx")
    (folder / "._train-images-idx3-ubyte").write_bytes(b"resource fork")
    assert len(open_source("idx", folder).load("train").labels) == 40


def test_a_dot_before_a_path_hides_nothing() -> None:
    assert [is_hidden(name) for name in ("./a/b.png", "../a.png", "a/b.c.png")] == [False] * 3


# --- what the system refuses -------------------------------------------------------------------------


def refusing(number: int, name: str) -> Callable[..., Any]:
    """`open`, but for files of one name."""
    whole = builtins.open

    def refuse(file: Any, *words: Any, **options: Any) -> Any:
        if Path(file).name == name:
            raise OSError(number, os.strerror(number), str(file))
        return whole(file, *words, **options)

    return refuse


@pytest.mark.parametrize(
    "number", [errno.EACCES, errno.EIO, errno.EMFILE, errno.ESTALE], ids=errno.errorcode.get
)
def test_a_file_that_cannot_be_read_is_not_taken_for_damaged(
    number: int, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = photos / "train" / "bee" / "bee 001.jpg"
    (photos / "train" / "ant" / "ant 000.jpg").write_bytes(b"damaged")
    with monkeypatch.context() as patch:
        patch.setattr(builtins, "open", refusing(number, locked.name))
        source = open_source("image_folder", photos, skip_corrupt=True)
        with pytest.raises(AccessError) as raised:
            source.pictures("train")
        assert str(locked) in str(raised.value)
        assert os.strerror(number) in str(raised.value)
        code, out, _ = call("data", "verify", photos)
        assert code == 1
        assert out.count("\n") == 3, "the damaged file, the locked one, and how many there are"
        assert f"{locked} cannot be read: {os.strerror(number)}" in out
    left = open_source("image_folder", photos, skip_corrupt=True)
    assert [Path(line.split(" is ")[0]).name for line in left.left_out()] == ["ant 000.jpg"]
    assert left.pictures("train").labels.tolist() == [0, 1, 1], "it was not remembered"


def test_an_error_while_a_file_is_read_is_no_damage(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(AccessError, match=rf"ant 000\.jpg.*{os.strerror(errno.EIO)}"):
        read_picture(photos / "train" / "ant" / "ant 000.jpg", 3)
    monkeypatch.setattr(Image, "open", lambda _: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(AccessError, match=r"ant 000\.jpg.*memory"):
        read_picture(photos / "train" / "ant" / "ant 000.jpg", 3)


def test_a_file_that_goes_after_it_was_listed(photos: Path) -> None:
    pictures = as_pictures(photos, list_images(photos)[0]["train"])
    gone = photos / "train" / "ant" / "ant 001.jpg"
    content = gone.read_bytes()
    gone.unlink()
    with pytest.raises(AccessError, match=r"ant 001\.jpg"):
        find_damage(pictures)
    gone.write_bytes(content)
    assert find_damage(pictures) == {}


def test_a_folder_that_cannot_be_read_is_not_passed_over(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "train" / "ant" / "deeper").mkdir()
    whole = os.scandir

    def scan(place: Any) -> Any:
        if Path(place).name == "deeper":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(place))
        return whole(place)

    monkeypatch.setattr(os, "scandir", scan)
    for command in ("describe", "verify"):
        assert_wrong_usage(call("data", command, photos), rf"ant/deeper.*{os.strerror(errno.EACCES)}")


def test_links_to_nothing_in_place_of_folders_are_reported(photos: Path) -> None:
    (photos / "train" / "cat").symlink_to(photos / "nowhere")
    (photos / "test").symlink_to(photos / "nowhere")
    code, out, _ = call("data", "describe", photos)
    assert code == 1
    for name in ("train/cat", "test"):
        assert f"{photos / name} is a broken link" in out


def test_a_pipe_is_not_waited_for(photos: Path) -> None:
    os.mkfifo(photos / "train" / "ant" / "pipe.png")
    code, out, _ = call("data", "verify", photos)
    assert code == 1
    assert f"{photos / 'train' / 'ant' / 'pipe.png'} is no ordinary file" in out


# --- memory ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(6000, 1), (1, 40000), (40000, 3), (7, 30000)])
def test_of_a_very_long_picture_only_what_is_kept_is_resized(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    whole = Image.Image.resize

    def resize(picture: Image.Image, size: tuple[int, int], *words: Any, **options: Any) -> Image.Image:
        sizes.append(size)
        return whole(picture, size, *words, **options)

    monkeypatch.setattr(Image.Image, "resize", resize)
    assert cover(Image.new("RGB", size, (9, 9, 9)), 256, 224).getextrema() == ((9, 9),) * 3
    assert sizes[-1] == (224, 224)
    assert max(width * height for width, height in sizes) <= 224 * 224


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(400, 11), (10, 333), (300, 37)])
def test_the_middle_of_a_long_picture_is_as_of_the_whole(
    size: tuple[int, int], interpolation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    found = np.asarray(cover(picture, 32, 28, interpolation)).astype(int)
    assert max(size) > LONGEST * min(size)
    monkeypatch.setattr("snnmlp_edu.data.resizing.LONGEST", 1000)
    expected = np.asarray(cover(picture, 32, 28, interpolation)).astype(int)
    assert np.abs(found - expected).max() <= 1, "Pillow takes places in single precision"


# --- decoders and EXIF -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [NotImplementedError("odd"), RuntimeError(""), KeyError(3), RecursionError()]
)
def test_whatever_a_decoder_raises_names_the_file(
    error: Exception, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(ImageFile.ImageFile, "load", fail)
        assert_wrong_usage(call("predict", "mlp_spe_nano", photos / "val" / "ant" / "ant 000.jpg"), "ant 000")
    (photos / "val" / "ant" / "odd.dds").write_bytes(
        b"DDS " + struct.pack("<IIII", 124, 0x1007, 8, 8) + bytes(200)
    )
    code, out, _ = call("data", "verify", photos)
    assert code == 1
    assert "odd.dds cannot be read" in out


def exif(orientation: int, *entries: tuple[int, int, int, int]) -> bytes:
    """A block with an orientation and further entries: tag, type, count, value."""
    fields = [(0x0112, 3, 1, orientation), *entries]
    body = b"".join(struct.pack("<HHII", *field) for field in fields)
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(fields)) + body + bytes(4)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "block",
    [
        exif(1)[:9],
        b"Exif\0\0no tags at all",
        exif(99),
        exif(1, (0x8769, 13, 70000, 9_999_999)),
        exif(1, (0x011A, 5, 1, 4_000_000_000)),
    ],
    ids=["cut off", "text", "no orientation", "lost directory", "lost value"],
)
def test_a_broken_exif_condemns_no_pixels(kind: str, block: bytes, tmp_path: Path) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    plain = decoded(tmp_path, in_format(kind, **options))
    found = decoded(tmp_path, in_format(kind, exif=block, **options))
    assert np.array_equal(np.asarray(found), np.asarray(plain))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_upright_whatever_else_exif_says(
    orientation: int, tmp_path: Path
) -> None:
    # By hand: which corner of the stored rows and columns is the upper left one, and whether both change.
    upright = {
        1: NOISE,
        2: NOISE[:, ::-1],
        3: NOISE[::-1, ::-1],
        4: NOISE[::-1],
        5: NOISE.transpose(1, 0, 2),
        6: NOISE.transpose(1, 0, 2)[:, ::-1],
        7: NOISE.transpose(1, 0, 2)[::-1, ::-1],
        8: NOISE.transpose(1, 0, 2)[::-1],
    }[orientation]
    for odd in ((), ((0x8769, 4, 1, 9_999_999),), ((0x9C9B, 11, 1, 7), (0x010F, 200, 3, 1))):
        found = decoded(tmp_path, in_format("PNG", exif=exif(orientation, *odd)))
        assert np.array_equal(np.asarray(found), upright)


def test_what_is_cut_off_is_damaged_even_where_a_program_is_lenient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    for kind in ("JPEG", "PNG", "GIF"):
        (tmp_path / "cut").write_bytes(in_format(kind)[:-60])
        with pytest.raises(InputError, match="cut cannot be read"):
            read_picture(tmp_path / "cut", 3)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True, "it is the program's own"


def png(width: int, height: int, kind: int, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of 16 bits a channel, written by hand."""
    import zlib

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    parts = (b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def test_a_grey_value_of_16_bits_can_be_transparent(tmp_path: Path) -> None:
    rows = b"\0" + struct.pack(">3H", 1000, 1001, 65535)
    picture = decoded(tmp_path, png(3, 1, 0, rows, (b"tRNS", struct.pack(">H", 1000))), 1)
    assert np.asarray(picture).tolist() == [[0, 4, 255]]  # 1001 / 257 = 3.9


def test_lab_turns_grey_as_its_colours_do(tmp_path: Path) -> None:
    Image.fromarray(NOISE).convert("LAB").save(tmp_path / "lab.tif")
    colours = read_picture(tmp_path / "lab.tif", 3)
    assert np.array_equal(np.asarray(read_picture(tmp_path / "lab.tif", 1)), np.asarray(colours.convert("L")))


# --- names -------------------------------------------------------------------------------------------

NOT_UTF_8 = os.fsdecode(b"b\xffe")


def test_outside_text_is_shown_as_it_is(tmp_path: Path) -> None:
    folder = write_image_folder(tmp_path / "a [red]b[/] :smile:", ("ant", "[bold]x"), train=2, val=1)
    code, out, _ = call("data", "describe", folder)
    assert code == 0
    assert f"{folder} (image folder)" in "".join(line.strip() for line in out.splitlines())
    picture = folder / "val" / "[bold]x" / "a  b\nc\x1b[2J.jpg"
    picture.write_bytes(b"")
    code, out, err = call("data", "verify", folder)
    assert (code, err) == (1, "")
    assert out.splitlines()[0] == rf"{picture.parent}/a  b\nc\x1b[2J.jpg is empty; give an image file"
    double = tmp_path / "two  spaces.png"
    assert_wrong_usage(call("predict", "mlp_spe_nano", double), "two  spaces")


def test_names_that_are_no_utf_8(tmp_path: Path) -> None:
    folder = write_image_folder(tmp_path / "photos", ("ant", "bee"), train=2, val=1)
    try:
        for split in ("train", "val"):
            (folder / split / "bee").rename(folder / split / NOT_UTF_8)
    except OSError:
        pytest.skip("this file system takes no name that is not UTF-8")
    (folder / "val" / NOT_UTF_8 / "empty.png").write_bytes(b"")
    code, out, _ = call("data", "verify", folder)
    assert code == 1
    assert out.splitlines()[0].startswith(rf"{folder}/val/b\xffe/empty.png is empty")
    for command in ("describe", "verify"):
        text = call("data", command, folder, "--json")[1]
        assert "\\ud" not in text.lower(), "half a character, which strict readers refuse"
        facts = json.loads(text)
    assert facts["problems"] == [rf"{folder}/val/b\xffe/empty.png is empty; give an image file"]
    (folder / "val" / NOT_UTF_8 / "empty.png").unlink()
    picture = next((folder / "val" / NOT_UTF_8).iterdir())
    code, out, err = call("predict", "mlp_spe_nano", picture)
    assert code == 0, err
    assert out.startswith(rf"{folder}/val/b\xffe/bee 000.jpg: ")


ASCII_TERMINAL = """
import sys
from snnmlp_edu.cli import main
sys.stderr.reconfigure(encoding="ascii", errors="backslashreplace")  # as for PYTHONIOENCODING=ascii
main()
"""


def test_a_terminal_of_another_encoding(tmp_path: Path) -> None:
    missing = tmp_path / "schön.png"
    done = run_fresh(["-c", ASCII_TERMINAL, "predict", "mlp_spe_nano", str(missing)])
    assert done.returncode == 2
    assert done.stderr == f"error: there is no file {tmp_path}/sch\\xf6n.png; give the path of an image\n"


def test_printable() -> None:
    assert printable("ä 鳥 😀 [x]") == "ä 鳥 😀 [x]"
    assert printable("a\tb\u2028c\x85\x1b" + NOT_UTF_8) == r"a\tb\u2028c\x85\x1bb\xffe"


def test_an_empty_path_is_not_the_folder_that_one_is_in() -> None:
    assert_wrong_usage(call("data", "describe", ""), "the path is empty")
    with pytest.raises(InputError, match="data_dir=PATH"):
        open_source("image_folder", "")


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 100_000], ids=["digits", "brackets"])
def test_a_value_that_no_reader_of_json_takes_is_text(value: str) -> None:
    assert parse_overrides([f"epochs={value}"]) == {"epochs": value}


# --- the cache ---------------------------------------------------------------------------------------


def test_without_a_home_nothing_is_remembered(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SNNMLP_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def no_home() -> None:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    assert cache_folder() is None
    (photos / "train" / "ant" / "ant 001.jpg").write_bytes(b"")
    source = open_source("image_folder", photos, skip_corrupt=True)
    assert source.pictures("train").labels.tolist() == [0, 1, 1]
    with remembered("key") as memory:
        assert memory is None


def test_an_empty_variable_is_no_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SNNMLP_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "snnmlp-edu"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"x": 1}', b'{"99": "of other images"}', b"\x80"])
def test_a_damaged_cache_is_found_out_anew(content: bytes, photos: Path) -> None:
    cache = photos.parent / "cache"
    (photos / "train" / "ant" / "ant 001.jpg").write_bytes(b"")
    pictures = as_pictures(photos, list_images(photos)[0]["train"])
    assert list(find_damage(pictures)) == [1]
    for kept in [file for file in cache.rglob("*") if file.is_file() and file.suffix != ".lock"]:
        kept.write_bytes(content)
    assert list(find_damage(pictures)) == [1]


def test_a_file_that_takes_anothers_place_is_read(photos: Path) -> None:
    """Of the same length and the same time: the inode tells them apart."""
    file = photos / "train" / "ant" / "ant 001.jpg"
    content, facts = file.read_bytes(), file.stat()
    pictures = as_pictures(photos, list_images(photos)[0]["train"])
    assert find_damage(pictures) == {}
    new = file.with_name("new")
    new.write_bytes(bytes(len(content)))
    os.utime(new, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    new.replace(file)
    assert list(find_damage(pictures)) == [1]


# --- shipped data and archives -----------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"files": 3}', b'{"files": {"a": 3}}', b"\xff"])
def test_a_damaged_manifest_is_named(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    monkeypatch.setattr(data_files, "path", lambda: tmp_path)
    with pytest.raises(InputError, match=r"manifest\.json is damaged"):
        data_files.read_verified("a")


def test_damage_within_a_compressed_archive_is_named(tmp_path: Path) -> None:
    file, _ = write_cifar(tmp_path, "cifar10", cifar_files("cifar10", images=2))
    whole = bytearray(file.read_bytes())
    whole[200:260] = bytes(60)
    file.write_bytes(whole)
    import hashlib

    with pytest.raises(InputError, match=r"cifar-10-binary\.tar\.gz"):
        open_source("cifar10", file, hashlib.md5(whole).hexdigest()).load("train")


def test_idx_images_of_no_pixels_and_classes_of_no_name(tmp_path: Path) -> None:
    folder = write_idx(tmp_path / "idx")
    (folder / "train-images-idx3-ubyte").write_bytes(format_idx(np.zeros((40, 0, 28), np.uint8)))
    with pytest.raises(InputError, match="0 x 28 pixels"):
        open_source("idx", folder).load("train")
    (folder / "classes.txt").write_text("\n")
    with pytest.raises(InputError, match=r"classes\.txt"):
        open_source("idx", folder)


def test_a_mark_before_the_classes_is_no_part_of_them(tmp_path: Path) -> None:
    folder = write_idx(tmp_path / "idx")
    (folder / "classes.txt").write_text("ant\nbee\ncat\ndog\n", encoding="utf-8-sig")
    assert open_source("idx", folder).class_names == ("ant", "bee", "cat", "dog")


# --- arrays ------------------------------------------------------------------------------------------


def test_a_constant_channel_is_not_divided_by_nothing() -> None:
    images = torch.full((4, 2, 3, 3), 51, dtype=torch.uint8)
    images[:, 1, :, 0] = 255
    fitted = Preprocessing.fitted_to(images, image_size=3, in_channels=2)
    assert fitted.mean == (0.2, round((51 * 2 + 255) / 3 / 255, 4))
    assert fitted.std == (1.0, round(0.8 * 2**0.5 / 3, 4))  # two of three pixels 0.2, one 1
    assert fitted(images)[:, 0].abs().max() < 1e-6
    with pytest.raises(InputError, match=r"Preprocessing\.std"):
        Preprocessing(image_size=3, std=(0.0,))


@pytest.mark.parametrize(
    ("images", "word"),
    [
        (torch.full((1, 1, 4, 4), 255.0), "255"),
        (torch.full((1, 1, 4, 4), -0.1), "-0.1"),
        (torch.full((1, 1, 4, 4), float("nan")), "NaN"),
        (torch.zeros(1, 1, 4, 4, dtype=torch.complex64), "complex64"),
        (torch.zeros(4, 4), r"\(4, 4\)"),
        (np.zeros((1, 1, 4, 4), np.uint8), "ndarray"),
    ],
)
def test_images_are_bytes_or_floats_from_0_to_1(images: Any, word: str) -> None:
    with pytest.raises(InputError, match=word):
        Preprocessing(image_size=4)(images)
    with pytest.raises(InputError, match=word):
        Preprocessing.fitted_to(images, 4, 1)


def test_statistics_need_bytes() -> None:
    for images in (torch.zeros(0, 1, 4, 4, dtype=torch.uint8), torch.zeros(2, 1, 4, 4)):
        with pytest.raises(InputError, match="uint8"):
            Preprocessing.fitted_to(images, 4, 1)


@pytest.mark.parametrize(
    ("labels", "word"),
    [
        (torch.tensor([0.0, 1.0]), "float32"),
        (torch.tensor([True, False]), "bool"),
        (torch.zeros(4, 1, dtype=torch.int64), r"\(4, 1\)"),
        (torch.tensor([0, -1]), "labels reach from -1"),
        (torch.tensor([], dtype=torch.int64), "0 labels"),
        ([0, 0, 1, 1], "list"),
    ],
)
def test_labels_are_whole_numbers_from_0_on(labels: Any, word: str) -> None:
    with pytest.raises(InputError, match=word):
        train_validation_split(labels, 0.5, seed=0)


@pytest.mark.parametrize("fraction", [float("nan"), 0, 1.0, -0.5, "half", None, True])
def test_a_fraction_lies_between_0_and_1(fraction: Any) -> None:
    with pytest.raises(InputError, match="validation_fraction"):
        train_validation_split(torch.tensor([0, 0, 1, 1]), fraction, seed=0)


def test_shifts_take_images_and_a_whole_number() -> None:
    images = torch.zeros(2, 1, 3, 3)
    for bad in (images[0], torch.zeros(2, 1, 0, 3), [1]):
        with pytest.raises(InputError, match="images"):
            flip_and_shift(bad, torch.Generator(), 1)  # type: ignore[arg-type]
    for shift in (-1, 1.5):
        with pytest.raises(InputError, match="max_shift"):
            flip_and_shift(images, torch.Generator(), shift)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="rank is 2 and world_size 2"):
        flip_and_shift(images, torch.Generator(), 1, rank=2, world_size=2)
    check_finite(flip_and_shift(images, torch.Generator(), 0))
