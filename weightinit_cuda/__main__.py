"""``python -m weightinit_cuda {init,verify,demo,bench,doctor}``."""

from __future__ import annotations

import argparse
import runpy
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from math import prod

import torch
from rich.console import Console
from rich.progress import Progress

from . import __version__, demo
from .engine import backend_info
from .export import export
from .plan import Plan
from .verify import verify

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m weightinit_cuda", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_init(commands.add_parser("init", help="write the initial checkpoint of a plan, without the model"))
    _add_verify(commands.add_parser("verify", help="whether a checkpoint holds the initial values of a plan, bit for bit"))
    demonstrate = commands.add_parser("demo", help="initialise GPT-2 and Llama by their own code, ours against torch.nn.init")
    demonstrate.add_argument("--model", choices=sorted(demo.MODELS), help="one of them")
    commands.add_parser("bench", add_help=False, help="the benchmarks, in a source tree; arguments are theirs")
    commands.add_parser("doctor", help="what runs the fills here, and why")
    options, rest = parser.parse_known_args(arguments)
    if options.command == "bench":
        return _bench(rest)
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if options.command in ("init", "verify"):
        try:
            return _init(options) if options.command == "init" else _verify(options)
        except (OSError, ImportError, ValueError, NotImplementedError) as error:
            print(error, file=sys.stderr)
            return 2
    if options.command == "doctor":
        return _doctor()
    return demo.main([options.model] if options.model else tuple(demo.MODELS))


def _add_init(parser: argparse.ArgumentParser) -> None:
    _add_plan(parser)
    parser.add_argument("--out", required=True, help="a .safetensors file, or a folder for shards and their index")
    parser.add_argument("--shard-size", type=float, default=5.0, metavar="GB", help="of a shard at most (default 5)")


def _add_verify(parser: argparse.ArgumentParser) -> None:
    _add_plan(parser)
    parser.add_argument("checkpoint", nargs="+", help=".safetensors, .safetensors.index.json, a folder of them, or a .pt")
    parser.add_argument("--ignore", action="append", default=[], metavar="GLOB", help="names that do not matter")
    parser.add_argument("--all", action="store_true", help="list what is equal, too")


def _add_plan(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("plan", help="what plan.save() wrote")
    parser.add_argument("--seed", type=lambda text: int(text, 0), help="instead of the plan's")
    parser.add_argument("--dtype", help="instead of the plan's: float32, bfloat16, ...")


def _load(options: argparse.Namespace) -> Plan:
    """The plan, with the seed and the dtype that were given."""
    plan = Plan.load(options.plan)
    if options.seed is not None:
        plan = plan.with_seed(options.seed)
    if options.dtype is None:
        return plan
    dtype = getattr(torch, options.dtype.removeprefix("torch."), None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ValueError(f"--dtype: a floating-point dtype is required, got {options.dtype!r}.")
    return plan.with_dtype(dtype)


def _init(options: argparse.Namespace) -> int:
    plan = _load(options)
    total = sum(prod(plan[name][0].shape) * plan[name][0].dtype.itemsize for name in plan.names())
    with _progress("writing", total) as advance:
        files = export(plan, options.out, shard_bytes=int(options.shard_size * 1e9), progress=advance)
    for file in files:
        print(f"{file}  {file.stat().st_size / 1e6:,.1f} MB")
    return 0


def _verify(options: argparse.Namespace) -> int:
    """0 if every parameter of the plan is there and equal and nothing else is, else 1."""
    plan = _load(options)
    with _progress("comparing", sum(prod(plan[name][0].shape) for name in plan.names())) as advance:
        report = verify(plan, options.checkpoint, ignore=options.ignore, progress=advance)
    shown = options.all or any(finding.status != "equal" for finding in report.findings)
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(report.table(options.all) if shown else report.summary())
    return 0 if report.ok else 1


@contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr, if that is a terminal; yields the function that moves it."""
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda amount: bar.advance(task, amount)


def _bench(arguments: Sequence[str]) -> int:
    """Hands over to the benchmarks, which are no part of the package: it does not import them."""
    if find_spec("benchmarks") is None:
        print("bench: the benchmarks come with the source tree, not with the package. Run this in a checkout.", file=sys.stderr)
        return 2
    sys.argv[1:] = arguments
    runpy.run_module("benchmarks", run_name="__main__", alter_sys=True)
    return 0


def _doctor() -> int:
    """backend_info() as a table."""
    rows = {"weightinit_cuda": __version__, "torch": torch.__version__} | backend_info()._asdict()
    for name, value in rows.items():
        text = ", ".join(value) if isinstance(value, tuple) else str(value)
        print(f"{name:<18}{text or '-'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
