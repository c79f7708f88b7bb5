"""Figures of docs/results.md from real recordings (OUTSPIKE_MEDIA), as the jobs make them."""

import dataclasses
import functools
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from outspike.encoders.base import SourceInfo
from outspike.encoders.event_pyramid import EventPyramid
from outspike.evaluate.evaluate import evaluate
from outspike.evaluate.protocols import get_protocol
from outspike.evaluate.stored import floor_of
from outspike.extract.run import extract
from outspike.recipes import (
    crossfit_ped2,
    extract_ped2,
    extract_ped2_cross,
    floor_ped2,
    msf_ped2,
)
from outspike.store.store import FeatureStore
from outspike.timebase import SnippetGrid
from outspike.train.crossfit import crossfit
from outspike.train.job import train
from outspike.video.decode import FrameChunk, decode

pytestmark = pytest.mark.media


def with_place(config, media, folder):
    """A config on the real clips, with all that it writes below one folder."""
    changes = {
        "data": dataclasses.replace(config.data, root=str(media / "ucsd_ped2")),
        "store": dataclasses.replace(config.store, url=str(folder / "store")),
    }
    if hasattr(config, "storage"):
        changes |= {
            "storage": str(folder / "runs"),
            "tracking_uri": f"sqlite:///{folder / 'mlflow.db'}",
            "num_workers": 0,
        }
    return dataclasses.replace(config, **changes)


@pytest.fixture(scope="module")
def place(media, tmp_path_factory):
    """Folder with a store of Ped2's clips, and what puts a config there."""
    folder = tmp_path_factory.mktemp("ped2")
    config = with_place(extract_ped2(), media, folder)
    result = extract(config)
    assert (result.new, result.quarantined) == (24, 0)
    return functools.partial(with_place, media=media, folder=folder)


@pytest.mark.parametrize("clip", ["ucsd_ped2/test/01.mp4", "surv_fight/clips/fi001.mp4"])
def test_features_of_a_real_clip_do_not_depend_on_chunks(media, clip):
    """Cut anywhere, a real clip gives the same bits."""
    frames = np.concatenate([chunk.frames for chunk in decode(str(media / clip))])
    source = SourceInfo(
        modality="video", width=frames.shape[2], height=frames.shape[1], fps=Fraction(10)
    )
    encoder = EventPyramid(grid=SnippetGrid(stride=4))

    def rows(borders):
        stream = encoder.open(source)
        parts = [stream.push(FrameChunk(a, frames[a:b])) for a, b in pairwise(borders)]
        return np.concatenate([*parts, stream.finish(len(frames))]).tobytes()

    whole = rows([0, len(frames)])
    assert rows([0, 1, 2, 17, 40, len(frames)]) == whole
    assert rows(range(len(frames) + 1)) == whole


@pytest.mark.slow
def test_the_floor_of_ped2_is_the_one_reported(place):
    """Through the job and straight from the store: frame AUC 0.985 on weak-a."""
    config = place(floor_ped2())
    store = FeatureStore.open(config.store.url)
    protocol = get_protocol(config.protocol)
    direct = evaluate(floor_of(store, protocol), protocol, num_resamples=0).metrics["auc"].value
    assert direct == pytest.approx(0.985, abs=0.003)
    assert train(config, register_model=False).metrics["test/auc"] == pytest.approx(direct)


@pytest.mark.slow
def test_the_spiking_detector_finds_ped2s_anomalies(place):
    """The recipe ped2 ranks the frames of weak-a's test clips above 0.95."""
    result = train(place(msf_ped2()), register_model=False)
    assert result.metrics["test/auc"] > 0.95
    assert result.metrics["test/video_auc"] > 0.95


@pytest.mark.slow
def test_the_spiking_detector_beats_the_floor_on_clips_that_it_never_saw(media, tmp_path):
    """Over all labelled test clips of Ped2, cross-fitted, the whole interval lies above zero."""
    extracting = with_place(extract_ped2_cross(), media, tmp_path)
    assert extract(extracting).quarantined == 0
    config = crossfit_ped2()
    done = crossfit(
        dataclasses.replace(
            config,
            train=with_place(config.train, media, tmp_path),
            out=str(tmp_path / "report"),
        )
    )
    results = done.evaluation.results
    assert results.num_videos == 8
    assert results.metrics["auc"].value > 0.83
    assert results.floor.metrics["auc"].value == pytest.approx(0.707, abs=0.01)
    assert results.floor.verdict("auc") == "better"
