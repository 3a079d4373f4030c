"""``python -m benchmarks``: measures suites, shows tables and targets, writes JSON and a page; compares two runs.

python -m benchmarks --suite all --json out.json --html out.html
python -m benchmarks compare before.json after.json
python -m benchmarks page out.json --html out.html
python -m benchmarks readme-table [--check]
python -m benchmarks --suite zoo --library timm,transformers --task values --part 1/4 --json benchmarks/results/zoo.json
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .showing import readme_table, results_file

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; a measurement exits 0 whether or not targets are met: a busy machine is no defect.

    Raises:
        WrongValuesError: ours writes wrong values; nothing is reported then.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    wanted = {"compare": 2, "page": 1}.get(options.command, 0)
    if len(options.files) != wanted:
        parser.error(f"{options.command} must be given {wanted} files, got {len(options.files)}")
    try:
        if options.command == "readme-table":
            return _readme_table(options.check)
        if options.command == "compare":
            from .showing.compare import run

            return run(*options.files)
        if options.command == "page":
            return _page(options.files[0], options.html or options.files[0].with_suffix(".html"))
        return _measure(options)
    except (readme_table.TableError, results_file.ResultsError) as error:
        print(error, file=sys.stderr)
        return 1


def _measure(options: argparse.Namespace) -> int:
    """All chosen suites; ``claims``, which takes no time, ``pages``, and ``zoo``, which needs many libraries, only by name.

    The page is made from the JSON file, of which there is a passing one if none is asked for.
    """
    if options.suite == "claims":
        from .showing import claims_table  # needs scikit-learn

        return claims_table.run(options.json)
    if options.suite == "zoo":
        return _measure_zoo(options)
    if options.suite == "pages":
        return _measure_pages(options.json)
    with tempfile.TemporaryDirectory() as folder:
        options.json = options.json or (Path(folder, "run.json") if options.html else None)
        if options.device == "cuda":
            status = _measure_cuda(options)
        else:
            from . import cpu  # needs rich, which the others do without

            status = cpu.run(options)
        if options.html and status == 0 and not options.list:
            _page(options.json, options.html)
    return status


def _measure_zoo(options: argparse.Namespace) -> int:
    from .showing import zoo_table  # needs scipy

    part, parts = options.part
    chosen = zoo_table.Part(options.library, options.task, part, parts, options.only)
    return zoo_table.run(options.json, [max(options.threads)], chosen)


def _measure_pages(file: Path | None) -> int:
    from .measuring.environment import environment
    from .suites import pages

    rows = pages.measure()
    for row in rows:
        asked = "huge pages" if row["huge"] else "small pages"
        print(f"{row['setting']:>5}: {asked}, {row['megabytes']:.0f} MB, {row['wall']:.3f} s, {row['cpu']:.3f} s of CPU")
    if file is not None:
        run = {"schema": results_file.SCHEMA, "suite": "pages", "environment": environment([os.cpu_count() or 1]), "rows": rows}
        results_file.write(file, run)
    return 0


def _measure_cuda(options: argparse.Namespace) -> int:
    from . import cuda

    status = 0
    if options.suite != "quality":
        status = cuda.run(options.suite, options.json, options.sizes, options.quick, options.list, options.seconds)
    if options.suite in ("quality", "all") and status == 0 and not options.list:
        from .showing import quality_report

        status = quality_report.run_on_gpu(options)
    return status


def _page(results: Path, html: Path) -> int:
    from .showing.page import render  # needs matplotlib

    html.parent.mkdir(parents=True, exist_ok=True)
    html.write_text(render(results_file.read(results)), encoding="utf-8")
    print(f"written: {html}")
    return 0


def _readme_table(check: bool) -> int:
    from .showing import claims_table, front_page, zoo_table  # matplotlib

    claims = claims_table.update(check)
    zoo = zoo_table.update(check)
    tables = readme_table.update(check=check)
    front = front_page.update(results_file.read(readme_table.RESULTS / "cpu.json"), check)
    same = tables and front and claims and zoo
    if check and not same:
        pages = "README.md, docs/benchmarks.md, docs/claims.md or docs/ecosystem.md"
        print(f"readme-table: {pages} differ from the results. Run `make readme-table`.", file=sys.stderr)
        return 1
    print("README.md, docs/benchmarks.md, docs/claims.md and docs/ecosystem.md are " + ("up to date" if same else "written"))
    return 0


def _parser() -> argparse.ArgumentParser:
    cores = os.cpu_count() or 1
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = ["run", "compare", "page", "readme-table"]
    parser.add_argument("command", nargs="?", choices=commands, default="run", help="default: run")
    parser.add_argument("files", nargs="*", type=Path, help="compare: two JSON files; page: one")
    parser.add_argument("--check", action="store_true", help="readme-table: compare only; exit status 1 if the page differs")
    parser.add_argument(
        "--suite", choices=["fill", "model", "scaling", "neighbour", "quality", "claims", "pages", "zoo", "all"], default="all"
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured to this file")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with plots, readable without network")
    parser.add_argument("--threads", type=_numbers, default=sorted({1, cores}), metavar="1,2", help="numbers of threads")
    parser.add_argument("--sizes", type=_numbers, metavar="2^14,2^25", help="numbers of values instead of the suite's own")
    parser.add_argument("--quick", action="store_true", help="a look, in a few minutes")
    parser.add_argument("--full", action="store_true", help="whole models, up to 2^30 values, far tails: hours")
    parser.add_argument("--seconds", type=float, help="cuda: begin no row after so many; what decides targets comes first")
    parser.add_argument("--library", type=_names, default=[], metavar="timm,e3nn", help="zoo: of these only")
    parser.add_argument(
        "--task", type=_names, default=["values", "times", "first"], metavar="values,times", help="zoo: of values, times, first"
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="zoo: configurations with this text in their names")
    parser.add_argument("--part", type=_part, default=(1, 1), metavar="1/4", help="zoo: a quarter; adds to what the file has")
    parser.add_argument("--list", action="store_true", help="show what would be measured, and why")
    return parser


def _names(text: str) -> list[str]:
    return text.split(",")


def _part(text: str) -> tuple[int, int]:
    """Which of how many.

    >>> _part("1/4")
    (1, 4)
    """
    part, _, parts = text.partition("/")
    if not (part.isdigit() and parts.isdigit() and 1 <= int(part) <= int(parts)):
        raise argparse.ArgumentTypeError(f"must be a part such as 1/4, got {text!r}")
    return int(part), int(parts)


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
