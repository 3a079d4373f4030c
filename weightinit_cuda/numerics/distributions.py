"""Distributions, and what each knows of itself: its name, its standard deviation, and itself under ``c X`` and ``X + c``.

``Uniform``, ``Normal``, ``TruncNormal``, ... are what the user means; ``lowering`` turns them into numbers for the kernels.
Whoever wants to know something of a distribution asks it, so that a new one is a class here. Knows no tensors and no devices.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, TypeVar

from .probability import truncated_std

__all__ = [
    "KINDS",
    "SPARSE_PLACES",
    "Computed",
    "Constant",
    "Distribution",
    "Normal",
    "OneHot",
    "Orthogonal",
    "SparseNormal",
    "TruncNormal",
    "Uniform",
]

KINDS: dict[str, type[Distribution]] = {}
"""The distributions by their names in plans; a class enters itself."""

_Form = TypeVar("_Form")


@dataclass(frozen=True)
class Distribution:
    """What the elements of a tensor are drawn from, or are. Immutable; equal if class and numbers are.

    What a class says of its distributions:

    Attributes:
        kind: its name in plans. ``init`` has a function of that name with an underscore, if it has one for it.
        is_random: whether it uses random words.
        is_fill: whether the engine makes it; if not, only the model's own code does.
        one_pass: whether a kernel makes it in one pass, so that it can be combined with what is there.
        elementwise: whether all elements are alike. If not, an element depends on its row and column, so a part of the tensor,
            or the tensor transposed, is no such distribution.
        linear_algebra: whether it ends in linear algebra: an element depends on all random words, its last bits on the device.
        may_be_complex: whether its numbers may be complex, for tensors that are.
        scales: its parameters that are multiplied when X is.
        moves: its parameters to which is added what is added to X.
    """

    kind: ClassVar[str] = ""
    is_random: ClassVar[bool] = True
    is_fill: ClassVar[bool] = True
    one_pass: ClassVar[bool] = True
    elementwise: ClassVar[bool] = True
    linear_algebra: ClassVar[bool] = False
    may_be_complex: ClassVar[bool] = False
    scales: ClassVar[tuple[str, ...]] = ()
    moves: ClassVar[tuple[str, ...]] = ()

    forms: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)
    """What evaluators have made of it, by dtype: see :meth:`form`."""

    def __init_subclass__(cls) -> None:
        if cls.kind:
            KINDS[cls.kind] = cls

    def __reduce__(self) -> tuple[type[Distribution], tuple[Any, ...]]:
        """Copies and pickles are made from the numbers."""
        return type(self), tuple(self.numbers().values())

    def form(self, key: object, make: Callable[[], _Form]) -> _Form:
        """What ``make`` returns, remembered under ``key`` as long as the distribution lives."""
        if key not in self.forms:
            self.forms[key] = make()
        made: _Form = self.forms[key]
        return made

    def numbers(self) -> dict[str, Any]:
        """Its parameters by name."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.init}

    def require(self, shape: Sequence[int]) -> None:
        """Refuses numbers by which no tensor of that (global) shape can be filled.

        Raises:
            ValueError: a whole number that is none or has more than 63 bits; and what a class says of its shapes.
        """
        for one in fields(self):
            if one.init and one.type == "int":
                _require_whole(one.name, getattr(self, one.name))

    def describe(self) -> str:
        """In short: ``normal(mean=0, std=0.02)``."""
        return f"{self.kind}({', '.join(f'{key}={_short(value)}' for key, value in self.numbers().items())})"

    def standard_deviation(self) -> float | None:
        """Of the elements; None if that is not known, or they are not from one distribution."""
        return None

    def density(self, x: float) -> float | None:
        """The probability density at x; None if it has none, or none that is known."""
        return None

    def cut(self) -> tuple[float, float] | None:
        """Where it is cut, in standard deviations of what is cut; None if it is not cut."""
        return None

    def scaled(self, c: float) -> Distribution | None:
        """The distribution of ``c X``, 0 <= c < inf; None if it is none of these."""
        if c == 0:
            return Constant(0.0) if self.scales and self.elementwise else None
        return self._with({name: digits(c * getattr(self, name)) for name in self.scales})

    def shifted(self, c: float) -> Distribution | None:
        """The distribution of ``X + c``, c finite; None if it is none of these."""
        return self._with({name: digits(c + getattr(self, name)) for name in self.moves})

    def _with(self, numbers: dict[str, Any]) -> Distribution | None:
        return replace(self, **numbers) if numbers else None

    def as_wide_as(self, other: Distribution, c: float) -> Distribution:
        """This distribution with what ``c`` times the other one has for the parameters that scale; itself, if it is of another
        kind, or if its width follows from its shape."""
        if type(other) is not type(self) or not self.is_random or self.linear_algebra:
            return self
        return self._with({name: c * getattr(other, name) for name in self.scales}) or self

    def clamped(self, low: float, high: float) -> Distribution | None:
        """The distribution of ``min(max(X, low), high)`` where that moves no value; None if it does: values would pile up."""
        return None

    def complex_parts(self) -> tuple[Distribution, Distribution] | None:
        """Of the real and of the imaginary part of a complex tensor; None: both are drawn alike, one after the other."""
        return None


