"""A grid agent comes to the same, driven by calls or by messages in any order."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import permutations
from typing import Any

import numpy as np
import pytest

from zgrid.agents import DeviceAgent, DeviceSpec, GridAgent, GridSpec
from zgrid.agents.reward import reward_class
from zgrid.devices import device_class
from zgrid.encoding import encode
from zgrid.messages import (
    Action,
    Body,
    DeviceState,
    Envelope,
    NetworkState,
    Peer,
    Report,
    Reset,
    Setpoint,
)
from zgrid.policies import policy_class
from zgrid.post import Post
from zgrid.protocols import Participant, horizontal_class, vertical_class

NAN = float("nan")
DEVICES = {
    "dg_1": {"kind": "generator", "bus": "675", "p_max_mw": 0.66, "s_rated_mva": 1.0, "cost_a": 100.0, "cost_b": 72.4},
    "pv_1": {"kind": "renewable", "bus": "652", "availability": "solar", "p_max_mw": 0.4, "s_rated_mva": 0.5},
    "ess_1": {"kind": "storage", "bus": "645", "p_max_mw": 0.5, "s_rated_mva": 0.6, "capacity_mwh": 2.0,
              "eta_charge": 0.9, "eta_discharge": 0.8, "wear_cost": 5.0},
}  # fmt: skip
BUSES, LINES, TRAFOS = ("650", "632", "675"), ("Line 1",), ("Substation",)
NEIGHBOURS = {"mg_2": 1.0 / 3.0, "mg_3": 1.0 / 3.0}
ACTION = (0.2, 1.0, -0.5)


def spec(name: str = "mg_1", *, rounds: int = 0, policy: str = "rule_based", reward: str = "economic") -> GridSpec:
    devices = tuple(
        DeviceSpec(f"{name}.{key}", name, device_class(raw["kind"]).Config.model_validate(raw), 0.25)
        for key, raw in DEVICES.items()
    )
    horizontal = horizontal_class("average_consensus").Config(rounds=rounds) if rounds else None
    return GridSpec(
        name,
        0.25,
        devices,
        reward_class(reward).Config(),
        policy_class(policy).Config(),
        vertical_class("setpoint").Config(),
        horizontal,
        Participant(name, NEIGHBOURS if rounds else {}, size=3, diameter=1),
    )


def network(step: int) -> NetworkState:
    """What the env might say after a step: everything depends on the step, one bus is dead."""
    measured = np.array([1.0, 0.9 + 0.02 * step, NAN, 40.0 + step, 80.0 + 10.0 * step])
    # price, low, high, load; the sun
    series = (60.0 + 10.0 * step, 40.0, 70.0, 0.5, 0.1 * step)
    return NetworkState(True, (3, 1, 1), measured, 0.3 - 0.1 * step, 0.05, 0.0, 0.0, (1.0,) * 3, series, (0.0, 1.0))


def envelope(sender: str, step: int, body: Body, round: int = 0) -> Envelope:
    return Envelope(sender, "run", 0, 0, step, round, 0, body)


class Microgrid:
    """A grid agent and its device agents, played step by step over messages; the test decides on the order."""

    def __init__(self, rounds: int = 0, **options: Any) -> None:
        self.grid = GridAgent(spec(rounds=rounds, **options))
        self.devices = {device.id: DeviceAgent(device) for device in self.grid.spec.devices}

    def reset(self, step: int = 1, seed: int = 7) -> Report:
        return self.close(step, self.grid.receive(envelope("env", step, Reset(seed))))

    def open(self, step: int, action: Any = ACTION) -> list[Post]:
        return self.grid.receive(envelope("env", step, Action(action)))

    def answers(self, posts: Sequence[Post]) -> list[Envelope]:
        """What the devices say to what the grid posted to them."""
        heard = []
        for to, step, _, body in posts:
            kind, device, _ = to.split("/")
            assert kind in ("reset", "setpoint")
            (post,) = self.devices[device].receive(envelope("mg_1", step, body))
            assert post.channel == f"state/{device}/"
            heard.append(envelope(device, step, post.body))
        return heard

    def close(self, step: int, posts: Sequence[Post], order: Sequence[int] = (0, 1, 2, 3)) -> Report:
        """Let the devices act and the env solve; their four messages arrive in an order."""
        messages = [*self.answers(posts), envelope("env", step, network(step))]
        out = [self.grid.receive(messages[k]) for k in order]
        assert out[:-1] == [[]] * 3
        ((to, at, _, report),) = out[-1]
        assert (to, at) == ("report/mg_1/", step)
        assert isinstance(report, Report)
        return report


def by_calls(actions: Sequence[Any], inboxes: Sequence[dict[str, Any]] = (), **options: Any) -> list[Report]:
    """The same episode by the agents' methods, without a message."""
    grid = GridAgent(spec(rounds=len(inboxes), **options))
    devices = [DeviceAgent(device) for device in grid.spec.devices]
    grid.reset(7)
    reports = [grid.observe([device.reset() for device in devices], network(1))]
    for step, action in enumerate(actions, 2):
        outbox = grid.begin(step, action)
        for inbox in inboxes:
            assert set(outbox) == set(NEIGHBOURS)
            outbox = grid.exchange([Peer(inbox[who]) for who in NEIGHBOURS])
        assert outbox == {}
        states = [device.apply(setpoint) for device, setpoint in zip(devices, grid.decide(), strict=True)]
        reports.append(grid.assess(states, network(step)))
    return reports


