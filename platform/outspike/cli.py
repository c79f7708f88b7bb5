"""``outspike COMMAND``: the jobs and the small tools behind one name.

Every command parses its arguments, calls one function and turns the result into an exit code.
Imports stay inside the commands, so that ``outspike --help`` answers at once.
"""

import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from outspike import app, cli_events, cli_extract, cli_import, cli_store, urls
from outspike.errors import ConfigError

Arguments = Sequence[str] | None
File = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
Model = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
Name = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
Url = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="URL")]
Json = Annotated[bool, tyro.conf.arg(name="json")]


def train(arguments: Arguments = None, prog: str = "jobs/train.py") -> int:
    """Train a detector on stored features and register it."""
    from outspike.recipes import TRAIN_RECIPES

    config = app.choose_config(
        TRAIN_RECIPES,
        default="msf-miniature",
        prog=prog,
        description=(
            "Train a detector on the features of a store, judge it once under its protocol, and "
            "register it as a model. The same command goes on after an interruption, and finds a "
            "finished run instead of repeating it.\n\n"
            "examples:\n"
            f"  {prog}                                   the spiking detector, small set\n"
            f"  {prog} iefvad-miniature --num-workers 2  two workers share each batch\n"
            f"  {prog} --optim.lr 3e-4 --seed 1          any setting by its dotted name\n"
            f"  {prog} --num-workers 0                   in this process, without Ray"
        ),
        arguments=arguments,
    )
    from outspike.train import job  # after the arguments: it loads torch and the tracking library

    if config.dry_run:
        print(job.describe(config))
        return app.DONE
    print(job.train(config).table())
    return app.DONE


