"""The lbctl command (docs/cli.md). It needs no Ryu: it talks to the controller by REST, and to a switch by its tools."""
