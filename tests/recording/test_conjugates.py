"""Conjugates and their imaginary parts are views that mean other values than lie in the memory.

The same code, run on the values that the model has in the end, says what they are.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from bitwise import same_bits
from recorded import recorded
from torch import Tensor, nn

import weightinit_cuda as wi


def into(write: Callable[[Tensor], object]) -> Callable[[Tensor], Tensor]:
    """What a function writes through a copy of a draw."""

    def made(x: Tensor) -> Tensor:
        written = x.clone()
        write(written)
        return written

    return made


READ: dict[str, Callable[[Tensor], Tensor]] = {
    "conj": lambda x: x.conj(),
    "imaginary": lambda x: x.imag,
    "negative": lambda x: x.conj().imag,
    "clone": lambda x: x.conj().clone(),
    "negative clone": lambda x: x.conj().imag.clone(),
    "resolve_conj": lambda x: x.conj().resolve_conj(),
    "resolve_neg": lambda x: x.conj().imag.resolve_neg(),
    "twice": lambda x: x.conj().conj().clone(),
    "of rows": lambda x: x.conj()[1:].clone(),
    "transposed": lambda x: x.mH.contiguous(),
    "scaled": lambda x: x.conj() * 2,
    "negative scaled": lambda x: x.conj().imag * 2 + 1,
    "cast": lambda x: x.conj().imag.to(torch.float64),
    "to": lambda x: x.conj().to(torch.complex128),
    "contiguous": lambda x: x.conj().contiguous(),
    "deepcopy": lambda x: copy.deepcopy(x.conj()),
    "deepcopy of a negative": lambda x: copy.deepcopy(x.conj().imag),
    "cat": lambda x: torch.cat([x, x.conj()]),
    "stack": lambda x: torch.stack([x.conj().imag, x.imag]),
    "new": lambda x: torch.zeros_like(x).copy_(x.conj()),
    "new negative": lambda x: torch.zeros(x.shape).copy_(x.conj().imag),
    "written": lambda x: torch.zeros(x.shape, dtype=x.dtype).index_copy_(0, torch.tensor([0]), x.conj()[:1]),
    "product": lambda x: x @ x.mH,
    "parts": lambda x: torch.view_as_real(x.conj().resolve_conj()),
}
WRITTEN: dict[str, Callable[[Tensor], object]] = {
    "copy_": lambda x: x.conj().copy_(torch.full_like(x, 2 + 1j)),
    "copy_ of a negative": lambda x: x.conj().imag.copy_(torch.full(x.shape, 3.0)),
    "fill_": lambda x: x.conj().fill_(1 + 2j),
    "fill_ of a negative": lambda x: x.conj().imag.fill_(2.0),
    "fill_ of a real number": lambda x: x.conj().fill_(2.0),
    "zero_": lambda x: x.conj().zero_(),
    "zero_ of a negative": lambda x: x.conj().imag.zero_(),
    "rows": lambda x: x.conj()[0].fill_(5j),
    "setitem": lambda x: x.conj().imag.__setitem__(0, 4.0),
    "setitem of data": lambda x: x.conj().imag.__setitem__(0, torch.tensor([1.0, 2.0])),
    "add_": lambda x: x.conj().add_(1j),
    "mul_ of a negative": lambda x: x.conj().imag.mul_(3.0),
    "constant_": lambda x: nn.init.constant_(x.conj().imag, 2.0),
    "ours": lambda x: wi.init.constant_(x.conj().imag, 2.0),
    "seeded": lambda x: wi.init.normal_(x.conj().imag, seed=7),
    "conj seeded": lambda x: wi.init.normal_(x.conj(), seed=7),
    "item": lambda x: x.conj().imag.fill_(x.conj().imag[0, 0].item()),
}
ALL = READ | {f"into: {name}": into(write) for name, write in WRITTEN.items()}


def plainly(tensor: Tensor) -> Tensor:
    return tensor.detach().resolve_conj().resolve_neg()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("made", [torch.randn, torch.rand, torch.zeros, torch.ones], ids=lambda made: made.__name__)
def test_they_mean_what_they_mean_in_eager_code(name: str, made: Any) -> None:
    def build() -> Any:
        x = made(2, 2, dtype=torch.complex64)
        return {"x": x, "w": ALL[name](x)}

    recording, holder = recorded(build)
    values = recording.values(holder, seed=3)
    recording.materialize_(holder, seed=3)
    expected = ALL[name](holder.x.clone())
    assert (holder.w.is_conj(), holder.w.is_neg()) == (expected.is_conj(), expected.is_neg())
    assert holder.w.stride() == expected.stride()
    assert same_bits(plainly(holder.w), plainly(expected))
    assert same_bits(plainly(values("w")), plainly(expected))


@pytest.mark.parametrize("write", ["normal_", "uniform_", "trunc_normal_"])
def test_draws_through_them(write: str) -> None:
    """The values are random, and the same wherever they are read."""

    def build() -> Any:
        x = torch.zeros(3, 400, dtype=torch.complex64)
        with torch.no_grad():
            if write == "trunc_normal_":
                nn.init.trunc_normal_(x.conj().imag)
            else:
                getattr(x.conj().imag, write)()
        return {"x": x, "again": x.clone(), "negative": x.conj().imag.clone()}

    recording, holder = recorded(build)
    recording.materialize_(holder, seed=3)
    assert same_bits(holder.again, holder.x)
    assert same_bits(holder.negative, -holder.x.imag)
    assert not holder.x.real.any()
    drawn = holder.negative
    assert drawn.std() > 0.2
    assert write != "uniform_" or (drawn.min() >= 0 and drawn.max() < 1)


def test_parameters_of_them() -> None:
    with wi.deferred() as recording:
        m: Any = nn.Module()
        x = torch.randn(4, dtype=torch.complex64)
        m.x, m.conjugate, m.negative = nn.Parameter(x), nn.Parameter(x.conj()), nn.Parameter(x.conj().imag)
    recording.materialize_(m, seed=0)
    assert m.conjugate.is_conj()
    assert m.negative.is_neg()
    assert m.conjugate.data_ptr() == m.x.data_ptr()
    assert torch.equal(m.conjugate, m.x.conj())
    assert torch.equal(m.negative, -m.x.imag)


def test_unwritten_ones_are_named() -> None:
    recording, holder = recorded(lambda: torch.empty(3, dtype=torch.complex64).conj())
    assert recording.unwritten(holder) == ["w"]
    with pytest.raises(ValueError, match="deferred: the code must write every tensor it keeps"):
        recording.materialize_(holder, seed=0)
