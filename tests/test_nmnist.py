"""Recordings of a real event camera: the published format, their steps, and what is shipped."""

from __future__ import annotations

import importlib.util
import io
import zipfile
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from snnmlp_edu import data
from snnmlp_edu.data import files
from snnmlp_edu.data.nmnist import (
    RECORDINGS,
    Events,
    bin_events,
    load_nmnist,
    parse_nmnist_events,
    read_nmnist_events,
)
from snnmlp_edu.errors import InputError

EVENT = st.tuples(st.integers(0, 33), st.integers(0, 33), st.integers(0, 1), st.integers(0, 2**23 - 1))


def encode(events: list[tuple[int, int, int, int]]) -> bytes:
    """The published format, as one number of 40 bits for each event."""
    return b"".join((x << 32 | y << 24 | p << 23 | t).to_bytes(5, "big") for x, y, p, t in events)


def columns(events: list[tuple[int, int, int, int]]) -> Events:
    return Events(*torch.tensor(events, dtype=torch.int64).view(-1, 4).unbind(1))


def test_events_of_bytes_by_hand() -> None:
    content = bytes([3, 33, 0x81, 0x02, 0x03]) + bytes([33, 0, 0x7F, 0xFF, 0xFF])
    events = parse_nmnist_events(content, "two events")
    assert events.x.tolist() == [3, 33]
    assert events.y.tolist() == [33, 0]
    assert events.polarity.tolist() == [1, 0]
    assert events.time.tolist() == [65_536 + 2 * 256 + 3, 2**23 - 1]
    assert all(each.dtype == torch.int64 for each in events)


@given(st.lists(EVENT, min_size=1, max_size=30))
def test_what_is_written_in_the_format_is_read_back(events: list[tuple[int, int, int, int]]) -> None:
    read = parse_nmnist_events(encode(events), "events")
    assert list(zip(*(each.tolist() for each in read), strict=True)) == events


@pytest.mark.parametrize("extra", [1, 2, 3, 4])
def test_a_file_that_is_cut_short_is_refused(extra: int, tmp_path: Path) -> None:
    file = tmp_path / "00007.bin"
    file.write_bytes(encode([(1, 2, 1, 3)] * 2)[: 5 + extra])
    with pytest.raises(InputError, match=rf"00007\.bin has {5 + extra} bytes.*cut short"):
        read_nmnist_events(file)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "00007.bin").touch()
    with pytest.raises(InputError, match=r"00007\.bin is empty"):
        read_nmnist_events(tmp_path / "00007.bin")


@pytest.mark.parametrize(("x", "y"), [(34, 0), (0, 34), (255, 255)])
def test_the_first_event_outside_of_the_sensor_is_named(x: int, y: int) -> None:
    content = encode([(33, 33, 1, 5), (x, y, 0, 6), (200, 200, 0, 7)])
    with pytest.raises(InputError, match=rf"odd\.bin has event 1 at column {x}, row {y}, outside .* 34 x 34"):
        parse_nmnist_events(content, "odd.bin")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no file .*00008\.bin"):
        read_nmnist_events(tmp_path / "00008.bin")
    with pytest.raises(InputError, match="there is no file"):
        read_nmnist_events(tmp_path)


def test_steps_by_hand() -> None:
    """At 10 us a step: two events of one place make one 1, time 10 is in step 1, and time 20 is too late."""
    events = columns([(5, 7, 1, 0), (5, 7, 1, 9), (5, 7, 0, 9), (0, 33, 0, 10), (1, 1, 1, 20)])
    binned = bin_events(events, steps=2, microseconds=10)
    assert (binned.shape, binned.dtype) == ((2, 2, 34, 34), torch.float32)
    assert binned.nonzero().tolist() == [[0, 0, 7, 5], [0, 1, 7, 5], [1, 1, 33, 0]]
    assert binned.unique().tolist() == [0, 1]


