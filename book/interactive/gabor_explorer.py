"""A Gabor function under the reader's hands, beside fields that are one, that are none, or too small."""

from __future__ import annotations

import functools

import matplotlib
import numpy as np
import torch
from bokeh.models import Button, Column, ColumnDataSource, CustomJS, LinearColorMapper, Range1d, Span
from matplotlib.colors import to_hex
from torch import Tensor

from snnmlp_edu.checkpoints import load_checkpoint
from snnmlp_edu.data import load_embedded
from snnmlp_edu.plots import CURRENT, REFERENCE, SPIKE
from snnmlp_edu.receptive_fields import (
    PLANTED_LAYER,
    GaborFits,
    centre,
    fit_gabors,
    input_gradients,
    plant,
    plants,
    spike_triggered_average,
    white_noise,
)
from snnmlp_edu.receptive_fields.functions import FREE_2D
from snnmlp_edu.receptive_fields.judging import MAX_UNEXPLAINED, NYQUIST, TWO_SIGNED

from .style import controls, dot, legend, line, panel, select, slider, spoken, stack, wire

SIDE = 12
IMAGES = 6144  # of white noise, as in chapter 11
TRAINED = "stages.1.blocks.0.channel.down.neuron"
FIELDS = {
    "gabor": "Gabor function",
    "narrow": "narrow Gabor",
    "blob": "blob",
    "noise": "noise",
    "trained": "trained neuron",
}
DIGITS = 6  # of what the page is told
DEGREES = 180 / np.pi

# Name in the fits -> title, start, end, step, first value, factor from the library's unit, format.
SLIDERS: dict[str, tuple[str, float, float, float, float, float, str]] = {
    "orientation": ("direction, degrees", 0, 180, 1, 0, DEGREES, "0"),
    "frequency": ("frequency f", 0, 0.75, 0.01, 0.1, 1, "0.00"),
    "sigma_x": ("width σx", 0.3, 8, 0.1, 2, 1, "0.0"),
    "sigma_y": ("width σy", 0.3, 8, 0.1, 2, 1, "0.0"),
    "phase": ("phase ψ, degrees", -180, 180, 1, 0, DEGREES, "0"),
    "x": ("centre, column", -2, 13, 0.1, 5.5, 1, "0.0"),
    "y": ("centre, row", -2, 13, 0.1, 5.5, 1, "0.0"),
}


def settings(fits: GaborFits, index: int) -> dict[str, float]:
    """Where the sliders are at one of the fits."""
    return {name: float(getattr(fits, name)[index]) * row[5] for name, row in SLIDERS.items()}


def within(found: dict[str, float]) -> bool:
    """Whether sliders can be there."""
    return all(row[1] <= found[name] <= row[2] for name, row in SLIDERS.items())


@functools.cache
def measured() -> dict[str, tuple[Tensor, dict[str, float], float]]:
    """Each field, highest value 1; the sliders at the library's fit; and what that leaves unexplained.

    Of noise, and of the neurons of the trained network, the first whose fit the sliders can reach.
    """
    kernels = {
        "gabor": plants("gabors", 24, SIDE)[:1],
        "narrow": plants("gabors", 24, SIDE, width=0.065)[:1],
        "blob": plants("blobs", 24, SIDE)[:1],
        "noise": plants("noise", 24, SIDE)[:12],
    }
    network = plant(torch.cat(list(kernels.values())))
    average = spike_triggered_average(network, PLANTED_LAYER, white_noise((1, SIDE, SIDE), IMAGES, seed=1))
    maps = dict(zip(kernels, average.maps[:, 0].split([len(each) for each in kernels.values()]), strict=True))

    checkpoint = load_checkpoint("mlp_spe_nano", neuron={"backend": "eager"})
    images = checkpoint.preprocessing(load_embedded("test").images[:2])
    (place,) = centre(checkpoint.model.config.grids[1], side=1)
    top, left = (4 * each - 5 for each in place)  # a token of this stage stands for 4 x 4 pixels
    gradient = input_gradients(checkpoint.model, TRAINED, images, [place]).maps[:, 0]
    maps["trained"] = gradient[:, top : top + SIDE, left : left + SIDE]

    found = {}
    for name, some in maps.items():
        some = some.double()
        some = (some / some.abs().amax((1, 2), keepdim=True)).mul(10**DIGITS).round().div(10**DIGITS)
        fits = fit_gabors(some)
        places = [settings(fits, index) for index in range(len(fits))]
        chosen = next(index for index, each in enumerate(places) if within(each))
        found[name] = (some[chosen], places[chosen], float(fits.unexplained[chosen]))
    return found


