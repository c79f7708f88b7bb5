"""Search spaces as text: ``optim.lr=log:1e-4:1e-1``, checked against the config they vary.

Settings that only make sense together are varied together, case by case:
``ssls.policy,ssls.scale=cases:fixed,0.5|learned,1``.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from ray import tune
from ray.tune.search.sample import Categorical

from outspike.config import from_json, to_json
from outspike.errors import ConfigError

C = TypeVar("C")

_KINDS = (
    "log:LOW:HIGH, uniform:LOW:HIGH, int:LOW:HIGH (both ends included), choice:A,B,C and, for "
    "several fields FIELD,FIELD at once, cases:A,B|C,D"
)


def parse_space(texts: Sequence[str], config: Any) -> dict[str, Any]:
    """Ray Tune distributions by dotted field name.

    The ends of every range, and every choice, are tried on the config, so that no trial starts
    with values it cannot have.

    Args:
        texts: ``FIELD=KIND:ARGUMENTS`` each.
        config: the config whose fields they name; unknown fields are refused here.

    Raises:
        ConfigError: a field that does not exist or is named twice, a distribution that cannot be
            read, or values that the field does not take.
    """
    space: dict[str, Any] = {}
    varied: set[str] = set()
    for text in texts:
        name, separator, distribution = text.partition("=")
        if not separator:
            raise ConfigError(f"{text!r}: expected FIELD=KIND:ARGUMENTS, e.g. optim.lr=log:1e-4:1.")
        for part in name.split(","):
            if part in varied:
                raise ConfigError(f"{text!r}: {part} is varied twice; keep one of the two.")
            varied.add(part)
            _get(config, part)
        space[name], extremes = _parse(text, distribution)
        for value in extremes:
            _try(config, name, value, text)
    if not space:
        raise ConfigError(
            f"A search varies at least one setting: --space FIELD=..., with {_KINDS}."
        )
    return space


def grid_of(space: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """The same space to be gone through whole, and how many combinations that is.

    Raises:
        ConfigError: a range has no end of values.
    """
    grid, size = {}, 1
    for name, distribution in space.items():
        if not isinstance(distribution, Categorical):
            raise ConfigError(
                f"sampler='grid' goes through every value, and {name} has a range; give it as "
                "choice:A,B,C."
            )
        grid[name] = tune.grid_search(list(distribution.categories))
        size *= len(distribution.categories)
    return grid, size


def marginals(space: Mapping[str, Any]) -> dict[str, Any]:
    """The distribution of every single field; of fields drawn together, their distinct values."""
    found: dict[str, Any] = {}
    for name, distribution in space.items():
        if "," not in name:
            found[name] = distribution
            continue
        cases = [settings_of({name: case}) for case in distribution.categories]
        for part in name.split(","):
            found[part] = tune.choice(list(dict.fromkeys(case[part] for case in cases)))
    return found


def settings_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Drawn values by single dotted field, those drawn together taken apart."""
    settings: dict[str, Any] = {}
    for name, value in values.items():
        if "," in name:
            parts = str(value).split(",")
            settings |= {n: _value(v) for n, v in zip(name.split(","), parts, strict=True)}
        else:
            settings[name] = value
    return settings


def override(config: C, values: Mapping[str, Any]) -> C:
    """The config with dotted fields replaced, checked as if it had been written so.

    Raises:
        ConfigError: a field does not exist, or the values do not go together.
    """
    document = to_json(config)
    for name, value in settings_of(values).items():
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
    if dataclasses.is_dataclass(found):
        inner = ", ".join(f"{name}.{f.name}" for f in dataclasses.fields(found))
        raise ConfigError(f"{name!r} holds several settings; vary one of {inner}.")
    return found


def _parse(text: str, distribution: str) -> tuple[Any, list[Any]]:
    """A distribution, and the values it can be tried by."""
    kind, _, rest = distribution.partition(":")
    name = text.partition("=")[0]
    if kind == "cases":
        cases = [part for part in rest.split("|") if part]
        if not cases or any(case.count(",") != name.count(",") for case in cases):
            raise ConfigError(f"{text!r}: every case gives {name} a value each: cases:A,B|C,D.")
        return tune.choice(cases), cases
    if "," in name:
        raise ConfigError(f"{text!r}: fields varied together take cases:A,B|C,D, found {kind!r}.")
    if kind == "choice":
        choices = [_value(part) for part in rest.split(",") if part]
        if not choices:
            raise ConfigError(f"{text!r}: a choice needs values, e.g. choice:8,16,32.")
        return tune.choice(choices), choices
    if kind not in ("log", "uniform", "int"):
        raise ConfigError(f"{text!r}: unknown kind {kind!r}; there are {_KINDS}.")
    low, high = _bounds(text, rest, whole=kind == "int")
    if kind == "int":
        return tune.randint(low, high + 1), [low, high]
    if kind == "log":
        if low <= 0:
            raise ConfigError(f"{text!r}: a logarithmic range lies above 0, this begins at {low}.")
        return tune.loguniform(low, high), [low, high]
    return tune.uniform(low, high), [low, high]


def _bounds(text: str, rest: str, *, whole: bool) -> tuple[Any, Any]:
    parts = rest.split(":")
    try:
        low, high = (int(part) if whole else float(part) for part in parts)
    except ValueError as error:
        kind = "whole numbers" if whole else "numbers"
        raise ConfigError(f"{text!r}: expected two {kind} LOW:HIGH, found {rest!r}.") from error
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError(f"{text!r}: expected LOW below HIGH, both finite.")
    return low, high


def _try(config: Any, name: str, value: Any, text: str) -> None:
    try:
        override(config, {name: value})
    except ConfigError as error:
        why = " ".join(str(error).split())
        raise ConfigError(f"{text!r}: {name} cannot be {value!r}: {why}") from error


def _value(text: str) -> Any:
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return {"true": True, "false": False, "none": None}.get(text.lower(), text)
