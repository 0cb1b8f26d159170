from __future__ import annotations

import copy
import gc
import resource
from concurrent.futures import ThreadPoolExecutor
from typing import Any, get_args

import pytest
import torch
from reference import Reference
from torch import Tensor, nn
from variants import HEADS, PATCH_ENCODINGS, RESETS, SKIPS, SURROGATES, TOKEN_MIXINGS, fitted

from snnmlp_edu import InputError, NetworkConfig, SpikingMLP, count_parameters, record
from snnmlp_edu.config import ChannelNorm, TokenNorm
from snnmlp_edu.model.linear import AxisLinear

VARIANTS: list[dict[str, Any]] = [
    {},
    *({"channel_norm": kind} for kind in get_args(ChannelNorm)),
    *({"token_norm": kind} for kind in get_args(TokenNorm)),
    *({"token_mixing": "full", "token_norm": kind} for kind in get_args(TokenNorm)),
    *(fitted({"skip": skip}) for skip in SKIPS),
    *(fitted({"skip": skip, "channel_norm": "tdbn", "token_norm": "tdbn"}) for skip in SKIPS),
    *({"patch_encoding": name} for name in PATCH_ENCODINGS),
    *({"token_mixing": name} for name in TOKEN_MIXINGS),
    *({"head": name} for name in HEADS),
    {"activation": "relu"},
    {"activation": "relu", "skip": "spike", "head": "figure", "patch_encoding": "conv"},
    *({"neuron": {"surrogate": name}} for name in SURROGATES),
    {"neuron": {"surrogate": "sigmoid", "slope": 2.5}},
    *({"neuron": {"reset": name}} for name in RESETS),
    {"neuron": {"beta": 0.8, "threshold": 0.5, "input_gain": 1.0}, "token_norm": "tdbn"},
    {"neuron": {"inclusive": False}},
    {"time_steps": 1},
    {"time_steps": 6},
    {"expansion": 1, "depths": (1, 1, 1)},
]


def name_of(variant: dict[str, Any]) -> str:
    return "-".join(f"{key}={value}" for key, value in variant.items()) or "default"


def shaken(config: NetworkConfig) -> SpikingMLP:
    """A network in fp64 with random scales, shifts and statistics, so that every layer fires."""
    model = SpikingMLP(config).double()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.LayerNorm):
                module.weight.uniform_(0.8, 2.0)
                module.bias.uniform_(0.5, 1.5)
            if isinstance(module, nn.BatchNorm1d):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.2, 0.8)
        for name, parameter in model.named_parameters():
            if name.endswith("step_scale"):
                parameter.uniform_(0.7, 1.3)
            if name.endswith("linear.bias"):
                parameter.uniform_(0.0, 3.0)
    return model


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("variant", VARIANTS, ids=name_of)
def test_every_variant_equals_the_written_out_network(
    tiny: NetworkConfig, variant: dict[str, Any], training: bool
) -> None:
    config = tiny.replace(**variant)
    model = shaken(config).train(training)
    images = torch.rand(3, 2, 8, 8, dtype=torch.float64)
    target = torch.randn(config.time_steps, 3, 5, dtype=torch.float64)

    parameters = {k: v.detach().clone().requires_grad_() for k, v in model.named_parameters()}
    buffers = {k: v.clone() for k, v in model.named_buffers()}
    expected = Reference(config, parameters | buffers, training).logits(images)
    (expected * target).sum().backward()
    actual = model.forward_steps(images)
    (actual * target).sum().backward()

    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(
            parameter.grad, parameters[name].grad, rtol=1e-7, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}"
        )
    assert sum(bool(p.grad.abs().sum() > 0) for p in model.parameters()) > 0.8 * len(parameters)


@pytest.mark.parametrize("variant", VARIANTS, ids=name_of)
def test_every_layer_of_every_variant_fires(tiny: NetworkConfig, variant: dict[str, Any]) -> None:
    # Otherwise equality with the reference would be equality of silence.
    model = shaken(tiny.replace(**variant)).train()
    images = torch.rand(3, 2, 8, 8, dtype=torch.float64)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.momentum = None  # the statistics of the one batch to come
    model(images)
    rates = record(model, images).firing_rates()
    assert all(rate > 0 for rate in rates.values()), rates


