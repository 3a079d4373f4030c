"""Bad and odd arguments, one row a case: ours does what the installed torch does, or the row says why not.

Three tables. ``AS_TORCH``: both are called with the same arguments, and exception type, message, warnings and the kind of the
result must be equal. ``DIFFERENT``: the deliberate differences, each with its reason; the test also asserts that torch still
differs. ``OURS``: arguments that torch has not. After every error tensor bytes and generator states are unchanged.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

import weightinit_cuda as wi

INF, NAN = math.inf, math.nan
HUGE = 10**400  # an int that no float holds


def inference_tensor() -> Tensor:
    with torch.inference_mode():
        return torch.zeros(3, 3)


def freed() -> Tensor:
    tensor = torch.zeros(3, 3)
    tensor.untyped_storage().resize_(0)
    return tensor


def dtyped(dtype: torch.dtype, *shape: int) -> Callable[[], Tensor]:
    return lambda: torch.zeros(shape or (3, 4), dtype=dtype)


def shaped(*shape: int) -> Callable[[], Tensor]:
    return lambda: torch.zeros(shape)


TENSORS: dict[str, Callable[[], Any]] = {
    "f32": shaped(3, 4),
    "0-dim": shaped(),
    "1-dim": shaped(4),
    "3-dim": shaped(4, 2, 3),
    "4-dim": shaped(4, 2, 3, 3),
    "6-dim": shaped(2, 2, 1, 1, 1, 1),
    "empty": shaped(0),
    "(0, 3)": shaped(0, 3),
    "(0, 0)": shaped(0, 0),
    "(3, 2, 0)": shaped(3, 2, 0),
    "f16": dtyped(torch.float16),
    "bf16": dtyped(torch.bfloat16),
    "f64": dtyped(torch.float64),
    "e4m3": dtyped(torch.float8_e4m3fn),
    "e5m2": dtyped(torch.float8_e5m2),
    "e4m3fnuz": dtyped(torch.float8_e4m3fnuz),
    "c64": dtyped(torch.complex64),
    "c128": dtyped(torch.complex128),
    "i32": dtyped(torch.int32),
    "i32 3-dim": dtyped(torch.int32, 4, 2, 3),
    "empty i32": dtyped(torch.int32, 0),
    "u8": dtyped(torch.uint8),
    "bool": dtyped(torch.bool),
    "meta": lambda: torch.zeros(3, 4, device="meta"),
    "coo": lambda: torch.eye(3).to_sparse(),
    "csr": lambda: torch.eye(3).to_sparse_csr(),
    "mkldnn": lambda: torch.zeros(3, 3).to_mkldnn(),
    "quint8": lambda: torch.quantize_per_tensor(torch.zeros(3, 3), 0.1, 0, torch.quint8),
    "nested": lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
    "conj": lambda: torch.zeros(3, 4, dtype=torch.complex64).conj(),
    "neg": lambda: torch.zeros(3, 4, dtype=torch.complex64).conj().imag,
    "expanded": lambda: torch.zeros(3, 1).expand(3, 4),
    "expanded 3-dim": lambda: torch.zeros(3, 2, 1).expand(3, 2, 3),
    "transposed": lambda: torch.zeros(4, 3).T,
    "unaligned": lambda: torch.zeros(13)[1:].view(3, 4),
    "inference": inference_tensor,
    "freed": freed,
    "parameter": lambda: torch.nn.Parameter(torch.zeros(3, 4)),
    "non-leaf": lambda: torch.zeros(3, 4, requires_grad=True) * 2,
    "uninitialized": lambda: torch.nn.UninitializedParameter(),
    "list": lambda: [1.0],
    "None": lambda: None,
    "numpy": lambda: np.zeros((3, 4), np.float32),
}


class Row(NamedTuple):
    function: str
    tensor: str = "f32"
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}  # noqa: RUF012

    def __str__(self) -> str:
        parts = [repr(arg)[:40] for arg in self.args] + [f"{k}={v!r:.40}" for k, v in self.kwargs.items()]
        text = f"{self.function}({', '.join([self.tensor, *parts])})"
        return re.sub(r" at 0x[0-9a-f]+", "", text)  # the same in every process


def row(function: str, tensor: str = "f32", *args: Any, **kwargs: Any) -> Row:
    return Row(function, tensor, args, kwargs)


ODD_NUMBERS = ("x", None, 1j, True, torch.tensor(0.5), torch.tensor([0.5]), torch.tensor([0.5, 0.6]), np.float32(0.5), HUGE)
RANDOM = ("uniform_", "normal_", "trunc_normal_", "xavier_uniform_", "xavier_normal_", "kaiming_uniform_", "kaiming_normal_")
MATRIX = (*RANDOM, "orthogonal_", "sparse_", "eye_")
NEEDED: dict[str, tuple[Any, ...]] = {"sparse_": (0.5,), "constant_": (0.5,), "sparse": (0.5,), "constant": (0.5,)}

AS_TORCH: list[Row] = [
    # bounds of uniform_
    row("uniform_", "f32", 1, 0),
    row("uniform_", "c64", 1, 0),
    row("uniform_", "f32", 0.5, 0.5),
    row("uniform_", "bf16", 0.1, 0.1),
    row("uniform_", "f32", -3e38, 3e38),
    row("uniform_", "bf16", -3e38, 3e38),
    row("uniform_", "f16", -6e4, 6e4),
    row("uniform_", "f16", -7e4, 0),
    row("uniform_", "f16", 0, 7e4),
    row("uniform_", "f64", -1e308, 1e308),
    row("uniform_", "f64", -1e300, 1e300),
    *(row("uniform_", "f32", *bounds) for bad in (NAN, INF, -INF, 1e39) for bounds in ((bad, 1), (0, bad), (bad, bad))),
    *(row("uniform_", "f32", *bounds) for odd in ODD_NUMBERS for bounds in ((odd, 1), (-1, odd))),
    # normal_
    *(row("normal_", tensor, 0, std) for tensor in ("f32", "c64", "0-dim") for std in (-1, -1e-300, NAN)),
    row("normal_", "f32", 3, 0),
    row("normal_", "bf16", 0.1, 0),
    row("normal_", "f32", 0, INF),
    row("normal_", "f16", 0, 1e30),
    *(row("normal_", "f32", mean) for mean in (NAN, INF, -INF, 1e39)),
    *(row("normal_", "f32", *args) for odd in ODD_NUMBERS for args in ((odd, 1), (0, odd))),
    # trunc_normal_
    row("trunc_normal_", "f32", 0, 1, 2, 1),
    row("trunc_normal_", "f32", 0, 1, 1, 1),
    row("trunc_normal_", "f32", 0, 1, NAN, 1),
    row("trunc_normal_", "f32", 0, 1, 0, NAN),
    row("trunc_normal_", "f32", 0, 1, -INF, INF),
    row("trunc_normal_", "f32", 0, 1, -1e39, 1e39),
    *(row("trunc_normal_", "f32", *args) for odd in ODD_NUMBERS for args in ((odd, 1), (0, odd))),
    *(
        row("trunc_normal_", "f32", 0, 1, *args)
        for odd in ("x", None, 1j, True, np.float32(0.5))
        for args in ((odd,), (-1, odd))
    ),
    # dtypes, layouts, kinds of tensors
    *(row(f, t, *NEEDED.get(f, ())) for f in MATRIX for t in ("i32", "bool", "meta", "parameter", "non-leaf", "transposed")),
    *(row(f, t, *NEEDED.get(f, ())) for f in MATRIX for t in ("unaligned", "inference", "f64", "(0, 3)")),
    *(row(f, "expanded", *NEEDED.get(f, ())) for f in MATRIX if f != "eye_"),
    *(row(f, t) for f in ("uniform_", "normal_") for t in ("conj", "neg", "c64", "c128", "e4m3fnuz", "u8", "0-dim", "empty")),
    row("trunc_normal_", "0-dim"),
    row("trunc_normal_", "empty"),
    row("normal_", "csr"),
    row("normal_", "nested"),
    row("xavier_normal_", "csr"),
    row("constant_", "i32", 0.5),
    row("constant_", "i32", 1e39),
    row("constant_", "f16", 1e39),
    row("constant_", "f32", "x"),
    row("constant_", "f32", 1j),
    row("constant_", "f32", torch.tensor(0.5)),
    row("constant_", "f32", torch.tensor(0.5, requires_grad=True)),
    row("constant_", "e4m3", 0.5),
    *(
        row(f, t)
        for f in ("ones_", "zeros_")
        for t in ("i32", "bool", "e4m3", "c64", "meta", "inference", "expanded", "quint8")
    ),
    *(row(f, "uninitialized", *NEEDED.get(f, ())) for f in ("uniform_", "normal_", "kaiming_uniform_", "constant_")),
    *(
        row(f, "quint8")
        for f in ("uniform_", "normal_", "xavier_uniform_", "xavier_normal_", "kaiming_uniform_", "kaiming_normal_")
    ),
    # generators
    *(row(f, "f32", *NEEDED.get(f, ()), generator=g) for f in MATRIX[:-1] for g in (1, "x", torch.Generator)),
    *(row(f, "f32", *NEEDED.get(f, ()), generator=torch.Generator()) for f in MATRIX[:-1]),
    # fans and gains
    *(row(f, t) for f in RANDOM[3:] for t in ("0-dim", "1-dim")),
    *(row(f, "empty") for f in RANDOM[3:]),
    *(row(f, "f32", g) for f in ("xavier_uniform_", "xavier_normal_") for g in (NAN, INF, -1, 0, "x", None, torch.tensor(2.0))),
    *(row(f, "f32", a) for f in ("kaiming_uniform_", "kaiming_normal_") for a in (NAN, INF, "x", True, None)),
    *(row(f, "f32", mode=m) for f in ("kaiming_uniform_", "kaiming_normal_") for m in ("FAN_IN", "fan_avg", "", None, 3)),
    *(row(f, "f32", nonlinearity=n) for f in ("kaiming_uniform_", "kaiming_normal_") for n in ("elu", "", None, 3)),
    row("kaiming_uniform_", "empty", mode="nonsense"),
    # shapes
    row("eye_", "nested"),
    *(row("orthogonal_", t) for t in ("0-dim", "1-dim", "3-dim", "(0, 3)", "(0, 0)", "empty")),
    *(row("eye_", t) for t in ("0-dim", "1-dim", "3-dim", "(0, 3)", "(0, 0)", "c64", "e4m3", "bf16", "u8")),
    *(row("sparse_", t, 0.5) for t in ("0-dim", "1-dim", "3-dim", "(0, 3)", "(0, 0)", "bf16")),
    *(row("dirac_", t) for t in ("0-dim", "1-dim", "f32", "3-dim", "4-dim", "6-dim", "i32 3-dim")),
    *(row("dirac_", "3-dim", groups) for groups in (2, 3, 0, "x", 2.0, 1.5, True, 4)),
    *(row("sparse_", "f32", s) for s in (0, 1, 0.0, 1.0, "x", None, NAN)),
    *(row("sparse_", "f32", 0.5, std) for std in (-1, NAN, 0, "x")),
    *(row("orthogonal_", "f32", gain) for gain in (NAN, 0, -1, "x", None, 1j, torch.tensor(2.0))),
]


class Difference(NamedTuple):
    row: Row
    ours: type[BaseException] | None  # None: ours works
    match: str
    reason: str


def works(reason: str, *rows: Row) -> list[Difference]:
    return [Difference(r, None, "", reason) for r in rows]


def raises(exception: type[BaseException], match: str, reason: str, *rows: Row) -> list[Difference]:
    return [Difference(r, exception, match, reason) for r in rows]


DIFFERENT: list[Difference] = [
    *works(
        "float8 is filled",
        *(row(f, t, *NEEDED.get(f, ())) for f in MATRIX[:-1] for t in ("e4m3", "e5m2")),
    ),
    *works("orthogonal_ computes in float32 and rounds", row("orthogonal_", "f16"), row("orthogonal_", "bf16")),
    *works("orthogonal_ takes the phase of the diagonal", row("orthogonal_", "c64"), row("orthogonal_", "c128")),
    *works("std=0 is the limit: the mean", row("trunc_normal_", "f32", 0.5, 0), row("trunc_normal_", "empty", 0, 0)),
    *works("right for any bounds, so there is nothing to warn of", row("trunc_normal_", "f32", 0, 1, 8, 9)),
    *works("right for any bounds, so there is nothing to warn of", row("trunc_normal_", "f32", 10, 1, -INF, 2)),
    *works("a view is filled like any other", row("trunc_normal_", "neg")),
    *works("nested and compressed tensors: the stored values", row("uniform_", "nested"), row("uniform_", "csr")),
    *works(
        "no element, nothing to do",
        row("xavier_uniform_", "(0, 0)"),
        row("xavier_normal_", "(0, 0)"),
        row("dirac_", "(3, 2, 0)"),
    ),
    *works(
        "a 0-dim tensor is a number, as elsewhere",
        *(row(f, "f32", torch.tensor(0.5)) for f in ("kaiming_uniform_", "kaiming_normal_")),
        *(row("trunc_normal_", "f32", 0, 1, *args) for args in ((torch.tensor([0.5]),), (-1, torch.tensor(0.5)))),
    ),
    *works("gelu is known", row("kaiming_uniform_", nonlinearity="gelu"), row("kaiming_normal_", nonlinearity="silu")),
    *raises(
        RuntimeError,
        r"normal expects std >= 0\.0, but found std (-1|nan)",
        "a negative std has no meaning; torch returns some numbers",
        *(row("trunc_normal_", "f32", 0, std) for std in (-1, NAN)),
    ),
    *raises(
        ValueError,
        "trunc_normal_: mean and std must be finite",
        "no such distribution; torch returns some numbers",
        *(row("trunc_normal_", "f32", *args) for args in ((NAN,), (INF,), (0, INF), (1e39,), (0, 1e39))),
    ),
    *raises(
        ValueError,
        r"with std=0 the mean must lie in \[a, b\]",
        "torch: ZeroDivisionError",
        row("trunc_normal_", "f32", 5, 0),
    ),
    *raises(
        ValueError,
        "must hold a value of torch.bfloat16",
        "torch rounds out of the bounds",
        row("trunc_normal_", "bf16", 0, 1, 0.1001, 0.1002),
    ),
    *raises(
        NotImplementedError,
        "trunc_normal_: the tensor must be real, got torch.complex",
        "torch names an internal comparison",
        *(row("trunc_normal_", t) for t in ("c64", "conj")),
    ),
    *raises(
        NotImplementedError,
        r"must be strided, got layout torch\.",
        "torch lists its dispatch keys",
        *(row(f, t, *NEEDED.get(f, ())) for f in MATRIX for t in ("coo", "mkldnn") if (f, t) != ("eye_", "mkldnn")),
        *(row(f, "csr", *NEEDED.get(f, ())) for f in ("eye_", "sparse_", "orthogonal_")),
    ),
    *raises(
        NotImplementedError,
        "Could not run 'aten::normal_' with arguments from the 'QuantizedCPU' backend",
        "torch: the bounds cannot be stored",
        row("trunc_normal_", "quint8"),
    ),
    *raises(
        AttributeError,
        "object has no attribute",
        "another attribute is looked up first",
        *(row(f, "list", *NEEDED.get(f, ())) for f in ("ones_", "zeros_", "constant_", "xavier_uniform_")),
        *(row(f, t, *NEEDED.get(f, ())) for f in ("uniform_", "normal_", "trunc_normal_") for t in ("list", "None", "numpy")),
    ),
    *raises(
        NotImplementedError,
        "normal_kernel_cpu. not implemented for 'Int'",
        "arguments are checked where there is nothing to fill, too",
        row("normal_", "empty i32"),
    ),
    *raises(
        NotImplementedError,
        "normal_kernel_cpu. not implemented for 'Byte'",
        "torch: the bounds do not fit",
        row("trunc_normal_", "u8"),
    ),
    *raises(
        RuntimeError,
        "uniform_ expects to return a",
        "arguments are checked where there is nothing to fill, too",
        row("uniform_", "meta", 1, 0),
    ),
    *raises(
        RuntimeError,
        "more than one element of the written-to tensor",
        "torch writes overlapping elements: not an identity",
        row("eye_", "expanded"),
        row("dirac_", "expanded 3-dim"),
    ),
    *raises(ValueError, "groups must be positive", "torch: all zeros", row("dirac_", "3-dim", -1)),
    *raises(
        ValueError,
        r"sparsity must be in \[0, 1\]",
        "torch: no zeros, or all",
        row("sparse_", "f32", 1.5),
        row("sparse_", "f32", -1),
    ),
    *raises(
        ValueError,
        "Attempted to use an uninitialized parameter",
        "all functions name themselves; in torch most name an internal method",
        *(
            row(f, "uninitialized", *NEEDED.get(f, ()))
            for f in (*MATRIX, "dirac_", "ones_", "zeros_")
            if f not in ("uniform_", "normal_", "kaiming_uniform_")
        ),
    ),
]

S = {"seed": 0}
OURS: list[tuple[Row, type[BaseException], str]] = [
    *((row(f, "f32", *NEEDED.get(f, ()), seed=True), TypeError, "seed must be an integer, got True") for f in MATRIX[:-1]),
    (row("normal_", seed=1.0), TypeError, r"normal_: seed must be an integer, got 1.0 \(float\)"),
    (row("normal_", seed="1"), TypeError, "seed must be an integer, got '1'"),
    (row("normal_", seed=2**64), ValueError, r"normal_: seed must be in \[-2\*\*63, 2\*\*64\), got 18446744073709551616"),
    (row("normal_", seed=-(2**63) - 1), ValueError, "got -9223372036854775809"),
    (row("normal_", seed=0, generator=torch.Generator()), ValueError, "give seed or generator, not both"),
    (row("normal_", stream=True), TypeError, "stream must be an integer, got True"),
    (row("normal_", stream=1.5), TypeError, "stream must be an integer"),
    (row("normal_", stream=None), TypeError, "stream must be an integer"),
    (row("normal_", stream=2**64), ValueError, "stream must be in"),
    (row("normal_", global_shape=(3, 4)), ValueError, "global_shape and offset must be given together"),
    (row("normal_", offset=(0, 0)), ValueError, "global_shape and offset must be given together"),
    (row("normal_", global_shape=(3, 4), offset=(1, 0)), ValueError, "must lie inside global_shape"),
    (row("normal_", global_shape=(9, 9), offset=(-1, 0)), ValueError, "must lie inside global_shape"),
    (row("normal_", global_shape=(12,), offset=(0,)), ValueError, "must lie inside global_shape"),
    (row("normal_", global_shape=(9, 9), offset=(0,)), ValueError, "must lie inside global_shape"),
    (row("normal_", "csr", global_shape=(9, 9), offset=(0, 0)), ValueError, "a part of a global tensor must be strided"),
    (row("normal_", global_shape=(9.0, 9), offset=(0, 0)), TypeError, "integer"),
    (row("normal_", flat_range=(0, 12)), ValueError, "global_shape and flat_range"),
    (row("normal_", global_shape=(9, 9), offset=(0, 0), flat_range=(0, 12)), ValueError, "global_shape and flat_range"),
    (row("normal_", global_shape=(9, 9), flat_range=(0, 12)), ValueError, "must be 1-D with 12 elements"),
    (row("normal_", global_shape=(9, 9), flat_range=(0, 4, 8)), ValueError, "flat_range must be two numbers"),
    (row("normal_", global_shape=(9, 9), flat_range=(0.0, 12)), TypeError, "integer"),
    (row("normal_", "empty", global_shape=(9, 9), flat_range=(82, 82)), ValueError, "must lie inside the 81 elements"),
    (row("orthogonal_", global_shape=(2, 2), offset=(0, 0)), ValueError, "must lie inside global_shape"),
    (row("sparse_", "f32", 0.5, global_shape=(2, 2), offset=(0, 0)), ValueError, "must lie inside global_shape"),
    (row("kaiming_uniform_", in_axes=5), ValueError, r"in_axes must be in \[-2, 2\)"),
    (row("kaiming_uniform_", in_axes=0, out_axes=0), ValueError, "one of in, out and batch"),
    (row("kaiming_uniform_", batch_axes=0), ValueError, "Fan in and fan out can not be computed"),
    (row("xavier_uniform_", batch_axes=(0, 1)), ValueError, "Fan in and fan out can not be computed"),
    (row("variance_scaling_", scale=-1), ValueError, "scale must be finite and not negative, got -1"),
    (row("variance_scaling_", scale=NAN), ValueError, "scale must be finite and not negative, got nan"),
    (row("variance_scaling_", mode="fan"), ValueError, "Mode fan not supported"),
    (row("variance_scaling_", distribution="cauchy"), ValueError, "distribution must be 'truncated_normal'"),
    (row("lecun_normal_", "1-dim"), ValueError, "Fan in and fan out can not be computed"),
    (row("lecun_normal_", "c64"), NotImplementedError, "the tensor must be real"),
    (row("lecun_uniform_", "i32"), NotImplementedError, "not implemented for 'Int'"),
    (row("trunc_normal_", bounds="sigmas"), ValueError, "bounds must be 'absolute' or 'sigma', got 'sigmas'"),
    (
        row("trunc_normal_", "f32", 0, 1, -1, 1, compensate=True),
        ValueError,
        r"compensate=True needs std < \(b - a\) / sqrt\(12\)",
    ),
    (row("uniform_", "e4m3", 0, 449), RuntimeError, "to is out of bounds for torch.float8_e4m3fn"),
    (row("uniform_", "e5m2", -6e4, 0), RuntimeError, "from is out of bounds for torch.float8_e5m2"),
    (row("uniform_", "e4m3", 1, 0), RuntimeError, "uniform_ expects to return a"),
    # torch crashes on these
    *((row(f, "freed", *NEEDED.get(f, ())), RuntimeError, "must have memory, got a Tensor of shape") for f in MATRIX),
]


def plain_text(error: BaseException) -> str:
    return re.sub(r"0x[0-9a-f]+", "0x", str(error))


def kind(result: Any) -> object:
    """What can be compared of a result without its values: a constant's value, or that it is random."""
    values = result.values() if result.layout in (torch.sparse_csr,) or result.is_nested else result
    if values.is_meta or values.numel() == 0:
        return "no values"
    numbers = values.dequantize() if values.is_quantized else values.resolve_conj().resolve_neg()
    flat = torch.view_as_real(numbers).flatten() if numbers.is_complex() else numbers.double().flatten()
    if values.numel() > 1 and (flat.isnan().all() or (flat == flat[0]).all()):
        return repr(flat[0].item() + 0.0)
    return "infinite" if flat.isinf().all() else "random"


