"""Words that everybody uses, as values without behaviour of their own: addresses, packed keys of connections (`keys`),
protocol numbers and what all frames have in common (`protocols`), the two sides of an LB (`side`), transfer modes and
the order of a move (`transfer`), what an external IP is in cookies (`owners`), what a person is told (`log`), and a
refused order.

It uses nothing of lbctl. Every room uses it.
"""
