"""IP protocols."""

ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
"""IANA protocol numbers."""
PROTOCOL_NUMBERS = {"tcp": TCP, "udp": UDP}
"""The protocols that a service may name."""
PROTOCOL_NAMES = {TCP: "tcp", UDP: "udp", ICMP: "icmp", ICMPV6: "icmpv6"}
