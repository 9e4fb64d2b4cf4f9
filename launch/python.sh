# shellcheck shell=bash
# Which Python the scripts of this folder run: that of the active environment, of venv or conda; else the one that
# `make setup` made.
if [ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] && [ -x "$(dirname -- "${BASH_SOURCE[0]}")/../.venv/bin/python3" ]; then
    PATH="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.venv/bin" && pwd):$PATH"
fi
