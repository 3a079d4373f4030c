"""The GPU gives the CPU's bits: every distribution, dtype and layout; large tensors; bits() itself."""

from __future__ import annotations

import pytest
import torch
from bitwise import same_bits
from conftest import each_distribution, each_dtype
from on_device import LAYOUTS, Layout, base, fill, on_cpu, on_gpu, wrong_memory

from weightinit_cuda import engine
from weightinit_cuda.engine.job import FillJob
from weightinit_cuda.numerics.combine import ADD, Combine, lerp
from weightinit_cuda.numerics.distributions import Distribution, Normal, TruncNormal, Uniform
from weightinit_cuda.tensors.boxes import Region

pytestmark = [*on_gpu]


def test_the_compiled_kernels_are_used() -> None:
    device = torch.empty(1, device="cuda").device  # a device is asked only once something is on it
    assert engine.backend_info().cuda == "native"
    assert engine.has_kernels(device)


@each_dtype
@each_distribution
def test_every_layout(distribution: Distribution, dtype: torch.dtype) -> None:
    wrong = {name: n for name, layout in LAYOUTS.items() if (n := wrong_memory(layout, distribution, dtype))}
    assert not wrong, f"bytes that differ from the CPU's: {wrong}"


@each_dtype
@each_distribution
@pytest.mark.parametrize("combine", [ADD, lerp(0.3)], ids=["add", "lerp"])
def test_combination(distribution: Distribution, dtype: torch.dtype, combine: Combine) -> None:
    """Elements of any bits: aligned, misaligned, strided and part of a larger tensor."""
    generator = torch.Generator().manual_seed(0)
    memory = torch.randint(0, 256, (200_003 * dtype.itemsize,), dtype=torch.uint8, generator=generator).view(dtype)
    made = []
    for device in ("cpu", "cuda"):
        x = memory.to(device, copy=True)
        parts = (x[:70_000], x[70_001:140_000].reshape(-1, 3).t()[:, :20_000], x[140_000:200_000].view(300, 200)[7:, 3:])
        regions = (None, None, Region((400, 300), (50, 60)))
        engine.fill(
            [FillJob(part, distribution, 20, 3, region, "", combine) for part, region in zip(parts, regions, strict=True)]
        )
        made.append(x)
    assert same_bits(made[1], made[0])


@pytest.mark.parametrize("seed", [0, 1, 2**63, 2**64 - 1])
@pytest.mark.parametrize("stream", [0, 2**32, 2**64 - 1])
def test_seeds_and_streams(seed: int, stream: int) -> None:
    tensor = torch.empty(100_003, device="cuda")
    fill(tensor, Normal(0.0, 1.0), seed, stream)
    assert same_bits(tensor, on_cpu(Normal(0.0, 1.0), torch.float32, (100_003,), seed, stream))


@pytest.mark.parametrize("distribution", [Uniform(-1.0, 1.0), Normal(0.0, 1.0), TruncNormal(0.0, 1.0, -2.0, 2.0)])
def test_many_words(distribution: Distribution) -> None:
    """2^27 values: one word in 32, and so nearly all branches of the transforms."""
    tensor = torch.empty(2**27, device="cuda")
    fill(tensor, distribution)
    assert same_bits(tensor, on_cpu(distribution, torch.float32, (2**27,)))


def require_memory(needed: int) -> None:
    free, _ = torch.cuda.mem_get_info()
    if free < needed:
        pytest.skip(f"needs {needed >> 30} GiB of GPU memory, {free >> 30} are free")


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.bfloat16], ids=["float8_e4m3fn", "bfloat16"])
@pytest.mark.parametrize("shift", [0, 1], ids=["aligned", "misaligned"])
def test_more_than_2_32_elements(dtype: torch.dtype, shift: int) -> None:
    """Pieces against the CPU; then every byte against fills of parts, whose indices are small."""
    n, distribution = 2**32 + 2**20 + 5, Normal(0.0, 1.0)
    require_memory((n + 2**31) * dtype.itemsize)
    tensor = torch.empty(n + shift, dtype=dtype, device="cuda")[shift:]
    fill(tensor, distribution)
    size = 50_001
    for start in (0, 2**31 - 777, n // 2 + 3, 2**32 - 777, n - size):
        expected = on_cpu(distribution, dtype, (size,), region=Region((n,), (start,)))
        assert same_bits(tensor[start : start + size], expected), f"from {start}"
    for start in range(0, n, 2**29):
        part = tensor[start : start + 2**29]
        again = torch.empty(part.shape, dtype=dtype, device="cuda")
        fill(again, distribution, region=Region((n,), (start,)))
        assert torch.equal(part.view(torch.uint8), again.view(torch.uint8)), f"from {start}"  # on the device


def test_strided_beyond_2_32() -> None:
    rows, columns, dtype, distribution = 65537, 65539, torch.float8_e5m2, Uniform(-1.0, 1.0)
    require_memory(3 * rows * columns)
    memory = base(rows * (columns + 1), dtype, "cuda").view(rows, columns + 1)
    fill(memory[:, :columns], distribution)
    for row in (0, 32768, rows - 1):
        expected = on_cpu(distribution, dtype, (1, columns), region=Region((rows, columns), (row, 0)))
        assert same_bits(memory[row : row + 1, :columns], expected), f"row {row}"
    assert bool((memory.view(torch.uint8)[:, columns] == 0xA5).all()), "the gaps"


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=["complex64", "complex128"])
def test_lazy_views(dtype: torch.dtype) -> None:
    for lazily in (torch.Tensor.conj, lambda x: x.conj().imag):
        views = [lazily(base(1001, dtype, device)) for device in ("cpu", "cuda")]
        for view in views:
            fill(view, Normal(0.0, 1.0))
        assert same_bits(views[1].resolve_conj().resolve_neg(), views[0].resolve_conj().resolve_neg())


def test_layouts_are_what_they_say() -> None:
    """Among them are those the kernel treats in different ways."""
    for name in ("misaligned", "transposed", "channels_last", "0-dim"):
        layout: Layout = LAYOUTS[name]
        view = layout.view(base(layout.elements, torch.float32, "cuda"))
        assert view.is_contiguous() == (name in ("misaligned", "0-dim"))
        assert (view.data_ptr() % 16 != 0) == (name == "misaligned")
