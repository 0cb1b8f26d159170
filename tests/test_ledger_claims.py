"""The claims: the shipped file follows its schema, and records decide where rules say so."""

from __future__ import annotations

import dataclasses
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from recorded import write_records
from test_cli import assert_wrong_usage, call

from snnmlp_edu import ledger
from snnmlp_edu.data import path
from snnmlp_edu.errors import InputError
from snnmlp_edu.ledger import reproduction, tables
from snnmlp_edu.ledger.plots import GROUPS, on_board, plot_board

PLAIN = {"claim": "it works", "source": "arXiv 2306.12465", "strength": "experiment", "how": "by looking"}
TYPED = PLAIN | {"scale": "small"}
HIGHER = {"plan": "patch_encoding", "variant": "spiking", "is": "higher", "than": "conv"}


@cache
def shipped() -> tuple[ledger.Claim, ...]:
    """The shipped claims: intervals take a while."""
    return tuple(ledger.claims())


def write(folder: Path, *rows: Any) -> Path:
    file = folder / "claims.yaml"
    file.write_text(yaml.safe_dump(list(rows)))
    return file


def with_test(*rules: Any, scale: str = "small") -> dict[str, Any]:
    """The field of a claim that has one test."""
    return {"tests": [{"scale": scale, "rules": list(rules)}]}


def judged(folder: Path, *rules: Any, **fields: Any) -> ledger.Claim:
    """The one claim of a file with these rules, by the records in `folder`."""
    (claim,) = ledger.claims(write(folder, PLAIN | with_test(*rules) | fields), folder / "results")
    return claim


# --- the shipped file --------------------------------------------------------------------------------------


def test_every_claim_has_a_verdict_from_the_list_and_says_why_it_was_not_run() -> None:
    for claim in shipped():
        assert claim.verdict in ledger.VERDICTS
        assert bool(claim.why) == (claim.verdict == "not run")
        assert set(claim.records) <= set(ledger.list_plans())


def test_every_number_that_the_paper_claims_has_a_row() -> None:
    values = {claim.value for claim in shipped()}
    numbers = "66.39 69.09 63.25 68.84 71.64 96.08 80.57"
    effects = {"+5.59 points", "+2.70 points", "+2.67 points", "4 times", ""}
    assert values == {f"{number} %" for number in numbers.split()} | effects


def test_the_rivals_numbers_are_those_of_the_paper_and_no_claims() -> None:
    values = [rival.value for rival in ledger.rivals()]
    assert values == ["63.72 %", "69.00 %", "64.79 %", "67.05 %", "67.96 %"]
    assert not set(values) & {claim.value for claim in shipped()}


def test_differences_that_the_paper_names_are_those_of_its_numbers() -> None:
    number = {claim.claim: claim.value for claim in shipped()}
    assert number["The spiking patch encoding lifts accuracy"] == f"+{68.84 - 63.25:.2f} points"
    assert number["More time steps lift accuracy, T = 6 above T = 4"] == f"+{69.09 - 66.39:.2f} points"
    ours = "At equal size it is more accurate than a spiking ResNet and a spiking VGG"
    assert number[ours] == f"+{66.39 - 63.72:.2f} points"


def test_what_can_be_tested_here_is_decided_by_records_or_counts() -> None:
    rows = yaml.safe_load((path() / "claims.yaml").read_text(encoding="utf-8"))
    tested = {row["claim"]: row["strength"] for row in rows if "tests" in row}
    for words, strength in {
        "mixer multiplication-free": "proof",
        "So is the released network": "proof",
        "token block light": "arithmetic",
        "computes much less": "arithmetic",
        "model capacity similar": "arithmetic",
        "curtails": "arithmetic",
        "4 times smaller": "arithmetic",
        "crucial": "experiment",
        "patch encoding lifts": "experiment",
        "More time steps": "experiment",
        "Pre-training helps": "experiment",
        "Global learning": "experiment",
    }.items():
        assert [s for claim, s in tested.items() if words in claim] == [strength], words


