"""The commands: what they take, what they print, and their exit status. What they do lies in the other rooms."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path

import click
import torch

from .._version import __version__
from ..checkpoints.export import export
from ..checkpoints.files import open_checkpoint
from ..checkpoints.verify import verify
from ..diagnosis import probe
from ..diagnosis.doctor import diagnose, examine
from ..engine.backend import backend_info
from ..numerics.distributions import Computed
from ..plans.table import visible
from ..plans.whole_file import write_whole
from ..rules import Rule, buffer
from . import demo
from .bench import run_benchmarks
from .blueprint import Blueprint, open_blueprint
from .ending import ended, say
from .named_function import NAMED_FUNCTION
from .options import How, gigabytes, takes_how
from .terminal import progress, rendered, symptoms_table

__all__ = ["main"]

PLAN_FILE = "init.json"  # beside the shards: what `verify` compares them with
UNWRITTEN = [Rule(at, Computed("nothing")) for at in ("*", (buffer, "*"))]  # so that the doctor sees the rest of the plan, too


def main(arguments: Sequence[str] | None = None, program: str = "weightinit-cuda") -> int:
    """Runs a command; returns the exit status: 0, 1 for what differs or is wrong with a model, 2 for an error."""

    def command() -> int:
        return int(commands.main(arguments, prog_name=program, standalone_mode=False) or 0)

    return ended(command, "weightinit-cuda")


class _InOrder(click.Group):
    """Commands are listed as they stand here."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_InOrder, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="weightinit-cuda")
def commands() -> None:
    """Initial weights of models: as a table, as a checkpoint, compared, and examined.

    \b
    SOURCE is one of
      config.json           of transformers, diffusers or timm, or its folder
      init.json             what plan.save() or init wrote
      package.module:make   a function without arguments, or a class, that makes a model
      model.py:make         the same in a file

    \b
    Exit status
      0  done; equal; nothing suspicious
      1  verify: something differs; doctor: something is wrong for sure
      2  bad arguments, or an error, which is one sentence on stderr
    """


# ---- plan, init, verify ----------------------------------------------------------------------------------------------


@commands.command("plan", short_help="What a model would be filled with, as a table.")
@click.argument("source")
@click.option("--save", metavar="FILE", help="Write the plan as JSON, too.")
@takes_how
def plan_command(source: str, how: How, save: str | None) -> int:
    """What a model would be filled with, as a table.

    \b
    weightinit-cuda plan config.json
    weightinit-cuda plan config.json --rules llama --dtype bfloat16 --save init.json
    weightinit-cuda plan model.py:make
    """
    plan = how.open(source).plan
    if save is not None:
        plan.save(save)
    say(str(plan))
    return 0


@commands.command("init", short_help="Write the initial checkpoint of a configuration, a function or a plan.")
@click.argument("source")
@click.option("--out", required=True, help="A .safetensors file, or a folder for shards, their index and the plan.")
@click.option("--overwrite", is_flag=True, help="Remove a checkpoint that is there, its index before all else.")
@click.option("--shard-size", metavar="GB", callback=gigabytes, default="5", show_default=True, help="Of a shard at most.")
@takes_how
def init_command(source: str, how: How, out: str, overwrite: bool, shard_size: float) -> int:
    """Write the initial checkpoint of a configuration, a function or a plan, shard by shard.

    Tensors have the names that the model's library gives them in files. Nothing of the model's size is in memory.

    \b
    weightinit-cuda init config.json --out checkpoint --seed 7
    weightinit-cuda init init.json --out model.safetensors --dtype bfloat16
    weightinit-cuda init package.module:make --out checkpoint
    """
    opened = how.open(source)
    stored = opened.in_files()
    plan, names = stored.plan, stored.names
    beside = {PLAN_FILE: opened.plan.to_json().encode(), **opened.config_files()}
    is_file = out.endswith(".safetensors")
    lone = Path(out, opened.weights) if opened.weights and not is_file and out else None
    if lone is not None:
        lone.parent.mkdir(parents=True, exist_ok=True)
    total = sum(prod(plan[name][0].shape) * plan[name][0].dtype.itemsize for name in names)
    with progress("writing", total) as advance:
        files = export(
            plan,
            out if lone is None else lone,
            shard_bytes=int(shard_size * 1e9),
            names=names,
            values=stored.values,
            progress=advance,
            overwrite=overwrite,
            also={} if is_file or lone is not None else beside,
            note=lambda words: click.echo(visible(words), err=True),
        )
    if lone is not None:
        for name, content in beside.items():
            write_whole(lone.parent / name, content)
            files.append(lone.parent / name)
    say("\n".join(f"{visible(str(file))}  {file.stat().st_size / 1e6:,.1f} MB" for file in files))
    return 0


