#!/usr/bin/env bash
# Runs commands on a Debian that has never seen the project:
#
#   scripts/fresh-machine.sh [--keep] 12|13 [COMMAND...]
#
# It makes a root folder by debootstrap, with this machine's package sources, proxies, certificates and pip settings,
# clones the commit that is checked out here into it (/root/lbctl), and runs COMMAND there; without one, both commands
# of the README. The root shares this machine's kernel and network, and nothing else. It is removed afterwards; --keep
# keeps it.
#
# The exit status is COMMAND's, or 125 when there was no such root to be had (a line says why). Everything that was said
# is in a log as well. docs/development.md says more.

. "$(dirname "${BASH_SOURCE[0]}")/install.sh"

NO_ROOT=125
README_COMMANDS='status=0; ./demo.sh || status=$?; ./test.sh || status=$?; exit "$status"'
CACHE=/var/cache/lbctl-fresh-machine
ROOTS=/var/tmp
HOME_INSIDE=/root
PASSED_ON='^(CI|TERM|LANG|LC_.*|LBCTL_.*|PIP_.*|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE'
PASSED_ON+='|(https?|ftp|all|no)_proxy|(HTTPS?|FTP|ALL|NO)_PROXY)$'
KEEP=
ROOT=

usage() {
    sed -n '4s/^#  */usage: /p' "${BASH_SOURCE[0]}" >&2
    exit 2
}

no_root() {
    printf 'lbctl: no fresh machine: %s\n' "$*" >&2
    exit "$NO_ROOT"
}

# quietly COMMAND...: with its output in the log only. (A redirection around `run` would be one of this shell's own, and
# still be there when a signal ends it.)
quietly() {
    run bash -c 'exec "$@" >>"$0" 2>&1' "$LOG" "$@"
}

# Here, before

