"""Every shipped recipe trains for two steps, on generated data in the exact format of its data set."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from image_sets import cifar_files, write_cifar, write_idx, write_image_folder

from snnmlp_edu.checkpoints import load_checkpoint
from snnmlp_edu.training import fit, list_recipes, load_recipe
from snnmlp_edu.training.recipe import FOLDER

pytestmark = pytest.mark.usefixtures("step_by_step")

# The recipe's own fields but for these: two small steps, of a small network on small images, on a CPU.
SMALL: dict[str, Any] = {"dim": 6, "depths": [1, 1], "time_steps": 1, "max_steps": 2, "batch_size": 8}
ON_CPU = {"precision": "fp32", "accelerator": "cpu", "loading": {"workers": 0}}
COLOUR = SMALL | ON_CPU | {"image_size": 32, "patch_size": 4, "augmentation": {"resize": 36}}
GREY = SMALL | {"patch_size": 8, "accelerator": "cpu"}


def imagenet(folder: Path) -> dict[str, Any]:
    return COLOUR | {
        "data_dir": str(write_image_folder(folder / "imagenet", train=60)),
        "num_classes": 3,
    }


def cifar(folder: Path, kind: str, classes: int) -> dict[str, Any]:
    path, md5 = write_cifar(folder, kind, cifar_files(kind, images=3 * classes))
    return COLOUR | {"data_dir": str(path), "data_md5": md5, "validation_fraction": 0.3}


def fashion(folder: Path) -> dict[str, Any]:
    return GREY | {"data_dir": str(write_idx(folder / "fashion", train=200, classes=10))}


DATA = {
    "imagenet_released": imagenet,
    "imagenet_2022": imagenet,
    "cifar10_ablation": lambda folder: cifar(folder, "cifar10", 10),
    "cifar10_finetune": lambda folder: cifar(folder, "cifar10", 10),
    "cifar100_finetune": lambda folder: cifar(folder, "cifar100", 100),
    "fashion_cpu": fashion,
    "fashion_gpu": lambda folder: fashion(folder) | {"precision": "bf16"},
    "fashion_smoke": lambda folder: GREY,
    "rotation": lambda folder: {"max_steps": 2, "accelerator": "cpu"},  # the shipped photographs
    "fashion_embedded": lambda folder: GREY,
    "fashion_ablation": lambda folder: GREY,
    "digit_pairs": lambda folder: {"max_steps": 2, "accelerator": "cpu"},  # of shipped digits
    "digits_finetune": lambda folder: {"max_steps": 2, "accelerator": "cpu"},  # the shipped network
}


@pytest.mark.parametrize("name", list_recipes())
def test_recipe_trains_for_two_steps(name: str, tmp_path: Path) -> None:
    changes = DATA[name](tmp_path)
    result = fit(None, name, output=tmp_path / "runs", progress=False, **changes)
    assert result.history[-1]["step"] == 2
    assert math.isfinite(result.history[-1]["train_loss"])
    kept = load_checkpoint(result.checkpoint).recipe
    written = load_recipe(name).to_dict()
    for field in written.keys() - changes.keys() - {"model"}:
        assert kept[field] == written[field], field


def test_what_was_learned_on_imagenet_is_fine_tuned_on_cifar(tmp_path: Path) -> None:
    first = fit(None, "imagenet_2022", output=tmp_path / "runs", progress=False, **imagenet(tmp_path))
    changes = cifar(tmp_path, "cifar10", 10) | {"init_from": str(first.checkpoint)}
    result = fit(None, "cifar10_finetune", output=tmp_path / "runs", progress=False, **changes)
    assert result.transfer is not None
    assert result.transfer.new == ("head.linear.weight", "head.linear.bias")
    assert load_checkpoint(result.checkpoint).preprocessing.resize == 36


@pytest.mark.parametrize("name", list_recipes())
def test_recipes_cite_their_source_and_mark_what_is_ours(name: str) -> None:
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    assert text.startswith("# ")
    source = yaml.safe_load(text)["source"]
    assert source == "ours" or "arXiv" in source or "mixer-snn" in source
    assert source == "ours" or "# ours" in text


def test_released_recipe_is_the_released_trainers() -> None:
    recipe = load_recipe("imagenet_released")
    assert (recipe.epochs, recipe.batch_size, recipe.learning_rate, recipe.momentum) == (
        100,
        8 * 64,
        0.1,
        0.9,
    )
    assert (recipe.optimizer, recipe.nesterov, recipe.weight_decay) == ("sgd", False, 0)
    assert (recipe.schedule, recipe.warmup, recipe.min_learning_rate) == ("cosine", 0, None)
    assert (recipe.mixup, recipe.cutmix, recipe.label_smoothing) == (0.8, 1.0, 0.1)
    augmentation = recipe.augmentation
    assert augmentation.randaugment == "rand-m9-mstd0.5-inc1"
    assert (augmentation.random_erasing, augmentation.repeats, augmentation.resize) == (0.25, 3, 256)
