"""Score recordings with a registered model, in this process or on Ray actors."""

import json
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray.data import ActorPoolStrategy, DataContext

from outspike.cluster import ray_session
from outspike.config import PredictConfig
from outspike.datasets import load
from outspike.errors import BagError, MediaError
from outspike.predict.write import intervals, write_prediction
from outspike.recording import Recording
from outspike.registry.models import download_bundle, find
from outspike.scoring.bundle import Bundle
from outspike.scoring.score import score_recording

logger = logging.getLogger(__name__)

#: Up to this many recordings, starting Ray costs more than it saves.
_FEW = 8


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What became of one recording: its highest score and alarms, or why it has none."""

    video_id: str
    seconds: float
    num_frames: int = 0
    highest: float = 0.0
    num_intervals: int = 0
    reason: str | None = None
    detail: str = ""

    def __str__(self) -> str:
        if self.reason is not None:
            return f"{self.video_id}: not scored, {self.reason}: {self.detail}"
        return (
            f"{self.video_id}: highest score {self.highest:.3f}, {self.num_intervals} intervals, "
            f"{self.num_frames} frames in {self.seconds:.1f} s"
        )


@dataclass(frozen=True, kw_only=True)
class PredictResult:
    """Everything that was scored, and where the files lie."""

    out: Path
    predictions: tuple[Prediction, ...]

    @property
    def bad_share(self) -> float:
        """Share of the recordings that could not be scored."""
        bad = sum(prediction.reason is not None for prediction in self.predictions)
        return bad / max(1, len(self.predictions))

    def table(self) -> str:
        """The lines that end the job."""
        return "\n".join([*map(str, self.predictions), f"files in {self.out}"])


def predict(config: PredictConfig) -> PredictResult:
    """Score every recording of ``config.input`` and write its files below ``config.out``.

    Raises:
        DatasetError: nothing to score there.
        RegistryError: no such model.
    """
    recordings = load("folder", config.input, "official").recordings
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    with local_bundle(config) as bundle:
        done: list[Prediction] = []
        for prediction in _predictions(config, recordings, bundle, out.absolute()):
            done.append(prediction)
            log = logger.info if prediction.reason is None else logger.warning
            log("%d/%d %s", len(done), len(recordings), prediction)
    return PredictResult(out=out, predictions=tuple(sorted(done, key=lambda p: p.video_id)))


def local_bundle(config: PredictConfig) -> AbstractContextManager[str]:
    """The model's bundle as a local folder, downloaded for as long as it is needed."""
    if not config.model.startswith("models:/"):
        return nullcontext(config.model)
    return _Downloaded(config)


class _Downloaded(TemporaryDirectory[str]):
    def __init__(self, config: PredictConfig) -> None:
        super().__init__(prefix="outspike-model-")
        self._config = config

    def __enter__(self) -> str:
        folder = Path(super().__enter__())
        version = find(self._config.tracking_uri, self._config.model)
        return str(download_bundle(version, folder))


class Scorer:
    """Scores one recording after another; the bundle is loaded once."""

    def __init__(self, config: PredictConfig, bundle: str, out: str) -> None:
        self._config = config
        self._bundle = Bundle.load(Path(bundle))
        self._out = Path(out)

    def score(self, recording: Recording) -> Prediction:
        """Score and write one recording; a bad input becomes a reason, not an exception."""
        began = time.monotonic()
        try:
            scores = score_recording(
                recording,
                self._bundle,
                timeout_s=self._config.decode_timeout_s,
                memory_mb=self._config.decode_memory_mb,
            )
        except (MediaError, BagError) as error:
            return Prediction(
                video_id=recording.video_id,
                seconds=time.monotonic() - began,
                reason=error.reason if isinstance(error, MediaError) else "bag",
                detail=str(error),
            )
        write_prediction(
            recording,
            scores,
            self._out,
            threshold=self._config.threshold,
            overlay=self._config.overlay,
        )
        return Prediction(
            video_id=recording.video_id,
            seconds=time.monotonic() - began,
            num_frames=scores.num_frames,
            highest=float(scores.scores.max()),
            num_intervals=len(intervals(scores, self._config.threshold)),
        )

    def __call__(self, batch: dict[str, Any]) -> dict[str, NDArray[np.object_]]:
        """The same as a Ray Data batch of JSON recordings."""
        done = [self.score(Recording.from_document(json.loads(text))) for text in batch["item"]]
        return {"prediction": np.array([json.dumps(asdict(p)) for p in done], dtype=object)}


def _predictions(
    config: PredictConfig, recordings: Sequence[Recording], bundle: str, out: Path
) -> Iterator[Prediction]:
    if config.num_actors is None and len(recordings) <= _FEW:
        scorer = Scorer(config, bundle, str(out))
        yield from map(scorer.score, recordings)
        return
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
            fn_constructor_args=(config, bundle, str(out)),
            batch_size=1,
            compute=ActorPoolStrategy(size=config.num_actors or 2),
            num_cpus=config.cpus_per_actor,
            num_gpus=config.gpus_per_actor,
        )
        for row in dataset.iter_rows():
            yield Prediction(**json.loads(str(row["prediction"])))
