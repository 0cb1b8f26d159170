from __future__ import annotations

import importlib.util
import json
import os
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fresh import CONTEXT, in_environment
from torch import nn
from typer.testing import CliRunner

from snnmlp_edu import LIF, InputError, NetworkConfig, SpikingMLP, timing
from snnmlp_edu.benchmark import compile_costs
from snnmlp_edu.benchmark import races as benchmark
from snnmlp_edu.benchmark.peers import SpikingJellyMLP
from snnmlp_edu.cli import app

needs_spikingjelly = pytest.mark.skipif(
    importlib.util.find_spec("spikingjelly") is None,
    reason="SpikingJelly of the extra [bench] is not installed",
)


@pytest.fixture
def children_begin_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Children that are to be new processes do not import what is not measured."""

    def context(method: str) -> Any:
        assert method == "spawn"
        return CONTEXT

    monkeypatch.setattr(timing, "multiprocessing", SimpleNamespace(get_context=context))


# Where calls settle, each turn is an untimed call and a timed one; the first turn warms up.
@pytest.mark.parametrize(
    ("settle", "ours", "peer"),
    [
        (True, [9.0, 9.0, 9.0, 1.0, 9.0, 2.0, 9.0, 9.0], [7.0, 9.0, 7.0, 6.0, 7.0, 4.0, 7.0, 5.0]),
        (False, [9.0, 1.0, 2.0, 9.0], [9.0, 6.0, 4.0, 5.0]),
    ],
)
def test_a_race_calls_everyone_in_turn_and_takes_the_median(
    monkeypatch: pytest.MonkeyPatch, settle: bool, ours: list[float], peer: list[float]
) -> None:
    calls: list[str] = []
    durations = {"ours": iter(ours), "peer": iter(peer)}
    clock = [0.0]

    def act(name: str) -> None:
        calls.append(name)
        clock[0] += next(durations[name])

    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    actions = {"ours": lambda: act("ours"), "peer": lambda: act("peer")}
    measured = benchmark.race("act", actions, rounds=3, warm_up=1, settle=settle)
    assert calls == (["ours", "ours", "peer", "peer"] if settle else ["ours", "peer"]) * 4
    assert measured.milliseconds == {"ours": 2000.0, "peer": 5000.0}
    assert measured.ratios == {"peer": 2.5}


def test_the_twin_does_the_same_work() -> None:
    networks = benchmark.networks("mlp_spe_nano", time_steps=3)
    ours, twin = networks["ours"], networks["ReLU twin"]
    assert twin.config == ours.config.replace(activation="relu")
    images = torch.rand(2, 1, 32, 32)
    assert ours.forward_steps(images).shape == twin.forward_steps(images).shape == (3, 2, 10)


def test_inference_is_raced_folded_too() -> None:
    training, inference = benchmark.race_networks("mlp_spe_nano", batch=2, rounds=1, warm_up=0)
    assert {"ours", "ReLU twin"} <= set(training.milliseconds)
    assert set(inference.milliseconds) == {*training.milliseconds, "ours, folded"}


@pytest.mark.skipif(not benchmark.CLEAR_REFS.exists(), reason="only Linux tells a process its peak memory")
@pytest.mark.usefixtures("children_begin_at_once", "step_by_step")
def test_memory_is_that_of_the_step_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    measure_in_child = benchmark.measure_in_child
    monkeypatch.setattr(
        benchmark, "measure_in_child", partial(measure_in_child, in_environment, dict(os.environ))
    )
    filler = torch.zeros(2**27)  # 512 MiB here must not hide what the children take
    peaks = benchmark.peak_memory("mlp_spe_nano", batch=32)
    assert len(filler) == 2**27
    # The first stage alone keeps tens of tensors of 4 x 32 x 16 x 16 x 12 numbers, 1.5 MiB each.
    assert all(10 < peak < 200 for peak in peaks.values()), peaks


def test_a_second_process_finds_the_neurons_compiled(
    monkeypatch: pytest.MonkeyPatch, children_begin_at_once: None
) -> None:
    compiled: list[set[Path]] = []
    measure_in_child = compile_costs.measure_in_child

    def watched(measure: Any, *arguments: Any) -> float:
        milliseconds = measure_in_child(in_environment, dict(os.environ), measure, *arguments)
        cache = arguments[-1]
        compiled.append(set(Path(cache).rglob("*.so")))
        return milliseconds

    monkeypatch.setattr(compile_costs, "measure_in_child", watched)
    monkeypatch.setenv("TORCHINDUCTOR_VEC_ISA_OK", "0")  # trying out which vectors there are takes longest
    started = compile_costs.measure_start("mlp_spe_nano", batch=4, depths=(1,), time_steps=1)
    assert set(started.ratios) == {"ours, nothing compiled yet", "ours, eager"}
    assert compiled[0], "the first process had to compile"
    assert compiled[1] == compiled[2] == compiled[0], "those that followed had not"


@pytest.mark.usefixtures("step_by_step")
def test_blocks_may_be_compiled_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Any] = []
    monkeypatch.setattr(compile_costs, "compile_blocks", compiled.append)
    raced = compile_costs.race_compiled_blocks("mlp_spe_nano", batch=2, rounds=1)
    assert set(raced.ratios) == {"ours, compiled blocks"}
    assert len(compiled) == 1


@pytest.mark.parametrize(("quick", "large"), [(True, False), (False, False), (True, True)])
def test_a_run_takes_in_what_was_asked_for(quick: bool, large: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def named(name: str) -> benchmark.Measurement:
        return benchmark.Measurement(name, {"ours": 1.0})

    def race_networks(preset: str, batch: int, **_: int) -> list[benchmark.Measurement]:
        return [named(f"{preset} {batch}")]

    monkeypatch.setattr(benchmark, "race_neurons", lambda: [named("neuron")])
    monkeypatch.setattr(benchmark, "race_networks", race_networks)
    monkeypatch.setattr(benchmark, "race_small_pictures", lambda: named("pictures"))
    monkeypatch.setattr(benchmark, "measure_start", lambda preset: named("start"))
    monkeypatch.setattr(benchmark, "race_compiled_blocks", lambda preset, batch: named("blocks"))
    monkeypatch.setattr(benchmark, "sweep_networks", lambda: ["networks"])
    monkeypatch.setattr(benchmark, "sweep_rates", lambda: "rates")
    measurements, sweeps = benchmark.run(quick, large)
    assert [each.task for each in measurements] == [
        *("neuron", "mlp_spe_micro 16", "mlp_spe_micro 64", "pictures"),
        *([] if quick else ["start"]),
        *(["mlp_spe_t 1", "mlp_spe_t 8", "blocks"] if large else []),
    ]
    assert sweeps == ([] if quick else ["networks", "rates"])


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The command without the minutes: what it would measure, and a list of how it was asked."""
    race = benchmark.Measurement("neuron, forward", {"ours": 2.0, "snnTorch": 30.0})
    sweep = benchmark.Sweep("a step", "time steps", (1, 8), (race, race))
    asked: list[Any] = []
    monkeypatch.setattr(benchmark, "run", lambda quick, large: asked.append(quick) or ([race], [sweep]))
    monkeypatch.setattr(benchmark, "peak_memory", lambda preset, batch: {"ours": 12.0, "twin": 18.0})
    return asked


