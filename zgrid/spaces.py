"""Action and observation spaces of the grids, and the way between what a trainer sends and a flat action."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any, TypeAlias

import gymnasium
import numpy as np
from numpy.typing import NDArray

from zgrid.agents import GridSpec
from zgrid.agents.seeing import OBSERVATION_LIMIT
from zgrid.devices import Control
from zgrid.errors import ActionError, Finding
from zgrid.messages import Floats, are_finite
from zgrid.policies import Spaces, policy_class
from zgrid.topology import Topology

Space: TypeAlias = gymnasium.spaces.Space[Any]


def box(size: int) -> gymnasium.spaces.Box:
    """The finite Box of observations and of the global state."""
    return gymnasium.spaces.Box(-OBSERVATION_LIMIT, OBSERVATION_LIMIT, (size,), np.float32)


def with_state(observation: Space, state: Space) -> Space:
    """An observation with the global state beside it, for central critics."""
    return gymnasium.spaces.Dict({"obs": observation, "state": state})


class ActionCodec:
    """One grid's action space, and how an action of it becomes one entry in [-1, 1] per control."""

    def __init__(self, spec: GridSpec, kind: str, padded_size: int) -> None:
        """``kind`` is flat or dict; a flat Box has ``padded_size`` entries, of which the grid uses the first."""
        self._grid = spec.id
        self._controls: tuple[Control, ...] = tuple(control for _, control in spec.controls)
        self.size = len(self._controls)
        self._is_dict = kind == "dict"
        self.shape: tuple[int, ...] | None = None if self._is_dict else (padded_size,)
        self.space: Space = (
            self._dict_space() if self._is_dict else gymnasium.spaces.Box(-1.0, 1.0, (padded_size,), np.float32)
        )

    def to_flat(self, action: Any) -> Floats:
        """The flat action; a discrete level becomes the middle of its bin.

        Raises:
            ActionError: another shape, or not finite. Entries beyond [-1, 1] are clipped where they are applied.
        """
        if self._is_dict:
            return self._flatten(action)
        values = np.asarray(action, dtype=np.float64)
        if values.shape != self.shape:
            raise ActionError(f"action of {self._grid}: expected shape {self.shape}, got {values.shape}")
        flat: Floats = tuple(values.tolist()[: self.size])
        if not are_finite(flat):
            raise ActionError(f"action of {self._grid}: not finite: {flat}")
        return flat

    def _dict_space(self) -> Space:
        levels = [control.levels for control in self._controls if control.levels]
        spaces: dict[str, Space] = {}
        if len(levels) < self.size:
            spaces["continuous"] = gymnasium.spaces.Box(-1.0, 1.0, (self.size - len(levels),), np.float32)
        if levels:
            spaces["discrete"] = gymnasium.spaces.MultiDiscrete(levels)
        return gymnasium.spaces.Dict(spaces)

    def _flatten(self, action: Any) -> Floats:
        if not isinstance(action, dict) or not self.space.contains(action):
            raise ActionError(f"action of {self._grid}: expected an element of {self.space}, got {action!r}")
        continuous = iter(action.get("continuous", ()))
        discrete = iter(action.get("discrete", ()))
        return tuple(
            (2.0 * (int(next(discrete)) + 0.5) / control.levels - 1.0) if control.levels else float(next(continuous))
            for control in self._controls
        )


def action_codecs(topology: Topology) -> list[ActionCodec]:
    """The codec of each grid."""
    specs = topology.grid_specs
    sizes = [len(spec.controls) for spec in specs]
    longest = max(sizes)
    pad = topology.spaces.pad
    return [
        ActionCodec(spec, topology.spaces.action, longest if pad else size)
        for spec, size in zip(specs, sizes, strict=True)
    ]


_SHAPE, _DTYPE, _SIZE = map(attrgetter, ("shape", "dtype", "size"))


def flat_of_all(codecs: Sequence[ActionCodec], actions: Sequence[Any]) -> NDArray[np.float64] | None:
    """The flat actions of all grids side by side, (n_controls,) float64; None unless all are arrays of numbers that are
    in order: then each codec takes its own, or says what is wrong.
    """
    if set(map(type, actions)) != {np.ndarray} or list(map(_SHAPE, actions)) != list(map(_SHAPE, codecs)):
        return None
    if any(dtype.kind != "f" for dtype in set(map(_DTYPE, actions))):
        return None
    flat: NDArray[np.float64] = np.concatenate(actions, dtype=np.float64)
    if len(flat) != sum(map(_SIZE, codecs)):
        flat = np.concatenate(
            [action[: codec.size] for codec, action in zip(codecs, actions, strict=True)], dtype=float
        )
    return flat if np.isfinite(flat).all() else None


def policy_findings(topology: Topology, n_observation: Mapping[str, int]) -> list[Finding]:
    """Policies that do not fit the spaces of their grid: ``n_observation`` entries of each, and its controls."""
    findings = []
    pad = topology.spaces.pad
    longest = max(len(spec.controls) for spec in topology.grid_specs)
    for spec in topology.grid_specs:
        spaces = Spaces(n_observation[spec.id], longest if pad else len(spec.controls), topology.dt_h)
        own = topology.grids[spec.id].policy is not None
        path = f"grids.{spec.id}.policy" if own else "policy"
        findings += [Finding(path, text) for text in policy_class(spec.policy.kind).misfits(spec.policy, spaces)]
    return list(dict.fromkeys(findings))
