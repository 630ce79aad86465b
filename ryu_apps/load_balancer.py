"""The app that serves the site: the switch library's events go to the shell's `Events`, in the core's words."""

from __future__ import annotations

from collections.abc import Sequence

from lbctl.api.orders import Orders
from lbctl.copies.client import KeeperError
from lbctl.site.file import ConfigError
from lbctl.store import StoreError
from lbctl.switches.switch import PortState
from ryu_apps.library.datapath import LeanDatapath, install
from ryu_apps.library.names import (
    DEAD_DISPATCHER,
    MAIN_DISPATCHER,
    App,
    Datapath,
    PortStateChange,
    PortStatsReply,
    StateChange,
    ofp,
    set_ev_cls,
)
from ryu_apps.library.openflow import encode
from ryu_apps.library.options import CONF, config_path
from ryu_apps.library.threads import GreenThreads
from ryu_apps.shell import runs
from ryu_apps.shell.controller import Controller
from ryu_apps.shell.unusable import unusable


class LoadBalancerApp(App):
    """Holds the controller. `orders` is what the REST app calls."""

    OFP_VERSIONS = [ofp.OFP_VERSION]

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        if not CONF.lbctl.site:
            raise unusable("the configuration file has no `site = PATH` in its section [lbctl]")
        site_file, state_file = config_path(CONF.lbctl.site), config_path(CONF.lbctl.state_file)
        try:
            controller = Controller(site_file, state_file, encode, GreenThreads())
        except (ConfigError, StoreError, KeeperError) as error:
            raise unusable(str(error)) from error
        controller.begin(runs.begin(state_file.with_name(f"{state_file.name}.runs")))
        self._events = controller.events
        self.orders: Orders = controller.orders
        install(self._events.message)
        controller.start()

    @set_ev_cls(StateChange, [MAIN_DISPATCHER, DEAD_DISPATCHER])
    def _on_state(self, event: StateChange) -> None:
        datapath = _lean(event.datapath)
        if event.state == DEAD_DISPATCHER:
            self._events.lost(datapath)
        else:
            self._events.connected(datapath, datapath.id, datapath.address[0], _ports(datapath))

    @set_ev_cls(PortStateChange, MAIN_DISPATCHER)
    def _on_ports(self, event: PortStateChange) -> None:
        self._events.ports_changed(_lean(event.datapath), _ports(event.datapath))

    @set_ev_cls(PortStatsReply, MAIN_DISPATCHER)
    def _on_port_stats(self, event: PortStatsReply) -> None:
        received = {port.port_no: port.rx_packets for port in event.msg.body}
        self._events.ports_read(_lean(event.msg.datapath), event.msg.xid, received)


def _lean(datapath: Datapath) -> LeanDatapath:
    assert isinstance(datapath, LeanDatapath), "install() has said how switches are connected"
    return datapath


def _ports(datapath: Datapath) -> Sequence[PortState]:
    return [
        PortState(port.name.decode(errors="replace"), port.port_no, port.hw_addr,
                  not port.config & ofp.OFPPC_PORT_DOWN and not port.state & ofp.OFPPS_LINK_DOWN)
        for port in datapath.ports.values()
    ]
