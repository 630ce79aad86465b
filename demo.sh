#!/usr/bin/env bash
# Installs what is needed and runs the demonstration. Arguments are passed on; `./demo.sh --help` lists them.
. "$(dirname "${BASH_SOURCE[0]}")/scripts/install.sh"

install_everything
start_openvswitch
say "The demonstration"
cd "$CHECKOUT"
run "$VENV/bin/python" -m evaluation demonstration "$@"
