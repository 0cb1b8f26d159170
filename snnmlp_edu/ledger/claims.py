"""The paper's claims, and the verdict on each: `data/claims.yaml`, with verdicts that the records decide."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ..data.files import path
from ..errors import InputError
from ..fields import checked, require_known
from ..yaml_files import read_yaml
from .plans import load_plan
from .rules import Audited, Difference, Finding, Rule, read_rule

Verdict = Literal["reproduced", "reproduced at small scale", "not reproduced", "inconclusive", "not run"]
VERDICTS: tuple[str, ...] = get_args(Verdict)
Strength = Literal["proof", "arithmetic", "experiment"]
Scale = Literal["paper's", "CIFAR-10", "small"]
_FIELDS = (
    *("claim", "short", "chapter", "source", "value", "strength", "how", "tests", "verdict", "scale"),
    *("why", "decides", "records", "note"),
)
_TEST = ("scale", "rules")
RIVALS = "rivals.yaml"


@dataclass(frozen=True)
class Claim:
    """One claim of the paper.

    Args:
        claim: in words.
        short: in fewer words, as a figure has it.
        chapter: of the book, which gives the verdict; 0 where none does.
        source: where it is made.
        value: the paper's number; empty where it has none.
        strength: of what the verdict rests on: a proof, arithmetic, or an experiment.
        scale: of the test that decided, or that would: the paper's, CIFAR-10, or small.
        how: how it was tested.
        verdict: one of `VERDICTS`.
        why: why it was not run; empty where it was.
        decides: what would decide it; empty where that was done.
        records: the plans whose records decide, or that come closest.
        note: what else is to be said.
        evidence: sentences computed from the records and counts.
        here: what was measured, in short, with its interval, seeds and images; empty where no rule decides.
        missing: what the tests that would decide first still lack.
    """

    claim: str
    short: str
    chapter: int
    source: str
    value: str
    strength: str
    scale: str
    how: str
    verdict: str
    why: str
    decides: str
    records: tuple[str, ...]
    note: str
    evidence: tuple[str, ...]
    here: str
    missing: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.claim}: {self.verdict}{f' ({self.why})' if self.why else ''}"

    @property
    def grounds(self) -> str:
        """Why it was not run, or what the runs show."""
        return self.why or "; ".join((*self.evidence, *self.missing))

    @property
    def because(self) -> str:
        """Its grounds and its note, a sentence each."""
        return _in_sentences(self.grounds, self.note)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON holds them."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Rival:
    """A network that the paper compares its own with, and the number it gives for it.

    Args:
        network: in words.
        source: where the number is from.
        parameters: as printed, in millions.
        time_steps: as printed.
        value: top-1 accuracy on ImageNet, as printed.
        here: what of it is in this package.
    """

    network: str
    source: str
    parameters: str
    time_steps: str
    value: str
    here: str


def claims(file: Path | None = None, results: Path | None = None) -> list[Claim]:
    """Every claim with its verdict; where rules decide, the records do.

    Args:
        file: a YAML file of claims; by default the shipped one.
        results: folder of the records; by default the shipped ones.

    Raises:
        InputError: the file is not as it should be, or a record was changed by hand.
    """
    file = path() / "claims.yaml" if file is None else file
    return [
        _claim(row, f"{file}, claim {i}", results) for i, row in enumerate(_rows(file, "claims"), start=1)
    ]


def rivals(file: Path | None = None) -> list[Rival]:
    """The networks that the paper compares with; none of their numbers was run here.

    Args:
        file: a YAML file of rivals; by default the shipped one.

    Raises:
        InputError: the file is not as it should be.
    """
    file = path() / RIVALS if file is None else file
    names = [field.name for field in dataclasses.fields(Rival)]
    found = []
    for i, row in enumerate(_rows(file, "rivals"), start=1):
        location = f"{file}, rival {i}"
        _require_row(row, location, names, names)
        found.append(Rival(**{name: str(row[name]) for name in names}))
    return found


def verdict_counts(file: Path | None = None, results: Path | None = None) -> dict[str, int]:
    """Verdict -> how many claims have it, for all of `VERDICTS`.

    Raises:
        InputError: as `claims`.
    """
    return count_verdicts(claims(file, results))


def count_verdicts(found: Sequence[Claim]) -> dict[str, int]:
    """Verdict -> how many of these claims have it, for all of `VERDICTS`."""
    verdicts = [claim.verdict for claim in found]
    return {verdict: verdicts.count(verdict) for verdict in VERDICTS}


def _rows(file: Path, what: str) -> list[Any]:
    rows = read_yaml(file)
    if not isinstance(rows, list):
        raise InputError(f"{file} holds no {what}; write a list of them")
    return rows


def _require_row(row: Any, location: str, known: Sequence[str], required: Sequence[str]) -> None:
    if not isinstance(row, dict):
        raise InputError(f"{location} is {row!r}; write 'field: value' lines")
    require_known(location, row, known)
    for name in required:
        if not isinstance(row.get(name), str):
            raise InputError(f"{location} lacks {name}; every one says it in words")


def _claim(row: Any, location: str, results: Path | None) -> Claim:
    _require_row(row, location, _FIELDS, ("claim", "source", "strength", "how"))
    strength = checked(f"{location}: the strength", row["strength"], Strength)
    if ("tests" in row) == ("verdict" in row):
        raise InputError(f"{location} needs either tests, by which records decide, or a verdict")
    tests = [_test(test, location) for test in row.get("tests", [])]
    scale, why = str(row.get("scale", tests[0][0] if tests else "")), _text(row, "why")
    verdict, decided = str(row.get("verdict", "")), _Decided()
    if tests:
        decided = _decide(tests, strength, results)
        verdict, scale = decided.verdict, decided.scale
        why = f"not to its end: {'; '.join(decided.missing)}" if verdict == "not run" else ""
    checked(f"{location}: the verdict", verdict, Verdict)
    checked(f"{location}: the scale", scale, Scale)
    if (verdict == "not run") != bool(why):
        raise InputError(f"{location}: a claim that was not run needs 'why', and no other claim may have it")
    judging = [rule.plan for _, rules in tests for rule in rules if isinstance(rule, Difference | Audited)]
    plans = list(dict.fromkeys([*row.get("records", []), *judging]))
    for plan in plans:
        load_plan(plan)
    chapter = row.get("chapter", 0)
    if not isinstance(chapter, int):
        raise InputError(f"{location}: the chapter is {chapter!r}; write its number")
    return Claim(
        claim=row["claim"],
        short=_text(row, "short") or row["claim"],
        chapter=chapter,
        source=row["source"],
        value=_text(row, "value"),
        strength=strength,
        scale=scale,
        how=_text(row, "how"),
        verdict=verdict,
        why=why,
        decides=_text(row, "decides"),
        records=tuple(plans),
        note=_text(row, "note"),
        evidence=decided.evidence,
        here=decided.here,
        missing=decided.missing,
    )


@dataclass(frozen=True)
class _Decided:
    verdict: str = ""
    scale: str = ""
    evidence: tuple[str, ...] = ()
    here: str = ""
    missing: tuple[str, ...] = ()


def _decide(tests: list[tuple[str, list[Rule]]], strength: str, results: Path | None) -> _Decided:
    """By the first test whose runs are all in; and what those before it lack."""
    missing: list[str] = []
    for scale, rules in tests:
        judged = [rule.judge(results) for rule in rules]
        found = {each.judgement for each in judged}
        if "missing" in found:
            missing += dict.fromkeys(each.said[0] for each in judged if each.judgement == "missing")
            continue
        holds = (
            "reproduced" if strength != "experiment" or scale == "paper's" else "reproduced at small scale"
        )
        verdict = "not reproduced" if "fails" in found else "inconclusive" if "open" in found else holds
        sentences = dict.fromkeys(sentence for each in judged for sentence in each.said)
        return _Decided(verdict, scale, tuple(sentences), _measured(judged), tuple(missing))
    return _Decided("not run", tests[0][0], missing=tuple(missing))


def _measured(found: list[Finding]) -> str:
    """All that was measured; seeds and images once, where they are those of several numbers."""
    numbers: dict[str, list[str]] = {}
    for number, source in dict.fromkeys(pair for each in found for pair in each.measured):
        numbers.setdefault(source, []).append(number)
    return "; ".join("; ".join(each) + (f"; {source}" if source else "") for source, each in numbers.items())


def _test(test: Any, location: str) -> tuple[str, list[Rule]]:
    if not isinstance(test, dict) or not isinstance(test.get("rules"), list) or not test["rules"]:
        raise InputError(f"{location}: a test is {test!r}; write 'scale' and a list of 'rules'")
    require_known(f"{location}: a test", test, _TEST)
    scale = checked(f"{location}: the scale", str(test.get("scale", "")), Scale)
    return scale, [read_rule(rule, location) for rule in test["rules"]]


def _text(row: Mapping[str, Any], name: str) -> str:
    return " ".join(str(row.get(name, "")).split())


def _in_sentences(*parts: str) -> str:
    """Those parts that say something, each with a capital letter and a full stop."""
    return " ".join(f"{part[0].upper()}{part[1:].rstrip('.')}." for part in parts if part)