def snapshot(tensor: Any) -> object:
    """The bytes of a tensor, and of what it is a view of."""
    if not isinstance(tensor, Tensor) or isinstance(tensor, torch.nn.UninitializedParameter) or tensor.is_meta:
        return None
    if tensor.layout != torch.strided:
        return tensor.to_dense().tolist()
    return tensor.untyped_storage().tolist()


def state(kwargs: dict[str, Any]) -> list[Any]:
    generators = [g for g in kwargs.values() if isinstance(g, torch.Generator)]
    return [g.get_state().numpy().tobytes() for g in (torch.default_generator, *generators)]


def outcome(module: Any, case: Row) -> tuple[object, ...]:
    """("ok", warnings, kind) or (exception type, warnings, text); after an exception nothing may have changed."""
    torch.manual_seed(0)  # of few values all may have one sign
    tensor = TENSORS[case.tensor]()
    before, generators = snapshot(tensor), state(case.kwargs)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = getattr(module, case.function)(tensor, *case.args, **case.kwargs)
        except Exception as error:
            if module is wi.init:
                assert snapshot(tensor) == before, "an error changed the tensor"
                assert (state(case.kwargs) == generators) is True, "an error drew from a generator"
            return type(error), [], plain_text(error)
    assert result is tensor
    return "ok", [(w.category, str(w.message)) for w in caught], kind(result)


