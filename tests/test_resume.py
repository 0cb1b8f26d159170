"""A run that is cut anywhere goes on as if nothing had happened; what cannot go on says why in one line."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fresh import Fresh, run_fresh
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner
from variants import WITHOUT_EFFECT

from snnmlp_edu.checkpoints import hash_tensors, load_checkpoint, read_tensors
from snnmlp_edu.cli import app
from snnmlp_edu.data import LabelledImages, load_embedded
from snnmlp_edu.data.picture_sets import MemoryPictures
from snnmlp_edu.errors import InputError, Preempted
from snnmlp_edu.training import Recipe, TrainingResult, fit, load_recipe, loop
from snnmlp_edu.training.batches import describe
from snnmlp_edu.training.resume import SavedRun, pack, read_state, write_state
from snnmlp_edu.training.state import TrainingState
from snnmlp_edu.training.stopping import Interrupted, StopRequest

RECIPE = Recipe(
    name="cut",
    source="ours",
    epochs=2,
    learning_rate=0.01,
    batch_size=900,  # 6 steps an epoch
    # Step by step: each process would spend seconds on compiling neurons. MANY_STATES compiles them.
    model={"dim": 6, "depths": [1], "patch_size": 8, "time_steps": 1, "neuron": {"backend": "eager"}},
    flip=True,
    max_shift=2,
    save_every=2,
)


class PowerCut(BaseException):
    """What stands for a process that ends without a word."""


def outcome(result: TrainingResult) -> tuple[str, str, list[dict[str, Any]], int]:
    """All that a run leaves: best weights, its whole last state, what was measured, and the test."""
    state, _ = read_tensors((result.folder / "last.safetensors").read_bytes(), "state")
    clocks = ("seconds", "images_per_second")
    history = [{name: row[name] for name in row if name not in clocks} for row in result.history]
    weights = load_checkpoint(result.checkpoint).model.state_dict()
    return hash_tensors(weights), hash_tensors(state), history, result.test_correct


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    torch.set_num_threads(1)
    return fit(None, RECIPE, output=tmp_path_factory.mktemp("undisturbed"), progress=False)


def state_among(arguments: tuple[Any, ...]) -> TrainingState:
    return next(argument for argument in arguments if isinstance(argument, TrainingState))


def at_step(step: int, function: str, act: Callable[[], None], patch: pytest.MonkeyPatch) -> None:
    """Let `act` happen when a part of the loop is called for the first time after so many steps."""
    owner, name = (loop.EpochKeeper, "keep") if function == "keep" else (loop, function)
    original = getattr(owner, name)
    left = [act]

    def interrupted(*arguments: Any) -> Any:
        if state_among(arguments).step == step and left:
            left.pop()()
        return original(*arguments)

    patch.setattr(owner, name, interrupted)


def cut_power() -> None:
    raise PowerCut


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def saved_step(run: Path) -> int:
    return read_state(run / "last.safetensors")["step"]


# --- going on ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "function", "saved"),
    [
        (1, "loss_of", 0),
        (5, "loss_of", 4),
        (6, "validate", 6),
        (6, "keep", 6),
        (9, "loss_of", 8),
        (12, "validate", 12),
    ],
)
def test_a_cut_run_goes_on_as_if_nothing_had_happened(
    step: int,
    function: str,
    saved: int,
    undisturbed: TrainingResult,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at_step(step, function, cut_power, monkeypatch)
    with pytest.raises(PowerCut):
        fit(None, RECIPE, output=tmp_path, progress=False)
    assert saved_step(tmp_path / "cut-0-1") == saved
    torch.manual_seed(99)  # whatever the process did meanwhile
    resumed = fit(resume=tmp_path / "cut-0-1", progress=False)
    assert outcome(resumed) == outcome(undisturbed)
    assert resumed.folder == tmp_path / "cut-0-1"
    assert resumed.seconds >= resumed.history[0]["seconds"]


def test_a_run_that_stopped_before_the_test_is_only_tested(
    undisturbed: TrainingResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("snnmlp_edu.training.fitting.evaluate_source", lambda *_: cut_power())
        with pytest.raises(PowerCut):
            fit(None, RECIPE, output=tmp_path, progress=False)
    monkeypatch.setattr(loop, "loss_of", lambda *_: pytest.fail("nothing is left to train"))
    assert outcome(fit(resume=tmp_path / "cut-0-1", progress=False)) == outcome(undisturbed)


def test_a_last_epoch_that_is_cut_short_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fit(None, RECIPE, output=tmp_path, progress=False, max_steps=8)
    at_step(8, "validate", cut_power, monkeypatch)
    with pytest.raises(PowerCut):
        fit(None, RECIPE, output=tmp_path, progress=False, max_steps=8)
    assert outcome(fit(resume=tmp_path / "cut-0-2", progress=False)) == outcome(whole)


@pytest.mark.parametrize("step", [5, 9])
def test_a_run_is_resumed_on_both_sides_of_a_change_of_time_steps(
    step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = RECIPE.replace(early_epochs=1, time_steps=2)
    whole = fit(None, recipe, output=tmp_path, progress=False)
    at_step(step, "loss_of", cut_power, monkeypatch)
    with pytest.raises(PowerCut):
        fit(None, recipe, output=tmp_path, progress=False)
    assert outcome(fit(resume=tmp_path / "cut-0-2", progress=False)) == outcome(whole)


# Everything that has a state of its own: momentum, mixtures, an average, gradients between two batches.
MANY_STATES = RECIPE.replace(
    neuron={"backend": "auto"},
    batch_size=300,
    accumulate=3,  # 6 steps an epoch, as above
    optimizer="sgd",
    schedule="cosine",
    warmup_epochs=1,
    mixup=0.4,
    cutmix=1.0,
    mix_probability=0.8,
    label_smoothing=0.1,
    ema_decay=0.9,
    gradient_clip=1.0,
    loss="tet",
)


@pytest.fixture(scope="module")
def undisturbed_states(tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    torch.set_num_threads(1)
    return fit(None, MANY_STATES, output=tmp_path_factory.mktemp("undisturbed"), progress=False)


def at_batch(number: int, act: Callable[[], None], patch: pytest.MonkeyPatch) -> None:
    """Let `act` happen when a training step is called for the n-th time."""
    original, calls = loop.loss_of, []

    def interrupted(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == number:
            act()
        return original(*arguments)

    patch.setattr(loop, "loss_of", interrupted)


@pytest.mark.parametrize("batch", [7, 8, 9, 23])
def test_a_run_that_is_told_to_stop_between_two_batches_of_a_step_goes_on(
    batch: int, undisturbed_states: TrainingResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        at_batch(batch, terminate, patch)
        with pytest.raises(Preempted, match=f"stopped at step {batch // 3}"):
            fit(None, MANY_STATES, output=tmp_path, progress=False)
    pending = read_state(tmp_path / "cut-0-1" / "last.safetensors")["gradients"]
    assert bool(pending) == (batch % 3 != 0)
    assert outcome(fit(resume=tmp_path / "cut-0-1", progress=False)) == outcome(undisturbed_states)


def test_a_run_that_is_cut_between_two_batches_of_a_step_goes_on(
    undisturbed_states: TrainingResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        at_batch(14, cut_power, patch)
        with pytest.raises(PowerCut):
            fit(None, MANY_STATES, output=tmp_path, progress=False)
    assert saved_step(tmp_path / "cut-0-1") == 4
    assert outcome(fit(resume=tmp_path / "cut-0-1", progress=False)) == outcome(undisturbed_states)


def test_a_saved_recipe_can_be_run_again(undisturbed_states: TrainingResult, tmp_path: Path) -> None:
    saved = str(undisturbed_states.folder / "recipe.yaml")
    again = CliRunner().invoke(app, ["train", "--recipe", saved, "--output", str(tmp_path)])
    assert again.exit_code == 0, again.output
    kept = load_checkpoint(tmp_path / "cut-0-1" / "checkpoint.safetensors")
    first = load_checkpoint(undisturbed_states.checkpoint)
    assert hash_tensors(kept.model.state_dict()) == hash_tensors(first.model.state_dict())
    assert kept.recipe == first.recipe
    assert (tmp_path / "cut-0-1" / "recipe.yaml").read_text() == Path(saved).read_text()


KILLED = """
import os, signal, sys
from snnmlp_edu.training import fit, load_recipe, loop
loss_of = loop.loss_of
def killed(network, images, labels, state):
    if state.step == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return loss_of(network, images, labels, state)
