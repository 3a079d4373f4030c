"""Operators that are recorded without a look at meta: by what is known of them, or of a call that was like them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import weightinit_cuda as wi


@pytest.mark.parametrize(
    "wrong", [lambda: torch.zeros(3).clamp_(), lambda: torch.zeros(3, dtype=torch.int64).erfinv_()], ids=["clamp", "erfinv"]
)
def test_arithmetic_in_place_is_refused_in_torchs_words(wrong: Callable[[], Tensor]) -> None:
    with pytest.raises(RuntimeError) as torchs:
        wrong()
    with wi.deferred(), pytest.raises(RuntimeError) as ours:
        wrong()
    assert str(ours.value) == str(torchs.value)


def test_equal_numbers_of_different_types_make_different_tensors() -> None:
    """What an operator makes on meta is remembered by its arguments, and 1 == 1.0 == True."""

    def code() -> list[Tensor]:
        ints, floats = torch.arange(3), torch.arange(3.0)
        found = [
            torch.arange(3),
            torch.arange(3.0),
            ints + 1,
            ints + 1.0,
            ints + True,
            floats + 1,
            ints.float() + ints,
            floats.t() * 2,
        ]
        found += [torch.stack([ints, ints]), torch.stack([ints, ints], 1), torch.stack([floats, floats], 1).t().clone()]
        torch.set_default_dtype(torch.float64)
        try:
            return [*found, ints + 1.0, torch.linspace(0, 1, 3)]
        finally:
            torch.set_default_dtype(torch.float32)

    eager = code()
    with wi.deferred() as recorded:
        found = code()
        net = nn.Module()
        for number, tensor in enumerate(found):
            net.register_buffer(f"b{number}", tensor)
    for one, other in zip(found, eager, strict=True):
        assert one.is_meta
        assert (one.dtype, one.shape, one.stride()) == (other.dtype, other.shape, other.stride())
    recorded.materialize_(net)
    assert all(torch.equal(one, other) for one, other in zip(net.buffers(), eager, strict=True))


def test_results_of_equal_calls_are_different_tensors() -> None:
    with wi.deferred() as recorded:
        start = torch.arange(3.0)
        net = nn.Module()
        for name in ("a", "b"):
            net.register_buffer(name, start * 2)
        net.b += 1
    recorded.materialize_(net)
    assert net.a.tolist() == [0.0, 2.0, 4.0]
    assert net.b.tolist() == [1.0, 3.0, 5.0]
