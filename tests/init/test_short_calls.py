"""Short calls: the same bits, draws and versions as the careful way, and declined where that one does something else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from bitwise import differing
from conftest import REAL_DTYPES
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import weightinit_cuda as wi
from weightinit_cuda import engine
from weightinit_cuda.engine import drop_in
from weightinit_cuda.init import patching, schemes
from weightinit_cuda.init.catalog import CATALOG
from weightinit_cuda.numerics.distributions import Normal, Uniform

NORMAL = CATALOG["normal_"]
NAMES = "mean", "std"

needs_kernels = pytest.mark.skipif(not engine.backend.native, reason="no compiled kernels")

CALLS: dict[str, Callable[[Tensor], Any]] = {
    "uniform_": lambda t: nn.init.uniform_(t),
    "uniform_, a, b": lambda t: nn.init.uniform_(t, -0.5, 2),
    "normal_": lambda t: nn.init.normal_(t, std=0.02),
    "trunc_normal_": lambda t: nn.init.trunc_normal_(t, std=0.5),
    "xavier_uniform_": lambda t: nn.init.xavier_uniform_(t, gain=2),
    "xavier_normal_": lambda t: nn.init.xavier_normal_(t),
    "kaiming_uniform_": lambda t: nn.init.kaiming_uniform_(t, a=5**0.5),
    "kaiming_normal_": lambda t: nn.init.kaiming_normal_(t, mode="fan_out", nonlinearity="relu"),
    "orthogonal_": lambda t: nn.init.orthogonal_(t),
    "sparse_": lambda t: nn.init.sparse_(t, 0.5),
    "no width": lambda t: nn.init.uniform_(t, 3.0, 3.0),
    "zeros_": lambda t: nn.init.zeros_(t.fill_(3.0)),
    "ones_": lambda t: nn.init.ones_(t),
    "constant_": lambda t: nn.init.constant_(t, -0.0),
    "method": lambda t: t.normal_(),
    "method, mean": lambda t: t.normal_(1.0),
    "method, mean, std": lambda t: t.normal_(1.0, 2),
    "method, names": lambda t: t.normal_(std=0.02, mean=-1),
    "method, one name": lambda t: t.uniform_(-1.0, to=3.0),
    "method, from": lambda t: t.uniform_(**{"from": -1.0}),
}


@pytest.fixture
def careful(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    def take_the_careful_way() -> None:
        monkeypatch.setattr(patching, "called", lambda *_: False)
        monkeypatch.setattr(patching, "short_method", lambda *_: False)

    yield take_the_careful_way
    monkeypatch.undo()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_short_calls_are_as_careful_ones(
    call: Callable[[Tensor], Any], dtype: torch.dtype, careful: Callable[[], None]
) -> None:
    """Twice: what a call means is remembered."""
    if call in (CALLS["orthogonal_"], CALLS["sparse_"]) and dtype == torch.bfloat16:
        pytest.skip("as slow as it is the same")
    made = []
    for is_careful in (False, True):
        if is_careful:
            careful()
        tensors = [torch.zeros(6, 4, dtype=dtype) for _ in range(2)]
        torch.manual_seed(3)
        with wi.patched():
            for tensor in tensors:
                assert call(tensor) is tensor
        made.append((tensors, torch.get_rng_state(), [tensor._version for tensor in tensors]))
    (short, state, versions), (long, long_state, long_versions) = made
    assert all(differing(a, b) == 0 for a, b in zip(short, long, strict=True))
    assert torch.equal(state, long_state)
    assert versions == long_versions


@needs_kernels
@pytest.mark.parametrize("dtype", REAL_DTYPES, ids=str)
def test_constants_draw_nothing(dtype: torch.dtype) -> None:
    state = torch.get_rng_state()
    for name, value in (("zeros_", 0.0), ("ones_", 1.0)):
        tensor = nn.Parameter(torch.full((5, 3), 7.0).to(dtype))
        assert drop_in.called(CATALOG[name], (tensor,), 1)
        assert differing(tensor.detach(), torch.full((5, 3), value).to(dtype)) == 0
        assert tensor._version == 1
        assert not drop_in.called(CATALOG[name], (torch.zeros(2**15 + 1),), 1)
    assert torch.equal(torch.get_rng_state(), state)


def short_method(tensor: Any, *args: Any, **named: Any) -> bool:
    return drop_in.method(NORMAL, NAMES, tensor, args, named)


def short_function(tensor: Any, *args: Any) -> bool:
    return drop_in.called(NORMAL, (tensor, *args), 3)


@needs_kernels
def test_what_is_plain_is_taken() -> None:
    leaf = nn.Parameter(torch.zeros(3))
    assert short_method(torch.zeros(3))
    assert short_method(torch.zeros(3), 1.0, std=2.0)
    assert short_function(leaf, 0.0, 1.0, None)
    assert not short_method(leaf)  # torch has an error for this
    with torch.no_grad():
        assert short_method(leaf)


@needs_kernels
def test_declined_calls_draw_and_write_nothing() -> None:
    class Subclass(Tensor):
        pass

    class Seen(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return func(*args, **(kwargs or {}))

    tensor = torch.zeros(3)
    nested = torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])
    state = torch.get_rng_state()
    for arguments in (("mean",), (0.0, -1.0), (None,), (0.0, 1.0, 2.0), (tensor,), ([],)):
        assert not short_method(tensor, *arguments)
    for named in ({"generator": None}, {"mean": 0.0, "sigma": 1.0}, {"a": 0.0}, {"std": -1.0}):
        assert not short_method(tensor, **named)
    assert not short_method(tensor, 0.0, mean=1.0)  # twice
    for other in (nested, tensor.as_subclass(Subclass), torch.zeros(0), torch.zeros(3, 2).T, torch.zeros(2, device="meta"), 3):
        assert not short_method(other)
        assert not short_function(other, 0.0, 1.0, None)
    assert not short_function(tensor, 0.0, 1.0, torch.Generator())
    assert not short_function(tensor, 0.0, -1.0, None)
    with FlopCounterMode(display=False):
        assert not short_method(tensor)
        assert not short_function(tensor, 0.0, 1.0, None)
        assert not drop_in.drawn(tensor, schemes.normal_, (torch.float32, 0.0, 1.0))
    with Seen():
        assert not short_method(tensor)
        assert not short_function(tensor, 0.0, 1.0, None)
    with torch.autograd.forward_ad.dual_level():
        assert not short_method(tensor)
    torch.vmap(lambda x: (x, declined_under_transforms(tensor))[0])(torch.zeros(2))
    assert not drop_in.drawn(tensor, schemes.normal_, (torch.float64, 0.0, 1.0))  # another dtype than the tensor's
    assert not drop_in.drawn(tensor, schemes.normal_, (torch.float32, 0.0, -1.0))
    assert not tensor.any()
    assert torch.equal(torch.get_rng_state(), state)


def declined_under_transforms(tensor: Tensor) -> None:
    assert not short_method(tensor)
    assert not short_function(tensor, 0.0, 1.0, None)


@needs_kernels
@pytest.mark.parametrize(
    "wrong",
    [
        lambda: drop_in.drawn(torch.zeros(3)),  # type: ignore[call-arg]
        lambda: drop_in.drawn(torch.zeros(3), schemes.normal_, ()),
        lambda: drop_in.drawn(torch.zeros(3), schemes.normal_, [torch.float32]),  # type: ignore[arg-type]
        lambda: drop_in.called(NORMAL, (), 0),
        lambda: drop_in.called(NORMAL, (torch.zeros(3),), 2),
        lambda: drop_in.called(NORMAL, (torch.zeros(3),), -1),
        lambda: drop_in.called(NORMAL, (torch.zeros(3),), "one"),  # type: ignore[arg-type]
        lambda: drop_in.method(NORMAL, ("mean",), torch.zeros(3), (), {}),  # type: ignore[arg-type]
        lambda: drop_in.method(NORMAL, NAMES, torch.zeros(3), [], {}),  # type: ignore[arg-type]
    ],
)
def test_slips_are_refused(wrong: Callable[[], Any]) -> None:
    with pytest.raises(TypeError):
        wrong()


def test_torch_words_what_cannot_be_hashed() -> None:
    with pytest.raises(TypeError, match=r"^uniform_\(\): argument 'from'"):
        wi.init.uniform_(torch.empty(3), ([],))  # type: ignore[arg-type]


def test_numbers_are_remembered_by_type_and_value() -> None:
    """Among them are equal ones that torch refuses, and many more than are remembered."""
    tensor, expected = torch.zeros(5), torch.zeros(5)
    with wi.patched():
        for number in (1, 1.0, *[n / 7 for n in range(1500)], 1, 1.0):
            torch.manual_seed(1)
            nn.init.uniform_(tensor, 0.0, number)
            torch.manual_seed(1)
            wi.init.uniform_(expected, 0.0, float(number), seed=None)
            assert differing(tensor, expected) == 0
        for wrong in ("1", None, [1.0]):
            with pytest.raises(TypeError):
                nn.init.uniform_(tensor, 0.0, wrong)  # type: ignore[arg-type]


def test_the_reference_makes_the_same(backend: str) -> None:
    made, expected = torch.zeros(9), torch.zeros(9)
    with wi.patched():
        torch.manual_seed(5)
        made.normal_()
        nn.init.uniform_(made[:4])
    torch.manual_seed(5)
    for tensor, distribution in ((expected, Normal(0.0, 1.0)), (expected[:4], Uniform(0.0, 1.0))):
        engine.fill_tensor(tensor, distribution, engine.draw_seed(tensor))
    assert differing(made, expected) == 0
    if backend == "reference":
        with pytest.MonkeyPatch.context() as monkeypatch, wi.patched():
            monkeypatch.setattr(patching, "called", None)
            monkeypatch.setattr(patching, "short_method", None)
            nn.init.uniform_(made.normal_())
