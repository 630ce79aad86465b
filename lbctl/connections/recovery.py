"""What a read-back means for the access table: which entries to take over, to put back, or to delete."""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

from lbctl.entries.access_table import ENDING, FIN_IN, FIN_OUT, GONE, NO_HOP, Entry
from lbctl.ground.serving import Directory, Serving
from lbctl.openflow.messages import AddEntries, DeleteEntries, Message, ModifyEntries, entry_messages
from lbctl.switches.readback import FoundEntry, ReadBack
from lbctl.switches.switch import Switch
from lbctl.values.keys import unpack_key
from lbctl.values.portions import portions
from lbctl.values.side import EXTERNAL, INTERNAL, Side

LEARNT_AT_ONCE, LOOKED_UP_AT_ONCE = 1_000, 10_000
"""Entries: some ms."""
NO_ENTRIES = 20
"""As many entries an external IP takes as long as besides its own."""
IN_FLIGHT = 1.0
"""Seconds: an entry that was made so shortly before the connection ended may not have got through."""


class Missing(enum.Enum):
    """What becomes of the entries of an external IP that an LB should hold and does not.

    An entry that is put back as it was must not have begun to end, and its next hop must be known.
    """

    WAIT = "nothing: it is not known yet what this LB ever had"
    PUT_BACK = "they are put back"
    HAVE_ENDED = "they had run out after their FINs, but for those made since the connection ended: those are put back"


@dataclass(slots=True)
class Outcome:
    """What to send to the switch, and the entries that had ended while nobody looked. hops: MACs that entries answer
    to, and those of inside hosts."""

    messages: list[Message] = field(default_factory=list)
    ended: list[tuple[Serving, Entry]] = field(default_factory=list)
    hops: set[tuple[Side, bytes]] = field(default_factory=set)
    taken_over: int = 0
    put_back: int = 0
    deleted: int = 0


