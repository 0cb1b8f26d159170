"""Recipes, one step of optimiser and schedule by hand, and whole small trainings on the embedded images."""

from __future__ import annotations

import csv
import dataclasses
import importlib.util
import json
import math
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from snnmlp_edu import data, registry
from snnmlp_edu.checkpoints import hash_tensors, load_checkpoint, save_checkpoint
from snnmlp_edu.config import NetworkConfig
from snnmlp_edu.data import CLASS_NAMES, LabelledImages, Preprocessing, load_embedded, train_validation_split
from snnmlp_edu.data.picture_sets import MemoryPictures
from snnmlp_edu.errors import InputError
from snnmlp_edu.model.network import SpikingMLP
from snnmlp_edu.registry import create_model, get_config
from snnmlp_edu.training import Recipe, evaluate, evaluate_embedded, fit, list_recipes, load_recipe
from snnmlp_edu.training.batches import TrainingData
from snnmlp_edu.training.schedule import TrainingSchedule, make_learning_rate_schedule, make_optimizer

pytestmark = pytest.mark.usefixtures("step_by_step")

SMALL: dict[str, Any] = {"dim": 6, "depths": [1, 1], "patch_size": 8, "time_steps": 1}


@pytest.fixture
def recipe() -> Recipe:
    return Recipe(name="short", source="ours", epochs=1, learning_rate=0.01, model=SMALL)


@pytest.fixture
def unwritable(tmp_path: Path) -> Path:
    """A folder in which nothing can be made, also by the superuser."""
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    return folder if not os.access(folder, os.W_OK) else Path("/proc")


