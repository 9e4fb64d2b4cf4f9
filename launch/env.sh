# shellcheck shell=bash
# Network settings for A100 nodes with InfiniBand, read by launch/pretrain.sh, supervised.sh and slurm.sbatch. What is set
# already stays. Before `deepspeed --hostfile ...` on several machines: . launch/env.sh (docs/clusters.md).
# Nothing here changes a result; hyper-parameters are in configs/.

# The fabric. Talk over the Mellanox adapters only; an Ethernet card with RDMA would slow every ring that passes it.
export NCCL_IB_HCA="${NCCL_IB_HCA:-mlx5}"
# Wait 4.096 us x 2^22 = 17 s for an acknowledgement, so that a link that flaps for seconds does not end the run.
export NCCL_IB_TIMEOUT="${NCCL_IB_TIMEOUT:-22}"
# Retry a lost message 7 times, the most the hardware can.
export NCCL_IB_RETRY_CNT="${NCCL_IB_RETRY_CNT:-7}"
# GPU direct: an adapter reads GPU memory itself when both hang on the same PCIe root, with no copy through the host. It
# needs the kernel module nvidia_peermem; without it NCCL copies, and says so with NCCL_DEBUG=INFO.
export NCCL_NET_GDR_LEVEL="${NCCL_NET_GDR_LEVEL:-PHB}"

# The sockets, over which the processes only find each other. NCCL leaves out lo and docker by itself and takes InfiniBand's
# own address first; gloo takes the address of the host's name. Where that is a network on which the nodes do not reach
# each other, name the right one: export NCCL_SOCKET_IFNAME=ib0 GLOO_SOCKET_IFNAME=ib0

# Who ends a job that hangs is the run itself (docs/restarts.md), by name of rank and phase; torch only comes after it.
# A communicator that has failed ends its process, whose end the others see: a hang would be the alternative.
export TORCH_NCCL_ASYNC_ERROR_HANDLING="${TORCH_NCCL_ASYNC_ERROR_HANDLING:-1}"
# torch's watchdog kills a process whose NCCL thread has stood still for 8 minutes, without a word on the phase: it waits a
# little longer than supervision.stall_seconds, half an hour.
export TORCH_NCCL_HEARTBEAT_TIMEOUT_SEC="${TORCH_NCCL_HEARTBEAT_TIMEOUT_SEC:-2100}"
# The last 2000 collectives of every rank are kept in memory.
export TORCH_FR_BUFFER_SIZE="${TORCH_FR_BUFFER_SIZE:-2000}"
# And written to TORCH_NCCL_DEBUG_INFO_TEMP_FILE when one of them times out: the rank that is one behind is the culprit.
export TORCH_NCCL_DUMP_ON_TIMEOUT="${TORCH_NCCL_DUMP_ON_TIMEOUT:-1}"
# Say why when something fails, and nothing otherwise.
export NCCL_DEBUG="${NCCL_DEBUG:-WARN}"
