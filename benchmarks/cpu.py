"""The benchmarks on the CPU: measures suites, shows tables and targets, writes JSON."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

try:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
except ImportError:
    sys.exit("benchmarks: tables and progress need rich. pip install rich")

from .case import Case
from .measuring.clock import calibrated_clock
from .measuring.environment import environment
from .measuring.row import Row
from .measuring.runner import Runner
from .measuring.timing import Policy
from .showing import results_file
from .showing import terminal as report
from .showing.targets import judge
from .suites import SUITES

__all__ = ["run"]

QUICK_ROW_SECONDS = 0.1
PLAIN_WIDTH = 160  # of the tables in a pipe or a file


def run(options: argparse.Namespace) -> int:
    """The command line's part for the CPU: 0, or 1 if a control of the suite ``quality`` was not seen.

    Raises:
        WrongValuesError: ours writes wrong values; nothing is reported then.
    """
    console = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    chosen = [name for name in SUITES if options.suite in (name, "all")]
    cases = [case for name in chosen for case in SUITES[name](options.threads, options.sizes, options.quick, options.full)]
    if options.list:
        report.print_cases(console, cases)
        return 0
    context = environment(options.threads)  # before the run: afterwards the load is our own
    console.print(
        f"{context['cpu']}, {context['isa']}, torch {context['versions']['torch']}, load {context['load_average']:.2f}"
    )
    rows = _timed(cases, options, console) if cases else []
    verdicts = judge(rows)
    if rows:
        report.print_rows(console, rows)
        report.print_verdicts(console, verdicts)
    found: list[Any] = []
    status = 0
    if options.suite in ("quality", "all"):
        if importlib.util.find_spec("scipy") is None:
            console.print("left out: quality: scipy is not installed (pip install scipy)", style="dim", highlight=False)
        else:
            from .showing import quality_report

            found, status = quality_report.run(console, "cpu", options.quick, options.full)
    if options.json:
        results_file.write(options.json, results_file.as_run(options.suite, context, rows, verdicts, found))
        console.print(f"written: {options.json}")
    return status


def _timed(cases: Sequence[Case], options: argparse.Namespace, console: Console) -> list[Row]:
    policy = Policy()
    if options.quick:
        policy = replace(policy, row_seconds=QUICK_ROW_SECONDS, call_seconds=1.0)
    clock = calibrated_clock()
    if isinstance(clock, str):
        console.print(f"left out: {clock}", style="dim", highlight=False)
    return _measure(Runner(policy, None if isinstance(clock, str) else clock), cases, console)


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
