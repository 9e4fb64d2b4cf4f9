# shellcheck shell=bash disable=SC2154,SC1091 # "here" is the folder that the including script has found
# What pretrain.sh and supervised.sh begin with: `. "$here/start.sh" LAUNCHER [CONFIG ...]` finds the environment, answers --help and
# refuses options, since they choose the launcher's themselves.
launcher="$1"
shift

. "$here/python.sh"
if ! command -v "$launcher" >/dev/null; then
    echo "glm130b: error: $launcher is not on PATH; run make setup, or activate the environment that has it" >&2
    exit 2
fi
case "${1:-}" in
"" | -h | --help) exec python3 "$here/pretrain.sh" "$@" ;;
-*)
    echo "glm130b: error: $1: the bash form takes CONFIG first and chooses the launcher's options itself; to give your own: $launcher $1 ... $here/pretrain.sh CONFIG" >&2
    exit 2
    ;;
esac

. "$here/env.sh"
