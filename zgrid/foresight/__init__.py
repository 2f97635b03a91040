"""Foresight: the best that a case allows on a day whose every hour is known beforehand."""

from __future__ import annotations

__all__: list[str] = []
