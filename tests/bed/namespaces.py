"""Network namespaces with their devices, that go away also when their owner was killed.

All are named `lbt<pid>-<n>-<name>` after the process that made them. Whoever makes some first removes those whose
owner is gone, with the processes in them, and their owners' directories under BASE.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import fcntl
import itertools
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tests.bed.ovs import end_leftovers
from tests.bed.patience import limit
from tests.bed.processes import CommandFailed, end, run, start_time
from topologies import programs

BASE = Path("/tmp/lbt")
"""Holds a directory for each owner; short, because Unix sockets in it have short paths."""
NAMED = Path("/run/netns")
CLONE_NEWNET = 0x40000000
SIOCETHTOOL = 0x8946
OFFLOADS = (0x17, 0x1F, 0x24, 0x2C)
"""ethtool's commands to set tx, tso, gso and gro (include/uapi/linux/ethtool.h)."""

T = TypeVar("T")
_serial = itertools.count()
_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """One named network namespace. Made by Namespaces.add()."""

    def __init__(self, name: str, full_name: str) -> None:
        self.name = name
        self.full_name = full_name
        self.path = NAMED / full_name
        self.prefix = ("ip", "netns", "exec", full_name)

    def run(self, *command: object, timeout: float = limit(30.0)) -> str:
        """Run a command inside, return its output. Raises CommandFailed."""
        return run([*self.prefix, *map(str, command)], timeout=timeout)

    def popen(self, *command: object, **options: Any) -> subprocess.Popen[str]:
        """Start a process inside; `options` are those of subprocess.Popen. Its pid is the command's own."""
        return programs.popen([*self.prefix, *command], **options)

    def ip(self, *args: object) -> str:
        """`ip ARGS` inside. Raises CommandFailed."""
        return run(["ip", "-n", self.full_name, *map(str, args)])

    def ip_batch(self, lines: Iterable[str]) -> None:
        """Many `ip` commands inside at the price of one. Raises CommandFailed."""
        run(["ip", "-n", self.full_name, "-batch", "-"], input="\n".join(lines) + "\n")

    def call(self, function: Callable[[], T]) -> T:
        """The result of `function`, called inside: what it opens (a socket) stays inside. Its errors are raised here.
        """
        return call_inside(self.path, function)

    def sysctl(self, **values: object) -> None:
        """Set values below net, e.g. ipv4__ip_forward=1 (`__` stands for the dot)."""

        def write() -> None:
            for key, value in values.items():
                Path("/proc/sys/net", *key.split("__")).write_text(str(value))

        self.call(write)

    def enable_ipv6(self) -> None:
        """For devices that are there and for later ones: addresses can be used at once, and stay when a device goes
        down."""
        every = {"disable_ipv6": 0, "accept_dad": 0, "accept_ra": 0, "keep_addr_on_down": 1}
        self.sysctl(
            **{f"ipv6__conf__{which}__{key}": value for which in ("default", "all") for key, value in every.items()}
        )

    def set_link(self, device: str, up: bool) -> None:
        """Bring a device up or down."""
        self.ip("link", "set", device, "up" if up else "down")

    def offloads_off(self, device: str) -> None:
        """What `ethtool -K DEVICE tx off tso off gso off gro off` does, without the 0.1 s it takes."""

        def switch_off() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
                for command in OFFLOADS:
                    value = array.array("I", [command, 0])
                    request = struct.pack("16sP8x", device.encode(), value.buffer_info()[0])
                    fcntl.ioctl(any_socket, SIOCETHTOOL, request)

        self.call(switch_off)

    def mac(self, device: str) -> str:
        """MAC address of a device."""
        return self.ip("-o", "link", "show", device).partition("link/ether ")[2].split()[0]

    def pids(self) -> list[int]:
        """The processes inside."""
        return _pids_inside([self.path])

    def end_processes(self) -> None:
        """kill -9 everything that runs inside."""
        for pid in self.pids():
            end(pid, grace=0)


