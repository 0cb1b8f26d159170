"""The network of arXiv 2306.12465 written out a second time, channels first, one step at a time.

It shares nothing with the package but the weights: tensors are `[T, B, C, H, W]`, maps are einsums,
statistics are means, and a surrogate gradient is the derivative of its antiderivative.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from snnmlp_edu import NetworkConfig, NeuronConfig

ANTIDERIVATIVES = {
    "sigmoid": lambda x, a: torch.sigmoid(a * x),
    "atan": lambda x, a: torch.atan(math.pi / 2 * a * x) / math.pi,
    "fast_sigmoid": lambda x, k: x / (1 + k * x.abs()),
    "triangle": lambda x, w: x.clamp(-w, w) / w - x.clamp(-w, w) * x.clamp(-w, w).abs() / (2 * w * w),
    "dspike": lambda x, b: torch.tanh(b * x.clamp(-0.5, 0.5)) / (2 * math.tanh(b / 2)),
}
SLOPES = {"sigmoid": 4.0, "atan": 2.0, "fast_sigmoid": 10.0, "triangle": 1.0, "dspike": 3.0}


def step_function(x: Tensor, neuron: NeuronConfig) -> Tensor:
    slope = SLOPES[neuron.surrogate] if neuron.slope is None else neuron.slope
    smooth = ANTIDERIVATIVES[neuron.surrogate](x, slope)
    hard = (x >= 0) if neuron.inclusive else (x > 0)
    return hard.to(x.dtype) + smooth - smooth.detach()


def lif(current: Tensor, neuron: NeuronConfig) -> Tensor:
    v = torch.zeros_like(current[0])
    out = []
    for t in range(len(current)):
        u = neuron.beta * v + neuron.input_gain * current[t]
        s = step_function(u - neuron.threshold, neuron)
        out.append(s)
        fired = s.detach()
        v = u * (1 - fired) if neuron.reset == "hard" else u - neuron.threshold * fired
    return torch.stack(out)


# Currents that add up at the neurons behind the token mixing and behind the channel mixing: h + t and
# h + t + c, m + t and m + c, BN(s) + t and BN(s') + c, c2 + c1, or one alone; what the shortcut adds to each
# value, in all; and whether what leaves is 0 or 1.
WIRINGS = {
    "stage": (2, 3, 2, True),
    "membrane": (2, 2, 2, True),
    "spike_bn": (2, 2, 2, True),
    "spike": (1, 1, 2, False),
    "none": (1, 1, 0, True),
    "inner": (1, 2, 1, True),
    "outer": (1, 1, 2, False),
}
# Which maps mix the positions, each with the axis that it writes.
LINES = {"axial": (("rows", "width"), ("columns", "height")), "full": (("grid", "token"),), "none": ()}

KEPT = {"channel": (2,), "height": (3,), "width": (4,), "token": (3, 4)}


class Reference:
    """Logits `[T, B, classes]` from a configuration and the weights of a `SpikingMLP`."""

    def __init__(self, config: NetworkConfig, weights: dict[str, Tensor], training: bool) -> None:
        self.config, self.weights, self.training = config, weights, training

    def fire(self, current: Tensor) -> Tensor:
        return torch.relu(current) if self.config.activation == "relu" else lif(current, self.config.neuron)

    def batch_norm(self, name: str, x: Tensor, axis: str, scale: float = 1.0) -> Tensor:
        kept = KEPT[axis]
        shape = [x.shape[d] if d in kept else 1 for d in range(5)]
        if self.training:
            others = [d for d in range(5) if d not in kept]
            mean = x.mean(others, keepdim=True)
            variance = (x - mean).square().mean(others, keepdim=True)
        else:
            mean = self.weights[f"{name}.batch_norm.running_mean"].view(shape)
            variance = self.weights[f"{name}.batch_norm.running_var"].view(shape)
        gamma = self.weights[f"{name}.batch_norm.weight"].view(shape)
        shift = self.weights[f"{name}.batch_norm.bias"].view(shape)
        return gamma * scale * (x - mean) / torch.sqrt(variance + 1e-5) + shift

    def layer_norm(self, name: str, x: Tensor, axis: str) -> Tensor:
        over = {"width": (2, 3), "height": (2, 4), "token": (2,), "channel": (2,)}[axis]
        mean = x.mean(over, keepdim=True)
        variance = (x - mean).square().mean(over, keepdim=True)
        shape = [x.shape[d] if d in over else 1 for d in range(5)]
        # Stored as [line, C] or [C]; the reference has channels first.
        weight, bias = (self.weights[f"{name}.layer_norm.{part}"] for part in ("weight", "bias"))
        if weight.ndim == 2:
            weight, bias = weight.T, bias.T
        return weight.reshape(shape) * (x - mean) / torch.sqrt(variance + 1e-5) + bias.reshape(shape)

    def norm(self, name: str, x: Tensor, kind: str, axis: str, summed: int) -> Tensor:
        match kind:
            case "none":
                return x
            case "ln":
                return self.layer_norm(name, x, axis)
            case "bn":
                return self.batch_norm(name, x, axis)
            case "bn_token":
                return self.batch_norm(name, x, "token")
            case "tdbn":
                return self.batch_norm(name, x, axis, self.config.neuron.threshold / math.sqrt(summed))
            case "tebn":
                scale = self.weights[f"{name}.step_scale"]
                return self.batch_norm(name, x, axis) * scale.view(-1, 1, 1, 1, 1)
            case _:
                raise AssertionError(kind)

    def synapse(self, name: str, x: Tensor, kind: str, axis: str, summed: int = 1) -> Tensor:
        w, b = self.weights[f"{name}.linear.weight"], self.weights.get(f"{name}.linear.bias")
        formulas = {
            "channel": "oc,tbchw->tbohw",
            "height": "oh,tbchw->tbcow",
            "width": "ow,tbchw->tbcho",
        }
        if axis == "token":
            grid = x.shape[3:]
            y = torch.einsum("op,tbcp->tbco", w, x.flatten(3)).unflatten(3, grid)
        else:
            y = torch.einsum(formulas[axis], w, x)
        if b is not None:
            y = y + b.view([y.shape[d] if d in KEPT[axis] else 1 for d in range(5)])
        return self.norm(f"{name}.norm", y, kind, axis, summed)

    def conv_norm(self, name: str, x: Tensor, stride: int, padding: int) -> Tensor:
        w = self.weights[f"{name}.conv.weight"]
        y = torch.stack([F.conv2d(step, w, stride=stride, padding=padding) for step in x])
        return self.batch_norm(f"{name}.norm", y, "channel")

    def embedding(self, i: int, x: Tensor) -> Tensor:
        name, c = f"stages.{i}.embedding", self.config
        if i == 0:
            return self.conv_norm(f"{name}.embed", x, c.patch_size, 0)
        if c.patch_encoding in ("conv", "conv3"):
            return self.conv_norm(f"{name}.embed", x, 2, 0 if c.patch_encoding == "conv" else 1)
        n1, n2, n3 = self.conv_norm(f"{name}.down", x, 2, 1).chunk(3, dim=2)
        n2 = n2 + self.conv_norm(f"{name}.between.0", self.fire(n1), 1, 1)
        n3 = n3 + n1 + self.conv_norm(f"{name}.between.1", self.fire(n2), 1, 1)
        return torch.cat([n1, n2, n3], dim=2)

    def token(self, name: str, s: Tensor) -> Tensor:
        c = self.config
        mixed = [s]
        for part, axis in LINES[c.token_mixing]:
            current = self.synapse(f"{name}.positions.{part}.synapse", s, c.token_norm, axis)
            mixed.append(self.fire(current))
        kind = "bn" if c.token_norm == "ln" else c.token_norm
        summed = WIRINGS[c.skip][0]
        return self.synapse(f"{name}.fuse", torch.cat(mixed, dim=2), kind, "channel", summed)

    def channel(self, name: str, s: Tensor) -> Tensor:
        c = self.config
        summed = WIRINGS[c.skip][1]
        hidden = self.fire(self.synapse(f"{name}.up", s, c.channel_norm, "channel"))
        return self.synapse(f"{name}.down", hidden, c.channel_norm, "channel", summed)

    def block(self, name: str, s: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        read = self.layer_norm(f"{name}.token_pre_norm", s, "token") if self.config.skip == "outer" else s
        t = self.token(f"{name}.token", read)
        match self.config.skip:
            case "stage":
                return self.fire(h + t + self.channel(f"{name}.channel", self.fire(h + t))), h
            case "membrane":
                m = h + t
                m = m + self.channel(f"{name}.channel", self.fire(m))
                return self.fire(m), m
            case "spike_bn":
                s = self.fire(self.batch_norm(f"{name}.token_skip_norm", s, "channel") + t)
                around = self.batch_norm(f"{name}.channel_skip_norm", s, "channel")
                return self.fire(around + self.channel(f"{name}.channel", s)), h
            case "spike":
                s = self.fire(t) + s
                return self.fire(self.channel(f"{name}.channel", s)) + s, h
            case "none":
                return self.fire(self.channel(f"{name}.channel", self.fire(t))), h
            case "inner":
                kind = self.config.channel_norm
                c1 = self.synapse(f"{name}.channel.up", self.fire(t), kind, "channel")
                c2 = self.synapse(f"{name}.channel.down", self.fire(c1), kind, "channel", WIRINGS["inner"][1])
                return self.fire(c2 + c1), h
            case "outer":
                s = self.fire(t) + s
                read = self.layer_norm(f"{name}.channel_pre_norm", s, "token")
                return self.fire(self.channel(f"{name}.channel", read)) + s, h
            case _:
                raise AssertionError(self.config.skip)

    def logits(self, images: Tensor) -> Tensor:
        c = self.config
        x = torch.stack([images] * c.time_steps)
        for i, depth in enumerate(c.depths):
            h = self.embedding(i, x)
            x = self.fire(h)
            for j in range(depth):
                x, h = self.block(f"stages.{i}.blocks.{j}", x, h)
        features = self.batch_norm("head.norm", x, "channel").mean((3, 4))
        if c.head == "figure":
            features = self.fire(features)
        return features @ self.weights["head.linear.weight"].T + self.weights["head.linear.bias"]
