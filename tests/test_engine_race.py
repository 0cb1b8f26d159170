"""The race of the engine: who is called when and on what, and what is made of the times."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from snnmlp_edu import InputError, NetworkConfig, SpikingMLP, timing
from snnmlp_edu.benchmark import engine
from snnmlp_edu.benchmark.engine import DENSE, ENGINE, FP32, INT8, ONE_THREAD, TWIN, graph_names
from snnmlp_edu.benchmark.engine_report import engine_report, load_report, markdown, rows
from snnmlp_edu.cli import app
from snnmlp_edu.data import Preprocessing
from snnmlp_edu.engine.building import find_compiler
from snnmlp_edu.timing import Measurement, Sweep

missing = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
needs_runtime = pytest.mark.skipif(
    bool(missing), reason=f"{' and '.join(missing)} of the extra [bench] not installed"
)


def has_compiler() -> bool:
    try:
        return bool(find_compiler())
    except InputError:
        return False


needs_compiler = pytest.mark.skipif(not has_compiler(), reason="there is no C compiler")


@pytest.fixture
def small(tiny: NetworkConfig) -> NetworkConfig:
    return tiny.replace(time_steps=2, in_channels=1, neuron={"backend": "eager"})


@pytest.fixture
def networks(small: NetworkConfig) -> engine.Networks:
    return engine.untrained_networks("small", small, some_images(8), 0.2, with_graphs=not missing)


def only_named(config: NetworkConfig) -> engine.Networks:
    """Networks of which nothing is run."""
    return engine.Networks("small", SpikingMLP(config), None, print, {})


def some_images(count: int) -> Tensor:
    return torch.randint(256, (count, 1, 8, 8), dtype=torch.uint8)


@needs_compiler
@needs_runtime
def test_everyone_computes_what_its_network_does(networks: engine.Networks) -> None:
    images = some_images(3)
    logits = {}
    for name, each in engine.contestants(networks, threads=2).items():
        logits[name] = torch.as_tensor(each.logits(each.prepare(images)))
    assert list(logits) == [ENGINE, ONE_THREAD, DENSE, TWIN, *graph_names(FP32)]
    assert list(engine.contestants(networks, threads=1)) == [ENGINE, DENSE, TWIN, *graph_names(FP32)]
    assert torch.equal(logits[ENGINE], logits[ONE_THREAD])
    assert torch.equal(logits[DENSE], networks.folded(images / 255))
    for name in graph_names(FP32):
        torch.testing.assert_close(logits[name], networks.twin(images / 255), rtol=1e-4, atol=1e-4)
    assert networks.twin.config.activation == "relu"
    assert networks.twin.config.time_steps == 1


def fake(log: list[tuple[str, int]], name: str) -> engine.Contestant:
    """Notes who was called on which image; images are numbered by their first pixel."""
    return engine.Contestant(
        lambda images: log.append((name, int(images[0]))), lambda images: images[:, 0, 0, 0]
    )


def test_calls_are_interleaved_and_each_is_on_other_images(
    small: NetworkConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[tuple[str, int]] = []
    rests: list[float] = []
    monkeypatch.setattr(
        engine, "contestants", lambda networks, threads: {n: fake(log, n) for n in (ENGINE, TWIN)}
    )
    monkeypatch.setattr(timing.time, "sleep", rests.append)
    images = torch.arange(11, dtype=torch.uint8).view(11, 1, 1, 1).expand(11, 1, 8, 8)
    raced = engine.race_engine(only_named(small), images, batch=2, threads=1, rounds=2, repetitions=2)
    # A round that warms up and two that count, each with a call that settles; five whole batches in a circle.
    firsts = [0, 2, 4, 6, 8, 0, 2, 4, 6, 8, 0, 2]
    pairs = zip(firsts[::2], firsts[1::2], strict=True)
    expected = [(name, first) for pair in pairs for name in (ENGINE, TWIN) for first in pair]
    assert log == expected
    assert rests == []
    assert len(raced.repetitions) == 2
    engine.race_engine(only_named(small), images, batch=1, threads=2, rounds=1, repetitions=1, rest=0.25)
    assert rests == [0.25] * 4


def repeated(*times: dict[str, float], **names: Any) -> engine.EngineRace:
    measured = tuple(engine._with_the_faster_graphs(Measurement("task", each, ENGINE)) for each in times)
    given: dict[str, Any] = {"preset": "mlp_spe_micro", "batch": 16, "threads": 1} | names
    return engine.EngineRace(repetitions=measured, **given)


def both(kind: str, first: float, last: float) -> dict[str, float]:
    return dict(zip(graph_names(kind), (first, last), strict=True))


RACE = repeated(
    {ENGINE: 1.0, DENSE: 10.0, **both(FP32, 3.0, 2.0), **both(INT8, 1.5, 4.0)},
    {ENGINE: 2.0, DENSE: 22.0, **both(FP32, 2.0, 5.0), **both(INT8, 2.0, 1.0)},
    {ENGINE: 4.0, DENSE: 36.0, **both(FP32, 8.0, 6.0), **both(INT8, 6.0, 7.0)},
)


def test_ratios_are_of_one_repetition_and_the_faster_graph_counts() -> None:
    assert RACE.ratios[DENSE] == [10.0, 11.0, 9.0]
    assert RACE.ratios[FP32] == [2.0, 1.0, 1.5]
    assert RACE.ratios[INT8] == [1.5, 0.5, 1.5]
    assert RACE.measurement.milliseconds[ENGINE] == 2.0
    assert RACE.measurement.milliseconds[FP32] == 2.0
    assert FP32 not in repeated({ENGINE: 1.0, DENSE: 2.0}).ratios


@pytest.mark.parametrize(
    ("ratios", "found"),
    [
        ([3.0, 2.0, 0.0], pytest.approx(0.25)),
        ([1.5, 0.5, 2.0], pytest.approx(0.15)),
        ([0.9, 2.0, 2.0], "the engine is slower from 10%"),
        ([3.0, 2.0, 1.0], "the engine is faster up to 30%"),
    ],
)
def test_the_crossover_is_where_the_ratio_falls_to_one(ratios: list[float], found: Any) -> None:
    assert engine.crossover([0.1, 0.2, 0.3], ratios) == found


def test_accuracy_is_the_share_of_images_that_are_right(
    small: NetworkConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chooses(choice: Callable[[Tensor], Tensor]) -> engine.Contestant:
        return engine.Contestant(lambda images: torch.eye(4)[choice(images)].numpy(), lambda images: images)

    labels = torch.tensor([0, 1, 2, 3, 0])
    fakes = {"right": chooses(lambda images: images), "zero": chooses(lambda images: 0 * images)}
    monkeypatch.setattr(engine, "contestants", lambda networks, threads: fakes)
    assert engine.accuracy(only_named(small), labels, labels, batch=2) == {
        "right": 1.0,
        "zero": pytest.approx(0.4),
    }


@needs_compiler
def test_a_sweep_reaches_its_rates(networks: engine.Networks) -> None:
    images = some_images(16)
    swept = engine.sweep_rates(networks, images, (0.1, 0.4), batch=4, rounds=1, repetitions=1)
    assert swept.sweep.values == pytest.approx((0.1, 0.4), rel=0.3)
    assert swept.crossovers.keys() == {DENSE, TWIN} | (set() if missing else {FP32})
    assert all(set(m.ratios) >= {DENSE, TWIN} for m in swept.sweep.measurements)


@needs_compiler
def test_the_large_race_is_on_photographs(tiny: NetworkConfig) -> None:
    config = tiny.replace(image_size=32, in_channels=3, depths=(1, 1), neuron={"backend": "eager"})
    raced = engine.race_large(0.16, not missing, config, rounds=1, repetitions=1)
    assert (raced.preset, raced.batch, raced.threads) == ("mlp_spe_t", 1, 1)
    assert {DENSE, TWIN} < set(raced.ratios) if not missing else {DENSE, TWIN} == set(raced.ratios)
    pictures = engine.photographs(32)
    assert pictures.shape == (8, 3, 32, 32)
    assert pictures.dtype == torch.uint8
    assert (pictures.float().std(dim=(1, 2, 3)) > 10).all()


@pytest.mark.parametrize("rate", [0.05, 0.3])
def test_a_calibrated_network_fires_at_its_rate(small: NetworkConfig, rate: float) -> None:
    images = some_images(16)
    folded = engine.calibrated(small, Preprocessing(8), images, rate)
    assert engine.firing_rate(folded, images) == pytest.approx(rate, rel=0.3)


ACCURACY = {ENGINE: 0.91, DENSE: 0.92, **both(FP32, 0.93, 0.94), **both(INT8, 0.95, 0.96)}


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, bool]]:
    """The command without the minutes: how it was asked."""
    two = repeated({ENGINE: 1.0, ONE_THREAD: 1.9}, threads=2)
    sweep = Sweep("not trained", "firing rate", (0.1, 0.2), (two.measurement, two.measurement))
    swept = engine.RateSweep(sweep, {FP32: 0.125, DENSE: "the engine is faster up to 20%"})
    found = engine.EngineResults({"mlp_spe_micro": ACCURACY}, [RACE, two], [swept], ["a note"])
    asked: list[tuple[bool, bool]] = []
    monkeypatch.setattr(engine, "run", lambda quick, large: asked.append((quick, large)) or found)
    return asked


def test_the_command_prints_what_was_measured(results: list[tuple[bool, bool]], tmp_path: Path) -> None:
    printed = CliRunner().invoke(app, ["bench", "--engine", "--large", "--json"])
    assert printed.exit_code == 0, printed.output
    assert results == [(False, True)]
    found = json.loads(printed.output)
    first, second = found["tasks"]
    assert second["times_ours"] == {ONE_THREAD: 1.9}
    assert (first["times_ours"][FP32], first["spread"][FP32]) == (1.5, [1.0, 2.0])
    assert first["ms"][INT8] == 1.5
    # The faster graph by the medians: channels first in both, 3 to 5 ms in fp32 and 2 to 4 ms in int8.
    assert (first["accuracy"][FP32], first["accuracy"][INT8]) == (0.93, 0.95)
    assert first["repetitions"] == 3
    assert found["sweeps"][0]["crossovers"][FP32] == 0.125
    assert {"processor", "cores", "omp_wait_policy", "onnxruntime", "torch"} <= found["machine"].keys()
    stored, drawn = tmp_path / "engine.json", tmp_path / "engine.svg"
    stored.write_text(printed.output)
    options = ["--from", str(stored), "--plot", str(drawn)]
    table = CliRunner().invoke(app, ["bench", "--engine", *options])
    assert table.exit_code == 0, table.output
    row = next(line for line in rows(found) if line[1] == FP32)
    assert row == ("task", FP32, "1.50", "1.00 to 2.00", "2.000 ms", "93.0%")
    assert f"{FP32}: as fast as the engine where 12.5% fire" in table.output
    assert "a note" in table.output
    assert "unequal accuracy" in table.output
    assert "OMP_WAIT_POLICY" in table.output
    assert "<svg" in drawn.read_text()
    short = CliRunner().invoke(app, ["bench", "--engine", "--markdown", "--from", str(stored)]).output
    assert (
        "| time, in times the engine's | `mlp_spe_micro`, batch 16 | accuracy of `mlp_spe_micro` |" in short
    )
    assert f"| {FP32} | **1.50** (1.00 to 2.00) | 93.0% |" in short
    assert f"| {ENGINE} | 0.12 ms an image | 91.0% |" in short  # 2 ms, the median, for 16 images
    assert ONE_THREAD not in short
    assert ONE_THREAD in CliRunner().invoke(app, ["bench", "--engine", "--quick"]).output
    assert results[1:] == [(True, False)]


def test_several_runs_are_shown_as_one(tmp_path: Path) -> None:
    def written(name: str, ratio: float, high: float) -> None:
        task = {"task": "a", "network": "mlp_spe_micro", "batch": 1, "threads": 1, "repetitions": 5}
        task |= {"times_ours": {FP32: ratio}, "spread": {FP32: [ratio - 0.1, high]}}
        task |= {"ms": {ENGINE: 2.0, FP32: 2 * ratio}, "accuracy": {}}
        machine = {"processor": "p", "omp_wait_policy": "unset", "torch": "t", "onnxruntime": "o"}
        report = {"machine": machine, "tasks": [task], "sweeps": [], "notes": ["n"]}
        (tmp_path / name).write_text(json.dumps(report))

    written("1.json", 1.5, 1.6)
    written("2.json", 2.5, 3.0)
    written("3.json", 1.7, 1.8)
    found = load_report(tmp_path)
    (task,) = found["tasks"]
    assert (task["times_ours"], task["spread"], task["repetitions"]) == ({FP32: 1.7}, {FP32: [1.4, 3.0]}, 15)
    assert found["notes"] == ["n"]
    assert "**1.70** (1.40 to 3.00)" in markdown(found)
    assert "runs, column by column: 3;" in markdown(found)
    lacking = json.loads((tmp_path / "1.json").read_text())
    lacking["tasks"][0]["ms"].pop(FP32)
    (tmp_path / "1.json").write_text(json.dumps(lacking))
    assert load_report(tmp_path)["tasks"][0]["ms"] == {ENGINE: 2.0}, "what one run lacks is left out"
    lacking["machine"]["processor"] = "another"
    (tmp_path / "1.json").write_text(json.dumps(lacking))
    with pytest.raises(InputError, match="several machines"):
        load_report(tmp_path)
    with pytest.raises(InputError, match=r"holds no \.json file"):
        load_report(tmp_path / "..")


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--profile"], "--profile"), (["--from", "absent.json"], "snnmlp bench --engine --json")],
)
def test_a_wrong_call_is_one_line(words: list[str], said: str) -> None:
    wrong = CliRunner().invoke(app, ["bench", "--engine", *words])
    assert wrong.exit_code == 2
    assert said in wrong.output


@pytest.mark.parametrize("installed", [True, False])
def test_without_onnx_runtime_a_line_says_so_and_the_rest_runs(
    installed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check() -> None:
        if not installed:
            raise InputError("install it")

    made: list[tuple[str, bool]] = []

    def trained(preset: str, with_graphs: bool) -> Any:
        made.append((preset, with_graphs))
        return engine.Networks(preset, None, None, print, {})

    monkeypatch.setattr(engine, "check_installed", check)
    monkeypatch.setattr(engine, "cores", lambda: 1)
    monkeypatch.setattr(engine, "trained_networks", trained)
    monkeypatch.setattr(engine, "accuracy", lambda networks, images, labels: {ENGINE: 0.5})
    monkeypatch.setattr(engine, "race_engine", lambda networks, images, batch, threads: (batch, threads))
    found = engine.run(quick=True)
    assert found.notes == ([] if installed else ["install it"])
    assert made == [("mlp_spe_micro", installed)]
    assert found.races == [(1, 1), (16, 1), (64, 1)]
    assert found.accuracy == {"mlp_spe_micro": {ENGINE: 0.5}}
    assert engine_report(engine.EngineResults({}, [], [], ["install it"]))["notes"] == ["install it"]
