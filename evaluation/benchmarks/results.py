"""A measured figure beside its yardstick and its target, and how they are printed."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    """One line of the table. Texts hold their units; the medians are of so many `runs`.

    `others`: the largest share of the machine's CPU time (0 to 1) that other work took in one of them.
    """

    what: str
    ours: str
    yardstick: str
    ratio: str
    target: str
    runs: int
    others: float
    passed: bool


HEAD = ("measured", "lbctl", "yardstick", "ratio", "target", "runs", "others", "")


def median(values: Sequence[float]) -> float:
    """The median of the runs. Raises statistics.StatisticsError if there is none."""
    return statistics.median(values)


def per_second(value: float) -> str:
    return f"{value:,.0f}/s".replace(",", " ")


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


def table(results: Sequence[Result]) -> str:
    """The results as a Markdown table with aligned columns."""
    rows = [HEAD, *(_cells(result) for result in results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _cells(result: Result) -> tuple[str, ...]:
    verdict = "PASS" if result.passed else "FAIL"
    figures = (result.what, result.ours, result.yardstick, result.ratio, result.target)
    return *figures, str(result.runs), f"{result.others:.0%}", verdict
