"""Fingerprints, regenerated slices and verification on a GPU: the same as on the CPU."""

from __future__ import annotations

import pytest
import torch
from bitwise import same_bits
from on_device import on_gpu

import weightinit_cuda as wi
from weightinit_cuda.checkpoints.fingerprint import combine, tensor_hash
from weightinit_cuda.numerics.distributions import Normal
from weightinit_cuda.plans.entry import Entry
from weightinit_cuda.plans.plan import Plan
from weightinit_cuda.tensors.boxes import Region

pytestmark = [*on_gpu]

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float8_e4m3fn, torch.complex64, torch.int64, torch.bool)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (7,), (3, 5000), (90, 500, 3, 3), (1 << 23,)], ids=str)
def test_hashes(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    tensor = torch.randint(-9, 9, shape, generator=generator).to(dtype)
    assert tensor_hash(tensor.cuda()) == tensor_hash(tensor)
    if len(shape) == 2:
        view = tensor.cuda().T.contiguous().T
        assert tensor_hash(view) == tensor_hash(tensor)
        parts = [tensor_hash(view[:, a:b], Region(shape, (0, a))) for a, b in ((0, 1500), (1500, 5000))]
        assert combine(parts) == tensor_hash(tensor)


def test_deterministic_mode() -> None:
    tensor = torch.arange(90_000).view(300, 300).float()
    torch.use_deterministic_algorithms(True)
    try:
        assert tensor_hash(tensor.cuda()) == tensor_hash(tensor)
    finally:
        torch.use_deterministic_algorithms(False)


def test_largest_sums_are_exact() -> None:
    """Float64 matrix products of the GPU's library, at the edge of what float64 holds."""
    tensor = torch.full((64, 8, 1024), -(2**15), dtype=torch.int16)
    assert tensor_hash(tensor.cuda()) == tensor_hash(tensor)


def test_plans() -> None:
    plan = Plan((Entry("w", (300, 4000), torch.bfloat16, Normal(0.0, 0.02), 7, "test"),), seed=3)
    tensors = {"w": torch.empty(300, 4000, dtype=torch.bfloat16, device="cuda")}
    assert wi.verify(plan, wi.restore_(tensors, plan)).ok
    assert wi.fingerprint(tensors) == wi.fingerprint({"w": tensors["w"].cpu()})
    index = (slice(5, 290, 7), slice(None, None, 3))
    assert same_bits(wi.regenerate(plan, "w", index, device="cuda"), tensors["w"][index].cpu().contiguous())
