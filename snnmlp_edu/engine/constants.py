"""The constants of a layer as `engine.c` reads them: weights, biases and thresholds."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from ..errors import InputError
from ..mfi.events.integer import IntegerAxisLIF, IntegerLIF, IntegerTable
from .file import LANES, NetworkFile, Spikes, declared

MOST_ROWS = 2**16 - 16  # a spike in a list is a number of 16 bits
BIAS = 64  # of a weight in the lower byte
# A map becomes tables of the sums of 8, or of 4, inputs where these take no more bytes than this.
BYTE_TABLES, HALF_TABLES = 160_000, 20_000


class Weights(NamedTuple):
    """A map: `rows` `[steps, inputs, outputs]`, `before` `[steps, outputs]`, and the `bits` of its shift."""

    rows: np.ndarray
    before: np.ndarray
    bits: int

    @classmethod
    def of(cls, table: IntegerTable) -> Weights:
        """Those of a table, whose row 0 of each step is empty."""
        before = array(table.before).astype(int)
        rows = array(table.weights).astype(int).reshape(len(before), -1, before.shape[1])
        return cls(rows[:, 1:], before, table.bits)

    def unshifted(self) -> Weights:
        """The same where the shift goes to the left: in entries of 16 bits it is carried out beforehand."""
        return Weights(self.rows << -self.bits, self.before << -self.bits, 0)


def array(tensor: Tensor) -> np.ndarray:
    """A tensor's values."""
    return tensor.detach().cpu().numpy()


def registers(count: int) -> int:
    """Lanes that so many channels take: whole registers."""
    return LANES * -(-count // LANES)


def in_lanes(values: np.ndarray, like: Spikes) -> np.ndarray:
    """Constants of each channel, on the last axis, in lanes; 0 in those that no channel has."""
    filled = np.zeros((*values.shape[:-1], like.lanes), int)
    filled[..., like.order] = values
    return filled


def group_of_tables(full: np.ndarray) -> int | None:
    """How many inputs number a row of a table, if tables are small enough to be faster than rows.

    Args:
        full: weights `[steps, inputs, lanes]`.
    """
    steps, inputs, lanes = full.shape
    for group, most in ((8, BYTE_TABLES), (4, HALF_TABLES)):
        one_register = lanes == LANES and inputs > 64  # half bytes read a quarter of the memory
        if steps * (inputs // group << group) * lanes * 2 <= most and not (group == 8 and one_register):
            return group
    return None


def tables(file: NetworkFile, full: np.ndarray, group: int) -> dict[str, int]:
    """Fields of a layer that looks up the sums of `group` inputs of the weights `[steps, inputs, lanes]`."""
    by_pass, size = _passes(full, LANES)
    passes, steps, inputs, width = by_pass.shape
    one = 2 * width * (inputs // group << group)
    at = file.tables
    file.tables += 64 * -(-(passes * steps * one) // 64)
    return {
        "group": group,
        "raw": file.constant(by_pass, "i2"),
        "inputs": passes * steps * inputs,
        "rows": at,
        "rows_step": one if steps > 1 else 0,
        "pass_bytes": steps * one,
        "size": size,
    }


def rows(file: NetworkFile, full: np.ndarray) -> dict[str, int]:
    """Fields of a layer that adds a row of the weights `[steps, inputs, lanes]` for each spike in a list.

    Raises:
        InputError: a list cannot number so many inputs.
    """
    if full.shape[1] > MOST_ROWS:
        raise InputError(f"a map has {full.shape[1]} inputs; the engine lists up to {MOST_ROWS}")
    by_pass, size = _passes(np.pad(full, ((0, 0), (0, 1), (0, 0))), 2 * LANES)
    passes, steps, count, width = by_pass.shape
    lower, upper = by_pass.reshape(passes, steps, count, -1, 2, LANES).transpose(4, 0, 1, 2, 3, 5)
    pairs = np.stack(((lower + BIAS).astype(np.uint8), upper.astype(np.int8).view(np.uint8)), axis=-1)
    one = count * width
    return {
        "rows": file.constant(pairs, "u1"),
        "rows_step": one if steps > 1 else 0,
        "pass_bytes": steps * one,
        "size": 2 * size,
    }


def _passes(full: np.ndarray, unit: int) -> tuple[np.ndarray, int]:
    """Weights `[steps, inputs, lanes]` as `[passes, steps, inputs, lanes of a pass]`, and units in a pass."""
    steps, inputs, lanes = full.shape
    units = -(-lanes // unit)
    passes = -(-units // declared("MOST_UNITS"))
    size = -(-units // passes)
    padded = np.pad(full, ((0, 0), (0, 0), (0, passes * size * unit - lanes)))
    return padded.reshape(steps, inputs, passes, size * unit).transpose(2, 0, 1, 3), size


def neurons(file: NetworkFile, neuron: Any, places: int) -> dict[str, int]:
    """Fields of a layer that say how neurons leak, fire and are reset.

    Args:
        file: where the thresholds are kept.
        neuron: an `IntegerLIF`, or an `IntegerAxisLIF` with a threshold for each token.
        places: how many there are.

    Raises:
        InputError: the thresholds belong to something else than these places.
    """
    inclusive = int(neuron.config.inclusive)
    match neuron:
        case IntegerLIF():
            columns = np.array([neuron.threshold - inclusive, neuron.threshold, 0, -1, 0])
        case IntegerAxisLIF() if neuron.axis == "token" and len(neuron.threshold) == places:
            threshold, bias = array(neuron.threshold).astype(int), array(neuron.bias).astype(int)
            falling, driven = array(neuron.falling), array(neuron.driven)
            # Turned, u <= theta reads ~u >= ~theta.
            above = np.where(falling, ~threshold, threshold) - inclusive
            limit = 2 ** (neuron.word - 1) - 1
            above = np.clip(above, -limit - 1, limit)
            columns = np.stack((above, threshold, -falling.astype(int), -driven.astype(int), bias), axis=1)
        case _:
            raise InputError(
                f"neurons with {len(neuron.threshold)} thresholds along {neuron.axis} do not run in the"
                f" engine at {places} places; only with one for each token"
            )
    return {
        "neuron": file.constant(columns, "i4"),
        "neuron_place": 20 if columns.ndim == 2 else 0,  # bytes from one to the next
        "leak": neuron.bits or 0,
        "forgets": int(neuron.bits is None),
        "soft": int(not neuron.config.resets_to_zero),
    }
