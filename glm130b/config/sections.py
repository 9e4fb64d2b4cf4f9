"""What a run is: one typed section per concern, joined by ``RunConfig``.

A field without a default must be chosen by the user. Units stand in the names. Rules that span two sections live in
``rules.py``, arithmetic on a valid config in ``derived.py``.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidatorFunctionWrapHandler, field_validator
from pydantic_core import PydanticCustomError

from glm130b.config.interventions import Intervention, SkipRange
from glm130b.config.model import ModelConfig
from glm130b.config.ramp import Ramp
from glm130b.config.section import Section
from glm130b.config.stability import StabilityConfig
from glm130b.config.supervision import SupervisionConfig


class SourceConfig(Section):
    """A corpus to draw from."""

    path: str
    """Folder written by ``glm130b prepare``, or the name that a Megatron ``.bin`` and its ``.idx`` share; relative to
    the working directory."""
    weight: Ramp
    """Sampling weight in sequences, relative to the other sources of its kind."""
    held_out_share: float = Field(default=0.01, gt=0, lt=1)
    """Share of the documents, at the end, that a Megatron ``.bin`` and ``.idx`` hold out; a prepared folder has its
    own split and does not read this."""


class DataConfig(Section):
    """Where the tokens come from."""

    tokenizer: str
    """SentencePiece model file, icetk's ``ice_text.model``, or a Hugging Face ``tokenizer.json``."""
    sequence_length: int = Field(ge=16)
    """Tokens in a training row, after corruption."""
    text: dict[str, SourceConfig]
    """Self-supervised corpora by name."""
    instructions: dict[str, SourceConfig]
    """Multi-task instruction sets by name; may be empty when the instruction share is 0."""
    isolate_documents: bool = True
    """Documents in one row do not attend to each other; false attends across their boundary as the original did."""
    with_replacement: bool = False
    """Draw rows at random as the original did, so that an epoch sees 63 % of a corpus; false sees each once."""
    skip_steps: tuple[SkipRange, ...] = ()
    """Ranges of steps that are passed over, such as those after which a loss exploded."""
    workers: int = Field(default=2, ge=0)
    """Processes on each rank that build rows ahead of training; 0 builds them in the training process."""
    prefetch_batches: int = Field(default=8, ge=1)
    """Micro-batches that each worker keeps ready."""


class MaskConfig(Section):
    """[MASK]: short blanks (GLM paper, section 2.1; rates of the GLM-130B run)."""

    coverage: float = Field(default=0.15, gt=0, le=0.5)
    """Share of a sample's tokens that is blanked."""
    span_mean_tokens: float = Field(default=3.0, gt=0)
    """Mean of the Poisson law of span lengths, before truncation."""
    span_maximum_tokens: int = Field(default=39, ge=1)
    """Longest span."""
    single_span_share: float = Field(default=0.02, ge=0, le=1)
    """Share of samples with one span only."""
    short_text_share: float = Field(default=0.02, ge=0, le=1)
    """Share of samples on a shortened text."""
    short_text_minimum_tokens: int = Field(default=32, ge=1)
    """Shortest of the shortened texts; their length is uniform from here on."""
    text_tokens: int | None = Field(default=None, ge=1)
    """Tokens of text in each sample; null takes the most that leave room for every target. A larger number cuts off
    the targets that stand past the end of the sample's slot: the original had 500 in a slot of 512."""


class GmaskConfig(Section):
    """[gMASK]: the rest of the row is continued from its prefix."""

    target_minimum_share: float = Field(default=0.2, gt=0, le=1)
    """The target is uniform between this share and all of the row's text."""
    end_of_piece: bool = False
    """Close the target with [eop]; the original did not."""


class InstructionConfig(Section):
    """Prompt and answer pairs (GLM-130B paper, section 2.2)."""

    packing: Literal["fixed", "greedy"] = "fixed"
    """``fixed`` gives each pair a slot of its own, ``samples_per_row`` to a row; ``greedy`` lays as many pairs into a
    row as fit."""
    long_prompts_keep: Literal["head", "tail"] = "head"
    """Which end of a prompt stays when prompt and answer do not fit together."""


class ObjectiveConfig(Section):
    """What is predicted: shares are shares of sequences (GLM-130B paper, section 2.2)."""

    instruction_share: Ramp
    """Instruction rows among all rows; 0.05 in GLM-130B."""
    mask_share: Ramp
    """[MASK] rows among the self-supervised rows; 0.3 in GLM-130B. Those of neither share are [gMASK]."""
    smask_share: Ramp = Ramp(start=0.0, end=0.0)
    """[sMASK] rows, whose blanks are whole sentences, among the self-supervised rows; none in GLM-130B."""
    samples_per_row: int = Field(default=4, ge=1)
    """[MASK], [sMASK] and instruction samples packed into one row."""
    mask: MaskConfig = MaskConfig()
    gmask: GmaskConfig = GmaskConfig()
    instruction: InstructionConfig = InstructionConfig()


