"""A measured figure beside its yardstick and its target, and how they are printed."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    """One line of the table. Texts hold their units; `runs` is how many runs the medians are of."""

    what: str
    ours: str
    yardstick: str
    ratio: str
    target: str
    runs: int
    passed: bool


HEAD = ("measured", "lbctl", "yardstick", "ratio", "target", "runs", "")


def median(values: Sequence[float]) -> float:
    """The median of the runs. Raises statistics.StatisticsError if there is none."""
    return statistics.median(values)


def per_second(value: float) -> str:
    return f"{value:,.0f}/s".replace(",", " ")


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


def table(results: Sequence[Result]) -> str:
    """The results as a Markdown table with aligned columns."""
    rows = [HEAD, *((r.what, r.ours, r.yardstick, r.ratio, r.target, str(r.runs), "PASS" if r.passed else "FAIL")
                    for r in results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)
