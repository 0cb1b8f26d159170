"""Data sets that a recipe names: digits, idx folders and CIFAR archives, whole and damaged."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_sets import cifar_files, cifar_pixels, python_two_pickle, write_cifar, write_idx
from test_cli import assert_wrong_usage, call

from snnmlp_edu.checkpoints import load_checkpoint
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
        ("label", r"\(train\) has label 3; labels must lie in 0 to 1"),
        ("count", r"\(train\) has 40 images and 3 labels"),
        ("encoding", r"classes\.txt is not in UTF-8 \(.*\); save it so"),
        ("gzip", "is a damaged gzip file"),
        ("empty", "has no training images"),
    ],
)
def test_damaged_idx_folders(how: str, message: str, tmp_path: Path) -> None:
    damage_idx(write_idx(tmp_path), how)
    with pytest.raises(InputError, match=message):
        open_source("idx", tmp_path).load("train")


# --- CIFAR -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["cifar10", "cifar100"])
def test_cifar_in_its_published_format(kind: str, tmp_path: Path) -> None:
    path, md5 = write_cifar(tmp_path, kind, cifar_files(kind, images=30))
    for place in (path, tmp_path):
        source = open_source(kind, place, md5)
        classes = {"cifar10": 10, "cifar100": 100}[kind]
        assert source.class_names == tuple(f"class {i}" for i in range(classes))
        train, test = source.load("train"), source.load("test")
        parts = {"cifar10": 5, "cifar100": 1}[kind]
        expected = np.concatenate([cifar_pixels(30, seed) for seed in range(parts)])
        assert train.images.dtype == torch.uint8
        assert np.array_equal(train.images.numpy(), expected.reshape(-1, 3, 32, 32))
        assert train.labels.tolist() == [i % classes for i in range(30)] * parts
        assert np.array_equal(test.images.flatten(1).numpy(), cifar_pixels(30, parts))


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_archives_that_python_3_wrote(protocol: int, tmp_path: Path) -> None:
    files = {name: pickle.dumps(values, protocol) for name, values in cifar_files("cifar10").items()}
    _, md5 = write_cifar(tmp_path, "cifar10", files)
    source = open_source("cifar10", tmp_path, md5)
    assert source.class_names[9] == "class 9"
    assert np.array_equal(source.load("test").images.flatten(1).numpy(), cifar_pixels(40, 5))


@pytest.mark.parametrize("kind", ["cifar10", "cifar100"])
def test_another_checksum_is_refused_before_anything_is_read(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, found = write_cifar(tmp_path, kind, cifar_files(kind))

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("it was opened")

    monkeypatch.setattr(tarfile, "open", never)
    published = {
        "cifar10": "c58f30108f718f92721af3b95e74349a",
        "cifar100": "eb9058c3a382ffc7106e4002c42a8d85",
    }
    message = rf"{path.name} has MD5 {found} and not {published[kind]}; nothing was read"
    with pytest.raises(InputError, match=message):
        open_source(kind, tmp_path)


class Malicious:
    """A pickle that would run a command as it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("file", ["batches.meta", "data_batch_3"])
