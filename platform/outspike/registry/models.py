"""Registered models: a bundle, the package's wheel and the code that loads them, as one version."""

import logging
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import mlflow
import pandas as pd
from mlflow.entities import LoggedModelOutput
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types import ColSpec, DataType, Schema

from outspike.errors import OutspikeError, RegistryError
from outspike.registry import serve_path
from outspike.registry.card import model_card
from outspike.registry.energy import cost_of
from outspike.registry.tracking import RunLogger, connect
from outspike.registry.versions import CANDIDATE, ModelVersion, version_of
from outspike.registry.wheel import pinned_requirements, write_wheel
from outspike.scoring.bundle import Bundle

logger = logging.getLogger(__name__)

_SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec(DataType.string, "url")]),
    outputs=Schema(
        [
            ColSpec(DataType.string, "video_id"),
            ColSpec(DataType.long, "frame_start"),
            ColSpec(DataType.long, "frame_stop"),
            ColSpec(DataType.double, "score"),
        ]
    ),
)
_GLOBALS = threading.Lock()


def register(run: RunLogger, name: str, bundle: Path, tags: Mapping[str, str]) -> ModelVersion:
    """Store a bundle as the newest version of the model ``name`` and its ``candidate``.

    The run's status stays as it is.

    Args:
        run: the training run it came from.
        name: registered model name.
        bundle: bundle folder (``scoring.bundle``).
        tags: stamped on the version: store, feature set, fingerprint, catalog version, ...

    Raises:
        CheckpointError: ``bundle`` is not a bundle.
        RegistryError: the registry refuses the name or cannot be reached.
    """
    client = connect(run.uri)
    loaded = Bundle.load(bundle)
    try:
        cost = cost_of(loaded)
    except OutspikeError as error:
        logger.warning("the card of %s tells no costs: %s", name, error)
        cost = None
    with tempfile.TemporaryDirectory(prefix="outspike-register-") as folder:
        try:
            began_ms: int = client.get_run(run.run_id).info.start_time
            card = model_card(name, loaded, cost=cost, training_s=time.time() - began_ms / 1000)
            with _mlflow_at(run.uri):
                model_id = _log_model(client, run, bundle, card, Path(folder))
                _ensure_model(client, name)
                found = client.create_model_version(
                    name,
                    source=f"models:/{model_id}",
                    run_id=run.run_id,
                    model_id=model_id,
                    tags=dict(tags),
                    description=card,
                )
                client.set_registered_model_alias(name, CANDIDATE, found.version)
        except MlflowException as error:
            raise RegistryError(f"{name!r} was not registered at {run.uri}: {error}") from error
    return version_of(run.uri, found)


def download_bundle(version: ModelVersion, folder: Path) -> Path:
    """Fetch a version's bundle below ``folder`` and return the bundle's path.

    Raises:
        RegistryError: its files are gone, or it is not a model of ours.
    """
    bundles = sorted((download_model(version, folder) / "artifacts").rglob("bundle.json"))
    if len(bundles) != 1:
        raise RegistryError(
            f"{version.address} holds {len(bundles)} bundles, expected one: its files are gone, or "
            "it was not registered by outspike."
        )
    return bundles[0].parent


def download_model(version: ModelVersion, folder: Path) -> Path:
    """Fetch all files of a version below ``folder``.

    Raises:
        RegistryError: its files are gone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with _mlflow_at(version.uri):
            fetched = mlflow.artifacts.download_artifacts(
                artifact_uri=version.address, dst_path=str(folder), tracking_uri=version.uri
            )
    except (MlflowException, OSError) as error:
        raise RegistryError(f"The files of {version.address} cannot be fetched: {error}") from error
    return Path(fetched)


def _log_model(client: MlflowClient, run: RunLogger, bundle: Path, card: str, folder: Path) -> str:
    """Write the model's files and hand them to MLflow as an output of the run; its id.

    ``mlflow.pyfunc.log_model`` would do the same, and end the run on the way.
    """
    (folder / "README.md").write_text(card, encoding="utf-8")
    shutil.copytree(bundle, folder / "bundle")  # artifacts are called as their files are
    experiment = client.get_run(run.run_id).info.experiment_id
    model = client.create_logged_model(experiment, "detector", source_run_id=run.run_id)
    mlflow.pyfunc.save_model(
        folder / "model",
        python_model=str(serve_path()),
        artifacts={
            "bundle": str(folder / "bundle"),
            "wheel": str(write_wheel(folder)),
            "card": str(folder / "README.md"),
        },
        pip_requirements=pinned_requirements(),
        signature=_SIGNATURE,
        input_example=pd.DataFrame({"url": ["recording.mp4"]}),
        mlflow_model=Model(
            artifact_path=model.artifact_location,
            run_id=run.run_id,
            model_id=model.model_id,
            model_uuid=model.model_id,
        ),
    )
    client.log_model_artifacts(model.model_id, str(folder / "model"))
    client.finalize_logged_model(model.model_id, "READY")
    client.log_outputs(run.run_id, [LoggedModelOutput(model.model_id, step=0)])
    return str(model.model_id)


def _ensure_model(client: MlflowClient, name: str) -> None:
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


@contextmanager
def _mlflow_at(uri: str) -> Iterator[None]:
    """Point MLflow's process-wide addresses at ``uri``, which its registry looks models up by."""
    with _GLOBALS:
        is_set: bool = mlflow.is_tracking_uri_set()  # type: ignore[no-untyped-call]
        before = (mlflow.get_tracking_uri(), mlflow.get_registry_uri()) if is_set else ("", "")
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        try:
            yield
        finally:
            mlflow.set_tracking_uri(before[0])
            mlflow.set_registry_uri(before[1])
