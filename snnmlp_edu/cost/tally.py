"""What each kind of layer adds to the count, from its inputs and outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

import torch
from torch import Tensor, nn

from ..baselines.convolution import SpikePool
from ..baselines.resnet import FiringStem, ResidualBlock, ResidualStage, SpikingResNet
from ..baselines.vgg import ConvolutionStage, FullyConnectedStage, SpikingVGG
from ..errors import InputError
from ..mfi.auditing.origins import is_binary
from ..mfi.folding.layers import ChannelAffine, FoldedFigureHead, FoldedHead, SelectedAffine, SteppedLinear
from ..mfi.folding.rules import NotFolded, outcomes
from ..mfi.known import (
    AFFINE,
    CONTAINERS,
    FOLDED_HEADS,
    MAPS,
    NEURONS,
    NORMALISATIONS,
    STATISTICS,
    lets_only_spikes_through,
)
from ..model.linear import AxisLinear
from ..model.mixing import MixerBlock, NormalisedSpikeSkipBlock, wiring_of
from ..model.network import Head, SpikingNetwork, parts_of
from ..model.neurons import LIF
from ..model.normalisation import BatchNorm, LayerNorm
from ..model.patches import ConvNorm, SpikingPatchEncoding
from .fan_out import Reached, reached
from .results import Cost, LayerCost, Operations

# Of each value: scale and shift. Layer norm squares it too, and scales by what its squares add up to.
BATCH_NORM_MACS, LAYER_NORM_MACS = 1, 3

# What these do, the layers inside them do; max pooling compares.
_SILENT = CONTAINERS | {
    SpikingResNet,
    SpikingVGG,
    ResidualStage,
    FiringStem,
    ConvolutionStage,
    FullyConnectedStage,
    SpikePool,
}
# Layers that are counted, each by its exact class, and also every block that states its wiring.
KNOWN = (
    _SILENT
    | MAPS
    | NORMALISATIONS
    | STATISTICS
    | NEURONS
    | AFFINE
    | FOLDED_HEADS
    | {Head, nn.Linear, nn.ReLU, SpikingPatchEncoding, ResidualBlock}
)


def parts_by_path(network: nn.Module) -> dict[str, str]:
    """The part to which each module belongs, for those that belong to one."""
    modules = list(network.named_modules())
    parts = list(parts_of(network))
    parts += [("fully connected", path, m) for path, m in modules if isinstance(m, FullyConnectedStage)]
    parts += [
        ("shortcut", f"{path}.shortcut", m.shortcut) for path, m in modules if isinstance(m, ResidualBlock)
    ]
    parts += [("convolution", path, m) for path, m in modules if isinstance(m, ConvNorm)]
    names: dict[str, str] = {}
    for part, path, module in parts:
        for below, _ in module.named_modules(prefix=path):
            names.setdefault(below, part)
    return names


class Tally:
    """Collects the entries of `Cost` while a network runs.

    Args:
        network: the network.
        images: how many images run through it.
        recording: whether they are recordings in spikes, which the stem adds instead of multiplying.
    """

    def __init__(self, network: SpikingNetwork, images: int, recording: bool = False) -> None:
        self.network = network
        self.images = images
        self.recording = recording
        self.parts = parts_by_path(network)
        self.real = _is_real(network)
        self.layers: list[LayerCost] = []
        self.norm_macs: dict[str, int] = {}
        self.firing_rates: dict[str, tuple[float, ...]] = {}
        self.neuron_updates = self.membrane_bytes = self.skip_additions = 0
        self.latest: Tensor | None = None  # output of the neurons that ran last
        self.head_before: Operations | None = None

    def observer(self, path: str, module: nn.Module) -> Callable[..., None] | None:
        """The hook for a module's inputs and output; the module is of a class in `KNOWN`, or a block."""
        # The head counts its own map, and a SteppedLinear those of its steps.
        within = path.startswith("head.") or ".steps." in path
        match module:
            case BatchNorm() | LayerNorm():
                return self.see_norm
            case LIF() | nn.ReLU():
                return self.see_neurons
            case MixerBlock() | SpikingPatchEncoding() | ResidualBlock():
                return self.see_shortcut
            case AxisLinear() | nn.Conv2d() | SteppedLinear():
                return None if within else self.see_map
            case ChannelAffine():
                return None if within else self.see_norm
            case Head() | FoldedHead() | FoldedFigureHead():
                return self.see_head
            case SelectedAffine() | nn.Linear() | nn.BatchNorm1d() | nn.SyncBatchNorm() | nn.LayerNorm():
                return None  # it selects; or the head and the normalisations count it
            case _ if type(module) in _SILENT:
                return None
        raise InputError(
            f"{path} is a {type(module).__name__}, which count_operations does not know; extend"
            " snnmlp_edu/cost/tally.py"
        )

    def see_map(self, path: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """A linear map or convolution: what arrives, times what it reaches."""
        first = inputs[0]
        runs = len(first) // self.images if isinstance(module, nn.Conv2d) else len(first)
        part = self._part(path)
        if part == "stem":
            binary = self.recording
        else:
            binary = not self.real and all(is_binary(values) for values in inputs)
        layer = module.steps[0] if isinstance(module, SteppedLinear) else module
        arrived = [reached(layer, values) for values in inputs]
        self._add_row(path, part, binary, runs, Reached(*map(sum, zip(*arrived, strict=True))))

    def see_head(self, path: str, module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        """The head: each spike adds a weight for each class or, before a neuron, one constant."""
        spikes, classes = inputs[0], self.network.config.num_classes
        steps, channels, values = len(spikes), spikes.shape[-1], spikes[0, 0].numel()
        fired = int(torch.count_nonzero(spikes))
        binary = not self.real and is_binary(spikes)
        linear = nn.Linear(channels, classes, device="meta")
        if _has_neurons(module):
            assert self.latest is not None  # the head's own neurons ran last
            self._add_row(path, "head", binary, steps, Reached(spikes.numel(), fired, fired))
            self._add_row("head.linear", "head", not self.real, steps, reached(linear, self.latest))
        elif self.real:
            # Summed over the grid first: the batch norm is in the linear map and the sum has no weights.
            self._add_row(path, "head", True, steps, Reached(spikes.numel(), fired, spikes.numel()))
            self._add_row("head.linear", "head", False, steps, reached(linear, spikes.sum(dim=(2, 3))))
        else:
            self._add_row("head.linear", "head", binary, steps, reached(linear, spikes))
        if isinstance(module, Head):
            self.head_before = self._head_as_written(module, steps, channels, values)

    def _head_as_written(self, head: Head, steps: int, channels: int, values: int) -> Operations:
        """What `Head` computes: mean over the grid, linear map, mean over the steps."""
        classes = self.network.config.num_classes
        last = self.layers[-1]
        weighed = last.operations if _has_neurons(head) else Operations(steps * channels * classes, 0)
        return Operations(
            weighed.macs + steps * channels + classes, weighed.accumulates + steps * (values + classes)
        )

    def see_norm(self, path: str, module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        """A normalisation that is computed."""
        macs = LAYER_NORM_MACS if isinstance(module, LayerNorm) else BATCH_NORM_MACS
        self.norm_macs[path] = macs * output.numel() // self.images

    def see_neurons(self, path: str, module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        """A layer of neurons: one update for each at each step."""
        fired = torch.count_nonzero(output.flatten(1), dim=1)
        self.firing_rates[path] = tuple((fired.double() / output[0].numel()).tolist())
        self.neuron_updates += output.numel() // self.images
        self.latest = output
        if isinstance(module, LIF):  # its membranes are in single precision at least
            self.membrane_bytes += output[0].numel() // self.images * max(4, output.element_size())

    def see_shortcut(
        self, path: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor | tuple[Tensor, ...]
    ) -> None:
        """Where currents join: for each value as many additions as the wiring has."""
        joined = output if isinstance(output, Tensor) else output[0]
        self.skip_additions += _additions(module) * joined.numel() // self.images

    def _part(self, path: str) -> str:
        if path not in self.parts:
            raise InputError(
                f"{path} is a map in no part that count_operations knows; extend parts_of in"
                " snnmlp_edu/model/network.py"
            )
        return self.parts[path]

    def _add_row(self, path: str, part: str, binary: bool, runs: int, arrived: Reached) -> None:
        self.layers.append(
            LayerCost(
                path,
                part,
                "accumulate" if binary else "multiply-accumulate",
                runs,
                arrived.dense // (runs * self.images),
                arrived.spikes,
                arrived.events,
                self.images,
            )
        )

    def cost(self, mac_joules: float, accumulate_joules: float) -> Cost:
        """The cost of one image."""
        stays = {outcome.path for outcome in outcomes(self.network) if isinstance(outcome, NotFolded)}
        if not lets_only_spikes_through(self.network):  # what is no spike is scaled for good
            stays |= {
                f"{path}.{norm}"
                for path, block in self.network.named_modules()
                if isinstance(block, NormalisedSpikeSkipBlock)
                for norm in ("token_skip_norm", "channel_skip_norm")
            }
        constants = self.network.state_dict().values()
        return Cost(
            layers=tuple(self.layers),
            skip_additions=self.skip_additions,
            normalisation_macs=sum(self.norm_macs.values()),
            unfoldable_macs=sum(
                macs for path, macs in self.norm_macs.items() if stays & {path, path.rpartition(".")[0]}
            ),
            head_before_folding=self.head_before,
            neuron_updates=self.neuron_updates,
            firing_rates=self.firing_rates,
            weight_bytes=sum(tensor.nbytes for tensor in constants if tensor.is_floating_point()),
            membrane_bytes=self.membrane_bytes,
            mac_joules=mac_joules,
            accumulate_joules=accumulate_joules,
        )


def _is_real(network: SpikingNetwork) -> bool:
    """Whether values other than 0 and 1 move between the layers of a network, as in a ReLU twin."""
    match network.config.activation:
        case "lif":
            return False
        case "relu":
            return True
        case _:
            assert_never(network.config.activation)


def _has_neurons(head: nn.Module) -> bool:
    match head:
        case Head():
            return type(head.neuron) is not nn.Identity
        case FoldedHead():
            return False
        case FoldedFigureHead():
            return True
    raise InputError(f"the head is a {type(head).__name__}; extend snnmlp_edu/cost/tally.py")


def _additions(module: nn.Module) -> int:
    """Additions for each value of what a layer puts out, where currents join in it."""
    match module:
        case MixerBlock():
            wiring = wiring_of(type(module))
            assert wiring is not None  # count_operations has looked
            return wiring.additions
        case SpikingPatchEncoding():  # once to a third of the channels, and twice to another
            return 1
        case ResidualBlock():
            return 1
    raise InputError(f"{type(module).__name__} joins currents; extend snnmlp_edu/cost/tally.py")
