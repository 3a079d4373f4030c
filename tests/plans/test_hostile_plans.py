"""Plans that nobody sane would make: each is refused by name, before anything is written; and no struct ends the process."""

from __future__ import annotations

import importlib.util
import json
import math
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import hostile
import pytest
import torch
from bitwise import same_bits
from conftest import available, using
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import weightinit_cuda as wi
from weightinit_cuda import engine
from weightinit_cuda.engine.job import FillJob
from weightinit_cuda.numerics.distributions import (
    Constant,
    Distribution,
    Normal,
    OneHot,
    Orthogonal,
    SparseNormal,
    TruncNormal,
    Uniform,
)
from weightinit_cuda.tensors.boxes import Box, Region

Entry, Plan = wi.Entry, wi.Plan
INF, NAN = math.inf, math.nan
GOOD = Entry("good", (3,), torch.float32, Normal(0.0, 1.0), 1, "test")


def entry(distribution: Any, shape: Any = (4, 6), dtype: Any = torch.float32, **more: Any) -> Entry:
    return Entry("bad", shape, dtype, distribution, 2, "test")._replace(**more)


def one_hot(**changed: int) -> OneHot:
    return OneHot(**{"value": 1.0, "row": 6, "period": 4, "limit": 4, "offset": 0, "step": 1, **changed})  # type: ignore[arg-type]


BY_HAND: dict[str, tuple[Any, str]] = {
    "one_hot, row 0": (entry(one_hot(row=0)), "row and period must be at least 1, got 0 and 4"),
    "one_hot, period 0": (entry(one_hot(period=0)), "row and period must be at least 1, got 6 and 0"),
    "one_hot, period 2**64": (entry(one_hot(period=2**64)), r"period must be a whole number in \[0, 2\*\*63\)"),
    "one_hot, row 2**63": (entry(one_hot(row=2**63)), r"row must be a whole number in \[0, 2\*\*63\)"),
    "one_hot, offset -1": (entry(one_hot(offset=-1)), r"offset must be a whole number"),
    "one_hot, row 6.0": (entry(one_hot(row=6.0)), r"row must be a whole number"),  # type: ignore[arg-type]
    "one_hot, offset beyond its row": (
        entry(one_hot(offset=6, limit=1)),
        "must lie in its row of 6 elements, got place 6",
    ),
    "one_hot, last place beyond its row": (entry(one_hot(step=2)), "must lie in its row of 6 elements, got place 6"),
    "one_hot, complex": (entry(one_hot(value=1j), (4, 3), torch.complex64), "value must be real"),  # type: ignore[arg-type]
    "sparse, other rows": (entry(SparseNormal(5, 1, 1.0)), r"a matrix of 5 rows, got shape \(4, 6\)"),
    "sparse, 2**31 rows": (entry(SparseNormal(2**31, 1, 1.0)), "a matrix of 2147483648 rows"),
    "sparse, more zeros than rows": (entry(SparseNormal(4, 5, 1.0)), "at most the 4 elements of a column, got 5"),
    "sparse, a vector": (entry(SparseNormal(4, 1, 1.0), (4,)), "a matrix of 4 rows"),
    "sparse, nan": (entry(SparseNormal(4, 1, NAN)), "std"),
    "orthogonal, a vector": (entry(Orthogonal(1.0), (4,)), "2 or more dimensions"),
    "orthogonal, integers": (entry(Orthogonal(1.0), dtype=torch.int32), "a floating-point or complex tensor is required"),
    "orthogonal, complex gain": (entry(Orthogonal(1j)), "gain must be real"),  # type: ignore[arg-type]
    "uint8, 300": (entry(Constant(300), dtype=torch.uint8), "without overflow"),
    "int64, 2**64": (entry(Constant(2**64), dtype=torch.int64), "too big"),
    "int64, nan": (entry(Constant(NAN), dtype=torch.int64), "without overflow"),
    "float32, complex": (entry(Constant(1j)), "value must be real"),  # type: ignore[arg-type]
    "bits8": (entry(Constant(1), dtype=torch.bits8), "not implemented"),
    "float16, uniform": (entry(Uniform(-1e5, 0), dtype=torch.float16), "out of bounds"),
    "normal, std -1": (entry(Normal(0, -1)), "std"),
    "normal, 10**400": (entry(Normal(10**400, 1)), "too large"),
    "normal, a list": (entry(Normal([1], 1)), "mean must be a number"),  # type: ignore[arg-type]
    "normal, text": (entry(Normal("0", 1)), "mean must be a number"),  # type: ignore[arg-type]
    "trunc_normal, nothing between": (entry(TruncNormal(0, 1, 1e-9, 2e-9), dtype=torch.float16), "must hold a value"),
    "no distribution": (entry("normal"), "must be a distribution, got 'normal'"),
    "shape, a list": (entry(Normal(0, 1), [4, 6]), "shape must be a tuple of whole numbers"),
    "shape, floats": (entry(GOOD.distribution, (3.0,)), "shape must be a tuple of whole numbers"),
    "shape, negative": (entry(Normal(0, 1), (-1, 6)), "shape must be a tuple of whole numbers"),
    "shape, 2**62": (entry(Normal(0, 1), (2**62,)), r"less than 2\*\*63 bytes"),
    "shape, 2**80": (entry(Constant(0.0), (2**40, 2**40)), r"less than 2\*\*63 bytes"),
    "shape, empty and 2**80": (entry(Constant(0.0), (0, 2**40, 2**40)), r"less than 2\*\*63 bytes"),
    "dtype, text": (entry(Normal(0, 1), dtype="float32"), "dtype must be a dtype of torch"),
    "stream, 2**64": (entry(Normal(0, 1), stream=2**64), "stream must be a whole number"),
    "stream, bool": (entry(Normal(0, 1), stream=True), "stream must be a whole number"),
    "name, bytes": (entry(Normal(0, 1), name=b"bad"), "a name must be text"),
    "name, no text": (entry(Normal(0, 1), name="\ud800"), "surrogates not allowed"),
    "alias, no text": (entry(Normal(0, 1), aliases=("\ud800",)), "surrogates not allowed"),
    "aliases, text": (entry(Normal(0, 1), aliases="ab"), "aliases must be a tuple of names"),
    "source": (entry(Normal(0, 1), source=None), "source must be text"),
    "buffer": (entry(Normal(0, 1), buffer=1), "buffer must be True or False"),
    "box, a tuple": (entry(Normal(0, 1), box=((0, 0), (1, 1))), "box must be a Box or None"),
    "box, outside": (entry(Normal(0, 1), box=Box((1, 0), (4, 6))), "a box must lie inside its tensor"),
    "box, empty": (entry(Normal(0, 1), box=Box((1, 0), (0, 6))), "a box must lie inside its tensor"),
    "box, other dimensions": (entry(Normal(0, 1), box=Box((1,), (2,))), "as many dimensions as its tensor"),
    "box, floats": (entry(Normal(0, 1), box=Box((1.0, 0), (1, 6))), "the offset of a box must be a tuple of whole"),  # type: ignore[arg-type]
    "another shape before": (entry(Normal(0, 1), name="good"), "must agree in shape and dtype"),
    "an alias of another": (entry(Normal(0, 1), aliases=("good",)), "a name must be of one tensor"),
    "no entry": (("bad", (3,)), "every entry must be an Entry"),
}


