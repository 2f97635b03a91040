"""Rights: what is not granted is denied, a node may probe itself, a watcher hears all and says nothing."""

from __future__ import annotations

import pytest

from zgrid.messaging import Rights

RIGHTS = Rights(
    publish={"env": frozenset(("control/all/",)), "mg_1": frozenset(("report/mg_1/",)), "watch": frozenset(("x/y/",))},
    hear={"mg_1": frozenset(("control/all/",)), "env": frozenset(("report/mg_1/",))},
    watchers=frozenset(("watch",)),
)


@pytest.mark.parametrize(
    ("node", "channel", "granted"),
    [
        ("env", "control/all/", True),
        ("mg_1", "report/mg_1/", True),
        ("mg_1", "control/all/", False),
        ("mg_1", "report/mg_1", False),
        ("mg_1", "report/mg_1/more/", False),
        ("mg_1", "", False),
        ("mg_1", "probe/mg_1/", True),
        ("mg_1", "probe/mg_1/0f3c/", True),
        ("mg_1", "probe/mg_10/", False),
        ("mg_1", "probe/env/", False),
        ("watch", "probe/watch/1/", True),
        ("watch", "control/all/", False),
        ("watch", "x/y/", False),
        ("stranger", "control/all/", False),
        ("stranger", "probe/stranger/", False),
    ],
)
def test_who_may_say_what(node: str, channel: str, granted: bool) -> None:
    assert RIGHTS.may_publish(node, channel) is granted


@pytest.mark.parametrize(
    ("node", "topic", "granted"),
    [
        ("mg_1", "control/all/", True),
        ("mg_1", "control/", False),
        ("mg_1", "", False),
        ("mg_1", "report/mg_1/", False),
        ("mg_1", "probe/mg_1/", True),
        ("mg_1", "probe/", False),
        ("watch", "", True),
        ("watch", "report/mg_1/", True),
        ("stranger", "", False),
        ("stranger", "control/all/", False),
        ("stranger", "probe/stranger/", False),
    ],
)
def test_who_may_hear_what(node: str, topic: str, granted: bool) -> None:
    assert RIGHTS.may_hear(node, topic) is granted


def test_nothing_is_granted_by_default() -> None:
    nothing = Rights({}, {})
    assert not nothing.may_publish("env", "control/all/")
    assert not nothing.may_hear("env", "")
