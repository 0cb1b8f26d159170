"""A network as a program on this machine's processor: what `engine.c` makes of the bytes of images."""

from __future__ import annotations

import functools
import os
import struct
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..data.settings import cores
from ..errors import InputError
from ..fields import whole
from ..mfi import event_driven
from .building import load_engine
from .exporting import write_network
from .file import NetworkFile, Spikes

THREADS = whole(1)
ALIGNMENT = 64  # of all that the engine is given
STRUCT_NETWORK = 256  # bytes; `struct network` takes fewer


class Header(NamedTuple):
    """The first 16 words of a network's file; `struct header` in `engine.c`."""

    magic: int
    size: int
    checksum: int
    steps: int
    layers: int
    constants: int
    memory: int
    tables: int
    lists: int
    logits: int
    classes: int
    image: int
    channels: int
    height: int
    width: int
    unused: int

    @classmethod
    def of(cls, content: bytes) -> Header:
        """The header of a file."""
        return cls._make(struct.unpack_from("<16i", content))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the images."""
        return self.channels, self.height, self.width


def compile_network(folded: nn.Module, preprocessing: Any = None) -> Program:
    """A folded network as a program that only adds, for this machine's processor.

    It counts in whole numbers, exactly as `event_driven(folded, weights="int8")` does. A C compiler is
    needed; what it makes serves all networks and is kept in the user's cache::

        program = compile_network(fold_batch_norm(load_pretrained("mlp_spe_nano")))
        program(load_embedded("test").images, threads=2).argmax(1)

    Args:
        folded: what `fold_batch_norm` returned.
        preprocessing: from stored pixels to the network's input, as in `event_driven`.

    Raises:
        InputError: there is no C compiler or it fails; or the network is not folded, or has something that
            whole numbers cannot represent.
    """
    load_engine()  # what is missing is said at once
    network = event_driven(folded, weights="int8", preprocessing=preprocessing)
    content, layout = write_network(network)
    return Program(content, layout, network.scales["head"])


class Program:
    """A network that runs on the bytes of images; `compile_network` makes it.

    Calls share nothing that changes: any number of threads may call one program at once.

    Args:
        content: the network's file, which `write_network` made.
        layout: where spikes lie in the memory of one image.
        scale: what one unit of the logits stands for.

    Raises:
        InputError: there is no C compiler or it fails, or the file is damaged.
    """

    def __init__(self, content: bytes, layout: NetworkFile, scale: float) -> None:
        self.content, self.layout, self.scale = content, layout, scale
        self._engine = load_engine()
        self._file = _aligned(len(content))
        self._file[:] = np.frombuffer(content, np.uint8)
        self._network = _aligned(STRUCT_NETWORK)
        wrong = self._engine.snn_open(self._network.ctypes.data, self._file.ctypes.data, len(content))
        if wrong is not None:
            raise InputError(f"the network's file cannot be run: {wrong.decode()}; export it again")
        header = Header.of(content)
        self.classes, self.time_steps, self.image_shape = header.classes, header.steps, header.image_shape
        self._tables, self._memory_bytes = _aligned(header.tables), header.memory
        self._engine.snn_prepare(self._network.ctypes.data, self._tables.ctypes.data)
        self._memories: deque[np.ndarray] = deque()  # whose ends threads may take from and add to

    def __reduce__(self) -> tuple[type[Program], tuple[bytes, NetworkFile, float]]:
        return Program, (self.content, self.layout, self.scale)  # addresses mean nothing elsewhere

    def __repr__(self) -> str:
        channels, height, width = self.image_shape
        takes, gives = f"uint8 [B, {channels}, {height}, {width}]", f"int32 [B, {self.classes}]"
        return f"Program({takes} -> {gives}, T = {self.time_steps}, {len(self.content):,} bytes)"

    def __call__(self, images: Tensor | np.ndarray, threads: int = 1) -> Tensor:
        """Logits in whole numbers, int32 `[B, classes]`; times `scale` they are the network's.

        Args:
            images: as they are stored, uint8 `[B, C, h, w]`, or one image `[C, h, w]`, for which B is 1.
            threads: how many images are worked on at once; never more than there are cores.

        Raises:
            InputError: the images have another type or shape or there are none, or `threads` is below 1.
        """
        threads = THREADS.check("threads", threads)
        pixels = self._pixels(images)
        logits = np.empty((len(pixels), self.classes), np.int32)
        workers = 1 if threads == 1 else min(threads, len(pixels), cores())
        if workers == 1:
            self._run(pixels, logits)
        else:
            self._share(pixels, logits, workers)
        return torch.from_numpy(logits)

    def spikes(self, image: Tensor | np.ndarray) -> dict[str, Tensor]:
        """All spikes of one image: by the path of their neurons, uint8 `[T, places, channels]`.

        Places are those of the grid, row by row.

        Args:
            image: as in a call, `[C, h, w]` or `[1, C, h, w]`.

        Raises:
            InputError: as in a call, or there are several images.
        """
        memory = self._after(image)
        return {layer.path: _spikes_of(layer, memory) for layer in self.layout.fired}

    def additions(self, image: Tensor | np.ndarray) -> dict[str, int]:
        """How many weights each map adds for one image: one for each spike and target; by path.

        Args:
            image: as in `spikes`.

        Raises:
            InputError: as in `spikes`.
        """
        return self.layout.additions(self._after(image))

    def _after(self, image: Tensor | np.ndarray) -> np.ndarray:
        """The memory after one image."""
        pixels = self._pixels(image)
        if len(pixels) != 1:
            raise InputError(f"there are {len(pixels)} images; spikes are shown of one at a time")
        return self._run(pixels, np.empty((1, self.classes), np.int32), keep=True)

    def _run(self, pixels: np.ndarray, logits: np.ndarray, keep: bool = False) -> np.ndarray:
        """Run images one after the other; returns the memory, which serves another run unless it is kept."""
        try:
            memory = self._memories.pop()
        except IndexError:
            memory = _aligned(self._memory_bytes)
        addresses = (pixels.ctypes.data, len(pixels), logits.ctypes.data, memory.ctypes.data)
        self._engine.snn_run(self._network.ctypes.data, *addresses)
        if not keep:
            self._memories.append(memory)
        return memory

    def _share(self, pixels: np.ndarray, logits: np.ndarray, workers: int) -> None:
        parts = deque(_parts(len(pixels), workers))

        def work() -> None:
            while True:
                try:
                    part = parts.popleft()
                except IndexError:
                    return
                self._run(pixels[part], logits[part])

        others = [_kept_threads(os.getpid()).submit(work) for _ in range(workers - 1)]
        try:
            work()
        finally:
            for other in others:
                if not other.cancel():  # one that has not begun is not waited for
                    other.result()

    def _pixels(self, images: Any) -> np.ndarray:
        if not isinstance(images, Tensor | np.ndarray):
            raise InputError(f"images are a {type(images).__name__}; give a tensor or an array of uint8")
        kind = str(images.dtype).removeprefix("torch.")
        if kind != "uint8":
            how = "(images * 255).round()" if "float" in kind else "images"
            held = "0 to 1" if "float" in kind else "0 to 255"
            raise InputError(
                f"images have type {kind}; the engine takes stored pixels, uint8: if they are in {held},"
                f" convert them with torch.as_tensor({how}).to(torch.uint8), before any preprocessing"
            )
        shape = tuple(images.shape)
        if len(shape) not in (3, 4) or shape[-3:] != self.image_shape:
            channels, height, width = self.image_shape
            raise InputError(
                f"images have shape {shape}; this network takes [B, {channels}, {height}, {width}], that is"
                f" {channels} channel(s) of {height} x {width} pixels"
            )
        if shape[0] == 0:
            raise InputError(f"images have shape {shape}, which holds none; give at least one")
        array = images.cpu().numpy() if isinstance(images, Tensor) else images
        return np.ascontiguousarray(array).reshape(-1, *self.image_shape)


def _aligned(size: int) -> np.ndarray:
    """So many bytes, all 0."""
    memory = np.zeros(size + ALIGNMENT, np.uint8)
    begin = -memory.ctypes.data % ALIGNMENT
    return memory[begin : begin + size]


def _parts(count: int, workers: int) -> Iterator[slice]:
    """Images that are run together: ever fewer, so that all threads end at the same time."""
    start = 0
    while start < count:
        end = start + max(1, (count - start) // (2 * workers))
        yield slice(start, end)
        start = end


@functools.cache
def _kept_threads(process: int) -> ThreadPoolExecutor:
    """The threads of this process; a copy of it, which fork makes, has none of them and starts its own."""
    return ThreadPoolExecutor(max_workers=max(1, cores() - 1), thread_name_prefix="snnmlp-engine")


def _spikes_of(layer: Spikes, memory: np.ndarray) -> Tensor:
    columns = memory[layer.at : layer.at + layer.places * layer.place]
    bits = np.unpackbits(columns.reshape(layer.places, layer.steps, layer.step), axis=-1, bitorder="little")
    return torch.from_numpy(np.ascontiguousarray(bits[..., layer.order].transpose(1, 0, 2)))
