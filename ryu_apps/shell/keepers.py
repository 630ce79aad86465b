"""The control function's calls to keepers: each in a green thread, at most one batch for each keeper at a time."""

from __future__ import annotations

import ssl
from collections import Counter, deque
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from lbctl.copies.client import KeeperClient, KeeperError, KeeperSilent, tls_context
from lbctl.ground.effects import CountSockets, FetchCopy, SendBatch
from lbctl.http.tokens import TokenError, read_token
from lbctl.keeper.batches import Reply
from lbctl.keeper.rows import Row
from lbctl.site.model import Keeper, Keepers, Site
from ryu_apps.shell.log import log
from ryu_apps.shell.threads import Threads, Turn

OnSent = Callable[[Keeper, Reply | None, str], None]
"""(keeper, its reply to a batch or None, why there is none)"""
OnFetched = Callable[[int, list[Row] | None], None]
"""(token of the FetchCopy, the rows of the copy or None if it can't be had)"""
OnCounted = Callable[[int, Mapping[int, int] | None], None]
"""(token of the CountSockets, connections by the server's ports or None if they can't be had)"""


FETCHES = 8
"""Copies that one keeper is asked for at once; 59 of 200 came too late when it was asked for all."""


class KeeperCalls:
    """directory: of the site file, which the names of the token's and certificates' files are relative to.

    `sent`, `fetched` and `counted` are told what came of a call. Raises KeeperError as `configure` does.
    """

    def __init__(self, directory: Path, site: Site, sent: OnSent, fetched: OnFetched, counted: OnCounted,
                 threads: Threads) -> None:
        self._directory = directory
        self._sent, self._fetched, self._counted, self._threads = sent, fetched, counted, threads
        self._clients: dict[Keeper, KeeperClient] = {}
        self._fetches: dict[Keeper, deque[FetchCopy]] = {}
        """Those that wait for their turn, of keepers that are being asked."""
        self._asking: Counter[Keeper] = Counter()
        """How many are under way."""
        self._came: deque[Callable[[], None]] = deque()
        """What is still to be told: the answers of many keepers come at the same time. At most one for each call."""
        self._wake = threads.event()
        self.configure(site)
        threads.spawn(self._tell_loop)

    def check(self, keepers: Keepers) -> None:
        """Raises KeeperError if a file that the site file names can't be used."""
        self._credentials(keepers)

    def configure(self, site: Site) -> None:
        """After another site file. Raises KeeperError."""
        token, tls = self._credentials(site.keepers)
        for client in self._clients.values():
            client.close()
        timeout = site.settings.copy_timeout
        self._clients = {
            keeper: KeeperClient(keeper.url, token, timeout, tls if keeper.url.startswith("https") else None)
            for keeper in site.keepers.each
        }

    def _credentials(self, keepers: Keepers) -> tuple[str | None, ssl.SSLContext | None]:
        token = None
        if keepers.token_file:
            try:
                token = read_token(self._directory / keepers.token_file)
            except TokenError as error:
                raise KeeperError(f"keeper_token_file {error}") from error
        if not any(keeper.url.startswith("https") for keeper in keepers.each):
            return token, None
        return token, tls_context(self._directory / keepers.ca_file if keepers.ca_file else None)

    def send(self, order: SendBatch) -> None:
        """Returns at once."""
        self._threads.spawn(self._send_batch, order)

    def fetch(self, order: FetchCopy) -> None:
        """Returns at once."""
        self._fetches.setdefault(order.keeper, deque()).append(order)
        if self._asking[order.keeper] < FETCHES:
            self._asking[order.keeper] += 1
            self._threads.spawn(self._fetch_all, order.keeper)

    def count(self, order: CountSockets) -> None:
        """Returns at once."""
        self._threads.spawn(self._count, order)

    def _send_batch(self, order: SendBatch) -> None:
        client, reply, detail = self._clients.get(order.keeper), None, "it is not in the site file any more"
        if client is not None:
            try:
                reply = client.send(order.batch)
            except KeeperError as error:
                detail = str(error)
        self._tell(partial(self._sent, order.keeper, reply, detail))

    def _tell(self, what: Callable[[], None]) -> None:
        self._came.append(what)
        self._wake.set()

    def _tell_loop(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            turn = Turn(self._threads.sleep)
            while self._came:
                self._came.popleft()()
                turn.pause()

    def _fetch_all(self, keeper: Keeper) -> None:
        """One after the other, until none waits."""
        waiting = self._fetches[keeper]
        try:
            while waiting:
                self._fetch(waiting.popleft(), waiting)
        finally:
            self._asking[keeper] -= 1

    def _fetch(self, order: FetchCopy, others: deque[FetchCopy]) -> None:
        """others: those that wait. Where the keeper does not answer, none of them is asked."""
        client, rows = self._clients.get(order.keeper), None
        try:
            if client and order.copy == "keeper":
                rows = client.fetch(order.external_ip.address, order.server).rows
            elif client:
                rows = client.fetch_sockets(order.external_ip, order.server)
        except KeeperError as error:
            log.warning("no copy", external_ip=str(order.external_ip.address), copy=order.copy, reason=str(error),
                        as_well=len(others) if isinstance(error, KeeperSilent) else 0)
            while others and isinstance(error, KeeperSilent):
                self._tell(partial(self._fetched, others.popleft().token, None))
        self._tell(partial(self._fetched, order.token, rows))

    def _count(self, order: CountSockets) -> None:
        """A keeper that does not tell is not reported each time: without a count, nobody is shown one."""
        client, counts = self._clients.get(order.keeper), None
        try:
            counts = client.count_sockets(order.external_ip, order.server) if client else None
        except KeeperError:
            pass
        self._tell(partial(self._counted, order.token, counts))
