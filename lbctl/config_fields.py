"""The kinds of values that a site file holds: names, datapath ids, networks, addresses."""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv4Network

import yaml

from lbctl.config_yaml import Reader, quoted

MAX_PREFIX = 30
"""Longer prefixes leave no room for an address beside network and broadcast."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_PORT_NAME = re.compile(r"[^\s/:]{1,15}")
_DPID = re.compile(r"[0-9a-fA-F]{16}")
_NETWORK = re.compile(r"[0-9.]+/[0-9]{1,2}")
_NOT_FOR_HOSTS = tuple(map(IPv4Network, ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3")))


class FieldReader(Reader):
    """A reader of these kinds. Like its base, each method notes a problem and returns None, or returns the value."""

    def name(self, node: yaml.Node | None, what: str) -> str | None:
        """A name of a load balancer: it is part of URLs and commands."""
        name = self.text(node, what)
        if name is None or _NAME.fullmatch(name):
            return name
        self.problem(
            node,
            f"{what} {quoted(name)}: use at most 63 letters, digits, '.', '_' and '-', a letter or digit first",
        )
        return None

    def dpid(self, node: yaml.Node | None, what: str) -> int | None:
        """A datapath id as Open vSwitch writes it."""
        text = self.raw(node, what, "16 hex digits in quotes")
        if text is None or node is None:
            return None
        if node.tag != "tag:yaml.org,2002:str":
            self.problem(node, f"{what} must be in quotes, or YAML reads it as a number{_dpid_hint(text)}")
        elif not _DPID.fullmatch(text):
            self.problem(
                node,
                f"{what} must be 16 hex digits, as `ovs-vsctl get bridge BRIDGE datapath_id` says; it is {quoted(text)}"
                f"{_dpid_hint(text)}",
            )
        elif int(text, 16) == 0:
            self.problem(node, f"{what} must not be 0: Open vSwitch refuses it")
        else:
            return int(text, 16)
        return None

    def port_name(self, node: yaml.Node | None, what: str) -> str | None:
        """The name of a network interface."""
        name = self.text(node, what)
        if name is None or _PORT_NAME.fullmatch(name):
            return name
        self.problem(node, f"{what} {quoted(name)} is no interface name: 1 to 15 characters, no space, '/' or ':'")
        return None

    def network(self, node: yaml.Node | None, what: str) -> IPv4Network | None:
        """An IPv4 network of hosts."""
        wanted = "a network such as 10.0.0.0/24"
        text = self.raw(node, what, wanted)
        if text is None:
            return None
        try:
            network = IPv4Network(text, strict=False) if _NETWORK.fullmatch(text) else None
        except ValueError:
            network = None
        if network is None:
            self.problem(node, f"{what} must be {wanted}; it is {quoted(text)}")
        elif text.split("/")[0] != str(network.network_address):
            self.problem(node, f"{what} {text} has host bits set: write {network}")
        elif network.prefixlen > MAX_PREFIX:
            self.problem(node, f"{what} {network} is too small: the prefix must be /{MAX_PREFIX} or shorter")
        elif any(network.overlaps(other) for other in _NOT_FOR_HOSTS):
            self.problem(node, f"{what} {network} holds addresses that hosts cannot have (0/8, 127/8, 224/3)")
        else:
            return network
        return None

    def address_in(
        self, node: yaml.Node | None, what: str, network: IPv4Network | None, network_key: str
    ) -> IPv4Address | None:
        """An IPv4 address that a host in the network can have; any address, if the network is not known."""
        address = self.address(node, what)
        if address is None or network is None:
            return address
        if address not in network:
            self.problem(node, f"{what} {address} is outside {network_key} {network}")
        elif address == network.network_address:
            self.problem(node, f"{what} {address} is the network address of {network_key} {network}")
        elif address == network.broadcast_address:
            self.problem(node, f"{what} {address} is the broadcast address of {network_key} {network}")
        return address

    def address(self, node: yaml.Node | None, what: str) -> IPv4Address | None:
        """An IPv4 address."""
        wanted = "an IPv4 address such as 10.0.0.11"
        text = self.raw(node, what, wanted)
        if text is None:
            return None
        try:
            return IPv4Address(text)
        except AddressValueError:
            hint = ""
            if ":" in text:
                hint = " (IPv6 is not supported, and a port has a key of its own)"
            elif "/" in text:
                hint = ": leave the prefix length out"
            self.problem(node, f"{what} must be {wanted}; it is {quoted(text)}{hint}")
            return None


def _dpid_hint(text: str) -> str:
    digits = text.removeprefix("0x").replace(":", "").lower()
    return f': write "{digits:0>16}"' if re.fullmatch("[0-9a-f]{1,16}", digits) else ""
