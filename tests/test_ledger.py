"""A whole small plan: it is trained once, goes on where it was cut, and its records cannot be forged."""

from __future__ import annotations

import base64
import dataclasses
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from image_sets import cifar_files, write_cifar, write_image_folder
from test_cli import assert_wrong_usage, call
from variants import WITHOUT_EFFECT

from snnmlp_edu import ledger, provenance
from snnmlp_edu.checkpoints import hash_tensors, load_checkpoint, save_checkpoint
from snnmlp_edu.config import NetworkConfig
from snnmlp_edu.data import load_embedded
from snnmlp_edu.data.datasets import dataset_sha256
from snnmlp_edu.errors import InputError
from snnmlp_edu.ledger import measurement, repeating, running, store
from snnmlp_edu.ledger.plans import load_plan, recipe_sha256
from snnmlp_edu.training import Recipe, fit, load_recipe, loop

RECIPE: dict[str, Any] = {
    "source": "ours",
    "epochs": 2,
    "learning_rate": 0.01,
    "max_steps": 2,
    "batch_size": 100,
    "model": {
        "dim": 6,
        "depths": [1, 1],
        "patch_size": 8,
        "time_steps": 2,
        "neuron": {"backend": "eager"},  # nothing to compile
    },
}
STEPS = (1, 2)  # to evaluate with; the ledger's own are more, and take longer
PLAN: dict[str, Any] = {
    "question": "Does it run?",
    "recipe": "quick.yaml",
    "base": "axial",
    "seeds": [0, 1],
    "variants": {"axial": {}, "full": {"token_mixing": "full"}},
}


def write(folder: Path, name: str = "tiny", **changes: Any) -> Path:
    """A plan and its recipe as files; a field that is None is left out."""
    (folder / "quick.yaml").write_text(yaml.safe_dump(RECIPE))
    values = {field: value for field, value in (PLAN | changes).items() if value is not None}
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(values, sort_keys=False))
    return file


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a plan, its runs and its records."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("ledger")
    results, output = folder / "results", folder / "runs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measurement, "STEPS", STEPS)
        new = list(running.run_plan(write(folder), results=results, output=output, announce=str))
    assert [(record.variant, record.seed) for record in new] == [
        ("axial", 0),
        ("full", 0),
        ("axial", 1),
        ("full", 1),
    ]
    return folder


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurement, "STEPS", STEPS)


@pytest.fixture
def copied(done: Path, tmp_path: Path) -> Path:
    """A copy of it to change."""
    return Path(shutil.copytree(done, tmp_path / "copy"))


def run(folder: Path, plan: str = "tiny", *words: str) -> tuple[int, str, str]:
    where = ("--results", folder / "results", "--output", folder / "runs")
    return call("ledger", "run", folder / f"{plan}.yaml", *where, *words)


# --- what a record holds ---------------------------------------------------------------------------------


def test_records_come_in_the_order_of_the_plan(done: Path) -> None:
    records = ledger.read_records(done / "tiny.yaml", done / "results")
    assert [(r.variant, r.seed) for r in records] == [("axial", 0), ("axial", 1), ("full", 0), ("full", 1)]
    assert str(ledger.progress(done / "tiny.yaml", done / "results")) == "all 4 runs of the plan tiny are in"


def test_a_record_says_what_was_trained_where_and_what_came_out(done: Path) -> None:
    _, _, record, _ = ledger.read_records(done / "tiny.yaml", done / "results")
    checkpoint = load_checkpoint(done / "runs" / "tiny" / "full-0" / "quick-0-1" / "checkpoint.safetensors")
    assert (record.plan, record.variant, record.seed) == ("tiny", "full", 0)
    assert record.network == "SpikingMLP"
    assert NetworkConfig.from_dict(record.config) == checkpoint.model.config
    assert record.overrides == RECIPE["model"] | {"token_mixing": "full"}
    assert record.recipe_fields == {
        "epochs": 2,
        "learning_rate": 0.01,
        "max_steps": 2,
        "batch_size": 100,
    }
    assert record.dataset == "embedded"
    assert record.splits == {"train": 5400, "validation": 600, "test": 1000}
    assert record.device == "cpu" or torch.cuda.is_available()
    assert record.threads == 1
    assert record.versions["torch"] == torch.__version__.partition("+")[0]
    assert record.tensors_sha256 == hash_tensors(checkpoint.model.state_dict())
    assert record.test_correct == checkpoint.metrics["test_correct"]
    assert record.test_accuracy == record.test_correct / 1000
    assert record.validation_accuracy == checkpoint.metrics["validation_accuracy"]
    assert record.best_epoch == checkpoint.metrics["epoch"]
    assert record.parameters == sum(p.numel() for p in checkpoint.model.parameters())


