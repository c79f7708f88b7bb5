"""Where recordings and features lie, and how features are extracted."""

from dataclasses import dataclass, field
from typing import Literal

from outspike.errors import ConfigError
from outspike.timebase import SnippetGrid


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
