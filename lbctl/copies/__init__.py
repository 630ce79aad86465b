"""Where entries are kept besides the switches: telling keepers, and fetching from them.

`Feeds` tells each keeper the entries of its server, through a `Publisher` each. `Copies` makes the access table what
a failed LB had, from the best copy that can be had. `Client` is the HTTP side, which the shell drives. The room
speaks the protocol of keeper/; moves/ and failures/ ask it.
"""
