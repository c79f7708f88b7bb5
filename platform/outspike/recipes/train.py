"""What ``jobs/train.py`` takes by name."""

from collections.abc import Callable

from outspike.config import TrainConfig
from outspike.recipes.miniature import (
    aed_miniature,
    floor_miniature,
    gvvad_miniature,
    iefvad_miniature,
    msf_folder,
    msf_miniature,
    saa_miniature,
)
from outspike.recipes.published import (
    aed_lad2000,
    aed_ped2_i3d,
    gvvad_ucf,
    iefvad_ucf,
    msf_ucf,
    saa_ucf,
    saa_xd,
)
from outspike.recipes.real import (
    aed_ped2,
    ensemble_fights,
    floor_fights,
    floor_ped2,
    gvvad_ped2,
    iefvad_fights,
    iefvad_ped2,
    msf_fights,
    msf_fights_long,
    msf_ped2,
    saa_ped2,
    ssls_ped2,
)

TRAIN_RECIPES: dict[str, Callable[[], TrainConfig]] = {
    "msf-miniature": msf_miniature,
    "msf-folder": msf_folder,
    "iefvad-miniature": iefvad_miniature,
    "gvvad-miniature": gvvad_miniature,
    "saa-miniature": saa_miniature,
    "aed-miniature": aed_miniature,
    "floor-miniature": floor_miniature,
    "ped2": msf_ped2,
    "ped2-ssls": ssls_ped2,
    "iefvad-ped2": iefvad_ped2,
    "gvvad-ped2": gvvad_ped2,
    "saa-ped2": saa_ped2,
    "aed-ped2": aed_ped2,
    "floor-ped2": floor_ped2,
    "fights": msf_fights,
    "fights-ensemble": ensemble_fights,
    "fights-long": msf_fights_long,
    "iefvad-fights": iefvad_fights,
    "floor-fights": floor_fights,
    "msf-ucf": msf_ucf,
    "iefvad-ucf": iefvad_ucf,
    "gvvad-ucf": gvvad_ucf,
    "saa-ucf": saa_ucf,
    "saa-xd": saa_xd,
    "aed-lad2000": aed_lad2000,
    "aed-ped2-i3d": aed_ped2_i3d,
}
