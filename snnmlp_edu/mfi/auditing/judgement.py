r"""What one operation may do in multiplication-free inference, and what is known of its result.

| operation | allowed where |
|---|---|
| linear map, convolution | in the stem; else where its input is in {0, 1}, so that a weight is added or not |
| product with constants | where each is 0 or plus or minus a power of two: a choice, a sign or a shift |
| any other product, division, normalisation | nowhere, unless all operands are constants |
| addition, comparison, selection, data movement | everywhere |
| custom or unknown operation, tensor of unknown origin | nowhere |
| numbers read by their bits, as another type | nowhere, unless they are constants |
| data that leave PyTorch as numbers | nowhere; a yes or no may leave |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .operations import (
    ANSWERS,
    BAGS,
    BIT_SHIFTS,
    FACTORIES,
    KINDS,
    MAPS,
    MULTIPLYING,
    OVERWRITES,
    POSITIONS,
    PRODUCTS,
    QUOTIENTS,
    RANDOM,
    REDUCTIONS,
    UNSET,
    Kind,
)
from .origins import (
    Number,
    Origin,
    in_words,
    is_binary,
    is_choice_or_shift,
    is_power_of_two,
    is_sign,
    is_whole,
    join,
)

ALWAYS, SEEN = "all inputs", "these inputs"

# Operands that choose among values or say where they go.
_SELECTORS = frozenset({"index", "indices", "mask", "condition", "repeats", "offsets", "boundaries"})
# Arguments that are values even where they come as Python numbers.
VALUES = frozenset(
    {"self", "other", "value", "fill_value", "min", "max", "min_val", "max_val", "values", "s"}
)


class Operand(NamedTuple):
    """A tensor, or a number written in Python, that goes into an operation.

    Its shape is data-dependent where its length depends on the data (`snnmlp_edu.mfi.auditing.exits`).
    """

    name: str
    value: Tensor | Number
    origin: Origin
    data_dependent_shape: bool = False

    @property
    def varies(self) -> bool:
        """Whether it depends on the data."""
        return self.origin is not Origin.CONSTANT


class Call(NamedTuple):
    """An operation that is about to run."""

    name: str
    arguments: dict[str, Any]
    operands: list[Operand]
    path: str
    checks: bool = False
    """Whether numbers that leave go no further than to a check of PyTorch's own."""

    def of(self, name: str | None) -> Operand | None:
        """The operand in an argument of this name."""
        return next((operand for operand in self.operands if operand.name == name), None)


class Judgement(NamedTuple):
    """What an operation turned out to be; `result` is the origin of what it returns."""

    kind: Kind
    result: Origin
    values: str
    violation: str | None = None
    holds: str = ALWAYS
    exercised: bool = True


def _multiplies(words: str, reason: str) -> Judgement:
    return Judgement(Kind.MULTIPLICATION, Origin.REAL, words, reason)


def _unknown(words: str, reason: str) -> Judgement:
    return Judgement(Kind.UNKNOWN, Origin.REAL, words, reason)


class Stem:
    """The first linear map of the model's own input, or the modules that the caller named.

    Args:
        paths: module paths; None takes the first map of the input, wherever its weights are used again.
        recording: whether the input is a recording in spikes, so that the stem has nothing to multiply.
    """

    def __init__(self, paths: tuple[str, ...] | None, recording: bool = False) -> None:
        self._paths = paths
        self.recording = recording
        self._weights: int | None = None

    def claims(self, path: str, data: Operand, weights: Operand) -> bool:
        """Whether a linear map is the stem."""
        if self._paths is not None:
            return any(path == stem or path.startswith(f"{stem}.") for stem in self._paths)
        if data.origin is not Origin.INPUT or not isinstance(weights.value, Tensor):
            return False
        memory = weights.value.untyped_storage()._cdata
        self._weights = self._weights or memory
        return memory == self._weights


