"""Markets to try protocols on: graphs and positions, links that fail by a hash, and what must hold of any outcome."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import fsum
from typing import Any
from zlib import crc32

import numpy as np
from hypothesis import strategies as st

from zgrid.messages import Floats
from zgrid.protocols import Graph, Heard, Local, Protocol, Result, Run, Table, Trade
from zgrid.protocols.graph import islands
from zgrid.protocols.rounds import Carry


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, list[str]]:
    """Undirected graphs of 1 to 6 peers, connected or not."""
    names = [f"mg_{i}" for i in range(draw(st.integers(1, 6)))]
    pairs = [(a, b) for k, a in enumerate(names) for b in names[k + 1 :]]
    edges = [pair for pair in pairs if draw(st.booleans())]
    return {name: [b if a == name else a for a, b in edges if name in (a, b)] for name in names}


def problems(graph: Graph, seed: int) -> dict[str, Local]:
    """Positions and prices such that no two are equal; one peer in six has nothing to trade."""
    rng = np.random.default_rng(seed)
    return {name: problem(rng) for name in graph}


def problem(rng: np.random.Generator) -> Local:
    """One peer's: within 2 MW, feed-in 20 to 50 $/MWh, import up to 100 above that, over a quarter of an hour."""
    position = float(rng.uniform(-2.0, 2.0)) * float(rng.random() > 1.0 / 6.0)
    feed_in = float(rng.uniform(20.0, 50.0))
    return local(position, feed_in + float(rng.uniform(0.0, 100.0)), feed_in, 0.25)


def local(position_mw: float, price: float, feed_in_price: float, dt_h: float = 1.0) -> Local:
    return Local({"position_mw": position_mw, "price": price, "feed_in_price": feed_in_price}, dt_h=dt_h)


def mixed(graph: Graph, seed: int) -> dict[str, list[str]]:
    """The same graph with its peers, and everybody's neighbours, in another order."""
    rng = np.random.default_rng(seed)
    return {name: [str(one) for one in rng.permutation(list(graph[name]))] for name in rng.permutation(list(graph))}


def faulty(receiver: str, seed: int, loss: float, longest: int) -> Carry:
    """A link that loses, delays by up to ``longest`` rounds, overtakes and doubles, by a hash of the message alone."""
    waiting: dict[tuple[str, int], list[Heard]] = {}

    def chance(*what: Any) -> float:
        return crc32(repr((seed, receiver, *what)).encode()) / 2**32

    def carry(sender: str, round: int, values: Floats | None) -> Sequence[Heard]:
        for copy in range(2 if chance(sender, round, "copies") < 0.2 else 1):
            if values is not None and chance(sender, round, copy, "loss") >= loss:
                late = int(chance(sender, round, copy, "delay") * (longest + 1))
                waiting.setdefault((sender, round + late), []).append(Heard(values, late))
        return sorted(waiting.pop((sender, round), []), key=lambda heard: -heard.age)

    return carry


def play(
    protocol: type[Protocol],
    config: Mapping[str, Any],
    graph: Graph,
    locals: Mapping[str, Local],
    carries: Mapping[str, Carry] | None = None,
) -> Run:
    """One step of every island, each at a table of its own: they end in different rounds."""
    tables = [Table(protocol, config, {name: graph[name] for name in one}, carries=carries) for one in islands(graph)]
    runs = [table.play(locals) for table in tables]
    results = {name: run.results[name] for name in graph for run in runs if name in run.results}
    statuses = {name: run.statuses[name] for name in graph for run in runs if name in run.statuses}
    return Run(results, statuses, max(run.rounds for run in runs), sum(run.messages for run in runs), ())


def play_faulty(
    protocol: type[Protocol], config: Mapping[str, Any], graph: Graph, locals: Mapping[str, Local], seed: int
) -> Run:
    """With up to 70 % loss and 3 rounds of delay, as the seed has it."""
    loss, longest = (seed % 8) / 10.0, seed // 8 % 4
    return play(protocol, config, graph, locals, {name: faulty(name, seed, loss, longest) for name in graph})


def pairs(run: Run) -> Iterator[tuple[str, str, list[Trade], list[Trade]]]:
    """Seller, buyer, and what each reports of the trades between them."""
    for seller, sold in run.results.items():
        for buyer, bought in run.results.items():
            yield seller, buyer, between(sold, seller, buyer), between(bought, seller, buyer)


def between(result: Result, seller: str, buyer: str) -> list[Trade]:
    return [trade for trade in result.trades if trade[:2] == (seller, buyer)]


def money(name: str, trades: Sequence[Trade]) -> float:
    """What one takes in, $; negative: pays."""
    return fsum(one.energy_mwh * one.price * (1 if one.seller == name else -1) - one.fee for one in trades)


def assert_agreed(run: Run, trading_fee: float) -> None:
    """Each trade is reported by both parties alike, and all that is lost is the fee."""
    for _, _, sold, bought in pairs(run):
        assert sold == bought
    assert abs(fsum(result.values[0] for result in run.results.values())) < 1e-9
    fees = trading_fee * fsum(one.energy_mwh for result in run.results.values() for one in result.trades) / 2.0
    total = fsum(money(name, result.trades) for name, result in run.results.items())
    assert abs(total + fees) < 1e-6


def assert_no_money_made(run: Run) -> None:
    """A seller reports only what its buyer reports; who has converged agrees with all it trades with."""
    for seller, buyer, sold, bought in pairs(run):
        assert all(trade in bought for trade in sold)
        if "converged" in (run.statuses[seller], run.statuses[buyer]):
            assert sold == bought
    assert fsum(money(name, result.trades) for name, result in run.results.items()) < 1e-6


def assert_within_limits(run: Run, locals: Mapping[str, Local], trading_fee: float) -> None:
    """Nobody trades more than its position, or at a price that the grid beats, fee included."""
    for name, result in run.results.items():
        values, dt_h = locals[name].values, locals[name].dt_h
        (energy, price), wanted = result.values, -values["position_mw"] * dt_h
        assert min(0.0, wanted) - 1e-9 <= energy <= max(0.0, wanted) + 1e-9
        for trade in result.trades:
            assert name in trade[:2]
            assert trade.fee == trading_fee / 2.0 * trade.energy_mwh
            if trade.buyer == name:
                assert trade.price + trading_fee / 2.0 <= values["price"] + 1e-9
            else:
                assert trade.price - trading_fee / 2.0 >= values["feed_in_price"] - 1e-9
        if result.trades:
            assert abs(money(name, result.trades) + energy * price + fsum(one.fee for one in result.trades)) < 1e-6
