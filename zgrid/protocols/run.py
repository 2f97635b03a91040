"""The direct runner: all participants of a protocol in one process, without physics and without a broker."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np

from zgrid.protocols.base import AveragingConfig, Local, Participant, Protocol, ProtocolConfig, Result, Status
from zgrid.protocols.graph import Graph, edge_weights, peers, weight_misfits
from zgrid.protocols.rounds import Carry, Rounds


class Record(NamedTuple):
    """What everybody stood at after one round, in the order of the participants: residuals and observed values."""

    round: int
    residuals: tuple[float, ...]
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """What came of a step of a protocol: each participant's result and status, rounds, messages, and the way there.

    ``demand_mw`` is that of all participants together.
    """

    results: Mapping[str, Result]
    statuses: Mapping[str, Status]
    rounds: int
    messages: int
    history: tuple[Record, ...] = field(repr=False)
    demand_mw: float = 0.0

    @property
    def imbalance_mw(self) -> float | None:
        """What all units were dispatched to, less the demand, MW: agreement alone is no balance. None: no unit was."""
        powers = [p_mw for result in self.results.values() for p_mw in result.dispatch_mw.values()]
        return math.fsum(powers) - self.demand_mw if powers else None


class Table:
    """All participants of a protocol around one table. ``play`` runs a step, and the next one from where they are."""

    def __init__(
        self,
        protocol: type[Protocol],
        config: ProtocolConfig | Mapping[str, Any],
        participants: Graph | Mapping[str, Participant],
        *,
        seed: int = 0,
        carries: Mapping[str, Carry] | None = None,
    ) -> None:
        """``participants``: a graph of peers, or participants as graph.peers and graph.star make them. ``carries``: the
        links into each participant, where they have faults.
        """
        checked, members = prepared(protocol, config, participants)
        self.walks = {
            name: seated(protocol, checked, me, seed, (carries or {}).get(name)) for name, me in members.items()
        }

    def play(self, locals: Mapping[str, Local], step: int = 1) -> Run:
        """Run one step to its end; each participant with its own problem."""
        walks = self.walks
        sent = {name: walk.start(step, locals[name]) for name, walk in walks.items()}
        history: list[Record] = []
        while any(sent.values()):
            going = {name: walk for name, walk in walks.items() if sent[name]}  # islands end when they will
            frames = {name: [sent[other][name] for other in walk.me.weights] for name, walk in going.items()}
            sent = {name: walk.take(frames[name]) if name in going else {} for name, walk in walks.items()}
            history.append(self._record(len(history) + 1))
        results = {name: walk.protocol.result() for name, walk in walks.items()}
        statuses = {name: walk.status for name, walk in walks.items()}
        messages = sum(walk.messages for walk in walks.values())
        demand_mw = math.fsum(locals[name].demand_mw for name in walks)
        return Run(results, statuses, len(history), messages, tuple(history), demand_mw)

    def _record(self, round: int) -> Record:
        protocols = [walk.protocol for walk in self.walks.values()]
        residuals = tuple(protocol.residual() for protocol in protocols)
        return Record(round, residuals, tuple(protocol.result().values for protocol in protocols))


def prepared(
    protocol: type[Protocol],
    config: ProtocolConfig | Mapping[str, Any],
    participants: Graph | Mapping[str, Participant],
) -> tuple[Any, dict[str, Participant]]:
    """A checked configuration, and everybody as a participant: who is given by neighbours is a peer among them.

    Raises:
        ValueError: weights that do not fit the graph.
    """
    if not isinstance(config, ProtocolConfig):
        config = protocol.Config.model_validate({"kind": protocol.__name__, **config})
    members = {name: one for name, one in participants.items() if isinstance(one, Participant)}
    graph = {name: tuple(one) for name, one in participants.items() if not isinstance(one, Participant)}
    members |= peers(graph)
    if isinstance(config, AveragingConfig) and config.weights is not None:
        misfits = weight_misfits({name: tuple(one.weights) for name, one in members.items()}, config.weights)
        if misfits:
            raise ValueError("; ".join(misfits))
    return config, members


def seated(
    protocol: type[Protocol], config: ProtocolConfig, me: Participant, seed: int, carry: Carry | None = None
) -> Rounds:
    """A participant's protocol object in its rounds, with a generator of its own."""
    if isinstance(config, AveragingConfig) and config.weights is not None:
        me = me._replace(weights=edge_weights({me.id: tuple(me.weights)}, me.id, config.weights))
    return Rounds(protocol(config, me, generator(seed, me.id)), carry)


def generator(seed: int, name: str) -> np.random.Generator:
    """A participant's own generator: placement and order cannot change it."""
    return np.random.default_rng((seed, crc32(name.encode())))
