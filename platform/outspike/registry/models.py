"""Registered models: a bundle, the package's wheel and the code that loads them, as one version."""

import logging
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from packaging.requirements import Requirement

from outspike.errors import RegistryError
from outspike.registry import serve_path
from outspike.registry.tracking import RunLogger, connect, resolve_uri
from outspike.registry.wheel import write_wheel

logger = logging.getLogger(__name__)

CHAMPION = "champion"

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
#: MLflow's fluent interface keeps the active run in globals.
_FLUENT = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class ModelVersion:
    """One version of a registered model."""

    uri: str
    """Address of the registry."""
    name: str
    version: int
    run_id: str

    @property
    def address(self) -> str:
        """What ``mlflow.pyfunc.load_model`` and ``jobs/predict.py --model`` take."""
        return f"models:/{self.name}/{self.version}"


def register(run: RunLogger, name: str, bundle: Path, tags: Mapping[str, str]) -> ModelVersion:
    """Store a bundle as a new version of the model ``name``.

    Args:
        run: the training run it came from.
        name: registered model name.
        bundle: bundle folder (``scoring.bundle``).
        tags: stamped on the version: store, feature set, fingerprint, catalog version, ...
    """
    with tempfile.TemporaryDirectory() as folder, _FLUENT:
        wheel = write_wheel(Path(folder))
        mlflow.set_tracking_uri(run.uri)
        mlflow.set_registry_uri(run.uri)
        with mlflow.start_run(run_id=run.run_id):
            logged = mlflow.pyfunc.log_model(
                name="detector",
                python_model=str(serve_path()),
                artifacts={"bundle": str(bundle), "wheel": str(wheel)},
                pip_requirements=requirements(),
                signature=_SIGNATURE,
                registered_model_name=name,
                await_registration_for=None,
            )
    version = ModelVersion(
        uri=run.uri, name=name, version=int(logged.registered_model_version), run_id=run.run_id
    )
    client = connect(run.uri)
    for key, value in tags.items():
        client.set_model_version_tag(name, str(version.version), key, value)
    return version


def find(uri: str, address: str) -> ModelVersion:
    """The version behind ``models:/name/3``, ``models:/name@champion`` or ``name`` (the newest).

    Raises:
        RegistryError: the address is malformed, or nothing is registered there.
    """
    client = connect(uri)
    if not address.startswith("models:/"):
        return newest(uri, address)
    path = address.removeprefix("models:/")
    name, at, alias = path.partition("@")
    try:
        if at:
            found = client.get_model_version_by_alias(name, alias)
        else:
            name, _, number = path.partition("/")
            if not number.isdigit():
                raise RegistryError(
                    f"{address!r}: expected models:/NAME/VERSION or models:/NAME@ALIAS."
                )
            found = client.get_model_version(name, number)
    except MlflowException as error:
        known = ", ".join(sorted(m.name for m in client.search_registered_models())) or "none"
        raise RegistryError(
            f"{address} is not in the registry at {resolve_uri(uri)} (models there: {known}). "
            "Train and promote one first, or give --tracking-uri."
        ) from error
    return ModelVersion(
        uri=resolve_uri(uri), name=name, version=int(found.version), run_id=str(found.run_id)
    )


def newest(uri: str, name: str) -> ModelVersion:
    """The version of ``name`` registered last.

    Raises:
        RegistryError: none is.
    """
    found = connect(uri).search_model_versions(f"name = '{name}'")
    if not found:
        raise RegistryError(
            f"No model {name!r} in the registry at {resolve_uri(uri)}; train one first."
        )
    last = max(found, key=lambda version: int(version.version))
    return ModelVersion(
        uri=resolve_uri(uri), name=name, version=int(last.version), run_id=str(last.run_id)
    )


def champion(uri: str, name: str) -> ModelVersion | None:
    """The version that carries the alias ``champion``, if any."""
    try:
        found = connect(uri).get_model_version_by_alias(name, CHAMPION)
    except MlflowException:
        return None
    return ModelVersion(
        uri=resolve_uri(uri), name=name, version=int(found.version), run_id=str(found.run_id)
    )


def download_bundle(version: ModelVersion, folder: Path) -> Path:
    """Fetch a version's bundle below ``folder`` and return the bundle's path."""
    source = connect(version.uri).get_model_version_download_uri(version.name, str(version.version))
    with _FLUENT:
        mlflow.set_tracking_uri(version.uri)
        mlflow.set_registry_uri(version.uri)
        model = Path(
            mlflow.artifacts.download_artifacts(
                artifact_uri=source, dst_path=str(folder), tracking_uri=version.uri
            )
        )
    bundles = sorted((model / "artifacts").rglob("bundle.json"))
    if len(bundles) != 1:
        raise RegistryError(
            f"{version.address} holds {len(bundles)} bundles, expected one; it was not registered "
            "by outspike."
        )
    return bundles[0].parent


def requirements() -> list[str]:
    """Exact versions of what the package needs at run time, as installed here."""
    names = {"spikingjelly"}
    for text in metadata.requires("outspike") or []:
        requirement = Requirement(text)
        if requirement.marker is None:
            names.add(requirement.name)
    return sorted(f"{name}=={metadata.version(name)}" for name in names)
