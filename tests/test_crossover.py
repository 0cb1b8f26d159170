from __future__ import annotations

import pytest
import torch

from snnmlp_edu import NetworkConfig, SpikingMLP, record
from snnmlp_edu.mfi import calibrate, crossover, event_driven, fold_batch_norm
from snnmlp_edu.mfi.events.crossover import Timing, time_network


def test_times_the_network_and_every_map_at_every_rate(tiny: NetworkConfig) -> None:
    model, images = SpikingMLP(tiny), torch.rand(2, 2, 8, 8)
    timings = crossover(model, images, rates=(0.1, 0.3), repetitions=1)
    maps = event_driven(fold_batch_norm(calibrate(model, images)))
    maps(images)
    paths = ["", *maps.synaptic_operations]
    assert [timing.path for timing in timings] == paths * 2
    assert [timing.rate for timing in timings] == [0.1] * len(paths) + [0.3] * len(paths)
    for timing in timings:
        assert timing.dense_ms > 0
        assert timing.events_ms > 0
        assert (timing.auto_ms is None) == (timing.path != "")
        assert timing.arrived == pytest.approx(timing.rate, abs=0.12)


def test_what_arrives_is_what_fired(tiny: NetworkConfig) -> None:
    images = torch.rand(2, 2, 8, 8)
    folded = fold_batch_norm(calibrate(SpikingMLP(tiny), images))
    whole, *layers = time_network(folded, images, repetitions=1)
    spikes = record(folded, images)
    up = next(layer for layer in layers if layer.path == "stages.0.blocks.0.channel.up.linear")
    assert up.arrived == pytest.approx(spikes["stages.0.blocks.0.token.fuse.neuron"].mean().item())
    total = sum(each.sum().item() for each in spikes.values())
    assert whole.arrived == pytest.approx(total / sum(each.numel() for each in spikes.values()))
    assert not folded.get_submodule(up.path)._forward_pre_hooks


def test_speedup_is_the_ratio_of_times() -> None:
    assert Timing("", 0.05, 0.05, dense_ms=6.0, events_ms=3.0, auto_ms=2.0).speedup == 2
