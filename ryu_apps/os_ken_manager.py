"""ryu-manager for os-ken, which has none: `python -m ryu_apps.os_ken_manager --config-file lbctl.conf APP...`

It reads the options, loads the apps, and runs them under eventlet. By default os-ken takes real threads, which can't be
ended, and in which the core would run several times at once.
"""

from __future__ import annotations

import os

os.environ["OSKEN_HUB_TYPE"] = "eventlet"
os.environ["LBCTL_SWITCH_LIBRARY"] = "os_ken"

from os_ken.lib import hub  # noqa: E402 (the hub's type is read when it is imported)

hub.patch(thread=True)

from os_ken import cfg, log  # noqa: E402 (what is imported before the patch would block the process)
from os_ken.base.app_manager import AppManager  # noqa: E402

from ryu_apps.library import options  # noqa: E402, F401 (declares wsapi_host and wsapi_port before they are read)

CONF = cfg.CONF
CONF.register_cli_opts([cfg.MultiStrOpt("app", positional=True, default=[], help="file of an app to run")])


def main() -> None:
    """Returns when the apps have ended."""
    log.early_init_log()
    CONF(project="os_ken", prog="os_ken_manager", default_config_files=[])
    log.init_log()
    AppManager.run_apps(CONF.app)


if __name__ == "__main__":
    main()
