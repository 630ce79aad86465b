"""`python -m evaluation.benchmarks [NAME...]`: runs all benchmarks, or those named, and prints one table."""

from __future__ import annotations

import os
import platform
import sys
import time

from evaluation.benchmarks import (
    assignment,
    bulk_copy,
    capacity,
    failover,
    full_nat,
    health_checks,
    memory,
    move,
    new_connections,
    pages,
    read_back,
    solving,
)
from evaluation.benchmarks.results import Result, table
from topologies import programs

ALL = {
    "move": move.main,
    "bulk_copy": bulk_copy.main,
    "read_back": read_back.main,
    "new_connections": new_connections.main,
    "full_nat": full_nat.main,
    "failover": failover.main,
    "health_checks": health_checks.main,
    "memory": memory.main,
    "pages": pages.main,
    "assignment": assignment.main,
    "capacity": capacity.main,
    "solving": solving.main,
}


def main(names: list[str]) -> int:
    """Exit status 0 if every target is met, 1 if not, 2 for wrong usage."""
    unknown = [name for name in names if name not in ALL]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are {', '.join(ALL)}", file=sys.stderr)
        return 2
    if os.geteuid():
        print("the benchmarks need root: network namespaces, Open vSwitch", file=sys.stderr)
        return 1
    results: list[Result] = []
    for name in names or ALL:
        begun = time.monotonic()
        print(f"==> {name} ...", file=sys.stderr, flush=True)
        found = ALL[name]()
        results += found
        print(f"{table(found)}\n    ({time.monotonic() - begun:.0f} s)", file=sys.stderr, flush=True)
    print(machine())
    print(table(results))
    return 0 if all(result.passed for result in results) else 1


def machine() -> str:
    """The machine in one line: cores, Open vSwitch, Python, kernel."""
    ovs = programs.run(["ovs-vswitchd", "--version"], capture_output=True, check=True).stdout.split()[3]
    return f"{os.cpu_count()} cores, Open vSwitch {ovs}, Python {platform.python_version()}, Linux {platform.release()}\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