def test_the_command_prints_ratios_first(measured: list[Any]) -> None:
    printed = CliRunner().invoke(app, ["bench", "--quick", "--json"])
    assert printed.exit_code == 0
    found = json.loads(printed.output)
    assert list(found["tasks"][0]) == ["task", "times_ours", "ms"]
    assert found["tasks"][0]["times_ours"] == {"snnTorch": 15.0}
    assert found["sweeps"][0]["ms"] == {"ours": [2.0, 2.0], "snnTorch": [30.0, 30.0]}
    table = CliRunner().invoke(app, ["bench", "--quick"]).output
    assert all(number in table for number in ("15.00", "1.50", "18 MiB"))
    assert measured == [True, True]


def test_a_stored_run_is_shown_drawn_and_written_as_markdown(measured: list[Any], tmp_path: Path) -> None:
    stored, drawn = tmp_path / "bench.json", tmp_path / "bench.svg"
    stored.write_text(CliRunner().invoke(app, ["bench", "--json"]).output)
    shown = CliRunner().invoke(app, ["bench", "--from", str(stored), "--plot", str(drawn), "--markdown"])
    assert shown.exit_code == 0, shown.output
    assert measured == [False]
    assert "| neuron, forward | 15.00 |  |" in shown.output
    assert "| peak memory of a training step |  | 1.50 |" in shown.output
    assert "<svg" in drawn.read_text()
    stored.write_text("[]")
    wrong = CliRunner().invoke(app, ["bench", "--from", str(stored)])
    assert wrong.exit_code == 2
    assert "holds no benchmark" in wrong.output


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.5])
def test_a_current_fires_at_the_rate_asked_for(rate: float) -> None:
    current = benchmark.current_at_rate(rate, (4, 64, 64, 8))
    assert LIF()(current).mean().item() == pytest.approx(rate, rel=0.05)


