"""Hostile plans: how they are made of sound ones, and what must be true of each. Shared by the test and by ``tests/fuzz``.

A plan is a file that people exchange. So any bytes are either refused by ``Plan.from_json``, in one sentence, or are a plan
that can be written again, shown, applied and verified, with equal bits from kernels and reference.
"""

from __future__ import annotations

import copy
import json
import math
from contextlib import nullcontext
from typing import Any

import torch
from bitwise import same_bits

import weightinit_cuda as wi
from weightinit_cuda import engine
from weightinit_cuda.numerics.distributions import (
    Computed,
    Constant,
    Normal,
    OneHot,
    Orthogonal,
    SparseNormal,
    TruncNormal,
    Uniform,
)
from weightinit_cuda.numerics.rounding import REAL_DTYPE
from weightinit_cuda.tensors.boxes import Box

MOST = 1 << 14  # elements of a plan that is applied, too
PLAIN = {*REAL_DTYPE, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.bool}

# Every kind, boxes over each other, ties, buffers, integers, complex numbers, a scalar and an empty tensor.
SOUND = wi.Plan(
    (
        wi.Entry("0.weight", (4, 6), torch.float32, Normal(0.0, 0.02), 1, "torch: Linear", None, ("tied.weight",)),
        wi.Entry("0.weight", (4, 6), torch.float32, Constant(0.0), 1, "padding", Box((1, 0), (1, 6)), ("tied.weight",)),
        wi.Entry("0.bias", (6,), torch.bfloat16, Uniform(-0.5, 0.5), 2, "torch: Linear"),
        wi.Entry("cut", (3, 5), torch.float16, TruncNormal(0.0, 1.0, -2.0, float("inf")), 3, "cut"),
        wi.Entry("eye", (3, 4), torch.float32, OneHot(1.0, 4, 3, 3, 0, 1), 4, "eye"),
        wi.Entry("sparse", (6, 3), torch.float64, SparseNormal(6, 2, 0.01), 5, "sparse"),
        wi.Entry("q", (4, 3), torch.float32, Orthogonal(1.5), 6, "orthogonal"),
        wi.Entry("z", (2, 2), torch.complex64, Constant(1 + 2j), 7, "complex"),
        wi.Entry("steps", (), torch.int64, Constant(3), 8, "counter", None, (), True),
        wi.Entry("mask", (2, 0), torch.uint8, Constant(1), 9, "mask", None, (), True),
        wi.Entry("angles", (5,), torch.float32, Computed("arange, pow"), 10, "model.py:3", None, (), True),
    ),
    seed=7,
)

INTEGERS = (-1, 0, 1, 2, 3, 4, 6, 7, 255, 256, 300, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**62, 2**63 - 1, 2**63, 2**64, 10**400)
FLOATS = (0.0, -0.0, 0.5, 1.5, -1.0, 1e-320, 1e39, 1e308, -1e308, float("inf"), float("nan"))
TEXTS = ("inf", "-inf", "nan", "1j", "nan+infj", "x", "", "0x1", "-0x1", "\ud800", "a" * 300, "0.weight", "q", "\x1b[2J")
DTYPES = ("float32", "float64", "float16", "bfloat16", "float8_e4m3fn", "complex64", "complex128", "int8", "uint8", "bool")
NO_DTYPES = ("quint8", "bits8", "float8_e8m0fnu", "strided", "nn")
KINDS = ("normal", "uniform", "constant", "one_hot", "sparse_normal", "orthogonal", "computed")
OTHERS = (None, True, False, [], {}, [1], [4, 6], [0, 0], [2**40, 2**40], [1] * 70, {"offset": [0, 0], "shape": [1, 1]})
VALUES: list[Any] = [*INTEGERS, *FLOATS, *TEXTS, *DTYPES, *NO_DTYPES, *KINDS, *OTHERS]


def places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The ways to everything in a structure of JSON, by keys and numbers."""
    inside = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [path, *(one for key, value in inside for one in places(value, (*path, key)))]


def changed(data: Any, path: tuple[Any, ...], action: str, value: Any) -> Any:
    """The structure with one place replaced, deleted, or put in twice."""
    if not path:
        return value if action == "replace" else data
    data = copy.copy(data)
    key, *rest = path
    if rest:
        data[key] = changed(data[key], tuple(rest), action, value)
    elif action == "replace":
        data[key] = value
    elif action == "delete":
        del data[key]
    elif isinstance(data, list):
        data.insert(key, data[key])
    else:
        data[f"{key}_"] = data[key]
    return data


def outcome(text: str | bytes) -> str:
    """``refused``, in one sentence; ``applied``; or ``large``: shown and written again, but not applied here."""
    plan = read(text)
    if plan is None:
        return "refused"
    again = wi.Plan.from_json(plan.to_json().encode())
    assert again.to_json() == plan.to_json()
    assert str(plan)
    if sum(math.prod(entry.shape) for entry in plan) > MOST or any(entry.dtype not in PLAIN for entry in plan):
        return "large"
    made, expected = _filled(plan, native=True), _filled(plan, native=False)
    for name, tensor in made.items():
        if not any(entry.distribution.linear_algebra for entry in plan[name]):
            assert same_bits(tensor, expected[name]), name
    assert {finding.status for finding in wi.verify(plan, made).findings} <= {"equal", "unchecked"}
    return "applied"


def read(text: str | bytes) -> wi.Plan | None:
    try:
        return wi.Plan.from_json(text)
    except ValueError as error:
        said = str(error)
    assert said.startswith("Plan.load: a plan of this library is required, got "), said
    assert len(said) < 2000, said
    return None


def _filled(plan: wi.Plan, native: bool) -> dict[str, torch.Tensor]:
    tensors = {name: torch.zeros(plan[name][0].shape, dtype=plan[name][0].dtype) for name in plan.names()}
    with nullcontext() if native else engine.reference_only():
        return plan.apply_(tensors)


def as_json(plan: wi.Plan) -> Any:
    return json.loads(plan.to_json())
