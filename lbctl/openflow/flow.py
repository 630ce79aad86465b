"""One OpenFlow flow as a value: checked against the declaration of its table, printable as `ovs-ofctl` text."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from lbctl.frames.packets import ACK, FIN, RST, SYN
from lbctl.openflow.cookies import Kind, flow_cookie
from lbctl.openflow.tables import TABLES, number
from lbctl.values.protocols import ETH_TYPE_ARP, ETH_TYPE_IPV4, ETH_TYPE_IPV6, ICMP, ICMPV6, TCP, UDP

FRAGMENT_ANY = (1, 1)
"""ip_frag, value and mask: any fragment (nicira-ext.h, NXM_NX_IP_FRAG)."""


PRIORITY_TAG, ANY_TAG = (0x1000, 0x1FFF), (0x1000, 0x1000)
"""vlan_vid, value and mask: a tag that names no VLAN (IEEE 802.1Q: VLAN 0, a priority only); any tag."""


# Actions. Tuples, since they are looked up very often; `action` tells kinds with equal values apart.

class SetField(NamedTuple):
    field: str
    value: str | int
    action: str = "set_field"


class MoveField(NamedTuple):
    """Copies a whole field into another of the same width (`bits`); of `metadata`, the low bits."""

    source: str
    target: str
    bits: int
    action: str = "move"


class Output(NamedTuple):
    port: int
    action: str = "output"


class Simple(NamedTuple):
    """An action without a value: `in_port`, `controller`, `dec_ttl`, `pop_vlan` or `forget_in_port`."""

    name: str
    action: str = "simple"


class FinTimeout(NamedTuple):
    """Once the flow has seen FIN or RST, it expires after `idle` seconds without a packet."""

    idle: int
    action: str = "fin_timeout"


class Resubmit(NamedTuple):
    table: str
    action: str = "resubmit"


class SetTtl(NamedTuple):
    """Sets the TTL (IPv6: hop limit)."""

    ttl: int
    action: str = "set_ttl"


class CheckLarger(NamedTuple):
    """Sets a register to 1 if the frame (without checksum) has more than `length` bytes, else to 0."""

    length: int
    field: str
    action: str = "check_larger"


class Learn(NamedTuple):
    """Adds a flow that drops what it matches, for `seconds` after the last packet that came here (ovs-actions(7),
    learn)."""

    table: str
    priority: int
    seconds: int
    cookie: int
    match: tuple[tuple[str, int], ...]
    action: str = "learn"


FlowAction = SetField | MoveField | Output | Simple | FinTimeout | Resubmit | SetTtl | CheckLarger | Learn
MatchValue = str | int | tuple[int, int]
Match = dict[str, MatchValue]
Identity = tuple[str, int, tuple[tuple[str, MatchValue], ...]]
"""What a switch tells flows apart by: table, priority and match."""

Place = tuple[str, int]
"""Table and cookie: what a switch is asked by; few flows have the same."""

CONTROLLER = Simple("controller")
IN_PORT = Simple("in_port")
DEC_TTL = Simple("dec_ttl")
POP_VLAN = Simple("pop_vlan")
FORGET_IN_PORT = Simple("forget_in_port")
"""Before an output that may be the port that the packet came by: Open vSwitch sends nothing back there (ovs-fields(7),
in_port). Loaded, since OpenFlow's own field in_port can't be set."""


class PipelineError(ValueError):
    """A flow that its table's declaration does not allow: a programming error, found when the flow is built."""


KEPT_ACTIONS = 1 << 12
"""Actions that are not written again: many flows have the same."""
KEPT_FLOWS = 1 << 16
"""Flows that are not built again for the next LB: most are the same on all of them."""


