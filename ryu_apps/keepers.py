"""The control function's calls to keepers: each in a green thread, at most one batch for each keeper at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lbctl.copies.client import Client, KeeperError, tls_context
from lbctl.ground.effects import FetchCopy, SendBatch
from lbctl.http.tokens import TokenError, read_token
from lbctl.site.model import Keeper, Keepers


class KeeperCalls:
    """directory: of the site file, which the names of the token's and certificates' files are relative to."""

    def __init__(self, directory: Path, control, send: Callable, now: Callable[[], float], spawn: Callable) -> None:
        self._directory, self._control = directory, control
        self._send, self._now, self._spawn = send, now, spawn
        self._clients: dict[Keeper, Client] = {}

    def check(self, keepers: Keepers) -> None:
        """Raises KeeperError if a file that the site file names can't be used."""
        self._credentials(keepers)

    def configure(self) -> None:
        """After another site file. Raises KeeperError."""
        site = self._control.ground.site
        token, tls = self._credentials(site.keepers)
        for client in self._clients.values():
            client.close()
        self._clients = {keeper: Client(keeper.url, token, site.settings.copy_timeout, tls if keeper.url.startswith("https") else None)
                         for keeper in site.keepers.each}

    def _credentials(self, keepers: Keepers):
        token = None
        if keepers.token_file:
            try:
                token = read_token(self._directory / keepers.token_file)
            except TokenError as error:
                raise KeeperError(f"keeper_token_file {error}") from error
        if not any(keeper.url.startswith("https") for keeper in keepers.each):
            return token, None
        return token, tls_context(self._directory / keepers.ca_file if keepers.ca_file else None)

    def call(self, message: FetchCopy | SendBatch) -> None:
        """Returns at once; the control function is told what came of it."""
        self._spawn(self._send_batch if isinstance(message, SendBatch) else self._fetch, message)

    def _send_batch(self, message: SendBatch) -> None:
        client, reply, detail = self._clients.get(message.keeper), None, "it is not in the site file any more"
        try:
            reply = client and client.send(message.batch)
        except KeeperError as error:
            detail = str(error)
        self._control.feeds.answered(message.keeper.server.packed, reply, detail, self._now())

    def _fetch(self, message: FetchCopy) -> None:
        client, rows = self._clients.get(message.keeper), None
        try:
            if client and message.copy == "keeper":
                rows = client.fetch(message.external_ip.address, message.server).rows
            elif client:
                rows = client.fetch_sockets(message.external_ip, message.server)
        except KeeperError as error:
            self._control.ground.log("no copy", level="warning", external_ip=str(message.external_ip.address), copy=message.copy,
                              reason=str(error))
        self._send(self._control.copy_fetched(message.token, rows, self._now()))
