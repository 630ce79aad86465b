"""The Ryu app: OpenFlow events in, the core's messages out. It decides nothing."""

from __future__ import annotations

import functools
import os
import signal
import struct
import time
from dataclasses import replace
from pathlib import Path

import structlog
from eventlet import tpool
from ryu import cfg
from ryu.base import app_manager
from ryu.controller import ofp_event
from ryu.controller.handler import DEAD_DISPATCHER, MAIN_DISPATCHER, set_ev_cls
from ryu.lib import hub
from ryu.ofproto import ofproto_v1_4

from lbctl.api import shown
from lbctl.assignment import Unassignable
from lbctl.control import ControlFunction
from lbctl.copies.client import KeeperError
from lbctl.ground.effects import FetchCopy, Outbox, Save, SendBatch, Solve, ToSwitch
from lbctl.openflow.entry_codec import EntryCodec
from lbctl.site.file import ConfigError, load
from lbctl.store import FileStore, StoreError, new_fence_code
from lbctl.switches.switch import PortState
from lbctl.values.refused import Refused
from ryu_apps import collector
from ryu_apps import datapath as of
from ryu_apps.keepers import KeeperCalls
from ryu_apps.openflow import token_of
from ryu_apps.sender import Sender
from ryu_apps.solver import solve

TICK = 0.05
SAVE_TIMEOUT = 5.0
"""Seconds that an order waits for the state file before it is answered all the same."""
METER_MOD_FAILED, METER_EXISTS = 12, 1
ECHO_INTERVAL, ECHO_UNREPLIED = 2, 3

CONF = cfg.CONF
CONF.register_opts([
    cfg.StrOpt("site", help="the site file, relative to this configuration file"),
    cfg.StrOpt("state_file", default="lbctl-state.json", help="what must survive a restart is kept here"),
], group="lbctl")
# Ryu never notices a dead switch by default; a user's own values still win.
CONF.set_default("maximum_unreplied_echo_requests", ECHO_UNREPLIED)
CONF.set_default("echo_request_interval", ECHO_INTERVAL)

log = structlog.get_logger("lbctl")


def config_path(name: str) -> Path:
    """A path from the configuration file, which is relative to that file."""
    base = Path(CONF.config_file[0]).resolve().parent if CONF.config_file else Path.cwd()
    return base / name


def fatal(function):
    """An exception in a green thread would vanish: log it and stop, so that a supervisor starts us anew."""

    @functools.wraps(function)
    def guarded(*args, **kwargs):
        try:
            return function(*args, **kwargs)
        except hub.TaskExit:
            raise
        except Exception:
            log.exception("internal error, stopping", where=function.__qualname__)
            os._exit(70)

    return guarded


def spawn(function, *args):
    return hub.spawn(fatal(function), *args)


