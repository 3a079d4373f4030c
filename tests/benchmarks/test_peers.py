"""Agreement with other implementations of the same random numbers, where they are installed."""

from __future__ import annotations

import pytest
import torch

import weightinit_cuda as wi

pytestmark = pytest.mark.peer


@pytest.mark.parametrize("seed", [0, 42, 2**63 + 5])
@pytest.mark.parametrize("shape", [(1,), (10007,), (33, 65)])
def test_unit_uniform_is_torchs_stateless_one(seed: int, shape: tuple[int, ...]) -> None:
    """float32, stream 0: bit for bit ``torch.func._random.uniform`` (torch >= 2.14 on the CPU)."""
    stateless = pytest.importorskip("torch.func._random", reason=f"torch {torch.__version__} has no torch.func._random")
    try:
        theirs = stateless.uniform(stateless.key(seed), *shape)
    except (NotImplementedError, RuntimeError) as error:
        pytest.skip(f"torch {torch.__version__} has no stateless uniform on the CPU: {error}")
    ours = wi.init.uniform_(torch.empty(shape), seed=seed)
    assert torch.equal(ours.view(torch.int32), theirs.view(torch.int32))
