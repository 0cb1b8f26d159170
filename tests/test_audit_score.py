"""The audit's score: cheats that it must refuse, each with a real product or a way out, and honest modules.

`test_audit_violations.py` and `test_exits.py` look at reasons; here only the verdict counts.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from audited import IMAGES, Fires, small
from test_exits import between
from torch import Tensor, nn
from torch._higher_order_ops.associative_scan import associative_scan
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from snnmlp_edu import LIF, InputError, NeuronConfig
from snnmlp_edu.mfi import audit

Function = Callable[[Tensor], Tensor]


class Table(nn.Module):
    """A function of spikes and of a constant table `[8, 8]`, plain weights of both signs."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.register_buffer("table", torch.linspace(-1, 1, 64).view(8, 8))
        self.function = function

    def forward(self, spikes: Tensor) -> Tensor:
        return self.function(spikes, self.table)


def read(number: Callable[[Tensor], float]) -> Function:
    """A number that a tensor gives away becomes a factor."""
    return lambda s: s * 2.0 ** (number(s) % 3)


# --- cheats -----------------------------------------------------------------------------------------------


def scaled_by_bits(s: Tensor) -> Tensor:
    """The exponent's bits, added to themselves: 2.0 becomes 2 ** 128, and 1.0 times 4 is 4.0."""
    return ((s + 1).view(torch.int32) + (1 << 24)).view(torch.float32)


def bits_of_a_constant(s: Tensor, table: Tensor) -> Tensor:
    bits = table.view(torch.int32)
    bits.copy_((s @ table).view(-1)[:1].to(torch.int32).expand(8, 8) << 23)
    return s * table[0]


class OwnDispatch(Tensor):
    """A class of tensors whose every operation multiplies."""

    plain: Tensor

    @staticmethod
    def __new__(cls, plain: Tensor) -> OwnDispatch:
        made: OwnDispatch = Tensor._make_wrapper_subclass(cls, plain.shape, dtype=plain.dtype)
        made.plain = plain
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*(getattr(arg, "plain", arg) for arg in args), **(kwargs or {})) * 0.3


class OwnFunction(Tensor):
    """A class of tensors that reads the data in every call."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            factor = 2.0 ** (len(args[0].nonzero()) % 3)
            return func(*args, **(kwargs or {})).as_subclass(Tensor) * factor


class Duck:
    """No tensor, and asked all the same when it meets one."""

    def __init__(self, factor: Tensor) -> None:
        self.factor = factor

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        spikes, duck = args
        return spikes * 2.0 ** (len(duck.factor.nonzero()) % 3)


class Index:
    """A number to PyTorch, which asks for it inside its call."""

    def __init__(self, spikes: Tensor) -> None:
        self.spikes = spikes

    def __index__(self) -> int:
        return len(self.spikes.nonzero()) % 3


class IntIndex(int):
    spikes: Tensor

    def __index__(self) -> int:
        return len(self.spikes.nonzero()) % 3


def int_index(s: Tensor) -> Tensor:
    number = IntIndex(0)
    number.spikes = s
    return s * torch.tensor([1.0, 2.0, 4.0])[number]


def caught(s: Tensor) -> Tensor:
    """The length of a list of spikes, found by trying."""
    found = s[s > 0]
    for length in range(25):
        try:
            found.reshape(length)
        except RuntimeError:
            continue
        return s * 2.0 ** (length % 3)
    return s


class Cached(nn.Module):
    """Reads a number when it runs for the first time, and multiplies ever after."""

    def __init__(self) -> None:
        super().__init__()
        self.scale: float | None = None

    def forward(self, s: Tensor) -> Tensor:
        if self.scale is None:
            self.scale = 2.0 ** (int(s.sum()) % 3)
        return s * self.scale


class Aliased(nn.Module):
    """Two buffers over the same memory: written through one, read as a constant through the other."""

    def __init__(self) -> None:
        super().__init__()
        values = np.ones(1, np.float32)
        self.register_buffer("written", torch.from_numpy(values))
        self.register_buffer("read", torch.from_numpy(values))

    def forward(self, s: Tensor) -> Tensor:
        self.written.copy_(torch.where(s.sum() > 9, 4.0, 2.0))
        return s * self.read


class Handed(nn.Module):
    """NumPy gets hold of a constant's memory, which the data overwrite afterwards."""

    def __init__(self, hand: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(1))
        self.hand = hand

    def forward(self, s: Tensor) -> Tensor:
        outside = self.hand(self.count)
        self.count.copy_(s[0, :3].sum())
        return s * 2.0 ** float(np.asarray(outside).reshape(-1)[0])


