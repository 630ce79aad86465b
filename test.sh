#!/usr/bin/env bash
# Installs what is needed and runs all tests, several at once. Arguments are passed on to pytest:
#
#   ./test.sh tests/unit -k move
#   ./test.sh -n 0                one test after the other
#   ./test.sh --quick             two minutes at most: unit tests with few examples each, and one real path of each kind
#   ./test.sh --os-ken            some tests with os-ken in Ryu's place, in an environment of its own
#                                 (docs/development.md, "Ryu and os-ken")
. "$(dirname "${BASH_SOURCE[0]}")/scripts/install.sh"

OS_KEN_TESTS=(
    tests/unit/test_{switch_library,openflow_codec,tunnels,solver,collector}.py
    tests/integration/test_{rest_server,openflow_tls,bad_input,restart,move}.py
)

# What has been installed last makes Ryu's own command go, so that an installation that was interrupted begins again.
put_os_ken_in_ryus_place() {
    [[ -e $VENV/bin/ryu-manager ]] || return 0
    say "Python environment: os-ken in Ryu's place"
    logged "Installing os-ken" "$VENV/bin/python" -m pip install --disable-pip-version-check --no-input --no-deps \
        -r "$CHECKOUT/requirements/os-ken.txt"
    logged "Removing Ryu" "$VENV/bin/python" -m pip uninstall --disable-pip-version-check --yes c65ryu
}

if [[ ${1:-} == --quick ]]; then
    shift
    export LBCTL_EXAMPLES=${LBCTL_EXAMPLES:-10}
    set -- -m quick "$@"
fi
if [[ ${1:-} == --os-ken ]]; then
    shift
    [[ $# -gt 0 ]] || set -- "${OS_KEN_TESTS[@]}"
    VENV=$CHECKOUT/.venv-os-ken
    export LBCTL_SWITCH_LIBRARY=os_ken
    install_everything
    put_os_ken_in_ryus_place
else
    install_everything
fi
start_openvswitch
say "The tests"
cd "$CHECKOUT"
run "$VENV/bin/python" -m pytest -n auto "$@"
