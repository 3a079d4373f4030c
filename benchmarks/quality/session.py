"""Draws from every source, collects the findings, and checks that the controls were seen."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ..case import dtype_name
from ..contestants import BASELINE, OURS
from .findings import Finding
from .laws import LAWS, Law
from .sample import SIGMAS, Sample, crossed, distinct, tails
from .sources import Next, Source, sources

__all__ = ["Plan", "QualityRow", "measure", "power_failures"]

WHAT: tuple[tuple[str, torch.dtype], ...] = (
    ("uniform", torch.float32),
    ("uniform", torch.bfloat16),
    ("uniform", torch.float64),
    ("normal", torch.float32),
    ("normal", torch.bfloat16),
    ("normal", torch.float64),
    ("trunc_normal", torch.float32),
    ("trunc_normal", torch.bfloat16),
)


@dataclass(frozen=True)
class Plan:
    """How much is drawn.

    Args:
        seeds: as many, 0, 1, 2, ...
        values: of each seed.
        tail_values: for the counts beyond some sigmas, normal in float32 only; drawn in pieces.
        long_tail_values: the same for ours and torch.nn.init: 8.5 of 2^30 are expected beyond 5.77 sigma.
        fills, fill_values: for correlations between seeds and between calls.
    """

    seeds: int = 8
    values: int = 1 << 20
    tail_values: int = 1 << 27
    long_tail_values: int = 1 << 30
    tail_piece: int = 1 << 20
    fills: int = 64
    fill_values: int = 1 << 14


TAIL_DTYPES = (torch.float32,)
LONG = (OURS, BASELINE)
QUICK = Plan(seeds=4, values=1 << 18, tail_values=1 << 22, long_tail_values=1 << 22, fill_values=1 << 12)
FULL = Plan(values=1 << 22, tail_values=1 << 32, long_tail_values=1 << 32)


@dataclass(frozen=True)
class QualityRow:
    """A source in a law and dtype: findings by name, or why there are none."""

    law: str
    dtype: torch.dtype
    source: str
    values: int
    seeds: int
    findings: dict[str, Finding] = field(default_factory=dict)
    control: str = ""
    skipped: str = ""

    @property
    def name(self) -> str:
        return f"quality/{self.law}/{dtype_name(self.dtype)}/{self.source}"

    @property
    def seen(self) -> list[str]:
        """Names of the findings that chance does not explain."""
        return [name for name, finding in self.findings.items() if finding.seen]

    def as_json(self) -> dict[str, Any]:
        """The row as the JSON file has it."""
        found = {name: finding.as_json() for name, finding in self.findings.items()}
        head = {"name": self.name, "law": self.law, "dtype": dtype_name(self.dtype), "source": self.source}
        counts = {"values": self.values, "seeds": self.seeds, "control": self.control, "skipped": self.skipped}
        return head | counts | {"seen": self.seen, "findings": found}


def measure(
    plan: Plan, device: str, told: Callable[[str], None], what: Sequence[tuple[str, torch.dtype]] = WHAT
) -> list[QualityRow]:
    """All rows.

    Args:
        told: called with a row's name before it is drawn.
        what: laws and dtypes.
    """
    rows = []
    for name, dtype in what:
        for source in sources(LAWS[name], dtype, device):
            told(f"quality/{name}/{dtype_name(dtype)}/{source.name}")
            try:
                rows.append(_row(plan, LAWS[name], dtype, source, device))
            except Exception as error:
                if source.name == OURS or source.control:
                    raise
                why = f"failed with {type(error).__name__}: {error}".splitlines()[0]  # a peer's defect stops nobody else
                rows.append(QualityRow(name, dtype, source.name, 0, 0, skipped=why))
            gc.collect()
    return rows


def power_failures(rows: Sequence[QualityRow]) -> list[str]:
    """Controls that the statistics did not see: empty if the suite has the power it claims."""
    return [f"{row.name}: not seen by {row.control}" for row in rows if row.control and row.control not in row.seen]


def _row(plan: Plan, law: Law, dtype: torch.dtype, source: Source, device: str) -> QualityRow:
    first = source.open(law, dtype, 0, device)
    if isinstance(first, str):
        return QualityRow(law.name, dtype, source.name, 0, 0, skipped=first)
    sample = Sample(law, dtype, plan.seeds * plan.values)
    for seed in range(plan.seeds):
        sample.add(_opened(source, law, dtype, seed, device)(plan.values))
    found = sample.findings()
    found["distinct"] = distinct(first(plan.values))
    found["calls"] = crossed([first(plan.fill_values) for _ in range(plan.fills)], law)
    seeds = [_opened(source, law, dtype, seed, device)(plan.fill_values) for seed in range(plan.fills)]
    found["seeds"] = crossed(seeds, law)
    if law.name == "normal" and dtype in TAIL_DTYPES and not source.control:
        found |= _tails(law, first, plan.long_tail_values if source.name in LONG else plan.tail_values, plan.tail_piece)
    return QualityRow(law.name, dtype, source.name, sample.n, plan.seeds, found, source.control)


def _opened(source: Source, law: Law, dtype: torch.dtype, seed: int, device: str) -> Next:
    values = source.open(law, dtype, seed, device)
    assert not isinstance(values, str)  # it was opened before
    return values


def _tails(law: Law, values: Next, total: int, piece: int) -> dict[str, Finding]:
    """Piece by piece: only what lies beyond the least number of sigmas is looked at twice."""
    beyond, n, most = dict.fromkeys(SIGMAS, 0), 0, 0.0
    while n < total:
        size = values(piece).abs_()
        far = size[size > SIGMAS[0]]
        for sigma in SIGMAS:
            beyond[sigma] += int((far > sigma).sum())
        most = max(most, float(far.max())) if far.numel() else most
        n += piece
    return tails(law, beyond, n, most)
