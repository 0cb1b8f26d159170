"""The ReLU twin of a network as a graph of ONNX, run by ONNX Runtime: what a user would take instead.

The graph is written from the folded modules, one step long, once with channels first, so that a map along
the channels is a 1 x 1 convolution, and once with channels last, where it is one matrix product that adds
the bias too. Which of the two is faster depends on the machine and on the batch.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InputError
from ..fields import checked
from ..mfi.folding.layers import ChannelAffine, FoldedFigureHead, FoldedHead, SteppedLinear
from ..model.linear import AxisLinear
from ..model.mixing import (
    AxialMixing,
    FullMixing,
    InnerSkipBlock,
    MembraneSkipBlock,
    MixerBlock,
    NoMixing,
    NormalisedSpikeSkipBlock,
    NoSkipBlock,
    PositionMixing,
    SpikeSkipBlock,
)
from ..model.network import SpikingMLP
from ..model.patches import ConvNorm, ConvPatchEmbedding, SpikingPatchEncoding, Stem
from ..model.synapses import Synapse

Layout = Literal["channels first", "channels last"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
OPSET, IR_VERSION = 18, 9  # of ONNX; runtimes since 2023 read them
IMAGES, LOGITS = "images", "logits"  # the names of what goes in and comes out


@contextmanager
def _of_the_extra() -> Iterator[None]:
    """Within it packages of the extra `[bench]` are imported."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what these packages import in turn
            yield
    except ImportError as error:
        raise InputError(
            f"the ReLU twin in ONNX Runtime needs onnx and onnxruntime ({error}); run, in a clone:"
            " pip install -e '.[bench]'"
        ) from error


def check_installed() -> None:
    """Make sure that graphs can be written, quantised and run.

    Raises:
        InputError: onnx or onnxruntime is not installed.
    """
    with _of_the_extra():
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401


def write_twin(folded: nn.Module, layout: Layout) -> bytes:
    """The graph of a folded ReLU twin, from images `[B, channels, H, W]` to logits `[B, classes]`, in fp32.

    Args:
        folded: what `fold_batch_norm` made of a `SpikingMLP` with `activation="relu"` and one time step.
        layout: how values lie in memory between the layers.

    Raises:
        InputError: the network is another one, or holds a layer that has no form here; or onnx is missing.
    """
    checked("layout", layout, Layout)
    if not isinstance(folded, SpikingMLP):
        raise InputError(f"the graph is made of a SpikingMLP, and this is a {type(folded).__name__}")
    config = folded.config
    if config.activation != "relu" or config.time_steps != 1:
        raise InputError(
            f"activation is {config.activation} and time_steps is {config.time_steps}; the twin in ONNX has"
            " activation='relu' and time_steps=1"
        )
    graph = _Graph(layout == "channels last")
    logits = graph.network(folded, IMAGES)
    return graph.finish(logits, (config.in_channels, config.image_size, config.image_size))


def quantise(graph: bytes, images: Tensor) -> bytes:
    """The graph in int8: static, weights by channel, activations by the range that they have on images.

    Args:
        graph: what `write_twin` returned.
        images: preprocessed, of the kind that it was trained on, `[N, channels, H, W]`.

    Raises:
        InputError: onnx or onnxruntime is missing.
    """
    with _of_the_extra():
        import onnx
        from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter(images.split(16))

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {IMAGES: batch.numpy()}

    logger = logging.getLogger()
    level = logger.level
    with TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        logger.setLevel(logging.ERROR)  # it advises a preparation that finds nothing to do in these graphs
        try:
            quantization.quantize_static(
                onnx.load_from_string(graph),
                str(path),
                Reader(),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                reduce_range=True,  # else AVX2 saturates, and the accuracy depends on the machine
            )
        finally:
            logger.setLevel(level)
        return path.read_bytes()


class OnnxNetwork:
    """A graph in ONNX Runtime: a call takes preprocessed images, and returns logits.

    Args:
        graph: the graph.
        threads: how many it may use.

    Raises:
        InputError: onnxruntime is missing.
    """

    def __init__(self, graph: bytes, threads: int = 1) -> None:
        with _of_the_extra():
            import onnxruntime
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def __call__(self, images: Tensor) -> Tensor:
        """Logits `[B, classes]` of images `[B, channels, H, W]`."""
        return torch.from_numpy(self.session.run(None, {IMAGES: images.numpy()})[0])


