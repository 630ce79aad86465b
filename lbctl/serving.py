"""What the control function keeps for each external IP, and finds it by: its address, or one of its servers'."""

from __future__ import annotations

from ipaddress import IPv4Address

from lbctl.access_table import AccessTable
from lbctl.held import HeldPackets
from lbctl.model import ExternalIp, Service, Settings
from lbctl.move import Move
from lbctl.schedulers import Scheduler, scheduler_for


class Serving:
    """One external IP at work."""

    def __init__(self, config: ExternalIp, assigned: str, settings: Settings) -> None:
        self.config = config
        self.assigned = assigned
        self.table = AccessTable()
        self.holders: set[str] = {assigned}
        """The LBs that are given its entries: one, or two while it moves."""
        self.unread: set[str] = {assigned}
        """The LBs whose entries are still to be taken over from an earlier controller."""
        self.move: Move | None = None
        self.held = HeldPackets(settings)
        self.services: dict[tuple[int, int], Service] = {}
        self.schedulers: dict[tuple[int, int], Scheduler] = {}
        self._set_services(config)

    @property
    def address(self) -> IPv4Address:
        return self.config.address

    def reconfigure(self, config: ExternalIp) -> None:
        """Another site file: connections stay, new ones follow the new services."""
        self.config = config
        self._set_services(config)

    def _set_services(self, config: ExternalIp) -> None:
        """A scheduler goes on where it was if its service has not changed."""
        before = self.services
        self.services = {(service.protocol_number, service.port): service for service in config.services}
        self.schedulers = {place: self.schedulers[place] if before.get(place) == service else scheduler_for(service)
                           for place, service in self.services.items()}


class Directory:
    """Every external IP, by its packed address and by its servers' packed addresses."""

    def __init__(self) -> None:
        self.by_address: dict[bytes, Serving] = {}
        self.by_server: dict[bytes, Serving] = {}

    def __iter__(self):
        return iter(self.by_address.values())

    def get(self, address: IPv4Address) -> Serving | None:
        return self.by_address.get(address.packed)

    def replace(self, servings: list[Serving]) -> None:
        self.by_address = {serving.address.packed: serving for serving in servings}
        self.by_server = {server.packed: serving for serving in servings
                          for server in serving.config.server_addresses()}

    def of_packet(self, src: bytes, dst: bytes, inward: bool) -> Serving | None:
        return self.by_address.get(dst) if inward else self.by_server.get(src)
