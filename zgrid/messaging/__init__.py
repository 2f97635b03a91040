"""Message brokers: in memory, and over ZeroMQ."""

from __future__ import annotations

from zgrid.messaging.base import Delivery, MessageBroker
from zgrid.messaging.in_memory import InMemoryBroker
from zgrid.messaging.inspector import Inspector, count_refusal
from zgrid.messaging.proxy import run_proxy
from zgrid.messaging.zmq_broker import Address, ZmqBroker, is_port

__all__ = [
    "Address",
    "Delivery",
    "InMemoryBroker",
    "Inspector",
    "MessageBroker",
    "ZmqBroker",
    "count_refusal",
    "is_port",
    "run_proxy",
]
