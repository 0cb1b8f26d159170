"""Weights for other classes, sizes and steps: what is kept, what is interpolated, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cli import assert_wrong_usage, call

from snnmlp_edu.checkpoints import load_checkpoint, save_checkpoint
from snnmlp_edu.config import NetworkConfig, NeuronConfig
from snnmlp_edu.data import CLASS_NAMES, Preprocessing
from snnmlp_edu.errors import InputError
from snnmlp_edu.model.network import SpikingMLP
from snnmlp_edu.registry import create_model
from snnmlp_edu.training import Recipe, fit, load_recipe
from snnmlp_edu.transfer import Transfer, transfer_weights

# Networks this small are not worth a compiler's time.
EAGER = NeuronConfig(backend="eager")
SMALL: dict[str, Any] = {
    "dim": 6,
    "depths": [1, 1],
    "patch_size": 8,
    "time_steps": 1,
    "neuron": {"backend": "eager"},
}


def trained(config: NetworkConfig) -> SpikingMLP:
    """A network whose every tensor differs from a fresh one's, with variances above 0."""
    model = SpikingMLP(config)
    generator = torch.Generator().manual_seed(1)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            drawn = torch.rand(tensor.shape, generator=generator) + 0.1
            tensor.copy_(drawn if name.endswith("running_var") else drawn - 0.6)
        else:
            tensor.fill_(7)
    return model.eval()


def moved(source: SpikingMLP, **overrides: Any) -> tuple[SpikingMLP, Transfer]:
    target = SpikingMLP(source.config.replace(**overrides)).eval()
    transfer = transfer_weights(source, target)
    target.load_state_dict(dict(transfer.weights))
    return target, transfer


# --- what is kept ------------------------------------------------------------------------------------


@pytest.mark.parametrize("overrides", [{}, {"time_steps": 5}, {"neuron": {"beta": 0.25}}])
def test_the_same_sizes_keep_every_tensor(tiny: NetworkConfig, overrides: dict[str, Any]) -> None:
    source = trained(tiny)
    target, transfer = moved(source, **overrides)
    assert transfer.kept == tuple(source.state_dict())
    assert (transfer.interpolated, transfer.new) == ((), ())
    for name, tensor in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], tensor), name
        assert tensor.data_ptr() != transfer.weights[name].data_ptr(), "a copy, not the tensor itself"


def test_other_classes_get_a_new_head_and_the_rest_is_kept(tiny: NetworkConfig) -> None:
    source = trained(tiny)
    fresh = SpikingMLP(tiny.replace(num_classes=9))
    before = {name: tensor.clone() for name, tensor in fresh.state_dict().items()}
    transfer = transfer_weights(source, fresh)
    assert transfer.new == ("head.linear.weight", "head.linear.bias")
    assert len(transfer.kept) == len(before) - 2
    assert str(transfer) == f"{len(before) - 2} tensors kept, 2 new (head.linear.weight, head.linear.bias)"
    for name in transfer.new:
        assert torch.equal(transfer.weights[name], before[name])
    for name, tensor in fresh.state_dict().items():
        assert torch.equal(tensor, before[name]), "the target itself is left as it was"


def test_as_many_other_classes_get_a_new_head_when_asked(tiny: NetworkConfig) -> None:
    source = trained(tiny)
    transfer = transfer_weights(source, SpikingMLP(tiny), keep_head=False)
    assert transfer.new == ("head.linear.weight", "head.linear.bias")


# --- what is interpolated ----------------------------------------------------------------------------


