"""Published features into a store and out again, with an identity that says what they are.

An imported feature set has no encoder here that could make it again. Its fingerprint document says
so: where the user says the files come from, how they were laid out, and nothing that was not
checked. A recording of such a set has the frame ranges of whole snippets, the last one cut where
the number of frames is known.
"""

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outspike import urls
from outspike.errors import AlignmentError, BagError, ConfigError, DatasetError, UrlError
from outspike.recording import Recording
from outspike.store.bags import BagReader
from outspike.store.fingerprint import FeatureSetSpec
from outspike.store.npy_layouts import LAYOUTS, Layout, save_array
from outspike.store.segments import SegmentWriter
from outspike.store.store import FeatureStore

logger = logging.getLogger(__name__)

_COMMIT_EVERY = 200


@dataclass(frozen=True, kw_only=True)
class FeatureFiles:
    """The files of one recording, and how many frames it has, where that is known."""

    recording: Recording
    files: tuple[str, ...]
    num_frames: int | None = None


@dataclass(frozen=True, kw_only=True)
class ImportSettings:
    """What is said of the features, and what may be mended on the way in.

    Raises:
        ConfigError: an unknown layout, or no word on where the features come from.
    """

    name: str
    """Of the feature set."""
    origin: str
    """Where the files come from, in the user's words: network, weights, download."""
    layout: str
    ending: str | None = None
    """End of the file names after the recording's id, where it is not the layout's own."""
    snippet_frames: int = 16
    fps: Fraction = Fraction(30)
    """Frames a second of the recordings; published features do not tell."""
    dtype: str | None = None
    """Stored type; None takes that of the first file."""
    replace_nan: bool = False
    """NaN becomes zero and is counted, as published loaders do in silence; else it is refused."""
    row_slack: int = 0
    """Rows that a recording may have more or fewer than its partner (text beside vision); they are
    cut, or the last one repeated, and counted."""

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise ConfigError(f"No layout {self.layout!r}; there are {', '.join(LAYOUTS)}.")
        if not self.origin.strip():
            raise ConfigError(
                "Say where the features come from (origin): it is all that identifies them."
            )
        if self.snippet_frames < 1 or self.fps <= 0 or self.row_slack < 0:
            raise ConfigError(
                f"snippet_frames={self.snippet_frames}, fps={self.fps}, row_slack="
                f"{self.row_slack}: need >= 1, > 0 and >= 0."
            )

    @property
    def files(self) -> Layout:
        """The layout, with the ending that was given."""
        layout = LAYOUTS[self.layout]
        return layout if self.ending is None else replace(layout, ending=self.ending)


@dataclass
class ImportResult:
    """What an import did, recording by recording."""

    address: str = ""
    num_new: int = 0
    num_skipped: int = 0
    bad: dict[str, str] = field(default_factory=dict)
    """Recording to what is wrong with its files."""
    num_nan: int = 0
    refitted: dict[str, int] = field(default_factory=dict)
    """Recording to how many rows were cut (negative) or repeated."""
    num_assumed: int = 0
    """Recordings whose number of frames is only known from their rows."""

    def rows(self) -> list[tuple[str, object]]:
        """The table that ends the command."""
        told: list[tuple[str, object]] = [
            ("feature set", self.address),
            ("imported", self.num_new),
            ("were there already", self.num_skipped),
            ("refused", len(self.bad)),
            ("NaN made zero", self.num_nan),
            (
                "rows cut or repeated",
                f"{sum(map(abs, self.refitted.values()))} in {len(self.refitted)} recordings",
            ),
            ("length taken from the rows", self.num_assumed),
        ]
        return told


