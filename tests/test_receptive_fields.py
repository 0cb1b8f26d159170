"""Fields from spikes and from gradients, against closed forms; the controls."""

from __future__ import annotations

import math
from statistics import NormalDist

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from snnmlp_edu import LIF, InputError, NetworkConfig, NeuronConfig, SpikingMLP, create_model, record
from snnmlp_edu.mfi import calibrate, fold_batch_norm
from snnmlp_edu.receptive_fields import (
    Fields,
    axial_lines,
    centre,
    choose_units,
    input_gradients,
    phase_randomised,
    shuffle,
    shuffled,
    sparse_noise,
    spike_triggered_average,
    untrained,
    white_noise,
)

SHAPE = (1, 6, 5)


class LinearNonlinear(nn.Module):
    """Units that see the image through one filter each: `LIF(filters * image + bias)`, T = 1.

    The membrane is `filters * image + bias` itself, since the gain is 1 and there is one step.
    """

    def __init__(self, filters: Tensor, bias: float = 0.0, threshold: float = 1.0) -> None:
        super().__init__()
        self.filters, self.bias = nn.Parameter(filters), bias  # [U, C, H, W]
        self.neuron = LIF(NeuronConfig(threshold=threshold, input_gain=1.0, backend="eager"))

    def forward(self, images: Tensor) -> Tensor:
        current = torch.einsum("bchw,uchw->bu", images, self.filters) + self.bias
        return self.neuron(current[None, :, None, None])  # [T, B, 1, 1, U]


