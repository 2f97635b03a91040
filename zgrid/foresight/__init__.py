"""Foresight: the best that a case allows on a day whose every hour is known beforehand."""

from __future__ import annotations

from zgrid.foresight.optimum import Planned, check, plan_day, plan_days
from zgrid.foresight.rehearsal import Rehearsal

__all__ = ["Planned", "Rehearsal", "check", "plan_day", "plan_days"]
