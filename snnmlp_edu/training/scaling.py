r"""How long a training takes on many devices, from one measured step.

Each of n devices takes b images per step, which needs :math:`t` seconds for the forward and the backward pass
and the update. Then the gradients of P weights, 4 bytes each, are averaged. In a ring all-reduce every
device sends and receives each byte twice, but for its own share:

.. math::
    c = \frac{2\,(n - 1)}{n} \cdot \frac{4 P}{B}, \qquad
    s = t + c, \qquad
    E = \left\lfloor \frac{N}{n b} \right\rfloor s

with the bandwidth B of the slowest link of the ring, in bytes per second and direction. N images make an
epoch of E seconds. Left out are what the backward pass hides of c, which makes a run faster, and waiting for
the slowest device, the start of messages and the loading of images, which make it slower.

A device holds weights, gradients and the optimiser's k numbers for each weight, and the activations of its
images, A bytes per image:

.. math::
    M = 4 P (2 + k) + A b

Source of the ring: Patarasuk and Yuan, doi 10.1016/j.jpdc.2008.09.002.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import InputError

IMAGENET_IMAGES = 1_281_167  # training images of ImageNet-1K, arXiv 1409.0575
OPTIMIZER_NUMBERS = {"sgd": 1, "adamw": 2}  # momentum; first and second moment


@dataclass(frozen=True)
class Estimate:
    """The cost of a training on so many devices.

    Args:
        gpus: devices.
        global_batch: images per step, on all of them.
        compute_seconds: per step, measured.
        communication_seconds: of its all-reduce.
        step_seconds: of both, one after the other.
        steps_per_epoch: whole steps.
        epochs: of the training.
        memory_bytes: of one device; None where the activations are not known.
    """

    gpus: int
    global_batch: int
    compute_seconds: float
    communication_seconds: float
    step_seconds: float
    steps_per_epoch: int
    epochs: int
    memory_bytes: float | None

    @property
    def epoch_seconds(self) -> float:
        """Time per epoch."""
        return self.steps_per_epoch * self.step_seconds

    @property
    def total_seconds(self) -> float:
        """Time of the training."""
        return self.epochs * self.epoch_seconds

    @property
    def communication_share(self) -> float:
        """Part of the time in which devices wait for gradients."""
        return 1 - self.compute_seconds / self.step_seconds

    @property
    def images_per_second(self) -> float:
        """Throughput of all devices together."""
        return self.global_batch / self.step_seconds

    @property
    def gpu_hours(self) -> float:
        """GPU hours, over all devices."""
        return self.gpus * self.total_seconds / 3600


def ring_seconds(gpus: int, parameters: int, bandwidth: float) -> float:
    """Time of one all-reduce of all gradients.

    >>> ring_seconds(4, parameters=1_000_000, bandwidth=1e9)
    0.006
    """
    return 2 * (gpus - 1) / gpus * 4 * parameters / bandwidth


def estimate(
    step_seconds: float,
    batch: int,
    *,
    parameters: int,
    gpus: int = 1,
    bandwidth: float = math.inf,
    images: int = IMAGENET_IMAGES,
    epochs: int = 100,
    optimizer: str = "sgd",
    activation_bytes: float | None = None,
) -> Estimate:
    """The cost of a training, by the formulas at the top of this file.

    Args:
        step_seconds: of a training step on one device, measured.
        batch: images of that step.
        parameters: weights whose gradients are exchanged.
        gpus: devices; each takes `batch` images.
        bandwidth: of the slowest link, in bytes per second.
        images: per epoch.
        epochs: of the training.
        optimizer: `sgd` or `adamw`.
        activation_bytes: of one image, measured; None leaves the memory out.

    Raises:
        InputError: a value is out of range, or the epoch has not enough images for one step.

    >>> one = estimate(0.5, 64, parameters=25_000_000, images=6400, epochs=10)
    >>> one.steps_per_epoch, one.epoch_seconds, one.total_seconds
    (100, 50.0, 500.0)
    """
    lowest = {"step_seconds": step_seconds, "batch": batch, "parameters": parameters, "gpus": gpus}
    for name, value in (lowest | {"bandwidth": bandwidth, "images": images, "epochs": epochs}).items():
        if not value > 0:
            raise InputError(f"{name} is {value}; it must be above 0")
    if optimizer not in OPTIMIZER_NUMBERS:
        raise InputError(f"optimizer is {optimizer!r}; choose one of {', '.join(OPTIMIZER_NUMBERS)}")
    if images < batch * gpus:
        raise InputError(f"a step takes {batch * gpus} images and there are only {images}; take fewer gpus")
    communication = ring_seconds(gpus, parameters, bandwidth)
    memory = None
    if activation_bytes is not None:
        memory = 4 * parameters * (2 + OPTIMIZER_NUMBERS[optimizer]) + activation_bytes * batch
    return Estimate(
        gpus=gpus,
        global_batch=batch * gpus,
        compute_seconds=step_seconds,
        communication_seconds=communication,
        step_seconds=step_seconds + communication,
        steps_per_epoch=images // (batch * gpus),
        epochs=epochs,
        memory_bytes=memory,
    )
