"""WebDataset shards: written and read as the package webdataset does, and trained on exactly."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st
from image_sets import write_image_folder
from PIL import Image
from test_cli import assert_wrong_usage, call
from test_image_folders import RECIPE, train, workers
from test_resume import PowerCut, at_step, cut_power, outcome

from snnmlp_edu.data.shards import ShardPictures, index_shards, shard_files
from snnmlp_edu.data.sources import open_source
from snnmlp_edu.errors import InputError
from snnmlp_edu.training import fit
from snnmlp_edu.training.orders import SHARDS_AT_ONCE, shuffled

IN_ORDER: dict[str, Any] = {"shardshuffle": False, "empty_check": False}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_image_folder(tmp_path_factory.mktemp("folders") / "photos ä")


@pytest.fixture(scope="module")
def shards(photos: Path) -> Path:
    place = photos.parent / "shards ä"
    code, out, err = call("data", "prepare", "shards", place, "--from", photos, "--per-shard", 10)
    assert code == 0, err
    assert f"7 shards in {place}" in out  # 48 and 12 pictures in shards of 10
    return place


def jpeg(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (20, 24), (shade, shade, shade)).save(file, "JPEG")
    return file.getvalue()


def write_by_webdataset(file: Path, samples: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with webdataset.TarWriter(str(file)) as sink:
        for sample in samples:
            sink.write(sample)


# --- the format --------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # by the package, which closes none
# webdataset leaves its open files to the garbage collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_is_written_is_read_by_the_package_webdataset(photos: Path, shards: Path) -> None:
    by_name = {}
    for file in sorted(shards.glob("*.tar")):
        samples = list(webdataset.WebDataset(str(file), **IN_ORDER))
        assert len(samples) in (10, 8, 2)
        by_name[file.name] = samples
    originals = {
        split: {
            file.read_bytes(): number
            for number, name in enumerate(("ant", "bee", "cat"))
            for file in (photos / split / name).iterdir()
        }
        for split in ("train", "val")
    }
    for split, expected in originals.items():
        found = {
            sample["jpg"]: int(sample["cls"])
            for name, samples in by_name.items()
            for sample in samples
            if name.startswith(split)
        }
        assert found == expected, "every file as it was, with the number of its class"
    first = {int(sample["cls"]) for sample in by_name["train-000000.tar"]}
    assert len(first) == 3, "classes are mixed"


def test_what_the_package_webdataset_writes_is_read(tmp_path: Path) -> None:
    for split, count in (("train", 6), ("validation", 3)):
        samples = [
            {"__key__": f"deep/er/{i:03}", "jpg": jpeg(10 * i), "cls": i % 3, "json": {"a": 1}}
            for i in range(count)
        ]
        write_by_webdataset(tmp_path / f"imagenet-{split}-0.tar", samples)
    source = open_source("webdataset", tmp_path)
    assert source.class_names == ("0", "1", "2")
    pictures = source.pictures("train")
    assert pictures.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert pictures.name(4).endswith("imagenet-train-0.tar: deep/er/004.jpg")
    assert pictures.source(3) == jpeg(30)
    assert np.asarray(pictures.read(3, 1)).mean() == pytest.approx(30, abs=1)
    assert len(source.pictures("test").labels) == 3


def test_long_and_strange_names(tmp_path: Path) -> None:
    key = "ordner ä/" + "x" * 150
    samples = [{"__key__": f"{key}{i}", "png": picture_bytes(i), "cls": i} for i in range(2)]
    write_by_webdataset(tmp_path / "train.tar", samples)
    write_by_webdataset(tmp_path / "val.tar", samples)
    pictures = open_source("webdataset", tmp_path).pictures("train")
    assert pictures.names[1] == f"{key}1.png"
    again = index_shards([tmp_path / "train.tar"])
    assert again.names == list(pictures.names), "as it was remembered"


def picture_bytes(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (5, 4), shade).save(file, "PNG")
    return file.getvalue()


def test_the_same_pictures_give_the_same_shards_and_a_second_call_finds_them(
    photos: Path, shards: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    prepare = ("data", "prepare", "shards", again, "--from", photos, "--per-shard", 10)
    assert call(*prepare)[0] == 0
    contents = {file.name: file.read_bytes() for file in again.glob("*.tar")}
    assert contents == {file.name: file.read_bytes() for file in shards.glob("*.tar")}
    times = {file: file.stat().st_mtime_ns for file in again.iterdir()}
    assert call(*prepare)[0] == 0
    assert times == {file: file.stat().st_mtime_ns for file in again.iterdir()}
    assert_wrong_usage(call(*prepare[:-1], 11), "holds shards of other images, or other ones of these")
    assert_wrong_usage(call(*prepare[:-1], 0), "there are to be 0 images in a shard; give at least 1")


def test_a_call_that_was_cut_off_is_finished_by_the_next(photos: Path, shards: Path, tmp_path: Path) -> None:
    half = tmp_path / "half"
    half.mkdir()
    (half / ".train-000002.tar.77").write_bytes(b"half a shard")
    (half / "train-000000.tar").write_bytes((shards / "train-000000.tar").read_bytes())
    code, _, err = call("data", "prepare", "shards", half, "--from", photos, "--per-shard", 10)
    assert code == 0, err
    for file in shards.iterdir():
        assert (half / file.name).read_bytes() == file.read_bytes()
    assert not list(half.glob(".*")), "what was left half done is gone"


def test_a_shard_that_got_lost_is_written_again(photos: Path, shards: Path, tmp_path: Path) -> None:
    place = tmp_path / "lossy"
    prepare = ("data", "prepare", "shards", place, "--from", photos, "--per-shard", 10)
    assert call(*prepare)[0] == 0
    lost, kept = place / "train-000001.tar", place / "train-000000.tar"
    lost.unlink()
    written = kept.stat().st_mtime_ns
    assert call(*prepare)[0] == 0
    assert lost.read_bytes() == (shards / lost.name).read_bytes()
    assert kept.stat().st_mtime_ns == written, "what is there is not written twice"
    (place / "prepared.json").write_bytes(b"")
    assert_wrong_usage(call(*prepare), r"prepared\.json is damaged .*; delete it")


def test_shards_are_not_mixed_with_others(photos: Path, tmp_path: Path) -> None:
    write_by_webdataset(tmp_path / "mine" / "other-000.tar", [{"__key__": "a", "jpg": jpeg(1), "cls": 0}])
    message = r"mine already holds other-000\.tar; choose an empty folder"
    assert_wrong_usage(call("data", "prepare", "shards", tmp_path / "mine", "--from", photos), message)


# --- training ----------------------------------------------------------------------------------------


def test_a_cut_run_over_shards_goes_on_bit_by_bit(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(shards, tmp_path, dataset="webdataset", **workers(0))
    assert whole.test_total == 12
    at_step(3, "loss_of", cut_power, monkeypatch)
    with pytest.raises(PowerCut):
        train(shards, tmp_path, dataset="webdataset", **workers(2))
    resumed = fit(resume=tmp_path / "photos-0-2", progress=False, **workers(1))
    assert outcome(resumed) == outcome(whole)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 300), st.integers(1, 60))
def test_an_epoch_reads_few_shards_at_a_time(count: int, files: int) -> None:
    shards = torch.arange(count) % files
    order = shuffled(count, torch.Generator().manual_seed(count), shards)
    assert sorted(order.tolist()) == list(range(count)), "every picture once"
    touched = shards[order]
    first = {int(shard): int((touched == shard).nonzero()[0]) for shard in touched.unique()}
    last = {int(shard): int((touched == shard).nonzero()[-1]) for shard in touched.unique()}
    for place in range(count):
        assert sum(first[s] <= place <= last[s] for s in first) <= SHARDS_AT_ONCE


# --- what is wrong -----------------------------------------------------------------------------------


def member(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


def damaged(place: Path, how: str) -> str:
    """Shards with one thing wrong; the line that opening them must answer with."""
    good = [{"__key__": f"{i}", "jpg": jpeg(i), "cls": i} for i in range(3)]
    write_by_webdataset(place / "train-0.tar", good)
    write_by_webdataset(place / "val-0.tar", good)
    file = place / "train-0.tar"
    match how:
        case "cut off":
            file.write_bytes(file.read_bytes()[:1200])
            return r"train-0\.tar is (cut off in|a damaged tar archive)"
        case "no tar":
            file.write_text("no archive")
            return r"train-0\.tar is a damaged tar archive"
        case "compressed":
            with tarfile.open(file, "w:gz") as archive:
                member(archive, "0.jpg", jpeg(0))
            return r"train-0\.tar is a damaged tar archive"
        case "no label" | "no picture" | "words":
            with tarfile.open(file, "w") as archive:
                if how != "no picture":
                    member(archive, "a/0.jpg", jpeg(0))
                if how != "no label":
                    member(archive, "a/0.cls", b"cat" if how == "words" else b"0")
            return {
                "no label": r"sample a/0 has no \.cls with its class",
                "no picture": "sample a/0 has no picture",
                "words": r"a/0\.cls holds b'cat' and no class number",
            }[how]
        case "label":
            (place / "classes.txt").write_text("ant\nbee\n")
            return r"train-0\.tar: 2\.jpg has label 2; labels must lie in 0 to 1"
        case "negative label":
            write_by_webdataset(file, [{"__key__": "0", "jpg": jpeg(0), "cls": -1}, *good[1:]])
            return r"train-0\.tar: 0\.jpg has label -1; labels must lie in 0 to 2"
        case "no val":
            (place / "val-0.tar").unlink()
            return r"holds no shard of test images, such as val-000000\.tar"
        case "hollow":
            write_by_webdataset(file, [])
            return "the shards of train images in .* hold no sample"
    raise AssertionError(how)


@pytest.mark.parametrize(
    "how",
    [
        "cut off",
        "no tar",
        "compressed",
        "no label",
        "no picture",
        "words",
        "label",
        "negative label",
        "no val",
        "hollow",
    ],
)
def test_damaged_shards(how: str, tmp_path: Path) -> None:
    message = damaged(tmp_path / "shards", how)
    with pytest.raises(InputError, match=message):
        open_source("webdataset", tmp_path / "shards")
    if how != "no val":
        code, out, _ = call("data", "describe", tmp_path / "shards")
        assert code == 1
        assert out.count("\n") < 8


def test_a_damaged_picture_in_a_shard_is_named(tmp_path: Path) -> None:
    cut = jpeg(3)[:300]
    samples = [{"__key__": f"{i}", "jpg": cut if i == 4 else jpeg(i), "cls": i % 2} for i in range(6)]
    write_by_webdataset(tmp_path / "train-0.tar", samples)
    write_by_webdataset(tmp_path / "val-0.tar", samples[:4])
    with pytest.raises(InputError, match=r"train-0\.tar: 4\.jpg cannot be read: .* \(1 of 6 images damaged"):
        open_source("webdataset", tmp_path).pictures("train")
    pictures = open_source("webdataset", tmp_path, skip_corrupt=True).pictures("train")
    assert isinstance(pictures, ShardPictures)
    assert list(pictures.names) == ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "5.jpg"]
    code, out, _ = call("data", "verify", tmp_path)
    assert code == 1
    assert f"{tmp_path} (webdataset): 1 problems, 10 images counted" in out


def test_a_shard_that_goes_away_is_named(tmp_path: Path) -> None:
    samples = [{"__key__": f"{i}", "jpg": jpeg(i), "cls": i} for i in range(2)]
    for split in ("train", "val"):
        write_by_webdataset(tmp_path / f"{split}-0.tar", samples)
    pictures = open_source("webdataset", tmp_path, verify="none").pictures("train")
    (tmp_path / "train-0.tar").unlink()
    with pytest.raises(InputError, match=r"train-0\.tar cannot be read: No such file"):
        pictures.read(0, 3)
    assert RECIPE.loading.workers is None


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("training", "train"),
        ("testing", "test"),
        ("valid", "test"),
        ("validation", "test"),
        ("untested", None),
    ],
)
def test_longer_forms_of_the_names_of_splits(name: str, split: str | None, tmp_path: Path) -> None:
    (tmp_path / f"{name}-0.tar").touch()
    assert [part for part, files in shard_files(tmp_path).items() if files] == [split][: split is not None]


def test_names_of_shards_are_read_by_whole_words(tmp_path: Path) -> None:
    names = ("retrieval-train-000000.tar", "retrieval-val-000000.tar", "train/medieval_0.tar", "latest.tar")
    (tmp_path / "train").mkdir()
    for name in names:
        (tmp_path / name).touch()
    assert shard_files(tmp_path) == {
        "train": [tmp_path / names[0], tmp_path / names[2]],
        "test": [tmp_path / names[1]],
    }
    (tmp_path / "train" / "val-0.tar").touch()
    with pytest.raises(InputError, match=r"val-0\.tar says both train and val; rename it or its folder"):
        shard_files(tmp_path)
