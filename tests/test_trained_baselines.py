"""The convolutional baselines are trained, kept and transferred like the spiking MLP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from snnmlp_edu import InputError, create_model
from snnmlp_edu.checkpoints import load_checkpoint
from snnmlp_edu.training import fit
from snnmlp_edu.training.evaluation import evaluate_embedded
from snnmlp_edu.training.recipe import load_recipe
from snnmlp_edu.transfer import transfer_weights

pytestmark = pytest.mark.usefixtures("step_by_step")

SMALL: dict[str, Any] = {"dim": 8, "depths": [1, 1], "time_steps": 2, "channel_norm": "bn"}


@pytest.mark.parametrize("name", ["spiking_resnet34", "spiking_vgg16"])
def test_a_small_one_is_trained_and_its_checkpoint_is_of_its_kind(name: str, tmp_path: Path) -> None:
    images = {"image_size": 32, "in_channels": 1, "num_classes": 10}
    recipe = load_recipe("fashion_smoke").replace(max_steps=2, **SMALL, **images)
    result = fit(name, recipe, output=tmp_path / "runs", progress=False)
    trained = load_checkpoint(result.checkpoint)
    assert type(trained.model) is type(create_model(name))
    assert evaluate_embedded(trained) == (result.test_correct, result.test_total)


def test_weights_go_from_one_network_to_another_of_its_kind_only() -> None:
    small = SMALL | {"image_size": 16, "num_classes": 4}
    vgg, resnet = (create_model(name, **small) for name in ("spiking_vgg16", "spiking_resnet34"))
    with pytest.raises(InputError, match="is a SpikingVGG and the new one a SpikingResNet; take one kind"):
        transfer_weights(vgg, resnet)
    with pytest.raises(InputError, match="maps no line of positions: keep image_size=16"):
        transfer_weights(vgg, create_model("spiking_vgg16", **small | {"image_size": 32}))