def import_features(
    store: FeatureStore,
    items: Sequence[FeatureFiles],
    settings: ImportSettings,
    *,
    num_rows: Mapping[str, int] | None = None,
) -> ImportResult:
    """Copy the features of recordings into a store; what it holds already is not copied again.

    A recording that cannot be taken is refused with the reason and the others go on. What is said
    of recordings (labels, splits) is registered in any case.

    Args:
        store: where to; recordings not yet registered are.
        items: at least one.
        settings: layout, identity, permitted mending.
        num_rows: rows that a recording must have, by key (those of its partner set).

    Raises:
        DatasetError: there are no files, or not one recording can be read.
    """
    layout = settings.files
    if not items:
        raise DatasetError(f"No files of layout {settings.layout!r} ({layout.summary}) were found.")
    spec = _spec(settings, _first(layout, items))
    result = ImportResult(address=spec.address)
    there = store.done(spec.fingerprint)
    writer = store.segment_writer(spec)
    pending: list[Recording] = []
    for item in items:
        recording = item.recording
        try:
            stat = stat_of(item.files)
            if (recording.dataset, recording.video_id, stat.etag) in there:
                result.num_skipped += 1
            else:
                rows = _mended(layout.read(item.files), recording.key, settings, num_rows, result)
                _append(writer, item, stat, rows, settings, result)
        except (DatasetError, BagError, AlignmentError, UrlError) as error:
            writer.abort()
            result.bad[recording.key] = str(error)
            continue
        pending.append(recording)
        if len(pending) == _COMMIT_EVERY:
            _commit(store, writer, pending)
            pending = []
    _commit(store, writer, pending)
    if not result.num_new and not result.num_skipped:
        raise DatasetError(
            f"None of {len(items)} recordings could be imported; the first: "
            f"{next(iter(result.bad.values()))}"
        )
    return result


def export_features(
    store: FeatureStore, feature_set: str, folder: str, layout_name: str
) -> Iterator[tuple[tuple[str, str], list[str]]]:
    """Write a feature set as ``.npy`` files under a folder or prefix.

    Yields:
        ``(dataset, video_id)`` and the addresses written, recording by recording.

    Raises:
        ConfigError: no such layout. DatasetError: the layout cannot hold the crops, or two data
            sets share an id.
    """
    if layout_name not in LAYOUTS:
        raise ConfigError(f"No layout {layout_name!r}; there are {', '.join(LAYOUTS)}.")
    layout = LAYOUTS[layout_name]
    reader = BagReader(store, [feature_set])
    keys = reader.keys()
    owners: dict[str, str] = {}
    for dataset, video_id in keys:
        if owners.setdefault(video_id, dataset) != dataset:
            raise DatasetError(
                f"{video_id} is in {owners[video_id]} and in {dataset}, and would overwrite itself."
            )
    for key in keys:
        features_KSD = reader.read(key).features[feature_set]
        written = []
        for ending, array in layout.write(features_KSD.transpose(1, 0, 2)).items():
            written.append(urls.join(folder, key[1] + ending))
            save_array(written[-1], array)
        yield key, written


