"""A packet that has come to the controller."""

from __future__ import annotations

from dataclasses import dataclass

from lbctl.frames.packets import Packet, parse_mac
from lbctl.ground.serving import Serving
from lbctl.openflow.ports import Ports
from lbctl.site.model import Tunnel
from lbctl.switches.switch import Switch
from lbctl.values.keys import pack_key
from lbctl.values.side import INTERNAL, Side


@dataclass(slots=True)
class Arrival:
    """A packet that a switch has shown to the controller, whose ports are known.

    Whose packet it is, is not in here: of a packet that the switch has translated, or of an ICMP error, its own
    addresses do not tell it. in_port: its OpenFlow number. now: seconds since the epoch. fragment: the frame is the
    packet's first fragment.
    """

    switch: Switch
    ports: Ports
    side: Side
    in_port: int
    frame: bytes
    packet: Packet
    now: float
    fragment: bool = False

    @property
    def key(self) -> bytes | None:
        """What an entry is found by, packed anew each time. None: its protocol has no ports, so it has no entry."""
        packet = self.packet
        if packet.src_port is None or packet.dst_port is None:
            return None
        return pack_key(packet.protocol, packet.src, packet.src_port, packet.dst, packet.dst_port)

    @property
    def mac(self) -> bytes:
        """Of the port that it has come by (of all tunnel ports: the internal port's)."""
        return parse_mac(self.ports.of(self.side).mac)

    def tunnel(self, serving: Serving) -> Tunnel | None:
        """The tunnel that it has come by, if it belongs to that external IP: the flows let in only what its server
        sent."""
        return serving.tunnel_to(self.packet.src) if self.side is INTERNAL else None
