"""Sphinx extension: no page asks another machine for anything.

Jupyter Book sets thebe (live code through a foreign server) up on every page, even when it is off, and
adds its script twice, which the browser reports as an error.
"""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx


def drop_thebe_settings(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Take out the settings that thebe leaves at the end of each page."""
    for raw in list(doctree.findall(nodes.raw)):
        if "x-thebe-config" in raw.astext() or "kernelName" in raw.astext():
            raw.parent.remove(raw)


def drop_scripts(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: object
) -> None:
    """Leave out thebe's scripts and every script from another machine."""
    context["script_files"] = [script for script in context.get("script_files", []) if _is_wanted(script)]


def _is_wanted(script: Any) -> bool:
    """Whether a script, given by its address or by its text, stays on the page."""
    address = str(getattr(script, "filename", script) or "")
    text = str(getattr(script, "attributes", {}).get("body") or "")
    return "://" not in address and "thebe" not in address + text


def setup(app: Sphinx) -> dict[str, bool]:
    """Register behind the extensions that add what is dropped here."""
    app.connect("doctree-resolved", drop_thebe_settings, priority=900)
    app.connect("html-page-context", drop_scripts, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