def test_logits_are_the_mean_over_steps(tiny: NetworkConfig) -> None:
    model = shaken(tiny).eval()
    images = torch.rand(2, 2, 8, 8, dtype=torch.float64)
    assert model(images).shape == (2, 5)
    torch.testing.assert_close(model(images), model.forward_steps(images).mean(0))


def test_images_with_a_time_axis_are_presented_step_by_step(tiny: NetworkConfig) -> None:
    model = shaken(tiny).eval()
    images = torch.rand(2, 2, 8, 8, dtype=torch.float64)
    steps = model.forward_steps(images)
    torch.testing.assert_close(model.forward_steps(images.expand(3, -1, -1, -1, -1)), steps)
    # What comes at the last step cannot change what was said before it.
    changed = images.repeat(3, 1, 1, 1, 1)
    changed[2] = 10 * torch.randn(2, 2, 8, 8)
    later = model.forward_steps(changed)
    torch.testing.assert_close(later[:2], steps[:2])
    assert not torch.allclose(later[2], steps[2])


def test_presenting_equals_a_network_with_so_many_steps(tiny: NetworkConfig) -> None:
    network = shaken(tiny).eval()
    shorter = SpikingMLP(tiny.replace(time_steps=1)).double().eval()
    shorter.load_state_dict(network.state_dict())
    images = torch.rand(2, 2, 8, 8, dtype=torch.float64)
    usual = network.forward_steps(images)
    with network.presenting(1):
        assert torch.equal(network.forward_steps(images), shorter.forward_steps(images))
        with pytest.raises(InputError, match=r"\[1, B,"):
            network(images.expand(tiny.time_steps, *images.shape))
    assert torch.equal(network.forward_steps(images), usual), "afterwards nothing has changed"


def test_presenting_ends_with_an_error_inside(tiny: NetworkConfig) -> None:
    network = shaken(tiny.replace(token_norm="tebn")).eval()
    images = torch.rand(2, 2, 8, 8, dtype=torch.float64)
    with pytest.raises(InputError, match="time_steps"), network.presenting(1):
        network(images)
    assert network.forward_steps(images).shape[0] == tiny.time_steps


@pytest.mark.parametrize("steps", [0, -1, 2.5, "2", None, True])
def test_no_other_number_of_steps_is_presented(tiny: NetworkConfig, steps: Any) -> None:
    with pytest.raises(InputError, match="time_steps"), SpikingMLP(tiny).presenting(steps):
        pass


def test_each_thread_presents_as_often_as_it_asks_for(tiny: NetworkConfig) -> None:
    network, images = SpikingMLP(tiny).eval(), torch.rand(2, 2, 8, 8)

    def run(steps: int) -> Tensor:
        with network.presenting(steps), torch.no_grad():
            return network.forward_steps(images)

    expected = {steps: run(steps) for steps in (1, 2, 4, 5)}
    with ThreadPoolExecutor(4) as pool:
        for steps, found in zip([1, 2, 4, 5] * 10, pool.map(run, [1, 2, 4, 5] * 10), strict=True):
            assert torch.equal(found, expected[steps])


def test_presenting_holds_until_its_own_end(tiny: NetworkConfig) -> None:
    network, images = SpikingMLP(tiny).eval(), torch.rand(2, 2, 8, 8)
    other = copy.deepcopy(network)
    with network.presenting(2):
        with network.presenting(5):
            assert len(network.forward_steps(images)) == 5
            assert len(other.forward_steps(images)) == len(copy.deepcopy(network).forward_steps(images)) == 3
        assert len(network.forward_steps(images)) == 2


