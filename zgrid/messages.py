"""Every message of zgrid, in the order of a step.

A message is a body (what is said) in an :class:`Envelope` (who says it, of which run and step). Bodies are named
tuples: immutable, without a dict, and encoded by position. Units are in the names, as everywhere: powers are
injections into the network in MW and Mvar. Never give a kind a second meaning; add one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, TypeAlias

from numpy.typing import NDArray

from zgrid.errors import MessageError

ENV = "env"
"""The env's id, and the name of its node."""

Floats: TypeAlias = tuple[float, ...]
Texts: TypeAlias = tuple[str, ...]
Counts: TypeAlias = tuple[tuple[str, int, int], ...]
FiniteArray: TypeAlias = NDArray[Any]
GappyArray: TypeAlias = NDArray[Any]
Sizes: TypeAlias = tuple[int, int, int]
Items: TypeAlias = "tuple[Item, ...]"
Links: TypeAlias = "tuple[LinkCounts, ...]"
Steps: TypeAlias = tuple[int, ...]
Tables: TypeAlias = "tuple[Table, ...]"


class Probe(NamedTuple):
    """A node to itself, through the proxy: my two directions work."""

    node: str


class RollCall(NamedTuple):
    """env to all nodes, until all have answered: who is there?

    ``epoch`` counts the proxies of a run: when one has returned, nodes prove their directions again before they answer,
    and nobody counts a gap across it.
    """

    topology_hash: str
    epoch: int


class Ready(NamedTuple):
    """node to env: these agents are here, built from this topology, heard in this epoch."""

    agents: Texts
    topology_hash: str
    epoch: int


class Reset(NamedTuple):
    """env to grid, then grid to each device: a new episode begins."""

    seed: int


class Action(NamedTuple):
    """env to grid: scaled controls of its devices, each in [-1, 1]; None: the grid's own policy decides."""

    values: Floats | None


class Brief(NamedTuple):
    """grid to device: the time series of this step, and that what follows is talked about in rounds."""

    series: Floats


class Peer(NamedTuple):
    """grid to neighbour grid, or between a grid and a device: one frame of a protocol's round.

    ``values`` None: nothing is said. ``agreed``: everybody less than so many edges away has converged. ``stop``: the
    round that is the last for all; 0: not known yet.
    """

    values: Floats | None
    agreed: int = 0
    stop: int = 0


class Setpoint(NamedTuple):
    """grid to device: what it shall do in this step, in the order of its kind's ``SETPOINT``.

    ``series`` are the values of the device's time series in this step (weather, load), and what it measures at its bus.
    ``measured`` is what a local control of its own corrects the values by, vm_pu and deviation_hz; empty without one.
    """

    values: Floats
    series: Floats
    measured: Floats = ()


class DeviceState(NamedTuple):
    """device to its grid and to env, published once: what it did in this step.

    ``cost`` in $ of this step, ``violation`` in pu of its rating, ``state`` in the order of its kind's ``STATE``.
    """

    p_mw: float
    q_mvar: float
    cost: float
    violation: float
    state: Floats


class NetworkState(NamedTuple):
    """env to grid: the solved network in the grid's own area, and what the coming step brings.

    ``measured`` is one float64 array, NaN where dead: voltages in pu, loadings of lines, then of transformers, in
    percent, ``sizes`` of each, and after them what ``observability: full`` adds. ``p_pcc_mw`` and ``q_pcc_mvar`` flow
    into the grid at its PCC, ``p_forming_mw`` is what its forming unit gives beyond its setpoint while the grid is
    islanded, and ``p_unserved_mw`` the load at dead buses. ``local`` has the voltage at each of its devices, in pu, 0
    where dead or where the device has no bus. ``series`` are the grid's own time series in the coming step, ``clock``
    is that step's (sine, cosine) of the time of day.
    """

    converged: bool
    sizes: Sizes
    measured: GappyArray
    p_pcc_mw: float
    q_pcc_mvar: float
    p_forming_mw: float
    p_unserved_mw: float
    local: Floats
    series: Floats
    clock: Floats

    @property
    def vm_pu(self) -> GappyArray:
        """Voltages, (n_bus,) float64, pu."""
        return self.measured[..., : self.sizes[0]]

    @property
    def line_loading(self) -> GappyArray:
        """Loadings of the lines, (n_line,) float64, percent."""
        n_bus, n_line, _ = self.sizes
        return self.measured[..., n_bus : n_bus + n_line]

    @property
    def loading(self) -> GappyArray:
        """Loadings of lines and transformers, (n_line + n_trafo,) float64, percent."""
        n_bus, n_line, n_trafo = self.sizes
        return self.measured[..., n_bus : n_bus + n_line + n_trafo]


class Report(NamedTuple):
    """grid to env: reward and its terms for this step, and the observation for the next one.

    ``terms`` follow the grid's ``term_names``; ``observation`` is (n_obs,) float32.
    """

    reward: float
    terms: Floats
    observation: FiniteArray


class Failure(NamedTuple):
    """any node to env: an agent of mine raised."""

    agent: str
    step: int
    cause: str
    traceback: str


class StatsRequest(NamedTuple):
    """env to all nodes: tell what you have sent."""


class NodeStats(NamedTuple):
    """node to env: what it has done so far, and what its agents have heard over links with faults in this episode.

    ``sent`` (kind, messages, bytes), ``refused`` (cause, count, 0); the kind ``batch`` counts frames. Many ``links``
    come in several parts; the figures are those of the ``last``.
    """

    node: str
    sent: Counts
    refused: Counts
    links: Links = ()
    last: bool = True


