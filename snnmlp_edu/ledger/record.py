"""A record: everything that is known of one run, as one line of JSON that cannot be changed unnoticed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ..config import NetworkConfig
from ..errors import InputError
from .plans import run_key

_LINE = re.compile(r'(\{.*), "sha256": "([0-9a-f]{64})"\}')
_NOT_WRITTEN = ("sha256", "location")


@dataclass(frozen=True)
class Record:
    """One run: what was trained, on what, where, and what came out.

    Args:
        plan: name of the plan.
        variant: name of the variant in that plan.
        preset: name of the network that the overrides change.
        overrides: fields of `NetworkConfig` that differ from the preset.
        network: class of the network.
        config: its complete configuration.
        recipe: name of the recipe.
        recipe_fields: what the recipe says, without the fields that are at their default.
        recipe_sha256: over these fields.
        seed: of weights, split, order and augmentation.
        dataset: its name.
        dataset_sha256: over all images and labels.
        splits: images in `train`, `validation` and `test`.
        commit: of the code, with `+changed` where files differed from it; empty outside a checkout.
        versions: of Python and of the packages that compute.
        device: `cpu`, or the name of the GPU.
        machine: kind of processor, and the instructions that PyTorch used.
        threads: of PyTorch.
        finished: date and time in UTC.
        seconds: wall time of training and validation.
        best_epoch: the epoch whose weights were kept, by validation accuracy.
        validation_accuracy: of that epoch.
        test_accuracy: part of the test images that its weights classify correctly.
        test_correct: how many these are.
        test_total: test images.
        test_loss: mean cross-entropy of a test image.
        embedded_correct: hits among the 1,000 embedded test images; None for images of other classes.
        accuracy_at_steps: T -> test accuracy of the same weights with T time steps; empty where T is fixed.
        firing_rates: module path -> spikes per neuron and step, on the first `counted_images` test images.
        gradient_norms: `start` and `end` of training -> parameter path of each map's weights -> norm of the
            gradient of the loss on the first `gradient_images` training images.
        counted_images: test images on which spikes and operations were counted.
        gradient_images: training images on which gradients were taken.
        parameters: how many the network has.
        operations: of one image, all steps; counted by `snnmlp_edu.cost` as if everything were folded.
        energy_joules: of one image.
        multiplication_free: verdict of the audit on the folded network.
        violations: why not, in words.
        tensors_sha256: over the kept weights.
        test_right: which test images are classified correctly, in the data set's order: base64 of
            `numpy.packbits` of one bool for each; None in records of the time before this was kept.
        sha256: over the line.
        location: file and line that the record was read from.
    """

    plan: str
    variant: str
    preset: str
    overrides: Mapping[str, Any]
    network: str
    config: Mapping[str, Any]
    recipe: str
    recipe_fields: Mapping[str, Any]
    recipe_sha256: str
    seed: int
    dataset: str
    dataset_sha256: str
    splits: Mapping[str, int]
    commit: str
    versions: Mapping[str, str]
    device: str
    machine: str
    threads: int
    finished: str
    seconds: float
    best_epoch: int
    validation_accuracy: float
    test_accuracy: float
    test_correct: int
    test_total: int
    test_loss: float
    embedded_correct: int | None
    accuracy_at_steps: Mapping[str, float]
    firing_rates: Mapping[str, float]
    gradient_norms: Mapping[str, Mapping[str, float | None]]
    counted_images: int
    gradient_images: int
    parameters: int
    operations: Mapping[str, float]
    energy_joules: float
    multiplication_free: bool
    violations: Sequence[str]
    tensors_sha256: str
    test_right: str | None = None
    sha256: str = field(default="", compare=False)
    location: str = field(default="", compare=False)

    @cached_property
    def key(self) -> str:
        """What decides the outcome of the run, as one word; `Plan.key` gives the same."""
        config = NetworkConfig.from_dict(self.config)
        return run_key(self.network, config, self.recipe_sha256, self.seed)

    @property
    def mean_firing_rate(self) -> float:
        """Spikes per neuron layer and step, the mean over the layers."""
        rates = self.firing_rates.values()
        return sum(rates) / len(rates) if rates else float("nan")

    def to_line(self) -> str:
        """The line that holds this record; the hash at its end covers everything before it."""
        values = {
            f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in _NOT_WRITTEN
        }
        text = json.dumps(values, allow_nan=False)
        return f'{text[:-1]}, "sha256": "{_sha256(text)}"}}'

    @classmethod
    def from_line(cls, line: str, location: str) -> Record:
        """The record in a line, after its hash was checked.

        Args:
            line: without its end.
            location: file and line, for messages.

        Raises:
            InputError: the line was changed by hand, or was not written by snnmlp-edu.
        """
        found = _LINE.fullmatch(line)
        if found is None:
            raise InputError(
                f"{location} holds no complete record; restore the file with git, or run the plan again"
            )
        text = found[1] + "}"
        if _sha256(text) != found[2]:
            raise InputError(
                f"{location} was changed by hand: its SHA-256 does not match; restore the file with git, or"
                " delete the line and run the plan again"
            )
        try:
            values = json.loads(text)
            values["firing_rates"] = {
                _neurons_today(path, len(values["config"]["depths"])): rate
                for path, rate in values["firing_rates"].items()
            }
            return cls(**values, sha256=found[2], location=location)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(
                f"{location} was written by another version of snnmlp-edu ({error}); update it"
            ) from error


# Neurons that were siblings of their synapses and now belong to them.
_MOVED = {
    r"\.positions\.(rows|columns|grid)\.neuron": r".positions.\1.synapse.neuron",
    r"\.token_neuron": ".token.fuse.neuron",
    r"\.channel\.neuron": ".channel.up.neuron",
    r"\.channel_neuron": ".channel.down.neuron",
}


def _neurons_today(path: str, stages: int) -> str:
    """The path of a layer of neurons, whatever the version of snnmlp-edu that recorded it.

    Args:
        path: as recorded.
        stages: of the network's configuration; after them SpikingVGG has its fully connected stage.
    """
    for before, now in {
        rf"stages\.{stages}\.neurons\.(\d+)": rf"stages.{stages}.synapses.\1.neuron",
        **_MOVED,
    }.items():
        path = re.sub(f"{before}$", now, path)
    return path


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