def tune(arguments: Arguments = None, prog: str = "jobs/tune.py") -> int:
    """Search hyperparameters with Ray Tune."""
    from outspike.recipes import TUNE_RECIPES

    config = app.choose_config(
        TUNE_RECIPES,
        default="msf-miniature",
        prog=prog,
        description=(
            "Vary settings of a training and keep what scores best on held-out training "
            "recordings; the test split is never looked at. One MLflow run for the search, one "
            "nested run a trial.\n\n"
            "examples:\n"
            f"  {prog} --num-trials 8\n"
            f"  {prog} --space optim.lr=log:1e-4:1e-1 detector.dropout=uniform:0:0.8\n"
            f"  {prog} --space optim.optimiser=choice:adam,sgd "
            "'optim.lr=log:1e-3:1 when optim.optimiser=sgd'\n"
            f"  {prog} --num-trials 500 --hours 8 --patience 50\n"
            f"  {prog} --sampler pbt --num-trials 8 --grace-steps 25\n"
            f"  {prog} ssls-ablation --resume\n\n"
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
    if result.best is None:
        return app.FAILED
    if config.confirm_seeds:
        print(run.confirm(config, result.best).table())
    return app.DONE


def crossfit(arguments: Arguments = None, prog: str = "jobs/crossfit.py") -> int:
    """Judge a recipe by cross-fitting: every recording is scored by a model that did not see it."""
    from outspike.recipes import CROSSFIT_RECIPES

    config = app.choose_config(
        CROSSFIT_RECIPES,
        default="miniature",
        prog=prog,
        description=(
            "Deal the recordings of a small data set into folds, train once a fold, and score what "
            "each holds out. Figures over all recordings have narrower intervals than those of a "
            "small test split; the motion floor goes through the same folds. Writes results.json, "
            "folds.json and report.html, and registers nothing.\n\n"
            "examples:\n"
            f"  {prog} fights --out report\n"
            f"  {prog} ped2 --num-folds 4 --train.seed 1"
        ),
        arguments=arguments,
    )
    from outspike.train import crossfit as folded  # after the arguments: it loads torch and MLflow

    if config.dry_run:
        print(folded.describe(config))
        return app.DONE
    print(folded.crossfit(config).table())
    return app.DONE


def evaluate(arguments: Arguments = None, prog: str = "jobs/evaluate.py") -> int:
    """Evaluate a registered model: figures with intervals, and the HTML report."""
    from outspike.recipes import EVALUATE_RECIPES

    config = app.choose_config(
        EVALUATE_RECIPES,
        default="miniature",
        prog=prog,
        description=(
            "Score a model's test recordings from the store and versions it was trained on, and "
            "write results.json and report.html: metrics with bootstrap intervals, the difference "
            "from the motion floor (or another model), curves, and a timeline of each "
            "recording.\n\n"
            "examples:\n"
            f"  {prog} --model models:/ped2@champion --out report\n"
            f"  {prog} --model models:/ped2/4 --against models:/ped2/3\n"
            f"  {prog} --model models:/ped2-ief-vad/1 --study perturbation --out study"
        ),
        arguments=arguments,
    )
    from outspike.registry import evaluation  # after the arguments: it loads torch and MLflow

    if config.dry_run:
        print(app.table(evaluation.describe(config)))
        return app.DONE
    if config.study == "perturbation":
        from outspike.registry import study

        print(app.table(study.perturbation_study(config)))
        return app.DONE
    print(app.table(evaluation.evaluate_model(config).rows()))
    return app.DONE


def promote(
    model: Model,
    margin: float = 0.0,
    require_shown: bool = False,
    rollback: bool = False,
    tracking_uri: str = "sqlite:///mlflow.db",
    dry_run: bool = False,
) -> int:
    """Make a registered model version the champion, if it proves itself.

    The version must give again the metrics it was registered with, load in a clean process from
    its own wheel, and beat the present champion: the whole paired-bootstrap interval of the
    difference lies beyond the margin. A first champion must beat the motion floor, and is told
    whether that is more than chance. The champion before stays as models:/NAME@previous. Exits
    with 4 where the gate refuses.

    examples: jobs/promote.py ped2 --margin 0.01; jobs/promote.py ped2 --rollback

    Args:
        model: models:/NAME/VERSION, or NAME for its newest version.
        margin: the difference in the protocol's first metric must lie beyond this.
        require_shown: refuse a first champion, too, whose interval touches the margin.
        rollback: exchange champion and previous of model NAME, without the gate.
        tracking_uri: MLflow server or database.
        dry_run: run every check, and change nothing.
    """
    from outspike.registry.promote import promote as gate
    from outspike.registry.versions import roll_back

    if rollback:
        back, gone = roll_back(tracking_uri, model, dry_run=dry_run)
        verb = "would be" if dry_run else "is"
        print(f"{back.address} {verb} champion, {gone.address} {verb} previous")
        return app.DONE
    promotion = gate(
        tracking_uri, model, margin=margin, require_shown=require_shown, dry_run=dry_run
    )
    print(promotion.table())
    return app.DONE if promotion.passed else app.REFUSED


def compare(
    recipes: Annotated[tuple[str, ...], tyro.conf.Positional],
    seeds: tuple[int, ...] = (0,),
    out: str = "",
) -> int:
    """Train recipes one after the other, and print one table of what each reaches.

    Every recipe is judged under its own protocol beside the motion floor on the same recordings.
    Runs that are finished are found, not repeated; nothing is registered.

    example: outspike compare msf-miniature saa-miniature --seeds 0 1 --out table.md

    Args:
        recipes: names that jobs/train.py knows.
        seeds: each recipe is trained once with each.
        out: file for the table, in Markdown.
    """
    from outspike.recipes import TRAIN_RECIPES
    from outspike.train import compare as comparison

    unknown = [name for name in recipes if name not in TRAIN_RECIPES]
    if unknown or not recipes:
        raise ConfigError(
            f"Unknown recipes {', '.join(unknown) or '(none given)'}; there are "
            f"{', '.join(TRAIN_RECIPES)}."
        )
    chosen = [(name, TRAIN_RECIPES[name]()) for name in recipes]
    table = comparison.markdown(comparison.compare(chosen, seeds))
    print(table, end="")
    if out:
        urls.write_bytes(out, table.encode())
    return app.DONE


def lineage(
    model: str = "",
    recording: str = "",
    out: str = "",
    tracking_uri: str = "sqlite:///mlflow.db",
) -> int:
    """Say what a registered model was made from, or which models saw a recording.

    The chain goes from the model over its run and the pinned versions to segments and source
    files with their etags.

    examples: outspike lineage --model ped2 --out ped2.csv;
    outspike lineage --recording ucsd_ped2/Test001

    Args:
        model: models:/NAME/VERSION, models:/NAME@champion, or NAME for its newest version.
        recording: DATASET/VIDEO_ID; lists the registered models trained, chosen or judged on it.
        out: file for a table of every segment and source file of the model.
        tracking_uri: MLflow server or database.
    """
    from outspike.train import lineage as chain

    if bool(model) == bool(recording):
        raise ConfigError("Name either --model or --recording.")
    if model:
        found = chain.lineage(tracking_uri, model)
        print(found.table())
        if out:
            chain.write_sources(found, out)
            print(f"{len(found.sources)} rows in {out}")
        return app.DONE
    saw, untold = chain.models_that_saw(tracking_uri, recording)
    for version, part in saw:
        print(f"{version.address}  {part}")
    for version, why in untold:
        print(f"{version.address}  cannot tell: {why}")
    print(f"{len(saw)} registered versions saw {recording}, {len(untold)} cannot tell")
    return app.FAILED if untold else app.DONE


def predict(arguments: Arguments = None, prog: str = "jobs/predict.py") -> int:
    """Score recordings with a registered model."""
    from outspike.recipes import PREDICT_RECIPES

    config = app.choose_config(
        PREDICT_RECIPES,
        default="miniature",
        prog=prog,
        description=(
            "Score a recording, a folder or an S3 prefix with a registered model. Writes per "
            "recording a table (.csv), the intervals above the threshold (.json), the score curve "
            "(.png) and an overlay (.mp4).\n\n"
            "example:\n"
            f"  {prog} --model models:/ped2@champion --input my-videos --out scores"
        ),
        arguments=arguments,
    )
    from outspike.predict import run  # after the arguments: it loads torch

    if config.dry_run:
        print(app.table(run.describe(config)))
        return app.DONE
    result = run.predict(config)
    print(result.table())
    return app.QUARANTINED if result.bad_share > config.max_bad_share else app.DONE


def datasets(name: Name = "", root: str = "", split: str = "official") -> int:
    """List the known data sets, or say what is found and missing of one.

    example: outspike datasets shanghaitech --root /data/shanghaitech --split as-trained

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
    if not root:
        raise ConfigError(f"outspike datasets {name} --root FOLDER: say where its files lie.")
    manifest = load(name, root, split)
    parts = Counter((r.split, r.modality, r.label) for r in manifest.recordings)
    for (part, modality, label), count in sorted(parts.items(), key=str):
        meaning = {None: "unlabelled", 0: "normal", 1: "anomalous"}[label]
        print(f"{count:>6} {modality} recordings, {part}, {meaning}")
    print(manifest.describe_missing())
    for warning in manifest.warnings:
        print(f"note: {warning}")
    return app.DONE


def video_probe(
    file: File, as_json: Json = False, headers_only: bool = False, timeout_s: float = 3600.0
) -> int:
    """Say what a video is, and what really decodes of it.

    Codec, size as stored and as shown, turn, frame rate and streams come from the container; the
    number of frames, the first and last time and whether times only go forward from decoding it to
    the end. Where that stops early decode_error says why; what cannot be opened is an error.

    example: outspike video probe s3://bucket/door.mp4 --json

    Args:
        file: local path or s3:// address.
        as_json: print JSON instead of a table.
        headers_only: answer from the container and the first frame.
        timeout_s: wall-clock limit for decoding.
    """
    if headers_only:
        from outspike.video.probe import probe
        from outspike.video.survey import Survey

        headers = Survey(info=probe(file)).facts()
        from_frames = ("decoded_frames", "t_first", "t_last", "monotone")
        return _show({k: v for k, v in headers.items() if k not in from_frames}, as_json)
    from outspike.video.isolate import survey_isolated

    return _show(survey_isolated(file, timeout_s=timeout_s).facts(), as_json)


def _show(facts: dict[str, object], as_json: bool) -> int:
    if as_json:
        print(json.dumps({key: _plain(value) for key, value in facts.items()}, indent=1))
    else:
        print(app.table([(key, _told(value)) for key, value in facts.items()]))
    return app.DONE


def demo(folder: str = "outspike-data", report: str = "outspike-report") -> int:
    """Generate, extract, train, evaluate, promote and predict, on generated recordings.

    Args:
        folder: where data, store and runs go.
        report: where the HTML report and the predictions go.
    """
    from outspike.demo import run

    return run(Path(folder), Path(report))


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else _text_of_ratio(value)


def _text_of_ratio(value: object) -> object:
    return str(value) if isinstance(value, Fraction) else value


def _told(value: object) -> object:
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return "not told" if value is None else value


#: Commands whose options are those of a recipe.
_JOBS: dict[str, Callable[[Arguments, str], int]] = {
    "extract": cli_extract.extract,
    "extract retry": cli_extract.extract_retry,
    "train": train,
    "tune": tune,
    "crossfit": crossfit,
    "evaluate": evaluate,
    "predict": predict,
}
_TOOLS: dict[str, Callable[..., int]] = {
    "demo": demo,
    "extract ledger": cli_extract.extract_ledger,
    "promote": promote,
    "compare": compare,
    "lineage": lineage,
    "store": cli_store.store,
    "store fsck": cli_store.store_fsck,
    "store gc": cli_store.store_gc,
    "store compact": cli_store.store_compact,
    "store lineage": cli_store.store_lineage,
    "store unpin": cli_store.store_unpin,
    "store import": cli_import.store_import,
    "store export": cli_import.store_export,
    "datasets": datasets,
    "datasets import-labels": cli_import.import_labels,
    "import-checkpoint": cli_import.import_checkpoint,
    "video probe": video_probe,
    "events info": cli_events.events_info,
    "events convert": cli_events.events_convert,
    "events render": cli_events.events_render,
}
_ORDER = (
    *("demo", "datasets", "extract", "extract ledger", "extract retry"),
    *("train", "tune", "crossfit", "compare", "evaluate"),
    *("promote", "lineage", "predict"),
    *("store", "store fsck", "store gc", "store compact", "store lineage", "store unpin"),
    *("store import", "store export", "datasets import-labels", "import-checkpoint"),
    *("video probe", "events info", "events convert", "events render"),
)


def main() -> None:
    """Entry point of the console script."""
    given = sys.argv[1:]
    for words in (2, 1):
        name, rest = " ".join(given[:words]), given[words:]
        prog = f"outspike {name}"
        if name in _JOBS:
            app.run_job(partial(_JOBS[name], rest, prog))
        if name in _TOOLS:
            app.run_job(partial(tyro.cli, _TOOLS[name], prog=prog, args=rest))
    _usage(given)


def _usage(given: Sequence[str]) -> None:
    commands: dict[str, Callable[..., int]] = {**_TOOLS, **_JOBS}
    lines = ["usage: outspike COMMAND [OPTIONS]", ""]
    lines += [f"  {n:<22} {(commands[n].__doc__ or '').splitlines()[0]}" for n in _ORDER]
    lines += ["", "outspike COMMAND --help tells each one's options, with examples."]
    asked = not given or given[0] in ("-h", "--help")
    if not asked:
        lines.insert(0, f"outspike: there is no command {' '.join(given[:2])!r}")
    print("\n".join(lines), file=sys.stdout if asked else sys.stderr)
    sys.exit(app.DONE if asked else app.BAD_USAGE)
