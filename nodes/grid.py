"""A grid node: one GridAgent in a process of its own."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from nodes.common import agent_main


def main(argv: Sequence[str] | None = None) -> int:
    """Run the node until the env says that the run is over."""
    return agent_main("grid", "mg_1", argv)


if __name__ == "__main__":
    sys.exit(main())
