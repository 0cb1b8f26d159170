"""What goes wrong in a training, on the disk or in the network: one line, and the last good state is kept."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from snnmlp_edu.checkpoints import load_checkpoint, read_tensors
from snnmlp_edu.config import NetworkConfig
from snnmlp_edu.data import load_embedded, train_validation_split
from snnmlp_edu.errors import InputError
from snnmlp_edu.model.network import SpikingMLP
from snnmlp_edu.model.recording import record
from snnmlp_edu.training import Recipe, fit, loop
from snnmlp_edu.training.diagnosis import firing_warning, first_broken_layer
from snnmlp_edu.training.state import TrainingState

pytestmark = pytest.mark.usefixtures("step_by_step")

SMALL: dict[str, Any] = {"dim": 6, "depths": [1], "patch_size": 8, "time_steps": 1}
RECIPE = Recipe(
    name="faulty", source="ours", epochs=1, learning_rate=0.01, batch_size=900, model=SMALL, save_every=2
)


def state_tensors(run: Path) -> dict[str, torch.Tensor]:
    return read_tensors((run / "last.safetensors").read_bytes(), "state")[0]


# --- the disk ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "words"), [(errno.ENOSPC, "No space left"), (errno.EROFS, "Read-only")])
@pytest.mark.parametrize("good_writes", [1, 2, 3, 5])
def test_failed_write_keeps_the_last_good_state(
    code: int, words: str, good_writes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, written = os.fsync, []

    def fsync(descriptor: int) -> None:
        if len(written) == good_writes:
            raise OSError(code, os.strerror(code))
        written.append(descriptor)
        original(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        # The first write is the recipe's, then the states of steps 0, 2 and 4, then epochs.csv.
        with pytest.raises(InputError, match=f"cannot be written \\({words}.*\\); free space") as error:
            fit(None, RECIPE, output=tmp_path, progress=False)
    run = tmp_path / "faulty-0-1"
    assert not list(run.glob(".*")), "nothing half written is left"
    if good_writes == 1:
        assert "no state was saved yet" in str(error.value)
        assert not (run / "last.safetensors").exists()
    else:
        assert f"is kept: once fixed, resume with: snnmlp train --resume {run}" in str(error.value)
        assert fit(resume=run, progress=False).history[-1]["step"] == 6


# --- the network -------------------------------------------------------------------------------------


def poison(monkeypatch: pytest.MonkeyPatch, step: int, name: str, value: float, after: bool = False) -> None:
    """Set one number of a weight to `value`, before the forward pass of a step, or after it."""
    original = loop.loss_of

    def poisoned(network: Any, images: Any, labels: Any, state: TrainingState) -> Any:
        loss = original(network, images, labels, state) if after else None
        if state.step == step:
            with torch.no_grad():
                state.model.get_parameter(name).view(-1)[0] = value
        return original(network, images, labels, state) if loss is None else loss

    monkeypatch.setattr(loop, "loss_of", poisoned)


def test_broken_loss_names_step_layer_and_last_good_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, 3, "head.linear.bias", float("nan"))
    with pytest.raises(
        InputError,
        match=r"^training diverged: the loss is nan at step 3, first broken: the weights head\.linear\.bias;"
        r" lower learning_rate or set gradient_clip; the last good state, of step 2, is .*last\.safetensors$",
    ):
        fit(None, RECIPE, output=tmp_path, progress=False)
    assert all(bool(tensor.isfinite().all()) for tensor in state_tensors(tmp_path / "faulty-0-1").values())


@pytest.mark.parametrize(("step", "time_steps"), [(3, 1), (7, 2)])
def test_a_broken_layer_is_looked_for_with_the_time_steps_of_its_epoch(
    step: int, time_steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = []

    def look(model: SpikingMLP, images: torch.Tensor) -> None:
        looked.append(len(model.forward_steps(images)))

    monkeypatch.setattr("snnmlp_edu.training.diagnosis.first_broken_layer", look)
    poison(monkeypatch, step, "head.linear.bias", float("nan"))
    with pytest.raises(InputError, match=f"nan at step {step}, first broken: the loss itself"):
        fit(None, RECIPE, output=tmp_path, progress=False, epochs=2, early_epochs=1, time_steps=2)
    assert looked == [time_steps]


def test_a_state_that_is_broken_is_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A loss that is finite, and a weight that breaks behind it: the next save comes before the next loss.
    poison(monkeypatch, 3, "head.linear.bias", float("inf"), after=True)
    with pytest.raises(
        InputError, match=r"head\.linear\.bias holds NaN or infinite values after step 4; .* of step 2, is"
    ):
        fit(None, RECIPE, output=tmp_path, progress=False)
    assert all(bool(tensor.isfinite().all()) for tensor in state_tensors(tmp_path / "faulty-0-1").values())


def test_first_broken_layer_in_the_order_of_the_forward_pass(tiny: NetworkConfig) -> None:
    model = SpikingMLP(tiny)
    images = torch.rand(2, 2, 8, 8)
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}
    assert first_broken_layer(model, images) is None
    broken = ("stages.0.blocks.1.token.fuse.linear.weight", "stages.1.blocks.0.channel.down.linear.bias")
    for name in reversed(broken):
        with torch.no_grad():
            model.get_parameter(name).view(-1)[-1] = float("nan")
        assert first_broken_layer(model, images) == f"the weights {name}"
    model.load_state_dict(before, strict=False)
    assert not any(module._forward_hooks for module in model.modules()), "no hook stays"
    # 1e38 overflows nothing by itself; its square, in the variance, does.
    in_norm = "the activations of stages.0.embedding.embed.norm.batch_norm"
    assert first_broken_layer(model, torch.full_like(images, 1e38)) == in_norm
    images[0, 0, 0, 0] = float("nan")
    assert first_broken_layer(model, images) == "the activations of stages.0.embedding.embed.conv"


def test_layers_that_never_fire_are_named_after_each_epoch(tmp_path: Path, capfd: Any) -> None:
    result = fit(None, RECIPE, output=tmp_path, neuron={"threshold": 1e6})
    out = capfd.readouterr().out
    lines = [
        line for line in out.splitlines() if line.startswith("warning: firing rate below 0.1 % or above")
    ]
    assert len(lines) == 1
    assert "stages.0.neuron 0.00 %" in lines[0]
    assert result.history[0]["firing_rate"] == 0


def test_firing_rate_is_that_of_the_first_validation_images(tmp_path: Path) -> None:
    result = fit(None, RECIPE, output=tmp_path, progress=False)
    checkpoint = load_checkpoint(result.checkpoint)
    images, labels = load_embedded("train")
    _, held_out = train_validation_split(labels, 0.1, seed=0)
    rates = record(checkpoint.model, checkpoint.preprocessing(images[held_out[:16]])).firing_rates()
    assert result.history[0]["firing_rate"] == pytest.approx(sum(rates.values()) / len(rates))
    assert checkpoint.metrics["firing_rate"] == result.history[0]["firing_rate"]


def test_twin_without_spikes_has_no_firing_rate(tmp_path: Path, drawn: list[Any]) -> None:
    result = fit("relu_mlp_spe_nano", RECIPE, output=tmp_path, progress=False, max_steps=2)
    assert result.history[0]["firing_rate"] is None
    assert (result.folder / "learning_curves.png").read_bytes().startswith(b"\x89PNG")


def test_only_rates_outside_the_bounds_are_warned_of() -> None:
    assert firing_warning({"low": 0.001, "high": 0.9}) is None
    assert firing_warning({"low": 0.0009, "well": 0.5, "high": 0.901}) == (
        "warning: firing rate below 0.1 % or above 90 %: low 0.09 %, high 90.10 %"
    )
