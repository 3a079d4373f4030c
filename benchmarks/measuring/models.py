"""Whole models: parameters that exist, filled in place (group "model", on a CPU or a GPU), and models built from nothing (group
"construct").

In place, the table of ``shapes`` says what each parameter gets; the call is one for all, a loop of torch.nn.init, or plain
stores. Construction runs the library's own code: as it is, with ours under it, and without it.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import weightinit_cuda as wi
from weightinit_cuda import engine
from weightinit_cuda.engine.backend import kernels
from weightinit_cuda.engine.native import native_job
from weightinit_cuda.numerics.distributions import Constant, Distribution, Normal, TruncNormal, Uniform
from weightinit_cuda.numerics.lowering import lower

from ..case import Case
from ..contestants import (
    BASELINE,
    EAGER,
    ONE_TENSOR,
    OURS,
    OURS_BOUND,
    OURS_DEFERRED,
    OURS_PATCHED,
    OURS_PLANNED,
    PREPARED,
    Call,
)
from ..shapes import PART, Table, configs, load, part_of
from .correctness import WrongValuesError

__all__ = [
    "CONSTRUCT",
    "MODEL",
    "OF_TORCH",
    "SAME_VALUES",
    "SHORT",
    "builder",
    "check_model",
    "check_moments",
    "module_of",
    "rules_of",
    "table_of",
    "tensors_of",
]

Build = Callable[[], nn.Module]
SEED = 0
MOMENTS = 1 << 20  # values that a standard deviation is taken of
COMPARED, CHECKED = 32, 256  # parameters, and values of each, that are compared with the reference
# For construction on a small machine: one layer's worth of time, all kinds of layers. Sizes of a layer stay as published.
SHORT: dict[str, dict[str, Any]] = {
    "ResNet-50": {},
    "ViT-L": {"num_hidden_layers": 4},
    "GPT-2 XL": {"n_layer": 2, "vocab_size": 8192, "bos_token_id": 0, "eos_token_id": 0},
    "Llama-3-8B": {"num_hidden_layers": 1, "vocab_size": 8192, "intermediate_size": 2048},
    "Mixtral-8x7B": {"num_hidden_layers": 1, "vocab_size": 8192, "intermediate_size": 512},
    "DeepSeek-V2-Lite": {"num_hidden_layers": 2, "vocab_size": 8192, "intermediate_size": 2048, "moe_intermediate_size": 128},
}


def table_of(case: Case) -> Table:
    """The parameters of a case of the group "model": the whole model if the case has as many values, else its part."""
    whole = load(case.label)
    return whole if whole.values == case.values else part_of(whole, PART)


# ---- in place -------------------------------------------------------------------------------------------------------


def module_of(table: Table, device: str = "cpu") -> nn.Module:
    """A module whose parameters have the table's names and shapes; it computes nothing."""
    root, dtype = nn.Module(), getattr(torch, table.dtype)
    for parameter in table.parameters:
        *path, leaf = parameter.name.split(".")
        holder = root
        for part in path:
            if not hasattr(holder, part):
                holder.add_module(part, nn.Module())
            holder = getattr(holder, part)
        holder.register_parameter(leaf, nn.Parameter(torch.zeros(parameter.shape, dtype=dtype, device=device)))
    return root


def rules_of(table: Table) -> list[wi.Rule]:
    """The table as rules: one for each way in which it initialises parameters."""
    names: dict[tuple[str, str], set[str]] = {}
    for parameter in table.parameters:
        names.setdefault((parameter.call, json.dumps(parameter.arguments)), set()).add(parameter.name)
    return [wi.Rule(partial(_is_one_of, of), call, **json.loads(given)) for (call, given), of in names.items()]


def _is_one_of(names: set[str], named: Any) -> bool:
    return named.name in names


def _in_one_call(table: Table, model: nn.Module) -> Call:
    return partial(wi.initialize_, model, rules_of(table), SEED)


def _planned(table: Table, model: nn.Module) -> Call:
    """The plan made beforehand, as a program does that loads it, or compares it with another."""
    return partial(wi.plan(model, rules_of(table), SEED).apply_, model)


def _bound(table: Table, model: nn.Module) -> Call:
    """The plan bound to the model's memory, as a program does that fills it under one seed after another."""
    return partial(wi.plan(model, rules_of(table), SEED).bind(model), SEED)


def _prepared(table: Table, model: nn.Module) -> Call | str:
    """The launch alone, its table made beforehand: the kernel on a whole model."""
    if next(model.parameters()).is_cpu:
        return "launches are a GPU's"
    if (cuda := engine.backend_info().cuda) != "native":
        return f"no CUDA kernels: {cuda}"
    jobs = wi.plan(model, rules_of(table), SEED).jobs(dict(model.named_parameters()))
    native = [native_job(job, lower(job.distribution, job.tensor.dtype)) for job in jobs]
    launch: Any = kernels.CudaLaunch(native)
    far = torch.frombuffer(bytearray(launch.bytes()), dtype=torch.uint8).cuda()

    def call(keep: Tensor = far) -> None:
        launch.run(keep.data_ptr(), torch.cuda.current_stream().cuda_stream)

    return call


def _loop(table: Table, model: nn.Module) -> Call:
    by_name = dict(model.named_parameters())
    steps = [partial(getattr(nn.init, of.call), by_name[of.name], **of.arguments) for of in table.parameters]

    def call() -> None:
        for step in steps:
            step()

    return call


