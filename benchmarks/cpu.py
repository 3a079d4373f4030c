"""The benchmarks on the CPU: measures a suite, shows tables and targets, writes JSON."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace

import torch

try:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
except ImportError:
    sys.exit("benchmarks: tables and progress need rich. pip install rich")

from . import report
from .case import Case
from .clock import calibrated_clock
from .environment import environment
from .results_file import write_json
from .row import Row
from .runner import Runner
from .suites import SUITES
from .targets import judge
from .timing import Policy

__all__ = ["run"]

QUICK_ROW_SECONDS = 0.1
PLAIN_WIDTH = 140  # of the tables in a pipe or a file


def run(options: argparse.Namespace) -> int:
    """The command line's part for the CPU.

    Raises:
        WrongValuesError: a contestant writes wrong values; nothing is reported then.
    """
    console = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    suite = SUITES[options.suite]
    cases = suite(options.threads, options.sizes, options.quick)
    if options.list:
        report.print_cases(console, cases)
        return 0
    policy = Policy()
    if options.quick:
        policy = replace(policy, row_seconds=QUICK_ROW_SECONDS, call_seconds=1.0)
    clock = calibrated_clock()
    if isinstance(clock, str):
        console.print(f"left out: {clock}", style="dim", highlight=False)
    context = environment(options.threads)  # before the run: afterwards the load is our own
    console.print(
        f"{context['cpu']}, {context['isa']}, torch {context['versions']['torch']}, load {context['load_average']:.2f}"
    )
    rows = _measure(Runner(policy, None if isinstance(clock, str) else clock), cases, console)
    verdicts = judge(rows)
    report.print_rows(console, rows)
    report.print_verdicts(console, verdicts)
    if options.json:
        write_json(options.json, options.suite, context, rows, verdicts)
        console.print(f"written: {options.json}")
    return 0


def _measure(runner: Runner, cases: Sequence[Case], console: Console) -> list[Row]:
    """All rows, with a progress bar. The number of threads is put back as it was."""
    threads = torch.get_num_threads()
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    rows = []
    try:
        with Progress(*columns, console=console, refresh_per_second=2, transient=True) as progress:
            task = progress.add_task("", total=len(cases))
            for case in cases:
                progress.update(task, description=case.name)
                rows.append(runner.run(case))
                progress.advance(task)
    finally:
        torch.set_num_threads(threads)
    return rows
