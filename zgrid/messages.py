"""Every message of zgrid, in the order of a step, and how one becomes bytes.

A message is a body (what is said) in an :class:`Envelope` (who says it, of which run and step). Bodies are named
tuples: immutable, without a dict, and encoded by position. Units are in the names, as everywhere: powers are
injections into the network in MW and Mvar. Never give a kind a second meaning; add one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from math import isfinite
from typing import Any, NamedTuple, TypeAlias

import msgpack
import numpy as np
from numpy.typing import NDArray

from zgrid.errors import MessageError

VERSION = 2
MAX_BYTES = 1 << 20
ENV = "env"

Floats: TypeAlias = tuple[float, ...]
Texts: TypeAlias = tuple[str, ...]
Counts: TypeAlias = tuple[tuple[str, int, int], ...]
FiniteArray: TypeAlias = NDArray[Any]
GappyArray: TypeAlias = NDArray[Any]
Sizes: TypeAlias = tuple[int, int, int]


class Probe(NamedTuple):
    """A node to itself, through the proxy: my two directions work."""

    node: str


class RollCall(NamedTuple):
    """env to all nodes, until all have answered: who is there?"""

    topology_hash: str


class Ready(NamedTuple):
    """node to env: these agents are here, built from this topology."""

    agents: Texts
    topology_hash: str


class Reset(NamedTuple):
    """env to grid, then grid to each device: a new episode begins."""

    seed: int


class Action(NamedTuple):
    """env to grid: scaled controls of its devices, each in [-1, 1]; None: the grid's own policy decides."""

    values: Floats | None


class Peer(NamedTuple):
    """grid to neighbour grid: what a horizontal protocol says in one round."""

    values: Floats


class Setpoint(NamedTuple):
    """grid to device: what it shall do in this step, in the order of its kind's ``SETPOINT``.

    ``series`` are the values of the device's time series in this step (weather, load), and what it measures at its bus.
    """

    values: Floats
    series: Floats


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
    """node to env: (kind, messages, bytes) sent so far, and (cause, count, 0) of what it refused."""

    node: str
    sent: Counts
    refused: Counts


class Stop(NamedTuple):
    """env to all nodes: the run is over."""


class Stopped(NamedTuple):
    """node to env: these agents have ended."""

    agents: Texts


Body: TypeAlias = (
    Probe
    | RollCall
    | Ready
    | Reset
    | Action
    | Peer
    | Setpoint
    | DeviceState
    | NetworkState
    | Report
    | Failure
    | StatsRequest
    | NodeStats
    | Stop
    | Stopped
)

