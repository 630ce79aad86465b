# shellcheck shell=bash
# What demo.sh and test.sh share; sourced by both.
#
#   install_everything  installs what is missing: Debian packages, and .venv in the checkout. Quick when nothing is.
#   start_openvswitch   starts Open vSwitch unless it runs; it is stopped again when the last command that needs it
#                       ends.
#   run COMMAND...      runs COMMAND so that Ctrl-C and SIGTERM reach it once, and returns its exit status; when it was
#                       interrupted, everything ends with it (exit status 130 or 143).
#
# Every failure is one line on standard error, and exit status 1.

set -euo pipefail

CHECKOUT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=$CHECKOUT/.venv
SYSTEM_PYTHON=/usr/bin/python3    # Debian's: the packages below belong to it, whatever else is first in PATH

PROGRAMS=$CHECKOUT/requirements/programs.list

POLICY=/usr/sbin/policy-rc.d
POLICY_IS_OURS=
NEW_SERVICES=()
OVS_CTL=/usr/share/openvswitch/scripts/ovs-ctl
OVS_LOCK=/run/lbctl-openvswitch.lock
OVS_CHANGE_LOCK=/run/lbctl-openvswitch.change.lock
OVS_STARTED=/run/lbctl-openvswitch.started
INSTALL_LOG=
KEEP_LOG=
CHILD=
INTERRUPTED_BY=

say() { printf '==> %s\n' "$*"; }

fail() {
    printf 'lbctl: %s\n' "$*" >&2
    exit 1
}

finish() {
    local status=$?
    trap '' INT TERM HUP
    if [[ $INSTALL_LOG ]]; then silence_new_services; fi
    if [[ $INSTALL_LOG && ! $KEEP_LOG ]]; then rm -f "$INSTALL_LOG"; fi
    stop_openvswitch
    exit "$status"
}

# A command in the background of its own session gets each signal once: from here. It is told to stop by SIGINT
# whatever we were sent, because Python programs clean up after that one without further ado.
run() {
    local status=0
    exec 3<&0
    setsid setpriv --pdeathsig INT env --default-signal=INT,QUIT "$@" <&3 3<&- 7>&- 9>&- &
    CHILD=$!
    exec 3<&-
    while true; do
        status=0
        wait "$CHILD" || status=$?
        kill -0 "$CHILD" 2>/dev/null || break
    done
    CHILD=
    if [[ $INTERRUPTED_BY ]]; then exit "$((128 + $(kill -l "$INTERRUPTED_BY")))"; fi
    return "$status"
}

interrupted() {
    INTERRUPTED_BY=$1
    if [[ ! $CHILD ]]; then exit "$((128 + $(kill -l "$1")))"; fi
    printf 'lbctl: interrupted, cleaning up\n' >&2
    kill -INT "$CHILD" 2>/dev/null || true
}

check_machine() {
    [[ $EUID -eq 0 ]] || fail "this needs root (network namespaces, Open vSwitch, Debian packages): run it with sudo"
    local ID='' VERSION_ID=''
    # shellcheck disable=SC1091
    [[ -r /etc/os-release ]] && . /etc/os-release
    [[ $ID == debian && ($VERSION_ID == 12 || $VERSION_ID == 13) ]] ||
        fail "this is ${ID:-an unknown system} ${VERSION_ID:-}; the installation knows Debian 12 and Debian 13 only"
}

# logged STEP COMMAND...: COMMAND with its output in the log, shown only by name when it fails
logged() {
    local step=$1
    shift
    if ! run "$@" >>"$INSTALL_LOG" 2>&1; then
        KEEP_LOG=yes
        fail "$step failed. Is this machine online? The whole output: $INSTALL_LOG. Its last error:" \
            "$(grep -E '^(E:|W:|ERROR|error)' "$INSTALL_LOG" | tail -n 1)"
    fi
}

# programs_and_packages: `program package` of each declared program
programs_and_packages() {
    awk '!/^#/ && NF {print $1, $2}' "$PROGRAMS"
}

# Packages whose programs we want, and not the service that they bring: it is never started, never enabled.
quiet_packages() {
    awk '!/^#/ && $4 == "service" {print $2}' "$PROGRAMS"
}

missing_packages() {
    local program package
    programs_and_packages | while read -r program package; do
        command -v "$program" >/dev/null || printf '%s\n' "$package"
    done | sort -u
    "$SYSTEM_PYTHON" -c 'import ensurepip, venv' 2>/dev/null || printf 'python3-venv\n'
}

