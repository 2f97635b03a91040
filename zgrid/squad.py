"""Squad: the grids of one process and their devices, stepped as arrays with the bits that their agents would give.

It takes the lead when all is well and told in columns. As soon as anything else is said (a reset, a single message, a
failure) it gives the lead back to the agents, who then know all that was said. Whatever arrays cannot do, or do not as
floats do (a division by zero, an overflow), is left to the agents, so it is them who fail, by name.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from zgrid.agents import DeviceAgent, GridAgent
from zgrid.agents.reward import Reward
from zgrid.agents.seeing import measured, observation
from zgrid.agents.spec import GRID_SERIES, GridSpec
from zgrid.fleet import Line, selected
from zgrid.messages import ENV, Action, Columns, DeviceState, Envelope, Steps, Table
from zgrid.tables import (
    Array,
    Shape,
    items,
    network_columns,
    network_row,
    network_sizes,
    rows,
    shape_of,
    state_columns,
    table,
    width,
)

Agent: TypeAlias = GridAgent | DeviceAgent

_PATIENCE = 3
"""Failures of arrays, one after the other, until it leaves the lead to the agents for good."""


class _Group(NamedTuple):
    """Grids that are alike. ``devices`` has, for each device of a grid, its kind and the rows of all grids' there."""

    ids: tuple[str, ...]
    agents: str
    reward: Reward
    devices: tuple[tuple[int, Any], ...]
    n_controls: int
    n_terms: int


