"""What the fields of a recipe may be, as a table that is checked when a recipe is made."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ..config import is_number, nearest
from ..data.sources import Dataset
from ..errors import InputError

Optimizer = Literal["adamw", "sgd"]
Schedule = Literal["one_cycle", "cosine", "constant"]
Loss = Literal["cross_entropy", "tet", "ce_rate", "ce_count", "mse_count"]
Precision = Literal["fp32", "bf16", "fp16"]
Scaling = Literal["linear", "sqrt"]

SNNTORCH_LOSSES = ("ce_rate", "ce_count", "mse_count")


@dataclass(frozen=True)
class Rule:
    """What a field must be.

    Args:
        holds: whether a value is as it must be.
        expected: the same in words, for the message.
        choices: what may be chosen, where the field is a choice; the nearest is suggested.
    """

    holds: Callable[[Any], bool]
    expected: str
    choices: tuple[str, ...] = ()

    def check(self, name: str, value: Any) -> None:
        """Raise for a value that is not as it must be.

        Raises:
            InputError: names the field, the value and what it must be.

        >>> whole(1).check("epochs", 3)
        """
        if not self.holds(value):
            hint = nearest(str(value), self.choices)
            raise InputError(f"recipe field {name} is {value!r}; it must be {self.expected}{hint}")


def whole(lowest: int, highest: int = 2**63 - 1) -> Rule:
    """A whole number within limits; the upper one is that of the machine where none is given."""
    upper = f" and at most {highest}" if highest < 2**63 - 1 else ""
    return Rule(
        lambda v: isinstance(v, int) and not isinstance(v, bool) and lowest <= v <= highest,
        f"a whole number of at least {lowest}{upper}",
    )


def number(within: Callable[[float], bool], expected: str) -> Rule:
    """A finite number within a range."""
    return Rule(lambda v: is_number(v) and within(v), expected)


def choice(literal: Any) -> Rule:
    """One of the values of a `Literal`."""
    allowed = get_args(literal)
    return Rule(lambda v: isinstance(v, str) and v in allowed, f"one of {', '.join(allowed)}", allowed)


def optional(rule: Rule) -> Rule:
    """None, or what another rule says."""
    return Rule(lambda v: v is None or rule.holds(v), rule.expected, rule.choices)


TEXT = Rule(lambda v: isinstance(v, str), "text")
NAME = Rule(
    lambda v: isinstance(v, str) and re.fullmatch(r"[^-./\\\0][^/\\\0]{0,99}", v) is not None,
    "1 to 100 characters that can name a folder: no / or \\, and no - or . at the beginning",
)
TEXT_OR_NULL = Rule(lambda v: isinstance(v, str | None), "text, or null")
FLAG = Rule(lambda v: isinstance(v, bool), "true or false")
MAPPING = Rule(lambda v: isinstance(v, Mapping), "a mapping of NetworkConfig fields")
POSITIVE = number(lambda v: v > 0, "a finite number above 0")
NOT_NEGATIVE = number(lambda v: v >= 0, "0 or more")
PART = number(lambda v: 0 < v < 1, "between 0 and 1")
BELOW_ONE = number(lambda v: 0 <= v < 1, "at least 0 and below 1")
PROBABILITY = number(lambda v: 0 <= v <= 1, "in 0 to 1")

RULES = {
    "name": NAME,
    "source": TEXT,
    "preset": Rule(lambda v: isinstance(v, str | None), "the name of a preset"),
    "model": MAPPING,
    "dataset": choice(Dataset),
    "data_dir": TEXT_OR_NULL,
    "data_md5": TEXT_OR_NULL,
    "init_from": TEXT_OR_NULL,
    "init_shuffled": FLAG,
    "epochs": whole(1),
    "early_epochs": whole(0),
    "early_time_steps": whole(1),
    "max_steps": optional(whole(1)),
    "batch_size": whole(2),
    "accumulate": whole(1),
    "optimizer": choice(Optimizer),
    "momentum": BELOW_ONE,
    "nesterov": FLAG,
    "learning_rate": POSITIVE,
    "scale_learning_rate": optional(choice(Scaling)),
    "base_batch": optional(whole(1)),
    "min_learning_rate": optional(NOT_NEGATIVE),
    "weight_decay": NOT_NEGATIVE,
    "schedule": choice(Schedule),
    "warmup": optional(BELOW_ONE),
    "warmup_epochs": optional(NOT_NEGATIVE),
    "loss": choice(Loss),
    "tet_lambda": PROBABILITY,
    "tet_phi": number(lambda _: True, "a finite number"),
    "label_smoothing": BELOW_ONE,
    "mixup": NOT_NEGATIVE,
    "cutmix": NOT_NEGATIVE,
    "mix_probability": PROBABILITY,
    "cutmix_probability": PROBABILITY,
    "flip": FLAG,
    "skip_corrupt": FLAG,
    "max_shift": whole(0),
    "gradient_clip": optional(POSITIVE),
    "ema_decay": optional(PART),
    "precision": choice(Precision),
    "validation_fraction": PART,
    "seed": whole(0, 2**32 - 1),
    "save_every": optional(whole(1)),
    "tensorboard": FLAG,
}
