"""``weightinit-cuda demo``: real architectures, initialised by their own code, through the drop-in and by torch.

GPT-2 and Llama-3.2-1B's shape are built from their configuration classes, offline. Each is constructed, and its own
``init_weights()`` run again on the parameters it has, under ``patched()`` and under ``torch.nn.init``; then its construction is
recorded by ``deferred()`` and materialised. Time is one half of the answer; the other is that every group of parameters has the
distribution that the configuration asks for.
"""

from __future__ import annotations

import hashlib
import importlib
import math
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from ..init.patching import patched
from ..numerics.distributions import Constant, Normal
from ..recording.deferred import deferred
from .ending import say
from .memory import available_bytes, peak_of
from .terminal import rendered

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["MODELS", "Check", "Model", "Result", "check", "compare", "distance", "intended", "main"]

SEED = 0
SAMPLE = 1 << 17  # values of a parameter that are looked at; a group pools its layers
# A true sample of n values misses these with p < 1e-6 each: mean and std by 5 standard errors, the distance by 2.7 / sqrt(n)
# (Kolmogorov), two samples' by 2.7 sqrt(1 / n + 1 / m).
STANDARD_ERRORS = 5.0
KOLMOGOROV = 2.7
RERUNS = 3  # of ours, the median counts; torch takes too long for more than one
STEPS = 8  # that compare announces


@dataclass(frozen=True)
class Model:
    """A model to build.

    Args:
        name: as the tables show it.
        config: makes the configuration, given the transformers package, which takes seconds to import.
        dtype: of the parameters.
        gib: memory that building it takes.
    """

    name: str
    config: Callable[[Any], Any]
    dtype: torch.dtype
    gib: float


MODELS = {
    "gpt2": Model("GPT-2 124M, float32", lambda transformers: transformers.GPT2Config(), torch.float32, 1.5),
    "llama": Model(
        "Llama-3.2-1B shape, bfloat16",
        lambda transformers: transformers.LlamaConfig(
            hidden_size=2048,
            num_hidden_layers=16,
            num_attention_heads=32,
            num_key_value_heads=8,
            intermediate_size=8192,
            vocab_size=128256,
            tie_word_embeddings=True,
        ),
        torch.bfloat16,
        4.0,
    ),
}


# ---- what the values should be --------------------------------------------------------------------------------------


def intended(name: str, config: Any) -> Normal | Constant:
    """What the configuration asks for in the parameter of that name, said without looking at the model's code.

    Source: Radford et al. (2019), "Language models are unsupervised multitask learners", 2.3, for GPT-2's residual layers.
    """
    if name.endswith("bias"):
        return Constant(0.0)
    if "norm" in name or ".ln_" in name:
        return Constant(1.0)
    std = config.initializer_range
    if config.model_type == "gpt2" and name.endswith("c_proj.weight"):
        std /= math.sqrt(2 * config.n_layer)
    return Normal(0.0, std)


def group_of(name: str) -> str:
    """The parameter's name without the number of its layer.

    >>> group_of("transformer.h.11.mlp.c_fc.weight")
    'transformer.h.*.mlp.c_fc.weight'
    """
    return re.sub(r"\.\d+\.", ".*.", name)


