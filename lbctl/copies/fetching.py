"""Where a failed LB's entries come from: the control function's own access table, keepers, or servers' socket tables.

Each server's entries come from the first of its external IP's `copies` that can be had. What a copy tells replaces
what the access table has of that server; a connection that no copy has gets a RST.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address

from lbctl.entries.access_table import ENDING, GONE, NO_HOP, RESET, Entry
from lbctl.ground.effects import FetchCopy, Outbox
from lbctl.ground.ground import Ground
from lbctl.ground.move_record import MoveRecord
from lbctl.ground.serving import Serving
from lbctl.ground.tokens import RowsAnswer
from lbctl.keeper.claims import own_rows
from lbctl.keeper.rows import Row
from lbctl.values.addresses import Address
from lbctl.values.keys import unpack_key
from lbctl.values.protocols import TCP


@dataclass(slots=True)
class Fetching:
    """The entries of one external IP on their way. `then` is told when they are there."""

    serving: Serving
    lb: str
    record: MoveRecord
    then: Callable[[float], Outbox]
    planned: bool
    """The LB is well, and the access table the authority: the copies tell which of its entries they have."""
    waiting: set[Address]
    """Servers whose entries are not there yet."""
    tried: Counter[Address] = field(default_factory=Counter)
    """Copies that have been tried, by server."""
    _held: dict[bytes, list[Entry]] | None = None

    def held(self, server: Address) -> list[Entry]:
        """The access table's entries of that server; the table is searched once, for all servers. No LB adds to it
        meanwhile."""
        if self._held is None:
            self._held = {}
            for entry in self.serving.table.entries():
                self._held.setdefault(entry.server[0], []).append(entry)
        return [entry for entry in self._held.get(server.packed, ()) if not entry.flags & GONE]


class Copies:
    """Fetches for all failovers of a control function."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    def remote(self, serving: Serving) -> bool:
        """Must its entries be fetched from elsewhere?"""
        known = serving.config.copies[0] == "controller" or self._ground.switches[serving.assigned].ready
        return not known or serving.assigned in serving.unread

    @staticmethod
    def kept_elsewhere(serving: Serving) -> bool:
        """Are there copies besides the control function's own?"""
        return any(copy != "controller" for copy in serving.config.copies)

    def fetch(
        self, serving: Serving, lb: str, record: MoveRecord, then: Callable[[float], Outbox], now: float
    ) -> Outbox:
        """Makes the access table that which LB `lb` had, as well as can be; `then` is told when it is."""
        return self._begin(Fetching(serving, lb, record, then, False, set()), now)

    def compare(
        self, serving: Serving, lb: str, record: MoveRecord, then: Callable[[float], Outbox], now: float
    ) -> Outbox:
        """The access table is the authority, and the copies say which of its entries they have; `then` is told when
        they have."""
        return self._begin(Fetching(serving, lb, record, then, True, set()), now)

    def _begin(self, fetching: Fetching, now: float) -> Outbox:
        serving = fetching.serving
        servers: set[Address] = set()  # nobody but the control function has what a NAT gateway's inside hosts open
        if not serving.outbound:
            servers = {ip_address(server) for server in serving.table.servers()} | set(
                serving.config.server_addresses()
            )
        fetching.waiting = set(servers)
        out: Outbox = []
        for server in sorted(servers, key=str):
            out += self._next(fetching, server, now)
        return out + (self._done(fetching, now) if not servers else [])

    def _fetched(self, fetching: Fetching, server: Address, copy: str, rows: list[Row] | None, now: float) -> Outbox:
        """The answer to a FetchCopy; None: it can't be had there."""
        if fetching.record.ended is not None:
            return []
        if rows is None:
            return self._next(fetching, server, now)
        rows = self._believed(fetching.serving, server, copy, rows)
        if fetching.planned:
            self._compare(fetching, server, copy, {row.key for row in rows})
        else:
            self._merge(fetching, server, copy, rows, now)
        return self._got(fetching, server, now)

    def _believed(self, serving: Serving, server: Address, copy: str, rows: list[Row]) -> list[Row]:
        """Without what is none of that server's; and nobody takes a connection away that is known to be another's."""
        def anothers(row: Row) -> bool:
            known = serving.table.by_key(row.key)
            return known is not None and known.server[0] != server.packed

        own = [row for row in own_rows(rows, serving.config, server) if not anothers(row)]
        if refused := len(rows) - len(own):
            self._ground.counters["copied_entries_refused"] += refused
            self._ground.log("entries of others in a copy", level="error", external_ip=str(serving.address),
                             server=str(server), copy=copy, entries=refused,
                             hint="left out; who has that server's keeper tell of other servers' connections?")
        return own

    def _next(self, fetching: Fetching, server: Address, now: float) -> Outbox:
        """Tries the next copy of that server's entries."""
        serving, ground = fetching.serving, self._ground
        if not fetching.planned and ground.switches[fetching.lb].ready and fetching.lb not in serving.unread:
            return self._own(fetching, server, now)  # which is what the LB has (seed modification 12)
        for copy in serving.config.copies[fetching.tried[server]:]:
            fetching.tried[server] += 1
            if copy == "controller":
                if not fetching.planned and fetching.lb not in serving.unread:
                    return self._own(fetching, server, now)
            elif keeper := ground.keeper_of(server):
                token = ground.tokens.new(RowsAnswer(partial(self._fetched, fetching, server, copy)))
                return [FetchCopy(keeper, serving.config, server, copy, token)]
        if fetching.planned:
            self._compare(fetching, server, None, set())
            return self._got(fetching, server, now)
        if fetching.lb not in serving.unread:
            return self._own(fetching, server, now)  # not preferred, but better than none
        ground.log("entries lost", level="error", external_ip=str(serving.address), server=str(server),
                    reason="no copy of them could be had", copies=list(serving.config.copies))
        self._merge(fetching, server, None, [], now)
        return self._got(fetching, server, now)

    def _own(self, fetching: Fetching, server: Address, now: float) -> Outbox:
        """They stay as the control function knows them."""
        self._count(fetching, "controller", fetching.serving.table.servers()[server.packed])
        return self._got(fetching, server, now)

    def _got(self, fetching: Fetching, server: Address, now: float) -> Outbox:
        fetching.waiting.discard(server)
        return [] if fetching.waiting else self._done(fetching, now)

    def _done(self, fetching: Fetching, now: float) -> Outbox:
        fetching.serving.forget_ports()
        return fetching.then(now)

    @staticmethod
    def _count(fetching: Fetching, copy: str, entries: int) -> None:
        counts = fetching.record.entries_from
        counts[copy] = counts.get(copy, 0) + entries

    def _compare(self, fetching: Fetching, server: Address, copy: str | None, keys: set[bytes]) -> None:
        """What the copy does not have yet comes from the table, and what has ended since is left out."""
        entries = fetching.held(server)
        there = sum(entry.key in keys for entry in entries)
        if copy:
            self._count(fetching, copy, there)
        if len(entries) > there:
            self._count(fetching, "controller", len(entries) - there)

    def _merge(self, fetching: Fetching, server: Address, copy: str | None, rows: list[Row], now: float) -> None:
        """Makes the table's entries of that server what the copy has; of UDP, sockets tell nothing."""
        serving, table = fetching.serving, fetching.serving.table
        if copy == "sockets":
            rows = _with_clients_inside(serving, rows)
        there = {row.key for row in rows if not row.flags & RESET}
        for entry in fetching.held(server):
            if entry.key not in there and (copy != "sockets" or entry.key[0] == TCP):
                serving.remove(entry, now)
        for row in rows:
            known = table.by_key(row.key)
            if row.flags & RESET or known and known.reply == row.reply and known.next_hop != NO_HOP:
                continue
            for other in {known, table.by_reply(row.reply)}:
                if other is not None:
                    serving.remove(other, now)
            entry = Entry(row.key, row.reply, row.next_hop, now, inner_hop=row.inner_hop)
            entry.flags = row.flags & ENDING  # a FIN that the dead LB saw comes no second time
            table.add(entry)
            if serving.recorder:
                serving.recorder("found", entry, now)
        self._find_hops(serving, there)
        self._note_hopless(serving, there)
        if copy:
            self._count(fetching, copy, len(there))

    def _find_hops(self, serving: Serving, keys: Iterable[bytes]) -> None:
        """Gives entries without a next hop the one that most of the site's clients off the external network come
        from."""
        ground = self._ground
        missing = [entry for key in keys if (entry := serving.table.by_key(key)) and entry.next_hop == NO_HOP
                   and ground.behind_router(unpack_key(key)[1])]
        if not missing:
            return
        common = Counter(entry.next_hop for other in ground.external_ips for entry in other.table.entries()
                         if entry.next_hop != NO_HOP and len(entry.key) == len(missing[0].key)
                         and ground.behind_router(unpack_key(entry.key)[1])).most_common(1)
        for entry in missing if common else ():
            entry.next_hop = common[0][0]

    @staticmethod
    def _note_hopless(serving: Serving, keys: Iterable[bytes]) -> None:
        """What stays without one: the first packet from there will tell it for all."""
        serving.hopless += [entry for key in keys if (entry := serving.table.by_key(key)) and entry.next_hop == NO_HOP]


def _with_clients_inside(serving: Serving, rows: Iterable[Row]) -> list[Row]:
    """What a server's kernel knows of a client inside is the gateway. Who it is, the table tells, or nobody."""
    gateway = serving.config.gateway
    found = []
    for row in rows:
        if gateway and unpack_key(row.key)[1] == gateway.packed:
            known = serving.table.by_reply(row.reply)
            if known:
                found.append(row._replace(key=known.key))
        else:
            found.append(row)
    return found
