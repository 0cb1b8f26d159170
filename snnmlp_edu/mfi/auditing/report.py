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
        count: scalar operations, dense: of a linear map weights times positions, whatever spikes occurred;
            of all else, including rows gathered for spikes, the values that came out.
            `snnmlp_edu.cost` counts what the spikes really cause.
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
    """Equal operations of layers that differ in nothing but the numbers in their path, `*` here.

    Args:
        row: what they have in common.
        paths: the modules.
        operations: how many there are.
        count: scalar operations of all of them, dense.
    """

    row: AuditedOperation
    paths: frozenset[str]
    operations: int
    count: int

    def cells(self) -> tuple[str, ...]:
        """What a table shows of it, under `COLUMNS`."""
        row = self.row
        values = row.values if row.exercised else f"{row.values}, not exercised"
        verdict = "violation" if row.violation else row.holds
        return (row.name.removeprefix("aten."), str(row.kind), values, f"{self.count:,}", verdict)


COLUMNS = ("operation", "kind", "input values", "count", "holds for")
VALUES = COLUMNS.index("input values")
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
        """The rows whose spikes did not occur: their verdict rests on structure alone."""
        return [row for row in self.layers if not row.exercised]

    def verdict(self) -> str:
        """The verdict in one line."""
        if not self.violations:
            seen = sum(row.holds != "all inputs" for row in self.layers)
            proven = f"{seen:,} of them only for the inputs seen" if seen else "for all inputs"
            return f"multiplication-free: {len(self.layers):,} operations, {proven}"
        modules = {row.path for row in self.violations}
        found = f"{_counted(len(self.violations), 'violation')} in {_counted(len(modules), 'module')}"
        return f"not multiplication-free: {found}"

    def sections(self) -> dict[str, list[Group]]:
        """Rows that compute, grouped: title of a module, or of all layers like it -> what it does there."""
        found: dict[str, list[Group]] = {}
        for group in _group(row for row in self.layers if row.kind not in SILENT or row.violation):
            found.setdefault(group.row.path, []).append(group)
        return {_title(path, groups): groups for path, groups in found.items()}

    def notes(self) -> list[str]:
        """What the table does not show: each violation's reason, silent spikes, rows left out."""
        lines = [
            f"{_title(group.row.path, [group])}, {group.row.name}: {group.row.violation}"
            for group in _group(self.violations)
        ]
        if self.not_exercised:
            modules = len({row.path for row in self.not_exercised})
            lines.append(f"no spike arrived at {modules} modules: there the verdict rests on structure alone")
        quiet = sum(row.kind in SILENT and not row.violation for row in self.layers)
        return [*lines, f"not shown: {quiet:,} operations that move data or compute with constants alone"]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON holds them."""
        rows = [dataclasses.asdict(row) | {"shape": list(row.shape)} for row in self.layers]
        return {
            "multiplication_free": self.multiplication_free,
            "violations": [str(row) for row in self.violations],
            "layers": rows,
        }

    def widths(self, limit: int | None = None) -> list[int]:
        """Characters for each of the `COLUMNS`, so that all sections line up.

        Args:
            limit: characters for all of them; the input values are what may break into lines.
        """
        rows = [COLUMNS, *(group.cells() for groups in self.sections().values() for group in groups)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        excess = 0 if limit is None else max(0, sum(widths) - limit)
        widths[VALUES] = max(len(COLUMNS[VALUES]), widths[VALUES] - excess)
        return widths

    def __str__(self) -> str:
        def line(cells: tuple[str, ...]) -> str:
            aligned = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
            return ("  " + "  ".join(aligned)).rstrip()

        widths = self.widths()
        table = [line(COLUMNS)]
        for title, groups in self.sections().items():
            table += [title, *(line(group.cells()) for group in groups)]
        return "\n".join([*table, *self.notes(), self.verdict()])


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _group(rows: Iterable[AuditedOperation]) -> list[Group]:
    found: dict[AuditedOperation, list[AuditedOperation]] = {}
    for row in rows:
        key = dataclasses.replace(row, path=without_numbers(row.path), shape=(), count=0)
        found.setdefault(key, []).append(row)
    return [
        Group(key, frozenset(row.path for row in same), len(same), sum(row.count for row in same))
        for key, same in found.items()
    ]


def _title(path: str, groups: list[Group]) -> str:
    layers = len(frozenset().union(*(group.paths for group in groups)))
    return (path or "(model)") + (f" ({layers} layers)" if layers > 1 else "")


def without_numbers(path: str) -> str:
    """The path that all layers of a kind share.

    >>> without_numbers("stages.2.blocks.13.channel.down")
    'stages.*.blocks.*.channel.down'
    """
    return re.sub(r"(?<![^.])\d+(?![^.])", "*", path)
