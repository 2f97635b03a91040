"""Messages survive the trip over bytes unchanged, and nothing else passes for a message."""

from __future__ import annotations

import math
import struct
from itertools import pairwise
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from zgrid.encoding import MAX_BYTES, VERSION, decode, encode
from zgrid.errors import MessageError
from zgrid.messages import (
    BODIES,
    Action,
    Batch,
    Beat,
    Brief,
    Columns,
    DeviceState,
    Envelope,
    Failure,
    Item,
    LinkCounts,
    NetworkState,
    NodeStats,
    Notice,
    Peer,
    Probe,
    Ready,
    Rearm,
    Report,
    Resend,
    Reset,
    Resume,
    Resumed,
    RollCall,
    Setpoint,
    StatsRequest,
    Stop,
    Stopped,
    Table,
    channel,
)

NAN, INF = math.nan, math.inf
ITEM = Item("setpoint/mg_1.dg_1/", "setpoint", "mg_1", 1, 7, 0, Setpoint((0.5, 0.0, 1.0), (0.7,)))
TABLE = Table("state", "mg_1.dg_1 mg_1.ess_1", (1,), np.arange(10.0))
LINK = LinkCounts("mg_2", "mg_1", "peer", 9, 6, 4, 2, 1, 0, 12, 17, 5)
EXAMPLES = {
    "probe": Probe("node:mg_1.dg_1"),
    "roll_call": RollCall("c0ffee", 0),
    "ready": Ready(("mg_1", "mg_1.dg_1"), "c0ffee", 0),
    "reset": Reset(7),
    "action": Action((-1.0, 0.25)),
    "brief": Brief((0.7,)),
    "peer": Peer((0.1,), 2, 7),
    "setpoint": Setpoint((0.5, 0.0, 1.0), (0.7,)),
    "state": DeviceState(0.5, -0.1, 3.25, 0.0, (0.5,)),
    "network": NetworkState(
        True,
        (3, 1, 0),
        np.array([1.0, NAN, 0.97, 50.0]),
        -0.2,
        0.1,
        0.05,
        0.25,
        (1.0, 0.0),
        (30.0, 20.0, 40.0, 0.5),
        (0.0, 1.0),
    ),
    "report": Report(-12.5, (12.5, 0.0), np.array([0.5, -0.25], dtype=np.float32)),
    "failure": Failure("mg_1", 3, "ValueError: no", "Traceback ..."),
    "stats_request": StatsRequest(),
    "stats": NodeStats("mg_1", (("setpoint", 3, 120),), (("stale", 1, 0),), (LINK, LINK._replace(lost=3)), False),
    "beat": Beat(("mg_1",), 4711, (("setpoint", 3, 120),), (("state", 150, 900),), (("stale", 1, 0),)),
    "resume": Resume("mg_1", 1, 3, (0.5,), (2, 4), (ITEM,), True),
    "resumed": Resumed("mg_1", 1),
    "resend": Resend(),
    "rearm": Rearm("mg_1.dg_1"),
    "notice": Notice("mg_1.dg_1", "watchdog", "nothing was heard"),
    "stop": Stop(),
    "stopped": Stopped(("mg_1",)),
    "batch": Batch((ITEM, ITEM._replace(round=2))),
    "columns": Columns((TABLE,)),
}
FIELDS = [(kind, k) for kind, body in EXAMPLES.items() for k in range(len(body))]

