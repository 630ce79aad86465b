#!/usr/bin/env bash
# Installs what is needed and runs all tests, several at once. Arguments are passed on to pytest: `./test.sh tests/unit -k move`;
# `-n 0` runs one test after the other. `./test.sh --quick` takes two minutes at most: unit tests with few examples each, and
# one real path of each kind.
. "$(dirname "${BASH_SOURCE[0]}")/scripts/install.sh"

if [[ ${1:-} == --quick ]]; then
    shift
    export LBCTL_EXAMPLES=${LBCTL_EXAMPLES:-10}
    set -- -m quick "$@"
fi
install_everything
start_openvswitch
say "The tests"
cd "$CHECKOUT"
run "$VENV/bin/python" -m pytest -n auto "$@"
