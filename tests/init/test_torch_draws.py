"""``patched(draws="ours")``: ``torch.randn`` and its like give ours in every form that torch takes; nothing else changes."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import weightinit_cuda as wi
from weightinit_cuda.init import patching
from weightinit_cuda.numerics.distributions import Normal

NAMES = ("randn", "rand", "randn_like", "rand_like", "normal")
TORCHS = {name: getattr(torch, name) for name in NAMES}
randn = torch.randn  # bound before


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    assert all(getattr(torch, name) is torchs for name, torchs in TORCHS.items())
    assert patching._drawing == patching._users == 0


def seeded(draw: Callable[[], Any]) -> Any:
    torch.manual_seed(0)
    return draw()


def is_ours(draw: Callable[[], Tensor] = lambda: torch.randn(5)) -> bool:
    """Whether a draw of five normal values is ours; else it must be torch's."""
    drawn = seeded(draw)
    ours = seeded(lambda: wi.init.normal_(torch.empty(5)))
    assert torch.equal(drawn, ours) or torch.equal(drawn, seeded(lambda: randn(5)))
    return torch.equal(drawn, ours)


X = torch.zeros(2, 3, 4, 5).transpose(1, 3)
FORMS: dict[str, tuple[Callable[[], Tensor], Callable[[Tensor], Tensor]]] = {
    "randn(2, 3)": (lambda: torch.randn(2, 3), wi.init.normal_),
    "randn((2, 3))": (lambda: torch.randn((2, 3)), wi.init.normal_),
    "randn([2])": (lambda: torch.randn([2]), wi.init.normal_),
    "randn(size=)": (lambda: torch.randn(size=(2, 3)), wi.init.normal_),
    "randn(Size)": (lambda: torch.randn(torch.Size((3, 2))), wi.init.normal_),
    "randn(())": (lambda: torch.randn(()), wi.init.normal_),
    "randn(tensor)": (lambda: torch.randn(torch.tensor(3), 2), wi.init.normal_),
    "no elements": (lambda: torch.randn(0, 3), wi.init.normal_),
    "float64": (lambda: torch.randn(4, dtype=torch.float64), wi.init.normal_),
    "bfloat16": (lambda: torch.randn(4, dtype=torch.bfloat16, device="cpu", layout=torch.strided), wi.init.normal_),
    "complex64": (lambda: torch.randn(4, dtype=torch.complex64), wi.init.normal_),
    "requires_grad": (lambda: torch.randn(4, requires_grad=True), wi.init.normal_),
    "generator=None": (lambda: torch.randn(4, generator=None, pin_memory=False), wi.init.normal_),
    "rand": (lambda: torch.rand(3, 5), wi.init.uniform_),
    "rand, float16": (lambda: torch.rand((5,), dtype=torch.float16, requires_grad=True), wi.init.uniform_),
    "rand, complex": (lambda: torch.rand(5, dtype=torch.complex128), wi.init.uniform_),
    "randn_like": (lambda: torch.randn_like(X), wi.init.normal_),
    "randn_like(input=)": (lambda: torch.randn_like(input=X, dtype=torch.float64), wi.init.normal_),
    "of integers": (lambda: torch.randn_like(torch.arange(4), dtype=torch.float32, requires_grad=True), wi.init.normal_),
    "of a parameter": (lambda: torch.randn_like(nn.Parameter(torch.zeros(3))), wi.init.normal_),
    "memory_format": (lambda: torch.rand_like(X, memory_format=torch.channels_last), wi.init.uniform_),
    "rand_like": (lambda: torch.rand_like(X, device="cpu", layout=torch.strided), wi.init.uniform_),
    "normal": (lambda: torch.normal(1.0, 0.5, (4, 2)), lambda x: wi.init.normal_(x, 1.0, 0.5)),
    "normal by name": (
        lambda: torch.normal(mean=1, std=2, size=[4], dtype=torch.float64, requires_grad=True),
        lambda x: wi.init.normal_(x, 1, 2),
    ),
    "inference": (torch.inference_mode()(lambda: torch.randn(3)), torch.inference_mode()(lambda x: wi.init.normal_(x))),
}


