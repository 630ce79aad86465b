"""The result as text and as a table of a record: a row for each measure, a column for each order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from evaluation.demonstration.results import MoveResult, OrderResult
from evaluation.measuring.record import Row, Table, figure


@dataclass(frozen=True)
class Measure:
    """What is shown. `values`: of an order's result; two of them are of the move there and of the move back."""

    name: str
    values: Callable[[OrderResult], Sequence[float]]
    unit: str = ""

    def text(self, result: OrderResult) -> str:
        """The values with their unit; "-" if there are none."""
        return " / ".join(_FORMATS[self.unit](value) for value in self.values(result)) or "-"


def ms(seconds: float) -> str:
    """Milliseconds, as precise as they are."""
    value = seconds * 1000
    return f"{value:.1f} ms" if value < 100 else f"{value:.0f} ms"


_FORMATS: dict[str, Callable[[float], str]] = {
    "": lambda value: f"{value:.0f}",
    "bytes": lambda value: f"{value / 1e6:.0f} MB",
    "s": ms,
}


def measures(results: Sequence[OrderResult]) -> list[Measure]:
    """All that is shown of these orders."""
    return [
        Measure("moves (done / tried)", lambda r: (sum(move.state == "done" for move in r.moves), len(r.moves))),
        Measure("connections made", lambda r: (r.connections,)),
        Measure("connections reset", lambda r: (r.resets,)),
        Measure("connections stalled", lambda r: (r.stalls,)),
        Measure("requests made", lambda r: (r.requests,)),
        Measure("requests failed", lambda r: (r.failed_requests,)),
        Measure("probe packets sent", lambda r: (r.probe.sent,)),
        Measure("probe packets lost", lambda r: (r.probe.lost,)),
        Measure("probe packets sent again, not lost", lambda r: (max(0, r.probe.retransmitted - r.probe.lost),)),
        Measure("TCP retransmissions of the rest", lambda r: (r.retransmitted,)),
        Measure("packets lost by busy LBs", lambda r: (r.dropped,)),
        Measure("bytes transferred", lambda r: (r.transferred,), "bytes"),
        Measure("entries copied", _of_moves(lambda move: move.entries_copied)),
        Measure("packets held", _of_moves(lambda move: move.packets_held)),
        Measure("worst round trip of the probe", lambda r: (r.probe.worst_round_trip(r.quiet_until),), "s"),
        Measure("... before the first move", lambda r: (r.probe.worst_round_trip(before=r.quiet_until),), "s"),
        Measure("longest gap of the probe", lambda r: (r.probe.longest_gap(r.quiet_until),), "s"),
        Measure("... before the first move", lambda r: (r.probe.longest_gap(before=r.quiet_until),), "s"),
        *(Measure(f"step {name}", _step_times(name), "s") for name in _step_names(results)),
    ]


def text(results: Sequence[OrderResult]) -> str:
    """The whole table, for a terminal."""
    rows = [["", *(result.order.name for result in results)]]
    rows += [[measure.name, *map(measure.text, results)] for measure in measures(results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(_line(row, widths) for row in rows)


def table(results: Sequence[OrderResult]) -> Table:
    """The same for a record."""
    rows = tuple(
        Row(
            cells=(measure.name, *map(measure.text, results)),
            figures={
                result.order.name: figure(measure.unit, values)
                for result in results
                if (values := measure.values(result))
            },
        )
        for measure in measures(results)
    )
    return Table(columns=("", *(result.order.name for result in results)), rows=rows)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
    return "  ".join((row[0].ljust(widths[0]), *cells))


def _step_names(results: Sequence[OrderResult]) -> list[str]:
    return list(dict.fromkeys(step.name for result in results for move in result.moves for step in move.steps))


def _of_moves(count: Callable[[MoveResult], int]) -> Callable[[OrderResult], Sequence[float]]:
    return lambda result: [count(move) for move in result.moves]


def _step_times(name: str) -> Callable[[OrderResult], Sequence[float]]:
    return lambda result: [step.seconds for move in result.moves for step in move.steps if step.name == name]
