"""Arrays that are none of what a function takes: one line that names them, never a wrong number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from snnmlp_edu import create_model, record
from snnmlp_edu.cost import count_operations
from snnmlp_edu.data import LabelledImages, Preprocessing
from snnmlp_edu.data.batches import PictureBatches, in_order, unwrap
from snnmlp_edu.data.picture_sets import MemoryPictures
from snnmlp_edu.data.settings import Loading
from snnmlp_edu.errors import InputError
from snnmlp_edu.mfi import calibrate
from snnmlp_edu.training import Recipe, evaluate
from snnmlp_edu.training.batches import TrainingData
from snnmlp_edu.training.evaluation import evaluate_pictures

LABELS = torch.tensor([1, 0, 1])


class Brighter(nn.Module):
    """Class 1 for images whose mean is above 0.5."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(2))

    def forward(self, images: Tensor) -> Tensor:
        level = images.mean(dim=(1, 2, 3))
        return torch.stack([0.5 - level, level - 0.5], dim=1) + self.shift


def images() -> Tensor:
    return torch.tensor([0.9, 0.2, 0.1]).view(3, 1, 1, 1).expand(3, 1, 4, 4).clone()


def changed(pixel: float) -> Tensor:
    found = images()
    found[2, 0, 1, 1] = pixel
    return found


@pytest.mark.parametrize("kind", [torch.int64, torch.int32, torch.uint8])
def test_labels_of_every_whole_type_count_the_same(kind: torch.dtype) -> None:
    prepare = Preprocessing(image_size=4)
    assert evaluate(Brighter(), prepare, images(), LABELS.to(kind)) == (2, 3)
    stored = (images() * 255).to(torch.uint8)
    assert evaluate(Brighter(), prepare, stored, LABELS.to(kind)) == (2, 3)


@pytest.mark.parametrize(
    ("pixels", "labels", "message"),
    [
        (images(), LABELS[:, None], r"labels have shape \(3, 1\)"),
        (images(), LABELS.float(), "labels have type torch.float32"),
        (images(), LABELS.bool(), "labels have type torch.bool"),
        (images(), LABELS + 1, "labels reach from 1 to 2; they must be 0 to 1"),
        (images(), LABELS - 1, "labels reach from -1 to 0"),
        (images(), LABELS[:2], "3 images and 2 labels"),
        (images()[:0], LABELS[:0], "0 images and 0 labels"),
        (images(), LABELS.numpy(), "labels is a ndarray"),
        (images().numpy(), LABELS, "images is a ndarray"),
        (images() * 255, LABELS, "images have values from 25.5 to 229.5"),
        (images() - 0.5, LABELS, "images have values from -0.4 to 0.4"),
        (changed(float("nan")), LABELS, "NaN or infinite values, the first is image 2"),
        (images().to(torch.int64), LABELS, "images have type torch.int64"),
    ],
)
def test_evaluate_and_training_take_no_other_arrays(pixels: Any, labels: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(Brighter(), Preprocessing(image_size=4), pixels, labels, batch_size=3)
    recipe = Recipe(name="r", source="ours", epochs=1, learning_rate=0.1, batch_size=2)
    with pytest.raises(InputError, match=message):
        TrainingData(
            MemoryPictures(LabelledImages(pixels, labels)),
            MemoryPictures(LabelledImages(images(), LABELS)),
            Preprocessing(4),
            recipe,
            ("dark", "bright"),
        )


def test_a_label_out_of_range_is_seen_in_a_later_batch_too() -> None:
    labels = torch.tensor([1, 0, 7])
    with pytest.raises(InputError, match="labels reach from 7 to 7; they must be 0 to 1"):
        evaluate(Brighter(), Preprocessing(image_size=4), images(), labels, batch_size=1)
    with pytest.raises(InputError, match="batch_size is 0"):
        evaluate(Brighter(), Preprocessing(image_size=4), images(), LABELS, batch_size=0)


@pytest.mark.parametrize("run", [record, count_operations, calibrate])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[:0], "holds none"),
        (lambda x: x * float("nan"), "NaN or infinite"),
        (lambda x: x / 0, "NaN or infinite"),
        (lambda x: x.double(), "images have type torch.float64 and the weights torch.float32"),
        (lambda x: (x * 255).to(torch.uint8), "images have type torch.uint8"),
        (lambda x: np.asarray(x), "images is a ndarray"),
        (lambda x: x[:, :, :4], "images have shape"),
        (lambda x: x[0], "images have shape"),
    ],
)
def test_what_runs_a_network_takes_no_other_images(
    run: Callable[..., Any], change: Callable[[Tensor], Any], message: str
) -> None:
    model = create_model("mlp_spe_nano", dim=6, depths=(1,), image_size=8, patch_size=2).eval()
    fine = torch.rand(2, 1, 8, 8)
    run(model, fine)
    with pytest.raises(InputError, match=message):
        run(model, change(fine))


# --- the two ways of testing -------------------------------------------------------------------------


@pytest.mark.parametrize("side", [8, 12])
def test_images_in_memory_and_pictures_are_tested_alike(side: int) -> None:
    """With `resize` images are enlarged and cropped, those of the network's own size too."""
    prepare = Preprocessing(image_size=8, resize=11, interpolation="bicubic")
    stored = LabelledImages(
        torch.randint(0, 256, (20, 1, side, side), dtype=torch.uint8), torch.arange(20) % 2
    )
    pictures = PictureBatches(MemoryPictures(stored), prepare)
    fitted, _ = unwrap(pictures[in_order(20, 20)[0]])
    assert torch.equal(prepare(stored.images), prepare.normalise(fitted))
    assert not torch.equal(prepare.normalise(fitted)[:, :, 1:7, 1:7], stored.images[:, :, 1:7, 1:7] / 255)
    found = evaluate(Brighter(), prepare, *stored)
    model, loading = Brighter(), Loading(0).on_machine(1, False)
    assert found == evaluate_pictures(
        lambda fitted: model(prepare.normalise(fitted)), prepare, pictures.pictures, loading
    )
    with pytest.raises(InputError, match="float32 are not resized; give uint8"):
        prepare(stored.images / 255)