@dataclass(frozen=True, slots=True)
class Flow:
    """A flow. `match` is sorted (field, value) pairs; a (value, mask) pair is a masked match.

    hard_timeout: seconds that it lives, unless it is added again; 0: for ever.

    Raises PipelineError if the table's declaration does not allow it.
    """

    table: str
    priority: int
    match: tuple[tuple[str, MatchValue], ...]
    actions: tuple[FlowAction, ...] = ()
    goto: str | None = None
    meter: int | None = None
    cookie: int = 0
    send_removed: bool = False
    hard_timeout: int = 0

    def __post_init__(self) -> None:
        declared = TABLES[self.table]
        for field, _ in self.match:
            if field not in declared.matches:
                raise PipelineError(f"table {self.table} may not match {field}")
        for action in self.actions:
            written = getattr(action, "field", None) or getattr(action, "target", None)
            if written and written not in declared.writes:
                raise PipelineError(f"table {self.table} may not write {written}")
            if isinstance(action, Resubmit) and action.table not in declared.next:
                raise PipelineError(f"table {self.table} may not resubmit to {action.table}")
        if self.goto and (self.goto not in declared.next or number(self.goto) <= declared.number):
            raise PipelineError(f"table {self.table} may not go to {self.goto}")

    def __hash__(self) -> int:
        """Its cookie has a digest of all else."""
        return hash((self.cookie, self.table, self.priority))

    @property
    def identity(self) -> Identity:
        return self.table, self.priority, self.match

    @property
    def place(self) -> Place:
        return self.table, self.cookie

    def text(self, with_cookie: bool = True) -> str:
        """The flow as `ovs-ofctl add-flow` takes it and `ovs-ofctl --no-stats dump-flows` prints it (OVS 3.1)."""
        content = self.table, self.priority, self.match, self.actions, self.goto, self.meter
        text = _text(content, self.hard_timeout, self.send_removed)
        return f"cookie={self.cookie:#x}, {text}" if with_cookie else text


def flow(kind: Kind, external_ip: int, table: str, priority: int, match: Match, *actions: FlowAction,
         goto: str | None = None, meter: int | None = None, hard_timeout: int = 0) -> Flow:
    """Builds a flow with the cookie that its kind, external IP (0: none) and content give it. Raises PipelineError."""
    content = table, priority, tuple(sorted(match.items())), actions, goto, meter
    return _flow(kind, external_ip, hard_timeout, content)


Content = tuple[str, int, tuple[tuple[str, MatchValue], ...], tuple[FlowAction, ...], str | None, int | None]
"""A flow's table, priority, match, actions, goto, and meter."""


@lru_cache(maxsize=KEPT_FLOWS)
def _flow(kind: Kind, external_ip: int, hard_timeout: int, content: Content) -> Flow:
    text = _text(content, hard_timeout)
    if kind.drops != text.endswith("=drop"):
        raise PipelineError(f"{text}: what drops has a kind of its own (cookies.py) and is counted by it; "
                            f"{kind.name} is {'' if kind.drops else 'not '}one")
    return Flow(*content, cookie=flow_cookie(kind, external_ip, text), hard_timeout=hard_timeout)


def _text(content: Content, hard_timeout: int, send_removed: bool = False) -> str:
    """All but the cookie, which is made of it."""
    table, priority, match, actions, goto, meter = content
    parts = [f"table={number(table)}"] if number(table) else []
    if hard_timeout:
        parts.append(f"hard_timeout={hard_timeout}")
    matches = ",".join([f"priority={priority}", *_match_text(dict(match))])
    parts.append(f"send_flow_rem {matches}" if send_removed else matches)
    does = ([f"meter:{meter}"] if meter is not None else []) + [_action_text(action) for action in actions]
    if goto:
        does.append(f"goto_table:{number(goto)}")
    return ", ".join(parts) + " actions=" + (",".join(does) or "drop")


_FLAG_NAMES = {FIN: "fin", SYN: "syn", RST: "rst", ACK: "ack"}
_MATCH_NAMES = {"tunnel_id": "tun_id", "tun_ipv4_src": "tun_src", "eth_src": "dl_src",
                "eth_dst": "dl_dst", "ipv4_src": "nw_src", "ipv4_dst": "nw_dst",
                "tcp_src": "tp_src", "tcp_dst": "tp_dst", "udp_src": "tp_src", "udp_dst": "tp_dst",
                "icmpv4_type": "icmp_type", "icmpv6_type": "icmp_type",
                "ipv6_nd_target": "nd_target"}
_SET_NAMES = {"tunnel_id": "tun_id", "tun_ipv4_dst": "tun_dst",
              "ipv4_src": "ip_src", "ipv4_dst": "ip_dst", "icmpv4_type": "icmp_type", "ipv6_nd_tll": "nd_tll"}
_MOVE_NAMES = {"eth_src": "NXM_OF_ETH_SRC", "eth_dst": "NXM_OF_ETH_DST", "arp_sha": "NXM_NX_ARP_SHA",
               "arp_tha": "NXM_NX_ARP_THA", "arp_spa": "NXM_OF_ARP_SPA", "arp_tpa": "NXM_OF_ARP_TPA",
               "tun_ipv4_src": "NXM_NX_TUN_IPV4_SRC", "tun_ipv4_dst": "NXM_NX_TUN_IPV4_DST",
               "ipv4_src": "NXM_OF_IP_SRC", "ipv4_dst": "NXM_OF_IP_DST", "ipv6_src": "NXM_NX_IPV6_SRC",
               "ipv6_dst": "NXM_NX_IPV6_DST", "metadata": "OXM_OF_METADATA",
               "tcp_src": "NXM_OF_TCP_SRC", "udp_src": "NXM_OF_UDP_SRC"}
