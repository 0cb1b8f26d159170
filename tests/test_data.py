"""The idx format, the embedded images and their hashes, the split, preprocessing and augmentation."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import importlib.util
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from fresh import run_fresh
from hypothesis import given, settings
from hypothesis import strategies as st

from snnmlp_edu import data
from snnmlp_edu.data import (
    CLASS_NAMES,
    Preprocessing,
    check_finite,
    files,
    flip_and_shift,
    load_embedded,
    train_validation_split,
)
from snnmlp_edu.data.datasets import format_idx, labelled_images, parse_idx, read_idx
from snnmlp_edu.errors import InputError

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
TWO_IMAGES = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 3, 1, 2, 3, 4, 5, 255])


# --- idx ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [TWO_IMAGES, gzip.compress(TWO_IMAGES, mtime=0)], ids=["plain", "gzip"])
def test_idx_of_hand_written_bytes(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "images").write_bytes(content)
    assert read_idx(tmp_path / "images").tolist() == [[[1, 2, 3]], [[4, 5, 255]]]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=4))
def test_format_and_parse_are_inverse(shape: list[int]) -> None:
    array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    assert np.array_equal(parse_idx(format_idx(array), "x"), array)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not an idx file"),
        (b"PK\x03\x04" + bytes(40), "is not an idx file"),
        (bytes([0, 0, 13, 1, 0, 0, 0, 1, 0, 0, 0, 0]), "idx type 0x0d; only unsigned bytes"),
        (bytes([0, 0, 8, 3, 0, 0, 0, 2]), "ends inside its idx header"),
        (bytes([0, 0, 8, 0, 1]), "ends inside its idx header"),
        (TWO_IMAGES[:-1], r"holds 5 values and its header says \(2, 1, 3\)"),
        (TWO_IMAGES + b"\0", r"holds 7 values and its header says \(2, 1, 3\)"),
        (gzip.compress(TWO_IMAGES, mtime=0)[:-9], "is a damaged gzip file"),
        (gzip.compress(TWO_IMAGES, mtime=0)[:12] + b"\xff" * 20, "is a damaged gzip file"),
    ],
)
def test_bad_idx_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "images").write_bytes(content)
    with pytest.raises(InputError, match=f"images.*{message}"):
        read_idx(tmp_path / "images")


def test_missing_idx_file() -> None:
    with pytest.raises(InputError, match="there is no file nowhere"):
        read_idx(Path("nowhere"))


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((2, 4), np.uint8), np.zeros(2, np.uint8), r"give images \[N, H, W\]"),
        (np.zeros((2, 4, 4), np.uint8), np.zeros(3, np.uint8), "2 images and 3 labels"),
        (
            np.zeros((2, 4, 4), np.uint8),
            np.array([0, 10], np.uint8),
            "has label 10; labels must be from 0 to 9",
        ),
    ],
)
def test_images_and_labels_must_belong_together(images: np.ndarray, labels: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        labelled_images(images, labels, 10, "set")


# --- the embedded images -----------------------------------------------------------------------------


@pytest.mark.parametrize(("split", "each"), [("train", 600), ("test", 100)])
def test_embedded_images(split: data.Split, each: int) -> None:
    images, labels = load_embedded(split)
    assert images.shape == (10 * each, 1, 28, 28)
    assert images.dtype == torch.uint8
    assert labels.dtype == torch.int64
    assert labels.bincount().tolist() == [each] * len(CLASS_NAMES)
    assert (images.flatten(1).amax(1) > 100).all(), "every image shows something"


def test_no_image_is_in_both_splits() -> None:
    seen = [{image.numpy().tobytes() for image in load_embedded(split).images} for split in ("train", "test")]
    assert not seen[0] & seen[1]


def test_manifest_lists_every_data_file_as_it_is() -> None:
    folder = data.path()
    binary = {
        file.relative_to(folder).as_posix()
        for pattern in ("*.gz", "*.zip", "*.safetensors", "*.png", "engine/*.wasm", "engine/*.json")
        for file in folder.rglob(pattern)
    }
    manifest = files.read_manifest()
    assert set(manifest) == binary
    for name, entry in manifest.items():
        assert len(files.read_verified(name)) == entry["bytes"]
    assert sum(entry["bytes"] for name, entry in manifest.items() if name.endswith(".gz")) <= 4_000_000


@pytest.fixture
def copied_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `data/` that may be damaged."""
    folder = Path(shutil.copytree(data.path(), tmp_path / "data"))
    monkeypatch.setattr(files, "path", lambda: folder)
    return folder


