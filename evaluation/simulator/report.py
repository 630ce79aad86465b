"""A simulated day in figures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evaluation.measuring.record import Row, Table, figure
from evaluation.simulator.day import Record

LOAD_COLUMNS = ("relative load of the most loaded LB", "mean", "95 % of the time", "highest", "above 1")


def loads(record: Record) -> Table:
    """The highest relative loads over the day, with each way of assigning and beside what no assignment can beat."""
    lines = (
        ("static", record.static),
        ("automatic", record.automatic),
        ("lower bound of any assignment, every 5 minutes", record.bound),
        ("fair (all loads by all capacities in use)", record.fair),
    )
    return Table(columns=LOAD_COLUMNS, rows=tuple(_load(name, values) for name, values in lines))


def rebalancing(record: Record) -> Table:
    """What rebalancing has done."""
    tally, hours = record.tally, (record.at[-1] - record.at[0]) / 3600
    times = [plan.took for plan in tally.plans] or [0.0]
    gaps = [plan.after / plan.bound - 1 for plan in tally.plans if plan.bound] or [0.0]
    ends = ", ".join(f"{count} {how}" for how, count in tally.runs.most_common()) or "none"
    rows = (
        _row("plans computed", str(len(tally.plans)), "", [len(tally.plans)]),
        _row("plans carried out", f"{sum(tally.runs.values())} ({ends})", "", [sum(tally.runs.values())]),
        _row("planning time", f"{np.median(times):.2f} s median, {max(times):.2f} s longest", "s", times),
        _row(
            "highest load planned, above the bound",
            f"{np.median(gaps):.1%} median, {max(gaps):.1%} largest",
            "share",
            gaps,
        ),
        _row("moves", f"{tally.moves}, {tally.moves / hours:.0f} an hour", "", [tally.moves]),
        _row("entries copied by them", str(tally.entries), "", [tally.entries]),
        _row("LBs failed", str(tally.failures), "", [tally.failures]),
    )
    return Table(columns=("rebalancing", ""), rows=rows)


def _load(name: str, values: Sequence[float]) -> Row:
    mean, most, highest = float(np.mean(values)), float(np.quantile(values, 0.95)), max(values)
    above = float(np.mean(np.array(values) > 1))
    figures = {"mean": mean, "95 %": most, "highest": highest, "above 1": above}
    return Row(
        cells=(name, f"{mean:.3f}", f"{most:.3f}", f"{highest:.3f}", f"{above:.1%} of the time"),
        figures={what: figure("", [value]) for what, value in figures.items()},
    )


def _row(name: str, shown: str, unit: str, values: Sequence[float]) -> Row:
    return Row(cells=(name, shown), figures={name: figure(unit, values)})
