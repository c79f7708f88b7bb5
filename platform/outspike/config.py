"""Settings of every stage as plain frozen dataclasses; nothing heavy is imported here.

Jobs take a recipe (:mod:`outspike.recipes`) and dotted overrides, resolve them into one of these
objects, check it, and store it as JSON beside what they made.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from outspike.errors import ConfigError
from outspike.timebase import SnippetGrid

# --------------------------------------------------------------------------- data and encoders


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which recordings: a data set by name, where its files lie, and which split of it."""

    dataset: str = "miniature"
    """Name of a data set known to ``outspike datasets``, or ``folder`` for your own files."""
    root: str = "outspike-data/miniature"
    """Local folder or s3:// prefix that holds the recordings."""
    split: str = "official"
    """Named split of that data set."""
    clips_root: str | None = None
    """Root of the clips that ``surv_fight_long`` is joined from, where its own root is empty."""


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """One encoder: which, on which grid, and the settings only it has."""

    kind: Literal[
        "event-pyramid",
        "frame-pyramid",
        "frame-motion",
        "clip",
        "event-clip",
        "spikingformer",
        "gesture-cnn",
        "i3d-rgb",
        "i3d-flow",
        "i3d-combine",
    ] = "event-pyramid"
    grid: SnippetGrid = field(default_factory=SnippetGrid)
    weights: str | None = None
    """Pretrained weights: a checkpoint file; for clip and event-clip also a local folder or a hub
    id. Encoders without weights of their own take none."""
    flow_weights: str | None = None
    """Weights of the flow network, beside those of RGB (i3d-combine)."""
    crops: Literal["centre", "ten", "whole"] = "centre"
    """``whole`` squashes the frame into one picture (i3d)."""
    scale: Literal["unit", "raw255"] = "unit"
    """Pixel values in [-1, 1], or left at 0..255 as for the published LAD features (i3d)."""
    flow: Literal["xy", "xx"] = "xy"
    """``xx`` puts the horizontal flow into both channels, as the published LAD features (i3d)."""
    event_threshold: float = 10.0
    """Change of luma (0 to 255) that counts as an event (event-clip)."""
    steps_per_snippet: int | None = None
    """Time steps a snippet is cut into; None takes one a frame (spikingformer, gesture-cnn)."""
    chunk_steps: int = 100
    """Rows after which the neurons forget (spikingformer with ``compat="msf_2025"``)."""
    compat: Literal["ief_vad_2025", "msf_2025"] | None = None
    """Published extraction. ``ief_vad_2025``: its crops, scaling and tail (clip, event-clip);
    ``msf_2025``: one time step a snippet, neurons that remember (spikingformer)."""
    device: str = "cpu"
    threads: int = 1
    """CPU threads of one forward pass, fixed so that a row's bits do not depend on the host's."""


@dataclass(frozen=True, kw_only=True)
class StoreConfig:
    """Address of a feature store and, for readers, the catalog version that pins its rows."""

    url: str = "outspike-data/store"
    version: int | None = None
    """Catalog version; None means the newest at the time the job starts, which is then recorded."""
    recordings_version: int | None = None
    """Version of the recordings table (labels, splits); None likewise."""
    single_writer: bool = False
    """A store made now commits by plain puts, one writer at a time: for servers without conditional
    puts (OpenStack Swift). One that is there keeps the mode it was made in."""


