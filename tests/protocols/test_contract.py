"""Every protocol that ships passes the contract that users run on their own: one class each."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from examples.own_protocol import MaxConsensus
from zgrid.protocols import HORIZONTAL, VERTICAL, Local, Unit, star
from zgrid.protocols.area import areas_of
from zgrid.protocols.average_consensus import AverageConsensus
from zgrid.protocols.consensus_admm import ConsensusAdmm
from zgrid.protocols.double_auction import DoubleAuction
from zgrid.protocols.exchange_admm import ExchangeAdmm
from zgrid.protocols.incremental_cost_consensus import IncrementalCostConsensus
from zgrid.protocols.none import NoHorizontal
from zgrid.protocols.p2p_trading import P2PTrading
from zgrid.protocols.price_signal import PriceNegotiation
from zgrid.protocols.ratio_consensus import RatioConsensus
from zgrid.protocols.secondary_control import SecondaryControl
from zgrid.testing import Case, ProtocolContract, line, ring

IMPORTS = {name: Local({"p_pcc_mw": 0.1 * k}) for k, name in enumerate(ring(5))}
VOLTAGES = {name: Local({"vm_mean_pu": 0.97 + 0.01 * k}) for k, name in enumerate(ring(5))}
# Wood and Wollenberg, Power Generation, Operation and Control, example 3A; cost_a is the quadratic coefficient.
UNITS = {
    "mg_1": Unit("mg_1.dg_1", 150.0, 600.0, 0.001562, 7.92, 561.0),
    "mg_2": Unit("mg_2.dg_1", 100.0, 400.0, 0.00194, 7.85, 310.0),
    "mg_3": Unit("mg_3.dg_1", 50.0, 200.0, 0.00482, 7.97, 78.0),
}
DISPATCH = {name: Local(units=(unit,), demand_mw=850.0 / 3.0) for name, unit in UNITS.items()}
ASKED = {"mg_1": Local(demand_mw=850.0)} | {f"{name}.dg_1": Local(units=(unit,)) for name, unit in UNITS.items()}
BORDER = areas_of(
    {"a": "mg_1", "b": "mg_1", "c": "mg_2"},
    [("a", "b", 0.1), ("b", "c", 0.2), ("a", "c", 0.2)],
    {"c": 200.0},
    {"mg_1.dg_1": "a", "mg_2.dg_1": "c"},
)
AREAS: Mapping[str, Local] = {
    "mg_1": Local(units=(Unit("mg_1.dg_1", 0.0, 300.0, 0.02, 10.0),)),
    "mg_2": Local(units=(Unit("mg_2.dg_1", 0.0, 300.0, 0.05, 12.0),), demand_mw=200.0),
}


SURPLUS = {
    name: Local({"position_mw": position, "price": 90.0, "feed_in_price": 60.0})
    for name, position in zip(line(4), (0.3, -0.2, 0.1, -0.4), strict=True)
}


class InProcessesSlowly(ProtocolContract):
    """Those whose processes are left to the slow tests. The others have all that goes between processes: nested
    parameters, roles and units.
    """

    @pytest.mark.slow
    def test_over_zeromq_it_is_the_same_to_the_bit(self) -> None:
        """Each participant in a process of its own."""
        super().test_over_zeromq_it_is_the_same_to_the_bit()


class TestAverageConsensus(InProcessesSlowly):
    case = Case(AverageConsensus, {"rounds": 60}, ring(5), IMPORTS)


class TestConsensusAdmm(ProtocolContract):
    areas = {name: area.model_dump() for name, area in BORDER.items()}  # noqa: RUF012 - never changed
    case = Case(ConsensusAdmm, {"rounds": 800, "areas": areas}, line(2), AREAS, 1e-3)


class TestDoubleAuction(InProcessesSlowly):
    case = Case(DoubleAuction, {"rounds": 60}, line(4), SURPLUS)


class TestExchangeAdmm(InProcessesSlowly):
    case = Case(ExchangeAdmm, {"rounds": 1000, "rho": 0.005}, ring(3), DISPATCH, 1e-4, ("iterations",))


class TestIncrementalCostConsensus(InProcessesSlowly):
    case = Case(IncrementalCostConsensus, {"rounds": 500}, line(3), DISPATCH, 1e-6)


class TestNoHorizontal(InProcessesSlowly):
    case = Case(NoHorizontal, {}, ring(3), DISPATCH)


class TestP2PTrading(InProcessesSlowly):
    case = Case(P2PTrading, {"rounds": 40}, ring(4), SURPLUS)


class TestPriceSignal(ProtocolContract):
    case = Case(PriceNegotiation, {"rounds": 300}, star("mg_1", [f"{name}.dg_1" for name in UNITS]), ASKED, 1e-5)


class TestRatioConsensus(InProcessesSlowly):
    case = Case(RatioConsensus, {"rounds": 200}, ring(3), DISPATCH)


class TestSecondaryControl(InProcessesSlowly):
    case = Case(SecondaryControl, {"rounds": 30}, ring(5), VOLTAGES)


class TestOwnProtocol(InProcessesSlowly):
    case = Case(MaxConsensus, {"rounds": 20}, ring(5), IMPORTS)


def test_every_kind_that_talks_is_here() -> None:
    """Those without messages have nothing to hold: setpoint, none, droop."""
    tested = {
        f"{contract.case.protocol.__module__}:{contract.case.protocol.__qualname__}"
        for contract in (*ProtocolContract.__subclasses__(), *InProcessesSlowly.__subclasses__())
        if contract is not InProcessesSlowly
    }
    assert set(HORIZONTAL.values()) <= tested
    assert set(VERTICAL) == {"setpoint", "none", "droop", "price_signal"}
