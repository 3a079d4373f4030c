"""``python -m benchmarks``: measures a suite, shows tables and targets, writes JSON."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

try:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
except ImportError:
    sys.exit("benchmarks: tables and progress need rich. pip install rich")

from . import readme_table, report
from .case import Case
from .clock import calibrated_clock
from .environment import environment
from .runner import Row, Runner
from .suites import SUITES
from .targets import judge
from .timing import Policy

__all__ = ["main"]

QUICK_ROW_SECONDS = 0.1
PLAIN_WIDTH = 140  # of the tables in a pipe or a file


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; a measurement exits 0 whether or not targets are met: a busy machine is no defect.

    Raises:
        WrongValuesError: a contestant writes wrong values; nothing is reported then.
    """
    options = _parser().parse_args(arguments)
    if options.command == "readme-table":
        return _readme_table(options.check)
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
        report.write_json(options.json, options.suite, context, rows, verdicts)
        console.print(f"written: {options.json}")
    return 0


def _readme_table(check: bool) -> int:
    try:
        same = readme_table.update(check=check)
    except readme_table.ReadmeError as error:
        print(error, file=sys.stderr)
        return 1
    if check and not same:
        print("readme-table: README's table is not what benchmarks/results gives. Run `make readme-table`.", file=sys.stderr)
        return 1
    print("README's table is up to date" if same else "README's table is written")
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


def _parser() -> argparse.ArgumentParser:
    cores = os.cpu_count() or 1
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("command", nargs="?", choices=["run", "readme-table"], default="run", help="default: run")
    parser.add_argument("--check", action="store_true", help="readme-table: compare only; exit status 1 if README differs")
    parser.add_argument("--suite", choices=sorted(SUITES), default="fill")
    parser.add_argument("--device", choices=["cpu"], default="cpu")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured to this file")
    parser.add_argument("--threads", type=_numbers, default=[1, 2][:cores], metavar="1,2", help="numbers of threads")
    parser.add_argument("--sizes", type=_numbers, metavar="2^14,2^25", help="numbers of values instead of the suite's own")
    parser.add_argument("--quick", action="store_true", help="a look, in less than a minute")
    parser.add_argument("--list", action="store_true", help="show what would be measured, and why")
    return parser


def _numbers(text: str) -> list[int]:
    """Whole numbers and powers of two, separated by commas.

    >>> _numbers("10,2^4")
    [10, 16]
    """
    numbers = []
    for part in text.split(","):
        base, power, exponent = part.partition("^")
        try:
            number = int(base) ** int(exponent) if power else int(base)
        except ValueError:
            number = 0
        if number < 1:
            raise argparse.ArgumentTypeError(f"must be positive numbers such as 1,2 or 2^14,2^25, got {text!r}")
        numbers.append(number)
    return numbers


if __name__ == "__main__":
    sys.exit(main())