loop.loss_of = killed
fit(None, load_recipe(sys.argv[1]), output=sys.argv[2], progress=False)
"""


def test_killed_process_and_resumed_run_give_the_same_weights(
    undisturbed: TrainingResult, tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text(RECIPE.to_yaml())
    killed = run_fresh(["-c", KILLED, str(tmp_path / "mine.yaml"), str(tmp_path)])
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    run = tmp_path / "cut-0-1"
    assert saved_step(run) == 2
    (run / ".last.safetensors.123").write_bytes(b"half a state")
    assert outcome(fit(resume=run, progress=False)) == outcome(undisturbed)
    assert not list(run.glob(".*")), "what the killed process left half done is gone"


@pytest.mark.parametrize(("step", "function"), [(4, "loss_of"), (6, "evaluated_logits")])
def test_sigterm_saves_and_stops_at_once(
    step: int, function: str, undisturbed: TrainingResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_step(step, function, terminate, monkeypatch)
    stopped = 5 if function == "loss_of" else 6  # a step that has begun is finished
    with pytest.raises(Preempted, match=rf"stopped at step {stopped}; resume with: snnmlp train --resume .*"):
        fit(None, RECIPE, output=tmp_path, progress=False, save_every=100)
    assert saved_step(tmp_path / "cut-0-1") == stopped
    assert not (tmp_path / "cut-0-1" / "epochs.csv").exists(), "no validation was awaited"
    assert outcome(fit(resume=tmp_path / "cut-0-1", progress=False)) == outcome(undisturbed)


def test_command_line_stops_in_good_order_goes_on_and_ends(
    undisturbed: TrainingResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.yaml").write_text(RECIPE.to_yaml())
    at_step(7, "loss_of", terminate, monkeypatch)
    train = ["train", "--recipe", str(tmp_path / "mine.yaml"), "--output", str(tmp_path)]
    stopped = CliRunner().invoke(app, train)
    run = tmp_path / "cut-0-1"
    assert stopped.exit_code == 143
    assert stopped.stdout.splitlines()[-1] == f"stopped at step 8; resume with: snnmlp train --resume {run}"
    went_on = CliRunner().invoke(app, ["train", "--resume", str(run)])
    assert went_on.exit_code == 0
    assert str(undisturbed) in went_on.stdout
    again = CliRunner().invoke(app, ["train", "--resume", str(run)])
    assert again.exit_code == 2
    assert f"the run {run} is finished; its checkpoint is {run / 'checkpoint.safetensors'}" in again.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_the_real_command_saves_says_how_to_resume_and_fails(
    number: int, code: int, undisturbed: TrainingResult, tmp_path: Path
) -> None:
    """`snnmlp train && snnmlp evaluate` does not go on; and a network is the same, bit by bit."""
    (tmp_path / "mine.yaml").write_text(RECIPE.replace(save_every=1).to_yaml())
    words = [
        "train",
        "--accelerator",
        "cpu",
        "--recipe",
        str(tmp_path / "mine.yaml"),
        "--output",
        str(tmp_path),
    ]
    process = Fresh(["-m", "snnmlp_edu", *words])
    state = tmp_path / "cut-0-1" / "last.safetensors"
    while process.is_running() and not state.is_file():
        time.sleep(0.01)
    process.send_signal(number)
    done = process.wait()
    assert done.returncode == code, done.stderr
    resume = f"snnmlp train --resume {tmp_path / 'cut-0-1'} --accelerator cpu"
    assert done.stdout.splitlines()[-1].endswith(f"resume with: {resume}")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "cut-0-1" / "learning_curves.png").exists(), "it was not tested"
    assert outcome(fit(resume=tmp_path / "cut-0-1", progress=False)) == outcome(undisturbed)


def test_a_signal_is_noted_between_steps_and_obeyed_at_once_elsewhere() -> None:
    before = signal.getsignal(signal.SIGINT)
    stop = StopRequest()
    with stop.listening():
        with stop.waiting():
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.number == signal.SIGINT
            with pytest.raises(Interrupted):
                os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Interrupted, match="SIGTERM"):
            os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_before_the_first_step_and_one_in_the_test(
    number: int, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(place: str) -> Preempted:
        with monkeypatch.context() as patch:
            patch.setattr(f"snnmlp_edu.training.fitting.{place}", lambda *_: os.kill(os.getpid(), number))
            with pytest.raises(Preempted) as raised:
                fit(None, RECIPE, output=tmp_path, progress=False, max_steps=2)
        assert raised.value.exit_code == code
        return raised.value

    assert "nothing is saved" in str(stopped("make_training_data"))
    assert list(tmp_path.iterdir()) == []
    run = tmp_path / "cut-0-1"
    assert f"step 2 is saved; resume with: snnmlp train --resume {run}" in str(stopped("evaluate_source"))
    assert fit(resume=run, progress=False).test_total == 1000


def test_training_off_the_main_thread(tmp_path: Path) -> None:
    found: list[TrainingResult] = []

    def train() -> None:
        found.append(fit(None, RECIPE, output=tmp_path, progress=False, max_steps=2))

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert found[0].test_total == 1000


# --- refusals ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was cut after its first epoch."""
    output = tmp_path_factory.mktemp("cut")
    with pytest.MonkeyPatch.context() as patch:
        at_step(7, "loss_of", cut_power, patch)
        with pytest.raises(PowerCut):
            fit(None, RECIPE, output=output, progress=False)
    return output / "cut-0-1"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 0.02}, r"recipe\.learning_rate is 0\.01 in the run and 0\.02 now"),
        (
            {"seed": 1, "flip": False},
            r"recipe\.flip is True in the run and False now, recipe\.seed is 0 in the run and 1 now",
        ),
        ({"dim": 9}, r"recipe\.model\.dim is 6 in the run and 9 now"),
        (
            {"neuron": {"beta": 0.25}},
            r"recipe\.model\.neuron\.beta is not set in the run and 0\.25 now",
        ),
        (
            {"model_or_preset": "mlp_spe_micro"},
            r"recipe\.preset is mlp_spe_nano in the run and mlp_spe_micro",
        ),
        (
            {"epochs": 3},
            r"recipe\.epochs is 2 in the run and 3 now",
        ),
    ],
)
def test_a_run_goes_on_only_as_it_began(cut: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit(**{"resume": cut, "progress": False} | changes)
    with pytest.raises(InputError, match=message):
        fit(**{"recipe": RECIPE, "resume": cut, "progress": False} | changes)


def test_other_images_in_memory_have_another_description() -> None:
    images = load_embedded("test")
    before = describe(MemoryPictures(images))
    assert describe(MemoryPictures(images)) == before
    pixels, labels = images.images.clone(), images.labels.clone()
    pixels[-1, 0, 3, 3] += 1
    labels[0] = (labels[0] + 1) % 10
    for changed in (LabelledImages(pixels, images.labels), LabelledImages(images.images, labels)):
        assert describe(MemoryPictures(changed)) != before


def test_an_edited_recipe_is_noticed_and_another_network_too(cut: Path) -> None:
    file = cut / "recipe.yaml"
    text = file.read_text()
    try:
        file.write_text(text.replace("max_shift: 2", "max_shift: 3"))
        assert load_recipe(file).max_shift == 3
        with pytest.raises(InputError, match=r"recipe\.max_shift is 2 in the run and 3 now"):
            fit(resume=cut, progress=False)
    finally:
        file.write_text(text)
    model = load_checkpoint(cut / "checkpoint.safetensors").model
    other = type(model)(model.config.replace(neuron={"beta": 0.75}))
    with pytest.raises(InputError, match=r"config\.neuron\.beta is 0\.5 in the run and 0\.75 now"):
        fit(other, dataclasses.replace(RECIPE, model={}), resume=cut, progress=False)


def test_a_run_of_an_earlier_version_goes_on_where_fields_were_added(cut: Path) -> None:
    run = SavedRun.open(cut)
    recipe = {name: value for name, value in run.description["recipe"].items() if name != "init_shuffled"}
    earlier = dataclasses.replace(run, description={**run.description, "recipe": recipe})
    earlier.require_same(run.description)
    changed = {**run.description, "recipe": {**run.description["recipe"], "init_shuffled": True}}
    with pytest.raises(InputError, match=r"recipe\.init_shuffled is False in the run and True now"):
        earlier.require_same(changed)


@pytest.mark.parametrize("changes", WITHOUT_EFFECT, ids=str)
def test_a_run_goes_on_with_what_does_not_change_the_result(cut: Path, changes: dict[str, Any]) -> None:
    run = SavedRun.open(cut)
    changed = RECIPE.replace(**changes)
    assert changed != RECIPE
    run.require_same({**run.description, "recipe": changed.to_dict()})


def test_damaged_states_are_refused_and_the_best_epoch_is_named(cut: Path, tmp_path: Path) -> None:
    whole = (cut / "last.safetensors").read_bytes()
    kept = rf"; the best epoch so far is kept in {cut / 'checkpoint.safetensors'}"
    changed = bytearray(whole)
    changed[-1] ^= 1
    try:
        for damaged, message in {
            whole[:-10]: rf"is truncated .*{len(whole) - 10:,} bytes.*{kept}",
            whole[:4]: f"is no checkpoint of snnmlp-edu; .*{kept}",
            bytes(changed): f"do not match their SHA-256; .*{kept}",
        }.items():
            (cut / "last.safetensors").write_bytes(damaged)
            with pytest.raises(InputError, match=message):
                fit(resume=cut, progress=False)
        (cut / "last.safetensors").unlink()
        with pytest.raises(InputError, match=r"holds no last\.safetensors to resume from; train it again"):
            fit(resume=cut, progress=False)
    finally:
        (cut / "last.safetensors").write_bytes(whole)
    with pytest.raises(InputError, match=rf"there is no run {tmp_path / 'absent'}; give the folder of one"):
        fit(resume=tmp_path / "absent", progress=False)


# --- pieces ------------------------------------------------------------------------------------------

plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
keys = st.integers() | st.text()
nested = st.recursive(
    plain,
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(keys, inner),
    max_leaves=8,
)


@settings(deadline=None, max_examples=30)
@given(nested)
def test_states_survive_the_disk(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    tensor = torch.tensor([[1.5, -2.0]], dtype=torch.float64).t()
    file = tmp_path_factory.mktemp("state") / "last.safetensors"
    write_state(file, {"value": value, 3: (tensor,)}, {"recipe": {}})
    read = read_state(file)
    assert read["value"] == value
    assert type(read["value"]) is type(value)
    assert torch.equal(read[3][0], tensor)
    assert read[3][0].dtype == torch.float64


def test_what_a_state_cannot_hold_is_named() -> None:
    with pytest.raises(TypeError, match=r"state\.callbacks\.1 is of type PosixPath"):
        pack({"callbacks": [0, Path("/")]}, {})