class _Graph:
    """A graph in the making: each method writes what one module computes, and returns its output's name.

    Args:
        last: whether values lie as `[B H W, C]`, and not as `[B, C, H, W]`.
    """

    def __init__(self, last: bool) -> None:
        with _of_the_extra():
            import onnx
        self.onnx: Any = onnx
        self.last = last
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, values: Any) -> str:
        name = f"constant_{len(self.constants)}"
        array = np.ascontiguousarray(values.numpy() if isinstance(values, Tensor) else np.int64(values))
        self.constants.append(self.onnx.numpy_helper.from_array(array, name))
        return name

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        return self.nodes_with(kind, 1, *inputs, **attributes)[0]

    def nodes_with(self, kind: str, outputs: int, *inputs: str, **attributes: Any) -> list[str]:
        names = [f"{kind}_{len(self.nodes)}_{i}" for i in range(outputs)]
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(kind, list(inputs), names, name=name, **attributes))
        return names

    def finish(self, logits: str, image: tuple[int, int, int]) -> bytes:
        helper, kind = self.onnx.helper, self.onnx.TensorProto.FLOAT
        self.nodes.append(helper.make_node("Identity", [logits], [LOGITS]))
        inputs = [helper.make_tensor_value_info(IMAGES, kind, ["B", *image])]
        outputs = [helper.make_tensor_value_info(LOGITS, kind, ["B", "classes"])]
        graph = helper.make_graph(self.nodes, "relu_twin", inputs, outputs, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
        model.ir_version = IR_VERSION
        self.onnx.checker.check_model(model)
        content: bytes = model.SerializeToString()
        return content

    def add(self, one: str, other: str) -> str:
        return self.node("Add", one, other)

    def relu(self, activation: nn.Module, x: str) -> str:
        if type(activation) is not nn.ReLU:
            raise _unknown(activation)
        return self.node("Relu", x)

    def network(self, network: SpikingMLP, x: str) -> str:
        before: Any = None
        for stage, grid, width in zip(
            network.stages, network.config.grids, network.config.widths, strict=True
        ):
            shortcut = self.embedding(stage.embedding, x, before, width)
            x = self.relu(stage.neuron, shortcut)  # type: ignore[arg-type]
            for block in stage.blocks:  # type: ignore[union-attr]
                x, shortcut = self.block(block, x, shortcut, (*grid, width))
            before = (*grid, width)
        return self.head(network.head, x, before)

    def embedding(self, module: Any, x: str, before: Any, width: int) -> str:
        """Convolutions take channels first in either layout, and so do images.

        `before` is `(H, W, C)` of what comes in, None for images; `width` the channels of what goes out.
        """
        if before is not None and self.last:
            x = self.node("Transpose", self.reshape(x, *before), perm=[0, 3, 1, 2])
        match module:
            case Stem() | ConvPatchEmbedding():
                x = self.convolution(module.embed, x)
            case SpikingPatchEncoding():
                first, second, third = self.nodes_with(
                    "Split", 3, self.convolution(module.down, x), axis=1, num_outputs=3
                )
                between = module.between
                fired = self.relu(module.neurons[0], first)
                second = self.add(second, self.convolution(between[0], fired))
                fired = self.relu(module.neurons[1], second)
                third = self.add(self.add(third, first), self.convolution(between[1], fired))
                x = self.node("Concat", first, second, third, axis=1)
            case _:
                raise _unknown(module)
        if self.last:
            x = self.reshape(self.node("Transpose", x, perm=[0, 2, 3, 1]), width)
        return x

    def convolution(self, layer: Any, x: str) -> str:
        _refuse_norm(layer)
        conv = layer.conv
        return self.node(
            "Conv",
            x,
            self.constant(conv.weight),
            self.constant(conv.bias),
            kernel_shape=list(conv.kernel_size),
            strides=[layer.every * step for step in conv.stride],
            pads=2 * list(conv.padding),
        )

    def block(self, block: Any, x: str, shortcut: str, shape: tuple[int, int, int]) -> tuple[str, str]:
        """What leaves the block, and the current that the next one's shortcut carries."""
        fuse, up, down = block.token.fuse, block.channel.up, block.channel.down
        token = self.current(fuse, self.positions(block.token.positions, x, shape), shape)

        def raised(fired: str) -> str:
            return self.current(up, fired, shape)

        def lowered(current: str) -> str:
            return self.current(down, self.relu(up.neuron, current), shape)

        def channel(fired: str) -> str:
            return lowered(raised(fired))

        match block:
            case MembraneSkipBlock():
                shortcut = self.add(shortcut, token)
                shortcut = self.add(shortcut, channel(self.relu(fuse.neuron, shortcut)))
                return self.relu(down.neuron, shortcut), shortcut
            case NormalisedSpikeSkipBlock():
                x = self.relu(fuse.neuron, self.add(self.affine(block.token_skip_norm, x), token))
                current = self.add(self.affine(block.channel_skip_norm, x), channel(x))
                return self.relu(down.neuron, current), shortcut
            case SpikeSkipBlock():
                x = self.add(self.relu(fuse.neuron, token), x)
                return self.add(self.relu(down.neuron, channel(x)), x), shortcut
            case NoSkipBlock():
                return self.relu(down.neuron, channel(self.relu(fuse.neuron, token))), shortcut
            case InnerSkipBlock():
                current = raised(self.relu(fuse.neuron, token))
                return self.relu(down.neuron, self.add(lowered(current), current)), shortcut
            case MixerBlock() if type(block) is MixerBlock:
                current = self.add(shortcut, token)
                current = self.add(current, channel(self.relu(fuse.neuron, current)))
                return self.relu(down.neuron, current), shortcut
            case _:
                raise _unknown(block)

    def positions(self, mixing: Any, x: str, shape: tuple[int, int, int]) -> str:
        """All that comes from the positions, side by side along the channels."""
        match mixing:
            case AxialMixing():
                parts: Sequence[PositionMixing] = (mixing.rows, mixing.columns)
            case FullMixing():
                parts = (mixing.grid,)
            case NoMixing():
                return x
            case _:
                raise _unknown(mixing)
        mixed = [self.relu(p.synapse.neuron, self.current(p.synapse, x, shape)) for p in parts]
        return self.node("Concat", x, *mixed, axis=1)

    def current(self, synapse: Synapse, x: str, shape: tuple[int, int, int]) -> str:
        """The current of a synapse: its map along one axis of a grid `(H, W, C)`."""
        _refuse_norm(synapse)
        linear: Any = synapse.linear
        if isinstance(linear, SteppedLinear):
            linear = linear.steps[0]  # of one step
        if not isinstance(linear, AxisLinear):
            raise _unknown(linear)
        height, width, channels = shape
        weight, bias = linear.weight, linear.bias
        match linear.axis:
            case "channel" if self.last:
                return self.node("Gemm", x, self.constant(weight.t()), self.constant(bias))
            case "channel":
                kernel, shift = self.constant(weight[:, :, None, None]), self.constant(bias)
                return self.node("Conv", x, kernel, shift, kernel_shape=[1, 1])
            case _ if self.last:
                places = width * channels if linear.axis == "height" else channels  # that share one line
                mixed = self.along_rows(weight, bias, self.reshape(x, len(weight), places))
                return self.reshape(mixed, channels)
            case "width":
                return self.along_columns(weight, bias, x)
            case "height":
                return self.along_rows(weight, bias, x)
            case "token":
                x = self.reshape(x, channels, height * width)
                return self.reshape(self.along_columns(weight, bias, x), channels, height, width)

    def reshape(self, x: str, *shape: int) -> str:
        return self.node("Reshape", x, self.constant([-1, *shape]))

    def along_rows(self, weight: Tensor, bias: Tensor, x: str) -> str:
        """`M x + b` of matrices x, on the last axis but one."""
        return self.add(self.node("MatMul", self.constant(weight), x), self.constant(bias[:, None]))

    def along_columns(self, weight: Tensor, bias: Tensor, x: str) -> str:
        """The same on the last axis."""
        return self.add(self.node("MatMul", x, self.constant(weight.t())), self.constant(bias))

    def affine(self, module: nn.Module, x: str) -> str:
        if not isinstance(module, ChannelAffine):
            raise _unknown(module)
        shape = (-1,) if self.last else (-1, 1, 1)
        scale, shift = (self.constant(values.view(shape)) for values in (module.scale, module.shift))
        return self.add(self.node("Mul", x, scale), shift)

    def head(self, head: Any, x: str, shape: tuple[int, int, int]) -> str:
        """The sum over the grid comes before the map: that is the same, and less work."""
        match head:
            case FoldedHead():
                bias = head.bias
            case FoldedFigureHead():
                x, bias = self.affine(head.affine, x), head.linear.bias
            case _:
                raise _unknown(head)
        height, width, channels = shape
        x = self.reshape(x, height * width, channels) if self.last else x
        x = self.node("ReduceSum", x, self.constant([1] if self.last else [2, 3]), keepdims=0)
        if isinstance(head, FoldedFigureHead):
            x = self.relu(head.neuron, self.add(x, self.constant(head.shift)))
        return self.node("Gemm", x, self.constant(head.linear.weight.t()), self.constant(bias))


def _refuse_norm(layer: Synapse | ConvNorm) -> None:
    if type(layer.norm) is not nn.Identity:
        raise InputError(
            f"a {type(layer).__name__} holds a {type(layer.norm).__name__}; fold the network first, by"
            " snnmlp_edu.mfi.fold_batch_norm"
        )


def _unknown(module: nn.Module) -> InputError:
    return InputError(
        f"a {type(module).__name__} has no form in the graph of the ReLU twin; extend"
        " snnmlp_edu/benchmark/onnx_twin.py"
    )
