"""A Ryu app for a bed: the controller ends as it does after a fault that nobody has foreseen."""

from ryu_apps.library.names import App
from ryu_apps.library.threads import GreenThreads


def die() -> None:
    raise LookupError("at once")


class DiesAtOnce(App):
    def start(self) -> None:
        super().start()
        GreenThreads().spawn(die)
