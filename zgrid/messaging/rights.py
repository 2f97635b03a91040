"""Rights: who may say and hear what on the bus; what is not granted is denied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

NOTHING: frozenset[str] = frozenset()


class Rights(NamedTuple):
    """The channels of each node, by name.

    A node also publishes to itself below ``probe/<node>/``, to prove its own connection. ``watchers`` hear everything
    and say nothing else.
    """

    publish: Mapping[str, frozenset[str]]
    hear: Mapping[str, frozenset[str]]
    watchers: frozenset[str] = NOTHING

    def may_publish(self, node: str, channel: str) -> bool:
        """Whether a node may send on a channel."""
        if channel in self.publish.get(node, NOTHING):
            return node not in self.watchers
        return channel.startswith(probe_prefix(node)) and self.knows(node)

    def may_hear(self, node: str, topic: str) -> bool:
        """Whether a node may subscribe to a topic. All that begins with it is then heard, so it has to be exactly a
        channel, delimiter included.
        """
        if topic in self.hear.get(node, NOTHING) or node in self.watchers:
            return True
        return topic.startswith(probe_prefix(node)) and self.knows(node)

    def knows(self, node: str) -> bool:
        """Whether anything is granted to a node."""
        return node in self.publish or node in self.hear or node in self.watchers


def probe_prefix(node: str) -> str:
    """What every channel begins with that is only between a node and itself."""
    return f"probe/{node}/"