def test_the_proven_and_the_counted_claims_have_the_verdicts_that_follow() -> None:
    verdicts = {claim.claim: claim.verdict for claim in shipped()}

    def verdict(words: str) -> str:
        (found,) = [verdict for claim, verdict in verdicts.items() if words in claim]
        return found

    assert verdict("mixer multiplication-free") == "reproduced"
    assert verdict("So is the released network") == "not reproduced"
    # 25,223,796 / 21,797,672 = 1.16; 138,357,544 / 37,983,144 = 3.64; additions: 1.98e9 and 2.01e9.
    assert verdict("model capacity similar") == "reproduced"
    assert verdict("curtails") == "not reproduced"
    assert verdict("4 times smaller") == "reproduced"
    assert verdict("computes much less") == "inconclusive", "the rates of its networks are not known"


def test_the_board_has_every_claim_in_the_column_of_its_verdict() -> None:
    assert {claim.chapter for claim in shipped()} == set(GROUPS)
    (ax,) = plot_board(shipped(), max(GROUPS)).axes
    written = {text.get_position()[1]: text.get_text() for text in ax.texts}
    marks = {str(line.get_gid()): np.asarray(line.get_xydata())[0] for line in ax.lines if line.get_gid()}
    assert list(marks) == [f"claim {n}" for n in range(1, len(shipped()) + 1)]
    for (column, row), claim in zip(marks.values(), on_board(shipped()), strict=True):
        assert (ledger.VERDICTS[int(column)], written[row]) == (claim.verdict, claim.short)


@pytest.mark.parametrize("chapter", [0, 16])
def test_a_claim_of_no_group_is_refused_and_not_left_out(chapter: int) -> None:
    claim = dataclasses.replace(shipped()[0], short="A new one", chapter=chapter)
    with pytest.raises(InputError, match=f"'A new one' is {chapter}, .* name one of these"):
        plot_board([*shipped(), claim], 15)


def test_the_board_tells_nothing_of_later_chapters() -> None:
    (ax,) = plot_board(shipped(), 12).axes
    known = [claim for claim in shipped() if claim.chapter <= 12]
    assert sum(line.get_gid() is not None for line in ax.lines) == len(known)
    later = sum(claim.chapter == 15 for claim in shipped())
    assert f"{later} claims to come" in {text.get_text() for text in ax.texts}


def test_counts_are_of_all_claims() -> None:
    counts = ledger.verdict_counts()
    assert tuple(counts) == ledger.VERDICTS
    assert sum(counts.values()) == len(shipped())


def test_the_command_prints_all() -> None:
    code, out, err = call("ledger", "claims", "--json")
    assert (code, err) == (0, "")
    assert [row["claim"] for row in json.loads(out)["claims"]] == [claim.claim for claim in shipped()]
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
    assert claim.evidence[0].startswith("conv has a test accuracy 9.97 points lower than spiking")
    (row,) = tables.table("patch_encoding", tmp_path / "results").comparisons or ()
    assert claim.evidence[0] == str(row), "the interval is that of the plan's table"
    ends = f"[{-100 * row.high:+.2f}, {-100 * row.low:+.2f}]"  # the claim calls spiking the higher one
    assert claim.here == f"spiking minus conv: +9.97 points {ends}; 3 seeds, 1,000 images"
    assert claim.records == ("patch_encoding",)
    assert claim.because == f"{claim.evidence[0].replace('conv', 'Conv', 1)}. N n."
    assert judged(tmp_path, HIGHER, strength="proof").verdict == "reproduced"
    assert judged(tmp_path, **with_test(HIGHER, scale="CIFAR-10")).verdict == "reproduced at small scale"
    assert judged(tmp_path, **with_test(HIGHER, scale="paper's")).verdict == "reproduced"


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
    *words, points = claim.here.split()[:4]
    assert words == ["spiking", "minus", "conv:"]
    assert float(points) == pytest.approx(81 - sum(conv) / 30, abs=0.005)
    assert ("(too few seeds)" in claim.here) == (conv == [700, 700, 830])


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
    assert claim.because == f"N{claim.why[1:]}."