@pytest.mark.parametrize("case", BY_HAND)
def test_entries_by_hand(case: str) -> None:
    wrong, words = BY_HAND[case]
    with pytest.raises(ValueError, match=rf"^Plan: .*{words}.*\(entry 1(, .*)?\)\.$"):
        Plan((GOOD, wrong))


def test_plans_by_hand() -> None:
    assert Plan([GOOD]).entries == (GOOD,)  # type: ignore[arg-type]
    for more, words in (
        ({"format": 2}, "format must be 1"),
        ({"rules": 3}, "must be text"),
        ({"version": None}, "must be text"),
    ):
        with pytest.raises(ValueError, match=words):
            Plan((GOOD,), **more)  # type: ignore[arg-type]


def test_nothing_to_fill_has_no_rows() -> None:
    """What ``eye_`` gives an empty matrix is sound, there."""
    plan = Plan((entry(OneHot(1.0, 0, 3, 0, 0, 1), (3, 0)), entry(OneHot(1.0, 3, 0, 0, 0, 1), (0, 3), name="other")))
    plan.apply_({"bad": torch.empty(3, 0), "other": torch.empty(0, 3)})
    assert Plan.from_json(plan.to_json()) == plan


# ---- files -----------------------------------------------------------------------------------------------------------

ROW_0 = {"kind": "one_hot", "value": 1, "row": 0, "period": 4, "limit": 4, "offset": 0, "step": 1}
LINES: dict[str, tuple[dict[str, Any], str]] = {
    "row 0": ({"distribution": ROW_0}, "at least 1"),
    "rows 2**31": ({"distribution": {"kind": "sparse_normal", "rows": 2**31, "zeros": 1, "std": 1}}, "of 2147483648 rows"),
    "a number too many": ({"distribution": {"kind": "normal", "mean": 0, "std": 1, "a": 0}}, "have the numbers mean, std"),
    "a field too many": ({"bx": None}, "the fields must be among"),
    "a name that is no text": ({"name": "\ud800"}, "surrogates not allowed"),
    "stream": ({"stream": "0x_1"}, "64 bits in hexadecimal"),
    "shape": ({"shape": [2**40, 2**40]}, r"less than 2\*\*63 bytes"),
    "shape as text": ({"shape": "46"}, "shape must be a list"),
    "aliases as text": ({"aliases": "ab"}, "aliases must be a list"),
    "buffer": ({"buffer": "yes"}, "buffer must be True or False"),
    "box": ({"box": {"offset": [0, 0], "shape": [1, 6], "step": 2}}, "an offset and a shape, and nothing else"),
    "deep": ({"box": [[[[]]]] * 9}, "an offset and a shape, and nothing else"),
    "huge": ({"distribution": {"kind": "normal", "mean": 10**400, "std": 1}}, "too large"),
}


