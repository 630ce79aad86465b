"""The result as text: a row for each measure, a column for each order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from evaluation.demonstration.results import OrderResult

Measure = tuple[str, Callable[[OrderResult], str]]


def ms(seconds: float) -> str:
    """Milliseconds, as precise as they are."""
    value = seconds * 1000
    return f"{value:.1f} ms" if value < 100 else f"{value:.0f} ms"


def _step_names(results: Sequence[OrderResult]) -> list[str]:
    return list(dict.fromkeys(step.name for result in results for move in result.moves for step in move.steps))


def _step_times(name: str) -> Callable[[OrderResult], str]:
    def times(result: OrderResult) -> str:
        taken = [step.seconds for move in result.moves for step in move.steps if step.name == name]
        return " / ".join(ms(seconds) for seconds in taken) or "-"

    return times


def measures(results: Sequence[OrderResult]) -> list[Measure]:
    """What is shown: (name, function of an order's result)."""
    return [
        ("moves (done / tried)", lambda r: f"{sum(move.state == 'done' for move in r.moves)} / {len(r.moves)}"),
        ("connections made", lambda r: str(r.connections)),
        ("connections reset", lambda r: str(r.resets)),
        ("connections stalled", lambda r: str(r.stalls)),
        ("requests made", lambda r: str(r.requests)),
        ("requests failed", lambda r: str(r.failed_requests)),
        ("probe packets sent", lambda r: str(r.probe.sent)),
        ("probe packets lost", lambda r: str(r.probe.lost)),
        ("  retransmitted though not lost", lambda r: str(min(r.probe.needless, r.probe.retransmitted))),
        ("TCP retransmissions of the rest", lambda r: str(r.retransmitted)),
        ("packets lost by busy LBs", lambda r: str(r.dropped)),
        ("bytes transferred", lambda r: f"{r.transferred / 1e6:.0f} MB"),
        ("entries copied", lambda r: " / ".join(str(move.entries_copied) for move in r.moves)),
        ("packets held", lambda r: " / ".join(str(move.packets_held) for move in r.moves)),
        ("worst round trip of the probe", lambda r: ms(r.probe.worst_round_trip(r.quiet_until))),
        ("  before the first move", lambda r: ms(r.probe.worst_round_trip(before=r.quiet_until))),
        ("longest gap of the probe", lambda r: ms(r.probe.longest_gap(r.quiet_until))),
        ("  before the first move", lambda r: ms(r.probe.longest_gap(before=r.quiet_until))),
        *((f"step {name}", _step_times(name)) for name in _step_names(results)),
    ]


def table(results: Sequence[OrderResult]) -> str:
    """The whole table. Two values in a cell are those of the move there and of the move back."""
    rows = [["", *(result.order.name for result in results)]]
    rows += [[name, *(value(result) for result in results)] for name, value in measures(results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        row[0].ljust(widths[0]) + "".join("  " + cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)) for row in rows
    )
