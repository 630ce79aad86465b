"""The rates at which a switch may send packets to the controller."""

from __future__ import annotations

from lbctl.openflow.messages import SetMeter
from lbctl.site.model import Settings

METER_NEW, METER_ERROR, METER_HOLD, METER_ARP, METER_RESET, METER_ICMP, METER_PROBE, METER_CHECK = range(1, 9)
METER_PASS_ON = 12
LEAST_PROBES = 100
MOST_CHECKS = 1000
"""Health checks that begin in a second, of the whole site; what is due beyond that is put off."""
ANSWERS = 5
"""Packets that a server sends in answer to one health check."""


def meters(settings: Settings, lbs: int) -> list[SetMeter]:
    """For each LB of a site with so many."""
    # Twice the answers that one gets which alone is there to ask all others, on both networks.
    probes = max(LEAST_PROBES, int(4 * lbs / settings.probe_interval))
    rates = {METER_NEW: settings.new_rate, METER_ERROR: settings.error_rate, METER_HOLD: settings.hold_rate,
             METER_ARP: settings.arp_rate, METER_RESET: settings.new_rate, METER_ICMP: settings.icmp_rate,
             METER_PROBE: probes, METER_CHECK: ANSWERS * MOST_CHECKS, METER_PASS_ON: settings.error_rate}
    return [SetMeter(meter, rate, max(1, rate // 2)) for meter, rate in rates.items()]
