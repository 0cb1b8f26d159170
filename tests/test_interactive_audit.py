"""The explorer of chapter 09 in a real browser: its rows and verdicts are those of the audit."""

from __future__ import annotations

from typing import Any

import pytest
from test_interactive import (  # noqa: F401  (three of them are fixtures)
    SET_AND_READ,
    assert_walks,
    pages,
    phone,
    says,
    show,
)

from book.interactive.audit_stepper import BLOCK, COLORS, NORMS, PARTS, part, report
from snnmlp_edu.config import ChannelNorm
from snnmlp_edu.mfi.auditing.report import SILENT

TABLE = """() => {
  const {text} = Bokeh.documents[0].get_model_by_name("audit_stepper").args.table;
  const rows = new DOMParser().parseFromString(text, "text/html").querySelectorAll("tbody tr");
  const words = row => Array.from(row.cells, cell => cell.textContent);
  return [...rows].map(row => [row.hasAttribute("aria-current"), ...words(row)]);
}"""
SAID = "() => Bokeh.documents[0].get_model_by_name('audit_stepper').args.said.text.replace(/<[^>]*>/g, '')"
TITLE = "norm"


def audited(norm: ChannelNorm) -> list[Any]:
    """The rows of the block that compute."""
    return [each for each in report(norm).layers if each.path.startswith(BLOCK) and each.kind not in SILENT]


@pytest.mark.parametrize("norm", NORMS)
def test_every_row_is_that_of_the_audit(norm: ChannelNorm, show: Any) -> None:  # noqa: F811
    page = show("audit_stepper", kept=True)
    rows = audited(norm)
    shown = page.evaluate(SET_AND_READ, [{TITLE: norm, "step": 1}, "operations"])
    assert shown["color"] == [COLORS[row.kind] for row in rows]
    for number, row in enumerate(rows, start=1):
        page.evaluate(SET_AND_READ, [{"step": number}, "operations"])
        (chosen,) = (cells for current, *cells in page.evaluate(TABLE) if current)
        name = row.name.removeprefix("aten.")
        assert chosen == [str(number), f"{part(row.path)}: {name}", row.values, str(row.kind)]
        said = page.evaluate(SAID)
        assert f"{row.count:,} scalar operations" in said
        assert f"holds for {row.holds}" in said
        assert (f"A violation: {row.violation}" in said) == (row.violation is not None)


@pytest.mark.parametrize("norm", NORMS)
def test_verdict_and_first_multiplication_are_those_of_the_audit(norm: ChannelNorm, show: Any) -> None:  # noqa: F811
    page = show("audit_stepper", kept=True)
    page.evaluate(SET_AND_READ, [{TITLE: norm, "step": 1}, "operations"])
    found = report(norm)
    assert says(page, "multiplication-free" if found.multiplication_free else "not multiplication-free")
    button = page.get_by_role("button", name="First multiplication")
    wrong = [number for number, row in enumerate(audited(norm), start=1) if row.violation]
    assert bool(wrong) == (norm != "bn")
    if not wrong:
        assert button.is_disabled()
        assert says(page, "nothing in this block multiplies")
        return
    assert len([row for row in found.violations if row.path.startswith(BLOCK)]) == len(wrong)
    button.press("Enter")
    assert says(page, f"Operation {wrong[0]} of")
    assert says(page, f"the first multiplication is operation {wrong[0]}")


def test_released_norm_fails_once_and_layer_norm_at_both_maps() -> None:
    where = {norm: [part(row.path) for row in audited(norm) if row.violation] for norm in NORMS}
    assert where == {"bn": [], "bn_token": ["down, norm"], "ln": ["up, norm", "down, norm"]}


@pytest.mark.parametrize("norm", NORMS)
def test_every_part_has_a_name(norm: ChannelNorm) -> None:
    assert {part(row.path) for row in audited(norm)} <= set(PARTS.values())


def test_operations_are_walked_by_the_keyboard(show: Any) -> None:  # noqa: F811
    page = show("audit_stepper")
    assert_walks(page, slider="operation", words="Operation {} of", last=len(audited("bn")))
    page.get_by_label(TITLE, exact=True).select_option(NORMS["bn_token"])
    page.keyboard.press("Home")
    assert says(page, "not multiplication-free")


def test_picture_stays_below_this_explorer_alone(show: Any) -> None:  # noqa: F811
    explored = "() => document.getElementById('fig').classList.contains('explored')"
    assert not show("audit_stepper", kept=True).evaluate(explored)
    assert show("reach_explorer", kept=True).evaluate(explored)
