"""The state file. A state holds all that was to be kept before it, so what has come while one was being written is
written as one: thousands of external IPs fail over at the same time, and each waits for its own to be kept."""

from __future__ import annotations

from collections.abc import Callable

from lbctl.ground.effects import Save
from lbctl.store import FileStore, State, StoreError
from ryu_apps.shell.log import log
from ryu_apps.shell.threads import Threads, Turn


class Saver:
    """`done(token, error)` is told of each Save that has a token; error: why it could not be kept, None if it is."""

    def __init__(self, store: FileStore, done: Callable[[int, str | None], None], threads: Threads) -> None:
        self._store, self._done, self._threads = store, done, threads
        self._waiting: list[Save] = []
        self._wake = threads.event()
        self.last = 0
        """How many states were to be saved."""
        self.saved = 0
        """How many of them are on disk, or could not be written, which the log says."""
        threads.spawn(self._loop)

    def save(self, order: Save) -> None:
        """Returns at once."""
        self.last += 1
        self._waiting.append(order)
        self._wake.set()

    def _loop(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            while self._waiting:
                self._threads.sleep(0)  # a large state takes some ms: a turn of its own
                orders, self._waiting = self._waiting, []
                error = self._threads.apart(self._write, orders[-1].state())
                self.saved += len(orders)
                if error:
                    log.error("state not saved", reason=error)
                turn = Turn(self._threads.sleep)
                for order in orders:
                    if order.token is not None:
                        self._done(order.token, error)
                        turn.pause()

    def _write(self, state: State) -> str | None:
        try:
            self._store.save(state)
        except StoreError as error:
            return str(error)
        return None
