"""Why packets are dropped: every reason, once. docs/drops.md is made of this; `lbctl doctor` and `lbctl where` tell it.

A reason is counted as `dropped_REASON`, of an LB (`lbctl_dropped_packets_total`) or of the controller
(`lbctl_controller_events_total`). A unit test holds that what the code counts is here, and the other way round.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Place = Literal["switch", "limit", "controller", "records"]
"""Who drops: a flow; a meter, because there were too many; the controller; the file of NAT records, which holds no
packets."""


class Drop(NamedTuple):
    """what: "a packet that ...". mend: what an operator can do; None: nothing, it is right so."""

    where: Place
    what: str
    mend: str | None = None

    @property
    def subject(self) -> str:
        """What is dropped."""
        return f"a {'record of NAT' if self.where == 'records' else 'packet'} that {self.what}"


_FLOOD = "is that a flood, or is the limit too low for this site? `lbctl status --watch` shows who carries how much"

DROPS: dict[str, Drop] = {
    # By flows; lbctl.openflow.cookies has a kind for each.
    "vlan": Drop("switch", "has a tag of a VLAN", "the LB's ports must be given untagged frames: ovs-vsctl set port "
                 "PORT tag=VLAN, or a VLAN device as the port"),
    "not_ours": Drop("switch", "is neither ARP nor IP for this LB's own MAC: what a learning switch floods, and what "
                     "everybody is sent"),
    "arp_not_ours": Drop("switch", "asks or tells (ARP, neighbour discovery) what is not this LB's business"),
    "no_external_ip": Drop("switch", "is for no external IP, and not from inside",
                           "does a router send it here by mistake? `tcpdump -ni PORT`"),
    "syn_and_fin": Drop("switch", "has SYN and FIN at once, as no sane host sends it"),
    "reset_of_nothing": Drop("switch", "is a RST of no connection here: a RST is never answered"),
    "icmp_of_nothing": Drop("switch", "is ICMP, but neither a ping nor an error about a connection"),
    "entry_gone": Drop("switch", "lost its entry between the controller and its switch; its sender repeats it"),
    "server_mac_unknown": Drop("switch", "is for a server whose MAC is not known",
                               "`lbctl server list` shows who does not answer ARP; is that server up, and on the "
                               "internal network?"),
    "fenced": Drop("switch", "asks for the MAC of an external IP that another LB has taken over: this one could not be "
                   "told so otherwise (docs/failover.md)", "mend its connection to the controller"),
    "wrong_side": Drop("switch", "has come in by the wrong side: nobody there has its source address",
                       "a host with a wrong address, or somebody forges; `wrong_side: pass` lets them in"),
    "client_mac_unknown": Drop("switch", "is a sliced service's answer to a client whose MAC is not known "
                               "(docs/slices.md)", "name the clients' `router` in the site file"),
    # By meters; lbctl.openflow.meters has their numbers.
    "over_new_rate": Drop("limit", "opens a connection, beyond `new_rate`", _FLOOD),
    "over_closed_rate": Drop("limit", "opens a connection to a port that nobody serves, beyond `error_rate`: it is not "
                             "answered"),
    "over_fragment_rate": Drop("limit", "is a fragment, or is to be cut into some, beyond `fragment_rate`",
                               "a larger fragment_rate; or let the senders' path MTU discovery work (docs/icmp.md)"),
    "over_hop_rate": Drop("limit", "is the controller's copy of one that came from another MAC than before: it is "
                          "delivered"),
    "over_error_rate": Drop("limit", "has no entry, beyond `error_rate`: it is not answered, or not put back", _FLOOD),
    "over_pass_on_rate": Drop("limit", "is for another LB's external IP, from a client inside, beyond `error_rate`: it "
                              "is not passed on", "keep external IPs that call each other much on one LB "
                              "(docs/field.md)"),
    "over_query_rate": Drop("limit", "is a multicast listener query, of more than 20 a second: it is not answered",
                            "who asks so often? `tcpdump -ni PORT icmp6`"),
    "over_hold_rate": Drop("limit", "was to be held while its external IP moves, beyond `hold_rate`",
                           "a larger hold_rate; `precopy`, which holds less"),
    "over_arp_rate": Drop("limit", "tells a server's MAC, beyond `arp_rate`",
                          "a larger arp_rate; or does somebody send ARP in masses? `tcpdump -ni PORT arp`"),
    "over_reset_rate": Drop("limit", "is the controller's copy of a RST, beyond `new_rate`: the RST itself is "
                            "delivered, its entry stays until it is idle"),
    "over_icmp_rate": Drop("limit", "is ICMP to be translated, beyond `icmp_rate`", "a larger icmp_rate"),
    "over_probe_rate": Drop("limit", "answers an LB's probe, beyond what all LBs ask for", "are there two LBs with one "
                            "dpid, or two controllers? `lbctl doctor` on each LB's host"),
    "over_check_rate": Drop("limit", "answers a health check, beyond what is asked for", "`lbctl server list`; does a "
                            "server send from its service's port to the ports 512 to 1023?"),
    "over_other_rate": Drop("limit", "is more than a meter lets through that this release does not name"),
    # By the controller.
    "undecodable": Drop("controller", "came in an OpenFlow message that is cut off", "another program on the bridge's "
                        "connection to the controller? `ovs-vsctl get-controller BRIDGE`"),
    "malformed": Drop("controller", "is cut off, or says that it is longer than it is", "who sends it? "
                      "`tcpdump -ni PORT`; broken offloads on the way: `lbctl doctor` on the LB's host"),
    "unknown_flow": Drop("controller", "came by a flow of no kind that this release knows; others' flows are not "
                         "touched", "remove flows of other controllers from the bridge"),
    "not_ready": Drop("controller", "came while its LB was being read back, after a connect; its sender repeats it"),
    "unknown_address": Drop("controller", "is for no external IP: the datapath remembered a flow that is gone"),
    "unknown_protocol": Drop("controller", "opens something that has no ports"),
    "no_error_allowed": Drop("controller", "may not be answered with an error (RFC 1122 3.2.2): a RST, an ICMP error, "
                             "a broadcast"),
    "no_normal_lb": Drop("controller", "is for an external IP that no LB serves at the moment",
                         "`lbctl status`; `lbctl moves`"),
    "held_full": Drop("controller", "was to be held while its external IP moves, beyond `held_packets` or `held_bytes`",
                      "larger ones; `precopy`, which holds less"),
    "held_given_up": Drop("controller", "was held for an LB that went away meanwhile", "`lbctl moves` says which"),
    "source_not_inside": Drop("controller", "opens a connection by the internal port, and its source is none of the "
                              "internal networks', NAT gateways' hosts' or servers'", "is `internal_network` in the "
                              "site file right?"),
    "server_unresolved": Drop("controller", "opens a connection to a service whose servers' MACs are not known",
                              "`lbctl server list` shows who does not answer ARP; are the servers up, and on the "
                              "internal network?"),
    "router_unresolved": Drop("controller", "is an inside host's, and the NAT gateway's router has not told its MAC",
                              "is `router` in the site file right, and up?"),
    "next_hop_unknown": Drop("controller", "is for somebody whose MAC no copy of the entry tells, and a packet from "
                             "there will"),
    "mapping_full": Drop("controller", "comes in first to an inside host's mapped port that has 1 000 entries",
                         "`filtering: address-dependent` lets in whom the inside host has asked (docs/nat.md)"),
    "echo_exhausted": Drop("controller", "is an inside host's ping, and 16 384 others are under way"),
    "ttl_expired": Drop("controller", "has a TTL that ends here, and no entry: nobody can be told"),
    "larger_than_link": Drop("controller", "is larger than the network or tunnel takes that it goes to, and has no "
                             "entry any more, or is a fragment that may not be cut"),
    "fragments_incomplete": Drop("controller", "is a fragment, and the first one of its datagram has not come"),
    "fragments_too_many": Drop("controller", "is a fragment, and too many others wait for the first ones of their "
                               "datagrams", _FLOOD),
    "half_open_full": Drop("controller", "opens a connection, and there are `max_half_open` half-open ones",
                           "is that a flood? docs/field.md"),
    "entries_full": Drop("controller", "opens a connection, and there are `max_entries`", "is that a flood, or are so "
                         "many right here? docs/field.md"),
    "icmp_quotes_no_connection": Drop("controller", "is an ICMP error about no connection here"),
    "icmp_not_assigned": Drop("controller", "is ICMP of an external IP that its LB does not serve"),
    "icmp_no_echo": Drop("controller", "is an answer to a ping that nobody inside has sent"),
    "send_queue_full": Drop("controller", "was to be sent by a switch that takes no more for now (a message, that is: "
                            "it may have been an answer)", "is ovs-vswitchd overloaded? `top`; docs/performance.md"),
    # Records.
    "nat_record_queue_full": Drop("records", "finds 100 000 others waiting for the disk",
                                  "a faster disk for `nat_log`"),
    "nat_record_not_written": Drop("records", "cannot be written", "the controller's log says why: is "
                                   "the disk full, the directory there?"),
}