@pytest.mark.parametrize("case", LINES)
def test_lines_of_files(case: str) -> None:
    """The message has the number of the entry, its name and the reason."""
    fields, words = LINES[case]
    data = hostile.as_json(Plan((GOOD, entry(Normal(0.0, 1.0)))))
    data["entries"][1] |= fields
    with pytest.raises(ValueError, match=rf"^Plan.load: a plan .* required, got .*{words}.*\(entry 1, .*\) \(a file\)\.$"):
        Plan.from_json(json.dumps(data), "a file")


def test_sources_that_utf8_cannot_hold(tmp_path: Path) -> None:
    """A line of a file whose name is no UTF-8: Python gives it as lone surrogates."""
    plan = Plan((GOOD._replace(source="model\udcff.py:3"),))
    plan.save(tmp_path / "init.json")
    assert Plan.load(tmp_path / "init.json") == plan


def test_many_entries_are_checked_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted, not timed: equal distributions of a file are one object, which is checked once for each shape."""
    from weightinit_cuda.plans import checks

    calls = Counter[str]()
    check = checks._require_fill

    def counted(distribution: Distribution, dtype: object, shape: tuple[int, ...]) -> None:
        calls[distribution.kind] += 1
        check(distribution, dtype, shape)

    text = Plan(tuple(GOOD._replace(name=f"layers.{i}.w", stream=i) for i in range(2000))).to_json()
    monkeypatch.setattr(checks, "_require_fill", counted)
    assert len(Plan.from_json(text)) == 2000
    assert calls == {"normal": 1}


# ---- filling ---------------------------------------------------------------------------------------------------------


def freed(tensor: torch.Tensor) -> torch.Tensor:
    tensor.untyped_storage().resize_(0)
    return tensor


def inference() -> torch.Tensor:
    with torch.inference_mode():
        return torch.zeros(3, 3)


UNFIT = {
    "freed": lambda: freed(torch.zeros(3, 3)),
    "expanded": lambda: torch.zeros(3, 1).expand(3, 3),
    "inference": inference,
    "another shape": lambda: torch.zeros(3, 4),
    "another dtype": lambda: torch.zeros(3, 3, dtype=torch.float64),
    "sparse": lambda: torch.zeros(3, 3).to_sparse(),
    "meta": lambda: torch.zeros(3, 3, device="meta"),
}


@pytest.mark.parametrize("kind", UNFIT)
@pytest.mark.parametrize(
    "last", [Normal(0.0, 1.0), Orthogonal(1.0), SparseNormal(3, 1, 1.0), one_hot(row=3, period=3, limit=3)], ids=str
)
def test_a_model_that_does_not_fit_is_not_touched(kind: str, last: Distribution) -> None:
    names = ("first", "second", "third")
    fills = (Normal(0.0, 1.0), Orthogonal(1.0), last)
    plan = Plan(tuple(Entry(n, (3, 3), torch.float32, fill, 1, "") for n, fill in zip(names, fills, strict=True)))
    tensors = {"first": torch.full((3, 3), 7.0), "second": torch.full((3, 3), 7.0), "third": UNFIT[kind]()}
    with pytest.raises((ValueError, RuntimeError)):
        plan.apply_(tensors)
    assert all(bool((tensors[name] == 7).all()) for name in names[:2])


@pytest.mark.parametrize("dtype", ["float16", None, 5, torch.int64, torch.complex64, torch.nn], ids=str)
def test_with_dtype_takes_floating_point_dtypes_only(dtype: Any) -> None:
    with pytest.raises(
        TypeError if not isinstance(dtype, torch.dtype) else ValueError, match="floating-point dtype is required"
    ):
        Plan((GOOD,)).with_dtype(dtype)


def test_with_dtype_names_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"out of bounds .*\(entry 1, 'bad'\)"):
        Plan((GOOD, entry(Uniform(-1e5, 1e5)))).with_dtype(torch.float16)


def test_one_hot_at_the_end_of_all_indices() -> None:
    """Places beyond 2^63 of a global index, by every evaluator, against integers of Python."""
    shape, offset, n = (2**32 - 1, 2**32), (2**32 - 3, 2**32 - 300), 300
    distribution = OneHot(1.0, 7, 5, 4, 1, 1)

    def expected(i: int) -> float:
        k = i // 7 % 5
        return float(k < 4 and i % 7 == 1 + k)

    first = [row * 2**32 + offset[1] for row in range(offset[0], offset[0] + 2)]
    wanted = torch.tensor([[expected(at + j) for j in range(n)] for at in first])
    last = torch.tensor([expected(2**64 - 64 + j) for j in range(64)])
    assert wanted.sum() > 9
    assert last.sum() > 2
    for backend in available():
        with using(backend):
            made, end = torch.empty(2, n), torch.empty(64)
            engine.fill([FillJob(made, distribution, 1, 1, Region(shape, offset))])
            engine.fill([FillJob(end, distribution, 1, 1, Region((2**64,), (2**64 - 64,)))])
            assert same_bits(made, wanted), backend
            assert same_bits(end, last), backend


STRUCTS = """
import importlib.util, random, sys
spec = importlib.util.spec_from_file_location("_C", sys.argv[1])
kernels = importlib.util.module_from_spec(spec)
spec.loader.exec_module(kernels)
random.seed(int(sys.argv[2]))
memory = bytearray(1 << 16)
import ctypes
address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
odd = [0, 0, 1, 2, 3, 7, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -1, 2**80]
numbers = [0.0, -0.0, 1.0, -1.0, 1e-320, 1e308, -1e308, float("inf"), float("nan"), 3.5]
made = refused = 0
for _ in range(int(sys.argv[3])):
    try:
        kind, pick = random.randrange(-1, 10), random.choice
        params, integers = ([pick(some) for _ in range(random.randrange(most))] for some, most in ((numbers, 10), (odd, 8)))
        transform = kernels.Transform(kind, params, integers)
        here, storage, index = pick([address, address, address + 4096, 0]), random.randrange(-1, 12), pick(odd)
        count = pick([0, 1, 5, 63, 1000])
        way = random.randrange(3)
        if way == 0:
            n = count if here else pick([count, 2**61, 2**64 - 1])
            kernels.fill_contiguous(here, storage, n, transform, pick(odd), pick(odd), pick([-1, 0, 1, 2, 99]))
        else:
            dims = [(pick([0, 1, 2, 5, -1, 2**62]), pick([1, 0, 2, -1, 7]), pick(odd)) for _ in range(random.randrange(4))]
            dims = [d if abs(d[0]) < 99 else (d[0], 0, d[2]) for d in dims]
            job = (here + 8192 if here else 0, storage, transform, pick(odd), pick(odd), index, dims)
            if way == 1:
                kernels.fill([job], pick([-1, 0, 1, 2]), random.randrange(-1, 5), pick(numbers))
            else:
                kernels.CpuFill([job]).run(pick(odd), 1)
        made += 1
    except (ValueError, TypeError, RuntimeError, OverflowError):
        refused += 1
