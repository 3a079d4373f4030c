"""Each row of the catalog says what the function's signature says, and there is a row for every function."""

from __future__ import annotations

import inspect
import warnings

import pytest
import torch

import weightinit_cuda as wi
from weightinit_cuda.init.catalog import AXES, CATALOG, DRAWN, distribution_of
from weightinit_cuda.numerics.distributions import Constant


def test_every_function_has_a_row() -> None:
    names = {name for name in wi.init.__all__ if name.endswith("_")} - {"delta_orthogonal_"}  # no distribution: two fills
    deprecated = {row.deprecated for row in CATALOG.values()} - {""}
    assert names == set(CATALOG)
    assert set(wi.init.__all__) == names | deprecated | {"calculate_gain", "delta_orthogonal_"}


@pytest.mark.parametrize("name", CATALOG)
def test_a_row_is_the_signature(name: str) -> None:
    row = CATALOG[name]
    signature = inspect.signature(getattr(wi.init, name)).parameters
    own = {key: p.default for key, p in signature.items() if key not in ("tensor", *AXES, *DRAWN)}
    assert own == {key: inspect.Parameter.empty if isinstance(x, type) else x for key, x in row.own.items()}
    assert list(own) == list(row.own)
    assert (set(AXES) <= set(signature)) == row.axes
    assert (set(DRAWN) <= set(signature)) == row.random


@pytest.mark.parametrize("name", CATALOG)
def test_private_and_deprecated_names_are_there(name: str) -> None:
    row = CATALOG[name]
    if row.private:
        assert callable(getattr(wi.init, row.private))
        assert callable(getattr(torch.nn.init, row.private))
    if row.deprecated:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            assert getattr(wi.init, row.deprecated).__name__ == name[:-1]


def test_binding_refuses_what_the_function_refuses() -> None:
    with pytest.raises(TypeError, match="normal_ has no argument sigma"):
        CATALOG["normal_"].bind({"sigma": 1.0})
    with pytest.raises(TypeError, match="sparse_ needs sparsity"):
        CATALOG["sparse_"].bind({})
    assert CATALOG["kaiming_uniform_"].bind({"a": 1, "in_axes": 0}) == (1, "fan_in", "leaky_relu", 0, None, None)


def test_nothing_is_filled_with_nothing() -> None:
    assert distribution_of("xavier_uniform_", torch.float32, (0, 0), {}) == Constant(0.0)
    assert str(distribution_of("constant_", torch.float32, (1,), {"val": -0.0})) == "Constant(value=-0.0)"
