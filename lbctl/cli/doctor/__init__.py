"""lbctl doctor: what on this machine, or in the site, would make load balancers fail, each with the command that mends
it.

`command.doctor` is the command; it asks every other module for its findings (`finding.Finding`), and prints them. A
module is what is looked at: the `controller` and what it says of `load_balancers`, `servers` and `keepers`; of this
machine the `open_vswitch`, its `bridges`, their `tunnels`, `receive_queues`, `offloads` and `segments`; and who else
answers for the site's `addresses`. A new check is a function in the module of its subject, or a module that `command`
or `bridges` asks.
"""
