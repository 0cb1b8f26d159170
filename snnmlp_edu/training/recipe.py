"""Recipes: all that decides a training, as one checked dataclass, read from a YAML file."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from ..config import NetworkConfig, TimeSteps
from ..data.settings import Augmentation, Loading, MaxShift
from ..data.sources import Dataset
from ..errors import InputError
from ..fields import (
    BELOW_ONE,
    FRACTION,
    NOT_NEGATIVE,
    POSITIVE,
    PROBABILITY,
    Rule,
    check_fields,
    is_required,
    marked,
    require_known,
    whole,
)
from ..yaml_files import read_named, require_text_keys, to_yaml

Optimizer = Literal["adamw", "sgd"]
Schedule = Literal["one_cycle", "cosine", "constant"]
Loss = Literal["cross_entropy", "tet", "ce_rate", "ce_count", "mse_count"]
Precision = Literal["fp32", "bf16", "fp16"]
Scaling = Literal["linear", "sqrt"]
Count = Annotated[int, whole(1)]
Seed = Annotated[int, whole(0, 2**32 - 1)]

SNNTORCH_LOSSES = ("ce_rate", "ce_count", "mse_count")
# Marks a field that says where things are or how fast they go, and does not change what is computed.
NOT_THE_RESULT = "does not change the result"
FOLDER = Path(__file__).parent / "recipes"

_NAME = Rule(
    lambda name: re.fullmatch(r"[^-./\\\0][^/\\\0]{0,99}", name) is not None,
    "1 to 100 characters that can name a folder: no / or \\, and no - or . at the beginning",
)


@dataclass(frozen=True)
class Recipe:
    """One way to train, complete: the same recipe on the same machine gives the same weights.

    Args:
        name: what its run folders are called after.
        source: where it comes from: a publication, or "ours".
        preset: the network's name in the registry; None if the network is passed as a module.
        model: fields of `NetworkConfig` that differ from the preset.
        dataset: where the images come from: a name that `open_source` knows.
        data_dir: folder of the data set's files, or its archive; None for one that is shipped.
        data_md5: checksum of a CIFAR archive; None expects the published one.
        init_from: a checkpoint, by name or path, whose weights the network starts with (`transfer_weights`).
            With `preset` None the network is the checkpoint's own, but for `model` and the classes.
        init_shuffled: shuffle the values within each of these tensors, drawn with the seed: a control with
            the scale of trained weights and nothing that they learned.
        epochs: passes over the training images.
        early_epochs: first epochs in which a network sees every image `early_time_steps` times only, which is
            cheaper; validation and tests take the network's own T throughout.
        early_time_steps: T of these epochs.
        max_steps: stop after so many optimiser steps; None does all epochs.
        batch_size: images per batch, over all processes; an incomplete last step is left out.
        accumulate: batches whose gradients are averaged into one step of the optimiser.
        optimizer: `adamw`, or `sgd` with momentum.
        momentum: of `sgd`.
        nesterov: look one step ahead along the momentum of `sgd`.
        learning_rate: its highest value.
        scale_learning_rate: None takes `learning_rate` as it is. Else it is multiplied by the images per
            step, `batch_size * accumulate`, divided by `base_batch` (`linear`), or by that ratio's root
            (`sqrt`).
        base_batch: images per step for which `learning_rate` is written; None where that is not known.
        min_learning_rate: where the schedule ends, scaled as `learning_rate` is; None means 0, and a
            250,000th part with `one_cycle`.
        weight_decay: of matrices and kernels; vectors (biases, scales) have none.
        schedule: step by step, `one_cycle` (up, then down by cosines), `cosine` (down), or `constant`.
        warmup: part of the steps in which the rate first goes up: by a cosine with `one_cycle`, else in a
            straight line. None means 0.3 with `one_cycle` and 0 with the others.
        warmup_epochs: the same in epochs, in the place of `warmup`.
        loss: `cross_entropy` of the mean over time; `tet`, temporal efficient training; or snnTorch's
            `ce_rate`, `ce_count` and `mse_count`. See `snnmlp_edu.training.losses`.
        tet_lambda: weight of the regulariser of `tet`.
        tet_phi: logit that this regulariser pulls to.
        label_smoothing: part of the target that is spread over all classes.
        mixup: alpha of mixup, which blends images in pairs, and their labels; 0 leaves it out.
        cutmix: alpha of cutmix, which pastes a part of one image into another; 0 leaves it out.
        mix_probability: part of the batches that are mixed at all.
        cutmix_probability: of those, the part for cutmix where both are on.
        flip: mirror every second training image, at random.
        max_shift: largest random shift of a training image, in pixels.
        augmentation: what else is done to images one by one, and how they are brought to the input's size.
        loading: how images are loaded; it does not affect the result.
        skip_corrupt: leave out image files that cannot be read, and list them; else they stop the training.
        gradient_clip: largest norm of the gradient; None does not clip.
        ema_decay: keep an exponential moving average of the weights with this decay, and validate, keep and
            test the average; None keeps none.
        precision: of the arithmetic: `fp32`, or mixed with `bf16` or `fp16`. Membranes, weights and their
            updates stay in 32 bit.
        validation_fraction: part of each class of the training images that only selects the best epoch.
        seed: of weights, split, order and augmentation.
        save_every: steps between two saves of the state from which a run can be resumed; None saves once a
            minute. It does not affect the result.
        tensorboard: also write the curves for TensorBoard. It does not affect the result.

    Raises:
        InputError: a field is of the wrong kind or out of range, or two contradict each other.
    """

    name: Annotated[str, _NAME]
    source: str
    epochs: Count
    learning_rate: Annotated[float, POSITIVE]
    preset: str | None = "mlp_spe_nano"
    model: Mapping[str, Any] = field(default_factory=dict)
    dataset: Dataset = "embedded"
    data_dir: Annotated[str | None, NOT_THE_RESULT] = None
    data_md5: Annotated[str | None, NOT_THE_RESULT] = None
    init_from: str | None = None
    init_shuffled: bool = False
    early_epochs: Annotated[int, whole(0)] = 0
    early_time_steps: TimeSteps = 1
    max_steps: Count | None = None
    batch_size: Annotated[int, whole(2)] = 64
    accumulate: Count = 1
    optimizer: Optimizer = "adamw"
    momentum: Annotated[float, BELOW_ONE] = 0.9
    nesterov: bool = True
    scale_learning_rate: Scaling | None = None
    base_batch: Count | None = None
    min_learning_rate: Annotated[float, NOT_NEGATIVE] | None = None
    weight_decay: Annotated[float, NOT_NEGATIVE] = 0.0
    schedule: Schedule = "one_cycle"
    warmup: Annotated[float, BELOW_ONE] | None = None
    warmup_epochs: Annotated[float, NOT_NEGATIVE] | None = None
    loss: Loss = "cross_entropy"
    tet_lambda: Annotated[float, PROBABILITY] = 0.05
    tet_phi: float = 1.0
    label_smoothing: Annotated[float, BELOW_ONE] = 0.0
    mixup: Annotated[float, NOT_NEGATIVE] = 0.0
    cutmix: Annotated[float, NOT_NEGATIVE] = 0.0
    mix_probability: Annotated[float, PROBABILITY] = 1.0
    cutmix_probability: Annotated[float, PROBABILITY] = 0.5
    flip: bool = False
    max_shift: MaxShift = 0
    augmentation: Augmentation = field(default_factory=Augmentation)
    loading: Annotated[Loading, NOT_THE_RESULT] = field(default_factory=Loading)
    skip_corrupt: bool = False
    gradient_clip: Annotated[float, POSITIVE] | None = None
    ema_decay: Annotated[float, FRACTION] | None = None
    precision: Precision = "fp32"
    validation_fraction: Annotated[float, FRACTION] = 0.1
    seed: Seed = 0
    save_every: Annotated[Count | None, NOT_THE_RESULT] = None
    tensorboard: Annotated[bool, NOT_THE_RESULT] = False

    def __post_init__(self) -> None:
        check_fields(self)
        for contradiction in _contradictions(self):
            raise InputError(contradiction)

    @classmethod
    def plain(cls, name: str, source: str = "ours") -> Recipe:
        """One epoch with a learning rate of 1, and every field that has a default at it."""
        return cls(name, source, epochs=1, learning_rate=1.0)

    def replace(self, /, **overrides: Any) -> Recipe:
        """This recipe with some fields changed.

        A field of `NetworkConfig` may be among them, as `time_steps=2` or `neuron={"beta": 0.8}`; it
        is entered in `model`, and so are the fields of a mapping `model`.

        Raises:
            InputError: a field is unknown (the nearest is suggested) or its value is not allowed.
        """
        own = [f.name for f in dataclasses.fields(Recipe)]
        network = [f.name for f in dataclasses.fields(NetworkConfig)]
        require_known("Recipe", overrides, [*own, *network])
        changed: dict[str, Any] = {}
        model = dict(self.model)
        for name, value in overrides.items():
            if name == "model" and isinstance(value, Mapping):
                model = _merged(model, value)
            elif name in ("augmentation", "loading") and isinstance(value, Mapping):
                changed[name] = _merged(dataclasses.asdict(getattr(self, name)), value)
            elif name in own:
                changed[name] = value
            else:
                model = _merged(model, {name: value})
        return dataclasses.replace(self, **{"model": model} | changed)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as written in a YAML file or a checkpoint."""
        return json.loads(json.dumps(dataclasses.asdict(self)))  # JSON makes lists of tuples

    def to_yaml(self) -> str:
        """The text of a recipe file that gives this recipe again."""
        return to_yaml(self.to_dict())


