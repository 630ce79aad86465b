"""What is a failed LB: told from its OpenFlow connection, its ports, and the probes that other LBs send it
(docs/failover.md).

A lost connection alone is no failure: such an LB forwards, and answers ARP. It is *unmanaged*, and fenced before
others take over. Where most connections are lost at once, it is the control function that is cut off. Silence alone is
no failure either while the LB obeys: which of two LBs that don't hear each other is cut off is told by the frames that
still come in at their ports.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, replace
from functools import partial

from lbctl.failures.outage import PATIENCE, Outage
from lbctl.failures.probing import FENCED_BY, MOST_PROBES, NETWORKS, Probing
from lbctl.frames import packets
from lbctl.frames.packets import Malformed
from lbctl.ground.effects import Effect, Outbox, ToSwitch
from lbctl.ground.ground import Ground
from lbctl.ground.tokens import PortsAnswer
from lbctl.moves.takeover import LbFailure
from lbctl.openflow.cookies import MASK_ALL
from lbctl.openflow.messages import DeleteCookie, ReadPorts
from lbctl.openflow.probe_rules import LEARNED_COOKIE
from lbctl.site.model import Settings
from lbctl.store import State
from lbctl.switches.switch import Switch

EARLY = 0.005
"""Seconds: a tick that comes so much too early will do."""
PROBES_AT_ONCE = 100
"""At a tick: what MOST_PROBES comes to, in ticks of 50 ms."""
WINDOW = 3
"""Rounds for which ports' counters are compared."""
WITNESSES = 3
"""LBs that are asked what they receive, besides the silent ones."""
HUNG_ROUNDS = 10
"""Rounds for which a connected LB must not have said anything at all."""
LONGEST_HOLD_DOWN = 600.0
FIRST_CONNECTION = 2.0
"""Seconds after the start of the control function in which a silent LB may still connect: one that has just started
has no rules."""


@dataclass(slots=True)
class Evidence:
    """Frames received by each port of one LB: (round, network -> frames)."""

    first: tuple[int, dict[str, int]]
    last: tuple[int, dict[str, int]]


@dataclass(slots=True)
class LbHealth:
    """Of one LB."""

    failure: LbFailure | None = None
    failures: int = 0
    """In a row: since it was last held down for nothing."""
    back_at: float = float("-inf")
    """When it last became well again."""


