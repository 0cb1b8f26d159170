"""NIR graphs run by the equations that NIR publishes for its nodes, in NumPy."""

from __future__ import annotations

from typing import Any

import nir
import numpy as np


def convolve(node: nir.Conv2d, image: np.ndarray) -> np.ndarray:
    assert node.groups == 1
    assert np.all(np.asarray(node.padding) == 0)
    assert np.all(np.asarray(node.dilation) == 1)
    windows = np.lib.stride_tricks.sliding_window_view(image, node.weight.shape[2:], axis=(1, 2))
    windows = windows[:, :: node.stride[0], :: node.stride[1]]
    return np.einsum("ihwyx,oiyx->ohw", windows, node.weight) + node.bias[:, None, None]


def interpret(graph: nir.NIRGraph, frames: np.ndarray) -> dict[str, np.ndarray]:
    """What every node puts out at each step, for frames `[T, channels, H, W]`.

    Edges into a node add up. Neurons are the differential equations of NIR in Euler steps, and fire
    strictly above their threshold.
    """
    step = float(graph.metadata["step_s"])
    membranes: dict[str, np.ndarray] = {}
    outputs: dict[str, list[np.ndarray]] = {name: [] for name in graph.nodes}
    sources = {name: [a for a, b in graph.edges if b == name] for name in graph.nodes}

    def fire(name: str, node: Any, potential: np.ndarray) -> np.ndarray:
        spikes = potential > node.v_threshold
        membranes[name] = np.where(spikes, node.v_reset, potential)
        return spikes.astype(float)

    def output(name: str, frame: np.ndarray, now: dict[str, np.ndarray]) -> np.ndarray:
        if name not in now:
            node = graph.nodes[name]
            arriving: Any = sum(output(source, frame, now) for source in sources[name])
            match node:
                case nir.Input():
                    now[name] = frame
                case nir.Output():
                    now[name] = arriving
                case nir.Conv2d():
                    now[name] = convolve(node, arriving)
                case nir.Flatten(start_dim=0, end_dim=-1):
                    now[name] = arriving.reshape(-1)
                case nir.Affine():
                    now[name] = node.weight @ arriving + node.bias
                case nir.Linear():
                    now[name] = node.weight @ arriving
                case nir.LIF():
                    v = membranes.get(name, 0.0 * arriving)
                    change = (node.v_leak - v) + node.r * arriving
                    now[name] = fire(name, node, v + step / node.tau * change)
                case nir.IF():
                    v = membranes.get(name, 0.0 * arriving)
                    now[name] = fire(name, node, v + step * node.r * arriving)
                case _:
                    raise AssertionError(type(node))
        return now[name]

    for frame in frames:
        now: dict[str, np.ndarray] = {}
        for name in graph.nodes:
            outputs[name].append(output(name, frame, now))
    return {name: np.stack(steps) for name, steps in outputs.items()}
