"""zgrid: peer-to-peer control of power grids.

One topology file describes microgrids, their devices, how they coordinate and where each runs; the same agents run
centralized, over an in-memory broker, or as processes and machines over ZeroMQ, with bit-identical results.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zgrid.agents import DeviceAgent, GridAgent
    from zgrid.devices import Control, Device, DeviceConfig, Effect
    from zgrid.environment import NetworkedGridEnv, env, parallel_env
    from zgrid.errors import TopologyError, ZgridError
    from zgrid.messaging import InMemoryBroker, MessageBroker, ZmqBroker
    from zgrid.policies import Policy, PolicyConfig
    from zgrid.protocols import Protocol, ProtocolConfig, VerticalProtocol
    from zgrid.topology import Topology, load
    from zgrid.vector import NetworkedVectorEnv, vector_env

__version__ = "0.2.0"

__all__ = [
    "Control",
    "Device",
    "DeviceAgent",
    "DeviceConfig",
    "Effect",
    "GridAgent",
    "InMemoryBroker",
    "MessageBroker",
    "NetworkedGridEnv",
    "NetworkedVectorEnv",
    "Policy",
    "PolicyConfig",
    "Protocol",
    "ProtocolConfig",
    "Topology",
    "TopologyError",
    "VerticalProtocol",
    "ZgridError",
    "ZmqBroker",
    "__version__",
    "env",
    "load",
    "parallel_env",
    "vector_env",
]

_HOME = {
    "zgrid.agents": ("DeviceAgent", "GridAgent"),
    "zgrid.devices": ("Control", "Device", "DeviceConfig", "Effect"),
    "zgrid.environment": ("NetworkedGridEnv", "env", "parallel_env"),
    "zgrid.errors": ("TopologyError", "ZgridError"),
    "zgrid.messaging": ("InMemoryBroker", "MessageBroker", "ZmqBroker"),
    "zgrid.policies": ("Policy", "PolicyConfig"),
    "zgrid.protocols": ("Protocol", "ProtocolConfig", "VerticalProtocol"),
    "zgrid.topology": ("Topology", "load"),
    "zgrid.vector": ("NetworkedVectorEnv", "vector_env"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that ``import zgrid`` stays light."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'zgrid' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
