"""The rules for keepers, and for the copies that an external IP may have."""

from __future__ import annotations

import yaml

from lbctl.site.file.loader import Draft
from lbctl.site.file.register import Register
from lbctl.site.file.yaml_reader import Reader
from lbctl.site.model import KEEPER_PORT
from lbctl.values.addresses import Address


class KeeperRules:
    """site: the draft of the whole file."""

    def __init__(self, reader: Reader, register: Register, site: Draft) -> None:
        self._reader = reader
        keepers = site.parts("keepers")
        for keeper in keepers:
            self._keeper(keeper, register)
        self._servers = {keeper.address("server") for keeper in keepers}
        nodes = site.nodes.get("keepers")
        self._complete = None not in self._servers and (nodes is None or len(nodes.value) == len(keepers))
        """Is it known which servers have keepers?"""

    def _keeper(self, keeper: Draft, register: Register) -> None:
        server = keeper.address("server")
        if server is None:
            return
        register.once(keeper.nodes["server"], ("keeper", server), f"the server {server} already has a keeper")
        host = str(server) if server.version == 4 else f"[{server}]"
        if "url" not in keeper.nodes:
            keeper.values["url"] = f"http://{host}:{KEEPER_PORT}"

    def check_copies(self, external_ip: Draft) -> None:
        """Says which there are, if the file does not: what docs/failover.md explains is chosen."""
        if "copies" not in external_ip.nodes:
            external_ip.values["copies"] = (
                ("controller",) if not self._kept(external_ip) else ("controller", _remote(external_ip))
            )
            return
        found = set()
        for copy, node in external_ip.items("copies"):
            if copy in found:
                self._reader.problem(node, f"copies: {copy} is there already")
            elif copy != "controller":
                self._check(node, copy, external_ip)
            found.add(copy)

    def _kept(self, external_ip: Draft) -> bool:
        return bool(external_ip.parts("services")) and not self._missing(external_ip)

    def _missing(self, external_ip: Draft) -> list[Address]:
        servers = {
            server.address("address")
            for service in external_ip.parts("services")
            for server in service.parts("servers")
        }
        return sorted((server for server in servers - self._servers if server), key=str) if self._complete else []

    def _check(self, node: yaml.Node, copy: str, external_ip: Draft) -> None:
        if external_ip.word("kind") == "nat-gateway":
            self._reader.problem(
                node, f"copies: a NAT gateway has no servers that could keep them: {copy} can't be used"
            )
        elif copy == "sockets" and external_ip.word("nat") == "full":
            self._reader.problem(
                node, "copies: with nat: full a server's sockets don't tell who the client is: use keeper"
            )
        elif missing := self._missing(external_ip):
            self._reader.problem(
                node, f"copies: {copy} needs a keeper for {', '.join(map(str, missing))}: add it to keepers"
            )


def _remote(external_ip: Draft) -> str:
    """The copy that outlives the controller, at the least cost: sockets cost nothing until they are needed."""
    only_tcp = all(service.word("protocol") == "tcp" for service in external_ip.parts("services"))
    return "sockets" if external_ip.word("nat") != "full" and only_tcp else "keeper"