class OwnMemory:
    """An object that shows NumPy a tensor's memory."""

    def __init__(self, tensor: Tensor) -> None:
        self.__array_interface__ = {
            "shape": tuple(tensor.shape),
            "typestr": "<f4",
            "data": (tensor.data_ptr(), False),
            "version": 3,
        }


class _Later:
    """A storage that NumPy reads when it is asked."""

    def __init__(self, storage: torch.UntypedStorage) -> None:
        self.storage = storage

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.frombuffer(bytes(self.storage), np.float32)


def _with_parameter() -> nn.Module:
    module = Table(lambda s, t: s + t[0])
    module.table = OwnDispatch(module.table)
    return module


def saved(s: Tensor) -> int:
    torch.save(s, file := io.BytesIO())
    return len(file.getvalue())


class Mode(TorchDispatchMode):
    """A watcher of the model's own, that multiplies what it sees."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {})) * 0.3


def under_a_mode(s: Tensor) -> Tensor:
    with Mode():
        return s + 0


def quietly(make: Callable[..., Any], *arguments: Any) -> Function:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own advice to use another compiler
        made: Function = make(*arguments)
    return made


def scripted_split(s: Tensor) -> Tensor:
    return s * 2.0 ** torch.tensor_split(torch.ones(8), s[0].long())[1].shape[0]


def cheat(function: Function) -> Callable[[], nn.Module]:
    return lambda: between(function)


def with_table(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], nn.Module]:
    return lambda: small(Table(function), Fires(0.5))


def without_modes(s: Tensor) -> Tensor:
    with _disable_current_modes():
        return s * s


def replaced_for_a_moment(s: Tensor) -> Tensor:
    def by_length(x: Tensor, lambd: float = 0.5) -> Tensor:
        return x.new_full(x.shape, 2.0 ** (len(x.nonzero()) % 3))

    with replaced("hardshrink", by_length, "AutogradCPU"):
        return functional.hardshrink(s)


@contextmanager
def replaced(name: str, function: Callable[..., Any], key: str) -> Iterator[None]:
    """PyTorch's own kernel gives way to another."""
    library = torch.library.Library("aten", "IMPL")
    try:
        library.impl(name, function, key)
        yield
    finally:
        library._destroy()


