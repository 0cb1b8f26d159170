"""The named networks.

Four have the paper's sizes (arXiv 2306.12465; `mlp_spe_b` was never published and is inferred from its
66 M parameters). Two train on two CPU cores. Each comes three times: with the batch norm that folds,
as `released_<name>` with the token-axis batch norm of the released code in the channel block, and as
`relu_<name>`, the non-spiking twin, which needs one step.
"""

from __future__ import annotations

from .config import NetworkConfig
from .model.network import SpikingMLP
from .registry import register

PRESETS: dict[str, NetworkConfig] = {
    "mlp_spe_t": NetworkConfig(dim=78, depths=(2, 8, 14, 2)),
    "mlp_spe_s": NetworkConfig(dim=96, depths=(2, 8, 14, 2)),
    "mlp_spe_b": NetworkConfig(dim=108, depths=(2, 10, 24, 2), time_steps=6),
    "mlp_s": NetworkConfig(dim=96, depths=(2, 8, 14, 2), patch_encoding="conv"),
    "mlp_spe_nano": NetworkConfig(
        dim=12, depths=(1, 1, 1, 1), patch_size=2, image_size=32, in_channels=1, num_classes=10
    ),
    "mlp_spe_micro": NetworkConfig(
        dim=24, depths=(1, 2, 2, 1), patch_size=2, image_size=32, in_channels=1, num_classes=10
    ),
}

for _name, _config in PRESETS.items():
    register(_name, _config, SpikingMLP)
    register(f"released_{_name}", _config.replace(channel_norm="bn_token"), SpikingMLP)
    register(f"relu_{_name}", _config.replace(activation="relu", time_steps=1), SpikingMLP)