def test_the_first_test_whose_runs_are_in_decides(tmp_path: Path) -> None:
    larger = {"plan": "cifar10_patch_encoding", "variant": "spiking", "is": "higher", "than": "conv"}
    both = [{"scale": "CIFAR-10", "rules": [larger]}, {"scale": "small", "rules": [HIGHER]}]
    results = tmp_path / "results"
    results.mkdir()
    claim = judged(tmp_path, tests=both)
    assert (claim.verdict, claim.scale) == ("not run", "CIFAR-10")
    assert "0 of the 32 runs of the plan cifar10_patch_encoding" in claim.why
    assert "0 of the 6 runs of the plan patch_encoding" in claim.why
    write_records(results, "patch_encoding", {"spiking": [800, 810, 820], "conv": [700, 711, 720]})
    claim = judged(tmp_path, tests=both)
    assert (claim.verdict, claim.scale) == ("reproduced at small scale", "small")
    assert claim.missing == ("0 of the 32 runs of the plan cifar10_patch_encoding are in",)
    assert claim.grounds.endswith(claim.missing[0])
    assert claim.missing[0] not in claim.here
    eight = {"spiking": [700 + i % 3 for i in range(8)], "conv": [800 + i % 3 for i in range(8)]}
    write_records(results, "cifar10_patch_encoding", eight)
    claim = judged(tmp_path, tests=both)
    assert (claim.verdict, claim.scale) == ("not reproduced", "CIFAR-10")
    assert claim.records == ("cifar10_patch_encoding", "patch_encoding")


@pytest.mark.parametrize(
    ("conv", "within", "verdict"),
    [
        ([809, 810, 811, 812, 811], 0.08, "reproduced at small scale"),
        ([809, 810, 811, 812, 811], 0.001, "inconclusive"),
        ([609, 610, 611, 612, 611], 0.05, "not reproduced"),
    ],
    ids=["inside", "intervals too wide", "outside"],
)
def test_a_claim_of_no_difference_needs_the_whole_interval_inside(
    tmp_path: Path, conv: list[int], within: float, verdict: str
) -> None:
    values = {"spiking": [810, 809, 811, 812, 811, 810, 810, 810], "conv": [*conv, *conv[:3]]}
    write_records(tmp_path / "results", "cifar10_patch_encoding", values)
    rule = {"plan": "cifar10_patch_encoding", "variant": "spiking", "is": "equal", "than": "conv"}
    assert judged(tmp_path, rule | {"within": within}).verdict == verdict


def test_counts_decide_by_their_ratio(tmp_path: Path) -> None:
    rule = {"count": "parameters", "of": "spiking_vgg16", "times": "mlp_spe_s"}
    claim = judged(tmp_path, rule | {"between": [3.6, 3.7]}, strength="arithmetic")
    assert claim.verdict == "reproduced"
    assert claim.evidence == ("spiking_vgg16 has 3.64 times the parameters of mlp_spe_s",)
    assert claim.here == "3.64 times the parameters"
    assert judged(tmp_path, rule | {"between": [3.7, 4.3]}).verdict == "not reproduced"


def test_stored_audits_decide_by_all_their_networks(tmp_path: Path) -> None:
    passes = judged(tmp_path, {"audited_at_224": "mlp_spe_t"}, strength="proof")
    assert passes.verdict == "reproduced"
    assert passes.evidence == (
        "the audit finds no multiplication in the 6,035 operations of mlp_spe_t at 224 px",
    )
    assert passes.here == "0 of 6,035 operations multiply outside the stem"
    both = judged(tmp_path, {"audited_at_224": ["mlp_spe_t", "released_mlp_spe_t"]})
    assert both.verdict == "not reproduced"
    assert both.here == "26 of 12,824 operations of 2 networks multiply outside the stem"  # 6,035 + 6,789
    assert both.evidence[1].endswith("the audit refuses 26"), "a norm over tokens in each of 26 blocks"


