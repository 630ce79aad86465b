"""The bytes of packets, in and out: Ethernet, ARP, IP, TCP and UDP (`packets`), ICMP errors (`icmp`), the translation
of what an ICMP error quotes (`icmp_translation`), and asking and telling who has which MAC (`discovery`: ARP, IPv6
neighbour discovery).

It uses `values` alone, and knows neither connections nor switches. Who gets packets from switches or makes them calls
it: connections, networks, failures, health checks, and the doctor.
"""
