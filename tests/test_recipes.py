"""Every recipe names features that its encoders make, as wide as its detector reads them."""

from collections.abc import Callable

import pytest

from outspike import detectors, encoders
from outspike.config import CrossfitConfig, TrainConfig, TuneConfig, from_json, to_json
from outspike.evaluate.protocols import get_protocol
from outspike.recipes import (
    CROSSFIT_RECIPES,
    EXTRACT_RECIPES,
    TRAIN_RECIPES,
    TUNE_RECIPES,
)
from outspike.tune.space import parse_space

#: Encoders that cannot be built without downloaded weights.
_NEED_WEIGHTS = {"clip", "event-clip", "spikingformer"}


@pytest.mark.parametrize("recipe", TRAIN_RECIPES.values(), ids=TRAIN_RECIPES)
def test_a_training_recipe_fits_together(recipe: Callable[[], TrainConfig]) -> None:
    config = recipe()
    get_protocol(config.protocol)
    assert from_json(TrainConfig, to_json(config)) == config
    made = {
        encoder.kind: encoders.build(encoder).width
        for encoder in config.encoders
        if encoder.kind not in _NEED_WEIGHTS
    }
    for name, width in detectors.build(config.detector).feature_sets.items():
        if name in made:
            assert made[name] == width, name


@pytest.mark.parametrize("recipe", TUNE_RECIPES.values(), ids=TUNE_RECIPES)
def test_a_search_recipe_varies_settings_that_exist(recipe: Callable[[], TuneConfig]) -> None:
    config = recipe()
    assert len(parse_space(config.space, config.train)) == len(config.space)


@pytest.mark.parametrize("recipe", CROSSFIT_RECIPES.values(), ids=CROSSFIT_RECIPES)
def test_a_cross_fitting_recipe_names_a_protocol_of_its_data(
    recipe: Callable[[], CrossfitConfig],
) -> None:
    config = recipe()
    protocol = get_protocol(config.protocol)
    assert protocol.cross_fit != "none"
    assert protocol.dataset in ("*", config.train.data.dataset)
    assert protocol.split in ("official", config.train.data.split)
    assert from_json(CrossfitConfig, to_json(config)) == config


def test_extraction_recipes_make_what_the_training_recipes_read() -> None:
    """The weights-free recipes on one data set share encoders and grids."""
    extracted = {
        config.data.dataset: {(e.kind, e.grid) for e in config.encoders}
        for config in (recipe() for recipe in EXTRACT_RECIPES.values())
    }
    for recipe in TRAIN_RECIPES.values():
        config = recipe()
        for encoder in config.encoders:
            if encoder.kind in _NEED_WEIGHTS or config.data.dataset not in extracted:
                continue
            assert (encoder.kind, encoder.grid) in extracted[config.data.dataset], recipe.__name__
