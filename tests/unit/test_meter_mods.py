"""Meter-mods: the bytes that the switch library would make of the same meters."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lbctl.openflow.messages import SetMeter
from lbctl.openflow.meter_mods import set_meter
from ryu_apps.library.names import ofp, parser
from ryu_apps.library.openflow import SWITCH, _serialized
from ryu_apps.shell.wire import XID_MARK


def by_the_library(meter: SetMeter) -> bytes:
    band = parser.OFPMeterBandDrop(rate=meter.rate, burst_size=meter.burst)
    flags = ofp.OFPMF_PKTPS | ofp.OFPMF_BURST | ofp.OFPMF_STATS
    return b"".join([_serialized(parser.OFPMeterMod(SWITCH, command, flags, meter.number, [band]), 0)
                     for command in (ofp.OFPMC_ADD, ofp.OFPMC_MODIFY)])


@given(st.builds(SetMeter, st.integers(1, 0xFFFF), st.integers(1, 0xFFFFFFFF), st.integers(1, 0xFFFFFFFF)))
def test_meters_are_encoded_as_the_library_does_it(meter: SetMeter) -> None:
    assert set_meter(meter, XID_MARK) == by_the_library(meter)
