"""Search spaces as text: ``optim.lr=log:1e-4:1e-1``, checked against the config they vary.

Settings that only make sense together are varied together, case by case:
``ssls.policy,ssls.scale=cases:fixed,0.5|learned,1``. A setting that only some trials have names the
setting it hangs on: ``ssls.schedule=choice:linear_cosine,cosine_none when ssls.policy=schedule``.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from outspike.config import from_json, to_json
from outspike.errors import ConfigError

C = TypeVar("C")
Distribution = CategoricalDistribution | FloatDistribution | IntDistribution

_WHEN = " when "
_KINDS = (
    "log:LOW:HIGH, uniform:LOW:HIGH, int:LOW:HIGH (both ends included), choice:A,B,C and, for "
    "several fields FIELD,FIELD at once, cases:A,B|C,D; 'when FIELD=A|B' behind it draws it only "
    "where another field has one of these values"
)


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """One thing that is drawn: a setting, or several that go together."""

    name: str
    """Dotted field name; names joined by commas where several are drawn together."""
    distribution: Distribution
    parent: str | None = None
    """Field that decides whether this is drawn at all."""
    values: tuple[Any, ...] = ()
    """Values of ``parent`` for which it is."""

    @property
    def label(self) -> str:
        """Unlike ``name`` its own: one field may have another range in another case."""
        if self.parent is None:
            return self.name
        return f"{self.name}{_WHEN}{self.parent}={'|'.join(map(str, self.values))}"

    @property
    def fields(self) -> list[str]:
        """The settings it gives values."""
        return self.name.split(",")

    @property
    def ends(self) -> list[Any]:
        """Every choice, or both ends of a range."""
        found = self.distribution
        if isinstance(found, CategoricalDistribution):
            return list(found.choices)
        return [found.low, found.high]

    def applies(self, drawn: Mapping[str, Any]) -> bool:
        """Whether it is drawn beside what was drawn before it."""
        if self.parent is None:
            return True
        settings = settings_of(drawn)
        return self.parent in settings and settings[self.parent] in self.values

    def excludes(self, other: "Dimension") -> bool:
        """Whether no trial has both."""
        same = self.parent is not None and self.parent == other.parent
        return same and not set(self.values) & set(other.values)


Space = tuple[Dimension, ...]


def parse_space(texts: Sequence[str], config: Any) -> Space:
    """What is drawn, in an order in which every condition is known before it is asked.

    The ends of every range, and every choice, are tried on the config, so that no trial starts
    with values it cannot have.

    Args:
        texts: ``FIELD=KIND:ARGUMENTS`` each, a condition behind it where there is one.
        config: the config whose fields they name; unknown fields are refused here.

    Raises:
        ConfigError: a field that does not exist or is named twice, a distribution or condition that
            cannot be read, or values that the field does not take.
    """
    space: list[Dimension] = []
    for text in texts:
        head, separator, condition = text.partition(_WHEN)
        name, equals, distribution = head.partition("=")
        if not equals:
            raise ConfigError(f"{text!r}: expected FIELD=KIND:ARGUMENTS, e.g. optim.lr=log:1e-4:1.")
        for part in name.split(","):
            _get(config, part)
        found = _parse(head, distribution)
        parent, values = _condition(text, condition) if separator else (None, ())
        dimension = Dimension(name=name, distribution=found, parent=parent, values=values)
        _check_once(text, dimension, space)
        space.append(dimension)
    if not space:
        raise ConfigError(
            f"A search varies at least one setting: --space FIELD=..., with {_KINDS}."
        )
    for text, dimension in zip(texts, space, strict=True):
        for context in _contexts(text, dimension, space):
            for value in dimension.ends:
                _try(config, _beside(space, dimension, value, context), dimension, text)
    marginals(tuple(space))  # refuses what could not be shown
    return tuple(space)


def draw(space: Space, choose: Callable[[Dimension], Any]) -> dict[str, Any]:
    """Values of one trial, of every dimension that applies to it."""
    drawn: dict[str, Any] = {}
    for dimension in space:
        if dimension.applies(drawn):
            drawn[dimension.name] = choose(dimension)
    return drawn


def grid_of(space: Space) -> list[dict[str, Any]]:
    """Every combination, in the order of the text, the last setting changing fastest.

    Raises:
        ConfigError: a range has no end of values.
    """
    found: list[dict[str, Any]] = [{}]
    for dimension in space:
        choices = dimension.distribution
        if not isinstance(choices, CategoricalDistribution):
            raise ConfigError(
                f"sampler='grid' goes through every value, and {dimension.name} has a range; give "
                "it as choice:A,B,C."
            )
        found = [
            more
            for drawn in found
            for more in (
                [{**drawn, dimension.name: choice} for choice in choices.choices]
                if dimension.applies(drawn)
                else [drawn]
            )
        ]
    return found


def marginals(space: Space) -> dict[str, Distribution]:
    """The distribution of every single field, over all the cases in which it is drawn."""
    found: dict[str, Distribution] = {}
    for dimension in space:
        for field in dimension.fields:
            own = _marginal(dimension, field)
            found[field] = own if field not in found else _joined(found[field], own)
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


# ------------------------------------------------------------------------------------ fields


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


def _check_once(text: str, dimension: Dimension, before: Sequence[Dimension]) -> None:
    named = dimension.fields
    for index, field in enumerate(named):
        others = [other for other in before if field in other.fields]
        if field in named[:index] or any(not dimension.excludes(other) for other in others):
            raise ConfigError(
                f"{text!r}: {field} is varied twice; keep one of the two, or give them conditions "
                "on one field that no trial can meet both."
            )


# -------------------------------------------------------------------------------- conditions


def _condition(text: str, condition: str) -> tuple[str, tuple[Any, ...]]:
    parent, equals, values = condition.strip().partition("=")
    found = tuple(_value(part) for part in values.split("|") if part)
    if not equals or not found:
        raise ConfigError(f"{text!r}: a condition reads 'when FIELD=VALUE|VALUE'.")
    return parent, found


def _contexts(text: str, dimension: Dimension, before: Sequence[Dimension]) -> list[dict[str, Any]]:
    """What has been drawn where this is drawn, a way for every value its condition names."""
    if dimension.parent is None:
        return [{}]
    before = before[: before.index(dimension)]
    parents = [other for other in before if dimension.parent in other.fields]
    if not parents:
        raise ConfigError(
            f"{text!r}: its condition is on {dimension.parent}, which is not varied before it; put "
            f"{dimension.parent}=choice:... in front."
        )
    found: dict[Any, dict[str, Any]] = {}
    for parent in parents:
        choices = parent.distribution
        if not isinstance(choices, CategoricalDistribution):
            raise ConfigError(
                f"{text!r}: {dimension.parent} is a range; a condition needs choices."
            )
        for choice in choices.choices:
            value = settings_of({parent.name: choice})[dimension.parent]
            if value in dimension.values:
                above = _contexts(text, parent, before)
                found.setdefault(value, {**above[0], parent.name: choice})
    never = [value for value in dimension.values if value not in found]
    if never:
        raise ConfigError(f"{text!r}: {dimension.parent} is never {never[0]!r} in this space.")
    return list(found.values())


# ----------------------------------------------------------------------------- distributions


def _parse(text: str, distribution: str) -> Distribution:
    kind, _, rest = distribution.partition(":")
    name = text.partition("=")[0]
    if kind == "cases":
        cases = [part for part in rest.split("|") if part]
        if not cases or any(case.count(",") != name.count(",") for case in cases):
            raise ConfigError(f"{text!r}: every case gives {name} a value each: cases:A,B|C,D.")
        return CategoricalDistribution(cases)
    if "," in name:
        raise ConfigError(f"{text!r}: fields varied together take cases:A,B|C,D, found {kind!r}.")
    if kind == "choice":
        choices = [_value(part) for part in rest.split(",") if part]
        if not choices:
            raise ConfigError(f"{text!r}: a choice needs values, e.g. choice:8,16,32.")
        return CategoricalDistribution(choices)
    if kind not in ("log", "uniform", "int"):
        raise ConfigError(f"{text!r}: unknown kind {kind!r}; there are {_KINDS}.")
    low, high = _bounds(text, rest, whole=kind == "int")
    if kind == "int":
        return IntDistribution(low, high)
    if kind == "log" and low <= 0:
        raise ConfigError(f"{text!r}: a logarithmic range lies above 0, this begins at {low}.")
    return FloatDistribution(low, high, log=kind == "log")


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


def _marginal(dimension: Dimension, field: str) -> Distribution:
    if "," not in dimension.name:
        return dimension.distribution
    assert isinstance(dimension.distribution, CategoricalDistribution)
    cases = [settings_of({dimension.name: case}) for case in dimension.distribution.choices]
    return CategoricalDistribution(list(dict.fromkeys(case[field] for case in cases)))


def _joined(first: Distribution, second: Distribution) -> Distribution:
    """A distribution over all that either draws, for showing."""
    if isinstance(first, CategoricalDistribution) and isinstance(second, CategoricalDistribution):
        return CategoricalDistribution(list(dict.fromkeys([*first.choices, *second.choices])))
    if isinstance(first, CategoricalDistribution) or isinstance(second, CategoricalDistribution):
        raise ConfigError("A field that is varied in several cases has choices in all, or ranges.")
    low, high = min(first.low, second.low), max(first.high, second.high)
    return FloatDistribution(low, high, log=first.log and second.log)


def _beside(
    space: Sequence[Dimension], dimension: Dimension, value: Any, context: Mapping[str, Any]
) -> dict[str, Any]:
    """A value with all it hangs on, and with the first of whatever hangs on these."""
    values: dict[str, Any] = {}
    for other in space:
        if other is dimension:
            values[other.name] = value
        elif other.name in context and other.applies(values):
            values[other.name] = context[other.name]
        elif other.parent is not None and other.applies(values):
            values[other.name] = other.ends[0]
    return values


def _try(config: Any, values: Mapping[str, Any], dimension: Dimension, text: str) -> None:
    try:
        override(config, values)
    except ConfigError as error:
        why = " ".join(str(error).split())
        found = values[dimension.name]
        raise ConfigError(f"{text!r}: {dimension.name} cannot be {found!r}: {why}") from error


def _value(text: str) -> Any:
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return {"true": True, "false": False, "none": None}.get(text.lower(), text)
