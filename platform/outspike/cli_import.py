"""Commands that take in what others have published: features, labels, checkpoints.

Like those in :mod:`outspike.cli`: parse, call one function, answer with an exit code.
"""

from fractions import Fraction
from typing import Annotated, Literal

import tyro

from outspike import app
from outspike.errors import ConfigError

Url = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="STORE")]
Source = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
FeatureSet = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FEATURE_SET")]
Folder = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
Name = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
File = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]

LayoutName = Literal[
    "rows",
    "crops-first",
    "snippets-first",
    "crop-files",
    "crop-files-bare",
    "lad",
    "clip",
    "emb",
]


def store_import(
    url: Url,
    source: Source,
    layout: LayoutName | Literal["clip-emb"],
    name: str,
    origin: str,
    dataset: str = "folder",
    split: str = "official",
    fps: str = "30",
    snippet_frames: int = 16,
    ending: str | None = None,
    dtype: Literal["float16", "float32"] | None = None,
    replace_nan: bool = False,
    text_slack: int = 0,
    single_writer: bool = False,
) -> int:
    """Copy published .npy features into a store, as a feature set to train on.

    example: outspike store import outspike-data/store Spikingformer --layout rows --name spikes
        --origin "UCF-Crime-DVS release, Spikingformer 256" --dataset ucf_crime_dvs

    What the store holds already is skipped. Exits with 3 where recordings had to be refused.

    Args:
        url: the store, made where there is none.
        source: local folder or s3:// prefix with the files.
        layout: how they lie: rows <id>.npy [n, D]; crops-first <id>.npy [K, n, D]; snippets-first
            <id>.npy [n, K, D]; crop-files <id>__0.npy to __9.npy; crop-files-bare <id>.npy and
            <id>__1.npy to __9.npy; lad <id>/feature.npy; clip <id>_clip.npy; emb <id>_emb.npy;
            clip-emb both, as two feature sets NAME and NAME-text.
        name: of the feature set; a detector reads it by this name.
        origin: where the files come from; with the layout it is their identity.
        dataset: published data set whose list says what the ids are, or folder: labels.csv in the
            folder, or class folders.
        split: named split of that data set.
        fps: frames a second of the recordings, a number or a ratio.
        snippet_frames: frames that a row stands for.
        ending: end of the file names after the id, where it is not the layout's (_i3d.npy).
        dtype: stored type; that of the first file where it is left out.
        replace_nan: make NaN zero and count it; it is refused otherwise.
        text_slack: rows that text may have more or fewer than its video (clip-emb).
        single_writer: make the store for one writer at a time, on a server without conditional
            puts (OpenStack Swift).
    """
    from outspike.datasets.feature_import import PAIRS, FolderImport, import_folder
    from outspike.store.importing import ImportSettings

    if text_slack and layout not in PAIRS:
        raise ConfigError(f"--text-slack belongs to the layouts {', '.join(PAIRS)}.")
    settings = ImportSettings(
        name=name,
        origin=origin,
        layout=PAIRS.get(layout, (layout,))[0],
        ending=ending,
        snippet_frames=snippet_frames,
        fps=_ratio(fps),
        dtype=dtype,
        replace_nan=replace_nan,
        row_slack=text_slack,
    )
    wanted = FolderImport(
        root=source,
        settings=settings,
        pair=layout in PAIRS,
        dataset=dataset,
        split=split,
        single_writer=single_writer,
    )
    rows, complete = import_folder(url, wanted)
    print(app.table(rows))
    return app.DONE if complete else app.QUARANTINED


def store_export(
    url: Url,
    feature_set: FeatureSet,
    folder: Folder,
    layout: LayoutName,
    version: int | None = None,
) -> int:
    """Write a feature set as .npy files in a published layout, with a labels.csv.

    example: outspike store export outspike-data/store event-pyramid features --layout rows

    Args:
        url: the store.
        feature_set: name, address or beginning of the fingerprint.
        folder: local folder or s3:// prefix to write to.
        layout: one of those of store import.
        version: version of the catalog; the newest where it is left out.
    """
    from outspike.datasets.feature_import import export_folder

    print(app.table(export_folder(url, feature_set, folder, layout, version=version)))
    return app.DONE


