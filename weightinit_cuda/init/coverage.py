"""What ``patched()`` covered: which tensors of a model hold values of ours, and which were drawn by torch.

While it is asked for, a ``TorchFunctionMode`` sees every call and remembers by storage where values come from. Values computed
from others come from where these come from, so ``Parameter(torch.randn(4) * 0.02)`` is torch's. Names are known when a model is
shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode

from ..tensors.kinds import MODULE, must_be
from ..tensors.named import named_tensors
from .torch_function import InitFunction

__all__ = ["Coverage", "Origins", "PatchReport"]

_OURS = "weightinit_cuda.init"
_dynamo_traces = torch.compiler.is_dynamo_compiling
_DRAWS = {
    *("rand", "rand_like", "randn", "randn_like", "normal", "randint", "randint_like", "randperm"),
    *("bernoulli", "poisson", "multinomial", "binomial"),
    *("normal_", "uniform_", "exponential_", "cauchy_", "log_normal_", "geometric_", "random_", "bernoulli_"),
}
_OVERWRITES = {"copy_": 1, "__setitem__": 2}  # and which argument they write from


@dataclass(frozen=True)
class Coverage:
    """Where the values of a model come from, by the names of its tensors.

    Args:
        filled: parameters, and buffers, with values of this library, or computed from them.
        drawn: those that torch drew, or that were computed from such values, each with the function that drew.
        untouched: parameters that nobody drew or filled: constants, and memory as it was.
    """

    filled: tuple[str, ...]
    drawn: dict[str, str]
    untouched: tuple[str, ...]

    def __str__(self) -> str:
        counts = f"{len(self.filled)} filled, {len(self.drawn)} drawn by torch, {len(self.untouched)} untouched"
        drawn = (f"  {name}: {how}" for name, how in self.drawn.items())
        return "\n".join([counts, *drawn, *(f"  {name}: untouched" for name in self.untouched)])


class PatchReport:
    """What ``with patched(report=True) as report:`` gives."""

    def __init__(self, watch: Origins | None) -> None:
        self._watch = watch

    def of(self, model: nn.Module) -> Coverage:
        """Where the values of a model's tensors come from, as far as this thread made them in the block.

        Args:
            model: any module; of DTensors and other wrappers nothing is known, and they count as untouched.

        Raises:
            RuntimeError: nothing was watched, because ``patched()`` was entered without ``report=True``.

        >>> import torch, weightinit_cuda as wi
        >>> with wi.patched(report=True) as report:
        ...     layer = nn.Linear(2, 2, bias=False)
        ...     layer.scale = nn.Parameter(torch.randn(2) * 0.02)
        ...     layer.shift = nn.Parameter(torch.zeros(2))
        >>> print(report.of(layer))
        1 filled, 1 drawn by torch, 1 untouched
          scale: torch.randn
          shift: untouched
        """
        if self._watch is None:
            raise RuntimeError("PatchReport.of: needs patched(report=True), got a patched() that watched nothing.")
        must_be(MODULE, "PatchReport.of", model=model)
        filled, drawn, untouched = [], {}, []
        for named in named_tensors(model):
            origin = self._watch.origin(named.tensor)
            if origin == _OURS:
                filled.append(named.name)
            elif origin is not None:
                drawn[named.name] = origin
            elif not named.buffer:
                untouched.append(named.name)
        return Coverage(tuple(filled), drawn, tuple(untouched))


class Origins(TorchFunctionMode):
    """Sees what is called, and remembers whose values each storage holds."""

    def __init__(self) -> None:
        super().__init__()
        self._origins: dict[int, tuple[StorageWeakRef, str | None]] = {}  # the reference keeps the number from being used again

    def origin(self, tensor: Tensor) -> str | None:
        known = _reference(tensor)
        return None if known is None else self._origins.get(known.cdata, (known, None))[1]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if _dynamo_traces():  # of what a graph makes, only what leaves it could be known
            return result
        name = getattr(func, "__name__", "")
        if isinstance(func, InitFunction):
            self._note(result, _OURS)
        elif name in _DRAWS:
            self._note(result, f"torch.Tensor.{name}" if name.endswith("_") else f"torch.{name}")
        elif name in _OVERWRITES:
            origins = [self.origin(tensor) for tensor in _tensors(args[_OVERWRITES[name] :])]
            self._note(args[0], _foremost(origins) if name == "copy_" else _foremost([*origins, self.origin(args[0])]))
        elif origin := _foremost([self.origin(tensor) for tensor in _tensors((args, kwargs))]):
            self._note(result, origin)
        return result

    def _note(self, result: Any, origin: str | None) -> None:
        for tensor in _tensors(result):
            if (known := _reference(tensor)) is not None:
                self._origins[known.cdata] = known, origin


def _foremost(origins: list[str | None]) -> str | None:
    """One of torch's, else ours."""
    found = [origin for origin in origins if origin is not None]
    return next((origin for origin in found if origin != _OURS), found[0] if found else None)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def _reference(tensor: Tensor) -> StorageWeakRef | None:
    try:
        return StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError):  # it has none: sparse, a wrapper; lazy
        return None
