r"""The LIF neuron's scan over time, compiled: one pass forward, one pass backward.

Both passes are the plain functions of `scan` over currents `[T, ...]`, which PyTorch's compiler turns into
one C++ loop (CPU) or one Triton kernel (CUDA). A batch norm and a shortcut before the neuron join the same
pass: the current is then :math:`x\,a + b + h`, with scale a and shift b for each feature and shortcut h.
Backward keeps only what came in and computes the membrane again.
"""

from __future__ import annotations

import functools
import logging
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..config import NeuronConfig
from ..errors import InputError
from .scan import scan_gradients, scan_steps

# Where a CUDA compiler is installed and no GPU, PyTorch would warn of it whenever it compiles for the CPU.
logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)


def _drive(x: Tensor, *more: Tensor) -> Tensor:
    """The current `x a + b + h`, of which `more` holds scale and shift, shift and shortcut, or fewer.

    A scale and a shift have one value for each feature of x, `[T, before, features]` or `[T, before,
    features, after]`; a shortcut has the shape of x.
    """
    vectors = [tensor.view(-1, *(1,) * (x.ndim - 3)) for tensor in more if tensor.ndim == 1]
    current = x * vectors[0] if len(vectors) == 2 else x
    current = current + vectors[-1] if vectors else current
    return current + more[-1] if more and more[-1].ndim > 1 else current


def forward_scan(config: NeuronConfig, *inputs: Tensor) -> Tensor:
    """Spikes for inputs that `_drive` turns into currents."""
    current = _drive(*inputs)
    # Cast before stacking: a stack of booleans compiles to a loop that is some 20 times slower.
    return torch.stack([fires.to(current.dtype) for _, fires in scan_steps(current, config)])


