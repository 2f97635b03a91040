"""Which agents share a node, where it runs, and who says what to whom: exactly what the agents themselves say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from conftest import small_topology

import zgrid
from zgrid.errors import TopologyError
from zgrid.messages import ENV, Envelope, channel
from zgrid.messaging import InMemoryBroker
from zgrid.node import make_agents
from zgrid.port import EnvPort
from zgrid.topology import Topology, load
from zgrid.topology.nodes import NodePlan, node_plans
from zgrid.topology.traffic import CONTROL, Line, hearers, homes, lines

CONSENSUS = {"horizontal": {"kind": "average_consensus", "rounds": 3}}
OPEN = {"broker.host": "0.0.0.0", "broker.insecure": True}  # nodes on other machines need a proxy that they reach
DEVICES = ("dg_1", "pv_1", "ess_1")
PLACEMENTS: tuple[Any, ...] = ("agent", "grid", {"pool": 1}, {"pool": 2}, {"pool": 3}, {"pool": 9})


def of(*grids: int) -> tuple[str, ...]:
    """Grids with their devices, in the order in which a node has them: all devices before the grids."""
    return (*(f"mg_{k}.{name}" for k in grids for name in DEVICES), *(f"mg_{k}" for k in grids))


def plans(placement: Any = "agent", overrides: dict[str, Any] | None = None, *, grids: int = 2) -> dict[str, NodePlan]:
    return node_plans(load(small_topology(grids), {"placement": placement, **OPEN, **(overrides or {})}))


def hosted(placement: Any, overrides: dict[str, Any] | None = None, *, grids: int = 2) -> dict[str, tuple[str, ...]]:
    """The agents of each node."""
    return {name: plan.agents for name, plan in plans(placement, overrides, grids=grids).items()}


class TestAgent:
    def test_every_agent_is_a_node_of_its_name_devices_before_grids(self) -> None:
        agents = (*(f"mg_{k}.{name}" for k in (1, 2) for name in DEVICES), "mg_1", "mg_2")
        assert list(plans().items()) == [(agent, NodePlan((agent,), "process", None)) for agent in agents]

    def test_this_is_how_it_is_where_nothing_is_said(self) -> None:
        assert node_plans(load(small_topology())) == plans("agent", grids=1)

    def test_what_is_inline_has_no_node_and_what_is_external_has_its_own(self) -> None:
        overrides = {
            "grids.mg_1.run": "inline",
            "grids.mg_1.devices.pv_1.run": "inline",
            "grids.mg_1.devices.ess_1.run": "external",
        }
        assert plans("agent", overrides, grids=1) == {
            "mg_1.dg_1": NodePlan(("mg_1.dg_1",), "process", None),
            "mg_1.ess_1": NodePlan(("mg_1.ess_1",), "external", None),
        }

    def test_each_runs_on_the_machine_that_is_named(self) -> None:
        overrides = {"grids.mg_1.host": "10.0.0.2", "grids.mg_1.devices.pv_1.host": "10.0.0.3"}
        assert {name: plan.host for name, plan in plans("agent", overrides, grids=1).items()} == {
            "mg_1.dg_1": None,
            "mg_1.pv_1": "10.0.0.3",
            "mg_1.ess_1": None,
            "mg_1": "10.0.0.2",
        }


class TestGrid:
    def test_a_node_has_a_grid_and_its_devices(self) -> None:
        assert list(plans("grid").items()) == [
            ("mg_1", NodePlan(of(1), "process", None)),
            ("mg_2", NodePlan(of(2), "process", None)),
        ]

    def test_the_grid_is_the_last_of_them(self) -> None:
        assert of(1) == ("mg_1.dg_1", "mg_1.pv_1", "mg_1.ess_1", "mg_1")

    def test_devices_are_in_the_order_of_the_file(self) -> None:
        content = small_topology()
        content["grids"]["mg_1"]["devices"] = dict(reversed(content["grids"]["mg_1"]["devices"].items()))
        topology = load(content, {"placement": "grid"})
        assert node_plans(topology)["mg_1"].agents == ("mg_1.ess_1", "mg_1.pv_1", "mg_1.dg_1", "mg_1")

    def test_an_external_device_is_a_node_of_its_own(self) -> None:
        assert plans("grid", {"grids.mg_1.devices.pv_1.run": "external"}, grids=1) == {
            "mg_1": NodePlan(("mg_1.dg_1", "mg_1.ess_1", "mg_1"), "process", None),
            "mg_1.pv_1": NodePlan(("mg_1.pv_1",), "external", None),
        }

    def test_devices_of_an_external_grid_are_nodes_of_their_own(self) -> None:
        assert plans("grid", {"grids.mg_1.run": "external"}, grids=1) == {
            **{f"mg_1.{name}": NodePlan((f"mg_1.{name}",), "process", None) for name in DEVICES},
            "mg_1": NodePlan(("mg_1",), "external", None),
        }

    def test_an_external_grid_has_its_external_devices(self) -> None:
        overrides = {"grids.mg_1.run": "external", "grids.mg_1.devices.pv_1.run": "external"}
        assert plans("grid", overrides, grids=1) == {
            "mg_1.dg_1": NodePlan(("mg_1.dg_1",), "process", None),
            "mg_1": NodePlan(("mg_1.pv_1", "mg_1"), "external", None),
            "mg_1.ess_1": NodePlan(("mg_1.ess_1",), "process", None),
        }

    def test_an_inline_device_has_no_node(self) -> None:
        assert hosted("grid", {"grids.mg_1.devices.pv_1.run": "inline"}, grids=1) == {
            "mg_1": ("mg_1.dg_1", "mg_1.ess_1", "mg_1")
        }

    def test_devices_of_an_inline_grid_are_nodes_of_their_own(self) -> None:
        assert hosted("grid", {"grids.mg_1.run": "inline"}) == {
            **{f"mg_1.{name}": (f"mg_1.{name}",) for name in DEVICES},
            "mg_2": of(2),
        }

    @pytest.mark.parametrize("run", ["inline", "process"])
    def test_where_all_is_inline_there_is_no_node(self, run: str) -> None:
        overrides = {"grids.*.run": run, "grids.*.devices.*.run": run}
        assert bool(hosted("grid", overrides)) == (run != "inline")

    def test_a_device_on_another_machine_than_its_grid_is_a_node_of_its_own(self) -> None:
        overrides = {"grids.mg_1.host": "10.0.0.2", "grids.mg_1.devices.pv_1.host": "10.0.0.3"}
        assert plans("grid", overrides, grids=1) == {
            "mg_1.pv_1": NodePlan(("mg_1.pv_1",), "process", "10.0.0.3"),
            "mg_1": NodePlan(("mg_1.dg_1", "mg_1.ess_1", "mg_1"), "process", "10.0.0.2"),
        }

    @pytest.mark.parametrize("host", ["10.0.0.2", None])
    def test_devices_on_the_machine_of_their_grid_or_on_none_are_with_it(self, host: str | None) -> None:
        overrides = {"grids.mg_1.host": "10.0.0.2", "grids.mg_1.devices.*.host": host}
        assert plans("grid", overrides, grids=1) == {"mg_1": NodePlan(of(1), "process", "10.0.0.2")}


class TestPool:
    def test_one_worker_has_them_all(self) -> None:
        assert plans({"pool": 1}, grids=3) == {"pool_1": NodePlan(of(1, 2, 3), "process", None)}

    @pytest.mark.parametrize(
        ("grids", "pool", "parts"),
        [
            (4, 2, [(1, 2), (3, 4)]),
            (3, 3, [(1,), (2,), (3,)]),
            (3, 2, [(1, 2), (3,)]),
            (5, 2, [(1, 2, 3), (4, 5)]),
            (5, 3, [(1, 2), (3, 4), (5,)]),
            (7, 3, [(1, 2, 3), (4, 5), (6, 7)]),
            (7, 4, [(1, 2), (3, 4), (5, 6), (7,)]),
        ],
    )
    def test_workers_take_grids_in_equal_parts_in_their_order(
        self, grids: int, pool: int, parts: list[tuple[int, ...]]
    ) -> None:
        assert list(hosted({"pool": pool}, grids=grids).items()) == [
            (f"pool_{k}", of(*part)) for k, part in enumerate(parts, 1)
        ]

    @pytest.mark.parametrize(("grids", "pool"), [(1, 9), (2, 3), (2, 9), (3, 100)])
    def test_there_are_no_more_workers_than_grids(self, grids: int, pool: int) -> None:
        assert list(hosted({"pool": pool}, grids=grids).items()) == [(f"pool_{k}", of(k)) for k in range(1, grids + 1)]

    def test_what_is_external_is_a_node_of_its_own_and_leaves_the_parts_equal(self) -> None:
        overrides = {"grids.mg_2.run": "external", "grids.mg_3.devices.pv_1.run": "external"}
        assert plans({"pool": 2}, overrides, grids=3) == {
            "pool_1": NodePlan(of(1), "process", None),
            **{f"mg_2.{name}": NodePlan((f"mg_2.{name}",), "process", None) for name in DEVICES},
            "pool_2": NodePlan(("mg_3.dg_1", "mg_3.ess_1", "mg_3"), "process", None),
            "mg_3.pv_1": NodePlan(("mg_3.pv_1",), "external", None),
            "mg_2": NodePlan(("mg_2",), "external", None),
        }

    def test_what_is_inline_is_with_the_env_and_leaves_the_parts_equal(self) -> None:
        overrides = {"grids.mg_1.run": "inline", "grids.*.devices.dg_1.run": "inline"}
        assert hosted({"pool": 2}, overrides, grids=3) == {
            "mg_1.pv_1": ("mg_1.pv_1",),
            "mg_1.ess_1": ("mg_1.ess_1",),
            "pool_1": ("mg_2.pv_1", "mg_2.ess_1", "mg_2"),
            "pool_2": ("mg_3.pv_1", "mg_3.ess_1", "mg_3"),
        }

    def test_a_grid_on_another_machine_is_a_node_of_its_own_with_its_devices_there(self) -> None:
        overrides = {"grids.mg_1.host": "10.0.0.2", "grids.mg_1.devices.*.host": "10.0.0.2"}
        overrides["grids.mg_2.devices.pv_1.host"] = "10.0.0.3"
        assert plans({"pool": 1}, overrides) == {
            "mg_1": NodePlan(of(1), "process", "10.0.0.2"),
            "pool_1": NodePlan(("mg_2.dg_1", "mg_2.ess_1", "mg_2"), "process", None),
            "mg_2.pv_1": NodePlan(("mg_2.pv_1",), "process", "10.0.0.3"),
        }

    @pytest.mark.parametrize("placement", [{"pool": 0}, {"pool": -1}, {"pool": 1.5}, {}, "node", {"pools": 2}])
    def test_a_placement_that_is_none_is_told(self, placement: Any) -> None:
        with pytest.raises(TopologyError, match="placement"):
            load(small_topology(), {"placement": placement})


def spread() -> Iterator[Topology]:
    """Topologies that place their agents in every way."""
    odd = {
        "grids.mg_2.run": "external", "grids.mg_2.devices.pv_1.run": "inline", "grids.mg_3.run": "inline",
        "grids.mg_1.devices.pv_1.run": "external", "grids.mg_1.devices.dg_1.host": "10.0.0.2",
    }  # fmt: skip
    for placement in PLACEMENTS:
        for overrides in ({}, odd):
            yield load(small_topology(3), {"placement": placement, **OPEN, **CONSENSUS, **overrides})


@pytest.mark.parametrize("topology", list(spread()), ids=lambda topology: str(topology.placement))
class TestHomes:
    def test_every_agent_is_at_one_node_or_inline(self, topology: Topology) -> None:
        count = Counter(agent for plan in node_plans(topology).values() for agent in plan.agents)
        assert count == {agent: 1 for agent, run in topology.runs().items() if run != "inline"}

    def test_a_node_runs_as_each_of_its_agents_should(self, topology: Topology) -> None:
        place = {name: (grid.run, grid.host) for name, grid in topology.grids.items()}
        place |= {device.id: (device.config.run, device.config.host) for device in topology.device_specs}
        for plan in node_plans(topology).values():
            assert {place[agent] for agent in plan.agents} == {(plan.run, plan.host)}

    def test_devices_come_before_grids(self, topology: Topology) -> None:
        for plan in node_plans(topology).values():
            are_grids = [agent in topology.grids for agent in plan.agents]
            assert are_grids == sorted(are_grids)

    def test_the_home_of_an_agent_is_the_node_that_hosts_it_or_the_env(self, topology: Topology) -> None:
        nodes = node_plans(topology)
        at = homes(nodes, topology)
        assert at.keys() == {*topology.runs(), ENV}
        assert at[ENV] == ENV
        for agent, run in topology.runs().items():
            assert at[agent] == ENV if run == "inline" else agent in nodes[at[agent]].agents

    def test_a_channel_is_heard_at_the_homes_of_its_hearers(self, topology: Topology) -> None:
        at = homes(node_plans(topology), topology)
        assert hearers(topology) == {line.channel: {at[hearer] for hearer in line.hearers} for line in lines(topology)}


# ---- who says what to whom ------------------------------------------------------------------------------------------

FALLBACK = {"grids.*.on_failure": "fallback"}
MIXED = {"grids.mg_1.on_failure": "restart", "grids.*.devices.pv_1.on_failure": "fallback"}


@pytest.fixture(scope="module", params=[{}, FALLBACK, MIXED], ids=["fail", "fallback", "mixed"])
def topology(request: pytest.FixtureRequest) -> Topology:
    return load("3mg", {"horizontal": "average_consensus", **request.param})


def heard_by(topology: Topology) -> dict[tuple[str, str], frozenset[str]]:
    """Who may be heard on which channel by whom, as agents and the env's port say themselves."""
    receivers = [*make_agents(topology, list(topology.runs())), EnvPort(topology, {})]
    heard = {(name, one.id): senders for one in receivers for name, senders in one.hears.items()}
    del heard[channel("node", ENV), ENV]  # a node's own voice, not a channel of agents
    return heard


