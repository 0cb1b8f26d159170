"""Data sets that a recipe names: digits, idx folders and CIFAR archives, whole and damaged."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_sets import cifar_files, cifar_pixels, write_cifar, write_idx, write_unpacked_cifar
from test_cli import assert_wrong_usage, call

from snnmlp_edu.checkpoints import load_checkpoint
from snnmlp_edu.data.cifar import CIFAR
from snnmlp_edu.data.datasets import format_idx
from snnmlp_edu.data.digits import load_digits
from snnmlp_edu.data.embedded import CLASS_NAMES
from snnmlp_edu.data.sources import open_source
from snnmlp_edu.errors import InputError
from snnmlp_edu.training import Recipe, fit

SMALL = ["dim=6", "depths=[1,1]", "patch_size=8", "time_steps=1", "neuron.backend=eager", "max_steps=2"]


# --- digits ------------------------------------------------------------------------------------------


def test_digits_have_no_third_split() -> None:
    with pytest.raises(InputError, match=r"the split is 'val'.*train, test"):
        load_digits("val")  # type: ignore[arg-type]


def test_digits_are_all_there_once_in_a_fixed_split() -> None:
    from sklearn import datasets

    train, test = load_digits("train"), load_digits("test")
    assert train.images.shape == (1198, 1, 32, 32)
    assert test.images.shape == (599, 1, 32, 32)
    assert train.images.dtype == torch.uint8
    bunch = datasets.load_digits()
    together = torch.cat((train.labels, test.labels))
    assert torch.equal(together.bincount(), torch.tensor(bunch.target).bincount())
    assert (test.labels.bincount() * 3 - together.bincount()).abs().max() <= 1
    assert torch.equal(load_digits("test").images, test.images)


def test_digits_are_enlarged_between_pixel_centres() -> None:
    """By hand: a pixel's centre lies between the 2nd and 3rd of four, which lie 1/8 off it on each side."""
    from sklearn import datasets

    stored = datasets.load_digits().images * (255 / 16)
    image, label = load_digits("train").images[0, 0].double().numpy(), int(load_digits("train").labels[0])
    steps = (np.arange(32) + 0.5) / 4 - 0.5
    inner = np.clip(steps, 0, 7)

    def enlarged(values: np.ndarray) -> np.ndarray:
        rows = np.stack([np.interp(inner, np.arange(8), row) for row in values])
        return np.stack([np.interp(inner, np.arange(8), column) for column in rows.T]).T

    differences = [np.abs(enlarged(each) - image).max() for each in stored]
    best = int(np.argmin(differences))
    assert differences[best] <= 0.51
    assert datasets.load_digits().target[best] == label


def test_digits_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from snnmlp_edu.data import digits

    digits._read.cache_clear()
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(InputError, match=r"scikit-learn, which is not installed; run, in a clone: pip"):
        load_digits("train")


# --- idx ---------------------------------------------------------------------------------------------


def test_idx_folder_is_read_plain_or_compressed(tmp_path: Path) -> None:
    source = open_source("idx", write_idx(tmp_path / "a folder, äöü"))
    assert source.class_names == ("0", "1", "2", "3")
    train, test = source.load("train"), source.load("test")
    assert (train.images.shape, test.images.shape) == ((40, 1, 28, 28), (20, 1, 28, 28))
    images = np.random.default_rng(0).integers(0, 256, (40, 28, 28), dtype=np.uint8)
    assert np.array_equal(train.images[:, 0].numpy(), images)
    assert test.labels.tolist() == [i % 4 for i in range(20)]


def test_idx_classes_may_have_names(tmp_path: Path) -> None:
    write_idx(tmp_path)
    (tmp_path / "classes.txt").write_text("Füchse\nhares\n\nowls\ndeer\n", encoding="utf-8")
    assert open_source("idx", tmp_path).class_names == ("Füchse", "hares", "owls", "deer")
    assert open_source("fashion_mnist", tmp_path).class_names == CLASS_NAMES


def test_other_names_of_idx_files(tmp_path: Path) -> None:
    write_idx(tmp_path)
    for file in list(tmp_path.iterdir()):
        name = file.name.replace("t10k", "test").replace("-idx", ".idx")
        file.rename(file.with_name(f"letters-{name}"))
    assert len(open_source("idx", tmp_path).load("test").labels) == 20