CHEATS: dict[str, Callable[[], nn.Module]] = {
    # bits read as another type
    "bits of spikes": cheat(scaled_by_bits),
    "bits of a constant": with_table(bits_of_a_constant),
    "bits by half": cheat(lambda s: (s.view(torch.int16) + 1).view(torch.float32)),
    "view as real": cheat(lambda s: torch.view_as_real(s.to(torch.complex64) * 0.3)[..., 0]),
    "view as complex": cheat(
        lambda s: torch.view_as_real(torch.view_as_complex(s.view(3, 4, 2)).square()).view(3, 8)
    ),
    "complex factor": cheat(lambda s: (s * 0.3j).imag),
    "set to other memory": cheat(lambda s: s * torch.empty(0).set_(s.sum(1, keepdim=True))),
    "data set": cheat(lambda s: setattr(x := torch.ones(3, 8), "data", s * 0.7) or x),
    "as_strided": cheat(lambda s: s * torch.as_strided(s, (3, 8), (8, 1), 0)),
    "resized": cheat(lambda s: torch.empty(2).resize_(3, 8) * s),
    # facts that are none
    "where a piece begins": cheat(read(lambda s: s[s > 0][-1].storage_offset())),
    "length of a likeness": cheat(read(lambda s: torch.ones(1).expand_as(s[s > 0]).shape[0])),
    "length of a broadcast": cheat(read(lambda s: len(torch.broadcast_tensors(s[s > 0], torch.ones(1))[1]))),
    "length of a mesh": cheat(
        read(lambda s: len(torch.meshgrid(torch.ones(2), s[s > 0], indexing="ij")[0][0]))
    ),
    "split where the data say": cheat(
        read(lambda s: torch.tensor_split(torch.ones(8), s.sum(1).long())[0].shape[0])
    ),
    "classes that the data count": cheat(read(lambda s: functional.one_hot(s.sum(1).long()).shape[1])),
    "format": cheat(read(lambda s: len(f"{s[0, :2].sum():.{1}f}"))),
    "saved": cheat(read(saved)),
    "copy registry": cheat(read(lambda s: len(str(s.__reduce_ex__(2))))),
    "storage": cheat(read(lambda s: s.storage()[0])),
    "bytes of the storage": cheat(read(lambda s: bytes(s.untyped_storage())[3])),
    "array interface": cheat(read(lambda s: float(np.asarray(OwnMemory(s)).sum()))),
    "interface of CUDA": cheat(read(lambda s: len(str(getattr(s, "__cuda_array_interface__", "abc"))))),
    "frombuffer": cheat(
        lambda s: torch.frombuffer(bytearray(s.numpy().tobytes()), dtype=torch.float32).view(3, 8)
    ),
    "map": cheat(lambda s: s.map_(s, lambda a, b: a * 0.3)),
    "hook on gradients": cheat(
        lambda s: (x := s.clone().requires_grad_(), x.register_hook(lambda g: g * 0.3), x)[2].detach() * 0.3
    ),
    "error caught": cheat(caught),
    "in-place count of versions": cheat(read(lambda s: s._version + len(s[s > 0]))),
    # memory handed out first, written afterwards
    "handed to numpy": lambda: small(Handed(lambda x: x.numpy()), Fires(0.5)),
    "handed as an array": lambda: small(Handed(np.asarray), Fires(0.5)),
    "handed by dlpack": lambda: small(Handed(np.from_dlpack), Fires(0.5)),
    "handed by address": lambda: small(Handed(lambda x: np.asarray(OwnMemory(x))), Fires(0.5)),
    "handed as a storage": lambda: small(Handed(lambda x: _Later(x.untyped_storage())), Fires(0.5)),
    "two buffers in one memory": lambda: small(Aliased(), Fires(0.5)),
    # code that is not seen
    "class with a dispatch": cheat(lambda s: OwnDispatch(s) + 0),
    "class with a function": cheat(lambda s: s.as_subclass(OwnFunction) + 0),
    "parameter of a class": lambda: small(_with_parameter(), Fires(0.5)),
    "duck": cheat(lambda s: torch.add(s, Duck(s))),
    "object as an index": cheat(lambda s: s * torch.tensor([1.0, 2.0, 4.0])[Index(s)]),
    "number of a class": cheat(int_index),
    "callback of a loss": cheat(
        lambda s: (
            functional.triplet_margin_with_distance_loss(
                s, s, s, distance_function=lambda a, b: a.new_full((3,), 2.0 ** len(a.nonzero()))
            )
            + s
        )
    ),
    "mode of its own": cheat(under_a_mode),
    "script": lambda: between(quietly(torch.jit.script, scripted_split)),
    "trace": lambda: between(quietly(torch.jit.trace, lambda s: s * s, torch.ones(3, 8))),
    "kernel replaced for a moment": cheat(replaced_for_a_moment),
    "modes switched off": cheat(without_modes),
    "number kept at first use": lambda: small(Cached(), Fires(0.5)),
    "weights indexed by a count": with_table(lambda s, t: s * t[s.sum().long() % 8]),
    "powers indexed by a count": cheat(
        lambda s: s * torch.tensor([1.0, 2.0, 4.0, 8.0])[s[0, :3].sum().long()]
    ),
    "piece of a table kept": with_table(lambda s, t: s * t[s.argmax() % 8][None].clone()),
    "position, then written": with_table(lambda s, t: (r := t[s.argmax()], r.fill_(0.3), s + r)[2]),
    "source written afterwards": with_table(
        lambda s, t: (r := t[s.argmax()], t.copy_(0.3 * s.sum(0).expand(8, 8)), s + r)[2]
    ),
    # products by other names
    "foreach product": cheat(lambda s: torch._foreach_mul([s], [s.flip(1)])[0]),
    "foreach product in place": cheat(lambda s: (torch._foreach_mul_([s], 0.3), s)[1]),
    "foreach weighted addition": cheat(lambda s: torch._foreach_add([s], [s], alpha=0.3)[0]),
    "foreach interpolation": cheat(lambda s: torch._foreach_lerp([s], [s.flip(1)], 0.3)[0]),
    "product in one branch": cheat(lambda s: torch.cond(s.any(), lambda x: x * 0.3, lambda x: x + 1, (s,))),
    "vmap": cheat(torch.vmap(lambda row: row * row.flip(0))),
    "jvp": cheat(lambda s: torch.func.jvp(lambda x: x * x, (s,), (s,))[1]),
    "gradient": cheat(torch.func.grad(lambda x: (x * x).sum())),
    "associative scan": cheat(lambda s: associative_scan(torch.mul, s, 0)),
    "scan": cheat(lambda s: torch._higher_order_ops.scan(lambda c, x: (c * x, c + 0), s[0], s, dim=0)[1]),
    "while loop": cheat(
        lambda s: torch._higher_order_ops.while_loop(
            lambda k, x: k < 2, lambda k, x: (k + 1, x * x), (torch.zeros((), dtype=torch.long), s)
        )[1]
    ),
    "checkpointed": cheat(
        lambda s: torch.utils.checkpoint.checkpoint(lambda x: x * x, s, use_reentrant=False)
    ),
    "sparse": cheat(lambda s: torch.sparse.mm(s.to_sparse(), torch.rand(8, 8))),
    "quantised": cheat(lambda s: torch.dequantize(torch.quantize_per_tensor(s, 0.3, 0, torch.qint8)) * 0.3),
    "einsum": cheat(lambda s: torch.einsum("ij,ij->ij", s, s)),
    "outer": cheat(lambda s: torch.outer(s[0, :3], s[1])),
    "variance": cheat(lambda s: s - s.var(1, keepdim=True)),
    "scattered products": cheat(
        lambda s: (s + 1).scatter_reduce(1, torch.zeros(3, 8, dtype=torch.long), s + 2, "prod")
    ),
    "scattered means": cheat(lambda s: s.scatter_reduce(1, torch.zeros(3, 8, dtype=torch.long), s, "mean")),
    "scatter that multiplies": cheat(
        lambda s: (s + 1).scatter(1, torch.zeros(3, 8, dtype=torch.long), 0.3, reduce="multiply")
    ),
    "three in a mask": cheat(lambda s: s * torch.tensor([0.0, 1.0, 3.0, -1.0]).repeat(2)),
    "linspace": cheat(lambda s: torch.linspace(torch.zeros(()), s.sum(), 8).expand(3, 8)),
    "power": cheat(lambda s: 2 ** s.cumsum(1)),
    "load by exponent": cheat(lambda s: torch.ldexp(s, s.flip(1))),
    "quantile": cheat(lambda s: s.quantile(0.3, dim=1, keepdim=True) + s),
    "distance": cheat(lambda s: torch.cdist(s[None], s[None])[0].repeat(1, 3)[:, :8]),
    "bilinear resize": cheat(
        lambda s: functional.interpolate(s[None, :, :4], size=8, mode="linear", align_corners=False)[0]
    ),
    "random gate": cheat(lambda s: torch.where(torch.rand(3, 8) > 0.5, s, 0.0)),
}


