"""Files of the perturbation study: a table, what every weight lost, and plots."""

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from outspike.evaluate.perturbation import CaseResult, StudyVideo
from outspike.evaluate.study import Curves

Array = NDArray[np.float64]

#: Frames of one class that a plot shows, as published.
_FRAMES_PER_PLOT = 3000
_COLOURS = {"image": "#3b8ec2", "event": "#d9822b"}
_GREY, _RED = "#555555", "#d64545"
_DPI = 110


def tables(results: Sequence[CaseResult], modalities: Sequence[str]) -> dict[str, bytes]:
    """``perturbation.csv``, a row a case, and ``weight_change_<stream>.csv`` with the loss of every
    element of that stream's weight; the clean run opens the rows of each stream.
    """
    cases = list(_cases(results, modalities))
    groups = {"": "weight", "_anomalous": "weight_abnormal", "_normal": "weight_normal"}
    header = ["perturbed", "fraction", "brier", "kl", "auc", "ap"]
    header += [f"{m}_weight{suffix}" for suffix in groups for m in modalities]
    rows: list[list[object]] = []
    for modality, case in cases:
        weights = [getattr(case, group)[m] for group in groups.values() for m in modalities]
        rows.append([modality, case.fraction, case.brier, case.kl, case.auc, case.ap, *weights])
    written = {"perturbation.csv": _csv(header, rows)}
    for stream in modalities:
        width = len(cases[0][1].weight_change[stream])
        written[f"weight_change_{stream}.csv"] = _csv(
            ["perturbed", "fraction", *(f"w{index}" for index in range(width))],
            [[m, case.fraction, *case.weight_change[stream].tolist()] for m, case in cases],
        )
    return written


def study_plot(results: Sequence[CaseResult], modalities: Sequence[str]) -> bytes:
    """Figures and mean weights against the share of a stream that was perturbed, as a PNG."""
    figure = Figure(figsize=(10, 6), layout="constrained")
    axes = figure.subplots(2, 3).flatten()
    cases = list(_cases(results, modalities))
    titles = {"auc": "AUC", "ap": "AP", "brier": "Brier score", "kl": "KL from the clean scores"}
    for place, (name, title) in zip(axes, titles.items(), strict=False):
        for modality in modalities:
            mine = [c for m, c in cases if m == modality and getattr(c, name) is not None]
            shares, values = [c.fraction for c in mine], [getattr(c, name) for c in mine]
            place.plot(shares, values, "o-", ms=4, color=_COLOURS[modality], label=modality)
        if all(getattr(case, name) is None for case in results):
            title += ": not defined, frames of one class only"
        _dress(place, title, "share perturbed")
    for place, stream in zip(axes[4:], modalities, strict=True):
        for modality in modalities:
            mine = [case for m, case in cases if m == modality]
            shares, values = [c.fraction for c in mine], [c.weight[stream] for c in mine]
            place.plot(shares, values, "o-", ms=4, color=_COLOURS[modality])
        _dress(place, f"mean weight of {stream}", "share perturbed")
    figure.legend(
        *axes[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=len(modalities),
        title="perturbed stream",
        frameon=False,
    )
    return _png(figure)


def curve_plots(
    classes: Mapping[str, Sequence[tuple[StudyVideo, Curves]]],
) -> Iterator[tuple[str, bytes]]:
    """Two PNGs for every class and 3,000 frames of it: scores over mean weights, and how close the
    fused vector is to each stream. Annotated frames are shaded.
    """
    for class_name, members in classes.items():
        labels = np.concatenate([video.labels for video, _ in members])
        scores = {"": _frames(members, lambda found: found.probability)}
        weights, cosines, distances = (
            {m: _frames(members, partial(_of_stream, kind, m)) for m in _COLOURS}
            for kind in ("weight", "similarity", "distance")
        )
        kinds = {
            "weights": {"probability": scores, "mean weight": weights},
            "closeness": {"cosine to the mean": cosines, "distance from the mean": distances},
        }
        for kind, panels in kinds.items():
            for start in range(0, len(labels), _FRAMES_PER_PLOT):
                name = f"{kind}-{_safe(class_name)}-{start // _FRAMES_PER_PLOT + 1}.png"
                yield name, _panels(class_name, panels, labels, start)


def _of_stream(kind: str, stream: str, found: Curves) -> Array:
    values: Array = getattr(found, kind)[stream]
    return values


def _frames(members: Sequence[tuple[StudyVideo, Curves]], of: Callable[[Curves], Array]) -> Array:
    """Values of the rows of several recordings, one after the other, on their frames."""
    return np.concatenate([np.repeat(of(found), video.frames_per_row) for video, found in members])


def _panels(
    class_name: str,
    panels: Mapping[str, Mapping[str, Array]],
    labels: NDArray[np.uint8],
    start: int,
) -> bytes:
    """Panels of curves over one another, over the same frames."""
    rows = slice(start, start + _FRAMES_PER_PLOT)
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    places = figure.subplots(len(panels), 1, sharex=True)
    for place, (title, lines) in zip(places, panels.items(), strict=True):
        for stream, values in lines.items():
            shown = values[rows]
            frames = np.arange(start, start + len(shown))
            place.plot(frames, shown, lw=1, color=_COLOURS.get(stream, _GREY), label=stream)
        edges = np.flatnonzero(np.diff(labels[rows], prepend=0, append=0)).reshape(-1, 2)
        for first, last in edges:
            place.axvspan(start + first, start + last, color=_RED, alpha=0.2, lw=0)
        if title == "probability":
            place.set_ylim(0, 1)
        else:
            place.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
        _dress(place, title, "")
    places[-1].set_xlabel("frame")
    figure.suptitle(class_name)
    return _png(figure)


def _dress(axes: Axes, title: str, x_label: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x_label)
    axes.margins(x=0.02)
    axes.grid(alpha=0.3)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_figure(
        buffer, format="png", dpi=_DPI, metadata={"Software": None}
    )
    return buffer.getvalue()


def _csv(header: Sequence[str], rows: Sequence[Sequence[object]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)  # None is an empty field
    return text.getvalue().encode()


def _safe(name: str) -> str:
    """A class name as part of a file name."""
    return "".join(letter if letter.isalnum() else "_" for letter in name)


def _cases(
    results: Sequence[CaseResult], modalities: Sequence[str]
) -> Iterator[tuple[str, CaseResult]]:
    """Each stream with the clean run and its own cases."""
    clean = next(case for case in results if case.modality is None)
    for modality in modalities:
        yield modality, clean
        yield from ((modality, case) for case in results if case.modality == modality)
