"""python -m evaluation.demonstration [--out DIR] [--orders ORDER,...]: run it; exit status 0 only if it shows what it claims."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from pathlib import Path

from evaluation.demonstration.bed import EXTERNAL_IP, Bed
from evaluation.demonstration.orders import ORDERS, Order
from evaluation.demonstration.report import table
from evaluation.demonstration.results import OrderResult, sentence
from topologies import programs
from topologies.lab import ended_by_signals
from topologies.rundir import LabError

PAGE = "demonstration.html"


def main() -> int:
    """The exit status: 0 it shows what it claims, 1 it does not or could not run, 2 wrong usage."""
    options = _parser().parse_args()
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - began:5.1f} s] {text}", flush=True)

    try:
        with ended_by_signals():
            results = _run(options.orders, say)
    except LabError as error:
        print(f"demonstration: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demonstration: interrupted; everything is removed", file=sys.stderr)
        return 130
    machine = _machine()
    file = _write(options.out, results, machine)
    print(f"\n{table(results)}\n\nTwo values are those of the move there and of the move back. {machine}\nWith plots: {file}\n")
    print(sentence(results))
    return 0 if all(result.as_claimed for result in results) else 1


def _run(orders: list[Order], say) -> list[OrderResult]:
    results = []
    say("building the lab of figure 3")
    with Bed(say) as bed:
        for number, order in enumerate(orders, start=1):
            say(f"order {number} of {len(orders)}, {order.name}: {EXTERNAL_IP} there and back under load")
            result = bed.try_order(order)
            results.append(result)
            say(
                f"  {result.resets} resets, {result.stalls} stalls, {result.failed_requests} of {result.requests} requests failed,"
                f" {result.probe.lost} probe packets lost"
            )
        say("removing the lab")
    return results


def _write(directory: Path, results: list[OrderResult], machine: str) -> Path:
    from evaluation.demonstration.page import page  # matplotlib takes a second to load: not before it is needed

    directory.mkdir(parents=True, exist_ok=True)
    file = directory / PAGE
    file.write_text(page(results, machine))
    return file


def _machine() -> str:
    ovs = programs.run(["ovs-vswitchd", "--version"], capture_output=True, check=False).stdout.split("\n")[0]
    return f"Machine: {os.cpu_count()} cores, Linux {platform.release()}, {ovs}, Python {platform.python_version()}."


def _orders(text: str) -> list[Order]:
    by_name = {order.name: order for order in ORDERS}
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in by_name]
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"no such order: {', '.join(unknown) or '(none given)'}; there are {', '.join(by_name)}")
    return [by_name[name] for name in names]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="demonstration", description="Moves an external IP under load, by four orders.")
    parser.add_argument("--out", type=Path, default=Path("demonstration-out"), metavar="DIR", help="where the HTML file goes")
    names = ",".join(order.name for order in ORDERS)
    parser.add_argument("--orders", type=_orders, default=list(ORDERS), metavar="ORDER,...", help=f"which orders, of {names}")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
