"""A whole site in memory: the control function, fake switches behind slow connections, clients and servers.

Nothing arrives by itself: messages and answers wait in a queue for each direction of each connection until the test
lets them through, as do saved states, so that a test chooses the interleaving. Clients and servers notice what no
user may notice (`violations`), and every data packet has a number, so that lost and repeated ones are known.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network

from lbctl.control import ControlFunction
from lbctl.frames import packets
from lbctl.frames.packets import ACK, FIN, RST, SYN
from lbctl.ground.effects import Outbox, Save, ToSwitch
from lbctl.ground.serving import Serving
from lbctl.site.model import ExternalIp, LoadBalancer, Server, Service, Settings, Site
from lbctl.store import State
from lbctl.values.addresses import Endpoint
from lbctl.values.protocols import UDP
from tests.unit.fake_switch import Event, FakeSwitch, Sent

ROUTER_MAC = bytes.fromhex("02000000c0fe")
EXTERNAL, INTERNAL = 1, 2
LB_NAMES = ("lb-a", "lb-b", "lb-c")


def site(ips: int = 2, lbs: int = 2, nat: str = "destination", udp: bool = False, **settings) -> Site:
    """External IPs 198.51.100.1..., all starting at lb-a, with two servers each (one on another port); with full NAT
    these are the same servers for all, and each external IP has 32 translated ports for each. udp: a service on port
    53 as well."""
    external_ips = tuple(_external_ip(n, nat, udp) for n in range(1, ips + 1))
    return Site(
        tuple(
            LoadBalancer(name, 0xAA + place, f"{name}-ext", f"{name}-int") for place, name in enumerate(LB_NAMES[:lbs])
        ),
        (IPv4Network("198.51.100.0/24"),),
        (IPv4Network("10.0.0.0/24"),),
        external_ips,
        # A client sends nothing after its SYN until a test lets it.
        Settings(**{"settle": 0.0, "half_open_timeout": 1e6, **settings}),
    )


def _external_ip(n: int, nat: str, udp: bool) -> ExternalIp:
    first = 10 * n if nat == "destination" else 10
    servers = Server(IPv4Address(f"10.0.0.{first}"), 80), Server(IPv4Address(f"10.0.0.{first + 1}"), 8080)
    services = (
        Service("tcp", 80, "round-robin", servers),
        *((Service("udp", 53, "round-robin", servers),) if udp else ()),
    )
    address = IPv4Address(f"198.51.100.{n}")
    if nat == "destination":
        return ExternalIp(address, "lb-a", IPv4Address(f"10.0.0.{n}"), nat, services)
    internal = tuple(IPv4Address(f"10.0.0.{100 + 10 * n + place}") for place in (1, 2))
    return ExternalIp(address, "lb-a", None, nat, services, internal_ips=internal, port_range=(1024, 1039))


@dataclass(eq=False)
class Conversation:
    """A client's TCP connection. `number` is its initial sequence number, and the ack of all its later packets, so
    that an error reply tells which one it is for."""

    number: int
    client: Endpoint
    external: Endpoint
    opened: float
    server: Endpoint | None = None
    """Set once a server has accepted it."""
    peer: Endpoint | None = None
    """Whom that server has it with: the client, or an internal IP."""
    fins: set[str] = field(default_factory=set)
    reset: bool = False
    forfeited: bool = False
    """Its entry was in no switch when the controller died: nobody can save it."""

    @property
    def live(self) -> bool:
        return self.server is not None and not self.ended and not self.forfeited

    @property
    def ended(self) -> bool:
        return self.reset or len(self.fins) == 2


@dataclass(eq=False)
class Data:
    """A numbered packet that is under way."""

    conversation: Conversation
    inward: bool
    arrivals: int = 0


class FakeSite:
    """`control_class` serves it. fence_code: with one the LBs probe each other, and hear each other's ARP frames."""

    def __init__(self, configuration: Site | None = None, control_class: type[ControlFunction] = ControlFunction,
                 fence_code: str = "") -> None:
        self.site = configuration or site()
        self.control_class = control_class
        self.now = 1_000_000.0
        self.violations: list[str] = []
        self.stored = State(fence_code=fence_code)
        self.switches = {
            lb.name: FakeSwitch(lb.name, lb.dpid, lb.external_port, lb.internal_port, self.site.settings.linger)
            for lb in self.site.load_balancers
        }
        self.to_switch: dict[str, deque] = {name: deque() for name in self.switches}
        self.to_control: dict[str, deque] = {name: deque() for name in self.switches}
        self.saves: deque = deque()
        self.calls: deque = deque()
        """What keepers are asked and told."""
        self.connected: set[str] = set()
        self.unsettled = set(self.switches)
        """Switches that may hold what an earlier connection or controller told them."""
        self.routes: dict[bytes, str] = {}
        self.former_routes: dict[bytes, tuple[str, float]] = {}
        self.conversations: list[Conversation] = []
        self.data: list[Data] = []
        self.datagrams: list[tuple[str, bytes]] = []
        """UDP that has arrived: at the client or a server, and the frame."""
        self.moves: list = []
        self.rolled_back: dict[str, IPv4Address] = {}
        self.control = self._new_control()
        self._routers = {ip.router.packed for ip in self.site.external_ips if ip.router}
        self.present = {server.packed for ip in self.site.external_ips for server in ip.server_addresses()}
        """The servers that there are in the network, and that answer ARP; packed addresses."""

    def _new_control(self) -> ControlFunction:
        return self.control_class(self.site, self.stored, self.now)

    def serving(self, address: IPv4Address) -> Serving:
        """What the control function knows of that external IP."""
        serving = self.control.ground.external_ips.get(address)
        assert serving is not None
        return serving

    # Connections between the controller and the switches.

    def post(self, out: Outbox) -> None:
        """Puts the controller's messages on their way; those for a switch that is not connected are lost."""
        for effect in out:
            if isinstance(effect, Save):
                self.saves.append(effect)
            elif not isinstance(effect, ToSwitch):
                self.calls.append(effect)
            elif effect.lb in self.connected:
                self.to_switch[effect.lb].append(effect.message)

    def deliver(self, name: str, count: int = 1 << 30) -> bool:
        """Lets messages through to the switch. True if there were any."""
        queue = self.to_switch[name]
        some = bool(queue)
        while queue and count > 0:
            count -= 1
            self._out_of_switch(name, *self.switches[name].apply(queue.popleft(), self.now))
            if not queue and name in self.connected and self.control.ground.switches[name].ready:
                self.unsettled.discard(name)
        return some

    def hear(self, name: str, count: int = 1 << 30) -> bool:
        """Lets a switch's answers through to the controller. True if there were any."""
        queue = self.to_control[name]
        some = bool(queue)
        while queue and count > 0:
            count -= 1
            event = queue.popleft()
            if event.name == "ports_read":
                self.control.ports_read(*event.arguments)
            elif event.name in ("confirmed", "flow_stats"):  # which tell by their token what they answer
                self.post(getattr(self.control, event.name)(*event.arguments, self.now))
            else:
                self.post(getattr(self.control, event.name)(name, *event.arguments, self.now))
        self._note_rolled_back()
        return some

    def save(self, count: int = 1 << 30) -> bool:
        some = bool(self.saves)
        while self.saves and count > 0:
            count -= 1
            message = self.saves.popleft()
            self.stored = message.state()
            if message.token is not None:
                self.post(self.control.confirmed(message.token, self.now))
        return some

    def round(self) -> None:
        """What is under way arrives, and no answer to it."""
        waiting = {name: (len(self.to_switch[name]), len(self.to_control[name])) for name in self.switches}
        self.save(1)
        for name, (to_switch, to_control) in waiting.items():
            self.hear(name, to_control)
            self.deliver(name, to_switch)

    def drain(self) -> None:
        """Until nothing is under way."""
        while any([*(self.deliver(name) for name in self.switches), *(self.hear(name) for name in self.switches),
                   self.save()]):
            pass

    def connect(self, name: str) -> None:
        switch = self.switches[name]
        self.connected.add(name)
        self.unsettled.add(name)
        connected, out = self.control.switch_connected(switch.dpid, switch.ports, self.now)
        assert connected == name
        self.post(out)

    def disconnect(self, name: str, lose_tables: bool = False) -> None:
        """What was under way in both directions is lost."""
        if name in self.connected:
            self._cut(name)
            self.post(self.control.switch_lost(name, "cut by the test", self.now))
        if lose_tables:
            self.switches[name].lose_tables()
            self._forfeit()
        self.unsettled.add(name)

    def _cut(self, name: str) -> None:
        self.connected.discard(name)
        self.to_switch[name].clear()
        self.to_control[name].clear()

    def restart_control(self) -> None:
        """As by kill -9: the switches are not connected to the new one yet."""
        for name in self.switches:
            self._cut(name)
        self.saves.clear()
        self.unsettled = set(self.switches)
        self.moves += self.control.movement.records().values()
        self.rolled_back = {}
        self.control = self._new_control()
        self._forfeit()

    def _forfeit(self) -> None:
        """Notes whose entry is neither known to the controller nor whole in a switch that it will believe."""
        known: set[bytes] = set()
        for serving in self.control.ground.external_ips:
            known |= {entry.key for entry in serving.table.entries()}
            for name in serving.holders:
                known |= {
                    key for key, tables in self.switches[name].entries(serving.address).items() if len(tables) == 2
                }
        for conversation in self.conversations:
            if self.key(conversation) not in known:
                conversation.forfeited = True

    def tick(self, seconds: float) -> None:
        """Time passes: at the switches, then at the controller."""
        self.now += seconds
        for name, switch in self.switches.items():
            self._out_of_switch(name, [], switch.expire(self.now))
        self.post(self.control.tick(self.now))
        self._note_rolled_back()

    def _note_rolled_back(self) -> None:
        """A roll back can't wait for a target that does not answer in time, nor a promotion for such a source
        (docs/move.md): until it has heard of it, it may be normal, too; and answer with an ICMP error, which TCP
        takes as a hint only."""
        for record in self.control.movement.records().values():
            if record.state == "rolled-back" and record.id not in self.rolled_back:
                self.rolled_back[record.id] = record.external_ip
                self.unsettled.add(record.target)
        for move in self.control.movement.running():
            self.unsettled |= move.unheard

    def settle(self, seconds: float, step: float = 0.5) -> None:
        """Everything is connected and delivered, again and again, for that long."""
        for name in self.switches.keys() - self.connected:
            self.connect(name)
        self.drain()
        end = self.now + seconds
        while self.now < end:
            self.tick(step)
            self.drain()
            while self.control.hurried:
                for timer in self.control.hurrying:
                    self.post(timer(self.now))
                self.drain()

    # The networks.

    def _out_of_switch(self, name: str, sent: list[Sent], events: list[Event]) -> None:
        if name in self.connected:
            self.to_control[name] += events
        for port, frame, _ in sent:
            if frame[12:14] == b"\x08\x06":
                self._arp(name, port, frame)
            elif port == EXTERNAL:
                self._at_client(frame)
            else:
                self._at_server(frame)

    def inject(self, name: str, frame: bytes, port: int) -> None:
        self.switches[name].received[port] += 1
        self._out_of_switch(name, *self.switches[name].receive(frame, port, self.now))

    def _arp(self, name: str, port: int, frame: bytes) -> None:
        arp = packets.decode_arp(frame)
        if arp.op == packets.ARP_REQUEST and arp.spa == arp.tpa:
            if self.routes.get(arp.spa, name) != name:
                self.former_routes[arp.spa] = self.routes[arp.spa], self.now
            self.routes[arp.spa] = name
        elif arp.op == packets.ARP_REQUEST and arp.tpa in (self._routers if port == EXTERNAL else self.present):
            mac = ROUTER_MAC if port == EXTERNAL else self.server_mac(arp.tpa)
            reply = arp.sha + mac + frame[12:20] + b"\x00\x02" + mac + arp.tpa + arp.sha + arp.spa
            self.inject(name, reply, port)
        if self.stored.fence_code:
            self._among_lbs(name, port, frame)

    def _among_lbs(self, name: str, port: int, frame: bytes) -> None:
        """The other LBs hear it, too, if it is for all, or for them."""
        for other, switch in self.switches.items():
            if other != name and frame[:6] in (
                packets.BROADCAST_MAC,
                bytes.fromhex(switch.ports[port - 1].mac.replace(":", "")),
            ):
                self.inject(other, frame, port)

    @staticmethod
    def server_mac(address: bytes) -> bytes:
        return b"\x02\x01" + address

    def answers_arp(self, address: bytes, port: int) -> set[str]:
        """The switches that answer an ARP request for that address on that side."""
        found = set()
        for name, switch in self.switches.items():
            request = packets.arp_announcement(ROUTER_MAC, bytes([198, 51, 100, 250]))[:38] + address
            sent, _ = switch.receive(request, port, self.now)
            found |= {name for item in sent if item.frame[20:22] == b"\x00\x02" and item.frame[28:32] == address}
        return found

    def _route(self, address: bytes, stale: bool) -> str | None:
        former, changed = self.former_routes.get(address, ("", float("-inf")))
        if stale and self.now - changed < 1.0 and former:
            return former
        return self.routes.get(address)

    # Clients and servers.

    @staticmethod
    def key(conversation: Conversation) -> bytes:
        client, external = conversation.client, conversation.external
        return (
            bytes([6])
            + client.address.packed
            + client.port.to_bytes(2)
            + external.address.packed
            + external.port.to_bytes(2)
        )

    def open(self, place: int, reuse: Conversation | None = None) -> Conversation:
        """A client asks for a connection to the external IP at that place of the site, on a new port or on a used
        one."""
        number = len(self.conversations) + 1
        client = reuse.client if reuse else Endpoint(IPv4Address("203.0.113.9"), 1024 + number)
        external = reuse.external if reuse else Endpoint(self.site.external_ips[place].address, 80)
        conversation = Conversation(number, client, external, self.now)
        self.conversations.append(conversation)
        self.from_client(conversation, SYN)
        return conversation

    def from_client(self, conversation: Conversation, flags: int = ACK, stale: bool = False) -> None:
        external = conversation.external
        name = self._route(external.address.packed, stale)
        if name is None:
            return
        self._note(conversation, flags, "client")
        mac = bytes.fromhex(self.switches[name].ports[0].mac.replace(":", ""))
        number = conversation.number
        frame = packets.tcp_segment(mac, ROUTER_MAC, conversation.client.address.packed, conversation.client.port,
                                    external.address.packed, external.port, flags=flags, seq=number,
                                    ack=0 if flags == SYN else number,
                                    payload=self._payload(conversation, True, flags))
        self.inject(name, self._closed(frame, "client" in conversation.fins), EXTERNAL)

    def from_server(self, conversation: Conversation, flags: int = ACK, stale: bool = False) -> None:
        server, peer = conversation.server, conversation.peer
        if server is None or peer is None:
            return
        # With full NAT the peer is on the servers' own network.
        name = self._route((self.site.external_ip(conversation.external.address).gateway or peer.address).packed, stale)
        if name is None:
            return
        self._note(conversation, flags, "server")
        mac = bytes.fromhex(self.switches[name].ports[1].mac.replace(":", ""))
        frame = packets.tcp_segment(mac, self.server_mac(server.address.packed), server.address.packed, server.port,
                                    peer.address.packed, peer.port, flags=flags | ACK,
                                    seq=conversation.number, ack=conversation.number,
                                    payload=self._payload(conversation, False, flags))
        self.inject(name, self._closed(frame, "server" in conversation.fins), INTERNAL)

    def _payload(self, conversation: Conversation, inward: bool, flags: int) -> bytes:
        """Packets that open or reset are repeated by nobody here, and carry no number."""
        if flags & (SYN | RST):
            return b""
        self.data.append(Data(conversation, inward))
        return len(self.data).to_bytes(4)

    @staticmethod
    def _closed(frame: bytes, closed: bool) -> bytes:
        """Who has sent FIN sends no more payload: then the number follows the packet as Ethernet padding."""
        packet = packets.decode(frame)
        if not closed or not packet.payload_length:
            return frame
        bare = packets.tcp_segment(
            packet.eth_dst,
            packet.eth_src,
            packet.src,
            packet.src_port,
            packet.dst,
            packet.dst_port,
            flags=packet.tcp_flags,
            seq=packet.seq,
            ack=packet.ack,
        )
        return bare + frame[packet.payload_offset:]

    @staticmethod
    def _note(conversation: Conversation, flags: int, side: str) -> None:
        if flags & FIN:
            conversation.fins.add(side)
        if flags & RST:
            conversation.reset = True

    def _at_client(self, frame: bytes) -> None:
        packet = packets.decode(frame)
        if frame[:6] != ROUTER_MAC:
            self.violations.append(f"a frame for {IPv4Address(packet.dst)} went to {frame[:6].hex(':')}")
        if packet.protocol == 1:
            self._error(frame, "client")
        elif packet.protocol == UDP:
            self.datagrams.append(("client", frame))
        elif packet.tcp_flags & RST:
            self._reset(packet, "client")
        else:
            self._arrived(frame, packet, inward=False)

    def _at_server(self, frame: bytes) -> None:
        packet = packets.decode(frame)
        if packet.protocol == 1:
            self._error(frame, "server")
        elif frame[:6] != self.server_mac(packet.dst):
            self.violations.append(f"a frame for {IPv4Address(packet.dst)} went to {frame[:6].hex(':')}")
        elif packet.protocol == UDP:
            self.datagrams.append(("server", frame))
        elif packet.tcp_flags & RST:
            self._reset(packet, "server")
        elif packet.tcp_flags & SYN:
            self.accept(packet)
        else:
            self._arrived(frame, packet, inward=True)

    def accept(self, packet: packets.Packet) -> None:
        conversation = self._conversation(packet.seq, "a server got a SYN")
        if conversation is None:
            return
        server, peer = (
            Endpoint(IPv4Address(packet.dst), packet.dst_port),
            Endpoint(IPv4Address(packet.src), packet.src_port),
        )
        if conversation.server is None:
            self._meets_no_other(conversation, server, peer)
            conversation.server, conversation.peer = server, peer
        elif (conversation.server, conversation.peer) != (server, peer) and conversation.live:
            self.violations.append(
                f"connection {conversation.number} had {conversation.server} and {conversation.peer}, "
                f"now {server} and {peer}"
            )
        if not conversation.ended:
            self.from_server(conversation, SYN | ACK)

    def _meets_no_other(self, conversation: Conversation, server: Endpoint, peer: Endpoint) -> None:
        """A server tells connections apart by the peer's address and port."""
        for other in self.conversations:
            if other.live and (other.server, other.peer) == (server, peer) and other.client != conversation.client:
                self.violations.append(
                    f"{server} has connections {other.number} and {conversation.number} both with {peer}"
                )

    def _arrived(self, frame: bytes, packet: packets.Packet, inward: bool) -> None:
        start = packet.payload_offset
        if len(frame) != start + 4:
            return
        number = int.from_bytes(frame[start:start + 4])
        if not 0 < number <= len(self.data):
            self.violations.append(f"data {number} were sent by nobody")
            return
        data = self.data[number - 1]
        data.arrivals += 1
        conversation = data.conversation
        wanted = (conversation.peer, conversation.server) if inward else (conversation.external, conversation.client)
        found = (Endpoint(IPv4Address(packet.src), packet.src_port), Endpoint(IPv4Address(packet.dst), packet.dst_port))
        if (data.inward, wanted) != (inward, found) and conversation.live:
            self.violations.append(f"a packet of connection {conversation.number} came as {found}, not {wanted}")

    def _reset(self, packet: packets.Packet, at: str) -> None:
        """An error names the ack of the packet that it answers, or one more than the number of a SYN."""
        number = packet.ack - 1 if packet.tcp_flags & ACK and not packet.seq else packet.seq
        if not 0 < number <= len(self.conversations):
            return  # of a forged segment
        conversation = self.conversations[number - 1]
        if conversation.live:
            self.violations.append(f"the {at} of live connection {number} got a RST")

    def _error(self, frame: bytes, at: str) -> None:
        quoted = frame[14 + 20 + 8:]
        seq, ack, flags = int.from_bytes(quoted[24:28]), int.from_bytes(quoted[28:32]), quoted[33]
        conversation = self._conversation(ack if flags & ACK else seq, f"the {at} got an ICMP error")
        if conversation and conversation.live and conversation.external.address not in self.rolled_back.values():
            self.violations.append(f"the {at} of live connection {conversation.number} got an ICMP error")

    def _conversation(self, number: int, what: str) -> Conversation | None:
        """None for what belongs to no connection of a client: a switch may say anything (test_any_bytes)."""
        if 0 < number <= len(self.conversations):
            return self.conversations[number - 1]
        self.violations.append(f"{what} of connection {number}, which nobody has opened")
        return None

    # What must be so.

    def normal_lbs(self, address: IPv4Address, settled_only: bool = False) -> set[str]:
        """The LBs whose switch is in normal mode for that external IP."""
        found = set()
        for name, switch in self.switches.items():
            if settled_only and name in self.unsettled:
                continue
            for item in switch.tables["transfer_mode"].values():
                if ("ipv4_dst", str(address)) in item.flow.match and any(
                        getattr(action, "value", None) == 1 for action in item.flow.actions):
                    found.add(name)
        return found

    def check_now(self) -> None:
        """What holds at any moment."""
        assert not self.violations, self.violations
        for ip in self.site.external_ips:
            normal = self.normal_lbs(ip.address, settled_only=True)
            assert len(normal) <= 1, f"{ip.address} is normal at {sorted(normal)}"

    def check_settled(self) -> None:
        """What holds once everything is connected and delivered."""
        for serving in self.control.ground.external_ips:
            self._check_serving(serving)
        for name, switch in self.switches.items():
            held = {item.flow.identity: item.flow for item in switch.flows() if item.entry is None}
            ordered = {flow.identity: flow for flow in self.control.ground.switches[name].held.flows()}
            assert held == ordered, f"{name} does not hold what the controller thinks"
        assert self.stored == self.control.ground.state(), (
            "the state that would survive a restart is not the one of now"
        )

    def _check_serving(self, serving) -> None:
        address, home = serving.address, serving.assigned
        assert serving.move is None, f"the move of {address} never ended: {serving.move}"
        assert self.normal_lbs(address) == {home}, (
            f"{address}: normal at {self.normal_lbs(address)}, assigned to {home}"
        )
        assert self.answers_arp(address.packed, EXTERNAL) == {home}
        assert self.routes[address.packed] == home
        for inner in serving.config.internal_addresses():
            assert self.answers_arp(inner.packed, INTERNAL) == {home}
            assert self.routes[inner.packed] == home
        assert serving.holders == {home}, serving.holders
        for name, switch in self.switches.items():
            entries = switch.entries(address)
            if name != home:
                assert not entries, f"{name} still has {len(entries)} entries of {address}, which is at {home}"
                continue
            known = {entry.key for entry in serving.table.entries()}
            assert entries.keys() <= known, f"{name} has entries that the controller doesn't know"
        for conversation in self.conversations:
            if conversation.live and conversation.external.address == address:
                self._check_conversation(serving, conversation)

    def _check_conversation(self, serving, conversation: Conversation) -> None:
        """Both flows are there, unless a direction has seen FIN; and packets get through, both ways. (A half-closed
        one may need the client's next packet to learn its way back anew.)"""
        tables = self.switches[serving.assigned].entries().get(self.key(conversation), set())
        if not conversation.fins:
            assert tables == {"access_in", "access_out"}, f"connection {conversation.number} has flows in {tables}"
        for _ in range(2 if conversation.fins else 1):
            self.from_client(conversation)
            self.from_server(conversation)
            self.drain()
        for data in self.data[-2:]:
            assert data.arrivals == 1, f"connection {conversation.number} is dead, inward={data.inward}"
