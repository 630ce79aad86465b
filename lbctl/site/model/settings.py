"""The settings of a site: times in seconds, rates in packets/s for each LB, bounds for each external IP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from lbctl.site.forms import Choice, Positive, Truth, Whole
from lbctl.site.keys import Key
from lbctl.values.protocols import TCP
from lbctl.values.side import INTERNAL, Side

Failover = Literal["when-remote", "copy-first", "transition"]
FAILOVERS: tuple[Failover, ...] = get_args(Failover)
"""When a failover goes through transition mode: if its entries must be fetched first; never (seed modification 2);
always."""
WhenMisdirected = Literal["pass-on", "error"]
WHEN_MISDIRECTED: tuple[WhenMisdirected, ...] = get_args(WhenMisdirected)
WhenWrongSide = Literal["drop", "pass"]
WHEN_WRONG_SIDE: tuple[WhenWrongSide, ...] = get_args(WhenWrongSide)
"""What becomes of a packet that comes to another LB than its external IP's."""
RebalanceMode = Literal["manual", "automatic"]
REBALANCE_MODES: tuple[RebalanceMode, ...] = get_args(RebalanceMode)
Algorithm = Literal["auto", "exact", "heuristic"]
ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)
"""Of the assignment."""
PACKETS_PER_CONNECTION = 50.0
"""What a new connection costs an LB, in packets (docs/performance.md: some 200 us against 4 us)."""
_SECONDS = Positive()
_COUNT = Whole(1, 0xFFFFFFFF)