# --- recipes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list_recipes())
def test_every_shipped_recipe_is_complete_and_builds_its_network(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.source
    assert recipe.preset is not None
    assert isinstance(get_config(recipe.preset, **recipe.model), NetworkConfig)


def test_recipes_of_the_embedded_images_are_shipped() -> None:
    assert {"fashion_smoke", "fashion_embedded"} <= set(list_recipes())


def test_recipe_survives_yaml(recipe: Recipe, tmp_path: Path) -> None:
    changed = recipe.replace(max_steps=7, gradient_clip=0.5, neuron={"beta": 0.25})
    file = tmp_path / "other_name.yaml"
    file.write_text(changed.to_yaml())
    assert load_recipe(file) == changed


def test_overrides_reach_recipe_and_network(recipe: Recipe) -> None:
    changed = recipe.replace(epochs=3, time_steps=2, neuron={"beta": 0.8})
    again = changed.replace(model={"neuron": {"slope": 2.0}, "dim": 9})
    assert again.epochs == 3
    assert again.model == {
        **SMALL,
        "time_steps": 2,
        "dim": 9,
        "neuron": {"beta": 0.8, "slope": 2.0},
    }
    assert recipe.model == SMALL, "the original is as it was"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"epoch": 2}, "Recipe has no field 'epoch'; did you mean 'epochs'"),
        ({"time_step": 2}, "Recipe has no field 'time_step'; did you mean 'time_steps'"),
        ({"epochs": 0}, "Recipe.epochs is 0"),
        ({"epochs": True}, "Recipe.epochs is True"),
        ({"epochs": 2.5}, "Recipe.epochs is 2.5"),
        ({"max_steps": 0}, "Recipe.max_steps is 0"),
        ({"early_epochs": -1}, "Recipe.early_epochs is -1"),
        ({"early_time_steps": 0}, "Recipe.early_time_steps is 0"),
        ({"early_epochs": 1}, "Recipe.early_epochs is 1 and epochs 1"),
        ({"batch_size": 1}, "Recipe.batch_size is 1"),
        (
            {"learning_rate": "4e-3"},
            "Recipe.learning_rate is '4e-3'",
        ),
        ({"learning_rate": math.nan}, "Recipe.learning_rate is nan"),
        ({"gradient_clip": 0}, "Recipe.gradient_clip is 0"),
        ({"weight_decay": -1}, "Recipe.weight_decay is -1"),
        ({"momentum": 1.0}, "Recipe.momentum is 1.0"),
        ({"label_smoothing": 1}, "Recipe.label_smoothing is 1"),
        ({"validation_fraction": 0}, "Recipe.validation_fraction is 0"),
        ({"warmup": 1.0}, "Recipe.warmup is 1.0"),
        ({"flip": "yes"}, "Recipe.flip is 'yes'"),
        ({"max_shift": -1}, "Recipe.max_shift is -1"),
        ({"seed": -1}, "Recipe.seed is -1"),
        ({"seed": 2**32}, "Recipe.seed is 4294967296"),
        ({"epochs": 2**63}, "Recipe.epochs is 9223372036854775808"),
        ({"preset": 5}, "Recipe.preset is 5"),
        ({"model": 5}, "Recipe.model is 5"),
        (
            {"optimizer": "adam"},
            "Recipe.optimizer is 'adam'.*adamw, sgd; did you mean 'adamw'",
        ),
        ({"schedule": "linear"}, "Recipe.schedule is 'linear'.*one_cycle, cosine"),
        ({"dataset": "mnist"}, "Recipe.dataset is 'mnist'.*embedded"),
    ],
)
def test_bad_recipe_field(recipe: Recipe, overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        recipe.replace(**overrides)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs: [1", "is not valid YAML: .* line 1"),
        ("- 1\n- 2\n", "holds no recipe"),
        ("", "holds no recipe"),
        ("epochs: 1\n", "lacks source, learning_rate; every recipe needs"),
        (
            "source: ours\nepochs: 1\nlearning_rate: 0.1\nbatchsize: 3\n",
            "no field 'batchsize'; did you mean 'batch_size'",
        ),
        ("source: ours\nepochs: 1\nlearning_rate: 0.1\n3: 4\n", "has the field 3, which is no string"),
        ("source: a\nepochs: 1\nlearning_rate: 1\nmodel: {neuron: {on: 1}}\n", "has the field True, which"),
        ("source: ours\nepochs: 1\nlearning_rate: 1" + 400 * "0", "must be a finite number above 0"),
        ("!!python/object/apply:os.getcwd []\n", "is not valid YAML"),
        ("source: ours\nepochs: 1\nepochs: 2\nlearning_rate: 1\n", "epochs is given twice"),
        ("source: ours\nmodel: &m\n  neuron: *m\n", "YAML: Circular reference|nested too deeply"),
        ("source: " + 1500 * "[" + 1500 * "]", "nested too deeply"),
        ("name: ../a\nsource: ours\nepochs: 1\nlearning_rate: 1\n", r"name is '\.\./a'"),
        ("name: ''\nsource: ours\nepochs: 1\nlearning_rate: 1\n", "name is ''"),
    ],
)
def test_bad_recipe_file(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        load_recipe(file)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 1e-3), ("1.0e-3", 1e-3), ("2E+1", 20.0), ("1.5e1", 15.0), (".5e0", 0.5), ("4.e-2", 0.04)],
)
def test_numbers_with_an_exponent_are_numbers(text: str, value: float, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    neuron = f"model: {{neuron: {{threshold: {text}}}}}"
    file.write_text(f"source: ours\nepochs: 1\nlearning_rate: {text}\n{neuron}\n")
    found = load_recipe(file)
    assert (found.learning_rate, found.model["neuron"]["threshold"]) == (value, value)


def test_text_that_looks_like_a_number_stays_text(tmp_path: Path, recipe: Recipe) -> None:
    file = tmp_path / "mine.yaml"
    for text in ("1e5", "0x1", "2.5e-3", "true", "1_000"):
        file.write_text(recipe.replace(name=text, source=text).to_yaml())
        assert load_recipe(file) == recipe.replace(name=text, source=text)


def test_unknown_recipe() -> None:
    with pytest.raises(
        InputError, match=r"there is no recipe 'fashion_smok'; did you mean 'fashion_smoke'\?"
    ):
        load_recipe("fashion_smok")


# --- optimiser and schedule --------------------------------------------------------------------------


def test_weight_decay_spares_vectors(recipe: Recipe) -> None:
    model = nn.Linear(2, 1)
    nn.init.ones_(model.weight)
    nn.init.ones_(model.bias)
    decayed = recipe.replace(learning_rate=0.1, weight_decay=0.5)
    optimizer = make_optimizer(model, TrainingSchedule(decayed, images=64))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    # AdamW's decay: w <- w - lr * decay * w
    torch.testing.assert_close(model.weight.detach(), torch.full((1, 2), 0.95))
    assert model.bias.item() == 1


def test_sgd_step_by_hand(recipe: Recipe) -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 2.0)
    recipe = recipe.replace(optimizer="sgd", learning_rate=0.1, momentum=0.5, weight_decay=0.0)
    optimizer = make_optimizer(model, TrainingSchedule(recipe, images=64))
    for expected in (1.85, 1.675):
        model.weight.grad = torch.ones(1, 1)
        optimizer.step()
        # Nesterov: b <- 0.5 b + g (1, then 1.5); w <- w - 0.1 (g + 0.5 b) (0.15, then 0.175)
        assert model.weight.item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        # cosine between lr / 25, lr after 30 % and lr / 250,000; 11 values of a 10-step one-cycle at 0.3
        ("one_cycle", {0: 0.04, 2: 1.0, 9: 4e-6}),
        ("cosine", {0: 1.0, 5: 0.5, 9: (1 + math.cos(math.pi * 0.9)) / 2}),
    ],
)
def test_schedule_by_hand(recipe: Recipe, schedule: str, expected: dict[int, float]) -> None:
    recipe = recipe.replace(schedule=schedule, learning_rate=1.0, batch_size=2)
    optimizer = make_optimizer(nn.Linear(2, 1), TrainingSchedule(recipe, images=20))
    scheduler = make_learning_rate_schedule(optimizer, TrainingSchedule(recipe, images=20))
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step() if len(rates) < 10 else None
    for step, rate in expected.items():
        assert rates[step] == pytest.approx(rate)


