"""Trainings on the real sets that are free to fetch: UCSD Ped2 and the fight clips."""

import dataclasses

from outspike.config import (
    MotionFloorConfig,
    MsfConfig,
    OptimConfig,
    SslsConfig,
    TrainConfig,
    WindowConfig,
)
from outspike.recipes.parts import (
    AED_SMALL,
    FIGHTS,
    FIGHTS_GRID,
    FRAME_MOTION,
    GV_VAD_SMALL,
    IEF_VAD_LOOSE,
    IEF_VAD_SMALL,
    PED2,
    PED2_FULL,
    PED2_FULL_STORE,
    PED2_GRID,
    SAA_SMALL,
    pyramids,
)

#: Settings of MSF that cross-validation inside the training splits of Ped2 and of the fight clips
#: chose: every snippet of a bag learns its label, every bag counts once (docs/results.md).
MSF_REAL = MsfConfig(
    width=184,
    hidden=46,
    dropout=0.3,
    mil_divisor=1,
    mil_unit="bag",
    smooth_weight=0.0,
    input_norm="standardise",
    input_clip=6.0,
)


def msf_ped2() -> TrainConfig:
    """The spiking detector on UCSD Ped2, split weak-a, from labels of whole clips."""
    return TrainConfig(
        name="ped2",
        data=PED2,
        detector=MSF_REAL,
        encoders=pyramids(PED2_GRID)[:1],
        window=WindowConfig(rule="all"),
        optim=OptimConfig(optimiser="adam", lr=1e-3, weight_decay=3.0),
        protocol="ped2-weak-a",
        steps=200,
        bags_per_batch=8,
        checkpoint_every=200,
    )


def msf_fights() -> TrainConfig:
    """The spiking detector on Surveillance Camera Fight."""
    return TrainConfig(
        name="surv_fight",
        data=FIGHTS,
        detector=MSF_REAL,
        encoders=pyramids(FIGHTS_GRID)[:1],
        window=WindowConfig(rule="all"),
        optim=OptimConfig(optimiser="adam", lr=3e-3, weight_decay=1e-3),
        protocol="surv-fight",
        steps=200,
        bags_per_batch=60,
        checkpoint_every=200,
    )


def ensemble_fights() -> TrainConfig:
    """Five of the spiking detector on Surveillance Camera Fight, their scores averaged."""
    return dataclasses.replace(
        msf_fights(),
        name="surv_fight-ensemble",
        detector=dataclasses.replace(MSF_REAL, members=5),
    )


def msf_fights_long() -> TrainConfig:
    """As fights, scoring long videos in windows of as many snippets as a training clip has."""
    return dataclasses.replace(
        msf_fights(),
        name="surv_fight-long",
        detector=dataclasses.replace(MSF_REAL, window=6),
        protocol="surv-fight-long",
    )


def ssls_ped2() -> TrainConfig:
    """As ped2, with four generated clips beside the eight bags of every step."""
    return dataclasses.replace(
        msf_ped2(),
        name="ped2-ssls",
        ssls=SslsConfig(scale=0.5),
        bags_per_batch=12,
        synthetic_per_batch=4,
    )


def iefvad_ped2() -> TrainConfig:
    """The fusion of grey-level and event pyramids on UCSD Ped2."""
    return dataclasses.replace(
        msf_ped2(),
        name="ped2-ief-vad",
        detector=IEF_VAD_LOOSE,
        encoders=pyramids(PED2_GRID)[:2],
        optim=OptimConfig(lr=3e-4),
        steps=100,
        checkpoint_every=100,
    )


def saa_ped2() -> TrainConfig:
    """Snippet anomalous attention on UCSD Ped2, split weak-a."""
    return dataclasses.replace(
        msf_ped2(),
        name="ped2-saa",
        detector=SAA_SMALL,
        optim=OptimConfig(optimiser="adam", lr=1e-3, weight_decay=1e-1),
    )


def aed_ped2() -> TrainConfig:
    """ConvLSTM frame regression on frame labels of UCSD Ped2 (``jobs/extract.py ped2-full``)."""
    return dataclasses.replace(
        msf_ped2(),
        name="ped2-aed",
        data=PED2_FULL,
        store=PED2_FULL_STORE,
        detector=AED_SMALL,
        window=WindowConfig(rule="crop", length=AED_SMALL.window),
        optim=OptimConfig(optimiser="adam", lr=1e-3, weight_decay=1e-2),
        protocol="ped2-full-a",
        steps=400,
    )


def gvvad_ped2() -> TrainConfig:
    """GV-VAD without captions on UCSD Ped2."""
    return dataclasses.replace(
        msf_ped2(),
        name="ped2-gv-vad",
        detector=dataclasses.replace(GV_VAD_SMALL, topk_divisor=1),
        optim=OptimConfig(optimiser="adam", lr=1e-3, weight_decay=0.3),
    )


def iefvad_fights() -> TrainConfig:
    """The fusion of grey-level and event pyramids on the fight clips."""
    return dataclasses.replace(
        msf_fights(),
        name="surv_fight-ief-vad",
        detector=IEF_VAD_SMALL,
        encoders=pyramids(FIGHTS_GRID)[:2],
        optim=OptimConfig(lr=3e-4),
    )


def floor_ped2() -> TrainConfig:
    """The motion floor on UCSD Ped2."""
    return dataclasses.replace(
        msf_ped2(), name="ped2-floor", detector=MotionFloorConfig(), encoders=(FRAME_MOTION,)
    )


def floor_fights() -> TrainConfig:
    """The motion floor on the fight clips."""
    return dataclasses.replace(
        msf_fights(),
        name="surv_fight-floor",
        detector=MotionFloorConfig(form="logistic"),
        encoders=(FRAME_MOTION,),
    )
