"""What tests of compiled programs need, and skip by name where it is missing."""

from __future__ import annotations

import shutil

import pytest

from snnmlp_edu.engine.building import find_compiler
from snnmlp_edu.errors import InputError


def _missing() -> str | None:
    try:
        find_compiler()
    except InputError as error:
        return str(error)
    return None


needs_compiler = pytest.mark.skipif(_missing() is not None, reason="there is no C compiler")
needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
