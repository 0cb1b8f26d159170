"""The three votes in a real browser: every number is the one that the library computes."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from test_interactive import (  # noqa: F401  (three of them are fixtures)
    SET_AND_READ,
    assert_walks,
    pages,
    phone,
    says,
    show,
)

from book.interactive.votes_explorer import NAMES, SHOWN
from snnmlp_edu import lif_step, record
from snnmlp_edu.checkpoints import load_checkpoint
from snnmlp_edu.data import load_embedded
from snnmlp_edu.data.embedded import CLASS_NAMES

NEURONS = ("stages.0.neuron", "stages.0.blocks.0.token.fuse.neuron", "stages.0.blocks.0.channel.down.neuron")
HIDDEN = "stages.0.blocks.0.channel.up.neuron"


def block_of(name: str) -> tuple[list[torch.Tensor], list[torch.Tensor], torch.Tensor]:
    """Currents and spikes `[T, H, W, C]` of the three votes on a garment, and the hidden spikes."""
    checkpoint, test = load_checkpoint("mlp_spe_nano"), load_embedded("test")
    first = int((test.labels == CLASS_NAMES.index(name)).nonzero()[0])
    images = checkpoint.preprocessing(test.images[first : first + 1])
    model = checkpoint.model.eval()
    fired = record(model, images)
    stage, block = model.stages[0], model.stages[0].blocks[0]
    with torch.no_grad():
        h = stage.embedding(images)
        one, heard = block.token(fired[NEURONS[0]], h, keep_current=True)
        _, everything = block.channel(one, heard, keep_current=True)
    currents = [each[:, 0] for each in (h, heard, everything)]
    return currents, [fired[path][:, 0] for path in NEURONS], fired[HIDDEN][:, 0]


@pytest.mark.usefixtures("step_by_step")
@pytest.mark.parametrize("name", SHOWN)
def test_votes_are_those_of_the_trained_network(name: str, show: Any) -> None:  # noqa: F811
    currents, spikes, hidden = block_of(name)
    changes = sum((after != before).sum(dim=(0, -1)) for before, after in itertools.pairwise(spikes))
    row, column = divmod(int(changes.argmax()), changes.shape[-1])  # the token that changes its votes most
    config = load_checkpoint("mlp_spe_nano").model.config.neuron
    page = show("votes_explorer", kept=True)
    states: list[Any] = [None] * 3
    for t in range(len(hidden)):
        settings = {"garment": name, "time step": t + 1}
        before = None
        for k, vote in enumerate(NAMES):
            shown = page.evaluate(SET_AND_READ, [settings, vote])
            current = currents[k][t, row, column]
            left = 0 * current if states[k] is None else config.beta * states[k].membrane
            fired, states[k] = lif_step(current, states[k], config)
            assert shown["fired"] == fired.tolist() == spikes[k][t, row, column].tolist()
            membrane = left + config.input_gain * current
            for field, expected in (("current", current), ("left", left), ("membrane", membrane)):
                found = torch.tensor(shown[field], dtype=expected.dtype)
                torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
            said = [each in ("kept", "new") for each in shown["verdict"]]
            assert said == fired.bool().tolist()
            lost = (before > fired).tolist() if before is not None else [False] * len(fired)
            assert [each == "taken back" for each in shown["verdict"]] == lost
            before = fired
        place = page.evaluate(SET_AND_READ, [settings, "place"])
        assert (place["x"], place["y"]) == ([2 * column + 1], [32 - 2 * row - 1])
        firing = int(hidden[t, row, column].sum())
        assert says(page, f"Step {t + 1} of 4")
        assert says(page, f"{firing} of {hidden.shape[-1]}")


def test_marks_are_explained_beside_the_buttons(show: Any) -> None:  # noqa: F811
    page = show("votes_explorer")
    button = page.get_by_role("button", name="Next").bounding_box()
    panels = page.locator(".bk-Figure").nth(1).bounding_box()
    marks = {
        "fires": "rgb(213, 94, 0)",
        "taken back: fired in the vote before": "rgb(255, 255, 255)",
        "current": "rgb(0, 158, 115)",
        "membrane before the reset": "rgb(0, 114, 178)",
    }
    for words, color in marks.items():
        entry = page.get_by_text(words, exact=True)
        assert entry.locator("i").evaluate("each => getComputedStyle(each).backgroundColor") == color
        assert button["y"] < entry.bounding_box()["y"] < panels["y"]


def test_garments_are_green_as_in_the_book(show: Any) -> None:  # noqa: F811
    page = show("votes_explorer")
    colors = page.evaluate(
        "() => Bokeh.documents[0].get_model_by_name('votes_explorer').args.drawn"
        ".map(each => each.glyph.color_mapper).map(({palette, low, high}) => [low, high, ...palette])"
    )
    assert len(colors) == len(SHOWN)
    for low, high, *palette in colors:
        assert (low, high, len(palette)) == (0, 255, 256)
        assert (palette[0], palette[128], palette[-1]) == ("#ffffff", "#009d72", "#00241b")


def test_votes_answer_keyboard_and_buttons(show: Any) -> None:  # noqa: F811
    page = show("votes_explorer")
    assert_walks(page, slider="time step", words="Step {} of 4", last=4)
    page.get_by_label("garment", exact=True).select_option("Bag")
    pictures = page.evaluate(
        "() => Bokeh.documents[0].get_model_by_name('votes_explorer').args.drawn.map(each => each.visible)"
    )
    assert pictures == [name == "Bag" for name in SHOWN]