# --- kernels that other code puts in place of PyTorch's ---------------------------------------------------


KERNELS: dict[str, tuple[str, Callable[..., Any], str, Function]] = {
    "for the CPU": ("hardshrink", lambda x, lambd=0.5: x.clone() * 0.3, "CPU", functional.hardshrink),
    "for gradients": (
        "hardshrink",
        lambda x, lambd=0.5: x.new_full(x.shape, 2.0 ** len(x.nonzero())),
        "AutogradCPU",
        functional.hardshrink,
    ),
    "made of others": (
        "swapaxes",
        lambda x, a, b: x.new_full(x.shape, 2.0 ** len(x.nonzero())),
        "CompositeImplicitAutograd",
        lambda s: s.swapaxes(0, 0),
    ),
}


# --- honest modules ---------------------------------------------------------------------------------------


def gathered(s: Tensor, table: Tensor) -> Tensor:
    """The sum of the table's rows where spikes are, by events."""
    place, source = s.nonzero().unbind(1)
    return torch.zeros(3, 8).index_add(0, place, table[source])


def leaky(shift: Function, reset: Callable[[Tensor, Tensor], Tensor]) -> Function:
    """A neuron written by hand, over three steps of one current."""

    def run(s: Tensor) -> Tensor:
        membrane, spikes = torch.zeros_like(s), s
        for now in (s, s.flip(1), s.roll(1, 1)):
            membrane = shift(membrane) + now
            spikes = (membrane >= 1).to(s.dtype)
            membrane = reset(membrane, spikes)
        return spikes

    return run