@dataclass(frozen=True, kw_only=True)
class ExtractConfig:
    """``jobs/extract.py``: recordings in, feature rows out."""

    data: DataConfig = field(default_factory=DataConfig)
    store: StoreConfig = field(default_factory=StoreConfig)
    encoders: tuple[EncoderConfig, ...] = (EncoderConfig(),)
    num_actors: int = 1
    """Encoder actors; each decodes, encodes and writes whole recordings."""
    max_actors: int | None = None
    """Upper bound for autoscaling; None means ``num_actors``."""
    cpus_per_actor: float = 0.5
    gpus_per_actor: float = 0.0
    commit_every_s: float = 5.0
    segment_bytes: int = 64_000_000
    segment_seconds: float = 30.0
    decode_timeout_s: float = 3600.0
    """Wall-clock limit for decoding one recording in its child process."""
    decode_memory_mb: int = 4096
    check_sample: bool = True
    """Compare features of the bundled sample with the store's reference before anything else."""
    sample_min_cosine: float = 0.999
    """Of that comparison: the smallest cosine of any row."""
    sample_max_abs: float = 0.05
    """Of that comparison: the largest difference, as a share of the reference's largest value."""
    max_bad_share: float = 0.1
    """Share of quarantined inputs above which the job exits with 3."""
    retry_quarantined: bool = False
    """Try recordings again that an earlier run quarantined."""
    only_quarantined: bool = False
    """Try these alone; what ``outspike extract retry`` does."""
    only: tuple[str, ...] = ()
    """Look at these recordings alone: ids, or patterns such as ``Test0*`` or ``ucsd_ped2/*``."""
    shuffle_seed: int | None = None
    """Extract in an order shuffled by this seed, so that a ``limit`` takes a fair sample."""
    limit: int | None = None
    """Extract at most this many recordings."""
    num_cpus: int | None = None
    """CPUs of a local Ray; ignored on a cluster."""
    dry_run: bool = False
    """Say what would be done, how much it is and how long it takes, and stop."""

    def __post_init__(self) -> None:
        names = [encoder.kind for encoder in self.encoders]
        if not names or len(set(names)) != len(names):
            raise ConfigError(f"encoders={names}: name at least one, and each kind once.")
        if self.num_actors < 1 or (self.max_actors or self.num_actors) < self.num_actors:
            raise ConfigError(
                f"num_actors={self.num_actors}, max_actors={self.max_actors}: need "
                "1 <= num_actors <= max_actors."
            )
        if not 0 <= self.max_bad_share <= 1:
            raise ConfigError(f"max_bad_share={self.max_bad_share}: a share lies in [0, 1].")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"limit={self.limit}: extract at least one recording.")


# --------------------------------------------------------------------------------- detectors

Compat = Literal["msf_2025", "ief_vad_2025", "gv_vad_2025"]


@dataclass(frozen=True, kw_only=True)
class SslsConfig:
    """Synthetic-sample loss scaling (``gv_vad_ssls.md`` section 4.3): one weight per bag."""

    mode: Literal["off", "unweighted", "per_sample", "batch_scalar"] = "per_sample"
    """``off``: no generated bag is trained on (a run that asks for some is refused).
    ``unweighted``: they count like real ones, which is what weight 1 gives. ``per_sample``: each
    has its weight in every loss term. ``batch_scalar``: the published arithmetic, one factor on the
    whole cost, for parity."""
    policy: Literal["fixed", "schedule", "learned"] = "fixed"
    scale: float = 1.0
    """Weight of a synthetic bag (fixed), peak (schedule), or upper bound (learned)."""
    schedule: str | None = None
    """``<warmup>_<decay>``, for the policy of that name; the published arithmetic also multiplies a
    learned scale by it."""
    normalise: Literal["count", "weight"] = "count"
    isolate_stats: bool = False
    """Keep synthetic bags out of batch statistics, thresholds and rankings."""
    learned_lr_factor: float = 1.0
    """Learning rate of a learned scale, as a multiple of the network's."""

    def __post_init__(self) -> None:
        if self.policy == "schedule" and self.schedule is None:
            raise ConfigError("ssls.policy='schedule' needs ssls.schedule, such as linear_cosine.")
        if self.policy == "learned" and self.schedule is not None and self.mode == "per_sample":
            raise ConfigError(
                f"ssls.policy='learned' with ssls.schedule={self.schedule!r}: a learned scale sets "
                "itself; only mode 'batch_scalar', the published form, multiplies both."
            )
        if self.learned_lr_factor <= 0:
            raise ConfigError(f"ssls.learned_lr_factor={self.learned_lr_factor}: must be positive.")


