"""What an agent's failure leads to, as its topology declares it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema


class OnFailure(BaseModel):
    """What happens when an agent's node dies, falls silent or is cut off, or when the agent raises."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["fail", "fallback", "restart"] = Field(
        "fail",
        description="fail: the run ends with an error; fallback: the env acts for the agent, a device by its safe "
        "setpoint, a grid by holding its devices' last setpoints and then their safe ones; restart: begin it anew",
    )
    maximum: int = Field(3, ge=1, description="restart: at most so often within the window, then the run fails")
    window_s: float = Field(60.0, gt=0, description="restart: the window in which restarts are counted")
    backoff_s: float = Field(0.1, ge=0, description="restart: wait before the first; each further waits twice as long")
    hold_steps: int = Field(1, ge=0, description="fallback of a grid: steps in which its devices hold their setpoints")


def _from_name(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


FailurePolicy: TypeAlias = Annotated[
    OnFailure,
    BeforeValidator(_from_name),
    WithJsonSchema({"anyOf": [{"enum": ["fail", "fallback", "restart"]}, OnFailure.model_json_schema()]}),
]
"""An :class:`OnFailure`, or its kind alone."""

FAIL = OnFailure.model_validate({})


class Restarts:
    """How often each has begun anew lately."""

    def __init__(self) -> None:
        self._times: dict[str, list[float]] = {}

    def allow(self, name: str, policy: OnFailure, now: float) -> float | None:
        """Seconds to wait before ``name`` begins anew, at ``now`` in seconds; None: it has done so too often."""
        times = [time for time in self._times.get(name, ()) if now - time < policy.window_s]
        if policy.kind != "restart" or len(times) >= policy.maximum:
            return None
        self._times[name] = [*times, now]
        return policy.backoff_s * 2.0 ** len(times)


def strictest(policies: Sequence[OnFailure]) -> OnFailure:
    """What holds for a node's process: fail if one of its agents says so, else restart, else fallback."""
    order = ("fail", "restart", "fallback")
    return min(policies, key=lambda policy: order.index(policy.kind))