def test_sweeps_measure_each_value(monkeypatch: pytest.MonkeyPatch) -> None:
    def race_networks(preset: str, batch: int, **given: int) -> list[benchmark.Measurement]:
        return [benchmark.Measurement(preset, {"ours": float(batch * given.get("time_steps", 4))})]

    monkeypatch.setattr(benchmark, "race_networks", race_networks)
    steps, batches, sizes = benchmark.sweep_networks()
    assert [m.milliseconds["ours"] for m in steps.measurements] == [16, 32, 64, 96, 128]
    assert [m.milliseconds["ours"] for m in batches.measurements] == [16, 64, 256]
    assert sizes.values == (32, 64)


@pytest.mark.usefixtures("step_by_step")
def test_the_profile_names_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    table = benchmark.profile_step("mlp_spe_nano", batch=2)
    assert "convolution" in table
    assert "Self CPU" in table


def copy_pair(linear: nn.Module, norm: nn.BatchNorm1d, pair: nn.Module) -> None:
    """Weights of a map and its batch norm into SpikingJelly's convolution and batch norm."""
    pair[0].weight.data.copy_(linear.weight.data.view_as(pair[0].weight))
    if linear.bias is not None:
        pair[0].bias.data.copy_(linear.bias.data)
    pair[1].load_state_dict(norm.state_dict())


def copy_weights(ours: SpikingMLP, peer: SpikingJellyMLP) -> None:
    for stage, embedding, blocks in zip(ours.stages, peer.embeddings, peer.stages, strict=True):
        if stage is ours.stages[0]:
            stem = stage.embedding.embed
            copy_pair(stem.conv, stem.norm.batch_norm, embedding)
        else:
            down = stage.embedding.down
            for i, pair in enumerate(embedding.down):
                third = slice(i * len(pair[0].weight), (i + 1) * len(pair[0].weight))
                pair[0].weight.data.copy_(down.conv.weight.data[third])
                for name in ("weight", "bias", "running_mean", "running_var"):
                    getattr(pair[1], name).data.copy_(getattr(down.norm.batch_norm, name).data[third])
            for layer, pair in zip(stage.embedding.between, embedding.between, strict=True):
                copy_pair(layer.conv, layer.norm.batch_norm, pair[1])
        for block, other in zip(stage.blocks, blocks, strict=True):
            for synapse, pair in (
                (block.token.positions.rows.synapse, other.rows.mix[0]),
                (block.token.positions.columns.synapse, other.columns.mix[0]),
                (block.token.fuse, other.fuse),
                (block.channel.up, other.channel[0]),
                (block.channel.down, other.channel[2]),
            ):
                copy_pair(synapse.linear, synapse.norm.batch_norm, pair)
    peer.norm.load_state_dict(ours.head.norm.batch_norm.state_dict())
    peer.linear.load_state_dict(ours.head.linear.state_dict())


@needs_spikingjelly
@pytest.mark.parametrize("training", [True, False])
def test_the_peer_is_the_same_network(tiny: NetworkConfig, training: bool) -> None:
    ours, peer = SpikingMLP(tiny).double(), SpikingJellyMLP(tiny).double()
    for module in ours.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.uniform_(module.bias, 0.5, 1.5)
    copy_weights(ours, peer)
    images = torch.rand(2, 2, 8, 8, dtype=torch.float64)
    expected, actual = ours.train(training)(images), peer.train(training)(images)
    torch.testing.assert_close(actual, expected)
    assert expected.std() > 0.1


@needs_spikingjelly
def test_the_peers_neuron_is_ours() -> None:
    current = torch.randn(5, 400) * 2 + 1
    assert torch.equal(benchmark.spikingjelly_lif(LIF().config)(current), LIF()(current))


@pytest.mark.skipif(
    importlib.util.find_spec("norse") is None, reason="norse of the extra [bench] is not installed"
)
def test_norses_neuron_is_ours() -> None:
    current = torch.randn(5, 400, dtype=torch.float64) * 2 + 1
    assert torch.equal(benchmark.NorseLIF()(current), LIF()(current))


def test_without_the_peer_a_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "spikingjelly", None)
    with pytest.raises(InputError, match=r"pip install -e '\.\[bench\]'"):
        benchmark.spikingjelly_lif(LIF().config)
