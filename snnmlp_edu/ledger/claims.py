"""The paper's claims, and the verdict on each: `data/claims.yaml`, with verdicts that the records decide."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ..data.files import path
from ..errors import InputError
from ..fields import checked, require_known
from ..yaml_files import read_yaml
from .plans import load_plan
from .reading import progress, read_records
from .statistics import compare

Verdict = Literal["reproduced", "reproduced at small scale", "not reproduced", "inconclusive", "not run"]
VERDICTS: tuple[str, ...] = get_args(Verdict)
_FIELDS = ("claim", "source", "value", "how", "verdict", "why", "rules", "holds", "records", "note")
_RULE = ("plan", "variant", "is", "than", "measure", "multiplication_free", "multiplies")
_WORDS = ("higher", "lower")
# Of a rule: runs are missing, the records contradict it, they leave it open, or it holds.
Judgement = Literal["missing", "fails", "open", "holds"]


@dataclass(frozen=True)
class Rule:
    """What records must show for a claim to hold.

    Either `variant` is higher or lower than each of `than` in `measure`, and separated from it; or the audit
    calls some variants multiplication-free and others not.

    Args:
        plan: whose records.
        variant: the one that the claim is about.
        is_: `higher` or `lower`.
        than: the others.
        measure: a number of `Record`.
        multiplication_free: variants of which no run may multiply.
        multiplies: variants of which every run must.
    """

    plan: str
    variant: str = ""
    is_: str = ""
    than: tuple[str, ...] = ()
    measure: str = "test_accuracy"
    multiplication_free: tuple[str, ...] = ()
    multiplies: tuple[str, ...] = ()

    @property
    def variants(self) -> tuple[str, ...]:
        """All variants that it speaks of."""
        named = (self.variant,) if self.variant else ()
        return (*named, *self.than, *self.multiplication_free, *self.multiplies)

    def judge(self, results: Path | None = None) -> tuple[Judgement, list[str]]:
        """What the records say, and the sentences that say why.

        Raises:
            InputError: a record was changed by hand.
        """
        plan, records = load_plan(self.plan), read_records(self.plan, results)
        runs = {(record.variant, record.seed) for record in records}
        if any((variant, seed) not in runs for variant in self.variants for seed in plan.seeds):
            return "missing", [str(progress(plan, results))]
        compared = [compare(records, self.variant, other, self.measure) for other in self.than]
        sentences = [str(each) for each in compared]
        fails = any(e.separated and (e.difference > 0) != (self.is_ == "higher") for e in compared)
        verdicts = {
            variant: all(r.multiplication_free for r in records if r.variant == variant)
            for variant in (*self.multiplication_free, *self.multiplies)
        }
        for variant in self.multiplies:
            fails |= any(r.multiplication_free for r in records if r.variant == variant)
        if verdicts:
            fails |= not all(verdicts[variant] for variant in self.multiplication_free)
            free = [variant for variant, verdict in verdicts.items() if verdict]
            others = [variant for variant, verdict in verdicts.items() if not verdict]
            sentences.append(
                f"{self.plan}: multiplication-free by the audit: {', '.join(free) or 'none'};"
                f" not: {', '.join(others) or 'none'}"
            )
        if fails:
            return "fails", sentences
        return ("holds" if all(each.separated for each in compared) else "open"), sentences


@dataclass(frozen=True)
class Claim:
    """One claim of the paper.

    Args:
        claim: in words.
        source: where it is made.
        value: the paper's number; empty where it has none.
        how: how it was tested.
        verdict: one of `VERDICTS`.
        why: why it was not run; empty where it was.
        records: the plans whose records decide, or that come closest.
        note: what else is to be said.
        evidence: sentences computed from the records.
    """

    claim: str
    source: str
    value: str
    how: str
    verdict: str
    why: str
    records: tuple[str, ...]
    note: str
    evidence: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.claim}: {self.verdict}{f' ({self.why})' if self.why else ''}"

    @property
    def runs(self) -> str:
        """By which plans' runs it was judged, as words; empty where no records decide."""
        plans = f"plan{'s' if len(self.records) > 1 else ''} {' and '.join(self.records)}"
        return f"by the runs of the {plans}" if self.records else ""

    @property
    def grounds(self) -> str:
        """Why it was not run, or what the runs show."""
        return self.why or "; ".join(self.evidence)

    @property
    def because(self) -> str:
        """Its grounds and its note, a sentence each."""
        return _in_sentences(self.grounds, self.note)

    @property
    def judged_by(self) -> str:
        """Why it was not run, or by which runs it was judged; and its note, a sentence each."""
        return _in_sentences(self.why or self.runs, self.note)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON holds them."""
        return dataclasses.asdict(self)


def claims(file: Path | None = None, results: Path | None = None) -> list[Claim]:
    """Every claim with its verdict; where rules decide, the records do.

    Args:
        file: a YAML file of claims; by default the shipped one.
        results: folder of the records; by default the shipped ones.

    Raises:
        InputError: the file is not as it should be, or a record was changed by hand.
    """
    file = path() / "claims.yaml" if file is None else file
    rows = read_yaml(file)
    if not isinstance(rows, list):
        raise InputError(f"{file} holds no claims; write a list of them")
    return [_claim(row, f"{file}, claim {i}", results) for i, row in enumerate(rows, start=1)]


def verdict_counts(file: Path | None = None, results: Path | None = None) -> dict[str, int]:
    """Verdict -> how many claims have it, for all of `VERDICTS`.

    Raises:
        InputError: as `claims`.
    """
    found = [claim.verdict for claim in claims(file, results)]
    return {verdict: found.count(verdict) for verdict in VERDICTS}


def _claim(row: Any, location: str, results: Path | None) -> Claim:
    if not isinstance(row, dict):
        raise InputError(f"{location} is {row!r}; write 'field: value' lines")
    require_known(f"{location}: a claim", row, _FIELDS)
    for name in ("claim", "source", "how"):
        if not isinstance(row.get(name), str):
            raise InputError(f"{location} lacks {name}; every claim says it in words")
    rules = [_rule(rule, location) for rule in row.get("rules", [])]
    if bool(rules) == ("verdict" in row):
        raise InputError(f"{location} needs either rules, by which records decide, or a verdict")
    verdict, why, evidence = str(row.get("verdict", "")), _text(row, "why"), []
    if rules:
        judged = [rule.judge(results) for rule in rules]
        evidence = list(dict.fromkeys(sentence for _, sentences in judged for sentence in sentences))
        found = {judgement for judgement, _ in judged}
        if "missing" in found:
            missing = dict.fromkeys(sentences[0] for each, sentences in judged if each == "missing")
            verdict, why = "not run", f"not to its end: {'; '.join(missing)}"
        elif "fails" in found:
            verdict = "not reproduced"
        else:
            verdict = "inconclusive" if "open" in found else str(row.get("holds", VERDICTS[1]))
    checked(f"{location}: the verdict", verdict, Verdict)
    if (verdict == "not run") != bool(why):
        raise InputError(f"{location}: a claim that was not run needs 'why', and no other claim may have it")
    plans = [*row.get("records", []), *(rule.plan for rule in rules)]
    for plan in plans:
        load_plan(plan)
    return Claim(
        claim=row["claim"],
        source=row["source"],
        value=_text(row, "value"),
        how=_text(row, "how"),
        verdict=verdict,
        why=why,
        records=tuple(dict.fromkeys(plans)),
        note=_text(row, "note"),
        evidence=tuple(evidence),
    )


def _rule(values: Any, location: str) -> Rule:
    if not isinstance(values, dict):
        raise InputError(
            f"{location}: a rule is {values!r}; write {{plan: a, variant: b, is: higher, than: c}}"
        )
    require_known(f"{location}: a rule", values, _RULE)
    lists = {
        name: tuple(str(v) for v in (value if isinstance(value, list) else [value]))
        for name in ("than", "multiplication_free", "multiplies")
        if (value := values.get(name)) is not None
    }
    rule = Rule(
        plan=str(values.get("plan", "")),
        variant=str(values.get("variant", "")),
        is_=str(values.get("is", "")),
        measure=str(values.get("measure", "test_accuracy")),
        **lists,
    )
    plan = load_plan(rule.plan)
    for variant in rule.variants:
        plan.recipe_of(variant, seed=0)
    if bool(rule.than) != (rule.is_ in _WORDS) or bool(rule.than) != bool(rule.variant) or not rule.variants:
        raise InputError(
            f"{location}: a rule says 'variant', 'is: higher' or 'is: lower', and 'than'; or else which"
            " variants are 'multiplication_free'"
        )
    return rule


def _text(row: Mapping[str, Any], name: str) -> str:
    return " ".join(str(row.get(name, "")).split())


def _in_sentences(*parts: str) -> str:
    """Those parts that say something, each with a capital letter and a full stop."""
    return " ".join(f"{part[0].upper()}{part[1:].rstrip('.')}." for part in parts if part)