install_debian_packages() {
    local missing
    mapfile -t missing < <(missing_packages)
    if [[ ${#missing[@]} -eq 0 ]]; then
        say "Debian packages: all there"
        return
    fi
    say "Debian packages: installing ${missing[*]}"
    keep_services_quiet
    export DEBIAN_FRONTEND=noninteractive
    logged "Reading Debian's package lists" apt-get -q update -o Acquire::Retries=1
    logged "Installing the Debian packages" apt-get -q install -y --no-install-recommends "${missing[@]}"
    silence_new_services
}

# Debian starts a service when it is installed, unless this file says no. Open vSwitch is started by start_openvswitch,
# so that it is known who has to stop it.
keep_services_quiet() {
    local service services
    mapfile -t services < <(quiet_packages)
    for service in "${services[@]}"; do
        command -v "$service" >/dev/null || NEW_SERVICES+=("$service")
    done
    [[ -e $POLICY ]] && return
    POLICY_IS_OURS=yes
    cat >"$POLICY" <<END
#!/bin/sh
# Written by lbctl while it installs packages; removed right after.
case "\$1" in $(printf '%s* | ' "${services[@]}")openvswitch* | ovs*) exit 101 ;; esac
exit 0
END
    chmod 755 "$POLICY"
}

# Also when the installation was interrupted: Debian has enabled what it had got to.
silence_new_services() {
    local service
    if [[ $POLICY_IS_OURS ]]; then rm -f "$POLICY"; fi
    POLICY_IS_OURS=
    for service in "${NEW_SERVICES[@]}"; do
        command -v "$service" >/dev/null || continue
        invoke-rc.d "$service" stop || true
        update-rc.d "$service" disable || true
        if command -v systemctl; then systemctl disable "$service" || true; fi
    done >>"$INSTALL_LOG" 2>&1
    NEW_SERVICES=()
}

# What the environment was made from: the pins, our own packaging, the Python, and where it lies (it can't be moved).
venv_stamp() {
    {
        cat "$CHECKOUT"/requirements/*.txt "$CHECKOUT"/setup.cfg "$CHECKOUT"/pyproject.toml
        "$SYSTEM_PYTHON" -VV
        printf '%s\n' "$CHECKOUT"
    } | sha256sum | cut -d' ' -f1
}

install_venv() {
    local stamp pip
    exec 8<"$CHECKOUT/requirements"
    if ! flock -n 8; then
        say "Python environment: another command is installing, waiting for it"
        flock 8
    fi
    stamp=$(venv_stamp)
    if [[ $(cat "$VENV/lbctl-stamp" 2>/dev/null) == "$stamp" ]]; then
        say "Python environment: ${VENV##*/} is up to date"
    else
        say "Python environment: installing the pinned packages into ${VENV##*/}"
        rm -f "$VENV/lbctl-stamp"
        logged "Making .venv" "$SYSTEM_PYTHON" -m venv "$VENV"
        pip=("$VENV/bin/python" -m pip install --disable-pip-version-check --no-input --retries 2 --no-deps)
        logged "Installing what builds the Python packages" "${pip[@]}" -r "$CHECKOUT/requirements/build.txt"
        logged "Installing the Python packages" "${pip[@]}" --no-build-isolation \
            -r "$CHECKOUT/requirements/base.txt" -r "$CHECKOUT/requirements/controller.txt" \
            -r "$CHECKOUT/requirements/lab.txt" -r "$CHECKOUT/requirements/test.txt"
        # "compat" puts the checkout itself on the path, so that the folders beside lbctl/ can be imported as well.
        logged "Installing lbctl itself" "${pip[@]}" --no-build-isolation --config-settings editable_mode=compat \
            -e "$CHECKOUT"
        printf '%s\n' "$stamp" >"$VENV/lbctl-stamp"
    fi
    exec 8<&-
}

install_everything() {
    trap finish EXIT
    trap 'interrupted INT' INT
    trap 'interrupted TERM' TERM
    trap 'interrupted HUP' HUP
    check_machine
    INSTALL_LOG=$(mktemp -t lbctl-install-XXXXXX.log)
    install_debian_packages
    install_venv
    PATH=$VENV/bin:$PATH
}

openvswitch_runs() { ovs-vsctl --timeout=5 show >/dev/null 2>&1; }

service_manager_is_systemd() { [[ -d /run/systemd/system ]]; }

# Descriptor 9 is held, shared, as long as this command needs Open vSwitch; descriptor 7 while it is started or stopped.
start_openvswitch() {
    exec 9>"$OVS_LOCK" 7>"$OVS_CHANGE_LOCK"
    if ! flock -n -s 9; then
        say "Open vSwitch: waiting for scripts/fresh-machine.sh, which has this machine's network for itself"
        flock -s 9
    fi
    flock 7
    if openvswitch_runs; then
        say "Open vSwitch: runs"
    else
        say "Open vSwitch: starting it (and stopping it at the end)"
        touch "$OVS_STARTED"
        if service_manager_is_systemd; then
            logged "Starting Open vSwitch" systemctl start openvswitch-switch
        else
            logged "Starting Open vSwitch" "$OVS_CTL" start --system-id=random
        fi
    fi
    exec 7>&-
}

stop_openvswitch() {
    [[ -e $OVS_STARTED ]] && { true >&9; } 2>/dev/null || return 0
    exec 7>"$OVS_CHANGE_LOCK"
    flock 7
    flock -n 9 || return 0    # another command still needs it and will stop it
    rm -f "$OVS_STARTED"
    if service_manager_is_systemd; then
        systemctl stop openvswitch-switch ovs-vswitchd ovsdb-server || true
    else
        "$OVS_CTL" stop >/dev/null 2>&1 7>&- 9>&- || true
    fi
}
