"""`snnmlp data bench`: what is said of two rates, and that both are measured; no time is asserted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from image_sets import write_image_folder
from test_cli import assert_wrong_usage, call

from snnmlp_edu.training.loader_benchmark import LoaderBenchmark

SMALL = ["dim=6", "depths=[1]", "patch_size=8", "time_steps=1", "neuron.backend=eager", "batch_size=8"]


def test_the_slower_one_is_the_bottleneck() -> None:
    slow_loader = LoaderBenchmark(100.0, 400.0, workers=3, batch_size=64, device="cuda")
    assert str(slow_loader).splitlines() == [
        "0.25 loaded for each image trained on: the bottleneck is the loader",
        "loader 100 images/s, 3 workers, batches of 64",
        "network 400 images/s on cuda",
        "try more loading.workers, prepared shards, smaller files, or a larger network",
    ]
    slow_network = LoaderBenchmark(1200.0, 400.0, workers=1, batch_size=64, device="cpu")
    assert slow_network.to_dict() == {
        "ratio": 3.0,
        "bottleneck": "network",
        "loader": 1200.0,
        "network": 400.0,
        "workers": 1,
        "batch_size": 64,
        "device": "cpu",
    }
    assert "both share the processor's cores" in str(slow_network)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_recipe_over_files_is_measured(workers: int, tmp_path: Path) -> None:
    folder = write_image_folder(tmp_path / "photos")
    words = ["dataset=image_folder", f"data_dir={folder}", "in_channels=3", "num_classes=3"]
    bench = ["data", "bench", "--recipe", "fashion_smoke", "--seconds", "0.2", "--json"]
    code, out, err = call(*bench, *SMALL, *words, f"loading.workers={workers}")
    assert code == 0, err
    facts = json.loads(out)
    assert facts["workers"] == workers
    assert facts["loader"] > 0
    assert facts["network"] > 0
    assert facts["ratio"] == pytest.approx(facts["loader"] / facts["network"])


def test_images_in_memory_are_measured_too() -> None:
    code, out, err = call("data", "bench", "--recipe", "fashion_smoke", "--seconds", "0.1", *SMALL)
    assert code == 0, err
    assert "the bottleneck is the " in out
    assert "0 workers" in out


def test_wrong_calls_get_one_line() -> None:
    assert_wrong_usage(
        call("data", "bench", "--recipe", "fashion_smoke", "--seconds", "0"),
        "seconds is 0.0; it must be above",
    )
    assert_wrong_usage(call("data", "bench", "--recipe", "fashion_smok"), "did you mean 'fashion_smoke'")
