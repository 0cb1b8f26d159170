"""Sphinx extension: what a screen reader is told agrees with what is on the page.

Docutils marks lists of citations with roles of an older standard: a list whose entries are no list items.
Screen readers then announce an empty list, and axe-core reports it. Without the roles it is read as text.
"""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

_OUTDATED_ROLE = re.compile(r'(<div\b[^>]*?) role="(?:list|doc-biblioentry)"')


def drop_outdated_roles(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: object
) -> None:
    """Take the roles out of the lists of citations on a page."""
    if "body" in context:
        context["body"] = _OUTDATED_ROLE.sub(r"\1", context["body"])


def setup(app: Sphinx) -> dict[str, bool]:
    """Register."""
    app.connect("html-page-context", drop_outdated_roles)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
