"""What all parts of the control function share: the site in force, the switches, the external IPs, the tokens, the log,
and what must survive a restart. Nothing is decided here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from ipaddress import ip_address

from lbctl.ground.effects import Outbox, Save, to_switch
from lbctl.ground.resyncs import Resyncs
from lbctl.ground.serving import Directory, Serving
from lbctl.ground.tokens import Tokens
from lbctl.openflow.flow import Flow
from lbctl.openflow.meters import meters
from lbctl.openflow.probe_rules import Watched, fence_code
from lbctl.openflow.rules import SERVING
from lbctl.openflow.slice_rules import slice_flows
from lbctl.openflow.source_rules import Internal
from lbctl.site.model import ExternalIp, Keeper, LoadBalancer, Settings, Site
from lbctl.site.orders import InForce
from lbctl.store import State
from lbctl.switches.client_hops import ClientHops
from lbctl.switches.hops import Hops
from lbctl.switches.switch import Limits, Switch
from lbctl.values.addresses import Address
from lbctl.values.log import Log
from lbctl.values.portions import portions
from lbctl.values.side import EXTERNAL, INTERNAL, Side

METERS = 500
"""Ordered at once."""

Piece = Callable[[State], State]
"""Adds to a State what one part wants to survive a restart."""


class Ground:
    """`in_force` is changed by lbctl/changes/ alone; whoever needs a setting reads it here when it is needed."""

    def __init__(self, in_force: InForce, fence_code: str, fences: Mapping[str, int], now: float, log: Log) -> None:
        """fence_code: the site's secret, and fences: how many codes of each LB have been used, see
        openflow/probe_rules.py. `log(event, level=..., **keys)` is told what a person might want to know."""
        self.in_force = in_force
        self.fence_code = fence_code
        self.fences = Counter(fences)
        self.log = log
        self.seed = int(now)
        """Where translated ports and health checks' sequence numbers start; another one in each run."""
        self.switches: dict[str, Switch] = {}
        """By the name of the LB."""
        self.external_ips = Directory()
        self.hops = Hops()
        self.client_hops = ClientHops()
        self.astray: set[Address] = set()
        """External IPs whose packets have come to another LB lately: not all neighbours know who has them."""
        self.tokens = Tokens()
        self.resyncs = Resyncs(self.configs, lambda: self.external_ips.by_address)
        self.applying = False
        """Is another site file being made the one in force?"""
        self.counters: Counter[str] = Counter()
        """Of what concerns no single LB."""
        self.crashes = 0
        """How many controllers in a row had ended soon after their starts before this one: see store/runs.py."""
        self._pieces: list[Piece] = []

    @property
    def site(self) -> Site:
        """The site file, with what has been ordered for its services."""
        return self.in_force.site

    @property
    def settings(self) -> Settings:
        return self.site.settings

    def configs(self) -> list[ExternalIp]:
        """Every external IP as its LBs' flows are made from it: with its former servers and internal IPs."""
        return [serving.config for serving in self.external_ips]

    def new_serving(self, external_ip: ExternalIp, assigned: str) -> Serving:
        """An external IP that goes to work at that LB."""
        self.switches[assigned].expect(external_ip.address, SERVING)
        return Serving(external_ip, assigned, self.settings, self.seed, self.in_force.drained(external_ip))

    # Switches.

    def new_switch(self, lb: LoadBalancer) -> Switch:
        """The switch of an LB that has not connected yet."""
        return Switch(lb, self._watched(lb), self.limits(), self._alike, self._internal)

    def _watched(self, lb: LoadBalancer) -> Watched | None:
        """None: there is no secret."""
        if not self.fence_code:
            return None
        identity = (lb.dpid & 0xFFFFFFFFFFFF).to_bytes(6).hex(":")
        return Watched(identity, fence_code(self.fence_code, identity, self.fences[lb.name]))

    def fence_used(self, switch: Switch) -> Outbox:
        """That LB has been fenced, which others may have seen: it gets another code, with all else that it misses."""
        self.fences[switch.lb.name] += 1
        switch.watched = self._watched(switch.lb)
        return [self.save()]

    def limits(self) -> Limits:
        """Of the external and the internal network, see Settings.limit."""
        return self.settings.limit(EXTERNAL), self.settings.limit(INTERNAL)

    def limit(self, serving: Serving, side: Side, destination: bytes) -> int | None:
        """Bytes that a packet of that external IP may have that goes to `destination` (packed) by that side of its
        entry. EXTERNAL is a client's, who may be inside. None: all that come."""
        if side is EXTERNAL and self.is_inside(destination):
            return self.settings.limit(INTERNAL)
        return serving.limit(side, destination)

    def _internal(self) -> Internal:
        return Internal(tuple(self.site.internal_networks), self.settings.wrong_side == "pass")

    def ready(self) -> list[Switch]:
        """The switches that are connected and have been read back."""
        return [switch for switch in self.switches.values() if switch.ready]

    @property
    def settled(self) -> bool:
        """Have the switches been sent all that the site in force wants of them?"""
        return not self.applying and not self.resyncs.hurried

    def let_pass(self, side: Side, mac: bytes) -> Outbox:
        """From that MAC (packed) come packets of an entry that answers there."""
        return self.change_alike(*self.hops.add(side, mac))

    def change_alike(self, come: Collection[Flow], gone: Collection[Flow] = ()) -> Outbox:
        """What all LBs hold is another."""
        return [effect for name, switch in self.switches.items() if come or gone
                for effect in to_switch(name, switch.alike_changed(come, gone))]

    def renew(self, flows: Collection[Flow]) -> Outbox:
        """What all LBs hold for some time only, once more."""
        return [effect for name, switch in self.switches.items() if flows
                for effect in to_switch(name, switch.renew(flows))]

    def _alike(self) -> Iterator[list[Flow]]:
        yield list(self.hops.flows())
        yield self.client_hops.flows()
        for serving in self.external_ips.by_address.values():
            yield [flow for place in serving.slices for flow in slice_flows(serving.sliced(place))]

    def meters(self, name: str) -> Iterator[Outbox]:
        """The rates at which that LB's switch may send packets to the controller, some at a time."""
        for some in portions(meters(self.settings, len(self.switches), list(self.external_ips.by_owner)), METERS):
            yield to_switch(name, some)

    # The site.

    def behind_router(self, address: bytes) -> bool:
        """Do that client's (packed) packets come by a router: is it neither on the external network nor inside?"""
        client = ip_address(address)
        near = any(client in network for network in self.site.external_networks)
        return not near and not self.is_inside(address)

    def is_inside(self, address: bytes) -> bool:
        """Is that host (packed) inside: on the internal network, behind a NAT gateway, or a server?"""
        host = ip_address(address)
        return any(host in network for network in self.site.internal_networks) or self.external_ips.is_inside(address)

    def keeper_of(self, server: Address) -> Keeper | None:
        """Who keeps the copy of that server's entries."""
        return next((keeper for keeper in self.site.keepers.each if keeper.server == server), None)

    # What must survive a restart.

    def survives(self, piece: Piece) -> None:
        """From now on `piece` adds to what is saved."""
        self._pieces.append(piece)

    def state(self) -> State:
        """What must survive a restart, as it is now."""
        fences = {name: used for name, used in self.fences.items() if name in self.switches and used}
        state = State(fence_code=self.fence_code, fences=fences, orders=self.in_force.orders)
        for piece in self._pieces:
            state = piece(state)
        return state

    def save(self, token: int | None = None) -> Save:
        """Keep that across a restart, and confirm it by the token."""
        return Save(self.state, token)
