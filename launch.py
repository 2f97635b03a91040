"""Play a topology: ``python launch.py topologies/3mg.yaml``."""

from __future__ import annotations

import sys

from zgrid.cli import launch_main

if __name__ == "__main__":
    sys.exit(launch_main())
