"""The names that lbctl uses of Ryu, or of os-ken, its maintained fork; names.pyi says what each of them is.

The environment variable LBCTL_SWITCH_LIBRARY chooses: ryu (which `ryu-manager` needs), or os_ken (which
`python -m ryu_apps.os_ken_manager` sets).
"""

from __future__ import annotations

import os

LIBRARY = os.environ.get("LBCTL_SWITCH_LIBRARY", "ryu")

if LIBRARY == "ryu":
    from ryu import cfg
    from ryu.base.app_manager import RyuApp as App
    from ryu.base.app_manager import lookup_service_brick
    from ryu.controller import controller
    from ryu.controller.controller import Datapath
    from ryu.controller.handler import DEAD_DISPATCHER, MAIN_DISPATCHER, set_ev_cls
    from ryu.controller.ofp_event import EventOFPPortStateChange as PortStateChange
    from ryu.controller.ofp_event import EventOFPPortStatsReply as PortStatsReply
    from ryu.controller.ofp_event import EventOFPStateChange as StateChange
    from ryu.controller.ofp_event import ofp_msg_to_ev
    from ryu.lib import hub
    from ryu.ofproto import ofproto_parser
    from ryu.ofproto import ofproto_v1_4 as ofp
    from ryu.ofproto import ofproto_v1_4_parser as parser
    from ryu.ofproto.ofproto_protocol import ProtocolDesc
elif LIBRARY == "os_ken":
    from os_ken import cfg
    from os_ken.base.app_manager import OSKenApp as App
    from os_ken.base.app_manager import lookup_service_brick
    from os_ken.controller import controller
    from os_ken.controller.controller import Datapath
    from os_ken.controller.handler import DEAD_DISPATCHER, MAIN_DISPATCHER, set_ev_cls
    from os_ken.controller.ofp_event import EventOFPPortStateChange as PortStateChange
    from os_ken.controller.ofp_event import EventOFPPortStatsReply as PortStatsReply
    from os_ken.controller.ofp_event import EventOFPStateChange as StateChange
    from os_ken.controller.ofp_event import ofp_msg_to_ev
    from os_ken.lib import hub
    from os_ken.ofproto import ofproto_parser
    from os_ken.ofproto import ofproto_v1_4 as ofp
    from os_ken.ofproto import ofproto_v1_4_parser as parser
    from os_ken.ofproto.ofproto_protocol import ProtocolDesc
else:
    raise SystemExit(f"lbctl: LBCTL_SWITCH_LIBRARY is {LIBRARY!r}; it must be ryu or os_ken")

__all__ = [
    "DEAD_DISPATCHER", "LIBRARY", "MAIN_DISPATCHER", "App", "Datapath", "PortStateChange", "PortStatsReply",
    "ProtocolDesc", "StateChange", "cfg", "controller", "hub", "lookup_service_brick", "ofp", "ofp_msg_to_ev",
    "ofproto_parser", "parser", "set_ev_cls",
]