def filters(count: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


# --- spike-triggered averages ------------------------------------------------------------------------


def test_average_by_hand() -> None:
    """Unit 0 fires for the first and the third image: mean of these two minus the mean of all four."""
    images = torch.tensor([[2.0, 0.0], [0.0, 5.0], [4.0, 1.0], [0.5, -2.0]]).view(4, 1, 1, 2)
    model = LinearNonlinear(torch.tensor([1.0, 0.0]).view(1, 1, 1, 2))
    fields = spike_triggered_average(model, "neuron", [images[:3], images[3:]])
    assert fields.spikes.tolist() == [2]
    assert fields.units.tolist() == [[0, 0, 0]]
    torch.testing.assert_close(fields.maps.flatten(), torch.tensor([3 - 6.5 / 4, 0.5 - 4 / 4]).double())
    # The standard error from its definition, image by image.
    x, n = images.flatten(1).double(), torch.tensor([1.0, 0, 1, 0]).double().unsqueeze(1)
    w = n / n.mean()
    terms = w * (x - (n * x).sum(0) / n.sum()) - (x - x.mean(0))
    torch.testing.assert_close(fields.standard_error.flatten(), (terms.square().sum(0) / 16).sqrt())


def test_white_noise_gives_the_filter_of_a_linear_nonlinear_unit() -> None:
    """E[x | w x >= theta] = w / |w| * sigma * phi(z) / (1 - Phi(z)), z = theta / (sigma |w|)."""
    w, contrast = filters(), 0.7
    fields = spike_triggered_average(
        LinearNonlinear(w), "neuron", white_noise(SHAPE, 20_000, contrast=contrast, seed=1)
    )
    norm = w.flatten(1).norm(dim=1)
    normal = NormalDist()
    for unit in range(3):
        z = 1 / (contrast * norm[unit].item())
        height = contrast * normal.pdf(z) / (1 - normal.cdf(z))
        expected = height * w[unit] / norm[unit]
        error = (fields.maps[unit] - expected) / fields.standard_error[unit]
        assert error.abs().max() < 4.5
        assert error.square().mean().item() == pytest.approx(1, abs=0.75)
        assert fields.spikes[unit].item() == pytest.approx(20_000 * (1 - normal.cdf(z)), rel=0.06)
        assert fields.noise[unit] < 0.05


def test_sparse_noise_gives_a_step_for_every_pixel() -> None:
    """All combinations of five lit pixels are counted one by one, and weighted with their probability."""
    shape, density, contrast = (1, 1, 5), 0.3, 2.0
    w = torch.tensor([0.9, -0.6, 0.3, 0.0, 0.45]).view(1, 1, 1, 5)
    levels = torch.tensor([-contrast, 0.0, contrast]).double()
    chance = torch.tensor([density / 2, 1 - density, density / 2]).double()
    combinations = torch.cartesian_prod(*[torch.arange(3)] * 5)
    images = levels[combinations]  # [243, 5]
    weight = chance[combinations].prod(1)
    fires = (images @ w.flatten().double() >= 1).double() * weight
    expected = (fires @ images) / fires.sum()
    stimuli = sparse_noise(shape, 20_000, density=density, contrast=contrast, seed=2)
    fields = spike_triggered_average(LinearNonlinear(w), "neuron", stimuli)
    error = (fields.maps.flatten() - expected) / fields.standard_error.flatten()
    assert error.abs().max() < 4
    assert fields.spikes.item() == pytest.approx(20_000 * fires.sum().item(), rel=0.05)


def test_standard_error_is_the_spread_over_repetitions() -> None:
    model = LinearNonlinear(filters(1))
    runs = [
        spike_triggered_average(model, "neuron", white_noise(SHAPE, 250, seed=seed)) for seed in range(80)
    ]
    spread = torch.stack([run.maps for run in runs]).std(0)
    told = torch.stack([run.standard_error for run in runs]).mean(0)
    assert (told / spread).mean().item() == pytest.approx(1, abs=0.08)


def test_spikes_of_all_steps_count(tiny: NetworkConfig) -> None:
    model = SpikingMLP(tiny)
    images = next(iter(white_noise((2, 8, 8), 64, contrast=2)))
    path = "stages.0.neuron"
    fields = spike_triggered_average(model, path, [images])
    counts = record(model, images)[path].sum(0).flatten(1).double()  # [B, H W C]
    expected = counts.T @ images.flatten(1).double() / counts.sum(0).unsqueeze(1) - images.flatten(1).mean(0)
    assert fields.units.tolist()[7] == [0, 1, 1], "rows, then columns, then channels"
    fired = ~fields.silent
    torch.testing.assert_close(fields.maps.flatten(1)[fired], expected[fired].double(), rtol=1e-5, atol=1e-5)
    assert torch.equal(fields.spikes, counts.sum(0).long())


def test_faint_activations_have_the_fields_of_strong_ones(tiny: NetworkConfig) -> None:
    model = SpikingMLP(tiny.replace(activation="relu"))
    images = next(iter(white_noise((2, 8, 8), 64, contrast=2)))
    path = "stages.0.neuron"
    strong = spike_triggered_average(model, path, [images])
    with torch.no_grad():
        for parameter in model.stages[0].embedding.parameters():
            if parameter.ndim == 1:  # scale and shift behind the stem: activations sum to less than one
                parameter.mul_(1e-4)
    faint = spike_triggered_average(model, path, [images])
    assert torch.equal(faint.silent, strong.silent)
    torch.testing.assert_close(faint.maps, strong.maps, rtol=1e-4, atol=1e-4)


def test_a_field_lies_where_the_stem_looks(tiny: NetworkConfig) -> None:
    """The stem's patches are 2 x 2 pixels: outside its own patch a unit's field is noise."""
    fields = spike_triggered_average(
        SpikingMLP(tiny), "stages.0.neuron", white_noise((2, 8, 8), 3000, contrast=2), positions=[(1, 2)]
    )
    assert fields.units[:, :2].unique(dim=0).tolist() == [[1, 2]]
    clear = (fields.maps.abs() > 5 * fields.standard_error) & ~fields.silent.view(-1, 1, 1, 1)
    assert clear.any()
    clear[:, :, 2:4, 4:6] = False
    assert not clear.any()


def test_silent_units_are_said_and_are_not_nan() -> None:
    both = torch.cat([filters(1), torch.zeros(1, *SHAPE)])
    fields = spike_triggered_average(LinearNonlinear(both), "neuron", white_noise(SHAPE, 300))
    assert fields.silent.tolist() == [False, True]
    assert fields.noise[1] == 1
    for tensor in (fields.maps, fields.standard_error):
        assert torch.isfinite(tensor).all()
        assert (tensor[1] == 0).all()


def test_a_unit_that_always_fires_has_no_field() -> None:
    model = LinearNonlinear(filters(1), bias=1e3)
    fields = spike_triggered_average(model, "neuron", white_noise(SHAPE, 300))
    assert fields.maps.abs().max() < 1e-6, "sums of single precision leave so much"
    assert fields.standard_error.abs().max() < 1e-3


def test_no_spikes_at_all_is_an_error() -> None:
    model = LinearNonlinear(filters(2), threshold=1e6)
    with pytest.raises(InputError, match="none of the 2 units of neuron fired for 50 images; raise the"):
        spike_triggered_average(model, "neuron", white_noise(SHAPE, 50))


def test_measuring_leaves_the_network_as_it_was(tiny: NetworkConfig) -> None:
    model = SpikingMLP(tiny).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    spike_triggered_average(model, "stages.0.neuron", white_noise((2, 8, 8), 20, contrast=3))
    input_gradients(model, "stages.1.neuron", torch.rand(2, 2, 8, 8))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


# --- probes ------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 300), st.floats(0.1, 5))
def test_probes_have_the_size_and_the_contrast_asked_for(count: int, contrast: float) -> None:
    for draw in (white_noise, sparse_noise):
        images = torch.cat(list(draw((1, 20, 20), count, contrast=contrast, seed=1)))
        again = torch.cat(list(draw((1, 20, 20), count, contrast=contrast, seed=1)))
        assert images.shape == (count, 1, 20, 20)
        assert torch.equal(images, again)
        assert abs(images.mean().item()) < 5 * contrast / math.sqrt(images.numel())
    assert set(images.div(contrast).round().unique().tolist()) <= {-1.0, 0.0, 1.0}


@pytest.mark.parametrize(
    ("draw", "arguments", "message"),
    [
        (white_noise, {"count": 0}, "count is 0; ask for at least one image"),
        (white_noise, {"count": 1, "contrast": 0}, "contrast is 0; it must be above 0"),
        (sparse_noise, {"count": 1, "contrast": math.nan}, "contrast is nan; it must be above 0"),
        (sparse_noise, {"count": 1, "density": 1.5}, r"density is 1.5; it must be above 0"),
    ],
)
def test_bad_probes(draw: object, arguments: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        draw((1, 4, 4), **arguments)  # type: ignore[operator]


# --- input gradients ---------------------------------------------------------------------------------


def test_gradient_of_a_linear_membrane_is_the_filter() -> None:
    w = filters()
    fields = input_gradients(LinearNonlinear(w), "neuron", torch.randn(5, *SHAPE))
    torch.testing.assert_close(fields.maps, w.double(), rtol=1e-6, atol=1e-6)
    assert fields.standard_error.abs().max() < 1e-6
    assert fields.spikes is None
    assert not fields.silent.any()


def test_gradient_through_spikes_has_the_surrogate_in_it() -> None:
    w, images = filters(), torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(5))
    fields = input_gradients(LinearNonlinear(w), "neuron", images, quantity="spikes")
    u = torch.einsum("bchw,uchw->bu", images, w) - 1
    slope = (4 * torch.sigmoid(4 * u) * (1 - torch.sigmoid(4 * u))).mean(0)  # [U]
    torch.testing.assert_close(fields.maps, (slope.view(-1, 1, 1, 1) * w).double(), rtol=1e-5, atol=1e-6)


def test_gradient_equals_one_backward_pass_for_one_unit(tiny: NetworkConfig) -> None:
    model = SpikingMLP(tiny).eval()
    images = torch.randn(3, 2, 8, 8)
    path = "stages.1.blocks.0.channel.down.neuron"
    fields = input_gradients(model, path, images, positions=[(1, 0), (0, 0)], quantity="spikes")
    assert fields.units[1].tolist() == [1, 0, 1]
    seen: list[Tensor] = []
    hook = model.get_submodule(path).register_forward_hook(lambda m, i, out: seen.append(out))
    leaf = images.clone().requires_grad_()
    model(leaf)
    hook.remove()
    seen[0][:, :, 1, 0, 1].sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.abs().max() > 0
    torch.testing.assert_close(fields.maps[1].float(), leaf.grad.mean(0), rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(
        fields.standard_error[1].float(), leaf.grad.std(0) / math.sqrt(3), rtol=1e-4, atol=1e-7
    )


def test_gradients_of_large_layers_are_those_of_the_plain_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    # From 32768 currents on, neurons would run compiled, which many gradients at once cannot pass.
    model = create_model("mlp_spe_nano", time_steps=2)
    images = torch.rand(6, 1, 32, 32)
    path = "stages.0.blocks.0.token.fuse.neuron"
    by_default = input_gradients(model, path, images, positions=[(3, 4)])
    monkeypatch.setenv("SNNMLP_LIF_BACKEND", "eager")
    assert torch.equal(by_default.maps, input_gradients(model, path, images, positions=[(3, 4)]).maps)


def test_membranes_of_folded_neurons_are_their_own(tiny: NetworkConfig) -> None:
    config = tiny.replace(channel_norm="bn_token")
    images = torch.rand(4, config.in_channels, config.image_size, config.image_size, dtype=torch.float64)
    folded = fold_batch_norm(calibrate(SpikingMLP(config).double(), images, rate=0.2), strict=False)
    path = "stages.0.blocks.0.channel.up.neuron"
    position = (1, 1)
    fields = input_gradients(folded, path, images, positions=[position])
    pixels = images.clone().requires_grad_()
    layer = folded.get_submodule(path)
    seen: list[Tensor] = []
    hook = layer.register_forward_pre_hook(
        lambda module, inputs: seen.append(module.trace(inputs[0]).membrane)
    )
    folded(pixels)
    hook.remove()
    unit = 2
    (expected,) = torch.autograd.grad(seen[0][:, :, position[0], position[1], unit].sum(), pixels)
    torch.testing.assert_close(fields.maps[unit], expected.mean(0), rtol=1e-9, atol=1e-9)


def test_relu_twins_have_gradients_and_no_membrane(tiny: NetworkConfig) -> None:
    model = SpikingMLP(tiny.replace(activation="relu", time_steps=1))
    images = torch.rand(2, 2, 8, 8)
    fields = input_gradients(model, "stages.0.neuron", images, positions=[(0, 0)], quantity="spikes")
    assert fields.maps.abs().max() > 0
    with pytest.raises(InputError, match="is a layer of ReLU and has no membrane; take quantity='spikes'"):
        input_gradients(model, "stages.0.neuron", images)


# --- what is asked for must be there -----------------------------------------------------------------


def measure(model: nn.Module, path: str, images: Tensor, positions: object, how: str) -> Fields:
    if how == "spikes":
        return spike_triggered_average(model, path, [images], positions)  # type: ignore[arg-type]
    return input_gradients(model, path, images, positions)  # type: ignore[arg-type]


@pytest.mark.parametrize("how", ["spikes", "gradients"])
@pytest.mark.parametrize(
    ("path", "positions", "message"),
    [
        ("stages.0.neurn", None, r"'stages.0.neurn' does not exist.*did you mean 'stages.0.neuron'"),
        ("stages.0.embedding", None, "'stages.0.embedding' is no layer of neurons in this network"),
        ("stages.0.neuron", [(4, 0)], r"position \(4, 0\) lies outside the layer's 4 x 4 grid"),
        ("stages.0.neuron", [], "there are no positions to look at"),
    ],
)
def test_unknown_units(how: str, path: str, positions: object, message: str, tiny: NetworkConfig) -> None:
    with pytest.raises(InputError, match=message):
        measure(SpikingMLP(tiny), path, torch.rand(4, 2, 8, 8), positions, how)


@pytest.mark.parametrize("how", ["spikes", "gradients"])
def test_images_that_are_not_finite(how: str, tiny: NetworkConfig) -> None:
    images = torch.rand(4, 2, 8, 8)
    images[2, 0, 0, 0] = math.nan
    with pytest.raises(InputError, match="1 of 4 images have NaN or infinite values, the first is image 2"):
        measure(SpikingMLP(tiny), "stages.0.neuron", images, None, how)


def test_too_few_images(tiny: NetworkConfig) -> None:
    model, path = SpikingMLP(tiny), "stages.0.neuron"
    with pytest.raises(InputError, match="fewer than two stimuli"):
        spike_triggered_average(model, path, [torch.rand(1, 2, 8, 8)])
    with pytest.raises(InputError, match="fewer than two stimuli"):
        spike_triggered_average(model, path, iter([]))
    with pytest.raises(InputError, match="no images to average over"):
        input_gradients(model, path, torch.rand(0, 2, 8, 8))
    with pytest.raises(InputError, match=r"quantity is 'rate'.*membrane, spikes"):
        input_gradients(model, path, torch.rand(2, 2, 8, 8), quantity="rate")  # type: ignore[arg-type]


def test_centre_and_units() -> None:
    assert centre((5, 4), side=1) == [(2, 1)]
    with pytest.raises(InputError, match="side is 5 and the grid 4 x 8"):
        centre((4, 8), side=5)
    assert choose_units((2, 2, 2), None).tolist()[:3] == [[0, 0, 0], [0, 0, 1], [0, 1, 0]]


# --- controls ----------------------------------------------------------------------------------------


@pytest.fixture
def model_and_images(tiny: NetworkConfig) -> tuple[SpikingMLP, Tensor]:
    return SpikingMLP(tiny), torch.randn(300, 2, 8, 8)


def test_shuffling_keeps_every_number(model_and_images: tuple[SpikingMLP, Tensor]) -> None:
    model, images = model_and_images
    before = {name: value.clone() for name, value in model.named_parameters()}
    control = shuffled(model, images, seed=3)
    again = shuffled(model, images, seed=3)
    moved = 0
    for name, value in control.named_parameters():
        assert value.shape == before[name].shape
        assert torch.equal(value.flatten().sort().values, before[name].flatten().sort().values)
        assert torch.equal(value, again.get_parameter(name))
        moved += int(not torch.equal(value, before[name]))
    assert moved > 10
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(0, 1000))
def test_shuffle_is_a_permutation(shape: list[int], seed: int) -> None:
    values = torch.arange(math.prod(shape)).view(shape)
    mixed = shuffle(values, torch.Generator().manual_seed(seed))
    assert mixed.shape == values.shape
    assert mixed.flatten().sort().values.tolist() == list(range(values.numel()))


def test_untrained_network_fires_and_has_weights_of_its_own(
    model_and_images: tuple[SpikingMLP, Tensor],
) -> None:
    model, images = model_and_images
    state = torch.get_rng_state()
    control = untrained(model, images, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert control.config == model.config
    assert not control.training
    name = "stages.0.embedding.embed.conv.weight"
    assert not torch.equal(control.get_parameter(name), model.get_parameter(name))
    assert torch.equal(control.get_parameter(name), untrained(model, images, seed=1).get_parameter(name))
    rates = record(control, images[:50]).firing_rates()
    assert min(rates.values()) > 0


def test_untrained_network_is_of_the_same_class_and_precision(tiny: NetworkConfig) -> None:
    class Variant(SpikingMLP):
        pass

    control = untrained(Variant(tiny).double(), torch.rand(4, 2, 8, 8, dtype=torch.float64))
    assert type(control) is Variant
    assert {parameter.dtype for parameter in control.parameters()} == {torch.float64}


def test_statistics_of_a_control_are_those_of_the_images(model_and_images: tuple[SpikingMLP, Tensor]) -> None:
    model, images = model_and_images
    control = untrained(model, images)
    seen: list[Tensor] = []
    stem = control.get_submodule("stages.0.embedding.embed")
    hook = stem.get_submodule("conv").register_forward_hook(lambda m, i, out: seen.append(out))
    with torch.no_grad():
        for batch in images.chunk(2):
            control(batch)
    hook.remove()
    means = torch.stack([out.mean((0, 2, 3)) for out in seen]).mean(0)
    norm = stem.get_submodule("norm.batch_norm")
    torch.testing.assert_close(norm.running_mean, means, rtol=1e-4, atol=1e-5)
    assert norm.momentum == model.get_submodule("stages.0.embedding.embed.norm.batch_norm").momentum


@pytest.mark.parametrize("make", [untrained, shuffled])
def test_controls_need_images(make: object, tiny: NetworkConfig) -> None:
    with pytest.raises(InputError, match="there are 1 images to take statistics from; give at least two"):
        make(SpikingMLP(tiny), torch.rand(1, 2, 8, 8))  # type: ignore[operator]


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 1000))
def test_phase_randomisation_keeps_the_amplitude_spectrum(height: int, width: int, seed: int) -> None:
    maps = torch.randn(3, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    random = phase_randomised(maps, seed)
    assert random.dtype == torch.float64
    torch.testing.assert_close(torch.fft.fft2(random).abs(), torch.fft.fft2(maps).abs(), rtol=0, atol=1e-11)
    torch.testing.assert_close(random.mean((1, 2)), maps.mean((1, 2)))


def test_phase_randomisation_spreads_what_was_in_one_place() -> None:
    maps = torch.zeros(20, 16, 16)
    maps[:, 8, 8] = 1
    random = phase_randomised(maps)
    assert random.abs().amax((1, 2)).mean() < 0.4
    assert not torch.allclose(random[0], random[1]), "each field gets phases of its own"
    assert torch.equal(phase_randomised(maps, 0), random), "the same seed, the same phases"
    assert not torch.allclose(phase_randomised(maps, 1), random), "another seed, other phases"
    with pytest.raises(InputError, match="NaN or infinite"):
        phase_randomised(maps * math.nan)


def test_axial_lines_are_the_rows_of_the_maps() -> None:
    model = create_model("mlp_spe_nano")
    lines = axial_lines(model)
    assert list(lines) == [f"stages.0.blocks.0.token.positions.{axis}" for axis in ("rows", "columns")]
    weight = model.get_parameter("stages.0.blocks.0.token.positions.rows.synapse.linear.weight")
    assert torch.equal(lines["stages.0.blocks.0.token.positions.rows"], weight.detach().double())


def test_lines_too_short_for_a_fit(tiny: NetworkConfig) -> None:
    with pytest.raises(InputError, match="longest axial line of this network has 4 positions; a fit of one"):
        axial_lines(SpikingMLP(tiny))
    with pytest.raises(InputError, match="has 0 positions"):
        axial_lines(SpikingMLP(tiny.replace(token_mixing="none")))


def test_the_neurons_of_a_head_have_no_positions(tiny: NetworkConfig) -> None:
    model = SpikingMLP(tiny.replace(head="figure"))
    with pytest.raises(InputError, match="the head's neurons have no place on a grid"):
        input_gradients(model, "head.neuron", torch.rand(1, 2, 8, 8))
