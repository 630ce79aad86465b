"""A bed is left as it was found, whatever a test has done to it and however the test ended."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any

from lbctl.site.model import Site
from tests.bed import netlink
from tests.bed.bed import Bed
from tests.bed.namespaces import Namespace
from tests.bed.patience import limit

SETTLES = 0.3
"""Seconds in which what ends by itself has ended on an idle machine: a process that is ending, a carrier."""
SITE_FILE = "site file"
IP_VERSION_6 = 10
LINK_SCOPE = 253
MAIN_TABLE = 254


class AsFound:
    """What a bed was like, and how it becomes that again. For the tests of one module, which share the bed.

    A bed whose controller goes on from test to test (go_on) keeps it for as long as each test leaves things as it
    found them: the operators' orders, where each external IP is, and what there is in the hosts. Any other bed is reset
    after each test. What reset() does not know how to restore is built anew.
    """

    def __init__(self, bed: Bed) -> None:
        self.bed = bed
        self._hosts = hosts(bed)
        self._apps = bed.controller.apps
        self._said: dict[Callable[[Bed], dict[str, Any]], dict[str, Any]] = {}
        """What the controller that goes on answered at first to each question; empty when there is none."""

    def go_on(self, start_with: Site | None = None) -> Bed:
        """The bed, with a controller that goes on from the test before, or has just started, with that site if any."""
        if not self._said or not self.bed.controller.running:
            self.bed.reset()
            if start_with is not None:
                self.bed.controller.configure(start_with)
            self.bed.start_controller()
            self._said = {ask: ask(self.bed) for ask in (orders, states)}
        else:
            self.bed.wait_ready()
        return self.bed

    def begin(self) -> Bed:
        """The bed, with no controller yet."""
        if self.bed.controller.running:
            self.bed.reset()
        self._said = {}
        return self.bed

    def restore(self) -> str:
        """After a test that went well. What was restored, "" if there was nothing."""
        self.bed.start_servers()
        told: list[str] = []
        if self._said:
            told = self._told(orders)
            before, now = self._said[orders][SITE_FILE], site_file(self.bed)
            if told and now not in ("", before) and self.bed.controller.running:
                read = self.bed.controller.site_files_read()
                self.bed.controller.reload(before)
                # Else the next test might take this for the answer to its own file.
                self.bed.wait_until(lambda: self.bed.controller.site_files_read() > read, 5, "the site file is read")
            elif told:
                self._said = {}
        if self._said:
            told = told or self._settled()
            if not self._settled():
                return "\n".join(told)
        self._said = {}
        self.bed.reset()
        self.bed.controller.apps = self._apps
        if found := self._settled():
            told += [*found, "built anew"]
            self.rebuild()
        return "\n".join(told)

    def rebuild(self) -> None:
        """After a test that failed: nobody knows what it has left."""
        self._said = {}
        self.bed.rebuild()
        self._hosts = hosts(self.bed)

    def _settled(self) -> list[str]:
        """What is not as it was found when what ends by itself has ended; each in a line."""
        deadline = time.monotonic() + limit(SETTLES)
        while (found := self.differences()) and time.monotonic() < deadline:
            time.sleep(0.02)
        return found

    def differences(self) -> list[str]:
        """What is not as it was found; each in a line."""
        found = [f"{name}: {text}" for name, text in _changes(self._hosts, hosts(self.bed))]
        for ask in self._said:
            found += self._told(ask)
        return found

    def _told(self, ask: Callable[[Bed], dict[str, Any]]) -> list[str]:
        """What the controller answers differently."""
        try:
            now = ask(self.bed)
        except (OSError, HTTPException) as error:
            return [f"the controller: {error!r}"]
        return [f"{what}: {text}" for what, text in _changes(self._said[ask], now)]


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key in {**before, **after}:
        was, now = before.get(key), after.get(key)
        if was != now:
            told = f"it was {was}, now it is {now}"
            if isinstance(was, Counter) and isinstance(now, Counter):
                told = f"gone: {list(was - now)}, new: {list(now - was)}"
            yield key, "another one" if key == SITE_FILE else told


# What there is.


def hosts(bed: Bed) -> dict[str, Counter[Any]]:
    """Of each namespace: links, addresses, routes, neighbours by order, and processes."""
    running = _processes(bed.spaces, bed.controller.process.pid if bed.controller.process else None)
    return {space.name: Counter(space.call(_lasting)) + running[space.name] for space in bed.spaces}


def _lasting() -> list[tuple[object, ...]]:
    """Without what the kernel makes by itself for IPv6 when a link comes up, and Open vSwitch for its datapath."""
    return [each for each in netlink.everything() if not (
        each[:2] == ("link", "ovs-netdev")
        or each[0] == "address" and each[1] == IP_VERSION_6 and each[-1] == LINK_SCOPE
        or each[0] == "route" and each[1] == IP_VERSION_6 and (each[5] != MAIN_TABLE or "fe80" in str(each)))]


def _processes(spaces: Iterable[Namespace], controller: int | None) -> dict[str, Counter[Any]]:
    names = {space.path.stat().st_ino: space.name for space in spaces}
    found: dict[str, Counter[Any]] = {space.name: Counter() for space in spaces}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and entry.name != str(controller):
            try:
                name = names.get(os.stat(entry / "ns/net").st_ino)
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace") if name else ""
                asleep = name is not None and (entry / "stat").read_text().rpartition(")")[2].split()[0] in "Tt"
            except OSError:
                continue
            if name and command:
                found[name]["process", command, "stopped" if asleep else "runs"] += 1
    return found


def states(bed: Bed) -> dict[str, Any]:
    """What the controller says that may become what it was by itself: moves under way, LBs that are not ready."""
    ips = bed.rest("GET", "/v1/external-ips").json["external_ips"]
    balancers = bed.rest("GET", "/v1/load-balancers").json["load_balancers"]
    moves = {f"move of {ip['address']}": ip["move"] for ip in ips}
    return moves | {lb["name"]: _only(lb, "state", "ports") for lb in balancers}


def orders(bed: Bed) -> dict[str, Any]:
    """What the controller says that somebody has to change: it does not become what it was by itself."""
    ips = bed.rest("GET", "/v1/external-ips").json["external_ips"]
    balancers = bed.rest("GET", "/v1/load-balancers").json["load_balancers"]
    found: dict[str, Any] = {SITE_FILE: site_file(bed)}
    for ip in ips:
        services = {
            f"{service['protocol']}/{service['port']}": _only(service, "scheduler", "servers_ordered") | {"servers": [
                _only(server, "address", "port", "weight", "max_connections", "drained", "next_hop", "tunnel")
                for server in service["servers"]]} for service in ip["services"]}
        own = _only(ip, "load_balancer", "kind", "nat", "gateway", "internal_ips", "port_range", "inside")
        found[ip["address"]] = own | services
    return found | {lb["name"]: _only(lb, "dpid", "standby", "drained", "capacity", "external_ips") for lb in balancers}


def site_file(bed: Bed) -> str:
    """Its text; "" if there is none."""
    path = bed.controller.site_file
    return path.read_text() if path.exists() else ""


def _only(record: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: record[key] for key in keys}