def about(x: Tensor) -> tuple[Any, ...]:
    autograd = x.requires_grad, x.is_leaf, x.grad_fn, x.is_inference()
    return type(x), x.shape, x.dtype, x.device, x.stride(), x.layout, *autograd


@pytest.mark.parametrize("form", FORMS)
def test_a_draw_is_torchs_tensor_with_our_values(form: str) -> None:
    draw, fill = FORMS[form]
    torchs = seeded(draw)
    with wi.patched(draws="ours"):
        ours = seeded(draw)
        after = torch.get_rng_state()
    assert about(ours) == about(torchs)
    with torch.inference_mode(torchs.is_inference()):
        expected = seeded(lambda: fill(torch.empty_like(torchs.detach())))
    assert torch.equal(ours, expected)
    assert torch.equal(after, torch.get_rng_state())
    assert ours.numel() == 0 or not torch.equal(ours, torchs)
    assert torch.equal(seeded(draw), torchs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.complex64])
def test_distributions(dtype: torch.dtype) -> None:
    n = 200_000
    with wi.patched(draws="ours"):
        torch.manual_seed(0)
        normal, uniform, moved = (
            torch.randn(n, dtype=dtype),
            torch.rand(n, dtype=dtype),
            torch.normal(3.0, 0.5, (n,), dtype=dtype),
        )
    six = 6 / math.sqrt(n)  # standard errors
    real = [part.double() for part in ((normal.real, normal.imag) if dtype.is_complex else (normal,))]
    assert all(abs(x.mean()) < six and abs(x.var() - 1 / len(real)) < 2 * six for x in real)
    for x in (uniform.real, uniform.imag) if dtype.is_complex else (uniform,):
        assert x.min() >= 0
        assert x.max() < 1
        assert abs(x.double().mean() - 0.5) < six / math.sqrt(12)
    mean = 3.0 + 3.0j if dtype.is_complex else 3.0  # as torch has it
    assert abs(moved.to(torch.complex128).mean() - mean) < six
    assert abs(moved.to(torch.complex128).std() - 0.5) < six


