"""The study file: what is varied, over which seeds, and what the variants are compared with."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

from zgrid.studies.case import ProtocolPart

Label: TypeAlias = bool | int | float | str
"""What a value of a knob is called: a number, a word, true or false."""

RESERVED = frozenset({"run", "seed", "status", "error"})
"""Columns of the rows that no knob may be called."""


class Setting(BaseModel):
    """A value of a knob that sets several keys, or a list or a section, and so needs a name."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    label: Label
    set: Mapping[str, Any] = Field(min_length=1, description="dotted key -> value")


class Knob(BaseModel):
    """What is varied: a dotted key, or several that take the same value, and its values."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    key: str | tuple[str, ...] | None = Field(
        None, description="dotted key of the topology, or of the section protocol; or several. Not for labelled values"
    )
    values: tuple[Label | Setting, ...] = Field(min_length=1)
    unit: str = Field("", description="for pictures")

    @model_validator(mode="after")
    def _fits(self) -> Knob:
        plain = [value for value in self.values if not isinstance(value, Setting)]
        if plain and self.key is None:
            raise ValueError(f"the value {plain[0]!r} has no key; expected key, or values with label and set")
        names = [str(label_of(value)) for value in self.values]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"values: {', '.join(twice)} more than once")
        return self

    def overrides(self, value: Label | Setting) -> dict[str, Any]:
        """The dotted keys that a value sets."""
        if isinstance(value, Setting):
            return dict(value.set)
        keys = (self.key,) if isinstance(self.key, str) else self.key or ()
        return dict.fromkeys(keys, value)


def label_of(value: Label | Setting) -> Label:
    """What a value is called in tables and pictures."""
    return value.label if isinstance(value, Setting) else value


class Run(NamedTuple):
    """One run: its place in the study, knob -> label, the dotted keys that are set, and its seed."""

    number: int
    labels: Mapping[str, Label]
    overrides: Mapping[str, Any]
    seed: int

    @property
    def text(self) -> str:
        """What it is, for a person."""
        return ", ".join([*(f"{knob}={label}" for knob, label in self.labels.items()), f"seed={self.seed}"])


class Study(BaseModel):
    """A study: every combination of the knobs' values with every seed, in an environment or of a protocol alone."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    topology: str | None = Field(None, description="topology file, beside the study, or the name of one that ships")
    protocol: ProtocolPart | None = Field(None, description="instead: a protocol alone, without physics")
    set: Mapping[str, Any] = Field({}, description="dotted key -> value, in all runs")
    knobs: Mapping[str, Knob] = Field({}, description="name -> what is varied; all combinations are run")
    seeds: Annotated[int, Field(ge=1, le=10_000)] | tuple[Annotated[int, Field(ge=0)], ...] = Field(
        10, description="how many, from 0 on, or which"
    )
    episodes: int = Field(1, ge=1, description="of each run in an environment")
    steps: int | None = Field(None, ge=1, description="most steps of each run in an environment")
    reference: Mapping[str, Label] = Field(
        {}, description="knob -> value: every combination is compared, seed by seed, with the one that has these"
    )
    tolerance: float = Field(1e-6, gt=0, description="residual at which a protocol alone counts as settled")
    curves: bool = Field(False, description="protocol alone: keep the residuals of every round of the first seed")

    @model_validator(mode="after")
    def _fits(self) -> Study:
        if (self.topology is None) == (self.protocol is None):
            raise ValueError("expected one of topology and protocol")
        if self.topology is not None and self.curves:
            raise ValueError("curves are those of a protocol alone")
        if self.protocol is not None and self.model_fields_set & {"episodes", "steps"}:
            raise ValueError("episodes and steps are those of an environment; a protocol alone plays one step")
        bad = sorted(name for name in self.knobs if name in RESERVED or not name.isidentifier())
        if bad:
            raise ValueError(f"knobs: {', '.join(bad)}: expected a word other than {', '.join(sorted(RESERVED))}")
        if not self.seeds or len({*self.seed_list}) != len(self.seed_list):
            raise ValueError("seeds: expected at least one, none twice")
        for knob, label in self.reference.items():
            self._check_reference(knob, label)
        return self

    def _check_reference(self, knob: str, label: Label) -> None:
        if knob not in self.knobs:
            raise ValueError(f"reference.{knob}: no such knob; there are {', '.join(self.knobs) or 'none'}")
        known = [label_of(value) for value in self.knobs[knob].values]
        if str(label) not in map(str, known):
            raise ValueError(f"reference.{knob}: {label!r} is none of its values {', '.join(map(str, known))}")

    @property
    def seed_list(self) -> tuple[int, ...]:
        """The seeds, one by one."""
        return tuple(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds

    def combinations(self) -> list[tuple[dict[str, Label], dict[str, Any]]]:
        """(knob -> label, dotted key -> value) of every combination; the last knob changes first."""
        found = []
        for values in itertools.product(*(knob.values for knob in self.knobs.values())):
            overrides = dict(self.set)
            for knob, value in zip(self.knobs.values(), values, strict=True):
                overrides |= knob.overrides(value)
            found.append((dict(zip(self.knobs, map(label_of, values), strict=True)), overrides))
        return found

    def runs(self) -> list[Run]:
        """All runs in their order: by combination, then by seed."""
        pairs = itertools.product(self.combinations(), self.seed_list)
        return [Run(k, labels, overrides, seed) for k, ((labels, overrides), seed) in enumerate(pairs)]
