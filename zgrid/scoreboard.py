"""What an evaluation shows on a terminal: how far it is, and then its tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

_KPIS = {
    "ramping_mw": ("ramping\nMW/day", "{:.2f}"),
    "one_minus_load_factor": ("1 - load\nfactor", "{:.2f}"),
    "average_daily_peak_mw": ("daily peak\nMW", "{:.2f}"),
    "all_time_peak_mw": ("peak\nMW", "{:.2f}"),
    "electricity_consumption_mwh": ("taken\nMWh/day", "{:.1f}"),
    "zero_net_energy_mwh": ("net\nMWh/day", "{:.1f}"),
}
_NONE = "-"
_WIDTH = 110
"""Columns where the output is no terminal."""


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A bar per policy on standard error where that is a terminal; call it with the policy, days played, and days in
    all."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bars:
        tasks: dict[str, Any] = {}

        def show(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total)
            bars.update(tasks[name], completed=done)

        yield show


def print_tables(summary: Mapping[str, Any]) -> None:
    """Print returns and voltages, costs, and KPIs of the policies, best return first."""
    console = Console()
    console = console if console.is_terminal else Console(width=_WIDTH)
    policies = dict(sorted(summary["policies"].items(), key=lambda item: -item[1]["return"]["mean"]))
    n_days = len(summary["days"])
    title = f"{summary['topology']}: {n_days} day{'s' if n_days != 1 else ''} of the split {summary['split']}, " \
            f"seed {summary['seed']}; mean with its 95 % interval"  # fmt: skip
    for table in (_returns(title, policies), _costs(policies), _kpis(policies)):
        console.print(table)
        console.print()
    console.print(_optimum(summary["optimum"]), highlight=False)


def _optimum(found: Mapping[str, Any]) -> str:
    """How the optimum is to be read, or why there is none."""
    if "missing" in found:
        return f"no optimum: {found['missing']}"
    proven = "no bound is known (negative prices, or a network that does more than lose power)"
    if found["bound_gap"] is not None:
        proven = f"no plan can earn {found['bound_gap']:,.2f} $/day ({found['bound_gap_percent']:.2f} %) more"
    return (
        f"optimum: the best plan found with every hour of the day known beforehand; what it earns when it is played. "
        f"Its last linear models promised {found['gap']:,.2f} $/day ({found['gap_percent']:.3f} %) more, without a "
        f"trust region {found['gap_anywhere']:,.2f} ({found['gap_anywhere_percent']:.2f} %); proven: {proven}."
    )


def _returns(title: str, policies: Mapping[str, Any]) -> Table:
    headings = ("return\n$/day", "over rule_based\n$/day", "score", "outside\nlimits", "by\npu", "diverged\nsteps")
    table = _table(title, headings)
    for name, figures in policies.items():
        table.add_row(
            name,
            _interval(figures["return"]),
            _interval(figures["versus_rule_based"]),
            _number(figures["score"], "{:.3f}"),
            _number(figures["violation_percent"], "{:.1f} %"),
            _number(figures["mean_excursion_pu"], "{:.4f}"),
            str(figures["diverged_steps"]),
        )
    return table


def _costs(policies: Mapping[str, Any]) -> Table:
    """A column for each cost that any policy has."""
    terms = [
        term
        for term in dict.fromkeys(term for figures in policies.values() for term in figures["costs"])
        if any(abs(figures["costs"].get(term, 0.0)) >= 0.005 for figures in policies.values())
    ]
    table = _table("Costs, $/day", [term.removesuffix("_cost").replace("_", "\n") for term in terms])
    for name, figures in policies.items():
        table.add_row(name, *(f"{figures['costs'].get(term, 0.0):,.2f}" for term in terms))
    return table


def _kpis(policies: Mapping[str, Any]) -> Table:
    table = _table("Net import of all grids, in brackets over that of idle", [heading for heading, _ in _KPIS.values()])
    for name, figures in policies.items():
        values, shares = figures["kpis"]["all"], figures["kpis_over_idle"]["all"]
        cells = [f"{_number(values[key], text)} ({_number(shares[key], '{:.2f}')})" for key, (_, text) in _KPIS.items()]
        table.add_row(name, *cells)
    return table


def _table(title: str, headings: Any) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 1), pad_edge=False)
    table.add_column("")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _interval(found: Mapping[str, float] | None) -> str:
    """A mean and half the width of its interval."""
    if found is None:
        return _NONE
    half = _NONE if found["high"] is None else f"{found['high'] - found['mean']:,.0f}"
    return f"{found['mean']:,.0f} ± {half}"


def _number(value: float | None, text: str) -> str:
    return _NONE if value is None else text.format(value)
