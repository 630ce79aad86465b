"""A bed is left as it was found, whatever a test has done to it and however the test ended."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any

from lbctl.site.model import Site
from tests.bed import netlink
from tests.bed.bed import Bed
from tests.bed.namespaces import Namespace
from tests.bed.patience import limit

SETTLES = 0.3
"""Seconds in which a difference that ends by itself has ended on an idle machine: a process that is ending, a carrier."""
SITE_FILE = "site file"
IP_VERSION_6 = 10
LINK_SCOPE = 253
MAIN_TABLE = 254


class AsFound:
    """What a bed was like, and how it becomes that again. For the tests of one module, which share the bed.

    A bed whose controller goes on from test to test (go_on) keeps it for as long as each test leaves things as it found them: what
    the operators' orders are, where each external IP is, and what there is in the hosts. Any other bed is reset after each test.
    What reset() does not know how to restore is built anew.
    """

    def __init__(self, bed: Bed) -> None:
        self.bed = bed
        self._hosts = hosts(bed)
        self._site: dict[str, Any] | None = None
        """What the controller that goes on said at first; None when there is none."""

    def go_on(self, start_with: Site | None = None) -> Bed:
        """The bed, with a controller that goes on from the test before, or has just started, with that site (or the bed's)."""
        if self._site is None or not self.bed.controller.running:
            self.bed.reset()
            if start_with is not None:
                self.bed.controller.configure(start_with)
            self.bed.start_controller()
            self._site = site(self.bed)
        else:
            self.bed.wait_ready()
        return self.bed

    def begin(self) -> Bed:
        """The bed, with no controller yet."""
        if self.bed.controller.running:
            self.bed.reset()
        self._site = None
        return self.bed

    def restore(self) -> str:
        """After a test that went well. What was restored, "" if there was nothing."""
        self.bed.start_servers()
        told = ""
        if self._site is not None:
            found = self._settled()
            if found and self.bed.controller.running and site_file(self.bed) != self._site[SITE_FILE]:
                self.bed.controller.reload(self._site[SITE_FILE])
                if not self._settled():
                    return "\n".join(found)
            if not found:
                return ""
            told = "\n".join(found)
        self._site = None
        self.bed.reset()
        if self._settled():
            told = "\n".join([*self.differences(), "built anew"])
            self.rebuild()
        return told

    def rebuild(self) -> None:
        """After a test that failed: nobody knows what it has left."""
        self._site = None
        self.bed.rebuild()
        self._hosts = hosts(self.bed)

    def differences(self) -> list[str]:
        """What is not as it was found, each in a line."""
        found = [f"{name}: {text}" for name, text in _changes(self._hosts, hosts(self.bed))]
        if self._site is not None:
            try:
                found += [f"{what}: {text}" for what, text in _changes(self._site, site(self.bed))]
            except (OSError, HTTPException) as error:
                found.append(f"the controller: {error!r}")
        return found

    def _settled(self) -> list[str]:
        """The same, when what ends by itself has ended."""
        deadline = time.monotonic() + limit(SETTLES)
        while (found := self.differences()) and time.monotonic() < deadline:
            time.sleep(0.02)
        return found


def _changes(before: dict[str, Any], after: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for key in before | after:
        if (was := before.get(key)) != (now := after.get(key)):
            if isinstance(was, Counter) and isinstance(now, Counter):
                was, now = dict(was - now), dict(now - was)
            yield key, f"it was {was}, now it is {now}"


# What there is.


def hosts(bed: Bed) -> dict[str, Counter[Any]]:
    """Of each namespace: links, addresses, routes, neighbours by order, and processes."""
    running = _processes(bed.spaces, bed.controller.process.pid if bed.controller.process else None)
    return {space.name: Counter(space.call(_lasting)) + running[space.name] for space in bed.spaces}


def _lasting() -> list[tuple[object, ...]]:
    """Without what the kernel makes by itself for IPv6 when a link comes up."""
    return [each for each in netlink.everything() if not (
        each[0] == "address" and each[1] == IP_VERSION_6 and each[-1] == LINK_SCOPE
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


def site(bed: Bed) -> dict[str, Any]:
    """What the controller says of the site, without what comes and goes with connections."""
    ips = bed.rest("GET", "/v1/external-ips").json["external_ips"]
    balancers = bed.rest("GET", "/v1/load-balancers").json["load_balancers"]
    return {
        SITE_FILE: site_file(bed),
        **{ip["address"]: _without(ip, "connections", "load", "former_servers", "router") | {
            "services": [_without(service, "servers") | {"servers": [
                _without(server, "connections", "since", "mac", "reason", "state") for server in service["servers"]]}
                for service in ip["services"]]} for ip in ips},
        **{lb["name"]: _without(lb, "connections", "load", "counters", "health", "health_reason") for lb in balancers},
    }


def site_file(bed: Bed) -> str:
    """Its text; "" if there is none."""
    path = bed.controller.site_file
    return path.read_text() if path.exists() else ""


def _without(record: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in keys}