floats = st.floats(allow_nan=False, allow_infinity=False)
counts = st.integers(0, 2**64 - 1)
finite_arrays = st.sampled_from([np.float32, np.float64]).flatmap(
    lambda dtype: hnp.arrays(
        dtype, st.integers(0, 9), elements={"allow_nan": False, "allow_infinity": False, "allow_subnormal": True}
    )
)
gappy_arrays = hnp.arrays(np.float64, st.integers(0, 9), elements={"allow_nan": True, "allow_infinity": False})
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "str": st.text(),
    "int": counts,
    "bool": st.booleans(),
    "float": floats,
    "Floats": st.lists(floats, max_size=6).map(tuple),
    "Floats | None": st.none() | st.lists(floats, max_size=6).map(tuple),
    "Texts": st.lists(st.text(), max_size=4).map(tuple),
    "Counts": st.lists(st.tuples(st.text(), counts, counts), max_size=4).map(tuple),
    "FiniteArray": finite_arrays,
    "GappyArray": gappy_arrays,
    "Steps": st.lists(counts, max_size=4).map(tuple),
    "Items": st.lists(st.builds(ITEM._replace, step=counts, sender=st.text()), max_size=3).map(tuple),
    "Links": st.lists(st.builds(LINK._replace, source=st.text(), sent=counts, age_max=counts), max_size=3).map(tuple),
    "Tables": st.lists(st.builds(TABLE._replace, agents=st.just("a b")), max_size=3).map(tuple),
    "Sizes": st.just((0, 0, 0)),  # any array is long enough
}
WRONG: dict[str, tuple[Any, ...]] = {
    "str": (None, 1, 1.0, b"x", ["x"], True),
    "int": (None, "1", 1.0, -1, True, [1]),
    "bool": (None, 0, 1, "true", 1.0),
    "float": (None, 1, 0, "1.0", True, [1.0], NAN, INF, -INF),
    "Floats": (None, 1.0, "x", [1], [None], ["1"], [True], [[1.0]], [1.0, NAN], [INF], {}),
    "Floats | None": (1.0, "x", [1], [None], [1.0, NAN], [-INF], False),
    "Texts": (None, "mg_1", [1], [None], [["mg_1"]], [b"mg_1"]),
    "Counts": (None, [1], [["a", 1]], [["a", 1, 2, 3]], [["a", -1, 0]], [["a", 1.0, 0]], [[1, 1, 0]], ["abc"]),
    "FiniteArray": (None, 1.0, [1.0], np.array([1.0, NAN]), np.array([INF]), np.array([NAN], dtype=np.float32)),
    "GappyArray": (None, 1.0, [1.0], [NAN], np.array([INF, NAN]), np.array([-INF])),
    "Steps": (None, 1, "x", [-1], [1.0], [True], ["1"]),
    "Items": (
        None,
        1,
        "x",
        [1],
        [["state/a/"]],
        [[*ITEM[:6], [1]]],
        [[*ITEM[:2], 1, *ITEM[3:]]],
        [["a", "batch", *ITEM[2:6], [[]]]],
    ),
    "Links": (
        None,
        1,
        "x",
        [1],
        ["mg_1 peer to "],  # as long as a row
        [LINK[:11]],
        [[*LINK, 0]],
        [[1, *LINK[1:]]],
        [[*LINK[:2], None, *LINK[3:]]],
        [[*LINK[:3], -1, *LINK[4:]]],
        [[*LINK[:11], 1.0]],
        [[*LINK[:5], True, *LINK[6:]]],
    ),
    "Tables": (None, 1, "x", [1], [["state", "a"]], [[*TABLE[:3], [0.0] * 10]], [[1, *TABLE[1:]]]),
    "Sizes": (None, 3, [3, 1], [3, 1, 0, 0], [3, 1, -1], [3.0, 1, 0], "abc", [3, 1, 1]),
}


def annotation(kind: str, k: int) -> str:
    hint = list(BODIES[kind].__annotations__.values())[k]
    return str(getattr(hint, "__forward_arg__", hint))


def envelope(body: Any) -> Envelope:
    return Envelope("mg_1", "run-1", 2, 17, 5, 1, 1_700_000_000_000_000_000, body)


def pack(frame: Any) -> bytes:
    """A frame as MessagePack, with arrays as the extension that messages use."""

    def extension(array: Any) -> msgpack.ExtType:
        return msgpack.ExtType({"d": 1, "f": 2}[array.dtype.char], array.tobytes())

    data: bytes = msgpack.packb(frame, default=extension)
    return data


def frame(kind: str, body: Any = None, version: Any = VERSION) -> list[Any]:
    body = EXAMPLES[kind] if body is None else body
    return [version, kind, "mg_1", "run-1", 2, 17, 5, 1, 1_700_000_000_000_000_000, list(body)]


