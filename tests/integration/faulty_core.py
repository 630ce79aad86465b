"""A Ryu app for a bed: the controller has faults. A packet to port 666 is one that nobody has foreseen, and so is an
external IP of which somebody asks the load."""

from lbctl.connections.dispatch import Connections
from lbctl.load.balancing import Balancing

packet_in, tick = Connections.packet_in, Balancing.tick
PORT = (666).to_bytes(2)


def packet_in_with_a_fault(connections, switch, packet, now):
    if packet.frame[36:38] == PORT:
        raise LookupError("port 666")
    return packet_in(connections, switch, packet, now)


def tick_with_a_fault(balancing, now):
    raise ArithmeticError("always")


Connections.packet_in, Balancing.tick = packet_in_with_a_fault, tick_with_a_fault