@dataclass(frozen=True, kw_only=True)
class MsfConfig:
    """Multi-scale spiking fusion detector (``ucf_crime_dvs_msf.md``)."""

    kind: Literal["msf"] = "msf"
    feature_set: str = "event-pyramid"
    width: int = 256
    """Feature width ``D`` of the input; checked against the store."""
    hidden: int = 64
    """Channels of each of the four branches; inputs not 4 x hidden wide are projected first."""
    dropout: float = 0.8
    tau: float = 1.6
    mil_divisor: int = 4
    """k of the top-k MIL loss: ceil(snippets / mil_divisor) highest scores of a bag count."""
    mil_unit: Literal["snippet", "bag"] = "snippet"
    """``snippet``: every chosen score counts once, so long bags weigh more; ``bag``: the mean over
    a bag's chosen scores counts once."""
    smooth_weight: float = 80.0
    window: int | None = None
    """Snippets scored together; longer bags are scored in windows that overlap by half. None scores
    any bag whole. Training sees whole bags."""
    members: int = 1
    """Detectors trained side by side from initial weights of their own; scores are averaged."""
    input_norm: Literal["none", "standardise"] = "none"
    """``standardise`` fits mean and deviation of every feature on the training bags."""
    input_clip: float | None = None
    """Standardised features are kept within this many deviations of the mean."""
    compat: Literal["msf_2025"] | None = None


@dataclass(frozen=True, kw_only=True)
class IefVadConfig:
    """Uncertainty-weighted fusion of frame and event features (``ief_vad.md``)."""

    kind: Literal["ief_vad"] = "ief_vad"
    image_set: str = "frame-pyramid"
    event_set: str = "event-pyramid"
    image_width: int = 768
    event_width: int = 768
    width: int = 768
    num_layers: int = 2
    num_heads: int = 8
    refinement_steps: int = 10
    refinement_rate: float = 0.5
    noise_model: Literal["gaussian", "student_t"] = "student_t"
    nu: float = 8.0
    epsilon: float = 1e-8
    attention_dropout: float = 0.1
    reg_weight: float = 1.0
    kl_weight: float = 1.0
    window: int = 256
    """Snippets attended to at once; longer bags are scored in windows that overlap by half."""
    members: int = 1
    """Detectors trained side by side from initial weights of their own; scores are averaged."""
    input_norm: Literal["none", "standardise"] = "none"
    """``standardise`` fits mean and deviation of every feature on the training bags."""
    input_clip: float | None = None
    """Standardised features are kept within this many deviations of the mean."""
    compat: Literal["ief_vad_2025"] | None = None


@dataclass(frozen=True, kw_only=True)
class SaaConfig:
    """Snippet anomalous attention (``snippet_anomalous_attention.md``)."""

    kind: Literal["saa"] = "saa"
    feature_set: str = "i3d-rgb"
    width: int = 1024
    """Feature width ``D`` of the input; widths that are no multiple of 8 are projected to one."""
    audio_set: str | None = None
    """Audio features beside the visual ones (XD-Violence)."""
    audio_width: int = 128
    audio_fusion: Literal["concat", "temporal_conv"] = "concat"
    """Audio joins as it is, or after a convolution over three snippets and a rectifier."""
    bias: bool = True
    """Biases of the convolutions; False is the authors' MindSpore graph."""
    attention_width: int = 512
    classifier_widths: tuple[int, int] = (512, 128)
    """Inner layers of the attention and of the classifier."""
    dropout: float = 0.7
    classification: Literal["topk", "snippet"] = "topk"
    """A bag's label judges the mean of its highest scores, or every snippet by itself."""
    reduction: Literal["mean", "literal"] = "mean"
    """Norm and sparsity are means over time, or the sums that the paper writes."""
    epsilon: float = 0.2
    """Attention below this share of its range is suppressed in the suppressed branches."""
    alpha: float = 0.8
    """Share of the plain branches in the classification loss; the suppressed ones get the rest."""
    norm_weight: float = 0.8
    smooth_weight: float = 0.01
    guide_steps: int = 400
    """Steps in which attention follows the scores; afterwards it follows scores above 0.5."""
    input_norm: Literal["none", "standardise"] = "none"
    """``standardise`` fits mean and deviation of every feature on the training bags."""
    input_clip: float | None = None
    """Standardised features are kept within this many deviations of the mean."""
    compat: Literal["saa_2024"] | None = None


@dataclass(frozen=True, kw_only=True)
class AedConfig:
    """ConvLSTM classification and frame regression, one layer or two (``lad2000_aed.md``)."""

    kind: Literal["aed", "aed_t"] = "aed_t"
    feature_set: str = "i3d-rgb"
    width: int = 1024
    """Feature width ``D`` of the input; widths that are no multiple of 16 are projected to one."""
    window: int = 5
    """Snippets that the network sees at once (``max_seqlen``)."""
    frames_per_snippet: int = 16
    """Frame scores that each snippet gets; longer snippets are refused."""
    hidden: int = 128
    """Channels of the recurrent state."""
    down: int = 1024
    head: int = 512
    """Widths of the layer after the recurrence and of the inner layer of each head."""
    classes: tuple[str, ...] = ()
    """Class names of the recordings, in the order of the outputs; empty means normal, anomalous."""
    class_weight: float = 1.0
    frame_weight: float = 10.0
    input_norm: Literal["none", "standardise"] = "none"
    """``standardise`` fits mean and deviation of every feature on the training bags."""
    input_clip: float | None = None
    """Standardised features are kept within this many deviations of the mean."""
    compat: Literal["lad2000"] | None = None


