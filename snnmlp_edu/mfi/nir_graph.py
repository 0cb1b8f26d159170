r"""Building a NIR graph: signals on flattened grids, unrolled affine maps and layers of neurons.

NIR has no map that is shared along an axis, so that every map is written out as the matrix between two
flattened grids, ordered channel, row, column.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InputError
from ..model.neurons import LIF

STEP = 1e-4  # seconds; the step that snnTorch's importer assumes
MOST_WEIGHTS = 2**24  # of all unrolled maps together: 64 MiB in single precision


def nir_package() -> Any:
    """The package `nir`, imported when it is needed.

    Raises:
        InputError: it is not installed.
    """
    try:
        import nir
    except ImportError as missing:
        raise InputError(
            'export to NIR needs the package nir; install it with pip install "snnmlp-edu[export]"'
        ) from missing
    return nir


def node_name(path: str) -> str:
    """The name of a module's node: consumers write `_` for a dot, which would make two names the same.

    >>> node_name("channel.neuron"), node_name("channel_neuron")
    ('channel__neuron', 'channel_neuron')
    """
    return path.replace(".", "__")


@dataclass(frozen=True)
class Signal:
    """The sum of what some nodes put out, a flattened grid of shape `(H, W, C)`."""

    nodes: tuple[str, ...]
    shape: tuple[int, int, int]

    def __add__(self, other: Signal) -> Signal:
        return Signal(self.nodes + other.nodes, self.shape)


@dataclass
class GraphBuilder:
    """A graph that grows node by node."""

    dtype: torch.dtype
    nodes: dict[str, Any] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)
    weights: int = 0

    def add(self, path: str, node: Any, *sources: str) -> str:
        """Add a node for a module path, and an edge from every source; returns the node's name."""
        name = node_name(path)
        self.nodes[name] = node
        self.edges += [(source, name) for source in sources]
        return name

    def map(self, path: str, affine: Callable[..., Tensor], *signals: Signal) -> Signal:
        """Add an affine function of signals, unrolled: one node for each of them, the bias with the first."""
        rest = [torch.zeros(1, 1, *signal.shape, dtype=torch.float64) for signal in signals]
        bias = affine(*rest)
        shape = (bias.shape[2], bias.shape[3], bias.shape[4])
        names = []
        for index, signal in enumerate(signals):
            self._count(path, math.prod(signal.shape) * bias.numel())
            # Column j is what a lone 1 in place j adds: in double precision, rounded to the network's own.
            lone = [part.expand(-1, math.prod(signal.shape), *part.shape[2:]) for part in rest]
            lone[index] = _each_place(signal.shape)
            weight = self.array(_flatten(affine(*lone) - bias).T)
            constants = {"bias": self.array(_flatten(bias)[0])} if index == 0 else {}
            kind = nir_package().Affine if index == 0 else nir_package().Linear
            node = path if len(signals) == 1 else f"{path}.{index}"
            names.append(self.add(node, kind(weight=weight, **constants), *signal.nodes))
        return Signal(tuple(names), shape)

    def fire(self, path: str, neuron: nn.Module, current: Signal) -> Signal:
        """Add a layer of neurons."""
        if type(neuron) is not LIF:
            raise InputError(
                f"{path} is a {type(neuron).__name__}; NIR has LIF and IF neurons: extend"
                " snnmlp_edu/mfi/nir_graph.py"
            )
        config, ones = neuron.config, np.ones(math.prod(current.shape))
        threshold = self.array(torch.tensor(config.threshold, dtype=torch.float64))
        if config.inclusive:
            threshold = np.nextafter(threshold, np.zeros_like(threshold))
        levels = {"v_threshold": ones.astype(threshold.dtype) * threshold, "v_reset": 0 * ones}
        if config.beta == 1:
            name = self.add(path, nir_package().IF(r=ones / STEP, **levels), *current.nodes)
        else:
            tau = STEP / (1 - config.beta)
            times = {"tau": tau * ones, "r": tau / STEP * ones, "v_leak": 0 * ones}
            name = self.add(path, nir_package().LIF(**times, **levels), *current.nodes)
        return Signal((name,), current.shape)

    def _count(self, path: str, weights: int) -> None:
        self.weights += weights
        if self.weights > MOST_WEIGHTS:
            raise InputError(
                f"NIR shares no map along an axis: unrolled on their grids, the maps up to {path} have"
                f" {self.weights:,} weights and this export stops at {MOST_WEIGHTS:,};"
                " take a smaller image_size, dim or depths"
            )

    def array(self, values: Tensor) -> Any:
        """Values in the network's precision, as NIR keeps them."""
        return values.detach().to(self.dtype).contiguous().cpu().numpy()


def _each_place(shape: tuple[int, int, int]) -> Tensor:
    """Grids with a single 1, each in another place, in the order of a flattened grid; `[1, N, H, W, C]`."""
    height, width, channels = shape
    places = torch.eye(math.prod(shape), dtype=torch.float64)
    return places.view(1, -1, channels, height, width).permute(0, 1, 3, 4, 2)


def _flatten(grids: Tensor) -> Tensor:
    """Grids `[1, N, H, W, C]` as vectors `[N, C H W]`."""
    return grids[0].permute(0, 3, 1, 2).flatten(1)