@pytest.mark.parametrize(("steps", "warmup"), [(10, 0.1), (2, 0.5), (20, 0.05)])
def test_a_warm_up_of_one_step_begins_at_the_bottom(recipe: Recipe, steps: int, warmup: float) -> None:
    recipe = recipe.replace(learning_rate=1.0, batch_size=2, warmup=warmup, max_steps=steps, epochs=10)
    optimizer = make_optimizer(nn.Linear(2, 1), TrainingSchedule(recipe, images=20))
    scheduler = make_learning_rate_schedule(optimizer, TrainingSchedule(recipe, images=20))
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1 / 25)
    optimizer.step()
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] < 1


# --- batches -----------------------------------------------------------------------------------------


def training_data(images: LabelledImages, recipe: Recipe, **preprocessing: Any) -> TrainingData:
    pictures = MemoryPictures(images)
    fitted = Preprocessing(image_size=4, **preprocessing)
    names = tuple(map(str, range(24)))
    data = TrainingData(pictures, pictures, fitted, recipe, names)
    data.start(torch.device("cpu"))
    return data


def labels_of(data: TrainingData, epoch: int, first: int = 0, end: int = 3) -> list[int]:
    return torch.cat([labels for _, labels in data.training_batches(epoch, first, end)]).tolist()


def test_every_training_image_once_an_epoch_in_another_order(recipe: Recipe) -> None:
    images = LabelledImages(torch.zeros(24, 1, 4, 4, dtype=torch.uint8), torch.arange(24))
    recipe = recipe.replace(batch_size=8)
    data = training_data(images, recipe)
    epochs = [labels_of(data, epoch) for epoch in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(24))
    assert epochs[0] != epochs[1]
    assert labels_of(data, 0, 1, 2) == epochs[0][8:16]
    assert labels_of(training_data(images, recipe), 1) == epochs[1]


def test_a_batch_is_augmented_alike_wherever_an_epoch_is_entered(recipe: Recipe) -> None:
    pixels = torch.arange(24 * 16).view(24, 1, 4, 4).to(torch.uint8)
    images = LabelledImages(pixels, torch.arange(24) % 2)
    recipe = recipe.replace(batch_size=8, flip=True, max_shift=1, mixup=0.4)
    whole = list(training_data(images, recipe).training_batches(1, 0, 3))
    assert not torch.equal(whole[0][0], whole[1][0])
    (entered,) = training_data(images, recipe).training_batches(1, 2, 3)
    assert all(map(torch.equal, entered, whole[2]))