class BatchRamp(Section):
    """Batch-size warm-up: ``start``, then ``increment`` more at equal distances over the first ``over_samples``
    samples."""

    start: int = Field(ge=1)
    """Rows of the first step."""
    increment: int = Field(ge=1)
    """Rows more at each rise."""
    over_samples: int = Field(ge=1)
    """Rows of the run in which the batch grows."""


class BatchConfig(Section):
    """Rows per step."""

    micro_size: int = Field(ge=1)
    """Rows in one micro-batch of one data-parallel rank."""
    global_size: int = Field(ge=1)
    """Rows in one step of the whole job."""
    ramp: BatchRamp | None = None
    """Fewer rows at the start of the run; null has ``global_size`` from the first step on."""


class LearningRateConfig(Section):
    """Linear warm-up, then a cosine to ``minimum``, in consumed samples."""

    peak: float = Field(gt=0)
    """Reached at the end of the warm-up."""
    minimum: float = Field(ge=0)
    """Reached at the end of the cosine, and kept from there on."""
    warmup_samples: int = Field(ge=0)
    """Samples over which the rate rises from 0."""
    decay_samples: int = Field(ge=1)
    """Samples from the start of the run to the end of the cosine, warm-up included."""


class OptimizerConfig(Section):
    """AdamW, or plain SGD for numerical comparisons."""

    name: Literal["adamw", "sgd"] = "adamw"
    """``sgd`` is for numerical comparisons."""
    learning_rate: LearningRateConfig
    beta1: float = Field(default=0.9, ge=0, lt=1)
    """Decay of the first moment."""
    beta2: float = Field(default=0.95, ge=0, lt=1)
    """Decay of the second moment."""
    epsilon: float = Field(default=1e-8, gt=0)
    """Added to the root of the second moment."""
    weight_decay: float = Field(default=0.1, ge=0)
    """On matrices and embeddings; biases and LayerNorms are not decayed."""
    clip_gradient_norm: float = Field(default=1.0, gt=0)
    """Largest global gradient norm (L2, over all parameters, after unscaling)."""


class LossScaleConfig(Section):
    """Dynamic loss scale of fp16."""

    initial_power: int = Field(default=16, ge=0, le=32)
    """The first scale is 2 to this power."""
    window_steps: int = Field(default=2000, ge=1)
    """Steps without overflow before the scale doubles."""
    hysteresis: int = Field(default=2, ge=1)
    """Overflows before the scale halves."""
    minimum: float = Field(default=1.0, gt=0)
    """The scale falls no lower."""


class PrecisionConfig(Section):
    """Number format of weights and activations; master weights and Adam moments are always fp32."""

    dtype: Literal["fp32", "bf16", "fp16"]
    """bf16 where the accelerator has it; fp16 scales the loss; fp32 for a CPU and for comparisons."""
    accumulate_gradients_in_fp32: bool = True
    """Sum micro-batch gradients in fp32 (4 bytes a local parameter); false sums in ``dtype`` as the original did."""
    loss_scale: LossScaleConfig = LossScaleConfig()


