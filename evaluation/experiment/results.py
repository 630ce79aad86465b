"""What came of one way of assigning, in figures and over time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

from evaluation.experiment.shape import LINK, ON_THE_WIRE, SIZE

BIN = 2.0
"""Seconds that a point of a plot stands for."""


class Request(NamedTuple):
    """One that was answered: when it was due, in seconds from the beginning; seconds that it took since; whom it asked."""

    due: float
    took: float
    external_ip: str


class Move(NamedTuple):
    """From its record; started: seconds from the beginning."""

    external_ip: str
    source: str
    target: str
    state: str
    reason: str | None
    started: float
    packets_lost: int


class Sample(NamedTuple):
    """at: seconds from the beginning; assigned: external IP -> LB; sent: LB -> bytes that it has sent to clients."""

    at: float
    assigned: Mapping[str, str]
    sent: Mapping[str, int]


@dataclass(frozen=True)
class Run:
    """One way of assigning. failures: (when due, external IP, why). dropped: packets that an LB's receive queue had no room for."""

    mode: str
    look_ups: tuple[tuple[int, int, str], ...]
    """Group, which of its look-ups, external IP."""
    requests: tuple[Request, ...]
    failures: tuple[tuple[float, str, str], ...]
    connections: int
    moves: tuple[Move, ...]
    samples: tuple[Sample, ...]
    dropped: int

    @property
    def harmless(self) -> bool:
        """No request has failed, every move is done."""
        return not self.failures and all(move.state == "done" and not move.packets_lost for move in self.moves)

    def latency(self, share: float) -> float:
        """Seconds that this share of the requests (0 to 1) took at most."""
        return quantile([request.took for request in self.requests], share)

    def in_time(self, seconds: float) -> int:
        """Requests that were answered so many seconds from the beginning, or earlier."""
        return sum(request.due + request.took <= seconds for request in self.requests)

    def worst_loads(self) -> list[tuple[float, float]]:
        """(seconds, relative load of the most loaded LB): what users asked for in that bin, by the link's rate; above 1 it can't be
        carried."""
        loads: dict[int, dict[str, float]] = {}
        samples = iter(self.samples)
        sample, following = next(samples), next(samples, None)
        asked = sorted([(request.due, request.external_ip) for request in self.requests] + [(due, ip) for due, ip, _ in self.failures])
        for due, external_ip in asked:
            while following is not None and following.at <= due:
                sample, following = following, next(samples, None)
            of_bin = loads.setdefault(int(due / BIN), {})
            lb = sample.assigned[external_ip]
            of_bin[lb] = of_bin.get(lb, 0.0) + ON_THE_WIRE
        return [(place * BIN, max(of_bin.values()) / (LINK * BIN)) for place, of_bin in sorted(loads.items())]

    def overloaded(self) -> float:
        """Seconds in which an LB was asked for more than its link carries."""
        return BIN * sum(load > 1 for _, load in self.worst_loads())

    def throughputs(self) -> list[tuple[float, float]]:
        """(seconds, bytes/s of answers that were complete then)."""
        return [(at, SIZE * len(found) / BIN) for at, found in self._bins(lambda request: request.due + request.took)]

    def latencies(self, share: float) -> list[tuple[float, float]]:
        """(seconds when due, seconds that this share of the requests took at most)."""
        return [(at, quantile([request.took for request in found], share)) for at, found in self._bins(lambda request: request.due)]

    def _bins(self, when: Callable[[Request], float]) -> Iterator[tuple[float, list[Request]]]:
        bins: dict[int, list[Request]] = {}
        for request in self.requests:
            bins.setdefault(int(when(request) / BIN), []).append(request)
        return ((place * BIN, bins[place]) for place in sorted(bins))


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that this share of them does not exceed. Raises IndexError if there is none."""
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


def table(runs: Sequence[Run], seconds: float) -> str:
    """A Markdown table: a row for each measure, a column for each run."""
    rows: list[tuple[str, Callable[[Run], str]]] = [
        ("requests answered", lambda run: str(len(run.requests))),
        ("requests failed", lambda run: str(len(run.failures))),
        ("connections opened", lambda run: str(run.connections)),
        ("moves done / begun", lambda run: f"{sum(move.state == 'done' for move in run.moves)} / {len(run.moves)}"),
        ("worst LB's relative load, mean over time", lambda run: f"{fmean(load for _, load in run.worst_loads()):.2f}"),
        ("worst LB's relative load, highest", lambda run: f"{max(load for _, load in run.worst_loads()):.2f}"),
        ("seconds with an LB above 1", lambda run: f"{run.overloaded():.0f} of {seconds:.0f}"),
        ("answered in time, MB/s", lambda run: f"{run.in_time(seconds) * SIZE / seconds / 1e6:.2f}"),
        ("request latency, median", lambda run: milliseconds(run.latency(0.5))),
        ("request latency, 95 %", lambda run: milliseconds(run.latency(0.95))),
        ("request latency, 99 %", lambda run: milliseconds(run.latency(0.99))),
        ("request latency, longest", lambda run: milliseconds(max(request.took for request in run.requests))),
        ("packets lost in receive queues", lambda run: str(run.dropped)),
    ]
    lines = ["| | " + " | ".join(run.mode for run in runs) + " |", "|---" * (len(runs) + 1) + "|"]
    return "\n".join([*lines, *(f"| {name} | {' | '.join(value(run) for run in runs)} |" for name, value in rows)])


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"
