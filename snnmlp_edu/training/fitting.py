"""`fit`: from a preset and a recipe to a checkpoint with its test accuracy."""

from __future__ import annotations

import datetime
import io
import logging
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.utilities.exceptions import SIGTERMException

from .. import provenance
from ..checkpoints import CHECKPOINT, load_checkpoint, require_rebuildable
from ..data.files import write_atomically
from ..data.sources import ImageSource
from ..data.workers import naming_lost_workers
from ..errors import InputError, Preempted
from ..network import SpikingNetwork
from ..plots import plot_learning_curves
from ..precision import single_precision
from ..registry import build_model, create_model
from ..transfer import Transfer
from .callbacks import KeepBest, StopAfter
from .diagnosis import Diverged
from .evaluation import describe_accuracy, evaluate_source
from .feeding import feed, open_recipe_source
from .keep_last import KeepLast
from .module import TrainingModule
from .optimisation import Plan
from .pace import Pace
from .processes import ReportedByFirst, any_process, is_first_process, mark_copies, on_first, place
from .progress import TensorBoardCurves, TrainingBar
from .recipe import Recipe, load_recipe
from .resume import LAST, SavedRun, StateIO, writing
from .run_folder import RunFolder
from .start import starting_weights
from .stopping import Interrupted, StopRequest

CURVES = "learning_curves.png"


@dataclass(frozen=True)
class TrainingResult:
    """What a training left behind.

    Args:
        folder: the run's folder: the checkpoint, `last.safetensors` (the state from which it goes on),
            `epochs.csv`, `learning_curves.png`, `recipe.yaml`, and `left_out.txt` where images were damaged.
        best_epoch: the epoch with the highest validation accuracy, whose weights were kept.
        validation_accuracy: of that epoch, in 0 to 1.
        test_correct: test images that its weights classify correctly.
        test_total: test images.
        seconds: wall time of training and validation.
        history: one mapping for each epoch, as in `epochs.csv`.
        transfer: what the network started with, where the recipe names a checkpoint; else None.
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
        output: folder in which the run gets a folder of its own.
        resume: folder of a run that stopped before its end. It goes on from its last state and, on the
            CPU, ends with the same weights, bit by bit, as if it had never stopped.
        progress: show a progress bar, and print a line for each epoch.
        devices: processes on this machine that share every batch: one for each GPU, or on the CPU so many.
            The program starts the others itself, as copies of its own call; under torchrun and SLURM, which
            have started them, leave it out.
        nodes: machines; on each of them the program is started.
        accelerator: `auto`, `cpu`, `gpu` or `mps`.
        overrides: fields of the recipe, or of `NetworkConfig`, to change for this run.

    Returns:
        The result; its checkpoint holds the kept weights, and the test accuracy among its metrics.

    Raises:
        InputError: an unknown name or field, a value out of range, a network that does not fit the
            images, devices or a precision that the machine does not have, an output folder that cannot be
            written, a run to resume that is finished, damaged or made otherwise, or a training that diverged.
        Preempted: the process received SIGTERM or SIGINT; the message says which state is saved.
    """
    stop = StopRequest()
    places = (devices, nodes, accelerator)
    try:
        with stop.listening(), naming_lost_workers():
            return _fit(stop, model_or_preset, recipe, Path(output), resume, progress, places, overrides)
    except Interrupted as signalled:
        raise Preempted("stopped before the first step; nothing is saved", signalled.number) from signalled


