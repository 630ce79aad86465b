"""Prometheus metrics, made of what is shown of the control function when they are asked for: nothing is counted twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST as CONTENT_TYPE
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from lbctl import __version__
from lbctl.api import views
from lbctl.api.shown import Pause, Shown
from lbctl.values.owners import owner_of

__all__ = ["CONTENT_TYPE", "collected", "exposition"]


def collected(shown: Shown, now: float, pause: Pause) -> list[Metric]:
    """All of them, with their samples. pause: is called now and then, and may let others run."""
    return list(_Metrics(shown, now, pause).collect())


def exposition(metrics: list[Metric]) -> bytes:
    """In the text format of Prometheus: 40 000 samples, of 1 000 external IPs with 10 servers, take 200 ms."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(metrics))
    return generate_latest(registry)


class _Collected(Collector):
    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


class _Metrics:
    def __init__(self, shown: Shown, now: float, pause: Pause) -> None:
        self._shown, self._now, self._pause = shown, now, pause

    def collect(self) -> Iterable[Metric]:
        yield InfoMetricFamily("lbctl_build", "The running release.", {"version": __version__})
        yield self._events()
        yield GaugeMetricFamily("lbctl_controller_cut_off", "1 if the controller has lost most load balancers at once.",
                                float(self._shown.cut_off_since is not None))
        yield from self._load_balancers()
        yield from self._external_ips()
        yield from self._servers()
        yield self._checks()
        yield from self._moves()
        yield from self._keepers()

    def _events(self) -> Metric:
        events = CounterMetricFamily("lbctl_controller_events", "What is counted for no load balancer.",
                                     labels=["event"])
        for event, count in self._shown.counters().items():
            events.add_metric([event], count)
        return events

    def _load_balancers(self) -> Iterator[Metric]:
        ready = GaugeMetricFamily("lbctl_load_balancer_ready", "1 if the load balancer does its work.",
                                  labels=["dp_name"])
        well = GaugeMetricFamily("lbctl_load_balancer_well", "1 if its data path answers probes on both networks.",
                                 labels=["dp_name"])
        up = GaugeMetricFamily("lbctl_port_up", "1 if the port is there and up.", labels=["dp_name", "port"])
        packet_ins = CounterMetricFamily("lbctl_packet_ins", "Packets that the switch sent to the controller.",
                                         labels=["dp_name"])
        dropped = CounterMetricFamily(
            "lbctl_dropped_packets", "Packets that the switch or the controller dropped: docs/drops.md.",
            labels=["dp_name", "reason"])
        events = CounterMetricFamily("lbctl_events", "Whatever else is counted for a load balancer.",
                                     labels=["dp_name", "event"])
        for lb in self._shown.each_load_balancer(self._pause):
            switch = self._shown.switch(lb)
            ready.add_metric([lb.name], float(switch.condition == "ready"))
            well.add_metric([lb.name], float(self._shown.health(lb)[0] == "well"))
            for side, port in switch.ports.items():
                up.add_metric([lb.name, side], float(port.up))
            counters = views.counters(switch.counters)
            packet_ins.add_metric([lb.name], counters.packet_ins)
            for reason, count in counters.dropped.items():
                dropped.add_metric([lb.name, reason], count)
            for event, count in counters.other.items():
                events.add_metric([lb.name, event], count)
        yield from (ready, well, up, packet_ins, dropped, events)

    def _external_ips(self) -> Iterator[Metric]:
        labels = ["dp_name", "external_ip"]
        connections = GaugeMetricFamily("lbctl_connections", "Entries of the access table; of sliced services "
                                        "what keepers count, or no sample.", labels=labels)
        unresolved = GaugeMetricFamily(
            "lbctl_unresolved_servers", "Next hops and routers that have not answered, or do not any more.",
            labels=labels)
        half_open = GaugeMetricFamily(
            "lbctl_half_open_connections", "Entries of which nothing but the SYN has been seen of the client.",
            labels=labels)
        limit = GaugeMetricFamily(
            "lbctl_new_rate_limit", "Connection requests a second that are passed on, where more come than can be "
            "served.", labels=labels)
        for ip in self._shown.each_external_ip(self._pause):
            where = self._shown.assigned_to(ip.address)
            if (count := self._shown.connection_count(ip.address)) is not None:
                connections.add_metric([where, str(ip.address)], count)
            half_open.add_metric([where, str(ip.address)], self._shown.half_open_count(ip.address))
            if (rate := self._shown.new_rate_limit(ip.address)) is not None:
                limit.add_metric([where, str(ip.address)], rate)
            hops = {hop.address for hop in ip.hops().values()} | ({ip.router} if ip.router else set())
            unknown = sum(self._shown.mac_of(ip.address, hop) is None for hop in hops)
            unresolved.add_metric([where, str(ip.address)], unknown)
        yield from (connections, half_open, limit, unresolved)
        yield from self._carried(labels)

    def _servers(self) -> Iterator[Metric]:
        labels = ["external_ip", "service", "server"]
        up = GaugeMetricFamily("lbctl_server_up", "1 unless health checks say that the server is down.", labels=labels)
        taking = GaugeMetricFamily("lbctl_server_takes_connections",
                                   "1 if it gets new connections: it is not down (or all are), drained or full.",
                                   labels=labels)
        connections = GaugeMetricFamily("lbctl_server_connections", "Entries that go to it.", labels=labels)
        slices = GaugeMetricFamily("lbctl_server_slices", "How many slices of a sliced service's clients it has.",
                                   labels=labels)
        limit = GaugeMetricFamily("lbctl_server_max_connections", "How many it may have, if that is limited.",
                                  labels=labels)
        opened = GaugeMetricFamily(
            "lbctl_service_fails_open", "1 if it takes new connections though its health checks say no.",
            labels=["external_ip", "service"])
        for ip in self._shown.each_external_ip(self._pause):
            for service in ip.services:
                shares = self._shown.shares(ip, service)
                opened.add_metric([str(ip.address), f"{service.protocol}/{service.port}"],
                                  float(self._shown.fails_open(ip, service) is not None))
                for server in service.servers:
                    state = self._shown.server_state(ip, service, server)
                    which = [str(ip.address), f"{service.protocol}/{service.port}", str(server.endpoint)]
                    up.add_metric(which, float(state.reason is None))
                    taking.add_metric(which, float(state.takes))
                    if share := shares.get(server.endpoint):
                        slices.add_metric(which, share.slices)
                    if (count := self._shown.connections_of(ip, service, server)) is not None:
                        connections.add_metric(which, count)
                    if server.max_connections is not None:
                        limit.add_metric(which, server.max_connections)
        yield from (up, taking, connections, slices, limit, opened)

    def _checks(self) -> Metric:
        checks = CounterMetricFamily("lbctl_health_checks", "Health checks of servers, by result.", labels=["result"])
        for result, count in self._shown.check_results().items():
            checks.add_metric([result], count)
        return checks

    def _carried(self, labels: list[str]) -> Iterator[Metric]:
        families = {what: CounterMetricFamily(f"lbctl_external_ip_{what}",
                                              f"{what.capitalize()} of an external IP, both ways.", labels=labels)
                    for what in ("packets", "bytes")}
        addresses = {owner_of(ip.address.packed): str(ip.address) for ip in self._shown.site.external_ips}
        for (lb, owner, what), count in list(self._shown.carried().items()):
            if owner in addresses:
                families[what].add_metric([lb, addresses[owner]], count)
            self._pause()
        yield from families.values()

    def _moves(self) -> Iterator[Metric]:
        records = self._shown.moves()
        moves = GaugeMetricFamily("lbctl_moves", "Moves on record, by state.", labels=["state"])
        for state in ("running", "done", "rolled-back", "aborted"):
            moves.add_metric([state], sum(record.state == state for record in records))
        packets = GaugeMetricFamily("lbctl_move_packets", "Packets of the moves on record, by what became of them.",
                                    labels=["fate"])
        for fate in ("held", "released", "lost"):
            packets.add_metric([fate], sum(getattr(record, f"packets_{fate}") for record in records))
        yield from (moves, packets)

    def _keepers(self) -> Iterator[Metric]:
        lag = GaugeMetricFamily("lbctl_keeper_lag_seconds", "How long the keeper's copy has lacked changes.",
                                labels=["server"])
        synced = GaugeMetricFamily("lbctl_keeper_synced", "1 if the keeper has a full copy.", labels=["server"])
        events = CounterMetricFamily("lbctl_keeper_events", "Whatever is counted of what a keeper is told.",
                                     labels=["server", "event"])
        for state in self._shown.keepers(self._now):
            server = str(state.keeper.server)
            lag.add_metric([server], state.lag)
            synced.add_metric([server], float(state.synced))
            for event, count in state.counters.items():
                events.add_metric([server, event], count)
        yield from (lag, synced, events)
