"""What every protocol has to pass, to be run on one's own too: subclass ``ProtocolContract`` in a pytest file.

    class TestMine(ProtocolContract):
        case = Case(MaxConsensus, {"rounds": 20}, ring(4), {name: Local({"p_pcc_mw": 1.0}) for name in ring(4)})

It needs no pytest itself: the tests are plain methods with plain asserts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, ClassVar, NamedTuple

from zgrid.messages import Floats
from zgrid.parley import meet
from zgrid.protocols import Graph, Heard, Inbox, Local, Outbox, Participant, Protocol, Result, Run, Table

_LOSS, _DELAY = 0.2, 2


class Case(NamedTuple):
    """A protocol among participants who have problems. ``tolerance`` is how near it comes under what it tolerates, but
    for those entries of its ``RESULT`` that tell of the ``way`` there."""

    protocol: type[Protocol]
    config: Mapping[str, Any]
    participants: Graph | Mapping[str, Participant]
    locals: Mapping[str, Local]
    tolerance: float = 1e-6
    way: tuple[str, ...] = ()


class ProtocolContract:
    """The contract. Give ``case``, with rounds enough to converge under a fifth of all messages lost."""

    case: ClassVar[Case]

    def test_two_runs_are_equal(self) -> None:
        """The same seed gives the same results and messages."""
        assert play(self.case) == play(self.case)

    def test_over_zeromq_it_is_the_same_to_the_bit(self) -> None:
        """Each participant in a process of its own."""
        case = self.case
        here, there = play(case), meet(case.protocol, case.config, case.participants, case.locals)
        assert there.results == here.results
        assert (there.statuses, there.rounds, there.messages) == (here.statuses, here.rounds, here.messages)

    def test_the_order_of_delivery_changes_nothing(self) -> None:
        """An inbox that is read in another order gives the same results."""
        table = _table(self.case)
        for walk in table.walks.values():
            _reverse_inboxes(walk.protocol)
        assert table.play(self.case.locals).results == play(self.case).results

    def test_results_fit_what_is_declared(self) -> None:
        """As many values as names, all finite, from the begin on, and feasible at the end."""
        table = _table(self.case)
        for walk in table.walks.values():
            assert_fits(walk.protocol, walk.protocol.result())
        run = table.play(self.case.locals)
        for name, walk in table.walks.items():
            assert_fits(walk.protocol, run.results[name])
        assert_feasible(run, self.case.locals)

    def test_a_cap_of_one_round_gives_a_feasible_result(self) -> None:
        """However early it has to stop."""
        run = play(self.case._replace(config={**self.case.config, "rounds": 1}))
        assert run.rounds == 1
        assert_feasible(run, self.case.locals)

    def test_silence_is_survived(self) -> None:
        """Nothing ever comes: the result is feasible all the same."""
        silence = {name: lambda *_: () for name in self.case.participants}
        assert_feasible(play(self.case, silence), self.case.locals)

    def test_alone_it_has_a_result(self) -> None:
        """Zero neighbours."""
        first = next(iter(self.case.participants))
        role = self.case.participants[first]
        alone = Participant(first, role=role.role if isinstance(role, Participant) else "peer")
        run = play(self.case._replace(participants={first: alone}))
        assert run.messages == 0
        assert_feasible(run, self.case.locals)

    def test_what_it_tolerates_it_tolerates(self) -> None:
        """With a fifth of all messages lost, or all two rounds late, the results are the same within the tolerance."""
        wanted = play(self.case).results
        for fault, carries in (("loss", lossy(self.case)), ("delay", late(self.case))):
            if fault in self.case.protocol.TOLERATES:
                assert_near(play(self.case, carries).results, wanted, self.case, fault)


def ring(n: int) -> dict[str, tuple[str, ...]]:
    """A ring of grids mg_1, mg_2, ...; of two a line."""
    names = [f"mg_{k + 1}" for k in range(n)]
    return {name: tuple(dict.fromkeys((names[k - 1], names[(k + 1) % n]))) for k, name in enumerate(names)}


def line(n: int) -> dict[str, tuple[str, ...]]:
    """A line of grids mg_1, mg_2, ..."""
    names = [f"mg_{k + 1}" for k in range(n)]
    return {name: tuple(names[j] for j in (k - 1, k + 1) if 0 <= j < n) for k, name in enumerate(names)}


def play(case: Case, carries: Any = None) -> Run:
    """One step in this process."""
    return _table(case, carries).play(case.locals)


def lossy(case: Case, loss: float = _LOSS) -> dict[str, Any]:
    """Links that lose a share of all messages, which ones is settled by a hash."""

    def of(me: str) -> Any:
        def carry(sender: str, round: int, values: Floats | None) -> Sequence[Heard]:
            digest = blake2b(f"{sender}>{me}:{round}".encode(), digest_size=8).digest()
            lost = int.from_bytes(digest, "big") < loss * 2**64
            return () if values is None or lost else (Heard(values),)

        return carry

    return {name: of(name) for name in case.participants}


def late(case: Case, rounds: int = _DELAY) -> dict[str, Any]:
    """Links that take so many rounds."""

    def of() -> Any:
        under_way: dict[tuple[str, int], Floats] = {}

        def carry(sender: str, round: int, values: Floats | None) -> Sequence[Heard]:
            if values is not None:
                under_way[sender, round + rounds] = values
            arrived = under_way.pop((sender, round), None)
            return () if arrived is None else (Heard(arrived, rounds),)

        return carry

    return {name: of() for name in case.participants}


def assert_fits(protocol: Protocol, result: Result) -> None:
    """As many finite values as names."""
    assert len(result.values) == len(protocol.RESULT), f"{result.values} for {protocol.RESULT}"
    assert all(map(math.isfinite, result.values)), result.values


def assert_feasible(run: Run, locals: Mapping[str, Local]) -> None:
    """Units within their limits, reactive power within the ratings, and every trade reported alike by both sides."""
    for name, result in run.results.items():
        units = {unit.id: unit for unit in locals[name].units}
        for unit, p_mw in result.dispatch_mw.items():
            assert units[unit].p_min_mw <= p_mw <= units[unit].p_max_mw, f"{unit} at {p_mw} MW"
        assert result.q_pu is None or -1.0 <= result.q_pu <= 1.0
        for trade in result.trades:
            assert name in (trade.seller, trade.buyer)
            assert trade.energy_mwh > 0.0
            other = trade.buyer if name == trade.seller else trade.seller
            assert trade in run.results[other].trades, f"{other} knows nothing of {trade}"


def assert_near(results: Mapping[str, Result], wanted: Mapping[str, Result], case: Case, under: str) -> None:
    """Dispatch, prices and values as wanted."""
    names, tolerance = case.protocol.RESULT, case.tolerance
    for name, result in results.items():
        want = wanted[name]
        both = zip(names, result.values, want.values, strict=True)
        pairs = [(got, expected) for entry, got, expected in both if entry not in case.way]
        pairs += [(result.dispatch_mw[unit], p_mw) for unit, p_mw in want.dispatch_mw.items()]
        for got, expected in pairs:
            assert abs(got - expected) <= tolerance * max(1.0, abs(expected)), f"{name} under {under}: {result}, {want}"


def _table(case: Case, carries: Any = None) -> Table:
    return Table(case.protocol, case.config, case.participants, carries=carries)


def _reverse_inboxes(protocol: Protocol) -> None:
    take = protocol.on_round

    def reversed_take(round: int, inbox: Inbox) -> Outbox:
        return take(round, dict(reversed(list(inbox.items()))))

    protocol.on_round = reversed_take  # type: ignore[method-assign]
