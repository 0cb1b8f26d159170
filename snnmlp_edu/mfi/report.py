"""What the audit found: one row for each operation, and the verdict."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .operations import Kind


@dataclass(frozen=True)
class AuditedOperation:
    """One operation as it ran.

    Args:
        path: module in which it ran; empty for the model itself.
        name: its name in PyTorch, such as `aten.addmm`.
        kind: what hardware would have to do.
        values: what went in, in words: `{0, 1}`, `real`, `constant`, `input`.
        shape: of what came out.
        count: scalar operations: for a linear map weights times places, dense; else values that came out.
        holds: `all inputs` where the structure proves it, `these inputs` where it was only seen.
        violation: why this is not multiplication-free; None where it is.
        exercised: False for spikes of which none occurred.
    """

    path: str
    name: str
    kind: Kind
    values: str
    shape: tuple[int, ...]
    count: int
    holds: str
    violation: str | None = None
    exercised: bool = True

    def __str__(self) -> str:
        reason = f": {self.violation}" if self.violation else ""
        return f"{self.path or '(model)'} {self.name} ({self.kind} of {self.values}){reason}"


@dataclass(frozen=True)
class Group:
    """Equal operations of layers that differ in nothing but the numbers in their path, `*` here."""

    row: AuditedOperation
    layers: int
    operations: int
    count: int

    def cells(self) -> tuple[str, ...]:
        """What a table shows of it, under `COLUMNS`."""
        r = self.row
        values = r.values if r.exercised else f"{r.values}, not exercised"
        verdict = "violation" if r.violation else r.holds
        return (
            r.path or "(model)",
            r.name,
            str(r.kind),
            values,
            f"{self.layers}",
            f"{self.count:,}",
            verdict,
        )


COLUMNS = ("module", "operation", "kind", "input values", "layers", "count", "holds for")
NUMBERS = ("layers", "count")
# Nothing is computed there: rows that a table leaves out.
SILENT = (Kind.MOVEMENT, Kind.CONSTANT)


@dataclass(frozen=True)
class AuditReport:
    """The verdict on a model, with everything that it rests on.

    Args:
        layers: one row for each operation, in the order in which they ran.
    """

    layers: Sequence[AuditedOperation]

    @property
    def violations(self) -> list[AuditedOperation]:
        """The rows that need a multiplication, or that cannot be judged."""
        return [row for row in self.layers if row.violation]

    @property
    def multiplication_free(self) -> bool:
        """Whether there is no violation."""
        return not self.violations

    @property
    def not_exercised(self) -> list[AuditedOperation]:
        """The rows whose spikes did not occur: what is said of them rests on structure alone."""
        return [row for row in self.layers if not row.exercised]

    def verdict(self) -> str:
        """The verdict in one line."""
        if not self.violations:
            seen = sum(row.holds != "all inputs" for row in self.layers)
            proven = (
                "for all inputs" if not seen else f"{seen} of {len(self.layers)} for the inputs seen only"
            )
            return f"multiplication-free: {len(self.layers)} operations, {proven}"
        places = {row.path for row in self.violations}
        return f"not multiplication-free: {len(self.violations)} violations in {len(places)} modules"

    def groups(self) -> list[Group]:
        """Rows that compute, grouped: those of repeated layers become one."""
        return group(row for row in self.layers if row.kind not in SILENT or row.violation)

    def notes(self) -> list[str]:
        """What the table does not show: each violation's reason, silent spikes, rows left out."""
        lines = [
            f"{g.row.path or '(model)'}, {g.row.name}: {g.row.violation}"
            + (f" ({g.layers} layers)" * (g.layers > 1))
            for g in group(self.violations)
        ]
        if self.not_exercised:
            places = len({row.path for row in self.not_exercised})
            lines.append(f"no spike reached {places} modules: there the verdict rests on structure alone")
        quiet = sum(row.kind in SILENT and not row.violation for row in self.layers)
        lines.append(f"not shown: {quiet} operations that move data or compute with constants alone")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON holds them."""
        rows = [dataclasses.asdict(row) | {"shape": list(row.shape)} for row in self.layers]
        return {
            "multiplication_free": self.multiplication_free,
            "violations": [str(row) for row in self.violations],
            "layers": rows,
        }

    def __str__(self) -> str:
        lines = [COLUMNS, *(group.cells() for group in self.groups())]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        right = [name in NUMBERS for name in COLUMNS]
        table = [
            "  ".join(
                cell.rjust(width) if number else cell.ljust(width)
                for cell, width, number in zip(line, widths, right, strict=True)
            ).rstrip()
            for line in lines
        ]
        return "\n".join([*table, *self.notes(), self.verdict()])


def group(rows: Iterable[AuditedOperation]) -> list[Group]:
    """Equal operations of layers whose paths differ in numbers only, in the order of the first."""
    found: dict[AuditedOperation, list[AuditedOperation]] = {}
    for row in rows:
        pattern = re.sub(r"(?<![^.])\d+(?![^.])", "*", row.path)
        key = dataclasses.replace(row, path=pattern, shape=(), count=0)
        found.setdefault(key, []).append(row)
    return [
        Group(key, len({row.path for row in same}), len(same), sum(row.count for row in same))
        for key, same in found.items()
    ]
