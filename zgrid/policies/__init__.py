"""Policies a grid can run by itself. To add one: write a file beside these, and a line in ``POLICIES``."""

from __future__ import annotations

from typing import Any

from zgrid.policies.base import Actor, GridView, Policy, PolicyConfig, Spaces
from zgrid.registry import resolve_class

__all__ = ["POLICIES", "Actor", "GridView", "Policy", "PolicyConfig", "Spaces", "policy_class"]

POLICIES = {
    "idle": "zgrid.policies.idle:Idle",
    "onnx": "zgrid.policies.onnx:Onnx",
    "random": "zgrid.policies.random:Random",
    "rule_based": "zgrid.policies.rule_based:RuleBased",
}


def policy_class(kind: str) -> Any:
    """The :class:`Policy` subclass of a kind.

    Raises:
        UnknownNameError: no such kind.
    """
    return resolve_class("policy", kind, POLICIES, Policy)
