"""Frame labels reach training where the split is declared fully supervised, and nowhere else."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import pytest

from outspike.config import AedConfig, DataConfig, StoreConfig, TrainConfig, WindowConfig
from outspike.datasets.catalog import DATASETS, is_supervised
from outspike.errors import ConfigError, DatasetError
from outspike.store.store import FeatureStore
from outspike.train.data import BagCache, TrainingBags
from outspike.train.loop import run
from outspike.train.plan import make_plan
from outspike.train.step import World

SMALL = AedConfig(feature_set="motion", width=8, window=3, hidden=4, down=8, head=8)


@pytest.fixture(scope="module")
def stores(small_data: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Stores whose recordings are annotated throughout, of a supervised and of a weak data set."""
    urls = {}
    for dataset in ("folder", "ucsd_ped2", "ucf_crime"):
        url = str(tmp_path_factory.mktemp(dataset))
        recordings = [*small_data.recordings(6, 6), *small_data.recordings(3, 3, split="test")]
        store = FeatureStore.create(url)
        annotated = small_data.annotated(recordings, dataset)
        small_data.fill(store, annotated, [small_data.spec("motion")])
        urls[dataset] = url
    return urls


@pytest.fixture
def aed_config(
    config_of: Callable[..., TrainConfig], stores: dict[str, str]
) -> Callable[..., TrainConfig]:
    """Configs of AED over one of the stores."""

    def make(dataset: str = "folder", split: str = "official", **changes: object) -> TrainConfig:
        settings: dict[str, object] = {
            "data": DataConfig(dataset=dataset, split=split),
            "store": StoreConfig(url=stores[dataset]),
            "window": WindowConfig(rule="crop", length=3),
            "protocol": "folder",
        }
        return config_of(SMALL, **(settings | changes))

    return make


def test_batches_of_a_supervised_split_carry_the_labels_of_their_frames(
    aed_config: Callable[..., TrainConfig],
) -> None:
    """Of the rows that the window kept, the anomalous half cut so that one is anomalous."""
    batch = TrainingBags(make_plan(aed_config())).batch(0, World())
    assert batch.frame_labels is not None
    for bag in range(batch.num_bags):
        start, stop = batch.frame_ranges[bag].unbind(dim=1)
        for row in range(int(batch.num_snippets[bag])):
            labels = batch.frame_labels[bag, row].tolist()
            frames = range(int(start[row]), int(stop[row]))
            truth = [int(batch.labels[bag] == 1 and 8 <= frame < 40) for frame in frames]
            assert labels == truth + [-1] * (len(labels) - len(truth))
    anomalous = batch.frame_labels[batch.labels == 1]
    assert (anomalous == 1).flatten(1).any(dim=1).all()


@pytest.mark.parametrize(
    ("dataset", "split"), [("ucsd_ped2", "weak-a"), ("ucsd_ped2", "official"), ("ucf_crime", "x")]
)
def test_a_weak_split_refuses_a_detector_of_frame_labels(
    aed_config: Callable[..., TrainConfig], dataset: str, split: str
) -> None:
    """Even where the store has them, and the splits that would do are named."""
    told = "full-a, lad-reseeded" if dataset == "ucsd_ped2" else "none"
    with pytest.raises(ConfigError, match=f"'aed_t' learns from frame labels.*{told}"):
        make_plan(aed_config(dataset, split))


def test_a_weak_run_never_sees_frame_labels_that_the_store_holds(
    aed_config: Callable[..., TrainConfig], config_of: Callable[..., TrainConfig]
) -> None:
    """Neither in its batches nor in the bags that select a step."""
    base = config_of("msf")
    for split, allowed in (("weak-a", False), ("full-a", True)):
        config = dataclasses.replace(
            aed_config("ucsd_ped2", split), detector=base.detector, window=base.window
        )
        plan = make_plan(config)
        cache = BagCache(plan)
        for recording in plan.training:
            known = cache[recording].intervals
            assert known == (() if recording.label == 0 else ((8, 40),) if allowed else None)
        assert TrainingBags(plan).batch(0, World()).frame_labels is None


def test_a_supervised_split_without_annotation_is_one_clear_line(
    config_of: Callable[..., TrainConfig], small_data: SimpleNamespace, tmp_path: Path
) -> None:
    """As after registering the weak split: how many lack labels, and what to do."""
    url = str(tmp_path / "store")
    bare = [
        dataclasses.replace(r, dataset="ucsd_ped2", intervals=() if r.label == 0 else None)
        for r in small_data.recordings(4, 4)
    ]
    small_data.fill(FeatureStore.create(url), bare, [small_data.spec("motion")])
    config = config_of(
        SMALL, data=DataConfig(dataset="ucsd_ped2", split="full-a"), store=StoreConfig(url=url)
    )
    with pytest.raises(DatasetError, match=r"4 training recordings.*--data\.split full-a"):
        make_plan(config)


@pytest.mark.parametrize("kind", ["aed", "aed_t"])
def test_aed_trains_through_the_loop(
    aed_config: Callable[..., TrainConfig], tmp_path: Path, kind: Literal["aed", "aed_t"]
) -> None:
    """To its last checkpoint, with a loss that falls."""
    detector = dataclasses.replace(SMALL, kind=kind)
    told: list[float] = []
    plan = make_plan(dataclasses.replace(aed_config(steps=30, log_every=10), detector=detector))
    outcome = run(plan, str(tmp_path), tell=lambda _, metrics: told.append(metrics["total"]))
    assert outcome.step == 30
    assert told[-1] < told[0]


def test_supervised_splits_are_splits_and_defaults_are_resolved() -> None:
    """No declaration names a split that does not exist; unknown data sets declare nothing."""
    for name, source in DATASETS.items():
        assert source.supervised <= set(source.splits), name
    assert is_supervised("miniature", "official")
    assert not is_supervised("ucsd_ped2", "official")
    assert is_supervised("ucsd_ped2", "full-a")
    assert not is_supervised("nobody's", "official")