@dataclass(frozen=True, kw_only=True)
class GvVadConfig:
    """Temporal context of frames and captions, taught by anomaly prompts (``gv_vad_ssls.md``)."""

    kind: Literal["gv_vad"] = "gv_vad"
    feature_group: Literal["both", "vis", "text"] = "both"
    """Streams that are read; the prompt losses need captions."""
    visual_set: str = "clip"
    text_set: str = "captions"
    """Sentence embeddings, one row a snippet and one crop."""
    visual_width: int = 768
    text_width: int = 768
    fusion: Literal["concat", "add", "product", "add_up"] = "concat"
    """How two streams become one; the widths of the sums are those of the text (``add``,
    ``product``) or of both together (``add_up``)."""
    text_aggregation: bool = True
    """Give captions a temporal block of their own; without it they are fused as they are."""
    hidden: int = 512
    """Width of the scoring head, then a quarter of it."""
    dropout: float = 0.7
    topk_divisor: int = 10
    """The ``max(1, snippets // topk_divisor)`` snippets of largest magnitude stand for a bag."""
    prompt_bank: str | None = None
    """File of embedded anomaly phrases, which every worker sees: training compares captions with
    them, scoring does not need it."""
    normal_weight: float = 1.0
    anomalous_weight: float = 1.0
    """Weight of a bag of that label in the classification term."""
    magnitude_weight: float = 1e-4
    magnitude_margin: float = 100.0
    smooth_weight: float = 8e-4
    """Of the squared steps of an anomalous bag's scores, mean over bags (published: their sum)."""
    sparse_weight: float = 8e-3
    """Of the length of an anomalous bag's score vector, mean over bags (published: one vector)."""
    pal_weight: float = 1e-3
    mpl_weight: float = 0.1
    """Applied once; the published form squares it."""
    mpl_margin: float = 1.0
    input_norm: Literal["none", "standardise"] = "none"
    """``standardise`` fits mean and deviation of every feature on the training bags."""
    input_clip: float | None = None
    """Standardised features are kept within this many deviations of the mean."""
    published_segments: int = 32
    """Segments that the published code believes a bag has: k is a tenth of it (``compat`` only)."""
    compat: Literal["gv_vad_2025"] | None = None


@dataclass(frozen=True, kw_only=True)
class MotionFloorConfig:
    """The floor under every results table: frame differences and no learning to speak of."""

    kind: Literal["motion_floor"] = "motion_floor"
    feature_set: str = "frame-motion"
    form: Literal["normal_deviation", "logistic"] = "normal_deviation"
    """``normal_deviation``: per-cell z-scores (Ped2); ``logistic``: clip statistics (fights)."""


DetectorConfig = MsfConfig | IefVadConfig | SaaConfig | AedConfig | GvVadConfig | MotionFloorConfig


# ---------------------------------------------------------------------------------- training


