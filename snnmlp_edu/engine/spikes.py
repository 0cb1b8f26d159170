"""Where the spikes of a run lie in memory, and how many additions each of them causes."""

from __future__ import annotations

from typing import Any

from .file import NetworkFile, Spikes


def describe_spikes(layout: NetworkFile) -> list[dict[str, Any]]:
    """The table of all layers of neurons.

    Args:
        layout: what `write_network` returned with the file.

    Returns:
        For each layer: `path`; `at`, `places`, `lanes` and `steps`, such that bit `c % 8` of the byte
        `at + (place * steps + step) * lanes / 8 + c // 8` is lane c; `order`, the lane of each channel; and
        `additions`, how many weights one spike adds, for each place.
    """
    return [
        {
            "path": fired.path,
            "at": fired.at,
            "places": fired.places,
            "lanes": fired.lanes,
            "steps": fired.steps,
            "order": [int(lane) for lane in fired.order],
            "additions": additions_of_a_spike(fired, layout),
        }
        for fired in layout.fired
    ]


def additions_of_a_spike(fired: Spikes, layout: NetworkFile) -> list[int]:
    """How many weights a spike at each place of a layer adds, in all maps that read it.

    Args:
        fired: the layer.
        layout: the network's file, which has it.
    """
    return [
        sum(int((read.sources == begin).sum()) * read.outputs for read in layout.maps)
        for begin in fired.sources()
    ]
