"""The keepers of a site file, and the copies that an external IP may have."""

from __future__ import annotations

from urllib.parse import urlsplit

import yaml

from lbctl.site.file.fields import FieldReader
from lbctl.site.file.yaml_reader import quoted
from lbctl.site.model import COPIES, KEEPER_PORT, Keeper, Keepers, Service
from lbctl.values.addresses import Address

KEYS = ("keepers", "keeper_token_file", "keeper_ca_file")
"""Those of the site file's top level that are read here."""


class KeeperReader:
    """Reads the keepers, which must be known before the external IPs are read."""

    def __init__(self, reader: FieldReader, values: dict[str, yaml.Node]) -> None:
        self._reader = reader
        nodes = reader.items(values["keepers"], "keepers") if "keepers" in values else []
        each = [self._keeper(node) for node in nodes]
        token, ca = (reader.text(values[key], key) if key in values else None for key in KEYS[1:])
        self.keepers = Keepers(tuple(filter(None, each)), token, ca)
        self._complete = all(each)
        self._servers = {keeper.server for keeper in self.keepers.each}

    def _keeper(self, node: yaml.Node) -> Keeper | None:
        values = self._reader.mapping(node, "keeper", ("server",), ("url",)) or {}
        server = self._reader.address(values.get("server"), "server")
        if server is None:
            return None
        self._reader.once(values["server"], ("keeper", server), f"the server {server} already has a keeper")
        host = str(server) if server.version == 4 else f"[{server}]"
        url = self._url(values["url"]) if "url" in values else f"http://{host}:{KEEPER_PORT}"
        return Keeper(server, url) if url else None

    def _url(self, node: yaml.Node) -> str | None:
        text = self._reader.text(node, "url")
        if text is None:
            return None
        try:
            parts = urlsplit(text)
            right = parts.scheme in ("http", "https") and parts.hostname and parts.port is not None and parts.path in ("", "/")
        except ValueError:
            right = False
        if not right:
            self._reader.problem(node, f"url {quoted(text)}: write http://ADDRESS:PORT or https://NAME:PORT")
            return None
        return text.rstrip("/")

    def copies(self, node: yaml.Node | None, nat: str, outbound: bool, services: list[Service]) -> tuple[str, ...]:
        """Of an external IP. node: None if its file does not say; then what docs/failover.md explains is chosen."""
        if node is None:
            return ("controller",) if outbound or not self._kept(services) else ("controller", _remote(nat, services))
        found = []
        for item in self._reader.items(node, "copies"):
            copy = self._reader.choice(item, "copies", COPIES)
            if copy is None:
                continue
            if copy in found:
                self._reader.problem(item, f"copies: {copy} is there already")
            elif copy != "controller":
                self._check(item, copy, nat, outbound, services)
            found.append(copy)
        return tuple(found)

    def _kept(self, services: list[Service]) -> bool:
        return bool(services) and not self._missing(services)

    def _missing(self, services: list[Service]) -> list[Address]:
        servers = {server.address for service in services for server in service.servers}
        return sorted(servers - self._servers, key=str) if self._complete else []

    def _check(self, node: yaml.Node, copy: str, nat: str, outbound: bool, services: list[Service]) -> None:
        if outbound:
            self._reader.problem(node, f"copies: a NAT gateway has no servers that could keep them: {copy} can't be used")
        elif copy == "sockets" and nat == "full":
            self._reader.problem(node, "copies: with nat: full a server's sockets don't tell who the client is: use keeper")
        elif missing := self._missing(services):
            self._reader.problem(node, f"copies: {copy} needs a keeper for {', '.join(map(str, missing))}: add it to keepers")


def _remote(nat: str, services: list[Service]) -> str:
    """The copy that outlives the controller, at the least cost: sockets cost nothing until they are needed."""
    return "sockets" if nat == "destination" and all(service.protocol == "tcp" for service in services) else "keeper"
