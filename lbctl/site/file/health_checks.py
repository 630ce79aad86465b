"""How a service's servers are checked, as a site file has it (docs/health-checks.md)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import yaml

from lbctl.site.file.fields import FieldReader, named
from lbctl.site.file.yaml_reader import quoted
from lbctl.site.model import CHECK_PORTS, CHECKS, WHEN_DOWN, HealthCheck, Service

_ANY = ("type", "interval", "timeout", "rise", "fall", "port", "when_down")
_KEYS = {"tcp": (), "http": ("path", "host", "status"), "udp": ("request", "answer")}
"""Which keys a type of check has besides those that each may have."""
_ONLY_FOR = {key: f"type: {kind}" for kind, keys in _KEYS.items() for key in keys}
LEAST_INTERVAL, MOST_SECONDS = 0.1, 3600.0
"""Seconds. Time is looked at some ten times a second."""
MOST_IN_A_ROW = 1000
MOST_BYTES = 512
"""Of a request's payload: it must fit into one packet on every way to a server (RFC 791, RFC 9293 3.7.1)."""
_PATH = re.compile(r"/[!-~]{0,255}")
_HOST = re.compile(r"[!-.0-~]{1,128}")
_STATUS = re.compile(r"([1-5][0-9]{2})(?:-([1-5][0-9]{2}))?")
_HEX = re.compile(r"(?:[0-9A-Fa-f]{2}){1,512}")


_DEFAULT = HealthCheck("tcp")


def _usual_timeout(interval: float) -> float:
    """Unless the site file says another."""
    return min(interval, _DEFAULT.timeout)


class CheckReader:
    """Reads the `health_check` of services."""

    def __init__(self, reader: FieldReader) -> None:
        self._reader = reader
        self._nodes: dict[HealthCheck, yaml.Node] = {}

    def check(self, node: yaml.Node, protocol: str | None) -> HealthCheck | None:
        """protocol: the service's, which says the type if the check does not."""
        type_node = named(node, "type")
        kind = self._reader.choice(type_node, "type", CHECKS) if type_node else protocol
        if kind is None:
            return None  # which other keys there may be is not known
        values = self._reader.mapping(node, "health_check", (), (*_ANY, *_KEYS[kind]), _ONLY_FOR)
        if values is None:
            return None
        before = len(self._reader.problems)
        given = {key: read(values[key], key) for key, read in self._readers().items() if key in values}
        if len(self._reader.problems) > before:
            return None
        interval = given.get("interval", _DEFAULT.interval)
        given.setdefault("timeout", _usual_timeout(interval))
        if given["timeout"] > interval:
            self._reader.problem(values["timeout"], f"timeout {given['timeout']:g} is longer than interval {interval:g}: a check must "
                                 "have ended when the next one begins")
            return None
        found = HealthCheck(kind, **given)
        self._nodes[found] = node
        return found

    def keep_apart(self, ports: tuple[int, int], node: yaml.Node | None, services: Sequence[Service | None]) -> None:
        """Full NAT: what connections are translated to must not be what checks come from."""
        first, last = CHECK_PORTS
        checked = next((service.health_check for service in services if service and service.health_check), None)
        if checked and ports[0] <= last and first <= ports[1]:
            where = node if node is not None else self._nodes[checked]
            self._reader.problem(where, f"port_range {ports[0]}-{ports[1]} holds some of the ports {first}-{last}, which this external "
                                 f"IP's health checks come from: begin it at {last + 1}, or end it at {first - 1}")

    def _readers(self) -> dict[str, Any]:
        reader = self._reader
        return {
            "interval": self._seconds, "timeout": self._seconds,
            "rise": lambda node, what: reader.whole(node, what, 1, MOST_IN_A_ROW),
            "fall": lambda node, what: reader.whole(node, what, 1, MOST_IN_A_ROW),
            "port": lambda node, what: reader.whole(node, what, 1, 65535),
            "when_down": lambda node, what: reader.choice(node, what, WHEN_DOWN),
            "path": lambda node, what: self._word(node, what, _PATH, "begin with / and have at most 256 printable ASCII characters, "
                                                                     "no space"),
            "host": lambda node, what: self._word(node, what, _HOST, "be a host name, an address, or either with :PORT"),
            "status": self._status, "request": self._bytes, "answer": self._bytes,
        }

    def _seconds(self, node: yaml.Node, what: str) -> float | None:
        value = self._reader.positive(node, what)
        if value is None or LEAST_INTERVAL <= value <= MOST_SECONDS:
            return value
        self._reader.problem(node, f"{what} must be from {LEAST_INTERVAL:g} to {MOST_SECONDS:g} seconds; it is {value:g}")
        return None

    def _word(self, node: yaml.Node, what: str, form: re.Pattern[str], wanted: str) -> str | None:
        value = self._reader.text(node, what)
        if value is None or form.fullmatch(value):
            return value
        self._reader.problem(node, f"{what} must {wanted}; it is {quoted(value)}")
        return None

    def _status(self, node: yaml.Node, what: str) -> tuple[tuple[int, int], ...] | None:
        """One code, a range, or a list of both."""
        items = self._reader.items(node, what) if isinstance(node, yaml.SequenceNode) else [node]
        wanted = "an HTTP status such as 200, a range such as 200-399, or a list of them"
        found = []
        for item in items:
            text = self._reader.raw(item, what, wanted)
            match = _STATUS.fullmatch(text) if text is not None else None
            first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
            if text is not None and first > last:
                self._reader.problem(item, f"{what} must be {wanted}; it is {quoted(text)}")
            elif text is not None:
                found.append((first, last))
        return tuple(found)

    def _bytes(self, node: yaml.Node, what: str) -> bytes | None:
        """Text, or {hex: digits}."""
        if not isinstance(node, yaml.MappingNode):
            text = self._reader.text(node, what)
            data = text.encode() if text is not None else None
        else:
            values = self._reader.mapping(node, what, ("hex",)) or {}
            digits = self._reader.raw(values.get("hex"), "hex", "hex digits in quotes")
            if digits is not None and not _HEX.fullmatch(digits):
                self._reader.problem(node, f"hex must be an even number of hex digits, at most {2 * MOST_BYTES}; it is {quoted(digits)}")
                return None
            data = bytes.fromhex(digits) if digits is not None else None
        if data is not None and len(data) > MOST_BYTES:
            self._reader.problem(node, f"{what} has {len(data)} bytes: at most {MOST_BYTES} fit into a packet on every way to a server")
            return None
        return data


def check_text(check: HealthCheck) -> dict[str, Any]:
    """What a site file says for it, without what is a default."""
    given = {each.name: getattr(check, each.name) for each in fields(check) if getattr(check, each.name) != each.default}
    given.pop("timeout", None)
    if check.timeout != _usual_timeout(check.interval):
        given["timeout"] = check.timeout
    if "status" in given:
        given["status"] = [first if first == last else f"{first}-{last}" for first, last in check.status]
    for key in ("request", "answer"):
        if key in given:
            given[key] = {"hex": given[key].hex()} if given[key] else ""
    return given