print(made, refused)
"""


def test_no_struct_ends_the_process() -> None:
    """Random numbers where the kernels take theirs, over memory that is there: they fill it or raise."""
    module = importlib.util.find_spec("weightinit_cuda._C")
    if module is None or module.origin is None:
        pytest.skip("the kernels are not compiled")
    arguments = [sys.executable, "-c", STRUCTS, module.origin, "1", "20000"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.returncode} {done.stderr}"
    made, refused = map(int, done.stdout.split())
    assert made > 500, "the numbers are not all refused"
    assert refused > 500


# ---- fuzzing ---------------------------------------------------------------------------------------------------------

BASE = hostile.as_json(hostile.SOUND)
ACTIONS = ("replace", "replace", "replace", "delete", "twice")


@st.composite
def texts(draw: st.DrawFn) -> str:
    """A sound plan with one to three places changed, in some cases cut."""
    data = BASE
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(hostile.places(data)))
        data = hostile.changed(data, place, draw(st.sampled_from(ACTIONS)), draw(st.sampled_from(hostile.VALUES)))
    text = json.dumps(data)
    return text[: draw(st.integers(0, len(text)))] if draw(st.integers(0, 19)) == 0 else text


def test_the_plan_that_is_changed_is_sound() -> None:
    """Power of the tests below."""
    assert hostile.outcome(json.dumps(BASE)) == "applied"


@settings(max_examples=1000, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(texts())
def test_any_text_is_refused_or_is_a_plan(text: str) -> None:
    hostile.outcome(text)


CORPUS = sorted((Path(__file__).parent.parent / "fuzz" / "corpus").glob("*.json"))


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_what_was_found_before(path: Path) -> None:
    """The corpus of the long fuzzing runs; the name of a file begins with what becomes of it."""
    assert hostile.outcome(path.read_bytes()) == re.split("[-.]", path.name)[0]
