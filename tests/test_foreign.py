"""Parts that the package never saw: each is handled rightly or refused by its name, never guessed at."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from audited import Fires
from reference import LINES, WIRINGS, Reference
from torch import Tensor, nn
from torch.optim import SGD

from snnmlp_edu import LIF, InputError, NetworkConfig, NeuronConfig, SpikingMLP, record
from snnmlp_edu.baselines import RESNET34
from snnmlp_edu.baselines.convolution import refuse_fields_of_a_mixer
from snnmlp_edu.config import Skip, SurrogateName, TokenMixingName
from snnmlp_edu.cost import count_operations
from snnmlp_edu.data.datasets import LabelledImages, Split
from snnmlp_edu.data.resizing import RESAMPLING
from snnmlp_edu.data.settings import Interpolation
from snnmlp_edu.data.sources import DATASETS, Dataset, Entry, ImageSource, open_source
from snnmlp_edu.fields import Rule, rules_of
from snnmlp_edu.mfi import audit, calibrate, export_nir, fold_batch_norm
from snnmlp_edu.mfi.events import quantisation
from snnmlp_edu.mfi.events.execute import event_driven
from snnmlp_edu.mfi.events.integer import IntegerLIF
from snnmlp_edu.mfi.folding import rules
from snnmlp_edu.mfi.folding.fold import NotFoldableError
from snnmlp_edu.mfi.folding.layers import AxisLIF, ChannelAffine
from snnmlp_edu.model import mixing
from snnmlp_edu.model.layout import Axis, features_along
from snnmlp_edu.model.linear import AxisLinear
from snnmlp_edu.model.mixing import MixerBlock, NormalisedSpikeSkipBlock, Wiring
from snnmlp_edu.model.network import Head, count_parameters, make_embedding
from snnmlp_edu.model.neurons import make_activation
from snnmlp_edu.model.normalisation import BatchNorm, make_norm
from snnmlp_edu.model.patches import ConvNorm, ConvPatchEmbedding
from snnmlp_edu.model.surrogates import SURROGATES
from snnmlp_edu.model.synapses import Synapse
from snnmlp_edu.training import Recipe, processes
from snnmlp_edu.training.losses import make_loss
from snnmlp_edu.training.recipe import SNNTORCH_LOSSES, Loss, Precision
from snnmlp_edu.training.schedule import TrainingSchedule, make_learning_rate_schedule, make_optimizer

# --- a block that somebody registered ------------------------------------------------------------------


class TokenBlock(MixerBlock):
    """`LIF(h + t)`, `LIF(c)`."""

    wiring = Wiring(token_currents=2, channel_currents=1, additions=1)

    def forward(self, spikes: Tensor, shortcut: Tensor) -> tuple[Tensor, Tensor]:
        spikes, _ = self.token(spikes, shortcut)
        return self.channel(spikes)[0], shortcut


class TokenReference(Reference):
    def block(self, name: str, s: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        middle = self.fire(h + self.token(f"{name}.token", s))
        return self.fire(self.channel(f"{name}.channel", middle)), h


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    allow(monkeypatch, NetworkConfig, "skip", "token")
    monkeypatch.setitem(mixing.BLOCKS, "token", TokenBlock)
    monkeypatch.setitem(WIRINGS, "token", (2, 1, 1, True))


def images_for(config: NetworkConfig, batch: int = 2) -> Tensor:
    shape = (batch, config.in_channels, config.image_size, config.image_size)
    return torch.rand(shape, dtype=torch.float64)


def token_network(tiny: NetworkConfig, **changes: Any) -> tuple[nn.Module, Tensor]:
    built = tiny.replace(skip="token", **changes)
    images = images_for(built)
    return calibrate(SpikingMLP(built).double(), images, rate=0.3), images


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("norm", ["bn", "tdbn", "tebn", "none"])
def test_a_registered_block_runs_folds_and_fires_on_events(tiny: NetworkConfig, norm: str) -> None:
    changes = {"channel_norm": norm, "token_norm": norm, "neuron": {"threshold": 0.7}}
    network, images = token_network(tiny, **changes)
    wanted = TokenReference(network.config, network.state_dict(), training=False).logits(images).mean(0)
    torch.testing.assert_close(network(images), wanted, rtol=0, atol=1e-10)
    folded = fold_batch_norm(network)
    torch.testing.assert_close(folded(images), wanted, rtol=0, atol=1e-10)
    report = audit(folded, images)
    assert report.multiplication_free, report
    torch.testing.assert_close(event_driven(folded)(images), wanted, rtol=0, atol=1e-10)


@pytest.mark.usefixtures("registered")
def test_a_registered_block_is_counted_by_what_it_states(tiny: NetworkConfig) -> None:
    network, images = token_network(tiny)
    folded = fold_batch_norm(network)
    fast = event_driven(folded)
    fast(images)
    in_head = fast.synaptic_operations.pop("head.linear")
    for counted in (network, folded):
        cost = count_operations(counted, images)
        assert cost.synaptic_operations == sum(fast.synaptic_operations.values()) / len(images)
        assert cost.head_accumulates == in_head / len(images)
        # Stage 0: 2 blocks on 4 x 4 x 6. Stage 1: 1 block on 2 x 2 x 12, and its patch encoding. 3 steps.
        assert cost.skip_additions == 3 * (2 * 4 * 4 * 6 + 2 * 2 * 2 * 12)
    assert sum(count_parameters(network).values()) == sum(p.numel() for p in network.parameters())


@pytest.mark.usefixtures("registered")
def test_a_registered_block_is_refused_where_its_wiring_must_be_known(
    tiny: NetworkConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    folded = fold_batch_norm(token_network(tiny)[0])
    with pytest.raises(InputError, match=r"TokenBlock.*mfi/nir\.py"):
        export_nir(folded)
    with pytest.raises(InputError, match=r"TokenBlock.*mfi/events/quantisation\.py"):
        event_driven(folded, weights="int8")
    monkeypatch.setattr(quantisation, "_KNOWN", quantisation._KNOWN | {TokenBlock})  # as a block of BLOCKS is
    with pytest.raises(InputError, match=r"blocks\.0 is a TokenBlock.*mfi/events/quantisation\.py"):
        event_driven(folded, weights="int8")


@pytest.mark.usefixtures("registered")
def test_a_neuron_takes_any_batch_norm_where_the_wiring_of_a_known_block_counts_one_current(
    tiny: NetworkConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, images = token_network(tiny, channel_norm="bn_token")
    with pytest.raises(NotFoldableError):
        fold_batch_norm(network)
    monkeypatch.setattr(rules, "WIRINGS", frozenset({TokenBlock}))
    folded = fold_batch_norm(network)
    assert type(folded.get_submodule("stages.0.blocks.0.channel.down.neuron")) is AxisLIF
    torch.testing.assert_close(folded(images), network(images), rtol=0, atol=1e-10)


def test_a_block_that_states_nothing_is_refused(tiny: NetworkConfig) -> None:
    class Unstated(MixerBlock):
        def forward(self, spikes: Tensor, shortcut: Tensor) -> tuple[Tensor, Tensor]:
            return self.token(spikes, shortcut)[0], shortcut

    with pytest.raises(InputError, match="Unstated does not state its wiring"):
        Unstated((4, 4, 6), tiny)
    network = calibrate(SpikingMLP(tiny).double(), images_for(tiny))
    network.get_submodule("stages.0.blocks.1").__class__ = Unstated
    with pytest.raises(InputError, match="Unstated does not state how many additions"):
        count_operations(network, images_for(tiny))


def test_what_enters_a_foreign_shortcut_need_not_be_a_spike(tiny: NetworkConfig) -> None:
    class CurrentNorm(NormalisedSpikeSkipBlock):
        """The batch norms of the shortcut see currents."""

        wiring = Wiring(token_currents=2, channel_currents=2, additions=2)

        def forward(self, spikes: Tensor, shortcut: Tensor) -> tuple[Tensor, Tensor]:
            spikes, _ = self.token(spikes, self.token_skip_norm(shortcut))
            return self.channel(spikes, self.channel_skip_norm(shortcut))[0], shortcut

    network = SpikingMLP(tiny.replace(skip="spike_bn")).double()
    network.stages[0].get_submodule("blocks.0").__class__ = CurrentNorm
    images = images_for(tiny)
    network = calibrate(network, images)
    with pytest.raises(NotFoldableError, match=r"token_skip_norm.*CurrentNorm"):
        fold_batch_norm(network)
    folded = fold_batch_norm(network, strict=False)
    torch.testing.assert_close(folded(images), network(images), rtol=0, atol=1e-10)


class Doubles(MixerBlock):
    """Puts out twos, and does not say so."""

    def forward(self, spikes: Tensor, shortcut: Tensor) -> tuple[Tensor, Tensor]:
        spikes, _ = self.token(spikes, shortcut)
        return 2 * self.channel(spikes)[0], shortcut


def test_what_a_foreign_block_puts_out_need_not_be_a_spike(tiny: NetworkConfig) -> None:
    network = SpikingMLP(tiny.replace(head="figure")).double()
    network.stages[1].get_submodule("blocks.0").__class__ = Doubles
    images = images_for(tiny)
    network = calibrate(network, images)
    folded = fold_batch_norm(network)
    assert isinstance(folded.get_submodule("head.affine"), ChannelAffine)
    torch.testing.assert_close(folded(images), network(images), rtol=0, atol=1e-10)


# --- parts of every other kind ---------------------------------------------------------------------------


class PlainBlock(nn.Module):
    """Not derived from MixerBlock: `LIF(h + M s)`."""

    def __init__(self, channels: int, neuron: NeuronConfig) -> None:
        super().__init__()
        self.synapse = Synapse(AxisLinear("channel", channels, channels), BatchNorm("channel", channels))
        self.neuron = LIF(neuron)

    def forward(self, spikes: Tensor, shortcut: Tensor) -> tuple[Tensor, Tensor]:
        return self.neuron(self.synapse.current(spikes) + shortcut), shortcut


class TwiceNorm(BatchNorm):
    def forward(self, current: Tensor) -> Tensor:
        return 2 * super().forward(current)


class Eightfold(nn.Module):
    """A normalisation of no family that is known."""

    def forward(self, current: Tensor) -> Tensor:
        return 8 * current


class NormFirst(Synapse):
    def forward(
        self, *spikes: Tensor, shortcut: Tensor | None = None, keep_current: bool = False
    ) -> tuple[Tensor, Tensor]:
        current = self.linear(self.norm(*spikes))
        current = current if shortcut is None else current + shortcut
        return self.neuron(current), current


class Weighted(AxisLinear):
    def weigh(self, spikes: Tensor, *more: Tensor) -> Tensor:
        return 2 * super().weigh(spikes, *more)

    def forward(self, spikes: Tensor, *more: Tensor) -> Tensor:
        return 2 * super().forward(spikes, *more)


class DoubledEmbedding(ConvPatchEmbedding):
    def forward(self, spikes: Tensor) -> Tensor:
        return 2 * super().forward(spikes)


class EmbeddingOfOurs(nn.Module):
    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.near, self.far = (ConvNorm(before, width, kernel, stride=2) for kernel in (2, 1))

    def forward(self, spikes: Tensor) -> Tensor:
        return self.near(spikes) + self.far(spikes)


class Shifts(nn.Module):
    """Token mixing without weights: every token hears the one beside it."""

    streams = 2

    def __init__(self, shape: tuple[int, int, int], config: NetworkConfig) -> None:
        super().__init__()

    def forward(self, spikes: Tensor) -> tuple[Tensor, ...]:
        return spikes, spikes.roll(1, dims=3)


class MaximumHead(Head):
    def forward(self, spikes: Tensor) -> Tensor:
        return self.linear(self.norm(spikes).amax(dim=(2, 3)))


class OtherHead(nn.Module):
    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, classes)

    def forward(self, spikes: Tensor) -> Tensor:
        return self.linear(spikes.mean(dim=(2, 3)))

    def combine(self, steps: Tensor) -> Tensor:
        return steps.sum(0)


class Silences(LIF):
    """Fires where LIF does not."""

    def forward(self, current: Tensor) -> Tensor:
        return 1 - super().forward(current)


PARTS: dict[str, Callable[[NetworkConfig], tuple[str, nn.Module]]] = {
    "PlainBlock": lambda c: ("stages.0.blocks.1", PlainBlock(c.dim, c.neuron)),
    "TwiceNorm": lambda c: ("stages.0.blocks.0.channel.up.norm", TwiceNorm("channel", 3 * c.dim)),
    "Eightfold": lambda c: ("stages.0.blocks.0.channel.up.norm", Eightfold()),
    "NormFirst": lambda c: (
        "stages.0.blocks.0.channel.up",
        NormFirst(AxisLinear("channel", c.dim, 3 * c.dim), BatchNorm("channel", c.dim), LIF(c.neuron)),
    ),
    "Weighted": lambda c: ("stages.0.blocks.0.channel.up.linear", Weighted("channel", c.dim, 3 * c.dim)),
    "DoubledEmbedding": lambda c: ("stages.1.embedding", DoubledEmbedding(c.dim, 2 * c.dim)),
    "EmbeddingOfOurs": lambda c: ("stages.1.embedding", EmbeddingOfOurs(c.dim, 2 * c.dim)),
    "MaximumHead": lambda c: ("head", MaximumHead(c)),
    "OtherHead": lambda c: ("head", OtherHead(2 * c.dim, c.num_classes)),
    "Silences": lambda c: ("stages.0.blocks.0.token.fuse.neuron", Silences(c.neuron)),
    "Fires": lambda c: ("stages.0.blocks.0.token.fuse.neuron", Fires(0.3)),
}


def refusal(act: Callable[[], object]) -> str | None:
    """What an `InputError` says, None where there was none."""
    try:
        act()
    except InputError as error:
        return str(error)
    return None


def names_the_part(refused: str | None, tiny: NetworkConfig, name: str) -> bool:
    """Whether a refusal names the part's class, or the path of its layer or of one below the same synapse."""
    path = PARTS[name](tiny)[0].removesuffix(".linear")
    return refused is not None and (name in refused or path in refused)