def as_bytes(reports: Sequence[Report]) -> list[bytes]:
    return [encode(envelope("mg_1", 0, report)) for report in reports]


# ---- calls and messages ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["rule_based", "random", "idle"])
@pytest.mark.parametrize("reward", ["economic", "reference"])
def test_an_episode_by_messages_is_that_by_calls_to_the_bit(policy: str, reward: str) -> None:
    actions = [ACTION, None, (-1.0, -1.0, 1.0), None]
    told = Microgrid(policy=policy, reward=reward)
    reports = [told.reset()]
    reports += [told.close(step, told.open(step, action)) for step, action in enumerate(actions, 2)]
    assert as_bytes(reports) == as_bytes(by_calls(actions, policy=policy, reward=reward))
    assert not told.grid.refused


def test_rounds_with_neighbours_by_messages_are_those_by_calls_to_the_bit() -> None:
    inboxes = [{"mg_2": (0.3,), "mg_3": (-0.7,)}, {"mg_2": (0.1,), "mg_3": (0.2,)}]
    told = Microgrid(rounds=2)
    reports = [told.reset()]
    posts = told.open(2)
    for round, inbox in enumerate(inboxes, 1):
        said = [(to, at, r) for to, at, r, _ in posts]
        assert said == [("peer/mg_2/mg_1/", 2, round), ("peer/mg_3/mg_1/", 2, round)]
        assert told.grid.receive(envelope("mg_2", 2, Peer(inbox["mg_2"]), round)) == []
        posts = told.grid.receive(envelope("mg_3", 2, Peer(inbox["mg_3"]), round))
    reports.append(told.close(2, posts))
    assert as_bytes(reports) == as_bytes(by_calls([ACTION], inboxes))


def test_devices_and_env_may_answer_in_any_order() -> None:
    seen = set()
    for order in permutations(range(4)):
        told = Microgrid()
        told.reset()
        seen.add(encode(envelope("mg_1", 0, told.close(2, told.open(2), order))))
    assert seen == {as_bytes(by_calls([ACTION]))[1]}


def test_the_action_and_the_neighbours_may_come_in_any_order() -> None:
    inboxes = [{"mg_2": (0.3,), "mg_3": (-0.7,)}, {"mg_2": (0.1,), "mg_3": (0.2,)}]
    messages = [envelope(who, 2, Peer(inboxes[r - 1][who]), r) for r in (1, 2) for who in NEIGHBOURS]
    messages.append(envelope("env", 2, Action(ACTION)))
    seen = set()
    for order in permutations(messages):
        told = Microgrid(rounds=2)
        told.reset()
        posts = [post for message in order for post in told.grid.receive(message)]
        peers = [post for post in posts if isinstance(post.body, Peer)]
        setpoints = [post for post in posts if isinstance(post.body, Setpoint)]
        assert len(peers) + len(setpoints) == len(posts) == 2 * 2 + 3
        assert not told.grid.refused
        seen.add(encode(envelope("mg_1", 0, told.close(2, setpoints))))
    assert seen == {as_bytes(by_calls([ACTION], inboxes))[1]}