def skip_what_torch_did_otherwise(case: Row) -> None:
    """trunc_normal_ drew through erfinv and clamped; integers and float8 had other messages."""
    others = (case.tensor in ("i32", "empty i32", "u8", "e4m3", "bool"), case.function in ("trunc_normal_", "lecun_uniform_"))
    if any(others) and torch.__version__ < torch.torch_version.TorchVersion("2.12"):
        pytest.skip("torch's own errors were others before 2.12")


@pytest.mark.parametrize("case", AS_TORCH, ids=str)
def test_as_torch(case: Row) -> None:
    skip_what_torch_did_otherwise(case)
    assert outcome(wi.init, case) == outcome(torch.nn.init, case)


@pytest.mark.parametrize("case", DIFFERENT, ids=lambda case: str(case.row))
def test_deliberate_difference(case: Difference) -> None:
    skip_what_torch_did_otherwise(case.row)
    ours, theirs = outcome(wi.init, case.row), outcome(torch.nn.init, case.row)
    if case.ours is None:
        assert ours[:2] == ("ok", []), ours
    else:
        assert ours[0] is case.ours
        assert re.search(case.match, str(ours[2]))
    assert ours != theirs, "torch does the same now: move this row to AS_TORCH"


@pytest.mark.parametrize(("case", "exception", "match"), OURS, ids=lambda value: str(value) if isinstance(value, Row) else "")
def test_our_arguments(case: Row, exception: type[BaseException], match: str) -> None:
    skip_what_torch_did_otherwise(case)
    ours = outcome(wi.init, case)
    assert ours[0] is exception, ours
    assert re.search(match, str(ours[2]))


class Quantised(Tensor):
    """A wrapper, as torchao's: its elements are in other tensors."""

    @staticmethod
    def __new__(cls, inner: Tensor) -> Quantised:
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype, device=inner.device)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise NotImplementedError(func)


def test_a_wrapper_is_told_that_its_elements_are_elsewhere() -> None:
    with pytest.raises(RuntimeError, match="A Quantised may keep its elements in other tensors: fill the plain tensor"):
        wi.init.normal_(Quantised(torch.zeros(3)), seed=0)
