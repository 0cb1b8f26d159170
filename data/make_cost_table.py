"""Make `data/cost_at_224.json`: what one image of 224 x 224 costs in four networks and their ReLU twins.

    python data/make_cost_table.py                           # some minutes on one core

No network trained on ImageNet ships with this package. The networks here have random weights and are
calibrated: every layer of neurons fires at the rate that the row names, on the image that is counted. That
image is the first embedded test image, each pixel enlarged to 8 x 8, the same in all three channels.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from snnmlp_edu import create_model
from snnmlp_edu.cost import Cost, count_operations, relu_twin
from snnmlp_edu.data import load_embedded
from snnmlp_edu.data.files import write_atomically
from snnmlp_edu.data.scripts import run_script
from snnmlp_edu.mfi import calibrate

HERE = Path(__file__).resolve().parent
NAME = "cost_at_224.json"
NETWORKS = ("mlp_spe_t", "mlp_spe_s", "spiking_resnet34", "spiking_vgg16")
RATES = (0.1, 0.2)
SEEDS = (0, 1, 2)
# Follows from shapes alone, so it is the same in every run and on every machine.
BY_SHAPE = (
    "stem_macs",
    "dense_macs",
    "skip_additions",
    "normalisation_macs",
    "neuron_updates",
    "weight_bytes",
    "membrane_bytes",
)


def image_at_224() -> Tensor:
    """The image that is counted, `[1, 3, 224, 224]`, between 0 and 1."""
    image = load_embedded("test").images[:1].float() / 255
    return image.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3).repeat(1, 3, 1, 1)


def by_shape(name: str) -> dict[str, Any]:
    """What no weight changes: a network's sizes, and all operations of its twin."""
    model = create_model(name, neuron={"backend": "eager"}).eval()
    cost, twin = (count_operations(network, image_at_224()) for network in (model, relu_twin(model)))
    return {
        "time_steps": model.config.time_steps,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        **{field: getattr(cost, field) for field in BY_SHAPE},
        "head_dense": sum(layer.dense_macs for layer in cost.part("head")),
        "twin": dataclasses.asdict(twin.after_folding),
        "twin_neuron_updates": twin.neuron_updates,
    }


def at_rate(name: str, rate: float, seed: int) -> dict[str, Any]:
    """What one calibrated network does for the image, in all its steps."""
    torch.manual_seed(seed)
    image = image_at_224()
    model = calibrate(create_model(name, neuron={"backend": "eager"}), image, rate=rate, seed=seed)
    cost = count_operations(model, image)
    fired = [sum(steps) / len(steps) for steps in cost.firing_rates.values()]
    return {
        "rate": rate,
        "seed": seed,
        "lowest_layer_rate": min(fired),
        "highest_layer_rate": max(fired),
        "synaptic_operations": round(cost.synaptic_operations),
        "head_accumulates": round(cost.head_accumulates),
        "by_part": arrived_by_part(cost),
        "before_folding": dataclasses.asdict(cost.before_folding),
    }


def arrived_by_part(cost: Cost) -> dict[str, float]:
    """Synaptic operations of each part that adds, divided by its dense operations."""
    parts = {layer.part: cost.part(layer.part) for layer in cost.layers if layer.part != "stem"}
    return {
        part: sum(layer.synaptic_operations for layer in rows) / sum(layer.dense_macs for layer in rows)
        for part, rows in parts.items()
    }


def make(data: Path = HERE) -> None:
    """Count everything, and write the table."""
    table = {}
    for name in NETWORKS:
        table[name] = by_shape(name) | {"runs": []}
        for rate in RATES:
            for seed in SEEDS:
                table[name]["runs"].append(at_rate(name, rate, seed))
                print(name, rate, seed, table[name]["runs"][-1]["synaptic_operations"], flush=True)
    write_atomically(data / NAME, (json.dumps(table, indent=1) + "\n").encode())


if __name__ == "__main__":
    run_script(make, __doc__)
