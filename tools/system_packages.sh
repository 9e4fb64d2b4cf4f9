#!/usr/bin/env bash
# The programs outside Python that some of the long tests use: Slurm and munge (tests/cluster) and Chromium (the report's
# and the dashboard's pages). Debian and Ubuntu, as root; elsewhere it says what it leaves out, and those tests say so too.
set -euo pipefail

missing=()
need() { # need PROGRAM PACKAGE
    PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null || missing+=("$2")
}
need slurmctld slurm-wlm
need munged munge
need chromium chromium

if [ "${#missing[@]}" -eq 0 ]; then
    echo "system packages: all are here"
elif ! command -v apt-get >/dev/null; then
    echo "system packages: no apt-get here, so these are left out: ${missing[*]}"
elif [ "$(id -u)" -ne 0 ]; then
    echo "system packages: only root can install them, so these are left out: ${missing[*]}"
else
    export DEBIAN_FRONTEND=noninteractive
    # No daemon of theirs is started: the tests start their own, with their own files.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
        trap 'rm -f "$policy"' EXIT
    fi
    if apt-get update --quiet --quiet && apt-get install --quiet --quiet --yes --no-install-recommends "${missing[@]}"; then
        echo "system packages: installed ${missing[*]}"
    else
        echo "system packages: could not be installed, so these are left out: ${missing[*]}"
    fi
fi
