"""`fit`: from a preset and a recipe to a checkpoint with its test accuracy."""

from __future__ import annotations

import datetime
import io
from collections.abc import Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from .. import provenance
from ..checkpoints import CHECKPOINT, Checkpoint, load_checkpoint, require_rebuildable
from ..data.files import write_atomically
from ..data.imagenet import same_classes
from ..data.sources import ImageSource
from ..data.workers import naming_lost_workers
from ..errors import InputError, Preempted
from ..model.network import SpikingNetwork
from ..plots import plot_learning_curves
from ..precision import single_precision
from ..registry import build_model, create_model
from ..transfer import Transfer, transfer_weights
from .batches import make_training_data, open_recipe_source, seed_shared_generators
from .diagnosis import Diverged
from .epochs import EpochKeeper
from .evaluation import describe_accuracy, evaluate_source
from .loop import train
from .processes import ReportedByFirst, is_first_process, mark_copies, on_first, resolve_devices
from .recipe import Recipe, load_recipe
from .resume import LAST, SavedRun, make_run_folder, writing
from .saving import StateSaver
from .schedule import TrainingSchedule
from .state import TrainingState
from .stopping import Interrupted, StopRequest
from .synchronise import shared_statistics

CURVES = "learning_curves.png"


@dataclass(frozen=True)
class TrainingResult:
    """What a training produced.

    Args:
        folder: the run's folder: the checkpoint, `last.safetensors` (the state to resume from),
            `epochs.csv`, `learning_curves.png`, `recipe.yaml`, and `left_out.txt` where images were damaged.
        best_epoch: the epoch with the highest validation accuracy, whose weights were kept.
        validation_accuracy: of that epoch, in 0 to 1.
        test_correct: test images that its weights classify correctly.
        test_total: test images.
        seconds: wall time of training and validation.
        history: one mapping for each epoch, as in `epochs.csv`.
        transfer: what the network was initialised with, where the recipe names a checkpoint; else None.
    """

    folder: Path
    best_epoch: int
    validation_accuracy: float
    test_correct: int
    test_total: int
    seconds: float
    history: list[dict[str, Any]]
    transfer: Transfer | None = None

    @property
    def checkpoint(self) -> Path:
        """The file with the kept weights."""
        return self.folder / CHECKPOINT

    @property
    def test_accuracy(self) -> float:
        """Part of the test images that are classified correctly."""
        return self.test_correct / self.test_total

    def __str__(self) -> str:
        return f"test accuracy {describe_accuracy(self.test_correct, self.test_total)}"


@single_precision()
def fit(
    model_or_preset: SpikingNetwork | str | None = None,
    recipe: Recipe | str | Path | None = None,
    *,
    output: str | Path = "runs",
    resume: str | Path | None = None,
    progress: bool = True,
    devices: int | None = None,
    nodes: int | None = None,
    accelerator: str = "auto",
    **overrides: Any,
) -> TrainingResult:
    """Train a network, keep the epoch that validates best, and test it once.

    Args:
        model_or_preset: the name of a preset, a network to train further, or None for the recipe's preset.
        recipe: a recipe, its name, or the path of a YAML file; None for that of the run to resume.
        output: folder in which the run's folder is made.
        resume: folder of a run that stopped before its end. It continues from its last state and, on the
            CPU, ends with the same weights, bit by bit, as if it had never stopped.
        progress: show a progress bar, and print a line for each epoch.
        devices: processes on this machine that share every batch: one per GPU, or this many on the CPU.
            The program starts the others as copies of its own call; under torchrun and SLURM, which
            have started them, leave it out.
        nodes: machines; start the program on each of them.
        accelerator: `auto`, `cpu`, `gpu` or `mps`.
        overrides: fields of the recipe, or of `NetworkConfig`, to change for this run.

    Returns:
        The result; its checkpoint holds the kept weights, and the test accuracy among its metrics.

    Raises:
        InputError: an unknown name or field, a value out of range, a network that does not fit the
            images, devices or a precision that the machine lacks, an output folder that cannot be
            written, a run to resume that is finished, damaged or has other settings, or a diverged training.
        Preempted: the process received SIGTERM or SIGINT; the message says which state is saved.
    """
    stop = StopRequest()
    requested = (devices, nodes, accelerator)
    try:
        with stop.listening(), naming_lost_workers():
            return _fit(stop, model_or_preset, recipe, Path(output), resume, progress, requested, overrides)
    except Interrupted as signalled:
        raise Preempted("stopped before the first step; nothing is saved", signalled.number) from signalled


