"""Training: what zgrid's users of RLlib, Stable-Baselines3 and TorchRL need, and the way from a trainer to a node.

Nothing here is imported by the rest of zgrid; each module needs the extra it is named after, and torch.
"""

__all__: list[str] = []