class LoadBalancerApp(app_manager.RyuApp):
    """Holds the control function, the switches' connections, and the clock."""

    OFP_VERSIONS = [ofproto_v1_4.OFP_VERSION]

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._clock_offset = time.time() - time.monotonic()
        self._senders: dict[str, Sender] = {}
        self._datapaths: dict[str, object] = {}
        self._saves = hub.Queue()
        self._to_save = self._saved = 0
        """States that have been put into the queue, and that have come out of it and are on disk."""
        self._reload = False
        try:
            if not CONF.lbctl.site:
                raise SystemExit("lbctl: the configuration file has no `site = PATH` in its section [lbctl]")
            self.site_path = config_path(CONF.lbctl.site)
            self._store = FileStore(config_path(CONF.lbctl.state_file))
            state = self._store.load()
            state = replace(state, fence_code=state.fence_code or new_fence_code())
            self.control = ControlFunction(load(self.site_path), state, self.now(), self._log)
            self.shown = shown.of(self.control)
            self._keepers = KeeperCalls(self.site_path.parent, self.control, self._send, self.now, spawn)
            self._keepers.configure()
        except (ConfigError, StoreError, KeeperError) as error:
            raise SystemExit(f"lbctl: {error}") from error
        self._codec = EntryCodec(self.control.ground.site.settings.linger)
        of.install(self._on_raw)
        signal.signal(signal.SIGHUP, self._on_hangup)
        collector.install()
        self._threads = [spawn(self._tick_loop), spawn(self._save_loop), spawn(self._thaw_loop)]

    def now(self) -> float:
        """Seconds since the epoch, on a clock that does not jump."""
        return self._clock_offset + time.monotonic()

    @staticmethod
    def _log(event: str, level: str = "info", **keys) -> None:
        getattr(log, level)(event, **keys)

    # What REST asks for.

    def start_move(self, address, to, strategy, from_copies):
        """Returns the move's record. Raises Refused."""
        record, out = self.control.movement.start(address, to, strategy, self.now(), from_copies)
        self._send(out)
        return record

    def fail_over(self, name: str):
        """Returns the records of its moves. Raises Refused."""
        records, out = self.control.relief.order(name, self.now())
        self._send(out)
        return records

    def plan(self, algorithm):
        """An assignment for the loads of now. Raises Unassignable. Nothing waits for it but the caller."""
        balancing = self.control.balancing
        plan = solve(balancing.problem(), algorithm or self.control.ground.site.rebalance.algorithm)
        if isinstance(plan, Unassignable):
            raise plan
        return plan

    def rebalance(self, plan):
        """Carries a plan out. Returns its run. Raises Refused."""
        run, out = self.control.balancing.begin(plan, self.now())
        self._send(out)
        return run

    def drain(self, name: str, undo: bool) -> None:
        self._send_lasting(self.control.balancing.drain(name, undo))

    def wait_for_run(self, run, timeout: float) -> None:
        """Waits, in the caller's green thread, until the rebalancing has ended or the time (seconds) is over."""
        self._wait_while(lambda: run.state == "running", timeout)

    def _solve_loop(self, message) -> None:
        self._send(self.control.balancing.solved(solve(message.problem, message.algorithm), self.now()))

    def abort_move(self, move_id: str) -> None:
        """Raises Refused."""
        self._send(self.control.movement.abort(move_id, self.now()))

    def set_scheduler(self, name, scheduler: str) -> None:
        """Raises Refused, as all that changes a service."""
        self._send_lasting(self.control.services.set_scheduler(name, scheduler))

    def add_server(self, name, server) -> None:
        self._send_lasting(self.control.services.add_server(name, server))

    def remove_server(self, name, endpoint) -> None:
        self._send_lasting(self.control.services.remove_server(name, endpoint))

    def change_server(self, name, endpoint, fields, drained) -> None:
        self._send_lasting(self.control.services.change_server(name, endpoint, fields, drained))

    def _send_lasting(self, out) -> None:
        """What is answered shall outlive the controller: returns when the state is saved (or could not be, which the log says)."""
        self._send(out)
        last = self._to_save
        self._wait_while(lambda: self._saved < last, SAVE_TIMEOUT)

    def wait_for_move(self, move_id: str, timeout: float) -> None:
        """Waits, in the caller's green thread, until the move has ended or the time (seconds) is over."""
        self._wait_while(lambda: (record := self.control.movement.records().get(move_id)) and record.ended is None, timeout)

    @staticmethod
    def _wait_while(running, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while running() and time.monotonic() < deadline:
            hub.sleep(TICK)

    # Switches come and go.

    @set_ev_cls(ofp_event.EventOFPStateChange, [MAIN_DISPATCHER, DEAD_DISPATCHER])
    @fatal
    def _on_state(self, event) -> None:
        datapath = event.datapath
        if event.state == DEAD_DISPATCHER:
            name = getattr(datapath, "lb_name", None)
            if name and self._datapaths.get(name) is datapath:
                self._senders.pop(name).stop()
                del self._datapaths[name]
                self._send(self.control.switch_lost(name, "the OpenFlow connection ended", self.now()))
            return
        try:
            name, out = self.control.switch_connected(datapath.id, self._ports(datapath), self.now())
        except Refused as refusal:
            log.error("switch refused", dpid=f"{datapath.id:016x}", address=datapath.address[0], reason=str(refusal))
            datapath.close()
            return
        datapath.lb_name = name
        self._datapaths[name] = datapath
        self._senders[name] = Sender(datapath, self._codec, spawn)
        self._send(out)

    @set_ev_cls(ofp_event.EventOFPPortStateChange, MAIN_DISPATCHER)
    @fatal
    def _on_ports(self, event) -> None:
        name = getattr(event.datapath, "lb_name", None)
        if name and self._datapaths.get(name) is event.datapath:
            self._send(self.control.ports_changed(name, self._ports(event.datapath), self.now()))

    @set_ev_cls(ofp_event.EventOFPPortStatsReply, MAIN_DISPATCHER)
    @fatal
    def _on_port_stats(self, event) -> None:
        if (token := token_of(event.msg.xid)) is not None:
            self.control.ports_read(token, {port.port_no: port.rx_packets for port in event.msg.body})

    @staticmethod
    def _ports(datapath) -> list[PortState]:
        ofp = datapath.ofproto
        return [PortState(port.name.decode(errors="replace"), port.port_no, port.hw_addr,
                          not port.config & ofp.OFPPC_PORT_DOWN and not port.state & ofp.OFPPS_LINK_DOWN)
                for port in datapath.ports.values()]

    # What they send.

    @fatal
    def _on_raw(self, datapath, kind: int, xid: int, message: bytes) -> None:
        name = getattr(datapath, "lb_name", None)
        if name is None or self._datapaths.get(name) is not datapath:
            return
        now, control = self.now(), self.control
        if len(message) < of.SHORTEST.get(kind, 8):
            control.ground.switches[name].counters["dropped_undecodable"] += 1
        elif kind == of.PACKET_IN:
            self._send(control.packet_in(name, message, now))
        elif kind == of.FLOW_REMOVED:
            self._send(control.flow_removed(name, message, now))
        elif (token := token_of(xid)) is None:
            return
        elif kind == of.MULTIPART_REPLY:
            more = bool(struct.unpack_from("!H", message, 10)[0] & 1)
            self._send(control.flow_stats(token, message[16:], more, now))
        elif kind == of.ERROR:
            self._on_error(name, token, message, now)
        elif kind == of.BARRIER_REPLY or message[12:14] == b"\x00\x05":
            self._send(control.confirmed(token, now))

    def _on_error(self, name: str, token: int, message: bytes, now: float) -> None:
        kind, code = struct.unpack_from("!HH", message, 8)
        if (kind, code) != (METER_MOD_FAILED, METER_EXISTS):
            reason = f"OpenFlow error type {kind} code {code} for message type {message[13] if len(message) > 13 else '?'}"
            self._send(self.control.failed(name, token, reason, now))

    # Messages out.

    def _send(self, out: Outbox) -> None:
        for effect in out:
            match effect:
                case ToSwitch(name, message):
                    if name in self._senders and not self._senders[name].send(message):
                        self.control.ground.switches[name].counters["dropped_send_queue_full"] += 1
                case Save():
                    self._to_save += 1
                    self._saves.put(effect)
                case Solve():
                    spawn(self._solve_loop, effect)
                case FetchCopy() | SendBatch():
                    self._keepers.call(effect)

    @staticmethod
    def _save(store: FileStore, state) -> str | None:
        try:
            store.save(state)
        except StoreError as error:
            return str(error)
        return None

    def _save_loop(self) -> None:
        while True:
            message = self._saves.get()
            error = tpool.execute(self._save, self._store, message.state)
            self._saved += 1
            if error:
                log.error("state not saved", reason=error)
            if message.token is not None:
                done = self.control.not_saved(message.token, error, self.now()) if error else \
                    self.control.confirmed(message.token, self.now())
                self._send(done)

    # Time, and the site file.

    @staticmethod
    def _thaw_loop() -> None:
        while True:
            hub.sleep(collector.THAW_INTERVAL)
            collector.thaw()

    def _tick_loop(self) -> None:
        while True:
            if self._reload:
                self._reload = False
                self._load_site()
            self._send(self.control.tick(self.now()))
            hub.sleep(TICK)

    def _on_hangup(self, *_) -> None:
        self._reload = True

    def _load_site(self) -> None:
        """A bad file is refused, and the old one stays."""
        try:
            site = load(self.site_path)
            self._keepers.check(site.keepers)
            out = self.control.services.use_file(site, self.now())
        except (ConfigError, KeeperError, Refused) as error:
            self.control.ground.counters["site_files_refused"] += 1
            log.error("site file refused, the old one stays", reason=str(error))
            return
        self._codec = EntryCodec(self.control.ground.site.settings.linger)
        self._keepers.configure()
        for name in self._datapaths.keys() - self.control.ground.switches.keys():
            self._senders.pop(name).stop()
            self._datapaths.pop(name).close()
        for sender in self._senders.values():
            sender.use(self._codec)
        self._send(out)
