"""What ``jobs/crossfit.py``, ``jobs/evaluate.py`` and ``jobs/predict.py`` take by name."""

import dataclasses
from collections.abc import Callable

from outspike.config import CrossfitConfig, EvaluateConfig, PredictConfig, TrainConfig
from outspike.recipes.miniature import msf_folder, msf_miniature
from outspike.recipes.parts import PED2_CROSS, PED2_CROSS_STORE
from outspike.recipes.real import iefvad_fights, iefvad_ped2, msf_fights, msf_ped2


def crossfit_miniature() -> CrossfitConfig:
    """The spiking detector on all scenes of the miniature set."""
    return CrossfitConfig(train=msf_miniature(), protocol="miniature-cross", num_folds=4)


def crossfit_folder() -> CrossfitConfig:
    """The spiking detector on all your own labelled recordings (``--train.data.root``)."""
    return CrossfitConfig(train=msf_folder(), protocol="folder-cross")


def crossfit_ped2() -> CrossfitConfig:
    """The spiking detector on all labelled test clips of UCSD Ped2."""
    return _crossfit_ped2(msf_ped2())


def crossfit_iefvad_ped2() -> CrossfitConfig:
    """The fusion of two pyramids on all labelled test clips of UCSD Ped2."""
    return _crossfit_ped2(iefvad_ped2())


def _crossfit_ped2(train: TrainConfig) -> CrossfitConfig:
    train = dataclasses.replace(train, data=PED2_CROSS, store=PED2_CROSS_STORE)
    return CrossfitConfig(train=train, protocol="ped2-cross", num_folds=4)


def crossfit_fights() -> CrossfitConfig:
    """The spiking detector on all clips of Surveillance Camera Fight."""
    return CrossfitConfig(train=msf_fights())


def crossfit_iefvad_fights() -> CrossfitConfig:
    """The fusion of two pyramids on all clips of Surveillance Camera Fight."""
    return CrossfitConfig(train=iefvad_fights())


CROSSFIT_RECIPES: dict[str, Callable[[], CrossfitConfig]] = {
    "miniature": crossfit_miniature,
    "folder": crossfit_folder,
    "ped2": crossfit_ped2,
    "iefvad-ped2": crossfit_iefvad_ped2,
    "fights": crossfit_fights,
    "iefvad-fights": crossfit_iefvad_fights,
}


def evaluate_miniature() -> EvaluateConfig:
    """The promoted miniature model under its own protocol, against the motion floor."""
    return EvaluateConfig()


EVALUATE_RECIPES: dict[str, Callable[[], EvaluateConfig]] = {"miniature": evaluate_miniature}


def predict_miniature() -> PredictConfig:
    """The promoted miniature model on recordings that nothing was trained on."""
    return PredictConfig()


PREDICT_RECIPES: dict[str, Callable[[], PredictConfig]] = {"miniature": predict_miniature}