def forward_scan_with_current(config: NeuronConfig, *inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Spikes and currents."""
    current = _drive(*inputs)
    return forward_scan(config, current), current


def backward_scan(config: NeuronConfig, to_spikes: Tensor, *inputs: Tensor) -> Tensor:
    """Gradient at the currents, from the gradient at the spikes."""
    current = _drive(*inputs)
    distances = [distance for distance, _ in scan_steps(current, config)]
    to_potentials = scan_gradients(to_spikes, distances, config)
    # Multiplied before stacking: afterwards it would be one more pass.
    return torch.stack([config.input_gain * each for each in to_potentials]).to(current.dtype)


def backward_scan_with_current(
    config: NeuronConfig, to_spikes: Tensor, to_current: Tensor, *inputs: Tensor
) -> Tensor:
    """Gradient at currents that were handed out too, and so have a gradient of their own."""
    return backward_scan(config, to_spikes, *inputs) + to_current


def vector_width() -> dict[str, int]:
    """An option of PyTorch's compiler: code for vectors as wide as this process's, in bits.

    PyTorch keeps compiled graphs on disk and does not note for which vectors they were made. One made for
    AVX-512 would be built again where `ATEN_CPU_CAPABILITY` or another processor asks for AVX2, and then
    compute half of its entries. Named as an option, the width is part of what a graph is found by.
    """
    bits = {"AVX512": 512, "AVX2": 256}.get(torch.backends.cpu.get_cpu_capability())
    return {} if bits is None else {"cpp.simdlen": bits}


# Graphs by what they are specialised on, or why there is none: what failed once is not tried again.
_graphs: dict[tuple[Any, ...], Callable[..., Any] | str] = {}
_compiling = threading.RLock()  # options of the compiler are settings of all threads


def find_scan(
    scan: Callable[..., Any], config: NeuronConfig, first: Tensor, ranks: tuple[int, ...]
) -> Callable[..., Any]:
    """A scan for inputs of these ranks: its compiled graph, or, where none can be made, the scan as it is.

    Whatever changes state asks before it does: nothing can fail afterwards for want of a compiler.

    `first` is the first input, or another of its number of steps, dtype and device.

    Raises:
        InputError: there is no graph, and the neuron names the backend `compiled`.
    """
    if torch._dynamo.config.disable:
        return _as_it_is(scan, config, "torch.compile is disabled by the environment")
    if first.numel() >= 2**31:
        return _as_it_is(scan, config, "a graph counts entries in 32 bits, and here are more")
    key = (scan, config, first.shape[0], ranks, first.dtype, first.device)
    with _compiling:
        if key not in _graphs:
            _graphs[key] = _compile(*key)
        found = _graphs[key]
    if isinstance(found, str):
        return _as_it_is(scan, config, found)
    return functools.partial(_run_or_give_up, key, found)


def _run_or_give_up(key: tuple[Any, ...], graph: Callable[..., Any], *inputs: Tensor) -> Any:
    scan, config, _, _, dtype, device = key
    if not _fit(inputs, dtype, device):
        return scan(config, *inputs)
    try:
        return graph(*(x.contiguous() for x in inputs))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        _graphs[key] = _reason(error)  # a scan changes nothing, so it can begin again
        return run_scan(scan, config, *inputs)


def _fit(inputs: Sequence[Tensor], dtype: torch.dtype, device: torch.device) -> bool:
    """Whether a graph reads these inputs as what they are: it takes their memory, and asks nothing."""
    shape = inputs[0].shape
    return all(
        x.dtype == dtype and x.device == device and x.shape == (shape if x.ndim > 1 else shape[2:3])
        for x in inputs
    )


def _as_it_is(scan: Callable[..., Any], config: NeuronConfig, reason: str) -> Callable[..., Any]:
    if config.backend == "compiled":
        raise InputError(f"the LIF backend 'compiled' is not possible: {reason}; use 'auto' or 'eager'")
    _warn_once(reason)
    return functools.partial(scan, config)


@functools.cache
def _warn_once(reason: str) -> None:
    warnings.warn(f"LIF neurons run without a compiler, which is slower: {reason}", stacklevel=2)


# The axes of an input by its rank, and sizes to compile for: a loop over so many entries is worth all cores,
# and for fewer the compiler would take one.
_AXES: dict[int, tuple[str, ...]] = {
    1: ("features",),
    2: ("time", "entries"),
    3: ("time", "places", "features"),
    4: ("time", "before", "features", "after"),
}
_SIZES = {"entries": 2**16, "places": 1024, "before": 32, "features": 96, "after": 24}


def _compile(
    scan: Callable[..., Any],
    config: NeuronConfig,
    steps: int,
    ranks: tuple[int, ...],
    dtype: torch.dtype,
    device: torch.device,
) -> Callable[..., Any] | str:
    """One graph for this scan of inputs of these ranks, tried once; or why there is none.

    It is compiled ahead of time. `torch.compile` would look at each call whether the graph fits, which takes
    longer than the loop over a small layer; here the key says it, and `_fit`.
    """
    try:
        from torch._inductor import config as inductor
        from torch._inductor import standalone_compile
        from torch.export import Dim, export

        sizes = {"time": steps, **_SIZES}
        free: dict[str, Any] = {"time": Dim.STATIC, **{axis: Dim(axis, min=2) for axis in _SIZES}}
        shapes = [tuple(sizes[axis] for axis in _AXES[rank]) for rank in ranks]
        dynamic = tuple({i: free[axis] for i, axis in enumerate(_AXES[rank])} for rank in ranks)
        options = {"cpp.dynamic_threads": True, **vector_width()}
        # One graph needs no pool of processes that compile, of which each imports PyTorch.
        with torch.inference_mode(False), torch.no_grad(), inductor.patch(compile_threads=1):
            inputs: list[Any] = [torch.zeros(shape, dtype=dtype, device=device) for shape in shapes]
            traced = export(_Bound(scan, config), tuple(inputs), dynamic_shapes=(dynamic,), strict=False)
            graph = standalone_compile(traced.graph_module, inputs, options={"config_patches": options})
            found = graph(*inputs)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        return _reason(error)
    return graph if len(found) > 1 else lambda *inputs: graph(*inputs)[0]


class _Bound(torch.nn.Module):
    """A scan of one neuron, as `torch.export` takes it."""

    def __init__(self, scan: Callable[..., Any], config: NeuronConfig) -> None:
        super().__init__()
        self.scan, self.config = scan, config

    def forward(self, *inputs: Tensor) -> Any:
        return self.scan(self.config, *inputs)


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    reason = next((line for line in lines if "error" in line.lower()), lines[0])
    return f"torch.compile fails on this machine ({reason})"


def run_scan(scan: Callable[..., Any], config: NeuronConfig, *inputs: Tensor) -> Any:
    """What `scan(config, *inputs)` returns, from the graph of that scan where there is one.

    Raises:
        InputError: there is no graph, and the neuron names the backend `compiled`.
    """
    return find_scan(scan, config, inputs[0], tuple(x.ndim for x in inputs))(*inputs)


def _flatten(tensor: Tensor) -> Tensor:
    """The same values as `[T, N]`, N at least 2: a graph has a size of 1 built in, or never."""
    flat = tensor.reshape(tensor.shape[0], -1)
    return flat.repeat(1, 2) if flat.shape[1] == 1 else flat


def _scanned(scan: Callable[..., Any], config: NeuronConfig, *tensors: Tensor) -> Tensor:
    """What a scan of tensors of one shape returns, in that shape."""
    shape = tensors[0].shape
    found: Tensor = run_scan(scan, config, *map(_flatten, tensors))
    return found[:, : shape[1:].numel()].view(shape)


class _CompiledLIF(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, current: Tensor, config: NeuronConfig) -> Tensor:
        ctx.save_for_backward(current)
        ctx.config = config
        return _scanned(forward_scan, config, current)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (current,) = ctx.saved_tensors
        return _scanned(backward_scan, ctx.config, gradients[0].to(current.dtype), current), None


def compiled_lif(current: Tensor, config: NeuronConfig) -> Tensor:
    """Spikes `[T, ...]` for currents `[T, ...]`, by compiled scans.

    Raises:
        InputError: there is no graph, and the neuron names the backend `compiled`.
    """
    if current.numel() == 0:
        return current * 0  # nothing fires, and gradients still find their way
    tracked = torch.is_grad_enabled() and current.requires_grad
    return _CompiledLIF.apply(current, config) if tracked else _scanned(forward_scan, config, current)