def import_labels(
    source: Source,
    what: Literal["labels", "event-frames", "text"] = "labels",
    out: str | None = None,
    order: str | None = None,
    classes: str | None = None,
    class_names: tuple[str, ...] = (),
    store: str | None = None,
    dataset: str | None = None,
    training: bool = False,
    window_us: int | None = None,
    origin: str | None = None,
    phrases: str | None = None,
) -> int:
    """Read published label files, event frames or text embeddings.

    examples: outspike datasets import-labels gt-ucf-dic.pickle --out labels.csv;
        outspike datasets import-labels gt-ucf.npy --order order.csv --store URL --dataset ucf_crime

    Labels: .npy (one vector for all videos, with --order), .npz (names, lengths, labels), .pickle
    (a dict; nothing in it is ever run), .mat, or a folder with a .mat or .npy a video.

    Args:
        source: the file or folder.
        what: labels; event-frames: .npz downloads of UCF-Crime-DVS, made into event recordings;
            text: an array of text embeddings, made into a prompt bank.
        out: table (labels), folder (event-frames) or .safetensors file (text) to write.
        order: table of video_id and num_frames in the order of a vector.
        classes: second label file, of class numbers by video.
        class_names: names of class 0, 1, ...
        store: store whose recordings get the labels.
        dataset: data set of those recordings.
        training: label training recordings frame by frame too; for fully supervised splits.
        window_us: microseconds of a window of event frames, where no folder name tells.
        origin: what made text embeddings, in words.
        phrases: text file with the phrase of each embedding.
    """
    _only_for(what, "labels", order, classes, class_names, store, dataset, training)
    _only_for(what, "event-frames", window_us)
    _only_for(what, "text", origin, phrases)
    if what != "labels" and out is None:
        raise ConfigError(f"--what {what} needs --out: where the result goes.")
    if what == "text":
        from outspike.detectors.bank_import import import_bank

        bank = import_bank(source, str(out), encoder=origin or "", phrases=phrases)
        rows: list[tuple[str, object]] = [("embeddings", "x".join(map(str, bank.rows.shape)))]
        rows += [("phrases", len(bank.phrases) or "not given"), ("bank", out)]
    elif what == "event-frames":
        from outspike.datasets.label_import import import_event_frames

        rows = import_event_frames(source, str(out), window_us=window_us)
    else:
        from outspike.datasets.label_import import LabelImport
        from outspike.datasets.label_import import import_labels as read

        rows = read(
            LabelImport(
                source=source,
                order=order,
                classes=classes,
                class_names=class_names,
                out=out,
                store=store,
                dataset=dataset,
                training=training,
            )
        )
    print(app.table(rows))
    return app.DONE


def import_checkpoint(
    name: Name,
    file: File,
    settings: tuple[str, ...] = (),
    published_settings: bool = False,
    store: str | None = None,
    protocol: str | None = None,
    out: str | None = None,
) -> int:
    """Check a published checkpoint of a detector, and make a model of it.

    examples: outspike import-checkpoint msf iter_5000.pkl;
        outspike import-checkpoint ief_vad ucf.pth --published-settings --settings image_set=rgb
        event_set=events --store URL --protocol ucf-crime --out model

    Every entry must be there, known and of the right shape; code in a pickle is never run.

    Args:
        name: msf, ief_vad, gv_vad, saa, aed or aed_t.
        file: the state dict as published (.pkl, .pth, .safetensors; saa also MindSpore .ckpt).
        settings: FIELD=VALUE of the detector's settings, over what the file implies.
        published_settings: take what the file does not tell (ief_vad: heads, nu, rates, noise
            model) from the publication.
        store: store with imported features that the model reads.
        protocol: rule to judge it by (jobs/evaluate.py --model FOLDER).
        out: folder of the model.
    """
    from outspike.scoring.import_model import import_model

    rows = import_model(
        name,
        file,
        settings=settings,
        published_settings=published_settings,
        store=store,
        protocol=protocol,
        out=out,
    )
    print(app.table(rows))
    return app.DONE


def _only_for(what: str, owner: str, *options: object) -> None:
    if what != owner and any(option not in (None, (), False) for option in options):
        raise ConfigError(f"An option of --what {owner} is set, yet --what is {what}; see --help.")


def _ratio(text: str) -> Fraction:
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError) as error:
        raise ConfigError(f"--fps {text!r}; expected a number or a ratio (30000/1001).") from error