class ParallelConfig(Section):
    """The grid: tensor x pipeline x data."""

    tensor: int = Field(ge=1)
    """Processes that share every layer's matrices; best within a machine."""
    pipeline: int = Field(ge=1)
    """Stages that the layers are dealt out to."""
    data: Annotated[int, Field(ge=1)] | Literal["largest"] | None = None
    """Data-parallel size; null takes what the number of processes leaves. ``largest`` takes as much of it as the batch
    can be shared out over, and the processes beyond stand by: a run goes on with the machines that are left."""
    virtual_stages: int = Field(default=1, ge=1)
    """Chunks of layers that each pipeline stage holds, interleaved over the stages; more chunks, a smaller bubble."""
    sequence_parallel: bool = False
    """Cut activations outside attention and FFN along the sequence over the tensor axis (Korthikanti et al. 2022)."""
    zero_stage: int = 1
    """1 shards the optimizer; 2 also shards gradients and needs ``pipeline: 1``. docs/layouts.md says why there is no
    other."""
    offload_optimizer: bool = False
    """Keep the fp32 master weights and the optimizer's moments in the CPU's memory, and step there."""
    embedding_and_head_count_as_layers: bool = False
    """Give the first and last stage one layer less each, as GLM-130B did: 70 layers over 8 stages are
    8,9,9,9,9,9,9,8."""
    recompute: Literal["none", "selective", "full"] = "none"
    """Activation recomputation; ``selective`` computes attention's inside again in the backward pass, ``full`` keeps
    only each layer's input."""
    reduce_bucket_elements: int = Field(default=500_000_000, ge=1)
    """Elements in one gradient-reduction bucket of ZeRO; in bf16 with gradients summed in fp32 and no offload DeepSpeed
    reduces them all at once."""

    @field_validator("data", mode="wrap")
    @classmethod
    def _one_message(cls, value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        """Not one for each kind of value that it might have been."""
        try:
            return handler(value)
        except ValidationError:
            raise PydanticCustomError("data_size", "write a whole number from 1 on, largest, or null") from None


class KernelsConfig(Section):
    """Which implementation computes what; ``auto`` takes the fastest that this machine has and the model allows."""

    attention: Literal["auto", "sdpa", "varlen", "flash_attn"] = "auto"
    """PyTorch's attention segment by segment, its variable-length flash kernel, or that of the package flash-attn."""
    norm: Literal["auto", "torch", "apex", "transformer_engine"] = "auto"
    """LayerNorm and RMSNorm."""
    pointwise: Literal["auto", "plain", "fused"] = "auto"
    """Bias + dropout + residual, the gated activation and the cross-entropy: one operation each time, or fused by
    Megatron-core's compiled kernels."""


class EvaluationConfig(Section):
    """Loss on held-out documents."""

    every_steps: int = Field(ge=1)
    """Steps between evaluations."""
    samples: int = Field(ge=1)
    """Rows evaluated each time, the same rows always."""


class CheckpointConfig(Section):
    """What survives."""

    every_steps: int = Field(ge=1)
    """Steps between checkpoints; one more is saved at the end."""
    keep_last: int | None = Field(default=5, ge=1)
    """Newest checkpoints that stay; null keeps all."""
    keep_every_steps: int | None = Field(default=None, ge=1)
    """Checkpoints of multiples of this step stay for ever."""
    asynchronous: bool = True
    """Training waits for the copy to the CPU's memory only, and the files are written meanwhile; false waits for the
    files, and needs no second copy of the rank's state."""
    retry_after_steps: int = Field(default=10, ge=1)
    """Steps until the next try when a checkpoint could not be written."""
    patience_seconds: float = Field(default=600.0, ge=0)
    """How long a start, a rewind, and a save that a process ends with wait for a file system that is gone or full."""


class LoggingConfig(Section):
    """What is measured, and where it goes besides the console and ``metrics.jsonl``."""

    wandb: Literal["online", "offline", "disabled"] = "offline"
    """Weights & Biases: sent at once, or written into the run's folder without account and network, or not at all."""
    project: str = "glm130b"
    """Weights & Biases project."""
    entity: str | None = None
    """Weights & Biases team or user; null is the default one of the account."""
    wandb_alerts: bool = True
    """Send a Weights & Biases alert for every event of the journal that a person should look at."""
    wandb_media: bool = False
    """Send pictures too: the gradient norms of the layers as a histogram."""
    tensorboard: bool = False
    """Write event files into ``tensorboard`` in the run's folder; needs the package tensorboard."""
    layers_every_steps: int = Field(default=1, ge=1)
    """Steps between records with the numbers of every layer."""
    weights_every_steps: int = Field(default=10, ge=1)
    """Steps between readings of the weights and of Adam's moments: their norms and the ratios of update to weight."""
    embedding_sides: bool = True
    """Tell the input side of the word embedding's gradient from its logit side; costs one more reduction of it over the
    data axis."""
    activations: bool = False
    """Read the scale of every layer's output."""
    peak_teraflops: float | None = Field(default=None, gt=0)
    """Peak of one accelerator in the run's number format, for MFU and HFU; null takes the known one of a known GPU."""


class RunConfig(Section):
    """A whole run. Equal configs give equal runs."""

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Folder name under ``folder``."""
    folder: str = "runs"
    """Folder of all runs, relative to the working directory."""
    seed: int = Field(default=1234, ge=0)
    """Of initial weights, data order, blanks and dropout."""
    train_samples: int = Field(ge=1)
    """Length of the run in rows."""
    initial_weights: str | None = None
    """Checkpoint folder whose weights a new run starts from, with fresh moments and counters: fine-tuning. A run that
    has a checkpoint of its own goes on from that."""
    interventions: tuple[Intervention, ...] = ()
    """Changes of learning rate and embedding gradient shrink on the way."""
    model: ModelConfig
    data: DataConfig
    objective: ObjectiveConfig
    batch: BatchConfig
    optimizer: OptimizerConfig
    precision: PrecisionConfig
    parallel: ParallelConfig
    kernels: KernelsConfig = KernelsConfig()
    evaluation: EvaluationConfig
    checkpoint: CheckpointConfig
    stability: StabilityConfig = StabilityConfig()
    supervision: SupervisionConfig = SupervisionConfig()
    logging: LoggingConfig = LoggingConfig()
