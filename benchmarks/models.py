"""Whole models: parameters that exist, filled in place (group "model"), and models built from nothing (group "construct").

In place, the table of ``shapes`` says what each parameter gets; the call is one for all, a loop of torch.nn.init, or plain
stores. Construction runs the library's own code: as it is, with ours under it, and without it.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import weightinit_cuda as wi
from weightinit_cuda import engine
from weightinit_cuda.distributions import Constant, Distribution, Normal, TruncNormal, Uniform
from weightinit_cuda.job import FillJob
from weightinit_cuda.streams import stream_of

from .case import Case
from .contestants import BASELINE, EAGER, ONE_TENSOR, OURS, OURS_DEFERRED, OURS_PATCHED, Call
from .correctness import WrongValuesError, reference_backend
from .shapes import PART, Parameter, Table, configs, load, part_of

__all__ = ["CONSTRUCT", "MODEL", "SHORT", "Model", "builder", "check_model", "check_moments", "jobs_of", "table_of"]

Model = Mapping[str, Tensor]
Build = Callable[[], nn.Module]
SEED = 0
MOMENTS = 1 << 20  # values that a standard deviation is taken of
COMPARED, CHECKED = 32, 256  # parameters, and values of each, that are compared with the reference
# For construction on a small machine: one layer's worth of time, all kinds of layers. Sizes of a layer stay as published.
SHORT: dict[str, dict[str, Any]] = {
    "ResNet-50": {},
    "ViT-L": {"num_hidden_layers": 4},
    "GPT-2 XL": {"n_layer": 2, "vocab_size": 8192},
    "Llama-3-8B": {"num_hidden_layers": 1, "vocab_size": 8192, "intermediate_size": 2048},
    "Mixtral-8x7B": {"num_hidden_layers": 1, "vocab_size": 8192, "intermediate_size": 512},
    "DeepSeek-V2-Lite": {"num_hidden_layers": 2, "vocab_size": 8192, "intermediate_size": 2048, "moe_intermediate_size": 128},
}


def table_of(case: Case) -> Table:
    """The parameters of a case of the group "model": the whole model if the case has as many values, else its part."""
    whole = load(case.label)
    return whole if whole.values == case.values else part_of(whole, PART)


# ---- in place -------------------------------------------------------------------------------------------------------


def jobs_of(table: Table, model: Model) -> list[FillJob]:
    """One fill a parameter, its stream named after it."""
    return [
        FillJob(model[parameter.name], _distribution(parameter), SEED, stream_of(parameter.name), name=parameter.name)
        for parameter in table.parameters
    ]


def _distribution(parameter: Parameter) -> Distribution:
    """What the parameter's function of torch.nn.init draws."""
    given = dict(parameter.arguments)
    match parameter.call:
        case "ones_" | "zeros_":
            return Constant(float(parameter.call == "ones_"))
        case "constant_":
            return Constant(given["val"])
        case "normal_":
            return Normal(given.get("mean", 0.0), given.get("std", 1.0))
        case "uniform_":
            return Uniform(given.get("a", 0.0), given.get("b", 1.0))
        case "trunc_normal_":
            return TruncNormal(given.get("mean", 0.0), given.get("std", 1.0), given.get("a", -2.0), given.get("b", 2.0))
    std = _kaiming_std(parameter.shape, **given)
    return Normal(0.0, std) if parameter.call == "kaiming_normal_" else Uniform(-(3**0.5) * std, 3**0.5 * std)


def _kaiming_std(shape: tuple[int, ...], a: float = 0.0, mode: str = "fan_in", nonlinearity: Any = "leaky_relu") -> float:
    fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(torch.empty(shape, device="meta"))
    return nn.init.calculate_gain(nonlinearity, a) / math.sqrt(fan_in if mode == "fan_in" else fan_out)


def _in_one_call(table: Table, model: Model) -> Call:
    """The jobs are made anew in each call: a user's call makes them, too."""
    return lambda: engine.fill(jobs_of(table, model))


def _loop(table: Table, model: Model) -> Call:
    steps = [
        partial(getattr(nn.init, parameter.call), model[parameter.name], **parameter.arguments)
        for parameter in table.parameters
    ]

    def call() -> None:
        for step in steps:
            step()

    return call


