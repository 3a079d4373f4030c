"""Runs the batteries: ``python -m benchmarks.batteries [--words 2^23] [--json FILE]``; ``make test-batteries``.

The exit status is 1 if a test fails on a stream of ours, or a control is not seen.
"""

from __future__ import annotations

import argparse
import json
import sys
from datetime import date
from pathlib import Path

import numpy as np
import scipy  # type: ignore[import-untyped]
import torch
from rich.console import Console
from rich.table import Table

import weightinit_cuda as wi

from ..quality.findings import ALARM, LEAST
from .sources import SOURCES
from .values import VALUE_TESTS
from .words import TESTS

__all__ = ["main", "run"]

Rows = list[dict[str, object]]


def run(words: int, console: Console) -> Rows:
    """All tests: a row for each source of words, one for each test of values."""
    rows: Rows = []
    for source in SOURCES:
        drawn = source.words(words)
        p = {name: test(drawn) for name, test in TESTS.items()}
        wanted = [source.seen_by] if source.seen_by else []
        rows.append(_row(source.name, words, p, wanted))
        console.print(f"{source.name}: {_verdict(rows[-1])}", highlight=False)
    for test in VALUE_TESTS:
        rows.append(_row(test.name, None, {"p": test.p()}, ["p"] if test.control else []))
        console.print(f"{test.name}: {_verdict(rows[-1])}", highlight=False)
    return rows


def _row(name: str, words: int | None, p: dict[str, float], wanted: list[str]) -> dict[str, object]:
    seen = [test for test, value in p.items() if value < ALARM]
    right = not set(wanted) - set(seen) if wanted else not seen
    short = {test: float(f"{max(value, LEAST):.3g}") for test, value in p.items()}
    return {"source": name, "words": words, "p": short, "seen": seen, "must be seen by": wanted, "right": right}


def _verdict(row: dict[str, object]) -> str:
    seen = row["seen"]
    return ("" if row["right"] else "WRONG: ") + (
        f"seen by {', '.join(seen)}" if isinstance(seen, list) and seen else "nothing seen"
    )


def _table(rows: Rows) -> Table:
    table = Table("source", *TESTS, title="probabilities of what is at least as far from chance")
    for row in rows:
        p = row["p"]
        if isinstance(p, dict) and row["words"]:
            table.add_row(str(row["source"]), *[f"{p[name]:.2g}" for name in TESTS])
    return table


def main(arguments: list[str] | None = None) -> int:
    """The program; its exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batteries", description="Tests of randomness, and controls.")
    parser.add_argument("--words", default="2^23", help="words of each source, default 2^24; at least 2^20")
    parser.add_argument("--json", type=Path, help="file for sizes and probabilities")
    options = parser.parse_args(arguments)
    base, _, exponent = options.words.partition("^")
    words = int(base) ** int(exponent or 1)
    if words < 2**20 or words & (words - 1):
        parser.error(f"--words must be a power of two, at least 2^20, got {options.words}")
    console = Console(width=None if sys.stdout.isatty() else 150)
    rows = run(words, console)
    console.print(_table(rows))
    if options.json:
        versions = {
            "weightinit_cuda": wi.__version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "scipy": scipy.__version__,
        }
        made = {"date": date.today().isoformat(), "format": wi.FORMAT, "alarm": ALARM, "versions": versions, "rows": rows}
        options.json.write_text(json.dumps(made, indent=1) + "\n")
        console.print(f"written: {options.json}")
    return 0 if all(row["right"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