class Recovery:
    """Compares what an LB holds with the access table, and changes the table where the switch knows better. Of one LB,
    once: first `learn`, until there is nothing left, then `outcome`.

    The controller's table is the authority, but for external IPs that it has not read from this LB since it started.
    """

    def __init__(self, switch: Switch, readback: ReadBack, directory: Directory) -> None:
        """readback: is complete."""
        self._moved_on: list[Entry] = []
        """Entries that have followed their clients to another MAC while the LB was away."""
        self._name, self._lost_at = switch.lb.name, switch.lost_at
        self.readback, self._directory, self._now = readback, directory, 0.0
        self._left = iter(readback.entries.items())
        self._missing: dict[Serving, tuple[list[Entry], int]] = {}
        """Of each external IP that the LB holds: entries that it does not have, and what its table's `added` was then.
        """
        self._look_up = self._find_missing()
        self._strange: list[Entry] = []
        self._taken_over: dict[Serving, list[Entry]] = {}
        self._outcome = Outcome()

    def learn(self, now: float) -> bool:
        """Some of the entries that the LB has. Are there others?"""
        self._now = now
        some = list(itertools.islice(self._left, LEARNT_AT_ONCE))
        self._strange += [_entry(key, found, now) for key, found in some if not self._learnt(key, found)]
        self._outcome.hops |= {(EXTERNAL, found.next_hop) for _, found in some if not found.inner_hop}
        self._outcome.hops |= {(INTERNAL, found.inner_hop) for _, found in some}
        return len(some) == LEARNT_AT_ONCE or next(self._look_up, False)

    def give_up(self, now: float) -> None:
        """The LB is away again: what has been taken over from it will be found anew."""
        for serving, entries in self._taken_over.items():
            for entry in entries:
                if serving.table.by_key(entry.key) is entry:
                    serving.remove(entry, now)

    def outcome(self, now: float) -> Outcome:
        """Once all has been learnt."""
        self._now = now
        strange, self._outcome.taken_over = self._strange, sum(map(len, self._taken_over.values()))
        for serving in self._directory:
            if self._name in serving.holders:
                self._put_back(serving)
                serving.unread.discard(self._name)
                serving.forget_ports()
        self._outcome.messages = [*entry_messages(DeleteEntries, strange),
                                  *entry_messages(ModifyEntries, self._moved_on), *self._outcome.messages]
        self._outcome.deleted = len(strange)
        return self._outcome

    def _learnt(self, key: bytes, found: FoundEntry) -> bool:
        """Puts what the switch knows of an entry into the table. False: the switch should not have that entry."""
        serving = self._directory.by_address.get(unpack_key(key)[3])
        if serving is None or self._name not in serving.holders:
            return False
        entry = serving.table.by_key(key)
        if entry is None and self._name in serving.unread and serving.table.by_reply(found.reply) is None:
            known = _entry(key, found, self._now)
            serving.table.add(known)
            if serving.recorder:
                serving.recorder("found", known, self._now)
            self._taken_over.setdefault(serving, []).append(known)
            return True
        if entry is None or entry.reply != found.reply:
            return False
        entry.packets, entry.bytes, entry.last_seen = found.packets, found.bytes, self._now
        entry.flags |= _run_out(found)
        if entry.next_hop == NO_HOP and found.next_hop:
            entry.next_hop = found.next_hop
        if found.next_hop not in (b"", entry.next_hop) or found.inner_hop not in (b"", entry.inner_hop):
            self._moved_on.append(entry)
        return True

    def _find_missing(self) -> Iterator[bool]:
        looked_up = 0
        for serving in [serving for serving in self._directory if self._name in serving.holders]:
            missing, added = list[Entry](), serving.table.added
            for some in portions(serving.table.snapshot(), LOOKED_UP_AT_ONCE):
                missing += [entry for entry in some if entry.key not in self.readback.entries]
                looked_up += len(some)
                if looked_up >= LOOKED_UP_AT_ONCE:
                    yield True
                    looked_up = 0
            self._missing[serving] = missing, added
            looked_up += NO_ENTRIES

    def _put_back(self, serving: Serving) -> None:
        """What follows from the entries of that external IP that the switch does not have."""
        found, added = self._missing.get(serving, ([], 0))
        if not found and serving.table.added == added:
            return
        new = [entry for entry in serving.table.newest(serving.table.added - added)
               if entry.key not in self.readback.entries]
        missing = [entry for entry in dict.fromkeys([*found, *new]) if not entry.flags & GONE]
        ended: list[Entry] = []
        match _fate_of_missing(self._name, self.readback, serving):
            case Missing.WAIT:
                return
            case Missing.HAVE_ENDED:
                since = self._lost_at - IN_FLIGHT
                ended = [entry for entry in missing if entry.created <= since or entry.flags & ENDING]
                missing = [entry for entry in missing if entry.created > since]
        back = [entry for entry in missing if not entry.flags & ENDING and entry.next_hop != NO_HOP]
        for entry in back:
            entry.last_seen = self._now
        self._outcome.messages += entry_messages(AddEntries, back)
        self._outcome.put_back += len(back)
        self._outcome.ended += [(serving, entry) for entry in ended]


def _fate_of_missing(name: str, readback: ReadBack, serving: Serving) -> Missing:
    """By what is known of the LB:

        it was restarted, and has lost everything                 put back
        else: its entries have not been read before               wait
        else: the external IP is assigned to it                   have ended
        else: it only gets the entries that are made elsewhere    put back
    """
    if not readback.cookies:
        return Missing.PUT_BACK
    if name in serving.unread:
        return Missing.WAIT
    return Missing.HAVE_ENDED if serving.assigned == name else Missing.PUT_BACK


def _entry(key: bytes, found: FoundEntry, now: float) -> Entry:
    # Whole seconds are known, and a flow must not seem older than its entry: see Endings.entry_removed.
    entry = Entry(key, found.reply, found.next_hop or NO_HOP, now - found.duration - 1, inner_hop=found.inner_hop)
    entry.last_seen = now
    entry.packets, entry.bytes = found.packets, found.bytes
    entry.flags |= _run_out(found)
    return entry


def _run_out(found: FoundEntry) -> int:
    """The flag of a side whose flow is not there any more: it has seen its FIN."""
    return (FIN_IN | FIN_OUT) & ~found.sides
