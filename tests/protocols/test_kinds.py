"""A kind of one's own has to say how many rounds it talks."""

from __future__ import annotations

from typing import Any

import pytest

from zgrid.errors import UnknownNameError
from zgrid.protocols import Inbox, Local, Outbox, Protocol, ProtocolConfig, Result, horizontal_class


class Wordless(Protocol):
    """Its config has no rounds."""

    Config: Any = ProtocolConfig

    def start(self, step: int, local: Local) -> Outbox:
        return {}

    def on_round(self, round: int, inbox: Inbox) -> Outbox:
        return {}

    def result(self) -> Result:
        return Result()


def test_a_config_without_rounds_is_refused_by_name() -> None:
    with pytest.raises(UnknownNameError, match=r"test_kinds:Wordless.*RoundsConfig"):
        horizontal_class("test_kinds:Wordless")
