"""What people see of a training: pace, remaining time, progress bar, and curves for TensorBoard."""

from __future__ import annotations

import csv
import os
import re
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typer.testing import CliRunner

from snnmlp_edu.cli import app
from snnmlp_edu.errors import Preempted
from snnmlp_edu.training import Recipe, fit, loop
from snnmlp_edu.training.progress import measured
from snnmlp_edu.training.schedule import TrainingSchedule
from snnmlp_edu.training.state import Tally
from snnmlp_edu.training.throughput import Throughput

pytestmark = pytest.mark.usefixtures("step_by_step")

RECIPE = Recipe(
    name="seen",
    source="ours",
    epochs=2,
    learning_rate=0.01,
    batch_size=900,  # 6 steps an epoch
    model={"dim": 6, "depths": [1], "patch_size": 8, "time_steps": 1},
)


def test_throughput_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    schedule = TrainingSchedule(RECIPE.replace(batch_size=50), images=500)  # 20 steps
    pace = Throughput(schedule, time_steps=4, step=4)
    pace.begin_epoch()
    clock[0] = 130  # the first batch compiles
    pace.end_batch(5)
    assert pace.images_per_second is None
    assert pace.seconds_left == pytest.approx(30 * 15)
    for step, now in ((6, 132), (7, 134)):
        clock[0] = now
        pace.end_batch(step)
    assert pace.images_per_second == pytest.approx(100 / 4)
    assert pace.seconds_left == pytest.approx(34 / 3 * 13)
    clock[0] = 500  # validation
    pace.begin_epoch()
    clock[0] = 501
    pace.end_batch(8)
    assert pace.images_per_second == pytest.approx(50)


def test_the_time_left_knows_of_epochs_that_take_more_time_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    recipe = RECIPE.replace(batch_size=50, epochs=3, early_epochs=2)
    # 20 steps of one time step, 10 of four
    pace = Throughput(TrainingSchedule(recipe, images=500), time_steps=4)
    clock[0] = 115
    pace.end_batch(15)
    assert pace.seconds_left == pytest.approx(5 + 40)
    clock[0] = 140
    pace.end_batch(25)
    assert pace.seconds_left == pytest.approx(20)


def test_bar_shows_loss_throughput_firing_rate_and_remaining_time() -> None:
    pace: Any = SimpleNamespace(images_per_second=None, seconds_left=None)
    state: Any = SimpleNamespace(history=[], tally=Tally(loss_sum=20.0, correct=30, seen=40))
    assert measured(state, pace) == "loss 0.500, accuracy 0.750"
    pace.images_per_second, pace.seconds_left = 1234.5, 7300
    state.history.append({"firing_rate": 0.12})
    everything = "loss 0.500, accuracy 0.750, 1,234 images/s, firing rate 0.120, 2 h 2 min left"
    assert measured(state, pace) == everything
    state.history.append({"firing_rate": None})
    assert "firing rate" not in measured(state, pace)


def test_an_epoch_is_one_line(tmp_path: Path, capfd: Any) -> None:
    result = fit(None, RECIPE, output=tmp_path)
    lines = capfd.readouterr().out.splitlines()
    assert "global batch 900; learning rate 0.01, as the recipe has it" in lines
    first = next(line for line in lines if line.startswith("epoch 1: "))
    assert re.fullmatch(
        r"epoch 1: loss \d\.\d{3}, accuracy 0\.\d{3}, validation accuracy 0\.\d{3}, firing rate 0\.\d{3},"
        r" [\d,]+ images/s, \d+ s, \d+ s left",
        first.rstrip(),
    ), first
    last = next(line for line in lines if line.startswith("epoch 2: "))
    assert "left" not in last
    with open(result.folder / "epochs.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(float(row["images_per_second"]) > 0 for row in rows)


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_gets_what_the_table_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snnmlp_edu.training.progress.STEPS_PER_POINT", 3)
    result = fit(None, RECIPE, output=tmp_path, progress=False, tensorboard=True)
    found = curves(result.folder)
    for name in ("train_loss", "validation_accuracy", "firing_rate"):
        expected = [(row["step"], pytest.approx(row[name], rel=1e-6)) for row in result.history]
        assert found[f"epoch/{name}"] == expected
    assert [step for step, _ in found["step/loss"]] == [3, 6, 9, 12]
    assert "firing_rate/stages.0.neuron" in found
    assert not (fit(None, RECIPE, output=tmp_path, progress=False).folder / "tensorboard").exists()


def test_tensorboard_goes_on_with_a_run_and_may_be_turned_on_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = loop.loss_of, []

    def stopped(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 8:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "loss_of", stopped)
        with pytest.raises(Preempted):
            fit(None, RECIPE, output=tmp_path, progress=False)
    result = fit(resume=tmp_path / "seen-0-1", progress=False, tensorboard=True)
    assert [step for step, _ in curves(result.folder)["epoch/train_loss"]] == [12]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["epoch=2"], "Recipe has no field 'epoch'; did you mean 'epochs'?"),
        (["precision=fp16", "--accelerator", "cpu"], "precision is fp16, which needs a GPU"),
        (["batch_size=6000"], "batch_size is 6000 and there are 5400 training images"),
        (["batch_size=64", "accumulate=100"], "6400 images with accumulate=100, and there are 5400 training"),
        (["learning_rate=fast"], "learning_rate is 'fast'; it must be a finite number above 0"),
        (["mixup=0.8", "loss=ce_rate"], "loss is ce_rate, which takes one class per image"),
        (["--accelerator", "cpu", "--devices", "4096"], "devices is 4096 and this machine has"),
        (["--accelerator", "tpu"], "accelerator is 'tpu'; it must be one of auto, cpu, gpu, mps"),
        (["--accelerator", "cpu", "--devices", "0"], "devices is 0; it must be a whole number of at least 1"),
    ],
)
def test_mistakes_get_one_line_and_leave_nothing(words: list[str], message: str, tmp_path: Path) -> None:
    train = ["train", "--recipe", "fashion_smoke", "--output", str(tmp_path / "runs")]
    answer = CliRunner().invoke(app, [*train, *words])
    assert answer.exit_code == 2
    assert answer.stderr.startswith("error: ")
    assert answer.stderr.count("\n") == 1
    assert message in answer.stderr
    assert list(tmp_path.iterdir()) == []