def _fit(
    stop: StopRequest,
    model_or_preset: SpikingNetwork | str | None,
    recipe: Recipe | str | Path | None,
    output: Path,
    resume: str | Path | None,
    progress: bool,
    requested: tuple[int | None, int | None, str],
    overrides: dict[str, Any],
) -> TrainingResult:
    origin = provenance.origin(requested[2])
    run = SavedRun.open(resume) if resume is not None else None
    if recipe is None:
        if run is None:
            raise InputError("there is no recipe to train by; give --recipe NAME, or --resume RUN")
        recipe = run.recipe()
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    recipe = recipe.replace(**overrides)
    if isinstance(model_or_preset, str):
        recipe = recipe.replace(preset=model_or_preset)
    elif model_or_preset is not None:
        if recipe.model:
            raise InputError(
                f"the recipe changes {', '.join(recipe.model)} of a network that was given as an object;"
                " leave these out, or name a preset"
            )
        recipe = recipe.replace(preset=None)
        require_rebuildable(model_or_preset, None)  # not found out after the training
    placement = resolve_devices(*requested, recipe.precision)
    announce = progress and is_first_process()
    seed_shared_generators(recipe.seed)
    source = open_recipe_source(recipe)
    if run is not None and not isinstance(model_or_preset, SpikingNetwork):
        model, preset, transfer = run.network(), run.preset, None
    else:
        model, preset, transfer = make_network(model_or_preset, recipe, source.class_names)
    if transfer is not None and announce:
        print(f"weights of {recipe.init_from}{', shuffled' * recipe.init_shuffled}: {transfer}")

    # The test images are looked at only when everything is decided: at the end.
    data = make_training_data(source, recipe, model.config, announce)
    description = {
        "recipe": recipe.to_dict(),
        "preset": preset,
        "config": model.config.to_dict(),
        "preprocessing": data.preprocessing.to_dict(),
        "data": data.description,
        "processes": placement.processes,
    }
    if run is not None:
        run.require_same(description)
    schedule = TrainingSchedule(recipe, len(data.train.labels), placement.processes)
    fabric, scaler = placement.fabric(recipe.precision)
    mark_copies(placement)
    fabric.launch()
    data.start(fabric.device, fabric.global_rank, fabric.world_size, placement.devices)
    folder = on_first(lambda: run.folder if run else make_run_folder(output, recipe, source.left_out()))
    resume_command = placement.resume_command(folder)
    saver = StateSaver(folder, description, stop, resume_command, resumed=run is not None)
    keeper = EpochKeeper(folder, data, preset, resume_command, progress)
    together = shared_statistics(model, fabric.device) if fabric.world_size > 1 else nullcontext()
    try:
        with together, closing(keeper):
            network = fabric.setup_module(model)
            network.mark_forward_method("forward_steps")
            state = TrainingState.begin(model, schedule, scaler)
            optimizer = fabric.setup_optimizers(state.optimizer)
            if run is not None:
                saver.load(state)
            with stop.waiting():
                train(fabric, network, optimizer, state, data, keeper, saver)
            test = partial(test_once, state, keeper, source, fabric.device, origin)
            correct, total, seconds = on_first(test)
    except Interrupted as signalled:
        if saver.saved_step is None:
            raise
        what = f"stopped; step {saver.saved_step} is saved; resume with: {resume_command}"
        raise Preempted(what, signalled.number) from signalled
    except Diverged as error:
        what = f"{error}; the last good state, of step {saver.saved_step}, is {folder / LAST}"
        raise (InputError if fabric.is_global_zero else ReportedByFirst)(what) from error
    return TrainingResult(
        folder=folder,
        best_epoch=state.best["epoch"],
        validation_accuracy=state.best["validation_accuracy"],
        test_correct=correct,
        test_total=total,
        seconds=seconds,
        history=state.history,
        transfer=transfer,
    )


