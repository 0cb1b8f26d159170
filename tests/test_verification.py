"""Damaged pictures are found before training, once, by all cores; what was found is remembered."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from image_sets import write_image_folder
from PIL import Image

from snnmlp_edu.data import verification
from snnmlp_edu.data.files import cache_folder, remembered
from snnmlp_edu.data.image_folder import as_pictures, list_images
from snnmlp_edu.data.picture_sets import FilePictures
from snnmlp_edu.data.verification import examine, find_damage, only_sound
from snnmlp_edu.data.workers import parallel_map
from snnmlp_edu.errors import InputError


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SNNMLP_CACHE", str(tmp_path / "cache"))
    return write_image_folder(tmp_path / "photos", train=4, val=1)


def training_part(folder: Path) -> FilePictures:
    return as_pictures(folder, list_images(folder)[0]["train"])


def never(*_: object, **__: object) -> None:
    raise AssertionError("it was read again")


def test_sound_files_are_read_once(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_damage(training_part(photos)) == {}
    with monkeypatch.context() as patch:
        patch.setattr(verification, "read_picture", never)
        assert find_damage(training_part(photos)) == {}
        with pytest.raises(AssertionError, match="read again"):
            examine(training_part(photos), again=True)
    changed = photos / "train" / "bee" / "bee 002.jpg"
    changed.write_bytes(changed.read_bytes()[:-300])
    damaged = find_damage(training_part(photos))
    assert list(damaged) == [6]
    assert str(changed) in damaged[6]
    monkeypatch.setattr(verification, "read_picture", never)
    assert find_damage(training_part(photos)) == damaged, "damage is remembered too"


def test_a_file_changed_in_place_is_read_again(photos: Path) -> None:
    file = photos / "train" / "ant" / "ant 001.jpg"
    facts = file.stat()
    assert find_damage(training_part(photos)) == {}
    content = bytearray(file.read_bytes())
    content[:4] = b"\0\0\0\0"
    file.write_bytes(content)
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))
    assert list(find_damage(training_part(photos))) == [1]


def test_many_files_are_shared_out_among_workers(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "FEW", 0)
    monkeypatch.setattr(verification, "CHUNK", 3)
    (photos / "train" / "cat" / "cat 000.jpg").write_bytes(b"")
    damaged = find_damage(training_part(photos))
    assert list(damaged) == [8]
    assert "cat 000.jpg is empty" in damaged[8]


def test_a_header_that_promises_too_much_is_damage(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # every picture is a bomb now
    damaged = find_damage(training_part(photos))
    assert len(damaged) == len(training_part(photos).names)


def test_nothing_is_read_where_nothing_is_asked(photos: Path) -> None:
    (photos / "train" / "ant" / "ant 000.jpg").write_bytes(b"")
    assert find_damage(training_part(photos), "none") == {}


def test_leaving_out_keeps_labels_and_names_together(photos: Path) -> None:
    (photos / "train" / "ant" / "ant 003.jpg").write_bytes(b"")
    (photos / "train" / "cat" / "cat 000.jpg").write_bytes(b"x")
    whole = training_part(photos)
    kept, lines = only_sound(whole, "decode", skip=True)
    assert len(lines) == 2
    assert kept.labels.tolist() == [0] * 3 + [1] * 4 + [2] * 3
    for index, label in enumerate(kept.labels.tolist()):
        assert ("ant", "bee", "cat")[label] in str(kept.file(index))
    with pytest.raises(InputError, match=r"ant 003\.jpg is empty.* \(2 of 12 images damaged: 'snnmlp data"):
        only_sound(whole, "decode", skip=False)


def test_nothing_is_remembered_where_the_cache_cannot_be_written(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "file").write_text("")
    monkeypatch.setenv("SNNMLP_CACHE", str(photos / "file"))
    (photos / "train" / "ant" / "ant 003.jpg").write_bytes(b"")
    for _ in range(2):
        assert list(find_damage(training_part(photos))) == [3]


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SNNMLP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "snnmlp-edu"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "snnmlp-edu"
    with remembered("a") as first, remembered("b") as second:
        assert first != second


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_calls_keep_their_order(workers: int) -> None:
    assert list(parallel_map(str, list(range(7)), workers)) == ["0", "1", "2", "3", "4", "5", "6"]