def hard(v: Tensor, spikes: Tensor) -> Tensor:
    return torch.where(spikes > 0, 0.0, v)


def soft(v: Tensor, spikes: Tensor) -> Tensor:
    return v - spikes


def after(s: Tensor) -> Tensor:
    """Buffers written step by step."""
    out = torch.zeros(2, *s.shape)
    for step in range(2):
        out[step] = s
    return out[1]


LIFS = {
    f"LIF, {reset} reset, beta {beta}": NeuronConfig(
        beta=beta,
        reset=reset,
        input_gain=1.0,
        backend="eager",  # type: ignore[arg-type]
    )
    for reset in ("hard", "soft")
    for beta in (0.0, 0.25, 0.5, 1.0)
}


class Steps(nn.Module):
    """Neurons that see the same current twice; the last spikes go on."""

    def __init__(self, config: NeuronConfig) -> None:
        super().__init__()
        self.neuron = LIF(config)

    def forward(self, s: Tensor) -> Tensor:
        return self.neuron(torch.stack((s, s)))[-1]


INNOCENT: dict[str, Callable[[], nn.Module]] = {
    name: (lambda function=function: between(function))  # type: ignore[misc]
    for name, function in {
        "minus one": lambda s: -1 * s,
        "minus a power": lambda s: s * -0.25,
        "division by minus four": lambda s: s / -4,
        "negation": lambda s: -s,
        "signs": lambda s: s * torch.tensor([1.0, -1.0]).repeat(4),
        "mask of a constant": lambda s: s * torch.tensor([0.0, 1.0]).repeat(4),
        "mask of yes and no": lambda s: s * torch.tensor([False, True]).repeat(4),
        "powers and nothing": lambda s: s * torch.tensor([0.0, -2.0, 0.5, 1.0]).repeat(2),
        "times nothing": lambda s: 0 * s,
        "load by a constant exponent": lambda s: torch.ldexp(s, torch.tensor(-2)),
        "shift left and right": lambda s: ((s.int() << 3) >> 2).float(),
        "addition of half": lambda s: torch.add(s, s, alpha=0.5),
        "subtraction": lambda s: s - s.flip(1),
        "scaled by a power in a map": lambda s: torch.addmm(torch.zeros(8), s, torch.eye(8), alpha=-2),
        "one hot": lambda s: functional.one_hot(s.argmax(1), 8).float(),
        "one hot of a count": lambda s: functional.one_hot(s.sum(1).long(), 9)[:, :8].float(),
        "branch": lambda s: torch.cond(s.any(), lambda x: x + 1, lambda x: x - 1, (s,)),
        "foreach addition": lambda s: torch._foreach_add([s, s], [s, s.flip(1)])[1],
        "foreach addition in place": lambda s: (torch._foreach_add_([s], 1.0), s)[1],
        "foreach maximum": lambda s: torch._foreach_maximum([s], [s.flip(1)])[0],
        "foreach minimum": lambda s: torch._foreach_clamp_max([s], 0.5)[0],
        "foreach shift": lambda s: torch._foreach_mul([s], -0.5)[0],
        "foreach negation": lambda s: torch._foreach_neg([s])[0],
        "median": lambda s: s - s.median(1, keepdim=True).values,
        "median of all": lambda s: s - s.median(),
        "nanmedian": lambda s: s - s.nanmedian(1, keepdim=True).values,
        "running maximum": lambda s: s.cummax(1).values,
        "running minimum": lambda s: s.cummin(1).values,
        "mode": lambda s: s - s.mode(1, keepdim=True).values,
        "kth value": lambda s: s - s.kthvalue(2, 1, keepdim=True).values,
        "top k": lambda s: s - s.topk(2).values[:, :1],
        "sorted": lambda s: s.sort(1).values,
        "order": lambda s: s.gather(1, s.argsort(1)),
        "range of values": lambda s: s - s.aminmax(dim=1, keepdim=True).min,
        "running sum": lambda s: s.cumsum(1),
        "pooling by sums": lambda s: s.view(3, 4, 2).sum(-1).repeat(1, 2),
        "pooling by windows": lambda s: functional.pad(s.unfold(1, 3, 1).sum(-1), (1, 1)),
        "pooling by unfold": lambda s: functional.unfold(s.view(3, 1, 2, 4), 2).sum(1).repeat(1, 3)[:, :8],
        "fold of windows": lambda s: functional.fold(
            functional.unfold(s.view(3, 1, 2, 4), 1), (2, 4), 1
        ).view(3, 8),
        "a mean as sum and shift": lambda s: s.view(3, 4, 2).sum(-1).repeat(1, 2) / 2,
        "nearest neighbours": lambda s: functional.interpolate(s[:, None, :4], scale_factor=2)[:, 0],
        "mirrored border": lambda s: functional.pad(s[None, :, 1:-1], (1, 1), mode="reflect")[0],
        "copied border": lambda s: functional.pad(s[None, :, 1:-1], (1, 1), mode="replicate")[0],
        "channels shuffled": lambda s: functional.channel_shuffle(s.view(3, 8, 1, 1), 2).view(3, 8),
        "scattered sums": lambda s: s.scatter_add(1, torch.zeros(3, 8, dtype=torch.long), s),
        "scattered maxima": lambda s: s.scatter_reduce(1, torch.zeros(3, 8, dtype=torch.long), s, "amax"),
        "scattered by a reduction": lambda s: s.scatter_reduce(
            1, torch.zeros(3, 8, dtype=torch.long), s, "sum"
        ),
        "filled at places": lambda s: s.index_fill(1, torch.tensor([0, 2]), 1.0),
        "triangle": lambda s: s * torch.ones(8, 8).tril()[:3],
        "comparison of two": lambda s: (s > s.flip(1)).float(),
        "steered by a yes": lambda s: s + 1 if bool(s.any()) else s,
        "squeezed list": lambda s: (
            torch.zeros(8).index_put((s[0].nonzero().squeeze(1),), torch.tensor(1.0)).expand(3, 8)
        ),
        "vmap": torch.vmap(lambda row: row - row.amax()),
        "vmap of a selection": torch.vmap(lambda row: torch.where(row > 0, row.sum(), 0.0)),
        "jvp of an addition": lambda s: torch.func.jvp(lambda x: x + x, (s,), (s,))[1],
        "inference mode": torch.inference_mode()(lambda s: s + s.flip(1)),
        "same type": lambda s: s.view(torch.float32) + s.to(s),
        "shape of another": lambda s: torch.ones(1, 8).expand_as(s) + s.view_as(s),
        "whole numbers": lambda s: (s.to(torch.int8) + 1).float(),
        "logic": lambda s: ((s > 0) ^ (s.flip(1) > 0)).float(),
        "buffers step by step": after,
        "leak, hard reset": leaky(lambda v: v / 2, hard),
        "leak, soft reset": leaky(lambda v: v * 0.25, soft),
        "leak by subtraction": leaky(lambda v: v - v / 8, hard),
        "no leak": leaky(lambda v: v, soft),
        "whole-number leak": lambda s: leaky(lambda v: v.int() >> 1, hard)(s.int()).float(),
        "saturating membrane": leaky(lambda v: v.clamp(-1, 1), hard),
        "adaptive threshold": lambda s: (s >= torch.where(s.flip(1) > 0, 1.0, 0.5)).float(),
        "winner takes all": lambda s: (s == s.amax(1, keepdim=True)).float(),
    }.items()
}
INNOCENT |= {
    name: (lambda function=function: small(Table(function), Fires(0.5)))  # type: ignore[misc]
    for name, function in {
        "row of a table by argmax": lambda s, t: t[s.argmax(1)],
        "row by one argmax": lambda s, t: t[s.argmax()].expand(3, 8),
        "entry by two argmaxes": lambda s, t: s + t[s[0].argmax(), s[1].argmax()],
        "column by one argmax": lambda s, t: t[:3, s.argmax()][:, None].expand(3, 8),
        "embedding by argmax": lambda s, t: functional.embedding(s.argmax(1), t),
        "rows by index_select": lambda s, t: t.index_select(0, s.argmax(1)),
        "weights gathered": lambda s, t: t[:3].gather(1, s.long()),
        "take along": lambda s, t: torch.take_along_dim(t[:3], s.long(), 1),
        "gather and add": gathered,
        "bags": lambda s, t: functional.embedding_bag(
            s.nonzero()[:, 1], t, functional.pad(s.sum(1).cumsum(0)[:-1], (1, 0)).long(), mode="sum"
        ),
        "rows selected": lambda s, t: torch.where(s[..., None] > 0, t, 0.0).sum(1),
        "convolution of spikes": lambda s, t: functional.conv1d(s[:, None], t[:1, None, :3], padding=1)[:, 0],
        "transposed convolution": lambda s, t: functional.conv_transpose1d(s[:, None], t[:1, None, :1])[:, 0],
        "map by einsum": lambda s, t: torch.einsum("bi,oi->bo", s, t),
        "normalised weights": lambda s, t: s @ (t / t.norm(dim=1, keepdim=True)).T,
        "weights by bits": lambda s, t: s @ t.to(torch.float16).view(torch.int16).view(torch.float16).float(),
        "residual": lambda s, t: (s @ t) + s,
        "skip of currents": lambda s, t: torch.maximum(s @ t, s),
    }.items()
}
INNOCENT |= {
    name: (lambda config=config: small(Steps(config), Fires(0.5)))  # type: ignore[misc]
    for name, config in LIFS.items()
}


