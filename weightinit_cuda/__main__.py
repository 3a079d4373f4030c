"""``python -m weightinit_cuda {plan,init,verify,doctor,demo,bench}``."""

from __future__ import annotations

import argparse
import runpy
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from . import __version__
from .checkpoints.export import export
from .checkpoints.verify import verify
from .cli import demo
from .cli.blueprint import Blueprint, open_blueprint
from .diagnosis import probe
from .diagnosis.doctor import Symptom, diagnose, examine
from .engine.backend import backend_info
from .plans.table import starred

__all__ = ["main"]

BLUEPRINT = "a config.json of transformers (or its folder), or what plan.save() wrote"
PLAN_FILE = "init.json"  # beside the shards: what `verify` compares them with


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m weightinit_cuda", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_plan(commands.add_parser("plan", help="what a model would be filled with, as a table"))
    _add_init(commands.add_parser("init", help="write the initial checkpoint of a configuration or a plan, shard by shard"))
    _add_verify(commands.add_parser("verify", help="whether a checkpoint holds the initial values of a plan, bit for bit"))
    _add_doctor(commands.add_parser("doctor", help="what runs the fills here, and what is suspicious about a model"))
    demonstrate = commands.add_parser("demo", help="initialise GPT-2 and Llama by their own code, ours against torch.nn.init")
    demonstrate.add_argument("--model", choices=sorted(demo.MODELS), help="one of them")
    commands.add_parser("bench", add_help=False, help="the benchmarks, in a source tree; arguments are theirs")
    options, rest = parser.parse_known_args(arguments)
    if options.command == "bench":
        return _bench(rest)
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if options.command == "demo":
        return demo.main([options.model] if options.model else tuple(demo.MODELS))
    try:
        return int({"plan": _plan, "init": _init, "verify": _verify, "doctor": _doctor}[options.command](options))
    except (OSError, ImportError, ValueError, NotImplementedError) as error:
        print(error, file=sys.stderr)
        return 2


def _add_plan(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help=BLUEPRINT)
    _add_how(parser)
    parser.add_argument("--save", metavar="FILE", help="write the plan as JSON, too")


def _add_init(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help=BLUEPRINT)
    _add_how(parser)
    parser.add_argument("--out", required=True, help="a .safetensors file, or a folder for shards, their index and the plan")
    parser.add_argument("--overwrite", action="store_true", help="remove a checkpoint that is there, its index before all else")
    parser.add_argument("--shard-size", type=float, default=5.0, metavar="GB", help="of a shard at most (default 5)")


def _add_verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help=BLUEPRINT)
    parser.add_argument("checkpoint", nargs="+", help=".safetensors, .safetensors.index.json, a folder of them, or a .pt")
    _add_how(parser)
    parser.add_argument("--ignore", action="append", default=[], metavar="GLOB", help="names that do not matter")
    parser.add_argument("--all", action="store_true", help="list what is equal, too")


def _add_doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", nargs="?", help=f"{BLUEPRINT}; or a checkpoint")
    parser.add_argument("--probe", action="store_true", help="of a config.json: run the model once, and judge what it shows")
    _add_how(parser)


