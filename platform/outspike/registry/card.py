"""The model card: what a person must know before using a registered detector."""

from collections.abc import Iterator
from typing import Any

from outspike.evaluate.results import Estimate, Results
from outspike.registry.energy import ADD_PJ, MAC_PJ, Cost
from outspike.scoring.bundle import Bundle


def model_card(
    name: str, bundle: Bundle, *, cost: Cost | None = None, training_s: float | None = None
) -> str:
    """Markdown: what the detector reads, where it comes from, how good it is, what it is not.

    Args:
        name: of the registered model.
        bundle: the detector.
        cost: operations a score takes, where they could be counted.
        training_s: seconds from the start of the training run to its registration.
    """
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
            *_cost(bundle, cost, training_s),
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


def _cost(bundle: Bundle, cost: Cost | None, training_s: float | None) -> Iterator[str]:
    yield "## Costs"
    yield ""
    if cost is None:
        yield "- a score: not counted, the test recordings could not be read"
    else:
        yield (
            f"- a snippet, on average over {cost.num_snippets:,} of the test split: "
            f"{_short(cost.dense_macs)} multiply-accumulates in layers and matrix products, "
            f"{cost.dense_pj / 1e6:.3g} uJ"
        )
        if cost.spiking_macs:
            yield (
                f"- with spikes: {_short(cost.spiking_macs)} of those are fed by "
                f"{_short(cost.spikes)} spikes, which a spiking device turns into "
                f"{_short(cost.synaptic_operations)} additions: {cost.spiking_pj / 1e6:.3g} uJ "
                f"({cost.spiking_pj / cost.dense_pj:.0%})"
            )
        yield (
            f"- reckoned, not measured: {MAC_PJ:g} pJ a multiply-accumulate and {ADD_PJ:g} pJ an "
            "addition in 32 bits, 45 nm (Horowitz, ISSCC 2014); memory traffic and the encoders "
            "are not in it"
        )
    if training_s is not None:
        told = _hours(bundle, training_s)
        yield f"- training: {training_s:,.0f} s from start to registration{told}"


def _hours(bundle: Bundle, training_s: float) -> str:
    """Core-hours where the config tells how many cores that were."""
    config = bundle.provenance.get("config")
    if config is None:
        return ""
    workers = max(1, config["num_workers"])
    cores = workers * (config["cpus_per_worker"] if config["num_workers"] else 1)
    gpus = workers * config["gpus_per_worker"]
    told = f"at most {cores * training_s / 3600:.3g} core-hours"
    told += f" and {gpus * training_s / 3600:.3g} GPU-hours" if gpus else ""
    return f", {told}, pauses of an interrupted run included"


def _short(value: float) -> str:
    """A count as people say it."""
    for factor, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= factor:
            return f"{value / factor:.3g}{unit}"
    return f"{value:.3g}"


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def _interval(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return estimate.reason or "none"
    return f"{estimate.low:.4f} to {estimate.high:.4f}"
