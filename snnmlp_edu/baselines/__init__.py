"""The paper's convolutional baselines: `spiking_resnet34` and `spiking_vgg16`.

They are built from the layers of the spiking MLP, so that whatever trains, folds, checks, runs or counts
one network does so with the other. At their published sizes they serve for parameter and operation
counts; small ones are trained alongside the spiking MLP.
"""

from __future__ import annotations

from ..registry import register
from .resnet import RESNET34, SpikingResNet
from .vgg import VGG16, SpikingVGG

__all__ = ["RESNET34", "VGG16", "SpikingResNet", "SpikingVGG"]

register("spiking_resnet34", RESNET34, SpikingResNet)
register("spiking_vgg16", VGG16, SpikingVGG)
