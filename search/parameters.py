"""Kinds of parameters: what one parameter of a space may be, and where its values lie in the unit interval.

Every kind maps [0, 1] onto its values (`from_unit`) so that a uniform number gives a uniform value (log-uniform where
`log` is set), and back (`to_unit`). Discrete kinds cut the interval into equal cells and answer with the centre of one.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

Scalar = bool | int | float | str | None
Value = Scalar | tuple[Scalar, ...]

LARGEST_INT = 2**40
"""Integer bounds stay below this: cells of the unit interval are then exact in float64."""


class StrictModel(BaseModel):
    """A part of a space file: frozen, strict, closed, and without NaN or infinity."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )


def identity(value: Any) -> Any:
    """Return what makes two values the same: 1 and 1.0 are, 1 and true are not; lists equal tuples."""
    if isinstance(value, list | tuple):
        return tuple(identity(v) for v in value)
    return isinstance(value, bool), value


def shown(value: Any) -> str:
    """Write a value the way a space file would hold it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "[" + ", ".join(shown(v) for v in value) + "]"
    return repr(value) if isinstance(value, str) else f"{value}"


class Kind(StrictModel):
    """What all kinds share: a condition and a default."""

    when: dict[str, Value] = Field(default={})
    """The parameter exists only while all of these hold: other parameter -> value, or list of values, it must have."""

    @property
    def conditions(self) -> dict[str, tuple[Scalar, ...]]:
        """Parent -> allowed values; a single value counts as a list of one."""
        return {parent: v if isinstance(v, tuple) else (v,) for parent, v in self.when.items()}

    @property
    @abstractmethod
    def size(self) -> int | None:
        """Number of values, or None where they are a continuum."""

    @abstractmethod
    def value_at(self, rank: int) -> Value:
        """Return the value of a rank in [0, size); only for kinds with a size."""

    @abstractmethod
    def rank(self, value: Any) -> int:
        """Return the rank of an allowed value; only for kinds with a size."""

    @abstractmethod
    def objection(self, value: Any) -> str | None:
        """Say what was expected where `value` is not allowed, else None."""

    @abstractmethod
    def span(self) -> str:
        """Describe the values in a few words."""

    def to_unit(self, value: Any) -> float:
        """Return the place of an allowed value in [0, 1]."""
        assert self.size is not None
        return (self.rank(value) + 0.5) / self.size

    def from_unit(self, unit: float) -> Value:
        """Return the value at a place in [0, 1]; places outside are moved to the nearer end."""
        assert self.size is not None
        return self.value_at(min(int(_clamped(unit) * self.size), self.size - 1))

    def normal(self, value: Any) -> Value:
        """Return an allowed value in its one JSON form."""
        return self.value_at(self.rank(value))

    @model_validator(mode="after")
    def _default_is_allowed(self) -> Self:
        default = getattr(self, "default", None)
        wanted = None if default is None else self.objection(default)
        if wanted is not None:
            raise ValueError(f"expected a default that is {wanted}, found {shown(default)}")
        return self

    @property
    def initial(self) -> Value:
        """The default, or where none is given the middle (of unordered choices: the first)."""
        default: Value = getattr(self, "default", None)
        return self.from_unit(0.5) if default is None else self.normal(default)


def _clamped(unit: float) -> float:
    return min(max(unit, 0.0), 1.0)


def _between(low: float, high: float, unit: float) -> float:
    at = _clamped(unit)
    return low * (1.0 - at) + high * at


def _not_below(high: float, info: ValidationInfo) -> float:
    low = info.data.get("low")
    if low is not None and low > high:
        raise ValueError(f"low must not be above high (low={low}, high={high}); swap them")
    return high


def _log_needs_positive(log: bool, info: ValidationInfo) -> bool:
    low = info.data.get("low")
    if log and low is not None and low <= 0:
        raise ValueError(f"a log scale needs low above 0 (low={low}); raise low or drop log")
    return log


class Float(Kind):
    """A real number in [low, high], or on a grid of `step` from low."""

    type: Literal["float"] = "float"
    low: float
    """Smallest value."""
    high: float
    """Largest value."""
    log: bool = False
    """Uniform in the logarithm; low must be above 0."""
    step: float | None = None
    """Distance of allowed values, counted from low."""
    default: float | None = None
    """Value of a single run; none: the middle."""

    _ordered = field_validator("high")(_not_below)
    _positive = field_validator("log")(_log_needs_positive)

    @field_validator("step")
    @classmethod
    def _stepped(cls, step: float | None, info: ValidationInfo) -> float | None:
        if step is not None and step <= 0:
            raise ValueError(f"expected a step above 0, found {step}")
        if step is not None and info.data.get("log"):
            raise ValueError(f"log and step exclude each other (step={step}); drop one")
        low, high = info.data.get("low"), info.data.get("high")
        if step is not None and low is not None and high is not None and (high - low) / step > LARGEST_INT:
            raise ValueError(f"expected a step of at least (high - low) / 2**40, found {step}; drop it")
        return step

    @property
    def size(self) -> int | None:
        if self.low == self.high:
            return 1
        # the tolerance forgives 0.1 * 10 against 1.0 written in binary
        return None if self.step is None else int((self.high - self.low) / self.step + 1e-9) + 1

    def value_at(self, rank: int) -> float:
        if rank == 0:
            return self.low
        assert self.step is not None
        return float(Decimal(repr(self.low)) + rank * Decimal(repr(self.step)))

    def rank(self, value: Any) -> int:
        return 0 if self.step is None else round((value - self.low) / self.step)

    def objection(self, value: Any) -> str | None:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return "a number"
        if not self.low <= value <= self.high:
            return f"between {self.low} and {self.high}"
        size = self.size
        if self.step is not None and size is not None:
            rank = self.rank(value)
            if rank >= size or not math.isclose(self.value_at(rank), value, rel_tol=1e-9, abs_tol=1e-9 * self.step):
                return f"{self.low} plus a multiple of {self.step}"
        return None

    def to_unit(self, value: Any) -> float:
        if self.size is not None:
            return super().to_unit(value)
        low, high, at = self._scaled(self.low), self._scaled(self.high), self._scaled(value)
        return (at - low) / (high - low)

    def from_unit(self, unit: float) -> Value:
        if self.size is not None:
            return super().from_unit(unit)
        low, high = self._scaled(self.low), self._scaled(self.high)
        at = _between(low, high, unit)
        return min(max(math.exp(at) if self.log else at, self.low), self.high)

    def normal(self, value: Any) -> Value:
        return float(value) if self.size is None else super().normal(value)

    def span(self) -> str:
        return f"{self.low:g} .. {self.high:g}" + (" log" if self.log else f" step {self.step:g}" if self.step else "")

    def _scaled(self, value: float) -> float:
        return math.log(value) if self.log else float(value)


class Int(Kind):
    """A whole number in [low, high], every `step` from low."""

    type: Literal["int"] = "int"
    low: int = Field(ge=-LARGEST_INT, le=LARGEST_INT)
    """Smallest value."""
    high: int = Field(ge=-LARGEST_INT, le=LARGEST_INT)
    """Largest value."""
    log: bool = False
    """Uniform in the logarithm; low must be above 0."""
    step: int = 1
    """Distance of allowed values, counted from low."""
    default: int | None = None
    """Value of a single run; none: the middle."""

    _ordered = field_validator("high")(_not_below)
    _positive = field_validator("log")(_log_needs_positive)

    @field_validator("step")
    @classmethod
    def _stepped(cls, step: int, info: ValidationInfo) -> int:
        if step <= 0:
            raise ValueError(f"expected a step above 0, found {step}")
        if step != 1 and info.data.get("log"):
            raise ValueError(f"log and step exclude each other (step={step}); drop one")
        return step

    @property
    def size(self) -> int:
        return (self.high - self.low) // self.step + 1

    def value_at(self, rank: int) -> int:
        return self.low + rank * self.step

    def rank(self, value: Any) -> int:
        return int((value - self.low) // self.step)

    def objection(self, value: Any) -> str | None:
        if isinstance(value, bool) or not isinstance(value, int):
            return "a whole number"
        if not self.low <= value <= self.high:
            return f"between {self.low} and {self.high}"
        return None if (value - self.low) % self.step == 0 else f"{self.low} plus a multiple of {self.step}"

    def to_unit(self, value: Any) -> float:
        if not self.log:
            return super().to_unit(value)
        low, high = math.log(self.low - 0.5), math.log(self.high + 0.5)
        return (math.log(value) - low) / (high - low)

    def from_unit(self, unit: float) -> Value:
        if not self.log:
            return super().from_unit(unit)
        low, high = math.log(self.low - 0.5), math.log(self.high + 0.5)
        return min(max(round(math.exp(_between(low, high, unit))), self.low), self.high)

    def span(self) -> str:
        return f"{self.low} .. {self.high}" + (" log" if self.log else f" step {self.step}" if self.step != 1 else "")


class _Listed(Kind):
    """A list of allowed values."""

    choices: tuple[Scalar, ...]
    """Allowed values, each once."""
    default: Scalar = None
    """Value of a single run; none: see the kind."""

    @field_validator("choices")
    @classmethod
    def _distinct(cls, choices: tuple[Scalar, ...]) -> tuple[Scalar, ...]:
        if not choices:
            raise ValueError("expected at least one choice, found an empty list")
        seen: set[Any] = set()
        for choice in choices:
            if identity(choice) in seen:
                raise ValueError(f"expected distinct choices, found {shown(choice)} twice; drop one")
            seen.add(identity(choice))
        return choices

    @property
    def size(self) -> int:
        return len(self.choices)

    def value_at(self, rank: int) -> Value:
        return self.choices[rank]

    def rank(self, value: Any) -> int:
        return [identity(c) for c in self.choices].index(identity(value))

    def objection(self, value: Any) -> str | None:
        if any(identity(value) == identity(choice) for choice in self.choices):
            return None
        return "one of " + ", ".join(shown(c) for c in self.choices)

    def span(self) -> str:
        return ", ".join(str(c) if isinstance(c, str) else shown(c) for c in self.choices)


class Choice(_Listed):
    """One of several values without an order; their place in the unit interval is their index."""

    type: Literal["choice"] = "choice"

    @property
    def initial(self) -> Value:
        return self.choices[0] if self.default is None else self.default


class Ordered(_Listed):
    """One of several values in a meaningful order, such as widths; their place in the unit interval is their rank."""

    type: Literal["ordered"] = "ordered"


class Fixed(Kind):
    """A value that does not vary; a bare value in the file means this."""

    type: Literal["fixed"] = "fixed"
    value: Value
    """The value."""

    @property
    def size(self) -> int:
        return 1

    def value_at(self, rank: int) -> Value:
        return self.value

    def rank(self, value: Any) -> int:
        return 0

    def objection(self, value: Any) -> str | None:
        return None if identity(value) == identity(self.value) else f"the fixed value {shown(self.value)}"

    def span(self) -> str:
        return f"= {shown(self.value)}"


KINDS: Mapping[str, type[Kind]] = {"float": Float, "int": Int, "choice": Choice, "ordered": Ordered, "fixed": Fixed}
"""Name in the file -> kind."""


def _tag(given: Any) -> str | None:
    if isinstance(given, Kind):
        return next(name for name, kind in KINDS.items() if isinstance(given, kind))
    if isinstance(given, Mapping):
        name = given.get("type")
        return name if isinstance(name, str) else None
    return "bare"


def _fixed(value: Value) -> Fixed:
    return Fixed(value=value)


if TYPE_CHECKING:
    Parameter = Kind
else:
    Parameter = Annotated[
        Annotated[Float, Tag("float")]
        | Annotated[Int, Tag("int")]
        | Annotated[Choice, Tag("choice")]
        | Annotated[Ordered, Tag("ordered")]
        | Annotated[Fixed, Tag("fixed")]
        | Annotated[Value, AfterValidator(_fixed), Tag("bare")],
        Discriminator(_tag),
    ]
"""What stands under `parameters:` in a space file; a bare value becomes `Fixed`."""
