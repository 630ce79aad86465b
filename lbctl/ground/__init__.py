"""What all parts of the control function share, and nobody decides with.

`Ground` holds the site in force, the switches, the external IPs at work (`Serving`, in a `Directory`), the tokens of
what is waited for, the log, and what must survive a restart. `effects` are what the core asks of the world: an Outbox
is a list of them. `MoveRecord` is what is known of a move. Every part above is given the Ground; this room uses what
lies below it.
"""