WITH_ERRORS: dict[str, Callable[[], Any]] = {
    "an integer dtype": lambda: torch.randn(3, dtype=torch.int32),
    "a negative size": lambda: torch.randn(-1),
    "no size": lambda: torch.randn(),
    "an unknown name": lambda: torch.randn(2, strange=1),
    "no generator": lambda: torch.rand(2, generator=3),  # type: ignore[call-overload]
    "a size that is a number": lambda: torch.normal(0.0, 1.0, 3),  # type: ignore[call-overload]
    "twice": lambda: torch.normal(0.0, 1.0, (3,), mean=0.0),  # type: ignore[call-overload]
    "no std": lambda: torch.normal(0.0, -1.0, (3,)),
    "like integers": lambda: torch.rand_like(torch.arange(3)),
    "like nothing": lambda: torch.rand_like(None),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("case", WITH_ERRORS)
def test_errors_are_torchs(case: str) -> None:
    with pytest.raises(Exception) as torchs:  # noqa: PT011 its own
        WITH_ERRORS[case]()
    with pytest.raises(torchs.type) as ours, wi.patched(draws="ours"):
        WITH_ERRORS[case]()
    assert str(ours.value) == str(torchs.value)


def with_grad_of_functorch() -> Tensor:
    return torch.func.vmap(lambda x: x + torch.randn(5), randomness="same")(torch.zeros(1, 5))[0]


class Subclass(Tensor):
    pass


LEFT: dict[str, Callable[[], Tensor]] = {
    "bound before": lambda: randn(5),
    "a generator": lambda: torch.randn(5, generator=torch.default_generator),
    "out=": lambda: torch.randn(5, out=torch.empty(5)),
    "a subclass": lambda: torch.randn_like(torch.zeros(5).as_subclass(Subclass)).as_subclass(Tensor),
    "tensors of means": lambda: torch.normal(torch.zeros(5), torch.ones(5)),
    "a tensor of stds": lambda: torch.normal(0.0, torch.ones(5)),
    "vmap": with_grad_of_functorch,
}


@pytest.mark.parametrize("case", LEFT)
def test_what_is_left_to_torch(case: str) -> None:
    with wi.patched(draws="ours"):
        assert is_ours()
        assert not is_ours(LEFT[case])


def test_default_dtypes_and_devices() -> None:
    default = torch.get_default_dtype()
    with wi.patched(draws="ours"):
        torch.set_default_dtype(torch.float64)
        try:
            assert torch.randn(3).dtype == torch.normal(0.0, 1.0, (3,)).dtype == torch.float64
        finally:
            torch.set_default_dtype(default)
        with torch.device("meta"):
            assert torch.randn(3).is_meta
            assert not torch.randn(3, device="cpu").is_meta
            assert torch.rand_like(torch.empty(3)).is_meta
        torch.set_default_device("meta")
        try:
            assert torch.rand(3).is_meta
            assert torch.normal(0.0, 1.0, (3,)).device == TORCHS["normal"](0.0, 1.0, (3,)).device
            torch.set_default_device("cpu")
            assert is_ours()
        finally:
            torch.set_default_device(None)
    with torch.device("meta"), wi.patched(draws="ours"):
        assert torch.rand(3).is_meta
    with torch.device("meta"):
        assert torch.randn(3).is_meta


class Seen(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.functions: list[Any] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.functions.append(func)
        return func(*args, **(kwargs or {}))


def test_modes_see_torchs_function_and_get_our_values() -> None:
    with wi.patched(draws="ours"), Seen() as mode:
        seeded(lambda: torch.randn(5))
    assert randn in mode.functions
    with wi.patched(draws="ours"):
        with Seen():
            drawn = seeded(lambda: torch.randn(5))
        assert torch.equal(drawn, seeded(lambda: torch.randn(5)))


def test_under_dispatch_modes_ours_are_operators() -> None:
    from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx

    with wi.patched(draws="ours"):
        with FakeTensorMode():
            assert isinstance(torch.randn(3), FakeTensor)
        graph = make_fx(lambda x: x + torch.randn(5))(torch.zeros(5))
        assert "weightinit_cuda.normal_" in graph.code
        assert is_ours(lambda: graph(torch.zeros(5)))


def test_options_nest_and_end() -> None:
    assert not is_ours()
    with wi.patched():
        assert not is_ours()
        with wi.patched(draws="ours"):
            assert is_ours()
            with wi.patched():
                assert not is_ours()
            assert is_ours()
        assert torch.randn is randn
    wi.patch(draws="ours")
    try:
        assert is_ours()
        with wi.patched(draws="torch"):
            assert not is_ours()
    finally:
        wi.unpatch()
    assert not is_ours()
    assert wi.patched(draws="ours")(is_ours)()


def test_generators() -> None:
    def drawn() -> Tensor:
        return torch.randn(5, generator=torch.Generator().manual_seed(1))

    plain = drawn()
    with wi.patched(draws="ours"):
        assert torch.equal(drawn(), plain)
    with wi.patched(generators="ours"):
        assert torch.equal(drawn(), plain)
    with wi.patched(draws="ours", generators="ours"):
        assert torch.equal(drawn(), wi.init.normal_(torch.empty(5), generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt])
def test_an_exception_ends_it(error: type[BaseException]) -> None:
    @wi.patched(draws="ours")
    def raises() -> None:
        assert is_ours()
        raise error

    with pytest.raises(error):
        raises()
    assert not is_ours()


def test_ctrl_c_while_entering(monkeypatch: pytest.MonkeyPatch) -> None:
    put = patching._draws.put

    def interrupted() -> None:
        put()
        raise KeyboardInterrupt

    monkeypatch.setattr(patching._draws, "put", interrupted)
    with wi.patched():
        with pytest.raises(KeyboardInterrupt), wi.patched(draws="ours"):
            raise AssertionError("entered")
        assert torch.randn is randn


def test_other_threads_get_torchs() -> None:
    seen: list[bool] = []

    def draw() -> None:
        generator = torch.Generator().manual_seed(3)
        torchs = torch.randn(5, generator=generator)
        with wi.patched(draws="ours", generators="ours"):
            ours = torch.randn(5, generator=generator.manual_seed(3))
        again = torch.randn(5, generator=generator.manual_seed(3))
        seen.append(torch.equal(torchs, again) and not torch.equal(ours, torchs))

    def plain() -> None:
        seen.append(not is_ours())

    with wi.patched(draws="ours"):
        thread = threading.Thread(target=plain)
        thread.start()
        thread.join()
        assert is_ours()
    threads = [threading.Thread(target=draw) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [True] * 9


def test_whoever_binds_a_name_inside_gets_torchs_afterwards() -> None:
    with wi.patched(draws="ours"):
        bound = torch.randn
        assert is_ours(lambda: bound(5))
    assert not is_ours(lambda: bound(5))


def test_what_others_put_there_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def theirs(*args: Any, **kwargs: Any) -> Tensor:
        return torch.zeros(1)

    with monkeypatch.context() as changed:
        changed.setattr(torch, "randn", theirs)
        with wi.patched(draws="ours"):
            assert torch.randn is theirs
    with wi.patched(draws="ours"):
        torch.randn = theirs
    assert torch.randn is theirs
    torch.randn = randn


def test_deferred_records_its_own() -> None:
    with wi.patched(draws="ours"), wi.deferred() as recorded:
        net = nn.Linear(2, 2, bias=False)
        net.scale = nn.Parameter(torch.randn(3) * 0.5)
    assert net.scale.is_meta
    assert recorded.plan(net, seed=0)["scale"][0].distribution == Normal(0.0, 0.5)


def test_the_report_counts_them_as_filled() -> None:
    with wi.patched(draws="ours", report=True) as report:
        net = nn.Linear(2, 2)
        net.token = nn.Parameter(torch.randn(1, 2) * 0.02)
        net.table = nn.Parameter(torch.rand_like(net.weight) / 3)
        net.fixed = nn.Parameter(torch.randn(2, generator=torch.Generator()))
    seen = report.of(net)
    assert set(seen.filled) == {"weight", "bias", "token", "table"}
    assert seen.drawn == {"fixed": "torch.randn"}


def noise(x: Tensor) -> Tensor:
    return x + torch.randn(5)


def test_torch_compile_keeps_torchs() -> None:
    torch._dynamo.reset()
    compiled = torch.compile(noise, backend="aot_eager", fullgraph=True)
    with wi.patched(draws="ours"):
        assert is_ours(lambda: noise(torch.zeros(5)))
        assert not is_ours(lambda: compiled(torch.zeros(5)))
    assert not is_ours(lambda: compiled(torch.zeros(5)))
    torch._dynamo.reset()


def test_torchscript_keeps_torchs() -> None:
    with wi.patched(draws="ours"):
        scripted = torch.jit.script(noise)
        assert not is_ours(lambda: scripted(torch.zeros(5)))


def test_draws_must_be_known() -> None:
    with pytest.raises(ValueError, match=r'patched: draws must be "torch" or "ours", got True'):
        wi.patched(draws=True)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r'patch: draws must be "torch" or "ours", got None'):
        wi.patch(draws=None)  # type: ignore[arg-type]
