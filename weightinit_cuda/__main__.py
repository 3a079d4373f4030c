"""``python -m weightinit_cuda {demo,bench,doctor}``."""

from __future__ import annotations

import argparse
import runpy
import sys
from collections.abc import Sequence
from importlib.util import find_spec

import torch

from . import __version__, demo
from .engine import backend_info

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m weightinit_cuda", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demonstrate = commands.add_parser("demo", help="initialise GPT-2 and Llama by their own code, ours against torch.nn.init")
    demonstrate.add_argument("--model", choices=sorted(demo.MODELS), help="one of them")
    commands.add_parser("bench", add_help=False, help="the benchmarks, in a source tree; arguments are theirs")
    commands.add_parser("doctor", help="what runs the fills here, and why")
    options, rest = parser.parse_known_args(arguments)
    if options.command == "bench":
        return _bench(rest)
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if options.command == "doctor":
        return _doctor()
    return demo.main([options.model] if options.model else tuple(demo.MODELS))


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
