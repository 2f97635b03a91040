"""Every exception zgrid raises says what and where, keeps its values, and travels between processes."""

from __future__ import annotations

import builtins
import copy
import pickle
import re

import pytest

from zgrid import errors
from zgrid.errors import (
    ActionError,
    AgentError,
    BrokerError,
    CheckpointError,
    Finding,
    ForesightError,
    KeyFileError,
    LostMessageError,
    MessageError,
    MissingExtraError,
    NetworkError,
    NodeDiedError,
    NodeSilentError,
    ProfileError,
    RecordingError,
    RefusedError,
    StartTimeout,
    StepTimeout,
    StudyError,
    TopologyError,
    UnknownNameError,
    ZgridError,
)

EXAMPLES = [
    TopologyError("3mg.yaml", [Finding("grids.mg_1.devices.dg_1.bus", "unknown bus '99'"), Finding("dt_h", "missing")]),
    UnknownNameError("unknown device kind 'x'"),
    MissingExtraError("pip install zgrid[plot]"),
    CheckpointError("runs/mappo: no checkpoint of zgrid"),
    ProfileError("load.csv: no series 'x'"),
    NetworkError("mg_1: no bus 99"),
    ForesightError("grids.mg_1.devices.t_1: kind 'tap_changer'"),
    ActionError("mg_1: expected 3 entries"),
    MessageError("version: 2, expected 1"),
    StudyError("runs/delay: another study"),
    RecordingError("run.zrec is no recording of zgrid"),
    BrokerError("the broker is closed"),
    RefusedError("mg_1", "90b1d5c2a1f0e3d4", "127.0.0.1:1,2", "the proxy refuses this key", "it was revoked"),
    KeyFileError("keys: mg_1 has a key already"),
    LostMessageError("mg_1", "report/mg_1/", 4, 6),
    StartTimeout({"mg_1.dg_1": "it never answered the roll call"}, 60.0),
    StepTimeout(7, "state", ["mg_1.dg_1", "mg_2.pv_1"], 30.04),
    AgentError("mg_1.dg_1", 3, "ValueError: no", "Traceback (most recent call last): ..."),
    NodeDiedError("mg_1.dg_1", -9, "last words"),
    NodeSilentError("pool_1", ["mg_1.dg_1", "mg_1"], "nothing was heard of it for 1.5 s", "last words"),
]


def subclasses(base: type) -> set[type]:
    """A class of zgrid and all that derive from it; tests may define their own."""
    return {base}.union(*(subclasses(one) for one in base.__subclasses__() if one.__module__.startswith("zgrid")))


def drawn_tree() -> dict[str, str]:
    """Exception name to the builtin it stands beside, as drawn at the top of the module."""
    assert errors.__doc__ is not None
    return dict(re.findall(r"[├└]── (\w+) \((\w+)\)", errors.__doc__))


def test_the_examples_cover_every_exception() -> None:
    assert {type(error) for error in EXAMPLES} == subclasses(ZgridError) - {ZgridError}


def test_the_drawing_names_every_exception() -> None:
    assert set(drawn_tree()) == {one.__name__ for one in subclasses(ZgridError)} - {"ZgridError"}


@pytest.mark.parametrize(("name", "builtin"), drawn_tree().items())
def test_each_exception_is_the_builtin_it_is_drawn_with(name: str, builtin: str) -> None:
    found = getattr(errors, name)
    assert issubclass(found, ZgridError)
    assert issubclass(found, getattr(builtins, builtin))


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_exception_survives_a_pickle(error: ZgridError) -> None:
    for back in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(back) is type(error)
        assert str(back) == str(error)
        assert vars(back) == vars(error)


def test_a_topology_error_lists_every_finding_with_its_path() -> None:
    assert str(EXAMPLES[0]) == (
        "3mg.yaml: 2 findings\n  grids.mg_1.devices.dg_1.bus: unknown bus '99'\n  dt_h: missing"
    )
    assert str(TopologyError("a.yaml", [Finding("x", "y")])) == "a.yaml: 1 finding\n  x: y"


def test_a_lost_message_says_whose_where_and_which() -> None:
    error = LostMessageError("mg_1", "report/mg_1/", 4, 6)
    assert str(error) == "lost message: mg_1 on report/mg_1/: expected sequence 4, got 6"
    assert (error.sender, error.channel, error.expected, error.got) == ("mg_1", "report/mg_1/", 4, 6)


def test_a_start_timeout_says_who_is_missing_and_why() -> None:
    error = StartTimeout({"mg_1": "exited", "mg_2": "silent"}, 60.0)
    assert "after 60.0 s" in str(error)
    assert str(error).endswith("\n  mg_1: exited\n  mg_2: silent")
    assert error.missing == {"mg_1": "exited", "mg_2": "silent"}


def test_a_step_timeout_says_step_kind_and_who_is_missing() -> None:
    error = StepTimeout(7, "state", ["mg_1.dg_1", "mg_2.pv_1"], 30.04)
    assert str(error) == "step 7: no state from mg_1.dg_1, mg_2.pv_1 after 30.0 s"
    assert (error.step, error.kind, error.missing) == (7, "state", ("mg_1.dg_1", "mg_2.pv_1"))


def test_an_agent_error_carries_the_remote_traceback() -> None:
    error = AgentError("mg_1.dg_1", 3, "ValueError: no", "Traceback: line 5")
    assert str(error).startswith("agent mg_1.dg_1 failed at step 3: ValueError: no\n")
    assert "Traceback: line 5" in str(error)


@pytest.mark.parametrize(
    ("exit_code", "lines", "text"),
    [
        (-9, "bye", "node env killed by signal 9; its last lines:\nbye"),
        (3, "", "node env exited with code 3; it wrote nothing"),
    ],
)
def test_a_dead_node_says_how_it_died_and_what_it_said_last(exit_code: int, lines: str, text: str) -> None:
    assert str(NodeDiedError("env", exit_code, lines)) == text


@pytest.mark.parametrize(
    ("agents", "lines", "text"),
    [
        (["mg_1"], "", "node mg_1: it hangs"),
        ([], "", "node mg_1: it hangs"),
        (["mg_1.dg_1", "mg_1"], "", "node mg_1 (agents mg_1.dg_1, mg_1): it hangs"),
        (["mg_1"], "bye", "node mg_1: it hangs; its last lines:\nbye"),
    ],
)
def test_a_silent_node_says_whom_it_hosts_and_why_it_is_taken_for_failed(
    agents: list[str], lines: str, text: str
) -> None:
    error = NodeSilentError("mg_1", agents, "it hangs", lines)
    assert str(error) == text
    assert (error.node, error.agents, error.cause, error.last_lines) == ("mg_1", tuple(agents), "it hangs", lines)


@pytest.mark.parametrize(
    ("fingerprint", "who"), [("90b1d5c2a1f0e3d4", "mg_1 (key 90b1d5c2a1f0e3d4)"), ("", "a node without keys")]
)
def test_a_refusal_says_who_where_why_and_what_to_do(fingerprint: str, who: str) -> None:
    error = RefusedError("mg_1", fingerprint, "127.0.0.1:1,2", "no key", "the folder is not named")
    assert str(error) == f"{who} cannot connect to the proxy at 127.0.0.1:1,2: no key; likely the folder is not named"