@dataclass(frozen=True)
class Constant(Distribution):
    """Every element is ``value``."""

    kind = "constant"
    is_random = False
    may_be_complex = True

    value: float

    def describe(self) -> str:
        return f"{self.kind}({_short(self.value)})"

    def complex_parts(self) -> tuple[Constant, Constant]:
        value = complex(self.value)
        return Constant(value.real), Constant(value.imag)


@dataclass(frozen=True)
class Uniform(Distribution):
    """Uniform on [a, b); all elements a if a == b."""

    kind = "uniform"
    scales = moves = ("a", "b")

    a: float
    b: float

    def standard_deviation(self) -> float:
        return (self.b - self.a) / math.sqrt(12)

    def density(self, x: float) -> float | None:
        return None if self.a == self.b else 1 / (self.b - self.a) if self.a <= x < self.b else 0.0

    def clamped(self, low: float, high: float) -> Uniform | None:
        near = NEAR * (self.b - self.a)
        return self if low <= self.a + near and self.b - near <= high else None


@dataclass(frozen=True)
class Normal(Distribution):
    """Normal with the given mean and standard deviation."""

    kind = "normal"
    scales = ("mean", "std")
    moves = ("mean",)

    mean: float
    std: float

    def standard_deviation(self) -> float:
        return self.std

    def density(self, x: float) -> float | None:
        return None if self.std == 0 else _gauss((x - self.mean) / self.std) / self.std

    def clamped(self, low: float, high: float) -> Normal | None:
        reach = MAX_SIGMA_64 * self.std
        return self if low <= self.mean - reach and self.mean + reach <= high else None


@dataclass(frozen=True)
class TruncNormal(Distribution):
    """Normal(mean, std) conditioned on [a, b]; the bounds are values, not sigmas, and may be infinite."""

    kind = "trunc_normal"
    scales = ("mean", "std", "a", "b")
    moves = ("mean", "a", "b")

    mean: float
    std: float
    a: float
    b: float

    def standard_deviation(self) -> float:
        cut = self.cut()
        return 0.0 if cut is None else truncated_std(*cut) * self.std

    def density(self, x: float) -> float | None:
        if (cut := self.cut()) is None or (mass := _mass(*cut)) == 0:
            return None
        return _gauss((x - self.mean) / self.std) / self.std / mass if self.a <= x <= self.b else 0.0

    def cut(self) -> tuple[float, float] | None:
        return ((self.a - self.mean) / self.std, (self.b - self.mean) / self.std) if self.std > 0 else None

    def clamped(self, low: float, high: float) -> TruncNormal | None:
        """A bound that it has already, up to rounding, becomes exactly the one that is clamped to. One so far out that float64
        has no normal number beyond it is made a bound, which costs nothing."""
        lower = _upper_bound(-self.a, -low, -self.mean, self.std)
        upper = _upper_bound(self.b, high, self.mean, self.std)
        return None if lower is None or upper is None else replace(self, a=0.0 - lower, b=upper)


