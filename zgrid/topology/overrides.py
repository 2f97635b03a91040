"""Overrides from a command line: ``--set key=value``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from zgrid.errors import Finding, TopologyError


def parse_overrides(settings: Sequence[str]) -> dict[str, Any]:
    """Dotted keys and their values, which are read as YAML.

    Raises:
        TopologyError: a setting that is not KEY=VALUE.
    """
    overrides: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not (key and equals):
            raise TopologyError("--set", [Finding(setting, "expected KEY=VALUE")])
        try:
            overrides[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise TopologyError("--set", [Finding(key, f"not YAML: {error}")]) from error
    return overrides
