"""Where a failed LB's entries come from: the control function's own access table, keepers, or servers' socket tables.

Each server's entries come from the first of its external IP's `copies` that can be had. What a copy tells replaces what the access
table has of that server; a connection that no copy has gets a RST.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

from lbctl.access_table import NO_HOP, Entry, pack_key, unpack_key
from lbctl.messages import KEEPERS, FetchCopy, Outbox
from lbctl.model import TCP, Address, Keeper
from lbctl.move import MoveRecord
from lbctl.serving import Serving

if TYPE_CHECKING:
    from lbctl.control import ControlFunction


class Copied(NamedTuple):
    """An entry as a copy tells it. next_hop: NO_HOP if the copy does not know it."""

    key: bytes
    reply: bytes
    next_hop: bytes


def external_ports(serving: Serving, server: Address) -> dict[tuple[int, int], int]:
    """(protocol, port of the server) -> port of the external IP, where that is known without asking: where one service leads there."""
    found: dict[tuple[int, int], set[int]] = {}
    for service in serving.config.services:
        for each in service.servers:
            if each.address == server:
                found.setdefault((service.protocol_number, each.port), set()).add(service.port)
    return {place: next(iter(ports)) for place, ports in found.items() if len(ports) == 1}


@dataclass(slots=True)
class Fetching:
    """The entries of one external IP on their way. waiting: servers whose entries have been asked for."""

    serving: Serving
    lb: str
    record: MoveRecord
    token: int
    tried: Counter[Address] = field(default_factory=Counter)
    """Copies that have been tried, by server."""
    waiting: set[Address] = field(default_factory=set)


class Copies:
    """Fetches for all failovers of a control function."""

    def __init__(self, control: ControlFunction) -> None:
        self._control = control
        self._asked: dict[int, tuple[Fetching, Address, str]] = {}
        """Token of each question: for what, which server's entries, which copy."""

    def remote(self, serving: Serving) -> bool:
        """Must its entries be fetched from elsewhere?"""
        return serving.config.copies[0] != "controller" or not self._at_hand(serving, serving.assigned)

    @staticmethod
    def _at_hand(serving: Serving, lb: str) -> bool:
        """Does the access table have all of the LB's entries? Not if this control function has never read them."""
        return lb not in serving.unread

    def fetch(self, serving: Serving, lb: str, record: MoveRecord, token: int, now: float) -> Outbox:
        """Makes the access table that which LB `lb` had, as well as can be; then confirms the token."""
        fetching = Fetching(serving, lb, record, token)
        servers = {ip_address(entry.server[0]) for entry in serving.table.entries()} | set(serving.config.server_addresses())
        if serving.outbound:
            servers = set()  # nobody keeps a copy of what inside hosts open
        out: Outbox = []
        fetching.waiting = set(servers)
        for server in sorted(servers, key=str):
            out += self._next(fetching, server, now)
        return out + (self._done(fetching, now) if not servers else [])

    def fetched(self, token: int, found: Iterable[Copied] | None, now: float) -> Outbox:
        """The answer to a FetchCopy; None: it can't be had there."""
        asked = self._asked.pop(token, None)
        if asked is None:
            return []
        fetching, server, copy = asked
        if fetching.serving.move is None or fetching.serving.move.record is not fetching.record:
            return []
        if found is None:
            return self._next(fetching, server, now)
        self._merge(fetching, server, copy, found, now)
        return self._got(fetching, server, now)

    def _next(self, fetching: Fetching, server: Address, now: float) -> Outbox:
        """Tries the next copy of that server's entries."""
        serving, control = fetching.serving, self._control
        for copy in serving.config.copies[fetching.tried[server]:]:
            fetching.tried[server] += 1
            if copy == "controller":
                if self._at_hand(serving, fetching.lb):
                    self._count(fetching, copy, sum(entry.server[0] == server.packed for entry in serving.table.entries()))
                    return self._got(fetching, server, now)
            elif keeper := control.keeper_of(server):
                return [self._ask(fetching, server, copy, keeper)]
        control.log("entries lost", level="error", external_ip=str(serving.address), server=str(server),
                    reason="no copy of them could be had", copies=list(serving.config.copies))
        self._merge(fetching, server, "", (), now)
        return self._got(fetching, server, now)

    def _ask(self, fetching: Fetching, server: Address, copy: str, keeper: Keeper) -> tuple[str, FetchCopy]:
        token = self._control.new_token()
        self._asked[token] = fetching, server, copy
        return KEEPERS, FetchCopy(keeper, fetching.serving.address, server, copy, external_ports(fetching.serving, server), token)

    def _got(self, fetching: Fetching, server: Address, now: float) -> Outbox:
        fetching.waiting.discard(server)
        return [] if fetching.waiting else self._done(fetching, now)

    def _done(self, fetching: Fetching, now: float) -> Outbox:
        serving = fetching.serving
        serving.unread.discard(fetching.lb)
        if serving.allocation:
            serving.allocation.forget()
        return self._control.confirmed("copies", fetching.token, now)

    @staticmethod
    def _count(fetching: Fetching, copy: str, entries: int) -> None:
        counts = fetching.record.entries_from
        counts[copy] = counts.get(copy, 0) + entries

    def _merge(self, fetching: Fetching, server: Address, copy: str, found: Iterable[Copied], now: float) -> None:
        """Makes the table's entries of that server what the copy has; of UDP, sockets tell nothing."""
        serving, table = fetching.serving, fetching.serving.table
        there: set[bytes] = set()
        for copied in found:
            there.add(copied.key)
            entry = table.by_key(copied.key)
            if entry and entry.reply == copied.reply:
                if entry.next_hop == NO_HOP:
                    entry.next_hop = copied.next_hop
                continue
            for other in (entry, table.by_reply(copied.reply)):
                if other and table.by_key(other.key) is other:
                    serving.remove(other, now)
            table.add(Entry(copied.key, copied.reply, copied.next_hop, now))
        for entry in table.snapshot():
            if entry.server[0] == server.packed and entry.key not in there and (copy != "sockets" or entry.key[0] == TCP):
                serving.remove(entry, now)
        self._find_hops(serving, there)
        self._count(fetching, copy, len(there)) if copy else None

    def _find_hops(self, serving: Serving, keys: set[bytes]) -> None:
        """Gives entries without a next hop the one that most of the site's clients off the external network come from. What stays
        without one learns it from the client's next packet."""
        control, missing = self._control, [entry for key in keys if (entry := serving.table.by_key(key)) and entry.next_hop == NO_HOP]
        missing = [entry for entry in missing if not control.on_link(unpack_key(entry.key)[1])]
        if not missing:
            return
        hops = Counter(entry.next_hop for other in control.directory for entry in other.table.entries()
                       if entry.next_hop != NO_HOP and len(entry.key) == len(missing[0].key)
                       and not control.on_link(unpack_key(entry.key)[1]))
        if hops:
            hop = hops.most_common(1)[0][0]
            for entry in missing:
                entry.next_hop = hop


def from_sockets(serving_address: Address, server: Address, ports: dict[tuple[int, int], int],
                 sockets: Iterable[tuple[int, bytes, int]]) -> list[Copied]:
    """The entries that a server's sockets stand for (seed modification 1). sockets: port, peer's address (packed) and port."""
    found = []
    for port, peer, peer_port in sockets:
        external = ports.get((TCP, port))
        if external is not None:
            found.append(Copied(pack_key(TCP, peer, peer_port, serving_address.packed, external),
                                pack_key(TCP, server.packed, port, peer, peer_port), NO_HOP))
    return found
