"""Side-by-side timing: everything in one process, turn by turn, and the ratios first.

A ratio within one run is what another machine can confirm; milliseconds are not. Each round calls every
contestant, so that a disturbance meets all of them, and the median of the rounds counts.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .config import NeuronConfig
from .neurons import LIF
from .peers import SpikingJellyMLP, spikingjelly_lif
from .registry import create_model, get_config

NEURON_SHAPE = (4, 16, 16, 16, 96)
CLEAR_REFS = Path("/proc/self/clear_refs")  # writing 5 to it resets the peak of resident memory
Action = Callable[[], Any]


@dataclass(frozen=True)
class Measurement:
    """Times of several contestants at one task.

    Args:
        task: what each of them did.
        milliseconds: contestant -> median time of a call.
        ours: the contestant that the ratios are about.
    """

    task: str
    milliseconds: dict[str, float]
    ours: str = "ours"

    @property
    def ratios(self) -> dict[str, float]:
        """Contestant -> its time as a multiple of ours."""
        own = self.milliseconds[self.ours]
        return {name: t / own for name, t in self.milliseconds.items() if name != self.ours}


def race(task: str, contestants: dict[str, Action], rounds: int = 15, warm_up: int = 3) -> Measurement:
    """Call all contestants in turn, round after round, and take the median time of each."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(warm_up + rounds):
        for name, action in contestants.items():
            action()  # untimed: it takes back the memory and the caches that the one before had
            start = time.perf_counter()
            action()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn >= warm_up:
                times[name].append(time.perf_counter() - start)
    return Measurement(task, {name: 1e3 * statistics.median(t) for name, t in times.items()})


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
    return layers | ({"SpikingJelly": spikingjelly_lif(config)} if has_spikingjelly() else {})


def _reset(layer: nn.Module) -> None:
    """Forget the last call, as users of a library whose layers keep their state have to."""
    reset = getattr(layer, "reset", None)
    if callable(reset):
        reset()


def race_neurons(shape: tuple[int, ...] = NEURON_SHAPE) -> list[Measurement]:
    """Forward, and forward with backward, of one layer on a current `[T, ...]`.

    Args:
        shape: of the current.
    """
    current = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 2 + 1
    layers = neuron_layers()

    def forward(layer: nn.Module) -> Tensor:
        _reset(layer)
        with torch.no_grad():
            return layer(current)

    def both(layer: nn.Module) -> None:
        _reset(layer)
        x = current.detach().requires_grad_()
        layer(x).backward(current)

    size = "x".join(map(str, shape))
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


def training_step(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Forward, loss and backward; the optimiser is the same for all and left out."""
    model.train()
    model.zero_grad(set_to_none=True)
    functional.cross_entropy(model(images), labels).backward()


def inference(model: nn.Module, images: Tensor) -> Tensor:
    """Logits in evaluation mode, without gradients."""
    model.eval()
    with torch.no_grad():
        return model(images)


def race_networks(preset: str, batch: int, rounds: int = 9, **overrides: Any) -> list[Measurement]:
    """Training step and inference of one preset at one batch size."""
    models = networks(preset, **overrides)
    config = get_config(preset, **overrides)
    images = torch.rand(batch, config.in_channels, config.image_size, config.image_size)
    labels = torch.randint(config.num_classes, (batch,))
    size = f"{preset} at {config.image_size} px, T {config.time_steps}, batch {batch}"
    steps: dict[str, Action] = {n: partial(training_step, m, images, labels) for n, m in models.items()}
    runs: dict[str, Action] = {n: partial(inference, m, images) for n, m in models.items()}
    return [race(f"{size}, training step", steps, rounds), race(f"{size}, inference", runs, rounds)]


def _step_in_child(name: str, preset: str, batch: int, queue: Any) -> None:
    torch.manual_seed(0)
    model, config = networks(preset)[name], get_config(preset)
    images = torch.rand(batch, config.in_channels, config.image_size, config.image_size)
    labels = torch.randint(config.num_classes, (batch,))
    # What the libraries and the compiler themselves take is there before the step that counts.
    for _ in range(2):
        training_step(model, images[:2], labels[:2])
    # getrusage would not do: its peak is inherited from the parent and never falls.
    CLEAR_REFS.write_text("5")
    before = _peak_kib()
    training_step(model, images, labels)
    queue.put(_peak_kib() - before)


def _peak_kib() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0])


def peak_memory(preset: str, batch: int) -> dict[str, float]:
    """Peak memory in MiB that one training step adds, each contestant in a process of its own.

    Empty where the system does not tell (anything but Linux).
    """
    if not CLEAR_REFS.exists():
        return {}
    spawn = multiprocessing.get_context("spawn")
    names: Iterable[str] = ("ours", "ReLU twin", *(("SpikingJelly",) if has_spikingjelly() else ()))
    peaks = {}
    for name in names:
        queue = spawn.Queue()
        child = spawn.Process(target=_step_in_child, args=(name, preset, batch, queue))
        child.start()
        peaks[name] = queue.get(timeout=600) / 1024
        child.join()
    return peaks


def run(quick: bool = False) -> list[Measurement]:
    """All measurements; `quick` leaves out the networks at 224 px, which take minutes."""
    measurements = race_neurons()
    for batch in (16, 64):
        measurements += race_networks("mlp_spe_micro", batch)
    if not quick:
        for batch in (1, 8):
            measurements += race_networks("mlp_spe_t", batch, rounds=3)
    return measurements


def report(measurements: Iterable[Measurement], memory: dict[str, float]) -> dict[str, Any]:
    """Plain values: the machine, for each task the ratios and then milliseconds, and memory in MiB."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return {
        "machine": {"device": device, "threads": torch.get_num_threads(), "torch": torch.__version__},
        "tasks": [{"task": m.task, "times_ours": m.ratios, "ms": m.milliseconds} for m in measurements],
        "memory_of_a_training_step_MiB": memory,
    }