def decisive(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a recipe's fields that decide the result: all but the ones marked `NOT_THE_RESULT`.

    >>> decisive({"seed": 3, "data_dir": "here"})
    {'seed': 3}
    """
    free = marked(Recipe, NOT_THE_RESULT)
    return {name: value for name, value in values.items() if name not in free}


def list_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(file.stem for file in FOLDER.glob("*.yaml"))


def load_recipe(name: str | Path) -> Recipe:
    """Read a recipe by its name, or from a YAML file of your own.

    Args:
        name: one of `list_recipes()`, or a path that ends in `.yaml`.

    Raises:
        InputError: there is no such recipe, or the file does not hold one.

    >>> load_recipe("fashion_smoke").preset
    'mlp_spe_nano'
    """
    file, values = read_named("recipe", name, FOLDER)
    require_text_keys(values, str(file))
    required = [f.name for f in dataclasses.fields(Recipe) if is_required(f) and f.name != "name"]
    missing = [name for name in required if name not in values]
    if missing:
        raise InputError(f"{file} lacks {', '.join(missing)}; every recipe needs {', '.join(required)}")
    return Recipe.plain(file.stem).replace(**values)


def _contradictions(recipe: Recipe) -> Iterator[str]:
    """A line for each pair of fields that do not go together."""
    if recipe.early_epochs >= recipe.epochs:
        yield (
            f"Recipe.early_epochs is {recipe.early_epochs} and epochs {recipe.epochs}; leave at least"
            " one epoch for the network's own number of time steps"
        )
    if recipe.init_shuffled and recipe.init_from is None:
        yield "Recipe.init_shuffled is true and init_from is null; name the checkpoint to shuffle"
    if recipe.warmup is not None and recipe.warmup_epochs is not None:
        yield (
            f"Recipe.warmup ({recipe.warmup}) and Recipe.warmup_epochs ({recipe.warmup_epochs}) say the same"
            " in two ways; set one of them to null"
        )
    if recipe.schedule == "one_cycle" and 0 in (recipe.warmup, recipe.warmup_epochs):
        yield "Recipe.warmup is 0 and one_cycle goes up first; raise it, or take schedule=cosine"
    if recipe.scale_learning_rate is not None and recipe.base_batch is None:
        yield (
            f"Recipe.scale_learning_rate is {recipe.scale_learning_rate} and base_batch is not set;"
            " say for how many images per step learning_rate is written"
        )
    if recipe.min_learning_rate is not None and recipe.min_learning_rate > recipe.learning_rate:
        yield (
            f"Recipe.min_learning_rate is {recipe.min_learning_rate} and learning_rate"
            f" {recipe.learning_rate}; it must not be higher"
        )
    soft = [name for name in ("mixup", "cutmix", "label_smoothing") if getattr(recipe, name) > 0]
    if recipe.loss in SNNTORCH_LOSSES and soft:
        yield (
            f"Recipe.loss is {recipe.loss}, which takes one class per image, and {', '.join(soft)} mixes"
            f" classes; set {'=0 '.join(soft)}=0, or take loss=cross_entropy or loss=tet"
        )


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """`old` with the values of `new`; mappings inside are merged in the same way."""
    merged = dict(old)
    for name, value in new.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = _merged(merged[name], value) if both else value
    return merged
