"""The kinds of values that a site file holds: names, datapath ids, networks, addresses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import ip_address, ip_network

import yaml

from lbctl.site.file.yaml_reader import Reader, line_of, quoted
from lbctl.values.addresses import Address, Network, is_host

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_PORT_NAME = re.compile(r"[^\s/:]{1,15}")
_DPID = re.compile(r"[0-9a-fA-F]{16}")
_NETWORK = re.compile(r"([0-9.]+|[0-9A-Fa-f:]+)/[0-9]{1,3}")
_PORT_RANGE = re.compile(r"([0-9]{1,5})-([0-9]{1,5})")
_NOT_FOR_HOSTS = tuple(map(ip_network, ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3", "::/127", "ff00::/8")))


class FieldReader(Reader):
    """A reader of these kinds. Like its base, each method notes a problem and returns None, or returns the value.

    seen: what must not occur twice, and where it was.
    """

    def __init__(self, file: str) -> None:
        super().__init__(file)
        self.seen: dict[tuple[object, ...], str] = {}

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

    def networks(self, node: yaml.Node | None, what: str) -> tuple[Network, ...]:
        """A network of hosts, or a list of one of each IP version; IPv4 first."""
        nodes = self.items(node, what) if isinstance(node, yaml.SequenceNode) else [node]
        found: dict[int, Network] = {}
        for item in nodes:
            network = self.network(item, what)
            if network is not None and network.version in found:
                self.problem(item, f"{what} has two IPv{network.version} networks, {found[network.version]} and {network}: "
                             "one of each IP version")
            elif network is not None:
                found[network.version] = network
        return tuple(found[version] for version in sorted(found))

    def network(self, node: yaml.Node | None, what: str, prefix: bool = False) -> Network | None:
        """A network of hosts; `prefix`: single hosts are networks too."""
        wanted = "a network such as 10.0.0.0/24"
        text = self.raw(node, what, wanted)
        if text is None:
            return None
        try:
            network = ip_network(text, strict=False) if _NETWORK.fullmatch(text) else None
        except ValueError:
            network = None
        if network is None:
            self.problem(node, f"{what} must be {wanted}; it is {quoted(text)}")
            return None
        longest = network.max_prefixlen - (0 if prefix else 2)
        if _address(text.split("/")[0]) != network.network_address:
            self.problem(node, f"{what} {text} has host bits set: write {network}")
        elif network.prefixlen > longest:
            self.problem(node, f"{what} {network} is too small: the prefix must be /{longest} or shorter")
        elif any(network.overlaps(other) for other in _NOT_FOR_HOSTS if other.version == network.version):
            ranges = "0/8, 127/8, 224/3" if network.version == 4 else "::/127, ff00::/8"
            self.problem(node, f"{what} {network} holds addresses that hosts cannot have ({ranges})")
        else:
            return network
        return None

    def address_in(self, node: yaml.Node | None, what: str, networks: Sequence[Network], network_key: str) -> Address | None:
        """An address that a host in one of the networks can have; any address, if no network is known."""
        address = self.address(node, what)
        if address is None or not networks:
            return address
        network = next((network for network in networks if network.version == address.version), None)
        if network is None or address not in network:
            self.problem(node, f"{what} {address} is outside {network_key} {' and '.join(map(str, networks))}")
        elif address == network.network_address:
            self.problem(node, f"{what} {address} is the network address of {network_key} {network}")
        elif address == network.broadcast_address and network.version == 4:
            self.problem(node, f"{what} {address} is the broadcast address of {network_key} {network}")
        return address

    def address(self, node: yaml.Node | None, what: str) -> Address | None:
        """An IP address of a host."""
        wanted = "an IP address such as 10.0.0.11"
        text = self.raw(node, what, wanted)
        if text is None:
            return None
        address = _address(text)
        if address is None:
            hint = ": leave the prefix length out" if "/" in text else " (a port has a key of its own)" if ":" in text else ""
            self.problem(node, f"{what} must be {wanted}; it is {quoted(text)}{hint}")
        elif not is_host(address.packed):
            self.problem(node, f"{what} {address} is no address that a host can have")
        elif address.version == 6 and (address.scope_id or address.is_link_local or address.ipv4_mapped):
            self.problem(node, f"{what} {address} is link-local, or an IPv4 address in IPv6 form: take a global or unique local address")
        else:
            return address
        return None

    def port_range(self, node: yaml.Node, what: str) -> tuple[int, int] | None:
        """The first and the last of some ports, as [1024, 65535] or 1024-65535."""
        wanted = "the first and the last port, such as [1024, 65535]"
        if isinstance(node, yaml.SequenceNode):
            nodes = node.value
            if len(nodes) != 2:
                self.problem(node, f"{what} must be {wanted}; it has {len(nodes)} items")
                return None
            first, last = (self.whole(item, what, 1, 65535) for item in nodes)
        else:
            text = self.raw(node, what, wanted)
            match = _PORT_RANGE.fullmatch(text) if text is not None else None
            if text is not None and match is None:
                self.problem(node, f"{what} must be {wanted}; it is {quoted(text)}")
            first, last = map(int, match.groups()) if match else (None, None)
        if first is None or last is None:
            return None
        if not 1 <= first <= last <= 65535:
            self.problem(node, f"{what} {first}-{last} holds no port: the first must be 1 to 65535, the last not below it")
            return None
        return first, last

    def once(self, node: yaml.Node, key: tuple[object, ...], message: str) -> None:
        """Note a problem if the key was seen before; the message says where."""
        if key in self.seen:
            self.problem(node, f"{message} ({self.seen[key]})")
        else:
            self.seen[key] = f"line {line_of(node)}"

    def deciding(self, node: yaml.Node, key: str, known: tuple[str, ...]) -> str:
        """The key of a mapping that decides which other keys there may be; the first known word if it is missing or wrong."""
        value = named(node, key)
        return (self.choice(value, key, known) if value is not None else None) or known[0]

    def same_version(self, found: Address | Network | None, other: Address | None, node: yaml.Node | None, what: str,
                     of: str = "the external IP") -> None:
        """Note a problem if both are known, and are not of one IP version."""
        if found is not None and other is not None and found.version != other.version:
            self.problem(node, f"{what} {found} is IPv{found.version}, and {of} {other} is IPv{other.version}: "
                         "a connection keeps its IP version")


def named(node: yaml.Node, key: str) -> yaml.Node | None:
    """What a mapping has under that key, before the whole of it is read."""
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return next((value for name, value in pairs if name.value == key), None)


def _address(text: str) -> Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _dpid_hint(text: str) -> str:
    digits = text.removeprefix("0x").replace(":", "").lower()
    return f': write "{digits:0>16}"' if re.fullmatch("[0-9a-f]{1,16}", digits) else ""