def test_the_audit_decides_what_multiplies(tmp_path: Path) -> None:
    rule = {"plan": "patch_encoding", "multiplication_free": "spiking", "multiplies": ["conv"]}
    results = tmp_path / "results"
    write_records(results, "patch_encoding", {"spiking": [800, 810, 820]})
    write_records(results, "patch_encoding", {"conv": [1, 2, 3]}, multiplication_free=False)
    claim = judged(tmp_path, rule)
    assert claim.verdict == "reproduced at small scale"
    (sentence,) = claim.evidence
    assert sentence == ("patch_encoding: multiplication-free by the audit: spiking; not: conv")
    assert claim.here == "runs of patch_encoding that multiply: spiking 0 of 3, conv 3 of 3"
    late = {"multiplication_free": True, "finished": "2027"}
    write_records(results, "patch_encoding", {"conv": [1]}, **late)
    claim = judged(tmp_path, rule)
    assert claim.verdict == "not reproduced", "one of three is enough"
    assert claim.here.endswith("conv 2 of 3")


def test_a_rule_may_compare_any_number_of_a_record(tmp_path: Path) -> None:
    rule = HIGHER | {"is": "lower", "measure": "operations.accumulates"}
    results = tmp_path / "results"
    write_records(results, "patch_encoding", {"spiking": [1, 1, 1]}, operations={"accumulates": 5.0})
    write_records(results, "patch_encoding", {"conv": [1, 1, 1]}, operations={"accumulates": 6.0})
    claim = judged(tmp_path, rule)
    assert claim.verdict == "reproduced at small scale"
    assert claim.here == "conv minus spiking: +1.00 additions in every run; 3 seeds"


def test_seeds_and_images_are_named_once_for_all_numbers_from_them(tmp_path: Path) -> None:
    values = {"stage": [810, 812, 811], "none": [400, 402, 401], "spike_bn": [500, 502, 501]}
    write_records(tmp_path / "results", "skip", values)
    rule = {"plan": "skip", "variant": "stage", "is": "higher", "than": ["none", "spike_bn"]}
    here = judged(tmp_path, rule).here
    first, second, source = here.split("; ")
    assert first.startswith("stage minus none: +41.00 points [")
    assert second.startswith("stage minus spike_bn: +31.00 points [")
    assert source.startswith("3 seeds, ")


# --- tables and the report ---------------------------------------------------------------------------------


def test_the_table_is_put_between_its_marks(tmp_path: Path) -> None:
    readme, results = tmp_path / "README.md", tmp_path / "results"
    write_records(results, "patch_encoding", {"spiking": [800, 810, 820], "conv": [700, 711, 720]})
    readme.write_text(f"before\n{tables.START}\nold\n{tables.END}\nafter\n{tables.END}\n")
    code, _, err = call("ledger", "claims", "--into", readme, "--results", results)
    assert (code, err) == (0, "")
    table = tables.claims_markdown(ledger.claims(results=results))
    row = "The spiking patch encoding lifts accuracy | +5.59 points | spiking minus conv: +9.97 points ["
    (found,) = [line for line in table.splitlines() if row in line]
    assert found.endswith(" images | **reproduced at small scale** | small | experiment |")
    assert "MLP-SPE-T, 25 M parameters" in table.partition("\n\nNot run: ")[2]
    expected = f"before\n{tables.START}\n\n{table}\n\n{tables.END}\nafter\n{tables.END}\n"
    assert readme.read_text() == expected
    call("ledger", "claims", "--into", readme, "--results", results)
    assert readme.read_text() == expected


