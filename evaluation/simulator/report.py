"""A simulated day in figures."""

from __future__ import annotations

import numpy as np

from evaluation.simulator.day import Record


def table(record: Record) -> str:
    """Two Markdown tables: the loads, and what the rebalancing did."""
    rows = [f"| {name} | {np.mean(values):.3f} | {np.quantile(values, 0.95):.3f} | {max(values):.3f} | {_full(values)} |"
            for name, values in (("static", record.static), ("automatic", record.automatic), ("lower bound", record.bound),
                                 ("fair", record.fair))]
    head = ["| relative load of the most loaded LB | mean | 95 % of the time | highest | above 1 |", "|---|---|---|---|---|"]
    return "\n".join([*head, *rows, "", *_work(record)])


def _full(values: list[float]) -> str:
    return f"{np.mean(np.array(values) > 1):.1%} of the time"


def _work(record: Record) -> list[str]:
    tally, hours = record.tally, (record.at[-1] - record.at[0]) / 3600
    times = [took for _, took, *_ in tally.plans] or [0.0]
    gaps = [after / bound - 1 for _, _, _, _, after, bound in tally.plans if bound] or [0.0]
    ends = ", ".join(f"{count} {how}" for how, count in tally.runs.most_common())
    rows = [("plans computed", str(len(tally.plans))), ("plans carried out", f"{sum(tally.runs.values())} ({ends})"),
            ("planning time", f"{np.median(times):.2f} s median, {max(times):.2f} s longest"),
            ("highest load planned, above the bound", f"{np.median(gaps):.1%} median, {max(gaps):.1%} largest"),
            ("moves", f"{tally.moves}, {tally.moves / hours:.0f} an hour"), ("entries copied by them", str(tally.entries)),
            ("LBs failed", str(tally.failures))]
    return ["| rebalancing | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]
