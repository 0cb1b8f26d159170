"""The file that `engine.c` runs: a header, a list of layers, and their constants.

Spikes lie in *columns*, T of them for each place, one bit for each channel; channels lie in *lanes*, filled
up to whole registers of 16.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np

from ..errors import InputError

SOURCE = Path(__file__).with_name("engine.c")
LANES = 16  # of a register


@cache
def declared(name: str) -> int:
    """The value of a constant that `engine.c` declares in an `enum`.

    >>> declared("COPY"), declared("PATCHES")
    (0, 1)
    """
    for entries in re.findall(r"^enum \{ ([^}]+) \};", SOURCE.read_text(), re.MULTILINE):
        for number, entry in enumerate(entries.split(", ")):
            found, _, value = entry.partition(" = ")
            if found == name:
                return int(value, 0) if value else number
    raise AssertionError(f"engine.c declares no {name}")


@cache
def _fields() -> tuple[str, ...]:
    """The fields of a layer, in the order in which `engine.c` declares them."""
    layer = re.search(r"struct layer \{(.*?)\n\};", SOURCE.read_text(), re.DOTALL)
    assert layer is not None
    names = re.findall(r"int32_t ([^;]+);", layer[1])
    return tuple(name.strip() for line in names for name in line.split(","))


@dataclass(frozen=True)
class Spikes:
    """Where the spikes of a grid, or of lines of positions, lie in the memory of one image.

    Args:
        at: offset of the first column, in bytes.
        places: number of places.
        lanes: number of lanes, a multiple of 16.
        steps: columns of each place.
        order: the lane of each channel.
        path: path of the neurons in the network.
    """

    at: int
    places: int
    lanes: int
    steps: int
    order: np.ndarray
    path: str = ""

    @property
    def step(self) -> int:
        """Bytes of one column."""
        return self.lanes // 8

    @property
    def place(self) -> int:
        """Bytes of all columns of one place."""
        return self.steps * self.step

    def sources(self) -> np.ndarray:
        """Where the columns of each place begin."""
        return self.at + self.place * np.arange(self.places)


@dataclass(frozen=True)
class Currents:
    """Where currents of `word` bits lie: `[places, steps, lanes]`, or the same for all steps."""

    at: int
    place: int
    step: int
    word: int


@dataclass(frozen=True)
class Map:
    """What a map reads, so that its additions can be counted.

    Args:
        path: of the map in the network.
        sources: where the columns begin that it reads, `[places, parts]`.
        steps: columns from there on.
        size: bytes of a column.
        outputs: weights that each spike adds.
    """

    path: str
    sources: np.ndarray
    steps: int
    size: int
    outputs: int


@dataclass
class NetworkFile:
    """A file in the making: what was allocated, the layers, and the constants.

    Args:
        steps: T.
    """

    steps: int
    layers: list[dict[str, int]] = field(default_factory=list)
    constants: bytearray = field(default_factory=bytearray)
    memory: int = 64  # offset 0 means none
    tables: int = 64 * -(-(64 + 256 * 17) // 64)  # what struct bits takes comes first
    lists: int = 0
    fired: list[Spikes] = field(default_factory=list)
    maps: list[Map] = field(default_factory=list)
    _known: dict[bytes, int] = field(default_factory=dict)

    def allocate(self, size: int) -> int:
        """Room in the memory of one image."""
        at = self.memory
        self.memory += 64 * -(-size // 64)
        return at

    def constant(self, values: np.ndarray, dtype: str) -> int:
        """Constants; the same ones are kept once.

        Raises:
            InputError: one does not fit into its type.
        """
        stored = np.ascontiguousarray(values, dtype=np.dtype(dtype).newbyteorder("<"))
        if not np.array_equal(stored, values):
            raise InputError(f"a constant exceeds {stored.dtype.name}, so the engine cannot run this network")
        content = stored.tobytes()
        if content not in self._known:
            self.constants += bytes(-len(self.constants) % 64)
            self._known[content] = len(self.constants)
            self.constants += content
        return self._known[content]

    def layer(self, kind: str, **values: int) -> None:
        """One more layer; fields that are not named are 0."""
        unknown = set(values) - set(_fields())
        assert not unknown, unknown
        self.layers.append({"kind": declared(kind), **{name: int(value) for name, value in values.items()}})

    def count(self, path: str, sources: np.ndarray, part: Spikes, outputs: int) -> None:
        """Remember what a map reads."""
        self.maps.append(Map(path, sources, part.steps, part.step, outputs))

    def additions(self, memory: np.ndarray) -> dict[str, int]:
        """Weights that each map added for the image whose spikes are in the memory, uint8; by path."""
        spikes = np.bitwise_count(memory)
        within = {
            map_.path: map_.sources[..., None] + np.arange(map_.steps * map_.size) for map_ in self.maps
        }
        return {m.path: int(spikes[within[m.path]].sum()) * m.outputs for m in self.maps}

    def spikes(self, places: int, lanes: int, order: np.ndarray, path: str = "") -> Spikes:
        """Room for the spikes of a grid."""
        found = Spikes(
            self.allocate(places * self.steps * lanes // 8), places, lanes, self.steps, order, path
        )
        if path:
            self.fired.append(found)
        return found

    def currents(self, places: int, lanes: int, word: int, steps: int | None = None) -> Currents:
        """Room for currents of 16 or 32 bits."""
        steps = steps or self.steps
        size = lanes * word // 8
        at = self.allocate(places * steps * size)
        return Currents(at, steps * size, size if steps > 1 else 0, word)

    def finish(self, image: tuple[int, int, int], logits: int, classes: int) -> bytes:
        """The bytes of the file.

        Args:
            image: channels, height and width of the images.
            logits: offset of the logits in the memory.
            classes: how many there are.
        """
        layers = b"".join(
            struct.pack(f"<{len(_fields())}i", *(v.get(f, 0) for f in _fields())) for v in self.layers
        )
        layers += bytes(-len(layers) % 64)
        lists = self.allocate(self.lists)
        body = [
            self.steps,
            len(self.layers),
            64 + len(layers),
            self.memory,
            self.tables,
            lists,
            logits,
            classes,
        ]
        body += [int(np.prod(image)), *image, 0]
        constants = bytes(self.constants) + bytes(-len(self.constants) % 4)
        size = 64 + len(layers) + len(constants)
        if max(size, self.memory, self.tables) >= 2**31:
            raise InputError("this network takes more than 2 GB as a program; build a smaller one")
        rest = struct.pack("<13i", *body) + layers + constants
        return struct.pack("<iiI", declared("MAGIC"), size, checksum(rest)) + rest


def checksum(content: bytes) -> int:
    """The sum of all 32-bit words, and the sum of all sums on the way, in one number."""
    words = np.frombuffer(content, "<u4").astype(np.uint32)
    sums = np.cumsum(words, dtype=np.uint32)
    total, twice = (int(sums[-1]), int(sums.sum(dtype=np.uint32))) if len(words) else (0, 0)
    return total ^ ((twice << 1 | twice >> 31) & 0xFFFFFFFF)