def judge(call: Call, stem: Stem) -> Judgement:
    """Judge one operation of PyTorch's own, all of whose operands are of known origin.

    Args:
        call: the operation, before it runs: what it overwrites can still be seen.
        stem: what may multiply the input.
    """
    name, operands = call.name, call.operands
    kind = KINDS.get(name)
    words = _words(operands)
    if name in RANDOM:
        return _unknown(words, f"{name} draws random numbers")
    if name == "_local_scalar_dense":
        return _leave(call, words)
    if kind is None:
        return _unknown(words, f"{name} is an operation that the audit does not know")
    if any(isinstance(each.value, Tensor) and each.value.is_complex() for each in operands):
        return _unknown(words, "products may hide in complex numbers")
    if name == "linspace" and any(operand.varies for operand in operands):
        return _multiplies(words, "it divides the way between its ends")
    if name == "round" and call.arguments.get("decimals"):
        return _multiplies(words, "it multiplies by a power of ten")
    if name in FACTORIES:
        return Judgement(kind, Origin.CONSTANT, "constant")
    if name in UNSET:
        return Judgement(kind, Origin.REAL, "whatever was there")
    if not any(operand.varies for operand in operands):
        return Judgement(kind if kind is Kind.MOVEMENT else Kind.CONSTANT, Origin.CONSTANT, "constant")
    if name in ANSWERS:
        return Judgement(kind, Origin.BINARY, words, holds=SEEN)
    if name == "view" and _other_type(call):
        return _unknown(
            words, "it reads the bits of numbers as another type, and what is done to bits may be a product"
        )
    if name == "squeeze" and any(operand.data_dependent_shape for operand in operands):
        return Judgement(kind, _result(call, kind), words, holds=SEEN)  # one value, or not: a yes or no
    if call.arguments.get("reduce") is not None:
        return _reduce(call, words)
    if call.arguments.get("accumulate"):
        return Judgement(Kind.ADDITION, Origin.REAL, words)
    if name in MAPS:
        return _map(call, stem)
    for names, rule in _RULES:
        if name in names:
            return rule(call)
    if name in MULTIPLYING:
        return Judgement(kind, Origin.REAL, words, MULTIPLYING[name])
    return Judgement(kind, _result(call, kind), words)


def _words(operands: list[Operand]) -> str:
    """What goes in: origins of tensors, each once and constants last, then numbers."""
    tensors = {operand.origin for operand in operands if isinstance(operand.value, Tensor)}
    numbers = [in_words(operand.value) for operand in operands if not isinstance(operand.value, Tensor)]
    ordered = (Origin.INPUT, Origin.BINARY, Origin.REAL, Origin.CONSTANT)
    return ", ".join([*(origin.value for origin in ordered if origin in tensors), *numbers])


def _result(call: Call, kind: Kind) -> Origin:
    """The origin of what is moved, compared, selected, or made of it by adding and shifting."""
    if call.name in POSITIONS or call.name == "sign":
        return Origin.REAL
    parts = [
        (operand.origin, operand.value)
        for operand in call.operands
        if operand.name not in _SELECTORS and not (operand.name == "self" and call.name in OVERWRITES)
    ]
    if kind in (Kind.ADDITION, Kind.SHIFT):
        moved = {operand.origin for operand in call.operands} <= {Origin.INPUT, Origin.CONSTANT}
        return Origin.INPUT if moved and kind is Kind.ADDITION else Origin.REAL
    if call.name == "heaviside":
        parts = [part for operand, part in zip(call.operands, parts, strict=True) if operand.name == "values"]
    if call.name == "bitwise_not":
        return Origin.REAL  # of whole numbers -1 and -2; of yes and no it is known by their type
    origin = join(parts)
    return Origin.REAL if origin is Origin.INPUT and kind is not Kind.MOVEMENT else origin


def _other_type(call: Call) -> bool:
    """Whether a view is one of the same bits as numbers of another type."""
    value = call.operands[0].value
    return isinstance(value, Tensor) and call.arguments.get("dtype") not in (None, value.dtype)


def _reduce(call: Call, words: str) -> Judgement:
    """Values that come to one place are reduced there, in the way that an argument names."""
    way = REDUCTIONS.get(call.arguments["reduce"])
    if way is None:
        return _unknown(words, f"{call.name} reduces in a way that the audit does not know")
    return Judgement(KINDS[way], _result(call, KINDS[way]), words)


def _leave(call: Call, words: str) -> Judgement:
    """A value goes to Python: a yes or no may steer the run, a number could be multiplied unseen."""
    (operand,) = call.operands
    if not operand.varies:
        return Judgement(Kind.CONSTANT, Origin.CONSTANT, words)
    answer = isinstance(operand.value, Tensor) and operand.value.dtype is torch.bool
    if answer or call.checks:  # a check ends in an error, or none
        return Judgement(Kind.COMPARISON, Origin.BINARY, words, holds=SEEN)
    return _unknown(words, "a number that depends on the data leaves PyTorch, where no product can be seen")