@given(st.lists(EVENT, max_size=30), st.integers(1, 5), st.integers(1, 2**22))
def test_a_place_holds_a_one_where_an_event_fell(
    events: list[tuple[int, int, int, int]], steps: int, microseconds: int
) -> None:
    wanted = {(t // microseconds, 1 - p, y, x) for x, y, p, t in events if t < steps * microseconds}
    found = bin_events(columns(events), steps, microseconds).nonzero().tolist()
    assert {tuple(place) for place in found} == wanted


def test_steps_that_are_none() -> None:
    events = columns([(0, 0, 0, 0)])
    with pytest.raises(InputError, match="steps is 0"):
        bin_events(events, steps=0, microseconds=10)
    with pytest.raises(InputError, match=r"microseconds is 0\.5"):
        bin_events(events, steps=1, microseconds=0.5)  # type: ignore[arg-type]


# --- what is shipped ---------------------------------------------------------------------------------


def test_shipped_recordings_are_those_of_a_camera() -> None:
    """Ten of each digit, on all of 34 x 34 pixels, in order of time, with as many ON as OFF events."""
    events, labels = load_nmnist()
    assert labels.tolist() == [digit for digit in range(10) for _ in range(10)]
    assert len(events) == len(labels)
    for each in events:
        assert 1_000 < len(each.time) < 8_000
        assert (each.time.diff() >= 0).all()
        assert 290_000 < each.time[-1] < 340_000
        assert 0.45 < each.polarity.double().mean() < 0.55
    assert torch.cat([each.x for each in events]).unique().tolist() == list(range(34))
    assert torch.cat([each.y for each in events]).unique().tolist() == list(range(34))


def test_first_recording_is_the_published_one() -> None:
    """The beginning and the length of `Train/0/00002.bin`, as another decoder of N-MNIST gives them."""
    first = load_nmnist().events[0]
    assert len(first.time) == 5028
    assert first.x[:10].tolist() == [10, 33, 12, 33, 14, 16, 7, 1, 16, 18]
    assert first.y[:10].tolist() == [30, 20, 27, 3, 23, 10, 30, 28, 11, 19]
    assert first.polarity[:10].tolist() == [1, 1, 1, 1, 0, 0, 1, 1, 0, 1]
    assert first.time[:10].tolist() == [937, 1030, 1052, 2078, 2383, 3189, 4003, 4975, 6609, 6678]


def rates() -> Tensor:
    """Events of all recordings in each 10 ms."""
    times = torch.cat([each.time for each in load_nmnist().events])
    return torch.bincount(times // 10_000)


def test_the_camera_jerks_three_times() -> None:
    counts = rates()
    bursts = [counts[start:end].max() for start, end in ((0, 9), (10, 19), (22, 31))]
    silences = [counts[start:end].min() for start, end in ((8, 11), (19, 23))]
    assert 4 * max(silences) < min(bursts)


def test_digits_are_darker_than_their_ground() -> None:
    """In each jerk of each recording, the ON side is the one that the digit comes from."""
    for events in load_nmnist().events:
        for begin, end in ((10_000, 90_000), (110_000, 190_000), (228_000, 300_000)):
            during = (events.time >= begin) & (events.time < end)
            on = events.polarity[during] == 1
            places = torch.stack([events.x, events.y])[:, during].double()  # [2, N]
            times = events.time[during].double()
            motion = ((times - times.mean()) * (places - places.mean(1, keepdim=True))).sum(1)
            assert motion @ (places[:, on].mean(1) - places[:, ~on].mean(1)) < 0


def test_changed_recordings_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nmnist").mkdir()
    (tmp_path / RECORDINGS).write_bytes(b"another archive")
    (tmp_path / "manifest.json").write_bytes((files.path() / "manifest.json").read_bytes())
    monkeypatch.setattr(files, "path", lambda: tmp_path)
    with pytest.raises(InputError, match=r"recordings\.zip has SHA-256"):
        load_nmnist()


def script() -> ModuleType:
    specification = importlib.util.spec_from_file_location("make_nmnist", data.path() / "make_nmnist.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_the_script_packs_the_first_of_each_digit(tmp_path: Path) -> None:
    """From a folder with one recording more of each digit, it makes the archive that is shipped."""
    train = tmp_path / "Train"
    with zipfile.ZipFile(data.path() / RECORDINGS) as shipped:
        wanted = {name: shipped.read(name) for name in shipped.namelist()}
    for name, content in wanted.items():
        (train / name).parent.mkdir(parents=True, exist_ok=True)
        (train / name).write_bytes(content)
        (train / name).with_name("60000.bin").write_bytes(content)
    script().make(train, tmp_path)
    made = (tmp_path / RECORDINGS).read_bytes()
    with zipfile.ZipFile(io.BytesIO(made)) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == wanted
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_the_script_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"0 has 0 recordings and 10 are needed"):
        script().first_of_each_digit(tmp_path)
