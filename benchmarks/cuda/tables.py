"""The GPU's rows as plain text: a machine with a GPU need not have rich."""

from __future__ import annotations

from collections.abc import Sequence

from ..case import Case, dtype_name
from ..contestants import BASELINE, OURS, OURS_BOUND, PREPARED
from ..measuring.row import Row, Spread
from ..showing.curves import fitted
from ..showing.targets import Verdict

__all__ = ["print_cases", "print_rows", "print_verdicts"]

YARDSTICKS = (BASELINE, "cuRAND Philox", "torch.func._random", "triton", "triton 4x")


def print_cases(cases: Sequence[Case]) -> None:
    """What would be measured, and why."""
    lines = [[case.name, f"{case.values:,}", f"{case.bytes / 2**20:.3g}", case.why] for case in cases]
    _print(["row", "values", "MiB", "why"], lines)


def print_rows(rows: Sequence[Row]) -> None:
    """One tensor, then curves, then models, then who was left out and why."""
    lines = []
    for row in (row for row in rows if row.case.group == "fill" and OURS in row.rates):
        rate, ratios = row.rates[OURS], row.ratios[OURS]
        where = [row.case.label, dtype_name(row.case.dtype), row.case.size, f"{row.seconds[OURS]['median'] * 1e6:.4g}"]
        against = [_quartiles(ratios.get(name)) for name in ("fill_", *YARDSTICKS)]
        lines.append([*where, f"{rate['gb']:.4g}", *against])
    print("\nOne tensor: ours, and how many times as fast as the others (quartiles); fill_ is its share of the stores' speed")
    _print(["distribution", "dtype", "values", "us", "GB/s", "share of fill_", *(f"/ {name}" for name in YARDSTICKS)], lines)
    _print_curves([row for row in rows if row.case.group == "scaling"])
    lines = []
    for row in (row for row in rows if row.case.group == "model" and OURS in row.rates):
        for name, seconds in row.seconds.items():
            times = [f"{seconds['median'] * 1e3:.4g}", f"{row.rates[name]['gb']:.4g}"]
            ratio = row.ratios[name].get(BASELINE) if name in (OURS, OURS_BOUND, PREPARED) else None
            lines.append([row.case.label, dtype_name(row.case.dtype), name, *times, _quartiles(ratio)])
    print("\nWhole models: the call with all its Python, the launch alone, and others")
    _print(["model", "dtype", "contestant", "ms", "GB/s", "/ nn.init, a loop"], lines)
    for text in dict.fromkeys(f"left out: {name}: {reason}" for row in rows for name, reason in row.skipped.items()):
        print(text)
    for row in (row for row in rows if row.case.group != "model"):  # of a model Python is a part
        for name, seconds in ((name, seconds) for name, seconds in row.seconds.items() if "late" in seconds):
            print(f"Python is in {row.case.name}: {name}: the host was late in {seconds['late']} of {seconds['rounds']} rounds")


def _print_curves(rows: Sequence[Row]) -> None:
    """Lines through time against size: what a call costs, and how fast large tensors are filled."""
    lines = []
    for key in dict.fromkeys((row.case.label, row.case.dtype) for row in rows):
        for name in (OURS, BASELINE, "fill_"):
            curve = [row for row in rows if (row.case.label, row.case.dtype) == key and name in row.seconds]
            if line := fitted([(row.case.values, row.seconds[name]["median"]) for row in curve]):
                numbers = [f"{line.overhead * 1e6:.3g}", f"{line.rate * 1e-9:.4g}", f"{line.slope:.3f}"]
                lines.append([key[0], dtype_name(key[1]), name, *numbers])
    print("\nTime against size: overhead + values / rate")
    _print(["distribution", "dtype", "contestant", "overhead us", "G values/s", "slope"], lines)


def print_verdicts(verdicts: Sequence[Verdict]) -> None:
    """Target, measured, met?"""
    lines = []
    for verdict in verdicts:
        target = verdict.target
        where = verdict.row or f"{target.label}, {', '.join(target.dtypes)}"
        bounds = [f">= {target.must:g}", "" if target.stretch is None else f"{target.stretch:g}"]
        lines.append([where, target.subject, target.against, *bounds, _quartiles(verdict.measured), verdict.met])
    print("\nTargets: the worst row decides")
    _print(["row", "who", "against", "must", "stretch", "measured", "met?"], lines)


def _quartiles(spread: Spread | None) -> str:
    return "" if spread is None else f"{spread['median']:.3g} ({spread['p25']:.3g}-{spread['p75']:.3g})"


def _print(header: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    widths = [max(len(cells[i]) for cells in (header, *lines)) for i in range(len(header))]
    for cells in (header, ["-" * width for width in widths], *lines):
        print("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())