class Detection:
    """Of all LBs."""

    def __init__(self, ground: Ground, watched: Iterable[str], now: float) -> None:
        """watched: LBs whose data path has answered an earlier control function on both networks; only the silence of
        such LBs means something."""
        self._ground, self._switches = ground, ground.switches
        self.watched = set(watched)
        self._started = now
        self.probing = Probing(ground.switches)
        self._outage = Outage()
        self._listening: set[str] = set()
        """LBs that have been asked for a sign of life."""
        self.health: dict[str, LbHealth] = {}
        self._next = float("-inf")
        self._round = 0
        self._unsent: deque[Effect] = deque()
        """What this round asks."""
        self._evidence: dict[str, Evidence] = {}
        self._tokens: deque[int] = deque()
        """Of the questions about ports, the oldest first."""
        self._silent_since: dict[str, int] = {}
        """LB -> round since when it has been connected and silent."""
        ground.survives(self._survives)
        for name in self.watched:
            for network in NETWORKS:
                self.probing.path(name, network).heard = True

    # What comes in.

    def _survives(self, state: State) -> State:
        return replace(state, watched=frozenset(self.watched & self._switches.keys()))

    def answered(self, prober: str, frame: bytes) -> Outbox:
        """An answer to a probe, which that LB has shown. An LB that is watched from now on is saved as such."""
        try:
            arp = packets.decode_arp(frame)
        except Malformed:
            return []
        found = self.probing.answer(prober, arp)
        out = self._unfence(arp)
        if found and found not in self.watched and all(self.probing.path(found, network).heard for network in NETWORKS):
            self.watched.add(found)
            out.append(self._ground.save())
        return out

    def _unfence(self, arp: packets.Arp) -> Outbox:
        """A fence may come late, out of the queue of an LB that was hung: to one that obeys by now, and may have
        external IPs."""
        if arp.spa != FENCED_BY:
            return []
        return [
            ToSwitch(name, DeleteCookie("classify", LEARNED_COOKIE, MASK_ALL))
            for name, switch in self._switches.items()
            if switch.ready
            and switch.of_ports
            and arp.sha.hex(":") in (switch.of_ports.external.mac, switch.of_ports.internal.mac)
        ]

    def _ports_read(self, name: str, received: Mapping[int, int]) -> None:
        """Frames received by each port (OpenFlow number) of that LB."""
        ports = self._switches[name].of_ports if name in self._switches else None
        if ports is None:
            return
        self.probing.heard.add(name)
        now = self._round, {network: received.get(getattr(ports, network).number, 0) for network in NETWORKS}
        found = self._evidence.setdefault(name, Evidence(now, now))
        found.last = now

    def read_back(self, name: str, now: float) -> None:
        """That LB is connected, and holds what it should: its failure may be over before the next round."""
        if name in self.health:
            self._judge(name, now)

    # Time.

    def tick(self, now: float) -> Outbox:
        """What is to be sent now: the probes of a round, and questions about ports while an LB is silent."""
        if not (self._settings.automatic_failover and self._ground.fence_code) or len(self._switches) < 2:
            self.health.clear()
            self._silent_since.clear()
            self._unsent.clear()
            self._outage = Outage()
            self.probing.forget(set(self._switches))  # nobody is asked: what was heard once says nothing
            return []
        if self._unsent or now < self._next - EARLY:
            return self._part()
        interval = max(self._settings.probe_interval, len(NETWORKS) * len(self._switches) / MOST_PROBES)
        self._next = max(self._next + interval, now)
        self._round += 1
        self._forget((self.watched | self.health.keys()) - self._switches.keys())
        self._look_for_outage(now)
        heard = frozenset(self.probing.heard)
        self._unsent = deque(self.probing.round(self._to_fence()) + self._listen(heard))
        out = self._part() + self._collect_evidence()
        for name in self._switches:
            self._judge(name, now)
        return out

    def _look_for_outage(self, now: float) -> None:
        failed = self.failed()
        unsuspected = {name: switch for name, switch in self._switches.items() if name not in failed}
        connected = {name for name, switch in unsuspected.items() if switch.state != "disconnected"}
        reading = {name for name in connected if not unsuspected[name].whole}
        missing = {name for name, switch in unsuspected.items() if switch.lost_at} - connected
        if not self._outage.round(connected, self.probing.heard | reading, missing, now):
            return
        if self._outage.since is not None:
            self._ground.log("the controller is cut off from most load balancers", level="error",
                             hint="they forward on, but new connections wait; look at the management network, and at "
                             "this host")
        else:
            self._ground.log("the controller reaches most load balancers again", missing=sorted(missing))

    def _listen(self, heard: Set[str]) -> Outbox:
        """Asks those for a sign of life that have said nothing in the last round. heard: the others."""
        out: Outbox = []
        ready = {name for name, switch in self._switches.items() if switch.ready}
        for name in sorted(ready - heard - self._listening):
            self._listening.add(name)
            token = self._ground.tokens.new(PortsAnswer(name, partial(self._lives, name)))
            out.append(ToSwitch(name, ReadPorts(token)))
        self._listening &= ready
        return out

    def _lives(self, name: str, _received: Mapping[int, int]) -> None:
        self._listening.discard(name)
        self.probing.heard.add(name)

    def _to_fence(self) -> set[str]:
        """LBs that must answer ARP for nobody, and can't be told so: they have failed, and are not connected."""
        return {name for name in self.failed() if self._switches[name].state == "disconnected"}

    @property
    def _settings(self) -> Settings:
        return self._ground.settings

    def _part(self) -> Outbox:
        """Some of the round's probes: all at once, and all their answers, would keep other packets waiting."""
        return [self._unsent.popleft() for _ in range(min(PROBES_AT_ONCE, len(self._unsent)))]

    def _forget(self, gone: set[str]) -> None:
        """These LBs are not in the site any more."""
        self.probing.forget(gone)
        self.watched -= gone
        for name in gone:
            self.health.pop(name, None)
            self._silent_since.pop(name, None)
            self._evidence.pop(name, None)

    def _silent(self, name: str) -> list[str]:
        """The networks on which it does not answer any more."""
        return [network for network in NETWORKS if self.probing.silent(name, network, self._settings.probe_misses)]

    def alive(self, name: str) -> bool:
        """Does it answer on some network?"""
        return any(self.probing.lively(name, network, self._settings.probe_misses) for network in NETWORKS)

    def fenced(self, name: str) -> bool:
        """Does it answer ARP for nobody any more, wherever it can be heard?"""
        return all(
            self.probing.path(name, network).fenced
            or not self.probing.lively(name, network, self._settings.probe_misses)
            for network in NETWORKS
        )

    def _collect_evidence(self) -> Outbox:
        """While a connected LB is silent, it and a few others are asked what their ports receive."""
        ready = [name for name, switch in self._switches.items() if switch.ready]
        silent = [name for name in ready if self._silent(name)]
        if not silent:
            self._evidence.clear()
            self._forget_questions(0)
            return []
        others = [name for name in ready if name not in silent][:WITNESSES]
        out: Outbox = []
        for name in silent + others:
            token = self._ground.tokens.new(PortsAnswer(name, partial(self._ports_read, name)))
            self._tokens.append(token)
            out.append(ToSwitch(name, ReadPorts(token)))
        self._forget_questions(4 * HUNG_ROUNDS * len(self._switches))
        return out

    def _forget_questions(self, most: int) -> None:
        """Of those that may not have been answered, so many are kept, the latest."""
        while len(self._tokens) > most:
            self._ground.tokens.cancel(self._tokens.popleft())

    # Judging.

    def _judge(self, name: str, now: float) -> None:
        health = self.health.setdefault(name, LbHealth())
        before, health.failure = health.failure, self._failure(name, now)
        if health.failure and not before:
            if now > health.back_at + LONGEST_HOLD_DOWN:
                health.failures = 0
            health.failures += 1
            self._ground.log("load balancer failed", level="error", lb=name, cause=health.failure.cause)
        elif before and not health.failure:
            health.back_at = now
            self._ground.log("load balancer well again", lb=name, held_down=self._hold_down(health))

    def _failure(self, name: str, now: float) -> LbFailure | None:
        switch, silent = self._switches[name], self._silent(name)
        if switch.state == "disconnected":
            self._silent_since.pop(name, None)
            return self._unconnected(name, switch, silent, now)
        if not switch.whole:
            return self.health[name].failure
        down = [port.name for network, port in switch.ports.items() if network in NETWORKS and not port.up]
        if down:
            return LbFailure(f"its port {' and '.join(down)} is down", obeys=True)
        if not silent:
            self._silent_since.pop(name, None)
            return None
        return self._connected_and_silent(name, silent)

    def _unconnected(self, name: str, switch: Switch, silent: list[str], now: float) -> LbFailure | None:
        before, watched = self.health[name].failure, name in self.watched
        if watched and len(silent) == len(NETWORKS):
            if not switch.lost_at and now - self._started < FIRST_CONNECTION:
                return None
            return LbFailure("its OpenFlow connection is lost, and it answers no probe")
        if before:
            return replace(before, obeys=False, fence=self.alive(name))  # it has old rules until it has been read back
        if not watched or not self.alive(name):
            return None  # its silence means nothing, or nobody can ask it
        if silent:
            return LbFailure(
                f"its OpenFlow connection is lost, and it answers no probe on the {silent[0]} network", fence=True
            )
        if self._outage.waits_for(name, now):
            return None
        since, patience = self._started, PATIENCE
        if switch.lost_at:
            since, patience = switch.lost_at, self._settings.relieve_after
        if now - since >= patience:
            return LbFailure(f"it forwards, but has had no OpenFlow connection for {patience:g} s", fence=True)
        return None

    def _connected_and_silent(self, name: str, silent: list[str]) -> LbFailure | None:
        since = self._silent_since.setdefault(name, self._round)
        if self._round - since < WINDOW:
            return None
        mine = self._evidence.get(name)
        if mine is None or mine.last[0] < self._round - HUNG_ROUNDS:
            hung = len(silent) == len(NETWORKS) and self._round - since >= HUNG_ROUNDS
            return LbFailure("it answers neither probes nor OpenFlow requests") if hung else None
        for network in silent:
            others = [found for other, found in self._evidence.items() if other != name and self._switches[other].ready]
            if _received(mine, network) is False and any(_received(found, network) for found in others):
                return LbFailure(
                    f"no frame reaches its {network} port {self._switches[name].ports[network].name}", obeys=True
                )
        return None

    def declare(self, name: str, cause: str) -> LbFailure:
        """That LB, which is not connected, shall be taken for failed until it has been read back."""
        health = self.health.setdefault(name, LbHealth())
        health.failure, health.failures = LbFailure(cause, fence=self.alive(name)), health.failures + 1
        self._ground.log("load balancer failed", level="error", lb=name, cause=cause)
        return health.failure

    # What others ask.

    @property
    def cut_off_since(self) -> float | None:
        """Since when most LBs have been lost at once, so that it is the control function itself that is cut off. None:
        they have not."""
        return self._outage.since

    @property
    def doubtful(self) -> bool:
        """Is a connected LB silent, and not known yet which one is cut off?"""
        return bool(self._silent_since)

    def failed(self) -> dict[str, LbFailure]:
        """LB -> why."""
        return {
            name: health.failure for name, health in self.health.items() if health.failure and name in self._switches
        }

    def state(self, name: str) -> tuple[str, str | None]:
        """For people: well, silent, unmanaged, failed, or unwatched; and why."""
        health, switch = self.health.get(name), self._switches[name]
        if health and health.failure:
            return "failed", health.failure.cause
        if name not in self.watched or not self._settings.automatic_failover:
            return "unwatched", "its failure would not be noticed: " + (
                "automatic_failover is off" if not self._settings.automatic_failover else
                "no other load balancer has heard an answer to a probe from it on both networks")
        if switch.state == "disconnected" and self.alive(name):
            return "unmanaged", "it forwards, but has no OpenFlow connection: no new connections there"
        if silent := self._silent(name):
            return "silent", f"it answers no probe on the {' and the '.join(silent)} network"
        return "well", None

    def trusted(self, name: str) -> bool:
        """Is its data path well, as far as is known?"""
        return self.state(name)[0] in ("well", "unwatched")

    def held_down(self, name: str, now: float) -> bool:
        """Has it failed so lately that it shall take nothing over?"""
        health = self.health.get(name)
        return bool(health and (health.failure or now < health.back_at + self._hold_down(health)))

    def _hold_down(self, health: LbHealth) -> float:
        """Seconds: doubled with each failure in a row."""
        return min(self._settings.hold_down * 2 ** (health.failures - 1), LONGEST_HOLD_DOWN) if health.failures else 0.0


def _received(found: Evidence, network: str) -> bool | None:
    """Did frames come in meanwhile? None: it has not been looked at for long enough."""
    if found.last[0] - found.first[0] < WINDOW:
        return None
    return found.last[1][network] > found.first[1][network]
