"""What a schema cannot say of the faults of links: whom rules are about."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase

from zgrid.errors import Finding, UnknownNameError
from zgrid.links import LinkConfig
from zgrid.messages import ENV
from zgrid.protocols import vertical_class
from zgrid.topology.kinds import UNSETTLED
from zgrid.topology.schema import Topology


def check_links(topology: Topology) -> Iterator[Finding]:
    """Patterns that nobody fits, and rules that no message fits."""
    ids = (ENV, *topology.runs())
    channels = list(_channels(topology))
    for index, rule in enumerate(topology.links):
        unknown = list(_check_patterns(f"links.{index}", rule, ids))
        yield from unknown
        if not unknown and not any(rule.fits(*channel) for channel in channels):
            what = "any kind" if rule.kind == "*" else f"kind {rule.kind}"
            yield Finding(
                f"links.{index}",
                f"no message of {what} goes from {rule.source} to {rule.destination}; messages go env -> grid (action, "
                "network), grid -> device (setpoint), device -> grid (state), and between neighbours (peer), if there "
                "is a horizontal protocol",
            )


def _check_patterns(path: str, rule: LinkConfig, ids: tuple[str, ...]) -> Iterator[Finding]:
    for key, pattern in rule.patterns():
        if not any(fnmatchcase(one, pattern) for one in ids):
            yield Finding(f"{path}.{key}", f"nobody fits {pattern!r}; there is {', '.join(ids)}")


def _channels(topology: Topology) -> Iterator[tuple[str, str, str]]:
    """(speaker, hearer, kind) of everything that a rule can be about."""
    for grid_id, grid in topology.grids.items():
        yield from ((ENV, grid_id, kind) for kind in ("action", "network"))
        if topology.horizontal is not None and topology.horizontal.kind != "none":
            yield from ((other, grid_id, "peer") for other in grid.neighbours)
        talks = _talks((grid.vertical or topology.vertical).kind)
        for name in grid.devices:
            device = f"{grid_id}.{name}"
            yield from ((grid_id, device, "setpoint"), (device, grid_id, "state"))
            if talks:
                yield from ((grid_id, device, "peer"), (device, grid_id, "peer"))


def _talks(kind: str) -> bool:
    """Whether grid and devices talk in rounds before the setpoints."""
    try:
        return kind != UNSETTLED and vertical_class(kind).NEGOTIATION is not None
    except UnknownNameError:
        return False  # told where it stands
