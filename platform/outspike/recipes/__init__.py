"""Recipes: plain functions that return a whole config; a variant calls another and replaces.

``jobs/extract.py RECIPE`` and ``jobs/train.py RECIPE`` take these by name; any field can be
overridden on the command line (``--train.lr``-like dotted names). Nothing heavy is imported here.
"""

from outspike.recipes.extract import (
    EXTRACT_RECIPES,
    extract_miniature,
    extract_ped2,
    extract_ped2_cross,
)
from outspike.recipes.miniature import msf_miniature
from outspike.recipes.parts import FRAME_MOTION
from outspike.recipes.real import floor_ped2, msf_ped2
from outspike.recipes.scoring import (
    CROSSFIT_RECIPES,
    EVALUATE_RECIPES,
    PREDICT_RECIPES,
    crossfit_ped2,
)
from outspike.recipes.search import TUNE_RECIPES
from outspike.recipes.train import TRAIN_RECIPES

__all__ = [
    "CROSSFIT_RECIPES",
    "EVALUATE_RECIPES",
    "EXTRACT_RECIPES",
    "FRAME_MOTION",
    "PREDICT_RECIPES",
    "TRAIN_RECIPES",
    "TUNE_RECIPES",
    "crossfit_ped2",
    "extract_miniature",
    "extract_ped2",
    "extract_ped2_cross",
    "floor_ped2",
    "msf_miniature",
    "msf_ped2",
]
