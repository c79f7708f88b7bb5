"""Search spaces as text: ``optim.lr=log:1e-4:1e-1``, checked against the config they vary."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from ray import tune

from outspike.config import from_json, to_json
from outspike.errors import ConfigError

C = TypeVar("C")


def parse_space(texts: Sequence[str], config: Any) -> dict[str, Any]:
    """Ray Tune distributions by dotted field name.

    Args:
        texts: ``FIELD=KIND:ARGUMENTS`` each.
        config: the config whose fields they name; unknown fields are refused here.

    Raises:
        ConfigError: a field that does not exist, or a distribution that cannot be read.
    """
    space = {}
    for text in texts:
        name, separator, distribution = text.partition("=")
        if not separator:
            raise ConfigError(f"{text!r}: expected FIELD=KIND:ARGUMENTS, e.g. optim.lr=log:1e-4:1.")
        _get(config, name)
        space[name] = _parse(name, distribution)
    return space


def override(config: C, values: Mapping[str, Any]) -> C:
    """The config with dotted fields replaced, checked as if it had been written so.

    Raises:
        ConfigError: a field does not exist, or the values do not go together.
    """
    document = to_json(config)
    for name, value in values.items():
        _get(config, name)
        *path, last = name.split(".")
        target = document
        for part in path:
            target = target[part]
        target[last] = value
    changed: C = from_json(type(config), document)
    return changed


def _get(config: Any, name: str) -> Any:
    found = config
    for part in name.split("."):
        fields = (
            [f.name for f in dataclasses.fields(found)] if dataclasses.is_dataclass(found) else []
        )
        if part not in fields:
            raise ConfigError(
                f"{name!r} is not a setting: {part!r} is not among {', '.join(fields) or 'none'}."
            )
        found = getattr(found, part)
    return found


def _parse(name: str, text: str) -> Any:
    kind, _, rest = text.partition(":")
    try:
        if kind == "choice":
            return tune.choice([_value(part) for part in rest.split(",")])
        low, high = rest.split(":")
        if kind == "log":
            return tune.loguniform(float(low), float(high))
        if kind == "uniform":
            return tune.uniform(float(low), float(high))
        if kind == "int":
            return tune.randint(int(low), int(high) + 1)
    except ValueError as error:
        raise ConfigError(f"{name}={text}: {error}.") from error
    raise ConfigError(
        f"{name}={text}: unknown kind {kind!r}; there are log:LOW:HIGH, uniform:LOW:HIGH, "
        "int:LOW:HIGH (both ends included) and choice:A,B,C."
    )


def _value(text: str) -> Any:
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return {"true": True, "false": False, "none": None}.get(text, text)
