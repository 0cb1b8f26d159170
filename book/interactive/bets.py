"""Bets on the paper's claims: placed in the preface, kept by the reader's browser, settled in chapter 15."""

from __future__ import annotations

import json
from typing import Any

from snnmlp_edu import ledger
from snnmlp_edu.ledger.plots import GROUPS, on_board

from .embed import FOLDER

BETS = 5
SETTLED_AT = "fig-board"  # the figure at which the bets are settled; at any other they are placed


def files() -> dict[str, str]:
    """The explorer's files by name: script and style."""
    call = f"showBets({json.dumps(facts(), ensure_ascii=False, separators=(',', ':'))});\n"
    return {"bets.js": _read("js") + call, "bets.css": _read("css")}


def facts() -> dict[str, Any]:
    """What the page's script has to know of the claims."""
    claims = [
        {"number": n, "group": GROUPS[claim.chapter], "claim": claim.short, "verdict": claim.verdict}
        for n, claim in enumerate(on_board(ledger.claims()), start=1)
    ]
    return {"bets": BETS, "settledAt": SETTLED_AT, "claims": claims}


def _read(kind: str) -> str:
    return (FOLDER / f"bets.{kind}").read_text(encoding="utf-8")
