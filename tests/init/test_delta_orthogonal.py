"""delta_orthogonal_: an orthogonal matrix at the centre, a convolution that keeps norms, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import weightinit_cuda as wi

SHAPES = [(6, 4, 3), (6, 6, 3, 5), (5, 3, 4, 2), (4, 4, 3, 3, 3), (7, 2, 1, 1)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.complex64])
def test_the_centre_is_orthogonal_s_matrix_and_the_rest_is_zero(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    w = wi.init.delta_orthogonal_(torch.full(shape, 7.0, dtype=dtype), 2.0, seed=3, stream="conv.weight")
    matrix = wi.init.orthogonal_(torch.empty(shape[:2], dtype=dtype), 2.0, seed=3, stream="conv.weight")
    centre = tuple((size - 1) // 2 for size in shape[2:])
    assert torch.equal(w[(..., *centre)], matrix)
    assert w.count_nonzero() == matrix.count_nonzero()


@pytest.mark.parametrize("conv", [nn.Conv1d, nn.Conv2d, nn.Conv3d])
@pytest.mark.parametrize("size", [3, 4])
def test_a_convolution_keeps_every_norm(conv: type[nn.Module], size: int) -> None:
    """Of even kernels, too: padding "same" puts the odd one behind, so the centre is the place before the middle."""
    layer = conv(3, 5, size, padding="same", bias=False).double()
    wi.init.delta_orthogonal_(layer.weight, gain=0.5, seed=0)
    x = torch.randn(2, 3, *(6,) * (layer.weight.dim() - 2), dtype=torch.float64)
    torch.testing.assert_close(layer(x).square().sum(1), 0.25 * x.square().sum(1))


def test_deep_nets_keep_their_signal() -> None:
    """A linear net of 100 convolutions: signal and gradient as at the first, where orthogonal_ loses them."""
    totals = {}
    for fill in (wi.init.delta_orthogonal_, wi.init.orthogonal_):
        net = nn.Sequential(*(nn.Conv2d(8, 8, 3, padding="same", padding_mode="circular", bias=False) for _ in range(100)))
        for i, layer in enumerate(net):
            fill(layer.weight, seed=0, stream=f"{i}")
        report = wi.probe(net, torch.randn(8, 8, 6, 6, generator=torch.Generator().manual_seed(0)))
        totals[fill] = report.verdict, [row.signal for row in report.rows if row.kind == "weight"]
    verdict, signals = totals[wi.init.delta_orthogonal_]
    assert verdict == "ok"
    assert signals == [pytest.approx(signals[0], rel=1e-4)] * 100
    verdict, signals = totals[wi.init.orthogonal_]
    assert verdict == "WARN"
    assert not 0.5 < signals[-1] / signals[0] < 2


def test_seeds() -> None:
    def filled(**how: object) -> Tensor:
        return wi.init.delta_orthogonal_(torch.empty(4, 4, 3), **how)  # type: ignore[arg-type]

    torch.manual_seed(5)
    first, second = filled(), filled()
    assert not torch.equal(first, second)
    torch.manual_seed(5)
    assert torch.equal(filled(), first)
    assert torch.equal(filled(generator=torch.Generator().manual_seed(1)), filled(generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("shape", [(4, 4), (4,), (2, 3, 3), (4, 4, 1, 1, 1, 1)])
def test_refused_shapes(shape: tuple[int, ...]) -> None:
    w = torch.ones(shape)
    with pytest.raises(ValueError, match=r"delta_orthogonal_: .* required, got"):
        wi.init.delta_orthogonal_(w)
    assert torch.equal(w, torch.ones(shape))
    whole = torch.ones(4, 4, 3, dtype=torch.int32)
    with pytest.raises((RuntimeError, NotImplementedError, TypeError, ValueError)):
        wi.init.delta_orthogonal_(whole)
    assert bool((whole == 1).all())


def test_meta_empty_and_parameters() -> None:
    assert wi.init.delta_orthogonal_(torch.empty(4, 4, 3, device="meta")).is_meta
    assert wi.init.delta_orthogonal_(torch.empty(4, 0, 3)).numel() == 0
    parameter = nn.Parameter(torch.empty(4, 4, 3))
    assert wi.init.delta_orthogonal_(parameter) is parameter
    assert parameter.requires_grad
    assert parameter.grad_fn is None
