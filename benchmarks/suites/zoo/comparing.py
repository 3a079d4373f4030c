"""Two models tensor by tensor: is what one way of construction made what the library's own makes?

The truth is three eager models of different seeds. What is equal in all of them is a constant and must be equal here; what is
not is random, and must be distributed as theirs are: Kolmogorov and Smirnov's test of the values and of the size of rows, and
mean and standard deviation, which see a wrong scale sooner. A test that tells eager models from each other says nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

__all__ = ["Eager", "Held", "differences", "eager_of", "held"]

FAMILY = 1e-6  # of one model: the probability that any of its tests sees a difference where there is none
NOTHING = 1e-3  # a test that gives the eager models less does not hold for this tensor
SAMPLE, MOMENTS = 4096, 1 << 17  # values of one tensor that are tested
ROWS, ALIKE = 16, 0.1  # the least for a test of their sizes; and up to which difference they are the same


class Held(NamedTuple):
    """A tensor of a model, and what it is there: parameter, buffer, buffer (not saved), attribute."""

    tensor: Tensor
    kind: str


class Eager(NamedTuple):
    """What eager models have.

    Args:
        first: all tensors of the first one, by name.
        others: of the others.
        constant: names of those that are equal in all.
        random: of those that are not.
        unwritten: of those that the library's own code never writes.
    """

    first: Mapping[str, Held]
    others: Sequence[Mapping[str, Held]]
    constant: tuple[str, ...]
    random: tuple[str, ...]
    unwritten: tuple[str, ...]


def held(model: nn.Module) -> dict[str, Held]:
    """All tensors by name, tied ones by each of their names; tensors that are plain attributes of modules as well."""
    return dict(_held(model))


def _held(model: nn.Module) -> Iterator[tuple[str, Held]]:
    for path, module in model.named_modules(remove_duplicate=False):
        prefix = f"{path}." if path else ""
        unsaved = module._non_persistent_buffers_set
        for name, parameter in module._parameters.items():
            if parameter is not None:
                yield prefix + name, Held(parameter, "parameter")
        for name, buffer in module._buffers.items():
            if buffer is not None:
                yield prefix + name, Held(buffer, "buffer (not saved)" if name in unsaved else "buffer")
        for name, value in vars(module).items():
            if isinstance(value, Tensor):
                yield prefix + name, Held(value, "attribute")


def eager_of(build: Callable[[int], nn.Module]) -> Eager:
    """Builds three eager models of the seeds 0, 1 and 2; in the last one, memory that nobody writes shows."""
    first, second = held(build(0)), held(build(1))
    before, warn = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)  # torch.empty then writes NaN
    try:
        third = held(build(2))
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn)
    constant, random, unwritten = list[str](), list[str](), list[str]()
    for name in first:
        a, b, c = (model[name].tensor for model in (first, second, third))
        if is_lazy(a):
            continue
        if bool((_marked(c) & ~_marked(a)).any()):
            unwritten.append(name)
        else:
            (constant if _equal(a, b) and _equal(a, c) else random).append(name)
    return Eager(first, (second, third), tuple(constant), tuple(random), tuple(unwritten))


def differences(eager: Eager, ours: Mapping[str, Held]) -> list[str]:
    """In what the model differs from the eager ones, a line each; none if it is equal."""
    lines = _structure(eager.first, ours)
    if lines:
        return lines  # values of other tensors are not worth comparing
    lines = _ties(eager.first, ours)
    lines += [
        f"{name}: constant, and differs" for name in eager.constant if not _equal(eager.first[name].tensor, ours[name].tensor)
    ]
    limit = FAMILY / max(1, 5 * len(eager.random))
    for name in eager.random:
        theirs = [eager.first[name].tensor, *(model[name].tensor for model in eager.others)]
        if (seen := _distribution(ours[name].tensor, theirs, limit)) is not None:
            lines.append(f"{name}: {seen}")
    return lines


def _structure(eager: Mapping[str, Held], ours: Mapping[str, Held]) -> list[str]:
    lines = [f"{name}: missing" for name in eager if name not in ours]
    lines += [f"{name}: eager has none" for name in ours if name not in eager]
    if not lines and list(eager) != list(ours):
        lines.append("the order of names differs")
    for name in eager:
        if name in ours and (here := _facts(ours[name])) != (there := _facts(eager[name])):
            lines += [f"{name}: {fact} {here[fact]}, eager {there[fact]}" for fact in there if here[fact] != there[fact]]
    return lines


def _facts(each: Held) -> dict[str, object]:
    tensor = each.tensor
    facts: dict[str, object] = {
        "kind": each.kind,
        "type": type(tensor).__name__,
        "dtype": tensor.dtype,
        "device": tensor.device.type,
    }
    if is_lazy(tensor):
        return facts
    facts |= {"shape": tuple(tensor.shape), "requires_grad": tensor.requires_grad, "layout": tensor.layout}
    return facts | ({"stride": tensor.stride()} if tensor.layout == torch.strided else {})


def _ties(eager: Mapping[str, Held], ours: Mapping[str, Held]) -> list[str]:
    """Names of one object, and names of one memory."""
    lines = []
    for what, key in (("object", lambda tensor: id(tensor)), ("memory", _memory)):
        there, here = (_groups(model, key) for model in (eager, ours))
        lines += [f"{', '.join(sorted(names))}: one {what} in eager only" for names in there - here]
        lines += [f"{', '.join(sorted(names))}: one {what} here only" for names in here - there]
    return lines


def _memory(tensor: Tensor) -> object:
    if is_lazy(tensor) or tensor.layout != torch.strided or not tensor.numel():
        return id(tensor)
    return tensor.untyped_storage().data_ptr()


def _groups(model: Mapping[str, Held], key: Callable[[Tensor], object]) -> set[frozenset[str]]:
    groups: dict[object, set[str]] = {}
    for name, each in model.items():
        groups.setdefault(key(each.tensor), set()).add(name)
    return {frozenset(names) for names in groups.values() if len(names) > 1}


def _marked(tensor: Tensor) -> Tensor:
    """Where the value is the one that torch writes to empty memory."""
    plain = tensor.detach()
    if plain.layout != torch.strided or plain.dtype == torch.bool or plain.is_quantized:
        return torch.zeros(1, dtype=torch.bool)
    if plain.is_floating_point() or plain.is_complex():
        return plain.isnan()
    return plain == torch.iinfo(plain.dtype).max


def _equal(one: Tensor, other: Tensor) -> bool:
    a, b = one.detach(), other.detach()
    if a.layout != torch.strided:
        a, b = a.to_dense(), b.to_dense()
    return torch.equal(a, b) or bool(((a == b) | ((a != a) & (b != b))).all())


# ---- random tensors --------------------------------------------------------------------------------------------------


def _distribution(ours: Tensor, theirs: Sequence[Tensor], limit: float) -> str | None:
    """What is seen of a difference, with its probability."""
    here, there = _values(ours), [_values(tensor) for tensor in theirs]
    if not bool(here.isfinite().all()) and all(bool(values.isfinite().all()) for values in there):
        return "random, and not finite"
    if (line := _fixed_elements(here, there)) is not None:
        return line
    for what, test in (("mean", _mean), ("standard deviation", _spread), ("values", _ks)):
        if (p := _seen(test, here, there, limit)) is not None:
            return f"{what} of another distribution, p = {p:.0e}{_scales(here, torch.cat(there))}"
    if (sizes := _row_sizes(ours)) is not None:
        rows = [found for tensor in theirs if (found := _row_sizes(tensor)) is not None]
        if (p := _seen(_ks_of_sizes, sizes, rows, limit)) is not None:
            return f"sizes of rows of another distribution, p = {p:.0e}"
    return None


def _seen(test: Callable[[Tensor, Tensor], float], here: Tensor, there: Sequence[Tensor], limit: float) -> float | None:
    """The probability, if it is below the limit and the same test does not tell any two of the eager ones apart."""
    p = test(here, torch.cat(list(there)))
    return p if p < limit and all(test(a, b) > NOTHING for a, b in combinations(there, 2)) else None


def _scales(here: Tensor, there: Tensor) -> str:
    return f" (mean {here.mean():.4g}, eager {there.mean():.4g}; std {here.std():.4g}, eager {there.std():.4g})"


def _values(tensor: Tensor) -> Tensor:
    """At most MOMENTS values, at the same places of equal tensors."""
    flat = tensor.detach().to_dense() if tensor.layout != torch.strided else tensor.detach()
    flat = torch.view_as_real(flat).reshape(-1) if flat.is_complex() else flat.reshape(-1)
    if flat.numel() > MOMENTS:
        flat = flat[torch.randint(flat.numel(), (MOMENTS,), generator=torch.Generator().manual_seed(0))]
    return flat.double()


def _fixed_elements(here: Tensor, there: Sequence[Tensor]) -> str | None:
    """Elements of a random tensor that are constants: the row of a padding token."""
    fixed = there[0] == there[1]
    count = int(fixed.sum())
    if not count:
        return None
    agree, eager = (float((values == there[0])[fixed].double().mean()) for values in (here, there[2]))
    if eager - agree > 0.01 + 6 * math.sqrt(max(eager * (1 - eager), 1 / count) / count):
        return f"{count} elements are constants, and {1 - agree:.0%} of them differ"
    return None


def _mean(one: Tensor, other: Tensor) -> float:
    error = math.sqrt(float(one.var()) / one.numel() + float(other.var()) / other.numel()) if one.numel() > 1 else 0.0
    return _two_sided(float(one.mean() - other.mean()) / error) if error > 0 and one.numel() >= 64 else 1.0


def _spread(one: Tensor, other: Tensor) -> float:
    """Of the logarithms of both standard deviations; their error is by the fourth moment."""
    if one.numel() < 64 or not float(one.std()) > 0 or not float(other.std()) > 0:
        return 1.0
    fourth = max(float((((values - values.mean()) / values.std()) ** 4).mean()) for values in (one, other))
    error = math.sqrt(max(fourth - 1, 0.1) / 4 * (1 / one.numel() + 1 / other.numel()))
    return _two_sided(math.log(float(one.std()) / float(other.std())) / error)


def _two_sided(sigmas: float) -> float:
    return math.erfc(abs(sigmas) / math.sqrt(2))


def _ks(one: Tensor, other: Tensor) -> float:
    from scipy.stats import ks_2samp  # type: ignore[import-untyped,unused-ignore]

    a, b = (values[:: max(1, values.numel() // SAMPLE)].numpy() for values in (one, other))
    return float(ks_2samp(a, b).pvalue)


def _ks_of_sizes(one: Tensor, other: Tensor) -> float:
    """As ``_ks``; rows of a scaled orthogonal matrix are of one size, which its scale may vary."""
    places = torch.linspace(0, 1, ROWS, dtype=torch.float64)
    alike = (one.quantile(places) - other.quantile(places)).abs().max() < ALIKE
    return 1.0 if alike else _ks(one, other)


def _row_sizes(tensor: Tensor) -> Tensor | None:
    """Logarithms of the mean squares of rows."""
    if tensor.layout != torch.strided or tensor.dim() < 2 or not tensor.is_floating_point():
        return None
    rows = tensor.detach()[:SAMPLE].flatten(1)
    if len(rows) < ROWS or rows.shape[1] < 4:
        return None
    return rows.double().square().mean(1).clamp_min(1e-30).log()
