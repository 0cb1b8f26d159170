"""Side-by-side timing: everything in one process, turn by turn, and the ratios first.

A ratio within one run is what another machine can confirm; milliseconds are not. Each round calls every
contestant, so that a disturbance meets all of them, and the median of the rounds counts.
"""

from __future__ import annotations

import importlib.util
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ..config import NeuronConfig
from ..data import Preprocessing
from ..data.image_folder import as_pictures, list_images
from ..mfi import fold_batch_norm
from ..model.neurons import LIF
from ..registry import create_model, get_config
from ..timing import Action, Measurement, Sweep, measure_in_child, race, random_batch, training_step
from .compile_costs import measure_start, race_compiled_blocks
from .peers import NorseLIF, SpikingJellyMLP, spikingjelly_lif

NEURON_SHAPE = (4, 16, 16, 16, 96)
CLEAR_REFS = Path("/proc/self/clear_refs")  # writing 5 to it resets the peak of resident memory


def has_spikingjelly() -> bool:
    """Whether the peer of the extra `[bench]` is installed."""
    return importlib.util.find_spec("spikingjelly") is not None


def neuron_layers() -> dict[str, nn.Module]:
    """LIF layers by contestant, all of the released network's neuron; `relu` is the floor."""
    config = NeuronConfig()
    layers: dict[str, nn.Module] = {
        "ours": LIF(config),
        "ours, eager": LIF(NeuronConfig(backend="eager")),
        "snnTorch": LIF(NeuronConfig(backend="snntorch")),
        "relu": nn.ReLU(),
    }
    if has_spikingjelly():
        layers["SpikingJelly"] = spikingjelly_lif(config)
    return layers | ({"norse": NorseLIF()} if importlib.util.find_spec("norse") else {})


def _reset(layer: nn.Module) -> None:
    """Reset the state, as users of a library with stateful layers have to."""
    reset = getattr(layer, "reset", None)
    if callable(reset):
        reset()


def race_neurons(current: Tensor | None = None) -> list[Measurement]:
    """Forward, and forward with backward, of one layer.

    Args:
        current: input current `[T, ...]`; by default one at which a third of the neurons fire.
    """
    current = current_at_rate(1 / 3) if current is None else current
    layers = neuron_layers()

    def forward(layer: nn.Module) -> Tensor:
        _reset(layer)
        with torch.no_grad():
            return layer(current)

    def both(layer: nn.Module) -> None:
        _reset(layer)
        x = current.detach().requires_grad_()
        layer(x).backward(current)

    size = "x".join(map(str, current.shape))
    tasks: dict[str, Callable[[nn.Module], Any]] = {"forward": forward, "forward + backward": both}
    return [
        race(f"neuron {size}, {task}", {name: partial(action, layer) for name, layer in layers.items()})
        for task, action in tasks.items()
    ]


def networks(preset: str, **overrides: Any) -> dict[str, nn.Module]:
    """The same network as ours, as its ReLU twin at equal T x B work, and from SpikingJelly's layers."""
    config = get_config(preset, **overrides)
    twin = create_model(preset, **overrides | {"activation": "relu"})
    found: dict[str, nn.Module] = {"ours": create_model(preset, **overrides), "ReLU twin": twin}
    return found | ({"SpikingJelly": SpikingJellyMLP(config)} if has_spikingjelly() else {})


def inference(model: nn.Module, images: Tensor) -> Tensor:
    """Logits in evaluation mode, without gradients."""
    model.eval()
    with torch.no_grad():
        return model(images)


def race_networks(
    preset: str, batch: int, rounds: int = 5, warm_up: int = 1, infer: bool = True, **overrides: Any
) -> list[Measurement]:
    """Training step, and inference if asked for, of one preset at one batch size, T and image size."""
    models = networks(preset, **overrides)
    config = get_config(preset, **overrides)
    images, labels = random_batch(config, batch)
    size = f"{preset} at {config.image_size} px, T {config.time_steps}, batch {batch}"
    steps: dict[str, Action] = {n: partial(training_step, m, images, labels) for n, m in models.items()}
    training = race(f"{size}, training step", steps, rounds, warm_up)
    if not infer:
        return [training]
    models["ours, folded"] = fold_batch_norm(models["ours"].eval())  # its statistics are those of these steps
    runs: dict[str, Action] = {n: partial(inference, m, images) for n, m in models.items()}
    return [training, race(f"{size}, inference", runs, rounds, warm_up)]


