"""Sphinx extension: what a screen reader is told agrees with what is on the page.

Docutils marks lists of citations with roles of an older standard: a list whose entries are no list items.
Screen readers then announce an empty list, and axe-core reports it. Without the roles it is read as text.
A figure's picture leads to itself at full size, where a phone can enlarge it.
"""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

_OUTDATED_ROLE = re.compile(r'(<div\b[^>]*?) role="(?:list|doc-biblioentry)"')
_PICTURE = re.compile(r'(<figure\b[^>]*>\s*)(<img\b[^>]*?\bsrc="([^"]+)"[^>]*>)')


def mend_page(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: object
) -> None:
    """Take the roles out of a page's lists of citations, and link the pictures of its figures."""
    if "body" in context:
        body = _OUTDATED_ROLE.sub(r"\1", context["body"])
        context["body"] = _PICTURE.sub(r'\1<a class="full-size" href="\3">\2</a>', body)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register."""
    app.connect("html-page-context", mend_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
