"""What external IPs carry, as the switches count it, beside what was really sent."""

from __future__ import annotations

import time

from tests.bed.bed import Bed
from tests.integration.moving import FIRST, Talks, mixed_load, stopped, wait_reached

BED = {
    "external_ips": 2,
    "servers": 1,
    "settings": {"load_period": 0.5, "grace": 0.5, "linger": 1, "arp_interval": 2.0},
}


def load_of(bed: Bed, address: str = FIRST) -> dict:
    return bed.rest("GET", f"/v1/external-ips/{address}").json["load"]


def metric(bed: Bed, name: str, lb: str) -> float:
    line = f'{name}{{dp_name="{lb}",external_ip="{FIRST}"}} '
    return sum(
        float(found.removeprefix(line))
        for found in bed.rest("GET", "/metrics").text.splitlines()
        if found.startswith(line)
    )


def talk(bed: Bed, talks: Talks, seconds: float) -> int:
    """Twenty lines a second on each connection. Returns how many were sent."""
    sent, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        assert talks.broken() == []
        sent += len(talks.sockets)
        time.sleep(0.05)
    return sent


def counted(bed: Bed) -> float:
    """Packets of FIRST on all LBs, when nothing is sent any more and all is read."""
    def now() -> float:
        return sum(metric(bed, "lbctl_external_ip_packets_total", lb) for lb in bed.lbs)

    def unchanged() -> list[float]:
        before = now()
        time.sleep(1.2)  # two more readings
        return [before] if now() == before else []

    time.sleep(0.6)
    [count] = bed.wait_until(unchanged, 10, "all is read")
    return count


def test_packets_are_counted_once_wherever_they_go(bed: Bed) -> None:
    """A line is answered by a line, and acknowledged: so many packets for each, also while the external IP moves."""
    wait_reached(bed)
    with Talks(bed.clients[0], FIRST, 4) as talks:
        start = counted(bed)
        sent = talk(bed, talks, 3.0)
        assert load_of(bed)["packets_per_second"] > 0
        assert load_of(bed, "198.51.100.2")["packets_per_second"] == 0
        middle = counted(bed)
        of_each = (middle - start) / sent
        assert 2 <= of_each <= 4, of_each
        sent = talk(bed, talks, 1.0)
        assert bed.move(FIRST, "lb-b")["state"] == "done"
        sent += talk(bed, talks, 2.0)
        assert abs((counted(bed) - middle) / sent / of_each - 1) < 0.1
        assert metric(bed, "lbctl_external_ip_packets_total", "lb-b") > 0
    assert bed.rest("GET", "/v1/load-balancers/lb-b").json["load"]["packets_per_second"] > 0
    assert bed.rest("GET", "/v1/load-balancers/lb-b").json["capacity"] == 1.0


def test_new_connections_are_counted(bed: Bed) -> None:
    loads = mixed_load(bed, FIRST, lines=0, requests=2)
    bed.wait_until(lambda: load_of(bed)["new_connections_per_second"] > 5, 6, "new connections are seen")
    assert sum(saw.succeeded for saw in stopped(loads)) > 10
    answer = bed.controller.cli("status")
    assert "new/s" in answer.stdout and "Mbit/s" in answer.stdout


def test_a_restarted_controller_makes_no_spike(bed: Bed) -> None:
    with Talks(bed.clients[0], FIRST, 4) as talks:
        rates = [rate(bed, talks, 3.0)]
        before = load_of(bed)["packets_per_second"]
        bed.restart_controller()
        seen = []
        for _ in range(8):
            rates.append(rate(bed, talks, 0.4))
            seen.append(load_of(bed)["packets_per_second"])
        most, least = (before * extreme(rates) / rates[0] for extreme in (max, min))
        assert max(seen) < 2 * most and seen[-1] > least / 2, (before, rates, seen)


def rate(bed: Bed, talks: Talks, seconds: float) -> float:
    """Lines a second that were sent: a busy machine sends fewer."""
    begun = time.monotonic()
    return talk(bed, talks, seconds) / (time.monotonic() - begun)
