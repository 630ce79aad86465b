"""What the tests of moves and restarts share."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Sequence
from dataclasses import replace
from ipaddress import ip_address

from lbctl.values.owners import owner_of
from tests.bed.bed import Bed
from tests.bed.controller import APPS
from tests.bed.faults import wait_reached as wait_reached
from tests.bed.namespaces import Namespace
from tests.bed.patience import limit
from tests.bed.traffic import Load, LoadResult, connect

FIRST, SECOND = "198.51.100.1", "198.51.100.2"
STRATEGIES = ("precopy", "buffered")
ENOUGH = 10
"""Requests of a load that has got going."""
STEPS = {"precopy": ["transition", "copy", "route", "normal", "grace"],
         "buffered": ["transition", "route", "copy", "normal", "grace"]}
NAIVE_APPS = {order: (f"tests/integration/naive_{order.replace('-', '_')}.py", *APPS)
              for order in ("route-first", "table-first")}


class Talks:
    """Connections that are quiet until they are asked whether they live. A context manager."""

    def __init__(self, space: Namespace, address: str, count: int = 1, **options) -> None:
        self.sockets = [connect(space, address, **options) for _ in range(count)]
        self._asked = 0
        assert self.broken() == []

    def broken(self, timeout: float = limit(6.0)) -> list[str]:
        """Sends a line on each and awaits it back; what went wrong, with the client's port."""
        self._asked += 1
        line = b"%d\n" % self._asked
        problems = {}
        for talk in self.sockets:
            with _noting(problems, talk):
                talk.settimeout(timeout)
                talk.sendall(line)
        for talk in self.sockets:
            with _noting(problems, talk):
                answer = b""
                while not answer.endswith(b"\n"):
                    part = talk.recv(4096)
                    if not part:
                        raise EOFError("closed")
                    answer += part
                assert answer.endswith(b" " + line), answer
        return list(problems.values())

    @property
    def ports(self) -> set[int]:
        return {talk.getsockname()[1] for talk in self.sockets}

    def close(self) -> None:
        for talk in self.sockets:
            talk.close()

    def __enter__(self) -> Talks:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextlib.contextmanager
def _noting(problems: dict[int, str], talk: socket.socket) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError) as error:
        problems.setdefault(talk.fileno(), f"port {talk.getsockname()[1]}: {error!r}")


def start_with_errors(bed: Bed) -> Bed:
    """Its controller starts, with a site where packets that come to another LB are not passed on."""
    bed.controller.configure(replace(bed.site, settings=replace(bed.site.settings, misdirected="error")))
    bed.start_controller()
    return bed


def mixed_load(
    bed: Bed, address: str, *, lines: int = 6, requests: int = 1, interval: float = 0.03, at_least: int = ENOUGH
) -> list[Load]:
    """From a client beside the LBs and from one behind the router: long connections, and new ones all the while."""
    return [bed.load(space, address, lines=lines, requests=requests, interval=interval, at_least=at_least)
            for space in (bed.clients[0], bed.remote)]


def assert_unharmed(loads: Sequence[Load], succeeded: int = ENOUGH) -> None:
    for saw in stopped(loads):
        assert saw.broken == [] and saw.failures == ()
        assert saw.succeeded >= succeeded, "the load did not get going"


def stopped(loads: Sequence[Load]) -> list[LoadResult]:
    return [load.stop() for load in loads]


def harm(loads: Sequence[Load]) -> int:
    """Long connections broken and requests failed."""
    found = stopped(loads)
    print("broken:", [(saw.broken, saw.failures) for saw in found])
    return sum(len(saw.broken) + len(saw.failures) for saw in found)


def move(bed: Bed, move_id: str) -> dict:
    """The move's record now."""
    return bed.rest("GET", f"/v1/moves/{move_id}").json


def wait_step(bed: Bed, move_id: str, step: str, timeout: float = 5.0) -> dict:
    """The move's record as soon as it is in that step."""
    return bed.wait_until(
        lambda: (record := move(bed, move_id))["step"] == step and record, timeout, f"move in step {step}"
    )


def stop_in(bed: Bed, gate, address: str, strategy: str, confirmations: int, step: str) -> str:
    """Orders a move to lb-b and lets it come that far. gate: see gate.gates. Returns its id."""
    gate["lb-b"].shut()
    move_id = bed.move(address, "lb-b", strategy, wait=False)["id"]
    for _ in range(confirmations):
        gate["lb-b"].step()
    gate["lb-b"].wait()
    wait_step(bed, move_id, step)
    return move_id


def wait_ended(bed: Bed, move_id: str, timeout: float = 15.0) -> dict:
    """The move's record as soon as it has ended."""
    return bed.wait_until(
        lambda: (record := move(bed, move_id))["state"] != "running" and record, timeout, "move ended"
    )


@contextlib.contextmanager
def pinned(space: Namespace, address: str, mac: str) -> Iterator[None]:
    """A neighbour that hears no announcement: that MAC stays."""
    space.ip("neigh", "replace", address, "lladdr", mac, "dev", "eth0", "nud", "permanent")
    try:
        yield
    finally:
        space.ip("neigh", "del", address, "dev", "eth0")


def wait_state(bed: Bed, lb: str, state: str, timeout: float = 10.0) -> None:
    """Until the controller says that of the LB."""
    bed.wait_until(lambda: bed.rest("GET", f"/v1/load-balancers/{lb}").json["state"] == state, timeout, f"{lb} {state}")


def entry_flows(bed: Bed, lb: str, address: str = FIRST) -> list[str]:
    """The flows of access-table entries of an external IP in an LB's switch."""
    owner = owner_of(ip_address(address).packed)
    dump = bed.lbs[lb].dump_flows()
    return [
        line
        for line in dump.splitlines()
        if "table=2" in line.split(", priority")[0]
        and _cookie(line) & 0xFFFFFFFF == owner
        and _cookie(line) >> 48 in (0x1B04, 0x1B05)
    ]


def _cookie(line: str) -> int:
    return int(line.partition("cookie=")[2].partition(",")[0], 16)


def assigned(bed: Bed, address: str = FIRST) -> str:
    return bed.rest("GET", f"/v1/external-ips/{address}").json["load_balancer"]


def transfer_mode(bed: Bed, lb: str, address: str = FIRST) -> str | None:
    return bed.rest("GET", f"/v1/load-balancers/{lb}/transfer-modes").json["transfer_modes"].get(address)


def serves_alone(bed: Bed, lb: str, other: str, address: str = FIRST) -> None:
    """Asserts that the external IP is back to one LB, and the other has nothing of it."""
    assert assigned(bed, address) == lb
    assert (transfer_mode(bed, lb, address), transfer_mode(bed, other, address)) == ("normal", None)
    bed.wait_until(lambda: entry_flows(bed, other, address) == [], 5, f"{other} has forgotten {address}")
