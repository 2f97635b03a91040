"""A participant node: one participant of a protocol alone, without physics; ``zgrid.parley`` starts it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from nodes.common import finish_before_others
from zgrid.lifeline import read_topology_line, watch_parent
from zgrid.messaging import Address
from zgrid.participant import Job, attend


def main(argv: Sequence[str] | None = None) -> int:
    """Read the job from standard input, play it, and say what came of it."""
    parser = argparse.ArgumentParser(
        prog="python -m nodes.participant",
        description="One participant of a protocol in a process of its own. The job comes as a line of JSON on "
        "standard input; when that closes, it ends. zgrid.parley.meet() starts it.",
        epilog="example: python -m nodes.participant --connect 127.0.0.1:5555,5556 < job.json",
    )
    parser.add_argument("--connect", metavar="HOST:PORT,PORT", type=Address.parse, required=True, help="the proxy")
    arguments = parser.parse_args(argv)
    job = Job.load(read_topology_line())
    watch_parent()
    if not job.period_s:
        finish_before_others()
    print(attend(job, arguments.connect).dump(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