def test_neighbours_that_are_a_step_ahead_are_waited_for_with_the_right_values() -> None:
    told = Microgrid(rounds=1)
    told.reset()
    for who, value in (("mg_2", 0.3), ("mg_3", 0.6)):
        assert told.grid.receive(envelope(who, 2, Peer((value,)), 1)) == []
    posts = told.open(2)  # p_pcc_mw was 0.2 after the reset
    assert {to for to, *_ in posts} >= {"setpoint/mg_1.dg_1/"}
    # 0.2 + (0.3 - 0.2) / 3 + (0.6 - 0.2) / 3 = 0.366...
    report = told.close(2, [post for post in posts if isinstance(post.body, Setpoint)])
    names = told.grid.spec.observation_names(BUSES, LINES, TRAFOS)
    assert report.observation[names.index("consensus")] == pytest.approx(0.2 + 0.5 / 3.0, rel=1e-6)


def test_a_neighbour_that_is_a_step_ahead_of_a_step_with_rounds_changes_nothing_yet() -> None:
    told, undisturbed = Microgrid(rounds=1), Microgrid(rounds=1)
    reports = []
    for one in (told, undisturbed):
        one.reset()
        posts = one.open(2)
        for who in NEIGHBOURS:
            posts = one.grid.receive(envelope(who, 2, Peer((0.3,)), 1)) or posts
        if one is told:
            assert one.grid.receive(envelope("mg_2", 3, Peer((0.9,)), 1)) == []
        reports.append(one.close(2, posts))
    assert as_bytes(reports[:1]) == as_bytes(reports[1:])


# ---- what is refused ------------------------------------------------------------------------------------------------


def noise() -> Iterator[tuple[str, Envelope]]:
    """Messages that must not count while step 3 waits for its states, and the cause they are refused for."""
    wrong = DeviceState(9.0, 9.0, 9.0, 9.0, (0.1,))
    yield "stale", envelope("mg_1.dg_1", 2, wrong)
    yield "duplicate", envelope("mg_1.dg_1", 3, wrong)
    yield "stranger", envelope("mg_2.dg_1", 3, wrong)
    yield "stranger", envelope("mg_1.dg_2", 3, wrong)
    yield "stale", envelope("env", 3, Action((1.0, 1.0, 1.0)))
    yield "stale", envelope("env", 2, Action((1.0, 1.0, 1.0)))
    yield "stale", envelope("env", 1, Reset(99))
    yield "stale", envelope("env", 2, network(9))
    yield "stale", envelope("env", 4, network(9))
    yield "stale", envelope("mg_2", 2, Peer((9.0,)), 1)
    yield "duplicate", envelope("mg_2", 3, Peer((9.0,)), 1)
    yield "stranger", envelope("mg_4", 3, Peer((9.0,)), 1)
    yield "unexpected", envelope("mg_2", 3, Setpoint((9.0,), ()))


def play_step_3(noise: Sequence[Envelope]) -> tuple[Microgrid, list[list[Post]], Report]:
    told = Microgrid(rounds=1)
    told.reset()
    for step in (2, 3):
        posts = told.open(step)
        for who in NEIGHBOURS:
            posts = told.grid.receive(envelope(who, step, Peer((0.1 * step,)), 1)) or posts
        if step == 2:
            told.close(2, posts)
    messages = [*told.answers(posts), envelope("env", 3, network(3))]
    assert told.grid.receive(messages[0]) == []  # the state of mg_1.dg_1
    answers = [told.grid.receive(one) for one in noise]
    ((_, _, _, report),) = [post for message in messages[1:] for post in told.grid.receive(message)]
    assert isinstance(report, Report)
    return told, answers, report


@pytest.mark.parametrize(
    ("cause", "message"), list(noise()), ids=lambda x: x if isinstance(x, str) else type(x.body).__name__
)
def test_what_is_late_repeated_or_strange_is_counted_and_changes_nothing(cause: str, message: Envelope) -> None:
    told, answers, report = play_step_3([message])
    assert answers == [[]]
    assert told.grid.refused == {f"{cause} {message.sender}": 1}
    assert as_bytes([report]) == as_bytes([play_step_3([])[2]])