class Namespaces:
    """A set of namespaces with one owner, this process: use as a context manager, or call remove()."""

    def __init__(self) -> None:
        remove_leftovers()
        self._prefix = f"lbt{os.getpid()}-{next(_serial)}-"
        self._spaces: dict[str, Namespace] = {}
        self.directory = owner_directory(os.getpid()) / self._prefix.split("-")[1]
        """For files that live as long as the namespaces do."""
        self.directory.mkdir(parents=True)

    def add(self, name: str) -> Namespace:
        """Make a namespace, loopback up and without IPv6, whose chatter would only blur captures."""
        space = Namespace(name, self._prefix + name)
        with _alone():
            run(["ip", "netns", "add", space.full_name])
        self._spaces[name] = space
        space.sysctl(ipv6__conf__all__disable_ipv6=1, ipv6__conf__default__disable_ipv6=1)
        space.set_link("lo", True)
        return space

    def veth(self, one: Namespace, device: str, other: Namespace, peer: str, *, mac: str | None = None) -> None:
        """A cable between two namespaces, both ends up, offloads off (they hang TCP over a userspace switch)."""
        address = ["address", mac] if mac else []
        run(
            ["ip", "link", "add", "name", device, *address, "netns", one.full_name, "type", "veth"]
            + ["peer", "name", peer, "netns", other.full_name]
        )
        for space, end_ in ((one, device), (other, peer)):
            space.set_link(end_, True)
            space.offloads_off(end_)

    def remove(self) -> None:
        """End everything inside, remove the namespaces and the directory. Can be called twice."""
        spaces, self._spaces = list(self._spaces.values()), {}
        _remove([space.path for space in spaces], self.directory)
        with contextlib.suppress(OSError):
            self.directory.parent.rmdir()

    def __enter__(self) -> Namespaces:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def __getitem__(self, name: str) -> Namespace:
        return self._spaces[name]

    def __iter__(self) -> Iterator[Namespace]:
        return iter(self._spaces.values())


def wake(spaces: Iterable[Namespace]) -> None:
    """SIGCONT to everything inside."""
    for pid in _pids_inside([space.path for space in spaces]):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def call_inside(path: Path, function: Callable[[], T]) -> T:
    """The result of `function`, called in the network namespace at `path`. Its errors are raised here.

    It runs in a thread of its own, since a thread that changed its namespace is good for nothing else.
    """
    result: list[T] = []
    failure: list[BaseException] = []

    def enter_and_call() -> None:
        try:
            with path.open() as handle:
                if _libc.setns(handle.fileno(), CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), f"cannot enter namespace {path}")
            result.append(function())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=enter_and_call, name=f"in-{path.name}")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]


def owner_directory(pid: int) -> Path:
    """The directory of the owner `pid`; its start time in the name tells it from an earlier process of that pid."""
    return BASE / f"{pid}-{start_time(pid)}"


def remove_leftovers() -> None:
    """Remove namespaces, processes and directories of owners that are gone."""
    for path in NAMED.glob("lbt*-*") if NAMED.exists() else ():
        match = re.match(r"lbt(\d+)-", path.name)
        if match and not owner_directory(int(match[1])).exists():
            _remove([path], None)
    for directory in BASE.glob("*-*") if BASE.exists() else ():
        pid = int(directory.name.partition("-")[0])
        if directory != owner_directory(pid):
            spaces = [path for path in NAMED.glob(f"lbt{pid}-*")]
            _remove(spaces, directory)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """One owner at a time: the kernel gives a new namespace the number of one just removed, and whoever is ending the
    processes of the old one would end those of the new."""
    BASE.mkdir(exist_ok=True)
    with (BASE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _remove(paths: Sequence[Path], directory: Path | None) -> None:
    with _alone():
        _remove_alone(paths, directory)


def _remove_alone(paths: Sequence[Path], directory: Path | None) -> None:
    for pid in _pids_inside(paths):
        end(pid, grace=0)
    if directory is not None:
        for rundir in [path.parent for path in directory.rglob("*.pid")]:
            end_leftovers(rundir)
    for path in paths:
        with contextlib.suppress(CommandFailed):  # another process may be removing the same leftovers
            run(["ip", "netns", "del", path.name])
    if directory is not None:
        shutil.rmtree(directory, ignore_errors=True)


def _pids_inside(paths: Sequence[Path]) -> list[int]:
    spaces = set()
    for path in paths:
        with contextlib.suppress(OSError):
            spaces.add(path.stat().st_ino)
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if os.stat(f"/proc/{entry.name}/ns/net").st_ino in spaces:
                    found.append(int(entry.name))
    return found