def test_rows_twice_as_long_by_hand(tiny: NetworkConfig) -> None:
    """Two positions to four: outputs at 0, 1/4, 3/4, 1 between the two, inputs shared out likewise."""
    source = trained(tiny)
    name = "stages.1.blocks.0.token.positions.rows.synapse.linear"
    weight = source.get_parameter(f"{name}.weight").data
    weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 5.0]]))
    source.get_parameter(f"{name}.bias").data.copy_(torch.tensor([4.0, 8.0]))
    target, transfer = moved(source, image_size=16)
    # Outputs: rows 1 2 | 1.5 2.75 | 2.5 4.25 | 3 5. Shares of the inputs: 1/2 3/8 1/8 0 | 0 1/8 3/8 1/2.
    expected = [
        [0.5, 0.625, 0.875, 1.0],
        [0.75, 0.90625, 1.21875, 1.375],
        [1.25, 1.46875, 1.90625, 2.125],
        [1.5, 1.75, 2.25, 2.5],
    ]
    torch.testing.assert_close(target.get_parameter(f"{name}.weight").data, torch.tensor(expected))
    torch.testing.assert_close(target.get_parameter(f"{name}.bias").data, torch.tensor([4.0, 5.0, 7.0, 8.0]))
    assert transfer.grids == ((4, 8), (2, 4))
    assert "interpolated (lines of 4 to 8, 2 to 4 positions), none new" in str(transfer)
    assert set(transfer.interpolated) == {key for key in source.state_dict() if ".positions." in key} - {
        key for key in source.state_dict() if "num_batches" in key
    }


@settings(deadline=None, max_examples=15)
@given(
    sides=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    mixing=st.sampled_from(["axial", "full"]),
    norm=st.sampled_from(["bn", "ln", "tdbn", "none"]),
    channel_norm=st.sampled_from(["bn", "bn_token"]),
)
def test_rows_keep_their_sums_and_variances_stay_above_0(
    sides: tuple[int, int], mixing: str, norm: str, channel_norm: str
) -> None:
    config = NetworkConfig(
        dim=4,
        depths=(1,),
        patch_size=2,
        image_size=2 * sides[0],
        num_classes=3,
        token_mixing=mixing,
        token_norm=norm,
        channel_norm=channel_norm,
    )
    source = trained(config)
    target, transfer = moved(source, image_size=2 * sides[1])
    assert bool(transfer.interpolated) == (sides[0] != sides[1])
    for name in transfer.interpolated:
        old, new = source.state_dict()[name].double(), transfer.weights[name].double()
        if name.endswith("running_var"):
            assert (new > 0).all()
        if name.endswith("linear.weight"):
            # A kernel whose rows are alike keeps the mean of its row sums; any kernel keeps their range.
            assert new.sum(1).max() <= old.sum(1).max() + 1e-5
            assert new.sum(1).min() >= old.sum(1).min() - 1e-5
            alike = old[:1].expand_as(old).clone()
            source.get_parameter(name).data.copy_(alike)
            again = transfer_weights(source, target).weights[name].double()
            torch.testing.assert_close(
                again.sum(1), alike.sum(1)[:1].expand(len(again)), rtol=1e-5, atol=1e-5
            )
    assert torch.isfinite(target(torch.rand(2, 3, 2 * sides[1], 2 * sides[1]))).all()


def test_the_grid_is_interpolated_in_both_directions(tiny: NetworkConfig) -> None:
    """A kernel that is a product of a row and a column kernel stays one: rows as axial rows are moved."""
    full, axial = tiny.replace(token_mixing="full"), tiny
    rows = torch.rand(2, 2, dtype=torch.float64)
    columns = torch.rand(2, 2, dtype=torch.float64)
    source_full, source_axial = trained(full).double(), trained(axial).double()
    block = "stages.1.blocks.0.token.positions"
    weight = "synapse.linear.weight"
    source_full.get_parameter(f"{block}.grid.{weight}").data.copy_(torch.kron(columns, rows))
    source_axial.get_parameter(f"{block}.rows.{weight}").data.copy_(rows)
    source_axial.get_parameter(f"{block}.columns.{weight}").data.copy_(columns)
    bigger = [SpikingMLP(config.replace(image_size=24)).double() for config in (full, axial)]
    grid = transfer_weights(source_full, bigger[0]).weights[f"{block}.grid.{weight}"]
    lines = transfer_weights(source_axial, bigger[1]).weights
    expected = torch.kron(lines[f"{block}.columns.{weight}"], lines[f"{block}.rows.{weight}"])
    torch.testing.assert_close(grid, expected)


