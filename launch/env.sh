# Network settings for A100 nodes with InfiniBand, read by launch/pretrain.sh and launch/slurm.sbatch. What is set already stays.
# Before `deepspeed --hostfile ...` on several machines: . launch/env.sh (deepspeed hands every NCCL_ variable on).
# Nothing here changes a result; hyper-parameters are in configs/.

# Talk over the Mellanox adapters only; an Ethernet card with RDMA would slow every ring that passes through it.
export NCCL_IB_HCA="${NCCL_IB_HCA:-mlx5}"
# Wait 4.096 us x 2^22 = 17 s for an acknowledgement, so that a link that flaps for seconds does not end the run.
export NCCL_IB_TIMEOUT="${NCCL_IB_TIMEOUT:-22}"
# Retry a lost message 7 times, the most the hardware can.
export NCCL_IB_RETRY_CNT="${NCCL_IB_RETRY_CNT:-7}"
# Let an adapter read GPU memory when both hang on the same PCIe root: no copy through the host.
export NCCL_NET_GDR_LEVEL="${NCCL_NET_GDR_LEVEL:-PHB}"
# Say why when something fails, and nothing otherwise.
export NCCL_DEBUG="${NCCL_DEBUG:-WARN}"
