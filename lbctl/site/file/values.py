"""Values of each form that a site file's keys have (lbctl/site/forms.py), out of its nodes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address, ip_network
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import yaml

from lbctl.site import forms
from lbctl.site.file.yaml_reader import Reader, in_quotes
from lbctl.values.addresses import Address, Network, is_host

_DPID = re.compile(r"[0-9a-fA-F]{16}")
_NETWORK = re.compile(r"([0-9.]+|[0-9A-Fa-f:]+)/[0-9]{1,3}")
_PORT_RANGE = re.compile(r"([0-9]{1,5})-([0-9]{1,5})")
_STATUS = re.compile(r"([1-5][0-9]{2})(?:-([1-5][0-9]{2}))?")
_HEX = re.compile(r"(?:[0-9A-Fa-f]{2})+")
_NOT_FOR_HOSTS = tuple(map(ip_network, ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3", "::/127", "ff00::/8")))


class Listed(NamedTuple):
    """The values of a list that could be read, each with its node."""

    unordered: bool
    items: list[tuple[Any, yaml.Node]]

    def built(self) -> tuple[Any, ...] | frozenset[Any]:
        values = (value for value, _ in self.items)
        return frozenset(values) if self.unordered else tuple(values)


class ValueReader(Reader):
    """A reader of these values. Each method notes a problem and returns None, or returns the value.

    networks: by the key that says them; where they are not known, any address is within them.
    """

    def __init__(self, file: str) -> None:
        super().__init__(file)
        self.networks: dict[str, Sequence[Network]] = {}

    def value(self, form: forms.Form[Any], node: yaml.Node, what: str) -> Any:
        """A value of that form; what: its key."""
        return _READ[type(form)](self, form, node, what)

    def address_in(self, node: yaml.Node, what: str, key: str) -> Address | None:
        """An address of a host, which should be one in the network that the file has under that key."""
        address = self.address(node, what)
        if address is not None:
            self.check_within(address, node, what, key)
        return address

    def check_within(self, address: Address, node: yaml.Node, what: str, key: str) -> None:
        """Note a problem unless a host in the network that the file has under that key can have the address."""
        networks = self.networks.get(key)
        if not networks:
            return
        network = next((network for network in networks if network.version == address.version), None)
        if network is None or address not in network:
            self.problem(node, f"{what} {address} is outside {key} {' and '.join(map(str, networks))}")
        elif address == network.network_address:
            self.problem(node, f"{what} {address} is the network address of {key} {network}")
        elif address == network.broadcast_address and network.version == 4:
            self.problem(node, f"{what} {address} is the broadcast address of {key} {network}")

    def address(self, node: yaml.Node, what: str) -> Address | None:
        """An IP address of a host."""
        wanted = "an IP address such as 10.0.0.11"
        text = self.raw(node, what, wanted)
        if text is None:
            return None
        address = _address(text)
        if address is None:
            hint = (
                ": leave the prefix length out"
                if "/" in text
                else " (a port has a key of its own)"
                if ":" in text
                else ""
            )
            self.problem(node, f"{what} must be {wanted}; it is {in_quotes(text)}{hint}")
        elif not is_host(address.packed):
            self.problem(node, f"{what} {text} is no address that a host can have")
        elif address.version == 6 and (address.scope_id or address.is_link_local or address.ipv4_mapped):
            # As it is written: releases of Python differ in how they print an IPv4 address in IPv6 form.
            self.problem(
                node,
                f"{what} {text} is link-local, or an IPv4 address in IPv6 form: take a global or unique local address",
            )
        else:
            return address
        return None

    def same_version(self, found: Address | Network | None, other: Address | None, node: yaml.Node, what: str,
                     of: str = "the external IP") -> None:
        """Note a problem if both are known, and are not of one IP version."""
        if found is not None and other is not None and found.version != other.version:
            self.problem(node, f"{what} {found} is IPv{found.version}, and {of} {other} is IPv{other.version}: "
                         "a connection keeps its IP version")

    def network(self, node: yaml.Node, what: str, spare: int = 0) -> Network | None:
        """A network of which the prefix leaves at least so many bits to hosts."""
        wanted = "a network such as 10.0.0.0/24"
        text = self.raw(node, what, wanted)
        if text is None:
            return None
        try:
            network = ip_network(text, strict=False) if _NETWORK.fullmatch(text) else None
        except ValueError:
            network = None
        if network is None:
            self.problem(node, f"{what} must be {wanted}; it is {in_quotes(text)}")
            return None
        longest = network.max_prefixlen - spare
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

    def _networks(self, form: forms.Networks, node: yaml.Node, what: str) -> tuple[Network, ...]:
        """IPv4 first."""
        nodes = self.items(node, what) if isinstance(node, yaml.SequenceNode) else [node]
        found: dict[int, Network] = {}
        for item in nodes:
            network = self.network(item, what, spare=2)
            if network is not None and network.version in found:
                self.problem(
                    item,
                    f"{what} has two IPv{network.version} networks, {found[network.version]} and {network}: "
                    "one of each IP version",
                )
            elif network is not None:
                found[network.version] = network
        return tuple(found[version] for version in sorted(found))

    def _host_address(self, form: forms.HostAddress, node: yaml.Node, what: str) -> Address | None:
        return self.address_in(node, what, form.within) if form.within else self.address(node, what)

    def _whole(self, form: forms.Whole, node: yaml.Node, what: str) -> int | None:
        return self.whole(node, what, form.low, form.high)

    def _seconds(self, form: forms.Seconds, node: yaml.Node, what: str) -> float | None:
        value = self.positive(node, what)
        if value is None or form.least <= value <= form.most:
            return value
        self.problem(node, f"{what} must be from {form.least:g} to {form.most:g} seconds; it is {value:g}")
        return None

    def _text(self, form: forms.Text, node: yaml.Node, what: str) -> str | None:
        text = self.text(node, what)
        if text is None or form.pattern is None or form.pattern.fullmatch(text):
            return text
        self.problem(node, f"{what} {form.wrong.format(in_quotes(text))}")
        return None

    def _url(self, form: forms.Url, node: yaml.Node, what: str) -> str | None:
        text = self.text(node, what)
        if text is None:
            return None
        try:
            parts = urlsplit(text)
            right = (
                parts.scheme in ("http", "https")
                and parts.hostname
                and parts.port is not None
                and parts.path in ("", "/")
            )
        except ValueError:
            right = False
        if not right:
            self.problem(node, f"{what} {in_quotes(text)}: write http://ADDRESS:PORT or https://NAME:PORT")
            return None
        return text.rstrip("/")

    def _dpid(self, form: forms.Dpid, node: yaml.Node, what: str) -> int | None:
        text = self.raw(node, what, "16 hex digits in quotes")
        if text is None:
            return None
        if node.tag != "tag:yaml.org,2002:str":
            self.problem(node, f"{what} must be in quotes, or YAML reads it as a number{_dpid_hint(text)}")
        elif not _DPID.fullmatch(text):
            self.problem(
                node,
                f"{what} must be 16 hex digits, as `ovs-vsctl get bridge BRIDGE datapath_id` says; "
                f"it is {in_quotes(text)}"
                f"{_dpid_hint(text)}",
            )
        elif int(text, 16) == 0:
            self.problem(node, f"{what} must not be 0: Open vSwitch refuses it")
        else:
            return int(text, 16)
        return None

    def _port_range(self, form: forms.PortRange, node: yaml.Node, what: str) -> tuple[int, int] | None:
        wanted = "the first and the last port, such as [1024, 65535]"
        first: int | None
        last: int | None
        if isinstance(node, yaml.SequenceNode):
            nodes = node.value
            if len(nodes) != 2:
                self.problem(node, f"{what} must be {wanted}; it has {len(nodes)} items")
                return None
            first, last = (self.whole(item, what, forms.PORT.low, forms.PORT.high) for item in nodes)
        else:
            text = self.raw(node, what, wanted)
            match = _PORT_RANGE.fullmatch(text) if text is not None else None
            if text is not None and match is None:
                self.problem(node, f"{what} must be {wanted}; it is {in_quotes(text)}")
            first, last = (int(match[1]), int(match[2])) if match else (None, None)
        if first is None or last is None:
            return None
        if not forms.PORT.low <= first <= last <= forms.PORT.high:
            self.problem(
                node, f"{what} {first}-{last} holds no port: the first must be 1 to 65535, the last not below it"
            )
            return None
        return first, last

    def _statuses(self, form: forms.Statuses, node: yaml.Node, what: str) -> tuple[tuple[int, int], ...]:
        items = self.items(node, what) if isinstance(node, yaml.SequenceNode) else [node]
        found = []
        for item in items:
            text = self.raw(item, what, form.words())
            match = _STATUS.fullmatch(text) if text is not None else None
            first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
            if text is not None and first > last:
                self.problem(item, f"{what} must be {form.words()}; it is {in_quotes(text)}")
            elif text is not None:
                found.append((first, last))
        return tuple(found)

    def _payload(self, form: forms.Payload, node: yaml.Node, what: str) -> bytes | None:
        if not isinstance(node, yaml.MappingNode):
            text = self.text(node, what)
            data = text.encode() if text is not None else None
        else:
            digits_node = (self.mapping(node, what, ("hex",)) or {}).get("hex")
            digits = self.raw(digits_node, "hex", "hex digits in quotes") if digits_node else None
            if digits is not None and (not _HEX.fullmatch(digits) or len(digits) > 2 * form.most):
                self.problem(
                    node,
                    f"hex must be an even number of hex digits, at most {2 * form.most}; it is {in_quotes(digits)}",
                )
                return None
            data = bytes.fromhex(digits) if digits is not None else None
        if data is not None and len(data) > form.most:
            self.problem(
                node, f"{what} has {len(data)} bytes: at most {form.most} fit into a packet on every way to a server"
            )
            return None
        return data

    def _several(self, form: forms.Several[Any], node: yaml.Node, what: str) -> Listed:
        found = [(self.value(form.of, item, form.item or what), item) for item in self.items(node, what)]
        return Listed(isinstance(form, forms.Unordered), [(value, item) for value, item in found if value is not None])


_READ: Mapping[type[forms.Form[Any]], Callable[[ValueReader, Any, yaml.Node, str], Any]] = {
    forms.Whole: ValueReader._whole,
    forms.Positive: lambda reader, form, node, what: reader.positive(node, what),
    forms.Seconds: ValueReader._seconds,
    forms.Truth: lambda reader, form, node, what: reader.boolean(node, what),
    forms.Choice: lambda reader, form, node, what: reader.choice(node, what, form.choices),
    forms.Text: ValueReader._text,
    forms.Url: ValueReader._url,
    forms.LoadBalancerName: lambda reader, form, node, what: reader.raw(node, what, "the name of a load balancer"),
    forms.Dpid: ValueReader._dpid,
    forms.HostAddress: ValueReader._host_address,
    forms.Prefix: lambda reader, form, node, what: reader.network(node, what),
    forms.Networks: ValueReader._networks,
    forms.PortRange: ValueReader._port_range,
    forms.Statuses: ValueReader._statuses,
    forms.Payload: ValueReader._payload,
    forms.Several: ValueReader._several,
    forms.Unordered: ValueReader._several,
}


def _address(text: str) -> Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _dpid_hint(text: str) -> str:
    digits = text.removeprefix("0x").replace(":", "").lower()
    return f': write "{digits:0>16}"' if re.fullmatch("[0-9a-f]{1,16}", digits) else ""
