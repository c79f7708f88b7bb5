"""What several recipes share: data sets, encoders, grids and small detectors."""

import dataclasses

from outspike.config import (
    AedConfig,
    DataConfig,
    EncoderConfig,
    GvVadConfig,
    IefVadConfig,
    SaaConfig,
    StoreConfig,
)
from outspike.timebase import SnippetGrid

EVENT_PYRAMID = EncoderConfig(kind="event-pyramid")
FRAME_PYRAMID = EncoderConfig(kind="frame-pyramid")

#: The floor looks at every frame.
FRAME_MOTION = EncoderConfig(kind="frame-motion", grid=SnippetGrid(snippet_frames=1, stride=1))

#: Small IEF-VAD on the two pyramids.
IEF_VAD_SMALL = IefVadConfig(
    image_width=244,
    event_width=184,
    width=128,
    num_heads=4,
    refinement_steps=4,
    input_norm="standardise",
    input_clip=6.0,
)

#: The same with the weak regularisation that is published for XD-Violence.
IEF_VAD_LOOSE = dataclasses.replace(IEF_VAD_SMALL, reg_weight=0.01, kl_weight=0.01)

#: Small SAA on the event pyramid.
SAA_SMALL = SaaConfig(
    feature_set="event-pyramid",
    width=184,
    attention_width=64,
    classifier_widths=(64, 32),
    dropout=0.3,
    guide_steps=100,
    input_norm="standardise",
    input_clip=6.0,
)

#: Small AED_T on the event pyramid.
AED_SMALL = AedConfig(
    feature_set="event-pyramid",
    width=184,
    hidden=16,
    down=64,
    head=32,
    input_norm="standardise",
    input_clip=6.0,
)

#: GV-VAD without captions on the event pyramid: no weights, no prompts.
GV_VAD_SMALL = GvVadConfig(
    feature_group="vis",
    visual_set="event-pyramid",
    visual_width=184,
    hidden=128,
    dropout=0.3,
    topk_divisor=2,
    input_norm="standardise",
    input_clip=6.0,
)

MINIATURE = DataConfig(dataset="miniature", root="outspike-data/miniature")
PED2 = DataConfig(dataset="ucsd_ped2", root="ucsd_ped2", split="weak-a")
#: Other divisions of the same clips, with labels of their own, so in stores of their own.
PED2_CROSS = DataConfig(dataset="ucsd_ped2", root="ucsd_ped2", split="official")
PED2_CROSS_STORE = StoreConfig(url="outspike-data/ped2-cross")
PED2_FULL = DataConfig(dataset="ucsd_ped2", root="ucsd_ped2", split="full-a")
PED2_FULL_STORE = StoreConfig(url="outspike-data/ped2-full")
FIGHTS = DataConfig(dataset="surv_fight", root="surv_fight")
FIGHTS_LONG = DataConfig(
    dataset="surv_fight_long", root="outspike-data/surv_fight_long", clips_root="surv_fight"
)

#: Rows of 16 frames overlap on the real sets: their clips are short, down to 20 frames.
PED2_GRID = SnippetGrid(stride=4)
FIGHTS_GRID = SnippetGrid(stride=8)


def pyramids(grid: SnippetGrid) -> tuple[EncoderConfig, EncoderConfig, EncoderConfig]:
    """All weights-free encoders, the two pyramids on one grid."""
    return (
        dataclasses.replace(EVENT_PYRAMID, grid=grid),
        dataclasses.replace(FRAME_PYRAMID, grid=grid),
        FRAME_MOTION,
    )
