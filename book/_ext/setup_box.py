"""Sphinx extension: the cells that set a chapter up stand in one closed box.

Consecutive code cells tagged `setup` become one `<details>`, which opens by a click or by the keyboard. In a
notebook they are ordinary cells.
"""

from __future__ import annotations

from itertools import groupby

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.writers.html5 import HTML5Translator

SUMMARY = "Setup: installation, imports and parameters"


class SetupBox(nodes.General, nodes.Element):
    """Consecutive setup cells, folded away together."""


class GatherSetup(SphinxPostTransform):
    """Put each row of setup cells into one box."""

    default_priority = 198  # before myst-nb folds single cells
    formats = ("html",)

    def run(self, **kwargs: object) -> None:
        """Change the page's tree in place."""
        parents = {id(cell.parent): cell.parent for cell in self.document.findall(_is_setup)}
        for parent in parents.values():
            gathered: list[nodes.Node] = []
            for is_setup, group in groupby(parent.children, key=_is_setup):
                row = list(group)
                gathered += [SetupBox("", *row)] if is_setup else row
            parent.children = []
            parent.extend(gathered)


def _is_setup(node: nodes.Node) -> bool:
    return isinstance(node, nodes.container) and "tag_setup" in node.get("classes", ())


def open_box(self: HTML5Translator, node: SetupBox) -> None:
    """Begin the box, closed."""
    self.body.append(f'<details class="setup"><summary>{SUMMARY}</summary>\n')


def close_box(self: HTML5Translator, node: SetupBox) -> None:
    """End the box."""
    self.body.append("</details>\n")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register."""
    app.add_node(SetupBox, html=(open_box, close_box))
    app.add_post_transform(GatherSetup)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
