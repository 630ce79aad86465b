"""The keeper's process: it takes batches, makes them last, and gives copies and sockets back over HTTP
(docs/keeper.md).

From the inside out: copy (what is kept; pure), journal (makes it last), sockets (what the kernel knows), resources
(answers to requests, without a server), metrics, server (threads, TLS, and bounds on what a client may cost).

It uses the protocol beside it and lbctl.http. lbctl.cli.keeper puts KeptCopy(Copy(...)) behind a KeeperServer, and runs
it.
"""
