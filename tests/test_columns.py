"""Many grids as arrays are the same agents: to the bit, when something fails, and for whoever listens."""

from __future__ import annotations

import hashlib
import os
import signal
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import small_topology
from devices.test_acting import all_kinds
from test_recording import recording

import zgrid
from zgrid.agents.reward import Economic
from zgrid.devices.generator import Generator
from zgrid.encoding import decode, encode
from zgrid.errors import AgentError, MessageError
from zgrid.execution import DirectExecution
from zgrid.guard import Guard
from zgrid.host import Bus, Host
from zgrid.messages import ENV, Action, Columns, DeviceState, Envelope, Item, NetworkState, Report, Table, channel
from zgrid.messaging import Delivery, Heard, MessageBroker, Tap
from zgrid.muster import Muster
from zgrid.node import make_bus
from zgrid.outcome import ColumnOutcome, Outcome
from zgrid.overview import Overview
from zgrid.port import EnvPort
from zgrid.post import Post
from zgrid.replaying import replay
from zgrid.tables import count as count_of
from zgrid.tables import items, network_row, network_sizes, table, width
from zgrid.topology import alike, load
from zgrid.topology.alike import squads
from zgrid.topology.generated import generate
from zgrid.topology.nodes import node_plans
from zgrid.watching import Ear
from zgrid.world import World

pytestmark = pytest.mark.usefixtures("no_leftovers")
NEVER = 10**6
POOL: dict[str, Any] = {"centralized": False, "message_broker": "zmq", "placement": {"pool": 2}}


@pytest.fixture(scope="module")
def pool() -> Iterator[zgrid.NetworkedGridEnv]:
    """Ten microgrids in two workers, for tests that end nothing; each resets it. A proxy may be said to have died."""
    with closing(zgrid.parallel_env(generate(10), **POOL, **{"broker.on_failure": "restart"})) as env:
        env.reset(seed=0)  # its processes are there before a test looks for those that it leaves
        yield env


@cache
def called(steps: int, policy_at: int = -1) -> str:
    """The digest of agents that are called one by one."""
    with pytest.MonkeyPatch.context() as patch, closing(zgrid.parallel_env(generate(10), centralized=True)) as env:
        patch.setattr(alike, "SMALLEST", NEVER)
        return digest(env, steps, policy_at=policy_at)


def digest(env: zgrid.NetworkedGridEnv, steps: int, *, policy_at: int = -1, seed: int = 3) -> str:
    """Over all that an env tells but events; in one step a grid's own policy decides."""
    rng, told = np.random.default_rng(seed), hashlib.sha256()
    env.reset(seed=seed)
    for k in range(steps):
        if not env.agents:
            env.reset()
        actions: dict[str, Any] = {a: rng.uniform(-1.2, 1.2, env.action_space(a).shape) for a in env.agents}
        if k == policy_at:
            actions[env.agents[-1]] = None
        observations, rewards, terminations, _, infos = env.step(actions)
        for agent, seen in observations.items():
            assert seen.flags.writeable
            assert seen.base is None, "who keeps one keeps no others"
            told.update(seen.tobytes() + struct.pack("<d?", rewards[agent], terminations[agent]))
            told.update(repr({name: value for name, value in infos[agent].items() if name != "events"}).encode())
        told.update(env.state().tobytes() + repr(env.snapshot()).encode())
    return told.hexdigest()