class TestLines:
    def test_are_heard_exactly_as_agents_say(self, topology: Topology) -> None:
        """But for the env, which also hears what those hear that may have a successor, to be able to tell it."""
        heard = heard_by(topology)
        assert len(heard) == 3 * (3 + 3 + 2) + 9 * 2 + (9 + 3)  # grids, devices, env
        recalled = {agent for agent, policy in topology.on_failure().items() if policy.kind != "fail"}
        told = {
            (line.channel, hearer): frozenset((line.speaker,)) for line in lines(topology) for hearer in line.hearers
        }
        more = {(name, ENV): by for (name, agent), by in heard.items() if agent in recalled and by != {ENV}}
        assert told == more | heard

    def test_have_one_speaker_each(self, topology: Topology) -> None:
        channels = Counter(line.channel for line in lines(topology))
        assert set(channels.values()) == {1}
        assert len(channels) == 3 * 4 + 6 + 9 * 3

    def test_never_go_back_to_their_speaker_nor_twice_to_anybody(self, topology: Topology) -> None:
        for line in lines(topology):
            everybody = (line.speaker, *line.hearers)
            assert len(set(everybody)) == len(everybody)

    def test_name_nobody_but_agents_and_the_env(self, topology: Topology) -> None:
        assert {one for line in lines(topology) for one in (line.speaker, *line.hearers)} == {*topology.runs(), ENV}

    def test_are_what_agents_say_in_a_step(self, topology: Topology, monkeypatch: pytest.MonkeyPatch) -> None:
        said: set[tuple[str, str]] = set()

        class Recorder(InMemoryBroker):
            def publish(self, channel: str, envelope: Envelope) -> int:
                said.add((channel, envelope.sender))
                return super().publish(channel, envelope)

        monkeypatch.setattr("zgrid.environment.InMemoryBroker", Recorder)
        with closing(zgrid.NetworkedGridEnv(topology.model_copy(update={"message_broker": "in_memory"}))) as env:
            env.reset(seed=0)
            env.step(dict.fromkeys(env.agents))
        assert said == {(line.channel, line.speaker) for line in lines(topology)}


