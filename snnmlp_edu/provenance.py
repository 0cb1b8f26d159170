"""Provenance of a run: the code, the machine, the versions, the data."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

# What a run depends on: a change elsewhere, such as the record that it adds, is none of the code.
_CODE = ("snnmlp_edu", "data/plans", "data/fashion_mnist", "pyproject.toml", "constraints.txt")
_PACKAGES = ("torch", "lightning-fabric", "numpy", "snntorch")


def commit(checkout: Path | None = None) -> str:
    """The commit of the code, with `+changed` where its files differ from it; empty outside a checkout.

    Args:
        checkout: the folder above the package; by default this one's.
    """
    folder = Path(__file__).resolve().parents[1] if checkout is None else checkout
    if not (folder / ".git").exists():
        return ""  # an installed package, perhaps in an environment inside another repository
    try:
        head = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--", *_CODE)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head + ("+changed" if changed else "")


def _git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def origin(accelerator: str | None = None) -> dict[str, Any]:
    """Commit, versions, device, machine and threads of this process, as they are now.

    Args:
        accelerator: `cpu` where a GPU that is there is not used.
    """
    return {
        "commit": commit(),
        "versions": versions(),
        "device": "cpu" if accelerator == "cpu" else device(),
        "machine": machine(),
        "threads": torch.get_num_threads(),
    }


def versions() -> dict[str, str]:
    """Of Python, of this package and of those that compute."""
    found = {"python": platform.python_version(), "snnmlp-edu": importlib.metadata.version("snnmlp-edu")}
    for name in _PACKAGES:
        found[name] = importlib.metadata.version(name).partition("+")[0]
    return found


def device() -> str:
    """What trains: `cpu`, or the name of the GPU."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def machine() -> str:
    """Kind of processor, and the instructions that PyTorch uses: both decide how sums are rounded."""
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