# PyTorch's function transforms use its own deprecated compiler, and cheats what else is deprecated.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning"),
    pytest.mark.filterwarnings("ignore:(TypedStorage|torch.quantize):UserWarning"),
]

# --- the score --------------------------------------------------------------------------------------------


def refused(model: nn.Module) -> bool:
    """Whether the audit does not call a model multiplication-free: by its verdict, or by an error."""
    try:
        return not audit(model.eval(), IMAGES).multiplication_free
    except InputError as error:
        return "\n" not in str(error)


class Score:
    """How many cheats were refused and how many honest modules passed, of all that ran."""

    def __init__(self) -> None:
        self.refused: list[bool] = []
        self.passed: list[bool] = []

    def __str__(self) -> str:
        cheats = f"cheats refused {sum(self.refused)} of {len(self.refused)}"
        return f"{cheats}, honest modules passed {sum(self.passed)} of {len(self.passed)}"


@pytest.fixture(scope="module")
def score(request: pytest.FixtureRequest) -> Iterator[Score]:
    found = Score()
    yield found
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(f"\n{found}")


@pytest.mark.parametrize("model", CHEATS.values(), ids=CHEATS)
def test_cheat_is_refused(model: Callable[[], nn.Module], score: Score) -> None:
    with torch.no_grad():
        assert model().eval()(IMAGES).shape == (3, 2)  # it is the audit that stops it, and nothing else
    score.refused.append(refused(model()))
    assert score.refused[-1]


@pytest.mark.parametrize(("name", "kernel", "key", "function"), KERNELS.values(), ids=KERNELS)
def test_replaced_kernel_is_refused(
    name: str, kernel: Callable[..., Any], key: str, function: Function, score: Score
) -> None:
    with replaced(name, kernel, key):
        score.refused.append(refused(between(function)))
    assert score.refused[-1]
    assert not refused(between(function))  # PyTorch's own again


@pytest.mark.parametrize("model", INNOCENT.values(), ids=INNOCENT)
def test_honest_module_passes(model: Callable[[], nn.Module], score: Score) -> None:
    report = audit(model().eval(), IMAGES)
    score.passed.append(report.multiplication_free)
    assert score.passed[-1], report.violations


def test_a_vanished_axis_is_a_yes_or_no() -> None:
    """Whether a list holds one spike decides how many axes are left: nothing is said of other inputs."""
    report = audit(between(lambda s: s * 2.0 ** s.nonzero().squeeze().ndim), IMAGES)
    assert report.verdict().endswith("1 of them only for the inputs seen")


def test_there_are_enough_of_both() -> None:
    assert len(CHEATS) + len(KERNELS) >= 60
    assert len(INNOCENT) >= 60