def _one_tensor(table: Table, model: Model) -> Call:
    """As many normal values in one tensor: what a model cannot be faster than, but for its constants."""
    whole = torch.zeros(table.values, dtype=getattr(torch, table.dtype))
    return partial(wi.init.normal_, whole, 0.0, 0.02)


def _foreach_zero(table: Table, model: Model) -> Call:
    return partial(torch._foreach_zero_, list(model.values()))


MODEL: Sequence[tuple[str, Callable[[Table, Model], Call]]] = (
    (OURS, _in_one_call),
    (BASELINE, _loop),
    (ONE_TENSOR, _one_tensor),
    ("foreach_zero_", _foreach_zero),
)


def check_model(case: Case, table: Table, model: Model) -> None:
    """The start of parameters all over the model, as the one call left them, against the reference backend.

    Raises:
        WrongValuesError: a bit differs.
    """
    jobs = jobs_of(table, model)
    for job in [*jobs[:: max(1, len(jobs) // COMPARED)], jobs[-1]]:
        start = job.tensor.view(-1)[:CHECKED]
        expected = torch.empty_like(start)
        with reference_backend():
            engine.fill([job._replace(tensor=expected)])
        if not torch.equal(start.view(torch.uint8), expected.view(torch.uint8)):
            raise WrongValuesError(f"{case.name}: ours differs from the reference backend in {job.name}.")


def check_moments(case: Case, table: Table, model: Model, contestant: str) -> None:
    """Standard deviation of the largest normal parameter, to 2 %: whoever is timed draws, and draws that parameter's values.

    Raises:
        WrongValuesError: it has another one.
    """
    normal = [parameter for parameter in table.parameters if parameter.call in ("normal_", "kaiming_normal_")]
    largest = max(normal, key=lambda parameter: parameter.values)
    law = _distribution(largest)
    wanted = law.std if isinstance(law, Normal) else 0.0
    found = float(model[largest.name].view(-1)[:MOMENTS].double().std())
    if abs(found - wanted) > 0.02 * wanted:
        raise WrongValuesError(f"{case.name}: {contestant} must fill {largest.name} with std {wanted:.4g}, got {found:.4g}.")


# ---- construction ---------------------------------------------------------------------------------------------------


def _eager(build: Build) -> Call | str:
    return build


def _patched(build: Build) -> Call | str:
    def call() -> object:
        with wi.patched():
            return build()

    return call


def _deferred(build: Build) -> Call | str:
    if not hasattr(wi, "deferred"):
        return f"weightinit_cuda {wi.__version__} has no deferred()"
    deferred: Any = vars(wi)["deferred"]

    def call() -> object:
        with deferred() as recorded:
            model = build()
        recorded.materialize_(model, device="cpu", seed=SEED)
        return model

    return call


def _on_meta(build: Build) -> Call | str:
    """No values: construction's own Python, and memory that is allocated but not touched."""

    def call() -> object:
        with torch.device("meta"):
            model = build()
        return model.to_empty(device="cpu")

    return call


CONSTRUCT: Sequence[tuple[str, Callable[[Build], Call | str]]] = (
    (OURS_DEFERRED, _deferred),
    (OURS_PATCHED, _patched),
    (EAGER, _eager),
    ("meta, to_empty", _on_meta),
)


def builder(case: Case) -> Build | str:
    """The library's constructor for a case of the group "construct", or why it cannot be called."""
    if case.label.startswith("timm "):
        if importlib.util.find_spec("timm") is None:
            return "timm is not installed (pip install timm)"
        try:
            timm: Any = importlib.import_module("timm")
        except Exception as error:  # its torchvision does not fit this torch, for example
            return f"timm does not load: {error}"
        return partial(timm.create_model, case.label.removeprefix("timm "))
    if importlib.util.find_spec("transformers") is None:
        return "transformers is not installed (pip install transformers)"

    def call() -> nn.Module:
        before = torch.get_default_dtype()
        torch.set_default_dtype(case.dtype)
        try:
            return configs.build(case.label, SHORT[case.label])
        finally:
            torch.set_default_dtype(before)

    return call
