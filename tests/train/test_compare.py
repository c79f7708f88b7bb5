"""One table of several recipes: each trained once, judged beside the floor."""

import dataclasses

import pytest

from outspike.config import MotionFloorConfig
from outspike.errors import DatasetError
from outspike.recipes import FRAME_MOTION
from outspike.train import compare as comparison
from outspike.train import job
from outspike.train.compare import compare, markdown


@pytest.fixture
def recipes(pyramid_config):
    """A detector and the floor itself."""
    msf = pyramid_config(steps=2)
    floor = dataclasses.replace(
        msf, name="floor", detector=MotionFloorConfig(form="logistic"), encoders=(FRAME_MOTION,)
    )
    return [("tiny", msf), ("floor", floor)]


def test_every_recipe_and_seed_is_a_row_beside_the_floor(recipes, monkeypatch):
    """Four rows; the floor is computed once for all, and stands alone in its own rows."""
    calls = []
    real = comparison.floor_scores
    monkeypatch.setattr(
        comparison, "floor_scores", lambda bundle: calls.append(bundle) or real(bundle)
    )
    rows = compare(recipes, (0, 1))
    assert [(row.recipe, row.seed) for row in rows] == [
        ("tiny", 0),
        ("tiny", 1),
        ("floor", 0),
        ("floor", 1),
    ]
    assert len(calls) == 1
    tiny, floor = rows[0], rows[2]
    assert floor.results.floor is None
    assert tiny.results.floor.metrics["video_auc"].value == floor.results.metrics["video_auc"].value
    assert tiny.num_parameters > 0
    table = markdown(rows).splitlines()
    assert len(table) == 6
    assert {line.count("|") for line in table} == {10}
    assert "recording labels" in table[2]


def test_what_is_finished_is_not_trained_again(recipes, monkeypatch):
    """The same table a second time costs no training step."""
    first = markdown(compare(recipes[:1], (0,)))
    monkeypatch.setattr(job, "run", None)  # the training loop
    assert markdown(compare(recipes[:1], (0,))) == first


def test_a_recipe_that_leaves_no_bundle_is_refused(recipes):
    """Named, with the reason."""
    name, config = recipes[0]
    with pytest.raises(DatasetError, match="'tiny' leaves no bundle"):
        compare([(name, dataclasses.replace(config, encoders=(FRAME_MOTION,)))], (0,))
