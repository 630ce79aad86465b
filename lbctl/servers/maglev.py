"""Maglev's lookup table (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016,
3.4): which of several servers some bytes belong to, so that hardly any change their server when another server comes
or goes.

All hashes are the same in every process and on every machine: what is chosen does not depend on who chooses, or when.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from hashlib import blake2b
from zlib import crc32

SIZE = 4093
"""Places of a table: a prime, as in Linux' IPVS (ip_vs_mh). Shares are exact to 1/SIZE, and it is filled in some 2
ms, while packets wait; a table of 65537, as in the paper, would take more than 16 times as long."""
_GOLDEN = 0x9E3779B97F4A7C15
_FREE = -1


def place_of(data: bytes) -> int:
    """The place of a table, 0 to SIZE - 1, that these bytes belong to."""
    # CRC-32 is linear: clients in a row would fall into a pattern without the multiplication after it.
    return (crc32(data) * _GOLDEN >> 24 & 0xFFFFFFFF) % SIZE


def lookup_table(names: Sequence[bytes], weights: Sequence[int]) -> array[int]:
    """For each of SIZE places the number of its server, that is its place in `names`; empty if there are none.

    Each server goes through the places in an order of its own, which its name gives, and takes the first that is free
    when it is its turn. It is the heaviest server's turn in every round, the others' as often as their weight is a
    part of its, beginning with the first; so every server has a place if there are no more than SIZE. Give names in
    an order that does not depend on who is there.
    """
    table = array("i", [_FREE]) * (SIZE if names else 0)
    steps = [_digest(b"step", name) % (SIZE - 1) + 1 for name in names]
    places = [_digest(b"first", name) % SIZE for name in names]
    heaviest = max(weights, default=0)
    due = [heaviest - weight for weight in weights]
    left = len(table)
    while left:
        for number, weight in enumerate(weights):
            due[number] += weight
            if due[number] < heaviest:
                continue
            due[number] -= heaviest
            place, step = places[number], steps[number]
            while table[place] != _FREE:
                place += step
                if place >= SIZE:
                    place -= SIZE
            table[place] = number
            places[number] = place
            left -= 1
            if not left:
                break
    return table


def rendezvous(data: bytes, name: bytes, weight: int) -> float:
    """How much these bytes belong to that server; the highest of several is chosen. Weighted rendezvous hashing
    (Thaler and Ravishankar 1998; the weights as in draft-ietf-bess-weighted-hrw): a server more or less changes no
    other choice."""
    # 52 bits and a half are exact in a float, so that the number under the logarithm is neither 0 nor 1.
    return -weight / math.log(((_digest(data, name) >> 12) + 0.5) / (1 << 52))


def _digest(purpose: bytes, name: bytes) -> int:
    """64 bits."""
    return int.from_bytes(blake2b(name, digest_size=8, key=purpose).digest())
