"""The smallest words of each row: found by counting, and the same as by sorting."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import weightinit_cuda as wi
from weightinit_cuda.engine.sparse import smallest


def by_sorting(words: Tensor, number: int) -> Tensor:
    order = words.sort(dim=1, stable=True).indices[:, :number]
    return torch.zeros_like(words, dtype=torch.bool).scatter_(1, order, True)


def random_words(n: int, m: int) -> Tensor:
    return torch.randint(-(2**31), 2**31, (n, m), dtype=torch.int32, generator=torch.Generator().manual_seed(n * m))


WORDS: dict[str, Tensor] = {
    "few": random_words(5, 7),
    "many": random_words(300, 401),
    "one row": random_words(1, 40_000),
    "rows of one": random_words(40_000, 1),
    "ties": random_words(200, 300) // 2**26 * 2**26,
    "all the same": torch.full((150, 200), 5, dtype=torch.int32),
    "the ends of the range": torch.tensor([[-(2**31), 2**31 - 1]] * 10_000, dtype=torch.int32),
    "the largest alone": torch.full((150, 200), 2**31 - 1, dtype=torch.int32),
    "far from uniform": (random_words(150, 200).long() // 2**20 + 2**30).int(),
}


@pytest.mark.parametrize("name", WORDS)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_the_smallest_words(name: str, share: float) -> None:
    words = WORDS[name]
    number = max(1, round(share * words.shape[1]))
    assert torch.equal(smallest(words, number), by_sorting(words, number))


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float8_e5m2, torch.complex64, torch.complex128]
)
def test_zeros_of_large_matrices_are_those_of_small_parts(dtype: torch.dtype) -> None:
    """A large matrix counts, parts of a few columns select; zeros are +0."""
    whole = wi.init.sparse_(torch.empty(300, 90, dtype=dtype), 0.3, std=1.0, seed=1)
    values = torch.view_as_real(whole) if dtype.is_complex else whole.double()
    zeros = (values == 0).view(300, 90, -1).all(2)
    assert (zeros.sum(0) == 90).all()
    assert not values.signbit()[(values == 0)].any()
    for begin in range(0, 90, 30):
        part = torch.empty(300, 30, dtype=dtype)
        wi.init.sparse_(part, 0.3, std=1.0, seed=1, global_shape=(300, 90), offset=(0, begin))
        assert torch.equal(part.view(torch.uint8), whole[:, begin : begin + 30].contiguous().view(torch.uint8))
