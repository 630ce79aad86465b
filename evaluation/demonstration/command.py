"""The demonstration as a command; its exit status is 0 only if it shows what it claims."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from evaluation.demonstration.bed import EXTERNAL_IP, Bed
from evaluation.demonstration.orders import ORDERS, Order
from evaluation.demonstration.report import table, text
from evaluation.demonstration.results import OrderResult, sentence
from evaluation.measuring.findings import RESULTS, Findings
from evaluation.measuring.record import Record
from evaluation.measuring.session import Session
from topologies.lab import ended_by_signals
from topologies.rundir import LabError

NAME, FOLDER, PAGE = "demonstration", Path("demonstration-out"), "demonstration.html"
TWO_VALUES = "Two values are those of the move there and of the move back."


def main(arguments: Sequence[str]) -> int:
    """The exit status: 0 it shows what it claims, 1 it does not or could not run, 2 wrong usage."""
    options = _parser().parse_args(arguments)
    session = Session(NAME, arguments)

    def say(what: str) -> None:
        print(f"[{session.seconds:5.1f} s] {what}", flush=True)

    try:
        with ended_by_signals():
            results = _run(options.orders, say)
    except LabError as error:
        print(f"demonstration: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demonstration: interrupted; everything is removed", file=sys.stderr)
        return 130
    passed = all(result.as_claimed for result in results)
    record = session.record(Findings({RESULTS: table(results)}, passed, notes=(TWO_VALUES, sentence(results))))
    record.write(options.out)
    machine = _machine(record)
    file = _write(options.out, results, machine)
    print(f"\n{text(results)}\n\n{TWO_VALUES} {machine}\nWith plots: {file}\n")
    print(sentence(results))
    return 0 if passed else 1


def _run(orders: list[Order], say: Callable[[str], None]) -> list[OrderResult]:
    results = []
    say("building the lab of figure 3")
    with Bed(say) as bed:
        for number, order in enumerate(orders, start=1):
            say(f"order {number} of {len(orders)}, {order.name}: {EXTERNAL_IP} there and back under load")
            result = bed.try_order(order)
            results.append(result)
            say(
                f"  {result.resets} resets, {result.stalls} stalls, {result.failed_requests} of {result.requests}"
                f" requests failed, {result.probe.lost} probe packets lost"
            )
        say("removing the lab")
    return results


def _write(directory: Path, results: list[OrderResult], machine: str) -> Path:
    from evaluation.demonstration.page import page  # matplotlib takes a second to load: not before it is needed

    file = directory / PAGE
    file.write_text(page(results, machine))
    return file


def _machine(record: Record) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    return f"Machine: {record.machine.cores} cores, {record.machine.kernel}, {versions}."


def _orders(names: str) -> list[Order]:
    by_name = {order.name: order for order in ORDERS}
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in by_name]
    if unknown or not wanted:
        asked = ", ".join(unknown) or "(none given)"
        raise argparse.ArgumentTypeError(f"no such order: {asked}; there are {', '.join(by_name)}")
    return [by_name[name] for name in wanted]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m evaluation demonstration", description="Moves an external IP under load, in several orders."
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=FOLDER,
        metavar="DIR",
        help=f"where the HTML file and the record of the figures go (default: {FOLDER})",
    )
    names = ",".join(order.name for order in ORDERS)
    parser.add_argument(
        "--orders", type=_orders, default=list(ORDERS), metavar="ORDER,...", help=f"which orders, of {names}"
    )
    return parser