@dataclass(frozen=True, slots=True)
class Settings:
    """Times in seconds, rates in packets/s for each LB, bounds for each external IP."""

    # Above 2 h 4 min (RFC 5382 REQ-5), so that a host's keepalive, every 2 h with Linux, comes first.
    idle_timeout: Annotated[float, Key(
        _SECONDS, "a TCP entry without a packet for so many seconds is removed")] = 7500.0
    # RFC 4787 REQ-5: two minutes at least.
    udp_idle_timeout: Annotated[float, Key(
        _SECONDS, "the same for UDP, whose connections have no other end, and for ICMP echo")] = 120.0
    udp_drain_timeout: Annotated[float, Key(
        _SECONDS,
        "a UDP flow goes from a drained server to another one after so many seconds, however long datagrams come")
    ] = 120.0
    half_open_timeout: Annotated[float, Key(
        _SECONDS,
        "a TCP entry whose client has sent nothing after its SYN for so many seconds is removed, within as long again")
    ] = 30.0
    # RFC 5382 REQ-5: four minutes at least.
    half_closed_timeout: Annotated[float, Key(
        _SECONDS,
        "a TCP entry that has seen one FIN, and then no packet for so many seconds, is removed; its connection's next "
        "packet brings it back")] = 240.0
    max_half_open: Annotated[int, Key(
        _COUNT, "such entries that there may be for one external IP; the more there are, the sooner they are removed")
    ] = 50_000
    max_entries: Annotated[int, Key(
        _COUNT, "entries that there may be for one external IP; where there are as many, new connections are dropped")
    ] = 500_000
    time_wait: Annotated[float, Key(
        _SECONDS,
        "a translated port rests so many seconds before it is given again (to the same server): as long as Linux "
        "keeps TIME_WAIT")] = 60.0
    # Short, because Open vSwitch visits each flow that waits for its end after each round of its revalidators
    # (docs/performance.md). OpenFlow has 16 bits for it.
    linger: Annotated[int, Key(
        Whole(1, 0xFFFF), "an entry stays so many seconds after FIN both ways, or after a RST")] = 2
    # What its datapath had cached while the external IP was not its own must have gone ("usually within one second":
    # OVS documentation, topics/design).
    settle: Annotated[float, Key(
        _SECONDS, "the target of a move is in transition mode so many seconds before the route changes")] = 1.0
    grace: Annotated[float, Key(
        _SECONDS,
        "the old load balancer keeps a moved external IP's entries so many seconds, for packets still on their way to "
        "it")] = 3.0
    misdirected: Annotated[WhenMisdirected, Key(
        Choice(WHEN_MISDIRECTED),
        "what a load balancer does with packets for an external IP that another has: pass them on, and tell their "
        "sender where it is; or answer with an error")] = "pass-on"
    wrong_side: Annotated[WhenWrongSide, Key(
        Choice(WHEN_WRONG_SIDE),
        "what a load balancer does with packets from outside with an internal address, and with those whose source is "
        "an external IP or one of its own addresses: drop them (RFC 2827), or let them pass, as with full NAT a host "
        "of the internal network may need whose way to an external IP leads over the outside")] = "drop"
    barrier_timeout: Annotated[float, Key(
        _SECONDS, "a switch that has not confirmed after so many seconds fails the step that waits for it")] = 5.0
    held_packets: Annotated[int, Key(_COUNT, "packets that may be held for one external IP")] = 10_000
    held_bytes: Annotated[int, Key(_COUNT, "bytes of packets that may be held for one external IP")] = 16 * 1024 * 1024
    # More than two cores can serve (performance.md): where answers come late, the rate is lowered, see field.md.
    new_rate: Annotated[int, Key(
        _COUNT, "connection requests a second of each external IP that may reach the controller")] = 5_000
    # After a failover without copies each connection needs one.
    error_rate: Annotated[int, Key(
        _COUNT, "packets a second without a connection, of each external IP, that are answered with an error")] = 1_000
    hold_rate: Annotated[int, Key(_COUNT, "packets a second that may be held in transition mode")] = 50_000
    arp_rate: Annotated[int, Key(
        _COUNT, "ARP and neighbour discovery packets a second that may reach the controller")] = 1_000
    arp_interval: Annotated[float, Key(
        _SECONDS, "the servers' MAC addresses are asked for again every so many seconds")] = 10.0
    announce_rate: Annotated[int, Key(
        _COUNT,
        "external IPs a second whose place is announced (gratuitous ARP: two frames for each, on each network; so half "
        "of what the switches there let through); of many, the busiest come first")] = 50
    icmp_rate: Annotated[int, Key(
        _COUNT,
        "ICMP errors (of an inside host: echoes) a second that may reach the controller to be translated")] = 1_000
    fragment_rate: Annotated[int, Key(
        _COUNT,
        "fragments a second, and packets that are to become fragments, that may reach the controller")] = 2_000
    external_mtu: Annotated[int, Key(
        Whole(576, 0xFFFF),
        "bytes of an IP packet that the external network takes; what is larger is cut up, or its sender told")] = 1500
    internal_mtu: Annotated[int, Key(
        Whole(576, 0xFFFF),
        "the same for the internal network, and for what carries the tunnels to servers, whose own MTU is smaller")
    ] = 1500
    automatic_failover: Annotated[bool, Key(
        Truth(),
        "whether the load balancers probe each other, and a failed one loses "
        "its external IPs; else by order only")] = True
    failover: Annotated[Failover, Key(
        Choice(FAILOVERS), "when a failover goes through transition mode, see failover.md")] = "when-remote"
    load_period: Annotated[float, Key(
        _SECONDS, "what external IPs carry is read from the switches every so many seconds")] = 2.0
    probe_interval: Annotated[float, Key(_SECONDS, "the load balancers probe each other every so many seconds")] = 0.05
    probe_misses: Annotated[int, Key(
        _COUNT, "a load balancer's data path is silent when so many probes in a row were not answered")] = 3
    relieve_after: Annotated[float, Key(
        _SECONDS,
        "a load balancer that forwards, but has no connection to the controller, keeps its external IPs so many "
        "seconds")] = 3.0
    hold_down: Annotated[float, Key(
        _SECONDS,
        "a load balancer that has failed takes nothing over for so many seconds after its return; twice as long after "
        "each further failure")] = 10.0
    copy_interval: Annotated[float, Key(_SECONDS, "keepers are told of changed entries every so many seconds")] = 1.0
    copy_delay: Annotated[float, Key(
        _SECONDS, "a keeper that has not taken a change for so many seconds is behind")] = 5.0
    copy_timeout: Annotated[float, Key(
        _SECONDS, "a keeper that has not answered after so many seconds at a failover is passed over")] = 0.5

    def limit(self, side: Side) -> int | None:
        """Bytes of an IP packet that the network of that side takes; None: none that is larger comes from the other
        one."""
        mtu, other = self.external_mtu, self.internal_mtu
        if side is INTERNAL:
            mtu, other = other, mtu
        return mtu if mtu < other else None

    def idle_timeout_of(self, protocol: int) -> float:
        """Seconds that an entry of that protocol (IANA number) may be idle."""
        return self.idle_timeout if protocol == TCP else self.udp_idle_timeout


@dataclass(frozen=True, slots=True)
class Rebalance:
    """When and how external IPs are assigned anew; see docs/assignment.md."""

    mode: Annotated[RebalanceMode, Key(
        Choice(REBALANCE_MODES), "whether it is done by itself, or by order only")] = "manual"
    algorithm: Annotated[Algorithm, Key(Choice(ALGORITHMS), "how the assignment is computed")] = "auto"
    threshold: Annotated[float, Key(
        Positive(), "the highest load may exceed the fair one by this share before anything is moved by itself")] = 0.2
    cooldown: Annotated[float, Key(_SECONDS, "seconds between two rebalancings by itself")] = 60.0
    at_once: Annotated[int, Key(_COUNT, "moves that run at the same time")] = 2
    headroom: Annotated[float, Key(
        Positive(),
        "the load for each unit of capacity that no load balancer may exceed after the loss of any one; left out: "
        "none is asked for")] = 0.0
