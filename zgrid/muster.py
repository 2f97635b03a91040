"""Muster: waits until every node has said in columns what its agents have to say in a phase of a step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from zgrid.gather import DUPLICATE, STALE
from zgrid.messages import Columns, Envelope, Item, Tables
from zgrid.tables import Shape, items, shape_of


class Muster:
    """Tables by node. As soon as one of its agents speaks for itself, everything is taken one by one."""

    def __init__(self, refused: Counter[str]) -> None:
        self.is_open = False
        """Whether it waits."""
        self._refused = refused
        self._step = -1
        self._expected: Mapping[str, tuple[Shape, ...]] = {}
        self._before: Mapping[str, tuple[Shape, ...]] = {}
        """What was waited for before in this step, and has come."""
        self.taken: dict[str, Tables] = {}

    def open(self, step: int, expected: Mapping[str, tuple[Shape, ...]]) -> None:
        """Wait for the tables of these shapes from each node."""
        self._before = self._expected if step == self._step else {}
        self.is_open, self._step, self._expected, self.taken = True, step, expected, {}

    @property
    def kind(self) -> str:
        """What everybody is to say."""
        return next(shapes[0][0] for shapes in self._expected.values())

    def close(self) -> None:
        """Wait no longer."""
        self.is_open = False

    @property
    def complete(self) -> bool:
        """Whether all nodes have been heard."""
        return len(self.taken) == len(self._expected)

    @property
    def missing(self) -> tuple[str, ...]:
        """The agents of the nodes that have not been heard."""
        silent = [shapes for node, shapes in self._expected.items() if node not in self.taken]
        return tuple(agent for shapes in silent for _, agents, _ in shapes for agent in agents.split(" "))

    def hear(self, node: str, envelope: Envelope) -> Sequence[Columns] | None:
        """Take what a node says; None where it is to be taken one by one."""
        if not self.is_open or envelope.step > self._step:
            return None
        body = envelope.body
        assert type(body) is Columns
        if envelope.step < self._step:
            self._refused[f"{STALE} {envelope.sender}"] += 1
            return ()
        shapes = tuple(map(shape_of, body.tables))
        said_again = bool(shapes) and shapes == self._before.get(node)
        if shapes != self._expected.get(node) and not said_again:
            return None
        if said_again or node in self.taken:
            self._refused[f"{DUPLICATE} {envelope.sender}"] += 1
        else:
            self.taken[node] = body.tables
        return ()

    def release(self) -> None:
        """Nothing to give back."""

    def dissolve(self) -> Iterator[Item]:
        """Wait no longer; what was taken, one by one."""
        self.is_open = False
        for tables in self.taken.values():
            yield from items(Columns(tables), self._step)
