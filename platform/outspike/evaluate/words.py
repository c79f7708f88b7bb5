"""How figures are written: one place, so that report, table and log say the same."""

from outspike.evaluate.results import Estimate

METRIC_TITLES: dict[str, str] = {
    "auc": "Frame AUC",
    "ap": "Frame AP",
    "ap_trapezoid": "Area under frame precision and recall",
    "auc_abnormal": "Frame AUC in anomalous videos",
    "ap_abnormal": "Frame AP in anomalous videos",
    "auc_per_video": "Mean AUC per video",
    "video_auc": "Video AUC",
    "video_ap": "Video AP",
    "far": "False-alarm rate",
    "far_normal": "… in normal videos",
    "far_abnormal": "… in anomalous videos",
    "false_alarms_per_hour": "False alarms per hour",
    "detection_map": "Detection mAP",
}

METRIC_MEANINGS: dict[str, str] = {
    "auc": "share of (anomalous, normal) frame pairs in the right order",
    "ap": "average precision over all frames",
    "ap_trapezoid": "the same with precision interpolated linearly, as some papers publish it",
    "auc_abnormal": "the same inside anomalous videos only",
    "ap_abnormal": "average precision inside anomalous videos only",
    "auc_per_video": "mean over videos that have both kinds of frames",
    "video_auc": "share of (anomalous, normal) video pairs in the right order",
    "video_ap": "average precision over whole videos",
    "far": "normal frames that reach the threshold",
    "far_normal": "frames of normal videos that reach the threshold",
    "far_abnormal": "normal frames of anomalous videos that reach the threshold",
    "false_alarms_per_hour": "alarms that touch no anomaly, at the recall asked for",
    "detection_map": "intervals found with enough overlap, mean over overlaps",
}

_NONE = "\N{EN DASH}"
_MINUS = "\N{MINUS SIGN}"
_PERCENT = frozenset({"far", "far_normal", "far_abnormal"})


def figure(metric: str, value: float | None) -> str:
    """A value of a metric: ``0.967``, ``3.27 %``, ``41.5``; a dash where there is none."""
    if value is None:
        return _NONE
    if metric in _PERCENT:
        return f"{100 * value:.2f} %"
    if metric == "false_alarms_per_hour":
        return f"{value:.1f}"
    return f"{value:.3f}"


def interval(metric: str, estimate: Estimate) -> str:
    """Its interval, ``0.941 to 0.985``; empty where there is none."""
    if estimate.low is None:
        return ""
    return f"{figure(metric, estimate.low)} to {figure(metric, estimate.high)}"


def signed(metric: str, value: float | None) -> str:
    """A difference with its sign, ``+0.142``."""
    if value is None:
        return _NONE
    text = figure(metric, abs(value))
    if value == 0:
        return text
    return f"{_MINUS if value < 0 else '+'}{text}"


def percent(value: float | None) -> str:
    """A share as ``12.5 %``, small ones with another digit, a dash where there is none."""
    if value is None:
        return _NONE
    if 0 < value < 0.0001:
        return "less than 0.01 %"
    return f"{100 * value:.2f} %" if 0 < value < 0.01 else f"{100 * value:.1f} %"


def clock(seconds: float) -> str:
    """``75`` as ``1:15``, ``2.5`` as ``0:02.5``, ``3700`` as ``1:01:40``."""
    tenths = round(seconds * 10)
    whole, rest = divmod(tenths, 10)
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    tail = f".{rest}" if rest else ""
    if hours:
        return f"{hours}:{minute:02d}:{second:02d}{tail}"
    return f"{minute}:{second:02d}{tail}"


def duration(seconds: float) -> str:
    """A length in words, ``2.4 h``, ``11.3 min``, ``42 s``."""
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 90 else f"{seconds:.0f} s"
