"""What a count gives: one row for each map, and their sums for one image."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Arithmetic = Literal["accumulate", "multiply-accumulate"]


@dataclass(frozen=True)
class Operations:
    """Operations per image.

    Args:
        macs: multiply-accumulate operations: a product, and its addition to a sum.
        accumulates: additions alone.
    """

    macs: float
    accumulates: float

    def __add__(self, other: Operations) -> Operations:
        return Operations(self.macs + other.macs, self.accumulates + other.accumulates)


@dataclass(frozen=True)
class LayerCost:
    """One map: a convolution, a linear map, or the head's sum over the grid.

    Args:
        path: its module path.
        part: stem, axial, fuse, channel, patch encoding, head; or convolution, shortcut, fully connected.
        arithmetic: what it does for each value that arrives: add a weight, or multiply first.
        steps: how often it runs per image.
        dense_macs_per_step: operations of one step if every value counted.
        spikes: values other than 0 that arrived, in all images and steps.
        events: their fan-outs added up, in all images and steps.
        images: how many images were counted.
    """

    path: str
    part: str
    arithmetic: Arithmetic
    steps: int
    dense_macs_per_step: int
    spikes: int
    events: int
    images: int

    @property
    def dense_macs(self) -> int:
        """Operations per image if every value counted, in all steps."""
        return self.dense_macs_per_step * self.steps

    @property
    def synaptic_operations(self) -> float:
        """Weights added per image, in all steps; 0 where values are multiplied."""
        return self.events / self.images if self.arithmetic == "accumulate" else 0.0

    @property
    def macs(self) -> int:
        """Multiply-accumulate operations per image, in all steps; 0 where weights are only added."""
        return self.dense_macs if self.arithmetic == "multiply-accumulate" else 0

    @property
    def operations(self) -> Operations:
        """Both of these."""
        return Operations(self.macs, self.synaptic_operations)

    def to_dict(self) -> dict[str, Any]:
        """The row as plain values, sums with it."""
        sums = ("dense_macs", "synaptic_operations", "macs")
        return dataclasses.asdict(self) | {name: getattr(self, name) for name in sums}


@dataclass(frozen=True)
class Cost:
    """All that inference of one image costs: means over the images counted, sums over the time steps.

    Args:
        layers: one row for each map, in the order in which they ran.
        skip_additions: additions where a shortcut or another current joins.
        normalisation_macs: operations of the normalisations that the network has, as it was given.
        unfoldable_macs: operations of those among them that cannot fold.
        head_before_folding: operations of a head that is not folded, without its normalisation; else None.
        neuron_updates: updates of one neuron by one step.
        firing_rates: module path of each layer of neurons -> spikes per neuron, at each step.
        weight_bytes: memory of the weights and of all other constants, of the network as it was given.
        membrane_bytes: memory of the membrane potentials of all neurons.
        mac_joules: energy of a multiply-accumulate operation.
        accumulate_joules: energy of an addition.
    """

    layers: tuple[LayerCost, ...]
    skip_additions: int
    normalisation_macs: int
    unfoldable_macs: int
    head_before_folding: Operations | None
    neuron_updates: int
    firing_rates: Mapping[str, tuple[float, ...]]
    weight_bytes: int
    membrane_bytes: int
    mac_joules: float
    accumulate_joules: float

    def part(self, name: str) -> tuple[LayerCost, ...]:
        """The rows of one part."""
        return tuple(layer for layer in self.layers if layer.part == name)

    @property
    def stem_macs(self) -> int:
        """Multiply-accumulate operations of the stem: once for a static image, 0 where spikes arrive."""
        return sum(layer.macs for layer in self.part("stem"))

    @property
    def stem_accumulates(self) -> float:
        """Weights added in the stem: 0 but for a recording in spikes."""
        return _accumulates(self.part("stem"))

    @property
    def dense_macs(self) -> int:
        """Operations between stem and head if every value counted."""
        return sum(layer.dense_macs for layer in self._between)

    @property
    def synaptic_operations(self) -> float:
        """Weights added between stem and head."""
        return _accumulates(self._between)

    @property
    def head_accumulates(self) -> float:
        """Weights added in the head."""
        return _accumulates(self.part("head"))

    @property
    def accumulates(self) -> float:
        """All additions: stem (of a recording in spikes), synaptic operations, head and skip additions."""
        return self.synaptic_operations + self.head_accumulates + self.skip_additions + self.stem_accumulates

    @property
    def macs(self) -> int:
        """All multiply-accumulate operations: stem, maps of real values, normalisations that cannot fold."""
        return sum(layer.macs for layer in self.layers) + self.unfoldable_macs

    @property
    def after_folding(self) -> Operations:
        """All operations, once everything is folded that folds."""
        return Operations(self.macs, self.accumulates)

    @property
    def before_folding(self) -> Operations:
        """All operations of the network as it was given: the same as after, if it was folded."""
        head = self.head_before_folding
        if head is None:
            return self.after_folding
        maps = sum(layer.macs for layer in self.layers if layer.part != "head") + self.normalisation_macs
        added = self.synaptic_operations + self.skip_additions + self.stem_accumulates
        return head + Operations(maps, added)

    @property
    def energy_joules(self) -> float:
        """Energy per image, once everything is folded that folds."""
        return self.energy_of(self.after_folding)

    def energy_of(self, operations: Operations) -> float:
        """Energy in joules of other operations at the same prices, such as those before folding."""
        return self.mac_joules * operations.macs + self.accumulate_joules * operations.accumulates

    def by_part(self) -> dict[str, Operations]:
        """All operations by part, skip additions and normalisations that cannot fold among them."""
        parts = {layer.part: Operations(0, 0) for layer in self.layers}
        for part in parts:
            rows = self.part(part)
            parts[part] = Operations(sum(layer.macs for layer in rows), _accumulates(rows))
        parts["skip additions"] = Operations(0, self.skip_additions)
        parts["unfoldable norms"] = Operations(self.unfoldable_macs, 0)
        return {part: operations for part, operations in parts.items() if operations != Operations(0, 0)}

    def to_dict(self) -> dict[str, Any]:
        """All of this as plain values, sums first."""
        sums = (
            "stem_macs stem_accumulates dense_macs synaptic_operations head_accumulates skip_additions"
            " accumulates macs normalisation_macs unfoldable_macs neuron_updates weight_bytes membrane_bytes"
            " energy_joules mac_joules accumulate_joules"
        )
        return {name: getattr(self, name) for name in sums.split()} | {
            "before_folding": dataclasses.asdict(self.before_folding),
            "energy_before_folding_joules": self.energy_of(self.before_folding),
            "firing_rates": dict(self.firing_rates),
            "layers": [layer.to_dict() for layer in self.layers],
        }

    @property
    def _between(self) -> tuple[LayerCost, ...]:
        return tuple(layer for layer in self.layers if layer.part not in ("stem", "head"))


def _accumulates(layers: tuple[LayerCost, ...]) -> float:
    # Whole numbers first: one rounding in all.
    events = sum(layer.events for layer in layers if layer.arithmetic == "accumulate")
    return events / layers[0].images if layers else 0.0
