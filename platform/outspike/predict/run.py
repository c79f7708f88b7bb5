"""Score recordings with a registered model, in this process or on Ray actors."""

import dataclasses
import json
import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from outspike import urls
from outspike.config import PredictConfig
from outspike.datasets import load
from outspike.errors import ConfigError
from outspike.predict.scorer import Prediction, Scorer
from outspike.recording import Recording
from outspike.scoring.bundle import Bundle

logger = logging.getLogger(__name__)

#: Up to this many recordings, starting Ray costs more than it saves.
_FEW = 8


@dataclass(frozen=True, kw_only=True)
class PredictResult:
    """Everything that was scored, and where the files lie."""

    model: str
    out: str
    predictions: tuple[Prediction, ...]
    """In the order of their ids."""

    @property
    def bad_share(self) -> float:
        """Share of the recordings that could not be scored."""
        bad = sum(prediction.reason is not None for prediction in self.predictions)
        return bad / max(1, len(self.predictions))

    def table(self) -> str:
        """The lines that end the job."""
        bad = sum(prediction.reason is not None for prediction in self.predictions)
        total = f"{len(self.predictions) - bad} recordings scored by {self.model}"
        if bad:
            total += f", {bad} not"
        return "\n".join([*map(str, self.predictions), total, f"files in {self.out}"])


def predict(config: PredictConfig) -> PredictResult:
    """Score every recording of ``config.input`` and write its files below ``config.out``.

    Raises:
        DatasetError: nothing to score there.
        RegistryError, CheckpointError: no such model.
        ConfigError: the files would be written among the recordings.
    """
    config = dataclasses.replace(config, out=_absolute(config.out))
    recordings = _recordings(config)
    model, bundle = load_model(config)
    done: list[Prediction] = []
    for prediction in _predictions(config, recordings, bundle):
        done.append(prediction)
        log = logger.info if prediction.reason is None else logger.warning
        log("%d/%d %s", len(done), len(recordings), prediction)
    done.sort(key=lambda prediction: prediction.video_id)
    return PredictResult(model=model, out=config.out, predictions=tuple(done))


def describe(config: PredictConfig) -> list[tuple[str, object]]:
    """What :func:`predict` would do, without doing it; raises as it would."""
    recordings = _recordings(config)
    model, bundle = load_model(config)
    modalities = [recording.modality for recording in recordings]
    return [
        ("model", f"{model}, a {bundle.detector_config.kind} detector"),
        ("features", ", ".join(spec.address for spec in bundle.feature_sets)),
        ("videos", modalities.count("video")),
        ("event recordings", modalities.count("events")),
        ("would write to", config.out),
    ]


def load_model(config: PredictConfig) -> tuple[str, Bundle]:
    """The model and how it is called: a bundle's folder or prefix, or a registered version."""
    with tempfile.TemporaryDirectory(prefix="outspike-model-") as name:
        folder = Path(name)
        if not urls.is_local(config.model):
            for url in urls.list_files(config.model):
                (folder / url.rpartition("/")[2]).write_bytes(urls.read_bytes(url))
            return config.model, Bundle.load(folder)
        if Path(config.model).is_dir():
            return config.model, Bundle.load(Path(config.model))
        from outspike.registry.models import download_bundle  # actors have no use for MLflow
        from outspike.registry.versions import find

        version = find(config.tracking_uri, config.model)
        return version.address, Bundle.load(download_bundle(version, folder))


def _recordings(config: PredictConfig) -> tuple[Recording, ...]:
    manifest = load("folder", config.input, "official")
    for warning in manifest.warnings:
        logger.warning("%s", warning)
    _check_out(config)
    return manifest.recordings


def _check_out(config: PredictConfig) -> None:
    """Overlays must not replace recordings, nor be taken for recordings the next time."""
    source, out = (_absolute(url).rstrip("/") for url in (config.input, config.out))
    if urls.is_local(source) and Path(source).is_file():
        source = str(Path(source).parent)
        inside = out == source
    else:
        inside = f"{out}/".startswith(f"{source}/")
    if inside:
        raise ConfigError(
            f"--out {config.out} lies among the recordings of --input {config.input}; name a "
            "folder outside of it."
        )


def _absolute(url: str) -> str:
    return str(urls.local_path(url).resolve()) if urls.is_local(url) else url


def _predictions(
    config: PredictConfig, recordings: Sequence[Recording], bundle: Bundle
) -> Iterator[Prediction]:
    if config.num_actors is None and len(recordings) <= _FEW:
        scorer = Scorer(config, bundle)
        yield from map(scorer.score, recordings)
    else:
        yield from _on_actors(config, recordings, bundle)


def _on_actors(
    config: PredictConfig, recordings: Sequence[Recording], bundle: Bundle
) -> Iterator[Prediction]:
    import ray
    from ray.data import ActorPoolStrategy, DataContext

    from outspike.cluster import ray_session

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = 1  # a row reaches the driver when its recording is done
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    with ray_session():
        dataset = ray.data.from_items(
            [{"item": json.dumps(r.to_document())} for r in recordings],
            override_num_blocks=len(recordings),
        ).map_batches(
            Scorer,
            fn_constructor_args=(config, bundle),
            batch_size=1,
            compute=ActorPoolStrategy(size=_num_actors(config, len(recordings))),
            num_cpus=config.cpus_per_actor,
            num_gpus=config.gpus_per_actor,
        )
        for row in dataset.iter_rows():
            yield Prediction(**json.loads(str(row["prediction"])))


def _num_actors(config: PredictConfig, num_recordings: int) -> int:
    """As many as asked for, and no more than there are recordings and CPUs for.

    One CPU stays free, or Ray Data's own tasks starve.
    """
    from outspike.cluster import cluster_cpus

    wanted = min(config.num_actors or 2, num_recordings)
    room = (
        max(1, int((cluster_cpus() - 1) / config.cpus_per_actor))
        if config.cpus_per_actor
        else wanted
    )
    if room < wanted:
        logger.warning("num_actors=%d, CPUs for %d", wanted, room)
    return min(wanted, room)