def _one_tensor(table: Table, model: nn.Module) -> Call | str:
    """As many normal values in one tensor: what a model cannot be faster than, but for its constants and uniform ones."""
    dtype, device = getattr(torch, table.dtype), next(model.parameters()).device
    if device.type == "cuda" and (needed := table.values * dtype.itemsize) > 0.9 * torch.cuda.mem_get_info()[0]:
        return f"needs {needed >> 20} MiB more"
    whole = torch.zeros(table.values, dtype=dtype, device=device)
    return partial(wi.init.normal_, whole, 0.0, 0.02)


def _foreach_zero(table: Table, model: nn.Module) -> Call:
    return partial(torch._foreach_zero_, tensors_of(model))


def tensors_of(model: nn.Module) -> list[Tensor]:
    """The parameters' memory, outside autograd."""
    return [parameter.detach() for parameter in model.parameters()]


MODEL: Sequence[tuple[str, Callable[[Table, nn.Module], Call | str]]] = (
    (OURS, _in_one_call),
    (OURS_PLANNED, _planned),
    (OURS_BOUND, _bound),
    (PREPARED, _prepared),
    (BASELINE, _loop),
    (ONE_TENSOR, _one_tensor),
    ("foreach_zero_", _foreach_zero),
)


SAME_VALUES = (OURS, OURS_PLANNED, OURS_BOUND, PREPARED)


def check_model(case: Case, table: Table, model: nn.Module, contestant: str = OURS) -> None:
    """The start of parameters all over the model, as one of ours left them, against the reference backend.

    Raises:
        WrongValuesError: a bit differs.
    """
    plan, by_name = wi.plan(model, rules_of(table), SEED), dict(model.named_parameters())
    for entry in [*list(plan)[:: max(1, len(plan) // COMPARED)], list(plan)[-1]]:
        start = by_name[entry.name].detach().view(-1)[:CHECKED].cpu()
        expected = torch.empty_like(start)
        with engine.reference_only():
            engine.fill([wi.FillJob(expected, distribution_of(entry), SEED, entry.stream)])
        if not torch.equal(start.view(torch.uint8), expected.view(torch.uint8)):
            raise WrongValuesError(f"{case.name}: {contestant} differs from the reference backend in {entry.name}.")


def distribution_of(entry: wi.Entry) -> Distribution:
    """What a line of a plan draws; lines of these tables are fills, all of them."""
    assert isinstance(entry.distribution, Constant | Uniform | Normal | TruncNormal)
    return entry.distribution


def check_moments(case: Case, table: Table, model: nn.Module, contestant: str) -> None:
    """Standard deviation of the largest parameter, to 2 % and four standard errors: whoever is timed draws that one's values.

    Raises:
        WrongValuesError: it has another one.
    """
    drawn = [entry for entry in wi.plan(model, rules_of(table), SEED) if entry.distribution.standard_deviation()]
    largest = max(drawn, key=lambda entry: entry.numel)
    wanted = largest.distribution.standard_deviation() or 0.0
    values = model.get_parameter(largest.name).detach().view(-1)[:MOMENTS].double()
    found = float(values.std())
    if abs(found - wanted) > (0.02 + 4 / math.sqrt(2 * values.numel())) * wanted:
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
    def call() -> object:
        with wi.deferred() as recorded:
            model = build()
        return recorded.materialize_(model, device="cpu", seed=SEED)

    return call


def _on_meta(build: Build) -> Call | str:
    """No values: construction's own Python, and memory that is allocated but not touched."""

    def call() -> object:
        with torch.device("meta"):
            model = build()
        return model.to_empty(device="cpu")

    return call


def _only_recorded(build: Build) -> Call | str:
    """A model to be sharded, or one whose plan is wanted: no values yet."""

    def call() -> object:
        with wi.deferred():
            return build()

    return call


def _only_meta(build: Build) -> Call | str:
    """What recording costs is to be compared with."""

    def call() -> object:
        with torch.device("meta"):
            return build()

    return call


CONSTRUCT: Sequence[tuple[str, Callable[[Build], Call | str]]] = (
    (OURS_DEFERRED, _deferred),
    (OURS_PATCHED, _patched),
    (EAGER, _eager),
    ("meta, to_empty", _on_meta),
    ("ours, recorded only", _only_recorded),
    ("meta only", _only_meta),
)


def _linears() -> nn.Module:
    return nn.Sequential(*[nn.Linear(64, 64) for _ in range(250)])


def _separable_convolutions() -> nn.Module:
    """As in MobileNet: small tensors of many shapes, buffers."""

    def block(channels: int) -> list[nn.Module]:
        depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        return [depthwise, nn.BatchNorm2d(channels), nn.ReLU(), pointwise, nn.BatchNorm2d(channels), nn.ReLU()]

    return nn.Sequential(*[layer for i in range(40) for layer in block(32 + 8 * (i // 10))])


# Models of torch alone, where Python is most of the time.
OF_TORCH: dict[str, Build] = {"250 Linear(64, 64)": _linears, "40 separable convolutions": _separable_convolutions}


def builder(case: Case) -> Build | str:
    """The library's constructor for a case of the group "construct", or why it cannot be called."""
    if case.label in OF_TORCH:
        return OF_TORCH[case.label]
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
