"""What keepers are told in normal operation: every change of the entries whose external IP has `keeper` among its
copies."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from functools import partial
from ipaddress import ip_address
from typing import NamedTuple

from lbctl.copies.publisher import Pace, Publisher
from lbctl.entries.access_table import Entry
from lbctl.ground.effects import Outbox, SendBatch
from lbctl.ground.ground import Ground
from lbctl.ground.serving import Serving
from lbctl.keeper.batches import Reply
from lbctl.keeper.rows import DerivedPorts, Stream, derived_ports
from lbctl.site.model import Keeper
from lbctl.values.addresses import Address
from lbctl.values.keys import server_address_of

ROWS_AT_ONCE, EMPTY, SEARCHED = 2_000, 50, 5
"""At a tick, about: some 6 ms. As many rows a batch takes as long as besides its own. As many entries are looked at,
for a full copy, in the time of a row."""


class KeeperState(NamedTuple):
    """What people want to know of a keeper. lag: seconds that its copy is behind."""

    keeper: Keeper
    synced: bool
    lag: float
    behind: bool
    last_failure: str | None
    counters: Counter[str]


class Feed(NamedTuple):
    """What a keeper is to be told, and how."""

    keeper: Keeper
    pace: Pace
    external_ips: frozenset[Address]


class Feeds:
    """A publisher for each keeper that some external IP's entries go to."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self.publishers: dict[bytes, Publisher] = {}
        """By the server (packed)."""
        self._fed: dict[bytes, list[Serving]] = {}
        """By the server (packed): the external IPs whose entries its keeper is told."""
        self._ordered: dict[bytes, Feed] = {}
        """By the server (packed): what its publisher is for."""
        self._turns: deque[bytes] = deque()
        """The servers (packed), in the order in which it is their turn."""
        self.site_changed()

    def site_changed(self) -> None:
        """There is another site file: keepers that are to have the same as before go on where they are; others get a
        full copy."""
        ground, before = self._ground, self._ordered
        pace = Pace(interval=ground.settings.copy_interval, max_delay=ground.settings.copy_delay)
        self._fed = {}
        for serving in ground.external_ips:
            for server in serving.config.server_addresses() if "keeper" in serving.config.copies else ():
                self._fed.setdefault(server.packed, []).append(serving)
        keepers = {keeper.server.packed: keeper for keeper in ground.site.keepers.each}
        self._ordered = {server: Feed(keepers[server], pace, frozenset(serving.address for serving in servings))
                         for server, servings in self._fed.items() if server in keepers}
        self.publishers = {
            server: self.publishers[server] if before.get(server) == feed
            else Publisher(server, partial(self._entries, server), self._ports, pace)
            for server, feed in self._ordered.items()}
        self._turns = deque(self.publishers)
        for serving in ground.external_ips:
            serving.table.watcher = self._changed if "keeper" in serving.config.copies and self.publishers else None

    def _changed(self, entry: Entry) -> None:
        publisher = self.publishers.get(server_address_of(entry.reply))
        if publisher is not None:
            publisher.changed(entry)

    def _entries(self, server: bytes) -> Iterator[Entry | None]:
        return (
            entry if server_address_of(entry.reply) == server else None
            for serving in self._fed.get(server, ())
            for entry in serving.table.snapshot()
        )

    def _ports(self, stream: Stream) -> DerivedPorts:
        serving = self._ground.external_ips.by_address.get(stream.external)
        return derived_ports(serving.config, ip_address(stream.server)) if serving else {}

    def tick(self, now: float) -> Outbox:
        """Batches that are due, unless there are too many for one tick."""
        out: Outbox = []
        left = ROWS_AT_ONCE
        for _ in range(len(self._turns)):
            if left <= 0:
                break
            server, publisher = self._turns[0], self.publishers[self._turns[0]]
            self._turns.rotate(-1)
            if not any(serving.unread for serving in self._fed[server]):
                publisher.begin(now)
            if batch := publisher.due(now):
                out.append(SendBatch(self._ordered[server].keeper, batch))
                left -= batch.rows + EMPTY
            left -= publisher.looked_at // SEARCHED
        return out

    def states(self, now: float) -> list[KeeperState]:
        return [
            KeeperState(
                self._ordered[server].keeper,
                publisher.synced,
                publisher.lag(now),
                publisher.behind(now),
                publisher.last_failure or None,
                publisher.counters,
            )
            for server, publisher in self.publishers.items()
        ]

    def answered(self, server: bytes, reply: Reply | None, detail: str, now: float) -> None:
        """What became of a keeper's SendBatch; None: nobody knows, see detail."""
        publisher = self.publishers.get(server)
        if publisher is None:
            return
        before = publisher.last_failure
        if reply is None:
            publisher.failed(detail, now)
        else:
            publisher.answered(reply, now)
        if publisher.last_failure and not before:
            self._ground.log("keeper has not taken its entries", level="warning", keeper=str(ip_address(server)),
                              reason=publisher.last_failure)
        elif before and not publisher.last_failure:
            self._ground.log("keeper takes entries again", keeper=str(ip_address(server)))
