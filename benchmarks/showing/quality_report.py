"""The suite ``quality`` from the command line: draws with a progress bar, shows findings as a table."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import torch
from rich.console import Console
from rich.table import Table

from ..case import dtype_name
from ..measuring.environment import environment
from ..quality import Plan, QualityRow, measure, power_failures
from ..quality.session import FULL, QUICK
from . import results_file

__all__ = ["print_quality", "run", "run_on_gpu"]

PLAIN_WIDTH = 160


def run(console: Console, device: str, quick: bool, full: bool) -> tuple[list[QualityRow], int]:
    """All rows, and the exit status: 1 if a control was not seen, since all else then means little."""
    plan = QUICK if quick else FULL if full else Plan()
    with console.status("quality") as status:
        rows = measure(plan, device, lambda name: status.update(name))
    print_quality(console, rows)
    failures = power_failures(rows)
    for failure in failures:
        console.print(f"power check failed: {failure}", style="red", highlight=False)
    return rows, int(bool(failures))


def run_on_gpu(options: argparse.Namespace) -> int:
    """The command line's part: the findings are added to the file that the timed suites wrote, or make a file of their own."""
    if not torch.cuda.is_available():
        print(f"benchmarks: --device cuda needs a GPU: torch {torch.__version__} finds no CUDA device", file=sys.stderr)
        return 1
    rows, status = run(Console(width=PLAIN_WIDTH), "cuda", options.quick, options.full)
    if options.json and options.suite == "all":
        results_file.add_quality(options.json, rows)
    elif options.json:
        results_file.write(options.json, results_file.as_run("quality", environment([0]), [], [], rows))
    return status


def print_quality(console: Console, rows: Sequence[QualityRow]) -> None:
    """What each source was seen doing wrong; the tails; who was left out and why."""
    drawn = [row for row in rows if not row.skipped]
    table = Table(title="quality: seen means p < 1e-6", title_justify="left", header_style="bold")
    for column in ("law", "dtype", "source", "values", "least p", "bias, sigmas", "values alike, log2", "seen"):
        table.add_column(column, justify="left" if column in ("law", "dtype", "source", "seen") else "right")
    for row in drawn:
        judged = [finding.p for finding in row.findings.values() if finding.p is not None]
        bias, alike = row.findings["mean"].details, row.findings["distinct"].details["alike_as_log2"]
        colour = "green" if bool(row.seen) == bool(row.control) else "red"
        table.add_row(
            row.law,
            dtype_name(row.dtype),
            row.source,
            f"{row.values:,}",
            f"{min(judged):.2g}",
            f"{bias['bias']:+.1e} ± {bias['error']:.0e}",
            "" if alike is None else f"{alike:.1f}",
            f"[{colour}]{', '.join(row.seen) or 'nothing'}[/]",
        )
    console.print(table)
    _print_tails(console, drawn)
    for reason in dict.fromkeys((row.source, row.skipped) for row in rows if row.skipped):
        console.print(f"left out: {reason[0]}: {reason[1]}", style="dim", highlight=False)


def _print_tails(console: Console, rows: Sequence[QualityRow]) -> None:
    with_tails = [row for row in rows if any(name.startswith("beyond") for name in row.findings)]
    if not with_tails:
        return
    names = [name for name in with_tails[0].findings if name.startswith("beyond")]
    table = Table(title="tails of normal: count / expected", title_justify="left", header_style="bold")
    for column in ("source", *(f"{name} sigma" for name in names), "largest"):
        table.add_column(column, justify="left" if column == "source" else "right")
    for row in with_tails:
        found = [row.findings[name] for name in names]
        cells = [f"{f.details['count']} / {f.details['expected']:.3g}" for f in found]
        marked = [f"[red]{cell}[/]" if f.seen else cell for cell, f in zip(cells, found, strict=True)]
        table.add_row(row.source, *marked, f"{found[0].details['largest']:.3f}")
    console.print(table)