def test_changed_data_file_is_refused(copied_data: Path) -> None:
    file = copied_data / "fashion_mnist" / "t10k-labels-idx1-ubyte.gz"
    content = bytearray(file.read_bytes())
    content[-20] ^= 1
    file.write_bytes(content)
    with pytest.raises(
        InputError, match=r"t10k-labels-idx1-ubyte\.gz has SHA-256 .* restore it with 'git checkout"
    ):
        load_embedded("test")
    assert len(load_embedded("train").labels) == 6000


def test_missing_data_file_is_named(copied_data: Path) -> None:
    (copied_data / "fashion_mnist" / "train-images-idx3-ubyte.gz").unlink()
    with pytest.raises(InputError, match=r"train-images-idx3-ubyte\.gz is missing; restore it"):
        load_embedded("train")


def test_file_outside_the_manifest_is_refused(copied_data: Path) -> None:
    (copied_data / "stray.gz").write_bytes(b"x")
    with pytest.raises(InputError, match=r"stray\.gz is not in .*manifest\.json"):
        files.read_verified("stray.gz")


def test_unknown_split() -> None:
    with pytest.raises(InputError, match=r"the split is 'validation'.*train, test"):
        load_embedded("validation")  # type: ignore[arg-type]


def test_data_of_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site-packages" / "snnmlp_edu"
    (package / "shipped").mkdir(parents=True)
    monkeypatch.setattr(files, "__file__", str(package / "data" / "files.py"))
    with pytest.raises(InputError, match="lacks its data"):
        files.path()
    (package / "shipped" / "manifest.json").write_text("{}")
    assert files.path() == package / "shipped"


# --- the script that made them -----------------------------------------------------------------------


