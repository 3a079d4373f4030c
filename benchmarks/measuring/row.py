"""A row: what was measured in one case. Plain data, ready for JSON, of the CPU's benchmarks and the GPU's alike.

Seconds are as measured; what is derived from them is derived here and only here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from ..case import Case, dtype_name
from ..contestants import OURS, STORES
from .timing import Samples, spread

__all__ = ["STORE_LIMIT", "Row", "Spread", "row_of"]

STORE_LIMIT = "store limit"
Spread = dict[str, float]


@dataclass(frozen=True)
class Row:
    """What was measured in one case.

    Args:
        case: the case.
        seconds: contestant -> spread of the seconds per call, with the number of rounds and of calls in a slice; on a GPU also
            the number of rounds in which the host was late, if there are any: Python is in those.
        rates: contestant -> 1e9 values a second and 1e9 stored bytes a second, from the median.
        ratios: contestant -> other -> how many times as long as the contestant the other took, spread over the rounds. For
            every contestant that is ours. STORE_LIMIT is the fastest of the row's plain stores.
        cycles: cycles per value of ours; None with several threads or without a calibrated clock.
        skipped: contestant -> why it did not take part; all of them if the case did not fit into memory.
        peaks: contestant -> bytes that its call added to the process at its peak; whole models only.
    """

    case: Case
    seconds: dict[str, Spread]
    rates: dict[str, Spread]
    ratios: dict[str, dict[str, Spread]]
    cycles: Spread | None
    skipped: dict[str, str]
    peaks: dict[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The row as the JSON file has it."""
        case = asdict(self.case) | {"dtype": dtype_name(self.case.dtype), "size": self.case.size, "values": self.case.values}
        measured = {name: getattr(self, name) for name in ("seconds", "rates", "ratios", "cycles", "skipped", "peaks")}
        return {"name": self.case.name, "case": case, **measured}


def row_of(
    case: Case,
    samples: Mapping[str, Samples],
    readings: list[float],
    skipped: dict[str, str],
    peaks: dict[str, int] | None = None,
) -> Row:
    """A row from its samples.

    Args:
        samples: contestant -> seconds per call, a number a round.
        readings: cycles a second, a number a round; empty where the clock is not known.
        skipped: contestant -> why it did not take part.
    """
    seconds, rates = {}, {}
    for name, sample in samples.items():
        seconds[name] = spread(sample.seconds) | {"rounds": len(sample.seconds), "loops": sample.loops}
        if sample.late:
            seconds[name]["late"] = sample.late
        per_second = 1e-9 / seconds[name]["median"]
        rates[name] = {"g_values": float(f"{case.values * per_second:.6g}"), "gb": float(f"{case.bytes * per_second:.6g}")}
    ratios = {name: _ratios(name, samples) for name in samples if name.startswith(OURS)}
    cycles = None
    if readings and case.threads == 1:
        pairs = zip(samples[OURS].seconds, readings, strict=True)
        cycles = spread([taken * cycles_per_second / case.values for taken, cycles_per_second in pairs])
    return Row(case, seconds, rates, ratios, cycles, skipped, peaks or {})


def _ratios(name: str, samples: Mapping[str, Samples]) -> dict[str, Spread]:
    """Of the others to the contestant, within rounds."""
    others = {other: sample.seconds for other, sample in samples.items() if other != name}
    if stores := [other for other in STORES if other in others]:
        others[STORE_LIMIT] = others[min(stores, key=lambda other: median(others[other]))]
    return {other: spread([b / a for a, b in zip(samples[name].seconds, them, strict=True)]) for other, them in others.items()}
