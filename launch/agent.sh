#!/usr/bin/env bash
# One agent for all processes of a node, started once on every node by launch/slurm.sbatch with GLM130B_AGENT:
#   bash launch/agent.sh torchrun|deepspeed CONFIG [section.key=value ...]
# It ends with the run's own status (docs/restarts.md), as the processes do where srun starts them.
set -euo pipefail
agent="$1"
shift
# Slurm warns every process of the step: those of the run save, the agent and this script have nothing to save.
trap '' USR1
# Who is asked to end while the agent still ends its processes waits for it.
trap : TERM

status=0
case "$agent" in
torchrun)
    # A file that is missing at the first start ends it here with 2; one that is missing later may come back.
    if [ "$SLURM_NODEID" -eq 0 ] && [ "${SLURM_RESTART_COUNT:-0}" -eq 0 ]; then
        glm130b launcher-arguments --launcher torchrun "$@" >/dev/null
    fi
    # It starts nothing again: Slurm does, and looks at the nodes first.
    torchrun --nnodes "$SLURM_JOB_NUM_NODES" --node-rank "$SLURM_NODEID" --nproc-per-node "$GLM130B_PROCESSES_PER_NODE" \
        --master-addr "$MASTER_ADDR" --master-port "$MASTER_PORT" --max-restarts 0 --monitor-interval 1 \
        launch/pretrain.sh "$@" supervision.requeue_status=0 || status=$?
    # It ends with 0 or 1 whatever its processes end with; the first node, the run's own, says which it was.
    if [ "$SLURM_NODEID" -eq 0 ]; then
        python3 launch/torchrun_status.py "$status" "$((SLURM_JOB_NUM_NODES * GLM130B_PROCESSES_PER_NODE))" "$@" || status=$?
    fi
    ;;
deepspeed)
    hostfile="$(mktemp)"
    trap 'rm -f "$hostfile"' EXIT
    while read -r host; do
        echo "$host slots=$GLM130B_PROCESSES_PER_NODE"
    done <<<"$GLM130B_HOSTS" >"$hostfile"
    deepspeed --log_level error --hostfile "$hostfile" --no_ssh --node_rank "$SLURM_NODEID" \
        --master_addr "$MASTER_ADDR" --master_port "$MASTER_PORT" launch/pretrain.sh "$@" || status=$?
    ;;
esac
# An agent that a signal ended, since another one's processes have ended: srun tells the highest status, and that is to
# be theirs.
if [ "$status" -gt 128 ]; then
    status=1
fi
exit "$status"
