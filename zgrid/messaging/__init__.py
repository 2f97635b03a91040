"""Message brokers: in memory, and over ZeroMQ."""

from __future__ import annotations

from zgrid.messaging.address import Address, is_port
from zgrid.messaging.base import Delivery, MessageBroker
from zgrid.messaging.in_memory import InMemoryBroker
from zgrid.messaging.inspector import Inspector, count_refusal
from zgrid.messaging.playback import Playback
from zgrid.messaging.proxy import run_proxy
from zgrid.messaging.pulse import Pulse
from zgrid.messaging.tap import CurveKeys, Heard, Tap
from zgrid.messaging.zmq_broker import ZmqBroker

__all__ = [
    "Address",
    "CurveKeys",
    "Delivery",
    "Heard",
    "InMemoryBroker",
    "Inspector",
    "MessageBroker",
    "Playback",
    "Pulse",
    "Tap",
    "ZmqBroker",
    "count_refusal",
    "is_port",
    "run_proxy",
]
