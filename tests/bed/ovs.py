"""Open vSwitch instances of one's own: one ovsdb-server and ovs-vswitchd for each load balancer.

Each has its own run directory, database, log and pid files, and must have its own network namespace: the userspace
datapath makes a device `ovs-netdev`, of which a namespace can hold one. Nothing of the host's Open vSwitch is touched.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path

from lbctl.openflow import tries
from tests.bed.patience import limit
from tests.bed.processes import CommandFailed, end, is_alive, mentions, read_pid, run, wait_gone

SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")
OPENFLOW = "OpenFlow14"
RUNDIR_LIMIT = 107 - 30
"""Bytes in the path of a run directory: a Unix socket's has 107, and OVS adds names such as ovs-vswitchd.PID.ctl."""


class OvsError(CommandFailed):
    """Open vSwitch, or one of its tools, failed; the message names the instance and the command."""


def wait_crashed(ovs: PrivateOvs) -> bool:
    """Has its ovs-vswitchd gone by itself, or does it within a moment (it may still be writing its core)?"""
    pid = ovs.vswitchd_pid
    return pid is None or wait_gone(pid, limit(1.0))


class PrivateOvs:
    """One ovsdb-server and ovs-vswitchd pair.

    `rundir` is made by start() and removed by stop(). The daemons run in network namespace `namespace`, or behind
    `prefix` (any command that runs its arguments inside, such as `mnexec -a PID`). The tools run outside: they reach
    the daemons through Unix sockets.
    """

    def __init__(self, name: str, rundir: Path | str, namespace: str | None = None, prefix: Sequence[str] = ()) -> None:
        if namespace and prefix:
            raise ValueError(f"{name}: give a namespace or a prefix, not both")
        self.name = name
        self.rundir = Path(rundir).resolve()
        self.prefix = ("ip", "netns", "exec", namespace) if namespace else tuple(prefix)
        self.log_file = self.rundir / "ovs-vswitchd.log"
        self.environment = {f"OVS_{kind}DIR": str(self.rundir) for kind in ("RUN", "LOG", "DB")}
        """What makes the ovs-* commands, typed by hand, talk to this instance."""

    # Daemons

    def start(self) -> PrivateOvs:
        """Start both daemons; returns when they serve. Raises OvsError, and leaves nothing running then."""
        self._check_rundir()
        end_leftovers(self.rundir)
        shutil.rmtree(self.rundir, ignore_errors=True)
        self.rundir.mkdir(parents=True)
        try:
            self._run("ovsdb-tool", "create", self.rundir / "conf.db", SCHEMA)
            self._daemon(
                "ovsdb-server",
                self.rundir / "conf.db",
                f"--remote=punix:{self.rundir}/db.sock",
            )
            self.vsctl("--no-wait", "init")
            self.start_vswitchd()
        except BaseException:
            end_leftovers(self.rundir)
            raise
        return self

    def start_vswitchd(self) -> None:
        """Start ovs-vswitchd on the database as it is: bridges come back, their flows do not."""
        self._daemon("ovs-vswitchd", f"unix:{self.rundir}/db.sock")

    def stop_vswitchd(self) -> None:
        """End ovs-vswitchd in an orderly way, datapath included; the database stays."""
        pid = self.vswitchd_pid
        if pid is None:
            return
        try:
            self.appctl("exit", "--cleanup")
        except OvsError:
            pass  # it may go before it answers; end() settles it
        if not wait_gone(pid, 3.0):
            end(pid)

    def kill(self) -> None:
        """kill -9 of ovs-vswitchd: what a load balancer that dies looks like."""
        pid = self.vswitchd_pid
        if pid is None:
            raise OvsError(f"{self.name}: ovs-vswitchd does not run, so it cannot be killed")
        os.kill(pid, signal.SIGKILL)
        wait_gone(pid, limit(5.0))

    def restart_vswitchd(self) -> None:
        """End ovs-vswitchd and start it again: its flows are gone."""
        self.stop_vswitchd()
        self.start_vswitchd()

    def stop(self) -> None:
        """End both daemons and remove the run directory. Does no harm when they don't run."""
        self.stop_vswitchd()
        end_leftovers(self.rundir)
        shutil.rmtree(self.rundir, ignore_errors=True)

    def __enter__(self) -> PrivateOvs:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def vswitchd_pid(self) -> int | None:
        """Process id of ovs-vswitchd, None if it does not run."""
        return _daemon_pid(self.rundir / "ovs-vswitchd.pid", self.rundir)

    # Tools

    def vsctl(self, *args: object) -> str:
        """ovs-vsctl on this instance; its output. Raises OvsError with what it said."""
        return self._run("ovs-vsctl", f"--timeout={limit(15.0):.0f}", *args)

    def ofctl(self, *args: object, input: str | None = None, timeout: float = limit(30.0)) -> str:
        """ovs-ofctl by OpenFlow 1.4 on this instance (`input`: for FILE `-`); its output. Raises OvsError."""
        return self._run("ovs-ofctl", "-O", OPENFLOW, *args, input=input, timeout=timeout)

    def appctl(self, *args: object) -> str:
        """ovs-appctl on this ovs-vswitchd; its output. Raises OvsError."""
        return self._run("ovs-appctl", f"--timeout={limit(15.0):.0f}", "-t", "ovs-vswitchd", *args)

    def purge(self) -> None:
        """Empty the datapath's cache: else it goes on for a while with what it did when the tables were others."""
        self.appctl("revalidator/purge")

    def coverage(self, counter: str) -> int:
        """A coverage counter of ovs-vswitchd since it started, e.g. `rconn_overflow`."""
        return int(self.appctl("coverage/read-counter", counter))

    # Bridges

    @functools.cached_property
    def datapath_type(self) -> str:
        """`system` if this instance can make a bridge with the kernel datapath, else `netdev`."""
        trial = "lbt-trial"
        try:
            self.vsctl("add-br", trial, "--", "set", "bridge", trial, "datapath_type=system")
            ofport = self.vsctl("get", "interface", trial, "ofport").strip()
        except OvsError:
            ofport = "[]"
        self.vsctl("--if-exists", "del-br", trial)
        return "system" if ofport.isdigit() else "netdev"

    def add_bridge(
        self,
        bridge: str,
        dpid: int,
        controller: str | None = None,
        ports: Sequence[str] = (),
        *,
        inactivity_probe: float = 15.0,
    ) -> None:
        """Make `bridge` as a load balancer needs it, with the devices `ports` (numbered from 1, in this order).

        `controller`: such as `tcp:198.18.0.1:6653`. `inactivity_probe` in seconds. Raises OvsError when a port cannot
        be opened.
        """
        command: list[str] = ["add-br", bridge, "--", "set", "bridge", bridge]
        command += [
            f"datapath_type={self.datapath_type}",
            "fail_mode=secure",
            "protocols=OpenFlow10,OpenFlow13,OpenFlow14",
            f"other_config:datapath-id={dpid:016x}",
            "other_config:disable-in-band=true",
        ]
        if self._version() < tries.BUILT_IN:
            command += ["--", *tries.command(bridge)]
        for number, port in enumerate(ports, start=1):
            command += ["--", "add-port", bridge, port, "--", "set", "interface", port, f"ofport_request={number}"]
        self.vsctl(*command)
        self._check_ports(bridge, ports)
        if controller is not None:
            self.set_controller(bridge, controller, inactivity_probe=inactivity_probe)

    def _version(self) -> tuple[int, ...]:
        """Of ovs-vswitchd: such as (3, 1)."""
        found = re.search(r"(\d+)\.(\d+)", self._run("ovs-vswitchd", "--version"))
        assert found is not None, "ovs-vswitchd tells its version"
        return tuple(map(int, found.groups()))

    def set_controller(self, bridge: str, controller: str, *, inactivity_probe: float = 15.0) -> None:
        """Connect `bridge` to `controller`; a lost one is tried again every second."""
        self.vsctl(
            *("set-controller", bridge, controller, "--", "set", "controller", bridge),
            "controller_queue_size=512",
            "max_backoff=1000",
            f"inactivity_probe={int(inactivity_probe * 1000)}",
        )

    def is_connected(self, bridge: str) -> bool:
        """Whether the controller of `bridge` is connected."""
        return self.vsctl("get", "controller", bridge, "is_connected").strip() == "true"

    def dump_flows(self, bridge: str, match: str = "") -> str:
        """The flows of `bridge` (those that `match` selects) without counters and times, one a line, sorted."""
        text = self.ofctl("--no-stats", "--no-names", "dump-flows", bridge, *([match] if match else []))
        return _sorted_lines(text)

    def tables_hash(self, bridge: str) -> str:
        """Hash of flows, groups and meters of `bridge`: equal exactly if they are the same but for counters."""
        digest = hashlib.sha256(self.dump_flows(bridge).encode())
        for command in ("dump-groups", "dump-meters"):
            digest.update(_sorted_lines(self.ofctl(command, bridge)).encode())
        return digest.hexdigest()

    # Inner parts

    def _check_ports(self, bridge: str, ports: Sequence[str]) -> None:
        for port in ports:
            ofport = self.vsctl("get", "interface", port, "ofport").strip()
            if not ofport.isdigit():
                error = self.vsctl("get", "interface", port, "error").strip()
                raise OvsError(f"{self.name}: port {port} of {bridge} cannot be opened: {error}; is the device there?")

    def _check_rundir(self) -> None:
        if len(os.fsencode(self.rundir)) > RUNDIR_LIMIT:
            raise OvsError(f"{self.name}: the run directory's path is too long for a Unix socket: {self.rundir}")
        if not SCHEMA.exists():
            raise OvsError(f"{self.name}: {SCHEMA} is missing; install Open vSwitch: apt install openvswitch-switch")

    def _daemon(self, program: str, *args: object) -> None:
        files = (f"--pidfile={self.rundir}/{program}.pid", f"--log-file={self.rundir}/{program}.log")
        options = ("--detach", "--no-chdir", *files, "-vconsole:off", "-vfile:info")
        self._run(*self.prefix, program, *args, *options)

    def _run(self, *command: object, input: str | None = None, timeout: float = limit(30.0)) -> str:
        try:
            return run([str(word) for word in command], input=input, env=self.environment, timeout=timeout)
        except CommandFailed as error:
            raise OvsError(f"{self.name}: {error}") from None


def end_leftovers(rundir: Path | str) -> None:
    """kill -9 the daemons that a PrivateOvs left running on `rundir`, of this process or of one that crashed."""
    for pid_file in Path(rundir).glob("*.pid"):
        pid = _daemon_pid(pid_file, Path(rundir))
        if pid is not None:
            end(pid, grace=0)


def _daemon_pid(pid_file: Path, rundir: Path) -> int | None:
    pid = read_pid(pid_file)
    return pid if pid is not None and is_alive(pid) and mentions(pid, str(rundir)) else None


def _sorted_lines(text: str) -> str:
    """Lines of an ovs-ofctl answer in order, without its head, whose transaction id differs each time."""
    one_line_each = text.replace("bands=\n", "bands=")  # a meter's bands come on lines of their own
    lines = (line.strip() for line in one_line_each.splitlines() if "reply (OF" not in line)
    return "".join(line + "\n" for line in sorted(lines))
