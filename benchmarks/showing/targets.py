"""The targets, and whether a run met them.

Source: project anchors of November 2026, measured on Zen 3 with AVX2 and torch 2.13: what the best known kernels reach is
"stretch", "must" is what has to be reached. The GPU's come from a model of an H200. Ratios carry over to other machines
better than rates do, cycles better still.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from ..case import dtype_name
from ..contestants import (
    BASELINE,
    EAGER,
    ONE_TENSOR,
    OURS,
    OURS_ALONE,
    OURS_BOUND,
    OURS_HUGE,
    OURS_PATCHED,
    OURS_PLANNED,
    PREPARED,
)
from ..measuring.row import Row, Spread
from ..shapes import SMALL

__all__ = ["TARGETS", "Target", "Verdict", "judge"]

LARGE = (2**25, 2**26, 2**27)  # sizes that the targets for large tensors hold for
LARGE_ON_GPU = (2**26, 2**28, 2**30, 2**32)
CACHED = (2**20,)  # in cache, and large enough that the Python of a call is below 0.05 cycles a value
NUMPY, MKL = "the faster NumPy generator", "the fastest MKL generator and method"
FASTEST = {NUMPY: "numpy ", MKL: "mkl "}  # how the contestants' names begin
CYCLES = "cycles per value"


@dataclass(frozen=True)
class Target:
    """A bound on one quantity of some rows.

    Args:
        group, label, dtypes, threads, values: which rows; ``label`` None and no ``values`` mean any, no threads a GPU.
        against: whom ours is compared with, as a ratio of rates; or CYCLES.
        must, stretch: bounds, from below for ratios and from above for cycles.
        subject: who is compared.
    """

    group: str
    label: str | None
    dtypes: tuple[str, ...]
    threads: int
    values: tuple[int, ...]
    against: str
    must: float
    stretch: float | None = None
    subject: str = OURS


@dataclass(frozen=True)
class Verdict:
    """A target and the row that comes off worst; ``met`` is "stretch", "yes", "within spread", "no" or "not measured"."""

    target: Target
    row: str
    measured: Spread | None
    met: str

    def as_json(self) -> dict[str, Any]:
        """The verdict as the JSON file has it."""
        return asdict(self)


def _against_torch() -> Iterator[Target]:
    """Large tensors, warm memory, ratio to torch.nn.init: label, dtypes, then (must, stretch) for one and two threads."""
    table: tuple[tuple[str, tuple[str, ...], tuple[float, float], tuple[float, float]], ...] = (
        ("uniform", ("float32",), (8, 10), (14, 18)),
        ("normal", ("float32",), (5, 6.3), (9.5, 11)),
        ("trunc_normal", ("float32", "bfloat16"), (55, 75), (120, 165)),
        ("trunc_normal std=.02", ("float32",), (10, 13), (14, 16)),
        ("uniform", ("bfloat16", "float16"), (9.5, 12), (19, 24)),
        ("normal", ("bfloat16",), (6.3, 7.5), (13, 15)),
        ("normal", ("float16",), (5.7, 6.6), (10.5, 12)),
        ("uniform", ("float64",), (5, 6), (10, 12)),
        ("normal", ("float64",), (7.3, 9), (14, 17)),
    )
    for label, dtypes, one, two in table:
        for dtype in dtypes:
            for threads, (must, stretch) in ((1, one), (2, two)):
                yield Target("fill", label, (dtype,), threads, LARGE, BASELINE, must, stretch)


def _elsewhere() -> Iterator[Target]:
    for threads, must, stretch in ((1, 6, 9), (2, 10, 14)):  # huge pages are ours to ask for: nn.init has plain ones
        yield Target("fresh", "uniform", ("float32",), threads, LARGE, BASELINE, must, stretch, OURS_HUGE)
    for threads in (1, 2):
        for values in (10, 64 * 64):
            yield Target("small", None, ("float32",), threads, (values,), BASELINE, 1, 2)
    yield Target("model", SMALL, ("float32",), 2, (), BASELINE, 2, 4, OURS)
    yield Target("model", SMALL, ("float32",), 2, (), BASELINE, 4, 6, OURS_PLANNED)
    yield Target("model", SMALL, ("float32",), 2, (), BASELINE, 10, None, OURS_BOUND)
    for label, dtype, share in (("uniform", "float32", 0.55), ("uniform", "bfloat16", 0.26), ("uniform", "float64", 0.46)):
        yield Target("fill", label, (dtype,), 1, LARGE, "zero_", share)
    yield Target("fill", "normal", ("float32",), 1, LARGE, "zero_", 0.34)
    yield Target("fill", "uniform", ("float32",), 1, LARGE, NUMPY, 5)
    yield Target("fill", "normal", ("float32",), 1, LARGE, NUMPY, 11)
    yield Target("fill", "uniform", ("float32",), 1, LARGE, "mkl Philox", 1.4)  # MKL's AVX2 path, as the next two
    yield Target("fill", "normal", ("float32",), 1, LARGE, "mkl Philox ICDF", 1.9)
    yield Target("fill", "normal", ("float32",), 1, LARGE, MKL, 1.3)
    for label in ("a niced neighbour", "a neighbour"):
        yield Target("neighbour", label, ("float32",), 2, (2**18,), OURS_ALONE, 0.7, 1)
        yield Target("neighbour", label, ("float32",), 2, (), EAGER, 4, 5, OURS_PATCHED)


def _cycles() -> Iterator[Target]:
    """One thread, in cache: the kernel itself. The bounds are those of AVX2."""
    for label, dtype, must, stretch in (
        ("uniform", "float32", 1.45, 1.33),
        ("normal", "float32", 2.6, 2.3),
        ("trunc_normal", "float32", 2.6, 2.3),
        ("uniform", "bfloat16", 1.6, 1.5),
        ("normal", "bfloat16", 2.8, 2.5),
        ("uniform", "float64", 3.4, 3.1),
        ("normal", "float64", 7.3, 6.9),
    ):
        yield Target("fill", label, (dtype,), 1, CACHED, CYCLES, must, stretch)


def _gpu() -> Iterator[Target]:
    """Shares of fill_ and ratios to torch.nn.init for large tensors, then models. The rate of a model is that of the launch."""
    major, minor = map(int, torch.__version__.split(".")[:2])
    rejects = (major, minor) >= (2, 12)  # nn.init.trunc_normal_ then draws again until all values are inside
    table: tuple[tuple[str, str, float, float, float], ...] = (
        ("uniform", "float32", 0.95, 0.98, 1.25),
        ("normal", "float32", 0.75, 0.85, 1.8),
        ("uniform", "bfloat16", 0.65, 0.75, 2),
        ("normal", "bfloat16", 0.38, 0.45, 1.8),
        ("trunc_normal", "float32", 0.55, 0.65, 30 if rejects else 5),
    )
    for label, dtype, must, stretch, torchs in table:
        yield Target("fill", label, (dtype,), 0, LARGE_ON_GPU, "fill_", must, stretch)
        yield Target("fill", label, (dtype,), 0, LARGE_ON_GPU, BASELINE, torchs)
    for label, dtype in (("GPT-2", "float32"), ("Llama-3-8B", "bfloat16")):
        yield Target("model", label, (dtype,), 0, (), ONE_TENSOR, 0.95, 1.0, PREPARED)
    yield Target("model", SMALL, ("float32",), 0, (), BASELINE, 10, None, OURS_BOUND)


TARGETS: tuple[Target, ...] = (*_against_torch(), *_elsewhere(), *_cycles(), *_gpu())


def judge(rows: Sequence[Row], targets: Iterable[Target] = TARGETS) -> list[Verdict]:
    """A verdict for every target whose number of threads was measured at all."""
    threads = {row.case.threads for row in rows}
    return [_verdict(target, rows) for target in targets if target.threads in threads]


def _verdict(target: Target, rows: Sequence[Row]) -> Verdict:
    """The worst of the rows decides: a mean would hide it."""
    found = [(row, measured) for row in rows if _covers(target, row) and (measured := _measured(target, row)) is not None]
    if not found:
        return Verdict(target, "", None, "not measured")
    sign = -1 if target.against == CYCLES else 1
    row, measured = min(found, key=lambda pair: sign * pair[1]["median"])
    best = sign * measured["p25" if sign < 0 else "p75"]
    if target.stretch is not None and sign * measured["median"] >= sign * target.stretch:
        met = "stretch"
    elif sign * measured["median"] >= sign * target.must:
        met = "yes"
    else:
        met = "within spread" if best >= sign * target.must else "no"
    return Verdict(target, row.case.name, measured, met)


def _covers(target: Target, row: Row) -> bool:
    case = row.case
    return (
        (case.group, case.threads) == (target.group, target.threads)
        and target.label in (None, case.label)
        and dtype_name(case.dtype) in target.dtypes
        and (not target.values or case.values in target.values)
    )


def _measured(target: Target, row: Row) -> Spread | None:
    if target.against == CYCLES:
        return row.cycles
    ratios = row.ratios.get(target.subject, {})
    if beginning := FASTEST.get(target.against):
        return min((spread for name, spread in ratios.items() if name.startswith(beginning)), key=_median, default=None)
    return ratios.get(target.against)


def _median(measured: Spread) -> float:
    return measured["median"]
