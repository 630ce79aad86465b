"""The rates at which a switch may send packets to the controller.

What the outside can send as often as it likes has a meter for each external IP, so that a flood of one takes nothing
from the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lbctl.openflow.messages import SetMeter
from lbctl.site.model import Settings

METER_CLOSED, METER_ERROR, METER_HOLD, METER_ARP, METER_RESET, METER_ICMP, METER_PROBE, METER_CHECK = range(1, 9)
METER_FRAGMENT, METER_HOP, METER_PASS_ON, METER_QUERY = 9, 10, 12, 13
_NEW, _STRAY, OWNERS = 0x4000, 0x8000, 0x4000
"""The first number of each kind of external IP's meters, and how many there are. Open vSwitch's own datapath has
65 536 or more (`ovs-ofctl meter-features`)."""
_OVER = {METER_CLOSED: "over_closed_rate", METER_ERROR: "over_error_rate", METER_HOLD: "over_hold_rate",
         METER_ARP: "over_arp_rate", METER_RESET: "over_reset_rate", METER_ICMP: "over_icmp_rate",
         METER_PROBE: "over_probe_rate", METER_CHECK: "over_check_rate", METER_FRAGMENT: "over_fragment_rate",
         METER_HOP: "over_hop_rate", METER_PASS_ON: "over_pass_on_rate",
         METER_QUERY: "over_query_rate"}
LEAST_PROBES = 100
MOST_CHECKS = 1000
"""Health checks that begin in a second, of the whole site; what is due beyond that is put off."""
HOPS_SHOWN = 1000
"""Packets from another MAC than their entry answers to; they have been delivered, and one of each entry is enough."""
QUERIES = 20
"""Multicast listener queries; an LB answers one in a second on each network."""
ANSWERS = 5
"""Packets that a server sends in answer to one health check."""


def meter_new(owner: int) -> int:
    """Of the packets that open that external IP's connections. Two external IPs whose owners have the same last 14 bits
    share one."""
    return _NEW + owner % OWNERS


def meter_stray(owner: int) -> int:
    """Of its other packets that have no entry."""
    return _STRAY + owner % OWNERS


def over(meter: int) -> str:
    """The reason (values/drops.py) by which it is counted what that meter drops."""
    if _NEW <= meter < _NEW + OWNERS:
        return "over_new_rate"
    if _STRAY <= meter < _STRAY + OWNERS:
        return "over_error_rate"
    return _OVER.get(meter, "over_other_rate")


def limit_new(owner: int, rate: int) -> SetMeter:
    """The meter of packets that open that external IP's connections. Those of a tenth of a second at once: what a flood
    begins with delays everything behind it."""
    return SetMeter(meter_new(owner), rate, max(1, rate // 10))


def meters(settings: Settings, lbs: int, owners: Iterable[int]) -> Iterator[SetMeter]:
    """For each LB of a site with so many, and with these external IPs."""
    # Twice the answers that one gets which alone is there to ask all others, on both networks.
    probes = max(LEAST_PROBES, int(4 * lbs / settings.probe_interval))
    rates = {METER_CLOSED: settings.error_rate, METER_ERROR: settings.error_rate, METER_HOLD: settings.hold_rate,
             METER_ARP: settings.arp_rate, METER_RESET: settings.new_rate, METER_ICMP: settings.icmp_rate,
             METER_PROBE: probes, METER_CHECK: ANSWERS * MOST_CHECKS, METER_FRAGMENT: settings.fragment_rate,
             METER_HOP: HOPS_SHOWN, METER_PASS_ON: settings.error_rate,
             METER_QUERY: QUERIES}
    for owner in owners:
        rates[meter_stray(owner)] = settings.error_rate
        yield limit_new(owner, settings.new_rate)
    for meter, rate in rates.items():
        yield SetMeter(meter, rate, max(1, rate // 2))