def test_all_of_it_at_once_changes_nothing_either() -> None:
    told, answers, report = play_step_3([message for _, message in noise()])
    assert answers == [[]] * 13
    assert told.grid.refused == Counter(f"{cause} {message.sender}" for cause, message in noise())
    assert as_bytes([report]) == as_bytes([play_step_3([])[2]])


def test_a_message_after_the_report_leads_to_no_second_report() -> None:
    told = Microgrid()
    told.reset()
    told.close(2, told.open(2))
    assert told.grid.receive(envelope("env", 2, network(2))) == []
    assert told.grid.receive(envelope("mg_1.dg_1", 2, DeviceState(0.0, 0.0, 0.0, 0.0, ()))) == []
    assert told.grid.refused == {"stale env": 1, "duplicate mg_1.dg_1": 1}


def test_it_hears_the_env_its_devices_and_its_neighbours() -> None:
    assert GridAgent(spec(rounds=1)).hears == {
        "action/mg_1/": {"env"},
        "reset/mg_1/": {"env"},
        "network/mg_1/": {"env"},
        "state/mg_1.dg_1/": {"mg_1.dg_1"},
        "state/mg_1.pv_1/": {"mg_1.pv_1"},
        "state/mg_1.ess_1/": {"mg_1.ess_1"},
        "peer/mg_1/mg_2/": {"mg_2"},
        "peer/mg_1/mg_3/": {"mg_3"},
    }
    assert not any(name.startswith("peer/") for name in GridAgent(spec()).hears)


# ---- actions and policies -------------------------------------------------------------------------------------------


def test_an_action_becomes_setpoints_with_the_series_of_each_device() -> None:
    told = Microgrid()
    told.reset()
    posts = told.open(2, (0.0, 1.0, -0.5))
    # 0 on [0, 0.66]; 1 on [0, 0.4] with a sun of 0.1; -0.5 on [-0.5, 0.5]
    assert [(post.channel, post.body) for post in posts] == [
        ("setpoint/mg_1.dg_1/", Setpoint((0.33, 0.0, 1.0), ())),
        ("setpoint/mg_1.pv_1/", Setpoint((0.4, 0.0), (0.1,))),
        ("setpoint/mg_1.ess_1/", Setpoint((-0.25, 0.0), ())),
    ]


def test_without_an_action_the_policy_decides() -> None:
    told = Microgrid(policy="rule_based")
    told.reset()
    posts = told.open(2, None)
    values = [post.body.values[0] for post in posts if isinstance(post.body, Setpoint)]
    # The price of the coming step is 70: below the generator's 72.4, so 0. The sun gives 0.1 x 0.4. 70 is the day's
    # upper quartile, and 40 / 0.72 + 2 x 5 = 65.6 is less: the battery discharges.
    assert values == pytest.approx([0.0, 0.04, 0.5], abs=1e-15)


def policy_actions(name: str, seed: int) -> list[tuple[float, ...]]:
    grid = GridAgent(spec(name, policy="random"))
    taken = []
    for _ in range(2):  # the second episode begins with the same seed
        grid.reset(seed)
        grid.observe([DeviceAgent(device).reset() for device in grid.spec.devices], network(1))
        grid.begin(2, None)
        taken.append(tuple(setpoint.values[0] for setpoint in grid.decide()))
    return taken


def test_a_random_policy_is_seeded_by_the_episode_and_the_grid() -> None:
    first = policy_actions("mg_1", 7)
    assert first[0] == first[1] == policy_actions("mg_1", 7)[0]
    assert len({first[0], policy_actions("mg_2", 7)[0], policy_actions("mg_1", 8)[0]}) == 3


def test_a_reset_makes_it_forget_the_last_episode() -> None:
    told = Microgrid(policy="random")
    told.reset(1)
    first = told.close(2, told.open(2, None))
    told.reset(3)
    fresh = Microgrid(policy="random")
    fresh.reset(3)
    ours, theirs = told.close(4, told.open(4, None)), fresh.close(4, fresh.open(4, None))
    assert as_bytes([ours]) == as_bytes([theirs])
    assert ours.observation.shape == first.observation.shape


# ---- observations ---------------------------------------------------------------------------------------------------


