"""Message brokers: in memory, and over ZeroMQ."""

from __future__ import annotations

from zgrid.messaging.address import Address, is_port
from zgrid.messaging.base import Delivery, MessageBroker
from zgrid.messaging.checking_proxy import run_checking_proxy
from zgrid.messaging.in_memory import InMemoryBroker
from zgrid.messaging.inspector import Inspector, count_refusal
from zgrid.messaging.keys import PROXY, WATCHER, Credentials, credentials_of
from zgrid.messaging.playback import Playback
from zgrid.messaging.proxy import run_proxy
from zgrid.messaging.pulse import Pulse
from zgrid.messaging.rights import Rights
from zgrid.messaging.tap import Heard, Tap
from zgrid.messaging.zmq_broker import ZmqBroker

__all__ = [
    "PROXY",
    "WATCHER",
    "Address",
    "Credentials",
    "Delivery",
    "Heard",
    "InMemoryBroker",
    "Inspector",
    "MessageBroker",
    "Playback",
    "Pulse",
    "Rights",
    "Tap",
    "ZmqBroker",
    "count_refusal",
    "credentials_of",
    "is_port",
    "run_checking_proxy",
    "run_proxy",
]
