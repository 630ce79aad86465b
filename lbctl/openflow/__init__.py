"""OpenFlow 1.4 bytes, for the hot paths only: packed templates and record arrays. Everything else is Ryu's."""
