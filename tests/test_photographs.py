"""Patches of photographs: where they come from, how they are turned, and which are left out."""

from __future__ import annotations

import importlib.util
from io import BytesIO
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from snnmlp_edu import data
from snnmlp_edu.data import files
from snnmlp_edu.data.photographs import (
    LOWEST_CONTRAST,
    PHOTOGRAPHS,
    ROTATION_NAMES,
    load_photographs,
    patches,
    photograph,
)
from snnmlp_edu.data.sources import open_source
from snnmlp_edu.errors import InputError


@pytest.mark.parametrize(("split", "each"), [("train", 3000), ("test", 250)])
def test_patches_are_balanced_and_full_of_contrast(split: data.Split, each: int) -> None:
    images, labels = load_photographs(split)
    assert (images.shape, images.dtype) == ((4 * each, 1, 32, 32), torch.uint8)
    assert labels.bincount().tolist() == [each] * len(ROTATION_NAMES)
    pixels = images.double().flatten(1)
    # Clipping at black and white takes something from both, where a patch is a bright spot on a dark ground.
    assert (pixels.mean(1) - 128).abs().max() < 20
    assert pixels.std(1).max() < 50
    assert pixels.std(1).quantile(0.05) > 30


def test_every_patch_stands_there_in_all_four_rotations() -> None:
    images, labels = load_photographs("test")
    upright = images[labels == 0]
    for turns in range(4):
        assert torch.equal(images[labels == turns], upright.rot90(turns, (2, 3)))


def test_turning_is_counter_clockwise() -> None:
    """What was at the right is at the top after a turn of 90 degrees."""
    images, _ = load_photographs("test")
    assert torch.equal(images[1, 0, 0], images[0, 0, :, -1])


def test_no_photograph_is_in_both_parts() -> None:
    assert set(PHOTOGRAPHS.values()) == {"train", "test"}
    seen = [
        {image.numpy().tobytes() for image in load_photographs(split).images} for split in ("train", "test")
    ]
    assert not seen[0] & seen[1]


def test_the_same_patches_every_time() -> None:
    picture = photograph("camera")
    one, other = (patches(picture, 5, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(one, other)


def test_patches_come_from_the_picture_or_its_mirror() -> None:
    """In a picture whose grey is its column, a patch is a ramp: one of two."""
    picture = torch.arange(64).mul(4).to(torch.uint8).expand(40, 64)
    found = patches(picture, 40, torch.Generator().manual_seed(0)).unique(dim=0)
    assert len(found) == 2
    assert torch.equal(found[0].flip(1), found[1])


def test_pictures_that_give_no_patches() -> None:
    generator = torch.Generator().manual_seed(0)
    with pytest.raises(InputError, match="the picture is 31 x 80 pixels; a patch needs 32 x 32"):
        patches(torch.zeros(31, 80, dtype=torch.uint8), 1, generator)
    with pytest.raises(
        InputError, match=f"only 0 of 2 patches have a standard deviation of {LOWEST_CONTRAST:g}"
    ):
        patches(torch.full((40, 40), 9, dtype=torch.uint8), 2, generator)


def test_unknown_names() -> None:
    with pytest.raises(InputError, match="there is no photograph 'lena'"):
        photograph("lena")
    with pytest.raises(InputError, match=r"the split is 'validation'.*train, test"):
        load_photographs("validation")  # type: ignore[arg-type]


def test_source_of_a_recipe() -> None:
    source = open_source("photographs")
    assert source.class_names == ROTATION_NAMES
    assert len(source.load("test").labels) == 1000
    with pytest.raises(InputError, match=r"photographs is shipped; leave out data_dir \(here\)"):
        open_source("photographs", "here")


def test_a_changed_photograph_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photographs").mkdir()
    (tmp_path / "photographs" / "camera.png").write_bytes(b"another picture")
    (tmp_path / "manifest.json").write_bytes((files.path() / "manifest.json").read_bytes())
    monkeypatch.setattr(files, "path", lambda: tmp_path)
    with pytest.raises(InputError, match=r"camera\.png has SHA-256"):
        photograph("camera")


def script() -> ModuleType:
    file = Path(__file__).parents[1] / "data" / "make_photographs.py"
    spec = importlib.util.spec_from_file_location("make_photographs", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["china", "flower"])
def test_a_stored_photograph_is_what_the_package_ships(name: str) -> None:
    """scikit-learn's two; the others need scikit-image, which nothing else here needs."""
    module = script()
    with Image.open(BytesIO(module.grey_and_half(module.original(name)))) as image:
        # Decoders of JPEG may differ by a grey level or two.
        made = np.asarray(image).astype(int)
    assert np.abs(made - photograph(name).numpy().astype(int)).max() <= 3


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    module = script()
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="chelsea comes with scikit-image, which is not installed; run pip"):
        module.original("chelsea")
