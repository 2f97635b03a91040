"""Every protocol that ships passes the contract that users run on their own: one class each."""

from __future__ import annotations

from examples.own_protocol import MaxConsensus
from zgrid.protocols import Local
from zgrid.protocols.average_consensus import AverageConsensus
from zgrid.testing import Case, ProtocolContract, ring

IMPORTS = {name: Local({"p_pcc_mw": 0.1 * k}) for k, name in enumerate(ring(5))}


class TestAverageConsensus(ProtocolContract):
    case = Case(AverageConsensus, {"rounds": 60}, ring(5), IMPORTS)


class TestOwnProtocol(ProtocolContract):
    case = Case(MaxConsensus, {"rounds": 20}, ring(5), IMPORTS)
