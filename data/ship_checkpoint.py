"""Ship a trained network: copy a run's checkpoint to `data/checkpoints`, and write its model card.

    snnmlp train --recipe fashion_embedded --output runs
    python data/ship_checkpoint.py runs/fashion_embedded-0-1 mlp_spe_nano

It may have been trained on any data set of which `ABOUT` knows what to say. It is tested again first:
nothing is copied unless it classifies as many test images correctly as training reported. Every number of
the card is taken from the checkpoint.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from snnmlp_edu.checkpoints import CHECKPOINT, Checkpoint, load_checkpoint
from snnmlp_edu.config import NetworkConfig
from snnmlp_edu.data.files import write_atomically
from snnmlp_edu.data.scripts import run_script, write_shipped
from snnmlp_edu.errors import InputError
from snnmlp_edu.model.network import count_parameters
from snnmlp_edu.training import Recipe, describe_accuracy, evaluate_source, list_recipes, load_recipe
from snnmlp_edu.training.evaluation import own_source

HERE = Path(__file__).resolve().parent
CARD = """# {name}

{what}
It ships with the package, so that nothing has to be trained before it is looked at.

| | |
|---|---|
| preset | `{preset}` |
| parameters | {parameters:,} |
| input | {channels} x {size} x {size}, {origin} |
| time steps | {time_steps} |
| test accuracy | {test} |
| validation accuracy | {validation:.2f} % |
| kept epoch | {epoch} of {epochs}, chosen by validation accuracy |
| made with | PyTorch {torch}, seed {seed} |

Parameters by part: {parts}.

## How it was made

```
snnmlp train --recipe {recipe_name} --output runs{overrides}
python data/ship_checkpoint.py runs/{recipe_name}-{seed}-1 {name}
```

Trained numbers differ between processors and versions of PyTorch, because sums are rounded in another
order; expect the same accuracy within the spread of a few seeds. The whole recipe:

```yaml
{recipe}```

## Use and limits

```python
from snnmlp_edu import load_pretrained

network = load_pretrained("{name}")
```

{limits}
"""

# What cannot be read from a checkpoint, for each data set.
ABOUT = {
    "embedded": {
        "what": "A small {network} that tells ten kinds of garments apart, trained on the images in"
        " `data/fashion_mnist`.",
        "origin": "from 28 x 28 pixels by padding",
        "limits": """\
It is meant for teaching and for tests of this package: folding, audits, counts of operations. It has
seen 28 x 28 grey pictures of garments on black, from one shop, in ten classes, and nothing else. Its one
seed says nothing about the spread. The weights are under the licence of this repository, the images under
the one in `data/fashion_mnist/LICENSE`.""",
    },
    "fashion_mnist": {
        "what": "A {network} that tells ten kinds of garments apart, trained on all of Fashion-MNIST. Its"
        " epoch was chosen by 6,000 of the 60,000 training images.",
        "origin": "from 28 x 28 pixels by padding",
        "limits": """\
It has seen 28 x 28 grey pictures of garments on black, from one shop, in ten classes, and nothing else.
This is one seed: `snnmlp ledger table fashion_mnist_full` has the spread over seeds of `mlp_spe_micro` and of
its twin. The images are those of Xiao, Rasul and Vollgraf (arXiv 1708.07747), under the MIT licence of
`data/fashion_mnist/LICENSE`; the weights are under the licence of this repository.""",
    },
    "digits": {
        "what": "A small {network} that tells handwritten digits apart: `mlp_spe_nano`, which had learnt"
        " garments, fine-tuned.",
        "origin": "from 8 x 8 pixels by enlarging",
        "limits": """\
It is meant for looking at what transfer changes, and not for reading digits. Whether having learnt garments
helps is a question for several seeds: `snnmlp ledger table transfer` has them. The digits are the 1,797 of
scikit-learn, from the Optical Recognition of Handwritten Digits of E. Alpaydin and C. Kaynak in the UCI
repository, under CC BY 4.0 (doi 10.24432/C50P49); the weights are under the licence of this repository.""",
    },
    "photographs": {
        "what": "A small {network} that says by how much a patch of a photograph was turned, trained on the"
        " images in `data/photographs`.",
        "origin": "grey patches of photographs",
        "limits": """\