@pytest.mark.parametrize("momentum", [0.1, None])
def test_the_stem_counts_every_step(tiny: NetworkConfig, momentum: float | None) -> None:
    """Its statistics are those of a batch norm over T copies of each image, which nobody has to make."""
    stem: Any = SpikingMLP(tiny).double().train().stages[0].embedding
    stem.embed.norm.batch_norm.momentum = momentum
    reference = nn.BatchNorm2d(tiny.dim, momentum=momentum).double()
    for _ in range(3):
        images = torch.rand(2, 2, 8, 8, dtype=torch.float64)
        current = reference(stem.embed.conv(images).repeat(tiny.time_steps, 1, 1, 1))
        found = stem(images)
        torch.testing.assert_close(found.flatten(0, 1).permute(0, 3, 1, 2), current)
        found.sum().backward()
    state = stem.embed.norm.batch_norm.state_dict()
    torch.testing.assert_close(dict(state), dict(reference.state_dict()), rtol=1e-12, atol=1e-15)


def test_torch_compile_and_export_make_one_graph_for_all_batches() -> None:
    config = NetworkConfig(dim=6, depths=(1,), patch_size=4, image_size=16, in_channels=2, num_classes=5)
    network = shaken(config).eval().float()
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled = torch.compile(network, backend="eager", fullgraph=True, dynamic=True)
    batch = torch.export.Dim("batch", min=2, max=64)
    images = torch.rand(17, 2, 16, 16)
    exported = torch.export.export(network, (images[:3],), dynamic_shapes=({0: batch},)).module()
    expected = network(images)
    for size in (3, 5, 8, 9, 12, 17):
        torch.testing.assert_close(compiled(images[:size]), expected[:size])
        torch.testing.assert_close(exported(images[:size]), expected[:size])
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_transforms_of_a_network_find_what_loops_find(tiny: NetworkConfig) -> None:
    network = shaken(tiny).eval()
    images, tangents = torch.rand(2, 3, 2, 8, 8, dtype=torch.float64)
    one_by_one = torch.func.vmap(lambda image: network(image.unsqueeze(0)).squeeze(0))(images)
    torch.testing.assert_close(one_by_one, network(images))
    gradient = torch.func.grad(lambda x: network(x).square().sum())(images)
    tracked = images.clone().requires_grad_()
    torch.testing.assert_close(gradient, torch.autograd.grad(network(tracked).square().sum(), tracked)[0])
    logits, slopes = torch.func.jvp(network, (images,), (tangents,))
    torch.testing.assert_close((slopes * 2 * logits).sum(), (gradient * tangents).sum())


def test_a_default_of_double_precision_makes_networks_of_it(tiny: NetworkConfig) -> None:
    single = SpikingMLP(tiny).eval()
    images = torch.rand(2, 2, 8, 8)
    expected = single(images)
    torch.set_default_dtype(torch.float64)
    try:
        torch.testing.assert_close(single(images), expected, rtol=0, atol=0)
        double = SpikingMLP(tiny)
        logits = double(images.double())
        logits.sum().backward()
        assert {logits.dtype, *(p.grad.dtype for p in double.parameters())} == {torch.float64}
        current = torch.randn(3, 40, dtype=torch.float32) * 2 + 1
        for backend in ("eager", "compiled", "snntorch"):
            neuron = SpikingMLP(tiny.replace(neuron={"backend": backend})).stages[0].neuron
            assert neuron(current).dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    ("change", "named"), [({"dtype": torch.float64}, "float64"), ({"device": "meta"}, "meta")]
)
def test_images_of_another_precision_or_device_are_refused(
    tiny: NetworkConfig, change: dict[str, Any], named: str
) -> None:
    with pytest.raises(InputError, match=named):
        SpikingMLP(tiny)(torch.rand(2, 2, 8, 8).to(**change))


@pytest.mark.parametrize("config", [None, {"dim": 6}, NetworkConfig])
def test_a_network_takes_a_configuration(config: Any) -> None:
    with pytest.raises(InputError, match="NetworkConfig"):
        SpikingMLP(config)


def test_the_order_of_a_batch_and_earlier_batches_do_not_matter(tiny: NetworkConfig) -> None:
    model = shaken(tiny).eval()
    images = torch.rand(6, 2, 8, 8, dtype=torch.float64)
    first = model(images)
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    torch.testing.assert_close(model(images[order]), first[order])
    model(torch.rand(2, 2, 8, 8, dtype=torch.float64) * 10)
    torch.testing.assert_close(model(images), first, rtol=0, atol=0)
    torch.testing.assert_close(model(images[2:3]), first[2:3])


