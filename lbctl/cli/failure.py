"""How a command fails."""


class Failure(Exception):
    """Ends the command with exit status 1. The message says what happened, where, and what to do; no traceback."""
