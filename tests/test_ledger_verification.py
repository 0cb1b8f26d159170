"""`snnmlp ledger verify`: what agrees, and everything that may not."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from recorded import record
from test_cli import assert_wrong_usage, call

from snnmlp_edu import data
from snnmlp_edu.checkpoints import hash_tensors, list_pretrained, load_checkpoint, save_checkpoint
from snnmlp_edu.data import digits, files
from snnmlp_edu.ledger.store import append

CORRECT = 876  # of the shipped network; its model card says so
WEIGHTS = hash_tensors(load_checkpoint("mlp_spe_nano").model.state_dict())

pytestmark = pytest.mark.usefixtures("tested_once")


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the shipped data to change, with one network, and with an empty folder of records."""
    folder = tmp_path / "shipped"
    source = data.path()
    for name in ("checkpoints", "fashion_mnist", "photographs"):
        shutil.copytree(source / name, folder / name)
    listed = json.loads((source / "manifest.json").read_text(encoding="utf-8"))
    for name in set(list_pretrained()) - {"mlp_spe_nano"}:
        del listed["files"][f"checkpoints/{name}.safetensors"]
    (folder / "manifest.json").write_text(json.dumps(listed), encoding="utf-8")
    (folder / "results").mkdir()
    monkeypatch.setattr(files, "path", lambda: folder)
    return folder


def ship(folder: Path, name: str, class_names: tuple[str, ...] | None = None, **recipe: Any) -> None:
    """The shipped network under another name, as if it had been trained on other data."""
    trained = load_checkpoint("mlp_spe_nano")
    save_checkpoint(
        folder / "checkpoints" / f"{name}.safetensors",
        trained.model,
        trained.preprocessing,
        class_names=class_names or trained.class_names,
        preset=trained.preset,
        metrics=trained.metrics,
        recipe={**trained.recipe, **recipe},
    )
    files.record_in_manifest(folder, [f"checkpoints/{name}.safetensors"])


def verify(folder: Path, *words: str | Path) -> tuple[int, dict[str, Any], str]:
    """Exit code, what is said of each checkpoint, and standard error."""
    code, out, err = call("ledger", "verify", "--json", "--results", folder / "results", *words)
    return code, {row["name"]: row for row in json.loads(out)} if out else {}, err


def recorded(folder: Path, correct: int, **changes: Any) -> None:
    append(
        folder / "results" / "skip.jsonl",
        record("skip", "stage", 0, correct, tensors_sha256=WEIGHTS, **changes),
    )


def test_only_the_networks_that_were_named(shipped: Path) -> None:
    ship(shipped, "other")
    assert list(verify(shipped)[1]) == ["records", "mlp_spe_nano", "other"]
    assert list(verify(shipped, "other")[1]) == ["records", "other"]
    answer = call("ledger", "verify", "mlp_spe_nan")
    assert_wrong_usage(answer, r"no pretrained 'mlp_spe_nan'; did you mean 'mlp_spe_nano'")


def test_digits_are_tested_where_scikit_learn_is(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("ledger", "verify", "mlp_spe_nano_digits")
    folder = data.path() / "fashion_mnist"  # of another data set, which is none of its business
    assert "97.83 % (586 of 599) on its own test images" in call(*words, "--data-dir", folder)[1]
    digits._read.cache_clear()
    monkeypatch.setitem(sys.modules, "sklearn", None)
    code, out, _ = call(*words)
    assert code == 0
    assert "its test images are not here, so it was not tested" in out


def test_what_is_shipped_agrees() -> None:
    code, out, err = call("ledger", "verify")
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == ["agrees"] * (1 + len(list_pretrained()))
    assert f"agrees  mlp_spe_nano: SHA-256 matches; 87.60 % ({CORRECT} of 1000) on its own test images" in out


def test_weights_that_no_record_has_are_compared_with_their_own_metrics(shipped: Path) -> None:
    code, found, _ = verify(shipped)
    assert code == 0
    assert found["records"]["remark"] == "every line of 0 matches its SHA-256"
    assert found["mlp_spe_nano"]["correct"] == CORRECT
    assert found["mlp_spe_nano"]["remark"].endswith("as in what training wrote into it; no record has it")


def test_weights_are_compared_with_their_record_to_the_image(shipped: Path) -> None:
    recorded(shipped, CORRECT)
    code, found, _ = verify(shipped)
    assert code == 0
    assert found["mlp_spe_nano"]["remark"].endswith("skip.jsonl, line 1")
    recorded(shipped, CORRECT - 1, finished="2027")
    code, found, _ = verify(shipped)
    assert code == 1
    assert not found["mlp_spe_nano"]["agrees"]
    assert (
        f"({CORRECT} of 1000) on its own test images, and {CORRECT - 1} in" in found["mlp_spe_nano"]["remark"]
    )


def test_a_checkpoint_that_was_changed_differs(shipped: Path) -> None:
    file = shipped / "checkpoints" / "mlp_spe_nano.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    code, found, _ = verify(shipped)
    assert code == 1
    assert "has SHA-256" in found["mlp_spe_nano"]["remark"]
    code, out, _ = call("ledger", "verify", "--results", shipped / "results")
    assert code == 1
    assert "DIFFERS mlp_spe_nano: " in out


def test_a_record_that_was_changed_differs(shipped: Path) -> None:
    recorded(shipped, CORRECT)
    file = shipped / "results" / "skip.jsonl"
    file.write_text(file.read_text().replace(f'"test_correct": {CORRECT}', '"test_correct": 999'))
    code, found, _ = verify(shipped)
    assert code == 1
    assert "skip.jsonl, line 1 was changed by hand" in found["records"]["remark"]
    assert found["mlp_spe_nano"]["agrees"], "the network itself is as it was"


def test_without_the_full_data_set_the_embedded_images_take_its_place(shipped: Path) -> None:
    ship(shipped, "full", dataset="fashion_mnist", data_dir="nowhere")
    code, found, _ = verify(shipped)
    assert code == 0
    remark = found["full"]["remark"]
    assert "on the embedded test images, because its own are not here (give --data-dir)" in remark
    assert remark.endswith("there is nothing to compare it with")
    recorded(shipped, 9123, test_total=10_000, embedded_correct=CORRECT)
    assert verify(shipped)[1]["full"]["remark"].endswith("skip.jsonl, line 1")
    recorded(shipped, 9123, test_total=10_000, embedded_correct=CORRECT + 1, finished="2027")
    assert verify(shipped)[0] == 1


def test_with_the_full_data_set_its_own_images_count(shipped: Path) -> None:
    ship(shipped, "full", dataset="fashion_mnist", data_dir="nowhere")
    code, found, _ = verify(shipped, "--data-dir", shipped / "fashion_mnist")  # four idx files, as there
    assert code == 0
    assert f"({CORRECT} of 1000) on its own test images" in found["full"]["remark"]


def test_a_data_set_that_is_not_there_is_wrong_usage(shipped: Path, tmp_path: Path) -> None:
    ship(shipped, "full", dataset="fashion_mnist")
    empty = tmp_path / "empty"
    empty.mkdir()
    answer = call("ledger", "verify", "--results", shipped / "results", "--data-dir", empty)
    assert_wrong_usage(answer, "must hold one idx file of test images")


def test_images_of_other_classes_that_are_absent_leave_the_hash(shipped: Path) -> None:
    ship(shipped, "other", class_names=tuple("abcdefghij"), dataset="idx", data_dir="nowhere")
    code, found, _ = verify(shipped)
    assert code == 0
    assert found["other"]["correct"] is None
    assert found["other"]["remark"] == "SHA-256 matches; its test images are not here, so it was not tested"
