"""One recorded run, done again: is the accuracy what the ledger says?"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .. import provenance
from ..checkpoints import hash_tensors, load_checkpoint
from ..errors import InputError
from ..training import describe_accuracy
from .plans import Plan, load_plan
from .reading import read_records
from .record import Record
from .running import check_overrides, chosen_runs, train

# Records of the time when Lightning's trainer ran the loop: only their spread can be expected again.
EARLIER_LOOP = "an earlier training loop drew the order and the augmentation of the images otherwise"


@dataclass(frozen=True)
class Repeated:
    """A repeated run, next to its record.

    Args:
        record: from the ledger.
        correct: test images that the network of now classifies correctly.
        same_weights: whether all its weights are those of then, bit by bit.
        otherwise: what differs from then, such as the kind of processor.
    """

    record: Record
    correct: int
    same_weights: bool
    otherwise: tuple[str, ...]

    @property
    def agrees(self) -> bool:
        """Whether exactly as many test images are classified correctly."""
        return self.correct == self.record.test_correct

    def __str__(self) -> str:
        now, then = (
            describe_accuracy(correct, self.record.test_total)
            for correct in (self.correct, self.record.test_correct)
        )
        weights = "the same weights, bit by bit" if self.same_weights else "other weights"
        return "; ".join([f"{now} now and {then} in {self.record.location}", weights, *self.otherwise])


def run_again(
    plan: Plan | str | Path,
    variant: str,
    seed: int,
    *,
    results: Path | None = None,
    progress: bool = False,
    **overrides: Any,
) -> Repeated:
    """Train one recorded run again, with as many threads as then, and compare; nothing is recorded.

    Args:
        plan: the plan, its name, or the path of a YAML file.
        variant: of the plan.
        seed: of the plan.
        results: folder of the records.
        progress: show a progress bar, and a line for each epoch.
        overrides: as in `run_plan`.

    Raises:
        InputError: there is no such record; or as `run_plan`.
    """
    plan = load_plan(plan)
    check_overrides(overrides)
    ((variant, seed),) = chosen_runs(plan, variant, seed)
    records = read_records(plan, results)
    record = next((r for r in records if (r.variant, r.seed) == (variant, seed)), None)
    if record is None:
        raise InputError(
            f"{plan.name} {variant}, seed {seed} is not recorded yet; leave out --again to run it"
        )
    threads = torch.get_num_threads()
    torch.set_num_threads(record.threads)
    try:
        with tempfile.TemporaryDirectory() as folder:
            recipe = plan.recipe_of(variant, seed).replace(**overrides)
            checkpoint = load_checkpoint(train(recipe, Path(folder) / "again", progress=progress))
    finally:
        torch.set_num_threads(threads)
    now = {"machine": provenance.machine(), "device": provenance.device(), **provenance.versions()}
    then = {"machine": record.machine, "device": record.device, **record.versions}
    return Repeated(
        record=record,
        correct=checkpoint.metrics["test_correct"],
        same_weights=hash_tensors(checkpoint.model.state_dict()) == record.tensors_sha256,
        otherwise=(
            *(
                f"{name} was {then[name]} and is {now[name]}"
                for name in now
                if now[name] != then.get(name, now[name])
            ),
            *((EARLIER_LOOP,) if "lightning-fabric" not in then else ()),
        ),
    )
