"""What a run hands over: tables with the figures that they were made of; and how figures are written."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from evaluation.measuring.record import Figure, Row, Table

RESULTS = "results"
"""The name of a benchmark's table of lines beside yardsticks and targets."""
HEAD = ("measured", "lbctl", "yardstick", "ratio", "target", "runs", "others", "")


class Unusable(RuntimeError):
    """A run whose figures would say nothing, since what was to be measured did not happen; the message says what."""


@dataclass(frozen=True)
class Findings:
    """What came of an experiment or a benchmark. The fields are those of Record."""

    tables: Mapping[str, Table]
    passed: bool
    runs: int | None = None
    others: float | None = None
    notes: tuple[str, ...] = ()
    pictures: tuple[str, ...] = ()


@dataclass(frozen=True)
class Result:
    """One line of a benchmark's table. Texts hold their units; the medians are of so many `runs`.

    `others`: the largest share of the machine's processor time (0 to 1) that other work took in one of them; None if it
    was not measured. `figures`: what the texts were made of.
    """

    what: str
    ours: str
    yardstick: str
    ratio: str
    target: str
    runs: int
    others: float | None
    passed: bool
    figures: Mapping[str, Figure] = field(default_factory=dict)

    def row(self) -> Row:
        """Its row of the table with the columns HEAD."""
        verdict = ("PASS" if self.passed else "FAIL") if self.target else ""
        others = "" if self.others is None else percent(self.others)
        cells = (self.what, self.ours, self.yardstick, self.ratio, self.target, str(self.runs), others, verdict)
        return Row(cells=cells, figures=dict(self.figures))


def of_results(results: Sequence[Result], more: Mapping[str, Table] | None = None) -> Findings:
    """The findings of a benchmark: its lines, and other tables beside them."""
    lines = Table(columns=HEAD, rows=tuple(result.row() for result in results))
    others = [result.others for result in results if result.others is not None]
    return Findings(
        {RESULTS: lines, **(more or {})},
        passed=all(result.passed for result in results),
        runs=max(result.runs for result in results),
        others=max(others, default=None),
    )


def median(values: Sequence[float]) -> float:
    """The median of the runs. Raises statistics.StatisticsError if there is none."""
    return statistics.median(values)


def per_second(value: float) -> str:
    return f"{value:,.0f}/s".replace(",", " ")


def milliseconds(seconds: float) -> str:
    """With one decimal, below 1 000 ms; "never" for what never came."""
    if not math.isfinite(seconds):
        return "never"
    value = seconds * 1000
    return f"{value:.1f} ms" if value < 1000 else f"{value:,.0f} ms".replace(",", " ")


def percent(share: float) -> str:
    """A share from 0 to 1, as whole per cent."""
    return f"{share:.0%}"


def markdown(tables: Iterable[Table]) -> str:
    """These tables as Markdown, with aligned columns; those that have the same columns one after the other are one."""
    merged: list[tuple[tuple[str, ...], list[Row]]] = []
    for table in tables:
        if merged and merged[-1][0] == table.columns:
            merged[-1][1].extend(table.rows)
        else:
            merged.append((table.columns, list(table.rows)))
    return "\n\n".join(_aligned([columns, *(row.cells for row in rows)]) for columns, rows in merged)


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(3, *(len(row[column]) for row in rows)) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)
