"""Training: what zgrid's users of RLlib, Stable-Baselines3 and TorchRL need, and the way from a trainer to a node.

Nothing here is imported by the rest of zgrid; its modules need torch, and those named after a trainer that trainer.
"""

from __future__ import annotations

from importlib.util import find_spec

from zgrid.errors import MissingExtraError

__all__ = ["needs"]

_PACKAGES = {
    "rllib": ("torch", "ray", "onnx"),
    "sb3": ("torch", "stable_baselines3", "onnx"),
    "torchrl": ("torch", "tensordict", "torchrl", "onnx"),
}


def needs(extra: str) -> None:
    """See that an extra is installed.

    Raises:
        MissingExtraError: it is not; the text has the pip command.
    """
    missing = [package for package in _PACKAGES[extra] if find_spec(package) is None]
    if missing:
        hint = " (to spare gigabytes of CUDA, install a CPU build of torch first)" if "torch" in missing else ""
        raise MissingExtraError(f"not installed: {', '.join(missing)}; pip install 'zgrid[{extra}]'{hint}")
