"""Floods of one external IP, and what is left for it and for the others (docs/field.md)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

from tests.bed.bed import Bed
from tests.bed.controller import APPS
from tests.bed.patience import limit
from tests.bed.sites import simple_site
from tests.bed.traffic import Script, request
from tests.integration.hands import dropped, eventually, external_mac, hand_client

ATTACKED, OTHER = "198.51.100.1", "198.51.100.2"
RATE, FLOOD = 200, 2_000
"""Connection requests a second that an external IP may have; and those of a flood."""
MAX_HALF_OPEN = 300
TIMEOUT = 20.0
SETTINGS = {"linger": 1, "new_rate": RATE, "max_half_open": MAX_HALF_OPEN, "half_open_timeout": TIMEOUT}
_site = simple_site(settings=SETTINGS)
BED = {"site": replace(_site, external_ips=tuple(replace(ip, load_balancer="lb-a") for ip in _site.external_ips)),
       "clients": 3}


@contextlib.contextmanager
def flood(bed: Bed, rate: int = FLOOD) -> Iterator[Script]:
    """SYNs at the attacked external IP, from addresses that nobody has."""
    script = Script(bed.clients[2], bed.directory / "flood.log", "syn_flood.py", "eth0", external_mac(bed, "lb-a"),
                    ATTACKED, 80, rate)
    try:
        yield script
    finally:
        script.kill()


def connections(bed: Bed, address: str) -> int:
    return bed.rest("GET", f"/v1/external-ips/{address}").json["connections"]


def prompt(bed: Bed, address: str, requests: int) -> int:
    """So many requests of that many were answered before a SYN was sent again."""
    answered = 0
    for _ in range(requests):
        with contextlib.suppress(OSError):
            request(bed.clients[0], address, timeout=limit(0.5))
            answered += 1
    return answered


def test_a_flood_leaves_the_others_alone(live: Bed) -> None:
    with flood(live):
        eventually(live, lambda: connections(live, ATTACKED) > MAX_HALF_OPEN / 2, "it has come")
        assert prompt(live, OTHER, 30) == 30


def test_where_all_share_a_meter_it_does_not(quiet_bed: Bed) -> None:
    """The naive twin."""
    quiet_bed.controller.apps = ("tests/integration/naive_meters.py", *APPS)
    quiet_bed.start_controller()
    with flood(quiet_bed):
        eventually(quiet_bed, lambda: connections(quiet_bed, ATTACKED) > MAX_HALF_OPEN / 2, "it has come")
        assert prompt(quiet_bed, OTHER, 30) < 25


def test_half_open_connections_are_bounded_and_go_soon(live: Bed) -> None:
    """And what is open stays."""
    with hand_client(live, address="198.51.100.203") as client:
        client.open()
        with flood(live, RATE):
            eventually(live, lambda: dropped(live, "half_open_full") > 0, "the bound is reached", 30.0)
            assert connections(live, ATTACKED) <= MAX_HALF_OPEN + 5
            assert request(live.clients[0], ATTACKED, timeout=limit(15.0)), "repeating its SYN, a client comes in"
        eventually(live, lambda: connections(live, ATTACKED) < 50, "they go", 5 * TIMEOUT)
        assert client.say(b"still here").endswith(b" still here\n")


def test_they_fill_the_table_where_they_are_entries_as_any_other(quiet_bed: Bed) -> None:
    """The naive twin."""
    quiet_bed.controller.apps = ("tests/integration/naive_half_open.py", *APPS)
    quiet_bed.start_controller()
    with flood(quiet_bed, RATE):
        eventually(quiet_bed, lambda: connections(quiet_bed, ATTACKED) > 2 * MAX_HALF_OPEN, "more and more", 30.0)
    assert dropped(quiet_bed, "half_open_full") == 0


def test_another_external_ip_moves_without_loss_meanwhile(fresh: Bed) -> None:
    load = fresh.load(fresh.clients[0], OTHER, lines=5, requests=1)
    with flood(fresh):
        eventually(fresh, lambda: connections(fresh, ATTACKED) > MAX_HALF_OPEN / 2, "it has come")
        move = fresh.move(OTHER, "lb-b")
        assert (move["state"], move["packets_lost"]) == ("done", 0)
    saw = load.stop()
    assert not saw.broken and not saw.failures and saw.succeeded
