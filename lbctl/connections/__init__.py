"""What a packet at the controller leads to, and how entries come, go, and come back.

`dispatch.Connections` is what other rooms call: it makes an `Arrival` of each packet and hands it to `new_connections`,
`strays`, `transition` (held packets), `endings` or `icmp_handler`; `answers` are what is sent back. `sweep.Sweep` finds
entries that are idle, `slices.Slices` gives the slices of sliced services to servers (`sliced.find`: what a slice says
of a connection that has no entry), and `recovery.recover` compares the access table with what a switch holds.

It uses `ground` and what is below it. The control function gives it packets, ticks and what switches report; moves,
health checks and changes of the site end entries by it.
"""
