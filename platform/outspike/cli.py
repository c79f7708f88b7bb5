"""``outspike COMMAND``: the jobs and the small tools behind one name.

Every command parses its arguments, calls one function and turns the result into an exit code.
Imports stay inside the commands, so that ``outspike --help`` answers at once.
"""

import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from outspike import app

Arguments = Sequence[str] | None
Word = Annotated[str, tyro.conf.Positional]


def extract(arguments: Arguments = None) -> int:
    """Extract features of recordings into a store, skipping what it already holds."""
    from outspike.extract.prepare import prepare
    from outspike.extract.run import describe
    from outspike.extract.run import extract as run
    from outspike.recipes import EXTRACT_RECIPES

    config = app.choose_config(
        EXTRACT_RECIPES,
        default="miniature",
        prog="jobs/extract.py",
        description=(
            "Decode recordings once and write their features into a zarr store. What the store "
            "already holds is skipped, so the same command goes on after an interruption.\n\n"
            "examples:\n"
            "  jobs/extract.py                                  the miniature data set\n"
            "  jobs/extract.py folder --data.root my-videos     your own recordings\n"
            "  jobs/extract.py ped2 --data.root s3://bucket/ped2 --store.url s3://bucket/store"
        ),
        arguments=arguments,
    )
    if config.dry_run:
        print(describe(config))
        return app.DONE
    prepare(config.data)
    result = run(config)
    print(result.table())
    return app.QUARANTINED if result.bad_share > config.max_bad_share else app.DONE


def train(arguments: Arguments = None) -> int:
    """Train a detector on stored features and register it."""
    from outspike.recipes import TRAIN_RECIPES

    config = app.choose_config(
        TRAIN_RECIPES,
        default="msf-miniature",
        prog="jobs/train.py",
        description=(
            "Train a detector on the features of a store, judge it once under its protocol, and "
            "register it as a model. The same command goes on after an interruption, and finds a "
            "finished run instead of repeating it.\n\n"
            "examples:\n"
            "  jobs/train.py                                   the spiking detector, small set\n"
            "  jobs/train.py iefvad-miniature --num-workers 2  two workers share each batch\n"
            "  jobs/train.py --optim.lr 3e-4 --seed 1          any setting by its dotted name\n"
            "  jobs/train.py --num-workers 0                   in this process, without Ray"
        ),
        arguments=arguments,
    )
    from outspike.train import job  # after the arguments: it loads torch and the tracking library

    if config.dry_run:
        print(job.describe(config))
        return app.DONE
    print(job.train(config).table())
    return app.DONE


def tune(arguments: Arguments = None) -> int:
    """Search hyperparameters with Ray Tune."""
    from outspike.recipes import TUNE_RECIPES

    config = app.choose_config(
        TUNE_RECIPES,
        default="msf-miniature",
        prog="jobs/tune.py",
        description=(
            "Vary settings of a training and keep what scores best on held-out training "
            "recordings; the test split is never looked at. One MLflow run for the search, one "
            "nested run a trial.\n\n"
            "examples:\n"
            "  jobs/tune.py --num-trials 8\n"
            "  jobs/tune.py --space optim.lr=log:1e-4:1e-1 detector.dropout=uniform:0:0.8\n"
            "The same command goes on after an interruption."
        ),
        arguments=arguments,
    )
    from outspike.tune import run  # after the arguments: it loads torch, Ray and MLflow

    if config.dry_run:
        print(app.table(run.describe(config)))
        return app.DONE
    result = run.search(config)
    print(result.table())
    return app.FAILED if result.best is None else app.DONE


def evaluate(arguments: Arguments = None) -> int:
    """Evaluate a registered model: figures with intervals, and the HTML report."""
    from outspike.recipes import EVALUATE_RECIPES

    config = app.choose_config(
        EVALUATE_RECIPES,
        default="miniature",
        prog="jobs/evaluate.py",
        description=(
            "Score a model's test recordings from the store and versions it was trained on, and "
            "write results.json and report.html: metrics with bootstrap intervals, the difference "
            "from the motion floor (or another model), curves, and a timeline of each "
            "recording.\n\n"
            "examples:\n"
            "  jobs/evaluate.py --model models:/ped2@champion --out report\n"
            "  jobs/evaluate.py --model models:/ped2/4 --against models:/ped2/3"
        ),
        arguments=arguments,
    )
    from outspike.registry import evaluation  # after the arguments: it loads torch and MLflow

    if config.dry_run:
        print(app.table(evaluation.describe(config)))
        return app.DONE
    print(app.table(evaluation.evaluate_model(config).rows()))
    return app.DONE


def promote(
    model: Word,
    margin: float = 0.0,
    tracking_uri: str = "sqlite:///mlflow.db",
) -> int:
    """Make a registered model version the champion, if it proves itself.

    The version must load in a clean process, give again the metrics it was registered with, and
    beat the present champion (the motion floor, where there is none) by more than the margin.

    Args:
        model: models:/NAME/VERSION, or NAME for its newest version.
        margin: the lower end of the interval of the difference must lie above this.
        tracking_uri: MLflow server or database.
    """
    from outspike.registry.promote import promote as gate

    promotion = gate(tracking_uri, model, margin=margin)
    print(promotion.table())
    return app.DONE if promotion.passed else app.FAILED