def _fit(
    stop: StopRequest,
    model_or_preset: SpikingNetwork | str | None,
    recipe: Recipe | str | Path | None,
    output: Path,
    resume: str | Path | None,
    progress: bool,
    places: tuple[int | None, int | None, str],
    overrides: dict[str, Any],
) -> TrainingResult:
    origin = provenance.origin(places[2])
    run = SavedRun.open(resume) if resume is not None else None
    if recipe is None:
        if run is None:
            raise InputError("there is nothing to train by; give --recipe NAME, or --resume RUN")
        recipe = run.recipe()
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    recipe = recipe.replace(**overrides)
    if isinstance(model_or_preset, str):
        recipe = recipe.replace(preset=model_or_preset)
    elif model_or_preset is not None:
        if recipe.model:
            raise InputError(
                f"the recipe changes {', '.join(recipe.model)} of a network that was handed over ready made;"
                " leave these out, or name a preset"
            )
        recipe = recipe.replace(preset=None)
        require_rebuildable(model_or_preset, None)  # not found out after the training
    placement = place(*places, recipe.precision)
    announce = progress and is_first_process()
    seed_everything(recipe.seed, workers=True, verbose=False)
    source = open_recipe_source(recipe)
    if run is not None and not isinstance(model_or_preset, SpikingNetwork):
        model, preset, transfer = run.network(), run.preset, None
    else:
        model, preset, transfer = make_network(model_or_preset, recipe, source)
    if transfer is not None and announce:
        print(f"weights of {recipe.init_from}{', shuffled' * recipe.init_shuffled}: {transfer}")

    # The test images are looked at only when everything is decided: at the end.
    data = feed(source, recipe, model.config, announce)
    preprocessing = data.preprocessing
    description = {
        "recipe": recipe.to_dict(),
        "preset": preset,
        "config": model.config.to_dict(),
        "preprocessing": preprocessing.to_dict(),
        "data": data.description,
        "processes": placement.processes,
    }
    if run is not None:
        run.require_same(description)
    plan = Plan(recipe, data.batches.count, placement.processes)
    data.check_memory(placement.devices, placement.accelerator == "gpu")
    existing = run.folder if run is not None else None
    folder = RunFolder(output, recipe, source.left_out(), existing, placement.resume_command)
    pace, state_io = Pace(plan, model.config.time_steps), StateIO(description)
    keeper = KeepBest(folder, preprocessing, source.class_names, preset, plan, pace, announce=progress)
    saver = KeepLast(folder, recipe.save_every, state_io, stop)
    settings = placement.trainer_settings(recipe.precision)
    with _quiet_lightning():
        trainer = Trainer(
            max_epochs=recipe.epochs,
            accumulate_grad_batches=recipe.accumulate,
            gradient_clip_val=recipe.gradient_clip,
            num_sanity_val_steps=0,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=progress,
            default_root_dir=output,
            callbacks=[
                folder,
                pace,
                keeper,
                *([TensorBoardCurves(folder, keeper)] if recipe.tensorboard else []),
                StopAfter(plan.steps),
                saver,
                *([TrainingBar(pace, keeper)] if progress else []),
            ],
            **{**settings, "plugins": [state_io, *settings["plugins"]]},
        )
        mark_copies(placement)
        finish = partial(_finish, keeper, source, trainer, origin)
        try:
            with stop.waiting():
                trainer.fit(
                    TrainingModule(model, plan),
                    datamodule=data,
                    ckpt_path=run.state if run is not None else None,
                )
            if any_process(trainer, stop.number is not None)[0]:
                raise SIGTERMException
            correct, total, seconds = on_first(trainer, finish)
        except SIGTERMException as stopped:
            what = f"stopped at step {trainer.global_step}; resume with: {folder.resume_command}"
            raise Preempted(what, stop.number or signal.SIGTERM) from stopped
        except Interrupted as signalled:
            if saver.saved_step is None:
                raise
            what = f"stopped; step {saver.saved_step} is saved; resume with: {folder.resume_command}"
            raise Preempted(what, signalled.number) from signalled
        except Diverged as error:
            what = f"{error}; the last good state, of step {saver.saved_step}, is {folder.path / LAST}"
            raise (InputError if trainer.is_global_zero else ReportedByFirst)(what) from error
    return TrainingResult(
        folder=folder.path,
        best_epoch=keeper.best["epoch"],
        validation_accuracy=keeper.best["validation_accuracy"],
        test_correct=correct,
        test_total=total,
        seconds=seconds,
        history=keeper.history,
        transfer=transfer,
    )


def _finish(
    keeper: KeepBest, source: ImageSource, trainer: Trainer, origin: dict[str, Any]
) -> tuple[int, int, float]:
    """Test the kept weights, once, and write down the result and the learning curves."""
    seconds, folder = keeper.seconds, keeper.folder.path
    best = load_checkpoint(folder / CHECKPOINT)
    best.model.to(trainer.strategy.root_device)
    correct, total = evaluate_source(best, source, keeper.plan.recipe.loading)
    finished = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    tested = {"test_correct": correct, "test_total": total, "seconds": seconds, "torch": torch.__version__}
    tested |= {"origin": {**origin, "finished": finished}}
    curves = io.BytesIO()
    plot_learning_curves(keeper.history).savefig(curves, format="png")
    with writing(folder, keeper.folder.resume_command):
        write_atomically(folder / CURVES, curves.getvalue())
        keeper.save(best.model, {**best.metrics, **tested})
    return correct, total, seconds


class NewNetwork(NamedTuple):
    """A network to train.

    Args:
        model: the network.
        preset: by which its checkpoint builds it again; None stands for a `SpikingMLP`.
        transfer: what it starts with, where the recipe names a checkpoint.
    """

    model: SpikingNetwork
    preset: str | None
    transfer: Transfer | None


def make_network(
    model_or_preset: SpikingNetwork | str | None, recipe: Recipe, source: ImageSource
) -> NewNetwork:
    """The network that a recipe trains.

    Raises:
        InputError: the recipe names none, it has other classes than the images, or no checkpoint could hold
            it.
    """
    preset = recipe.preset
    start = load_checkpoint(recipe.init_from) if recipe.init_from is not None else None
    classes = len(source.class_names)
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
    transfer = starting_weights(recipe, start, model, source.class_names)
    model.load_state_dict(transfer.weights)
    return NewNetwork(model, preset, transfer)


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Without Lightning's advice on workers and loggers: the images are in memory, and logs are ours."""
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*does not have many workers.*")
            # Ours restores its position by the state of the data module.
            warnings.filterwarnings("ignore", ".*your dataloader is not resumable.*")
            # Lightning 2.6 calls a function that newer versions of PyTorch deprecate.
            warnings.filterwarnings("ignore", ".*treespec, LeafSpec.*")
            yield
    finally:
        log.setLevel(level)
