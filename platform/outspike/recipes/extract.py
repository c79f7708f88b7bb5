"""What ``jobs/extract.py`` takes by name."""

import dataclasses
from collections.abc import Callable

from outspike.config import DataConfig, EncoderConfig, ExtractConfig
from outspike.recipes.parts import (
    EVENT_PYRAMID,
    FIGHTS,
    FIGHTS_GRID,
    FIGHTS_LONG,
    FRAME_MOTION,
    FRAME_PYRAMID,
    MINIATURE,
    PED2,
    PED2_CROSS,
    PED2_CROSS_STORE,
    PED2_FULL,
    PED2_FULL_STORE,
    PED2_GRID,
    pyramids,
)
from outspike.timebase import SnippetGrid


def extract_miniature() -> ExtractConfig:
    """The generated miniature data set, with every weights-free encoder."""
    return ExtractConfig(data=MINIATURE, encoders=(EVENT_PYRAMID, FRAME_PYRAMID, FRAME_MOTION))


def extract_folder() -> ExtractConfig:
    """Your own recordings (``--data.root``), with the weights-free encoders."""
    return dataclasses.replace(
        extract_miniature(), data=DataConfig(dataset="folder", root="recordings")
    )


def extract_ped2() -> ExtractConfig:
    """UCSD Ped2 in the layout of train/, test/ and frame_labels.csv (``--data.root``)."""
    return ExtractConfig(data=PED2, encoders=pyramids(PED2_GRID))


def extract_ped2_cross() -> ExtractConfig:
    """As ped2, divided for cross-fitting: training clips all normal, test clips all anomalous."""
    return dataclasses.replace(extract_ped2(), data=PED2_CROSS, store=PED2_CROSS_STORE)


def extract_ped2_full() -> ExtractConfig:
    """As ped2, with the frame labels of the anomalous training clips (split full-a)."""
    return dataclasses.replace(extract_ped2(), data=PED2_FULL, store=PED2_FULL_STORE)


def extract_ped2_generated() -> ExtractConfig:
    """Generated clips of GV-VAD as further training bags for Ped2 (``--data.root``)."""
    return dataclasses.replace(extract_ped2(), data=DataConfig(dataset="gv_vad", root="gv_vad"))


def extract_fights() -> ExtractConfig:
    """Surveillance Camera Fight: clips/ and clips.csv (``--data.root``)."""
    return ExtractConfig(data=FIGHTS, encoders=pyramids(FIGHTS_GRID))


def extract_fights_long() -> ExtractConfig:
    """Long videos joined from the fight test clips (``--data.clips-root``)."""
    return dataclasses.replace(extract_fights(), data=FIGHTS_LONG)


def extract_ucf_crime() -> ExtractConfig:
    """UCF-Crime with CLIP on frames and on simulated events (``--encoders.0.weights``)."""
    clip = EncoderConfig(kind="clip", weights="openai/clip-vit-large-patch14", device="cuda")
    return ExtractConfig(
        data=DataConfig(dataset="ucf_crime", root="ucf_crime"),
        encoders=(clip, dataclasses.replace(clip, kind="event-clip")),
        gpus_per_actor=1.0,
    )


def extract_ucf_crime_i3d() -> ExtractConfig:
    """UCF-Crime with ten crops of I3D on RGB (``--encoders.0.weights``)."""
    i3d = EncoderConfig(kind="i3d-rgb", crops="ten", device="cuda")
    return dataclasses.replace(extract_ucf_crime(), encoders=(i3d,))


def extract_lad2000() -> ExtractConfig:
    """LAD2000 with I3D on RGB and flow as published (``--encoders.0.weights`` and flow-weights)."""
    i3d = EncoderConfig(
        kind="i3d-combine",
        grid=SnippetGrid(tail="drop"),
        crops="whole",
        scale="raw255",
        flow="xx",
        device="cuda",
    )
    return ExtractConfig(
        data=DataConfig(dataset="lad2000", root="lad2000"), encoders=(i3d,), gpus_per_actor=1.0
    )


EXTRACT_RECIPES: dict[str, Callable[[], ExtractConfig]] = {
    "miniature": extract_miniature,
    "folder": extract_folder,
    "ped2": extract_ped2,
    "ped2-cross": extract_ped2_cross,
    "ped2-full": extract_ped2_full,
    "ped2-generated": extract_ped2_generated,
    "fights": extract_fights,
    "fights-long": extract_fights_long,
    "ucf-crime": extract_ucf_crime,
    "ucf-crime-i3d": extract_ucf_crime_i3d,
    "lad2000": extract_lad2000,
}
