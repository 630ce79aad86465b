"""What came of one way of assigning, in figures and over time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

from evaluation.experiment.shape import LINK, ON_THE_WIRE, SIZE
from evaluation.measuring.record import Row, Table, figure

BIN = 2.0
"""Seconds that a point of a plot stands for."""


class Request(NamedTuple):
    """One that was answered: when it was due, in seconds from the beginning; how long it took since; whom it asked."""

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
    """One way of assigning.

    failures: (when due, external IP, why). dropped: packets that an LB's receive queue had no room for.
    """

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
        """(seconds, relative load of the most loaded LB): what users asked for in that bin, by the link's rate.

        Above 1 it cannot be carried.
        """
        loads: dict[int, dict[str, float]] = {}
        samples = iter(self.samples)
        sample, following = next(samples), next(samples, None)
        asked = sorted(
            [
                *((request.due, request.external_ip) for request in self.requests),
                *((due, external_ip) for due, external_ip, _ in self.failures),
            ]
        )
        for due, external_ip in asked:
            while following is not None and following.at <= due:
                sample, following = following, next(samples, None)
            of_bin = loads.setdefault(int(due / BIN), {})
            lb = sample.assigned[external_ip]
            of_bin[lb] = of_bin.get(lb, 0.0) + ON_THE_WIRE
        return [(place * BIN, max(of_bin.values()) / (LINK * BIN)) for place, of_bin in sorted(loads.items())]

    def mean_load(self) -> float:
        """Of the most loaded LB, over time."""
        return fmean(load for _, load in self.worst_loads())

    def highest_load(self) -> float:
        return max(load for _, load in self.worst_loads())

    def overloaded(self) -> float:
        """Seconds in which an LB was asked for more than its link carries."""
        return BIN * sum(load > 1 for _, load in self.worst_loads())

    def throughputs(self) -> list[tuple[float, float]]:
        """(seconds, bytes/s of answers that were complete then)."""
        return [(at, SIZE * len(found) / BIN) for at, found in self._bins(lambda request: request.due + request.took)]

    def latencies(self, share: float) -> list[tuple[float, float]]:
        """(seconds when due, seconds that this share of the requests took at most)."""
        bins = self._bins(lambda request: request.due)
        return [(at, quantile([request.took for request in found], share)) for at, found in bins]

    def _bins(self, when: Callable[[Request], float]) -> Iterator[tuple[float, list[Request]]]:
        bins: dict[int, list[Request]] = {}
        for request in self.requests:
            bins.setdefault(int(when(request) / BIN), []).append(request)
        return ((place * BIN, bins[place]) for place in sorted(bins))


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that this share of them does not exceed. Raises IndexError if there is none."""
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


@dataclass(frozen=True)
class Measure:
    """What is shown of a run. `shown`: how a value is written."""

    name: str
    value: Callable[[Run], float]
    shown: Callable[[float], str] = "{:.0f}".format
    unit: str = ""


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:,.0f} ms".replace(",", " ")


def measures(seconds: float) -> list[Measure]:
    """All that is shown of a load that lasts so long."""
    return [
        Measure("requests answered", lambda run: len(run.requests)),
        Measure("requests failed", lambda run: len(run.failures)),
        Measure("connections opened", lambda run: run.connections),
        Measure("moves begun", lambda run: len(run.moves)),
        Measure("moves done", lambda run: sum(move.state == "done" for move in run.moves)),
        Measure("worst LB's relative load, mean over time", Run.mean_load, "{:.2f}".format),
        Measure("worst LB's relative load, highest", Run.highest_load, "{:.2f}".format),
        Measure(f"seconds with an LB above 1, of {seconds:.0f}", Run.overloaded, unit="s"),
        Measure(
            "answered in time, MB/s", lambda run: run.in_time(seconds) * SIZE / seconds / 1e6, "{:.2f}".format, "MB/s"
        ),
        Measure("request latency, median", lambda run: run.latency(0.5), milliseconds, "s"),
        Measure("request latency, 95 %", lambda run: run.latency(0.95), milliseconds, "s"),
        Measure("request latency, 99 %", lambda run: run.latency(0.99), milliseconds, "s"),
        Measure("request latency, longest", lambda run: run.latency(1.0), milliseconds, "s"),
        Measure("packets lost in receive queues", lambda run: run.dropped),
    ]


def table(runs: Sequence[Run], seconds: float) -> Table:
    """A row for each measure, a column for each run."""
    rows = tuple(
        Row(
            cells=(measure.name, *(measure.shown(measure.value(run)) for run in runs)),
            figures={run.mode: figure(measure.unit, [measure.value(run)]) for run in runs},
        )
        for measure in measures(seconds)
    )
    return Table(columns=("", *(run.mode for run in runs)), rows=rows)


COMPARED = (
    Measure("moves", lambda run: len(run.moves)),
    Measure("requests failed", lambda run: len(run.failures)),
    Measure("worst load, mean", Run.mean_load, "{:.2f}".format),
    Measure("highest", Run.highest_load, "{:.2f}".format),
    Measure("time above 1", Run.overloaded, "{:.0f} s".format, "s"),
    Measure("latency, median", lambda run: run.latency(0.5), milliseconds, "s"),
    Measure("95 %", lambda run: run.latency(0.95), milliseconds, "s"),
    Measure("99 %", lambda run: run.latency(0.99), milliseconds, "s"),
)


def seeds_table(by_seed: Mapping[int, Sequence[Run]]) -> Table:
    """A row for each seed, a column for each measure that is compared; in each cell all runs of that seed."""
    rows = tuple(
        Row(
            cells=(str(seed), *(" / ".join(each.shown(each.value(run)) for run in runs) for each in COMPARED)),
            figures={
                f"{each.name}, {run.mode}": figure(each.unit, [each.value(run)]) for each in COMPARED for run in runs
            },
        )
        for seed, runs in by_seed.items()
    )
    modes = " / ".join(run.mode for run in next(iter(by_seed.values())))
    return Table(columns=(f"seed ({modes})", *(each.name for each in COMPARED)), rows=rows)
