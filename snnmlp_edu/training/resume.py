"""The state of a run on disk, from which it goes on as if it had never stopped.

The state is all that the next step depends on: weights and running statistics, optimiser, schedule,
generators, the place in the epoch, and what was measured so far. It is one safetensors file: tensors as
they are, everything around them as JSON. Nothing is pickled or unpickled.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric.plugins import CheckpointIO
from torch import Tensor

from ..checkpoints import CHECKPOINT, read_tensors, write_tensors
from ..config import NetworkConfig
from ..errors import InputError
from ..network import SpikingNetwork
from ..registry import build_model
from .recipe import Recipe, load_recipe

LAST = "last.safetensors"
RECIPE = "recipe.yaml"
DESCRIPTION = ("recipe", "preset", "config", "preprocessing", "data", "processes")
# Recipe fields that do not change what is computed. Images may have moved: what they are is compared apart.
FREE = ("save_every", "loading", "tensorboard", "data_dir")


def pack(value: Any, tensors: dict[str, Tensor], place: str = "state") -> Any:
    """Nested plain values as JSON can hold them; tensors go into `tensors`, named after their place.

    Raises:
        TypeError: a value is of a type that is not stored.

    >>> tensors = {}
    >>> pack({0: (torch.ones(2), None)}, tensors)
    {'mapping': [[0, {'tuple': [{'tensor': 'state.0.0'}, None]}]]}
    >>> unpack({"mapping": [[0, {"tuple": [{"tensor": "state.0.0"}, None]}]]}, tensors)
    {0: (tensor([1., 1.]), None)}
    """
    match value:
        case Tensor():
            tensors[place] = value
            return {"tensor": place}
        case Mapping():
            return {"mapping": [[key, pack(v, tensors, f"{place}.{key}")] for key, v in value.items()]}
        case tuple() | list():
            items = [pack(item, tensors, f"{place}.{i}") for i, item in enumerate(value)]
            return {"tuple": items} if isinstance(value, tuple) else items
        case None | bool() | int() | float() | str():
            return value
    raise TypeError(f"{place} is of type {type(value).__name__}, which a saved state does not hold")


def unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of `pack`."""
    match value:
        case {"tensor": name}:
            return tensors[name]
        case {"mapping": items}:
            return {key: unpack(v, tensors) for key, v in items}
        case {"tuple": items}:
            return tuple(unpack(item, tensors) for item in items)
        case list():
            return [unpack(item, tensors) for item in value]
    return value


