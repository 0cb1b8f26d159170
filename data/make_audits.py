"""Make `data/audits_at_224.json`: what the audit finds in seven networks on one image of 224 x 224.

    OMP_NUM_THREADS=1 python data/make_audits.py              # some minutes on one core

No network trained on ImageNet ships with this package. Weights and the image are random, drawn from seed 0,
and the networks are calibrated so that every layer fires. Each is folded as far as it folds. A row that holds
for all inputs depends neither on the weights nor on the image.
"""

from __future__ import annotations

import json
import platform
from collections import Counter
from pathlib import Path
from typing import Any

import torch

import snnmlp_edu
from snnmlp_edu.data.files import write_atomically
from snnmlp_edu.data.scripts import run_script
from snnmlp_edu.mfi import audit, fold_batch_norm, load_or_calibrate

HERE = Path(__file__).resolve().parent
NAME = "audits_at_224.json"
NETWORKS = (
    "mlp_spe_t",
    "mlp_spe_s",
    "mlp_spe_b",
    "mlp_s",
    "released_mlp_spe_t",
    "relu_mlp_spe_t",
    "relu_mlp_s",
)
SIDE = 224


def audited(name: str, side: int) -> dict[str, Any]:
    """What the audit says of one folded network, in numbers.

    Args:
        name: a preset.
        side: of the image, in pixels.
    """
    loaded = load_or_calibrate(name, 1, image_size=side, neuron={"backend": "eager"})
    report = audit(fold_batch_norm(loaded.model, strict=False), loaded.images)
    counts: Counter[str] = Counter()
    for row in report.layers:
        if row.kind not in ("data movement", "constant"):
            counts[str(row.kind)] += row.count
    violations = Counter((row.name.removeprefix("aten."), row.violation) for row in report.violations)
    return {
        "multiplication_free": report.multiplication_free,
        "operations": len(report.layers),
        "hold_for_these_inputs_only": sum(row.holds != "all inputs" for row in report.layers),
        "not_exercised": len(report.not_exercised),
        "scalar_operations": dict(sorted(counts.items())),
        "violations": [
            {"operation": operation, "reason": reason, "rows": rows}
            for (operation, reason), rows in violations.items()
        ],
    }


def make(data: Path = HERE) -> None:
    """Audit all networks, and write the table."""
    torch.set_num_threads(1)
    table: dict[str, Any] = {
        "made_by": {
            "script": Path(__file__).name,
            "image_side": SIDE,
            "seed": 0,
            "snnmlp_edu": snnmlp_edu.__version__,
            "torch": torch.__version__.split("+")[0],
            "python": platform.python_version(),
        },
        "networks": {},
    }
    for name in NETWORKS:
        table["networks"][name] = row = audited(name, SIDE)
        print(name, "passes" if row["multiplication_free"] else "fails", row["operations"], flush=True)
    write_atomically(data / NAME, (json.dumps(table, indent=1) + "\n").encode())


if __name__ == "__main__":
    run_script(make, __doc__)
