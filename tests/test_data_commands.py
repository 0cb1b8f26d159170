"""`snnmlp data describe|verify`: what is there, and everything that is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from image_sets import cifar_files, write_cifar, write_idx
from PIL import Image
from test_cli import assert_wrong_usage, call


def picture(file: Path, mode: str = "RGB") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(file)
    return file


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes in two splits, with every kind of picture that is converted."""
    root = tmp_path / "my photos äöü"
    for split in ("train", "val"):
        for name, mode in (("grey", "L"), ("palette", "P"), ("alpha", "RGBA"), ("colour", "RGB")):
            picture(root / split / "cats and dogs" / f"{name}.png", mode)
        picture(root / split / "鳥" / "ink.tif", "CMYK")
    picture(root / "train" / "鳥" / "deeper" / "one.jpg")
    (root / "train" / "鳥" / ".DS_Store").write_bytes(b"hidden")
    Image.new("L", (1, 1)).save(root / "train" / "鳥" / "dot.png")
    return root


# --- whole -------------------------------------------------------------------------------------------


def test_a_whole_image_folder(photos: Path) -> None:
    code, out, err = call("data", "verify", photos)
    assert (code, err) == (0, "")
    assert out == f"{photos} (image folder): 12 images, all can be read\n"
    code, out, _ = call("data", "describe", photos, "--json")
    assert code == 0
    facts = json.loads(out)
    assert facts["counts"] == {"train": {"cats and dogs": 4, "鳥": 3}, "val": {"cats and dogs": 4, "鳥": 1}}
    assert (facts["images"], facts["problems"]) == (12, [])


def test_class_folders_without_splits(photos: Path) -> None:
    facts = json.loads(call("data", "describe", photos / "val", "--json")[1])
    assert facts["counts"] == {"all": {"cats and dogs": 4, "鳥": 1}}


@pytest.mark.parametrize(
    ("name", "train", "test", "shape"),
    [
        ("embedded", 6000, 1000, [1, 28, 28]),
        ("digits", 1198, 599, [1, 32, 32]),
        ("digit_pairs", 8000, 2000, [1, 64, 64]),
    ],
)
def test_shipped_sets(name: str, train: int, test: int, shape: list[int]) -> None:
    code, out, _ = call("data", "describe", name, "--json")
    assert code == 0
    facts = json.loads(out)
    assert facts["kind"] == name
    assert sum(facts["counts"]["train"].values()) == train
    assert sum(facts["counts"]["test"].values()) == test
    assert facts["shapes"] == {"train": shape, "test": shape}
    assert call("data", "verify", name)[1] == f"{name} ({name}): {train + test:,} images, all can be read\n"


def test_idx_folder_as_a_table(tmp_path: Path) -> None:
    code, out, _ = call("data", "describe", write_idx(tmp_path / "letters", train=42))
    assert code == 0
    row = next(line for line in out.splitlines() if "train" in line)
    assert " ".join(row.replace("│", " ").split()) == "train 42 4 10 to 11 1 x 28 x 28"


def test_cifar_archive_or_its_folder(tmp_path: Path) -> None:
    path, md5 = write_cifar(tmp_path, "cifar10", cifar_files("cifar10", images=20))
    for place in (path, tmp_path):
        code, out, _ = call("data", "verify", place, "--md5", md5)
        assert code == 0
        assert out == f"{place} (cifar10): 120 images, all can be read\n"
    code, out, _ = call("data", "verify", path)
    assert code == 1
    assert f"has MD5 {md5}, expected c32a1d4ab5d03f1284b67883e8d87530" in out


# --- damaged -----------------------------------------------------------------------------------------


def test_every_corrupt_image_is_found_by_its_path(photos: Path) -> None:
    whole = picture(photos / "train" / "cats and dogs" / "whole.jpg").read_bytes()
    bad = {
        photos / "train" / "cats and dogs" / "cut.jpg": whole[: len(whole) // 2],
        photos / "train" / "鳥" / "text.png": b"this is no image",
        photos / "val" / "鳥" / "deeper" / "empty.png": b"",
    }
    for file, content in bad.items():
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
    loop = photos / "val" / "鳥" / "loop.png"
    loop.symlink_to(loop)
    code, out, err = call("data", "verify", photos)
    assert (code, err) == (1, "")
    *lines, summary = out.splitlines()
    assert sorted(
        file for file in [*map(str, bad), str(loop)] if any(file in line for line in lines)
    ) == sorted([*map(str, bad), str(loop)])
    assert len(lines) == 4
    assert summary.endswith("4 problems, 17 images counted")
    code, text, _ = call("data", "verify", photos, "--json")
    assert code == 1
    assert json.loads(text)["problems"] == lines


def test_folders_that_do_not_belong_together(photos: Path) -> None:
    (photos / "train" / "empty").mkdir()
    picture(photos / "val" / "fish" / "a.png")
    (photos / "val" / "fish" / "up").symlink_to(photos / "val", target_is_directory=True)
    for command in ("describe", "verify"):
        code, out, _ = call("data", command, photos)
        assert code == 1
        assert f"{photos / 'train' / 'empty'} holds no image" in out
        assert f"{photos / 'train'} lacks the classes fish, which another split has" in out
        assert f"{photos / 'val'} lacks the classes empty, which another split has" in out
        assert f"{photos / 'val' / 'fish' / 'up'} is a link to a folder above it; remove it" in out


def test_both_parts_of_an_idx_folder_are_checked(tmp_path: Path) -> None:
    folder = write_idx(tmp_path)
    images = folder / "train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:-1])
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    code, out, _ = call("data", "verify", folder)
    assert code == 1
    assert "train-images-idx3-ubyte holds 31359 values" in out
    assert "one idx file of test labels" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["verify", "absent"], "there is nothing at absent; give a path, or one of embedded, digits"),
        (["describe", "notes.txt"], r"notes\.txt is not a known data set.*cifar-10-binary\.tar\.gz"),
        (["verify", "hollow"], "hollow holds no folder of a class"),
        (["verify"], "(?i)missing argument .path"),
        (["clean", "x"], "No such command 'clean'"),
    ],
)
def test_wrong_calls_get_one_line(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("no data")
    Path("hollow").mkdir()
    assert_wrong_usage(call("data", *words), message)


def test_two_archives_in_one_folder(tmp_path: Path) -> None:
    for kind in ("cifar10", "cifar100"):
        write_cifar(tmp_path, kind, cifar_files(kind, images=1))
    assert_wrong_usage(call("data", "verify", tmp_path), "holds cifar10 and cifar100; give the path of one")


@pytest.mark.parametrize("command", ["describe", "verify"])
def test_every_command_has_an_example(command: str) -> None:
    code, out, _ = call("data", command, "--help")
    assert code == 0
    assert f"Example: snnmlp data {command}" in out


def test_a_split_without_classes_is_reported(tmp_path: Path) -> None:
    for name in ("train/ant", "train/cat", "val/ant", "val/cat", "test"):
        (tmp_path / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name / "0.png")
    code, out, err = call("data", "verify", tmp_path)
    assert code == 1, (out, err)
    assert "Traceback" not in err
    assert "test" in out + err