def predict(arguments: Arguments = None) -> int:
    """Score recordings with a registered model."""
    from outspike.predict.run import predict as run
    from outspike.recipes import PREDICT_RECIPES

    config = app.choose_config(
        PREDICT_RECIPES,
        default="miniature",
        prog="jobs/predict.py",
        description=(
            "Score a recording, a folder or an S3 prefix with a registered model. Writes per "
            "recording a table (.csv), the intervals above the threshold (.json), the score curve "
            "(.png) and an overlay (.mp4).\n\n"
            "example:\n"
            "  jobs/predict.py --model models:/ped2@champion --input my-videos --out scores"
        ),
        arguments=arguments,
    )
    result = run(config)
    print(result.table())
    return app.QUARANTINED if result.bad_share > config.max_bad_share else app.DONE


def store(
    action: Annotated[Literal["ls", "show", "digest", "fsck"], tyro.conf.Positional],
    url: Word,
    feature_set: str | None = None,
) -> int:
    """Look into a feature store, or check every byte of it.

    Args:
        action: ls lists feature sets, show describes one, digest prints the order-independent
            digest of all features, fsck verifies checksums, tiling and orphans.
        url: the store, a local folder or s3:// address.
        feature_set: name or address of one feature set; all of them where it is left out.
    """
    from outspike.store import cli as tools

    text, code = getattr(tools, action)(url, *([feature_set] if feature_set else []))
    print(text)
    return int(code)


def datasets(name: Word = "", root: str = "", split: str = "official") -> int:
    """List the known data sets, or say what is found and missing of one.

    Args:
        name: a data set; all are listed where it is left out.
        root: local folder or s3:// prefix that holds it.
        split: named split.
    """
    from outspike.datasets import DATASETS, load

    if not name:
        for known, source in DATASETS.items():
            print(f"{known:<16} {source.summary} (splits: {', '.join(source.splits)})")
        return app.DONE
    manifest = load(name, root, split)
    parts = Counter((r.split, r.modality, r.label) for r in manifest.recordings)
    for (part, modality, label), count in sorted(parts.items(), key=str):
        meaning = {None: "unlabelled", 0: "normal", 1: "anomalous"}[label]
        print(f"{count:>6} {modality} recordings, {part}, {meaning}")
    print(manifest.describe_missing())
    for warning in manifest.warnings:
        print(f"note: {warning}")
    return app.DONE


def probe(file: Word, as_json: Annotated[bool, tyro.conf.arg(name="json")] = False) -> int:
    """Say what a video file is, from its header and from decoding it.

    Args:
        file: local path or s3:// address.
        as_json: print JSON instead of a table.
    """
    from outspike.video.probe import probe as look

    info = look(file)
    document = {key: getattr(info, key) for key in info.__dataclass_fields__}
    if as_json:
        print(json.dumps({key: _plain(value) for key, value in document.items()}, indent=1))
    else:
        print(app.table(list(document.items())))
    return app.DONE


def demo(folder: str = "outspike-data", report: str = "outspike-report") -> int:
    """Generate, extract, train, evaluate, register, promote and predict, on miniature data.

    Args:
        folder: where data, store and runs go.
        report: where the HTML report and the predictions go.
    """
    from outspike.demo import run

    return run(Path(folder), Path(report))


def _plain(value: object) -> object:
    return value if isinstance(value, int | float | str | bool | None) else str(value)


#: Commands whose options are those of a recipe.
_JOBS: dict[str, Callable[[Arguments], int]] = {
    "extract": extract,
    "train": train,
    "tune": tune,
    "evaluate": evaluate,
    "predict": predict,
}
_TOOLS: dict[str, Callable[..., int]] = {
    "demo": demo,
    "promote": promote,
    "store": store,
    "datasets": datasets,
    "probe": probe,
}


def main() -> None:
    """Entry point of the console script."""
    given = sys.argv[1:]
    if given and given[0] in _JOBS:
        app.run_job(lambda: _JOBS[given[0]](given[1:]))
    if given and given[0] in _TOOLS:
        tool = _TOOLS[given[0]]
        app.run_job(lambda: tyro.cli(tool, prog=f"outspike {given[0]}", args=given[1:]))
    _usage(failed=bool(given) and given[0] not in ("-h", "--help"))


def _usage(*, failed: bool) -> None:
    lines = ["usage: outspike COMMAND [OPTIONS]", ""]
    commands: dict[str, Callable[..., int]] = {**_TOOLS, **_JOBS}
    for name, command in commands.items():
        lines.append(f"  {name:<10} {(command.__doc__ or '').splitlines()[0]}")
    lines += ["", "outspike COMMAND --help tells each one's options."]
    print("\n".join(lines), file=sys.stderr if failed else sys.stdout)
    sys.exit(app.BAD_USAGE if failed else app.DONE)
