#!/usr/bin/env bash
# Installs what is needed and runs all tests, several at once. Arguments are passed on to pytest: `./test.sh tests/unit -k move`;
# `-n 0` runs one test after the other.
. "$(dirname "${BASH_SOURCE[0]}")/scripts/install.sh"

install_everything
start_openvswitch
say "The tests"
cd "$CHECKOUT"
run "$VENV/bin/python" -m pytest -n auto "$@"
