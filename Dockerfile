# glm130b for nodes with NVIDIA GPUs:
#   docker build --tag glm130b .
#   docker run --gpus all --ipc host --ulimit memlock=-1 --user "$(id -u):$(id -g)" --env HOME=/tmp \
#       --volume "$PWD/data:/workspace/data" --volume "$PWD/runs:/workspace/runs" \
#       glm130b deepspeed launch/pretrain.sh configs/glm-2b.yaml
# That is one node; on several, run it under Slurm (launch/slurm.sbatch) with this image as the container.
# The devel image has nvcc, which apex needs here and DeepSpeed's own kernels need when they are first used.
FROM pytorch/pytorch:2.13.0-cuda12.6-cudnn9-devel

ENV PIP_BREAK_SYSTEM_PACKAGES=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PYTHONDONTWRITEBYTECODE=1

# The libraries of InfiniBand's verbs: without them NCCL falls back to sockets.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git openssh-client pdsh libibverbs1 ibverbs-providers librdmacm1 \
    && rm -rf /var/lib/apt/lists/*

# NVIDIA's apex (fused kernels that Megatron-core uses when it finds them) exists as source only; the package of that name is another.
ARG APEX_COMMIT=575968bc1f9127ccd61003a681472a83af4ff1a1
# A100 and H100; there is no GPU to ask while an image is built.
ARG TORCH_CUDA_ARCH_LIST="8.0;9.0"
ARG MAX_JOBS=8
RUN git clone --filter=blob:none https://github.com/NVIDIA/apex.git /tmp/apex \
    && git -C /tmp/apex checkout "$APEX_COMMIT" \
    && pip install packaging ninja \
    && APEX_CPP_EXT=1 APEX_CUDA_EXT=1 pip install --no-build-isolation --no-deps /tmp/apex \
    && rm -rf /tmp/apex

WORKDIR /workspace
COPY . .
# The pinned versions, but for torch and setuptools: apex was built against those that the image brings.
RUN grep -vE '^(torch|setuptools)==' constraints.txt > /tmp/constraints.txt \
    && pip list --format=freeze | grep -E '^(torch|setuptools)==' >> /tmp/constraints.txt \
    && pip install --constraint /tmp/constraints.txt --editable . \
    && rm /tmp/constraints.txt

RUN useradd --create-home --uid 10001 glm \
    && mkdir data runs \
    && chown glm data runs
USER glm
CMD ["bash"]
