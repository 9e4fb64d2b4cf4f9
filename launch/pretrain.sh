#!/usr/bin/env bash
''':'
# The main job. This file is valid shell and valid Python:
#   deepspeed launch/pretrain.sh CONFIG [section.key=value ...]    Python runs it, once for each process
#   bash launch/pretrain.sh CONFIG [section.key=value ...]         the shell starts deepspeed on it, with enough processes
# To Python the shell's lines are a string, to the shell Python's lines are a here-document.
set -euo pipefail
here="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)"
. "$here/start.sh" deepspeed "$@"
# "--num_accelerators 8" on a machine without a GPU, where deepspeed sees one slot; nothing where it can count GPUs.
arguments="$(glm130b launcher-arguments "$@")"
if [ -n "$arguments" ]; then
    export DS_ACCELERATOR=cpu # unasked, DeepSpeed says at length that it found no other
fi
# shellcheck disable=SC2086 # the arguments are words
exec deepspeed --log_level error $arguments "$here/pretrain.sh" "$@"
: <<'# end of the Python part'
'''

from glm130b.launcher import main

if __name__ == "__main__":
    main()
# end of the Python part