def same(a: Any, b: Any) -> bool:
    """Equal in type and to the last bit."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.tobytes() == b.tobytes()
    if isinstance(a, tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, float):
        return struct.pack("<d", a) == struct.pack("<d", b)
    return bool(a == b)


def bodies(kind: str) -> st.SearchStrategy[Any]:
    fields = [VALUES[annotation(kind, k)] for k in range(len(BODIES[kind].__annotations__))]
    return st.tuples(*fields).map(lambda values: BODIES[kind](*values))


envelopes = st.builds(
    Envelope,
    st.text(),
    st.text(),
    counts,
    counts,
    counts,
    counts,
    counts,
    st.sampled_from(sorted(BODIES)).flatmap(bodies),
)


def test_examples_cover_every_kind() -> None:
    assert {kind: type(body) for kind, body in EXAMPLES.items()} == BODIES


@settings(max_examples=400, deadline=None)
@given(envelopes)
def test_every_message_comes_back_to_the_bit(message: Envelope) -> None:
    assert same(decode(encode(message)), message)


@pytest.mark.parametrize("value", [0.1, -0.0, 5e-324, 1.7976931348623157e308, 1.0 + 2**-52])
def test_float64_is_exact(value: float) -> None:
    body = decode(encode(envelope(Peer((value,))))).body
    assert struct.pack("<d", body.values[0]) == struct.pack("<d", value)


def test_nan_of_a_dead_bus_comes_back_as_nan() -> None:
    network = EXAMPLES["network"]
    back = decode(encode(envelope(network))).body
    assert back.vm_pu.tobytes() == network.vm_pu.tobytes()
    assert np.isnan(back.vm_pu).tolist() == [False, True, False]


def test_a_strided_array_comes_back_in_order() -> None:
    body = Report(0.0, (), np.arange(6.0)[::2])
    assert decode(encode(envelope(body))).body.observation.tolist() == [0.0, 2.0, 4.0]


def test_observation_keeps_single_precision() -> None:
    assert decode(encode(envelope(EXAMPLES["report"]))).body.observation.dtype == np.float32


def test_a_big_endian_array_comes_back_with_its_values() -> None:
    body = Report(0.0, (), np.array([1.0, 2.0], dtype=">f8"))
    assert decode(encode(envelope(body))).body.observation.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("kind", EXAMPLES)
def test_the_frame_built_by_hand_is_the_message(kind: str) -> None:
    # The other tests of refusal change one thing in this frame; unchanged, it must be accepted.
    assert same(decode(pack(frame(kind))), envelope(EXAMPLES[kind]))


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [0, 1, VERSION - 1, VERSION + 1, -1, str(VERSION), None, [VERSION]])
def test_another_version_is_refused(version: Any) -> None:
    with pytest.raises(MessageError, match="version"):
        decode(pack(frame("reset", version=version)))


@pytest.mark.parametrize("version", [np.zeros(2), np.zeros(0)])
def test_an_array_as_version_is_refused(version: Any) -> None:
    with pytest.raises(MessageError):
        decode(pack(frame("reset", version=version)))


@pytest.mark.parametrize("kind", ["resett", "", "Reset", 1, None, ["reset"], {"reset": 1}, np.zeros(2)])
def test_an_unknown_kind_is_refused(kind: Any) -> None:
    raw = frame("reset")
    raw[1] = kind
    with pytest.raises(MessageError, match=r"kind|malformed"):
        decode(pack(raw))


@pytest.mark.parametrize("kind", EXAMPLES)
def test_a_wrong_number_of_fields_is_refused(kind: str) -> None:
    body = list(EXAMPLES[kind])
    with pytest.raises(MessageError, match=f"{kind} takes {len(body)} fields"):
        decode(pack(frame(kind, [*body, 1])))
    if body:
        with pytest.raises(MessageError, match="fields"):
            decode(pack(frame(kind, body[:-1])))


@pytest.mark.parametrize("length", [0, 1, 9, 11])
def test_a_wrong_number_of_envelope_entries_is_refused(length: int) -> None:
    raw = (frame("reset") * 2)[:length]
    with pytest.raises(MessageError, match="malformed"):
        decode(pack(raw))


@pytest.mark.parametrize("ten", [b"\x01" * 10, "1" * 10, np.ones(10), dict.fromkeys("0123456789", 1)])
def test_ten_of_something_else_are_no_envelope(ten: Any) -> None:
    with pytest.raises(MessageError):
        decode(pack(ten))


@pytest.mark.parametrize(("kind", "k"), FIELDS)
def test_a_field_of_the_wrong_type_or_not_finite_is_refused(kind: str, k: int) -> None:
    for value in WRONG[annotation(kind, k)]:
        body = list(EXAMPLES[kind])
        body[k] = value
        with pytest.raises(
            MessageError, match=f"(field|sizes) of {kind}|an item|counts of a link|table|within|setpoint takes"
        ):
            decode(pack(frame(kind, body)))


def test_sizes_beyond_what_was_measured_are_refused() -> None:
    body = EXAMPLES["network"]._replace(sizes=(3, 1, 1))
    with pytest.raises(MessageError, match="sizes of network"):
        decode(encode(envelope(body)))


def test_an_integer_where_a_float_is_expected_is_refused() -> None:
    with pytest.raises(MessageError):
        decode(pack(frame("peer", [[1]])))
    assert decode(pack(frame("peer", [[1.0], 0, 0]))).body == Peer((1.0,))


@pytest.mark.parametrize("place", range(2, 9))
def test_a_wrong_envelope_entry_is_refused(place: int) -> None:
    for value in WRONG["str" if place < 4 else "int"]:
        raw = frame("reset")
        raw[place] = value
        with pytest.raises(MessageError, match="envelope"):
            decode(pack(raw))


def test_a_nan_in_an_observation_is_refused() -> None:
    body = Report(0.0, (), np.array([0.0, NAN], dtype=np.float32))
    with pytest.raises(MessageError, match="report"):
        decode(encode(envelope(body)))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",  # the one byte that MessagePack never uses
        b"hello",
        b"\x93\x01",
        b"\xdd\xff\xff\xff\xff",  # an array of 2^32 - 1 entries
        b"\x81\xc0\xc0",
        msgpack.packb({"version": 1}),
        msgpack.packb(1),
        b"\x91" * 100_000,  # nested too deep
    ],
)
def test_bytes_that_are_no_message_are_refused(data: bytes) -> None:
    with pytest.raises(MessageError):
        decode(data)


@pytest.mark.parametrize(
    "extension",
    [
        msgpack.ExtType(1, b"1234567"),  # not a multiple of 8 bytes
        msgpack.ExtType(2, b"123"),
        msgpack.ExtType(0, bytes(8)),
        msgpack.ExtType(3, bytes(8)),
        msgpack.Timestamp(1, 2),
    ],
)
def test_another_extension_is_refused(extension: Any) -> None:
    with pytest.raises(MessageError):
        decode(msgpack.packb(frame("report", [0.0, [], extension])))


@pytest.mark.parametrize("kind", EXAMPLES)
def test_a_message_cut_short_anywhere_is_refused(kind: str) -> None:
    data = encode(envelope(EXAMPLES[kind]))
    for length in range(len(data)):
        with pytest.raises(MessageError):
            decode(data[:length])


def test_a_message_with_something_behind_it_is_refused() -> None:
    data = encode(envelope(Reset(1)))
    with pytest.raises(MessageError):
        decode(data + b"\x00")


def test_one_mebibyte_passes_and_one_byte_more_is_refused() -> None:
    empty = len(encode(envelope(Failure("mg_1", 1, "", "x" * 70_000)))) - 70_000
    fits = envelope(Failure("mg_1", 1, "", "x" * (MAX_BYTES - empty)))
    assert MAX_BYTES == 1024 * 1024
    assert len(encode(fits)) == MAX_BYTES
    assert decode(encode(fits)) == fits
    longer = fits._replace(body=Failure("mg_1", 1, "", "x" * (MAX_BYTES - empty + 1)))
    with pytest.raises(MessageError, match="1048577 bytes"):
        encode(longer)
    with pytest.raises(MessageError, match="oversize"):
        decode(pack(frame("failure", longer.body)))


@pytest.mark.parametrize(
    "body",
    [
        Peer((np.float32(1.0),)),  # type: ignore[arg-type]
        Peer((1j,)),  # type: ignore[arg-type]
        Reset(2**64),
        Reset({1, 2}),  # type: ignore[arg-type]
        Failure("mg_1", 1, "\ud800", ""),
        Report(0.0, (), np.zeros((2, 2))),
        Report(0.0, (), np.zeros(2, dtype=np.int64)),
        Report(0.0, (), np.zeros(2, dtype=complex)),
    ],
)
def test_a_value_without_place_in_a_message_cannot_be_encoded(body: Any) -> None:
    with pytest.raises(MessageError, match=type(body).__name__):
        encode(envelope(body))


def test_something_that_is_no_body_cannot_be_encoded() -> None:
    with pytest.raises(MessageError):
        encode(envelope((1.0,)))


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(MessageError):
        decode(data)


@settings(max_examples=1000, deadline=None)
@given(st.sampled_from(sorted(EXAMPLES)), st.data())
def test_a_damaged_message_is_decoded_or_refused_and_nothing_else(kind: str, data: st.DataObject) -> None:
    damaged = bytearray(encode(envelope(EXAMPLES[kind])))
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        message = decode(bytes(damaged))
    except MessageError:
        return
    assert type(message) is Envelope
    assert type(message.body) in BODIES.values()
    numbers = [x for x in message.body if isinstance(x, float)]
    assert all(math.isfinite(x) for x in numbers)


# ---- channels -------------------------------------------------------------------------------------------------------


def test_a_channel_is_kind_and_address_with_a_slash_behind() -> None:
    assert channel("setpoint", "mg_1.dg_1") == "setpoint/mg_1.dg_1/"


def test_mg_1_does_not_hear_mg_10() -> None:
    for short, long in pairwise(["mg_1", "mg_10", "mg_100"]):
        assert not channel("action", long).startswith(channel("action", short))


ids = st.from_regex(r"[a-z]{1,3}_[0-9]{1,3}(\.[a-z][a-z0-9_]{0,4})?", fullmatch=True)


@given(st.sampled_from(sorted(BODIES)), st.sampled_from(sorted(BODIES)), ids, ids)
def test_no_channel_is_the_beginning_of_another(kind: str, other_kind: str, one: str, other: str) -> None:
    if (kind, one) != (other_kind, other):
        assert not channel(other_kind, other).startswith(channel(kind, one))