def test_once(
    state: TrainingState,
    keeper: EpochKeeper,
    source: ImageSource,
    device: torch.device,
    origin: Mapping[str, Any],
) -> tuple[int, int, float]:
    """Test the kept weights, once, and write down the result and the learning curves."""
    seconds, folder = state.seconds, keeper.folder
    best = load_checkpoint(folder / CHECKPOINT)
    best.model.to(device)
    correct, total = evaluate_source(best, source, state.schedule.recipe.loading)
    finished = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    tested = {"test_correct": correct, "test_total": total, "seconds": seconds, "torch": torch.__version__}
    tested |= {"origin": {**origin, "finished": finished}}
    curves = io.BytesIO()
    plot_learning_curves(state.history).savefig(curves, format="png")
    with writing(folder, keeper.resume_command):
        write_atomically(folder / CURVES, curves.getvalue())
        keeper.save(state, best.model, {**best.metrics, **tested})
    return correct, total, seconds


class NewNetwork(NamedTuple):
    """A network to train.

    Args:
        model: the network.
        preset: by which its checkpoint builds it again; None means a `SpikingMLP`.
        transfer: what it starts with, where the recipe names a checkpoint.
    """

    model: SpikingNetwork
    preset: str | None
    transfer: Transfer | None


def make_network(
    model_or_preset: SpikingNetwork | str | None, recipe: Recipe, class_names: tuple[str, ...]
) -> NewNetwork:
    """The network that a recipe trains.

    Raises:
        InputError: the recipe names none, it has other classes than the images, or no checkpoint could hold
            it.
    """
    preset = recipe.preset
    start = load_checkpoint(recipe.init_from) if recipe.init_from is not None else None
    classes = len(class_names)
    if isinstance(model_or_preset, SpikingNetwork):
        model = model_or_preset
    elif recipe.preset is None and start is not None:
        config = start.model.config.replace(**{"num_classes": classes} | dict(recipe.model))
        preset = start.preset
        model = build_model(preset, config)
    elif recipe.preset is None:
        raise InputError("the recipe names no preset; give one, or a network")
    else:
        model = create_model(recipe.preset, **recipe.model)
    if model.config.num_classes != classes:
        raise InputError(
            f"the network has {model.config.num_classes} classes and the data set {classes};"
            f" set num_classes={classes}"
        )
    require_rebuildable(model, preset)  # not found out when the first epoch is to be kept
    if start is None:
        return NewNetwork(model, preset, None)
    transfer = starting_weights(recipe, start, model, class_names)
    model.load_state_dict(transfer.weights)
    return NewNetwork(model, preset, transfer)


def starting_weights(
    recipe: Recipe, start: Checkpoint, model: SpikingNetwork, class_names: tuple[str, ...]
) -> Transfer:
    """The weights of a checkpoint as a network takes them over, in shuffled order where the recipe says so.

    Args:
        recipe: its `init_shuffled`, and the seed of the order.
        start: the checkpoint that the recipe names.
        model: the network to come; it stays as it is.
        class_names: classes of the images to come; the head is new where they are others.
    """
    transfer = transfer_weights(start.model, model, keep_head=same_classes(start.class_names, class_names))
    return transfer.shuffled(recipe.seed) if recipe.init_shuffled else transfer
