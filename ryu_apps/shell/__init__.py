"""The controller without a switch library: who carries out what the core asks for, and who tells it what has happened.

It may use `lbctl`, structlog and the standard library; what else it needs (green threads, the encoder of messages,
connections to switches) it is given by name. The apps in `ryu_apps/` call it. It offers `controller` (builds all of it,
and has the timers), `events` (what switches say), `effects` (what the core asks for), `orders` (what REST asks for) and
`web` (REST requests from WSGI); `sender`, `saving`, `keepers` and `solver` each carry out one kind of effect.
"""