def bits_of(record: ledger.Record) -> np.ndarray:
    """Which test images were classified correctly, without the library."""
    assert record.test_right is not None
    whole = np.unpackbits(np.frombuffer(base64.b64decode(record.test_right), np.uint8))
    assert len(whole) == -(-record.test_total // 8) * 8
    assert not whole[record.test_total :].any()
    return whole[: record.test_total].astype(bool)


def test_a_record_says_which_test_images_were_right(done: Path) -> None:
    _, _, record, _ = ledger.read_records(done / "tiny.yaml", done / "results")
    checkpoint = load_checkpoint(done / "runs" / "tiny" / "full-0" / "quick-0-1" / "checkpoint.safetensors")
    images, labels = load_embedded("test")
    with torch.no_grad():
        logits = torch.cat([checkpoint.model(checkpoint.preprocessing(part)) for part in images.split(200)])
    right = (logits.argmax(1) == labels).numpy()
    assert 0 < right.sum() < 1000
    assert np.array_equal(bits_of(record), right)


def test_a_record_of_before_that_was_kept_is_read_by_its_own_hash(done: Path) -> None:
    record = ledger.read_records(done / "tiny.yaml", done / "results")[0]
    values = json.loads(record.to_line())
    del values["sha256"], values["test_right"]
    text = json.dumps(values)
    digest = hashlib.sha256(text.encode()).hexdigest()
    old = ledger.Record.from_line(f'{text[:-1]}, "sha256": "{digest}"}}', "here")
    assert old == dataclasses.replace(record, test_right=None)
    assert old.sha256 == digest


def test_a_record_says_what_an_image_costs(done: Path) -> None:
    record = ledger.read_records(done / "tiny.yaml", done / "results")[0]
    assert record.counted_images == 100
    assert "stages.0.neuron" in record.firing_rates
    assert all(0 <= rate <= 1 for rate in record.firing_rates.values())
    assert record.operations["stem_macs"] == 8 * 8 * 4 * 4 * 6  # kernel x grid x channels
    joules = 4.6e-12 * record.operations["macs"] + 0.9e-12 * record.operations["accumulates"]
    assert record.energy_joules == pytest.approx(joules)
    assert record.multiplication_free
    assert record.violations == []


def test_accuracy_is_measured_at_other_time_steps(done: Path) -> None:
    record = ledger.read_records(done / "tiny.yaml", done / "results")[0]
    assert list(record.accuracy_at_steps) == ["1", "2"]
    assert record.accuracy_at_steps["2"] == record.test_accuracy


def test_gradient_norms_start_with_the_weights_that_training_starts_with(done: Path) -> None:
    """The norm of the first linear layer's gradient, by autograd on a network built as training builds it."""
    record = ledger.read_records(done / "tiny.yaml", done / "results")[0]
    recipe = ledger.load_plan(done / "tiny.yaml").recipe_of("axial", 0)
    still = running.train(recipe.replace(learning_rate=1e-30), done / "still", progress=False)
    start = load_checkpoint(still)
    train = load_embedded("train")
    model = start.model.train()
    logits = model(start.preprocessing(train.images[:64]))
    torch.nn.functional.cross_entropy(logits, train.labels[:64]).backward()
    norm = model.head.linear.weight.grad.norm().item()
    assert record.gradient_norms["start"]["head.linear.weight"] == pytest.approx(norm, rel=1e-4)
    assert record.gradient_norms["start"].keys() == record.gradient_norms["end"].keys()
    assert next(iter(record.gradient_norms["start"])) == "stages.0.embedding.embed.conv.weight"


def test_gradient_norms_leave_the_network_as_it_was(tiny: NetworkConfig) -> None:
    from snnmlp_edu import SpikingMLP

    model = SpikingMLP(tiny).eval()
    before = hash_tensors(model.state_dict())
    measurement.gradient_norms(model, torch.rand(4, 2, 8, 8), torch.tensor([0, 1, 2, 3]))
    assert hash_tensors(model.state_dict()) == before
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_multiplication_is_named(done: Path) -> None:
    file = done / "runs" / "tiny" / "axial-0" / "quick-0-1" / "checkpoint.safetensors"
    leaky = load_checkpoint(file, neuron={"beta": 0.8})
    found = measurement.multiplications(leaky, load_embedded("test"))
    assert found
    assert all("neuron" in line for line in found)
    assert len(set(found)) == len(found)


# --- running -----------------------------------------------------------------------------------------------


def test_nothing_is_trained_twice(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (running, repeating):
        monkeypatch.setattr(module, "train", None)
    code, out, err = run(copied)
    assert (code, err) == (0, "")
    assert "tiny axial, seed 0 (1 of 4): known from tiny axial" in out
    assert out.endswith("0 new records\n")


def test_a_run_that_two_plans_share_is_trained_once(copied: Path) -> None:
    write(copied, "other", seeds=[1], variants={"plain": {}, "conv": {"patch_encoding": "conv"}}, base=None)
    code, out, _ = run(copied, "other")
    assert code == 0
    assert "other plain, seed 1 (1 of 2): known from tiny axial" in out
    assert out.endswith("1 new records\n")
    plain, conv = ledger.read_records(copied / "other.yaml", copied / "results")
    assert (plain.plan, plain.variant, conv.variant) == ("other", "plain", "conv")
    assert plain.location.endswith("tiny.jsonl, line 3")
    assert conv.location.endswith("other.jsonl, line 1")


def test_where_the_data_are_makes_no_other_run() -> None:
    recipe = load_recipe("fashion_smoke")
    same = recipe.replace(
        data_dir="here", save_every=3, seed=5, preset="mlp_spe_micro", name="x", skip="none"
    )
    assert recipe_sha256(same) == recipe_sha256(recipe)
    for changed in WITHOUT_EFFECT:
        assert recipe_sha256(recipe.replace(**changed)) == recipe_sha256(recipe)
    assert recipe_sha256(recipe.replace(epochs=6)) != recipe_sha256(recipe)


def test_the_backend_of_the_neuron_makes_no_other_run(tmp_path: Path) -> None:
    variants = {"a": {}, "b": {"neuron": {"backend": "auto"}}, "c": {"neuron": {"beta": 0.25}}}
    plan = ledger.load_plan(write(tmp_path, variants=variants, base="a"))
    assert plan.key("a", 0) == plan.key("b", 0)
    assert len({plan.key("a", 0), plan.key("a", 1), plan.key("c", 0)}) == 3


def test_a_run_that_was_repeated_counts_as_it_was_last(copied: Path) -> None:
    results = copied / "results"
    record = ledger.read_records(copied / "tiny.yaml", results)[0]
    store.append(results / "tiny.jsonl", dataclasses.replace(record, test_correct=7, finished="9999"))
    again = ledger.read_records(copied / "tiny.yaml", results)
    assert again[0].test_correct == 7
    assert len(again) == 4


def test_one_variant_or_one_seed_can_be_run_alone(tmp_path: Path) -> None:
    write(tmp_path)
    code, out, _ = run(tmp_path, "tiny", "--variant", "full", "--seed", "1")
    assert code == 0
    assert out.splitlines()[0].startswith("tiny full, seed 1 (1 of 1): ")
    assert str(ledger.progress(tmp_path / "tiny.yaml", tmp_path / "results")).startswith("1 of the 4 runs")
    assert_wrong_usage(run(tmp_path, "tiny", "--variant", "ful"), "no variant 'ful'; did you mean 'full'")
    assert_wrong_usage(run(tmp_path, "tiny", "--seed", "7"), "has no seed 7")


def test_a_recorded_run_that_is_done_again_gives_the_same_weights(copied: Path) -> None:
    before = (copied / "results" / "tiny.jsonl").read_bytes()
    code, out, err = run(copied, "tiny", "--variant", "full", "--seed", "1", "--again")
    assert (code, err) == (0, "")
    assert "tiny.jsonl, line 4; the same weights, bit by bit" in out
    assert (copied / "results" / "tiny.jsonl").read_bytes() == before, "nothing is recorded"


def test_a_run_that_comes_out_otherwise_says_what_is_not_as_it_was(copied: Path) -> None:
    results = copied / "results"
    record = ledger.read_records(copied / "tiny.yaml", results)[0]
    other = dataclasses.replace(record, test_correct=7, machine="another", finished="9999")
    store.append(results / "tiny.jsonl", other)
    code, out, _ = run(copied, "tiny", "--variant", "axial", "--seed", "0", "--again")
    assert code == 1
    assert "0.70 % (7 of 1000) in" in out
    assert f"machine was another and is {provenance.machine()}" in out


def test_only_a_recorded_run_can_be_done_again(tmp_path: Path) -> None:
    write(tmp_path)
    assert_wrong_usage(run(tmp_path, "tiny", "--again"), "name it by --variant and --seed")
    answer = run(tmp_path, "tiny", "--again", "--variant", "full", "--seed", "1")
    assert_wrong_usage(answer, "results is not a folder of records")
    (tmp_path / "results").mkdir()
    answer = run(tmp_path, "tiny", "--again", "--variant", "full", "--seed", "1")
    assert_wrong_usage(answer, "is not recorded yet; leave out --again")


# --- an interrupted plan -----------------------------------------------------------------------------------


class PowerCut(BaseException):
    """What stands for a process that ends without a word."""


def test_a_plan_that_was_cut_goes_on_with_the_saved_state(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ledger.read_records(copied / "tiny.yaml", copied / "results")
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    write(fresh)
    steps = []
    original = loop.loss_of

    def cut(network: Any, images: Any, labels: Any, state: Any) -> torch.Tensor:
        steps.append(state.step)
        if len(steps) == 4:  # the second step of the second run
            raise PowerCut
        return original(network, images, labels, state)

    monkeypatch.setattr(loop, "loss_of", cut)
    with pytest.raises(PowerCut):
        run(fresh, "tiny", "save_every=1")
    assert len(ledger.read_records(fresh / "tiny.yaml", fresh / "results")) == 1
    code, out, _ = run(fresh, "tiny", "save_every=1")
    assert code == 0
    assert out.endswith("3 new records\n")
    assert steps == [0, 1, 0, 1, 1, 0, 1, 0, 1], "the step that was cut is done again, none before it"
    resumed = ledger.read_records(fresh / "tiny.yaml", fresh / "results")
    assert [r.tensors_sha256 for r in resumed] == [r.tensors_sha256 for r in whole]


def test_a_run_that_ended_before_its_record_is_not_trained_again(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "machine", lambda: "the machine of another day")
    file = copied / "results" / "tiny.jsonl"
    lines = file.read_text().splitlines()
    file.write_text("\n".join(lines[:-1]) + "\n")
    folders = sorted((copied / "runs").rglob("checkpoint.safetensors"))
    code, out, _ = run(copied)
    assert code == 0
    assert out.endswith("1 new records\n")
    assert sorted((copied / "runs").rglob("checkpoint.safetensors")) == folders
    last = ledger.read_records(copied / "tiny.yaml", copied / "results")[-1]
    before = json.loads(lines[-1])
    assert last.tensors_sha256 == before["tensors_sha256"]
    assert (last.finished, last.machine) == (before["finished"], before["machine"]), "of the day of the run"


def test_a_run_that_does_not_say_when_it_was_trained_is_not_recorded(copied: Path) -> None:
    file = copied / "results" / "tiny.jsonl"
    file.write_text("".join(f"{line}\n" for line in file.read_text().splitlines()[:-1]))
    for path in (copied / "runs").rglob("checkpoint.safetensors"):
        old = load_checkpoint(path)
        metrics = {name: value for name, value in old.metrics.items() if name != "origin"}
        parts = {"class_names": old.class_names, "preset": old.preset, "recipe": old.recipe}
        save_checkpoint(path, old.model, old.preprocessing, metrics=metrics, **parts)
    code, _, err = run(copied)
    assert (code, err.count("\n")) == (2, 1)
    assert re.search(r"full-1.* does not say when and where it was trained.* move .* away", err)


def test_sigterm_saves_the_run_and_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)
    original = loop.loss_of

    def stop(*arguments: Any) -> torch.Tensor:
        os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "loss_of", stop)
        code, out, err = run(tmp_path)
    assert (code, err) == (143, "")
    results, output = tmp_path / "results", tmp_path / "runs"
    resume = f"snnmlp ledger run {tmp_path / 'tiny.yaml'} --results {results} --output {output}"
    assert out.endswith(f"resume with: {resume}\n")
    assert (tmp_path / "runs" / "tiny" / "axial-0" / "quick-0-1" / "last.safetensors").is_file()


def test_a_second_process_on_one_plan_is_refused(copied: Path) -> None:
    with open(copied / "results" / ".tiny.lock", "w") as holder:
        holder.write("4711")
        holder.flush()
        fcntl.flock(holder, fcntl.LOCK_EX)
        assert_wrong_usage(run(copied), "the plan tiny is being run by process 4711; wait")
    assert run(copied)[0] == 0, "the lock ends with its process"


# --- records that were changed -----------------------------------------------------------------------------


def test_a_folder_that_knows_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As some network drives."""

    def flock(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    write(tmp_path)
    assert_wrong_usage(run(tmp_path), "tiny.* cannot be locked")


def test_a_system_without_flock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    write(tmp_path)
    assert_wrong_usage(run(tmp_path), "flock")


def test_a_line_that_was_edited_by_hand_is_named(copied: Path) -> None:
    file = copied / "results" / "tiny.jsonl"
    lines = file.read_text().splitlines()
    lines[1] = lines[1].replace('"test_correct": ', '"test_correct": 9')
    file.write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match=r"tiny.jsonl, line 2 was changed by hand: its SHA-256"):
        ledger.read_records(copied / "tiny.yaml", copied / "results")
    assert_wrong_usage(run(copied), "line 2 was changed by hand")


@pytest.mark.parametrize("line", ["{}", "not a record", '{"plan": "tiny"'])
def test_a_line_that_is_no_record_is_named(copied: Path, line: str) -> None:
    with open(copied / "results" / "tiny.jsonl", "a") as file:
        file.write(line + "\n")
    with pytest.raises(InputError, match="line 5 holds no complete record"):
        ledger.read_records(copied / "tiny.yaml", copied / "results")


def test_a_record_of_another_version_is_named(copied: Path) -> None:
    record = ledger.read_records(copied / "tiny.yaml", copied / "results")[0]
    text = record.to_line().partition(', "sha256"')[0] + ', "colour": "red"}'
    digest = hashlib.sha256(text.encode()).hexdigest()
    with open(copied / "results" / "tiny.jsonl", "a") as file:
        file.write(f'{text[:-1]}, "sha256": "{digest}"}}\n')
    with pytest.raises(InputError, match=r"line 5 was written by another version of snnmlp-edu.*colour"):
        ledger.read_records(copied / "tiny.yaml", copied / "results")


def test_records_survive_their_line(done: Path) -> None:
    for record in ledger.read_records(done / "tiny.yaml", done / "results"):
        assert ledger.Record.from_line(record.to_line(), "here") == record


# --- plans that are wrong ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"variants": {"axial": {"token_mixin": "full"}}},
            "variant axial: Recipe has no field 'token_mixin'",
        ),
        ({"variants": {"axial": {"skip": "stag"}}}, "variant axial: NetworkConfig.skip is 'stag'"),
        ({"variants": {"axial": {"seed": 3}}}, "variant axial sets seed, which a variant cannot"),
        ({"variants": {"axial": {3: 1}}}, "variant axial has the field 3, which is no string"),
        ({"variants": {"axial": 3}}, "variant axial is 3; write {field: value}"),
        ({"variants": {"a b": {}}}, "'a b' cannot name a variant"),
        ({"variants": []}, "lacks variants"),
        ({"variants": "axial"}, "variants is 'axial'"),
        ({"question": None}, "lacks question"),
        ({"base": "axal"}, "base is 'axal'; did you mean 'axial'?"),
        ({"seeds": [0, 0]}, "seeds is [0, 0]"),
        ({"seeds": []}, "seeds is []"),
        ({"preset": "mlp_spe_nan"}, "there is no model named 'mlp_spe_nan'; did you mean 'mlp_spe_nano'?"),
        ({"recipe": "fashion_smok"}, "there is no recipe 'fashion_smok'"),
        ({"sedes": [1]}, "no field 'sedes'; did you mean 'seeds'?"),
    ],
)
def test_a_plan_that_is_wrong_says_how_to_mend_it(tmp_path: Path, changes: Any, message: str) -> None:
    write(tmp_path, **changes)
    assert_wrong_usage(run(tmp_path), re.escape(message))


def test_an_unknown_plan_or_variant_suggests_the_nearest(done: Path) -> None:
    assert_wrong_usage(call("ledger", "run", "skp"), "there is no plan 'skp'; did you mean 'skip'?")
    plan = ledger.load_plan(done / "tiny.yaml")
    with pytest.raises(InputError, match="no variant 'ful'; did you mean 'full'"):
        plan.recipe_of("ful", 0)


@pytest.mark.parametrize("text", ["question: [", "- 1", "\xff"])
def test_a_file_that_is_no_plan(tmp_path: Path, text: str) -> None:
    (tmp_path / "tiny.yaml").write_bytes(text.encode("latin-1"))
    assert_wrong_usage(run(tmp_path), "tiny.yaml")


def test_what_decides_the_outcome_stands_in_the_plan(copied: Path) -> None:
    assert_wrong_usage(run(copied, "tiny", "epochs=9"), "epochs would make other runs than the plan says")


def test_a_network_that_cannot_be_built_is_named_before_anything_is_trained(tmp_path: Path) -> None:
    write(tmp_path, variants={"axial": {}, "vgg": {"preset": "spiking_vgg16"}})
    assert_wrong_usage(run(tmp_path), "plan tiny, variant vgg: spiking_vgg16 has nothing that")
    assert not (tmp_path / "runs").exists()


def test_images_that_stay_in_files_are_for_another_command(tmp_path: Path) -> None:
    write(tmp_path)
    write_image_folder(tmp_path / "photos")
    recipe = RECIPE | {"dataset": "image_folder", "data_dir": str(tmp_path / "photos")}
    (tmp_path / "quick.yaml").write_text(yaml.safe_dump(recipe))
    assert_wrong_usage(run(tmp_path), "stay in files")


def test_a_data_set_that_is_missing_says_how_to_get_it(tmp_path: Path) -> None:
    recipe = RECIPE | {"dataset": "fashion_mnist"}
    write(tmp_path)
    (tmp_path / "quick.yaml").write_text(yaml.safe_dump(recipe))
    assert_wrong_usage(run(tmp_path), r"data_dir=PATH; `snnmlp data prepare fashion_mnist PATH`")
    answer = run(tmp_path, "tiny", f"data_dir={tmp_path}")
    assert_wrong_usage(answer, "must hold one idx file of train images")
    assert not (tmp_path / "runs").exists(), "it is noticed before anything is trained"


# --- where it comes from -----------------------------------------------------------------------------------


def test_the_commit_is_empty_outside_a_checkout(tmp_path: Path) -> None:
    assert provenance.commit(tmp_path) == ""


def test_the_commit_says_whether_files_were_changed(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        provenance._git(tmp_path, "-c", "user.name=n", "-c", "user.email=e@example.invalid", *words)

    git("init", "--quiet")
    (tmp_path / "snnmlp_edu").mkdir()
    (tmp_path / "snnmlp_edu" / "code.py").write_text("1")
    git("add", ".")
    git("commit", "--quiet", "-m", "one")
    clean = provenance.commit(tmp_path)
    assert len(clean) == 40
    (tmp_path / "results.jsonl").write_text("a record is no change of the code")
    assert provenance.commit(tmp_path) == clean
    (tmp_path / "snnmlp_edu" / "code.py").write_text("2")
    assert provenance.commit(tmp_path) == f"{clean}+changed"


def test_the_hash_of_a_data_set_sees_every_pixel_and_label() -> None:
    test = load_embedded("test")
    known = dataset_sha256(test)
    assert dataset_sha256(load_embedded("test")) == known
    pixels, labels = test.images.clone(), test.labels.clone()
    pixels[7, 0, 3, 3] ^= 1
    labels[7] = (labels[7] + 1) % 10
    assert dataset_sha256(test._replace(images=pixels)) != known
    assert dataset_sha256(test._replace(labels=labels)) != known


def test_a_record_of_cifar_is_the_same_whatever_the_order_in_its_files(tmp_path: Path) -> None:
    """The published files and those made from a folder of images hold the same ones in another order."""
    files = cifar_files("cifar10")
    turned = {
        name: b"".join(content[at : at + 3073] for at in range(len(content) - 3073, -1, -3073))
        for name, content in files.items()
        if name.endswith(".bin")
    }
    places = []
    for number, content in enumerate((files, files | turned)):
        (tmp_path / str(number)).mkdir()
        place, md5 = write_cifar(tmp_path / str(number), "cifar10", content)
        places.append({"data_dir": str(place), "data_md5": md5})
    model = RECIPE["model"] | {"in_channels": 3, "num_classes": 10}
    fields = RECIPE | {"model": model, "dataset": "cifar10", "validation_fraction": 0.25}
    recipe = Recipe(name="quick", **fields, **places[0])
    result = fit(None, recipe, output=tmp_path / "runs", progress=False)
    found = [
        running.measure(load_plan(write(tmp_path)), "axial", recipe.replace(**place), result.checkpoint)
        for place in places
    ]
    assert found[0].to_line() == found[1].to_line()
    assert bits_of(found[0]).sum() == found[0].test_correct