def damage_idx(folder: Path, how: str) -> None:
    labels, images = folder / "train-labels-idx1-ubyte", folder / "train-images-idx3-ubyte"
    match how:
        case "missing":
            labels.unlink()
        case "twice":
            (folder / "more-train-labels-idx1-ubyte").write_bytes(labels.read_bytes())
        case "magic":
            images.write_bytes(b"\x01" + images.read_bytes()[1:])
        case "short":
            images.write_bytes(images.read_bytes()[:-5])
        case "label":
            (folder / "classes.txt").write_text("a\nb\n")
        case "encoding":
            (folder / "classes.txt").write_text("Füchse\n", encoding="latin-1")
        case "count":
            labels.write_bytes(format_idx(np.zeros(3, np.uint8)))
        case "gzip":
            images.with_name(images.name + ".gz").write_bytes(gzip.compress(images.read_bytes())[:-9])
            images.unlink()
        case "empty":
            labels.write_bytes(format_idx(np.zeros(0, np.uint8)))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", r"one idx file of train labels, such as train-labels-idx1-ubyte\.gz; found: none"),
        ("twice", "found: more-train-labels-idx1-ubyte, train-labels-idx1-ubyte"),
        ("magic", "train-images-idx3-ubyte is not an idx file"),
        ("short", "train-images-idx3-ubyte holds 31355 values and its header says"),
        ("label", r"\(train\) has label 3; labels must be from 0 to 1"),
        ("count", r"\(train\) has 40 images and 3 labels"),
        ("encoding", r"classes\.txt is not UTF-8 \(.*\)"),
        ("gzip", "is a damaged gzip file"),
        ("empty", "has no training images"),
    ],
)
def test_damaged_idx_folders(how: str, message: str, tmp_path: Path) -> None:
    damage_idx(write_idx(tmp_path), how)
    with pytest.raises(InputError, match=message):
        open_source("idx", tmp_path).load("train")


# --- CIFAR -------------------------------------------------------------------------------------------