BODIES: dict[str, Any] = {
    "probe": Probe,
    "roll_call": RollCall,
    "ready": Ready,
    "reset": Reset,
    "action": Action,
    "peer": Peer,
    "setpoint": Setpoint,
    "state": DeviceState,
    "network": NetworkState,
    "report": Report,
    "failure": Failure,
    "stats_request": StatsRequest,
    "stats": NodeStats,
    "stop": Stop,
    "stopped": Stopped,
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


def channel(kind: str, address: str) -> str:
    """The channel ``<kind>/<address>/``. The trailing slash keeps ``mg_1`` from hearing ``mg_10``."""
    return f"{kind}/{address}/"


def floats(what: str, values: Iterable[Any]) -> Floats:
    """What an agent says, as the finite floats that messages take; integers and numpy's scalars become floats.

    Raises:
        MessageError: not numbers, or not finite.
    """
    numbers = tuple(values)
    try:
        if not _FLOAT_ONLY.issuperset(map(type, numbers)):
            numbers = tuple(map(float, numbers))
        if isfinite(sum(numbers)):
            return numbers
    except (TypeError, ValueError) as error:
        raise MessageError(f"{what}: expected numbers, got {numbers!r}") from error
    raise MessageError(f"{what}: expected finite numbers, got {numbers!r}")


def packer() -> msgpack.Packer:
    """What :func:`encode` packs with; one for each user, because it is not for two threads at once."""
    return msgpack.Packer(default=_pack_array)


def encode(envelope: Envelope, packer: msgpack.Packer | None = None) -> bytes:
    """The envelope as MessagePack, by position. A ``packer`` that is kept saves making one.

    Raises:
        MessageError: a value that has no place in a message, or more than 1 MiB.
    """
    body = envelope.body
    try:
        packer = packer or msgpack.Packer(default=_pack_array)
        data: bytes = packer.pack((VERSION, KIND[type(body)], *envelope[:-1], body))
    except (TypeError, ValueError, OverflowError, KeyError) as error:
        raise MessageError(f"cannot encode {type(body).__name__} of {envelope.sender}: {error}") from error
    if len(data) > MAX_BYTES:
        raise MessageError(f"{type(body).__name__} of {envelope.sender}: {len(data)} bytes, at most {MAX_BYTES}")
    return data


def decode(data: bytes) -> Envelope:
    """The envelope in ``data``, with every field checked.

    Raises:
        MessageError: too long, not MessagePack, another version, an unknown kind, a field of the wrong type, a
            number that is not finite.
    """
    if len(data) > MAX_BYTES:
        raise MessageError(f"oversize: {len(data)} bytes, at most {MAX_BYTES}")
    try:
        version, kind, sender, run, incarnation, sequence, step, round, sent_ns, fields = msgpack.unpackb(
            data, use_list=False, ext_hook=_unpack_array
        )
        checks = _CHECKS.get(kind)
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
        raise MessageError(f"malformed: {error}") from error
    if type(version) is not int or version != VERSION:
        raise MessageError(f"version: {version!r}, expected {VERSION}")
    if checks is None:
        raise MessageError(f"unknown kind: {kind!r}")
    if not (
        type(sender) is type(run) is str
        and type(incarnation) is type(sequence) is type(step) is type(round) is type(sent_ns) is int
        and (incarnation | sequence | step | round | sent_ns) >= 0  # negative if one is
    ):
        raise MessageError("malformed: envelope")
    if type(fields) is not tuple or len(fields) != _FIELDS[kind]:
        raise MessageError(f"malformed: {kind} takes {_FIELDS[kind]} fields")
    for holds, at in checks:
        if not holds(fields[at]):
            raise MessageError(f"malformed: a field of {kind}")
    if kind == "network" and sum(fields[1]) > fields[2].size:
        raise MessageError("malformed: sizes of network")
    return Envelope(sender, run, incarnation, sequence, step, round, sent_ns, BODIES[kind]._make(fields))


_FLOAT_ONLY = frozenset((float,))
_ARRAY = 1


def _pack_array(value: Any) -> msgpack.ExtType:
    if not isinstance(value, np.ndarray) or value.ndim != 1 or value.dtype.char not in "df":
        raise TypeError(f"no place in a message for {type(value).__name__}")
    return msgpack.ExtType(_ARRAY, value.dtype.char.encode() + value.astype("<" + value.dtype.str[1:]).tobytes())


def _unpack_array(code: int, data: bytes) -> NDArray[Any]:
    if code != _ARRAY or data[:1] not in (b"d", b"f"):
        raise ValueError("unknown extension")
    return np.frombuffer(data, dtype="<f8" if data[:1] == b"d" else "<f4", offset=1)


def _is_text(value: Any) -> bool:
    return type(value) is str


def _is_whole(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_flag(value: Any) -> bool:
    return type(value) is bool


def _is_float(value: Any) -> bool:
    return type(value) is float and isfinite(value)


def _are_floats(value: Any) -> bool:
    return type(value) is tuple and _FLOAT_ONLY.issuperset(map(type, value)) and all(map(isfinite, value))


def _are_floats_or_none(value: Any) -> bool:
    return value is None or _are_floats(value)


def _are_texts(value: Any) -> bool:
    return type(value) is tuple and all(type(x) is str for x in value)


def _are_counts(value: Any) -> bool:
    return type(value) is tuple and all(
        type(row) is tuple and len(row) == 3 and _is_text(row[0]) and _is_whole(row[1]) and _is_whole(row[2])
        for row in value
    )


def _is_finite_array(value: Any) -> bool:
    return type(value) is np.ndarray and bool(np.isfinite(value).all())


def _is_gappy_array(value: Any) -> bool:
    return type(value) is np.ndarray and not np.isinf(value).any()


def _are_sizes(value: Any) -> bool:
    return type(value) is tuple and len(value) == 3 and all(map(_is_whole, value))


_CHECK_OF: dict[str, Callable[[Any], bool]] = {
    "str": _is_text,
    "int": _is_whole,
    "bool": _is_flag,
    "float": _is_float,
    "Floats": _are_floats,
    "Floats | None": _are_floats_or_none,
    "Texts": _are_texts,
    "Counts": _are_counts,
    "FiniteArray": _is_finite_array,
    "GappyArray": _is_gappy_array,
    "Sizes": _are_sizes,
}


class _Check(NamedTuple):
    """A check of one field, or of a run of floats at once."""

    holds: Callable[[Any], bool]
    at: int | slice


def _checks(body: Any) -> tuple[_Check, ...]:
    """The checks of a body's fields."""
    names = [getattr(kind, "__forward_arg__", kind) for kind in body.__annotations__.values()]
    checks, at = [], 0
    for name, run in itertools.groupby(names):
        count = len(list(run))
        if name == "float" and count > 1:
            checks.append(_Check(_are_floats, slice(at, at + count)))
        else:
            checks += [_Check(_CHECK_OF[name], k) for k in range(at, at + count)]
        at += count
    return tuple(checks)


_CHECKS = {kind: _checks(body) for kind, body in BODIES.items()}
_FIELDS = {kind: len(body._fields) for kind, body in BODIES.items()}