@pytest.fixture
def smallest(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Set from how many grids on arrays are taken, in this process."""
    return lambda count: monkeypatch.setattr(alike, "SMALLEST", count)


def both(smallest: Any, content: Any, steps: int, **overrides: Any) -> tuple[str, str]:
    """The digests of agents one by one, and of columns, centralized."""
    digests = []
    for count in (NEVER, 1):
        smallest(count)
        with closing(zgrid.parallel_env(content, centralized=True, **overrides)) as env:
            digests.append(digest(env, steps, policy_at=steps // 2))
            assert is_columnar(env) == (count == 1)
    return digests[0], digests[1]


def is_columnar(env: zgrid.NetworkedGridEnv) -> bool:
    return env._execution is not None and env._execution.columnar


def diverging() -> Any:
    content = small_topology(2)
    content["grids"]["mg_1"]["devices"]["ess_1"] |= {"p_max_mw": 40.0, "s_rated_mva": 40.0, "capacity_mwh": 40.0}
    return content


CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "3mg": ("3mg", {}),
    "3mg_reference": ("3mg_reference", {}),
    "10 microgrids": (generate(10), {}),
    "all kinds": (all_kinds(), {}),
    "diverging": (diverging(), {}),
    "padded, shared reward": (all_kinds(), {"spaces.pad": True, "share_reward": True}),
    "all is seen": ("3mg", {"observability": "full"}),
    "squared voltage": ("3mg", {"reward.voltage": "l2"}),
}


@pytest.mark.parametrize(
    "case", [pytest.param(name, marks=pytest.mark.slow) if name == "all kinds" else name for name in CASES]
)
def test_columns_give_the_bits_of_agents(case: str, smallest: Any) -> None:
    content, overrides = CASES[case]
    agents, columns = both(smallest, content, 40, **overrides)
    assert agents == columns


def test_workers_that_talk_in_columns_give_the_bits_of_agents(pool: zgrid.NetworkedGridEnv) -> None:
    before = pool.stats()
    assert digest(pool, 40, policy_at=20) == called(40, 20)
    assert is_columnar(pool)
    assert_said(pool.stats(), before, 10, 40)


@pytest.mark.slow
def test_workers_of_a_hundred_microgrids_do_too(smallest: Any) -> None:
    content = generate(100)
    with closing(zgrid.parallel_env(content, **POOL)) as env:
        before = env.stats()
        found = digest(env, 6, policy_at=3)
        assert is_columnar(env)
        assert_said(env.stats(), before, 100, 6)
    smallest(NEVER)
    with closing(zgrid.parallel_env(content, centralized=True)) as env:
        assert digest(env, 6, policy_at=3) == found


def assert_said(stats: dict[str, Any], before: dict[str, Any], microgrids: int, steps: int) -> None:
    """What has been said and refused since ``before``, of which one step was a policy's."""
    said = Counter(stats["messages"])
    said.subtract(before["messages"])
    resets = 1 + (steps - 1) // 24
    assert stats["refused"] == before["refused"]
    assert said["setpoint"] == 3 * microgrids, "told in messages in the one step that a policy decided"
    assert said["state"] == 3 * microgrids * (steps + resets)
    assert {said[kind] for kind in ("network", "report")} == {microgrids * (steps + resets)}


@pytest.mark.parametrize(
    "change",
    [
        {"reward": {"kind": "economic", "voltage": "bowl"}},
        {"horizontal": {"kind": "average_consensus", "value": "p_pcc_mw", "rounds": 2}},
        {"policy": "rule_based", "grids.mg_1.devices.pv_1.run": "inline", "placement": {"pool": 1}},
    ],
    ids=["an exponential", "neighbours", "a device elsewhere"],
)
def test_what_arrays_do_otherwise_is_left_to_agents(change: dict[str, Any]) -> None:
    topology = load(small_topology(5), change)
    local = "placement" in change
    assert (alike.squads(topology, node_plans(topology)) if local else alike.alike(topology)) in ((), {})


# ---- failures ------------------------------------------------------------------------------------------------------


def test_a_device_that_fails_among_many_is_named(smallest: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    smallest(1)
    step = Generator.step

    def fail(self: Generator, *arguments: Any) -> Any:
        if self._configs[0].cost_b == 51.6 and isinstance(arguments[0][0], float):
            raise RuntimeError("out of sorts")
        if isinstance(arguments[0][0], np.ndarray):
            raise RuntimeError("one of these")
        return step(self, *arguments)

    content = small_topology(4)
    for grid in ("mg_1", "mg_2", "mg_4"):
        content["grids"][grid]["devices"]["dg_1"]["cost_b"] = 50.0
    with closing(zgrid.parallel_env(content, centralized=True)) as env:
        env.reset(seed=0)
        actions = {agent: np.zeros(env.action_space(agent).shape) for agent in env.agents}
        env.step(actions)
        monkeypatch.setattr(Generator, "step", fail)
        with pytest.raises(AgentError, match="out of sorts") as caught:
            env.step(actions)
    assert (caught.value.agent, caught.value.step) == ("mg_3.dg_1", 3)
    assert "in fail" in caught.value.remote_traceback


@pytest.mark.parametrize("what", ["device", "reward"])
def test_where_arrays_fail_agents_go_on_with_the_same_bits(
    what: str, smallest: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, name = (Generator, "step") if what == "device" else (Economic, "_assess")
    original, count = getattr(owner, name), [0]

    def fail(self: Any, *arguments: Any) -> Any:
        probe = arguments[0][0] if what == "device" else arguments[2]
        if isinstance(probe, np.ndarray):
            count[0] += 1
            if count[0] in (2, 4):
                raise FloatingPointError("overflow")
        return original(self, *arguments)

    monkeypatch.setattr(owner, name, fail)
    agents, columns = both(smallest, generate(5), 20)
    assert agents == columns
    assert count[0] > 4


def survives(policy: Any) -> dict[str, Any]:
    content = generate(8)
    for grid in list(content["grids"].values())[:4]:
        grid["on_failure"] = policy
        for device in grid["devices"].values():
            device["on_failure"] = policy
    return content


def play(env: zgrid.NetworkedGridEnv, steps: int) -> Iterator[tuple[dict[str, float], list[str]]]:
    rng = np.random.default_rng(1)
    for _ in range(steps):
        actions = {agent: rng.uniform(-1, 1, env.action_space(agent).shape) for agent in env.agents}
        _, rewards, _, _, infos = env.step(actions)
        yield rewards, sorted({event for info in infos.values() for event in info.get("events", ())})


def kill(env: zgrid.NetworkedGridEnv, node: str) -> None:
    session = env._execution._session  # type: ignore[union-attr]
    os.kill(session.processes[node].popen.pid, signal.SIGKILL)


@pytest.mark.slow
def test_a_worker_that_is_killed_is_restarted_with_the_same_bits() -> None:
    content = survives("restart")
    with closing(zgrid.parallel_env(content, centralized=True)) as env:
        env.reset(seed=0)
        expected = [rewards for rewards, _ in play(env, 8)]
    with closing(zgrid.parallel_env(content, **POOL)) as env:
        env.reset(seed=0)
        got = []
        for rewards, events in play(env, 8):
            got.append(rewards)
            if len(got) == 4:
                kill(env, "pool_1")
            assert bool(events) == (len(got) == 5)
        assert is_columnar(env)
    assert got == expected


@pytest.mark.parametrize("phase", ["states", "reports"])
def test_a_step_that_is_said_again_is_not_taken_twice(
    phase: str, pool: zgrid.NetworkedGridEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy returned while a step was open: whatever it may have lost is said again."""
    say_again_in_step(pool, 2, phase, monkeypatch)
    assert digest(pool, 6) == called(6)


def say_again_in_step(env: zgrid.NetworkedGridEnv, step: int, phase: str, patch: pytest.MonkeyPatch) -> None:
    """Once, before the states or the reports of a step are waited for."""
    env.reset(seed=3)
    execution: Any = env._execution
    collect, count = execution._collect, Counter[str]()

    def meet(gather: Any, kind: str) -> Any:
        count[kind] += kind + "s" == phase
        if count[kind] == step + 2:  # a reset has both, too
            while not execution._port.muster.complete:
                execution._host.pump(1.0)
            execution._guard._reconnect(execution._step)
        return collect(gather, kind)

    patch.setattr(execution, "_collect", meet)


def test_a_node_that_is_lost_after_all_have_spoken_is_answered_one_by_one(
    pool: zgrid.NetworkedGridEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then somebody may act here for its agents, who hear no columns."""
    looks: list[bool] = []

    def undisturbed(guard: Guard) -> bool:
        looks.append(True)
        return len(looks) != 6  # two looks a step: not after the states of the third

    monkeypatch.setattr(Guard, "undisturbed", property(undisturbed))
    host = pool._execution._host  # type: ignore[union-attr]
    before = host.sent()["network"]
    assert digest(pool, 5) == called(5)
    assert host.sent()["network"] - before == 10 * 6
    assert len(looks) == 10


def test_arrays_are_given_up_after_failures_one_after_the_other_only() -> None:
    topology = load(generate(5))
    execution = DirectExecution(topology, World(topology))
    execution.reset(0, 1)
    values, squad = np.full(sum(len(spec.controls) for spec in topology.grid_specs), 0.5), execution._squad
    for _ in range(4):
        execution.step_all(values)
        squad._give_up()
        execution.step(execution._overview.split(values))
    assert execution.step_all(values).__class__ is ColumnOutcome
    for _ in range(3):
        squad._give_up()
        execution.step(execution._overview.split(values))
    assert execution.step_all(values).__class__ is Outcome


@pytest.mark.parametrize("grids", [3, 4])
def test_an_action_whose_sum_is_no_number_is_one_however_many_grids(grids: int) -> None:
    with closing(zgrid.parallel_env(generate(grids), centralized=True)) as env:
        env.reset(seed=0)
        env.step({agent: np.full(env.action_space(agent).shape, 1e308) for agent in env.agents})


def test_a_squad_takes_no_step_twice() -> None:
    topology = load(generate(5))
    execution = DirectExecution(topology, World(topology))
    execution.reset(0, 1)
    values = np.full(sum(len(spec.controls) for spec in topology.grid_specs), 0.5)
    execution.step_all(values)
    squad, told, step = execution._squad, execution._overview.actions(values)[ENV], execution._step + 1
    assert squad.act(step, told) is not None
    squad.release()
    assert squad.act(step, told) is None
    assert squad.act(step - 1, told) is None
    assert squad.act(step + 1, told) is not None


@pytest.mark.slow
def test_a_worker_that_is_killed_is_stood_in_for() -> None:
    """Its generators then give nothing, as their safe setpoints say; the other worker's are told what they were."""
    with closing(zgrid.parallel_env(survives("fallback"), **POOL)) as env:
        env.reset(seed=0)
        told = []
        for k, (_, events) in enumerate(play(env, 6)):
            if k == 2:
                kill(env, "pool_1")
            told += events
        snapshot = env.snapshot()
    assert len(told) == 16
    assert all("fallback" in event for event in told)
    assert [snapshot[f"mg_{k}.dg_1.p_mw"] == 0.0 for k in range(1, 9)] == [True] * 4 + [False] * 4


# ---- on the wire ---------------------------------------------------------------------------------------------------

NETWORK = NetworkState(
    True, (2, 1, 0), np.array([1.0, np.nan, 50.0]), 0.5, 0.1, 0.0, 0.25, (1.0, 0.0), (30.0, 20.0, 40.0, 0.5), (0.0, 1.0)
)
BODIES: dict[str, Any] = {
    "action": Action((0.25, -1.0)),
    "state": DeviceState(0.5, -0.1, 3.25, 0.0, (0.5,)),
    "network": NETWORK,
    "report": Report(-1.5, (1.0, 0.5, 0.0), np.array([0.25, -3.0], dtype=np.float32)),
}
ROWS: dict[str, tuple[tuple[int, ...], list[float]]] = {
    "action": ((2,), [0.25, -1.0]),
    "state": ((1,), [0.5, -0.1, 3.25, 0.0, 0.5]),
    "network": (network_sizes(NETWORK), network_row(NETWORK)),
    "report": ((3, 2), [-1.5, 1.0, 0.5, 0.0, 0.25, -3.0]),
}


def two(of: str, **changes: Any) -> Envelope:
    """What two agents say, on one table."""
    sizes, row = ROWS[of]
    one = Table(of, "mg_1 mg_2", sizes, np.array(row * 2))._replace(**changes)
    return Envelope("node:pool_1", "run", 1, 0, 7, 0, 5, Columns((one,)))


@pytest.mark.parametrize("kind", ROWS)
def test_a_table_is_as_many_messages(kind: str) -> None:
    body = decode(encode(two(kind))).body
    assert isinstance(body, Columns)
    found = list(items(body, 7))
    senders = ["env"] * 2 if kind in ("action", "network") else ["mg_1", "mg_2"]
    for item, agent, sender in zip(found, ("mg_1", "mg_2"), senders, strict=True):
        assert item[:6] == (channel(kind, agent), kind, sender, 0, 7, 0)
        assert same(item.body, BODIES[kind])


def same(one: Any, other: Any) -> bool:
    pairs = zip(one, other, strict=True)
    arrays = ((a, b) for a, b in pairs if isinstance(a, np.ndarray))
    return repr(one) == repr(other) and all(a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in arrays)


def with_number(kind: str, place: int, number: float) -> Any:
    values = np.array(ROWS[kind][1] * 2)
    values[place] = number
    return values


WRONG = {
    "a row too few": two("state", agents="mg_1"),
    "a number too few": two("state", values=np.array(ROWS["state"][1] * 2)[:-1]),
    "a number too many": two("action", values=np.zeros(5)),
    "sizes too few": two("report", sizes=(3,)),
    "a negative size": two("report", sizes=(7, -2)),
    "a size that is no number": two("action", sizes=(2.0,)),
    "no agents": two("action", agents=""),
    "an empty name": two("action", agents="mg_1  mg_2", sizes=(0,), values=np.zeros(0)),
    "another kind": two("action", kind="setpoint"),
    "single precision": two("action", values=np.zeros(4, dtype=np.float32)),
    "NaN in an action": two("action", values=with_number("action", 3, np.nan)),
    "infinity in a state": two("state", values=with_number("state", 4, np.inf)),
    "NaN in a flow": two("network", values=with_number("network", 1, np.nan)),
    "NaN in the series": two("network", values=with_number("network", 10, np.nan)),
    "infinity in what is measured": two("network", values=with_number("network", 5, np.inf)),
    "a flag of 2": two("network", values=with_number("network", 0, 2.0)),
    "a flag that is NaN": two("network", values=with_number("network", 0, np.nan)),
    "more buses than measured": two("network", sizes=(4, 0, 0, *ROWS["network"][0][3:])),
    "NaN in a report": two("report", values=with_number("report", 0, np.nan)),
    "an observation beyond float32": two("report", values=with_number("report", 5, 1e300)),
    "a table that is an item": Envelope(
        "node:a", "run", 1, 0, 7, 0, 5, Columns((Item("a/", "stop", "a", 0, 0, 0, ()),))
    ),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_table_is_refused(name: str) -> None:
    with pytest.raises(MessageError, match="malformed"):
        decode(encode(WRONG[name]))


def test_a_large_reward_is_no_observation() -> None:
    assert decode(encode(two("report", values=with_number("report", 0, 1e300))))


def test_columns_hold_no_messages_in_a_batch() -> None:
    from zgrid.messages import Batch

    within = Item(
        "batch/a/b/", "columns", "node:b", 0, 7, 0, Columns((table("action", "mg_1", (1,), np.zeros((1, 1))),))
    )
    with pytest.raises(MessageError, match="within"):
        decode(encode(Envelope("node:b", "run", 1, 0, 7, 0, 5, Batch((within,)))))


def test_a_worker_that_talks_in_columns_is_replayed_byte_for_byte(tmp_path: Path) -> None:
    content, path = {**generate(8), "episode_steps": 4}, tmp_path / "pool.zrec"
    with closing(zgrid.parallel_env(content, **POOL)) as env:
        env.reset(seed=1)  # the proxy is there now
        assert env._execution is not None
        with recording(Tap(env._execution._host.broker.address), path):  # type: ignore[attr-defined]
            env.reset(seed=2)
            for _ in play(env, 4):
                pass
            env.close()
    result = replay(path, load(content, POOL, checked=False), "pool_2")
    assert (result.different, result.first) == (0, None)
    assert result.kinds["columns"] == 8
    assert result.kinds["in batches"] == 4 * (4 + 12) + 4 + 12, "and those of the reset"


def test_a_bystander_hears_agents_not_tables() -> None:
    heard = Heard(5, "batch/env/pool_1/", encode(two("state")))
    ear = Ear()
    whole, *found = ear.take(heard)
    assert whole.kind == "columns"
    assert [(message.channel, message.envelope.sender, message.size) for message in found] == [
        ("state/mg_1/", "mg_1", 0),
        ("state/mg_2/", "mg_2", 0),
    ]
    assert [same(message.envelope.body, BODIES["state"]) for message in found] == [True, True]


# ---- in the host ---------------------------------------------------------------------------------------------------


class Hearer:
    """A receiver that keeps what it is handed."""

    def __init__(self, agent: str, *names: str) -> None:
        self.id, self.refused = agent, Counter[str]()
        self.hears = dict.fromkeys(names, frozenset((agent, "env")))
        self.heard: list[Envelope] = []

    def receive(self, envelope: Envelope) -> tuple[Post, ...]:
        self.heard.append(envelope)
        return ()


class Script(MessageBroker):
    """A broker that hears what a test says."""

    def __init__(self, *deliveries: Delivery) -> None:
        super().__init__()
        self.left = list(deliveries)
        self.published: list[Envelope] = []

    def publish(self, channel: str, envelope: Envelope) -> int:
        size = len(encode(envelope))
        self.published.append(envelope)
        return size

    def subscribe(self, channel: str) -> None:
        pass

    def poll(self, timeout_s: float) -> Delivery | None:
        return self.left.pop(0) if self.left else None

    def close(self) -> None:
        pass


def test_columns_of_agents_that_live_elsewhere_are_refused_one_by_one() -> None:
    """``mg_2`` is no agent of the node that says it."""
    bus = Bus("env", {}, {"mg_1": "pool_1", "mg_2": "pool_2"})
    host = Host(Script(Delivery("batch/env/pool_1/", two("state"))), "run", 0, bus)
    hearer = Hearer("mg_1", "state/mg_1/", "state/mg_2/")
    host.add(hearer)
    host.hear_batches(["pool_1"])
    while host.pump(0.0):
        pass
    assert [envelope.sender for envelope in hearer.heard] == ["mg_1"]
    assert host.refused() == {"stranger mg_2": 1}


def test_columns_of_a_stranger_are_refused() -> None:
    bus = Bus("env", {}, {"mg_1": "pool_1", "mg_2": "pool_1"})
    stranger = two("state")._replace(sender="node:pool_2")
    host = Host(Script(Delivery("batch/env/pool_1/", stranger)), "run", 0, bus)
    host.add(Hearer("mg_1", "state/mg_1/"))
    host.hear_batches(["pool_1"])
    while host.pump(0.0):
        pass
    assert host.refused() == {"stranger node:pool_2": 1}


SHAPES: dict[str, tuple[tuple[str, str, tuple[int, ...]], ...]] = {
    "pool_1": (("state", "mg_1 mg_2", (1,)),),
    "pool_2": (("state", "mg_3", (1,)),),
}


def test_a_muster_counts_what_is_late_or_said_twice() -> None:
    refused: Counter[str] = Counter()
    muster = Muster(refused)
    muster.open(7, SHAPES)
    assert muster.hear("pool_1", two("state")) == ()
    assert muster.hear("pool_1", two("state")) == ()
    assert muster.hear("pool_1", two("state")._replace(step=6)) == ()
    assert refused == {"duplicate node:pool_1": 1, "stale node:pool_1": 1}
    assert (muster.complete, muster.missing) == (False, ("mg_3",))


def test_a_muster_leaves_other_shapes_and_later_steps_to_the_receivers() -> None:
    muster = Muster(Counter())
    assert muster.hear("pool_1", two("state")) is None, "not open"
    muster.open(7, SHAPES)
    assert muster.hear("pool_1", two("state", agents="mg_2 mg_1")) is None
    assert muster.hear("pool_1", two("state")._replace(step=8)) is None
    assert muster.hear("pool_2", two("state")) is None
    assert muster.taken == {}


def tables_of(shapes: Any) -> Columns:
    return Columns(tuple(table(*one, np.zeros((count_of(one[1]), width(one[0], one[2])))) for one in shapes))


def test_one_state_more_while_reports_are_awaited_throws_no_report_away() -> None:
    topology = load(generate(10), POOL)
    plans = node_plans(topology)
    overview = Overview(topology, World(topology), squads(topology, plans))
    port = EnvPort(topology, plans)
    port.open(5)
    port.muster.open(5, overview.states)
    for node, shapes in overview.states.items():
        assert port.muster.hear(node, Envelope(f"node:{node}", "", 0, 0, 5, 0, 0, tables_of(shapes))) == ()
    port.muster.open(5, overview.reports)
    first, *others = overview.reports
    port.muster.hear(first, Envelope(f"node:{first}", "", 0, 0, 5, 0, 0, tables_of(overview.reports[first])))
    device = topology.device_specs[0].id
    port.receive(Envelope(device, "", 0, 0, 5, 0, 0, DeviceState(0.0, 0.0, 0.0, 0.0, ())))
    again = Envelope(f"node:{first}", "", 0, 0, 5, 0, 0, tables_of(overview.states[first]))
    assert port.muster.hear(first, again) == ()
    assert port.refused == {f"duplicate node:{first}": 1}
    assert port.muster.is_open
    assert set(port.muster.missing) == {
        grid for node in others for ids in squads(topology, plans)[node] for grid in ids
    }


def test_columns_too_large_for_a_frame_are_said_one_by_one_and_so_again() -> None:
    topology = load(generate(10), POOL)
    broker = Script()
    host = Host(broker, "run", 1, make_bus(topology, ENV))
    host.remember()
    names = list(topology.grids)[:2]
    host.send_columns("pool_1", 3, Columns((Table("action", " ".join(names), (70_000,), np.zeros(140_000)),)))
    for _ in range(2):
        host.flush()
        assert [envelope.sender for envelope in broker.published] == [ENV, ENV]
        broker.published.clear()
        host.say_again()


def test_what_a_muster_took_comes_one_by_one_when_it_dissolves() -> None:
    muster = Muster(Counter())
    muster.open(7, SHAPES)
    muster.hear("pool_1", two("state"))
    assert [(item.sender, item.step) for item in muster.dissolve()] == [("mg_1", 7), ("mg_2", 7)]
    assert not muster.is_open
