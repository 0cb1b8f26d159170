"""What is done to pictures one by one: by the seed, the epoch and their number, and by nothing else."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import TensorDataset

from snnmlp_edu.data import LabelledImages, Preprocessing, flip_and_shift
from snnmlp_edu.data.augmenting import training_transform
from snnmlp_edu.data.batches import PictureBatches, SampleIndex, derive_seed, load_batches, seeded
from snnmlp_edu.data.picture_sets import MemoryPictures, PackedStrings, evenly_spaced
from snnmlp_edu.data.resizing import to_picture, to_pixels
from snnmlp_edu.data.settings import Augmentation, Loading
from snnmlp_edu.errors import InputError
from snnmlp_edu.training import Recipe, load_recipe
from snnmlp_edu.training.orders import EpochBatches

STRONG = Augmentation(
    random_resized_crop=True, randaugment="rand-m9-mstd0.5", colour_jitter=0.4, random_erasing=0.5
)


def pictures(count: int = 6, channels: int = 3, side: int = 20) -> MemoryPictures:
    generator = torch.Generator().manual_seed(0)
    shape = (count, channels, side, side)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return MemoryPictures(LabelledImages(images, torch.arange(count)))


def batches(augmentation: Augmentation, seed: int = 0, channels: int = 3, side: int = 16) -> PictureBatches:
    mean, std = ((0.5,) * channels,) * 2
    preprocessing = Preprocessing(side, channels, mean, std, resize=side)
    transform = training_transform(augmentation, preprocessing, flip=True, max_shift=1)
    return PictureBatches(pictures(channels=channels), preprocessing, transform, seed)


# --- randomness --------------------------------------------------------------------------------------


def test_a_picture_depends_on_seed_epoch_number_and_repetition_alone() -> None:
    made = batches(STRONG)
    alone = {
        draw: made[[draw]][0][0]
        for draw in (SampleIndex(0, 1), SampleIndex(1, 1), SampleIndex(0, 2), SampleIndex(0, 1, 1))
    }
    random.seed(99)
    np.random.seed(99)  # noqa: NPY002
    torch.manual_seed(99)
    together, labels = made[[SampleIndex(0, 2), SampleIndex(0, 1), SampleIndex(0, 1, 1), SampleIndex(1, 1)]]
    assert labels.tolist() == [2, 1, 1, 1]
    for image, draw in zip(
        together, (SampleIndex(0, 2), SampleIndex(0, 1), SampleIndex(0, 1, 1), SampleIndex(1, 1)), strict=True
    ):
        assert torch.equal(image, alone[draw])
    assert not any(
        torch.equal(alone[SampleIndex(0, 1)], alone[other])
        for other in (SampleIndex(1, 1), SampleIndex(0, 1, 1), SampleIndex(0, 2))
    )
    assert not torch.equal(batches(STRONG, seed=1)[[SampleIndex(0, 1)]][0][0], alone[SampleIndex(0, 1)])


def test_shared_generators_are_left_as_they_were() -> None:
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    made = batches(STRONG)
    made[[SampleIndex(0, 1), SampleIndex(3, 2)]]
    with pytest.raises(KeyError), seeded(5):
        raise KeyError
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == np.random.get_state()[1].tolist()  # noqa: NPY002
    assert states[2] == random.getstate()
    list(load_batches(made, [[SampleIndex(0, 1)]], Loading(workers=0)))
    assert torch.equal(states[0], torch.get_rng_state()), "a loader draws from a generator of its own"


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 2**70), min_size=1, max_size=4))
def test_seeds_fit_every_generator(numbers: list[int]) -> None:
    seed = derive_seed(*numbers)
    assert 0 <= seed < 2**63
    assert derive_seed(*numbers, 0) != seed
    torch.Generator().manual_seed(seed)


# --- order -------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 40), st.integers(1, 8), st.integers(1, 4), st.data())
def test_orders_go_on_where_they_stopped(count: int, size: int, repeats: int, data: st.DataObject) -> None:
    whole = EpochBatches(count, size, 5, repeats)
    epochs = []
    for epoch in range(3):
        whole.begin(epoch)
        first = list(whole)
        assert list(whole) == first, "a loader may ask twice"
        assert len(first) == len(whole) == count // size
        epochs.append(first)
    epoch, skip = data.draw(st.integers(0, 2)), data.draw(st.integers(0, len(whole)))
    resumed = EpochBatches(count, size, 5, repeats)
    resumed.begin(epoch, skip)
    assert list(resumed) == epochs[epoch][skip:]
    end = data.draw(st.integers(skip, len(whole)))
    resumed.begin(epoch, skip, end)
    assert list(resumed) == epochs[epoch][skip:end]
    for later in range(epoch + 1, 3):
        resumed.begin(later)
        assert list(resumed) == epochs[later]


def test_every_picture_once_an_epoch_in_another_order() -> None:
    order = EpochBatches(24, 8, seed=0)
    numbers = [order.order(epoch).tolist() for epoch in (0, 1)]
    assert sorted(numbers[0]) == sorted(numbers[1]) == list(range(24))
    assert numbers[0] != numbers[1]
    order.begin(1)
    assert [draw for batch in order for draw in batch] == [SampleIndex(1, number) for number in numbers[1]]
    assert EpochBatches(24, 8, seed=1).order(0).tolist() != numbers[0]


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_repeated_augmentation_has_the_order_of_timms_sampler(
    processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from timm.data.distributed_sampler import RepeatAugSampler

    count, repeats, batch = 512, 3, 64
    dataset = TensorDataset(torch.zeros(count))
    theirs = [
        list(RepeatAugSampler(dataset, processes, rank, num_repeats=repeats)) for rank in range(processes)
    ]
    # timm's permutation is that of the epoch's number; ours depends on the seed as well.
    monkeypatch.setattr("snnmlp_edu.training.orders.derive_seed", lambda *_: 0)
    for rank in range(processes):
        ours = EpochBatches(count, batch, seed=0, repeats=repeats)
        ours.share_out(rank, processes)
        numbers = [draw.number for draws in ours for draw in draws]
        assert numbers == theirs[rank]
        assert all(len(draws) == batch // processes for draws in ours)
    everything = Counter(number for rank in theirs for number in rank)
    assert set(everything.values()) <= {1, 2, 3}
    assert len(everything) == -(-count // repeats)


def test_repetitions_are_augmented_differently() -> None:
    draws = next(iter(EpochBatches(6, 6, 0, repeats=3)))
    assert [draw.repeat for draw in draws] == [0, 1, 2, 0, 1, 2]
    images = batches(STRONG)[draws][0]
    assert not torch.equal(images[0], images[1])
    assert not torch.equal(images[1], images[2])


def test_processes_share_a_batch_out() -> None:
    whole = list(EpochBatches(20, 6, seed=3))
    parts = []
    for rank in range(3):
        part = EpochBatches(20, 6, seed=3)
        part.share_out(rank, 3)
        parts.append(list(part))
    for number, batch in enumerate(whole):
        shares = [part[number] for part in parts]
        assert [shares[i % 3][i // 3] for i in range(6)] == batch
    with pytest.raises(InputError, match=r"batch_size is 7, the images of a step on all 2 devices; choose a"):
        EpochBatches(20, 7, seed=3).share_out(0, 2)


def test_flips_and_shifts_are_those_of_the_whole_batch() -> None:
    images = torch.rand(6, 1, 8, 8)
    whole = flip_and_shift(images, torch.Generator().manual_seed(1), 2)
    for rank in range(2):
        own = flip_and_shift(images[rank::2], torch.Generator().manual_seed(1), 2, rank=rank, world_size=2)
        assert torch.equal(own, whole[rank::2])


def test_the_order_of_an_epoch_is_a_permutation_drawn_with_its_seed() -> None:
    expected = torch.randperm(9, generator=torch.Generator().manual_seed(derive_seed(4, 2)))
    assert torch.equal(EpochBatches(9, 3, seed=4).order(2), expected)


# --- what is done ------------------------------------------------------------------------------------


def test_nothing_asked_nothing_changed() -> None:
    plain = Preprocessing(20, 3, (0.5,) * 3, (0.5,) * 3)
    transform = training_transform(Augmentation(), plain, flip=False, max_shift=0)
    original = pictures()
    for number in range(6):
        assert torch.equal(transform(original.read(number, 3)), original.images[number])


def test_flip_and_shift_repeat_the_border() -> None:
    plain = Preprocessing(4, 1)
    transform = training_transform(Augmentation(), plain, flip=True, max_shift=1)
    image = torch.arange(16, dtype=torch.uint8).view(1, 4, 4)
    rows = {tuple(clamped) for clamped in ((0, 0, 1, 2), (0, 1, 2, 3), (1, 2, 3, 3))}
    columns = rows | {row[::-1] for row in rows}
    possible = {tuple(4 * row + column for row in r for column in c) for r in rows for c in columns}
    seen = set()
    for seed in range(200):
        with seeded(seed):
            seen.add(tuple(transform(to_picture(image)).flatten().tolist()))
    assert seen == possible, "three shifts each way, mirrored or not"


def test_random_resized_crop_is_torchvisions() -> None:
    from torchvision.transforms import v2

    augmentation = Augmentation(random_resized_crop=True, scale=(0.2, 0.5), ratio=(1, 2))
    transform = training_transform(augmentation, Preprocessing(12, 3, (0.5,) * 3, (0.5,) * 3), False, 0)
    reference = v2.RandomResizedCrop(12, scale=(0.2, 0.5), ratio=(1.0, 2.0), antialias=True)
    picture = pictures(side=40).read(0, 3)
    for seed in range(5):
        with seeded(seed):
            ours = transform(picture)
        with seeded(seed):
            assert torch.equal(ours, to_pixels(reference(picture)))


def test_randaugment_is_timms() -> None:
    from timm.data.auto_augment import rand_augment_transform

    augmentation = Augmentation(randaugment="rand-m9-mstd0.5-inc1")
    transform = training_transform(augmentation, Preprocessing(20, 3, (0.5, 0.4, 0.3), (0.5,) * 3), False, 0)
    settings = {"translate_const": 9, "img_mean": (128, 102, 76)}  # 0.45 * 20; the mean colour
    reference = rand_augment_transform("rand-m9-mstd0.5-inc1", settings)
    picture = pictures().read(0, 3)
    changed = 0
    for seed in range(20):
        with seeded(seed):
            ours = transform(picture)
        with seeded(seed):
            assert torch.equal(ours, to_pixels(reference(picture)))
        changed += not torch.equal(ours, to_pixels(picture))
    assert changed > 5


def test_erased_parts_have_the_mean_colour() -> None:
    augmentation = Augmentation(random_erasing=1.0)
    transform = training_transform(augmentation, Preprocessing(20, 3, (0.1, 0.2, 0.4), (0.5,) * 3), False, 0)
    white = Image.new("RGB", (20, 20), (255, 255, 255))
    for seed in range(10):
        with seeded(seed):
            pixels = transform(white)
        erased = (pixels != 255).any(0)
        assert 0.01 < erased.float().mean() < 0.4  # torchvision: 0.02 to 0.33 of the area, rounded
        assert pixels[:, erased].unique(dim=1).flatten().tolist() == [26, 51, 102]


@pytest.mark.parametrize("channels", [1, 3])
def test_everything_at_once_keeps_type_and_shape(channels: int) -> None:
    images, _ = batches(STRONG, channels=channels)[[SampleIndex(epoch, 0) for epoch in range(20)]]
    assert images.shape == (20, channels, 16, 16)
    assert images.dtype == torch.uint8
    assert len(images.flatten(1).unique(dim=0)) == 20


# --- fields ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        (
            "augmentation",
            {"scale": [0.5, 0.1]},
            r"scale is \[0.5, 0.1\]; it must be two rising numbers above 0",
        ),
        ("augmentation", {"scale": [0.5, 1.5]}, "above 0 up to 1"),
        ("augmentation", {"ratio": 1}, "Augmentation.ratio is 1; .*two rising numbers"),
        ("augmentation", {"interpolation": "cubic"}, "one of bilinear, bicubic; did you mean 'bicubic'"),
        (
            "augmentation",
            {"randaugment": "rand-m9-zoom3"},
            "must be a policy such as rand-m9-mstd0.5, or null",
        ),
        ("augmentation", {"randaugment": 9}, "Augmentation.randaugment is 9"),
        ("augmentation", {"colour_jitter": -1}, "Augmentation.colour_jitter is -1"),
        ("augmentation", {"random_erasing": 1.1}, r"random_erasing is 1\.1"),
        (
            "augmentation",
            {"repeats": 0},
            "Augmentation.repeats is 0",
        ),
        ("augmentation", {"resize": 0}, "resize is 0;.*or null"),
        ("augmentation", {"random_resized_crop": 1}, "random_resized_crop is 1"),
        ("augmentation", {"color_jitter": 0.4}, "no field 'color_jitter'; did you mean 'colour_jitter'"),
        (
            "loading",
            {"workers": -1},
            "Loading.workers is -1;.*or null",
        ),
        ("loading", {"pin_memory": "yes"}, "Loading.pin_memory is 'yes'"),
        ("loading", {"verify": "all"}, "Loading.verify is 'all'.*decode"),
        ("loading", 3, "Recipe.loading is 3"),
    ],
)
def test_bad_fields(name: str, values: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_recipe("fashion_smoke").replace(**{name: values})


def test_fields_are_changed_one_by_one_and_survive_yaml(tmp_path: Any) -> None:
    recipe = load_recipe("fashion_smoke").replace(augmentation={"repeats": 3, "scale": [0.3, 1]})
    again = recipe.replace(augmentation={"randaugment": "rand-m9"}, loading={"workers": 4})
    assert again.augmentation == Augmentation(repeats=3, scale=(0.3, 1.0), randaugment="rand-m9")
    assert again.loading == Loading(workers=4)
    assert recipe.loading == Loading()
    file = tmp_path / "fashion_smoke.yaml"
    file.write_text(again.to_yaml())
    assert load_recipe(file) == again
    assert Recipe(**again.to_dict()) == again, "as a checkpoint has it"
    assert again.replace(seed=1).augmentation is again.augmentation


def test_only_what_changes_images_needs_workers() -> None:
    assert not Augmentation().one_by_one
    assert not Augmentation(interpolation="bicubic", scale=(0.3, 1)).one_by_one
    for field in ({"repeats": 2}, {"resize": 40}, {"random_erasing": 0.1}, {"random_resized_crop": True}):
        assert Augmentation(**field).one_by_one  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cores", "cuda", "processes", "workers"),
    [
        (2, False, 1, 1),
        (16, False, 1, 4),
        (16, False, 4, 1),
        (16, True, 1, 15),
        (256, True, 8, 16),
        (4, True, 8, 1),
    ],
)
def test_workers_of_machines(cores: int, cuda: bool, processes: int, workers: int) -> None:
    assert Loading().on_machine(cores, cuda, processes).workers == workers


# --- pieces ------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))))
def test_texts_are_kept(texts: list[str]) -> None:
    packed = PackedStrings(texts)
    assert list(packed) == texts
    assert len(packed) == len(texts)
    with pytest.raises(IndexError):
        packed[len(texts)]


@given(st.integers(0, 100), st.integers(1, 20))
def test_evenly_spaced_numbers(count: int, most: int) -> None:
    chosen = evenly_spaced(count, most).tolist()
    assert len(set(chosen)) == len(chosen) == min(count, most)
    assert all(0 <= number < count for number in chosen)
    assert {b - a for a, b in itertools.pairwise(chosen)} <= {count // most, -(-count // most), 1}
