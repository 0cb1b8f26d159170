"""From an explorer to a part of a page that loads nothing from another machine.

The module of an explorer has a function `build`, which returns a Bokeh layout; or, where it has a script and
a style of its own, a function `files`, which returns them by name.
"""

from __future__ import annotations

import importlib
import json
import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import bokeh
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

from snnmlp_edu.errors import InputError

FOLDER = Path(__file__).parent
BOKEH = Path(bokeh.__file__).parent
SCRIPTS = ("bokeh.min.js", "bokeh-widgets.min.js")


class Explorer(NamedTuple):
    """An interactive figure: the module that makes it, and what a screen reader calls it.

    Args:
        module: has `build`, or `files`.
        label: what it is, in words.
        bokeh: whether Bokeh shows it.
        beside: whether the picture of the figure stays below it.
    """

    module: str
    label: str
    bokeh: bool = True
    beside: bool = False


EXPLORERS = {
    "lif_playground": Explorer("lif_playground", "A neuron to play with: leak, threshold, reset and input"),
    "gradient_explorer": Explorer("gradient_explorer", "The gradient's way back through a neuron's steps"),
    "folding_stepper": Explorer("folding_stepper", "A batch norm that is folded away, step by step"),
    "votes_explorer": Explorer("votes_explorer", "Three votes of one token, step by step"),
    "reach_explorer": Explorer("reach_explorer", "Which pixels reach a token after some blocks"),
    "encoding_explorer": Explorer(
        "encoding_explorer", "The graph of patch encoding at work, node by node", beside=True
    ),
    "wiring_explorer": Explorer(
        "wiring_explorer", "Five wirings of a block: what is on each wire, and what the audit says"
    ),
    "gabor_explorer": Explorer("gabor_explorer", "A Gabor function to fit by hand, beside fields of neurons"),
    "audit_stepper": Explorer(
        "audit_stepper", "The operations of a block, as the audit saw them", beside=True
    ),
    "energy_explorer": Explorer("energy_explorer", "Energy against firing rate, steps and prices"),
    "power_explorer": Explorer("power_explorer", "What seeds and test images can show of a difference"),
    "event_camera": Explorer("event_camera", "An event camera in front of a picture that moves"),
    "roofline_explorer": Explorer("roofline_explorer", "A training step, bound by arithmetic or by memory"),
    "rate_explorer": Explorer("rate_explorer", "The firing rate of a neuron without a leak, beside a ReLU"),
    "bets": Explorer("bets", "Bets on the paper's claims", bokeh=False, beside=True),
    "live_network": Explorer("live_network", "A spiking network looks at a picture", bokeh=False),
}


def add_explorers(notebook: NotebookNode) -> list[str]:
    """Put the markup of an explorer behind each cell that asks for one; returns their names.

    Raises:
        InputError: a cell asks for an explorer that does not exist, or its figure has no name.
    """
    cells: list[NotebookNode] = []
    names = []
    for cell in notebook.cells:
        cells.append(cell)
        name = cell.metadata.get("interactive")
        if name is None:
            continue
        if name not in EXPLORERS:
            raise InputError(f"a cell asks for {name!r}: choose one of {', '.join(EXPLORERS)}")
        figure = cell.metadata.get("mystnb", {}).get("figure", {}).get("name")
        if figure is None:
            raise InputError(f"the cell of {name} has no figure to take the place of: name it in `mystnb`")
        text = f"```{{raw}} html\n{markup(name, figure)}\n```"
        cells.append(new_markdown_cell(text, id=f"explorer-{name.replace('_', '-')}"))
        names.append(name)
    notebook.cells = cells
    return names


def markup(name: str, figure: str) -> str:
    """The HTML of an explorer that takes the place of a figure's picture."""
    explorer = EXPLORERS[name]
    bokeh = [f"bokeh/{each}" for each in SCRIPTS] if explorer.bokeh else []
    style = [] if explorer.bokeh else [f'<link rel="stylesheet" href="../interactive/{name}.css">']
    scripts = [*bokeh, "interactive/embed.js", f"interactive/{name}.js"]
    return "\n".join(
        [
            *style,
            f'<div class="explorer" id="explorer-{name}" data-figure="{figure}" role="group"',
            f'  aria-label="{explorer.label}"{" data-beside" if explorer.beside else ""} hidden></div>',
            *(f'<script defer src="../{each}"></script>' for each in scripts),
        ]
    )


def write_explorers(names: list[str], extra: Path) -> None:
    """Write the files of some explorers, and what they need of Bokeh, below a folder of the site."""
    if not names:
        return
    (extra / "interactive").mkdir(parents=True, exist_ok=True)
    shutil.copy2(FOLDER / "embed.js", extra / "interactive")
    if any(EXPLORERS[name].bokeh for name in names):
        (extra / "bokeh").mkdir(exist_ok=True)
        for each in SCRIPTS:
            shutil.copy2(BOKEH / "server" / "static" / "js" / each, extra / "bokeh")
        shutil.copy2(BOKEH / "LICENSE.txt", extra / "bokeh")
    for name in sorted(set(names)):
        for file, text in files(name).items():
            (extra / "interactive" / file).write_text(text, encoding="utf-8")


def files(name: str) -> dict[str, str]:
    """The files of an explorer by name, the same ones each time; of a Bokeh document it is one script."""
    explorer = EXPLORERS[name]
    if not explorer.bokeh:
        written: dict[str, str] = _module(explorer).files()
        return written
    return {f"{name}.js": script(name)}


def script(name: str) -> str:
    """The script that shows a Bokeh document: the document, and a call that puts it on the page."""
    item = json.dumps(document(name), ensure_ascii=False, separators=(",", ":"))
    return f'showExplorer("{name}", {item});\n'


def document(name: str) -> Any:
    """An explorer's Bokeh document, the same one each time: Bokeh numbers models as they are made."""
    from bokeh.embed import json_item

    layout = _module(EXPLORERS[name]).build()
    text = json.dumps(json_item(layout, f"explorer-{name}"))
    numbers: dict[str, str] = {}
    return json.loads(re.sub(r'"p\d+"', lambda m: numbers.setdefault(m[0], f'"m{len(numbers)}"'), text))


def _module(explorer: Explorer) -> Any:
    return importlib.import_module(f".{explorer.module}", __package__)