_LEARNED = {"eth_type": "eth_type", "arp_op": "arp_op", "ip_proto": "nw_proto", "icmpv6_type": "icmpv6_type"}
_MATCH_ORDER = ("reg0", "reg1", "reg2", "reg3", "tunnel_id", "tun_ipv4_src", "metadata", "in_port", "vlan_vid",
                "eth_src", "eth_dst",
                "ipv4_src", "ipv4_dst", "ipv6_src", "ipv6_dst", "arp_spa", "arp_tpa", "arp_op", "arp_sha", "arp_tha",
                "nw_ttl", "ip_frag", "icmpv4_type", "icmpv6_type", "ipv6_nd_target",
                "tcp_src", "udp_src", "tcp_dst", "udp_dst", "tcp_flags")
_MATCH_PLACES = {field: place for place, field in enumerate(_MATCH_ORDER)}
_HEX = ("reg0", "reg1", "reg2", "reg3", "tunnel_id", "metadata")
_SIMPLE_TEXTS = {"controller": "CONTROLLER:65535", "in_port": "IN_PORT", "forget_in_port": "load:0->NXM_OF_IN_PORT[]"}
_PROTOCOLS: dict[tuple[MatchValue, MatchValue | None], str] = {
    (ETH_TYPE_ARP, None): "arp",
    (ETH_TYPE_IPV4, None): "ip", (ETH_TYPE_IPV4, ICMP): "icmp",
    (ETH_TYPE_IPV4, TCP): "tcp", (ETH_TYPE_IPV4, UDP): "udp",
    (ETH_TYPE_IPV6, None): "ipv6", (ETH_TYPE_IPV6, ICMPV6): "icmp6",
    (ETH_TYPE_IPV6, TCP): "tcp6", (ETH_TYPE_IPV6, UDP): "udp6"}


def _match_text(match: Match) -> list[str]:
    texts = [_PROTOCOLS[match["eth_type"], match.get("ip_proto")]] if "eth_type" in match else []
    for field in sorted([field for field in match if field in _MATCH_PLACES], key=_MATCH_PLACES.__getitem__):
        value = match[field]
        if field == "ip_frag":
            texts.append("nw_frag=yes")
        elif field == "vlan_vid":
            texts.append("dl_vlan=0" if value == PRIORITY_TAG else "vlan_tci=0x1000/0x1000")
        elif field in _HEX:
            texts.append(f"{_MATCH_NAMES.get(field, field)}={_hex(value)}")
        elif isinstance(value, tuple):
            masked = _flags_text(*value) if field == "tcp_flags" else f"{value[0]:#x}/{value[1]:#x}"
            texts.append(f"{_MATCH_NAMES.get(field, field)}={masked}")
        else:
            texts.append(f"{_MATCH_NAMES.get(field, field)}={value}")
    return texts


def _flags_text(value: int, mask: int) -> str:
    return "".join(("+" if value & bit else "-") + name for bit, name in _FLAG_NAMES.items() if mask & bit)


def _hex(value: MatchValue) -> str:
    return f"{value:#x}" if value else "0"


def _moved(field: str, bits: int) -> str:
    return _MOVE_NAMES[field] + (f"[0..{bits - 1}]" if field == "metadata" else "[]")


@lru_cache(maxsize=KEPT_ACTIONS)
def _action_text(action: FlowAction) -> str:
    match action:
        case SetField(field, value):
            return f"set_field:{_hex(value) if field in _HEX else value}->{_SET_NAMES.get(field, field)}"
        case MoveField(source, target, bits):
            return f"move:{_moved(source, bits)}->{_moved(target, bits)}"
        case Output(port):
            return f"output:{port}"
        case Simple(name):
            return _SIMPLE_TEXTS.get(name, name)
        case FinTimeout(idle):
            return f"fin_timeout(idle_timeout={idle})"
        case SetTtl(ttl):
            return f"mod_nw_ttl:{ttl}"
        case CheckLarger(length, field):
            return f"check_pkt_larger({length})->NXM_NX_{field.upper()}[0]"
        case Resubmit(table):
            return f"resubmit(,{number(table)})"
        case Learn(table, priority, seconds, cookie, match):
            fields = ",".join(f"{_LEARNED[field]}={value:#x}" if field == "eth_type" else f"{_LEARNED[field]}={value}"
                              for field, value in match)
            head = f"table={number(table)},hard_timeout={seconds},priority={priority},cookie={cookie:#x}"
            return f"learn({head},{fields})"
    raise PipelineError(f"no text for {action!r}")
