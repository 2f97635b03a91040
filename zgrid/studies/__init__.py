"""Studies: a topology or a protocol under every combination of some knobs, over seeds, as tables and pictures."""

from __future__ import annotations

from zgrid.studies.config import Knob, Run, Setting, Study
from zgrid.studies.runner import Done, find_study, load_study, run_study
from zgrid.studies.store import knobs_of, read_rows, read_table

__all__ = [
    "Done",
    "Knob",
    "Run",
    "Setting",
    "Study",
    "find_study",
    "knobs_of",
    "load_study",
    "read_rows",
    "read_table",
    "run_study",
]
