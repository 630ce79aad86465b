"""The controller of a site: all that is built at its start, and its timers."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from lbctl.control import ControlFunction
from lbctl.copies.client import KeeperError
from lbctl.ground.effects import Outbox
from lbctl.openflow.outbound import EntryCodec
from lbctl.site.file import ConfigError, load
from lbctl.store import FileStore, new_fence_code
from lbctl.store.runs import Run
from lbctl.values.refused import Refused
from ryu_apps.shell import collector
from ryu_apps.shell.effects import Effects
from ryu_apps.shell.events import Events
from ryu_apps.shell.faults import Faults
from ryu_apps.shell.log import log, tell
from ryu_apps.shell.orders import Orders
from ryu_apps.shell.sender import Encode
from ryu_apps.shell.site_reader import read_site
from ryu_apps.shell.switchboard import Switchboard
from ryu_apps.shell.threads import Threads, Turn

TICK = 0.05
"""Seconds between two ticks of the core."""


@lru_cache(maxsize=1)
def _codec(linger: int) -> EntryCodec:
    """Made anew only where a site file says so: it takes 7 ms."""
    return EntryCodec(linger)


class Clock:
    """Seconds since the epoch, on a clock that does not jump."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def now(self) -> float:
        return self._offset + time.monotonic()


class Controller:
    """`events` wants to be told what switches say, `orders` what REST asks for. SIGHUP reads the site file again.

    Raises ConfigError, StoreError or KeeperError if one of the files can't be used.
    """

    def __init__(self, site_file: Path, state_file: Path, encode: Encode, threads: Threads) -> None:
        self._site_file, self._threads = site_file, threads
        self._now = Clock().now
        self._reload = self._loading = False
        store = FileStore(state_file)
        state = store.load()
        state = replace(state, fence_code=state.fence_code or new_fence_code())
        self._control = ControlFunction(load(site_file), state, self._now(), tell)
        self._switchboard = Switchboard(encode, self._codec(), threads)
        self._faults = Faults(self._control.ground.counters, self._now)
        self._effects = Effects(self._control, self._switchboard, store, site_file.parent, threads, self._now,
                                self._faults)
        self.events = Events(self._control, self._switchboard, self._effects.carry_out, self._now, self._faults)
        self.orders = Orders(self._control, self._effects, threads, self._now)

    def begin(self, run: Run) -> None:
        """run: this one."""
        self._control.ground.crashes = run.crashes

    def start(self) -> None:
        """From now on time passes for the core."""
        signal.signal(signal.SIGHUP, self._on_hangup)
        collector.install()
        self._threads.spawn(self._tick_loop)
        self._threads.spawn(self._thaw_loop)

    def _codec(self) -> EntryCodec:
        return _codec(self._control.ground.settings.linger)

    def _tick_loop(self) -> None:
        while True:
            if self._reload and not self._loading:
                self._reload, self._loading = False, True
                self._threads.spawn(self._faults.contain, self._load_site)
            turn = Turn(self._threads.sleep)
            for timer in self._control.timers:
                self._faults.contain(self._ring, timer)
                turn.pause()
            until = time.monotonic() + TICK
            while self._control.hurried and time.monotonic() < until:
                self._threads.sleep(0)
                for timer in self._control.hurrying:
                    self._faults.contain(self._ring, timer)
            self._threads.sleep(max(0.0, until - time.monotonic()))

    def _ring(self, timer: Callable[[float], Outbox]) -> None:
        self._effects.carry_out(timer(self._now()))

    def _thaw_loop(self) -> None:
        while True:
            self._threads.sleep(collector.THAW_INTERVAL)
            for _ in range(collector.THAW_PATIENCE):
                before = self._packets_shown()
                self._threads.sleep(1.0)
                if self._packets_shown() < before + collector.QUIET:
                    break
            collector.thaw()

    def _packets_shown(self) -> int:
        """By switches that are there, since the start."""
        return sum(switch.counters["packet_ins"] for switch in self._control.ground.switches.values())

    def _on_hangup(self, *_: object) -> None:
        self._reload = True

    def _load_site(self) -> None:
        try:
            with collector.held():
                self._use_site_file()
        finally:
            self._loading = False

    def _use_site_file(self) -> None:
        """A bad file is refused, and the old one stays."""
        keepers = self._effects.keepers
        try:
            site, turn = read_site(self._site_file, self._threads), Turn(self._threads.sleep)
            keepers.check(site.keepers)
            steps = self._control.services.use_file(site, self._now())
            out = next(steps)
        except (ConfigError, KeeperError, Refused) as error:
            self._control.ground.counters["site_files_refused"] += 1
            log.error("site file refused, the old one stays", reason=str(error))
            return
        keepers.configure(self._control.ground.site)
        self._switchboard.keep(self._control.ground.switches)
        self._switchboard.use(self._codec())
        self._effects.carry_out(out)
        for out in steps:
            self._effects.carry_out(out)
            turn.pause()
