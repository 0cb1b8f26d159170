"""A trained network that runs in the page: the engine's WebAssembly, some garments, and a place to draw.

The engine (`data/engine`) takes the bytes of an image and leaves all spikes in its memory. What else the page
needs is computed here, by the library: what a spike of the last stage adds to the evidence, how many
additions no spike causes, and how many multiplications the network's ReLU twin makes.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import torch
from torch import Tensor

from snnmlp_edu.checkpoints import Checkpoint, load_checkpoint
from snnmlp_edu.cost import count_operations
from snnmlp_edu.data import load_embedded
from snnmlp_edu.data.files import read_verified
from snnmlp_edu.mfi import event_driven, fold_batch_norm

from .embed import FOLDER

NAME, TWIN = "mlp_spe_nano", "relu_mlp_spe_nano"
ENGINES = {"plain": f"engine/{NAME}.wasm", "simd": f"engine/{NAME}_simd.wasm"}


def files() -> dict[str, str]:
    """The explorer's files by name: script, style, and the engine with vector instructions and without.

    The engines are scripts as well, of which a page loads one: a page that is opened from a folder may not
    read other files.
    """
    call = f"showLiveNetwork({json.dumps(facts(), ensure_ascii=False, separators=(',', ':'))});\n"
    written = {"live_network.js": _read("js") + call, "live_network.css": _read("css")}
    for kind, module in ENGINES.items():
        text = base64.b64encode(read_verified(module)).decode()
        written[_engine_script(kind)] = f'window.liveNetworkEngine = "{text}";\n'
    return written


def facts() -> dict[str, Any]:
    """What the page's script has to know of the network, its twin and the garments."""
    checkpoint = load_checkpoint(NAME)
    config = checkpoint.model.config
    table = json.loads(read_verified(f"engine/{NAME}.json"))
    bias, weights = _evidence(event_driven(fold_batch_norm(checkpoint.model), weights="int8"))
    image = torch.zeros(1, 1, config.image_size, config.image_size)
    twin = count_operations(load_checkpoint(TWIN).model, image)  # in its one step
    return {
        "html": _read("html"),
        "engines": {kind: _engine_script(kind) for kind in ENGINES},
        "classes": table["classes"],
        "side": table["image"][-1],
        "steps": config.time_steps,
        "stages": [
            {"side": grid[0], "channels": width, "last": f"stages.{i}.blocks.{depth - 1}.channel.down.neuron"}
            for i, (grid, width, depth) in enumerate(
                zip(config.grids, config.widths, config.depths, strict=True)
            )
        ],
        "layers": [layer | {"stage": int(layer["path"].split(".")[1])} for layer in table["layers"]],
        "bias": bias.tolist(),
        "weights": weights.tolist(),
        "additions": {
            "bit_of_a_pixel": table["additions_of_a_bit_of_a_pixel"],
            "shortcuts_of_a_step": twin.skip_additions,
        },
        "multiplications": twin.macs,
        "garments": garments(checkpoint),
    }


def garments(checkpoint: Checkpoint) -> list[dict[str, str]]:
    """The first test image of each class, in the order of the test set: its class and its bytes in base64."""
    test = load_embedded("test")
    first = {int(label): number for number, label in reversed(list(enumerate(test.labels)))}
    return [
        {
            "name": checkpoint.class_names[label],
            "pixels": base64.b64encode(test.images[number].numpy().tobytes()).decode(),
        }
        for label, number in sorted(first.items(), key=lambda pair: pair[1])
    ]


def _evidence(network: Any) -> tuple[Tensor, Tensor]:
    """What each step adds to the logits: `[classes]` always, `[C, classes]` for a spike of each channel."""
    steps, height, width = network.head.places
    channels = network.config.widths[-1]
    spikes = torch.zeros(steps, 1 + channels, height, width, channels)  # no spike, then one of each channel
    spikes[0, 1:, 0, 0] = torch.eye(channels)
    with torch.no_grad():
        added = network.head(spikes)[0].to(torch.int64)
    return added[0], added[1:] - added[0]


def _engine_script(kind: str) -> str:
    return f"live_network_{kind}.js"


def _read(kind: str) -> str:
    return (FOLDER / f"live_network.{kind}").read_text(encoding="utf-8")
