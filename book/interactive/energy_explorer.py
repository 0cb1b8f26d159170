"""The energy of a network against its firing rate, with the steps and the prices in the reader's hands."""

from __future__ import annotations

import json
from typing import Any

from bokeh.models import Column, ColumnDataSource, Range1d, Span

from snnmlp_edu.data import path
from snnmlp_edu.plots import CURRENT, MEMBRANE, REFERENCE, SPIKE

from .style import controls, dot, legend, line, panel, select, slider, spoken, stack, wire

NAMES = {
    "mlp_spe_t": "MLP-SPE-T, 224 px",
    "mlp_spe_s": "MLP-SPE-S, 224 px",
    "spiking_resnet34": "spiking ResNet-34, 224 px",
    "spiking_vgg16": "spiking VGG-16, 224 px",
}


def networks() -> dict[str, dict[str, Any]]:
    """What the bill of each network is made of, for one time step, from the stored counts.

    `counted` are networks with random weights, calibrated to a rate: the rate at which spikes arrived,
    and their additions in all steps.
    """
    stored = json.loads((path() / "cost_at_224.json").read_text(encoding="utf-8"))
    made = {}
    for name in NAMES:
        cost = stored[name]
        steps = cost["time_steps"]
        made[name] = {
            "time_steps": steps,
            "stem": cost["stem_macs"],
            "dense": cost["dense_macs"] / steps,
            "head": cost["head_dense"] / steps,
            "skip": cost["skip_additions"] / steps,
            "neurons": cost["neuron_updates"] / steps,
            "twin_macs": cost["twin"]["macs"],
            "twin_additions": cost["twin"]["accumulates"],
            "counted": [
                {
                    "rate": run["synaptic_operations"] / cost["dense_macs"],
                    "additions": run["synaptic_operations"]
                    + run["head_accumulates"]
                    + cost["skip_additions"],
                }
                for run in cost["runs"]
            ],
        }
    return made


def build() -> Column:
    """The controls, the sentence with the verdict, and the plot."""
    network = select("network", list(NAMES.items()), "mlp_spe_t")
    rate = slider("arrival rate", 0, 1, 0.01, 0.15, name="rate")
    steps = slider("time steps T", 1, 16, 1, 4, name="steps")
    mac = slider("a multiply-accumulate costs (pJ)", 0.2, 10, 0.1, 4.6, name="mac")
    add = slider("an addition costs (pJ)", 0.05, 5, 0.05, 0.9, name="add")
    neuron = slider("a neuron's update costs (pJ)", 0, 10, 0.1, 0, name="neuron")

    spiking = ColumnDataSource({"rate": [], "energy": []}, name="spiking")
    here = ColumnDataSource({"rate": [], "energy": []}, name="here")
    dots = ColumnDataSource({"rate": [], "energy": []}, name="dots")
    plot = panel(
        320,
        x_range=Range1d(0, 1),
        y_range=Range1d(0, 30),
        x_axis_label="arrival rate",
        y_axis_label="energy, mJ",
    )
    plot.line("rate", "energy", color=MEMBRANE, line_width=3, source=spiking)
    plot.scatter("rate", "energy", size=7, fill_color="white", line_color=MEMBRANE, source=dots)
    plot.scatter("rate", "energy", size=13, color=SPIKE, source=here)
    reference = Span(dimension="width", line_color=REFERENCE, line_dash="dashed", line_width=2)
    crossing = Span(dimension="height", line_color=CURRENT, line_dash="dotted", line_width=2, visible=False)
    plot.add_layout(reference)
    plot.add_layout(crossing)
    key = legend(
        {
            "spiking network": line(MEMBRANE),
            "counted": dot("#FFFFFF", MEMBRANE),
            "your rate": dot(SPIKE, SPIKE),
            "ReLU twin": line(REFERENCE, "dashed", 2),
            "break-even": line(CURRENT, "dotted", 2),
        }
    )

    said = spoken()
    widgets = [network, rate, steps, mac, add, neuron]
    parts = {
        **{"network": network, "rate": rate, "steps": steps, "mac": mac, "add": add, "neuron": neuron},
        **{"spiking": spiking, "here": here, "dots": dots, "reference": reference, "crossing": crossing},
        **{"plot": plot, "said": said, "networks": networks()},
    }
    wire("energy_explorer", widgets, parts)
    return stack(controls(*widgets), said, plot, key)
