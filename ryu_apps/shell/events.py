"""Events in: what switches say, in the core's words."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address

from lbctl.control import ControlFunction
from lbctl.ground.effects import Outbox
from lbctl.openflow.errors import decode_error
from lbctl.switches.switch import PortState
from lbctl.values.addresses import Address
from lbctl.values.refused import Refused
from ryu_apps.shell import wire
from ryu_apps.shell.faults import Faults
from ryu_apps.shell.log import log
from ryu_apps.shell.sender import SwitchConnection
from ryu_apps.shell.switchboard import Switchboard
from ryu_apps.shell.wire import token_of


def peer(address: str) -> Address | None:
    """Where a connection comes from; an IPv4 address also where the socket has made IPv6 of it."""
    try:
        found = ip_address(address)
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


class Events:
    """carry_out: what is done with the core's answers. now: seconds since the epoch, on a clock that does not jump."""

    def __init__(self, control: ControlFunction, switchboard: Switchboard, carry_out: Callable[[Outbox], None],
                 now: Callable[[], float], faults: Faults) -> None:
        self._control, self._switchboard, self._carry_out, self._now = control, switchboard, carry_out, now
        self._faults = faults
        self._names = switchboard.names

    def connected(self, connection: SwitchConnection, dpid: int, address: str, ports: Sequence[PortState]) -> None:
        """A switch has shaken hands; address: where it connects from."""
        if not self._faults.contain(self._connected, connection, dpid, address, ports):
            connection.close()

    def _connected(self, connection: SwitchConnection, dpid: int, address: str, ports: Sequence[PortState]) -> None:
        try:
            name, out = self._control.switch_connected(dpid, ports, self._now(), peer(address))
        except Refused as refusal:
            log.error("switch refused", dpid=f"{dpid:016x}", address=address, reason=str(refusal))
            connection.close()
            return
        self._switchboard.connected(name, connection)
        self._carry_out(out)

    def lost(self, connection: SwitchConnection) -> None:
        """Its connection has ended."""
        self._faults.contain(self._lost, connection)

    def _lost(self, connection: SwitchConnection) -> None:
        name = self._switchboard.lost(connection)
        if name is not None:
            self._carry_out(self._control.switch_lost(name, "the OpenFlow connection ended", self._now()))

    def ports_changed(self, connection: SwitchConnection, ports: Sequence[PortState]) -> None:
        """One of its ports has come, gone, or changed; ports: all that there are now."""
        self._faults.contain(self._ports_changed, connection, ports)

    def _ports_changed(self, connection: SwitchConnection, ports: Sequence[PortState]) -> None:
        name = self._names.get(connection)
        if name is not None:
            self._carry_out(self._control.ports_changed(name, ports, self._now()))

    def ports_read(self, connection: SwitchConnection, xid: int, received: Mapping[int, int]) -> None:
        """Answers a ReadPorts: frames received, by number of the port."""
        if token := self._token(self._names.get(connection), xid):
            self._faults.contain(self._control.ports_read, token, received)

    def _token(self, name: str | None, xid: int) -> int:
        """Of what that LB's switch answers, if it is asked that; else 0."""
        token = token_of(xid)
        return token if token and name and self._control.ground.tokens.owed_by(token, name) else 0

    def message(self, connection: SwitchConnection, kind: int, xid: int, message: bytes) -> None:
        """A message of a type that comes often, whole."""
        self._faults.contain(self._message, connection, kind, xid, message)

    def _message(self, connection: SwitchConnection, kind: int, xid: int, message: bytes) -> None:
        name = self._names.get(connection)
        if name is None:
            return
        now, control = self._now(), self._control
        if len(message) < wire.SHORTEST.get(kind, 8):
            control.ground.switches[name].counters["dropped_undecodable"] += 1
        elif kind == wire.PACKET_IN:
            self._carry_out(control.packet_in(name, message, now))
        elif kind == wire.FLOW_REMOVED:
            self._carry_out(control.flow_removed(name, message, now))
        elif kind == wire.ERROR and token_of(xid) is not None:
            self._on_error(name, self._token(name, xid), message, now)
        elif not (token := self._token(name, xid)):
            return
        elif kind == wire.MULTIPART_REPLY:
            more = bool(struct.unpack_from("!H", message, 10)[0] & 1)
            self._carry_out(control.flow_stats(token, message[16:], more, now))
        elif kind == wire.BARRIER_REPLY or message[12:14] == wire.COMMIT_REPLY:
            self._carry_out(control.confirmed(token, now))

    def _on_error(self, name: str, token: int, message: bytes, now: float) -> None:
        if refusal := decode_error(message):
            self._carry_out(self._control.failed(name, token, refusal, now))
