"""What an LB's switch should hold, and what it does hold.

`Switch` is one LB as the controller sees it: its connection, ports, roles and known neighbours, from which its flows
follow; changes go out as differences. `ReadBack` collects what a switch holds after it has connected. The room uses
openflow/ and site/; ground/ keeps the switches, and the parts above ask them for messages.
"""
