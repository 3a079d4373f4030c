"""What is suspicious about how a model is initialised: in its plan, in its construction, in the values of a checkpoint.

Nothing here is an opinion about training; each symptom says what was seen, so that a person can decide. ``diagnose`` reads a
plan (and knows more with the model and its recording), ``examine`` reads values.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ..checkpoints.files import Checkpoint, Stored, open_checkpoint
from ..numerics.distributions import MAX_SIGMA_32, MAX_SIGMA_64, Constant, Distribution
from ..plans.entry import Entry
from ..plans.plan import PLAN, Plan
from ..recording.deferred import Recording
from ..rules import layout_of, lookup
from ..tensors.boxes import Box
from ..tensors.kinds import FUNCTION, MODULE, ArgumentKind, may_be, must_be
from ..tensors.named import Named, named_tensors

__all__ = ["Symptom", "diagnose", "examine"]

SymptomKind = Literal[
    "uninitialised",
    "overwritten",
    "zero fan",
    "same rows",
    "same tensors",
    "truncation",
    "std",
    "not finite",
]
ERRORS: frozenset[SymptomKind] = frozenset(("uninitialised", "not finite"))
GAINS = 1 / 16, 4.0  # of a layer's outputs over its inputs, each of variance 1; beyond these a few layers kill a signal
RECORDING = ArgumentKind((Recording,), "a recording")
ROWS = 1 << 22  # elements read at once


class Symptom(NamedTuple):
    """Something that was seen.

    Args:
        name: of the tensor.
        kind: of what was seen.
        what: in words, with numbers.
    """

    name: str
    kind: SymptomKind
    what: str

    @property
    def is_error(self) -> bool:
        """Whether it is certainly wrong (unwritten memory, values that are not finite)."""
        return self.kind in ERRORS


# ---- of a plan -------------------------------------------------------------------------------------------------------


def diagnose(plan: Plan, model: nn.Module | None = None, recorded: Recording | None = None) -> list[Symptom]:
    """What is suspicious about a plan.

    Args:
        plan: of any model.
        model: tells how its parameters multiply; on meta will do. Without it every matrix counts as (out, in).
        recorded: its construction: tells what was left unwritten, or drawn in vain.

    >>> import weightinit_cuda as wi
    >>> net = nn.Linear(64, 64, bias=False)
    >>> for symptom in diagnose(wi.plan(net, wi.Rule("*", "trunc_normal_", std=0.0002)), net):
    ...     print(symptom.kind, "|", symptom.what)
    truncation | cuts nothing: bounds at -1e+04 and 1e+04 sigma; bounds="sigma" measures them in sigmas
    std | std 0.0002 with fan_in 64: outputs are 0.0016 times the inputs
    """
    must_be(PLAN, "diagnose", plan=plan)
    may_be(MODULE, "diagnose", model=model)
    may_be(RECORDING, "diagnose", recorded=recorded)
    by_name = {} if model is None else {n.name: n for n in named_tensors(model)}
    found: list[Symptom] = []
    shapes = {n.name: tuple(n.tensor.shape) for n in by_name.values() if not n.buffer}
    shapes |= {entry.name: entry.shape for entry in plan if not entry.buffer}
    for name, shape in shapes.items():
        if len(shape) > 1 and 0 in shape:
            found.append(Symptom(name, "zero fan", f"shape {shape}: it has no elements"))
    if recorded is not None and model is not None:
        found += _of_construction(recorded, model)
    for name in plan.names():
        for entry, boxes in plan.shares(name):
            if boxes:
                found += (Symptom(name, kind, what) for kind, what in _of_line(entry, by_name.get(name), len(plan[name]) == 1))
    return [*found, *_same_streams(plan)]


def _of_construction(recorded: Recording, model: nn.Module) -> Iterator[Symptom]:
    for name in recorded.unwritten(model):
        yield Symptom(name, "uninitialised", "the code allocates it and writes nothing, or not everywhere")
    for name, sources in recorded.overwritten(model).items():
        where = ", ".join(dict.fromkeys(sources))
        yield Symptom(name, "overwritten", f"drawn {len(sources) + 1} times, the last one stays; before: {where}")


def _of_line(entry: Entry, named: Named | None, alone: bool) -> Iterator[tuple[SymptomKind, str]]:
    distribution = entry.distribution
    if cut := distribution.cut():
        low, high = cut
        if min(-low, high) > (MAX_SIGMA_64 if entry.dtype == torch.float64 else MAX_SIGMA_32):
            yield (
                "truncation",
                f'cuts nothing: bounds at {low:.4g} and {high:.4g} sigma; bounds="sigma" measures them in sigmas',
            )
    if entry.buffer or len(entry.shape) < 2:
        return
    fan_in = _fan_in(entry, named)
    if fan_in is None:
        return
    if isinstance(distribution, Constant) and alone and entry.shape[0] > 1 and math.prod(entry.shape[1:]) > 0:
        yield (
            "same rows",
            f"all {distribution.value:g}: its outputs are equal, and stay so unless something else tells them apart",
        )
    if what := _gain(distribution.standard_deviation() or 0.0, fan_in):
        yield "std", what


def _gain(std: float, fan_in: int) -> str:
    """What is suspicious about a standard deviation; empty if nothing is."""
    gain = std * math.sqrt(fan_in)
    if std == 0.0 or GAINS[0] <= gain <= GAINS[1]:
        return ""
    return f"std {std:.3g} with fan_in {fan_in}: outputs are {gain:.2g} times the inputs"


def _fan_in(entry: Entry, named: Named | None) -> int | None:
    """Of the matrix that is multiplied; None if the tensor is none, or a table whose rows are looked up."""
    if named is None:
        return math.prod(entry.shape[1:])
    layout = layout_of(named)
    return None if layout is None or lookup(named) else layout.fans(tuple(entry.shape))[0]


def _same_streams(plan: Plan) -> Iterator[Symptom]:
    """Different tensors that would get the same numbers."""
    users: dict[tuple[int, Distribution], list[str]] = defaultdict(list)
    for entry in plan:
        if entry.distribution.is_random and entry.distribution.standard_deviation():
            users[entry.stream, entry.distribution].append(entry.name)
    for names in users.values():
        first, *others = dict.fromkeys(names)
        for name in others:
            yield Symptom(name, "same tensors", f"the same stream and distribution as {first}: the same numbers")


# ---- of values -------------------------------------------------------------------------------------------------------


def examine(checkpoint: Checkpoint, *, progress: Callable[[int], object] = lambda _: None) -> list[Symptom]:
    """What is suspicious about the values of a model, some megabytes at a time.

    Args:
        checkpoint: a model, tensors by name, or files as for ``wi.verify``.
        progress: called with the number of elements after each chunk.

    >>> net = nn.Linear(8, 4)
    >>> _ = net.weight.data[1].copy_(net.weight.data[0])
    >>> examine(net)
    [Symptom(name='weight', kind='same rows', what='rows 0 and 1 are equal; 2 of 4 rows are like another one')]
    """
    must_be(FUNCTION, "examine", progress=progress)
    found: list[Symptom] = []
    seen: dict[tuple[object, ...], str] = {}
    if isinstance(checkpoint, nn.Module):  # each tied tensor once
        checkpoint = {named.name: named.tensor for named in named_tensors(checkpoint)}
    for name, stored in open_checkpoint(checkpoint).items():
        if stored.dtype.is_floating_point:
            found += _of_values(name, stored, seen, progress)
    return found


def _of_values(
    name: str, stored: Stored, seen: dict[tuple[object, ...], str], progress: Callable[[int], object]
) -> Iterator[Symptom]:
    hashes, total, squares, bad = _read(stored, progress)
    n = math.prod(stored.shape)
    if bad:
        yield Symptom(name, "not finite", f"{bad} of {n} values are infinite or NaN")
        return
    if n < 2 or len(stored.shape) < 2:
        return
    variance = max(0.0, squares / n - (total / n) ** 2)
    if variance > 0.0:
        key = (stored.shape, stored.dtype, tuple(hashes[:64].tolist()), float(hashes.sum()))
        if (first := seen.setdefault(key, name)) != name:
            yield Symptom(name, "same tensors", f"the same values as {first}: tied, or drawn from the same numbers")
    yield from (Symptom(name, "same rows", what) for what in _same_rows(stored, hashes))
    table = any(word in name for word in ("embed", "wte", "wpe", "position", "token"))
    if not table and (what := _gain(math.sqrt(variance), math.prod(stored.shape[1:]))):
        yield Symptom(name, "std", what)


def _read(stored: Stored, progress: Callable[[int], object]) -> tuple[Tensor, float, float, int]:
    """A number of each row that equal rows share and negated ones have negated; sum, squares, and how many are not finite."""
    shape = stored.shape if stored.shape else (1,)
    width = math.prod(shape[1:])
    direction = torch.randn(width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    step = max(1, ROWS // max(width, 1))
    hashes, total, squares, bad = [], 0.0, 0.0, 0
    for begin in range(0, shape[0], step):
        end = min(begin + step, shape[0])
        index = tuple(Box((begin, *(0,) * (len(shape) - 1)), (end - begin, *shape[1:])).slices()) if stored.shape else ()
        rows = stored.read(index).detach().cpu().double().reshape(end - begin, width)
        bad += int((~rows.isfinite()).sum())
        total, squares = total + float(rows.sum()), squares + float(rows.square().sum())
        hashes.append(rows @ direction)
        progress(rows.numel())
    return torch.cat(hashes) if hashes else torch.empty(0, dtype=torch.float64), total, squares, bad


def _same_rows(stored: Stored, hashes: Tensor) -> Iterator[str]:
    """Rows that are equal, or each other's negatives; candidates are read again and compared."""
    if hashes.numel() < 2 or math.prod(stored.shape[1:]) < 2:
        return
    for what, keys in (("equal", hashes), ("negatives of each other", hashes.abs())):
        order = keys.sort(stable=True)
        near = (order.values[1:] - order.values[:-1]).abs() <= 1e-12 * order.values.abs().max()  # no sum is exact
        pairs = [(int(order.indices[i]), int(order.indices[i + 1])) for i in near.nonzero().flatten()[:8].tolist()]
        for one, other in pairs:
            a, b = (stored.read((slice(row, row + 1), *(slice(0, size) for size in stored.shape[1:]))) for row in (one, other))
            if torch.equal(a, b) if what == "equal" else torch.equal(a, -b) and bool(a.any()):
                rows = min(one, other), max(one, other)
                alike = torch.zeros(len(hashes), dtype=torch.bool)
                alike[1:] |= near
                alike[:-1] |= near
                yield f"rows {rows[0]} and {rows[1]} are {what}; {int(alike.sum())} of {len(hashes)} rows are like another one"
                break
        else:
            continue
        return
