"""A keeper's metrics in the text format of Prometheus (version 0.0.4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_address

from lbctl import __version__
from lbctl.keeper.process.copy import Copy

Samples = list[tuple[Mapping[str, str], float]]


def exposition(copy: Copy, now: float, journal_size: int, answers: Mapping[str, int], connections: int) -> str:
    """All metrics. now: seconds since the epoch; journal_size: bytes; answers: HTTP status -> how many."""
    return "".join(_lines(copy, now, journal_size, answers, connections))


def _lines(copy: Copy, now: float, journal_size: int, answers: Mapping[str, int], connections: int) -> Iterator[str]:
    yield from _metric("build_info", "gauge", "The running release.", [({"version": __version__}, 1)])
    yield from _metric("rows", "gauge", "Entries in the copy.", [
        ({"server": str(ip_address(server)), "external_ip": str(ip_address(external))}, rows)
        for (server, external), rows in copy.streams().items()])
    yield from _metric("rows_limit", "gauge", "Entries that the copy may have.", [({}, copy.max_rows)])
    sessions = [({"server": str(ip_address(address))}, server.current)
                for address, server in copy.servers.items() if server.current]
    yield from _metric("age_seconds", "gauge", "Time since the last batch.", [
        (server, max(0.0, now - session.taken_at)) for server, session in sessions])
    yield from _metric("sequence", "gauge", "Number of the last batch in its session.", [
        (server, session.sequence) for server, session in sessions])
    yield from _metric("batches_total", "counter", "Batches, by what was answered.", [
        ({"answer": answer}, copy.counters[answer]) for answer in ("acknowledged", "repeated", "resync", "refused")])
    yield from _metric("full_copies_total", "counter", "Full copies received.", [({}, copy.counters["full_copies"])])
    yield from _metric("rows_received_total", "counter", "Rows in the batches taken.", [
        ({}, copy.counters["rows_received"])])
    yield from _metric("rows_refused_total", "counter", "Rows in the batches refused.", [
        ({}, copy.counters["rows_refused"])])
    yield from _metric("journal_bytes", "gauge", "Size of the file that the copy is kept in.", [({}, journal_size)])
    yield from _metric("answers_total", "counter", "Requests answered, by status.", [
        ({"status": status}, number) for status, number in sorted(answers.items())])
    yield from _metric("connections", "gauge", "Open connections to the keeper.", [({}, connections)])


def _metric(name: str, kind: str, about: str, samples: Samples) -> Iterator[str]:
    name = f"lbctl_keeper_{name}"
    yield f"# HELP {name} {about}\n# TYPE {name} {kind}\n"
    for labels, value in samples:
        shown = ",".join(f'{label}="{content}"' for label, content in labels.items())
        yield f"{name}{{{shown}}} {_number(value)}\n" if shown else f"{name} {_number(value)}\n"


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.3f}"