def few(kind: str, train: int, test: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the published data set have so many images."""
    small = dataclasses.replace(CIFAR[kind], images={"train": train, "test": test})
    monkeypatch.setitem(CIFAR, kind, small)


def first_bytes(kind: str, label: int) -> bytes:
    """What is before the pixels of a record that `cifar_files` makes."""
    return bytes([label]) if kind == "cifar10" else bytes([label % 20, label])


@pytest.mark.parametrize("kind", ["cifar10", "cifar100"])
def test_cifar_in_its_published_format(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {"cifar10": 5, "cifar100": 1}[kind]
    few(kind, 30 * parts, 30, monkeypatch)
    path, md5 = write_cifar(tmp_path, kind, cifar_files(kind, images=30))
    unpacked = write_unpacked_cifar(tmp_path / "unpacked", kind, cifar_files(kind, images=30))
    for place, checksum in ((path, md5), (tmp_path, md5), (unpacked, None), (unpacked.parent, None)):
        source = open_source(kind, place, checksum)
        classes = {"cifar10": 10, "cifar100": 100}[kind]
        assert source.class_names == tuple(f"class {i}" for i in range(classes))
        train, test = source.load("train"), source.load("test")
        assert train.images.dtype == torch.uint8
        assert train.images.shape == (30 * parts, 3, 32, 32)
        for found, seeds in ((train, range(parts)), (test, [parts])):
            expected = [(i % classes, row) for seed in seeds for i, row in enumerate(cifar_pixels(30, seed))]
            expected.sort(
                key=lambda pair: hashlib.sha256(first_bytes(kind, pair[0]) + pair[1].tobytes()).digest()
            )
            assert found.labels.tolist() == [label for label, _ in expected]
            assert np.array_equal(found.images.flatten(1).numpy(), np.stack([row for _, row in expected]))


def test_the_published_formats() -> None:
    """As https://www.cs.toronto.edu/~kriz/cifar.html describes them."""
    assert {kind: (form.archive, form.folder, form.parts["train"][-1]) for kind, form in CIFAR.items()} == {
        "cifar10": ("cifar-10-binary.tar.gz", "cifar-10-batches-bin", "data_batch_5.bin"),
        "cifar100": ("cifar-100-binary.tar.gz", "cifar-100-binary", "train.bin"),
    }
    assert len(cifar_files("cifar10", 7)["data_batch_1.bin"]) == 7 * 3073
    assert len(cifar_files("cifar100", 7)["train.bin"]) == 7 * 3074


@pytest.mark.parametrize("kind", ["cifar10", "cifar100"])
def test_another_checksum_is_refused_before_anything_is_read(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, found = write_cifar(tmp_path, kind, cifar_files(kind))

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("it was opened")

    monkeypatch.setattr(tarfile, "open", never)
    published = {
        "cifar10": "c32a1d4ab5d03f1284b67883e8d87530",
        "cifar100": "03b5dce01913d631647c71ecec9e9cb8",
    }
    message = rf"{path.name} has MD5 {found}, expected {published[kind]}"
    with pytest.raises(InputError, match=message):
        open_source(kind, tmp_path)


def test_unpacked_files_have_no_checksum(tmp_path: Path) -> None:
    place = write_unpacked_cifar(tmp_path, "cifar10", cifar_files("cifar10"))
    with pytest.raises(InputError, match="cifar-10-batches-bin is not an archive"):
        open_source("cifar10", place, "0" * 32)


def damaged_cifar(how: str) -> dict[str, bytes]:
    files = cifar_files("cifar10")
    part = files["data_batch_2.bin"]
    match how:
        case "absent":
            del files["data_batch_2.bin"]
        case "label":
            files["data_batch_2.bin"] = b"\x0a" + part[1:]
        case "cut":
            files["data_batch_2.bin"] = part[:-100]
        case "whole records":
            files["data_batch_2.bin"] = part[:-3073]
        case "names":
            files["batches.meta.txt"] = b"airplane\n"
    return files


@pytest.mark.parametrize(
    ("how", "packed", "unpacked"),
    [
        ("absent", r"lacks a file: .*data_batch_2\.bin", r"data_batch_2\.bin cannot be read: No such file"),
        ("label", r"\(train\) has label 10; labels must be from 0 to 9", r"\(train\) has label 10"),
        ("cut", r"data_batch_2\.bin in .* has 122,820 bytes", r"data_batch_2\.bin .* 40 records of 3073"),
        ("whole records", None, r"data_batch_2\.bin in .* has 119,847 bytes, expected 40 records of 3073"),
        (
            "names",
            r"batches\.meta\.txt .* names 1 classes, expected 10",
            r"batches\.meta\.txt .* names 1 classes",
        ),
    ],
)
def test_damaged_cifar_files(
    how: str, packed: str | None, unpacked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few("cifar10", 200, 40, monkeypatch)
    _, md5 = write_cifar(tmp_path, "cifar10", damaged_cifar(how))
    place = write_unpacked_cifar(tmp_path / "unpacked", "cifar10", damaged_cifar(how))
    for where, checksum, message in ((tmp_path, md5, packed), (place, None, unpacked)):
        if message is None:
            continue  # an archive of one's own may hold any number of images
        with pytest.raises(InputError, match=message):
            open_source("cifar10", where, checksum).load("train")


def test_an_archive_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(b"no archive")
    with pytest.raises(InputError, match="is a damaged archive"):
        open_source("cifar10", tmp_path, hashlib.md5(b"no archive").hexdigest())
    with pytest.raises(InputError, match=r"there is no file .*cifar-100-binary\.tar\.gz; `snnmlp data"):
        open_source("cifar100", tmp_path)


# --- by name, and in a training ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("mnist",), "there is no data set 'mnist'.*known: embedded, digits"),
        (("cifar",), "did you mean 'cifar10'"),
        (("idx",), "say where they are with data_dir=PATH"),
        (("cifar10",), "say where they are with data_dir=PATH"),
        (("digits", "somewhere"), r"digits is shipped; leave out data_dir \(somewhere\)"),
        (("idx", "absent"), "there is no folder absent; give the one that holds the four idx files"),
    ],
)
def test_wrong_names_and_places(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_source(*arguments)


def test_training_tests_on_the_images_of_its_own_data(tmp_path: Path) -> None:
    folder = write_idx(tmp_path / "letters")
    words = [*SMALL, "num_classes=4", "batch_size=16", "dataset=idx", f"data_dir={folder}", "flip=false"]
    code, out, err = call("train", "--recipe", "fashion_smoke", "--output", tmp_path / "runs", *words)
    assert code == 0, err
    assert " of 20)" in out
    checkpoint = tmp_path / "runs" / "fashion_smoke-0-1" / "checkpoint.safetensors"
    assert load_checkpoint(checkpoint).class_names == ("0", "1", "2", "3")
    code, again, err = call("evaluate", checkpoint)
    assert code == 0, err
    assert again.strip() in out
    moved = folder.rename(tmp_path / "elsewhere")
    assert_wrong_usage(call("evaluate", checkpoint), "there is no folder")
    assert call("evaluate", checkpoint, "--data-dir", moved)[1] == again
    assert_wrong_usage(call("evaluate", checkpoint, "--dataset", "digits"), "classes are 0, 1, 2, 3 and")


def test_training_on_a_cifar_archive(tmp_path: Path) -> None:
    path, md5 = write_cifar(tmp_path, "cifar100", cifar_files("cifar100", images=400))
    recipe = Recipe(name="short", source="ours", epochs=1, learning_rate=0.01, max_steps=1)
    small = {"dim": 6, "depths": [1, 1], "patch_size": 8, "time_steps": 1, "neuron": {"backend": "eager"}}
    sizes = {**small, "in_channels": 3, "num_classes": 100}
    result = fit(
        None,
        recipe.replace(
            dataset="cifar100", data_dir=str(path), data_md5=md5, validation_fraction=0.25, **sizes
        ),
        output=tmp_path / "runs",
        progress=False,
    )
    assert result.test_total == 400
    preprocessing = load_checkpoint(result.checkpoint).preprocessing
    assert len(preprocessing.mean) == 3
    assert (preprocessing.stored_size, preprocessing.stored_channels) == (32, 3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["dataset=mnist"], "Recipe.dataset is 'mnist'.*embedded, digits"),
        (["dataset=imagenet"], "the data set imagenet is read from files; say where they are with data_dir="),
        (["dataset=cifar10", "data_dir=absent.tar.gz"], r"there is no file absent\.tar\.gz"),
        (["dataset=idx", "data_dir=7"], "Recipe.data_dir is 7"),
        (["data_dir=here"], "embedded is shipped; leave out data_dir"),
    ],
)
def test_wrong_data_get_one_line(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_wrong_usage(call("train", "--recipe", "fashion_smoke", *words), message)
    assert list(tmp_path.iterdir()) == []
