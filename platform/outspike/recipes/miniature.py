"""Trainings on the generated miniature set, and on recordings of one's own."""

import dataclasses

from outspike.config import (
    DataConfig,
    MotionFloorConfig,
    MsfConfig,
    OptimConfig,
    TrainConfig,
    WindowConfig,
)
from outspike.recipes.parts import (
    AED_SMALL,
    EVENT_PYRAMID,
    FRAME_MOTION,
    FRAME_PYRAMID,
    GV_VAD_SMALL,
    IEF_VAD_SMALL,
    MINIATURE,
    SAA_SMALL,
)


def msf_miniature() -> TrainConfig:
    """The spiking detector on the miniature set; a minute on a laptop."""
    return TrainConfig(
        name="miniature",
        data=MINIATURE,
        detector=MsfConfig(
            width=184,
            hidden=46,
            dropout=0.5,
            mil_divisor=4,
            smooth_weight=0.0,
            input_norm="standardise",
            input_clip=6.0,
        ),
        encoders=(EVENT_PYRAMID,),
        window=WindowConfig(rule="all"),
        # Few bags and many columns: strong decay, in the gradient, is what generalises.
        optim=OptimConfig(optimiser="adam", lr=1e-3, weight_decay=0.3),
        protocol="miniature",
        steps=300,
        checkpoint_every=100,
    )


def iefvad_miniature() -> TrainConfig:
    """The fusion of grey-level and event pyramids on the miniature set."""
    return dataclasses.replace(
        msf_miniature(),
        name="miniature-ief-vad",
        detector=IEF_VAD_SMALL,
        encoders=(FRAME_PYRAMID, EVENT_PYRAMID),
        optim=OptimConfig(lr=3e-4),
    )


def gvvad_miniature() -> TrainConfig:
    """GV-VAD without captions on the miniature set."""
    return dataclasses.replace(
        msf_miniature(),
        name="miniature-gv-vad",
        detector=GV_VAD_SMALL,
        steps=150,
    )


def msf_folder() -> TrainConfig:
    """The spiking detector on your own labelled recordings (``--data.root``)."""
    return dataclasses.replace(
        msf_miniature(),
        name="my-model",
        data=DataConfig(dataset="folder", root="recordings"),
        protocol="folder",
    )


def saa_miniature() -> TrainConfig:
    """Snippet anomalous attention on the miniature set."""
    return dataclasses.replace(
        msf_miniature(),
        name="miniature-saa",
        detector=SAA_SMALL,
        optim=OptimConfig(optimiser="adam", lr=1e-3, weight_decay=1e-2),
    )


def aed_miniature() -> TrainConfig:
    """ConvLSTM frame regression on the frame labels of the miniature set."""
    return dataclasses.replace(
        msf_miniature(),
        name="miniature-aed",
        detector=AED_SMALL,
        window=WindowConfig(rule="crop", length=AED_SMALL.window),
        optim=OptimConfig(optimiser="adam", lr=1e-3, weight_decay=1e-2),
    )


def floor_miniature() -> TrainConfig:
    """The motion floor on the miniature set."""
    return dataclasses.replace(
        msf_miniature(),
        name="miniature-floor",
        detector=MotionFloorConfig(),
        encoders=(FRAME_MOTION,),
    )