def test_a_file_without_marks_is_left_alone(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("nothing here")
    answer = call("ledger", "claims", "--into", readme, "--results", tmp_path)
    assert_wrong_usage(answer, "has no place for the table")
    assert readme.read_text() == "nothing here"


def test_the_report_says_what_the_records_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = tmp_path / "results"
    write_records(results, "patch_encoding", {"spiking": [800, 810, 820], "conv": [700, 711]})
    text = reproduction.report(results)
    assert "5 runs, 0.1 hours" in text  # 5 x 60 s
    assert "| `patch_encoding` | 5 of the 6 runs are in |" in text
    assert "conv` -10.45" not in text, "the plan is not complete"
    whole = tmp_path / "whole"
    write_records(whole, "patch_encoding", {"spiking": [800, 810, 820], "conv": [700, 711, 720]})
    assert "conv` -9.97" in reproduction.report(whole)
    assert all(rival.value in text for rival in ledger.rivals())
    reports = {results: text}  # the command need not make it once more
    monkeypatch.setattr(reproduction, "report", reports.__getitem__)
    file = tmp_path / "REPRODUCTION.md"
    code, _, _ = call("ledger", "report", "--into", file, "--results", results)
    assert (code, file.read_text()) == (0, text)
    assert call("ledger", "report", "--results", results)[1] == text


# --- claims that are wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("words", "claim 1 is 'words'"),
        (TYPED | {"verdict": "reproducd"}, "; did you mean 'reproduced'"),
        (TYPED | {"verdict": "reproduced", "scale": "smal"}, "; did you mean 'small'"),
        (TYPED | {"verdict": "reproduced", "strength": "prof"}, "; did you mean 'proof'"),
        (TYPED | {"verdict": "reproduced", "chapter": "last"}, "the chapter is 'last'"),
        (PLAIN, "needs either tests, by which records decide, or a verdict"),
        (TYPED | {"verdict": "reproduced"} | with_test(HIGHER), "needs either tests"),
        (TYPED | {"verdict": "not run"}, "a claim that was not run needs 'why'"),
        (TYPED | {"verdict": "reproduced", "why": "so"}, "no other claim may have it"),
        (TYPED | {"verdict": "reproduced", "recrods": []}, "no field 'recrods'; did you mean 'records'"),
        ({"claim": "a", "how": "b", "verdict": "reproduced"}, "lacks source"),
        (TYPED | {"verdict": "reproduced", "records": ["skp"]}, "there is no plan 'skp'"),
        (PLAIN | {"tests": [{"scale": "small"}]}, "a test is {'scale': 'small'}"),
        (PLAIN | with_test("skip"), "a rule is 'skip'"),
        (PLAIN | with_test(HIGHER, scale="smal"), "; did you mean 'small'"),
        (PLAIN | with_test(HIGHER | {"plan": "skp"}), "there is no plan 'skp'"),
        (PLAIN | with_test(HIGHER | {"than": "con"}), "no variant 'con'; did you mean 'conv'"),
        (PLAIN | with_test(HIGHER | {"is": "better"}), "'is: higher' or 'is: lower'"),
        (PLAIN | with_test(HIGHER | {"is": "equal"}), "'is: equal' and 'within'"),
        (PLAIN | with_test(HIGHER | {"within": 0.1}), "'is: equal' and 'within'"),
        (PLAIN | with_test({"plan": "skip"}), "'is: higher' or 'is: lower'"),
        (PLAIN | with_test(HIGHER | {"thn": "conv"}), "no field 'thn'; did you mean 'than'"),
        (PLAIN | with_test({"count": "parameters", "of": "vgg"}), "'between: [low, high]'"),
        (PLAIN | with_test({"count": "synaptic_operations", "between": [0, 1]}), "of parameters also"),
        (PLAIN | with_test({"audited_at_224": "vgg"}), "audited_at_224 is 'vgg'"),
        (PLAIN | with_test({"count": "parameters", "of": "vgg", "between": [0, 1]}), "of is 'vgg'"),
    ],
)
def test_a_claim_that_is_wrong_says_how_to_mend_it(tmp_path: Path, row: Any, message: str) -> None:
    with pytest.raises(InputError) as error:
        ledger.claims(write(tmp_path, row), tmp_path)
    assert message in str(error.value)


def test_a_rival_without_a_source(tmp_path: Path) -> None:
    file = tmp_path / "rivals.yaml"
    file.write_text(yaml.safe_dump([{"network": "a"}]))
    with pytest.raises(InputError, match="rival 1 lacks source"):
        ledger.rivals(file)


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
