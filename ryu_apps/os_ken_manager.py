"""ryu-manager for os-ken, which has none: `python -m ryu_apps.os_ken_manager --config-file lbctl.conf APP...`

It reads the options, loads the apps, and runs them under eventlet. By default os-ken takes real threads, which can't be
ended, and in which the core would run several times at once.
"""

from __future__ import annotations

import os

import eventlet

os.environ["OSKEN_HUB_TYPE"] = "eventlet"
os.environ["LBCTL_SWITCH_LIBRARY"] = "os_ken"
eventlet.monkey_patch()

# What is imported before that would block the process, and os-ken reads the type of its hub when it is imported.
from os_ken import cfg, log  # noqa: E402
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
