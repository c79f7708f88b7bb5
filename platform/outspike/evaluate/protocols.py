"""Named, versioned evaluation rules; ``docs/protocols.md`` says each in words.

A number is only comparable with another one under the same protocol. A protocol that lets the test
split choose the checkpoint is a variant of its own whose name ends in ``-test-selected``, so that
the stamp is on every report and registry entry made with it.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from outspike.errors import ConfigError

MetricName = Literal[
    "auc",
    "ap",
    "ap_trapezoid",
    "auc_abnormal",
    "ap_abnormal",
    "auc_per_video",
    "video_auc",
    "video_ap",
    "far",
    "far_normal",
    "far_abnormal",
    "false_alarms_per_hour",
    "detection_map",
]

FrameRule = Literal["every_frame", "covered_frames", "whole_windows"]
VideoScoreRule = Literal["max", "top_mean"]
ClassRule = Literal["whole", "first_code"]

TEST_SELECTED = "-test-selected"

_FRAME_METRICS: tuple[MetricName, ...] = (
    "auc",
    "ap",
    "auc_abnormal",
    "auc_per_video",
    "video_auc",
    "far",
    "far_normal",
    "far_abnormal",
    "false_alarms_per_hour",
    "detection_map",
)
_VIDEO_METRICS: tuple[MetricName, ...] = ("video_auc", "video_ap")


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """One evaluation rule. ``crop_policy`` and ``window_policy`` are applied where scores are
    computed (:mod:`outspike.evaluate.policies`), the rest by
    :func:`outspike.evaluate.evaluate.evaluate`.
    """

    name: str
    version: int = 1
    dataset: str
    """Data set the videos must come from; ``*`` takes any."""
    split: str = "official"
    """Named split of that data set whose test part is scored."""
    cross_fit: Literal["none", "test", "all"] = "none"
    """Which recordings are dealt into folds, each scored by a model that was trained on the others
    (:mod:`outspike.train.crossfit`): those of the test split, beside the whole training split, or
    all of both. ``none`` scores the test split by one model."""
    training_dataset: str | None = None
    """Data set whose training part the floor is fitted on, where the scored one has none."""
    modality: Literal["video", "events", "any"] = "any"
    """Which of its recordings count, where a data set has the same scenes in both forms."""
    selection_split: Literal["train", "test"] = "train"
    """Where checkpoints and settings may be chosen; ``test`` is an oracle and stamped as such."""
    crop_policy: Literal["mean", "centre", "mirrored_centre"] = "mean"
    """Scores of stored crops are averaged, or one crop alone is scored."""
    window_policy: Literal["whole", "windows_256"] = "whole"
    """All snippets of a recording in one pass, or in windows of 256 without overlap."""
    frame_rule: FrameRule = "every_frame"
    """``every_frame``: a frame without a score is an error; ``covered_frames``: it is left out and
    counted (published rules that drop a tail); ``whole_windows``: so are covered frames past the
    last whole window of five snippets. A frame gets the mean of the snippets that cover it."""
    label_slack_frames: int = 0
    """How far an annotated interval may end past the recording and be clipped, which is counted;
    beyond it the evaluation fails."""
    class_rule: ClassRule = "whole"
    """``first_code``: of a multi-label class such as ``B1-B2-0`` the first code names the class."""
    metrics: tuple[MetricName, ...] = _FRAME_METRICS
    primary: MetricName = "auc"
    video_score: VideoScoreRule = "max"
    """Score of a whole video: its highest snippet, or the mean of its highest ``top_share``."""
    top_share: float = 1 / 16
    threshold: float = 0.5
    """A frame alarms when its score is at least this (false-alarm rates)."""
    recall: float = 0.8
    """Share of annotated intervals to be caught where false alarms per hour are counted."""
    iou: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5)
    """Overlaps that detection mAP is averaged over."""
    note: str = ""

    def __post_init__(self) -> None:
        if self.primary not in self.metrics:
            raise ConfigError(
                f"Protocol {self.name!r}: primary metric {self.primary!r} is not among "
                f"{self.metrics}."
            )
        if not 0 < self.recall <= 1 or not 0 < self.top_share <= 1:
            raise ConfigError(
                f"Protocol {self.name!r}: recall={self.recall} and top_share={self.top_share} must "
                "lie in (0, 1]."
            )
        if self.test_selected != self.name.endswith(TEST_SELECTED):
            raise ConfigError(
                f"Protocol {self.name!r} selects on {self.selection_split!r}: exactly the "
                f"protocols that select on 'test' are named '...{TEST_SELECTED}'."
            )

    @property
    def test_selected(self) -> bool:
        """Whether the test split may have chosen the checkpoint (an oracle figure)."""
        return self.selection_split == "test"

    @property
    def label(self) -> str:
        """Name and version as they are written on reports, ``ucf-crime v1``."""
        return f"{self.name} v{self.version}"

    def to_json(self) -> dict[str, Any]:
        """Every field as plain JSON values."""
        document = dataclasses.asdict(self)
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in document.items()
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Protocol":
        """Rebuild what :meth:`to_json` wrote."""
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in document.items()
        }
        return cls(**fields)


def _as_trained(*, dataset: str, note: str, **rules: Any) -> Protocol:
    """The evaluation published with IEF-VAD on one of its data sets."""
    return Protocol(
        name=f"{dataset.replace('_', '-')}-as-trained",
        dataset=dataset,
        crop_policy="mirrored_centre",
        window_policy="windows_256",
        frame_rule="covered_frames",
        note=f"As IEF-VAD publishes it: the mirrored centre crop alone, windows of 256 snippets, "
        f"frames past the last scored snippet left out. {note}",
        **rules,
    )


_HONEST: dict[str, Protocol] = {
    "miniature": Protocol(
        name="miniature",
        dataset="miniature",
        modality="video",
        note="The generated videos; frame labels are exact.",
    ),
    "miniature-events": Protocol(
        name="miniature-events",
        dataset="miniature",
        modality="events",
        note="The event recordings of some of the same scenes.",
    ),
    "miniature-cross": Protocol(
        name="miniature-cross",
        dataset="miniature",
        modality="video",
        cross_fit="all",
        metrics=_VIDEO_METRICS,
        primary="video_auc",
        note="The generated videos of both splits, dealt into folds.",
    ),
    "ped2-weak-a": Protocol(
        name="ped2-weak-a",
        dataset="ucsd_ped2",
        split="weak-a",
        note="Train normal Train001..012, anomalous Test006, 009, 011, 012 by video label only; "
        "test Train013..016 and Test001, 003, 004, 008. Frames of all clips are pooled, scores are "
        "not normalised per clip.",
    ),
    "ped2-cross": Protocol(
        name="ped2-cross",
        dataset="ucsd_ped2",
        cross_fit="test",
        note="Every labelled test clip is scored by a model trained on the normal training clips "
        "and on the video labels of the other folds' test clips. Optimistic by what the columns of "
        "event-pyramid owe to four of these clips, on which they were chosen by cross-validation.",
    ),
    "ped2-full-a": Protocol(
        name="ped2-full-a",
        dataset="ucsd_ped2",
        split="full-a",
        note="The test clips of weak-a, for models trained with the frame labels of the training "
        "clips: fully supervised, so its figures stand apart from those of ped2-weak-a.",
    ),
    "ped2-lad-reseeded": Protocol(
        name="ped2-lad-reseeded",
        dataset="ucsd_ped2",
        split="lad-reseeded",
        note="The 6 anomalous and 8 normal test clips of our own draw of the LAD paper's split, "
        "whose lists were never published: fully supervised, and no figure of that paper.",
    ),
    "surv-fight": Protocol(
        name="surv-fight",
        dataset="surv_fight",
        metrics=_VIDEO_METRICS,
        primary="video_auc",
        video_score="top_mean",
        top_share=1.0,
        note="Two-second clips with video labels; settings chosen by cross-validation over "
        "source_group inside the training split, which also prefers the mean of a clip's snippets "
        "to its highest one.",
    ),
    "surv-fight-cross": Protocol(
        name="surv-fight-cross",
        dataset="surv_fight",
        cross_fit="all",
        metrics=_VIDEO_METRICS,
        primary="video_auc",
        video_score="top_mean",
        top_share=1.0,
        note="All clips of both splits, dealt into folds by source_group. Optimistic: three "
        "quarters of them are the training clips on which settings and the columns of "
        "event-pyramid were chosen.",
    ),
    "surv-fight-long": Protocol(
        name="surv-fight-long",
        dataset="surv_fight_long",
        training_dataset="surv_fight",
        note="Long videos made by joining test clips of known label; frames of fight clips are "
        "positive.",
    ),
    "ucf-crime": Protocol(
        name="ucf-crime",
        dataset="ucf_crime",
        label_slack_frames=2,
        note="290 test videos. Five annotated ends lie 1 or 2 frames past the recording.",
    ),
    "ucf-crime-ten-crop": Protocol(
        name="ucf-crime-ten-crop",
        dataset="ucf_crime",
        frame_rule="covered_frames",
        label_slack_frames=2,
        metrics=(*_FRAME_METRICS, "ap_trapezoid"),
        note="As SAA and GV-VAD publish it: scores of all crops averaged, frames past the last "
        "scored snippet left out.",
    ),
    "ucf-crime-as-trained": _as_trained(
        dataset="ucf_crime", note="The 290 test videos.", label_slack_frames=2
    ),
    "ucf-crime-dvs": Protocol(
        name="ucf-crime-dvs",
        dataset="ucf_crime_dvs",
        frame_rule="covered_frames",
        label_slack_frames=16,
        note="Frames past the last scored snippet are left out, as published. The recordings are "
        "re-filmed, so their length differs from the annotated videos by up to a snippet.",
    ),
    "xd-violence": Protocol(
        name="xd-violence",
        dataset="xd_violence",
        primary="ap",
        class_rule="first_code",
        note="Official split: 800 test videos.",
    ),
    "xd-violence-trapezoid": Protocol(
        name="xd-violence-trapezoid",
        dataset="xd_violence",
        metrics=(*_FRAME_METRICS, "ap_trapezoid"),
        primary="ap_trapezoid",
        class_rule="first_code",
        frame_rule="covered_frames",
        note="As SAA publishes it: the official 800 test videos, scores of all crops averaged, "
        "frames past the last scored snippet left out, and the area under precision and recall "
        "by the trapezoid rule, which is called AP there and is not the AP of other papers.",
    ),
    "xd-violence-as-trained": _as_trained(
        dataset="xd_violence",
        version=2,
        split="as-trained",
        primary="ap",
        class_rule="first_code",
        note="The 753 single-label test videos; 47 multi-label test videos are in its training "
        "set, so figures do not compare with the official split.",
    ),
    "shanghaitech": Protocol(
        name="shanghaitech",
        dataset="shanghaitech",
        note="Weakly supervised re-split, 199 test videos; annotated ends are inclusive in the "
        "source and read so.",
    ),
    "shanghaitech-as-trained": _as_trained(
        dataset="shanghaitech",
        split="as-trained",
        note="197 test videos, for two of the 199 are in its training set; every annotated range "
        "lacks its last frame.",
    ),
    "tad": Protocol(
        name="tad",
        dataset="tad",
        metrics=(*_FRAME_METRICS, "ap", "ap_abnormal"),
        note="100 test videos, annotation corrected: the published dictionary marks one frame of "
        "every normal video, which lowers published figures on all videos "
        "(outspike.evaluate.published_gv_vad has that rule).",
    ),
    "avenue-lad-reseeded": Protocol(
        name="avenue-lad-reseeded",
        dataset="avenue",
        split="lad-reseeded",
        note="The 10 anomalous and 8 normal test videos of our own draw of the LAD paper's split, "
        "whose lists were never published: fully supervised, and no figure of that paper.",
    ),
    "lad2000": Protocol(
        name="lad2000",
        dataset="lad2000",
        note="560 test videos; every frame of every video counts, once. Published figures leave "
        "out the last snippets of videos that are no whole number of windows long.",
    ),
    "lad2000-as-published": Protocol(
        name="lad2000-as-published",
        dataset="lad2000",
        frame_rule="whole_windows",
        note="560 test videos without the frames past the last whole window of five snippets; a "
        "video shorter than that has no part in any figure.",
    ),
    "msad": Protocol(
        name="msad",
        dataset="msad",
        label_slack_frames=2,
        note="241 test videos: 120 normal, 121 anomalous.",
    ),
    "msad-as-trained": _as_trained(
        dataset="msad", note="The 241 test videos.", label_slack_frames=2
    ),
    "folder": Protocol(
        name="folder",
        dataset="*",
        note="Your own recordings: frame metrics where intervals are given, video metrics "
        "otherwise.",
        metrics=(*_FRAME_METRICS, "video_ap"),
        primary="video_auc",
    ),
    "folder-cross": Protocol(
        name="folder-cross",
        dataset="*",
        cross_fit="all",
        note="All your labelled recordings, dealt into folds: frame metrics where intervals are "
        "given, video metrics otherwise.",
        metrics=(*_FRAME_METRICS, "video_ap"),
        primary="video_auc",
    ),
}


def _test_selected(protocol: Protocol) -> Protocol:
    return dataclasses.replace(protocol, name=protocol.name + TEST_SELECTED, selection_split="test")


PROTOCOLS: dict[str, Protocol] = _HONEST | {
    variant.name: variant for variant in map(_test_selected, _HONEST.values())
}


def get_protocol(name: str) -> Protocol:
    """The protocol of that name.

    Raises:
        ConfigError: there is none; the message lists those there are.
    """
    if name not in PROTOCOLS:
        raise ConfigError(
            f"No protocol {name!r}; there are {', '.join(_HONEST)}, each also as "
            f"'<name>{TEST_SELECTED}'."
        )
    return PROTOCOLS[name]
