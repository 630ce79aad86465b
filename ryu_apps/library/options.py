"""The options of lbctl.conf: lbctl's own, in section [lbctl], and other defaults for some of the library's."""

from __future__ import annotations

from pathlib import Path

from ryu_apps.library.names import cfg

ECHO_INTERVAL, ECHO_UNREPLIED = 2, 3

CONF = cfg.CONF
CONF.register_opts([
    cfg.StrOpt("site", help="the site file, relative to this configuration file"),
    cfg.StrOpt("state_file", default="lbctl-state.json", help="what must survive a restart is kept here"),
    cfg.StrOpt("token_file", default=None, help="file with the token that REST calls must carry; `none`: they need "
               "none, though others than this host can call"),
], group="lbctl")
if "wsapi_host" not in CONF:
    # Ryu declares them; os-ken has dropped them with its web server.
    CONF.register_cli_opts([
        cfg.StrOpt("wsapi-host", help="where the REST API listens"),
        cfg.IntOpt("wsapi-port", default=8080, help="the port on which the REST API listens"),
    ])
# The library listens on all addresses by default, and never notices a dead switch; a user's own values still win.
CONF.set_default("wsapi_host", "127.0.0.1")
CONF.set_default("maximum_unreplied_echo_requests", ECHO_UNREPLIED)
CONF.set_default("echo_request_interval", ECHO_INTERVAL)


def config_path(name: str) -> Path:
    """A path from the configuration file, which is relative to that file."""
    base = Path(CONF.config_file[0]).resolve().parent if CONF.config_file else Path.cwd()
    return base / name