class StateIO(CheckpointIO):
    """How Lightning writes and reads the state of a run: safetensors and JSON, whole or not at all.

    Args:
        description: what the run is made of, stored beside the state and compared when it is resumed.

    If the folder cannot be written an older state is left as it was, and the error is kept as `failure`:
    Lightning calls this in the first process alone, and lets the others wait for it.
    """

    def __init__(self, description: Mapping[str, Any]) -> None:
        self.description = dict(description)
        self.failure: OSError | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write the state, or keep what went wrong."""
        tensors: dict[str, Tensor] = {}
        state = pack(checkpoint, tensors)
        try:
            write_tensors(Path(path), tensors, {**self.description, "state": state})
        except OSError as error:
            self.failure = error

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read the state.

        Raises:
            InputError: the file is truncated, changed, or none of ours.
        """
        tensors, document = read_tensors(Path(path).read_bytes(), str(path))
        return unpack(document["state"], tensors)

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a state."""
        Path(path).unlink(missing_ok=True)


@dataclass(frozen=True)
class SavedRun:
    """A run on disk that can go on.

    Args:
        folder: of the run.
        description: what it is made of: `recipe`, `preset`, `config`, `preprocessing`, `data`, `processes`.
    """

    folder: Path
    description: Mapping[str, Any]

    @classmethod
    def open(cls, folder: str | Path) -> SavedRun:
        """Read a run's description, after a check that its state is whole.

        Raises:
            InputError: there is no such run, it is finished, or its state is damaged.
        """
        folder = Path(folder)
        state = folder / LAST
        if not folder.is_dir():
            raise InputError(
                f"there is no run {folder}; give the folder of one, such as runs/fashion_smoke-0-1"
            )
        best = folder / CHECKPOINT
        if best.is_file():
            _, document = read_tensors(best.read_bytes(), str(best))
            if "test_correct" in document["metrics"]:
                raise InputError(
                    f"the run {folder} is finished; its checkpoint is {best}; for more epochs start a new run"
                )
        if not state.is_file():
            raise InputError(f"{folder} holds no {LAST} to go on from; train it again")
        try:
            _, document = read_tensors(state.read_bytes(), str(state))
        except InputError as error:
            kept = f"; the best epoch so far is kept in {best}" if best.is_file() else ""
            raise InputError(f"{error}{kept}") from error
        return cls(folder, {name: document[name] for name in DESCRIPTION if name in document})

    @property
    def state(self) -> Path:
        """The file with the state."""
        return self.folder / LAST

    def recipe(self) -> Recipe:
        """The run's recipe, as its folder has it."""
        return load_recipe(self.folder / RECIPE)

    @property
    def preset(self) -> str | None:
        """By which the network is built; in runs of earlier versions, the recipe's."""
        return self.description.get("preset", self.description["recipe"]["preset"])

    def network(self) -> SpikingNetwork:
        """A new network of the run's configuration; its weights come with the state."""
        return build_model(self.preset, NetworkConfig.from_dict(self.description["config"]))

    def require_same(self, description: Mapping[str, Any]) -> None:
        """Refuse to go on with anything else than the run began with.

        Raises:
            InputError: names the fields that differ, with both values.
        """
        stored = {**self.description, "preset": self.preset}
        # A field that came with a later version of the package is at its default in the run.
        blank = Recipe(name="run", source="ours", epochs=1, learning_rate=1.0)
        stored["recipe"] = blank.replace(**stored["recipe"]).to_dict()
        differing = list(differences(stored, description))
        if differing:
            raise InputError(
                f"the run {self.folder} was made otherwise: {', '.join(differing)}; leave the change out"
                " to go on, or start a new run"
            )


def differences(old: Mapping[str, Any], new: Mapping[str, Any], place: str = "") -> Iterator[str]:
    """What differs between two nested mappings, a phrase for each field.

    >>> list(differences({"recipe": {"seed": 0, "flip": True}}, {"recipe": {"seed": 1, "flip": True}}))
    ['recipe.seed is 0 in the run and 1 now']
    """
    for name in [*old, *(name for name in new if name not in old)]:
        if name in FREE:
            continue
        before, now = old.get(name, "not set"), new.get(name, "not set")
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            yield from differences(before, now, f"{place}{name}.")
        elif _plain(before) != _plain(now):
            yield f"{place}{name} is {_plain(before)} in the run and {_plain(now)} now"


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


@contextmanager
def writing(folder: Path, resume_command: str) -> Iterator[None]:
    """Turn a failure to write a run's files into one line.

    Args:
        folder: of the run.
        resume_command: with which it can be resumed.

    Raises:
        InputError: a file could not be written; what was there before is left as it was.
    """
    try:
        yield
    except OSError as error:
        state = folder / LAST
        kept = f"the last good state is kept: once mended, resume with: {resume_command}"
        raise InputError(
            f"the run's folder {folder} cannot be written ({error.strerror}); make room or mend it;"
            f" {kept if state.is_file() else 'no state was saved yet'}"
        ) from error


def generator_states() -> dict[str, Any]:
    """The states of the random generators that programs share: PyTorch's, NumPy's and Python's."""
    name, keys, *rest = np.random.get_state()  # noqa: NPY002  (the shared one is what is meant)
    return {
        "torch": torch.get_rng_state(),
        # Of this process's own GPU: asking for all would occupy memory on each of them.
        "cuda": [torch.cuda.get_rng_state()] if torch.cuda.is_available() else [],
        "numpy": (name, torch.from_numpy(np.asarray(keys, np.int64)), *rest),
        "python": random.getstate(),
    }


def restore_generators(states: Mapping[str, Any]) -> None:
    """Set the generators to what `generator_states` returned."""
    torch.set_rng_state(states["torch"])
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"][0])
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    random.setstate(states["python"])
