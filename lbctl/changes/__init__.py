"""From one site to the next, while connections run: another site file, or an operator's order about servers.

`Services` takes the orders and the file; `site_change` and `server_change` check what is wanted against what
connections use, put it in force, and send the difference. Nobody else changes what is in force. What the room needs
of other parts stands in `needs.py`. The API and the shell (SIGHUP) call it.
"""