@commands.command("verify", short_help="Whether a checkpoint holds the initial values of a plan, bit for bit.")
@click.argument("source")
@click.argument("checkpoint", nargs=-1, required=True)
@click.option("--ignore", multiple=True, metavar="GLOB", help="Names that do not matter. May be given several times.")
@click.option("--all", "everything", is_flag=True, help="List what is equal, too.")
@takes_how
def verify_command(source: str, checkpoint: tuple[str, ...], how: How, ignore: tuple[str, ...], everything: bool) -> int:
    """Whether a checkpoint holds the initial values of a plan, bit for bit, and nothing else. If not, the status is 1.

    CHECKPOINT is a .safetensors file or several, a .safetensors.index.json, a folder of these, or a file of torch.save.

    \b
    weightinit-cuda verify config.json checkpoint --seed 7
    weightinit-cuda verify init.json model.safetensors --ignore '*.bias'
    """
    opened = _named_as_in(how.open(source), checkpoint, source, how)
    plan = opened.plan
    with progress("comparing", sum(prod(plan[name][0].shape) for name in plan.names())) as advance:
        report = verify(plan, checkpoint, ignore=ignore, values=opened.values, progress=advance)
    shown = everything or any(finding.status != "equal" for finding in report.findings)
    say(rendered(report.table(everything)) if shown else report.summary())
    return 0 if report.ok else 1


def _named_as_in(opened: Blueprint, checkpoint: Sequence[str], source: str, how: How) -> Blueprint:
    """The blueprint under the names that the checkpoint uses: those of files, or the model's own.

    A plan knows its own names only; one that ``init`` wrote lies beside the configuration, which knows the others.
    """
    if opened.model is not None and opened.saved is None:
        return opened  # there are no other names
    there = open_checkpoint(list(checkpoint)).keys()
    if opened.model is None and not set(opened.plan.names()) <= there:
        config = Path(source).with_name("config.json")
        if config.is_file():
            made = open_blueprint(config, None, opened.plan.seed, opened.dtype, how.permissions)
            opened = made if not made.plan.diff(opened.plan) else opened
    stored = opened.in_files()
    return stored if set(stored.plan.names()) - set(opened.plan.names()) & there else opened


# ---- doctor ----------------------------------------------------------------------------------------------------------


@commands.command("doctor", short_help="What runs the fills here, and what is suspicious about a model.")
@click.argument("source", required=False)
@click.option("--probe", "probes", is_flag=True, help="Make the model, run it once, and judge what it shows.")
@takes_how
def doctor_command(source: str | None, how: How, probes: bool) -> int:
    """What runs the fills here, and what is suspicious about a model or a checkpoint. The status is 1 if something is wrong
    for sure: memory that is not written, values that are not finite; with --probe a verdict of FAIL.

    \b
    weightinit-cuda doctor
    weightinit-cuda doctor config.json --probe
    weightinit-cuda doctor model.py:make --rules kaiming
    weightinit-cuda doctor model.safetensors
    """
    rows = {"weightinit_cuda": __version__, "torch": str(torch.__version__)} | backend_info()._asdict()
    for name, value in rows.items():
        text = ", ".join(value) if isinstance(value, tuple) else str(value)
        say(f"{name:<18}{text or '-'}")
    if probes:
        return _probe(source, how)
    if source is None:
        return 0
    if _is_blueprint(source):
        opened = how.open(source, UNWRITTEN)
        found, looked_at = (
            diagnose(opened.plan, opened.model, opened.recorded),
            f"{len(opened.plan.names())} tensors of its plan",
        )
    else:
        with progress("reading", None) as advance:
            found, looked_at = examine(source, progress=advance), "its values"
    if not found:
        say(f"\nNothing suspicious in {looked_at}.")
        return 0
    say(rendered(symptoms_table(found, f"\nSuspicious in {looked_at}; what is wrong for sure is red")))
    return int(any(symptom.is_error for symptom in found))


def _probe(source: str | None, how: How) -> int:
    """What the initial values do to signal and gradient, on inputs that are made up. 1 if the verdict is FAIL."""
    opened = how.open(source) if source is not None and _is_blueprint(source) else None
    if opened is None or opened.model is None or opened.recorded is None:
        what = "nothing" if source is None else f"a checkpoint or a plan ({source}), which has no code to run"
        raise ValueError(f"doctor --probe: a config.json or module:function is required, got {what}.")
    opened.recorded.materialize_(opened.model, "cpu", opened.dtype, opened.plan.seed)
    report = probe(opened.plan.apply_(opened.model))
    say(f"\n{visible(str(report))}")
    return int(report.verdict == "FAIL")


def _is_blueprint(source: str) -> bool:
    """Else it is a checkpoint: a folder with both is taken for that."""
    path = Path(source)
    if path.is_dir():
        return not any(path.glob("*.safetensors"))
    if NAMED_FUNCTION.fullmatch(source) and not path.exists():
        return True
    return path.suffix in (".json", ".py") and not path.name.endswith(".index.json")


# ---- demo, bench -----------------------------------------------------------------------------------------------------


@commands.command("demo", short_help="Initialise GPT-2 and Llama by their own code, ours against torch.nn.init.")
@click.option("--model", type=click.Choice(sorted(demo.MODELS)), help="One of them.")
def demo_command(model: str | None) -> int:
    """Initialise GPT-2 and Llama by their own code, ours against torch.nn.init."""
    return demo.main([model] if model else tuple(demo.MODELS))


@commands.command(
    "bench",
    short_help="The benchmarks, in a source tree.",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def bench_command(arguments: tuple[str, ...]) -> int:
    """The benchmarks, which come with the source tree; arguments are theirs.

    \b
    weightinit-cuda bench --suite all
    """
    return run_benchmarks(arguments)