def load_script(name: str) -> ModuleType:
    specification = importlib.util.spec_from_file_location(name, data.path() / f"{name}.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_first_of_each_class_by_hand() -> None:
    labels = np.array([1, 0, 1, 1, 2, 0, 0, 2, 2])
    assert load_script("make_fashion_mnist").first_of_each_class(labels, 2).tolist() == [0, 1, 2, 4, 5, 7]


def test_compression_has_no_time_and_no_name() -> None:
    compressed = load_script("make_fashion_mnist").compress(b"garment")
    assert compressed[:8] == b"\x1f\x8b\x08\x00\x00\x00\x00\x00"
    assert gzip.decompress(compressed) == b"garment"


def test_subset_is_made_of_the_originals(tmp_path: Path) -> None:
    if not DEBIAN.is_dir():
        pytest.skip("the originals are not here (Debian package dataset-fashion-mnist)")
    load_script("make_fashion_mnist").make(DEBIAN, tmp_path)
    for name in files.read_manifest():
        if name.startswith("fashion_mnist/"):
            made, shipped = (tmp_path / name).read_bytes(), files.read_verified(name)
            # Another zlib may compress the same images into other bytes.
            assert gzip.decompress(made) == gzip.decompress(shipped)
    assert set(json.loads((tmp_path / "manifest.json").read_text())["files"]) == {
        name for name in files.read_manifest() if name.startswith("fashion_mnist/")
    }


@pytest.fixture
def public_address(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server on this machine, and the folder that it serves."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/", folder
        server.shutdown()
        thread.join()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def test_download_checks_what_came(
    public_address: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, served = public_address
    script = load_script("make_fashion_mnist")
    hashes = {}
    for name in script.DOWNLOAD_MD5:
        (served / name).write_bytes(name.encode())
        hashes[name] = hashlib.md5(name.encode()).hexdigest()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(script, "PUBLIC_ADDRESS", address)
    with pytest.raises(InputError, match=r"train-images-idx3-ubyte\.gz .* MD5 than 8d4fb7e6"):
        script.download()
    monkeypatch.setattr(script, "DOWNLOAD_MD5", hashes)
    folder = script.download()
    assert {file.name for file in folder.iterdir()} == set(hashes)


def test_script_refuses_other_originals(tmp_path: Path) -> None:
    for prefix in ("train", "t10k"):
        (tmp_path / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(TWO_IMAGES, mtime=0))
        (tmp_path / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(
            gzip.compress(format_idx(np.array([1], np.uint8)))
        )
    script = data.path() / "make_fashion_mnist.py"
    done = run_fresh([str(script), "--source", str(tmp_path)])
    assert done.returncode == 1
    assert "is not the original of Fashion-MNIST; use --download" in done.stderr
    assert "Traceback" not in done.stderr


# --- training and validation -------------------------------------------------------------------------


@settings(deadline=None)
@given(
    per_class=st.lists(st.integers(4, 12), min_size=1, max_size=5),
    fraction=st.floats(0.2, 0.8),
    seed=st.integers(0, 1000),
)
def test_split_is_a_balanced_partition(per_class: list[int], fraction: float, seed: int) -> None:
    labels = torch.cat([torch.full((count,), label) for label, count in enumerate(per_class)])
    train, validation = train_validation_split(labels, fraction, seed)
    assert sorted([*train.tolist(), *validation.tolist()]) == list(range(len(labels)))
    assert labels[validation].bincount().tolist() == [round(fraction * count) for count in per_class]
    again = train_validation_split(labels, fraction, seed)
    assert torch.equal(train, again[0])
    assert torch.equal(validation, again[1])


def test_split_depends_on_its_seed() -> None:
    labels = load_embedded("train").labels
    first, second = (train_validation_split(labels, 0.1, seed)[1] for seed in (0, 1))
    assert len(first) == len(second) == 600
    assert not torch.equal(first, second)


def test_split_that_leaves_a_class_empty() -> None:
    with pytest.raises(InputError, match=r"validation_fraction 0\.1 of the 2 images of class 1 is 0"):
        train_validation_split(torch.tensor([0] * 20 + [1, 1]), 0.1, seed=0)


# --- preprocessing -----------------------------------------------------------------------------------


def test_preprocessing_by_hand() -> None:
    image = torch.tensor([[[[0, 255], [51, 102]]]], dtype=torch.uint8)
    prepared = Preprocessing(image_size=4, mean=(0.2,), std=(0.5,))(image)
    black = -0.4
    expected = [
        [black, black, black, black],
        [black, black, 1.6, black],
        [black, 0.0, 0.4, black],
        [black, black, black, black],
    ]
    torch.testing.assert_close(prepared, torch.tensor([[expected]]))


def test_grey_is_repeated_for_a_colour_network() -> None:
    images = torch.randint(0, 256, (3, 1, 28, 28), dtype=torch.uint8)
    prepared = Preprocessing(image_size=32, in_channels=3)(images)
    assert prepared.shape == (3, 3, 32, 32)
    assert prepared.dtype == torch.float32
    assert torch.equal(prepared[:, 0], prepared[:, 2])
    torch.testing.assert_close(prepared[:, 1, 2:30, 2:30] * 255, images[:, 0].float())


def test_numbers_from_0_to_1_are_not_scaled_again() -> None:
    images = torch.randint(0, 256, (2, 1, 8, 8), dtype=torch.uint8)
    prepare = Preprocessing(image_size=8, mean=(0.3,), std=(0.4,))
    assert torch.equal(prepare(images), prepare(images.float() / 255))


def test_fitted_preprocessing_gives_mean_0_and_deviation_1() -> None:
    images = load_embedded("train").images
    prepared = Preprocessing.fitted_to(images, image_size=28, in_channels=1)(images)
    assert abs(float(prepared.mean())) < 1e-3
    assert abs(float(prepared.std()) - 1) < 1e-3


def test_preprocessing_survives_json() -> None:
    prepare = Preprocessing(image_size=32, in_channels=3, mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0))
    assert Preprocessing.from_dict(json.loads(json.dumps(prepare.to_dict()))) == prepare


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_size": 0}, "image_size is 0"),
        ({"image_size": 32, "in_channels": 1.5}, "in_channels is 1.5"),
        ({"image_size": 32, "mean": (float("nan"),)}, "mean is"),
        ({"image_size": 32, "std": (0.0,)}, r"std is \(0\.0,\);.* above 0"),
        ({"image_size": 32, "mean": (0.1, 0.2)}, "give as many of each"),
        ({"image_size": 32, "sigma": (1.0,)}, "no field 'sigma'.*image_size, in_channels, mean, std"),
        ({}, "lacks image_size"),
        ({"image_size": 32, "resize": 10_001}, "resize is 10001"),
        ({"image_size": 32, "interpolation": "cubic"}, "interpolation is 'cubic'.*mean 'bicubic'"),
        ("words", "words"),
    ],
)
def test_bad_preprocessing(fields: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Preprocessing.from_dict(fields)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 1, 33, 8), "33 x 8 pixels and the network takes 32 x 32"),
        ((2, 2, 28, 28), "have 2 channels; this network takes 3"),
        ((1, 28, 28), r"give \[N, C, height, width\]"),
    ],
)
def test_images_that_do_not_fit(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Preprocessing(image_size=32, in_channels=3)(torch.zeros(shape, dtype=torch.uint8))


@pytest.mark.parametrize("kind", [torch.int64, torch.int8, torch.bool])
def test_pixels_of_another_type_are_not_taken_for_floats(kind: torch.dtype) -> None:
    with pytest.raises(InputError, match=f"images have type {kind}; give uint8, or floats from 0 to 1"):
        Preprocessing(image_size=32)(torch.ones(2, 1, 28, 28, dtype=kind))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_check_finite_names_the_first_bad_image(value: float) -> None:
    images = torch.zeros(4, 1, 2, 2)
    check_finite(images)
    check_finite(torch.zeros(4, 1, 2, 2, dtype=torch.uint8))
    images[2, 0, 1, 1] = value
    images[3] = value
    with pytest.raises(InputError, match=r"2 of 4 images have NaN or infinite values, the first is image 2"):
        check_finite(images)


# --- augmentation ------------------------------------------------------------------------------------


def shifted_by_padding(image: torch.Tensor, down: int, right: int, mirrored: bool) -> torch.Tensor:
    """The same by another road: flip, replicate the border, cut out a window."""
    if mirrored:
        image = image.flip(2)
    margin = max(abs(down), abs(right))
    if margin == 0:
        return image
    wide = torch.nn.functional.pad(image.unsqueeze(0).float(), (margin,) * 4, mode="replicate")[0]
    height, width = image.shape[1:]
    window = wide[:, margin - down : margin - down + height, margin - right : margin - right + width]
    return window.to(image.dtype)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_every_image_gets_a_flip_and_a_shift_of_its_own(dtype: torch.dtype) -> None:
    images = torch.randint(0, 256, (40, 2, 7, 9), generator=torch.Generator().manual_seed(0)).to(dtype)
    augmented = flip_and_shift(images, torch.Generator().manual_seed(0), max_shift=2)
    found = []
    for before, after in zip(images, augmented, strict=True):
        matches = [
            (down, right, mirrored)
            for mirrored in (False, True)
            for down in range(-2, 3)
            for right in range(-2, 3)
            if torch.equal(shifted_by_padding(before, down, right, mirrored), after)
        ]
        assert len(matches) == 1
        found += matches
    downs, rights, mirrors = (set(column) for column in zip(*found, strict=True))
    assert downs == rights == {-2, -1, 0, 1, 2}
    assert mirrors == {False, True}
    assert any(down != right for down, right, _ in found)


def test_augmentation_follows_its_generator_and_can_be_off() -> None:
    images = torch.rand(16, 1, 8, 8)
    assert torch.equal(flip_and_shift(images, torch.Generator(), max_shift=0, flip=False), images)
    first, second, third = (
        flip_and_shift(images, torch.Generator().manual_seed(seed), max_shift=1) for seed in (5, 5, 6)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
