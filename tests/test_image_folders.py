"""Training from folders of image files: it can be cut and gone on with, by any number of loader workers."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from image_sets import write_image_folder
from PIL import Image
from test_cli import assert_wrong_usage, call
from test_resume import PowerCut, at_step, cut_power, outcome

from snnmlp_edu.checkpoints import load_checkpoint
from snnmlp_edu.data import LabelledImages, Preprocessing, batches
from snnmlp_edu.data.batches import check_shared_memory
from snnmlp_edu.data.picture_sets import MemoryPictures
from snnmlp_edu.data.pictures import fit_picture, read_picture, read_pictures
from snnmlp_edu.data.settings import Augmentation, Loading
from snnmlp_edu.data.sources import open_source
from snnmlp_edu.errors import InputError, Preempted
from snnmlp_edu.training import Recipe, TrainingResult, evaluate_source, fit, own_source
from snnmlp_edu.training.batches import IMAGENET_MEAN, IMAGENET_STD, KeptImages, TrainingData
from snnmlp_edu.training.evaluation import evaluate_pictures

EVERYTHING = {
    "random_resized_crop": True,
    "randaugment": "rand-m9-mstd0.5",
    "colour_jitter": 0.4,
    "random_erasing": 0.5,
    "repeats": 2,
    "interpolation": "bicubic",
}
RECIPE = Recipe(
    name="photos",
    source="ours",
    epochs=2,
    learning_rate=0.01,
    batch_size=9,  # 4 steps an epoch of 36 images; 12 images validate
    dataset="image_folder",
    model={
        "dim": 6,
        "depths": [1],
        "patch_size": 8,
        "image_size": 32,
        "in_channels": 3,
        "num_classes": 3,
        "time_steps": 1,
        "neuron": {"backend": "eager"},
    },
    flip=True,
    max_shift=2,
    augmentation=EVERYTHING,  # type: ignore[arg-type]
    validation_fraction=0.25,
    save_every=2,
)


def train(folder: Path, output: Path, **changes: Any) -> TrainingResult:
    return fit(None, RECIPE, output=output, progress=False, data_dir=str(folder), **changes)


def workers(count: int) -> dict[str, Any]:
    return {"loading": {"workers": count}}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_image_folder(tmp_path_factory.mktemp("folders") / "my photos ä")


@pytest.fixture(scope="module")
def undisturbed(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    torch.set_num_threads(1)
    return train(photos, tmp_path_factory.mktemp("undisturbed"), **workers(0))


# --- exact, wherever it is cut and whoever loads -----------------------------------------------------


@pytest.mark.parametrize(
    ("step", "function", "before", "after"),
    [
        (3, "loss_of", 2, 1),
        (4, "validate", 1, 0),
        (4, "keep", 0, 2),
        (7, "loss_of", 2, 2),
    ],
)
def test_a_cut_run_over_files_goes_on_bit_by_bit_with_other_workers(
    step: int,
    function: str,
    before: int,
    after: int,
    photos: Path,
    undisturbed: TrainingResult,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at_step(step, function, cut_power, monkeypatch)
    with pytest.raises(PowerCut):
        train(photos, tmp_path, **workers(before))
    resumed = fit(resume=tmp_path / "photos-0-1", progress=False, **workers(after))
    assert outcome(resumed) == outcome(undisturbed)


@pytest.mark.parametrize("count", [0, 2])
def test_pixels_that_are_kept_make_the_same_batches_as_files_that_are_read(photos: Path, count: int) -> None:
    pictures = open_source("image_folder", photos).pictures("train")

    def batches(share: float) -> list[list[torch.Tensor]]:
        recipe = RECIPE.replace(loading={"memory_share": share, "workers": count})
        recipe = dataclasses.replace(recipe, augmentation=Augmentation())  # none but flip and shift
        data = TrainingData(pictures, pictures, Preprocessing(32, 3, resize=36), recipe, ("a", "b", "c"))
        data.start(torch.device("cpu"))
        assert isinstance(data._train_batches.dataset, KeptImages) == (share > 0)
        return [[*data.training_batches(1, 1, 3)], [*data.validation_batches()]]

    for read, kept in zip(batches(0), batches(0.25), strict=True):
        assert len(read) == len(kept) > 0
        for one, other in zip(read, kept, strict=True):
            assert all(map(torch.equal, one, other))


def test_workers_do_not_change_the_weights(photos: Path, undisturbed: TrainingResult, tmp_path: Path) -> None:
    assert outcome(train(photos, tmp_path, **workers(2))) == outcome(undisturbed)
    assert outcome(train(photos, tmp_path, **workers(0), seed=1)) != outcome(undisturbed)


def test_a_scheduler_that_stops_the_workers_too_does_not_cost_a_step(
    photos: Path, undisturbed: TrainingResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def terminate_all() -> None:
        children = multiprocessing.active_children()
        assert children
        for process in (*(child.pid for child in children), os.getpid()):
            assert process is not None
            os.kill(process, signal.SIGTERM)

    at_step(2, "loss_of", terminate_all, monkeypatch)
    with pytest.raises(Preempted, match="stopped at step 3; resume with: snnmlp train --resume"):
        train(photos, tmp_path, save_every=100, **workers(1))
    assert outcome(fit(resume=tmp_path / "photos-0-1", progress=False, **workers(0))) == outcome(undisturbed)


def test_other_files_are_not_gone_on_with_and_the_same_ones_elsewhere_are(
    undisturbed: TrainingResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_image_folder(tmp_path / "own")
    at_step(3, "loss_of", cut_power, monkeypatch)
    with pytest.raises(PowerCut):
        train(folder, tmp_path, **workers(0))
    old, new = folder / "train" / "ant" / "ant 003.jpg", folder / "train" / "ant" / "ant 103.jpg"
    old.rename(new)
    with pytest.raises(InputError, match=r"data\.(train|validation)\.listing is \w+ in the run and \w+ now"):
        fit(resume=tmp_path / "photos-0-1", progress=False, **workers(0))
    new.rename(old)
    moved = str(folder.rename(tmp_path / "moved"))
    resumed = fit(resume=tmp_path / "photos-0-1", progress=False, data_dir=moved, **workers(0))
    assert outcome(resumed) == outcome(undisturbed)


# --- what is trained, validated and tested on --------------------------------------------------------


def test_validation_comes_from_the_training_images_and_val_only_tests(
    photos: Path, undisturbed: TrainingResult, tmp_path: Path
) -> None:
    assert undisturbed.test_total == 12
    assert undisturbed.history[0]["validation_accuracy"] * 12 == pytest.approx(
        round(undisturbed.history[0]["validation_accuracy"] * 12)
    )
    folder = write_image_folder(tmp_path / "other test", val=2)
    for name in ("ant", "bee", "cat"):  # other test images, the same training images
        for file in (folder / "val" / name).iterdir():
            Image.new("RGB", (40, 40), (9, 9, 9)).save(file)
    other = train(folder, tmp_path, **workers(0))
    assert other.test_total == 6
    assert outcome(other)[:3] == outcome(undisturbed)[:3], "nothing but the test has changed"


def test_a_test_folder_goes_before_val(photos: Path, tmp_path: Path) -> None:
    folder = write_image_folder(tmp_path / "three", val=2)
    (folder / "val").rename(folder / "test")
    write_image_folder(tmp_path / "more", val=3)
    (tmp_path / "more" / "val").rename(folder / "val")
    assert len(open_source("image_folder", folder).pictures("test").labels) == 6


def test_preprocessing_travels_with_the_checkpoint(
    photos: Path, undisturbed: TrainingResult, tmp_path: Path
) -> None:
    """`evaluate`, `predict` and validation see the same pixels."""
    checkpoint = load_checkpoint(undisturbed.checkpoint)
    preprocessing = checkpoint.preprocessing
    assert (preprocessing.resize, preprocessing.interpolation) == (37, "bicubic")  # 32 * 256 / 224
    assert checkpoint.class_names == ("ant", "bee", "cat")
    source = open_source("image_folder", photos)
    assert evaluate_source(checkpoint, source) == (undisturbed.test_correct, undisturbed.test_total)
    pictures = source.pictures("test")
    files = [pictures.file(i) for i in range(len(pictures.labels))]
    inputs = preprocessing.normalise(read_pictures(files, preprocessing))
    assert inputs.shape == (12, 3, 32, 32)
    with torch.no_grad():
        correct = int((checkpoint.model(inputs).argmax(1) == pictures.labels).sum())
    assert correct == undisturbed.test_correct
    code, out, err = call("predict", undisturbed.checkpoint, files[0], "--top", 1)
    assert code == 0, err
    assert files[0].name in out
    code, out, err = call("evaluate", undisturbed.checkpoint)
    assert code == 0, err
    assert f"({undisturbed.test_correct} of 12)" in out
    moved = tmp_path / "elsewhere"
    moved.symlink_to(photos, target_is_directory=True)
    assert own_source(checkpoint, data_dir=str(moved)).class_names == ("ant", "bee", "cat")


def test_evaluation_is_torchvisions_resize_and_centre_crop(tmp_path: Path) -> None:
    from torchvision.transforms import v2

    from snnmlp_edu.data import Preprocessing

    generator = torch.Generator().manual_seed(0)
    for interpolation in ("bilinear", "bicubic"):
        reference = v2.Compose(
            [
                v2.Resize(37, interpolation=v2.InterpolationMode(interpolation)),
                v2.CenterCrop(32),
                v2.PILToTensor(),
            ]
        )
        preprocessing = Preprocessing(32, 3, resize=37, interpolation=interpolation)
        for height, width in [(60, 81), (90, 30), (37, 37), (12, 13), (1, 1), (500, 333)]:
            pixels = torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8)
            picture = Image.fromarray(pixels.numpy())
            assert torch.equal(fit_picture(picture, preprocessing), reference(picture)), (height, width)
    small = v2.Compose([v2.Resize(8), v2.CenterCrop(11), v2.PILToTensor()])
    assert torch.equal(fit_picture(picture, Preprocessing(11, 3, resize=8)), small(picture))


def test_imagenet_is_normalised_by_the_values_that_all_use(photos: Path, tmp_path: Path) -> None:
    result = train(photos, tmp_path, **workers(0), dataset="imagenet", max_steps=1)
    preprocessing = load_checkpoint(result.checkpoint).preprocessing
    assert (preprocessing.mean, preprocessing.std) == (IMAGENET_MEAN, IMAGENET_STD)


def test_imagenet_without_its_words_has_the_same_classes(tmp_path: Path) -> None:
    folder = write_image_folder(tmp_path / "imagenet", ("n01440764", "n02012849", "n03126707"))
    (folder / "words.txt").write_text("n01440764 tench, Tinca tinca\nn02012849 crane\n")
    result = train(folder, tmp_path, **workers(0), dataset="imagenet", max_steps=1)
    names = ("n01440764 tench, Tinca tinca", "n02012849 crane", "n03126707")
    assert load_checkpoint(result.checkpoint).class_names == names
    (folder / "words.txt").unlink()
    assert call("evaluate", result.checkpoint)[0] == 0
    (folder / "train" / "n02012849").rename(folder / "train" / "n02012850")
    (folder / "val" / "n02012849").rename(folder / "val" / "n02012850")
    assert_wrong_usage(call("evaluate", result.checkpoint), "classes are n01440764 tench.* and the")


def test_grey_network_sees_grey_pictures(photos: Path, tmp_path: Path) -> None:
    result = train(photos, tmp_path, **workers(0), in_channels=1, max_steps=1)
    preprocessing = load_checkpoint(result.checkpoint).preprocessing
    files = sorted((photos / "train" / "bee").iterdir())
    assert len(preprocessing.mean) == 1
    pixels = read_pictures(files[:2], preprocessing)
    assert (pixels.shape, pixels.dtype) == ((2, 1, 32, 32), torch.uint8)
    assert read_picture(files[0], 1).mode == "L"


def test_images_in_memory_can_be_treated_one_by_one(tmp_path: Path) -> None:
    """As CIFAR is fine-tuned: enlarged, cropped at random; cut and gone on with too."""
    recipe = dataclasses.replace(
        RECIPE,
        dataset="digits",
        batch_size=256,
        model={**RECIPE.model, "in_channels": 1, "num_classes": 10, "image_size": 40},
        max_shift=0,
        augmentation={"random_resized_crop": True, "resize": 40},  # type: ignore[arg-type]
    )
    whole = fit(None, recipe, output=tmp_path, progress=False, **workers(0))
    with pytest.MonkeyPatch.context() as patch:
        at_step(3, "loss_of", cut_power, patch)
        with pytest.raises(PowerCut):
            fit(None, recipe, output=tmp_path, progress=False, **workers(1))
    assert outcome(fit(resume=tmp_path / "photos-0-2", progress=False, **workers(0))) == outcome(whole)
    preprocessing = load_checkpoint(whole.checkpoint).preprocessing
    assert preprocessing.resize == 40
    assert whole.test_total == 599


# --- what is wrong -----------------------------------------------------------------------------------

WORDS = {
    "dim": "6",
    "depths": "[1]",
    "patch_size": "8",
    "in_channels": "3",
    "time_steps": "1",
    "neuron.backend": "eager",
    "num_classes": "3",
    "batch_size": "8",
    "loading.workers": "0",
    "max_steps": "1",
    "dataset": "image_folder",
}


def of_folder(folder: Path, *words: str) -> tuple[int, str, str]:
    """A short training on a folder; a word changes one of `WORDS`, or is an option."""
    options = [word for word in words if word.startswith("--")]
    changes = dict(word.split("=", 1) for word in words if word not in options)
    fields = {**WORDS, "data_dir": str(folder)} | changes
    overrides = [f"{name}={value}" for name, value in fields.items()]
    output = folder.parent / "runs"
    return call("train", "--recipe", "fashion_smoke", "--output", output, *options, *overrides)


def spoil(folder: Path, how: str) -> str:
    """Damage a data set; the line that training must answer with."""
    train, val = folder / "train", folder / "val"
    first = train / "ant" / "ant 000.jpg"
    match how:
        case "truncated":
            first.write_bytes(first.read_bytes()[:400])
            return rf"{first} cannot be read: .* \(1 of 48 images damaged: 'snnmlp data verify' lists them"
        case "text":
            (train / "bee" / "notes.txt").write_text("no image")
            return r"notes\.txt is not an image in a known format"
        case "empty file":
            (val / "cat" / "none.png").write_bytes(b"")
            return r"val/cat/none\.png is empty; give an image file \(1 of 13 images"
        case "broken link":
            (train / "bee" / "gone.jpg").symlink_to(folder / "nowhere")
            return r"there is no file .*gone\.jpg"
        case "empty class":
            (train / "dog").mkdir()
            return r"train/dog holds no image \(2 such problems: 'snnmlp data describe' lists them\)"
        case "class names":
            (val / "cat").rename(val / "Cat")
            return r"train lacks the classes Cat, which another split has \(2 such problems"
        case "loop":
            (train / "ant" / "up").symlink_to(train, target_is_directory=True)
            return r"train/ant/up is a link to a folder above it; remove it"
        case "no val":
            val.rename(folder / "validation")
            return (
                r"holds no folder val; put training images into train/CLASS/ and test images into val/CLASS/"
            )
        case "no split":
            for name in ("ant", "bee", "cat"):
                (train / name).rename(folder / name)
            train.rmdir()
            val.rename(folder.parent / "val")
            return r"holds no folder train; put training images into train/CLASS/"
    raise AssertionError(how)


@pytest.mark.parametrize(
    "how",
    [
        "truncated",
        "text",
        "empty file",
        "broken link",
        "empty class",
        "class names",
        "loop",
        "no val",
        "no split",
    ],
)
def test_damage_stops_before_the_first_epoch_with_its_path(how: str, tmp_path: Path) -> None:
    folder = write_image_folder(tmp_path / "schöne fotos")
    message = spoil(folder, how)
    assert_wrong_usage(of_folder(folder), message)
    assert not (tmp_path / "runs").exists()


def test_what_is_corrupt_can_be_left_out_and_is_listed(tmp_path: Path) -> None:
    folder = write_image_folder(tmp_path / "photos")
    for how in ("truncated", "text", "empty file"):
        spoil(folder, how)
    code, out, err = of_folder(folder, "--skip-corrupt")
    assert code == 0, err
    for name in ("ant 000.jpg cannot be read", "notes.txt is not an image", "none.png is empty"):
        assert name in out
    assert "3 images left out" in out
    assert " of 12)" in out
    listed = (tmp_path / "runs" / "fashion_smoke-0-1" / "recipe.yaml").read_text()
    assert "skip_corrupt: true" in listed
    kept = (tmp_path / "runs" / "fashion_smoke-0-1" / "left_out.txt").read_text().splitlines()
    assert len(kept) == 3
    assert all(line in out for line in kept)
    checkpoint = tmp_path / "runs" / "fashion_smoke-0-1" / "checkpoint.safetensors"
    assert call("evaluate", checkpoint)[0] == 0, "the same images are left out of the test"


def test_a_class_of_damaged_images_cannot_be_left_out(tmp_path: Path) -> None:
    folder = write_image_folder(tmp_path / "photos")
    for file in (folder / "val" / "bee").iterdir():
        file.write_bytes(b"")
    assert_wrong_usage(of_folder(folder, "skip_corrupt=true"), "no image of class 1 can be read: .*is empty")


def test_pictures_of_every_kind_are_trained_on(tmp_path: Path) -> None:
    folder = write_image_folder(tmp_path / "photos", train=8)
    for number, mode in enumerate(("L", "P", "RGBA", "CMYK", "LA", "1")):
        suffix = "tif" if mode == "CMYK" else "png"
        picture = Image.new("RGB", (30, 20), (200, 30, 30)).convert(mode)
        picture.save(folder / "train" / "ant" / f"{number} {mode}.{suffix}")
    Image.new("RGB", (1, 1)).save(folder / "train" / "ant" / "dot.png")
    words = ["augmentation.random_resized_crop=true", "augmentation.randaugment=rand-m9-mstd0.5"]
    code, _, err = of_folder(folder, *words, "batch_size=25", "epochs=2", "max_steps=2")
    assert code == 0, err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["batch_size=100"], "batch_size is 100 and there are 42 training images; choose a smaller"),
        (["in_channels=2"], "the network takes 2 channels and files give 1 or 3; set in_channels=3"),
        (["num_classes=4"], "the network has 4 classes and the data set 3; set num_classes=3"),
        (["validation_fraction=0.01"], "validation_fraction 0.01 of the 16 images of class 0 is 0"),
        (
            ["augmentation.randaugment=m9"],
            "Augmentation.randaugment is 'm9'.*rand-m9-mstd0.5",
        ),
        (["loading.worker=2"], "Loading has no field 'worker'; did you mean 'workers'"),
        (["augmentation=5"], "Recipe.augmentation is 5"),
    ],
)
def test_wrong_words_get_one_line(words: list[str], message: str, photos: Path) -> None:
    assert_wrong_usage(of_folder(photos, *words), message)


def test_damage_that_appears_while_training_names_the_file(photos: Path, tmp_path: Path) -> None:
    folder = write_image_folder(tmp_path / "photos")
    spoil(folder, "truncated")
    answer = of_folder(folder, "loading.verify=none", "loading.workers=1", "batch_size=42")
    code, _, err = answer
    assert code == 2
    assert err.count("\n") == 1
    assert "ant 000.jpg cannot be read" in err
    assert "Traceback" not in err


# --- workers that die ------------------------------------------------------------------------------------


class Deadly(MemoryPictures):
    """Pictures that kill the process that reads them, as the system does where memory runs out."""

    def read(self, index: int, channels: int) -> Image.Image:
        if multiprocessing.parent_process() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(index, channels)


def test_a_worker_that_was_killed_is_one_line_that_names_the_field() -> None:
    images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    pictures = Deadly(LabelledImages(images, torch.zeros(4, dtype=torch.int64)))

    def classify(fitted: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(fitted), 2)

    with pytest.raises(InputError, match=r"was lost \(DataLoader worker .*loading\.workers=0"):
        evaluate_pictures(classify, Preprocessing(8), pictures, Loading(1).on_machine(1, False))
    assert evaluate_pictures(classify, Preprocessing(8), pictures, Loading(0).on_machine(1, False)) == (4, 4)


def test_shared_memory_that_is_too_small_is_noticed_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A batch of training 9 * 3 * 32 * 32 bytes, of validation 12 of them: two for each worker and two in use.
    needed = 12 * 3 * 32 * 32 * (2 * 2 + 2)
    write_image_folder(tmp_path / "images", train=16, val=4)
    monkeypatch.setattr(batches, "SHARED_MEMORY", tmp_path)  # which is there on every system
    free = [needed - 1]
    monkeypatch.setattr(batches.shutil, "disk_usage", lambda _: SimpleNamespace(free=free[0]))
    recipe = RECIPE.replace(
        data_dir=str(tmp_path / "images"), loading={"workers": 2, "prefetch": 2, "verify": "none"}
    )
    with pytest.raises(InputError, match=r"2 workers .* 0 MiB free; .*loading\.workers=0"):
        fit(None, recipe, output=tmp_path / "runs", progress=False, accelerator="cpu")
    assert not (tmp_path / "runs").exists()
    check_shared_memory(12 * 3 * 32 * 32, Loading(workers=0), processes=1)
    free[0] = needed
    check_shared_memory(12 * 3 * 32 * 32, Loading(workers=2, prefetch=2), processes=1)
    with pytest.raises(InputError, match="--workers 0"):
        check_shared_memory(12 * 3 * 32 * 32, Loading(workers=2, prefetch=2), processes=2)