def test_an_enlarged_image_causes_the_same_spikes_in_a_network_without_borders() -> None:
    """Pixels doubled and the grid with them: constant lines in, constant lines out."""
    config = NetworkConfig(
        dim=4, depths=(1,), patch_size=2, image_size=8, in_channels=1, num_classes=3, patch_encoding="conv"
    )
    source = trained(config).double()
    for name, tensor in source.state_dict().items():
        # Rows alike in every position: what is left is the sum of a line, which must carry over.
        if ".positions." in name and tensor.is_floating_point():
            tensor.copy_(tensor[:1].expand_as(tensor).clone())
    target = SpikingMLP(config.replace(image_size=16)).double().eval()
    target.load_state_dict(dict(transfer_weights(source, target).weights))
    image = torch.rand(4, 1, 1, 1, dtype=torch.float64)
    small, large = image.expand(-1, -1, 8, 8), image.expand(-1, -1, 16, 16)
    torch.testing.assert_close(target(large), source(small))


# --- what is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"dim": 12}, "has dim=6 and the new one dim=12: its weights do not fit; set dim=6"),
        ({"depths": (1, 1)}, r"depths=\[2,1\] and the new one depths=\[1,1\].*set depths=\[2,1\]"),
        ({"patch_size": 4}, "patch_size=2 and the new one patch_size=4"),
        ({"in_channels": 3}, "in_channels=2"),
        ({"expansion": 2}, "expansion=3"),
        ({"channel_norm": "bn_token"}, "channel_norm=bn and"),
        ({"token_norm": "none"}, "token_norm=bn and"),
        ({"skip": "spike_bn"}, "skip=stage"),
        ({"patch_encoding": "conv"}, "patch_encoding=spiking"),
        ({"token_mixing": "full"}, "token_mixing=axial"),
        ({"head": "figure"}, "head=released"),
        ({"activation": "relu"}, "activation=lif"),
    ],
)
def test_what_cannot_fit_is_named(tiny: NetworkConfig, overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        transfer_weights(SpikingMLP(tiny), SpikingMLP(tiny.replace(**overrides)))


@pytest.mark.parametrize("field", ["token_norm", "channel_norm"])
def test_a_scale_for_each_step_is_tied_to_the_steps(tiny: NetworkConfig, field: str) -> None:
    config = tiny.replace(**{field: "tebn"})
    with pytest.raises(
        InputError, match=r"time_steps=3 and the new one time_steps=4.*tebn.*set time_steps=3"
    ):
        transfer_weights(SpikingMLP(config), SpikingMLP(config.replace(time_steps=4)))
    assert transfer_weights(SpikingMLP(config), SpikingMLP(config)).new == ()


# --- training that starts with a checkpoint ----------------------------------------------------------


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    config = NetworkConfig(
        dim=6,
        depths=(1, 1),
        patch_size=8,
        image_size=32,
        in_channels=1,
        num_classes=10,
        time_steps=1,
        neuron=EAGER,
    )
    path = tmp_path / "start.safetensors"
    save_checkpoint(path, trained(config), Preprocessing(image_size=32), class_names=CLASS_NAMES)
    return path


def recipe(**fields: Any) -> Recipe:
    blank = Recipe(name="short", source="ours", epochs=1, learning_rate=0.01, max_steps=1, batch_size=256)
    return blank.replace(**fields)


def test_training_starts_with_the_weights_that_are_named(checkpoint: Path, tmp_path: Path) -> None:
    # A rate near 0: one step later the weights still are what they started as.
    short = recipe(model=SMALL, init_from=str(checkpoint), learning_rate=1e-12, optimizer="sgd")
    result = fit(None, short, output=tmp_path, progress=False)
    assert result.transfer is not None
    assert result.transfer.new == ()
    before = load_checkpoint(checkpoint).model
    after = load_checkpoint(result.checkpoint)
    for (name, old), new in zip(before.named_parameters(), after.model.parameters(), strict=True):
        torch.testing.assert_close(new, old, msg=name)
    assert after.recipe["init_from"] == str(checkpoint)
    assert fit(None, short, output=tmp_path, progress=False, init_from=None).transfer is None


def test_a_shuffled_start_has_the_same_numbers_in_another_order(checkpoint: Path, tmp_path: Path) -> None:
    short = recipe(
        model=SMALL, init_from=str(checkpoint), init_shuffled=True, learning_rate=1e-12, optimizer="sgd"
    )
    before = dict(load_checkpoint(checkpoint).model.named_parameters())
    starts = []
    for seed in (0, 0, 1):
        result = fit(None, short.replace(seed=seed), output=tmp_path, progress=False)
        after = dict(load_checkpoint(result.checkpoint).model.named_parameters())
        for name, old in before.items():
            torch.testing.assert_close(
                after[name].flatten().sort().values, old.flatten().sort().values, msg=name
            )
        maps = [name for name, old in before.items() if old.ndim > 1 and old.numel() > 4]
        assert not any(torch.allclose(after[name], before[name]) for name in maps)
        starts.append(torch.cat([after[name].flatten() for name in maps]))
    torch.testing.assert_close(starts[0], starts[1])
    assert not torch.allclose(starts[0], starts[2])


def test_a_new_head_is_not_shuffled() -> None:
    torch.manual_seed(0)
    source = create_model("mlp_spe_nano")
    target = create_model("mlp_spe_nano", num_classes=7)
    transfer = transfer_weights(source, target)
    mixed = transfer.shuffled(0)
    assert (mixed.kept, mixed.new) == (transfer.kept, transfer.new)
    for name in transfer.new:
        assert torch.equal(mixed.weights[name], target.state_dict()[name])
    assert not torch.equal(
        mixed.weights["stages.0.embedding.embed.conv.weight"],
        source.state_dict()["stages.0.embedding.embed.conv.weight"],
    )


def test_what_is_shuffled_must_be_named() -> None:
    message = "init_shuffled is true and init_from is null; name the checkpoint to shuffle"
    with pytest.raises(InputError, match=message):
        recipe(init_shuffled=True)


def test_without_a_preset_the_network_is_the_checkpoints(checkpoint: Path, tmp_path: Path) -> None:
    result = fit(
        None,
        recipe(preset=None, init_from=str(checkpoint), dataset="digits", time_steps=2),
        output=tmp_path,
        progress=False,
    )
    assert result.transfer is not None
    assert result.transfer.new == ("head.linear.weight", "head.linear.bias"), "other classes, though as many"
    after = load_checkpoint(result.checkpoint)
    assert (after.model.config.dim, after.model.config.time_steps) == (6, 2)
    assert after.class_names == tuple("0123456789")
    assert result.test_total == 599


def test_the_command_reports_the_transfer(checkpoint: Path, tmp_path: Path) -> None:
    sizes = ["dim=6", "depths=[1,1]", "patch_size=8", "time_steps=1", "neuron.backend=eager"]
    words = ["--init-from", checkpoint, *sizes, "image_size=64", "max_steps=1"]
    code, out, err = call("train", "--recipe", "fashion_smoke", "--output", tmp_path, *words)
    assert code == 0, err
    assert f"weights of {checkpoint}: " in out
    assert "interpolated (lines of 4 to 8, 2 to 4 positions), none new" in " ".join(out.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--init-from", "absent.safetensors"], r"there is no checkpoint absent\.safetensors"),
        (["--init-from", "mlp_spe_nano", "dim=24"], "has dim=12 and the new one dim=24.*set dim=12"),
        (["--init-from", "mlp_spe_nano", "depths=[1,1,1]"], r"set depths=\[1,1,1,1\]"),
        (["init_from=5"], "Recipe.init_from is 5"),
    ],
)
def test_wrong_starts_get_one_line(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_wrong_usage(call("train", "--recipe", "fashion_smoke", *words), message)
    assert list(tmp_path.iterdir()) == []


def test_the_shipped_recipe_starts_with_the_shipped_network() -> None:
    shipped = load_recipe("digits_finetune")
    assert (shipped.dataset, shipped.init_from, shipped.flip) == ("digits", "mlp_spe_nano", False)