def _add_how(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rules", metavar="SET[,SET]", help="for a config.json: instead of the model's own code")
    parser.add_argument("--seed", type=lambda text: int(text, 0), help="default: the plan's, or 0")
    parser.add_argument(
        "--dtype", help="of floating-point tensors: float32, bfloat16, ...; default: the plan's or the config's"
    )


def _opened(options: argparse.Namespace) -> Blueprint:
    rules = options.rules and [name for name in options.rules.split(",") if name]
    dtype = None
    if options.dtype is not None:
        dtype = getattr(torch, options.dtype.removeprefix("torch."), None)
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise ValueError(f"--dtype: a floating-point dtype is required, got {options.dtype!r}.")
    if not Path(options.source).exists():
        raise FileNotFoundError(f"{options.command}: a file is required, got {options.source}, which does not exist.")
    return open_blueprint(options.source, rules[0] if rules and len(rules) == 1 else rules, options.seed, dtype)


def _plan(options: argparse.Namespace) -> int:
    plan = _opened(options).plan
    print(plan)
    if options.save:
        plan.save(options.save)
    return 0


def _init(options: argparse.Namespace) -> int:
    source = _opened(options)
    plan, names = source.plan, source.names
    also = {} if options.out.endswith(".safetensors") else {PLAN_FILE: plan.to_json().encode(), **_config(source)}
    total = sum(prod(plan[name][0].shape) * plan[name][0].dtype.itemsize for name in names)
    with _progress("writing", total) as advance:
        files = export(
            plan,
            options.out,
            shard_bytes=int(options.shard_size * 1e9),
            names=names,
            values=source.values,
            progress=advance,
            overwrite=options.overwrite,
            also=also,
            note=lambda words: print(words, file=sys.stderr),
        )
    for file in files:
        print(f"{file}  {file.stat().st_size / 1e6:,.1f} MB")
    return 0


def _config(source: Blueprint) -> dict[str, bytes]:
    """The configuration as transformers writes it, by file."""
    with TemporaryDirectory() as folder:
        source.save_config(Path(folder))
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def _verify(options: argparse.Namespace) -> int:
    """0 if every parameter of the plan is there and equal and nothing else is, else 1."""
    source = _opened(options)
    plan = source.plan
    with _progress("comparing", sum(prod(plan[name][0].shape) for name in plan.names())) as advance:
        report = verify(plan, options.checkpoint, ignore=options.ignore, values=source.values, progress=advance)
    shown = options.all or any(finding.status != "equal" for finding in report.findings)
    _console().print(report.table(options.all) if shown else report.summary())
    return 0 if report.ok else 1


def _doctor(options: argparse.Namespace) -> int:
    """The environment; of a model what is suspicious. 1 if something is wrong for sure."""
    rows = {"weightinit_cuda": __version__, "torch": torch.__version__} | backend_info()._asdict()
    for name, value in rows.items():
        text = ", ".join(value) if isinstance(value, tuple) else str(value)
        print(f"{name:<18}{text or '-'}")
    if options.probe:
        return _probe(options)
    if options.source is None:
        return 0
    if _is_blueprint(Path(options.source)):
        plan, model, recorded, _ = _opened(options)
        found, looked_at = diagnose(plan, model, recorded), f"{len(plan.names())} tensors of its plan"
    else:
        with _progress("reading", None) as advance:
            found, looked_at = examine(options.source, progress=advance), "its values"
    if not found:
        print(f"\nNothing suspicious in {looked_at}.")
        return 0
    _console().print(_symptoms(found, f"\nSuspicious in {looked_at}; what is wrong for sure is red"))
    return int(any(symptom.is_error for symptom in found))


def _probe(options: argparse.Namespace) -> int:
    """What the initial values do to signal and gradient, on inputs made up from the configuration. 1 if the verdict is FAIL."""
    if options.source is None or not _is_blueprint(Path(options.source)):
        raise ValueError(f"doctor --probe: a config.json is required, got {options.source}. A checkpoint has no code to run.")
    plan, model, recorded, _ = _opened(options)
    if model is None or recorded is None:
        raise ValueError(f"doctor --probe: a config.json is required, got a plan ({options.source}). It has no code to run.")
    dtypes = {entry.dtype for entry in plan if not entry.buffer and entry.dtype.is_floating_point}
    recorded.materialize_(model, "cpu", dtypes.pop() if len(dtypes) == 1 else None, plan.seed)
    report = probe(plan.apply_(model))
    print(f"\n{report}")
    return int(report.verdict == "FAIL")


def _is_blueprint(path: Path) -> bool:
    """Else it is a checkpoint: a folder with both is taken for that."""
    if path.is_dir():
        return not any(path.glob("*.safetensors"))
    return path.suffix == ".json" and not path.name.endswith(".index.json")


def _symptoms(found: Sequence[Symptom], title: str) -> Table:
    """Symptoms that differ only in the numbers of their tensors' names are one row."""
    groups: dict[tuple[str, str, str], list[Symptom]] = {}
    for symptom in found:
        groups.setdefault((starred(symptom.name), symptom.kind, starred(symptom.what)), []).append(symptom)
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for header in ("tensor", "", "symptom", "what"):
        table.add_column(header, overflow="fold")
    for (name, kind, what), symptoms in groups.items():
        count, first = len(symptoms), symptoms[0]
        about = (name, f"x{count}", kind, what) if count > 1 else (first.name, "", kind, first.what)
        table.add_row(*about, style="red" if first.is_error else None)
    return table


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 160, markup=False, highlight=False)


@contextmanager
def _progress(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
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


if __name__ == "__main__":
    sys.exit(main())
