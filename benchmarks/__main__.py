"""``python -m benchmarks``: measures a suite, shows tables and targets, writes JSON; or writes README's table."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from . import readme_table

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; a measurement exits 0 whether or not targets are met: a busy machine is no defect.

    Raises:
        WrongValuesError: a contestant writes wrong values; nothing is reported then.
    """
    options = _parser().parse_args(arguments)
    if options.command == "readme-table":
        return _readme_table(options.check)
    if options.device == "cuda":
        from . import cuda

        return cuda.run(options.json, options.sizes, options.quick, options.list)
    from . import cpu  # needs rich, which the others do without

    return cpu.run(options)


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


def _parser() -> argparse.ArgumentParser:
    cores = os.cpu_count() or 1
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("command", nargs="?", choices=["run", "readme-table"], default="run", help="default: run")
    parser.add_argument("--check", action="store_true", help="readme-table: compare only; exit status 1 if README differs")
    parser.add_argument("--suite", choices=["fill"], default="fill")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
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