def _map(call: Call, stem: Stem) -> Judgement:
    """A linear map or convolution: a weight for each spike, or a product."""
    first, second, _ = MAPS[call.name]
    one, other = call.of(first), call.of(second)
    assert one is not None
    assert other is not None
    if one.varies and other.varies:
        words = _words([one, other])
        return _multiplies(words, "it multiplies values of the data by values of the data, as attention does")
    scales = [name for name in ("alpha", "beta") if not is_power_of_two(call.arguments.get(name, 1))]
    if scales:
        reason = f"it scales what it adds ({', '.join(scales)} is no power of two)"
        return _multiplies(_words(call.operands), reason)
    if not (one.varies or other.varies):
        return Judgement(Kind.ADDITION, Origin.REAL, _words(call.operands))  # the data are in `added`
    data, weights = (one, other) if one.varies else (other, one)
    assert isinstance(data.value, Tensor)
    if stem.claims(call.path, data, weights) and not (stem.recording and is_binary(data.value)):
        return Judgement(Kind.STEM, Origin.REAL, in_words(data.value))
    return _accumulate(data.value, data.origin)


def _accumulate(spikes: Tensor, origin: Origin) -> Judgement:
    proven = origin is Origin.BINARY
    words, holds = in_words(spikes), ALWAYS if proven else SEEN
    if not is_binary(spikes):
        source = "the model's input, and this is not the stem" if origin is Origin.INPUT else words
        reason = f"a linear map meets {source}: only values in {{0, 1}} need no product"
        return _multiplies(words, reason)._replace(holds=ALWAYS if words == "real" else SEEN)
    exercised = bool(spikes.any())
    unproven = "nothing but 0 was seen here, and no comparison made it: that proves nothing"
    violation = None if exercised or proven else unproven
    return Judgement(Kind.ACCUMULATE, Origin.REAL, words, violation, holds, exercised)


def _bag(call: Call) -> Judgement:
    """Rows of a table, gathered and added: the events' way to write a linear map of spikes."""
    mode = call.arguments.get("mode", 0)
    if mode == 1 or call.of("per_sample_weights") is not None:
        reason = "a mean of rows divides" if mode == 1 else "rows are multiplied by weights of their own"
        return _multiplies("rows", reason)
    return Judgement(Kind.ACCUMULATE if mode == 0 else Kind.COMPARISON, Origin.REAL, "rows that fired")


def _quotient(call: Call) -> Judgement:
    divisor = call.of("other")
    if divisor is not None and divisor.varies:
        return _multiplies(_words(call.operands), "it divides by a value of the data")
    return _scale(call, "division")


def _scale(call: Call, what: str = "product") -> Judgement:
    factors = [operand for operand in call.operands if not operand.varies]
    if not factors:
        words = _words(call.operands)
        hint = " (a spike can select: torch.where)" if Origin.BINARY.value in words else ""
        return _multiplies(words, f"it multiplies values of the data by values of the data{hint}")
    (data,) = (operand for operand in call.operands if operand.varies)
    number = factors[0].value
    factor = in_words(number)
    words = f"{_words([data])}, {factor if factor != 'real' else 'constants'}"
    moved = Origin.INPUT if data.origin is Origin.INPUT else Origin.REAL
    if what == "product" and is_binary(number):
        return Judgement(Kind.SELECTION, data.origin, words)
    if (what == "product" and is_choice_or_shift(number)) or is_power_of_two(number):
        return Judgement(Kind.ADDITION if is_sign(number) else Kind.SHIFT, moved, words)
    constants = "constants that are not all powers" if factor == "real" else f"{factor}, which is no power"
    by = "by" if what == "division" else "with"
    return _multiplies(words, f"a {what} {by} {constants} of two")


def _sum(call: Call) -> Judgement:
    """Addition; `alpha` scales what is added, and is a sign or a shift or a product."""
    words = _words(call.operands)
    alpha = call.arguments.get("alpha", 1)
    if not is_power_of_two(alpha):
        return _multiplies(words, f"it adds {alpha:g} times a value, and that is no power of two")
    return Judgement(Kind.ADDITION, _result(call, Kind.ADDITION), words)


def _bit_shift(call: Call) -> Judgement:
    amount = call.of("other")
    words = _words(call.operands)
    if amount is not None and amount.varies:
        return _multiplies(words, "it shifts by a value of the data, which multiplies by its power of two")
    if amount is None or not is_whole(amount.value):
        return _multiplies(words, "it shifts by a part of a digit, which multiplies")
    return Judgement(Kind.SHIFT, Origin.REAL, words)


_RULES: tuple[tuple[Any, Callable[[Call], Judgement]], ...] = (
    (BAGS, _bag),
    (PRODUCTS, _scale),
    (QUOTIENTS, _quotient),
    ({"add", "sub", "subtract", "rsub", "index_add"}, _sum),
    (BIT_SHIFTS, _bit_shift),
)