def observed(state: NetworkState, states: Sequence[DeviceState] | None = None) -> dict[str, float]:
    grid = GridAgent(spec())
    names = grid.spec.observation_names(BUSES, LINES, TRAFOS)
    states = [DeviceAgent(device).reset() for device in grid.spec.devices] if states is None else states
    observation = grid.observe(states, state).observation
    assert observation.shape == (len(names),)
    assert observation.dtype == np.float32
    assert np.isfinite(observation).all()
    assert np.abs(observation).max() <= 100.0
    return dict(zip(names, observation.tolist(), strict=True))


def test_every_entry_of_an_observation_is_what_its_name_says() -> None:
    states = [
        DeviceState(0.5, 0.25, 7.0, 0.0, (0.5, 2.0, 0.75)),
        DeviceState(0.125, -0.25, 0.0, 0.0, (0.375,)),
        DeviceState(-0.5, 0.0, 1.0, 0.0, (0.625,)),
    ]
    state = NetworkState(
        True, (3, 1, 1), np.array([1.0, 0.96875, 1.03125, 50.0, 112.5]), -0.75, 0.0625, 0.0, 0.0, (1.0,) * 3,
        (62.5, 25.0, 75.0, 0.5, 0.875), (0.5, -0.5),
    )  # fmt: skip
    assert observed(state, states) == {
        "mg_1.dg_1.p_mw": 0.5, "mg_1.dg_1.q_mvar": 0.25,
        "mg_1.dg_1.state.p_mw": 0.5, "mg_1.dg_1.state.status": 2.0, "mg_1.dg_1.state.remaining_h": 0.75,
        "mg_1.pv_1.p_mw": 0.125, "mg_1.pv_1.q_mvar": -0.25, "mg_1.pv_1.state.available_mw": 0.375,
        "mg_1.ess_1.p_mw": -0.5, "mg_1.ess_1.q_mvar": 0.0, "mg_1.ess_1.state.soc": 0.625,
        "vm_pu[650]": 1.0, "vm_pu[632]": 0.96875, "vm_pu[675]": 1.03125,
        "loading_pu[Line 1]": 0.5, "loading_pu[Substation]": 1.125,
        "p_pcc_mw": -0.75, "q_pcc_mvar": 0.0625,
        "price_per_100": 0.625, "price_low_per_100": 0.25, "price_high_per_100": 0.75, "load_pu": 0.5,
        "mg_1.pv_1.series.availability": 0.875,
        "hour_sin": 0.5, "hour_cos": -0.5,
    }  # fmt: skip


def test_what_is_dead_is_observed_as_zero() -> None:
    dead = network(2)._replace(converged=False, measured=np.array([NAN, NAN, NAN, NAN, 90.0]))
    seen = observed(dead)
    assert [seen[f"vm_pu[{bus}]"] for bus in BUSES] == [0.0, 0.0, 0.0]
    assert seen["loading_pu[Line 1]"] == 0.0
    assert seen["loading_pu[Substation]"] > 0.0


@pytest.mark.parametrize(("p_mw", "seen"), [(1e6, 100.0), (-1e6, -100.0), (99.5, 99.5)])
def test_an_observation_is_clipped_to_a_hundred(p_mw: float, seen: float) -> None:
    assert observed(network(2)._replace(p_pcc_mw=p_mw))["p_pcc_mw"] == seen


def test_names_grow_with_what_neighbours_and_the_rest_of_the_network_tell() -> None:
    grid = GridAgent(spec(rounds=1))
    names = grid.spec.observation_names(BUSES, LINES, TRAFOS, ("feeder.800", "feeder.802"))
    states = [DeviceAgent(device).reset() for device in grid.spec.devices]
    state = network(1)
    state = state._replace(measured=np.concatenate((state.measured, [1.05, NAN])))
    seen = grid.observe(states, state).observation
    observation = dict(zip(names, seen.tolist(), strict=True))
    assert observation["consensus"] == 0.0
    assert observation["vm_pu[feeder.800]"] == pytest.approx(1.05, rel=1e-6)
    assert observation["vm_pu[feeder.802]"] == 0.0


def test_an_observation_cannot_be_written_to() -> None:
    grid = GridAgent(spec())
    report = grid.observe([DeviceAgent(device).reset() for device in grid.spec.devices], network(1))
    with pytest.raises(ValueError, match="read-only"):
        report.observation[0] = 1.0


# ---- reports --------------------------------------------------------------------------------------------------------


