"""Address: where a proxy is."""

from __future__ import annotations

from typing import NamedTuple, Self

from zgrid.errors import BrokerError

END = b"\0"
"""What stands between channel and body in a frame: one frame costs half of what two do."""


def is_port(text: str) -> bool:
    """Whether a text is the number of a port."""
    return text.isascii() and text.isdigit() and 0 < int(text) < 65536


class Address(NamedTuple):
    """Where a proxy is: nodes publish to one port and subscribe to the other."""

    host: str
    publish_port: int
    subscribe_port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``HOST:PORT,PORT``.

        Raises:
            BrokerError: the text has another form.
        """
        host, _, ports = text.rpartition(":")
        first, _, second = ports.partition(",")
        if not (host and is_port(first) and is_port(second)):
            raise BrokerError(f"expected HOST:PORT,PORT, got {text!r}; ports are 1 to 65535")
        return cls(host, int(first), int(second))

    def __str__(self) -> str:
        return f"{self.host}:{self.publish_port},{self.subscribe_port}"
