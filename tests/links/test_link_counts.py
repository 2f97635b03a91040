"""What becomes of messages is counted, and told alike in every mode, placement and process."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any

import pytest
from test_link_wiring import MODES, RULES, content, fewer

import zgrid
from zgrid.host import Host
from zgrid.links import Delay, Ears, LinkConfig, counted, summed
from zgrid.links.link import COUNTED
from zgrid.links.totals import LINK
from zgrid.messages import ENV, Envelope, LinkCounts, NodeStats, StatsRequest
from zgrid.messaging import InMemoryBroker
from zgrid.node import Steward, make_agents
from zgrid.port import EnvPort
from zgrid.topology import load
from zgrid.topology.nodes import node_plans

STEPS, ROUNDS = 8, 6
pytestmark = pytest.mark.usefixtures("no_leftovers")


def stats(topology: dict[str, Any], **overrides: Any) -> list[list[dict[str, Any]]]:
    """What is told of links after a first episode, after the next reset, and some steps later."""
    told = []
    with closing(zgrid.parallel_env(topology, **overrides)) as env:
        for steps in (STEPS, 0, 2):
            if steps != 2:
                env.reset(seed=5)
            for _ in range(steps):
                env.step(dict.fromkeys(env.agents))
            told.append(env.stats()["links"])
    return told


class TestStats:
    @pytest.mark.parametrize("vertical", ["setpoint", pytest.param("price_signal", marks=pytest.mark.slow)])
    def test_tell_the_same_in_every_mode(self, vertical: str) -> None:
        topology = fewer(content(*RULES, vertical=vertical))
        told = {mode: stats(topology, **overrides) for mode, overrides in MODES.items()}
        assert told["in_memory"] == told["centralized"]
        assert told["zmq"] == told["centralized"]
        kinds = {link["kind"] for link in told["centralized"][0]}
        assert kinds == {"peer", "setpoint", "state", "network", "action"}

    @pytest.mark.parametrize("placement", [pytest.param("grid", marks=pytest.mark.slow), {"pool": 2}], ids=str)
    def test_tell_the_same_in_every_placement(self, placement: Any) -> None:
        topology = fewer(content(*RULES))
        topology["grids"]["mg_1"]["devices"]["pv_1"]["run"] = "inline"
        topology["grids"]["mg_3"]["run"] = "inline"
        assert stats(topology, placement=placement) == stats(topology, centralized=True)

    def test_are_of_the_episode(self) -> None:
        first, reset, second = stats(content(*RULES), centralized=True)
        assert sum(link["sent"] for link in first) > 0
        assert {link["kind"] for link in reset} == {"state", "network"}  # what a reset is told by
        assert all(link[name] == 0 for link in reset for name in COUNTED)
        assert max(link["sent"] for link in second) == 2 * ROUNDS

    def test_count_what_is_said(self) -> None:
        first, *_ = stats(content(*RULES), centralized=True)
        for link in first:
            assert link["sent"] == link["periods"] == STEPS * (ROUNDS if link["kind"] == "peer" else 1)
            assert link["sent"] >= link["delivered"] + link["lost"]
            assert link["delivered"] >= link["late"]
            assert link["age_mean"] == link["age_sum"] / link["periods"] <= link["age_max"]
        ends = [(link["source"], link["destination"]) for link in first if link["kind"] == "peer"]
        assert ends == [(one, other) for one in ("mg_1", "mg_2", "mg_3") for other in ("mg_1", "mg_2", "mg_3")
                        if one != other]  # fmt: skip
        assert sum(link["attacked"] for link in first) == sum(link["kind"] == "network" for link in first) * STEPS

    def test_are_plain_data(self) -> None:
        first, *_ = stats(content(*RULES), centralized=True)
        assert json.loads(json.dumps(first)) == first

    def test_have_nothing_where_no_link_has_faults(self) -> None:
        assert stats(content(), centralized=True) == [[], [], []]
        assert stats(content(), **MODES["in_memory"]) == [[], [], []]

    def test_of_a_node_take_several_messages_where_there_are_many(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("zgrid.node._PART", 4)
        topology = load(content(*RULES), {"placement": {"pool": 1}})
        agents = make_agents(topology, topology.runs())
        for agent in agents:
            assert agent.ears is not None
            agent.ears.begin()
            agent.ears.carry("mg_1", 1, (0.5,))
        steward = Steward("pool_1", agents, "", lambda agent: make_agents(topology, (agent,))[0])
        steward.host = Host(InMemoryBroker(), "run")
        port = EnvPort(topology, node_plans(topology))
        told: list[int] = []
        for post in steward.receive(said(ENV, StatsRequest())):
            assert not port.node_stats
            assert isinstance(post.body, NodeStats)
            told.append(len(post.body.links))
            port.receive(said("node:pool_1", post.body))
        assert told == [4, 4, 4]
        assert set(port.node_stats) == {"pool_1"}
        assert set(port.links.values()) == set(counted(agent.ears for agent in agents))


def said(sender: str, body: Any) -> Envelope:
    return Envelope(sender, "run", 0, 0, 1, 0, 0, body)


class TestTotals:
    def test_have_what_a_link_counts(self) -> None:
        assert LinkCounts._fields == (*LINK, *COUNTED)

    def test_are_those_of_all_ears(self) -> None:
        ears = Ears([LinkConfig(kind="peer", delay=Delay(kind="constant", value=1))], "mg_1")
        for round in (1, 2, 3):
            ears.carry("mg_3", round, (1.0,))
            ears.carry("mg_2", round, (1.0,) if round < 3 else None)
        one, other = sorted(counted([None, ears]))
        assert one == LinkCounts("mg_2", "mg_1", "peer", 2, 2, 2, 0, 0, 0, 3, 3, 1)
        assert other == LinkCounts("mg_3", "mg_1", "peer", 3, 2, 2, 0, 0, 0, 3, 3, 1)

    def test_add_up(self) -> None:
        rows = [
            LinkCounts("mg_2", "mg_1", "peer", 9, 6, 4, 2, 1, 0, 10, 20, 5),
            LinkCounts("mg_3", "mg_1", "peer", 8, 7, 1, 1, 0, 3, 30, 10, 2),
            LinkCounts("mg_2", "mg_1", "peer", 1, 0, 0, 1, 0, 0, 10, 0, 7),
        ]
        first, second = summed(row._asdict() for row in rows)
        assert first == LinkCounts("mg_2", "mg_1", "peer", 10, 6, 4, 3, 1, 0, 20, 20, 7)._asdict() | {"age_mean": 1.0}
        assert second == rows[1]._asdict() | {"age_mean": 10 / 30}
        (whole,) = summed((row._asdict() for row in rows), ())
        assert list(whole.values()) == [18, 13, 5, 4, 1, 3, 50, 30, 7, 0.6]
        assert summed([first, second], ("kind",)) == [{"kind": "peer", **whole}]
        assert summed([]) == []
