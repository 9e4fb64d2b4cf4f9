# shellcheck shell=bash
# Network settings for A100 nodes with InfiniBand, read by `bash launch/pretrain.sh`, supervised.sh and slurm.sbatch. What
# is set already stays. Before `deepspeed` or `torchrun` on several machines: . launch/env.sh (docs/clusters.md).
# Nothing here changes a result; hyper-parameters are in configs/.

# The fabric. Talk over Mellanox adapters only. The name takes those in Ethernet mode too, which would slow every ring
# that passes them: where a node has such, export NCCL_IB_HCA="=mlx5_0,mlx5_1", these and no others.
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
# Of these `deepspeed --hostfile` hands on NCCL's alone; there also: echo GLOO_SOCKET_IFNAME=ib0 >>.deepspeed_env

# Say why when something fails, and nothing otherwise.
export NCCL_DEBUG="${NCCL_DEBUG:-WARN}"
