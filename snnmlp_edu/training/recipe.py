"""Recipes: all that decides a training, as one checked dataclass, read from a YAML file."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from ..config import NetworkConfig, nearest
from ..data.settings import Augmentation, Loading, settings_from
from ..data.sources import Dataset
from ..errors import InputError

Optimizer = Literal["adamw", "sgd"]
Schedule = Literal["one_cycle", "cosine"]

SETTINGS: dict[str, Any] = {"augmentation": Augmentation, "loading": Loading}
FOLDER = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class Recipe:
    """One way to train, complete: the same recipe on the same machine gives the same weights.

    Args:
        name: what its run folders are called after.
        source: where it comes from: a publication, or "ours".
        preset: the network's name in the registry; None if the network is handed over as a module.
        model: fields of `NetworkConfig` that differ from the preset.
        dataset: where the images come from: a name that `open_source` knows.
        data_dir: folder of the data set's files, or its archive; None for one that is shipped.
        data_md5: checksum of a CIFAR archive; None expects the published one.
        init_from: a checkpoint, by name or path, whose weights the network starts with (`transfer_weights`).
            With `preset` None the network is the checkpoint's own, but for `model` and the classes.
        epochs: passes over the training images.
        max_steps: stop after so many optimiser steps; None does all epochs.
        batch_size: images in a step; an incomplete last batch is left out.
        optimizer: `adamw`, or `sgd` with Nesterov momentum.
        momentum: of `sgd`.
        learning_rate: its highest value.
        weight_decay: of matrices and kernels; vectors (biases, scales) have none.
        schedule: `one_cycle` (up, then down by cosines) or `cosine` (down only), step by step.
        warmup: part of the steps in which `one_cycle` goes up.
        label_smoothing: part of the target that is spread over all classes.
        flip: mirror every second training image, at random.
        max_shift: largest random shift of a training image, in pixels.
        augmentation: what else is done to images one by one, and how they are brought to the input's size.
        loading: how images are fetched; it does not change what is computed.
        skip_corrupt: leave out image files that cannot be read, and list them; else they stop the training.
        gradient_clip: largest norm of the gradient; None does not clip.
        validation_fraction: part of each class of the training images that only selects the best epoch.
        seed: of weights, split, order and augmentation.
        save_every: steps between two saves of the state from which a stopped run goes on; None saves once a
            minute. It does not change what is computed.

    Raises:
        InputError: a field is of the wrong kind or out of range.
    """

    name: str
    source: str
    epochs: int
    learning_rate: float
    preset: str | None = "mlp_spe_nano"
    model: Mapping[str, Any] = field(default_factory=dict)
    dataset: Dataset = "embedded"
    data_dir: str | None = None
    data_md5: str | None = None
    init_from: str | None = None
    max_steps: int | None = None
    batch_size: int = 64
    optimizer: Optimizer = "adamw"
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: Schedule = "one_cycle"
    warmup: float = 0.3
    label_smoothing: float = 0.0
    flip: bool = False
    max_shift: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)
    loading: Loading = field(default_factory=Loading)
    skip_corrupt: bool = False
    gradient_clip: float | None = None
    validation_fraction: float = 0.1
    seed: int = 0
    save_every: int | None = None

    def __post_init__(self) -> None:
        for name in ("name", "source"):
            _check(name, self, isinstance(getattr(self, name), str), "text")
        _check("preset", self, isinstance(self.preset, str | None), "the name of a preset")
        for name in ("data_dir", "data_md5", "init_from"):
            _check(name, self, isinstance(getattr(self, name), str | None), "text, or null")
        _check("model", self, isinstance(self.model, Mapping), "a mapping of NetworkConfig fields")
        for name in ("flip", "skip_corrupt"):
            _check(name, self, isinstance(getattr(self, name), bool), "true or false")
        for name, kind in SETTINGS.items():
            object.__setattr__(self, name, settings_from(kind, getattr(self, name)))
        limits = {"epochs": 1, "max_steps": 1, "batch_size": 2, "max_shift": 0, "seed": 0, "save_every": 1}
        for name, lowest in limits.items():
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool) and value >= lowest
            optional = name in ("max_steps", "save_every") and value is None
            _check(name, self, whole or optional, f"a whole number of at least {lowest}")
        for name in ("learning_rate", "gradient_clip"):
            value = getattr(self, name)
            optional = name == "gradient_clip" and value is None
            _check(name, self, optional or (_finite(value) and value > 0), "a finite number above 0")
        _check("weight_decay", self, _finite(self.weight_decay) and self.weight_decay >= 0, "0 or more")
        for name in ("momentum", "label_smoothing"):
            value = getattr(self, name)
            _check(name, self, _finite(value) and 0 <= value < 1, "at least 0 and below 1")
        for name in ("warmup", "validation_fraction"):
            value = getattr(self, name)
            _check(name, self, _finite(value) and 0 < value < 1, "between 0 and 1")
        for name, choices in {"dataset": Dataset, "optimizer": Optimizer, "schedule": Schedule}.items():
            value, allowed = getattr(self, name), get_args(choices)
            _check(name, self, value in allowed, f"one of {', '.join(allowed)}{nearest(str(value), allowed)}")

    def replace(self, **overrides: Any) -> Recipe:
        """This recipe with some fields changed.

        A field of `NetworkConfig` may stand among them, as `time_steps=2` or `neuron={"beta": 0.8}`; it
        is entered in `model`, and so are the fields of a mapping `model`.

        Raises:
            InputError: a field is unknown (the nearest is suggested) or its value is not allowed.
        """
        own = [f.name for f in dataclasses.fields(Recipe)]
        network = [f.name for f in dataclasses.fields(NetworkConfig)]
        changed: dict[str, Any] = {}
        model = dict(self.model)
        for name, value in overrides.items():
            if name == "model" and isinstance(value, Mapping):
                model = _merged(model, value)
            elif name in SETTINGS and isinstance(value, Mapping):
                changed[name] = _merged(dataclasses.asdict(getattr(self, name)), value)
            elif name in own:
                changed[name] = value
            elif name in network:
                model = _merged(model, {name: value})
            else:
                known = [*own, *network]
                raise InputError(
                    f"a recipe has no field {name!r}{nearest(name, known)} (fields: {', '.join(own)};"
                    f" of the network: {', '.join(network)})"
                )
        return dataclasses.replace(self, **{"model": model} | changed)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as they stand in a YAML file and in a checkpoint."""
        return dataclasses.asdict(self)

    def to_yaml(self) -> str:
        """The text of a recipe file that gives this recipe again."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False)


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
    own_file = Path(name).suffix in (".yaml", ".yml")
    file = Path(name) if own_file else FOLDER / f"{name}.yaml"
    if not file.is_file():
        known = list_recipes()
        raise InputError(
            f"there is no recipe {str(name)!r}{nearest(str(name), known)} (recipes: {', '.join(known)}; or"
            " the path of a .yaml file)"
        )
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{file} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise InputError(f"{file} holds no recipe; write one 'field: value' a line")
    required = [f.name for f in dataclasses.fields(Recipe) if f.name in ("source", "epochs", "learning_rate")]
    missing = [name for name in required if name not in values]
    if missing:
        raise InputError(f"{file} lacks {', '.join(missing)}; every recipe needs {', '.join(required)}")
    blank = Recipe(name=file.stem, source="", epochs=1, learning_rate=1.0)
    return blank.replace(**values)


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check(name: str, recipe: Recipe, valid: bool, expected: str) -> None:
    if not valid:
        raise InputError(f"recipe field {name} is {getattr(recipe, name)!r}; it must be {expected}")


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """`old` with the values of `new`; mappings inside are merged in the same way."""
    merged = dict(old)
    for name, value in new.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = _merged(merged[name], value) if both else value
    return merged
