"""What one rule does to the messages of one link."""

from __future__ import annotations

from typing import Any

from zgrid.links.config import LinkConfig
from zgrid.links.delays import quantile
from zgrid.links.draws import BURST, CHAIN, DELAY, DUPLICATE, JITTER, LOSS, REORDER, START, Draws
from zgrid.links.tamper import falsify


class Passage:
    """A rule at work on one link. ``tick`` is the period of a message: its round among peers, else its step."""

    def __init__(self, index: int, rule: LinkConfig, ends: tuple[str, str], draws: Draws, dt_h: float) -> None:
        """``index`` is the rule's place in the topology; rules at different places draw independently."""
        self.rule = rule
        self._index, self._draws, self._dt_h = index, draws, dt_h
        self._severed = rule.denial or rule.severs(*ends)
        chain = rule.gilbert_elliott
        self._bad = chain is not None and draws.uniform(0, 0, index, START) < chain.bad_share
        self._free_at = 0.0

    def active(self, step: int) -> bool:
        """Whether it acts in a step."""
        return self.rule.active(step, self._dt_h)

    def clear(self) -> None:
        """Nothing queues any more."""
        self._free_at = 0.0

    def move_on(self, step: int, round: int) -> None:
        """A period more: move the chain of bursts on, whether or not something is said."""
        chain = self.rule.gilbert_elliott
        if chain is not None:
            leaves = self._draw(step, round, CHAIN) < (chain.p_bg if self._bad else chain.p_gb)
            self._bad = self._bad != leaves

    def tampered(self, body: Any, step: int, round: int, former: Any) -> tuple[Any, bool]:
        """What an attack makes of a message, and whether there is one; ``former`` is what a replay says instead, None
        where there is no such."""
        rule, hit = self.rule, self.rule.denial
        if former is not None:
            body, hit = former, True
        if rule.false_data is not None:
            body, hit = falsify(body, rule.false_data, round or step - rule.first(self._dt_h) + 1), True
        return body, hit

    def loses(self, step: int, round: int, copy: int = 0) -> bool:
        """Whether the message is lost on the way; ``copy`` tells several of a round apart, here and below."""
        rule, chain = self.rule, self.rule.gilbert_elliott
        if self._severed or any(first <= step <= last for first, last in rule.outages):
            return True
        if rule.loss and self._draw(step, round, LOSS, copy) < rule.loss:
            return True
        loss = 0.0 if chain is None else chain.loss_bad if self._bad else chain.loss_good
        return loss > 0.0 and self._draw(step, round, BURST, copy) < loss

    def queue(self, at: float) -> float | None:
        """When a message that comes at a time is through the bottleneck, in periods; None: its queue is full."""
        rate, limit = self.rule.rate, self.rule.queue
        if rate is None:
            return at
        begin = max(at, self._free_at)
        if limit is not None and (begin - at) * rate > limit:
            return None
        self._free_at = begin + 1.0 / rate
        return begin

    def doubles(self, step: int, round: int, copy: int = 0) -> bool:
        """Whether the message comes once more."""
        share = self.rule.duplicate
        return share > 0.0 and self._draw(step, round, DUPLICATE, copy) < share

    def delay(self, step: int, round: int, copy: int) -> float:
        """How long the message takes, or another copy of it, in periods, >= 0."""
        rule, time = self.rule, 0.0
        if rule.delay is not None:
            time = quantile(rule.delay, self._draw(step, round, DELAY, copy), round or step)
        if rule.jitter:
            time = max(0.0, time + rule.jitter * (2.0 * self._draw(step, round, JITTER, copy) - 1.0))
        if rule.period_s is not None:
            time /= rule.period_s
        held = rule.reorder and self._draw(step, round, REORDER, copy) < rule.reorder
        return time + 1.0 if held else time

    def _draw(self, step: int, round: int, purpose: int, copy: int = 0) -> float:
        return self._draws.uniform(step, round, self._index, purpose, copy)