def frame_ranges(
    key: str, num_rows: int, num_frames: int | None, snippet_frames: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Half-open frames of every row, and the number of frames of the recording.

    Where the number of frames is known, the last row may reach past it by less than a snippet (the
    tail was kept) and rows may end up to a snippet early (it was dropped, in one of the ways in
    use).

    Raises:
        AlignmentError: rows and frames do not go together.
    """
    start = np.arange(num_rows, dtype=np.int64) * snippet_frames
    stop = start + snippet_frames
    covered = num_rows * snippet_frames
    if num_frames is None:
        return start, stop, covered
    fewest, most = num_frames // snippet_frames - 1, -(-num_frames // snippet_frames)
    if not fewest <= num_rows <= most:
        raise AlignmentError(
            f"{key}: {num_rows} rows of {snippet_frames} frames, the recording has {num_frames} "
            f"frames, that is {most} rows at most and {max(fewest, 0)} at least; these features "
            "are of another recording, or of another frame rate."
        )
    return start, np.minimum(stop, num_frames), num_frames


def stat_of(files: Sequence[str]) -> urls.SourceStat:
    """Size and identity of all files of a recording together.

    Raises:
        UrlError: one of them is not there.
    """
    stats = [urls.stat(url) for url in files]
    if len(stats) == 1:
        return stats[0]
    etags = hashlib.sha256("\n".join(stat.etag for stat in stats).encode()).hexdigest()
    return urls.SourceStat(url=stats[0].url, size=sum(stat.size for stat in stats), etag=etags[:32])


def _first(layout: Layout, items: Sequence[FeatureFiles]) -> NDArray[np.floating]:
    """Features of the first recording that can be read; they tell crops, width and type."""
    refused = ""
    for item in items:
        try:
            rows = layout.read(item.files)
        except (DatasetError, UrlError) as error:
            refused = refused or str(error)
            continue
        if rows.shape[2]:
            return rows
    raise DatasetError(f"None of {len(items)} recordings can be read; the first: {refused}")


def _spec(settings: ImportSettings, first: NDArray[np.floating]) -> FeatureSetSpec:
    dtype = settings.dtype or ("float16" if first.dtype == np.float16 else "float32")
    num_crops, width = first.shape[1:]
    document: dict[str, Any] = {
        "encoder": "imported",
        "origin": settings.origin.strip(),
        "layout": settings.layout,
        "grid": {
            "snippet_frames": settings.snippet_frames,
            "stride": settings.snippet_frames,
            "tail": "as imported",
        },
        "nan": "zero" if settings.replace_nan else "refused",
        "row_slack": settings.row_slack,
        "num_crops": num_crops,
        "width": width,
        "dtype": dtype,
    }
    return FeatureSetSpec(
        name=settings.name, document=document, num_crops=num_crops, width=width, dtype=dtype
    )


def _mended(
    rows: NDArray[np.floating],
    key: str,
    settings: ImportSettings,
    num_rows: Mapping[str, int] | None,
    result: ImportResult,
) -> NDArray[np.floating]:
    """The rows with what the settings allow put right, and counted."""
    if settings.replace_nan and (absent := np.isnan(rows)).any():
        result.num_nan += int(absent.sum())
        rows = np.where(absent, np.zeros((), dtype=rows.dtype), rows)
    wanted = len(rows) if num_rows is None else num_rows.get(key)
    if wanted is None:
        raise DatasetError(f"{key}: its partner in the other feature set is missing or refused.")
    missing = wanted - len(rows)
    if abs(missing) > settings.row_slack or (missing and not len(rows)):
        raise AlignmentError(
            f"{key}: {len(rows)} rows beside {wanted} of its partner; row_slack="
            f"{settings.row_slack} allows no more. Snippets must be the same in both."
        )
    if missing:
        result.refitted[key] = missing
        rows = np.concatenate([rows[:wanted], np.repeat(rows[-1:], max(missing, 0), axis=0)])
    return rows


def _append(
    writer: SegmentWriter,
    item: FeatureFiles,
    stat: urls.SourceStat,
    rows: NDArray[np.floating],
    settings: ImportSettings,
    result: ImportResult,
) -> None:
    key = item.recording.key
    if rows.dtype.itemsize > np.dtype(writer.spec.dtype).itemsize and settings.dtype is None:
        if rows.dtype == np.float64 and writer.spec.dtype == "float32":
            rows = rows.astype(np.float32)
        else:
            raise BagError(
                f"{key}: {rows.dtype} where the first recording has {writer.spec.dtype}; import "
                "all with dtype=float32."
            )
    start, stop, num_frames = frame_ranges(key, len(rows), item.num_frames, settings.snippet_frames)
    writer.begin(item.recording, stat=stat)
    writer.append(rows, start, stop)
    writer.end(num_frames, settings.fps)
    result.num_new += 1
    result.num_assumed += item.num_frames is None


def _commit(store: FeatureStore, writer: SegmentWriter, recordings: Sequence[Recording]) -> None:
    """Make what was written durable; labels first, so that no feature is without."""
    writer.flush()
    if not recordings:
        return
    known = store.recordings_by_key()
    store.put_recordings([_kept(known.get((r.dataset, r.video_id)), r) for r in recordings])
    store.commit(writer.drain())


def _kept(known: Recording | None, imported: Recording) -> Recording:
    """The recording as imported, with what was registered before and is not told now.

    A recording that was extracted keeps the address of its own file.
    """
    if known is None:
        return imported
    if imported.label is None:
        imported = replace(imported, label=known.label, split=known.split)
    if imported.intervals is None and imported.label == known.label:
        imported = replace(imported, intervals=known.intervals)
    if known.url.endswith(".npy"):
        return imported
    return replace(imported, url=known.url, fps=known.fps, size=known.size)