@functools.cache
def lively(tiny: NetworkConfig) -> nn.Module:
    torch.manual_seed(0)
    return calibrate(SpikingMLP(tiny).double(), images_for(tiny), rate=0.3)


def with_part(tiny: NetworkConfig, name: str) -> tuple[Any, Tensor]:
    """A network that holds a foreign part, with statistics, in which neurons fire."""
    images = images_for(tiny)
    network: Any = copy.deepcopy(lively(tiny))
    path, part = PARTS[name](tiny)
    network.set_submodule(path, part.double())
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.momentum = 1.0  # the statistics become those of this batch
    with torch.no_grad():
        network.train()(images)
    network.eval()
    assert record(network, images).firing_rates()["stages.0.neuron"] > 0
    return network, images


@pytest.mark.parametrize("name", PARTS)
def test_folded_or_on_events_a_foreign_part_computes_the_same(tiny: NetworkConfig, name: str) -> None:
    network, images = with_part(tiny, name)
    wanted = network(images)
    assert wanted.std() > 0
    refused = refusal(lambda: fold_batch_norm(network))
    assert refused is None or name in refused
    folded = fold_batch_norm(network, strict=False)
    torch.testing.assert_close(folded(images), wanted, rtol=0, atol=1e-10)

    def on_events() -> None:
        torch.testing.assert_close(event_driven(folded)(images), wanted, rtol=0, atol=1e-10)

    refused = refusal(on_events)
    assert refused is None or names_the_part(refused, tiny, name)


