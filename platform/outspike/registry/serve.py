"""What MLflow runs when somebody loads a registered detector.

The file is copied into the model and executed there, so it imports nothing of the package at the
top: in a clean environment the package only becomes importable once the wheel in the model's
artifacts has been unpacked.
"""

import importlib.util
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd


class Detector(mlflow.pyfunc.PythonModel):  # type: ignore[misc,name-defined]
    """Scores recordings: a column ``url`` in, one row per snippet out."""

    def load_context(self, context: Any) -> None:
        """Load weights and configuration from the model's own files."""
        self._unpacked = _make_importable(Path(context.artifacts["wheel"]))
        from outspike.scoring.bundle import Bundle

        self.bundle = Bundle.load(Path(context.artifacts["bundle"]))

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """``url`` -> ``video_id, frame_start, frame_stop, score``."""
        from outspike.scoring.score import score_url

        scored = [score_url(str(url), self.bundle) for url in model_input["url"]]
        return pd.DataFrame(
            [
                (video.video_id, int(start), int(stop), float(score))
                for video in scored
                for start, stop, score in zip(video.start, video.stop, video.scores, strict=True)
            ],
            columns=["video_id", "frame_start", "frame_stop", "score"],
        )


def _make_importable(wheel: Path) -> Any:
    """Use the installed package where there is one, else the one that came with the model.

    Returns what keeps the unpacked files; they are removed with it.
    """
    found = importlib.util.find_spec("outspike")
    if found is not None and found.origin is not None:  # a mere folder of that name has no origin
        return None
    folder = tempfile.TemporaryDirectory(prefix="outspike-")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder.name)
    sys.path.insert(0, folder.name)
    importlib.invalidate_caches()
    return folder


mlflow.models.set_model(Detector())
