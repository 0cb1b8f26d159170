"""The state of a run on disk, from which it resumes as if it had never stopped.

The state is one safetensors file: tensors as they are, everything around them as JSON. Nothing is pickled or
unpickled, and a checksum tells whether it is whole.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..checkpoints import CHECKPOINT, read_tensors, write_tensors
from ..config import NetworkConfig
from ..data.files import write_atomically
from ..errors import InputError
from ..model.network import SpikingNetwork
from ..registry import build_model
from .recipe import Recipe, decisive, load_recipe

LAST = "last.safetensors"
RECIPE = "recipe.yaml"
LEFT_OUT = "left_out.txt"
DESCRIPTION = ("recipe", "preset", "config", "preprocessing", "data", "processes")


def pack(value: Any, tensors: dict[str, Tensor], location: str = "state") -> Any:
    """Nested plain values as JSON can hold them; tensors go into `tensors`, named after their location.

    Raises:
        TypeError: a value is of a type that is not stored.

    >>> import torch
    >>> tensors = {}
    >>> pack({0: (torch.ones(2), None)}, tensors)
    {'mapping': [[0, {'tuple': [{'tensor': 'state.0.0'}, None]}]]}
    >>> unpack({"mapping": [[0, {"tuple": [{"tensor": "state.0.0"}, None]}]]}, tensors)
    {0: (tensor([1., 1.]), None)}
    """
    match value:
        case Tensor():
            tensors[location] = value
            return {"tensor": location}
        case Mapping():
            return {"mapping": [[key, pack(v, tensors, f"{location}.{key}")] for key, v in value.items()]}
        case tuple() | list():
            items = [pack(item, tensors, f"{location}.{i}") for i, item in enumerate(value)]
            return {"tuple": items} if isinstance(value, tuple) else items
        case None | bool() | int() | float() | str():
            return value
    raise TypeError(f"{location} is of type {type(value).__name__}, which a saved state does not hold")


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


def write_state(path: Path, state: Mapping[str, Any], description: Mapping[str, Any]) -> None:
    """Write the state of a run, completely or not at all.

    Raises:
        OSError: the folder cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    packed = pack(state, tensors)
    write_tensors(path, tensors, {**description, "state": packed})


def read_state(path: Path) -> dict[str, Any]:
    """Read what `write_state` wrote.

    Raises:
        InputError: the file is truncated, changed, or not one of snnmlp-edu.
    """
    tensors, document = read_tensors(path.read_bytes(), str(path))
    return unpack(document["state"], tensors)


def make_run_folder(output: Path, recipe: Recipe, left_out: Sequence[str] = ()) -> Path:
    """Make `output/<recipe>-<seed>-<number>`, with the resolved recipe and the images left out.

    Raises:
        InputError: the folder cannot be made or written.
    """
    if not output.parent.is_dir():
        raise InputError(f"there is no folder {output.parent} to hold {output.name}; create it first")
    try:
        output.mkdir(exist_ok=True)
        for number in itertools.count(1):
            folder = output / f"{recipe.name}-{recipe.seed}-{number}"
            try:
                folder.mkdir()
                break
            except FileExistsError:
                continue
        write_atomically(folder / RECIPE, recipe.to_yaml().encode())
        if left_out:
            write_atomically(folder / LEFT_OUT, "".join(f"{line}\n" for line in left_out).encode())
    except OSError as error:
        raise InputError(
            f"the output folder {output} cannot be written ({error.strerror}); choose another with --output"
        ) from error
    return folder


@dataclass(frozen=True)
class SavedRun:
    """A run on disk that can be resumed.

    Args:
        folder: of the run.
        description: what it is made of: `recipe`, `preset`, `config`, `preprocessing`, `data`, `processes`.
    """

    folder: Path
    description: Mapping[str, Any]

    @classmethod
    def open(cls, folder: str | Path) -> SavedRun:
        """Read a run's description, after a check that its state is complete.

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
            raise InputError(f"{folder} holds no {LAST} to resume from; train it again")
        try:
            _, document = read_tensors(state.read_bytes(), str(state))
        except InputError as error:
            kept = f"; the best epoch so far is kept in {best}" if best.is_file() else ""
            raise InputError(f"{error}{kept}") from error
        return cls(folder, {name: document[name] for name in DESCRIPTION if name in document})

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
        """Refuse to resume with anything that differs from how the run began.

        Raises:
            InputError: names the fields that differ, with both values.
        """
        stored = {**self.description, "preset": self.preset}
        # A field that came with a later version of the package is at its default in the run.
        stored["recipe"] = decisive(Recipe.plain("run").replace(**stored["recipe"]).to_dict())
        now = {**description, "recipe": decisive(description["recipe"])}
        differing = list(differences(stored, now))
        if differing:
            raise InputError(
                f"the run {self.folder} was started with other settings: {', '.join(differing)};"
                " leave out the change to resume, or start a new run"
            )


def differences(old: Mapping[str, Any], new: Mapping[str, Any], location: str = "") -> Iterator[str]:
    """What differs between two nested mappings, a phrase for each field.

    >>> list(differences({"recipe": {"seed": 0, "flip": True}}, {"recipe": {"seed": 1, "flip": True}}))
    ['recipe.seed is 0 in the run and 1 now']
    """
    for name in [*old, *(name for name in new if name not in old)]:
        before, now = old.get(name, "not set"), new.get(name, "not set")
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            yield from differences(before, now, f"{location}{name}.")
        elif _plain(before) != _plain(now):
            yield f"{location}{name} is {_plain(before)} in the run and {_plain(now)} now"


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
        kept = f"the last good state is kept: once fixed, resume with: {resume_command}"
        raise InputError(
            f"the run's folder {folder} cannot be written ({error.strerror}); free space or fix access;"
            f" {kept if state.is_file() else 'no state was saved yet'}"
        ) from error