def test_a_malicious_pickle_is_never_executed(file: str, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    files = cifar_files("cifar10")
    files[file] = pickle.dumps({**files[file], b"extra": Malicious(marker)}, protocol=2)
    _, md5 = write_cifar(tmp_path, "cifar10", files)
    message = rf"{file} in .* holds more than arrays and plain values: it asks for (posix|nt)\.system"
    with pytest.raises(InputError, match=message):
        open_source("cifar10", tmp_path, md5).load("train")
    assert not marker.exists()
    # The same bytes do run it in an ordinary unpickler: the test would notice.
    pickle.load(io.BytesIO(files[file]), encoding="latin1")
    assert marker.exists()


@pytest.mark.parametrize("name", ["getattr", "eval", "__import__"])
def test_no_other_name_can_be_reached(name: str, tmp_path: Path) -> None:
    files = cifar_files("cifar10")
    files["test_batch"] = f"cbuiltins\n{name}\n.".encode()
    _, md5 = write_cifar(tmp_path, "cifar10", files)
    with pytest.raises(InputError, match=rf"it asks for builtins\.{name}"):
        open_source("cifar10", tmp_path, md5).load("test")


@pytest.mark.parametrize("kind", ["O8", "V8", "f8"])
def test_an_array_of_anything_but_bytes_is_refused(kind: str, tmp_path: Path) -> None:
    # An array of objects whose bytes the file chooses would be an array of addresses.
    files = cifar_files("cifar10")
    array = b"cnumpy\nndarray\n((I1\ntcnumpy\ndtype\n(V" + kind.encode() + b"\ntRB\x08\0\0\0AAAAAAAAtR."
    files["test_batch"] = array
    _, md5 = write_cifar(tmp_path, "cifar10", files)
    with pytest.raises(InputError, match=f"it asks for an array of '{kind}', and pixels are bytes"):
        open_source("cifar10", tmp_path, md5).load("test")


def test_the_type_of_arrays_cannot_be_called(tmp_path: Path) -> None:
    files = cifar_files("cifar10")
    files["test_batch"] = b"cnumpy\nndarray\n((I1\ntcnumpy\ndtype\n(Vu1\ntRtR."
    _, md5 = write_cifar(tmp_path, "cifar10", files)
    with pytest.raises(InputError, match="holds more than arrays and plain values"):
        open_source("cifar10", tmp_path, md5).load("test")


def test_bytes_come_in_one_encoding(tmp_path: Path) -> None:
    files = cifar_files("cifar10")
    files["test_batch"] = b"c_codecs\nencode\n(X\x01\0\0\0aX\x03\0\0\0hextR."
    _, md5 = write_cifar(tmp_path, "cifar10", files)
    with pytest.raises(InputError, match="it asks for the encoding 'hex'"):
        open_source("cifar10", tmp_path, md5).load("test")


def damaged_cifar(how: str) -> dict[str, Any]:
    files = cifar_files("cifar10")
    part = files["data_batch_2"]
    match how:
        case "absent":
            del files["data_batch_2"]
        case "label":
            part[b"labels"][7] = 10
        case "kind":
            part[b"labels"][7] = b"cat"
        case "count":
            part[b"labels"].pop()
        case "floats":
            part[b"data"] = part[b"data"].astype(np.float32)
        case "narrow":
            part[b"data"] = part[b"data"][:, :-1]
        case "list":
            files["data_batch_2"] = [1, 2]
        case "cut":
            files["data_batch_2"] = python_two_pickle(part)[:-100]
        case "names":
            files["batches.meta"][b"label_names"].pop()
    return files


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("absent", "lacks a file: .*data_batch_2"),
        ("label", r"\(train\) has label 10; labels must lie in 0 to 9"),
        ("kind", "data_batch_2 in .* does not hold as many labels as rows of 3072 bytes"),
        ("count", "data_batch_2 in .* does not hold"),
        ("floats", "data_batch_2 in .* asks for an array of 'f4', and pixels are bytes"),
        ("narrow", "data_batch_2 in .* does not hold"),
        ("list", "data_batch_2 in .* holds a list and not a dictionary"),
        ("cut", "data_batch_2 in .* was not loaded"),
        ("names", "does not name 10 classes"),
    ],
)
def test_damaged_cifar_archives(how: str, message: str, tmp_path: Path) -> None:
    _, md5 = write_cifar(tmp_path, "cifar10", damaged_cifar(how))
    with pytest.raises(InputError, match=message):
        open_source("cifar10", tmp_path, md5).load("train")


def test_an_archive_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"no archive")
    with pytest.raises(InputError, match="is a damaged archive"):
        open_source("cifar10", tmp_path, hashlib.md5(b"no archive").hexdigest())
    with pytest.raises(InputError, match=r"there is no file .*cifar-100-python\.tar\.gz; fetch"):
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
    assert_wrong_usage(call("evaluate", checkpoint, "--dataset", "digits"), "tells 0, 1, 2, 3 apart")


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