@pytest.mark.parametrize("name", PARTS)
def test_a_foreign_part_is_neither_exported_nor_counted(tiny: NetworkConfig, name: str) -> None:
    network, images = with_part(tiny, name)
    folded = fold_batch_norm(network, strict=False)
    with pytest.raises(InputError, match=rf"{name}.*cost/tally\.py"):
        count_operations(network, images)
    for refuses in (export_nir, lambda net: event_driven(net, weights="int8")):
        assert names_the_part(refusal(functools.partial(refuses, folded)), tiny, name)


@pytest.mark.parametrize("name", PARTS)
def test_calibration_reaches_the_rate_or_says_that_it_cannot(tiny: NetworkConfig, name: str) -> None:
    network, images = with_part(tiny, name)

    def fires_as_often_as_asked() -> None:
        rates = record(calibrate(network, images, rate=0.3), images).firing_rates()
        for path, rate in rates.items():
            if path.startswith("stages.0"):  # where there are enough different currents for any rate
                assert rate == pytest.approx(0.3, abs=0.03), path

    refused = refusal(fires_as_often_as_asked)
    assert refused is None or name in refused


def test_calibration_sees_through_a_norm_that_doubles_shifts(tiny: NetworkConfig) -> None:
    network, images = with_part(tiny, "TwiceNorm")
    with pytest.raises(InputError, match=r"channel\.up\.neuron were calibrated.*TwiceNorm"):
        calibrate(network, images, rate=0.05)