def test_without_a_horizontal_protocol_grids_do_not_speak_to_each_other() -> None:
    kinds = Counter(line.channel.partition("/")[0] for line in lines(load("3mg")))
    assert kinds == {"action": 3, "reset": 12, "network": 3, "report": 3, "setpoint": 9, "state": 9}


def test_a_line_says_channel_speaker_and_hearers() -> None:
    content = small_topology(2)
    for grid in content["grids"].values():
        grid["devices"] = {"dg_1": grid["devices"]["dg_1"]}
    told = list(lines(load(content, {**CONSENSUS, "grids.mg_1.devices.dg_1.on_failure": "restart"})))
    assert told[:8] == [
        Line("action/mg_1/", ENV, ("mg_1",)),
        Line("reset/mg_1/", ENV, ("mg_1",)),
        Line("network/mg_1/", ENV, ("mg_1",)),
        Line("report/mg_1/", "mg_1", (ENV,)),
        Line("peer/mg_1/mg_2/", "mg_2", ("mg_1",)),
        Line("setpoint/mg_1.dg_1/", "mg_1", ("mg_1.dg_1", ENV)),
        Line("reset/mg_1.dg_1/", "mg_1", ("mg_1.dg_1", ENV)),
        Line("state/mg_1.dg_1/", "mg_1.dg_1", ("mg_1", ENV)),
    ]
    assert len(told) == 2 * 8
    assert CONTROL not in {line.channel for line in told}
