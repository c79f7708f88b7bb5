"""Versions of registered models, and the three aliases that say what stands where.

``candidate`` is the version registered last, ``champion`` the one that passed the gate, and
``previous`` the champion before it, which one command brings back.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import mlflow
from mlflow.exceptions import MlflowException

from outspike.errors import RegistryError
from outspike.registry.tracking import connect, resolve_uri

CANDIDATE = "candidate"
CHAMPION = "champion"
PREVIOUS = "previous"


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


def find(uri: str, address: str) -> ModelVersion:
    """The version behind ``models:/name/3``, ``models:/name@champion`` or ``name`` (the newest).

    Raises:
        RegistryError: the address is malformed, or nothing is registered there.
    """
    if not address.startswith("models:/"):
        return newest(uri, address)
    client = connect(uri)
    name, at, alias = address.removeprefix("models:/").partition("@")
    name, slash, number = name.partition("/")
    if bool(at) == bool(slash) or not name or not (alias or number.isdigit()):
        raise RegistryError(
            f"{address!r}: expected models:/NAME/VERSION, models:/NAME@ALIAS or NAME."
        )
    try:
        found = (
            client.get_model_version_by_alias(name, alias)
            if at
            else client.get_model_version(name, number)
        )
    except MlflowException as error:
        known = ", ".join(sorted(m.name for m in client.search_registered_models())) or "none"
        raise RegistryError(
            f"{address} is not in the registry at {resolve_uri(uri)} (models there: {known}). "
            "Train and promote one first, or give --tracking-uri."
        ) from error
    return version_of(uri, found)


def newest(uri: str, name: str) -> ModelVersion:
    """The version of ``name`` registered last.

    Raises:
        RegistryError: none is.
    """
    client = connect(uri)
    try:
        found = client.search_model_versions(
            f"name = '{name}'", max_results=1, order_by=["version_number DESC"]
        )
    except MlflowException as error:
        raise RegistryError(f"{name!r} cannot be a model's name: {error}") from error
    if not found:
        raise RegistryError(
            f"No model {name!r} in the registry at {resolve_uri(uri)}; train one first."
        )
    return version_of(uri, found[0])


def champion(uri: str, name: str) -> ModelVersion | None:
    """The version that carries the alias ``champion``, if any.

    Raises:
        RegistryError: no such model, or the registry does not answer.
    """
    return _by_alias(uri, name, CHAMPION)


def crown(version: ModelVersion) -> None:
    """Make a version champion; the one it takes over from becomes ``previous``.

    Raises:
        RegistryError: the registry refuses or does not answer.
    """
    before = champion(version.uri, version.name)
    if before is not None and before.version != version.version:
        _set_alias(before, PREVIOUS)  # first: a failure in between loses nothing
    _set_alias(version, CHAMPION)


def roll_back(uri: str, name: str, *, dry_run: bool = False) -> tuple[ModelVersion, ModelVersion]:
    """Exchange ``champion`` and ``previous``: the new champion, and the version it replaces.

    Raises:
        RegistryError: the model has never had two champions, or the registry does not answer.
    """
    present, before = champion(uri, name), _by_alias(uri, name, PREVIOUS)
    if present is None or before is None:
        raise RegistryError(
            f"{name!r} has {'a champion' if present else 'no champion'} and no {PREVIOUS} version: "
            "there is nothing to go back to."
        )
    if not dry_run:
        crown(before)
    return before, present


def _by_alias(uri: str, name: str, alias: str) -> ModelVersion | None:
    client = connect(uri)
    try:
        aliases: Mapping[str, str] = client.get_registered_model(name).aliases
        if alias not in aliases:
            return None
        return version_of(uri, client.get_model_version(name, str(aliases[alias])))
    except MlflowException as error:
        raise RegistryError(f"{name!r} at {resolve_uri(uri)}: {error}") from error


def _set_alias(version: ModelVersion, alias: str) -> None:
    try:
        connect(version.uri).set_registered_model_alias(version.name, alias, str(version.version))
    except MlflowException as error:
        raise RegistryError(f"{version.address} was not made {alias}: {error}") from error


def version_of(uri: str, found: mlflow.entities.model_registry.ModelVersion) -> ModelVersion:
    """One of MLflow's records as ours."""
    return ModelVersion(
        uri=resolve_uri(uri),
        name=str(found.name),
        version=int(found.version),
        run_id=str(found.run_id),
    )
