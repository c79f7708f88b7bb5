"""How a detector is trained: windows, optimiser, computing, selection."""

from dataclasses import dataclass, field
from typing import Literal

from outspike.config.detectors import DetectorConfig, MsfConfig, SslsConfig
from outspike.config.features import DataConfig, EncoderConfig, StoreConfig
from outspike.errors import ConfigError


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
    """Batches that a thread reads ahead while a step is computed; 0 reads each when it is needed.
    Changes no bit. On CPUs it gains next to nothing and costs processor time; meant for GPUs."""
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