@dataclass(frozen=True)
class OneHot(Distribution):
    """Rows of ``row`` elements with at most one that is not 0.

    Row r has ``value`` at position ``offset + k * step``, k = r mod ``period``, if k < ``limit``.
    """

    kind = "one_hot"
    is_random = False
    elementwise = False
    scales = ("value",)

    value: float
    row: int
    period: int
    limit: int
    offset: int
    step: int

    def require(self, shape: Sequence[int]) -> None:
        """Rows and periods have a length, unless there is nothing to fill, and every place lies in its row."""
        super().require(shape)
        if 0 in shape:
            return
        if self.row < 1 or self.period < 1:
            raise ValueError(f"row and period must be at least 1, got {self.row} and {self.period}")
        last = self.offset + max(min(self.period, self.limit) - 1, 0) * self.step
        if self.limit and last >= self.row:
            raise ValueError(f"every place must lie in its row of {self.row} elements, got place {last}")


@dataclass(frozen=True)
class SparseNormal(Distribution):
    """A matrix of Normal(0, std) in which every column of ``rows`` elements has exactly ``zeros`` zeros, at random rows.

    The zeros of column c are at the ``zeros`` smallest of the words ``c * rows, ..., (c + 1) * rows - 1`` of the stream
    ``stream ^ SPARSE_PLACES``; of equal words, at the first.
    """

    kind = "sparse_normal"
    one_pass = False
    elementwise = False
    scales = ("std",)

    rows: int
    zeros: int
    std: float

    def require(self, shape: Sequence[int]) -> None:
        super().require(shape)
        if len(shape) != 2 or self.rows != shape[0]:
            raise ValueError(f"the tensor must be a matrix of {self.rows} rows, got shape {tuple(shape)}")
        if self.zeros > self.rows:
            raise ValueError(f"zeros must be at most the {self.rows} elements of a column, got {self.zeros}")
        if not self.std >= 0:
            raise ValueError(f"std must be at least 0, got {self.std}")


SPARSE_PLACES = 0x5BD1E995C2B2AE35  # any constant: it keeps the words of the places apart from those of the values


@dataclass(frozen=True)
class Orthogonal(Distribution):
    """A matrix (first dimension by all others) with orthonormal rows or columns, whichever are fewer, times ``gain``."""

    kind = "orthogonal"
    one_pass = False
    elementwise = False
    linear_algebra = True
    may_be_complex = True
    scales = ("gain",)

    gain: float

    def require(self, shape: Sequence[int]) -> None:
        if len(shape) < 2:
            raise ValueError("Only tensors with 2 or more dimensions are supported")  # in torch's words


@dataclass(frozen=True)
class Computed(Distribution):
    """Values that a model's own code computes; ``how`` names the operations. Plans list them, nothing makes them again."""

    kind = "computed"
    is_random = False
    is_fill = False
    one_pass = False
    elementwise = False

    how: str

    def describe(self) -> str:
        return f"{self.kind}({self.how})"


# ---- numbers ---------------------------------------------------------------------------------------------------------

NEAR = 1e-6  # sigmas. A bound recomputed in another way (cdf, erfinv, times sqrt 2) is the same bound
# Upper bounds of the largest |z| that normal can return: sqrt(-2 ln 2^-32) and sqrt(-2 ln 2^-52), rounded up.
MAX_SIGMA_32 = 6.661
MAX_SIGMA_64 = 8.491


def digits(number: float) -> float:
    """To 15 digits: what a decimal number keeps through float64 arithmetic. sqrt(1/2) * 0.02 * sqrt(2) is 0.02 again."""
    return float(f"{number:.15g}") + 0.0


def _gauss(z: float) -> float:
    return math.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def _mass(low: float, high: float) -> float:
    """Of the standard normal in [low, high]: a difference of tails on the side where they are small."""
    if low > 0:
        return (math.erfc(low / math.sqrt(2)) - math.erfc(high / math.sqrt(2))) / 2
    if high < 0:
        return _mass(-high, -low)
    return 1 - (math.erfc(-low / math.sqrt(2)) + math.erfc(high / math.sqrt(2))) / 2


def _require_whole(name: str, number: object) -> None:
    if type(number) is not int or not 0 <= number < 2**63:
        raise ValueError(f"{name} must be a whole number in [0, 2**63), got {number!r}")


def _upper_bound(b: float, high: float, mean: float, std: float) -> float | None:
    """The upper bound of a normal cut at b and clamped to ``high``; None if that moves values."""
    if abs(b - high) <= NEAR * std or (b > high and high >= mean + MAX_SIGMA_64 * std):
        return high
    return b if b <= high else None


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
