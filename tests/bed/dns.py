"""A DNS service in namespaces: dnsmasq as the servers, and clients that notice a lost answer."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bed.namespaces import Namespace
from tests.bed.patience import limit
from tests.bed.processes import end
from tests.bed.traffic import Script, TrafficError
from topologies import programs

NAME = "who.example"
"""Its TXT record is the server's own name."""
START_TIMEOUT = limit(10.0)


class DnsServer:
    """dnsmasq on port 53 of a server, listening. With the methods of traffic.Script that a bed needs of what serves
    in it.

    Raises TrafficError if it is not installed or does not start.
    """

    def __init__(self, space: Namespace) -> None:
        if packages := programs.missing("dnsmasq"):
            raise TrafficError(f"dnsmasq is not installed: apt-get install {' '.join(packages)}")
        self.space = space
        self.process = space.popen("dnsmasq", *_options(space.name.removeprefix("server-")))
        _wait_listening(space)

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def again(self) -> DnsServer:
        return DnsServer(self.space)

    def kill(self) -> None:
        end(self.process.pid, grace=0)
        self.process.wait()


def _wait_listening(space: Namespace) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while not space.run("ss", "-Hlun", "sport", "=", ":53"):
        if time.monotonic() > deadline:
            raise TrafficError(f"dnsmasq in {space.name} does not listen within {START_TIMEOUT:g} s")
        time.sleep(0.05)


def _options(name: str) -> Iterator[str]:
    yield from (
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--pid-file=",
        "--user=root",
        "--no-resolv",
        "--no-hosts",
    )
    yield from (f"--listen-address={name}", "--bind-interfaces", "--cache-size=0", f"--txt-record={NAME},{name}")


@dataclass(frozen=True)
class DnsResult:
    """What DNS clients saw. `failures`: what became of each query without its answer; `servers`: name -> answers;
    `changed`: how often a client that keeps its port was answered by another server than before."""

    asked: int
    failures: tuple[str, ...]
    servers: dict[str, int]
    longest: float
    changed: int

    broken = ()
    """As of traffic.LoadResult: there are no connections to break."""

    @property
    def succeeded(self) -> int:
        return sum(self.servers.values())


class DnsLoad(Script):
    """Clients of a DNS service: `steady` keep their port, `changing` take another for each query, one every
    `interval` seconds."""

    def __init__(
        self,
        space: Namespace,
        log: Path,
        address: object,
        *,
        steady: int = 4,
        changing: int = 2,
        interval: float = 0.02,
    ) -> None:
        super().__init__(
            space, log, "dns_load.py", address, NAME, "--steady", steady, "--changing", changing, "--interval", interval
        )

    def stop(self) -> DnsResult:
        """End it, and what it saw. Raises TrafficError."""
        saw = json.loads(self.finish())
        return DnsResult(**{**saw, "failures": tuple(saw["failures"])})
