"""Post: what an agent wants to be sent."""

from __future__ import annotations

from typing import NamedTuple

from zgrid.messages import Body


class Post(NamedTuple):
    """A body for a channel, of a step and round. Whoever hosts the agent makes the envelope and sends it."""

    channel: str
    step: int
    round: int
    body: Body
