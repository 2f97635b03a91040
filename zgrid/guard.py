"""Guard: notices that a node, an agent or the proxy has failed, and does what the topology declares."""

from __future__ import annotations

import logging
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from zgrid.chronicle import Agent, Chronicle, recall
from zgrid.errors import AgentError, BrokerError, NodeSilentError, StartTimeout
from zgrid.failure import Restarts
from zgrid.host import Host
from zgrid.messages import ENV, Beat, Item, Resend, Resume, RollCall, channel
from zgrid.messaging import PROXY, Pulse
from zgrid.node import make_agent
from zgrid.port import EnvPort
from zgrid.session import Session
from zgrid.topology import Topology
from zgrid.topology.traffic import CONTROL

logger = logging.getLogger(__name__)

EVERYBODY = "*"
"""Whom an event concerns that is not of one grid."""

_CALL_S = 0.1
_USUAL_S, _HELD_S = 0.6, 1.0
_PROVE_S = 0.5
_REJOIN_S = 5.0
_PART = 20

Silent: TypeAlias = Callable[[str, int], None]
"""Told of a node that does not answer, and of its incarnation."""


class Guard:
    """Keeps a run going, or ends it with an error that names what failed. One for each run, in the env node."""

    def __init__(
        self, topology: Topology, host: Host, port: EnvPort, session: Session | None, on_silent: Silent | None = None
    ) -> None:
        """``session`` has the processes that this one started; where somebody else did, ``on_silent`` tells them what
        node does not answer and has to be begun anew.
        """
        self._on_silent = on_silent
        self._topology, self._host, self._port, self._session = topology, host, port, session
        self._policies = topology.on_failure()
        self._home = {agent: node for node, plan in port.plans.items() for agent in plan.agents}
        self._chronicle = Chronicle(topology)
        self._chronicle.attach(host)
        self._restarts = Restarts()
        self._incarnation: Counter[str] = Counter()
        self._away: set[str] = set()
        self._known: dict[str, int] = {}
        """The incarnation of each node that was welcomed last."""
        self._ended: set[str] = set()
        self._failed: deque[AgentError] = deque()
        self._called_at = 0.0
        self._lost = 0
        self._pulse: Pulse | None = None
        self.stand_ins: dict[str, Agent] = {}
        """Who acts here for agents that have failed."""
        self.events: list[tuple[str, str]] = []
        """What happened since it was last asked: the agent (or everybody), and what."""

    @property
    def undisturbed(self) -> bool:
        """Whether nobody has failed so far: no successor speaks, and nobody is away."""
        return not (self._incarnation or self._away)

    def start(self) -> None:
        """Beat, and listen for the beats of others."""
        self._known = dict(self._port.ready)
        proxy = (PROXY,) if self._topology.broker.keys is not None else ()
        names = [_beat(node) for node in (*self._port.nodes, ENV, *proxy)]
        self._pulse = self._host.broker.start_pulse(_beat(ENV), self._host.beat, names)

    def prove(self, patience_s: float) -> None:
        """Wait until this node hears itself through the proxy, and see meanwhile that all live.

        Raises:
            BrokerError: not in time.
        """
        deadline = time.monotonic() + patience_s
        while True:
            try:
                self._host.broker.prove(min(_PROVE_S, patience_s))
                return
            except BrokerError:
                self._supervise()
                if time.monotonic() > deadline:
                    raise

    def call(self, step: int) -> None:
        """Ask all nodes who is there."""
        self._host.send(ENV, CONTROL, step, 0, RollCall(self._topology.hash(), self._port.epoch))

    @property
    def refused_by_the_proxy(self) -> dict[str, int]:
        """What a proxy with keys has not passed on, by cause and node, as it said last."""
        envelope = self._pulse.beats.get(_beat(PROXY)) if self._pulse is not None else None
        if envelope is None or not isinstance(envelope.body, Beat):
            return {}
        return {cause: count for cause, count, _ in envelope.body.refused}

    # ---- noticing --------------------------------------------------------------------------------------------------

    def look(self, step: int) -> None:
        """See whether all are well, while ``step`` waits for somebody.

        Raises:
            NodeDiedError: a process ended that must not. NodeSilentError: a node is stopped or cut off.
            BrokerError: the proxy is gone. StartTimeout: a node did not come back in time.
        """
        self._supervise()
        self._look_at_proxy(step)
        for node in self._port.nodes:
            cause = self._cause(node)
            if node not in self._away and cause:
                self._lose(node, cause, step)
        self._handle_failures(step)

    def _cause(self, node: str) -> str:
        """Why a node is taken for failed; empty where it is not."""
        if node in self._ended and self._session is not None:
            return self._session.causes[node]
        if self._pulse is None:
            return ""
        if self._is_silent(node):
            limit_s = self._topology.broker.silence_s
            return f"nothing was heard of it for {limit_s:g} s: it is stopped, hangs, or is cut off"
        beat, known = self._pulse.beats.get(_beat(node)), self._known[node]
        if self._port.incarnations[node] > known or (beat is not None and beat.incarnation > known):
            return "its process has begun anew"
        return ""

    def _is_silent(self, node: str) -> bool:
        """Whether nothing was heard for too long. While the proxy holds back all messages, which one with keys may do
        for a moment, nobody is silent.
        """
        if self._pulse is None:
            return False
        broker, own_s = self._topology.broker, self._pulse.silence_s(_beat(ENV))
        if node == ENV:
            return own_s > broker.silence_s + (_HELD_S if broker.keys is not None else 0.0)
        return self._pulse.silence_s(_beat(node)) - max(0.0, own_s - _USUAL_S) > broker.silence_s

    def agent_failed(self, error: AgentError, step: int) -> None:
        """An agent raised.

        Raises:
            AgentError: it, where nothing else is declared or left to do.
        """
        self._failed.append(error)
        self._handle_failures(step)

    def _handle_failures(self, step: int) -> None:
        """Get over the agents that raised, also while another was waited for."""
        while self._failed:
            self._handle(self._failed.popleft(), step)

    def _handle(self, error: AgentError, step: int) -> None:
        agent = error.agent
        policy = self._policies.get(agent)
        if policy is None or policy.kind == "fail" or agent in self.stand_ins:
            raise error
        if policy.kind == "fallback":
            self._stand_in(agent, error.cause, step)
            return
        delay_s = self._restarts.allow(agent, policy, time.monotonic())
        if delay_s is None:
            raise error
        self._wait(delay_s)
        if agent in self._home:
            self._resume(agent, step)
        else:
            self._rebuild(agent, step, fall_back=False)
        self._tell(agent, f"restarted: {error.cause}")

    # ---- surviving -------------------------------------------------------------------------------------------------

    def _lose(self, node: str, cause: str, step: int) -> None:
        """A node is lost: stand in for its agents, or wait until it is back."""
        agents = self._port.plans[node].agents
        if any(self._policies[agent].kind == "fail" for agent in agents):
            raise NodeSilentError(node, agents, cause, self._last_lines(node))
        self._away.add(node)
        self._port.ready.pop(node, None)
        for agent in self._of(agents, "fallback"):
            self._stand_in(agent, cause, step)
        restarted = self._of(agents, "restart")
        if restarted:
            self._end(node)
            self._await(node, step, cause)
        for agent in restarted:
            self._resume(agent, step)
            self._tell(agent, f"restarted: {cause}")

    def _end(self, node: str) -> None:
        """End the process of a node that hangs, or cannot be reached any more, so that it can be begun anew."""
        if self._session is not None:
            if node not in self._ended:
                self._session.kill(node)
            return
        if self._on_silent is not None:
            self._on_silent(node, self._known[node])

    def _of(self, agents: Sequence[str], kind: str) -> list[str]:
        return [agent for agent in agents if self._policies[agent].kind == kind]

    def _await(self, node: str, step: int, cause: str) -> None:
        """Wait until a node that is begun anew, here or elsewhere, has answered."""
        begin = time.monotonic()
        while node not in self._port.ready:
            self.call(step)
            self._wait(_CALL_S)
            waited_s = time.monotonic() - begin
            if waited_s > self._topology.broker.ready_timeout_s:
                raise StartTimeout({node: f"{cause}; it did not come back"}, waited_s)
        self._welcome(node)

    def _welcome(self, node: str) -> None:
        self._known[node] = self._port.ready[node]
        self._ended.discard(node)
        if not any(self._home[agent] == node for agent in self.stand_ins):
            self._away.discard(node)
        if self._pulse is not None:
            self._pulse.expect(_beat(node))

    def _stand_in(self, agent: str, cause: str, step: int) -> None:
        self._rebuild(agent, step, fall_back=True)
        what = (
            "hold their setpoints, then go to the safe ones" if agent in self._topology.grids else "its safe setpoint"
        )
        whose = "its devices " if agent in self._topology.grids else ""
        self._tell(agent, f"fallback ({whose}{what}): {cause}")

    def _rebuild(self, agent_id: str, step: int, *, fall_back: bool) -> None:
        """Act for an agent from here, as its next incarnation."""
        agent = make_agent(self._topology, agent_id)
        if fall_back:
            self._chronicle.fall(agent_id, step)
        for before in [one for one in self._host.receivers if one.id == agent_id]:
            self._host.remove(before)
        try:
            posts = recall(agent, self._chronicle.memory(agent_id), step)
        except Exception as error:  # users' code, as wherever an agent acts
            cause = f"{type(error).__name__}: {error}"
            raise AgentError(agent_id, step, cause, traceback.format_exc()) from error
        self._succeed(agent_id)
        self._host.succeed(agent_id, self._incarnation[agent_id])
        self._host.add(agent)
        if fall_back:
            self.stand_ins[agent_id] = agent
        for to, at, round, body in posts:
            self._host.send(agent_id, to, at, round, body)

    def _succeed(self, agent: str) -> None:
        self._incarnation[agent] += 1
        self._host.broker.admits(agent, self._incarnation[agent])

    def _resume(self, agent: str, step: int) -> None:
        """Have the node of an agent build it anew, from what it has heard."""
        self._succeed(agent)
        memory = self._chronicle.memory(agent)
        parts = list(_parts(memory.history))
        to = channel("resume", self._home[agent])
        for part in parts:
            head = (agent, self._incarnation[agent], memory.at, memory.state, memory.fallen)
            self._host.send(ENV, to, step, 0, Resume(*head, part, part is parts[-1]))

    def boundary(self, step: int) -> None:
        """A step is about to begin: take back those who have returned."""
        if not self._away:
            return
        for node in [node for node in self._port.ready if node in self._away and not self._is_silent(node)]:
            self._take_back(node, step)
        if time.monotonic() - self._called_at > _CALL_S:
            self._called_at = time.monotonic()
            self.call(step)

    def _take_back(self, node: str, step: int) -> None:
        """The agents of a node that is back act again, instead of those here. Where one does not answer, the one here
        goes on, as an incarnation above it, and the node has to answer anew.
        """
        agents = [agent for agent in self.stand_ins if self._home[agent] == node]
        for agent in agents:
            self._chronicle.rise(agent, step)
            self._resume(agent, step)
        wanted = {(agent, self._incarnation[agent]) for agent in agents}
        deadline = time.monotonic() + _REJOIN_S
        while not wanted <= self._port.resumed and time.monotonic() < deadline and not self._is_silent(node):
            self._wait(_CALL_S / 10)
        for agent in (agent for agent, incarnation in wanted if (agent, incarnation) in self._port.resumed):
            self._host.remove(self.stand_ins.pop(agent))
            self._tell(agent, "rejoined")
        unanswered = [agent for agent in agents if agent in self.stand_ins]
        for agent in unanswered:
            self._chronicle.fall(agent, step)
            self._succeed(agent)
            self._host.succeed(agent, self._incarnation[agent])
        if unanswered:
            self._port.ready.pop(node, None)
        else:
            self._welcome(node)

    # ---- the proxy -------------------------------------------------------------------------------------------------

    def _look_at_proxy(self, step: int) -> None:
        pulse = self._pulse
        if pulse is None:
            return
        if pulse.lost == self._lost and PROXY not in self._ended and not self._is_silent(ENV):
            return
        if self._topology.broker.on_failure.kind != "restart":
            self._lost = pulse.lost
            raise BrokerError(
                f"the proxy at {self._host.broker.address} is gone or stopped, and step {step} may have lost messages; "
                f"reset begins anew once it is back; broker.on_failure: restart would have gone on"
            )
        self._reconnect(step)

    def _reconnect(self, step: int) -> None:
        """Wait until the proxy is back and all nodes hear through it; then everybody says the open step again."""
        host, port, pulse = self._host, self._port, self._pulse
        assert pulse is not None
        begin = time.monotonic()
        logger.warning("the proxy at %s is gone; waiting until it is back", host.broker.address)
        port.begin_epoch()
        self.prove(self._topology.broker.ready_timeout_s)
        self._lost = pulse.lost
        self._ended.discard(PROXY)
        host.broker.forget()
        while missing := [node for node in port.waiting if node not in self._away]:
            self.call(step)
            self._wait(_CALL_S)
            waited_s = time.monotonic() - begin
            if waited_s > self._topology.broker.ready_timeout_s:
                raise StartTimeout(dict.fromkeys(missing, "not heard since the proxy is back"), waited_s)
        for node in (*port.nodes, ENV):
            pulse.expect(_beat(node))
        host.say_again()
        host.send(ENV, CONTROL, step, 0, Resend())
        self._tell(EVERYBODY, "the proxy was gone and is back; the step was said again")

    # ---- helpers ---------------------------------------------------------------------------------------------------

    def _wait(self, seconds: float) -> None:
        """Take messages for a while."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0.0:
            try:
                self._host.pump(left)
            except AgentError as error:
                self._failed.append(error)  # one after the other
        self._supervise()

    def _supervise(self) -> None:
        if self._session is not None:
            self._ended.update(self._session.supervise())

    def _last_lines(self, node: str) -> str:
        process = self._session.processes.get(node) if self._session is not None else None
        return process.tail() if process is not None else ""

    def _tell(self, agent: str, what: str) -> None:
        logger.warning("%s: %s", "broker" if agent == EVERYBODY else agent, what)
        self.events.append((agent, what))


def _beat(node: str) -> str:
    return channel("beat", node)


def _parts(history: tuple[Item, ...]) -> Iterator[tuple[Item, ...]]:
    """A history in pieces that fit into a message; at least one."""
    for at in range(0, max(len(history), 1), _PART):
        yield history[at : at + _PART]