class Squad:
    """The agents of a process as arrays. ``act`` and ``assess`` are what they do; ``hear`` does it on messages."""

    def __init__(self, specs: Mapping[str, GridSpec], groups: Sequence[Sequence[str]], agents: Mapping[str, Agent]):
        """``groups`` are ids of grids that are alike; ``agents`` has them and their devices, as they are replaced."""
        self._agents = agents
        self._grids = [specs[grid] for group in groups for grid in group]
        devices = [device for spec in self._grids for device in spec.devices]
        self._line = Line(devices, self._grids[0].dt_h)
        self._devices = [[devices[place].id for place in places] for places in self._line.places]
        self._names = [" ".join(ids) for ids in self._devices]
        self._groups = self._group([[specs[grid] for grid in group] for group in groups])
        self._actions = tuple(("action", group.agents, (group.n_controls,)) for group in self._groups)
        self._sizes: list[Steps] = []
        self._failures = 0
        self._step, self._done = -1, -1
        """The step that was acted last, and that was assessed last; negative where the agents lead."""
        self._said: tuple[list[Table], list[Table]] = ([], [])
        """What was told and done in the step that was acted last."""
        self._known: tuple[list[Table], list[Table]] = ([], [])
        """What was done, and what came of it, in the step that was assessed last."""

    @property
    def action_shapes(self) -> tuple[Shape, ...]:
        """The tables of the actions that it takes."""
        return self._actions

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """The grids of each table, in their order."""
        return tuple(group.ids for group in self._groups)

    def hear(self, node: str, envelope: Envelope) -> list[Columns] | None:
        """Take what a node says to all; the answer to the env, or None where it is for the agents, one by one."""
        body, step = envelope.body, envelope.step
        if node != ENV or type(body) is not Columns or not body.tables:
            return None
        take = self.act if body.tables[0].kind == "action" else self.assess
        answer = take(step, body.tables)
        return None if answer is None else [Columns(answer)]

    def act(self, step: int, actions: Sequence[Table]) -> tuple[Table, ...] | None:
        """What all devices do; None where it is for the agents."""
        if tuple(map(shape_of, actions)) != self._actions or not self._takes_lead(step):
            return None
        try:
            with np.errstate(all="raise", under="ignore"):
                values = np.concatenate([one.values for one in actions])
                states = self._line.step(values, self._series, self._local)
        except Exception:  # noqa: BLE001 - whatever it is, the agents find it, and tell whose it is
            self._give_up()
            return None
        done = tuple(
            table("state", names, (values.shape[1] - 4,), values)
            for names, values in zip(self._names, states, strict=True)
        )
        if not all(np.isfinite(one.values).all() for one in done):
            self._give_up()
            return None
        self._step, self._said, self._states = step, (list(actions), list(done)), states
        return done

    def assess(self, step: int, networks: Sequence[Table]) -> tuple[Table, ...] | None:
        """What all grids report; None where it is for the agents."""
        told = [("network", group.agents, sizes) for group, sizes in zip(self._groups, self._sizes, strict=False)]
        if self._done < 0 or step != self._step or step == self._done or list(map(shape_of, networks)) != told:
            return None
        try:
            with np.errstate(all="raise", under="ignore"):
                values = [rows(one) for one in networks]
                seen = [network_columns(one, sizes) for one, sizes in zip(values, self._sizes, strict=True)]
                reports = tuple(map(self._report, self._groups, seen, self._prices))
        except Exception:  # noqa: BLE001 - as above
            self._give_up()
            return None
        if not all(np.isfinite(one.values).all() for one in reports):
            self._give_up()
            return None
        self._done, self._known, self._failures = step, (self._said[1], list(networks)), 0
        self._learn(values)
        return reports

    def release(self) -> None:
        """Give the lead back: the agents hear what was said since they had it."""
        if self._done < 0:
            return
        step, done = self._step, self._done
        self._step = self._done = -1
        if not self._known[0]:
            if step != done:
                self._hear_again(step, None)
            return
        if step == done:
            self._hear_again(step, self._known[1])
            return
        self._catch_up(done)
        self._hear_again(step, None)

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _group(self, groups: Sequence[Sequence[GridSpec]]) -> tuple[_Group, ...]:
        places = [
            (kind, row) for _, kind, row in sorted(
                (int(place), kind, row)
                for kind, where in enumerate(self._line.places) for row, place in enumerate(where)
            )
        ]  # fmt: skip
        found, begin = [], 0
        for specs in groups:
            size = len(specs[0].devices)
            own = places[begin : begin + size * len(specs)]
            begin += len(own)
            devices = tuple((own[k][0], selected(np.array([row for _, row in own[k::size]]))) for k in range(size))
            ids, n_terms = tuple(spec.id for spec in specs), len(specs[0].term_names)
            found.append(_Group(ids, " ".join(ids), specs[0].build_reward(), devices, len(specs[0].controls), n_terms))
        return tuple(found)

    def _takes_lead(self, step: int) -> bool:
        """Whether it leads, or may and does from now on."""
        if self._done >= 0:
            return step > self._step == self._done
        grids = [self._agents[spec.id] for spec in self._grids]
        devices = [[self._agents[device] for device in ids] for ids in self._devices]
        networks = [agent.last_network for agent in grids if isinstance(agent, GridAgent) and not agent.fallen]
        if any(
            agent.fallen or not isinstance(agent, DeviceAgent) or agent.latched
            for agent in itertools.chain.from_iterable(devices)
        ):
            return False
        if len(networks) < len(grids) or None in networks or self._failures == _PATIENCE:
            return False
        if any(agent.last_step >= step for agent in itertools.chain(grids, *devices)):
            return False  # said again: they know it, and do nothing twice
        states = [np.array([agent.state for agent in ids]).reshape(len(ids), -1) for ids in devices]  # type: ignore[union-attr]
        self._line.put(states)
        return self._begin(step, networks)

    def _begin(self, step: int, networks: Sequence[Any]) -> bool:
        """Know what the agents know of the network."""
        values, at = [], 0
        self._sizes = []
        for group in self._groups:
            mine = networks[at : at + len(group.ids)]
            at += len(mine)
            shapes = set(map(network_sizes, mine))
            if len(shapes) != 1:
                return False
            self._sizes.append(shapes.pop())
            values.append(np.array(list(map(network_row, mine))))
        self._learn(values)
        self._known = ([], [])
        self._step = self._done = step - 1
        return True

    def _learn(self, values: Sequence[Array]) -> None:
        """Keep what the networks, (n_grids, width) by group, say of the coming step."""
        prices, series, local = [], [], []
        for one, sizes in zip(values, self._sizes, strict=True):
            _, _, _, n_measured, n_local, n_series, _ = sizes
            begin = 5 + n_measured
            end = begin + n_local
            prices.append(one[:, end])
            local.append(one[:, begin:end].reshape(-1))
            series.append(one[:, end + len(GRID_SERIES) : end + n_series].reshape(-1))
        self._prices = prices
        self._series, self._local = np.concatenate(series), np.concatenate(local)

    def _report(self, group: _Group, network: Any, price: Array) -> Table:
        """The reports of a group, by the grids' own functions on arrays."""
        states = [state_columns(self._states[kind][where]) for kind, where in group.devices]
        reward, terms = group.reward.assess_rows(states, network, price)
        seen = observation(states, network, ())
        sizes = (group.n_terms, seen.shape[1])
        values = np.empty((len(group.ids), width("report", sizes)))
        values[:, : 1 + group.n_terms] = np.array((reward, *terms, *measured(network))).T
        values[:, 1 + group.n_terms :] = seen
        return table("report", group.agents, sizes, values)

    def _give_up(self) -> None:
        """Leave it to the agents, at last for good."""
        self.release()
        self._failures += 1

    def _catch_up(self, step: int) -> None:
        """Let the agents know what came of a step."""
        states, networks = self._singles(self._known[0], step), self._singles(self._known[1], step)
        for spec in self._grids:
            grid = self._agents[spec.id]
            assert isinstance(grid, GridAgent)
            for device in spec.devices:
                self._restore(device.id, step, states[device.id])
            grid.catch_up([states[device.id] for device in spec.devices], networks[spec.id])

    def _hear_again(self, step: int, networks: Sequence[Table] | None) -> None:
        """Let the agents hear what was said in a step, and not say anything of it again."""
        actions, states = (self._singles(tables, step) for tables in self._said)
        seen = {} if networks is None else self._singles(networks, step)
        for spec in self._grids:
            grid = self._agents[spec.id]
            assert isinstance(grid, GridAgent)
            grid.receive(_envelope(ENV, step, Action(actions[spec.id].values)))
            for device in spec.devices:
                self._restore(device.id, step, states[device.id])
                grid.receive(_envelope(device.id, step, states[device.id]))
            if spec.id in seen:
                grid.receive(_envelope(ENV, step, seen[spec.id]))

    def _restore(self, device: str, step: int, state: DeviceState) -> None:
        agent = self._agents[device]
        assert isinstance(agent, DeviceAgent)
        agent.restore(step, state.state)

    def _singles(self, tables: Sequence[Table], step: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for one in tables:
            found |= zip(one.agents.split(" "), (item.body for item in items(Columns((one,)), step)), strict=True)
        return found


def _envelope(sender: str, step: int, body: Any) -> Envelope:
    return Envelope(sender, "", 0, 0, step, 0, 0, body)
