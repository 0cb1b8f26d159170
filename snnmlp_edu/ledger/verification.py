"""Are the shipped networks what the ledger says they are? Each is tested again, exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..checkpoints import (
    Checkpoint,
    hash_tensors,
    list_pretrained,
    load_checkpoint,
    require_pretrained,
)
from ..data.embedded import CLASS_NAMES
from ..data.sources import entry_of
from ..errors import InputError
from ..training.evaluation import describe_accuracy, evaluate_embedded, evaluate_source, own_source
from .record import Record
from .store import read_all, results_folder


@dataclass(frozen=True)
class Verified:
    """One shipped checkpoint, tested again.

    Args:
        name: of the checkpoint.
        agrees: whether all is as it should be.
        remark: what was tested, what came out, and what it was compared with.
        correct: test images that were classified correctly; None where none could be tested.
        total: test images.
    """

    name: str
    agrees: bool
    remark: str
    correct: int | None = None
    total: int | None = None


def verify(
    results: Path | None = None, data_dir: str | None = None, names: Sequence[str] | None = None
) -> list[Verified]:
    """Every file of records and every shipped checkpoint, checked.

    A checkpoint's SHA-256 is compared with the manifest; its test accuracy, image by image, with its record,
    or, where the ledger has none of these weights, with what training wrote into it. Where its own test
    images are absent, the embedded ones take their place.

    Args:
        results: folder of the records; by default the shipped ones.
        data_dir: where the test images of the full data set are.
        names: of the checkpoints; by default all that are shipped.

    Raises:
        InputError: `data_dir` is given and holds no such data set, or no such checkpoint is shipped.
    """
    names = names or list_pretrained()
    for name in names:
        require_pretrained(name)
    found = []
    records: list[Record] = []
    try:
        records = read_all(results_folder() if results is None else results)
        found.append(Verified("records", True, f"every line of {len(records)} matches its SHA-256"))
    except InputError as error:
        found.append(Verified("records", False, str(error)))
    by_weights = {record.tensors_sha256: record for record in records}
    return [*found, *(_verify(name, by_weights, data_dir) for name in names)]


def _verify(name: str, records: dict[str, Record], data_dir: str | None) -> Verified:
    try:
        checkpoint = load_checkpoint(name)
    except InputError as error:
        return Verified(name, False, str(error))
    record = records.get(hash_tensors(checkpoint.model.state_dict()))
    origin = f"{record.location}" if record is not None else "what training wrote into it; no record has it"
    own = _own_test(checkpoint, data_dir)
    if own is not None:
        expected = checkpoint.metrics.get("test_correct") if record is None else record.test_correct
        return _compared(name, "its own test images", *own, expected, origin)
    if checkpoint.class_names != CLASS_NAMES:
        return Verified(name, True, "SHA-256 matches; its test images are not here, so it was not tested")
    expected = None if record is None else record.embedded_correct
    absent = "the embedded test images, because its own are not here (give --data-dir)"
    return _compared(name, absent, *evaluate_embedded(checkpoint), expected, origin)


def _own_test(checkpoint: Checkpoint, data_dir: str | None) -> tuple[int, int] | None:
    """Hits and images on the test images of its own data; None where these are absent.

    Raises:
        InputError: they came with the package, or `data_dir` was given, and they cannot be read; or there is
            no data set of that name.
    """
    dataset = checkpoint.recipe.get("dataset", "embedded")
    entry = entry_of(dataset)
    if entry.shipped:
        data_dir = None
    try:
        return evaluate_source(checkpoint, own_source(checkpoint, None, data_dir))
    except InputError:
        if data_dir is not None or (entry.shipped and entry.requires is None):
            raise
        return None


def _compared(
    name: str, images: str, correct: int, total: int, expected: int | None, origin: str
) -> Verified:
    now = f"SHA-256 matches; {describe_accuracy(correct, total)} on {images}"
    if expected is None:
        return Verified(name, True, f"{now}; there is nothing to compare it with", correct, total)
    if correct == expected:
        return Verified(name, True, f"{now}, as in {origin}", correct, total)
    return Verified(name, False, f"{now}, and {expected} in {origin}", correct, total)
