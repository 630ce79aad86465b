"""All of the controller that needs a switch library: Ryu, or os-ken, its maintained fork.

Here OpenFlow is read from switches and written to them, options are declared, and green threads are made. It may use
`lbctl`, the library, eventlet, and the words of `ryu_apps.shell`; the two apps beside it (`ryu_apps/load_balancer.py`
and `ryu_apps/rest.py`) call it. It offers `names` (the names of the library), `datapath` (connections to switches),
`openflow` (messages as bytes), `threads` (green threads), `options` and `web` (where the REST API listens).

What lbctl asks of the library is this (`names.pyi` has each name with its type, and a test compares them):

- a manager that reads options from a file, loads apps by the paths of their files, and makes one object of each:
  `ryu-manager`; os-ken has none any more, so `ryu_apps/os_ken_manager.py` is that;
- `App`, and `lookup_service_brick` by which one app finds another;
- options: oslo.config, by `cfg`, with the library's own names (`ofp_tcp_listen_port`, `ctl_cert`...);
- a server that accepts OpenFlow connections, by TCP or TLS, and hands each to `controller.datapath_connection_factory`;
- `Datapath`: hello, features, the list of ports, echo requests and the end of a connection that does not answer them.
  Reading and writing the socket is lbctl's own (`datapath.py`);
- parsing of the messages that are seldom (hello, features, port status, port statistics, echo), and the three events
  `StateChange`, `PortStateChange` and `PortStatsReply`;
- classes that make the bytes of messages that are seldom: flow-mods of rules, statistics requests, meters, barriers
  (`parser` and `ofp`, OpenFlow 1.4 with Nicira's actions). Entries, packet-outs and packet-ins are lbctl's own;
- green threads, by `hub`: spawn, kill, sleep, Event; all of the standard library patched so that it never blocks the
  process (eventlet); a listening socket (`StreamServer`).

It is asked neither for its web server nor for its timers, queues, topology, or decoding of packets.
"""