def sample_of(parameter: Tensor) -> Tensor:
    """Values spread over the whole parameter. The step is odd: each word of a Philox block gets its turn."""
    flat = parameter.detach().flatten()
    return flat[:: max(1, flat.numel() // SAMPLE) | 1].clone()


def samples_of(model: nn.Module) -> dict[str, Tensor]:
    """The pooled sample of every group of parameters."""
    parts: dict[str, list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        parts.setdefault(group_of(name), []).append(sample_of(parameter))
    return {group: torch.cat(tensors) for group, tensors in parts.items()}


def distance(sample: Tensor, normal: Normal) -> float:
    """Kolmogorov's distance between the sample and the normal, rounded to the sample's dtype.

    A value x of the dtype stands for everything that rounds to it, so the distribution function is taken half way to its
    neighbours: bfloat16's coarse steps are no distance.

    >>> distance(torch.tensor([0.0]), Normal(0.0, 1.0))
    0.5
    """
    values, counts = torch.unique(sample, return_counts=True)
    empirical = counts.double().cumsum(0) / sample.numel()

    def normal_below(neighbour: float) -> Tensor:
        other = torch.nextafter(values, torch.full_like(values, neighbour)).double()
        z = ((values.double() + other) / 2 - normal.mean) / normal.std
        return torch.erfc(z / -math.sqrt(2)) / 2

    before = torch.cat((empirical.new_zeros(1), empirical[:-1]))
    above, below = (empirical - normal_below(math.inf)).abs(), (before - normal_below(-math.inf)).abs()
    return float(torch.maximum(above, below).max())


def distance_between(one: Tensor, other: Tensor) -> float:
    """Kolmogorov's distance between two samples."""
    both = [sample.float().sort().values for sample in (one, other)]
    grid = torch.cat(both)
    steps = [torch.searchsorted(sample, grid, right=True).double() / sample.numel() for sample in both]
    return float((steps[0] - steps[1]).abs().max())


class Check(NamedTuple):
    """One group of parameters: what was asked for, what ours has, distances, and what is wrong, if anything."""

    group: str
    asked: Normal | Constant
    mean: float
    std: float
    ours: float  # distance of ours from what was asked for
    torchs: float  # distance of torch's
    between: float  # distance of ours from torch's
    faults: tuple[str, ...]


def check(group: str, asked: Normal | Constant, ours: Tensor, torchs: Tensor) -> Check:
    """Compares ours with what was asked for and with torch's. Tolerances: see the top of the file."""
    mean, std = float(ours.double().mean()), float(ours.double().std())
    if isinstance(asked, Constant):
        both = {"ours": ours, "torch's": torchs}
        faults = [f"{name}: not all {asked.value:g}" for name, sample in both.items() if bool((sample != asked.value).any())]
        return Check(group, asked, mean, std, 0.0, 0.0, 0.0, tuple(faults))
    if torch.equal(ours, torchs):
        return Check(group, asked, mean, std, 0.0, 0.0, 0.0, ("the values are torch's own: patched() had no effect",))
    n, m = ours.numel(), torchs.numel()
    found = Check(group, asked, mean, std, distance(ours, asked), distance(torchs, asked), distance_between(ours, torchs), ())
    tests = {
        "mean": (abs(mean - asked.mean), STANDARD_ERRORS * asked.std / math.sqrt(n)),
        "std": (abs(std - asked.std), STANDARD_ERRORS * asked.std / math.sqrt(2 * n)),
        "distance": (found.ours, KOLMOGOROV / math.sqrt(n)),
        "distance from torch's": (found.between, KOLMOGOROV * math.sqrt(1 / n + 1 / m)),
    }
    return found._replace(
        faults=tuple(f"{test}: {is_:.3g} > {may:.3g}" for test, (is_, may) in tests.items() if not is_ <= may)
    )


# ---- running --------------------------------------------------------------------------------------------------------


class Side(NamedTuple):
    """One of the ways: seconds of construction and of init_weights(), and what came out."""

    construction: float
    peak: int | None  # bytes that construction takes at most
    samples: dict[str, Tensor]
    init_weights: float = math.nan
    digests: dict[int, str] | None = None  # number of threads -> hash of all parameters


class Result(NamedTuple):
    """A model through both ways."""

    model: Model
    parameters: int
    ours: Side
    torchs: Side
    checks: list[Check]
    deferred: Side  # construction only, recorded and materialised
    deferred_checks: list[Check]

    @property
    def faults(self) -> list[str]:
        """Everything that is wrong; empty if nothing is."""
        faults = [f"{self.model.name}: {row.group}: {fault}" for row in self.checks for fault in row.faults]
        faults += [f"{self.model.name}, deferred: {row.group}: {fault}" for row in self.deferred_checks for fault in row.faults]
        if len(set((self.ours.digests or {}).values())) != 1:
            faults.append(f"{self.model.name}: other bits with another number of threads: {self.ours.digests}")
        return faults


def compare(model: Model, transformers: Any, announce: Callable[[str], None] = lambda step: None) -> Result:
    """Builds the model twice and checks what came out.

    Args:
        transformers: the package.
        announce: called with the name of each step.
    """
    config, build = model.config(transformers), transformers.AutoModelForCausalLM.from_config
    announce("architecture")
    with torch.device("meta"):  # without memory; imports the model's code before time counts
        shell = build(config, dtype=model.dtype)
    groups = {group_of(name): intended(name, config) for name, _ in shell.named_parameters()}
    sides = []
    for way, context, reruns in (("weightinit_cuda", patched, RERUNS), ("torch.nn.init", nullcontext, 1)):
        announce(f"{way}: construction")
        torch.manual_seed(SEED)
        with context():
            (net, construction), peak = peak_of(lambda: _timed(build, config, dtype=model.dtype))
        announce(f"{way}: init_weights()")
        seconds = [_initialise_again(net, context) for _ in range(reruns)]
        samples = samples_of(net)
        digests = {}
        if context is patched:
            announce(f"{way}: other numbers of threads")
            digests = _digests(net)
        sides.append(Side(construction, peak, samples, median(seconds), digests))
        del net
    announce("deferred: construction")
    (net, construction), peak = peak_of(lambda: _timed(_materialised, build, config, model.dtype))
    sides.append(Side(construction, peak, samples_of(net)))
    announce("checks")
    ours, torchs, recorded = sides
    checks, deferred_checks = (
        [check(group, asked, side.samples[group], torchs.samples[group]) for group, asked in groups.items()]
        for side in (ours, recorded)
    )
    parameters = sum(parameter.numel() for parameter in shell.parameters())
    return Result(model, parameters, ours, torchs, checks, recorded, deferred_checks)


def _timed(call: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[Any, float]:
    start = perf_counter()
    result = call(*args, **kwargs)
    return result, perf_counter() - start


def _materialised(build: Callable[..., Any], config: Any, dtype: torch.dtype) -> Any:
    """The model by its own code, recorded, and then made in one pass."""
    with deferred() as recorded:
        net = build(config, dtype=dtype)
    return recorded.materialize_(net, seed=SEED)


def _initialise_again(net: Any, context: Callable[[], AbstractContextManager[Any]]) -> float:
    """Runs the model's own init code on the parameters it has, from the same seed; the seconds it takes."""
    for marked in (*net.modules(), *net.parameters()):
        vars(marked).pop("_is_hf_initialized", None)  # transformers initialises nothing twice
    torch.manual_seed(SEED)
    with context():
        start = perf_counter()
        net.init_weights()
        return perf_counter() - start


def _digests(net: Any) -> dict[int, str]:
    """The hash of all parameters after init_weights() with one thread and with two."""
    usual, digests = torch.get_num_threads(), {}
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            _initialise_again(net, patched)
            digest = hashlib.blake2b(digest_size=8)
            for parameter in net.parameters():
                digest.update(parameter.detach().view(torch.uint8).numpy())
            digests[threads] = digest.hexdigest()
    finally:
        torch.set_num_threads(usual)
    return digests


def main(names: Sequence[str] = tuple(MODELS)) -> int:
    """Runs the demo on the named models and prints its tables; the exit status is 1 if a check fails, 2 if it cannot run."""
    missing = [name for name in ("rich", "transformers") if find_spec(name) is None]
    if missing:
        print(f"demo: {' and '.join(missing)} not installed. pip install 'weightinit_cuda[demo]'", file=sys.stderr)
        return 2
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is fetched: configurations only
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (SpinnerColumn(), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    results = []
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("importing transformers", total=STEPS * len(names))
        transformers = importlib.import_module("transformers")
        for model in (MODELS[name] for name in names):
            available = available_bytes()
            if available is not None and available < model.gib * 2**30:
                say(f"left out: {model.name} takes {model.gib:g} GiB, {available / 2**30:.1f} are available")
                continue

            def announce(step: str, name: str = model.name) -> None:
                progress.update(task, advance=1, description=f"{name}: {step}")

            results.append(compare(model, transformers, announce))
    for result in results:
        say(rendered(_check_table(result), markup=True))
    say(rendered(_time_table(results)))
    for result in results:
        digests = ", ".join(f"{digest} with threads={threads}" for threads, digest in (result.ours.digests or {}).items())
        say(f"{result.model.name}: hash of all parameters {digests}")
    faults = [fault for result in results for fault in result.faults]
    for fault in faults:
        say(fault)
    return 1 if faults else 0


# ---- tables ---------------------------------------------------------------------------------------------------------


def _time_table(results: Sequence[Result]) -> Table:
    from rich.table import Table

    title = (
        f"Seconds with {torch.get_num_threads()} threads, and 1e9 parameters a second (what a model writes twice counts once);"
        " peak: memory during construction by that of the parameters"
    )
    table = Table("model", "step", title=title, title_justify="left")
    for column in ("ours", "torch.nn.init", "ours, G/s", "torch, G/s", "times as fast", "peak, ours", "torch"):
        table.add_column(column, justify="right")
    for result in results:
        size = result.parameters * result.model.dtype.itemsize
        patches, torchs, deferreds, none = result.ours, result.torchs, result.deferred, (None, None)
        for step, ours, theirs, peaks in (
            ("construction, patched()", patches.construction, torchs.construction, (patches.peak, torchs.peak)),
            ("init_weights(), patched()", patches.init_weights, torchs.init_weights, none),
            (
                "construction, deferred()",
                deferreds.construction,
                torchs.construction,
                (deferreds.peak, torchs.peak),
            ),
        ):
            rates = [f"{result.parameters / seconds / 1e9:.3g}" for seconds in (ours, theirs)]
            shares = ["" if peak is None else f"{peak / size:.3f}" for peak in peaks]
            table.add_row(result.model.name, step, f"{ours:.3f}", f"{theirs:.3f}", *rates, f"{theirs / ours:.1f}", *shares)
    return table


def _check_table(result: Result) -> Table:
    from rich.table import Table

    title = f"{result.model.name}: Kolmogorov distances from what the configuration asks for, and between ours and torch's"
    table = Table("group of parameters", "asked for", title=title, title_justify="left")
    for column in ("mean", "std", "ours", "torch's", "between", ""):
        table.add_column(column, justify="right")
    for row in result.checks:
        asked = f"constant {row.asked.value:g}" if isinstance(row.asked, Constant) else f"normal, std {row.asked.std:.4g}"
        numbers = [f"{number:.2g}" for number in (row.mean, row.std, row.ours, row.torchs, row.between)]
        table.add_row(row.group, asked, *numbers, "[red]wrong[/]" if row.faults else "[green]right[/]")
    return table
