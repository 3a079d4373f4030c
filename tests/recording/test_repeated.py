"""What models do again and again: arithmetic on a fresh draw, the same operators on meta, the same tables."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import weightinit_cuda as wi
from weightinit_cuda.numerics.distributions import TruncNormal
from weightinit_cuda.recording.programs import program
from weightinit_cuda.recording.replay import needed


class Holder(nn.Module):
    """A parameter that a function fills, and what more it keeps."""

    def __init__(self, write: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(6, 5))
        with torch.no_grad():
            self.kept = write(self.weight)


def truncated(x: Tensor) -> object:
    x.uniform_(-0.9, 0.9).erfinv_().mul_(0.02 * math.sqrt(2)).add_(0.5).clamp_(min=0.0, max=1.0)
    return None


def recorded(write: Callable[[Tensor], object]) -> tuple[wi.Recording, Holder]:
    with wi.deferred() as recording:
        model = Holder(write)
    return recording, model


def test_arithmetic_on_a_draw_is_one_fill_from_the_line_of_the_draw() -> None:
    recording, model = recorded(truncated)
    (entry,) = recording.plan(model, seed=3)["weight"]
    assert isinstance(entry.distribution, TruncNormal)
    assert entry.source.endswith(" truncated")
    expected = recording.plan(model, seed=3).apply_(Holder(lambda x: None)).weight
    assert torch.equal(recording.materialize_(model, seed=3).weight, expected)


def test_a_look_at_it_changes_no_value() -> None:
    """Once it is read its steps are folded one after the other: the same entry."""
    plain, looked = recorded(truncated), recorded(lambda x: (truncated(x), x.t()[0])[1])
    plans = [recording.plan(model, seed=3)["weight"] for recording, model in (plain, looked)]
    assert [entry.distribution for entry in plans[0]] == [entry.distribution for entry in plans[1]]
    assert torch.equal(plain[0].materialize_(plain[1], seed=3).weight, looked[0].materialize_(looked[1], seed=3).weight)


@pytest.mark.parametrize(
    "change", [lambda x: x.mul_(-1), lambda x: x.add_(math.inf), lambda x: x.mul_(2).mul_(0), lambda x: x.pow_(2)]
)
def test_what_is_no_distribution_or_a_constant_goes_the_general_way(change: Callable[[Tensor], Tensor]) -> None:
    recording, model = recorded(lambda x: (x.uniform_(0, 1), change(x))[0])
    made = recording.materialize_(model, seed=3).weight.detach()
    drawn = wi.init.uniform_(torch.empty(6, 5), seed=3, stream="weight/0")
    assert torch.equal(made, change(drawn))


def test_a_clamp_to_nothing_is_torchs_error() -> None:
    with pytest.raises(RuntimeError, match="At least one of 'min' or 'max'"):
        recorded(lambda x: x.normal_().clamp_())


def test_equal_computations_have_one_program() -> None:
    def tables(scale: float) -> tuple[wi.Recording, nn.Module]:
        with wi.deferred() as recording:
            model = nn.Module()
            for name, factor in (("one", 1.0), ("same", 1.0), ("other", scale)):
                model.register_buffer(name, torch.arange(6.0).cos() * factor)
        return recording, model

    for scale in (2.0, -1.0):
        recording, model = tables(scale)
        steps = recording._recorder.steps
        memories = [recording._recorder.view_of(tensor).memory for tensor in model.buffers()]  # type: ignore[union-attr]
        keys = [program(needed(steps, [memory]), memory) for memory in memories]
        assert keys[0] == keys[1] is not None
        assert keys[2] not in (keys[0], None)
        recording.materialize_(model)
        one, same, other = model.buffers()
        assert torch.equal(one, torch.arange(6.0).cos())
        assert torch.equal(one, same)
        assert one.data_ptr() != same.data_ptr()
        assert torch.equal(other, torch.arange(6.0).cos() * scale)


def test_zeros_of_both_signs_and_draws_are_no_equal_programs() -> None:
    with wi.deferred() as recording:
        made = [torch.arange(3.0) * 0.0, torch.arange(3.0) * -0.0, torch.randn(3).cos(), torch.randn(3).cos()]
    steps = recording._recorder.steps
    memories = [recording._recorder.view_of(tensor).memory for tensor in made]  # type: ignore[union-attr]
    keys = [program(needed(steps, [memory]), memory) for memory in memories]
    assert keys[0] != keys[1]
    assert keys[2:] == [None, None]


def test_shapes_on_meta_follow_the_default_dtype_and_the_tensors() -> None:
    def build() -> tuple[torch.dtype, torch.Size]:
        with wi.deferred():
            made = torch.arange(4) / 2
            return made.dtype, (made[:, None] + made).shape

    assert build() == build() == (torch.float32, (4, 4))
    torch.set_default_dtype(torch.float64)
    try:
        assert build() == (torch.float64, (4, 4))
    finally:
        torch.set_default_dtype(torch.float32)


def test_an_operator_into_a_tensor_that_it_makes_larger() -> None:
    for _ in range(2):
        with wi.deferred() as recording:
            model = nn.Module()
            out = torch.empty(0)
            torch.add(torch.ones(3), torch.ones(3), out=out)
            torch.mul(out, 3.0, out=out)
            model.register_buffer("out", out)
        assert torch.equal(recording.materialize_(model).out, torch.full((3,), 6.0))
