"""What a read-back means for the access table: which entries to take over, to put back, or to delete."""

from __future__ import annotations

from dataclasses import dataclass, field

from lbctl.entries.access_table import ENDING, FIN_IN, FIN_OUT, NO_HOP, Entry
from lbctl.ground.serving import Directory, Serving
from lbctl.openflow.messages import AddEntries, DeleteEntries, Message, portions
from lbctl.switches.readback import Found, ReadBack
from lbctl.values.keys import unpack_key

UNDER_WAY = 1.0
"""Seconds: an entry that was made so shortly before the connection ended may not have got through."""


@dataclass(slots=True)
class Outcome:
    """What to send to the switch, and the entries that had ended while nobody looked."""

    messages: list[Message] = field(default_factory=list)
    ended: list[tuple[Serving, Entry]] = field(default_factory=list)
    taken_over: int = 0
    put_back: int = 0
    deleted: int = 0


def recover(name: str, readback: ReadBack, directory: Directory, lost_at: float, now: float) -> Outcome:
    """Compares what LB `name` holds with the access table, and changes the table where the switch knows better.

    The controller's table is the authority, but for external IPs that it has not read from this LB since it started. An
    entry that the switch lost is put back if the switch has lost everything (it was restarted), or if the entry was
    made at another LB since `lost_at`, when this one's connection ended; else it had run out after its FINs.
    """
    outcome = Outcome()
    restarted = not readback.cookies
    strange: list[Entry] = []
    for key, found in readback.entries.items():
        serving = directory.by_address.get(unpack_key(key)[3])
        if serving is None or name not in serving.holders:
            strange.append(_entry(key, found, now))
            continue
        entry = serving.table.by_key(key)
        if entry is None and name in serving.unread and serving.table.by_reply(found.reply) is None:
            serving.table.add(_entry(key, found, now))
            outcome.taken_over += 1
        elif entry is None or entry.reply != found.reply:
            strange.append(_entry(key, found, now))
        else:
            entry.packets, entry.bytes, entry.last_seen = found.packets, found.bytes, now
            entry.flags |= _run_out(found)
            if entry.next_hop == NO_HOP and found.next_hop:
                entry.next_hop = found.next_hop
    for serving in directory:
        if name not in serving.holders:
            continue
        read, missing = name not in serving.unread, [entry for entry in serving.table.entries()
                                                     if entry.key not in readback.entries]
        since = float("-inf") if restarted or read and serving.assigned != name else lost_at - UNDER_WAY
        back = [entry for entry in missing if entry.created > since and not entry.flags & ENDING and entry.next_hop != NO_HOP]
        if restarted or read:
            outcome.messages += portions(AddEntries, back)
            outcome.put_back += len(back)
            for entry in back:
                entry.last_seen = now
        if read and not restarted and serving.assigned == name:
            outcome.ended += [(serving, entry) for entry in missing if entry.created <= since or entry.flags & ENDING]
        serving.unread.discard(name)
        if serving.allocation:
            serving.allocation.forget()
    outcome.messages = portions(DeleteEntries, strange) + outcome.messages
    outcome.deleted = len(strange)
    return outcome


def _entry(key: bytes, found: Found, now: float) -> Entry:
    # Whole seconds are known, and a flow must not seem older than its entry: see Connections.entry_removed.
    entry = Entry(key, found.reply, found.next_hop or NO_HOP, now - found.duration - 1, inner_hop=found.inner_hop)
    entry.last_seen = now
    entry.packets, entry.bytes = found.packets, found.bytes
    entry.flags |= _run_out(found)
    return entry


def _run_out(found: Found) -> int:
    """The flag of a direction that is not there any more: it has seen its FIN."""
    return {1: FIN_OUT, 2: FIN_IN, 3: 0}[found.directions]