def build() -> Column:
    """The controls, the sentence, the three maps, and what other frequencies would leave unexplained."""
    choice = select("field", list(FIELDS.items()), "gabor")
    sliders = {
        name: slider(title, start, end, step, value, format=shown, name=name)
        for name, (title, start, end, step, value, _, shown) in SLIDERS.items()
    }
    fields = {
        name: {"values": field.flatten().tolist(), "best": best, "unexplained": left}
        for name, (field, best, left) in measured().items()
    }
    fit = Button(label="Best fit", margin=(6, 12, 6, 12))
    go = "for (const [name, value] of Object.entries(fields[choice.value].best)) sliders[name].value = value;"
    fit.js_on_event(
        "button_click", CustomJS(args={"choice": choice, "sliders": sliders, "fields": fields}, code=go)
    )

    maps = panel(200, x_range=Range1d(-0.05, 3.25), y_range=Range1d(-0.02, 1.18), max_width=660)
    maps.height, maps.sizing_mode, maps.aspect_ratio = None, "scale_width", 2.75
    maps.frame_align = False  # or it would be as narrow as the plot below it
    maps.axis.visible = False
    maps.grid.grid_line_color = None
    maps.min_border = 0
    red_and_blue = [to_hex(matplotlib.colormaps["RdBu_r"](k)) for k in range(256)]
    colors = LinearColorMapper(palette=red_and_blue, low=-1, high=1)
    drawn = [ColumnDataSource({"image": [np.zeros((SIDE, SIDE))]}) for _ in range(3)]
    for k, source in enumerate(drawn):
        maps.image("image", x=1.1 * k, y=0, dw=1, dh=1, color_mapper=colors, source=source)
        maps.rect(1.1 * k + 0.5, 0.5, 1, 1, fill_color=None, line_color="#B0B0B0")
    words = {"x": [0.5, 1.6, 2.7], "y": [1.02] * 3, "text": ["field", "yours", "left over"]}
    maps.text(*("x", "y", "text"), source=ColumnDataSource(words), text_align="center", text_font_size="13px")

    curve = ColumnDataSource({"frequency": [], "unexplained": []}, name="curve")
    here = ColumnDataSource({"frequency": [], "unexplained": []}, name="here")
    below = panel(
        190,
        x_range=Range1d(0, SLIDERS["frequency"][2]),
        y_range=Range1d(0, 1.04),
        x_axis_label="frequency f, all else unchanged",
        y_axis_label="unexplained",
        max_width=660,
    )
    below.line("frequency", "unexplained", color=CURRENT, line_width=3, source=curve)
    below.scatter("frequency", "unexplained", size=13, color=SPIKE, source=here)
    limit = Span(location=MAX_UNEXPLAINED, dimension="width", line_color=REFERENCE, line_dash="dashed")
    below.add_layout(limit)
    key = legend(
        {
            "what is left at each frequency": line(CURRENT),
            "your frequency": dot(SPIKE, SPIKE),
            "most that the rule allows": line(REFERENCE, "dashed", 2),
        }
    )
    said = spoken()
    said.min_height = 90
    result = ColumnDataSource({"unexplained": [], "amplitude": [], "offset": [], "reason": []}, name="result")
    constants = {
        "side": SIDE,
        "degrees": DEGREES,
        "highest": SLIDERS["frequency"][2],
        "unexplained": MAX_UNEXPLAINED,
        "nyquist": NYQUIST,
        "signed": TWO_SIGNED,
        "parameters": len(FREE_2D),
    }
    widgets = [choice, *sliders.values()]
    parts = {"choice": choice, **sliders, "fields": fields, "constants": constants, "drawn": drawn}
    parts |= {"curve": curve, "here": here, "result": result, "said": said}
    wire("gabor_explorer", widgets, parts)
    return stack(controls(choice, *sliders.values(), fit), said, maps, below, key)
