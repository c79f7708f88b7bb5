"""Named protocols and the results they stamp."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from outspike.datasets.catalog import DATASETS
from outspike.errors import ConfigError
from outspike.evaluate.evaluate import evaluate
from outspike.evaluate.protocols import PROTOCOLS, TEST_SELECTED, Protocol, get_protocol
from outspike.evaluate.results import Results
from outspike.scoring.scores import VideoScores


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=lambda protocol: protocol.name)
def test_a_protocol_names_a_known_data_set_and_split(protocol: Protocol) -> None:
    """What a protocol is defined on can be loaded under that name."""
    assert PROTOCOLS[protocol.name] is protocol
    if protocol.dataset == "*":
        return
    dataset = protocol.dataset.removesuffix("_long")
    assert protocol.split in ("official", *DATASETS[dataset].splits)


#: Every published evaluation: the protocol, its data set and split, and its headline.
PUBLISHED = {
    "UCF-Crime, official": ("ucf-crime", "ucf_crime", "official", "auc"),
    "UCF-Crime, SAA and GV-VAD": ("ucf-crime-ten-crop", "ucf_crime", "official", "auc"),
    "UCF-Crime, IEF-VAD": ("ucf-crime-as-trained", "ucf_crime", "official", "auc"),
    "UCF-Crime-DVS, MSF": ("ucf-crime-dvs", "ucf_crime_dvs", "official", "auc"),
    "XD-Violence, official": ("xd-violence", "xd_violence", "official", "ap"),
    "XD-Violence, SAA": ("xd-violence-trapezoid", "xd_violence", "official", "ap_trapezoid"),
    "XD-Violence, IEF-VAD": ("xd-violence-as-trained", "xd_violence", "as-trained", "ap"),
    "ShanghaiTech, official": ("shanghaitech", "shanghaitech", "official", "auc"),
    "ShanghaiTech, IEF-VAD": ("shanghaitech-as-trained", "shanghaitech", "as-trained", "auc"),
    "MSAD, official": ("msad", "msad", "official", "auc"),
    "MSAD, IEF-VAD": ("msad-as-trained", "msad", "official", "auc"),
    "LAD2000, every frame": ("lad2000", "lad2000", "official", "auc"),
    "LAD2000, AED": ("lad2000-as-published", "lad2000", "official", "auc"),
    "Avenue, AED": ("avenue-lad-reseeded", "avenue", "lad-reseeded", "auc"),
    "Ped2, AED": ("ped2-lad-reseeded", "ucsd_ped2", "lad-reseeded", "auc"),
    "TAD, GV-VAD": ("tad", "tad", "official", "auc"),
}


@pytest.mark.parametrize("evaluation", PUBLISHED)
def test_every_published_evaluation_has_a_protocol(evaluation: str) -> None:
    """By name, with its split and headline, and as an oracle over checkpoints, as published."""
    name, dataset, split, headline = PUBLISHED[evaluation]
    for protocol in (get_protocol(name), get_protocol(name + TEST_SELECTED)):
        assert (protocol.dataset, protocol.split, protocol.primary) == (dataset, split, headline)


@pytest.mark.parametrize("dataset", ["ucf-crime", "xd-violence", "shanghaitech", "msad"])
def test_what_ief_vad_was_trained_for_is_judged_as_it_was(dataset: str) -> None:
    """One mirrored crop, windows of 256, no frame past the last snippet; never by default."""
    published, official = get_protocol(f"{dataset}-as-trained"), get_protocol(dataset)
    rules = ("mirrored_centre", "windows_256", "covered_frames")
    assert (published.crop_policy, published.window_policy, published.frame_rule) == rules
    assert (official.crop_policy, official.window_policy, official.frame_rule) == (
        "mean",
        "whole",
        "every_frame",
    )


def test_only_protocols_named_so_may_choose_on_the_test_split() -> None:
    """Every honest protocol has an oracle variant, and nothing else differs."""
    for name, protocol in PROTOCOLS.items():
        assert protocol.test_selected == name.endswith(TEST_SELECTED)
    for name in [name for name in PROTOCOLS if not name.endswith(TEST_SELECTED)]:
        oracle = PROTOCOLS[name + TEST_SELECTED]
        assert dataclasses.replace(oracle, name=name, selection_split="train") == PROTOCOLS[name]
    with pytest.raises(ConfigError, match="test-selected"):
        Protocol(name="x", dataset="*", selection_split="test")
    with pytest.raises(ConfigError, match="test-selected"):
        Protocol(name="x-test-selected", dataset="*")


def test_an_unknown_protocol_is_answered_with_the_known_ones() -> None:
    """The message lists what there is."""
    with pytest.raises(ConfigError, match=r"No protocol 'ucf'.*ucf-crime"):
        get_protocol("ucf")


def test_every_protocol_is_described_in_the_documentation(repository: Path) -> None:
    """docs/protocols.md has each name and each metric."""
    text = (repository / "docs" / "protocols.md").read_text()
    for name, protocol in PROTOCOLS.items():
        if not name.endswith(TEST_SELECTED):
            assert f"`{name}`" in text
        for metric in protocol.metrics:
            assert f"`{metric}`" in text


def test_results_survive_json_bit_for_bit(make_set: Callable[..., list[VideoScores]]) -> None:
    """What is stored with a run is what was computed, floor and reasons included."""
    videos = make_set(8)
    for floor in (None, videos):
        results = evaluate(videos, PROTOCOLS["folder"], floor=floor, num_resamples=20)
        text = json.dumps(results.to_json(), allow_nan=False)
        assert Results.from_json(json.loads(text)) == results
    with pytest.raises(ConfigError, match="format 99"):
        Results.from_json({**results.to_json(), "format": 99})


def test_an_oracle_selection_is_stamped_on_the_results(
    make_set: Callable[..., list[VideoScores]],
) -> None:
    """The stamp goes wherever the results go."""
    videos = make_set(8)
    assert not evaluate(videos, PROTOCOLS["folder"], num_resamples=0).test_selected
    results = evaluate(videos, PROTOCOLS["folder-test-selected"], num_resamples=0)
    assert results.test_selected
    assert results.to_json()["protocol"]["selection_split"] == "test"


def test_ranking_errors_are_charged_to_the_videos_that_make_them(
    make_video: Callable[..., VideoScores],
) -> None:
    """Shares sum to one; the missed anomaly and the false alarm come out as what they are."""
    videos = [
        make_video("found", [0.1, 0.9], intervals=((16, 32),)),
        make_video("missed", [0.2, 0.15], intervals=((16, 32),)),
        make_video("calm", [0.1, 0.1]),
        make_video("alarming", [0.8, 0.1]),
    ]
    rows = {row.video_id: row for row in evaluate(videos, PROTOCOLS["folder"]).per_video}
    assert sum(row.error_share for row in rows.values()) == pytest.approx(1)
    assert rows["found"].missed == 0
    assert rows["missed"].missed == pytest.approx(2 / 6)
    assert rows["alarming"].false_alarm == pytest.approx(0.25)
    assert rows["calm"].error_share == 0
    assert rows["calm"].missed is None