@pytest.mark.parametrize("name", ["PlainBlock", "EmbeddingOfOurs"])
def test_parameters_of_no_known_part_are_in_no_sum(tiny: NetworkConfig, name: str) -> None:
    with pytest.raises(InputError, match=PARTS[name](tiny)[0]):
        count_parameters(with_part(tiny, name)[0])


def test_a_registered_token_mixing(tiny: NetworkConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    allow(monkeypatch, NetworkConfig, "token_mixing", "shift")
    monkeypatch.setitem(mixing._POSITIONS, "shift", Shifts)
    built = tiny.replace(token_mixing="shift")
    images = images_for(built)
    network = calibrate(SpikingMLP(built).double(), images, rate=0.3)
    folded = fold_batch_norm(network)
    torch.testing.assert_close(folded(images), network(images), rtol=0, atol=1e-10)
    torch.testing.assert_close(event_driven(folded)(images), network(images), rtol=0, atol=1e-10)
    assert sum(count_parameters(network).values()) == sum(p.numel() for p in network.parameters())
    for refuses in (export_nir, lambda net: count_operations(net, images)):
        with pytest.raises(InputError, match="Shifts"):
            refuses(folded)


def test_a_network_that_overrides_the_forward_pass(tiny: NetworkConfig) -> None:
    class Darker(SpikingMLP):
        def forward_steps(self, images: Tensor) -> Tensor:
            return super().forward_steps(images / 2)

    images = images_for(tiny)
    network = calibrate(Darker(tiny).double(), images)
    folded = fold_batch_norm(network)
    torch.testing.assert_close(folded(images), network(images), rtol=0, atol=1e-10)
    for refuses in (export_nir, lambda net: event_driven(net, weights="int8")):
        with pytest.raises(InputError, match="Darker"):
            refuses(folded)
    with pytest.raises(InputError, match="Darker"):
        count_operations(network, images)


# --- names -----------------------------------------------------------------------------------------------


def allow(monkeypatch: pytest.MonkeyPatch, cls: type, field: str, name: str) -> None:
    """Let a field of a dataclass take one more name."""
    rule = rules_of(cls)[field]
    monkeypatch.setitem(rules_of(cls), field, Rule(lambda v: v == name or rule.holds(v), rule.expected))


def test_every_table_by_name_holds_every_name() -> None:
    for table, names in (
        (mixing.BLOCKS, Skip),
        (mixing._POSITIONS, TokenMixingName),
        (SURROGATES, SurrogateName),
        (DATASETS, Dataset),
        (RESAMPLING, Interpolation),
        (processes.PRECISION, Precision),
        (WIRINGS, Skip),
        (LINES, TokenMixingName),
    ):
        assert set(table) == set(get_args(names))
    assert {features_along(axis, (2, 3, 5)) for axis in get_args(Axis)} == {2, 3, 5, 6}
    assert set(SNNTORCH_LOSSES) < set(get_args(Loss))
    assert {name: mixing.wiring_of(block) for name, block in mixing.BLOCKS.items()} == WIRINGS


@pytest.mark.parametrize(
    ("field", "build"),
    [
        ("activation", make_activation),
        ("head", Head),
        ("patch_encoding", lambda c: make_embedding(c, 1)),
        ("channel_norm", SpikingMLP),
        ("token_norm", SpikingMLP),
    ],
)
def test_a_name_without_a_branch_builds_nothing(
    monkeypatch: pytest.MonkeyPatch, tiny: NetworkConfig, field: str, build: Any
) -> None:
    allow(monkeypatch, NetworkConfig, field, "foreign")
    with pytest.raises(AssertionError, match="foreign"):
        build(tiny.replace(**{field: "foreign"}))


def test_a_norm_without_a_branch_is_no_batch_norm() -> None:
    foreign: Any = "group"
    with pytest.raises(AssertionError, match="group"):
        make_norm(foreign, "channel", (2, 2, 3), time_steps=1, threshold=1.0)


def test_a_reset_without_a_branch_resets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    allow(monkeypatch, NeuronConfig, "reset", "half")
    foreign: Any = "half"
    neuron = NeuronConfig(reset=foreign, backend="eager", input_gain=1.0)
    axis = AxisLIF(neuron, "channel", torch.ones(2), torch.zeros(2))
    current = torch.ones(2, 1, 1, 1, 2)
    for layer, given in ((LIF(neuron), current), (axis, current), (IntegerLIF(neuron, 0.1), current.int())):
        with pytest.raises(AssertionError, match="half"):
            layer(given)


@pytest.mark.parametrize(
    ("field", "use"),
    [
        ("loss", make_loss),
        (
            "optimizer",
            lambda recipe: make_optimizer(nn.Linear(2, 1), TrainingSchedule(recipe, 100)),
        ),
        ("schedule", lambda recipe: TrainingSchedule(recipe, images=100).warmup),
        (
            "schedule",
            lambda recipe: make_learning_rate_schedule(
                SGD(nn.Linear(2, 1).parameters()), TrainingSchedule(recipe.replace(warmup=0.1), images=100)
            ),
        ),
        ("scale_learning_rate", lambda recipe: TrainingSchedule(recipe, images=100).learning_rate),
    ],
)
def test_a_recipe_name_without_a_branch_trains_nothing(
    monkeypatch: pytest.MonkeyPatch, field: str, use: Callable[[Recipe], Any]
) -> None:
    allow(monkeypatch, Recipe, field, "foreign")
    foreign: Any = {field: "foreign"}
    recipe = Recipe("r", "ours", epochs=2, learning_rate=0.1, batch_size=10, base_batch=5, **foreign)
    with pytest.raises(AssertionError, match="foreign"):
        use(recipe)


def test_a_data_set_is_what_its_entry_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no data set 'flowers'"):
        open_source("flowers")

    def load(split: Split) -> LabelledImages:
        return LabelledImages(torch.full((2, 1, 2, 2), 7, dtype=torch.uint8), torch.tensor([0, 1]))

    names = ("rose", "tulip")
    foreign: Any = "flowers"
    monkeypatch.setitem(
        DATASETS, foreign, Entry(lambda wanted, given: ImageSource(wanted.name, given or (), load), names)
    )
    with pytest.raises(InputError, match="flowers is read from files"):
        open_source("flowers")
    source = open_source("flowers", tmp_path)
    assert (source.name, source.class_names, source.load("test").images.max()) == ("flowers", names, 7)


def test_baselines_refuse_a_field_that_they_never_heard_of() -> None:
    @dataclasses.dataclass(frozen=True)
    class Gated(NetworkConfig):
        gate: str = "open"

    with pytest.raises(InputError, match="gate='shut'"):
        refuse_fields_of_a_mixer("spiking_resnet34", Gated(gate="shut"), Gated())
    refuse_fields_of_a_mixer("spiking_resnet34", RESNET34.replace(dim=8, activation="relu"), RESNET34)
