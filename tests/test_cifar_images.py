"""`snnmlp data prepare cifar10 --from-images`: the published files from PNGs, and what is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_cli import assert_wrong_usage, call
from test_reading_faults import png

from snnmlp_edu.data.cifar import CIFAR
from snnmlp_edu.data.cifar_images import CIFAR10_NAMES, NAMES, SUPERCLASS_OF
from snnmlp_edu.data.datasets import dataset_sha256
from snnmlp_edu.data.sources import open_source

EACH = {"train": 10, "test": 2}  # images of a class


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, form in CIFAR.items():
        images = {split: each * form.classes for split, each in EACH.items()}
        monkeypatch.setitem(CIFAR, kind, dataclasses.replace(form, images=images))


def pixels_of(split: str, label: int, index: int) -> np.ndarray:
    return np.random.default_rng([len(split), label, index]).integers(0, 256, (32, 32, 3), dtype=np.uint8)


def in_folders(split: str, name: str, index: int) -> str:
    return f"{split}/{name}/{index}.png"


def write(folder: Path, kind: str, path: Callable[[str, str, int], str] = in_folders) -> Path:
    for split, each in EACH.items():
        for label, name in enumerate(NAMES[kind]):
            for index in range(each):
                file = folder / path(split, name, index)
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels_of(split, label, index)).save(file)
    return folder


def written(place: Path, kind: str, split: str) -> np.ndarray:
    """The records in the files of a split, one after another."""
    content = b"".join((place / name).read_bytes() for name in CIFAR[kind].parts[split])  # type: ignore[index]
    return np.frombuffer(content, np.uint8).reshape(-1, CIFAR[kind].label_bytes + 3072)


def prepare(kind: str, folder: Path, place: Path) -> tuple[int, str, str]:
    return call("data", "prepare", kind, place, "--from-images", folder)


@pytest.mark.parametrize("kind", ["cifar10", "cifar100"])
def test_the_published_files_are_written_class_by_class(kind: str, tmp_path: Path) -> None:
    code, out, err = prepare(kind, write(tmp_path / "png", kind), tmp_path / "data")
    assert code == 0, err
    place = tmp_path / "data" / CIFAR[kind].folder
    assert str(place) in out
    assert list((tmp_path / "data").iterdir()) == [place], "no temporary folder is left"
    source = open_source(kind, tmp_path / "data")
    assert source.class_names == NAMES[kind]
    for split, each in EACH.items():
        records = written(place, kind, split)
        assert len(source.load(split).labels) == len(records)  # type: ignore[arg-type]
        labels = records[:, -3073]
        assert labels.tolist() == [label for label in range(len(NAMES[kind])) for _ in range(each)]
        for number in range(len(labels)):  # 10.png would stand after 9.png
            expected = pixels_of(split, number // each, number % each).transpose(2, 0, 1)
            assert np.array_equal(records[number, -3072:], expected.flatten())
    if kind == "cifar100":
        first = (place / "train.bin").read_bytes()
        coarse = first[::3074][:: EACH["train"]]
        assert [coarse[i] for i in (0, 1, 99)] == [4, 1, 13]  # apple: fruit; aquarium_fish: fish; worm
        assert (place / "coarse_label_names.txt").read_text().splitlines()[4] == "fruit_and_vegetables"
        assert np.bincount(list(SUPERCLASS_OF.values())).tolist() == [5] * 20


def test_numbers_in_names_are_compared_as_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EACH, "train", 12)
    form = dataclasses.replace(CIFAR["cifar10"], images={"train": 120, "test": 20})
    monkeypatch.setitem(CIFAR, "cifar10", form)
    assert prepare("cifar10", write(tmp_path / "png", "cifar10"), tmp_path / "data")[0] == 0
    pixels = written(tmp_path / "data" / CIFAR["cifar10"].folder, "cifar10", "train")[2, 1:]
    assert np.array_equal(pixels.reshape(3, 32, 32).transpose(1, 2, 0), pixels_of("train", 0, 2)), (
        "2 before 10"
    )


@pytest.mark.parametrize(
    "path",
    [
        lambda split, name, index: f"{split}/{index:05}_{name}.png",
        lambda split, name, index: f"{split}/{name}_{index}.png",
        lambda split, name, index: f"{split}/vehicles_1/{name}/{index}.png",
    ],
    ids=["number first", "number last", "deeper"],
)
def test_other_folders_of_the_same_images_give_the_same_files(
    path: Callable[[str, str, int], str], tmp_path: Path
) -> None:
    for name, layout in (("a", in_folders), ("b", path)):
        code, _, err = prepare("cifar10", write(tmp_path / name, "cifar10", layout), tmp_path / f"of {name}")
        assert code == 0, err
    for file in (tmp_path / "of a" / CIFAR["cifar10"].folder).iterdir():
        assert file.read_bytes() == (tmp_path / "of b" / file.parent.name / file.name).read_bytes()


def test_images_are_loaded_in_one_order_whatever_that_of_the_files(tmp_path: Path) -> None:
    assert prepare("cifar10", write(tmp_path / "png", "cifar10"), tmp_path)[0] == 0
    found = [open_source("cifar10", tmp_path).load(split) for split in ("train", "test")]
    files = [tmp_path / CIFAR["cifar10"].folder / f"data_batch_{i}.bin" for i in range(1, 6)]
    records = written(files[0].parent, "cifar10", "train")
    shuffled = np.random.default_rng(1).permutation(records)
    for file, part in zip(files, np.split(shuffled, 5), strict=True):
        file.write_bytes(part.tobytes())
    again = [open_source("cifar10", tmp_path).load(split) for split in ("train", "test")]
    assert dataset_sha256(*again) == dataset_sha256(*found)
    pairs = {(int(record[0]), record[1:].tobytes()) for record in records}
    assert pairs == {(int(n), image.numpy().tobytes()) for image, n in zip(*again[0], strict=True)}
    assert len(set(again[0].labels[:10].tolist())) > 1, "the first images are not all of one class"


def spoil(folder: Path, how: str) -> str:
    """Mend nothing but one thing; what the line must say."""
    cat = folder / "train" / "cat"
    match how:
        case "class":
            for file in cat.iterdir():
                file.unlink()
            return r"train holds 0 images of cat, expected 10"
        case "fewer":
            (cat / "3.png").unlink()
            return r"train holds 9 images of cat, expected 10"
        case "more":
            Image.new("RGB", (32, 32)).save(folder / "test" / "dog" / "more.png")
            return r"test holds 3 images of dog, expected 2"
        case "size":
            Image.new("RGB", (32, 31)).save(cat / "3.png")
            return r"cat/3\.png is PNG RGB of 32 x 31 pixels"
        case "grey":
            Image.new("L", (32, 32)).save(cat / "3.png")
            return r"cat/3\.png is PNG L of 32 x 32"
        case "16 bits":
            (cat / "3.png").write_bytes(png(32, 32, 2, (b"\0" + bytes(32 * 6)) * 32))
            return r"cat/3\.png is PNG RGB .* 8 bits"
        case "jpeg":
            Image.new("RGB", (32, 32)).save(cat / "3.png", "JPEG")
            return r"cat/3\.png is JPEG RGB"
        case "text":
            (cat / "3.png").write_text("no image")
            return r"cat/3\.png is not an image"
        case "cut":
            (cat / "3.png").write_bytes((cat / "3.png").read_bytes()[:900])
            return r"cat/3\.png cannot be read"
        case "duplicate":
            (cat / "3.png").write_bytes((folder / "test" / "dog" / "1.png").read_bytes())
            return r"test/dog/1\.png holds the same image as .*train/cat/3\.png"
        case "stranger":
            (folder / "train" / "cow").mkdir()
            Image.new("RGB", (32, 32)).save(folder / "train" / "cow" / "1.png")
            return r"cow/1\.png is not of a class of cifar10"
        case "split":
            (folder / "test").rename(folder / "exam")
            return r"there is no folder .*test"
    raise AssertionError(how)


@pytest.mark.parametrize(
    "how",
    [
        "class",
        "fewer",
        "more",
        "size",
        "grey",
        "16 bits",
        "jpeg",
        "text",
        "cut",
        "duplicate",
        "stranger",
        "split",
    ],
)
def test_what_is_no_cifar_is_refused_and_nothing_is_left(how: str, tmp_path: Path) -> None:
    message = spoil(write(tmp_path / "png", "cifar10"), how)
    assert_wrong_usage(prepare("cifar10", tmp_path / "png", tmp_path / "data"), message)
    assert not (tmp_path / "data").exists() or not list((tmp_path / "data").iterdir())


def test_files_that_are_there_stay(tmp_path: Path) -> None:
    write(tmp_path / "png", "cifar10")
    (tmp_path / CIFAR["cifar10"].folder).mkdir()
    assert_wrong_usage(
        prepare("cifar10", tmp_path / "png", tmp_path), "cifar-10-batches-bin is already there"
    )
    words = ("data", "prepare", "cifar10", tmp_path, "--from-images", tmp_path, "--mirror", "http://a/")
    assert_wrong_usage(call(*words), "leave out --mirror")
    assert CIFAR10_NAMES[3] == "cat"
