"""Coordination: what a grid lets its protocols know of it, and what their results change."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from zgrid.agents.spec import GridSpec
from zgrid.messages import DeviceState, Floats, NetworkState
from zgrid.policies import Actor
from zgrid.protocols import DispatchConfig, Local, Result, Trade, TradingConfig, Unit

VALUES = ("p_pcc_mw", "vm_mean_pu", "price", "feed_in_price", "load_mw", "position_mw")
"""What a grid can tell its protocols of itself, the entries of ``Local.values``: import at the PCC and mean voltage of
the last step, what an import costs and a feed-in earns in the coming one, its load, and what the action leaves over."""

P, Q = "p_mw", "q_mvar"


class Coordination:
    """The join of one grid's devices and its horizontal protocol; it keeps what it needs of the last step."""

    def __init__(self, spec: GridSpec, actors: Sequence[Actor]) -> None:
        self._spec = spec
        self._actors = tuple(actors)
        self._names = tuple(device.id for device in spec.devices)
        self._p_at = tuple(actor.device.SETPOINT.index(P) if P in actor.device.SETPOINT else -1 for actor in actors)
        self._q_at = tuple(actor.device.SETPOINT.index(Q) if Q in actor.device.SETPOINT else -1 for actor in actors)
        self._load_mw, self._load_pu = 0.0, 0.0
        self._units: dict[str, Unit] = {}
        self._network: NetworkState | None = None

    def learn(self, states: Sequence[DeviceState], network: NetworkState, series: Sequence[Floats]) -> None:
        """Take what a step has shown: the load it had, scaled to that of the coming step, and what units can do next,
        with each device's ``series`` of it.

        The load is what the grid took in and its devices gave, losses included; of a step that did not solve nothing
        is learned.
        """
        coming_pu = network.series[3]
        if network.converged:
            self._load_mw = network.p_pcc_mw + sum(state.p_mw for state in states)
        if self._load_pu > 0.0:
            self._load_mw *= coming_pu / self._load_pu
        self._load_pu = coming_pu
        self._network = network
        self._units = {}
        for name, actor, state, its_series in zip(self._names, self._actors, states, series, strict=True):
            offer = actor.device.offer(state.state, its_series)
            if offer is not None:
                self._units[name] = Unit(name, *offer)

    def local(self, setpoints: Sequence[Floats]) -> Local:
        """The grid's own problem in the coming step, if its devices did what these setpoints say."""
        network, config = self._network, self._spec.horizontal
        assert network is not None
        alive = network.vm_pu[~np.isnan(network.vm_pu)]
        price = network.series[0]
        wanted = self._powers(setpoints)
        share = config.load_share if isinstance(config, DispatchConfig) else None
        dispatched = sum(wanted[name] for name in self._units)
        vm_mean_pu = float(alive.mean()) if alive.size else 0.0
        feed_in_price = price * getattr(self._spec.reward, "sell_discount", 1.0)
        position_mw = sum(wanted.values()) - self._load_mw
        told = (network.p_pcc_mw, vm_mean_pu, price, feed_in_price, self._load_mw, position_mw)
        values = dict(zip(VALUES, told, strict=True))
        demand_mw = dispatched if share is None else share * max(self._load_mw, 0.0)
        return Local(values, tuple(self._units.values()), demand_mw, self._spec.dt_h)

    def dispatched_mw(self, setpoints: Sequence[Floats]) -> float:
        """What these setpoints ask of the units together, MW."""
        wanted = self._powers(setpoints)
        return sum(wanted[name] for name in self._units)

    def change(self, setpoints: Sequence[Floats], result: Result) -> list[Floats]:
        """The setpoints that a protocol's result makes of those that were wanted."""
        changed = list(setpoints)
        for k, name in enumerate(self._names):
            if name in result.dispatch_mw:
                changed[k] = _put(changed[k], self._p_at[k], result.dispatch_mw[name])
            if result.q_pu is not None:
                changed[k] = self._add_q(k, changed[k], result.q_pu)
        config = self._spec.horizontal
        limit_mw = config.untraded_mw if isinstance(config, TradingConfig) else None
        if limit_mw is not None:
            changed = self._limited(changed, net_bought_mwh(self._spec.id, result.trades) / self._spec.dt_h, limit_mw)
        return changed

    def _powers(self, setpoints: Sequence[Floats]) -> dict[str, float]:
        """The active power that each device is asked for, MW."""
        pairs = zip(self._names, self._p_at, setpoints, strict=True)
        return {name: values[at] if at >= 0 else 0.0 for name, at, values in pairs}

    def _add_q(self, k: int, setpoint: Floats, q_pu: float) -> Floats:
        """Add a share of a device's reactive range, where an action could set it."""
        for control in self._actors[k].controls:
            if control.name == Q:
                range_mvar = control.high if q_pu >= 0.0 else -control.low
                q_mvar = setpoint[self._q_at[k]] + q_pu * range_mvar
                return _put(setpoint, self._q_at[k], min(max(q_mvar, control.low), control.high))
        return setpoint

    def _limited(self, setpoints: list[Floats], bought_mw: float, limit_mw: float) -> list[Floats]:
        """Cut feeding in, or raise units, until the planned exchange at the PCC is within the limit of what was traded,
        as far as they reach."""
        powers = self._powers(setpoints)
        beyond_mw = self._load_mw - sum(powers.values()) - bought_mw
        if beyond_mw < -limit_mw:  # feeds in more than it sold
            room = {name: max(p_mw, 0.0) for name, p_mw in powers.items()}
            change_mw = beyond_mw + limit_mw
        elif beyond_mw > limit_mw:
            room = {name: self._units[name].p_max_mw - powers[name] for name in self._units}
            change_mw = beyond_mw - limit_mw
        else:
            return setpoints
        total_mw = sum(room.values())
        if total_mw <= 0.0:
            return setpoints
        share = min(max(change_mw / total_mw, -1.0), 1.0)
        return [
            _put(values, at, powers[name] + share * room[name]) if room.get(name) else values
            for name, at, values in zip(self._names, self._p_at, setpoints, strict=True)
        ]


def net_bought_mwh(me: str, trades: Sequence[Trade]) -> float:
    """Energy bought less energy sold."""
    return sum(trade.energy_mwh if trade.buyer == me else -trade.energy_mwh for trade in trades)


def trade_cost(me: str, trades: Sequence[Trade]) -> float:
    """What a grid pays for its trades, fees included, $; negative: what it earns."""
    paid = sum(trade.price * trade.energy_mwh * (1.0 if trade.buyer == me else -1.0) for trade in trades)
    return paid + sum(trade.fee for trade in trades)


def settled(network: NetworkState, bought_mwh: float, dt_h: float) -> NetworkState:
    """The network as the utility bills it: what was traded with neighbours is not exchanged with the utility."""
    return network if bought_mwh == 0.0 else network._replace(p_pcc_mw=network.p_pcc_mw - bought_mwh / dt_h)


def _put(setpoint: Floats, at: int, value: float) -> Floats:
    return (*setpoint[:at], value, *setpoint[at + 1 :])