def test_each_batch_and_epoch_is_augmented_anew(recipe: Recipe) -> None:
    picture = torch.arange(16).view(1, 1, 4, 4).to(torch.uint8)
    images = LabelledImages(picture.repeat(24, 1, 1, 1), torch.zeros(24, dtype=torch.int64))
    data = training_data(images, recipe.replace(batch_size=8, flip=True, max_shift=1))
    one, other, _ = (batch for batch, _ in data.training_batches(0, 0, 3))
    (later,) = (batch for batch, _ in data.training_batches(1, 0, 1))
    assert not torch.equal(one, other)
    assert not torch.equal(one, later)


def test_images_that_do_not_fit_and_too_few_are_refused(recipe: Recipe) -> None:
    images = LabelledImages(torch.zeros(8, 1, 6, 6, dtype=torch.uint8), torch.zeros(8, dtype=torch.int64))
    with pytest.raises(InputError, match="6 x 6 pixels"):
        training_data(images, recipe.replace(batch_size=4))
    with pytest.raises(InputError, match="batch_size is 64 and there are 8 training images"):
        training_data(images, recipe)


# --- evaluation --------------------------------------------------------------------------------------


class BrightestRow(nn.Module):
    """Predicts the index of the brightest row; in training mode it is always wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = images.sum(dim=(1, 3)) + self.shift
        return -logits if self.training else logits


def test_evaluate_by_hand() -> None:
    images = torch.zeros(5, 1, 4, 4, dtype=torch.uint8)
    rows = torch.tensor([0, 3, 2, 2, 1])
    images[torch.arange(5), 0, rows] = 200
    labels = torch.tensor([0, 3, 2, 0, 0])
    model = BrightestRow()
    for batch_size in (1, 2, 5, 100):
        assert evaluate(model, Preprocessing(image_size=4), images, labels, batch_size) == (3, 5)
    assert model.training, "the network is left in the mode it came in"


def test_evaluate_refuses_bad_input() -> None:
    images, labels = torch.zeros(2, 1, 4, 4), torch.zeros(2, dtype=torch.int64)
    prepare = Preprocessing(image_size=4)
    with pytest.raises(InputError, match="2 images and 1 labels"):
        evaluate(BrightestRow(), prepare, images, labels[:1])
    with pytest.raises(InputError, match="0 images and 0 labels"):
        evaluate(BrightestRow(), prepare, images[:0], labels[:0])
    images[1, 0, 0, 0] = math.inf
    with pytest.raises(InputError, match="NaN or infinite values, the first is image 1"):
        evaluate(BrightestRow(), prepare, images, labels)


# --- whole trainings ---------------------------------------------------------------------------------


def test_training_learns_keeps_the_best_and_tests_once(
    recipe: Recipe, tmp_path: Path, capfd: Any, drawn: list[Any]
) -> None:
    result = fit(
        None,
        recipe,
        output=tmp_path / "runs",
        progress=False,
        epochs=3,
        time_steps=2,
        dim=12,
        depths=[1],
        patch_size=8,
        learning_rate=0.02,
        max_shift=1,
        flip=True,
    )
    assert result.test_accuracy > 0.5
    assert result.test_total == 1000
    assert capfd.readouterr() == ("", ""), "silent without progress"

    assert drawn == [[*result.history]]
    assert (result.folder / "learning_curves.png").read_bytes().startswith(b"\x89PNG")

    with open(result.folder / "epochs.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3]
    assert [int(row["step"]) for row in rows] == [84, 168, 252]  # 5,400 images // 64
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"])
    accuracies = [float(row["validation_accuracy"]) for row in rows]
    assert result.validation_accuracy == max(accuracies)
    assert result.best_epoch == accuracies.index(max(accuracies)) + 1

    checkpoint = load_checkpoint(result.checkpoint)
    assert evaluate_embedded(checkpoint) == (result.test_correct, result.test_total)
    assert checkpoint.metrics["validation_accuracy"] == result.validation_accuracy
    assert checkpoint.metrics["test_correct"] == result.test_correct
    assert checkpoint.recipe["epochs"] == 3
    assert checkpoint.preset == "mlp_spe_nano"
    resolved = load_recipe(result.folder / "recipe.yaml")
    assert resolved.to_dict() == checkpoint.recipe


def test_validation_of_the_kept_epoch_can_be_computed_again(recipe: Recipe, tmp_path: Path) -> None:
    result = fit(None, recipe, output=tmp_path, progress=False, max_steps=20)
    checkpoint = load_checkpoint(result.checkpoint)
    images, labels = load_embedded("train")
    _, held_out = train_validation_split(labels, 0.1, seed=0)
    correct, total = evaluate(checkpoint.model, checkpoint.preprocessing, images[held_out], labels[held_out])
    assert total == 600
    assert correct / total == result.validation_accuracy


def test_same_seed_same_weights_other_seed_other_weights(recipe: Recipe, tmp_path: Path) -> None:
    hashes = [
        hash_tensors(
            load_checkpoint(
                fit(None, recipe, output=tmp_path, progress=False, max_steps=3, seed=seed).checkpoint
            ).model.state_dict()
        )
        for seed in (1, 1, 2)
    ]
    assert hashes[0] == hashes[1] != hashes[2]
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["short-1-1", "short-1-2", "short-2-1"]


def test_max_steps_stops_there_and_still_validates(recipe: Recipe, tmp_path: Path) -> None:
    result = fit(None, recipe, output=tmp_path, progress=False, epochs=5, batch_size=1800, max_steps=4)
    assert [row["step"] for row in result.history] == [3, 4]
    # The schedule spans the four steps: at the end the rate is the lowest.
    assert result.history[-1]["learning_rate"] == pytest.approx(0.01 / 25 / 1e4)


def test_early_epochs_present_images_fewer_times(recipe: Recipe, tmp_path: Path) -> None:
    model = SpikingMLP(get_config("mlp_spe_nano", **{**SMALL, "time_steps": 3}))
    trained, evaluated = [], []

    def count_steps(_: nn.Module, spikes: tuple[torch.Tensor]) -> None:
        (trained if model.training else evaluated).append(len(spikes[0]))

    model.head.register_forward_pre_hook(count_steps)
    plain = dataclasses.replace(recipe, model={})
    early = {"epochs": 3, "early_epochs": 2, "early_time_steps": 2, "batch_size": 1800}
    result = fit(model, plain, output=tmp_path, progress=False, **early)
    assert trained == [2, 2, 2, 2, 2, 2, 3, 3, 3], "three batches an epoch"
    assert set(evaluated) == {3}
    kept = load_checkpoint(result.checkpoint)
    assert kept.model.config.time_steps == 3
    assert kept.recipe["early_epochs"] == 2


def test_training_goes_on_with_a_network_of_yours(recipe: Recipe, tmp_path: Path) -> None:
    config = NetworkConfig(dim=6, depths=(1,), patch_size=8, image_size=32, num_classes=10, time_steps=1)
    model = SpikingMLP(config)
    before = hash_tensors(model.state_dict())
    result = fit(model, dataclasses.replace(recipe, model={}), output=tmp_path, progress=False, max_steps=2)
    assert hash_tensors(model.state_dict()) != before
    checkpoint = load_checkpoint(result.checkpoint)
    assert checkpoint.preset is None
    assert checkpoint.model.config == config, "three channels: the grey one is repeated"


def test_progress_prints_one_line_an_epoch(recipe: Recipe, tmp_path: Path, capfd: Any) -> None:
    fit(None, recipe, output=tmp_path, max_steps=2)
    out, err = capfd.readouterr()
    assert "epoch 1: loss " in out
    assert "Warning" not in out + err
    assert "GPU available" not in out + err


def test_diverged_training_says_so(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(
        InputError,
        match=r"^training diverged: .*; lower learning_rate .*; the last good state, of step",
    ):
        fit(
            None,
            recipe,
            output=tmp_path,
            progress=False,
            optimizer="sgd",
            learning_rate=1e30,
            schedule="cosine",
            max_steps=10,
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"model_or_preset": "mlp_spe_nan"},
            "there is no model named 'mlp_spe_nan'; did you mean 'mlp_spe_nano'",
        ),
        ({"num_classes": 7}, "has 7 classes and the data set 10; set num_classes=10"),
        ({"dim": 7}, "dim is 7; spiking patch encoding"),
        ({"image_size": 30, "patch_size": 2}, "image_size is 30; it must be divisible"),
        ({"time_steps": 0}, "time_steps is 0"),
        ({"neuron": {"beta": 1.5}}, r"beta is 1\.5"),
        ({"image_size": 16}, "images are 28 x 28 pixels and the network takes 16 x 16"),
        ({"batch_size": 5500}, "batch_size is 5500 and there are 5400 training images"),
    ],
)
def test_bad_call_leaves_nothing_behind(
    recipe: Recipe, arguments: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        fit(**{"model_or_preset": None, "recipe": recipe, "output": tmp_path, "progress": False} | arguments)
    assert list(tmp_path.iterdir()) == []


def test_ready_network_cannot_be_changed(recipe: Recipe, tmp_path: Path) -> None:
    model = SpikingMLP(NetworkConfig(dim=6, depths=(1,), patch_size=8, image_size=32, num_classes=10))
    with pytest.raises(
        InputError, match="the recipe changes dim, depths, patch_size, time_steps of a network"
    ):
        fit(model, recipe, output=tmp_path, progress=False)


def test_output_folder_is_checked_before_training(recipe: Recipe, unwritable: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be written .* choose another with --output"):
        fit(None, recipe, output=unwritable, progress=False)
    with pytest.raises(InputError, match="cannot be written"):
        fit(None, recipe, output=unwritable / "runs", progress=False)
    (tmp_path / "a_file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        fit(None, recipe, output=tmp_path / "a_file", progress=False)
    with pytest.raises(InputError, match=r"there is no folder .*absent to hold runs; create it first"):
        fit(None, recipe, output=tmp_path / "absent" / "runs", progress=False)


def test_recipe_yaml_holds_only_plain_values(recipe: Recipe) -> None:
    assert yaml.safe_load(recipe.replace(depths=(1, 1)).to_yaml())["model"]["depths"] == [1, 1]


# --- shipping ----------------------------------------------------------------------------------------


def load_script(name: str) -> ModuleType:
    specification = importlib.util.spec_from_file_location(name, data.path() / f"{name}.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_a_run_is_shipped_with_card_and_manifest(recipe: Recipe, tmp_path: Path) -> None:
    result = fit(None, recipe, output=tmp_path, progress=False, max_steps=2)
    (tmp_path / "data").mkdir()
    load_script("ship_checkpoint").ship(result.folder, "small", tmp_path / "data")
    folder = tmp_path / "data" / "checkpoints"
    assert (folder / "small.safetensors").read_bytes() == result.checkpoint.read_bytes()
    manifest = json.loads((tmp_path / "data" / "manifest.json").read_text())["files"]
    assert list(manifest) == ["checkpoints/small.safetensors"]
    card = (folder / "small.md").read_text()
    assert f"({result.test_correct} of 1000)" in card
    assert f"{100 * result.validation_accuracy:.2f} %" in card


def test_a_network_that_no_checkpoint_could_give_back_is_not_trained(recipe: Recipe, tmp_path: Path) -> None:
    network = create_model("spiking_vgg16", dim=2, image_size=32, in_channels=1, num_classes=10, time_steps=1)
    with pytest.raises(InputError, match=r"the network is a SpikingVGG, .* builds a SpikingMLP; register it"):
        fit(network, dataclasses.replace(recipe, model={}), output=tmp_path, progress=False)
    assert not list(tmp_path.iterdir())


class Sharing(SpikingMLP):
    """Two blocks with one channel mixing."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        blocks = self.stages[0].blocks
        blocks[1].channel = blocks[0].channel


