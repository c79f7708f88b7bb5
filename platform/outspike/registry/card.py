"""The model card: what a person must know before using a registered detector."""

from collections.abc import Iterator
from typing import Any

from outspike.evaluate.results import Estimate, Results
from outspike.scoring.bundle import Bundle


def model_card(name: str, bundle: Bundle) -> str:
    """Markdown: what the detector reads, where it comes from, how good it is, what it is not."""
    return "\n".join(
        [
            f"# {name}",
            "",
            f"A `{bundle.detector_config.kind}` detector of anomalies in recordings, trained on "
            "labels people gave them. It gives every snippet a score between 0 and 1.",
            "",
            *_inputs(bundle),
            "",
            *_origin(bundle.provenance),
            "",
            *_training(bundle.provenance),
            *_results(bundle),
            "",
            "## Use",
            "",
            f"    jobs/predict.py --model models:/{name}/VERSION --input recordings --out scores",
            "",
            "or `mlflow.pyfunc.load_model(...).predict(DataFrame({'url': [...]}))`: one row a "
            "snippet.",
            "",
            "## Limits",
            "",
            "Scores rank the snippets of recordings like those it was trained on; they are not "
            "calibrated probabilities, and another camera or scene needs its own test recordings.",
            "",
        ]
    )


def _inputs(bundle: Bundle) -> Iterator[str]:
    yield "## Reads"
    yield ""
    grids = {encoder.kind: encoder.grid.document() for encoder in bundle.encoders}
    for spec in bundle.feature_sets:
        grid = grids[spec.name] if spec.name in grids else spec.document["grid"]
        imported = f"; imported: {spec.document['origin']}" if spec.is_imported else ""
        yield (
            f"- `{spec.address}`: snippets of {grid['snippet_frames']} frames every "
            f"{grid['stride']}, {spec.num_crops} crops, {spec.width} wide{imported}"
        )


def _origin(provenance: Any) -> Iterator[str]:
    yield "## Comes from"
    yield ""
    names = ("store", "catalog_version", "recordings_version", "run", "step", "git")
    found = [key for key in (*names, "config_hash") if provenance.get(key) is not None]
    for key in found:
        yield f"- {key.replace('_', ' ')}: `{provenance[key]}`"
    if not found:
        yield "Not recorded."


def _training(provenance: Any) -> Iterator[str]:
    told = provenance.get("trained_on")
    if told is None:
        return
    yield "## Trained on"
    yield ""
    counts = (
        f"{told['normal']} normal, {told['anomalous']} anomalous, {told['generated']} generated"
    )
    yield f"- data set `{told['dataset']}`, split `{told['split']}`: {counts} recordings"
    if told["held_out"]:
        yield f"- {told['held_out']} more chose the checkpoint and were not trained on"
    yield f"- {told['steps']} steps of {told['bags_per_batch']} recordings, learning from " + (
        "frame labels" if told["learns_frames"] else "labels of whole recordings"
    )
    if told["synthetic_per_batch"]:
        share = told["synthetic_per_batch"] / told["bags_per_batch"]
        yield f"- {share:.0%} of every step are generated clips; SSLS: {told['ssls']}"
    for defect in told["known_defects"]:
        yield f"- known of this split: {defect}"
    yield ""


def _results(bundle: Bundle) -> Iterator[str]:
    yield f"## Results under protocol `{bundle.protocol}`"
    yield ""
    stored = bundle.provenance.get("results")
    if stored is None:
        yield "None: it was not judged."
        return
    results = Results.from_json(stored)
    yield (
        f"{results.num_videos} test recordings, {results.num_abnormal} of them anomalous, "
        f"{results.hours:.2f} h."
    )
    if results.test_selected:
        yield "**The checkpoint was chosen on the test split, so these figures flatter it.**"
    yield ""
    yield f"| metric | value | {results.level:.0%} interval |"
    yield "|---|---|---|"
    for metric, estimate in results.metrics.items():
        yield f"| {metric} | {_number(estimate.value)} | {_interval(estimate)} |"
    yield from _classes(results)


def _classes(results: Results) -> Iterator[str]:
    if not results.per_class:
        return
    yield ""
    yield "| class | recordings | auc within | mean video score |"
    yield "|---|---|---|---|"
    for found in results.per_class:
        auc = f"{_number(found.auc.value)} ({_interval(found.auc)})"
        score = _number(found.mean_video_score)
        yield f"| {found.name} | {found.num_videos} | {auc} | {score} |"


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def _interval(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return estimate.reason or "none"
    return f"{estimate.low:.4f} to {estimate.high:.4f}"
