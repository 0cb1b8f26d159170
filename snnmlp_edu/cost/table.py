"""A cost in words: the cells of a table by part, and the lines below it."""

from __future__ import annotations

from .results import Cost, Operations

COLUMNS = ("part", "dense", "MACs", "additions", "energy")


def cells(cost: Cost) -> list[tuple[str, ...]]:
    """One row of text for each part and one for their sum, under `COLUMNS`; operations of one image."""
    parts = cost.by_part()
    dense = {part: sum(layer.dense_macs for layer in cost.part(part)) for part in parts}
    rows = [_row(cost, part, dense[part], operations) for part, operations in parts.items()]
    return [*rows, _row(cost, "all", sum(dense.values()), cost.after_folding)]


def summary(cost: Cost, twin: Cost) -> list[str]:
    """Energy next to that of the ReLU twin and of the network before folding; neurons and memory."""
    energy, twins = cost.energy_joules, twin.energy_joules
    rates = [rate for steps in cost.firing_rates.values() for rate in steps]
    ratio = twins / energy
    return [
        f"energy {joules(energy)}; its ReLU twin, in one step, {joules(twins)}, {ratio:.2f} times as much",
        f"energy if nothing were folded {joules(cost.energy_of(cost.before_folding))}",
        f"neurons {cost.neuron_updates:,} updates, mean firing rate of the layers"
        f" {100 * sum(rates) / len(rates):.1f} %",
        f"memory of weights {cost.weight_bytes:,} bytes, of membranes {cost.membrane_bytes:,} bytes",
        f"prices {cost.mac_joules * 1e12:g} pJ a multiply-accumulate (MAC),"
        f" {cost.accumulate_joules * 1e12:g} pJ an addition; dense: if every value counted",
    ]


def joules(energy: float) -> str:
    """Energy in a fitting unit.

    >>> joules(1.5e-6), joules(0.0123)
    ('1.500 µJ', '12.300 mJ')
    """
    return f"{energy * 1e3:.3f} mJ" if energy >= 1e-3 else f"{energy * 1e6:.3f} µJ"


def _row(cost: Cost, part: str, dense: int, operations: Operations) -> tuple[str, ...]:
    counts = (dense, operations.macs, operations.accumulates)
    return (part, *(f"{count:,.0f}" for count in counts), joules(cost.energy_of(operations)))
