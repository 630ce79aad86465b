"""What the switches drop by themselves is counted by its reason, and `lbctl doctor` says what to do: docs/drops.md."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from lbctl.values.drops import DROPS
from tests.bed import frames
from tests.bed.bed import Bed
from tests.bed.frames import ACK, FIN, RST, SYN
from tests.bed.sites import simple_site
from tests.integration.hands import HandClient, eventually, hand_client, metric

ERROR_RATE = 20
BED = {"site": simple_site(settings={"error_rate": ERROR_RATE, "grace": 0.5, "linger": 1})}
EXTERNAL = "198.51.100.1"
TIMESTAMP_REQUEST = bytes((13, 0, 0xF2, 0xFF)) + bytes(16)
"""ICMP of a type that nobody here answers (RFC 792)."""


def to(client: HandClient, destination: str, flags: int = ACK) -> bytes:
    return frames.tcp((client.mac, client.gateway), client.local, (destination, 80), flags)


FRAMES: dict[str, Callable[[HandClient], list[bytes]]] = {
    "vlan": lambda client: [frames.tagged(client.frame(SYN), 5)],
    "not_ours": lambda client: [frames.tcp((client.mac, "02:00:00:00:00:77"), client.local, (EXTERNAL, 80), SYN)],
    "no_external_ip": lambda client: [to(client, "198.51.100.99", SYN)],
    "syn_and_fin": lambda client: [client.frame(SYN | FIN | ACK)],
    "reset_of_nothing": lambda client: [client.frame(RST)],
    "icmp_of_nothing": lambda client: [
        frames.ip((client.mac, client.gateway), client.address, EXTERNAL, 1, TIMESTAMP_REQUEST)
    ],
}


def dropped(bed: Bed, reason: str) -> float:
    return metric(bed, f'lbctl_dropped_packets_total{{dp_name="lb-a",reason="{reason}"}}')


def findings(bed: Bed) -> dict[str, str | None]:
    """What `lbctl doctor` says of drops -> what to do."""
    asked = json.loads(bed.controller.cli("doctor", "--json").stdout)
    return {each["what"]: each["mend"] for each in asked["findings"] if " dropped since " in each["what"]}


def test_what_a_switch_drops_is_counted_by_its_reason(live: Bed) -> None:
    with hand_client(live) as client:
        before = {reason: dropped(live, reason) for reason in FRAMES}
        sent = {reason: make(client) for reason, make in FRAMES.items()}
        for pieces in sent.values():
            client.port.send(*pieces)

        def counted() -> bool:
            return all(dropped(live, reason) - before[reason] >= len(sent[reason]) for reason in FRAMES)

        eventually(live, counted, "all are counted", 30.0)
    told = findings(live)
    [vlan] = [what for what in told if "(vlan)" in what]
    assert "lb-a" in vlan and "has a tag of a VLAN" in vlan and "ovs-vsctl set port" in str(told[vlan])
    assert not [what for what in told if "not_ours" in what or "reset_of_nothing" in what], "nothing is to be done"


def test_what_is_beyond_a_limit_is_counted_too(live: Bed) -> None:
    """By whichever meter has it."""

    def beyond() -> float:
        return sum(dropped(live, reason) for reason, drop in DROPS.items() if drop.where == "limit")

    before = beyond()
    with hand_client(live) as client:

        def limited() -> bool:
            client.port.send(*[client.frame(ACK, seq=number) for number in range(5 * ERROR_RATE)])
            return beyond() > before

        eventually(live, limited, "the meter has dropped some", 30.0)
    assert [mend for what, mend in findings(live).items() if "beyond `error_rate`" in what]


@pytest.mark.parametrize("restart", ["controller", "move"])
def test_nothing_is_counted_twice(fresh: Bed, restart: str) -> None:
    with hand_client(fresh) as client:
        client.port.send(*FRAMES["vlan"](client))
        eventually(fresh, lambda: dropped(fresh, "vlan") == 1, "it is counted", 30.0)
        if restart == "controller":
            fresh.restart_controller()
        else:
            assert fresh.move(EXTERNAL, "lb-b")["state"] == "done"
        base, sent = dropped(fresh, "vlan"), 0

        def counted() -> bool:
            nonlocal sent  # a new controller counts from its first reading on, which nothing tells of
            client.port.send(*FRAMES["vlan"](client))
            sent += 1
            return dropped(fresh, "vlan") > base

        eventually(fresh, counted, "the next ones are counted alone", 30.0)
        assert dropped(fresh, "vlan") <= base + sent
        assert base == (0 if restart == "controller" else 1)
