"""Shows rows and verdicts as tables in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from ..case import Case, dtype_name
from ..contestants import BASELINE, CAST, EAGER, OURS, STORES
from ..measuring.row import STORE_LIMIT, Row, Spread
from .curves import fitted
from .targets import CYCLES, Verdict

__all__ = ["print_cases", "print_rows", "print_verdicts"]


def print_cases(console: Console, cases: Sequence[Case]) -> None:
    """What would be measured, and why."""
    table = _table("Cases", "row", "values", "MiB", "why this size")
    for case in cases:
        table.add_row(case.name, f"{case.values:,}", f"{case.bytes / 2**20:.3g}", case.why)
    console.print(table, f"{len(cases)} rows")


def print_rows(console: Console, rows: Sequence[Row]) -> None:
    """One table for each group and number of threads, then who was left out and why."""
    for group, show in TABLES.items():
        for threads in sorted({row.case.threads for row in rows}):
            chosen = [row for row in rows if (row.case.group, row.case.threads) == (group, threads) and row.seconds]
            if chosen:
                console.print(show(f"{group}, {_threads(threads)}", chosen))
    _print_skipped(console, rows)


def print_verdicts(console: Console, verdicts: Sequence[Verdict]) -> None:
    """Target, measured, met? Nothing if this run has none of their rows."""
    if all(verdict.measured is None for verdict in verdicts):
        return
    table = _table("Targets: the worst row decides", "row", "ours against", "must", "stretch", "measured", "met?")
    colours = {"stretch": "green", "yes": "green", "no": "red"}
    for verdict in (verdict for verdict in verdicts if verdict.measured is not None):
        target, colour = verdict.target, colours.get(verdict.met, "yellow")
        against = f"{target.against} ({target.subject})" if target.subject != OURS else target.against
        bound = "<= " if target.against == CYCLES else ">= "
        stretch = "" if target.stretch is None else f"{target.stretch:g}"
        table.add_row(
            verdict.row,
            against,
            f"{bound}{target.must:g}",
            stretch,
            _quartiles(verdict.measured),
            f"[{colour}]{verdict.met}[/]",
        )
    console.print(table)
    missing = sum(verdict.measured is None for verdict in verdicts)
    if missing:
        console.print(f"{missing} of {len(verdicts)} targets not measured: their rows are not in this run", style="dim")


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", header_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right")
    return table


def _fill_table(title: str, rows: Sequence[Row]) -> Table:
    columns = (
        "distribution",
        "dtype",
        "values",
        "G values/s",
        "GB/s",
        "/ nn.init",
        "of fill_",
        "of store limit",
        "/ fastest other",
    )
    table = _table(f"{title}: ours, and how many times as fast as the others (quartiles)", *columns, "cycles/value")
    for previous, row in zip([None, *rows], rows, strict=False):
        if previous and previous.case.label != row.case.label:
            table.add_section()
        case, ratios, rate = row.case, row.ratios[OURS], row.rates[OURS]
        table.add_row(
            case.label,
            dtype_name(case.dtype),
            case.size,
            f"{rate['g_values']:.3g}",
            f"{rate['gb']:.3g}",
            _quartiles(ratios.get(BASELINE) or ratios.get(CAST)),
            _median(ratios.get("fill_")),
            _median(ratios.get(STORE_LIMIT)),
            _fastest_other(ratios),
            _median(row.cycles),
        )
    return table


def _fastest_other(ratios: dict[str, Spread]) -> str:
    """The peer that ours is least ahead of; below 1 it is faster."""
    peers = {name: ratio["median"] for name, ratio in ratios.items() if name not in (BASELINE, CAST, STORE_LIMIT, *STORES)}
    if not peers:
        return ""
    name = min(peers, key=lambda peer: peers[peer])
    return f"{peers[name]:.3g} {name}"


def _small_table(title: str, rows: Sequence[Row]) -> Table:
    table = _table(f"{title}: microseconds a call", "call", "shape", "ours", "nn.init", "fill_", "times as fast (quartiles)")
    for row in rows:
        times = [f"{row.seconds[name]['median'] * 1e6:.3g}" for name in (OURS, BASELINE, "fill_")]
        table.add_row(row.case.call, row.case.size, *times, _quartiles(row.ratios[OURS].get(BASELINE)))
    return table


def _each_table(title: str, rows: Sequence[Row]) -> Table:
    """Every contestant of every row; how many times as fast as the usual way ours is."""
    table = _table(title, "what", "values", "contestant", "ms", "G values/s", "peak MiB", "usual / it (quartiles)")
    for previous, row in zip([None, *rows], rows, strict=False):
        if previous:
            table.add_section()
        usual = EAGER if EAGER in row.seconds else BASELINE
        for name, seconds in row.seconds.items():
            peak = f"{row.peaks[name] / 2**20:.0f}" if name in row.peaks else ""
            ratio = _quartiles(row.ratios.get(name, {}).get(usual))
            rate = f"{row.rates[name]['g_values']:.3g}"
            table.add_row(row.case.label, f"{row.case.values:,}", name, f"{seconds['median'] * 1e3:.4g}", rate, peak, ratio)
        if row.case.group == "model":
            table.caption = "a part of a large model, unless --full: --list says which"
    return table


def _scaling_table(title: str, rows: Sequence[Row]) -> Table:
    """Lines through time against size, a contestant each."""
    table = _table(
        f"{title}: time = overhead + values / rate", "distribution", "dtype", "contestant", "overhead us", "G values/s", "slope"
    )
    for key in dict.fromkeys((row.case.label, row.case.dtype) for row in rows):
        curve = [row for row in rows if (row.case.label, row.case.dtype) == key]
        for name in (OURS, BASELINE, "fill_"):
            points = [(row.case.values, row.seconds[name]["median"]) for row in curve if name in row.seconds]
            if line := fitted(points):
                numbers = (f"{line.overhead * 1e6:.3g}", f"{line.rate * 1e-9:.3g}", f"{line.slope:.3f}")
                table.add_row(key[0], dtype_name(key[1]), name, *numbers)
    return table


def _print_skipped(console: Console, rows: Sequence[Row]) -> None:
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for name, reason in row.skipped.items():
            reasons.setdefault((name, reason), []).append(row.case.name)
    for (name, reason), where in reasons.items():
        console.print(f"left out: {name}, {len(where)} of {len(rows)} rows: {reason}", style="dim", highlight=False)


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def _median(measured: Spread | None) -> str:
    return "" if measured is None else f"{measured['median']:.3g}"


def _quartiles(measured: Spread | None) -> str:
    return "" if measured is None else f"{measured['median']:.3g} ({measured['p25']:.3g}-{measured['p75']:.3g})"


TABLES = {
    "fill": _fill_table,
    "small": _small_table,
    "fresh": _each_table,
    "scaling": _scaling_table,
    "model": _each_table,
    "construct": _each_table,
    "neighbour": _each_table,
}
