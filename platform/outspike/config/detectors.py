"""One class of settings per detector; ``kind`` tells them apart in stored JSON."""

from dataclasses import dataclass
from typing import Literal

from outspike.errors import ConfigError

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
class InputScaling:
    """How features are scaled before a detector sees them."""

    input_norm: Literal["none", "standardise"] = "none"
    """``standardise`` fits mean and deviation of every feature on the training bags."""
    input_clip: float | None = None
    """Standardised features are kept within this many deviations of the mean."""


@dataclass(frozen=True, kw_only=True)
class MsfConfig(InputScaling):
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
    compat: Literal["msf_2025"] | None = None


@dataclass(frozen=True, kw_only=True)
class IefVadConfig(InputScaling):
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
    compat: Literal["ief_vad_2025"] | None = None


@dataclass(frozen=True, kw_only=True)
class SaaConfig(InputScaling):
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
    compat: Literal["saa_2024"] | None = None


@dataclass(frozen=True, kw_only=True)
class AedConfig(InputScaling):
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
    compat: Literal["lad2000"] | None = None


@dataclass(frozen=True, kw_only=True)
class GvVadConfig(InputScaling):
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