It is meant for looking at its receptive fields, and not for turning pictures upright. It has seen patches
of six photographs and was tested on patches of two others, where guessing gets 25 %. The test patches
overlap, so they are worth far fewer independent ones. The validation patches come from the training
photographs: their accuracy says little about other pictures. Its one seed says nothing about the spread.
The weights are under the licence of this repository, the photographs under those in
`data/photographs/README.md`.""",
    },
}


def describe_network(config: NetworkConfig) -> tuple[str, str]:
    """What to call a network, and what to add where it differs from the one that the package is about."""
    if config.activation == "relu":
        return "ReLU MLP", " It is the twin without spikes: a ReLU stands in the place of each neuron."
    if config.channel_norm == "bn_token":
        return "spiking MLP", (
            " Its channel blocks normalise over tokens, as the released code does. That norm cannot be merged"
            " into weights which all tokens share, so this network is *not* multiplication-free."
        )
    return "spiking MLP", ""


def overrides(recipe: Recipe) -> str:
    """What to write after the name of a shipped recipe on the command line, to train by this one."""
    if recipe.name not in list_recipes():
        return ""  # a recipe file of the user's is complete
    shipped = load_recipe(recipe.name)
    changed = {name: getattr(recipe, name) for name in ("preset", "seed", "data_dir")}
    changed = {name: value for name, value in changed.items() if value != getattr(shipped, name)}
    changed |= {name: value for name, value in recipe.model.items() if value != shipped.model.get(name)}
    return "".join(f" {name}={value}" for name, value in changed.items())


def model_card(name: str, checkpoint: Checkpoint) -> str:
    """The text of the card, with every number from the checkpoint."""
    config, metrics, recipe = checkpoint.model.config, checkpoint.metrics, checkpoint.recipe
    about = ABOUT[recipe["dataset"]]
    network, difference = describe_network(config)
    parts = count_parameters(checkpoint.model)
    return CARD.format(
        name=name,
        preset=checkpoint.preset,
        parameters=sum(parts.values()),
        parts=", ".join(f"{part} {count:,}" for part, count in parts.items() if count),
        channels=config.in_channels,
        size=config.image_size,
        time_steps=config.time_steps,
        test=describe_accuracy(metrics["test_correct"], metrics["test_total"]),
        validation=100 * metrics["validation_accuracy"],
        epoch=metrics["epoch"],
        epochs=recipe["epochs"],
        torch=metrics["torch"].partition("+")[0],
        seed=recipe["seed"],
        overrides=overrides(Recipe(**recipe)),
        recipe_name=recipe["name"],
        recipe=yaml.safe_dump(dict(recipe), sort_keys=False),
        **about | {"what": about["what"].format(network=network) + difference},
    )


def ship(run: Path, name: str, data: Path = HERE) -> None:
    """Test a run's checkpoint again, then write checkpoint, card and manifest entry into a data folder.

    Raises:
        InputError: the run has no checkpoint or another data set, or the test does not repeat what training
            reported.
    """
    file = run / CHECKPOINT
    checkpoint = load_checkpoint(file)
    dataset = checkpoint.recipe.get("dataset", "embedded")
    if dataset not in ABOUT:
        raise InputError(
            f"{file} was trained on {dataset}; write about that data set in {Path(__file__).name}"
        )
    correct, total = evaluate_source(checkpoint, own_source(checkpoint))
    reported = checkpoint.metrics.get("test_correct")
    if correct != reported:
        raise InputError(f"{file} classifies {correct} test images correctly, training reported {reported}")
    write_shipped(data, {f"checkpoints/{name}.safetensors": file.read_bytes()})
    write_atomically(data / "checkpoints" / f"{name}.md", model_card(name, checkpoint).encode())
    print(f"test accuracy {describe_accuracy(correct, total)}")


if __name__ == "__main__":
    run_script(
        ship,
        __doc__,
        {
            "run": {"type": Path, "help": "folder that `snnmlp train` made"},
            "name": {"help": "what `load_pretrained` is to call it"},
        },
    )
