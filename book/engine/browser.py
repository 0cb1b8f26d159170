"""A Chromium on this machine, for the tests of the pages and for the book as one PDF."""

from __future__ import annotations

import contextlib
import functools
import http.server
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snnmlp_edu.errors import InputError

if TYPE_CHECKING:
    from playwright.sync_api import Browser

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MISSING = "no Chromium is installed (looked for: {}, and SNNMLP_BROWSER)".format(", ".join(NAMES))


def find_browser() -> str | None:
    """Path of the Chromium that SNNMLP_BROWSER names, or else of the first one found; None without one.

    Raises:
        InputError: SNNMLP_BROWSER names a file that is not there.
    """
    named = os.environ.get("SNNMLP_BROWSER")
    if named:
        if not Path(named).is_file():
            raise InputError(f"SNNMLP_BROWSER is {named!r}, which is no file: name a Chromium, or unset it")
        return named
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def require_browser() -> str:
    """Path of the Chromium on this machine.

    Raises:
        InputError: there is none, or SNNMLP_BROWSER names a file that is not there.
    """
    executable = find_browser()
    if executable is None:
        raise InputError(f"{MISSING}: install one with your system's packages")
    return executable


@contextlib.contextmanager
def open_browser() -> Iterator[Browser]:
    """A headless Chromium that speaks to nobody on its own account.

    Raises:
        InputError: there is none on this machine.
    """
    executable = require_browser()
    from playwright.sync_api import sync_playwright

    quiet = ["--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    # Chromium's sandbox does not work for root, as in most containers.
    unsafe = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=[*quiet, *unsafe])
        try:
            yield browser
        finally:
            browser.close()


def seconds_to_first_page(html: Path) -> float:
    """How long a browser without a cache takes to the first page, loaded with all that it needs.

    Raises:
        InputError: no browser is installed.
    """
    with serve(html) as address, open_browser() as browser:
        opened = browser.new_page()
        opened.set_default_timeout(120_000)  # of a machine that is busy, too
        begin = time.perf_counter()
        opened.goto(address)  # which leads on to the first chapter
        opened.wait_for_url("**/chapters/*.html", wait_until="load")
        return time.perf_counter() - begin


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve a folder to this machine alone, on a free port; yields the address."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with _Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a browser that was closed before it had everything."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of requests."""