def test_tensors_that_are_one_are_noticed_before_the_run(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {"dim": 6, "depths": (2,), "patch_size": 8, "time_steps": 1, "in_channels": 1}
    config = NetworkConfig(**sizes, image_size=32, num_classes=10)  # type: ignore[arg-type]
    monkeypatch.setattr(registry, "_entries", dict(registry._known()))
    registry.register("sharing", config, Sharing)
    plain = dataclasses.replace(recipe, model={})
    for model in ("sharing", Sharing(config)):
        with pytest.raises(InputError, match=r"blocks\.0\.channel\..* and .*blocks\.1\.channel\..* are one"):
            fit(model, plain, output=tmp_path, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_training_is_the_same_whatever_the_default_type_is(recipe: Recipe, tmp_path: Path) -> None:
    few = recipe.replace(max_steps=3, epochs=1, flip=True, max_shift=2, mixup=0.3)
    expected = fit(None, few, output=tmp_path, progress=False)
    try:
        torch.set_default_dtype(torch.float64)
        found = fit(None, few, output=tmp_path, progress=False)
        assert torch.get_default_dtype() == torch.float64
        assert evaluate_embedded(load_checkpoint(found.checkpoint)) == (found.test_correct, 1000)
    finally:
        torch.set_default_dtype(torch.float32)
    one, other = (load_checkpoint(run.checkpoint).model.state_dict() for run in (expected, found))
    assert hash_tensors(one) == hash_tensors(other)


def test_a_baseline_is_trained_further_without_a_preset(recipe: Recipe, tmp_path: Path) -> None:
    sizes = {"dim": 2, "depths": [1, 1], "patch_size": 4, "image_size": 32, "in_channels": 1}
    sizes |= {"num_classes": 10, "time_steps": 1}
    plain = dataclasses.replace(recipe, model={}, max_steps=1, epochs=1)
    model = create_model("spiking_resnet34", **sizes)
    start = tmp_path / "start.safetensors"
    save_checkpoint(start, model, Preprocessing(32), class_names=CLASS_NAMES, preset="spiking_resnet34")
    further = dataclasses.replace(plain, preset=None, init_from=str(start))
    found = load_checkpoint(fit(None, further, output=tmp_path, progress=False).checkpoint)
    assert type(found.model) is type(model)
    assert (found.preset, found.recipe["preset"]) == ("spiking_resnet34", None)


def test_a_run_that_does_not_repeat_is_not_shipped(recipe: Recipe, tmp_path: Path) -> None:
    result = fit(None, recipe, output=tmp_path, progress=False, max_steps=2)
    old = load_checkpoint(result.checkpoint)
    metrics = {**old.metrics, "test_correct": result.test_correct + 1}
    save_checkpoint(
        result.checkpoint, old.model, old.preprocessing, class_names=old.class_names, metrics=metrics
    )
    with pytest.raises(InputError, match=rf"{result.test_correct} test images correctly, training reported"):
        load_script("ship_checkpoint").ship(result.folder, "small", tmp_path / "data")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("name", "preset", "recipe_name"),
    [
        ("mlp_spe_nano", "mlp_spe_nano", "fashion_embedded"),
        ("mlp_spe_nano_rotation", "mlp_spe_nano", "rotation"),
        ("mlp_spe_nano_bn_token", "mlp_spe_nano", "fashion_embedded"),
        ("mlp_spe_nano_digits", "mlp_spe_nano", "digits_finetune"),
        ("relu_mlp_spe_nano", "relu_mlp_spe_nano", "fashion_embedded"),
        ("mlp_spe_micro", "mlp_spe_micro", "fashion_cpu"),
        ("mlp_spe_micro_bn_token", "mlp_spe_micro", "fashion_cpu"),
        ("relu_mlp_spe_micro", "relu_mlp_spe_micro", "fashion_cpu"),
    ],
)
def test_shipped_networks_come_from_shipped_recipes(name: str, preset: str, recipe_name: str) -> None:
    checkpoint = load_checkpoint(name)
    # Fields that recipes got later have their defaults; the one that says where the data were may differ.
    recipe = Recipe(**checkpoint.recipe)
    shipped = load_recipe(recipe_name)
    assert recipe.replace(data_dir=None) == shipped.replace(preset=preset, model=recipe.model)
    assert checkpoint.preset == preset
    assert checkpoint.model.config == get_config(preset).replace(**recipe.model)
    card = (data.path() / "checkpoints" / f"{name}.md").read_text(encoding="utf-8")
    assert card == load_script("ship_checkpoint").model_card(name, checkpoint)


def test_a_network_of_another_data_set_is_not_shipped(recipe: Recipe, tmp_path: Path) -> None:
    old = load_checkpoint("mlp_spe_nano")
    (tmp_path / "run").mkdir()
    save_checkpoint(
        tmp_path / "run" / "checkpoint.safetensors",
        old.model,
        old.preprocessing,
        recipe={**old.recipe, "dataset": "cifar10"},
    )
    with pytest.raises(InputError, match="trained on cifar10; write about that data set in ship_checkpoint"):
        load_script("ship_checkpoint").ship(tmp_path / "run", "small", tmp_path / "data")