@pytest.mark.parametrize("backend", ["eager", "snntorch"])
def test_a_hundred_forward_calls_leave_nothing_behind(tiny: NetworkConfig, backend: str) -> None:
    model = SpikingMLP(tiny.replace(depths=(1,), neuron={"backend": backend})).eval()
    images = torch.rand(256, 2, 8, 8)

    def live_tensors() -> int:
        gc.collect()
        return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())

    with torch.no_grad():
        for _ in range(20):
            model(images)
        tensors, peak = live_tensors(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(125):
            model(images)
        assert live_tensors() <= tensors  # what earlier tests left may go meanwhile
        # One neuron layer's state here is 96 KiB: 125 of them kept alive would show as 12 MiB.
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 8 * 1024


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 2, 10, 8), (2, 8, 8), (4, 2, 2, 8, 8)], ids=str)
def test_images_of_another_shape_are_refused(tiny: NetworkConfig, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"images have shape .* this network takes \[B, 2, 8, 8\]"):
        SpikingMLP(tiny)(torch.rand(shape))


@pytest.mark.parametrize("images", [torch.zeros(2, 2, 8, 8, dtype=torch.uint8), "garment.png"])
def test_images_of_another_kind_are_refused(tiny: NetworkConfig, images: Any) -> None:
    with pytest.raises(InputError, match=r"images are (torch\.uint8|str); this network takes floating point"):
        SpikingMLP(tiny)(images)


@pytest.mark.parametrize("variant", VARIANTS, ids=name_of)
def test_the_parts_sum_to_all_parameters(tiny: NetworkConfig, variant: dict[str, Any]) -> None:
    model = SpikingMLP(tiny.replace(**variant))
    parts = count_parameters(model)
    assert sum(parts.values()) == sum(p.numel() for p in model.parameters())
    # Two norms with scale and shift in each block: three blocks, widths 6, 6 and 12.
    with_norms = variant.get("skip") in ("spike_bn", "outer")
    assert parts["skip"] == (2 * 2 * (6 + 6 + 12) if with_norms else 0)


def test_sync_batch_norm_finds_every_batch_norm(tiny: NetworkConfig) -> None:
    model = SpikingMLP(tiny.replace(skip="spike_bn", channel_norm="tdbn", token_norm="tebn"))
    count = sum(isinstance(m, nn.BatchNorm1d) for m in model.modules())
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert sum(isinstance(m, nn.SyncBatchNorm) for m in converted.modules()) == count > 20
    images = torch.rand(2, 2, 8, 8)
    assert converted.eval()(images).shape == (2, 5)


def test_spikes_are_exact_under_bf16_autocast(tiny: NetworkConfig) -> None:
    model = SpikingMLP(tiny).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        traces = record(model, torch.rand(2, 2, 8, 8))
        model(torch.rand(2, 2, 8, 8)).sum().backward()
    assert all(set(spikes.unique().tolist()) <= {0.0, 1.0} for spikes in traces.values())


def test_parts_given_apart_are_mapped_as_if_side_by_side() -> None:
    parts = [torch.randn(3, 2, 4, 4, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    linear = AxisLinear("channel", 12, 5).double()
    apart, joined = linear(*parts), linear(torch.cat(parts, dim=-1))
    torch.testing.assert_close(apart, joined)
    weight = torch.randn_like(apart)
    sources = (*parts, linear.weight, linear.bias)
    torch.testing.assert_close(
        torch.autograd.grad((apart * weight).sum(), sources),
        torch.autograd.grad((joined * weight).sum(), sources),
    )
    with pytest.raises(InputError, match="along the channels, not along width"):
        AxisLinear("width", 12, 4)(*parts)


def test_the_meta_device_gives_shapes_without_work() -> None:
    with torch.device("meta"):
        model = SpikingMLP(NetworkConfig())
        assert model(torch.empty(2, 3, 224, 224)).shape == (2, 1000)