def race_small_pictures(count: int = 2000, side: int = 32, rounds: int = 3) -> Measurement:
    """An epoch of batches from a folder of small PNG files: decoded once and kept, or read again.

    Only the loading is timed, without a network.
    """
    from ..training.batches import TrainingData  # needs the extra [train]
    from ..training.recipe import Recipe

    with TemporaryDirectory() as name:
        folder = Path(name)
        pixels = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
        for number, image in enumerate(pixels):
            kind = folder / "ab"[number % 2]
            kind.mkdir(exist_ok=True)
            Image.fromarray(image).save(kind / f"{number}.png")
        pictures = as_pictures(folder, list_images(folder)[0]["all"])
        preprocessing = Preprocessing(side, 3)
        epochs: dict[str, Action] = {}
        for contestant, share in (("ours", 0.25), ("read in every epoch", 0.0)):
            recipe = Recipe("race", "ours", epochs=1, learning_rate=0.1, flip=True, max_shift=2)
            recipe = recipe.replace(loading={"memory_share": share})
            data = TrainingData(pictures, pictures, preprocessing, recipe, ("a", "b"))
            data.start(torch.device("cpu"))
            epochs[contestant] = partial(_consume, data, count // recipe.batch_size)
        return race(f"{count} PNG files of {side} x {side}, an epoch of batches", epochs, rounds, 1, False)


def _consume(data: Any, batches: int) -> None:
    deque(data.training_batches(0, 0, batches), maxlen=0)


def _memory_of_step(name: str, preset: str, batch: int) -> float:
    torch.manual_seed(0)
    model, config = networks(preset)[name], get_config(preset)
    images, labels = random_batch(config, batch)
    # What the libraries and the compiler themselves take is there before the step that counts.
    for _ in range(2):
        training_step(model, images[:2], labels[:2])
    # getrusage would not do: its peak is inherited from the parent and never falls.
    CLEAR_REFS.write_text("5")
    before = _peak_kib()
    training_step(model, images, labels)
    return (_peak_kib() - before) / 1024


def _peak_kib() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0])


def peak_memory(preset: str, batch: int) -> dict[str, float]:
    """Peak memory in MiB that one training step adds, each contestant in a process of its own.

    Empty where the system does not tell (anything but Linux).
    """
    if not CLEAR_REFS.exists():
        return {}
    names: Iterable[str] = ("ours", "ReLU twin", *(("SpikingJelly",) if has_spikingjelly() else ()))
    return {name: measure_in_child(_memory_of_step, name, preset, batch) for name in names}


def sweep_networks(rounds: int = 2) -> list[Sweep]:
    """Training steps of `mlp_spe_micro` over time steps, batch and image size."""
    grids: dict[str, tuple[str, tuple[int, ...]]] = {
        "time_steps": ("time steps", (1, 2, 4, 6, 8)),
        "batch": ("batch, images", (4, 16, 64)),
        "image_size": ("side of the images, pixels", (32, 64)),
    }
    sweeps = []
    for field, (variable, values) in grids.items():
        settings: list[dict[str, Any]] = [{"batch": 16} | {field: value} for value in values]
        steps = tuple(
            race_networks("mlp_spe_micro", rounds=rounds, warm_up=0, infer=False, **given)[0]
            for given in settings
        )
        sweeps.append(Sweep("training step of mlp_spe_micro", variable, values, steps))
    return sweeps


def current_at_rate(rate: float, shape: tuple[int, ...] = NEURON_SHAPE) -> Tensor:
    """A random current `[T, ...]` at which the released network's neuron fires at a given rate.

    >>> round(LIF()(current_at_rate(0.25)).mean().item(), 2)
    0.25
    """
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 2
    few = noise.flatten(1)[:, : 2**16]
    low, high = -20.0, 20.0
    for _ in range(30):  # more current, more spikes: halve the interval
        middle = (low + high) / 2
        low, high = (middle, high) if LIF()(few + middle).mean() < rate else (low, middle)
    return noise + middle


def sweep_rates(rates: tuple[float, ...] = (0.01, 0.05, 0.15, 0.3, 0.5)) -> Sweep:
    """Forward and backward of one layer over its firing rate: dense computation should not depend on it."""
    races = tuple(race_neurons(current=current_at_rate(rate))[1] for rate in rates)
    return Sweep("neuron, forward + backward", "firing rate, spikes per neuron and step", rates, races)


def run(quick: bool = False, large: bool = False) -> tuple[list[Measurement], list[Sweep]]:
    """All measurements; `quick` leaves out sweeps and starts, `large` adds 224 px and compiled blocks."""
    measurements = race_neurons()
    for batch in (16, 64):
        measurements += race_networks("mlp_spe_micro", batch)
    if importlib.util.find_spec("torchvision"):
        measurements.append(race_small_pictures())
    if not quick:
        measurements.append(measure_start("mlp_spe_micro"))
    for batch in (1, 8) if large else ():
        measurements += race_networks("mlp_spe_t", batch, rounds=1, warm_up=0)  # each call takes seconds
    if large:
        measurements.append(race_compiled_blocks("mlp_spe_micro", batch=64))
    return measurements, [] if quick else [*sweep_networks(), sweep_rates()]


def profile_step(preset: str = "mlp_spe_micro", batch: int = 64) -> str:
    """What a training step of ours spends its time on, by operation, as a table."""
    model, config = create_model(preset), get_config(preset)
    images, labels = random_batch(config, batch)
    for _ in range(3):
        training_step(model, images, labels)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        for _ in range(5):
            training_step(model, images, labels)
    return profiler.key_averages().table(
        sort_by="self_cpu_time_total", row_limit=16, max_name_column_width=40
    )
