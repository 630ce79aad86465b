"""Value types of a site, and the declaration of each key of its file; the words are those of docs/architecture.md.

Everything here is immutable and comparable, knows nothing of OpenFlow, and does no I/O. Its names are imported from
here.
"""

from lbctl.site.model.external_ips import (
    COPIES,
    FILTERINGS,
    KINDS,
    MAPPINGS,
    NAT_KINDS,
    PORTS,
    CopyName,
    ExternalIp,
    IpKind,
    NatBehaviour,
    NatKind,
)
from lbctl.site.model.servers import (
    TRANSPORTS,
    TUNNEL_OVERHEAD,
    Hop,
    Server,
    Transport,
    Tunnel,
)
from lbctl.site.model.services import (
    CHECK_PORTS,
    CHECKS,
    PROTOCOLS,
    SCHEDULERS,
    WHEN_DOWN,
    CheckType,
    HealthCheck,
    Instead,
    Protocol,
    SchedulerName,
    Service,
    ServiceName,
    ServiceOrder,
    WhenDown,
)
from lbctl.site.model.settings import (
    ALGORITHMS,
    FAILOVERS,
    PACKETS_PER_CONNECTION,
    REBALANCE_MODES,
    Algorithm,
    Failover,
    Rebalance,
    RebalanceMode,
    Settings,
)
from lbctl.site.model.site import KEEPER_PORT, Keeper, Keepers, LoadBalancer, Site

__all__ = [
    "ALGORITHMS", "CHECKS", "CHECK_PORTS", "COPIES", "FAILOVERS", "FILTERINGS", "KEEPER_PORT", "KINDS", "MAPPINGS",
    "NAT_KINDS", "PACKETS_PER_CONNECTION", "PORTS", "PROTOCOLS", "REBALANCE_MODES", "SCHEDULERS", "TRANSPORTS",
    "TUNNEL_OVERHEAD", "WHEN_DOWN", "Algorithm", "CheckType", "CopyName", "ExternalIp", "Failover", "HealthCheck",
    "Hop", "Instead", "IpKind", "Keeper", "Keepers", "LoadBalancer", "NatBehaviour", "NatKind", "Protocol",
    "Rebalance", "RebalanceMode", "SchedulerName", "Server", "Service", "ServiceName", "ServiceOrder", "Settings",
    "Site", "Transport", "Tunnel", "WhenDown",
]
