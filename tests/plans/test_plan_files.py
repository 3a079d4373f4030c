"""Files of plans: what they bring back, and what is no plan."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import weightinit_cuda as wi
from weightinit_cuda.numerics.distributions import (
    Computed,
    Constant,
    Distribution,
    Normal,
    OneHot,
    Orthogonal,
    SparseNormal,
    TruncNormal,
    Uniform,
)
from weightinit_cuda.tensors.boxes import Box

Plan, Entry = wi.Plan, wi.Entry
INF, NAN = math.inf, math.nan

texts = st.text('ab.09 é中🦙"\\\n\x00', max_size=20)
names = texts.filter(bool).map(lambda text: text.replace("/", ""))
numbers = st.floats(allow_nan=False) | st.integers(-(2**60), 2**60)
positive = st.floats(min_value=0, max_value=1e30)
bounds = st.sampled_from([(-2.0, 2.0), (-INF, 1.0), (0.5, INF), (-INF, INF), (1.0, 1.0)])
whole = st.integers(0, 2**20)


@st.composite
def one_hots(draw: st.DrawFn) -> OneHot:
    """With every place inside its row."""
    period, limit, offset, step = draw(st.integers(1, 99)), draw(st.integers(0, 99)), draw(whole), draw(whole)
    row = offset + max(min(period, limit), 1) * step + draw(st.integers(1, 2**40))
    return OneHot(draw(numbers), row, period, limit, offset, step)


def distributions(shape: tuple[int, ...]) -> st.SearchStrategy[Distribution]:
    """What can fill a tensor of that shape."""
    every = [
        st.builds(Constant, numbers),
        st.builds(lambda a, width: Uniform(a, a + width), st.floats(-1e30, 1e30), positive),
        st.builds(Normal, st.floats(-1e30, 1e30), positive),
        st.builds(lambda std, ab: TruncNormal(0.5, std, *ab), st.floats(0.1, 10), bounds),
        one_hots(),
        st.builds(Computed, texts),
    ]
    if len(shape) > 1:
        every.append(st.builds(Orthogonal, st.floats(-9, 9)))
    if len(shape) == 2:
        every.append(st.builds(SparseNormal, st.just(shape[0]), st.integers(0, shape[0]), positive))
    return st.one_of(every)


shapes = st.lists(st.integers(0, 2**14), max_size=4).map(tuple)
bits64 = st.integers(0, 2**64 - 1)
dtypes = st.sampled_from([torch.float32, torch.bfloat16, torch.float64])


@st.composite
def entries(draw: st.DrawFn, name: str) -> wi.Entry:
    shape, aliases = draw(shapes), tuple(f"{name}/{alias}" for alias in draw(st.lists(names, max_size=2)))
    box = Box((0,) * len(shape), tuple(draw(st.integers(1, size)) for size in shape)) if 0 not in shape else None
    kept, made = draw(st.sampled_from([box, None])), draw(distributions(shape))
    return Entry(name, shape, draw(dtypes), made, draw(bits64), draw(texts), kept, aliases, draw(st.booleans()))


@given(st.data(), st.sets(names, max_size=4), bits64)
def test_files_bring_back_the_plan(data: st.DataObject, chosen: set[str], seed: int) -> None:
    plan = Plan(tuple(data.draw(entries(name)) for name in sorted(chosen)), seed, "deferred")
    again = Plan.from_json(plan.to_json())
    assert again == plan
    assert again.diff(plan) == []
    assert [type(entry.distribution) for entry in again] == [type(entry.distribution) for entry in plan]
    assert again.to_json() == plan.to_json()


def test_save_and_load(tmp_path: Path) -> None:
    plan = wi.plan(nn.Sequential(nn.Embedding(9, 4, padding_idx=2), nn.Linear(4, 4)), "kaiming", seed=2**64 - 1)
    plan.save(tmp_path / "init.json")
    assert Plan.load(str(tmp_path / "init.json")) == plan
    text = (tmp_path / "init.json").read_text(encoding="utf-8")
    head = {"schema": 1, "library": "weightinit_cuda", "version": wi.__version__, "format": wi.FORMAT}
    assert {key: value for key, value in json.loads(text).items() if key != "entries"} == {
        **head,
        "rules": "kaiming",
        "seed": 2**64 - 1,
    }
    assert sum(line.startswith('  {"name": ') for line in text.splitlines()) == len(plan)  # a line each: made for diff


def test_nan_survives() -> None:
    entry = Entry("w", (1,), torch.float32, Constant(NAN), 1, "test")
    (again,) = Plan.from_json(Plan((entry,)).to_json())
    assert math.isnan(again.distribution.value)  # type: ignore[union-attr]


def changed(**what: Any) -> str:
    """The file of a plan with one entry, with fields replaced (None: removed). ``e__box__shape`` is a field of the entry."""
    entry = Entry("w", (4, 4), torch.float32, Normal(0.0, 1.0), 1, "test", Box((0, 0), (1, 4)), ("v",))
    data = json.loads(Plan((entry,)).to_json())
    for path, value in what.items():
        at: Any = data
        *way, last = path.split("__")
        for key in way:
            at = at["entries"][0] if key == "e" else at[key]
        if value is None:
            del at[last]
        else:
            at[last] = value
    return json.dumps(data)


HUGE = 10**400
HOSTILE: dict[str, str | bytes] = {
    "empty": "",
    "garbage": b"\xff\xfe\x00garbage",
    "cut": changed()[:-20],
    "list": "[]",
    "number": "3",
    "null": "null",
    "deep": "[" * 100_000,
    "endless number": changed(seed=0).replace('"seed": 0', '"seed": ' + "9" * 5000),
    "schema": changed(schema=2),
    "schema true": changed(schema=True, format=2),
    "format": changed(format=2),
    "library": changed(library="numpy"),
    "no entries": changed(entries=None),
    "entries": changed(entries=3),
    "entry": changed(entries=[3]),
    "seed": changed(seed=2**64),
    "seed text": changed(seed="0"),
    "seed bool": changed(seed=True),
    "name": changed(e__name=3),
    "no name": changed(e__name=None),
    "shape": changed(e__shape=[-1, 4]),
    "shape float": changed(e__shape=[4.0, 4]),
    "shape bool": changed(e__shape=[True, 4]),
    "shape text": changed(e__shape="44"),
    "shape number": changed(e__shape=4),
    "dtype": changed(e__dtype="nn"),
    "dtype layout": changed(e__dtype="strided"),
    "dtype number": changed(e__dtype=3),
    "dtype without fills": changed(e__dtype="int8"),
    "kind": changed(e__distribution__kind="__class__"),
    "no kind": changed(e__distribution__kind=None),
    "field": changed(e__distribution__var=1),
    "no field": changed(e__distribution__std=None),
    "std text": changed(e__distribution__std="wide"),
    "std list": changed(e__distribution__std=[1]),
    "std bool": changed(e__distribution__std=True),
    "std huge": changed(e__distribution__std=HUGE),
    "std negative": changed(e__distribution__std=-1),
    "std nan": changed(e__distribution__std="nan"),
    "std complex": changed(e__distribution__std="1j"),
    "row float": changed(e__distribution={"kind": "sparse_normal", "rows": 1.5, "zeros": 1, "std": 1}),
    "how": changed(e__distribution={"kind": "computed", "how": 3}),
    "trunc": changed(e__distribution={"kind": "trunc_normal", "mean": 0, "std": 1, "a": 2, "b": 1}),
    "stream": changed(e__stream="0x" + "f" * 17),
    "stream negative": changed(e__stream="-0x1"),
    "stream number": changed(e__stream=3),
    "source": changed(e__source=3),
    "box": changed(e__box__shape=[5, 4]),
    "box dims": changed(e__box__shape=[1]),
    "box negative": changed(e__box__offset=[-1, 0]),
    "box list": changed(e__box=[1]),
    "aliases": changed(e__aliases=[3]),
    "aliases number": changed(e__aliases=3),
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_other_files_are_refused(text: str | bytes, tmp_path: Path) -> None:
    path = tmp_path / "init.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=r"Plan.load: a plan of this library is required, got (?s:.*)init\.json\)\.$"):
        Plan.load(path)


def test_the_file_that_is_changed_is_good() -> None:
    """Power of the test above."""
    assert Plan.from_json(changed())["v"][0].box == Box((0, 0), (1, 4))
