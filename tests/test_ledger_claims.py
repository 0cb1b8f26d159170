"""The claims: the shipped file follows its schema, and records decide where rules say so."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from recorded import write_records
from test_cli import assert_wrong_usage, call

from snnmlp_edu import ledger
from snnmlp_edu.data import path
from snnmlp_edu.errors import InputError

PLAIN = {"claim": "it works", "source": "arXiv 2306.12465", "how": "by looking"}
HIGHER = {"plan": "patch_encoding", "variant": "spiking", "is": "higher", "than": "conv"}


def write(folder: Path, *rows: Any) -> Path:
    file = folder / "claims.yaml"
    file.write_text(yaml.safe_dump(list(rows)))
    return file


def judged(folder: Path, *rules: Any, **fields: Any) -> ledger.Claim:
    """The one claim of a file with these rules, by the records in `folder`."""
    (claim,) = ledger.claims(write(folder, PLAIN | {"rules": list(rules)} | fields), folder / "results")
    return claim


# --- the shipped file --------------------------------------------------------------------------------------


def test_every_claim_has_a_verdict_from_the_list_and_says_why_it_was_not_run() -> None:
    for claim in ledger.claims():
        assert claim.verdict in ledger.VERDICTS
        assert bool(claim.why) == (claim.verdict == "not run")
        assert set(claim.records) <= set(ledger.list_plans())


def test_every_number_that_the_paper_claims_has_a_row() -> None:
    values = {claim.value for claim in ledger.claims()}
    numbers = "66.39 69.09 63.25 68.84 71.64 96.08 80.57 63.72 69.00 64.79 67.05 67.96"
    assert values == {f"{number} %" for number in numbers.split()} | {"", "+5.59 points"}


def test_what_can_be_tested_here_is_decided_by_records() -> None:
    rows = yaml.safe_load((path() / "claims.yaml").read_text(encoding="utf-8"))
    tested = [row["claim"] for row in rows if "rules" in row]
    words = ("multiplication-free", "token block light", "crucial", "patch encoding lifts")
    assert all(any(word in claim for claim in tested) for word in words)


def test_counts_are_of_all_claims() -> None:
    counts = ledger.verdict_counts()
    assert tuple(counts) == ledger.VERDICTS
    assert sum(counts.values()) == len(ledger.claims())


def test_reading_needs_nothing_of_the_extra_for_training() -> None:
    program = (
        "import sys; "
        "extra = ('lightning_fabric', 'timm', 'torchvision', 'sklearn'); "
        "sys.modules.update(dict.fromkeys(extra)); "
        "from snnmlp_edu import ledger; print(sum(ledger.verdict_counts().values()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) == len(ledger.claims())


def test_the_command_prints_all() -> None:
    code, out, err = call("ledger", "claims", "--json")
    assert (code, err) == (0, "")
    assert [row["claim"] for row in json.loads(out)] == [claim.claim for claim in ledger.claims()]
    code, out, _ = call("ledger", "claims")
    assert code == 0
    assert "66.39 %" in out
    assert ", ".join(f"{verdict}: {n}" for verdict, n in ledger.verdict_counts().items()) in out


# --- rules -------------------------------------------------------------------------------------------------


def test_a_difference_that_the_seeds_agree_on_reproduces_a_claim(tmp_path: Path) -> None:
    write_records(
        tmp_path / "results", "patch_encoding", {"spiking": [800, 810, 820], "conv": [700, 711, 720]}
    )
    claim = judged(tmp_path, HIGHER, note="n\n  n")
    assert (claim.verdict, claim.why, claim.note) == ("reproduced at small scale", "", "n n")
    assert claim.evidence[0].startswith("spiking has a test accuracy 9.97 points higher than conv")
    assert claim.records == ("patch_encoding",)
    assert claim.because == f"{claim.evidence[0].replace('spiking', 'Spiking', 1)}. N n."
    assert claim.judged_by == "By the runs of the plan patch_encoding. N n."
    assert judged(tmp_path, HIGHER, holds="reproduced").verdict == "reproduced"


@pytest.mark.parametrize(
    ("conv", "verdict"),
    [
        ([900, 911, 920], "not reproduced"),
        ([805, 800, 825], "inconclusive"),
        ([700, 700, 830], "inconclusive"),
    ],
    ids=["lower", "not separated", "three runs alone"],
)
def test_any_other_difference_does_not(tmp_path: Path, conv: list[int], verdict: str) -> None:
    write_records(tmp_path / "results", "patch_encoding", {"spiking": [800, 810, 820], "conv": conv})
    claim = judged(tmp_path, HIGHER)
    assert (claim.verdict, claim.why) == (verdict, "")
    assert claim.evidence


def test_one_rule_that_fails_outweighs_one_that_is_open(tmp_path: Path) -> None:
    write_records(
        tmp_path / "results", "patch_encoding", {"spiking": [800, 810, 820], "conv": [805, 800, 825]}
    )
    audit = {"plan": "patch_encoding", "multiplies": ["conv"]}
    assert judged(tmp_path, HIGHER).verdict == "inconclusive"
    assert judged(tmp_path, HIGHER, audit).verdict == "not reproduced"
    audit = {"plan": "patch_encoding", "multiplication_free": ["conv"]}
    assert judged(tmp_path, HIGHER, audit).verdict == "inconclusive"


def test_a_claim_waits_for_all_its_runs(tmp_path: Path) -> None:
    write_records(tmp_path / "results", "patch_encoding", {"spiking": [800, 810, 820], "conv": [700, 711]})
    claim = judged(tmp_path, HIGHER)
    assert claim.verdict == "not run"
    assert claim.why == "not to its end: 5 of the 6 runs of the plan patch_encoding are in"
    assert str(claim) == f"it works: not run ({claim.why})"
    assert claim.because == claim.judged_by == f"N{claim.why[1:]}."


def test_the_audit_decides_what_multiplies(tmp_path: Path) -> None:
    rule = {"plan": "patch_encoding", "multiplication_free": "spiking", "multiplies": ["conv"]}
    results = tmp_path / "results"
    write_records(results, "patch_encoding", {"spiking": [800, 810, 820]})
    write_records(results, "patch_encoding", {"conv": [1, 2, 3]}, multiplication_free=False)
    claim = judged(tmp_path, rule)
    assert claim.verdict == "reproduced at small scale"
    (sentence,) = claim.evidence
    assert sentence == ("patch_encoding: multiplication-free by the audit: spiking; not: conv")
    late = {"multiplication_free": True, "finished": "2027"}
    write_records(results, "patch_encoding", {"conv": [1]}, **late)
    assert judged(tmp_path, rule).verdict == "not reproduced", "one of three is enough"


def test_a_rule_may_compare_any_number_of_a_record(tmp_path: Path) -> None:
    rule = HIGHER | {"is": "lower", "measure": "operations.accumulates"}
    results = tmp_path / "results"
    write_records(results, "patch_encoding", {"spiking": [1, 1, 1]}, operations={"accumulates": 5.0})
    write_records(results, "patch_encoding", {"conv": [1, 1, 1]}, operations={"accumulates": 6.0})
    assert judged(tmp_path, rule).verdict == "reproduced at small scale"


# --- claims that are wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("words", "claim 1 is 'words'"),
        (PLAIN | {"verdict": "reproducd"}, "; did you mean 'reproduced'"),
        (PLAIN, "needs either rules, by which records decide, or a verdict"),
        (PLAIN | {"verdict": "reproduced", "rules": [HIGHER]}, "needs either rules"),
        (PLAIN | {"verdict": "not run"}, "a claim that was not run needs 'why'"),
        (PLAIN | {"verdict": "reproduced", "why": "so"}, "no other claim may have it"),
        (PLAIN | {"verdict": "reproduced", "recrods": []}, "no field 'recrods'; did you mean 'records'"),
        ({"claim": "a", "how": "b", "verdict": "reproduced"}, "lacks source"),
        (PLAIN | {"verdict": "reproduced", "records": ["skp"]}, "there is no plan 'skp'"),
        (PLAIN | {"rules": ["skip"]}, "a rule is 'skip'"),
        (PLAIN | {"rules": [HIGHER | {"plan": "skp"}]}, "there is no plan 'skp'"),
        (PLAIN | {"rules": [HIGHER | {"than": "con"}]}, "no variant 'con'; did you mean 'conv'"),
        (PLAIN | {"rules": [HIGHER | {"is": "better"}]}, "'is: higher' or 'is: lower'"),
        (PLAIN | {"rules": [{"plan": "skip"}]}, "'is: higher' or 'is: lower'"),
        (PLAIN | {"rules": [HIGHER | {"thn": "conv"}]}, "no field 'thn'; did you mean 'than'"),
    ],
)
def test_a_claim_that_is_wrong_says_how_to_mend_it(tmp_path: Path, row: Any, message: str) -> None:
    with pytest.raises(InputError) as error:
        ledger.claims(write(tmp_path, row), tmp_path)
    assert message in str(error.value)


@pytest.mark.parametrize(("text", "message"), [("a: [", "is not valid YAML"), ("a: b", "holds no claims")])
def test_a_file_without_claims(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "claims.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        ledger.claims(tmp_path / "claims.yaml")


def test_an_edited_record_decides_nothing(tmp_path: Path) -> None:
    results = tmp_path / "results"
    write_records(results, "patch_encoding", {"spiking": [800]})
    file = results / "patch_encoding.jsonl"
    file.write_text(file.read_text().replace('"test_accuracy": 0.8', '"test_accuracy": 0.9'))
    assert_wrong_usage(call("ledger", "claims", "--results", results), "line 1 was changed by hand")
