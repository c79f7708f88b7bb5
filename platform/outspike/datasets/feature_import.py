"""``outspike store import`` and ``export``: published feature files, their recordings, a store."""

import csv
import io
from dataclasses import dataclass, replace

from outspike import urls
from outspike.datasets.feature_files import Matched, match_files
from outspike.datasets.files import FileTree
from outspike.datasets.manifest import some_names
from outspike.errors import DatasetError
from outspike.recording import Recording
from outspike.store.importing import (
    FeatureFiles,
    ImportResult,
    ImportSettings,
    export_features,
    import_features,
)
from outspike.store.store import FeatureStore

#: Layouts of two feature sets each: vision, and the text that goes with it.
PAIRS = {"clip-emb": ("clip", "emb")}
_TEXT = "-text"
_REASONS_SHOWN = 20
_TABLE = "labels.csv"
_COLUMNS = (
    *("video_id", "split", "label", "class", "num_frames", "fps"),
    *("intervals", "group", "synthetic", "dataset"),
)


@dataclass(frozen=True, kw_only=True)
class FolderImport:
    """Feature files under one root, and the data set they are of."""

    root: str
    settings: ImportSettings
    pair: bool = False
    """The layout comes with a second one: text beside vision, as a feature set of its own."""
    dataset: str = "folder"
    split: str = "official"
    single_writer: bool = False
    """As in :class:`~outspike.config.StoreConfig`."""


def import_folder(store_url: str, wanted: FolderImport) -> tuple[list[tuple[str, object]], bool]:
    """Import the feature files under a root; the store is made where there is none.

    Returns:
        The table that ends the command, and whether every recording could be taken.

    Raises:
        ConfigError: an unknown layout, data set or split.
        DatasetError: no files of the layout, none of the data set, or lists that contradict them.
    """
    pairs = {first: (first, second) for first, second in PAIRS.values()} if wanted.pair else {}
    layouts = pairs.get(wanted.settings.layout, (wanted.settings.layout,))
    tree = FileTree.scan(wanted.root)
    store = FeatureStore.open_or_create(store_url, single_writer=wanted.single_writer)
    rows: list[tuple[str, object]] = []
    complete = True
    num_rows: dict[str, int] | None = None
    for number, layout in enumerate(layouts):
        settings = replace(wanted.settings, layout=layout)
        if number:
            settings = replace(settings, name=settings.name + _TEXT)
        else:
            settings = replace(settings, row_slack=0)
        matched, items = _items(wanted, settings, tree)
        result = import_features(store, items, settings, num_rows=num_rows)
        complete = complete and not result.bad
        rows += [*result.rows(), *_told(matched, result)]
        reader = store.features(result.address)
        num_rows = {"/".join(key): reader.num_snippets(key) for key in reader}
    return [*rows, ("store", f"{store_url} version {store.version}")], complete


def export_folder(
    store_url: str, feature_set: str, folder: str, layout: str, *, version: int | None = None
) -> list[tuple[str, object]]:
    """Write a feature set as ``.npy`` files with a ``labels.csv`` beside them.

    The table has the form that ``import_folder`` and the data set ``folder`` read.

    Raises:
        StoreError: no such store or feature set. ConfigError: an unknown layout.
    """
    store = FeatureStore.open(store_url, version=version)
    reader = store.features(feature_set)
    known = store.recordings_by_key()
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, _COLUMNS)
    writer.writeheader()
    num_files = num_recordings = 0
    for key, files in export_features(store, feature_set, folder, layout):
        facts = {"num_frames": reader.num_frames(key), "fps": reader.fps(key)}
        writer.writerow(_row(key, known.get(key)) | facts)
        num_files += len(files)
        num_recordings += 1
    urls.write_bytes(urls.join(folder, _TABLE), table.getvalue().encode())
    return [
        ("feature set", store.resolve(feature_set).address),
        ("recordings", num_recordings),
        ("files", num_files),
        ("folder", folder),
        ("labels", urls.join(folder, _TABLE)),
    ]


def _items(
    wanted: FolderImport, settings: ImportSettings, tree: FileTree
) -> tuple[Matched, list[FeatureFiles]]:
    groups = settings.files.group(tree.urls)
    if not groups:
        raise DatasetError(
            f"{wanted.root}: no file of layout {settings.layout!r} ({settings.files.summary}; "
            f"ending {settings.files.ending!r}) among {len(tree.urls)} files."
        )
    addresses = {name: tuple(tree.urls[path] for path in paths) for name, paths in groups.items()}
    first = {name: files[0] for name, files in addresses.items()}
    matched = match_files(wanted.dataset, wanted.split, first, tree)
    if not matched.recordings:
        raise DatasetError(
            f"{wanted.root}: none of the {len(groups)} recordings with feature files is in "
            f"{wanted.dataset} ({some_names(groups)}); give the data set they are of."
        )
    items = [
        FeatureFiles(
            recording=recording,
            files=addresses[name],
            num_frames=matched.num_frames.get(name),
        )
        for name, recording in sorted(matched.recordings.items())
    ]
    return matched, items


def _told(matched: Matched, result: ImportResult) -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = []
    if matched.unlisted:
        rows.append(("not in the list", _counted(matched.unlisted)))
    if matched.missing:
        rows.append(("listed, no file", _counted(matched.missing)))
    shown = list(result.bad.items())[:_REASONS_SHOWN]
    rows += [(f"refused {key}", reason) for key, reason in shown]
    if len(result.bad) > len(shown):
        rows.append(("refused", f"and {len(result.bad) - len(shown)} more"))
    return rows


def _counted(names: tuple[str, ...]) -> str:
    return f"{len(names)}: {some_names(names)}"


def _row(key: tuple[str, str], known: Recording | None) -> dict[str, object]:
    dataset, video_id = key
    row: dict[str, object] = {"video_id": video_id, "dataset": dataset}
    if known is None:
        return row
    intervals = known.intervals if known.label != 0 else None
    return row | {
        "split": known.split if known.split in ("train", "test") else "predict",
        "label": "" if known.label is None else known.label,
        "class": known.class_name or "",
        "intervals": ";".join(f"{start}:{stop}" for start, stop in intervals or ()),
        "group": known.group or "",
        "synthetic": int(known.synthetic),
    }