class Beat(NamedTuple):
    """node to whoever watches, a few times a second from a thread of its own: I live, and these are my figures.

    ``sent`` (kind, messages, bytes), ``latency`` (kind, median, 99th percentile in us of what it heard last) and
    ``refused`` (cause, count, 0).
    """

    agents: Texts
    pid: int
    sent: Counts
    latency: Counts
    refused: Counts


class Resume(NamedTuple):
    """env to a node, at a step boundary or for the open step: build this agent anew, as this incarnation.

    A device had ``state`` after step ``at``. ``history`` is what the agent has heard in this episode, a device only
    since then, in order; a long one comes in several parts, of which one is the ``last``. ``fallen`` are the steps in
    which it was replaced and fell back: first, first after, and so on. What the agent says of the open step in answer
    to it is sent, the rest was said before.
    """

    agent: str
    incarnation: int
    at: int
    state: Floats
    fallen: Steps
    history: Items
    last: bool


class Resumed(NamedTuple):
    """node to env: this agent is back."""

    agent: str
    incarnation: int


class Resend(NamedTuple):
    """env to all nodes, after a proxy has returned: say again what you have said in this step."""


class Rearm(NamedTuple):
    """env to all nodes: this device shall follow its setpoints again, whatever it has latched for."""

    agent: str


class Notice(NamedTuple):
    """node to env: something happened to an agent of mine that people should know."""

    agent: str
    event: str
    cause: str


class Stop(NamedTuple):
    """env to all nodes: the run is over."""


class Stopped(NamedTuple):
    """node to env: these agents have ended."""

    agents: Texts


class Item(NamedTuple):
    """A message within a message: its channel, the kind of its body, and what an envelope says of it."""

    channel: str
    kind: str
    sender: str
    incarnation: int
    step: int
    round: int
    body: Body


class LinkCounts(NamedTuple):
    """Within a NodeStats: what has become of the messages of one link, as whole numbers; :class:`zgrid.links.Counts`
    tells their meaning.
    """

    source: str
    destination: str
    kind: str
    sent: int
    delivered: int
    late: int
    lost: int
    duplicated: int
    attacked: int
    periods: int
    age_sum: int
    age_max: int


class Batch(NamedTuple):
    """node to node: all that the agents of one say to those of the other in one phase, in one frame."""

    items: Items


class Table(NamedTuple):
    """What many agents say or are told in one step, of one kind and one shape: a row of numbers each.

    ``kind`` is that of the bodies, ``agents`` has their ids with a space between, ``sizes`` is how long the parts of a
    row are, and ``values`` has the rows one after the other, float64: see :mod:`zgrid.tables`.
    """

    kind: str
    agents: str
    sizes: Steps
    values: GappyArray


class Columns(NamedTuple):
    """env to node and node to env: a batch as arrays, where all that is said in one phase is of one kind."""

    tables: Tables


Body: TypeAlias = (
    Probe
    | RollCall
    | Ready
    | Reset
    | Action
    | Brief
    | Peer
    | Setpoint
    | DeviceState
    | NetworkState
    | Report
    | Failure
    | StatsRequest
    | NodeStats
    | Beat
    | Resume
    | Resumed
    | Resend
    | Rearm
    | Notice
    | Stop
    | Stopped
    | Batch
    | Columns
)

BODIES: dict[str, Any] = {
    "probe": Probe,
    "roll_call": RollCall,
    "ready": Ready,
    "reset": Reset,
    "action": Action,
    "brief": Brief,
    "peer": Peer,
    "setpoint": Setpoint,
    "state": DeviceState,
    "network": NetworkState,
    "report": Report,
    "failure": Failure,
    "stats_request": StatsRequest,
    "stats": NodeStats,
    "beat": Beat,
    "resume": Resume,
    "resumed": Resumed,
    "resend": Resend,
    "rearm": Rearm,
    "notice": Notice,
    "stop": Stop,
    "stopped": Stopped,
    "batch": Batch,
    "columns": Columns,
}
KIND: dict[type, str] = {body: kind for kind, body in BODIES.items()}


class Envelope(NamedTuple):
    """A body with its sender and its place in the run.

    ``sequence`` counts what this incarnation of the sender published on this channel. ``sent_ns`` is the sender's
    clock and serves latency figures only.
    """

    sender: str
    run: str
    incarnation: int
    sequence: int
    step: int
    round: int
    sent_ns: int
    body: Body


def channel(kind: str, address: str, speaker: str = "") -> str:
    """The channel ``<kind>/<address>/``, or ``<kind>/<address>/<speaker>/`` where several speak to one address.

    So every channel has one speaker. The trailing slash keeps ``mg_1`` from hearing ``mg_10``.
    """
    return f"{kind}/{address}/{speaker}/" if speaker else f"{kind}/{address}/"


def floats(what: str, values: Iterable[Any]) -> Floats:
    """What an agent says, as the finite floats that messages take; integers and numpy's scalars become floats.

    Raises:
        MessageError: not numbers, or not finite.
    """
    numbers = tuple(values)
    if are_finite(numbers):
        return numbers
    try:
        numbers = tuple(map(float, numbers))
    except (TypeError, ValueError) as error:
        raise MessageError(f"{what}: expected numbers, got {numbers!r}") from error
    if are_finite(numbers):
        return numbers
    raise MessageError(f"{what}: expected finite numbers, got {numbers!r}")


make = tuple.__new__
"""``make(Kind, values)`` is ``Kind._make(values)`` without a call in Python, for what every message needs."""


def are_finite(numbers: tuple[Any, ...]) -> bool:
    """Whether all are finite floats. As a rule they are few, and a loop is faster than what takes them all at once."""
    for number in numbers:  # noqa: SIM110 - a generator costs more than the loop
        if type(number) is not float or number - number != 0.0:
            return False
    return True
