"""Records of NAT: who had which translated address and port, and when (RFC 6888 REQ-12), as lines of JSON.

A line is complete in itself: one that tells an end tells the beginning, too.
"""

from __future__ import annotations

from datetime import UTC, datetime
from socket import AF_INET, AF_INET6, inet_ntop
from typing import Literal, NamedTuple

from lbctl.values.keys import receiver_half, sender_half
from lbctl.values.protocols import PROTOCOL_NAMES

RecordedEvent = Literal["opened", "found", "ended"]
"""found: read back from a switch by a controller that has just started; an earlier one may have told its beginning."""


class NatRecord(NamedTuple):
    """Of one entry. Times in seconds since the epoch; since: when the entry was made (found: to the second or so)."""

    event: RecordedEvent
    time: float
    since: float
    key: bytes
    reply: bytes


def line(record: NatRecord, behind: float = 0.0) -> str:
    """With its newline. behind: seconds that the clock of its times is behind the machine's."""
    key, reply = record.key, record.reply
    asked, asker = _endpoint(sender_half(key)), _endpoint(sender_half(reply))
    seen, translated = _endpoint(receiver_half(key)), _endpoint(receiver_half(reply))
    if asked == translated:  # outbound NAT: the outside host is what the inside host has asked
        who = f'"translated":"{seen}","inside":"{asker}","outside":"{asked}"'
    else:
        who = f'"translated":"{translated}","client":"{asked}","external":"{seen}","server":"{asker}"'
    protocol = PROTOCOL_NAMES.get(key[0], str(key[0]))
    return (f'{{"time":"{_iso(record.time + behind)}","event":"{record.event}","protocol":"{protocol}",{who},'
            f'"since":"{_iso(record.since + behind)}"}}\n')


def _endpoint(half: bytes) -> str:
    address, port = half[:-2], int.from_bytes(half[-2:])
    return f"{inet_ntop(AF_INET, address)}:{port}" if len(address) == 4 else f"[{inet_ntop(AF_INET6, address)}]:{port}"


def _iso(time: float) -> str:
    """UTC, to the millisecond, always as long: so that texts compare as times do."""
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
