#!/usr/bin/env bash
# The main job on this machine under torchrun's agent, which starts it again when a process has failed:
#   bash launch/supervised.sh CONFIG [section.key=value ...]
# Several machines: the same on each of them, with
#   GLM130B_NODES=48:98                     at least and at most so many machines; those that it has no use for stand by
#   GLM130B_MEETING_POINT=node-001:29400    one of them
# With fewer machines the layout must allow it: parallel.data=largest.
set -euo pipefail
here="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)"
. "$here/start.sh" torchrun "$@"
# A mistake in the config or a missing file ends here, before an agent would try again and again.
processes="$(glm130b launcher-arguments --launcher torchrun "$@")"
if [ -n "${GLM130B_MEETING_POINT:-}" ]; then
    meeting="--nnodes ${GLM130B_NODES:-1} --rdzv-backend c10d --rdzv-endpoint $GLM130B_MEETING_POINT --rdzv-id ${GLM130B_JOB:-glm130b}"
else
    meeting="--standalone"
fi
# A process that is asked to end saves first; the agent would kill it after 30 s.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT="${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-300}"
# shellcheck disable=SC2086 # both are words
exec torchrun $processes $meeting --max-restarts "${GLM130B_RESTARTS:-10}" --monitor-interval 1 "$here/pretrain.sh" "$@"
