"""Rules: what the records, or counts, must show for a claim of the paper to hold."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from ..data.files import path
from ..errors import InputError
from ..fields import require_known
from .comparisons import Comparison
from .plans import load_plan
from .reading import progress, read_records
from .record import Record
from .statistics import compare

# Of a rule: runs are missing, it is contradicted, left open, or it holds.
Judgement = Literal["missing", "fails", "open", "holds"]


@dataclass(frozen=True)
class Finding:
    """What a rule found.

    Args:
        judgement: one of `Judgement`.
        said: sentences that say why.
        measured: the numbers in short, each with what they are from, such as seeds and images; empty where
            runs are missing.
    """

    judgement: Judgement
    said: tuple[str, ...]
    measured: tuple[tuple[str, str], ...] = ()


COUNTS = "cost_at_224.json"  # what an image of 224 x 224 costs, network by network
AUDITS = "audits_at_224.json"  # what the audit finds for such an image
RATE = 0.1  # spikes a neuron and step at which additions of different networks are compared
_COUNTED = {"parameters": "", "synaptic_operations": f", both at a firing rate of {RATE:.0%}"}
_SHORT = {"parameters": "parameters", "synaptic_operations": "additions, at equal rates"}
_WORDS = ("higher", "lower", "equal")
_OF_RECORDS = ("plan", "variant", "is", "than", "measure", "within", "multiplication_free", "multiplies")
_OF_COUNTS = ("count", "of", "times", "between")


@dataclass(frozen=True)
class Difference:
    """One variant is higher or lower than others and separated from them, or equal to them within a margin.

    Args:
        plan: whose records.
        variant: the one that the claim is about.
        is_: `higher`, `lower` or `equal`.
        than: the others.
        measure: a number of `Record`.
        within: of `equal`, the largest difference that the intervals may hold, in the measure's unit.
    """

    plan: str
    variant: str
    is_: str
    than: tuple[str, ...]
    measure: str = "test_accuracy"
    within: float = 0.0

    def judge(self, results: Path | None = None) -> Finding:
        """What the records say.

        Raises:
            InputError: a record was changed by hand.
        """
        records, missing = _runs(self.plan, (self.variant, *self.than), results)
        if missing:
            return Finding("missing", (missing,))
        pairs = [(self.variant, other) for other in self.than]
        if self.variant == load_plan(self.plan).base:  # the plan's own comparisons, and their intervals
            pairs = [(other, base) for base, other in pairs]
        compared = [compare(records, *pair, self.measure) for pair in pairs]
        found = {self._of(each) for each in compared}
        worst = next(each for each in ("fails", "open", "holds") if each in found)
        measured = tuple(self._measured(each, records) for each in compared)
        return Finding(worst, tuple(str(each) for each in compared), measured)

    def _measured(self, each: Comparison, records: list[Record]) -> tuple[str, str]:
        """The difference, which is above zero where the claim holds; and seeds and images that it is from."""
        pair = (each.variant, each.base)
        higher = self.variant if self.is_ != "lower" else next(name for name in pair if name != self.variant)
        counts = " and ".join(str(count) for count in dict.fromkeys(each.seeds))
        images = min(record.test_total for record in records if record.variant in pair)
        tested = "" if each.over_images is None else f", {images:,} images"
        return each.in_short(higher), f"{counts} seeds{tested}"

    def _of(self, each: Comparison) -> Literal["fails", "open", "holds"]:
        if self.is_ == "equal":
            inside = not each.doubt and -self.within <= each.low and each.high <= self.within
            outside = not each.doubt and (each.low > self.within or each.high < -self.within)
            return "holds" if inside else "fails" if outside else "open"
        if not each.separated:
            return "open"
        higher = (each.difference > 0) == (each.variant == self.variant)
        return "holds" if higher == (self.is_ == "higher") else "fails"


@dataclass(frozen=True)
class Audited:
    """The audit calls some variants of a plan multiplication-free, and others not.

    Args:
        plan: whose records.
        multiplication_free: variants of which no run may multiply.
        multiplies: variants of which every run must.
    """

    plan: str
    multiplication_free: tuple[str, ...] = ()
    multiplies: tuple[str, ...] = ()

    def judge(self, results: Path | None = None) -> Finding:
        """What the records say.

        Raises:
            InputError: a record was changed by hand.
        """
        variants = (*self.multiplication_free, *self.multiplies)
        records, missing = _runs(self.plan, variants, results)
        if missing:
            return Finding("missing", (missing,))
        verdicts = {
            variant: [record.multiplication_free for record in records if record.variant == variant]
            for variant in variants
        }
        free = [variant for variant, found in verdicts.items() if all(found)]
        others = [variant for variant in verdicts if variant not in free]
        sentence = (
            f"{self.plan}: multiplication-free by the audit: {', '.join(free) or 'none'};"
            f" not: {', '.join(others) or 'none'}"
        )
        holds = all(all(verdicts[variant]) for variant in self.multiplication_free) and not any(
            any(verdicts[variant]) for variant in self.multiplies
        )
        counts = [f"{variant} {found.count(False)} of {len(found)}" for variant, found in verdicts.items()]
        measured = f"runs of {self.plan} that multiply: {', '.join(counts)}"
        return Finding("holds" if holds else "fails", (sentence,), ((measured, ""),))


@dataclass(frozen=True)
class Ratio:
    """A count of one network is between two multiples of another's, both for images of 224 x 224.

    Additions depend on firing rates, which nobody knows of networks whose weights were not released. At one
    rate for both, they therefore leave a claim open.

    Args:
        count: `parameters` or `synaptic_operations`, the additions at a firing rate of `RATE`.
        of: the network that the claim is about.
        times: the other.
        between: the two multiples; None of additions, which leave the claim open.
    """

    count: str
    of: str
    times: str
    between: tuple[float, float] | None

    def judge(self, results: Path | None = None) -> Finding:
        """What the counts say."""
        ratio = _counted(self.of, self.count) / _counted(self.times, self.count)
        name = self.count.replace("_", " ")
        sentence = f"{self.of} has {ratio:.2f} times the {name} of {self.times}{_COUNTED[self.count]}"
        measured = ((f"{ratio:.2f} times the {_SHORT[self.count]}", ""),)
        if self.between is None:
            return Finding("open", (sentence,), measured)
        low, high = self.between
        return Finding("holds" if low <= ratio <= high else "fails", (sentence,), measured)


@dataclass(frozen=True)
class AuditedAtSize:
    """The audit calls networks of the paper's size multiplication-free, for an image of 224 x 224.

    Args:
        networks: all of which have to pass.
    """

    networks: tuple[str, ...]

    def judge(self, results: Path | None = None) -> Finding:
        """What the stored audits say."""
        found = {name: _audits()[name] for name in self.networks}
        holds = all(audit["multiplication_free"] for audit in found.values())
        operations = sum(audit["operations"] for audit in found.values())
        refused = sum(_refused(audit) for audit in found.values())
        networks = f" of {len(found)} networks" if len(found) > 1 else ""
        measured = f"{refused} of {operations:,} operations{networks} multiply outside the stem"
        said = tuple(_verdict(*each) for each in found.items())
        return Finding("holds" if holds else "fails", said, ((measured, ""),))


Rule = Difference | Audited | AuditedAtSize | Ratio


def read_rule(values: Any, location: str) -> Rule:
    """A rule of the file of claims.

    Raises:
        InputError: it is none, or names a plan, variant, count or network that does not exist.
    """
    if not isinstance(values, dict):
        raise InputError(
            f"{location}: a rule is {values!r}; write {{plan: a, variant: b, is: higher, than: c}}"
        )
    if "count" in values:
        return _ratio(values, location)
    if "audited_at_224" in values:
        require_known(f"{location}: a rule", values, ("audited_at_224",))
        networks = _names(values, "audited_at_224")
        for name in networks:
            _require_network(location, "audited_at_224", name, _audits())
        return AuditedAtSize(networks)
    require_known(f"{location}: a rule", values, _OF_RECORDS)
    name = str(values.get("plan", ""))
    plan = load_plan(name)
    for key in ("variant", "than", "multiplication_free", "multiplies"):
        for variant in _names(values, key):
            plan.recipe_of(variant, seed=0)
    free, multiplies = _names(values, "multiplication_free"), _names(values, "multiplies")
    if (free or multiplies) and "is" not in values and "than" not in values:
        return Audited(name, free, multiplies)
    word, within = str(values.get("is", "")), float(values.get("within", 0))
    complete = values.get("variant") and values.get("than") and word in _WORDS
    if not complete or free or multiplies or (within > 0) != (word == "equal"):
        raise InputError(
            f"{location}: a rule says 'variant', 'is: higher' or 'is: lower', and 'than'; or 'is: equal' and"
            " 'within' how much; or else which variants are 'multiplication_free'"
        )
    measure = str(values.get("measure", "test_accuracy"))
    return Difference(name, str(values["variant"]), word, _names(values, "than"), measure, within)


def _ratio(values: Mapping[str, Any], location: str) -> Ratio:
    require_known(f"{location}: a rule", values, _OF_COUNTS)
    count, between = values["count"], values.get("between")
    ends = isinstance(between, list) and len(between) == 2
    if count not in _COUNTED or not (ends if count == "parameters" else between is None):
        raise InputError(
            f"{location}: a rule on counts says 'count: {' or '.join(_COUNTED)}', 'of' and 'times';"
            " of parameters also 'between: [low, high]'"
        )
    for name in ("of", "times"):
        _require_network(location, name, values.get(name), _counts())
    multiples = None if between is None else (float(between[0]), float(between[1]))
    return Ratio(count, values["of"], values["times"], multiples)


def _require_network(location: str, field: str, name: Any, known: Mapping[str, Any]) -> None:
    if name not in known:
        raise InputError(f"{location}: {field} is {name!r}; choose one of {', '.join(known)}")


def _names(values: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = values.get(key)
    if value is None:
        return ()
    return tuple(str(each) for each in (value if isinstance(value, list) else [value]))


def _runs(name: str, variants: tuple[str, ...], results: Path | None) -> tuple[list[Record], str]:
    """The plan's records; and how many runs it has, in words, where one of these variants lacks a seed."""
    plan, records = load_plan(name), read_records(name, results)
    runs = {(record.variant, record.seed) for record in records}
    missing = any((variant, seed) not in runs for variant in variants for seed in plan.seeds)
    return records, str(progress(plan, results)) if missing else ""


@cache
def _stored(file: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((path() / file).read_text(encoding="utf-8"))
    return content


def _counts() -> dict[str, Any]:
    return _stored(COUNTS)


def _audits() -> dict[str, Any]:
    networks: dict[str, Any] = _stored(AUDITS)["networks"]
    return networks


def _verdict(network: str, audit: Mapping[str, Any]) -> str:
    operations = f"{audit['operations']:,} operations"
    if audit["multiplication_free"]:
        return f"the audit finds no multiplication in the {operations} of {network} at 224 px"
    return f"of the {operations} of {network} at 224 px, the audit refuses {_refused(audit)}"


def _refused(audit: Mapping[str, Any]) -> int:
    return sum(each["rows"] for each in audit["violations"])


def _counted(network: str, count: str) -> float:
    row = _counts()[network]
    if count == "parameters":
        return float(row["parameters"])
    return statistics.fmean(run["synaptic_operations"] for run in row["runs"] if run["rate"] == RATE)