check_host() {
    [[ $EUID -eq 0 ]] || no_root "this needs root: run it with sudo"
    [[ -x /usr/bin/apt-get ]] || no_root "this machine has no apt-get, whose package sources are needed"
    unshare --mount --pid --fork --kill-child mount -t tmpfs none /mnt 2>/dev/null ||
        no_root "this machine does not allow namespaces and mounts of one's own (is this a container?)"
    local missing=()
    command -v debootstrap >/dev/null || missing+=(debootstrap)
    command -v git >/dev/null || missing+=(git)
    if [[ ${#missing[@]} -gt 0 ]]; then
        say "Installing ${missing[*]}"
        quietly apt-get -q update -o Acquire::Retries=1 &&
            quietly apt-get -q install -y --no-install-recommends "${missing[@]}" ||
            no_root "${missing[*]} cannot be installed: $LOG"
    fi
}

# Two Open vSwitches in one network namespace disturb each other, and the root shares ours.
reserve_network() {
    local pid
    exec 9>"$OVS_LOCK"
    flock -n 9 || no_root "another command of lbctl uses Open vSwitch on this machine: wait until it has ended"
    for pid in $(pgrep -x ovs-vswitchd); do
        [[ $(readlink "/proc/$pid/ns/net") != "$(readlink /proc/self/ns/net)" ]] ||
            no_root "Open vSwitch runs on this machine (process $pid), whose network the root shares:" \
                "stop it (systemctl stop openvswitch-switch)"
    done
}

# `URI RELEASE COMPONENT` of each of this machine's sources of Debian's own packages
debian_sources() {
    local format='$(ORIGIN) $(CODENAME) $(REPO_URI) $(RELEASE) $(COMPONENT)'
    apt-get indextargets --format "$format" 'Created-By: Packages' 2>/dev/null | sort -u |
        awk -v here="$HERE" '$1 == "Debian" && index($2, here) == 1 {print $3, $4, $5}'
}

read_host_sources() {
    local VERSION_CODENAME=''
    # shellcheck disable=SC1091
    . /etc/os-release
    HERE=$VERSION_CODENAME
    if [[ ! $(debian_sources) ]]; then quietly apt-get -q update -o Acquire::Retries=1 || true; fi
    MIRROR=$(debian_sources | awk -v here="$HERE" '$2 == here && $3 == "main" {print $1; exit}')
    [[ $MIRROR ]] || no_root "apt knows no source of Debian's packages on this machine: $LOG"
    if [[ ! ${http_proxy:-} ]]; then
        local proxy
        proxy=$(apt-config dump Acquire::http::Proxy | sed -n 's/.*"\(.*\)";/\1/p')
        if [[ $proxy && $proxy != DIRECT ]]; then export http_proxy=$proxy; fi
    fi
}

remove_root() {
    rm -rf --one-file-system "$1" "$1.lock"
}

# Each root is locked as long as its command lives.
remove_leftovers() {
    local lock
    for lock in "$ROOTS"/lbctl-fresh-*.lock; do
        [[ -e $lock ]] || continue
        if flock -n "$lock" true; then remove_root "${lock%.lock}"; fi
    done
}

make_root() {
    local tarball=$CACHE/$CODENAME.tar.gz
    ROOT=$(mktemp -d "$ROOTS/lbctl-fresh-$RELEASE.XXXXXX")
    exec 7>"$ROOT.lock"
    flock 7
    chmod 755 "$ROOT"
    mkdir -p "$CACHE"
    find "$CACHE" -name '*.tar.gz*' -mtime +14 -delete
    if [[ -e $tarball ]]; then
        say "A fresh Debian $RELEASE: $ROOT, from $tarball"
        tar -xzpf "$tarball" -C "$ROOT" || no_root "$tarball cannot be unpacked; remove it"
    else
        say "A fresh Debian $RELEASE: $ROOT, by debootstrap"
        quietly debootstrap --variant=minbase "$CODENAME" "$ROOT" "$MIRROR" ||
            no_root "debootstrap failed: $LOG. It ended with: $(tail -n 1 "$LOG")"
        rm -f "$ROOT"/var/cache/apt/archives/*.deb
        tar -czpf "$tarball.$$" -C "$ROOT" . && mv "$tarball.$$" "$tarball"
    fi
}

# copied PATH...: each also where it is there
copied() {
    local path
    for path in "$@"; do
        [[ -e $path ]] || continue
        mkdir -p "$ROOT$(dirname "$path")"
        cp -rL "$path" "$ROOT$(dirname "$path")/"
    done
}

configure_root() {
    local uri suite component
    rm -f "$ROOT/etc/resolv.conf" "$ROOT/etc/hosts"
    copied /etc/resolv.conf /etc/hosts /usr/local/share/ca-certificates /etc/apt/auth.conf /etc/apt/auth.conf.d
    copied /etc/ssl/certs/ca-certificates.crt "${SSL_CERT_FILE:-}" "${PIP_CERT:-}" "${REQUESTS_CA_BUNDLE:-}" \
        "${CURL_CA_BUNDLE:-}"
    rm -f "$ROOT/etc/apt/sources.list"
    debian_sources | while read -r uri suite component; do
        printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s %s\n' \
            "$uri" "${suite/#$HERE/$CODENAME}" "$component"
    done >"$ROOT/etc/apt/sources.list.d/host.list"
    apt-config dump | grep -E '^Acquire::(https?::|Check-|Retries|ForceIP)' >"$ROOT/etc/apt/apt.conf.d/90host" || true
    copied /etc/pip.conf /etc/xdg/pip "${PIP_CONFIG_FILE:-}"
    mkdir -p "$ROOT$HOME_INSIDE"
    if [[ -d $HOME/.config/pip ]]; then
        mkdir -p "$ROOT$HOME_INSIDE/.config"
        cp -rL "$HOME/.config/pip" "$ROOT$HOME_INSIDE/.config/"
    fi
    if [[ -d $HOME/.pip ]]; then cp -rL "$HOME/.pip" "$ROOT$HOME_INSIDE/"; fi
}

# Folders and files of this machine that pip's settings name: indexes (with what lies beside them, since they refer to
# it), wheels, constraints, certificates
pip_paths() {
    local word path
    { cat /etc/pip.conf /etc/xdg/pip/pip.conf "${PIP_CONFIG_FILE:-/dev/null}" "$HOME"/.config/pip/pip.conf \
        "$HOME"/.pip/pip.conf 2>/dev/null || true; env | grep '^PIP_' || true; } |
        grep -v '^#' | grep -oE '(https?:/|file:/)?/[^][ ,"'\'']+' |
        while read -r word; do
            case $word in
                file://*/simple | file://*/simple/) path=$(dirname "${word#file://}") ;;
                *) path=${word#file://} ;;
            esac
            if [[ $path != /dev/null && -e $path ]]; then printf '%s\n' "$path"; fi
        done | sort -u
}

clone_checkout() {
    say "The commit: $(git -C "$CHECKOUT" log -1 --format='%h %s')"
    if [[ $(git -C "$CHECKOUT" status --porcelain) ]]; then say "What is not committed is not in it."; fi
    git clone --quiet "$CHECKOUT" "$ROOT$HOME_INSIDE/lbctl" || no_root "$CHECKOUT cannot be cloned"
}

# Inside: the first process of the namespaces

# enter ROOT INIT COMMAND...: makes ROOT this mount namespace's root, then has its own bash run INIT.
enter() {
    local root=$1 init=$2 path name pairs=()
    shift 2
    trap 'exit "$NO_ROOT"' ERR
    mount --bind "$root" "$root"
    cd "$root"
    mount -t proc proc proc
    mount -t sysfs sysfs sys
    mount --rbind /dev dev
    mount -t tmpfs tmpfs dev/shm
    mount -t tmpfs -o mode=755 tmpfs run
    while read -r path; do
        if [[ -d $path ]]; then
            mkdir -p ".$path"
            mount --rbind -o ro "$path" ".$path"
        elif [[ ! -e .$path ]]; then
            install -D -m 644 "$path" ".$path"
        fi
    done < <(pip_paths)
    while read -r name; do
        if [[ $name =~ $PASSED_ON ]]; then pairs+=("$name=${!name}"); fi
    done < <(compgen -e)
    mkdir -p .outside
    pivot_root . .outside
    exec chroot . /usr/bin/env -i "${pairs[@]}" HOME="$HOME_INSIDE" USER=root LOGNAME=root SHELL=/bin/bash \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin /bin/bash -c "$init" init "$@"
}

# What the root's own bash does, as process 1: it hands signals on once, and everything else ends with it.
inside() {
    umount -l /.outside
    rmdir /.outside
    mount --make-rshared /    # as systemd has it; `ip netns` and Mininet build on that
    cd "$HOME/lbctl"
    trap 'interrupted INT' INT TERM HUP
    run "$@"
}

run_inside() {
    local status=0 init
    init="set -uo pipefail; CHILD=; INTERRUPTED_BY=; $(declare -f run interrupted inside); inside \"\$@\""
    exec 3<&0
    setsid setpriv --pdeathsig KILL env --default-signal=INT,QUIT \
        unshare --mount --propagation private --pid --fork --kill-child \
        bash "${BASH_SOURCE[0]}" --enter "$ROOT" "$init" "$@" <&3 3<&- 7>&- 9>&- &
    INSIDE=$!
    exec 3<&-
    while true; do
        status=0
        wait "$INSIDE" || status=$?
        kill -0 "$INSIDE" 2>/dev/null || break
    done
    INSIDE=
    if [[ $INTERRUPTED_BY ]]; then exit "$((128 + $(kill -l "$INTERRUPTED_BY")))"; fi
    return "$status"
}

# To the whole process group: `unshare` does not hand signals on. The command itself has a group of its own.
hand_on() {
    INTERRUPTED_BY=$1
    if [[ $INSIDE ]]; then
        kill -INT -- "-$INSIDE" 2>/dev/null || true
    elif [[ $CHILD ]]; then
        kill -INT "$CHILD" 2>/dev/null || true
    else
        exit "$((128 + $(kill -l "$1")))"
    fi
}

leave() {
    local status=$?
    trap '' INT TERM HUP
    if [[ $INSIDE ]]; then kill -KILL -- "-$INSIDE" 2>/dev/null || true; fi
    if [[ $ROOT && $status -ne 0 ]]; then cat "$ROOT"/tmp/lbctl-install-*.log >>"$LOG" 2>/dev/null || true; fi
    if [[ $ROOT && $KEEP ]]; then
        rm -f "$ROOT.lock"
        say "The root is kept: $ROOT"
    elif [[ $ROOT ]]; then
        remove_root "$ROOT"
    fi
    case $status in
        0) say "Debian $RELEASE: passed. The log: $LOG" ;;
        "$NO_ROOT") ;;
        *) say "Debian $RELEASE: failed with status $status. The log: $LOG" ;;
    esac
    exec >&- 2>&-
    wait "$TEE"    # or our last words would come after our end
    exit "$status"
}

if [[ ${1:-} == --enter ]]; then
    shift
    enter "$@"
fi
if [[ ${1:-} == --keep ]]; then
    KEEP=yes
    shift
fi
case ${1:-} in
    12) CODENAME=bookworm ;;
    13) CODENAME=trixie ;;
    *) usage ;;
esac
RELEASE=$1
shift
if [[ $# -eq 0 ]]; then set -- bash -c "$README_COMMANDS"; fi
INSIDE=
LOG=$ROOTS/lbctl-fresh-$RELEASE.log
[[ $EUID -eq 0 ]] || no_root "this needs root: run it with sudo"
: >"$LOG"
exec > >(tee -i -a "$LOG") 2>&1
TEE=$!
trap leave EXIT
trap 'hand_on INT' INT
trap 'hand_on TERM' TERM
trap 'hand_on HUP' HUP
check_host
read_host_sources
remove_leftovers
make_root
configure_root
clone_checkout
reserve_network
run_inside "$@"
