# All that lbctl asks of Ryu or os-ken, with types, which neither of them has. A test compares it with the library.

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from socket import socket as Socket
from typing import Any, Protocol, TypeVar

_F = TypeVar("_F", bound=Callable[..., object])
_Handler = Callable[[object], object]

LIBRARY: str

# Applications, and the events that they are told.

class App:
    def __init__(self, *args: object, **kwargs: object) -> None: ...
    def start(self) -> None: ...

class _Brick(Protocol):
    # The app that is the source of OpenFlow events.
    def send_event_to_observers(self, event: object, state: str) -> None: ...
    def get_handlers(self, event: object) -> Iterable[Any]: ...

def lookup_service_brick(name: str) -> App | None: ...

DEAD_DISPATCHER: str
MAIN_DISPATCHER: str

def set_ev_cls(event: type, states: str | Sequence[str]) -> Callable[[_F], _F]: ...

class StateChange:
    # A switch has shaken hands, or is gone.
    datapath: Datapath
    state: str

class PortStateChange:
    # A port of the switch has come, gone, or changed; `datapath.ports` is the new state.
    datapath: Datapath

class _PortCounters(Protocol):
    port_no: int
    rx_packets: int

class _PortStats(Protocol):
    datapath: Datapath
    xid: int
    body: Sequence[_PortCounters]

class PortStatsReply:
    msg: _PortStats

def ofp_msg_to_ev(message: object) -> object: ...

# Connections to switches: the handshake, echo requests, ports.

class _Port(Protocol):
    port_no: int
    name: bytes
    hw_addr: str
    config: int
    state: int

class ProtocolDesc:
    def __init__(self, version: int) -> None: ...

class Datapath(ProtocolDesc):
    socket: Socket
    address: tuple[str, int]
    state: str
    id: int
    ports: Mapping[int, _Port]
    ofp_brick: _Brick | None
    send_q: object
    unreplied_echo_requests: list[int]
    def __init__(self, socket: Socket, address: tuple[str, int]) -> None: ...
    def serve(self) -> None: ...
    def close(self) -> None: ...
    def _close_write(self) -> None: ...
    # What lbctl has its own of.
    def send(self, buf: bytes | bytearray, close_socket: bool = False) -> bool: ...
    def _send_loop(self) -> None: ...
    def _recv_loop(self) -> None: ...

class _Controller(Protocol):
    datapath_connection_factory: Callable[[Socket, tuple[str, int]], None]

controller: _Controller

class _MessageParser(Protocol):
    def msg(self, datapath: Datapath, version: int, kind: int, length: int, xid: int, message: bytearray) -> object: ...

ofproto_parser: _MessageParser

# Green threads.

class _Event(Protocol):
    def is_set(self) -> bool: ...
    def set(self) -> None: ...
    def clear(self) -> None: ...
    def wait(self, timeout: float | None = None) -> bool: ...

class _Listener(Protocol):
    server: Socket

class _Hub(Protocol):
    def patch(self, thread: bool = True) -> None: ...
    def spawn(self, function: Callable[..., object], *args: object) -> object: ...
    def kill(self, thread: Any) -> None: ...
    def sleep(self, seconds: float = 0) -> None: ...
    def Event(self) -> _Event: ...
    def StreamServer(self, address: tuple[str, int]) -> _Listener: ...

hub: _Hub

# Options.

class _Section(Protocol):
    site: str | None
    state_file: str
    token_file: str | None

class _Options(Protocol):
    config_file: Sequence[str]
    lbctl: _Section
    wsapi_host: str
    wsapi_port: int
    def __iter__(self) -> Iterator[str]: ...
    def __contains__(self, name: str) -> bool: ...
    def register_opts(self, options: Iterable[object], group: str | None = None) -> None: ...
    def register_cli_opts(self, options: Iterable[object]) -> None: ...
    def set_default(self, name: str, default: object) -> None: ...

class _Cfg(Protocol):
    CONF: _Options
    def StrOpt(self, name: str, default: str | None = None, help: str | None = None) -> object: ...
    def IntOpt(self, name: str, default: int | None = None, help: str | None = None) -> object: ...

cfg: _Cfg

# OpenFlow 1.4, for all messages that are not hot.

class _Constants(Protocol):
    OFP_VERSION: int
    OFPFC_DELETE: int
    OFPP_ANY: int
    OFPM_ALL: int
    OFPG_ANY: int
    OFPPC_PORT_DOWN: int
    OFPPS_LINK_DOWN: int
    OFPMF_PKTPS: int
    OFPMF_BURST: int
    OFPMF_STATS: int
    OFPMC_ADD: int
    OFPMC_MODIFY: int
    OFPRR_IDLE_TIMEOUT: int
    OFPRR_HARD_TIMEOUT: int
    OFPACPT_FLOW_REMOVED_MASTER: int

ofp: _Constants

class SeldomMessage(Protocol):
    buf: bytes | bytearray
    def set_xid(self, xid: int) -> None: ...
    def serialize(self) -> None: ...

class _Parser(Protocol):
    def OFPFlowMod(
        self, datapath: ProtocolDesc, cookie: int, cookie_mask: int, table_id: int, command: int, *, out_port: int,
        out_group: int,
    ) -> SeldomMessage: ...
    def OFPBarrierRequest(self, datapath: ProtocolDesc) -> SeldomMessage: ...
    def OFPFlowStatsRequest(
        self, datapath: ProtocolDesc, flags: int, table_id: int, out_port: int, out_group: int, cookie: int,
        cookie_mask: int,
    ) -> SeldomMessage: ...
    def OFPMeterStatsRequest(self, datapath: ProtocolDesc, flags: int, meter_id: int) -> SeldomMessage: ...
    def OFPPortStatsRequest(self, datapath: ProtocolDesc, flags: int, port_no: int) -> SeldomMessage: ...
    def OFPMeterBandDrop(self, *, rate: int, burst_size: int) -> object: ...
    def OFPMeterMod(
        self, datapath: ProtocolDesc, command: int, flags: int, meter_id: int, bands: Sequence[object]
    ) -> SeldomMessage: ...
    def OFPAsyncConfigPropReasons(self, type_: int, length: int, mask: int) -> object: ...
    def OFPSetAsync(self, datapath: ProtocolDesc, properties: Sequence[object]) -> SeldomMessage: ...

parser: _Parser
