"""What chooses a step: a metric on recordings that were not trained on."""

from collections.abc import Sequence
from dataclasses import replace
from typing import cast, get_args

from outspike.config import TrainConfig
from outspike.errors import ConfigError
from outspike.evaluate.evaluate import evaluate
from outspike.evaluate.protocols import MetricName, Protocol, get_protocol
from outspike.scoring.scores import VideoScores


def selection_protocol(config: TrainConfig) -> Protocol:
    """The config's protocol reduced to the one metric that selects, on recordings of any data set.

    Raises:
        ConfigError: no such protocol or metric.
    """
    metric = config.selection.metric
    if metric not in get_args(MetricName):
        raise ConfigError(
            f"selection.metric={metric!r}: expected one of {', '.join(get_args(MetricName))}."
        )
    name = cast(MetricName, metric)
    return replace(get_protocol(config.protocol), dataset="*", metrics=(name,), primary=name)


def held_out_metric(config: TrainConfig, videos: Sequence[VideoScores]) -> float:
    """The selection metric of held-out scores; larger is better.

    Raises:
        ConfigError: their labels do not define it.
    """
    protocol = selection_protocol(config)
    found = evaluate(videos, protocol, num_resamples=0).metrics[protocol.primary]
    if found.value is None:
        raise ConfigError(
            f"selection.metric={protocol.primary!r} is not defined on the {len(videos)} held-out "
            f"recordings ({found.reason}); choose another one, such as 'video_auc'."
        )
    return found.value
