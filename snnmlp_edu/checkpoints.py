"""Trained networks on disk: one safetensors file that holds the weights and all that is needed to use them.

The file's metadata hold one JSON document: format version, preset, configuration, preprocessing, class
names, metrics, recipe, and a SHA-256 over the tensors. Loading parses JSON and copies numbers; nothing
is ever unpickled.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from .config import NetworkConfig
from .data.files import read_manifest, read_verified, write_atomically
from .data.transforms import Preprocessing
from .errors import InputError
from .fields import nearest
from .model.network import SpikingNetwork
from .precision import single_precision
from .registry import build_model

FORMAT = 1
METADATA_KEY = "snnmlp_edu"
CHECKPOINT = "checkpoint.safetensors"  # its name in the folder of a run


@dataclass(frozen=True)
class Checkpoint:
    """A trained network with its metadata.

    Args:
        model: the network in evaluation mode; its configuration is `model.config`.
        preprocessing: from stored pixels to the network's input.
        class_names: what each logit stands for.
        preset: name of the preset it was built from, or None.
        metrics: what training measured.
        recipe: how it was trained, as plain values.
    """

    model: SpikingNetwork
    preprocessing: Preprocessing
    class_names: tuple[str, ...] = ()
    preset: str | None = None
    metrics: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    recipe: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the names, types, shapes and values of tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_checkpoint(
    path: str | Path,
    model: SpikingNetwork,
    preprocessing: Preprocessing,
    *,
    class_names: Sequence[str] = (),
    preset: str | None = None,
    metrics: Mapping[str, Any] | None = None,
    recipe: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint, completely or not at all.

    Args:
        path: the file; an older one is replaced at the last moment.
        model: the network.
        preprocessing: from stored pixels to the network's input.
        class_names: what each logit stands for.
        preset: name of the preset it was built from.
        metrics: what was measured, as values that JSON can hold.
        recipe: how it was trained, likewise.

    Raises:
        InputError: what was written could not be loaded again: the network is folded, of another precision,
            or of a class that this preset does not build.
        OSError: the folder cannot be written.
    """
    require_rebuildable(model, preset)
    document = {
        "preset": preset,
        "config": model.config.to_dict(),
        "preprocessing": preprocessing.to_dict(),
        "class_names": list(class_names),
        "metrics": dict(metrics or {}),
        "recipe": dict(recipe or {}),
    }
    write_tensors(Path(path), model.state_dict(), document)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
    """Write tensors and a JSON document as one safetensors file, completely or not at all.

    Raises:
        OSError: the folder cannot be written.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    document = {"format": FORMAT, **document, "tensors_sha256": hash_tensors(tensors)}
    write_atomically(path, safetensors.torch.save(tensors, {METADATA_KEY: json.dumps(document)}))


def read_tensors(content: bytes, source: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the document in the bytes of a file of `write_tensors`, after all checks.

    Args:
        content: the file.
        source: what error messages call it.

    Raises:
        InputError: the file is truncated, changed, of another format or not one of snnmlp-edu.
    """
    no_checkpoint = (
        f"{source} is no checkpoint of snnmlp-edu; give a .safetensors file that `snnmlp train` wrote"
    )
    if content[8:9] != b"{":  # with which the header of every safetensors file begins
        raise InputError(no_checkpoint)
    try:
        tensors = safetensors.torch.load(content)
    except SafetensorError as error:
        raise InputError(
            f"{source} is truncated or damaged: it has {len(content):,} bytes ({error}); copy or train it"
            " again"
        ) from error
    document = _read_document(content)
    if document is None:
        raise InputError(no_checkpoint)
    if document["format"] != FORMAT:
        raise InputError(
            f"{source} has format {document['format']} and this version of snnmlp-edu reads {FORMAT};"
            " update it"
        )
    if "tensors_sha256" not in document:
        raise InputError(f"{source} lacks 'tensors_sha256' in its metadata; train it again")
    if hash_tensors(tensors) != document["tensors_sha256"]:
        raise InputError(f"the weights in {source} do not match their SHA-256; copy or train it again")
    return tensors, document


def list_pretrained() -> list[str]:
    """Names of the checkpoints that are shipped in `data/checkpoints`."""
    prefix, suffix = "checkpoints/", ".safetensors"
    return [
        name.removeprefix(prefix).removesuffix(suffix)
        for name in read_manifest()
        if name.startswith(prefix) and name.endswith(suffix)
    ]


def require_pretrained(name: str) -> None:
    """Make sure that a checkpoint is shipped under this name.

    Raises:
        InputError: none is (the nearest is suggested).
    """
    known = list_pretrained()
    if name not in known:
        raise InputError(
            f"there is no pretrained {name!r}{nearest(str(name), known)} (shipped: {', '.join(known)})"
        )


