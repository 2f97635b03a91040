"""How a message becomes bytes, and bytes a message: MessagePack by position, everything checked on the way in."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from math import isfinite
from typing import Any, NamedTuple

import msgpack
import numpy as np
from numpy.typing import NDArray

from zgrid.errors import MessageError
from zgrid.messages import BODIES, KIND, Columns, Envelope, Item, LinkCounts, Table, are_finite, make
from zgrid.readers import READERS
from zgrid.tables import taken

VERSION = 6
MAX_BYTES = 1 << 20

_TEN, _FIVE = b"\x9a", b"\x95"
"""MessagePack's begin of arrays of ten entries, which an envelope is, and of five."""


def _columns(fields: Any) -> Columns:
    """Tables off the wire, as the readers read single bodies.

    Raises:
        ValueError, TypeError: one is none.
    """
    (told,) = fields
    return make(Columns, (tuple([taken(*one) for one in told]),))


_READERS = {**READERS, "columns": _columns}

FREQUENT = frozenset(BODIES[kind] for kind in READERS)
"""The bodies that every step or round has; those of tables are so long that taking their begin off costs more."""

_BEGIN = {type: (VERSION, kind) for type, kind in KIND.items()}
"""What stands before an envelope in its message."""


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
        data: bytes = packer.pack(_BEGIN[type(body)] + envelope)
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
            data, use_list=False, ext_hook=unpack_array
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
    body = _body(kind, fields)
    return make(Envelope, (sender, run, incarnation, sequence, step, round, sent_ns, body))


class Familiar:
    """Messages of one speaker on one channel, in one run and incarnation: the begin of all of them has the same bytes,
    so that one comparison is the check of all that stands there.
    """

    __slots__ = ("_head", "_read", "_size", "incarnation", "key", "kind", "run", "sender")

    def __init__(self, channel: str, envelope: Envelope) -> None:
        """Messages like this one, which was decoded and is one of the ``FREQUENT``."""
        self.sender, self.run, self.incarnation = envelope[:3]
        self.kind = KIND[type(envelope.body)]
        self.key = (self.sender, channel)
        constant = map(msgpack.packb, (VERSION, self.kind, self.sender, self.run, self.incarnation))
        self._head = _TEN + b"".join(constant)
        self._size = len(self._head)
        self._read = READERS[self.kind]

    def decode(self, data: bytes) -> Envelope | None:
        """The envelope in ``data``, checked as by :func:`decode`; None where that has to decide."""
        if not data.startswith(self._head) or len(data) > MAX_BYTES:
            return None
        try:
            sequence, step, round, sent_ns, fields = msgpack.unpackb(
                _FIVE + data[self._size :], use_list=False, ext_hook=unpack_array
            )
            body = self._read(fields) if type(fields) is tuple else None
        except (ValueError, TypeError, IndexError, OverflowError, msgpack.UnpackException):
            return None
        if body is None or not type(sequence) is type(step) is type(round) is type(sent_ns) is int:
            return None
        if sequence < 0 or step < 0 or round < 0 or sent_ns < 0:
            return None
        return make(Envelope, (self.sender, self.run, self.incarnation, sequence, step, round, sent_ns, body))


def _body(kind: str, fields: Any) -> Any:
    """A body of a known kind, from its fields.

    Raises:
        MessageError: a field of the wrong type, a number that is not finite.
    """
    if kind in _READERS and type(fields) is tuple:
        try:
            body = _READERS[kind](fields)
        except (ValueError, TypeError, IndexError):
            body = None
        if body is not None:
            return body
    if type(fields) is not tuple or len(fields) != _FIELDS[kind]:
        raise MessageError(f"malformed: {kind} takes {_FIELDS[kind]} fields")
    for holds, at in _CHECKS[kind]:
        if not holds(fields[at]):
            raise MessageError(f"malformed: a field of {kind}")
    if kind == "network" and sum(fields[1]) > fields[2].size:
        raise MessageError("malformed: sizes of network")
    body = BODIES[kind]._make(fields)
    if kind == "batch":
        return body._replace(items=tuple(map(_item, body.items)))
    if kind == "columns":
        return body._replace(tables=tuple(map(_table, body.tables)))
    if kind == "resume":
        return body._replace(history=tuple(map(_item, body.history)))
    if kind == "stats":
        return body._replace(links=tuple(map(_link_counts, body.links)))
    return body


def _item(fields: Any) -> Item:
    """A message within a message; none holds others.

    Raises:
        MessageError: it is none.
    """
    if type(fields) is not tuple or len(fields) != len(Item._fields):
        raise MessageError("malformed: an item")
    channel, kind, sender, incarnation, step, round, body = fields
    if not (
        type(channel) is type(sender) is type(kind) is str
        and type(incarnation) is type(step) is type(round) is int
        and (incarnation | step | round) >= 0
    ):
        raise MessageError("malformed: an item")
    if kind not in _WITHIN:
        raise MessageError(f"malformed: {kind!r} within a message")
    return make(Item, (channel, kind, sender, incarnation, step, round, _body(kind, body)))


def _table(fields: Any) -> Table:
    """A table within a message.

    Raises:
        MessageError: it is none.
    """
    if type(fields) is not tuple or len(fields) != len(Table._fields):
        raise MessageError("malformed: a table")
    try:
        return taken(*fields)
    except ValueError as error:
        raise MessageError(f"malformed: {error}") from error


def _link_counts(fields: Any) -> LinkCounts:
    """The counts of a link within a message.

    Raises:
        MessageError: they are none.
    """
    if type(fields) is not tuple or len(fields) != len(LinkCounts._fields):
        raise MessageError("malformed: counts of a link")
    if not all(holds(fields[at]) for holds, at in _COUNTS_OF_A_LINK):
        raise MessageError("malformed: counts of a link")
    return LinkCounts._make(fields)


_DTYPES = {1: "<f8", 2: "<f4"}
"""Arrays by the code of MessagePack's extension. Nothing stands before their bytes, so numpy finds them aligned."""

_CODES = {"d": 1, "f": 2}


def _pack_array(value: Any) -> msgpack.ExtType:
    if not isinstance(value, np.ndarray) or value.ndim != 1 or value.dtype.char not in _CODES:
        raise TypeError(f"no place in a message for {type(value).__name__}")
    code = _CODES[value.dtype.char]
    return msgpack.ExtType(code, value.astype(_DTYPES[code], copy=False).tobytes())


def unpack_array(code: int, data: bytes) -> NDArray[Any]:
    """An array off the wire, read-only: what MessagePack's ``ext_hook`` is.

    Raises:
        ValueError: no array.
    """
    if code not in _DTYPES:
        raise ValueError("unknown extension")
    return np.frombuffer(data, dtype=_DTYPES[code])


def _is_text(value: Any) -> bool:
    return type(value) is str


def _is_whole(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_flag(value: Any) -> bool:
    return type(value) is bool


def _is_float(value: Any) -> bool:
    return type(value) is float and isfinite(value)


def _are_floats(value: Any) -> bool:
    return type(value) is tuple and are_finite(value)


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


def _is_tuple(value: Any) -> bool:
    return type(value) is tuple


def _are_whole(value: Any) -> bool:
    return type(value) is tuple and all(map(_is_whole, value))


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
    "Items": _is_tuple,
    "Links": _is_tuple,
    "Tables": _is_tuple,
    "Steps": _are_whole,
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
_COUNTS_OF_A_LINK = _checks(LinkCounts)
_FIELDS = {kind: len(body._fields) for kind, body in BODIES.items()}
_WITHIN = frozenset(BODIES) - {"batch", "resume", "columns"}
