"""One block as the audit saw it, operation by operation, with one norm or another in its channel mixing."""

from __future__ import annotations

import functools
from typing import Any

import torch
from bokeh.models import Button, Column, ColumnDataSource, CustomJS, Div, InlineStyleSheet, Range1d

from snnmlp_edu import create_model
from snnmlp_edu.checkpoints import load_checkpoint
from snnmlp_edu.config import ChannelNorm
from snnmlp_edu.data import load_embedded
from snnmlp_edu.mfi import AuditReport, audit, calibrate, fold_batch_norm
from snnmlp_edu.mfi.auditing.operations import Kind
from snnmlp_edu.mfi.auditing.report import SILENT

from .style import STRETCH, controls, legend, panel, select, slider, spoken, square, stack, wire

NORMS: dict[ChannelNorm, str] = {
    "bn": "BN, channels",
    "bn_token": "BN, tokens",
    "ln": "layer norm",
}
BLOCK = "stages.0.blocks.0."
# The first pattern that a module's path holds names the part.
PARTS = {
    "rows.synapse.neuron": "rows, neurons",
    "rows": "rows, map",
    "columns.synapse.neuron": "columns, neurons",
    "columns": "columns, map",
    "fuse.neuron": "fuse, neurons",
    "fuse.linear": "fuse, map",
    "fuse": "fuse, shortcut",
    "up.neuron": "up, neurons",
    "channel.neuron": "up, neurons",
    "up.norm": "up, norm",
    "up": "up, map",
    "down.neuron": "down, neurons",
    "down.norm": "down, norm",
    "down.linear": "down, map",
    "down": "down, shortcut",
}
COLORS = {
    Kind.ACCUMULATE: "#F6C9A8",
    Kind.SHIFT: "#B9D7EA",
    Kind.COMPARISON: "#B9D7EA",
    Kind.SELECTION: "#B9D7EA",
    Kind.ADDITION: "#BFE5D8",
    Kind.MULTIPLICATION: "#C22229",
}
WHY = {
    Kind.ACCUMULATE: "What it reads is 0 or 1, so each weight is added or left out.",
    Kind.SHIFT: "The factor is a power of two: it moves binary digits.",
    Kind.COMPARISON: "The result is 0 or 1, whatever goes in.",
    Kind.SELECTION: "One of two values is picked.",
    Kind.ADDITION: "A sum needs no product.",
}


@functools.cache
def report(norm: ChannelNorm) -> AuditReport:
    """The audit of a small network with that norm, calibrated, and folded as far as that goes."""
    images = load_checkpoint("mlp_spe_nano").preprocessing(load_embedded("test").images[:2])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = create_model(
            "mlp_spe_nano",
            channel_norm=norm,
            depths=(1,),
            dim=6,
            patch_size=4,
            time_steps=2,
            neuron={"backend": "eager"},
        )
    return audit(fold_batch_norm(calibrate(model, images, rate=0.25), strict=False), images)


def part(path: str) -> str:
    """What a reader calls the part of the block that a module's path belongs to."""
    return next((words for pattern, words in PARTS.items() if pattern in path), path)


def rows(norm: ChannelNorm) -> list[dict[str, Any]]:
    """The operations of the block that compute, in the order in which they ran."""
    return [
        {
            "part": part(row.path),
            "name": row.name.removeprefix("aten."),
            "kind": str(row.kind),
            "values": row.values,
            "count": row.count,
            "holds": row.holds,
            "violation": row.violation,
        }
        for row in report(norm).layers
        if row.path.startswith(BLOCK) and (row.kind not in SILENT or row.violation)
    ]


def build() -> Column:
    """The controls, the sentence, all operations as a strip, and the rows around the chosen one."""
    found = {norm: rows(norm) for norm in NORMS}
    options: list[tuple[str, str]] = list(NORMS.items())
    norm = select("norm", options, "bn")
    step = slider("operation", 1, len(found["bn"]), 1, 1, name="step")
    back, forth = Button(label="Back", margin=(6, 4, 6, 12)), Button(label="Next", margin=(6, 4, 6, 4))
    first = Button(label="First multiplication", margin=(6, 16, 6, 4))
    move = "step.value = Math.min(step.end, Math.max(1, step.value + by));"
    back.js_on_event("button_click", CustomJS(args={"step": step, "by": -1}, code=move))
    forth.js_on_event("button_click", CustomJS(args={"step": step, "by": 1}, code=move))
    wrong = {name: [k for k, row in enumerate(each, 1) if row["violation"]] for name, each in found.items()}
    first.js_on_event(
        "button_click",
        CustomJS(
            args={"step": step, "norm": norm, "wrong": wrong}, code="step.value = wrong[norm.value][0];"
        ),
    )

    strip = panel(64, x_range=Range1d(0.4, 60), y_range=Range1d(-0.1, 1.1))
    strip.axis.visible = False
    strip.grid.grid_line_color = None
    operations = ColumnDataSource(
        {name: [] for name in ("number", "height", "color", "line")}, name="operations"
    )
    strip.vbar(x="number", width=0.85, top="height", fill_color="color", line_color="line", source=operations)
    key = legend(
        {
            "weights added where a spike is": square(COLORS[Kind.ACCUMULATE], COLORS[Kind.ACCUMULATE]),
            "sum": square(COLORS[Kind.ADDITION], COLORS[Kind.ADDITION]),
            "shift, comparison, selection": square(COLORS[Kind.SHIFT], COLORS[Kind.SHIFT]),
            "multiplication": square(COLORS[Kind.MULTIPLICATION], COLORS[Kind.MULTIPLICATION]),
        }
    )
    whole = InlineStyleSheet(css=".bk-clearfix { display: block !important; }")  # as wide as the card
    table = Div(styles={"font-size": "13px"}, margin=(4, 8, 4, 8), stylesheets=[whole], **STRETCH)
    said = spoken()
    said.min_height = 110
    parts = {
        **{"norm": norm, "step": step, "back": back, "next": forth, "first": first, "rows": found},
        **{"operations": operations, "range": strip.x_range, "table": table, "said": said},
        "verdicts": {each: report(each).verdict() for each in NORMS},
        **{"names": NORMS, "colors": COLORS, "why": WHY},
    }
    wire("audit_stepper", [norm, step], parts)
    return stack(controls(norm, step, back, forth, first), said, strip, key, table)