@dataclass(frozen=True, kw_only=True)
class WindowConfig:
    """How a training bag of any length becomes at most ``length`` rows."""

    rule: Literal["all", "uniform", "crop", "msf_2025", "mean_bins", "mean_segments"] = "uniform"
    """``all`` keeps every row; ``uniform`` draws one row a bin; ``crop`` takes neighbouring rows,
    which hold an anomalous frame where frame labels say that the bag has one; the others are
    published rules, of which ``mean_segments`` makes exactly ``length`` rows of any bag."""
    length: int = 64


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Optimiser and schedule."""

    optimiser: Literal["adam", "adamw", "sgd"] = "adamw"
    lr: float = 1e-3
    weight_decay: float = 1e-2
    schedule: Literal["constant", "cosine", "multistep"] = "constant"
    milestones: tuple[int, ...] = ()
    """Steps at which ``multistep`` multiplies the rate by ``gamma``."""
    gamma: float = 0.1
    momentum: float = 0.0
    """Of ``sgd``."""
    clip_norm: float | None = None
    """Largest norm of the gradient over all parameters; None leaves it alone."""

    def __post_init__(self) -> None:
        if self.lr <= 0 or self.weight_decay < 0:
            raise ConfigError(f"lr={self.lr}, weight_decay={self.weight_decay}: need > 0 and >= 0.")
        if (self.schedule == "multistep") != bool(self.milestones):
            raise ConfigError(
                f"optim.milestones={self.milestones} with schedule={self.schedule!r}: milestones "
                "belong to schedule 'multistep', and it needs at least one."
            )


@dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """How a step is computed; nothing here changes what is learnt by more than rounding."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """``bfloat16``: layers compute in it (autocast), while weights, batch statistics, losses and
    optimiser stay in float32. Worth it on GPUs; CPUs without such units are slower with it."""
    compile: bool = False
    """Compile the detector with ``torch.compile``; CPU workers need a C++ compiler."""
    accumulate: int = 1
    """Pieces that a worker takes its bags in. More save memory and cost a forward pass; gradients
    are those of the whole. Refused where bags of a batch meet: batch statistics, rankings."""
    prefetch: int = 0
    """Batches that a thread reads ahead while a step is computed."""
    pin_memory: bool = False
    """Hand batches to the GPU through pinned memory; needs ``gpus_per_worker``."""

    def __post_init__(self) -> None:
        if self.accumulate < 1 or self.prefetch < 0:
            raise ConfigError(
                f"compute.accumulate={self.accumulate}, compute.prefetch={self.prefetch}: need "
                "at least 1 piece and no negative number of batches."
            )


@dataclass(frozen=True, kw_only=True)
class SelectionConfig:
    """Which step's weights are kept, and what chooses it: never the test split by default."""

    split: Literal["last", "holdout", "cross_validation", "test"] = "last"
    """``last`` selects nothing. ``holdout`` keeps the best step on ``share`` of training groups.
    ``cross_validation`` finds the best step over ``num_folds`` folds of the training groups, then
    trains on all of them up to it. ``test`` is an oracle, for ``*-test-selected`` protocols only.
    """
    share: float = 0.2
    num_folds: int = 5
    metric: str = "video_auc"
    """A metric of :mod:`outspike.evaluate`; frame metrics need annotated intervals in training."""
    every_steps: int = 50
    """Steps between evaluations."""

    def __post_init__(self) -> None:
        if not 0 < self.share < 1 or self.num_folds < 2 or self.every_steps < 1:
            raise ConfigError(
                f"selection: share={self.share}, num_folds={self.num_folds}, "
                f"every_steps={self.every_steps}; need 0 < share < 1, >= 2 folds and >= 1 step."
            )


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """``jobs/train.py``: a detector, the features it reads, and how it learns."""

    name: str = "msf-miniature"
    """Registered model name, and prefix of the run's name."""
    data: DataConfig = field(default_factory=DataConfig)
    store: StoreConfig = field(default_factory=StoreConfig)
    detector: DetectorConfig = field(default_factory=MsfConfig)
    encoders: tuple[EncoderConfig, ...] = (EncoderConfig(),)
    """Encoders whose features are read; a bundle carries them so that it can score raw video."""
    window: WindowConfig = field(default_factory=WindowConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    ssls: SslsConfig = field(default_factory=SslsConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    protocol: str = "miniature"
    """Evaluation protocol the model is meant for."""
    steps: int = 200
    bags_per_batch: int = 16
    """Global batch ``B``: half normal, half anomalous, shared by however many workers there are."""
    synthetic_per_batch: int = 0
    """How many of those bags are generated ones."""
    num_workers: int = 1
    """Ray Train workers that share each batch; 0 trains in this process, without Ray."""
    min_workers: int | None = None
    """Go on with as few as this while nodes are lost, and with more when they come back; None waits
    for all. Batches, their order and the learning rate are the same for any number."""
    cpus_per_worker: float = 1.0
    gpus_per_worker: float = 0.0
    num_cpus: int | None = None
    """CPUs of a local Ray; ignored on a cluster."""
    shard_cache: str | None = None
    """Folder on each node where workers keep the features of a store on S3, fetched once and mapped
    by all of them; None is ``outspike/shards`` in the user's cache folder."""
    shard_cache_gb: float = 20.0
    """What that folder may hold; features that need more are read from S3 each time, as with 0."""
    checkpoint_every: int = 50
    """Steps between checkpoints; the last step always gets one."""
    log_every: int = 10
    """Steps between lines of the run's log; each is the mean over the steps since the last."""
    max_failures: int = 3
    """How often lost workers are replaced before the run gives up."""
    stall_after_s: float = 120.0
    """Seconds in which no worker moves on before the log names the one that is behind."""
    collective_timeout_s: float = 900.0
    """Seconds that workers wait for each other before they are replaced."""
    seed: int = 0
    storage: str = "outspike-data/runs"
    """Checkpoints and run state: local folder or s3:// prefix."""
    tracking_uri: str = "sqlite:///mlflow.db"
    resume: str | None = None
    """Name of a run below ``storage`` to go on with."""
    dry_run: bool = False
    """Say what would be trained on, from the catalog, and stop."""

    def __post_init__(self) -> None:
        if self.bags_per_batch < 2 or self.bags_per_batch % 2:
            raise ConfigError(f"bags_per_batch={self.bags_per_batch} must be even: two halves.")
        if self.ssls.mode == "off" and self.synthetic_per_batch:
            raise ConfigError(
                f"ssls.mode='off' trains on no generated bag, synthetic_per_batch="
                f"{self.synthetic_per_batch} asks for some: set it to 0, or ssls.mode='unweighted' "
                "to let them count like real ones."
            )
        half = self.bags_per_batch // 2
        if not 0 <= self.num_workers <= half:
            raise ConfigError(
                f"num_workers={self.num_workers}: bags_per_batch={self.bags_per_batch} gives "
                f"{half} bags a half, and each worker needs one of either; lower num_workers, or "
                "raise bags_per_batch."
            )
        fewest = 1 if self.min_workers is None else self.min_workers
        if not 1 <= fewest <= max(1, self.num_workers):
            raise ConfigError(
                f"min_workers={self.min_workers}: need 1 <= min_workers <= num_workers="
                f"{self.num_workers}."
            )
        share = 2 * (half // max(1, self.num_workers))
        if self.compute.accumulate > share:
            raise ConfigError(
                f"compute.accumulate={self.compute.accumulate}: a worker may hold only {share} of "
                f"the {self.bags_per_batch} bags, which make at most as many pieces."
            )
        if not 0 < self.stall_after_s < self.collective_timeout_s:
            raise ConfigError(
                f"stall_after_s={self.stall_after_s}, collective_timeout_s="
                f"{self.collective_timeout_s}: a standstill is told of before it is ended."
            )
        if self.compute.pin_memory and not self.gpus_per_worker:
            raise ConfigError(
                "compute.pin_memory=True helps copies to a GPU only; set gpus_per_worker, or leave "
                "it out."
            )
        if self.shard_cache_gb < 0:
            raise ConfigError(f"shard_cache_gb={self.shard_cache_gb} must not be below 0.")
        numbers = {name: getattr(self, name) for name in ("steps", "checkpoint_every", "log_every")}
        if min(numbers.values()) < 1:
            raise ConfigError(f"{numbers}: each must be at least 1.")


# ------------------------------------------------------------------------------------ search


@dataclass(frozen=True, kw_only=True)
class TuneConfig:
    """``jobs/tune.py``: a training to vary, what to vary, and how long."""

    name: str = "search"
    """Of the search; the same command again goes on with it."""
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(selection=SelectionConfig(split="holdout"))
    )
    """What every trial starts from."""
    space: tuple[str, ...] = ("optim.lr=log:1e-4:1e-1",)
    """``FIELD=log:LOW:HIGH``, ``uniform:LOW:HIGH``, ``int:LOW:HIGH`` or ``choice:A,B,C``, with the
    dotted name of a training setting; ``FIELD,FIELD=cases:A,B|C,D`` varies settings together, and
    ``... when FIELD=A|B`` varies one only where another has these values. With ``seed`` among them,
    results are gathered over the seeds."""
    num_trials: int = 16
    """At most; with ``pbt`` the members of the population."""
    hours: float | None = None
    """Draw no trial after so many hours; those that run then are finished."""
    patience: int | None = None
    """Draw no trial after so many in a row that were no better than the best."""
    sampler: Literal["tpe", "random", "grid", "pbt"] = "tpe"
    """``grid`` goes through every combination of ``choice`` and ``cases``, whatever
    ``num_trials`` says. ``pbt`` trains a population whose worst quarter takes over weights and
    varied settings of the best every ``grace_steps``."""
    early_stop: bool = True
    """Stop trials that are behind at an evaluation (ASHA)."""
    grace_steps: int = 50
    """Steps that every trial is given before it may be stopped."""
    max_concurrent: int = 2
    cpus_per_trial: float = 1.0
    num_cpus: int | None = None
    """CPUs of a local Ray; ignored on a cluster."""
    seed: int = 0
    confirm_seeds: int = 0
    """Train the best configuration again with this many seeds, and report their mean."""
    resume: bool = False
    """Go on with the search of that name under the settings it was started with."""
    dry_run: bool = False
    """Say what would be searched, and stop."""

    def __post_init__(self) -> None:
        if self.num_trials < 1 or self.max_concurrent < 1:
            raise ConfigError(
                f"num_trials={self.num_trials}, max_concurrent={self.max_concurrent}: at least 1."
            )
        if not (self.hours is None or self.hours > 0) or not (
            self.patience is None or self.patience >= 1
        ):
            raise ConfigError(
                f"hours={self.hours}, patience={self.patience}: above 0, or leave them out."
            )
        if self.train.selection.split not in ("holdout", "cross_validation"):
            raise ConfigError(
                f"train.selection.split={self.train.selection.split!r}: a search needs held-out "
                "training recordings to compare trials; use 'holdout' or 'cross_validation'."
            )


# --------------------------------------------------------------------------------- predicting


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """``jobs/predict.py``: a model and recordings in; tables, curves and overlays out."""

    model: str = "models:/miniature@champion"
    """``models:/NAME@champion``, ``models:/NAME/VERSION``, ``NAME`` for its newest version, or the
    folder or s3:// prefix of a bundle."""
    input: str = "outspike-data/miniature/unseen"
    """A recording, a folder, or an s3:// prefix."""
    out: str = "predictions"
    """Folder (on a cluster, one that every node sees) or s3:// prefix for ``<video_id>.csv``,
    ``.json``, ``.png`` and ``.mp4``."""
    threshold: float = 0.5
    """Snippets scored at least this form the intervals of the ``.json``."""
    overlay: bool = True
    """Write ``.mp4``, the recording with its score drawn under it."""
    tracking_uri: str = "sqlite:///mlflow.db"
    num_actors: int | None = None
    """Ray actors; None scores a few recordings in this process and more of them with two actors."""
    cpus_per_actor: float = 0.5
    gpus_per_actor: float = 0.0
    decode_timeout_s: float = 3600.0
    decode_memory_mb: int = 4096
    max_bad_share: float = 0.1
    """Share of inputs that cannot be scored above which the job exits with 3."""
    dry_run: bool = False
    """Say what would be scored by which model, and stop."""

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise ConfigError(f"threshold={self.threshold}: scores lie in [0, 1].")
        if not 0 <= self.max_bad_share <= 1:
            raise ConfigError(f"max_bad_share={self.max_bad_share}: a share lies in [0, 1].")
        if self.num_actors is not None and self.num_actors < 1:
            raise ConfigError(f"num_actors={self.num_actors}: at least one, or leave it out.")


# -------------------------------------------------------------------------------- evaluation


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """``jobs/evaluate.py``: a model in; figures with intervals and the HTML report out."""

    model: str = "models:/miniature@champion"
    """``models:/NAME@champion``, ``models:/NAME/VERSION``, or a bundle folder."""
    protocol: str | None = None
    """Evaluation rule; None takes the one the model was registered under."""
    out: str = "outspike-report"
    """Local folder or s3:// prefix for ``report.html`` and ``results.json``."""
    against: str = "motion_floor"
    """What to compare with on the very same recordings: ``motion_floor``, another model's address
    or bundle folder, or ``none``."""
    num_resamples: int = 1000
    """Bootstrap resamples behind each interval."""
    seed: int = 0
    key_frames: bool = True
    """Decode frames of the recordings and show them under the timelines."""
    max_large: int = 24
    """Recordings shown with a full timeline; the others are small curves."""
    study: Literal["none", "perturbation"] = "none"
    """``perturbation``: instead of the report, how an IEF-VAD model bears the loss of part of one
    stream, as tables and plots in ``out``."""
    tracking_uri: str = "sqlite:///mlflow.db"
    dry_run: bool = False
    """Say what would be scored, from the catalog, and stop."""

    def __post_init__(self) -> None:
        if self.num_resamples < 0 or self.max_large < 0:
            raise ConfigError(
                f"num_resamples={self.num_resamples}, max_large={self.max_large}: not negative."
            )


@dataclass(frozen=True, kw_only=True)
class CrossfitConfig:
    """``jobs/crossfit.py``: a training repeated over folds; every recording scored unseen."""

    train: TrainConfig = field(default_factory=TrainConfig)
    """What each fold trains, in this process; ``train.seed`` seeds its weights."""
    protocol: str = "surv-fight-cross"
    """A protocol that cross-fits; it says which recordings are dealt out."""
    num_folds: int = 5
    against: Literal["motion_floor", "none"] = "motion_floor"
    """What to compare with, fitted on the very same folds."""
    out: str = "outspike-crossfit"
    """Local folder or s3:// prefix for ``report.html``, ``results.json`` and ``folds.json``."""
    num_resamples: int = 1000
    """Bootstrap resamples behind each interval."""
    seed: int = 0
    """Of the dealing and of the resamples."""
    key_frames: bool = True
    """Decode frames of the recordings and show them under the timelines."""
    max_large: int = 24
    """Recordings shown with a full timeline; the others are small curves."""
    dry_run: bool = False
    """Say which folds would be trained, from the catalog, and stop."""

    def __post_init__(self) -> None:
        if self.num_folds < 2 or self.num_resamples < 0 or self.max_large < 0:
            raise ConfigError(
                f"num_folds={self.num_folds}, num_resamples={self.num_resamples}, "
                f"max_large={self.max_large}: need at least 2 folds and nothing negative."
            )
        if self.train.selection.split != "last":
            raise ConfigError(
                f"train.selection.split={self.train.selection.split!r}: each fold trains "
                "train.steps and keeps the last one; use 'last'."
            )


# --------------------------------------------------------------------------- JSON and hashes


def to_json(config: Any) -> dict[str, Any]:
    """A config as plain JSON values; ``kind`` fields tell which class a nested object has."""
    document = dataclasses.asdict(config)
    loaded: dict[str, Any] = json.loads(json.dumps(document))
    return loaded


def from_json(cls: Any, document: Any) -> Any:
    """Inverse of :func:`to_json`: the config of type ``cls`` that a JSON value describes.

    ``cls`` may be a union such as ``DetectorConfig``; ``kind`` then decides. Fields that the
    document leaves out take their defaults.

    Raises:
        ConfigError: a field is unknown or has a value of another type, or the values contradict
            each other.
    """
    from pydantic import ValidationError

    try:
        config = _adapter(cls).validate_json(json.dumps(document), strict=True)
    except ValidationError as error:
        raise ConfigError(f"The stored config cannot be read: {error}") from error
    unknown = sorted(_unknown_fields(document, to_json(config)))
    if unknown:
        raise ConfigError(
            f"The stored config has fields that {type(config).__name__} does not know: "
            f"{', '.join(unknown)}; it was written by another version of this package."
        )
    return config


@functools.cache
def _adapter(cls: Any) -> Any:
    """Building one takes longer than all else."""
    from pydantic import TypeAdapter

    return TypeAdapter(cls)


def _unknown_fields(found: Any, known: Any, path: str = "") -> Iterator[str]:
    """Paths in ``found`` that reading it did not take up."""
    if isinstance(found, dict) and isinstance(known, dict):
        for key, value in found.items():
            if key not in known:
                yield f"{path}{key}"
            else:
                yield from _unknown_fields(value, known[key], f"{path}{key}.")
    elif isinstance(found, list) and isinstance(known, list):
        for i, (one, other) in enumerate(zip(found, known, strict=True)):
            yield from _unknown_fields(one, other, f"{path}{i}.")


def canonical_json(document: Any) -> str:
    """The one text of a JSON value that hashes are taken over: sorted keys, no spaces."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)


def config_hash(config: Any) -> str:
    """SHA-256 of the resolved config; it names the run."""
    return hashlib.sha256(canonical_json(to_json(config)).encode()).hexdigest()