def test_a_report_has_the_terms_of_the_reward_and_what_was_measured() -> None:
    report = by_calls([ACTION])[1]
    terms = dict(zip(spec().term_names, report.terms, strict=True))
    # network(2): voltages 1.0, 0.94 and a dead bus; import 0.3 - 0.2 MW
    measured = [terms[name] for name in ("p_pcc_mw", "q_pcc_mvar", "vm_min_pu", "vm_max_pu", "converged")]
    assert measured == pytest.approx([0.1, 0.05, 0.94, 1.0, 1.0], rel=1e-12)
    assert terms["voltage"] == pytest.approx(0.01 + 0.95, rel=1e-12)
    assert terms["overload"] == 0.0  # 42 % and 100 %
    # The price of step 2 is the one told after step 1: 70 $/MWh x 0.1 MW x 0.25 h
    assert terms["energy_cost"] == pytest.approx(1.75, rel=1e-12)


def test_the_first_report_of_an_episode_has_no_reward() -> None:
    report = by_calls([])[0]
    assert report.reward == 0.0
    assert set(report.terms[:-5]) == {0.0}
    assert report.terms[-1] == 1.0


def test_a_dead_area_measures_zero_voltage() -> None:
    grid = GridAgent(spec())
    states = [DeviceAgent(device).reset() for device in grid.spec.devices]
    report = grid.observe(states, network(1)._replace(converged=False, measured=np.full(5, NAN)))
    assert report.terms[-3:] == (0.0, 0.0, 0.0)


# ---- what an agent is made of ---------------------------------------------------------------------------------------

FORBIDDEN = {"pandapower", "pandas", "zmq", "socket", "threading", "_thread", "_io", "asyncio", "subprocess"}


def parts_of(thing: Any, seen: set[int]) -> Iterator[Any]:
    """Everything that can be reached from an object through attributes and containers."""
    if id(thing) in seen or isinstance(thing, str | bytes | int | float | type):
        return
    seen.add(id(thing))
    yield thing
    inside: list[Any] = [*getattr(thing, "__dict__", {}).values()]
    inside += [getattr(thing, name, None) for one in type(thing).__mro__ for name in getattr(one, "__slots__", ())]
    if isinstance(thing, dict):
        inside += [*thing.keys(), *thing.values()]
    elif isinstance(thing, list | tuple | set | frozenset):
        inside += thing
    for one in inside:
        yield from parts_of(one, seen)


def test_agents_hold_no_network_no_broker_and_nothing_of_the_system() -> None:
    told = Microgrid(rounds=1)
    told.reset()
    for agent in (told.grid, *told.devices.values()):
        modules = {type(part).__module__ for part in parts_of(agent, set())}
        assert "zgrid.devices.storage" in modules or agent.id != "mg_1.ess_1"  # the walk gets to the bottom
        assert not {name.split(".")[0] for name in modules} & FORBIDDEN
        assert not any(name.startswith(("zgrid.networks", "zgrid.messaging", "zgrid.powerflow")) for name in modules)


def test_importing_agents_loads_neither_pandapower_nor_pandas_nor_pettingzoo() -> None:
    code = (
        "import sys, zgrid.agents; from zgrid.devices import DEVICES, device_class;"
        "assert all(device_class(kind) for kind in DEVICES);"
        "found = {'pandapower', 'pandas', 'pettingzoo', 'gymnasium', 'zmq', 'scipy'} & set(sys.modules);"
        "sys.exit(', '.join(sorted(found)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_reset_forgets_a_round_that_was_not_finished() -> None:
    grid = GridAgent(spec(rounds=2))
    states = [DeviceAgent(device).reset() for device in grid.spec.devices]
    grid.receive(envelope("env", 1, Reset(0)))
    for device, state in zip(grid.spec.devices, states, strict=True):
        grid.receive(envelope(device.id, 1, state))
    grid.receive(envelope("env", 1, network(1)))
    first, *others = NEIGHBOURS
    grid.receive(envelope("env", 2, Action((0.0,) * 3)))
    grid.receive(envelope(first, 2, Peer((0.5,)), 1))
    grid.receive(envelope("env", 3, Reset(0)))
    for other in others:
        assert list(grid.receive(envelope(other, 2, Peer((0.5,)), 1))) == []