def load_checkpoint(source: str | Path, /, **overrides: Any) -> Checkpoint:
    """Read a checkpoint and build its network, in evaluation mode.

    Args:
        source: path of a file, folder of a run, or the name of a shipped checkpoint (`list_pretrained`).
        overrides: fields of `NetworkConfig` to change, such as `time_steps=6` or `neuron={"beta": 0.25}`;
            only those that leave every weight its shape.

    Raises:
        InputError: the file is missing, truncated, changed or no checkpoint, or its weights do not fit
            the configuration; the message says which.
    """
    content = _read_content(source)
    tensors, document = read_tensors(content, str(source))
    try:
        config = NetworkConfig.from_dict(document["config"]).replace(**overrides)
        preprocessing = Preprocessing.from_dict(document["preprocessing"])
        model = _build(document["preset"], config, tensors, str(source))
        model.preprocessing = preprocessing.for_size(config.image_size)
        return Checkpoint(
            model=model,
            preprocessing=model.preprocessing,
            class_names=tuple(document["class_names"]),
            preset=document["preset"],
            metrics=document["metrics"],
            recipe=document["recipe"],
        )
    except KeyError as error:
        raise InputError(f"{source} lacks {error} in its metadata; train it again") from error


def _read_content(source: str | Path) -> bytes:
    if isinstance(source, str) and source in list_pretrained():
        return read_verified(f"checkpoints/{source}.safetensors")
    file = Path(source) / CHECKPOINT if Path(source).is_dir() else Path(source)
    if file.is_file():
        return file.read_bytes()
    shipped = list_pretrained()
    missing = f"there is no checkpoint {source}"
    if Path(source).is_dir():
        missing = f"{source} is a folder without {CHECKPOINT}, as a run keeps it after its first epoch"
    raise InputError(
        f"{missing}; give the path of a file, the folder of a run, or one of {', '.join(shipped)}"
        f"{nearest(str(source), shipped)}"
    )


def load_pretrained(name: str, /, **overrides: Any) -> SpikingNetwork:
    """A trained network that is shipped with the package, in evaluation mode.

    Args:
        name: one of `list_pretrained()`.
        overrides: fields of `NetworkConfig` to change; only those that leave every weight its shape.

    Raises:
        InputError: the name is unknown (the nearest is suggested), the file is not the one that the
            manifest names, or its weights do not fit the overrides.

    >>> load_pretrained("mlp_spe_nano", time_steps=6).config.time_steps
    6
    """
    require_pretrained(name)
    return load_checkpoint(name, **overrides).model


def _read_document(content: bytes) -> dict[str, Any] | None:
    """The JSON document in the metadata of an intact safetensors file; None where there is none."""
    # safetensors reads metadata from a path alone, where by now other bytes may be than were verified.
    length = int.from_bytes(content[:8], "little")
    try:
        document = json.loads(json.loads(content[8 : 8 + length])["__metadata__"][METADATA_KEY])
    except (ValueError, KeyError, TypeError):
        return None
    return document if isinstance(document, dict) and "format" in document else None


def require_rebuildable(model: SpikingNetwork, preset: str | None) -> None:
    """Make sure that a checkpoint of this network, saved under this preset, can be loaded again.

    Raises:
        InputError: its configuration builds a network of another class, or with other tensors; or two of its
            tensors are one.
    """
    alike = _shared_tensors(model.state_dict())
    if alike is not None:
        raise InputError(
            f"the network cannot be kept as a checkpoint: {alike[0]} and {alike[1]} are one tensor; give each"
            " layer its own, such as copy.deepcopy(layer)"
        )
    built = _on_meta(preset, model.config)
    kind, expected = type(model).__name__, type(built).__name__
    if kind != expected:
        by = f"the preset {preset}" if preset else "no preset"
        raise InputError(
            f"the network is a {kind}, and its configuration with {by} builds a {expected}; register it"
            " (snnmlp_edu.register) and give its name"
        )
    odd = _first_difference(model.state_dict(), built.state_dict())
    if odd is not None:
        name, has, wanted = odd
        raise InputError(
            f"the network cannot be kept as a checkpoint: {name} is {has} and its configuration builds"
            f" {wanted}; keep it in single precision and before it is folded"
        )


def _on_meta(preset: str | None, config: NetworkConfig) -> SpikingNetwork:
    # On the meta device: no weights are drawn only to be overwritten, and no random state is used up.
    with torch.device("meta"), single_precision():
        return build_model(preset, config)


def _shared_tensors(tensors: Mapping[str, Tensor]) -> tuple[str, str] | None:
    """The first two names whose values share memory, which loading would separate."""
    seen: dict[tuple[torch.device, int], str] = {}
    for name, tensor in tensors.items():
        memory = tensor.device, tensor.untyped_storage().data_ptr()
        if tensor.numel() and not tensor.is_meta and seen.setdefault(memory, name) != name:
            return seen[memory], name
    return None


def _first_difference(
    tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> tuple[str, str, str] | None:
    """The first name whose type or shape differs, and what both have there."""
    for name in [*wanted, *tensors]:
        has, wants = (
            f"{side[name].dtype} {tuple(side[name].shape)}" if name in side else "absent"
            for side in (tensors, wanted)
        )
        if has != wants:
            return name, has, wants
    return None


def _build(
    preset: str | None, config: NetworkConfig, tensors: Mapping[str, Tensor], source: str
) -> SpikingNetwork:
    model = _on_meta(preset, config)
    odd = _first_difference(tensors, model.state_dict())
    if odd is not None:
        name, has, wanted = odd
        raise InputError(
            f"{source} does not fit the configuration: {name} is {has} in the file and {wanted}"
            " in the network; leave out overrides that change weights"
        )
    model.load_state_dict(dict(tensors), assign=True)
    return model.eval()
